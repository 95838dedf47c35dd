//! How much has become of what actors owe, and of what few turns do. What happens under the
//! ledger's lock is counted there, plainly; the rest is counted where it is rare.

use std::sync::atomic::{AtomicU64, Ordering};

use super::note::{Ended, Note};

/// What actors owe now, and what has become of what they owed since the store was opened.
///
/// As long as the [recovery](crate::Store::recovery) reads what earlier lives have left, none of it
/// is known, and all of these are 0.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwedStats {
    /// Messages now that were sent for good and not handled.
    pub messages: u64,
    /// Timers now that are armed.
    pub timers: u64,
    /// Steps now that were begun and whose end is not stored.
    pub steps: u64,
    /// Of all these, what is not taken up by itself: it has ended the process too often, or nobody
    /// can say whether it was handled.
    pub set_aside: u64,
    /// Of all these, what waits for a kind of actor that this process does not know.
    pub unclaimed: u64,
    /// Messages sent for good.
    pub sent: u64,
    /// Messages handled.
    pub handled: u64,
    /// Timers armed, those that took the place of others among them.
    pub armed: u64,
    /// Firings handled.
    pub fired: u64,
    /// Periods of reminders that nobody was there for, and that were to be left out then.
    pub passed_over: u64,
    /// Steps begun.
    pub begun: u64,
    /// Steps that have come back with what they were to bring.
    pub done: u64,
    /// Steps that have come back by a panic.
    pub panicked: u64,
    /// Steps that have come back in doubt.
    pub in_doubt: u64,
    /// Messages left for the outside.
    pub outside: u64,
    /// Handlers that have failed with something that is owed, and get it again.
    pub retried: u64,
    /// What was given up because its handler has failed too often.
    pub given_up: u64,
}

impl OwedStats {
    /// Counts a note. `settles` says that it stands for no turn, and gives something up or passes
    /// it over.
    pub(super) fn count(&mut self, note: &Note<'_>, settles: bool) {
        let counter = match note {
            Note::Sent { .. } => &mut self.sent,
            Note::Handled { given_up: false, .. } => &mut self.handled,
            Note::Armed { .. } => &mut self.armed,
            Note::Fired { due: 1.., .. } if settles => &mut self.passed_over,
            Note::Handled { given_up: true, .. } | Note::Fired { .. } | Note::Ended { .. }
                if settles =>
            {
                &mut self.given_up
            }
            Note::Fired { .. } => &mut self.fired,
            Note::Began { .. } => &mut self.begun,
            Note::Ended { how: Ended::Done, .. } => &mut self.done,
            Note::Ended { how: Ended::Panicked, .. } => &mut self.panicked,
            Note::Ended { how: Ended::InDoubt, .. } => &mut self.in_doubt,
            Note::Outside { .. } => &mut self.outside,
            Note::Handled { .. }
            | Note::Disarmed { .. }
            | Note::Answered { .. }
            | Note::Policy { .. }
            | Note::Tried { .. }
            | Note::Freed { .. } => return,
        };
        *counter += 1;
    }
}

/// What few turns do, since the store was opened.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActorStats {
    /// Commands now that are put aside until it is time for them.
    pub stashed: u64,
    /// Commands with an id that were answered as before, because they had been handled.
    pub answered_again: u64,
    /// Turns that were left for later and are appended by now.
    pub gathered_turns: u64,
    /// Frames that those have become.
    pub gathered_frames: u64,
    /// Turns that were left for later and are lost, because the disk did not take them.
    pub lost_turns: u64,
}

/// The same, while it is counted. Relaxed, all of it: numbers, on which no data hangs.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    stashed: AtomicU64,
    answered_again: AtomicU64,
    gathered_turns: AtomicU64,
    gathered_frames: AtomicU64,
    lost_turns: AtomicU64,
    retried: AtomicU64,
}

impl Counts {
    pub(crate) fn stashed(&self) {
        self.stashed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unstashed(&self, commands: usize) {
        if commands > 0 {
            self.stashed.fetch_sub(commands as u64, Ordering::Relaxed);
        }
    }

    #[cold]
    pub(crate) fn answered_again(&self) {
        self.answered_again.fetch_add(1, Ordering::Relaxed);
    }

    /// So many turns have become one frame.
    pub(crate) fn gathered(&self, turns: u32) {
        self.gathered_turns.fetch_add(u64::from(turns), Ordering::Relaxed);
        self.gathered_frames.fetch_add(1, Ordering::Relaxed);
    }

    #[cold]
    pub(crate) fn lost(&self, turns: u32) {
        self.lost_turns.fetch_add(u64::from(turns), Ordering::Relaxed);
    }

    #[cold]
    pub(crate) fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> ActorStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ActorStats {
            stashed: of(&self.stashed),
            answered_again: of(&self.answered_again),
            gathered_turns: of(&self.gathered_turns),
            gathered_frames: of(&self.gathered_frames),
            lost_turns: of(&self.lost_turns),
        }
    }

    /// Beside what the ledger has counted.
    pub(crate) fn add_to(&self, owed: &mut OwedStats) {
        owed.retried = self.retried.load(Ordering::Relaxed);
    }
}
