//! How much: what is measured each time that it happens, for the crate `metrics` where the feature
//! of that name is on. Without it nothing is measured and every call here is empty.
//!
//! Whoever does slow work notes how long it took, or how large it was, on a [`Meter`]: a number in
//! a list. The thread that publishes (`store/publish.rs`, where all that is merely counted is, too)
//! takes the list and hands it to the recorder. So no recorder, which is anybody's code, is ever
//! called on the path of an append, a commit or a turn.
//!
//! `docs/observe.md` has the table of all names; `tests/observe` compares it with what a recorder
//! is told. Something new to measure is a [`Measure`] here, a row there, and a call where it
//! happens.

use std::time::Duration;

#[cfg(feature = "metrics")]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(feature = "metrics")]
use ::metrics::Unit;
#[cfg(feature = "metrics")]
use parking_lot::Mutex;

use crate::time::Clock;

/// What is measured.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Commit,
    CommitBytes,
    CommitFrames,
    Sync,
    Segment,
    Compaction,
    Snapshot,
    SnapshotBytes,
    Load,
    LoadEvents,
    Open,
    TimerLate,
}

/// How a measure is published.
#[cfg(feature = "metrics")]
#[derive(Copy, Clone, Debug)]
pub(crate) struct Described {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    /// What tells its values apart, besides the store and the log; empty: nothing.
    pub(crate) label: &'static str,
    pub(crate) meaning: &'static str,
}

#[cfg(feature = "metrics")]
impl Measure {
    pub(crate) const ALL: [Self; 12] = [
        Self::Commit,
        Self::CommitBytes,
        Self::CommitFrames,
        Self::Sync,
        Self::Segment,
        Self::Compaction,
        Self::Snapshot,
        Self::SnapshotBytes,
        Self::Load,
        Self::LoadEvents,
        Self::Open,
        Self::TimerLate,
    ];

    pub(crate) const fn described(self) -> Described {
        let (name, unit, label, meaning) = match self {
            Self::Commit => (
                "annals_commit_seconds",
                Unit::Seconds,
                "",
                "from the beginning of a commit to the durable mark",
            ),
            Self::CommitBytes => {
                ("annals_commit_bytes", Unit::Bytes, "", "what a commit made durable")
            }
            Self::CommitFrames => (
                "annals_commit_frames",
                Unit::Count,
                "",
                "frames appended from one commit to the next: the size of a group",
            ),
            Self::Sync => ("annals_sync_seconds", Unit::Seconds, "", "one fdatasync of a segment"),
            Self::Segment => (
                "annals_segment_seconds",
                Unit::Seconds,
                "how",
                "making a segment ahead; how: made, recycled",
            ),
            Self::Compaction => {
                ("annals_compaction_seconds", Unit::Seconds, "", "making one run of old pieces")
            }
            Self::Snapshot => {
                ("annals_snapshot_seconds", Unit::Seconds, "", "storing one snapshot")
            }
            Self::SnapshotBytes => {
                ("annals_snapshot_bytes", Unit::Bytes, "", "size of a stored state")
            }
            Self::Load => (
                "annals_load_seconds",
                Unit::Seconds,
                "kind",
                "reading one actor: its snapshot, and the events after it",
            ),
            Self::LoadEvents => {
                ("annals_load_events", Unit::Count, "kind", "events that were read for it")
            }
            Self::Open => (
                "annals_open_seconds",
                Unit::Seconds,
                "phase",
                "opening a store; phase: lock, events, snapshots, begin, start",
            ),
            Self::TimerLate => (
                "annals_timer_late_seconds",
                Unit::Seconds,
                "kind",
                "from when a timer was due to when its actor begins to handle it",
            ),
        };
        Described { name, unit, label, meaning }
    }
}

/// One value.
#[cfg(feature = "metrics")]
#[derive(Copy, Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) measure: Measure,
    /// The value of [`Described::label`].
    pub(crate) label: &'static str,
    pub(crate) value: f64,
}

/// Where values wait for who publishes them. Its lock is held for a push, and nothing is locked
/// under it: a value may be added anywhere.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    #[cfg(feature = "metrics")]
    watched: AtomicBool,
    #[cfg(feature = "metrics")]
    samples: Mutex<Vec<Sample>>,
    #[cfg(feature = "metrics")]
    lost: AtomicU64,
}

#[cfg(feature = "metrics")]
impl Meter {
    /// The most that waits: what comes meanwhile is counted and not kept.
    const MAX: usize = 1 << 14;

    /// Somebody publishes: from now on it is measured.
    pub(crate) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Does anybody publish it?
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        // Relaxed: a value more or less.
        self.watched.load(Ordering::Relaxed)
    }

    /// Something begins.
    pub(crate) fn began(&self, clock: &Clock) -> Option<Duration> {
        self.is_watched().then(|| clock.monotonic())
    }

    /// It has ended.
    pub(crate) fn took(
        &self,
        (measure, label): (Measure, &'static str),
        clock: &Clock,
        began: Option<Duration>,
    ) {
        if let Some(began) = began {
            self.add_time(measure, label, clock.monotonic().saturating_sub(began));
        }
    }

    /// It took so long.
    pub(crate) fn add_time(&self, measure: Measure, label: &'static str, took: Duration) {
        self.push(Sample { measure, label, value: took.as_secs_f64() });
    }

    /// It was so large.
    pub(crate) fn add(&self, measure: Measure, label: &'static str, value: u64) {
        self.push(Sample { measure, label, value: float(value) });
    }

    fn push(&self, sample: Sample) {
        if !self.is_watched() {
            return;
        }
        let mut samples = self.samples.lock();
        if samples.len() < Self::MAX {
            samples.push(sample);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All that waits.
    pub(crate) fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut *self.samples.lock())
    }

    /// How many values were not kept.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(not(feature = "metrics"))]
#[expect(clippy::unused_self, reason = "as where something is measured")]
impl Meter {
    #[inline]
    pub(crate) const fn is_watched(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn began(&self, _clock: &Clock) -> Option<Duration> {
        None
    }

    #[inline]
    pub(crate) const fn took(
        &self,
        _what: (Measure, &'static str),
        _clock: &Clock,
        _began: Option<Duration>,
    ) {
    }

    #[inline]
    pub(crate) const fn add_time(&self, _measure: Measure, _label: &'static str, _: Duration) {}

    #[inline]
    pub(crate) const fn add(&self, _measure: Measure, _label: &'static str, _value: u64) {}
}

/// How long the parts of one work take.
#[derive(Debug)]
pub(crate) struct Phases {
    #[cfg(feature = "metrics")]
    clock: Clock,
    #[cfg(feature = "metrics")]
    since: Duration,
    #[cfg(feature = "metrics")]
    pub(crate) took: Vec<(&'static str, Duration)>,
}

#[cfg(feature = "metrics")]
impl Phases {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), since: clock.monotonic(), took: Vec::new() }
    }

    /// The part of that name has ended, and the next begins.
    pub(crate) fn ended(&mut self, name: &'static str) {
        let now = self.clock.monotonic();
        self.took.push((name, now.saturating_sub(self.since)));
        self.since = now;
    }
}

#[cfg(not(feature = "metrics"))]
#[expect(clippy::unused_self, reason = "as where something is measured")]
impl Phases {
    #[inline]
    pub(crate) const fn new(_clock: &Clock) -> Self {
        Self {}
    }

    #[inline]
    pub(crate) const fn ended(&mut self, _name: &'static str) {}
}

/// A number as recorders take it; beyond 2^53 not to the last digit.
#[cfg(feature = "metrics")]
#[expect(clippy::cast_precision_loss, reason = "nobody looks at the last of 16 digits")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_measured_for_nobody_and_what_is_too_much_is_counted() {
        let meter = Meter::default();
        meter.add(Measure::LoadEvents, "account", 1);
        assert!(meter.began(&Clock::System).is_none());
        assert!(meter.take().is_empty());
        meter.watch();
        for number in 0..Meter::MAX as u64 + 5 {
            meter.add(Measure::LoadEvents, "account", number);
        }
        assert_eq!((meter.take().len(), meter.lost()), (Meter::MAX, 5));
        assert!(meter.take().is_empty());
    }
}
