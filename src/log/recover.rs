//! What an open finds, what that means, and what is done about it: facts, decision, action.
//!
//! *Facts* are three positions and how the log ends. `end` (P) is the first position at which no
//! valid frame stands, the ring's rescue included. `durable` (D) is the highest position that is
//! known to have been durable: from the mark file, the identity, the recovery headers, and the
//! mark that every valid frame carries, those behind P included. `written` (W) counts where the
//! machine has been running ever since, so that nothing that was written can be gone: the highest
//! end of a valid frame of the last life anywhere behind P, the ring included.
//!
//! | ends | P against the greater of D and W | decision |
//! |---|---|---|
//! | empty | equal | `Fresh` |
//! | closed | at or above | `GoOn` in the last segment, at the next page |
//! | full | at or above | `StartAnew` in a new segment; nothing was behind P |
//! | torn | at or above | `StartAnew` in a new segment; what was behind P is lost for ever |
//! | any | below | `Damage`: promised bytes are gone |
//!
//! Nothing else is a test for damage. See docs/recovery.md for why.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::error::Damage;
use crate::types::Life;

/// How the last life of a log ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There is no segment.
    Empty,
    /// With a `Close` frame, and there is room for another life behind it.
    Closed,
    /// With a `Close` frame, and its segment is full.
    Full,
    /// In any other way.
    Torn,
}

/// What the decision depends on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How the log ends.
    pub ending: Ending,
    /// P: the first position without a valid frame; 0 for an empty log.
    pub end: u64,
    /// D: the highest position known to have been durable; 0 if none is.
    pub durable: u64,
    /// W: the highest position known to have been written, where what was written is there yet;
    /// 0 if none is, or if the machine may have lost it.
    pub written: u64,
}

/// What is known of a log from elsewhere.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Everything below had been durable.
    pub durable: u64,
    /// The life before, if the machine has been running since it began: then it was a kill at
    /// most that ended it, which takes nothing that was written.
    pub killed: Option<Life>,
}

impl From<u64> for Evidence {
    /// A position that had been durable, and nothing else.
    fn from(durable: u64) -> Self {
        Self { durable, killed: None }
    }
}

/// What an open does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new log.
    Fresh,
    /// The next life goes on in the last segment.
    GoOn,
    /// The next life begins a new segment.
    StartAnew,
    /// A person must look.
    Damage,
}

/// The table above. No wildcard: a new fact must break the build.
pub fn decide(facts: &Facts) -> Decision {
    match (facts.ending, facts.end.cmp(&facts.durable.max(facts.written))) {
        (Ending::Empty, Ordering::Equal | Ordering::Greater) => Decision::Fresh,
        (Ending::Closed, Ordering::Equal | Ordering::Greater) => Decision::GoOn,
        (Ending::Full | Ending::Torn, Ordering::Equal | Ordering::Greater) => Decision::StartAnew,
        (Ending::Empty | Ending::Closed | Ending::Full | Ending::Torn, Ordering::Less) => {
            Decision::Damage
        }
    }
}

/// How a log was opened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It was empty.
    Fresh,
    /// The life before had closed it.
    Continued,
    /// The life before had crashed.
    Recovered,
    /// It was damaged, and is one that can do without: the rest was set aside.
    SetAside,
}

/// What an open found and did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// How it began.
    pub start: Start,
    /// The first position that held no valid frame.
    pub end: u64,
    /// The highest position that was known to have been durable.
    pub durable: u64,
    /// What is lost for ever, because a crash took it back or it was never written. Empty
    /// unless the open began a new segment.
    pub lost: Range<u64>,
    /// Frames that were checked.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that were in the ring alone, and are in their segments now.
    pub rescued: u64,
    /// Frames that had been durable were missing from a segment, and the ring had them.
    pub repaired: bool,
    /// What was set aside.
    pub damage: Option<Damage>,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.start {
            Start::Fresh => write!(f, "fresh"),
            Start::Continued => write!(f, "continued at {} after a clean close", self.end),
            Start::Recovered => write!(
                f,
                "recovered up to {}: {} frames checked, {} rescued from the ring",
                self.end, self.frames, self.rescued
            ),
            Start::SetAside => write!(f, "set aside what lies behind {}", self.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_answers_every_combination_of_facts_once() {
        for ending in [Ending::Empty, Ending::Closed, Ending::Full, Ending::Torn] {
            let positions = [0, 16, 32];
            let all = positions.into_iter().flat_map(|end| {
                positions.into_iter().flat_map(move |durable| {
                    positions.into_iter().map(move |written| (end, durable, written))
                })
            });
            for (end, durable, written) in all {
                let decision = decide(&Facts { ending, end, durable, written });
                let expected = match (ending, end < durable || end < written) {
                    (_, true) => Decision::Damage,
                    (Ending::Empty, false) => Decision::Fresh,
                    (Ending::Closed, false) => Decision::GoOn,
                    (Ending::Full | Ending::Torn, false) => Decision::StartAnew,
                };
                assert_eq!(decision, expected, "{ending:?} {end} {durable} {written}");
            }
        }
    }
}
