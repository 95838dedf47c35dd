//! Supervision: an actor that fails rests, each time longer, and in the end stays stopped.

use std::num::NonZeroU32;
use std::time::Duration;

use super::aside::TROUBLED;
use super::cell::{Body, Cell};
use super::turn::in_turn;
use super::{Actor, ActorError, Addr};
use crate::trace;
use crate::types::StreamId;

/// What becomes of an actor whose turns panic, or whose events cannot be read.
///
/// After each failure it rests: commands are answered [`ActorError::Resting`] at once, without
/// effect. A rest is between half of and all of `backoff_min`, doubled with each failure up to
/// `backoff_max`; how much of it depends on the actor and `seed` alone, so that many that failed
/// together do not come back together, and a test knows when they do. After `failures_max`
/// failures in a row it is given up ([`ActorError::GivenUp`]) until [`Addr::restart`]. A turn that
/// succeeds begins the count anew.
///
/// Errors that are answers (a handler's `Err`) are no failures, and neither is a full disk. An
/// actor whose events do not make a state ([`ActorError::Stopped`]) does not rest: reading them
/// again would find the same.
///
/// ```
/// # use annals::actor::{Actor, ActorOptions};
/// use annals::actor::Supervision;
/// # #[derive(Default)]
/// # struct Account;
/// # impl Actor for Account {
/// #     type Event = u8;
/// #     const KIND: &'static str = "account";
/// #     fn apply(&mut self, _: &u8) {}
/// # }
/// let patient = Supervision { failures_max: None, ..Supervision::default() };
/// let options: ActorOptions<Account> = ActorOptions::new().supervise(patient);
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Supervision {
    /// So many failures in a row, and the actor is given up; `None`: never. Default 10.
    pub failures_max: Option<NonZeroU32>,
    /// The rest after the first failure. Default 100 ms.
    pub backoff_min: Duration,
    /// The longest rest. Default 30 s.
    pub backoff_max: Duration,
    /// What rests differ by, besides the actor.
    pub seed: u64,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            failures_max: NonZeroU32::new(10),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            seed: 0,
        }
    }
}

impl Supervision {
    /// The rest after that many failures; `None` is for good.
    fn rest(&self, stream: StreamId, failures: u32) -> Option<Duration> {
        if self.failures_max.is_some_and(|max| failures >= max.get()) {
            return None;
        }
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.backoff_min.saturating_mul(1 << doublings).min(self.backoff_max);
        let half = full / 2;
        let nanos = u64::try_from(full.saturating_sub(half).as_nanos()).unwrap_or(u64::MAX);
        let share = spread(self.seed ^ spread(u64::from(failures)) ^ low(stream));
        // A share of 2^64 ths.
        let part = u64::try_from((u128::from(nanos) * u128::from(share)) >> 64).unwrap_or(nanos);
        Some(half.saturating_add(Duration::from_nanos(part)))
    }
}

fn low(stream: StreamId) -> u64 {
    u64::try_from(stream.get() & u128::from(u64::MAX)).unwrap_or(0)
}

/// The finalizer of `SplitMix64`: close numbers become distant ones.
const fn spread(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// Failures in a row.
pub(crate) struct Trouble {
    failures: u32,
    /// When the rest ends by the runtime's clock; `None` if it does not.
    rests_until: Option<Duration>,
    /// When nobody would remember.
    over: Duration,
}

impl Trouble {
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        self.rests_until.is_some() && now >= self.over
    }
}

impl<A: Actor> Cell<A> {
    /// Whether a turn may be taken, or the state be read.
    #[inline]
    pub(crate) fn is_rested(&self) -> Result<(), ActorError> {
        if self.flags.has(TROUBLED) { self.rest_left() } else { Ok(()) }
    }

    #[cold]
    fn rest_left(&self) -> Result<(), ActorError> {
        let lane = self.lane();
        let trouble = lane.aside.as_ref().and_then(|aside| aside.trouble.as_ref());
        let Some(Trouble { failures, rests_until, .. }) = trouble else { return Ok(()) };
        let Some(until) = rests_until else {
            return Err(ActorError::GivenUp { failures: *failures });
        };
        let left = until.saturating_sub(self.shared().clock.monotonic());
        if left.is_zero() { Ok(()) } else { Err(ActorError::Resting { left }) }
    }

    /// A turn or a load has failed.
    #[cold]
    pub(crate) fn note_failure(&self) {
        let Some(supervision) = &self.kind.options.supervision else { return };
        let now = self.shared().clock.monotonic();
        let (failures, rest) = self.aside(|aside| {
            let before = aside.trouble.as_ref().map_or(0, |trouble| trouble.failures);
            let failures = before.saturating_add(1);
            let rest = supervision.rest(self.stream, failures);
            let rests_until = rest.map(|rest| now.saturating_add(rest));
            let over = rests_until.unwrap_or(now).saturating_add(supervision.backoff_max);
            aside.trouble = Some(Trouble { failures, rests_until, over });
            (failures, rest)
        });
        self.flags.set(TROUBLED);
        let (kind, name, failures) = (A::KIND, &*self.name, u64::from(failures));
        match rest.map(trace::micros) {
            Some(rest_us) => trace::ActorResting { kind, name, failures, rest_us }.tell(),
            None => trace::ActorGivenUp { kind, name, failures }.tell(),
        }
    }

    /// A turn has succeeded.
    #[inline]
    pub(crate) fn note_success(&self) {
        if self.flags.has(TROUBLED) {
            self.forget_trouble();
        }
    }

    #[cold]
    fn forget_trouble(&self) {
        self.flags.clear(TROUBLED);
        self.aside(|aside| aside.trouble = None);
    }

    /// Begins anew: no rest, and a state read again from the log.
    pub(crate) fn restart(&self) {
        let mut body = self.body();
        self.forget_trouble();
        if let Body::Stopped(_) = *body {
            *body = Body::Absent;
        }
        self.forget(&mut body);
    }
}

impl<A: Actor> Addr<A> {
    /// Ends a rest, takes up an actor that was given up, and lets one that had stopped
    /// ([`ActorError::Stopped`]) read its events once more. Once a turn that is under way has
    /// ended, the state is thrown away; the next command reads it from the log.
    ///
    /// # Errors
    /// [`ActorError::InTurn`].
    pub fn restart(&self) -> Result<(), ActorError> {
        if in_turn() {
            return Err(ActorError::InTurn);
        }
        self.cell().restart();
        Ok(())
    }
}
