//! When the state of an actor is stored.
//!
//! A policy is asked at the end of each turn and when a state leaves memory, with what there is
//! since the last snapshot; it is a function of that and nothing else.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::Actor;
use super::value::NotArchive;
use crate::types::Seq;

/// When a state is stored. A snapshot is taken by a worker after the reply was handed over; one
/// that could not be stored costs a longer replay and is tried again when the next is due.
///
/// ```
/// use std::time::Duration;
/// use annals::SnapshotPolicy;
/// # use annals::actor::Actor;
/// # #[derive(Default)]
/// # struct Account { closed: bool }
/// # impl Actor for Account {
/// #     type Event = u8;
/// #     const KIND: &'static str = "account";
/// #     fn apply(&mut self, _: &u8) {}
/// # }
/// type Policy = SnapshotPolicy<Account>;
///
/// // Each thousandth event, and when the state leaves memory.
/// let simple = Policy::every(1_000).on_passivate();
/// // When it is closed; and every hour, if there were a hundred events in it.
/// let both = Policy::any([
///     Policy::when(|account, _event| account.closed),
///     Policy::all([Policy::interval(Duration::from_secs(3_600)), Policy::since(100)]),
/// ]);
/// # drop((simple, both));
/// ```
pub struct SnapshotPolicy<A: Actor>(Rule<A>);

enum Rule<A: Actor> {
    Never,
    Every(NonZeroU64),
    Since(NonZeroU64),
    Interval(Duration),
    When(fn(&A, &A::Event) -> bool),
    Passivation,
    Suspension,
    Any(Vec<Self>),
    All(Vec<Self>),
}

/// What a policy is asked about.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Since {
    /// The last event.
    pub(crate) seq: Seq,
    /// The last one that was in a snapshot, or should have been.
    pub(crate) tried: Seq,
    /// Milliseconds since then, if the policy asks for time.
    pub(crate) elapsed_ms: u64,
    /// For which of its predicates there was an event: a bit each.
    pub(crate) seen: u64,
    pub(crate) moment: Moment,
}

/// When a policy is asked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After a turn.
    Turn,
    /// After a turn that ended a burst.
    Suspension,
    /// The state leaves memory.
    Leaving,
}

/// Milliseconds of the wall clock: 48 bits, as in a [`HybridTime`](crate::types::HybridTime), and
/// not aligned, so that small things fit beside them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct WallTime([u8; 6]);

impl WallTime {
    /// The last one that can be told is that of all later ones.
    pub(crate) fn of_ms(ms: u64) -> Self {
        let [b0, b1, b2, b3, b4, b5, ..] = ms.min((1 << 48) - 1).to_le_bytes();
        Self([b0, b1, b2, b3, b4, b5])
    }

    pub(crate) fn ms(self) -> u64 {
        let [b0, b1, b2, b3, b4, b5] = self.0;
        u64::from_le_bytes([b0, b1, b2, b3, b4, b5, 0, 0])
    }
}

impl<A: Actor> SnapshotPolicy<A> {
    /// Only when a turn asks for it with [`Turn::snapshot`](super::Turn::snapshot).
    #[must_use]
    pub const fn manual() -> Self {
        Self(Rule::Never)
    }

    /// Each time that the number of events passes a multiple of `events`; 0 is `manual`. One that
    /// is missing after a load, because the policy was another or a crash came before, is made up
    /// for after the first turn.
    #[must_use]
    pub const fn every(events: u64) -> Self {
        match NonZeroU64::new(events) {
            Some(events) => Self(Rule::Every(events)),
            None => Self(Rule::Never),
        }
    }

    /// When there were at least so many events since the last snapshot; 0 is `manual`. For
    /// [`all`](Self::all) beside one that says when.
    #[must_use]
    pub const fn since(events: u64) -> Self {
        match NonZeroU64::new(events) {
            Some(events) => Self(Rule::Since(events)),
            None => Self(Rule::Never),
        }
    }

    /// At the first turn after `interval` has passed since the last snapshot (after a load: since
    /// the first event that is not in one), if there was an event since.
    #[must_use]
    pub const fn interval(interval: Duration) -> Self {
        Self(Rule::Interval(interval))
    }

    /// After a turn in which `predicate` said yes to one of the events: to the state behind it,
    /// and to the event. A panic in it fails the turn. Of more than 64 in one policy the
    /// rest count as one.
    #[must_use]
    pub const fn when(predicate: fn(&A, &A::Event) -> bool) -> Self {
        Self(Rule::When(predicate))
    }

    /// When the state leaves memory, if there was an event since the last snapshot.
    #[must_use]
    pub const fn passivation() -> Self {
        Self(Rule::Passivation)
    }

    /// After a turn that called [`Turn::suspend`](super::Turn::suspend) or
    /// [`Turn::finish`](super::Turn::finish), if there was an event since the last snapshot.
    #[must_use]
    pub const fn suspension() -> Self {
        Self(Rule::Suspension)
    }

    /// When one of them says so.
    #[must_use]
    pub fn any(of: impl IntoIterator<Item = Self>) -> Self {
        Self(Rule::Any(of.into_iter().map(|policy| policy.0).collect()))
    }

    /// When all of them say so, at one and the same turn; of none, never.
    #[must_use]
    pub fn all(of: impl IntoIterator<Item = Self>) -> Self {
        Self(Rule::All(of.into_iter().map(|policy| policy.0).collect()))
    }

    /// Also when the state leaves memory, if there was an event since the last one.
    #[must_use]
    pub fn on_passivate(self) -> Self {
        Self::any([self, Self::passivation()])
    }

    /// Is a snapshot due?
    pub(crate) fn is_due(&self, since: &Since) -> bool {
        since.seq > since.tried && self.0.is_due(since, &mut 0)
    }

    /// Must somebody look at the clock?
    pub(crate) fn needs_time(&self) -> bool {
        self.0.has(&|rule| matches!(rule, Rule::Interval(_)))
    }

    /// Must somebody look at the events?
    pub(crate) fn needs_events(&self) -> bool {
        self.0.has(&|rule| matches!(rule, Rule::When(_)))
    }

    /// Which of its predicates say yes.
    pub(crate) fn see(&self, state: &A, event: &A::Event) -> u64 {
        self.0.see(state, event, &mut 0)
    }
}

/// The bit of the next predicate.
fn bit(number: &mut u32) -> u64 {
    let bit = 1 << (*number).min(63);
    *number += 1;
    bit
}

impl<A: Actor> Rule<A> {
    fn is_due(&self, since: &Since, number: &mut u32) -> bool {
        let (seq, tried) = (since.seq.get(), since.tried.get());
        match self {
            Self::Never => false,
            Self::Every(events) => {
                since.moment != Moment::Leaving && seq / *events != tried / *events
            }
            Self::Since(events) => seq - tried >= events.get(),
            Self::Interval(interval) => {
                let elapsed = u128::from(since.elapsed_ms);
                since.moment != Moment::Leaving && elapsed >= interval.as_millis()
            }
            Self::When(_) => since.seen & bit(number) != 0,
            Self::Passivation => since.moment == Moment::Leaving,
            Self::Suspension => since.moment == Moment::Suspension,
            // All are asked: each predicate has its number.
            Self::Any(rules) => {
                let due = rules.iter().filter(|rule| rule.is_due(since, number)).count();
                due > 0
            }
            Self::All(rules) => {
                let due = rules.iter().filter(|rule| rule.is_due(since, number)).count();
                due > 0 && due == rules.len()
            }
        }
    }

    fn see(&self, state: &A, event: &A::Event, number: &mut u32) -> u64 {
        match self {
            Self::When(predicate) => {
                let bit = bit(number);
                if predicate(state, event) { bit } else { 0 }
            }
            Self::Any(rules) | Self::All(rules) => {
                rules.iter().fold(0, |seen, rule| seen | rule.see(state, event, number))
            }
            Self::Never
            | Self::Every(_)
            | Self::Since(_)
            | Self::Interval(_)
            | Self::Passivation
            | Self::Suspension => 0,
        }
    }

    fn has(&self, wanted: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::Any(rules) | Self::All(rules) => rules.iter().any(|rule| rule.has(wanted)),
            rule => wanted(rule),
        }
    }
}

impl<A: Actor> fmt::Debug for SnapshotPolicy<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<A: Actor> fmt::Debug for Rule<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("manual"),
            Self::Every(events) => write!(f, "every({events})"),
            Self::Since(events) => write!(f, "since({events})"),
            Self::Interval(interval) => write!(f, "interval({interval:?})"),
            Self::When(_) => f.write_str("when(..)"),
            Self::Passivation => f.write_str("passivation"),
            Self::Suspension => f.write_str("suspension"),
            Self::Any(rules) => f.debug_tuple("any").field(rules).finish(),
            Self::All(rules) => f.debug_tuple("all").field(rules).finish(),
        }
    }
}

/// How the states of a kind are stored.
pub(crate) struct Snapshots<A: Actor> {
    pub(crate) version: u16,
    pub(crate) policy: SnapshotPolicy<A>,
    pub(crate) encode: fn(&A, &mut AlignedVec<16>) -> Result<(), NotArchive>,
    pub(crate) decode: fn(&[u8]) -> Result<A, NotArchive>,
}
