//! Freshness: until when what is remembered of a domain may be served as fresh, read at every hit.
//!
//! A hit must not cost a lock or a system call, so both halves of the question are atomics: the
//! time, in a [`BootClock`] that a ticker moves, and what is proven, in a [`Freshness`] that the
//! node writes. Times are of `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
//!
//! **The clock lags, never leads**, by one period of its ticker at most, and that period is taken
//! off the lease: a hit is called fresh only while `as_of + lease` lies a whole period ahead. A
//! ticker that comes late lengthens the bound by as much as it was late, as any pause between a
//! check and the use of its answer does; [`BootClock::late_max`] says by how much, and the node
//! drops its leases when that is more than the rules allow.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use rustix::time::{ClockId, clock_gettime};

/// As many as a `u64` holds, which is 584 years.
pub(crate) fn nanos(of: Duration) -> u64 {
    u64::try_from(of.as_nanos()).unwrap_or(u64::MAX)
}

/// Time since the machine started, asleep or not, now.
pub fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Time since the machine started, as of its last tick. Read by one load.
///
/// Whoever holds a [`Ticker`] of it lets it run; without one it stands until it is moved, which is
/// what tests want.
#[derive(Debug, Default)]
pub struct BootClock {
    nanos: AtomicU64,
    /// How much the clock may lag behind.
    period: AtomicU64,
    late_max: AtomicU64,
}

impl BootClock {
    /// A clock that stands at `at` until it is moved.
    pub fn at(at: Duration) -> Arc<Self> {
        let clock = Self::default();
        clock.nanos.store(nanos(at), Ordering::Relaxed);
        Arc::new(clock)
    }

    /// As of the last tick, in nanoseconds.
    #[inline]
    pub fn nanos(&self) -> u64 {
        // Relaxed: a number of its own, nothing is read by virtue of it.
        self.nanos.load(Ordering::Relaxed)
    }

    /// As of the last tick.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos())
    }

    /// Moves it to `to`; never back.
    pub fn advance_to(&self, to: Duration) {
        self.nanos.fetch_max(nanos(to), Ordering::Relaxed);
    }

    /// How much it may lag behind, while its ticker is on time; zero without one.
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.period.load(Ordering::Relaxed))
    }

    /// By how much its ticker was late at most since this was last asked.
    pub fn late_max(&self) -> Duration {
        Duration::from_nanos(self.late_max.swap(0, Ordering::Relaxed))
    }
}

/// The thread that lets a [`BootClock`] run; it ends when this is dropped.
#[derive(Debug)]
pub struct Ticker {
    clock: Arc<BootClock>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// A clock that is moved every `period`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(period: Duration) -> std::io::Result<Self> {
        let clock = BootClock::at(boot_time());
        clock.period.store(nanos(period), Ordering::Relaxed);
        let (stop, stopped) = bounded::<()>(0);
        let ticked = Arc::clone(&clock);
        let run = move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                let now = boot_time();
                let late = now.saturating_sub(ticked.now()).saturating_sub(period);
                ticked.late_max.fetch_max(nanos(late), Ordering::Relaxed);
                ticked.advance_to(now);
            }
        };
        let thread = std::thread::Builder::new().name("annals-clock".to_owned()).spawn(run)?;
        Ok(Self { clock, stop: Some(stop), thread: Some(thread) })
    }

    /// What it moves.
    pub fn clock(&self) -> &Arc<BootClock> {
        &self.clock
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It calls nobody's code, and cannot have panicked.
            drop(thread.join());
        }
    }
}

/// Whether what is remembered of a domain may be served as fresh.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It was so no longer ago than the lease says.
    Fresh,
    /// It is only known to have been so this long ago; [`Duration::MAX`]: not at all.
    Stale(Duration),
}

/// What is proven of one domain: one per domain and node, written by the node, read at every hit.
pub struct Freshness {
    clock: Arc<BootClock>,
    /// The lease, nanoseconds.
    lease: u64,
    /// Up to when everything that was written is known here, boot time in nanoseconds; 0: of
    /// nothing is that known; `u64::MAX`: of nobody but this node is anything to be known.
    as_of: AtomicU64,
    /// Until when that is fresh, what the clock may lag taken off: what a hit compares.
    until: AtomicU64,
}

impl fmt::Debug for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Freshness").field("lease", &self.check()).finish_non_exhaustive()
    }
}

impl Freshness {
    /// Of a domain whose changes are told within `lease`. Nothing is proven yet.
    pub fn new(clock: Arc<BootClock>, lease: Duration) -> Arc<Self> {
        let (as_of, until) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { clock, lease: nanos(lease), as_of, until })
    }

    /// Of a domain that nobody else writes.
    pub fn always(clock: Arc<BootClock>) -> Arc<Self> {
        let (as_of, until) = (AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
        Arc::new(Self { clock, lease: u64::MAX, as_of, until })
    }

    /// The node says: whatever any writer of the domain had written before `as_of` is applied
    /// here. `None`: that is not known any more, or of a new writer not yet.
    pub fn set(&self, as_of: Option<Duration>) {
        let as_of = as_of.map_or(0, nanos);
        let period = self.clock.period.load(Ordering::Relaxed);
        let until = match as_of {
            0 => 0,
            as_of => as_of.saturating_add(self.lease).saturating_sub(period),
        };
        self.as_of.store(as_of, Ordering::Relaxed);
        // Release: pairs with the Acquire in `check`. A hit that sees the proof also sees the
        // tokens applied on which it rests.
        self.until.store(until, Ordering::Release);
    }

    /// May what is remembered be served as fresh?
    #[inline]
    pub fn check(&self) -> Lease {
        let until = self.until.load(Ordering::Acquire);
        let now = self.clock.nanos();
        if now <= until { Lease::Fresh } else { self.stale(now) }
    }

    #[cold]
    fn stale(&self, now: u64) -> Lease {
        match self.as_of.load(Ordering::Relaxed) {
            0 => Lease::Stale(Duration::MAX),
            as_of => {
                // The clock lags by a period at most.
                let period = self.clock.period.load(Ordering::Relaxed);
                let age = now.saturating_sub(as_of).saturating_add(period);
                Lease::Stale(Duration::from_nanos(age))
            }
        }
    }

    /// How old something fresh may be.
    pub const fn lease(&self) -> Duration {
        Duration::from_nanos(self.lease)
    }

    /// Whose time it reads.
    pub const fn clock(&self) -> &Arc<BootClock> {
        &self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn fresh_ends_when_the_lease_does_and_not_before() {
        let clock = BootClock::at(1_000 * MS);
        let freshness = Freshness::new(Arc::clone(&clock), 50 * MS);
        assert_eq!(freshness.check(), Lease::Stale(Duration::MAX), "nothing was proven");
        freshness.set(Some(990 * MS));
        for now in 1_000..=1_040 {
            clock.advance_to(now * MS);
            assert_eq!(freshness.check(), Lease::Fresh, "at {now}");
        }
        clock.advance_to(1_041 * MS);
        assert_eq!(freshness.check(), Lease::Stale(51 * MS));
        freshness.set(Some(1_041 * MS));
        assert_eq!(freshness.check(), Lease::Fresh);
        freshness.set(None);
        assert_eq!(freshness.check(), Lease::Stale(Duration::MAX));
    }

    #[test]
    fn what_the_clock_may_lag_is_taken_off_the_lease() {
        let clock = BootClock::at(1_000 * MS);
        clock.period.store(nanos(5 * MS), Ordering::Relaxed);
        let freshness = Freshness::new(Arc::clone(&clock), 50 * MS);
        freshness.set(Some(999 * MS));
        clock.advance_to(1_044 * MS);
        assert_eq!(freshness.check(), Lease::Fresh, "it is 1049 at most");
        clock.advance_to(1_045 * MS);
        assert_eq!(freshness.check(), Lease::Stale(51 * MS));
    }

    #[test]
    fn a_clock_with_a_ticker_runs_behind_the_machines_and_ends_with_it() {
        let ticker = Ticker::start(MS).expect("a thread");
        let clock = Arc::clone(ticker.clock());
        let first = clock.nanos();
        while clock.nanos() == first {
            std::thread::yield_now();
        }
        assert!(clock.now() <= boot_time());
        drop(ticker);
        let last = clock.nanos();
        assert_eq!(clock.nanos(), last);
        assert_eq!(Arc::strong_count(&clock), 1, "its thread is gone");
    }
}
