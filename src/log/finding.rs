//! What is found wrong where a log is looked through: values, each with a place, and no refusal.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::error::Reject;
use crate::types::{Seq, StreamId};

/// What a finding means, least first.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is wrong: what a crash or an older life left behind, and the next open clears up.
    Note,
    /// Something is wrong with what is made again from the events: it costs time.
    Derived,
    /// Bytes that count are not what they were, and there is another copy of them.
    Redundant,
    /// Bytes that were promised are gone.
    Loss,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Derived => "derived",
            Self::Redundant => "redundant",
            Self::Loss => "loss",
        })
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    /// Frames that were there do not validate.
    #[error("frames that were durable are not valid: {0}")]
    Frame(Reject),
    /// A sealed segment ends without its `Seal`.
    #[error("the segment ends without its seal: {0}")]
    Unsealed(Reject),
    /// The log ends before a position that is known to have been durable.
    #[error("the log ends here, but was durable up to {durable}")]
    Short {
        /// What had been durable.
        durable: u64,
    },
    /// A segment's header page does not validate.
    #[error("the header page is not valid ({why}); {substitute}")]
    Header {
        /// Why it is none.
        why: &'static str,
        /// What stands for it.
        substitute: Substitute,
    },
    /// The file is shorter than its header says.
    #[error("the file is cut short: it should have {bytes} bytes")]
    Cut {
        /// What it should have.
        bytes: u64,
    },
    /// A run, that is a compacted range of segments, is not what it was.
    #[error("the run is damaged: {0}")]
    Run(String),
    /// Frames that had been durable are not valid in their segment, and the ring has them.
    #[error("frames that were durable are not valid; the ring has them, and an open writes them")]
    InRing,
    /// One or more segments are not there.
    #[error("one or more segments are missing")]
    Missing,
    /// The disk refused to read it.
    #[error("the disk cannot read it: {0}")]
    Unreadable(String),
    /// Neither slot of the identity is valid.
    #[error("neither slot of the identity is valid")]
    Identity,
    /// One of two slots does not validate; the other does.
    #[error("one of the file's two slots is not valid; the other is used")]
    Slot,
    /// Neither slot of the mark file is valid: less evidence.
    #[error("neither slot of the mark file is valid: an open notices less")]
    Mark,
    /// A later version or another archive layout wrote it.
    #[error("{0}")]
    Foreign(String),
    /// A checkpoint that does not validate.
    #[error("the checkpoint is not valid; it is not used")]
    Checkpoint,
    /// An index that does not validate.
    #[error("the index is not valid; it is made again")]
    Index,
    /// An index that validates and says something else than the frames.
    #[error("the index is not that of the frames")]
    IndexDiffers,
    /// The numbers of a stream's events do not follow each other.
    #[error("event {found} of stream {stream} where {expected} should be")]
    Sequence {
        /// Whose.
        stream: StreamId,
        /// The number that should be there.
        expected: Seq,
        /// The number that is there.
        found: Seq,
    },
    /// The ring file has an impossible size, or cannot be read.
    #[error("the ring is not of a possible size")]
    Ring,
    /// A file that nothing needs: half made, or prepared and never used.
    #[error("left over; the next open removes it")]
    Leftover,
    /// A file that is none of a store's.
    #[error("not a file of a store")]
    Stray,
}

/// What stands for a header page that does not validate.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Substitute {
    /// A checkpoint holds the same.
    Checkpoint,
    /// It follows from the segments beside it and from its own frames.
    Neighbours,
    /// Nothing.
    Nothing,
}

impl fmt::Display for Substitute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoint => "a checkpoint holds it",
            Self::Neighbours => "it follows from the segments beside it",
            Self::Nothing => "nothing stands for it",
        })
    }
}

/// A stream that has frames in a damaged range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// Which.
    pub stream: StreamId,
    /// Its first event that is gone: it has a hole from there on.
    pub from: Seq,
    /// How many of its frames are gone.
    pub frames: u64,
    /// Kind and name, where they are known.
    pub name: Option<(String, String)>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// Positions of the log that are affected; empty where none is.
    pub lsns: Range<u64>,
    /// What that means.
    pub severity: Severity,
    /// What it is.
    pub what: What,
    /// The streams in a damaged range, as far as an index knows them; `None` where none does.
    pub streams: Option<Vec<Affected>>,
}

impl Finding {
    /// A finding about a whole file.
    pub(crate) fn file(file: impl Into<PathBuf>, severity: Severity, what: What) -> Self {
        Self { file: file.into(), offset: 0, lsns: 0..0, severity, what, streams: None }
    }

    /// Is anything that was promised not what it was, with or without another copy?
    pub fn is_damage(&self) -> bool {
        self.severity >= Severity::Redundant
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at offset {}", self.severity, self.file.display(), self.offset)?;
        if !self.lsns.is_empty() {
            write!(f, ", positions {} to {}", self.lsns.start, self.lsns.end)?;
        }
        write!(f, ": {}", self.what)
    }
}
