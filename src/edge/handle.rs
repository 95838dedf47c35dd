//! A pipeline that runs: its thread, and what can be asked of it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::Mutex;

use super::fault::{Fault, Why};
use super::gauge::{Gauges, Numbers};
use super::options::{Backoff, Options};
use super::run::Run;
use super::sink::Sink;
use super::source::Source;
use super::stage::{Stage, Swap};
use super::then::Boxed;
use crate::trace;

/// How a pipeline is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// It runs.
    Up,
    /// It pulls nothing, because it was told so. What is under way is settled.
    Paused,
    /// Something has failed that may go away by itself.
    Retrying {
        /// How often it has failed in a row.
        tries: u32,
        /// What is wrong.
        why: Why,
    },
    /// It has ended as it should: the source has no more, or it was stopped.
    Ended {
        /// Is everything that was pulled settled? What is not comes again in the next life.
        settled: bool,
    },
    /// It has failed for good: nothing moves any more.
    Down(Why),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Paused => f.write_str("paused"),
            Self::Retrying { tries, why } => write!(f, "trying again ({tries}): {why}"),
            Self::Ended { settled: true } => f.write_str("ended"),
            Self::Ended { settled: false } => f.write_str("ended before all was settled"),
            Self::Down(why) => write!(f, "down: {why}"),
        }
    }
}

/// What is known of a pipeline outside of its thread.
pub(super) struct Shared {
    pub name: Arc<str>,
    pub health: Mutex<Health>,
    pub gauges: Arc<Gauges>,
}

impl Shared {
    fn is(&self, health: Health) {
        *self.health.lock() = health;
    }
}

/// What a pipeline is told.
enum Command {
    Pause,
    GoOn,
    Stop,
    Swap { name: Box<str>, stage: Box<dyn Any + Send>, done: Sender<Swap> },
    Quiet { done: Sender<()> },
}

/// A pipeline that runs. Dropping it stops the pipeline, and waits for that.
pub struct Handle {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, health) = (&self.shared.name, self.health());
        f.debug_struct("Handle")
            .field("name", name)
            .field("health", &health)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.shared.health.lock().clone()
    }

    /// What was counted.
    pub fn numbers(&self) -> Numbers {
        self.shared.gauges.read()
    }

    /// What is counted, to be read at any time, also when the handle is gone.
    pub fn gauges(&self) -> &Arc<Gauges> {
        &self.shared.gauges
    }

    /// Pulls nothing from now on. What is under way is settled.
    pub fn pause(&self) {
        self.say(Command::Pause);
    }

    /// Pulls again.
    pub fn resume(&self) {
        self.say(Command::GoOn);
    }

    /// Lets go of all that was pulled and waits until it is settled, at most `limit`. `false`: it
    /// is not yet, or the pipeline has ended.
    pub fn settle(&self, limit: Duration) -> bool {
        let (done, quiet) = bounded(1);
        self.say(Command::Quiet { done });
        quiet.recv_timeout(limit).is_ok()
    }

    /// Puts `stage` in the place of the one called `name`, between two batches: what is under way
    /// goes through the old one and is settled first, and the new one takes over its state if it
    /// can. Waits for that; `None` where the pipeline has ended before.
    pub fn swap<In: 'static, Out: 'static>(
        &self,
        name: &str,
        stage: impl Stage<In = In, Out = Out> + Send + 'static,
    ) -> Option<Swap> {
        let boxed: Boxed<In, Out> = Box::new(stage);
        let (done, swapped) = bounded(1);
        self.say(Command::Swap { name: name.into(), stage: Box::new(boxed), done });
        swapped.recv().ok()
    }

    /// Stops: pulls no more, lets go of what is held and waits until that is settled, for
    /// [`Options::stop_limit`] at most. What is not settled then comes again in the next life.
    pub fn stop(&self) {
        self.say(Command::Stop);
    }

    /// Waits until the pipeline has ended.
    ///
    /// # Errors
    /// Why it went down.
    pub fn join(mut self) -> Result<Health, Why> {
        self.wait();
        match self.health() {
            Health::Down(why) => Err(why),
            health => Ok(health),
        }
    }

    fn say(&self, command: Command) {
        // A pipeline that has ended hears nothing; its health says so.
        drop(self.commands.send(command));
    }

    fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It catches its panics, and says so in its health.
            drop(thread.join());
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
        self.wait();
    }
}

/// Starts the thread of a pipeline.
pub(super) fn spawn<S, C, K>(
    run: Run<S, C, K>,
    (name, gauges): (Arc<str>, Arc<Gauges>),
    options: Options,
) -> Result<Handle, Fault>
where
    S: Source + Send + 'static,
    S::Item: Send,
    C: Stage<In = S::Item> + Send + 'static,
    C::Out: Send,
    K: Sink<Item = C::Out> + Send + 'static,
{
    let (commands, heard) = unbounded();
    let shared = Arc::new(Shared { name, health: Mutex::new(Health::Up), gauges });
    let known = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("annals-edge".to_owned())
        .spawn(move || {
            let backoff = Backoff::new(options.seed);
            let mut guard = Guard { shared: Arc::clone(&known), ended: false };
            let aim = Aim::default();
            let mut life = Life { run, heard, shared: known, options, backoff, aim, tries: 0 };
            let ended = catch_unwind(AssertUnwindSafe(|| life.run()));
            let health = match ended {
                Ok(Ok(settled)) => Health::Ended { settled },
                Ok(Err(why)) => Health::Down(why),
                Err(panic) => Health::Down(Why::Panicked(words(&*panic))),
            };
            // Dropping somebody's source or sink may panic too.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(life)));
            let health = match (health, dropped) {
                (Health::Ended { .. }, Err(panic)) => Health::Down(Why::Panicked(words(&*panic))),
                (health, _) => health,
            };
            guard.end(health);
        })
        .map_err(|error| Fault::fatal(Why::from(error).within("starting a thread")))?;
    Ok(Handle { shared, commands, thread: Some(thread) })
}

/// Runs a pipeline on this thread, until its source has no more.
pub(super) fn run_here<S, C, K>(
    run: Run<S, C, K>,
    (name, gauges): (Arc<str>, Arc<Gauges>),
    options: Options,
) -> Result<bool, Why>
where
    S: Source,
    C: Stage<In = S::Item>,
    K: Sink<Item = C::Out>,
{
    // Nobody tells it anything; the end that could is kept until it is over.
    let (_commands, heard) = unbounded();
    let shared = Arc::new(Shared { name, health: Mutex::new(Health::Up), gauges });
    let mut guard = Guard { shared: Arc::clone(&shared), ended: false };
    let backoff = Backoff::new(options.seed);
    let aim = Aim::default();
    let ended = Life { run, heard, shared, options, backoff, aim, tries: 0 }.run();
    guard.end(match &ended {
        Ok(settled) => Health::Ended { settled: *settled },
        Err(why) => Health::Down(why.clone()),
    });
    ended
}

/// Says how a pipeline has ended, whatever ends its thread.
struct Guard {
    shared: Arc<Shared>,
    ended: bool,
}

impl Guard {
    fn end(&mut self, health: Health) {
        let name = &self.shared.name;
        match &health {
            Health::Down(why) => trace::PipelineDown { pipeline: name, error: why }.tell(),
            health => trace::PipelineEnded { pipeline: name, how: health }.tell(),
        }
        self.shared.is(health);
        self.ended = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Health::Down(Why::Panicked("its thread has ended".into())));
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> Arc<str> {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words").into()
}

/// A stage that is to take another's place, and who wants to know.
type Exchange = (Box<str>, Box<dyn Any + Send>, Sender<Swap>);

/// What a pipeline was told and has not done yet.
#[derive(Default)]
struct Aim {
    paused: bool,
    /// By when it is to have stopped.
    stop_by: Option<Duration>,
    swaps: Vec<Exchange>,
    quiets: Vec<Sender<()>>,
}

/// A pipeline on its thread.
struct Life<S: Source, C: Stage<In = S::Item>, K> {
    run: Run<S, C, K>,
    heard: Receiver<Command>,
    shared: Arc<Shared>,
    options: Options,
    backoff: Backoff,
    aim: Aim,
    tries: u32,
}

impl<S, C, K> Life<S, C, K>
where
    S: Source,
    C: Stage<In = S::Item>,
    K: Sink<Item = C::Out>,
{
    /// Runs until the source ends, or it is told to stop. Answers whether all is settled.
    fn run(&mut self) -> Result<bool, Why> {
        trace::PipelineBegun { pipeline: &self.shared.name }.tell();
        loop {
            while let Ok(command) = self.heard.try_recv() {
                self.hear(command);
            }
            let aim = &self.aim;
            let quieting = aim.stop_by.is_some() || !aim.swaps.is_empty() || !aim.quiets.is_empty();
            self.run.quieting = quieting || self.run.ended;
            let over = self.aim.stop_by.is_some_and(|by| self.options.clock.monotonic() >= by);
            match self.run.turn(!self.aim.paused, self.options.wait) {
                Ok(turned) => {
                    if self.tries > 0 {
                        self.tries = 0;
                        self.well();
                    }
                    if turned.quiet && self.quiet()? {
                        return Ok(true);
                    }
                    if let Some(rest) = turned.rest {
                        self.wait(rest);
                    }
                }
                Err(Fault::Retry { after, why }) => self.failed(after, why)?,
                Err(Fault::Fatal(why)) => return Err(why),
                Err(Fault::Poison { pos, why }) => {
                    return Err(Why::Poison { pos, why: Arc::new(why) });
                }
            }
            if over {
                return Ok(false);
            }
        }
    }

    fn well(&self) {
        self.shared.is(if self.aim.paused { Health::Paused } else { Health::Up });
    }

    fn hear(&mut self, command: Command) {
        match command {
            Command::Pause | Command::GoOn => {
                self.aim.paused = matches!(command, Command::Pause);
                if self.tries == 0 {
                    self.well();
                }
            }
            Command::Stop => {
                let by = self.options.clock.monotonic().saturating_add(self.options.stop_limit);
                self.aim.stop_by.get_or_insert(by);
            }
            Command::Swap { name, stage, done } => self.aim.swaps.push((name, stage, done)),
            Command::Quiet { done } => self.aim.quiets.push(done),
        }
    }

    /// All that was pulled is settled: what waited for that is done. Is it the end?
    fn quiet(&mut self) -> Result<bool, Why> {
        for (name, stage, done) in std::mem::take(&mut self.aim.swaps) {
            let mut stage = Some(stage);
            let swapped = self.run.drive().chain().swap(&name, &mut stage);
            let emptied = swapped == Swap::Emptied;
            trace::StageSwapped { pipeline: &self.shared.name, stage: &name, emptied }.tell();
            self.run.swapped().map_err(|fault| fault.why().clone())?;
            // Who has asked may be gone.
            done.send(swapped).unwrap_or_default();
        }
        for done in std::mem::take(&mut self.aim.quiets) {
            done.send(()).unwrap_or_default();
        }
        Ok(self.aim.stop_by.is_some() || self.run.ended)
    }

    /// Waits until it is tried again, or until something else is to be done.
    fn failed(&mut self, after: Duration, why: Why) -> Result<(), Why> {
        self.tries = self.tries.saturating_add(1);
        self.shared.gauges.retried();
        let tries = self.tries;
        trace::PipelineRetrying { pipeline: &self.shared.name, tries: tries.into(), error: &why }
            .tell();
        if self.options.tries_max.is_some_and(|max| tries > max) {
            return Err(Why::GivenUp { tries, last: Arc::new(why) });
        }
        self.shared.is(Health::Retrying { tries, why });
        let wait = self.backoff.wait(tries, &self.options).max(after);
        self.wait(wait);
        Ok(())
    }

    /// Waits, and hears what it is told meanwhile; a stop ends the wait at its limit.
    fn wait(&mut self, wait: Duration) {
        let clock = self.options.clock.clone();
        let until = clock.monotonic().saturating_add(wait);
        loop {
            let until = self.aim.stop_by.map_or(until, |by| by.min(until));
            let left = until.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return;
            }
            match self.heard.recv_timeout(left) {
                Ok(command) => {
                    let paused = self.aim.paused;
                    self.hear(command);
                    if paused && self.tries == 0 {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return,
                // The handle tells it to stop before it goes.
                Err(RecvTimeoutError::Disconnected) => {
                    self.aim.stop_by.get_or_insert(clock.monotonic());
                    return;
                }
            }
        }
    }
}
