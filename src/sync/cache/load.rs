//! Loads: what a loader may say besides the value, how many run at once, and the threads for those
//! that nobody is to wait for.

use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::{Condvar, Mutex};

use crate::sync::cache::marks::TagHash;

/// Loads that may wait for a thread, for each thread.
const QUEUE_EACH: usize = 64;

/// What a loader may say of the value that it brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub(crate) ttl: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) tags: Vec<TagHash>,
    pub(crate) weight: Option<u32>,
    pub(crate) forget: bool,
}

impl Load {
    /// How long it counts, instead of what the cache says.
    pub fn ttl(&mut self, ttl: Duration) -> &mut Self {
        self.ttl = Some(ttl);
        self
    }

    /// After how long without being asked for it ends, instead of what the cache says.
    pub fn idle(&mut self, idle: Duration) -> &mut Self {
        self.idle = Some(idle);
        self
    }

    /// It bears a tag: it ends with a token that names it.
    pub fn tag(&mut self, tag: impl AsRef<[u8]>) -> &mut Self {
        self.tags.push(TagHash::of(tag.as_ref()));
        self
    }

    /// What it weighs, instead of what the cache says.
    pub fn weight(&mut self, weight: u32) -> &mut Self {
        self.weight = Some(weight);
        self
    }

    /// It is for those who ask now, and is not remembered.
    pub fn do_not_remember(&mut self) -> &mut Self {
        self.forget = true;
        self
    }
}

/// Lets so many through at once.
#[derive(Debug)]
pub(crate) struct Gate {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One that was let through.
#[derive(Debug)]
pub(crate) struct Pass<'a>(&'a Gate);

impl Gate {
    pub(crate) const fn new(at_once: usize) -> Self {
        Self { free: Mutex::new(at_once), freed: Condvar::new() }
    }

    pub(crate) fn enter(&self) -> Pass<'_> {
        let mut free = self.free.lock();
        self.freed.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        Pass(self)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that load in the background; joined when this is dropped.
#[derive(Debug)]
pub(crate) struct Pool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = bounded::<Job>(threads * QUEUE_EACH);
        let mut pool = Self { jobs: Some(jobs), threads: Vec::new() };
        for number in 0..threads {
            let queue: Receiver<Job> = queue.clone();
            let run = move || {
                while let Ok(job) = queue.recv() {
                    // A load that panics has said so to who waits for it; the thread goes on.
                    drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)));
                }
            };
            let name = format!("annals-load-{number}");
            pool.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(pool)
    }

    /// `false` if too many wait.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let Some(jobs) = &self.jobs else { return false };
        match jobs.try_send(Box::new(job)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    fn has(&self, thread: ThreadId) -> bool {
        self.threads.iter().any(|own| own.thread().id() == thread)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if self.has(std::thread::current().id()) {
            // The last who had the cache was a load of its own: its thread cannot wait for itself,
            // and ends when it has returned from here.
            return;
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// Random numbers for jitter; one sequence for one seed.
#[derive(Debug)]
pub(crate) struct Jitter {
    share: f64,
    state: Mutex<u64>,
}

impl Jitter {
    pub(crate) const fn new(share: f64, seed: u64) -> Self {
        Self { share, state: Mutex::new(seed) }
    }

    /// `nanos`, less up to the share of it.
    pub(crate) fn shorten(&self, nanos: u64) -> u64 {
        if self.share <= 0.0 {
            return nanos;
        }
        let mut state = self.state.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        drop(state);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let random = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0);
        let less = self.share * (f64::from(random) / f64::from(u32::MAX));
        let duration = Duration::from_nanos(nanos);
        crate::sync::freshness::nanos(duration.saturating_sub(duration.mul_f64(less)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_pass_a_gate_than_it_lets() {
        let gate = Gate::new(2);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _pass = gate.enter();
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(*gate.free.lock(), 2);
    }

    #[test]
    fn jitter_shortens_by_no_more_than_its_share_and_is_the_same_for_one_seed() {
        let (one, other) = (Jitter::new(0.25, 7), Jitter::new(0.25, 7));
        let values: Vec<u64> = (0..1_000).map(|_| one.shorten(1_000_000)).collect();
        assert!(values.iter().all(|value| (749_999..=1_000_000).contains(value)));
        assert!(values.iter().any(|value| *value < 770_000));
        assert!(values.iter().any(|value| *value > 980_000));
        assert_eq!(values, (0..1_000).map(|_| other.shorten(1_000_000)).collect::<Vec<_>>());
        assert_eq!(Jitter::new(0.0, 7).shorten(5), 5);
    }

    #[test]
    fn a_pool_runs_on_after_a_panic_and_ends_with_its_owner() {
        let pool = Pool::start(1).expect("threads");
        let (sender, receiver) = bounded(1);
        assert!(pool.run(|| std::panic::resume_unwind(Box::new("a load fell"))));
        assert!(pool.run(move || sender.send(7).expect("somebody waits")));
        assert_eq!(receiver.recv(), Ok(7));
        drop(pool);
    }
}
