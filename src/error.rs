//! What can go wrong, each with where it did and what state is left behind.
//!
//! Every layer has its own small error: an append cannot fail like an open. [`Error`] is their
//! sum, for `?`.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::types::{Lsn, Seq, StreamId};

/// Anything that the library answers instead of a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// See [`OpenError`].
    #[error(transparent)]
    Open(#[from] OpenError),
    /// See [`AppendError`].
    #[error(transparent)]
    Append(#[from] AppendError),
    /// See [`ReadError`].
    #[error(transparent)]
    Read(#[from] ReadError),
    /// See [`SyncError`].
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// See [`StreamError`].
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// See [`crate::actor::ActorError`].
    #[error(transparent)]
    Actor(#[from] crate::actor::ActorError),
    /// See [`crate::sync::node::NodeError`].
    #[error(transparent)]
    Node(#[from] crate::sync::node::NodeError),
}

/// A failed call to the file system, with the file and what was being done.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
pub struct DiskError {
    /// What was being done, as in "syncing".
    pub doing: &'static str,
    /// To which file or directory.
    pub path: PathBuf,
    /// The operating system's answer.
    pub source: Arc<io::Error>,
}

impl DiskError {
    /// For `map_err`: `.map_err(DiskError::at("reading", &path))`.
    pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { doing, path, source: Arc::new(source) }
    }

    /// Is there no room?
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Bytes that were promised are not what they were.
///
/// Nothing has been changed, cut or skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "damage in {} at offset {offset}: {reason} (positions {} to {})",
    file.display(), lsns.start, lsns.end
)]
pub struct Damage {
    /// The damaged (or missing) file.
    pub file: PathBuf,
    /// Where the first bad byte's frame or page begins, in bytes.
    pub offset: u64,
    /// Positions of the log that are affected, as far as is known.
    pub lsns: Range<u64>,
    /// What is wrong.
    pub reason: DamageReason,
}

/// What is wrong with damaged bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamageReason {
    /// A frame below the durable mark does not validate.
    #[error("a frame that was durable is not valid: {0}")]
    Frame(Reject),
    /// A segment's or another file's header page does not validate.
    #[error("the file's header is not valid: {0}")]
    Header(&'static str),
    /// The table of a run, or the index of a segment, does not say what is there.
    #[error("its table is not valid: {0}")]
    Table(&'static str),
    /// A file that the chain of segments names is not there.
    #[error("the segment is missing")]
    Missing,
    /// The log ends before a position that is known to have been durable.
    #[error("the log ends here, but was durable up to {durable}")]
    Short {
        /// What had been durable.
        durable: u64,
    },
    /// The process was killed, and the machine has been running since; so what it had written is
    /// in the ring. The ring's file is not there, or is none.
    #[error(
        "the process was killed, and what it wrote last is in this file, which is missing or cut"
    )]
    Ring,
    /// The identity of the store cannot be read.
    #[error("neither slot of the identity is valid")]
    Identity,
    /// A stream's numbers do not follow each other.
    #[error("event {found} of stream {stream} where {expected} should be")]
    Sequence {
        /// Whose.
        stream: StreamId,
        /// The number that should be there.
        expected: Seq,
        /// The number that is there.
        found: Seq,
    },
}

/// Why bytes are not a frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reject {
    /// Fewer bytes than a header, or than the header says.
    #[error("it is cut short")]
    Short,
    /// A length of zero, or one that no frame has.
    #[error("its length is impossible")]
    Length,
    /// A kind that is not known.
    #[error("its kind is unknown")]
    Kind,
    /// It says that it stands somewhere else.
    #[error("it belongs to another position")]
    Position,
    /// A durable mark above itself.
    #[error("its durable mark is impossible")]
    Mark,
    /// The checksum is another: changed bytes, or a frame of another log, segment or life.
    #[error("its checksum does not match")]
    Checksum,
    /// The records within do not add up.
    #[error("its records do not add up")]
    Records,
}

/// Why a store or a log did not open. Nothing can be answered from it; on disk it is as it was,
/// or a crash's worth of recovery further.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process (or this one) has the store open.
    #[error("the store {} is open in process {owner}", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
        /// The number that the other process left in the lock file; may be empty.
        owner: String,
    },
    /// Promised bytes are gone. Nothing was changed.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The file system refused something.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Written by a later version of Annals.
    #[error("{} has format version {found}; this build reads up to {known}", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// Written where archives are laid out differently (endianness, pointer width, alignment).
    #[error(
        "{} was written with archive layout {found:#x}; this build has {here:#x}",
        path.display()
    )]
    Layout {
        /// Which file.
        path: PathBuf,
        /// Its layout.
        found: u32,
        /// This build's.
        here: u32,
    },
    /// There is no store at that path: no such folder, no folder, or one without a store.
    #[error("there is no store at {}: {why}", path.display())]
    NoStore {
        /// Where one was looked for.
        path: PathBuf,
        /// What is there instead.
        why: &'static str,
    },
    /// Something is there already, and is not replaced.
    #[error("{} exists already", path.display())]
    Exists {
        /// What was to be made.
        path: PathBuf,
    },
    /// Options that contradict each other.
    #[error("options: {0}")]
    Options(&'static str),
}

/// Why nothing was appended. Every variant leaves the log as it was before the call.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// There is no room for another segment. Appends work again once there is.
    #[error("no room on the disk for another segment: {0}")]
    DiskFull(DiskError),
    /// One turn's records exceed `frame_bytes_max`.
    #[error("a group of {bytes} bytes exceeds the limit of {max}")]
    GroupTooLarge {
        /// What it would take.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The stream is elsewhere than the caller thought.
    #[error("the stream {stream} is at {actual}, not at {expected}")]
    Conflict {
        /// Which stream.
        stream: StreamId,
        /// What the caller expected.
        expected: Seq,
        /// Its last event.
        actual: Seq,
    },
    /// A write or a sync failed earlier: nothing is accepted until the store is opened again.
    #[error("the log is poisoned since {0}")]
    Poisoned(DiskError),
    /// A new segment could not be made, for another reason than room.
    #[error(transparent)]
    Disk(DiskError),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The turn publishes, and its store is no node: it was opened without one, or is in memory.
    #[error("something was to be published, and the store is no node")]
    NoNode,
    /// The turn publishes, and its node may not: it is no member of the cluster, or another life of
    /// it is at work.
    #[error("something was to be published, and the node may not")]
    Fenced,
    /// The turn publishes of a domain that its node has not declared.
    #[error("the domain {0:?} was not declared when the node was started")]
    Domain(crate::types::DomainId),
    /// The stream's past could not be read to compare.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why something could not be read. Nothing was changed, and the rest can be read on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A frame that should be there does not validate. It is never handed out.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The position was given back by a crash, or lies beyond the end: it will never be there.
    #[error("position {lsn} was lost: {} to {} is no part of this log", lost.start, lost.end)]
    PositionLost {
        /// What was asked for.
        lsn: u64,
        /// The lost range around it.
        lost: Range<u64>,
    },
    /// The file system refused to read, or to write what had to be written first.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a subscription or a cursor did not go on. The subscription stays where it is, and the next
/// call goes on, unless said otherwise.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Retention has dropped events that the subscription should have come by: of some actor,
    /// whether the filter asks for it or not; where it asks for one actor, of that one (and where
    /// it began among what is gone of others, perhaps only of those). Said before the first event
    /// behind them; the next call goes on with what is left.
    #[error("some events below position {upto} are gone: retention has dropped them")]
    Dropped {
        /// All of them were below this position.
        upto: u64,
    },
    /// See [`ReadError`].
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing more will come: the log is poisoned, and everything durable has been delivered.
    #[error("the log is poisoned since {0}")]
    Poisoned(DiskError),
    /// Nothing more will come: the store is closed, and everything has been delivered.
    #[error("the store is closed")]
    Closed,
    /// The records of a frame do not add up. The next call goes on behind it.
    #[error("the frame at {lsn} cannot be read: {reject}")]
    Frame {
        /// Where it stands.
        lsn: Lsn,
        /// Why.
        reject: Reject,
    },
    /// The stream's first frame does not say whose it is. The next call goes on behind the frame.
    #[error("the frame at {lsn} is of stream {stream}, whose name is not known")]
    Unnamed {
        /// Where it stands.
        lsn: Lsn,
        /// Whose it is.
        stream: StreamId,
    },
    /// An event of another kind of actor was to be decoded.
    #[error("an event of kind {found:?} is none of kind {expected:?}")]
    Kind {
        /// The kind that was asked for.
        expected: &'static str,
        /// The kind that it is of.
        found: Box<str>,
    },
    /// Somebody has this name: an inbox, an outbox or a pipeline has one owner at a time.
    #[error("`{0}` is in use already")]
    Leased(Box<str>),
    /// The subscription was not resumed from a cursor.
    #[error("the subscription has no cursor")]
    NoCursor,
    /// A cursor's name is empty or longer than 65,535 bytes.
    #[error("a cursor's name has 1 to 65,535 bytes")]
    BadName,
    /// A cursor was to be set behind the end of the log.
    #[error("position {position} is not below the log's end, which is {end}")]
    Ahead {
        /// What was given.
        position: u64,
        /// Where the log ends.
        end: u64,
    },
    /// A cursor could not be saved. It is as it was.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why durability could not be had.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The sync failed, and the log is poisoned. After a reopen the frame at `lsn` is wholly
    /// there or wholly absent.
    #[error("it is in doubt whether {lsn} is on disk: {cause}")]
    InDoubt {
        /// Up to where it was asked for.
        lsn: Lsn,
        /// The failure.
        cause: DiskError,
    },
    /// The time given was over. The commit may still happen.
    #[error("not durable within the time given")]
    Timeout,
}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        Self::Open(OpenError::Disk(error))
    }
}

/// Prints a chain of causes on one line.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
