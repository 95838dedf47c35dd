//! A source on a thread of its own, with a bounded channel behind it: source and sink overlap.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{
    Receiver, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, bounded, unbounded,
};

use super::fault::{Fault, Why};
use super::pos::{Gap, Mark, Pos};
use super::source::{Flow, Give, Resume, Source};

/// How long the thread waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// Records that are pulled from the source at a time.
const PULL_MAX: usize = 256;

/// A source on a thread of its own. See [`buffered`].
pub struct Buffered<S: Source> {
    /// Before it is first asked for anything.
    source: Option<(S, usize)>,
    running: Option<Running<S::Item>>,
}

impl<S: Source> fmt::Debug for Buffered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.is_some();
        f.debug_struct("Buffered").field("running", &running).finish_non_exhaustive()
    }
}

struct Running<T> {
    told: Receiver<Told<T>>,
    orders: Sender<Order>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// What the source said that does not come with records.
    faulted: bool,
    ended: bool,
}

/// What the thread tells.
enum Told<T> {
    Record(Mark, T),
    Gap(Gap),
    Fault(Fault),
    Sought(Result<Resume, Fault>),
    End,
}

/// What the thread is told. There are no more of these than the pipeline makes turns, and most are
/// of the last kind, of which only the last counts.
enum Order {
    Seek(Option<Mark>),
    GoOn,
    Done(Pos),
}

/// Lets `source` run ahead on a thread of its own, by at most `max` records (at least 1) and one
/// pull. What has been pulled and not settled comes again after a crash, as without.
pub fn buffered<S: Source>(source: S, max: usize) -> Buffered<S> {
    Buffered { source: Some((source, max.max(1))), running: None }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        // Relaxed: a request to end soon.
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the source was told already, or nobody asks any more.
            drop(thread.join());
        }
    }
}

/// The thread's end of it.
struct Pump<S: Source> {
    source: S,
    tell: Sender<Told<S::Item>>,
    orders: Receiver<Order>,
    stopped: Arc<AtomicBool>,
}

impl<S: Source> Pump<S> {
    fn run(mut self) {
        let mut pulling = false;
        while !self.stopped.load(Ordering::Relaxed) {
            let order = if pulling {
                self.orders.try_recv().map_err(|gone| gone == TryRecvError::Disconnected)
            } else {
                let timeout = |gone| gone == RecvTimeoutError::Disconnected;
                self.orders.recv_timeout(LOOK).map_err(timeout)
            };
            match order {
                Ok(Order::Seek(at)) => {
                    let sought = self.source.seek(at);
                    pulling = sought.is_ok();
                    self.tell(Told::Sought(sought));
                }
                Ok(Order::GoOn) => pulling = true,
                Ok(Order::Done(at)) => {
                    if let Err(fault) = self.source.done(at) {
                        self.tell(Told::Fault(fault));
                        pulling = false;
                    }
                }
                Err(true) => return,
                Err(false) if pulling => pulling = self.pull(),
                Err(false) => {}
            }
        }
    }

    /// Answers whether it may be pulled again.
    fn pull(&mut self) -> bool {
        let mut way = Way { tell: &self.tell, stopped: &self.stopped };
        match self.source.pull(PULL_MAX, LOOK, &mut way) {
            Ok(Flow::More | Flow::Idle) => true,
            Ok(Flow::Gap(gap)) => self.tell(Told::Gap(gap)),
            Ok(Flow::End) => {
                self.tell(Told::End);
                false
            }
            Err(fault) => {
                self.tell(Told::Fault(fault));
                false
            }
        }
    }

    fn tell(&self, told: Told<S::Item>) -> bool {
        Way { tell: &self.tell, stopped: &self.stopped }.send(told)
    }
}

struct Way<'a, T> {
    tell: &'a Sender<Told<T>>,
    stopped: &'a AtomicBool,
}

impl<T> Way<'_, T> {
    /// Waits for room. `false`: nobody wants it any more; it is not settled, and comes again.
    fn send(&self, told: Told<T>) -> bool {
        let mut told = told;
        loop {
            match self.tell.send_timeout(told, LOOK) {
                Ok(()) => return true,
                Err(SendTimeoutError::Disconnected(_)) => return false,
                Err(SendTimeoutError::Timeout(back)) => told = back,
            }
            if self.stopped.load(Ordering::Relaxed) {
                return false;
            }
        }
    }
}

impl<T> Give<T> for Way<'_, T> {
    fn give(&mut self, pos: Pos, item: T) {
        self.send(Told::Record(pos.into(), item));
    }

    fn give_hashed(&mut self, pos: Pos, hash: u64, item: T) {
        self.send(Told::Record(Mark { pos, hash: Some(hash) }, item));
    }
}

impl<S> Buffered<S>
where
    S: Source + Send + 'static,
    S::Item: Send + 'static,
{
    fn running(&mut self) -> Result<&mut Running<S::Item>, Fault> {
        if let Some((source, max)) = self.source.take() {
            let (tell, told) = bounded(max);
            let (orders, ordered) = unbounded();
            let stopped = Arc::new(AtomicBool::new(false));
            let ends = Arc::clone(&stopped);
            let pump = Pump { source, tell, orders: ordered, stopped: ends };
            let thread = std::thread::Builder::new()
                .name("annals-edge-in".to_owned())
                .spawn(move || pump.run())
                .map_err(|error| Fault::fatal(Why::from(error).within("starting a thread")))?;
            let thread = Some(thread);
            let running = Running { told, orders, stopped, thread, faulted: false, ended: false };
            self.running = Some(running);
        }
        self.running.as_mut().ok_or_else(|| Fault::fatal("the source's thread was not started"))
    }
}

impl<T> Running<T> {
    fn order(&self, order: Order) -> Result<(), Fault> {
        self.orders.send(order).map_err(|_unheard| self.gone())
    }

    /// The thread has ended without a word.
    fn gone(&self) -> Fault {
        let words = if self.ended { "it has ended" } else { "the source's thread is gone" };
        Fault::Fatal(Why::Panicked(words.into()))
    }
}

impl<S> Source for Buffered<S>
where
    S: Source + Send + 'static,
    S::Item: Send + 'static,
{
    type Item = S::Item;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        let running = self.running()?;
        running.order(Order::Seek(at))?;
        (running.faulted, running.ended) = (false, false);
        loop {
            match running.told.recv() {
                Ok(Told::Sought(sought)) => return sought,
                // Of before: it comes again.
                Ok(Told::Record(..) | Told::Gap(_) | Told::Fault(_) | Told::End) => {}
                Err(_) => return Err(running.gone()),
            }
        }
    }

    fn pull(
        &mut self,
        max: usize,
        limit: Duration,
        out: &mut dyn Give<S::Item>,
    ) -> Result<Flow, Fault> {
        let running = self.running()?;
        if std::mem::take(&mut running.faulted) {
            running.order(Order::GoOn)?;
        }
        if running.ended {
            return Ok(Flow::End);
        }
        let mut wait = limit;
        for _ in 0..max {
            match running.told.recv_timeout(wait) {
                Ok(Told::Record(Mark { pos, hash: None }, item)) => out.give(pos, item),
                Ok(Told::Record(Mark { pos, hash: Some(hash) }, item)) => {
                    out.give_hashed(pos, hash, item);
                }
                Ok(Told::Gap(gap)) => return Ok(Flow::Gap(gap)),
                Ok(Told::Fault(fault)) => {
                    running.faulted = true;
                    return Err(fault);
                }
                Ok(Told::End) => {
                    running.ended = true;
                    return Ok(Flow::End);
                }
                Ok(Told::Sought(_)) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(Flow::Idle),
                Err(RecvTimeoutError::Disconnected) => return Err(running.gone()),
            }
            wait = Duration::ZERO;
        }
        Ok(Flow::More)
    }

    fn done(&mut self, at: Pos) -> Result<(), Fault> {
        let running = self.running()?;
        if running.ended {
            // The thread is there still, but a source that has ended may be gone in any case.
            drop(running.orders.send(Order::Done(at)));
            return Ok(());
        }
        running.order(Order::Done(at))
    }
}
