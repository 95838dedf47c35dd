//! The mark file: how far the log had been durable, and where to start looking.
//!
//! Written after each group commit without a sync of its own, and synced when the log is idle,
//! once a segment, at close and at the end of a recovery. It may be stale or torn: then it is less
//! evidence, never wrong evidence, because a mark is only written once it is true.
//!
//! Two [slots](super::slots) with the fields: log id, mark, frame boundary, life number and life
//! bits at that boundary, whether the log was poisoned (0 or 1), 2 zeros.

use super::slots::{Fields, Found};
use crate::types::Life;

/// The mark file's magic.
pub const MAGIC: [u8; 8] = *b"ANNALMRK";

/// What one slot says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Everything below had been durable.
    pub durable: u64,
    /// A frame begins here, or will: kept about 1 MiB below the mark.
    pub boundary: u64,
    /// The life of a frame at the boundary.
    pub life: Life,
    /// A write or a sync had failed: what was not durable may be gone although the machine ran on.
    pub poisoned: bool,
}

impl Mark {
    pub(crate) fn fields(&self, log: u64) -> Fields {
        let poisoned = u64::from(self.poisoned);
        [log, self.durable, self.boundary, self.life.number, self.life.bits, poisoned, 0, 0]
    }

    fn from_fields(fields: &Fields, log: u64) -> Option<Self> {
        let [id, durable, boundary, number, bits, poisoned, ..] = *fields;
        (id == log && boundary <= durable).then_some(Self {
            durable,
            boundary,
            life: Life { number, bits },
            poisoned: poisoned != 0,
        })
    }

    /// The highest mark among the valid slots of this log.
    pub(super) fn highest(found: &Found, log: u64) -> Option<Self> {
        let marks = found.valid.iter().filter_map(|fields| Self::from_fields(fields, log));
        // A poisoned log writes its last mark again.
        marks.max_by_key(|mark| (mark.durable, mark.poisoned))
    }
}
