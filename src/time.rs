//! Clocks, handed in as values so that a test can own time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::types::HybridTime;

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// A test's: it stands until it is moved.
    Manual(Arc<ManualClock>),
}

/// A clock that moves when told to.
#[derive(Default)]
pub struct ManualClock {
    nanos: AtomicU64,
    /// Who wants to know that it has moved, as long as they answer so.
    watchers: Mutex<Vec<Watcher>>,
}

/// Told that time has moved; `false` if it need not be told again.
type Watcher = Box<dyn Fn() -> bool + Send + Sync>;

impl std::fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManualClock").field("nanos", &self.nanos).finish_non_exhaustive()
    }
}

impl ManualClock {
    /// A clock that stands at `millis` since the Unix epoch.
    pub fn at_millis(millis: u64) -> Arc<Self> {
        let nanos = AtomicU64::new(millis.saturating_mul(1_000_000));
        Arc::new(Self { nanos, watchers: Mutex::default() })
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.watchers.lock().retain(|watcher| watcher());
    }

    /// Calls `watcher` each time that it has moved, under a lock of the clock's.
    pub(crate) fn watch(&self, watcher: Watcher) {
        self.watchers.lock().push(watcher);
    }
}

impl Clock {
    /// Milliseconds since the Unix epoch, at the resolution of the kernel's tick (1 to 10 ms):
    /// it orders nothing by itself, [`HybridTime`] does.
    pub fn wall_ms(&self) -> u64 {
        match self {
            Self::System => {
                let now = clock_gettime(ClockId::RealtimeCoarse);
                let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
                let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
                seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
            }
            Self::Manual(clock) => clock.nanos.load(Ordering::Relaxed) / 1_000_000,
        }
    }

    /// Time since some fixed moment; never goes back.
    pub fn monotonic(&self) -> Duration {
        match self {
            Self::System => monotonic(ClockId::Monotonic),
            Self::Manual(clock) => Duration::from_nanos(clock.nanos.load(Ordering::Relaxed)),
        }
    }

    /// Like [`monotonic`](Self::monotonic) at the kernel's tick, at a fraction of the price.
    pub fn monotonic_coarse(&self) -> Duration {
        match self {
            Self::System => monotonic(ClockId::MonotonicCoarse),
            Self::Manual(_) => self.monotonic(),
        }
    }

    /// The wall clock as a hybrid time; who orders events by it takes care that it increases.
    #[inline]
    pub(crate) fn hybrid(&self) -> HybridTime {
        HybridTime::from_millis(self.wall_ms())
    }

    /// The next hybrid time after `last`: the wall clock's, or one more where that stands still.
    pub(crate) fn hybrid_after(&self, last: HybridTime) -> HybridTime {
        self.hybrid().max(last.next())
    }
}

fn monotonic(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_time_increases_while_the_wall_clock_stands_or_goes_back() {
        let clock = Clock::Manual(ManualClock::at_millis(1_000));
        let first = clock.hybrid_after(HybridTime::default());
        let second = clock.hybrid_after(first);
        let ahead = HybridTime::from_millis(5_000);
        assert_eq!(first.millis(), 1_000);
        assert!(first < second);
        assert!(ahead < clock.hybrid_after(ahead));
    }
}
