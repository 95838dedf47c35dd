//! What is asked of the simulated disk, what it shall answer, and what it did.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::names::FileId;
use super::state::State;

/// A kind of call to the disk.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// [`Disk::create_dir`](crate::disk::Disk::create_dir).
    CreateDir,
    /// [`Disk::list`](crate::disk::Disk::list).
    List,
    /// [`Disk::open`](crate::disk::Disk::open) of what must be there.
    Open,
    /// [`Disk::open`](crate::disk::Disk::open) with [`Access::Create`](crate::disk::Access).
    Create,
    /// [`Disk::rename`](crate::disk::Disk::rename).
    Rename,
    /// [`Disk::remove`](crate::disk::Disk::remove).
    Remove,
    /// [`Disk::sync_dir`](crate::disk::Disk::sync_dir).
    SyncDir,
    /// [`Disk::lock`](crate::disk::Disk::lock).
    Lock,
    /// [`File::len`](crate::disk::File::len).
    Len,
    /// [`File::read_at`](crate::disk::File::read_at).
    Read,
    /// [`File::write_at`](crate::disk::File::write_at).
    Write,
    /// [`File::write_ring`](crate::disk::File::write_ring).
    WriteRing,
    /// [`File::sync_data`](crate::disk::File::sync_data).
    SyncData,
    /// [`File::allocate`](crate::disk::File::allocate).
    Allocate,
    /// [`File::map_segment`](crate::disk::File::map_segment).
    MapSegment,
    /// [`File::map_ring`](crate::disk::File::map_ring).
    MapRing,
}

impl Op {
    /// All of them, for loops over cases.
    pub const ALL: [Self; 16] = [
        Self::CreateDir,
        Self::List,
        Self::Open,
        Self::Create,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Lock,
        Self::Len,
        Self::Read,
        Self::Write,
        Self::WriteRing,
        Self::SyncData,
        Self::Allocate,
        Self::MapSegment,
        Self::MapRing,
    ];

    /// Does it change what is seen or what is durable? Only before these can a crash make a
    /// difference.
    pub const fn is_mutation(self) -> bool {
        match self {
            Self::CreateDir
            | Self::Create
            | Self::Rename
            | Self::Remove
            | Self::SyncDir
            | Self::Lock
            | Self::Write
            | Self::WriteRing
            | Self::SyncData
            | Self::Allocate => true,
            Self::List | Self::Open | Self::Len | Self::Read | Self::MapSegment | Self::MapRing => {
                false
            }
        }
    }

    /// Can a crash leave a part of it done?
    pub(super) const fn is_done_in_parts(self) -> bool {
        matches!(self, Self::Write | Self::WriteRing | Self::Allocate)
    }

    const fn is_sync(self) -> bool {
        matches!(self, Self::SyncData | Self::SyncDir)
    }

    const fn is_transfer(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::WriteRing)
    }
}

/// How a call fails.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `EIO`. What was asked for may have been done in part.
    Io,
    /// `ENOSPC`. What was asked for may have been done in part.
    NoSpace,
    /// `EINTR`. Nothing was done.
    Interrupted,
    /// It does not fail, but transfers less than was asked for (and at least one byte). Strikes
    /// reads and writes only.
    Short,
    /// It does not fail, and does nothing: a sync that lies. Strikes syncs of files and
    /// directories only. No honest disk does that; but a test of crashes that still passes when
    /// the n-th sync lies has not looked at what that sync is for.
    Lie,
}

impl Failure {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Io => libc::EIO,
            Self::NoSpace => libc::ENOSPC,
            Self::Interrupted | Self::Short | Self::Lie => libc::EINTR,
        })
    }
}

/// A failure that is to come.
#[derive(Clone, Debug)]
pub struct Fault {
    failure: Failure,
    op: Option<Op>,
    /// Any of these, unless there are none.
    ops: &'static [Op],
    path_part: Option<String>,
    skip: u64,
    for_ever: bool,
}

impl Fault {
    /// Strikes the next call, once, unless told otherwise.
    pub const fn new(failure: Failure) -> Self {
        Self { failure, op: None, ops: &[], path_part: None, skip: 0, for_ever: false }
    }

    /// Strikes, and counts, calls of this kind only.
    #[must_use]
    pub const fn on(mut self, op: Op) -> Self {
        self.op = Some(op);
        self
    }

    /// Strikes, and counts, calls of these kinds only; of any kind where there are none.
    #[must_use]
    pub const fn on_any(mut self, ops: &'static [Op]) -> Self {
        self.ops = ops;
        self
    }

    /// Strikes, and counts, only calls whose path contains `part`.
    #[must_use]
    pub fn at_path(mut self, part: &str) -> Self {
        self.path_part = Some(part.to_owned());
        self
    }

    /// Lets the first `calls` calls pass that it could strike.
    #[must_use]
    pub const fn after(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// Does not stop after one.
    #[must_use]
    pub const fn for_ever(mut self) -> Self {
        self.for_ever = true;
        self
    }

    fn fits(&self, ask: &Ask<'_>, state: &State) -> bool {
        self.op.is_none_or(|op| op == ask.op)
            && (self.ops.is_empty() || self.ops.contains(&ask.op))
            && match self.failure {
                Failure::Io | Failure::NoSpace | Failure::Interrupted => true,
                Failure::Short => ask.op.is_transfer(),
                Failure::Lie => ask.op.is_sync(),
            }
            && self
                .path_part
                .as_ref()
                .is_none_or(|part| ask.name(state).to_string_lossy().contains(part.as_str()))
    }
}

/// A call that was made, as the operation log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked for.
    pub op: Op,
    /// Of which file or directory, under the name that it has now.
    pub path: PathBuf,
    /// The new name, where one is given.
    pub to: Option<PathBuf>,
    /// Which bytes of the file, for reads, writes, allocations and maps: those that were
    /// transferred, or asked for where it failed.
    pub range: Range<u64>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a call.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was answered with an error.
    Failed(io::ErrorKind),
    /// The process died in it: see [`SimDisk::crash_at`](super::SimDisk::crash_at).
    Crashed,
}

impl Call {
    /// Was it done?
    pub fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }
}

/// A call that is being made.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) op: Op,
    pub(super) of: Of<'a>,
    pub(super) to: Option<&'a Path>,
    pub(super) range: Range<u64>,
}

/// What a call is made of.
#[derive(Copy, Clone, Debug)]
pub(super) enum Of<'a> {
    Path(&'a Path),
    File(FileId),
}

impl<'a> Ask<'a> {
    pub(super) const fn path(op: Op, path: &'a Path) -> Self {
        Self { op, of: Of::Path(path), to: None, range: 0..0 }
    }

    fn name<'s>(&self, state: &'s State) -> &'s Path
    where
        'a: 's,
    {
        match self.of {
            Of::Path(path) => path,
            Of::File(file) => Path::new(state.path(file).unwrap_or_default()),
        }
    }
}

/// What a call is to do.
#[derive(Debug)]
pub(super) enum Verdict {
    Whole,
    Short,
    /// Nothing, and say that it was done.
    Lie,
    /// Fail with this, after a part.
    Partly(io::Error),
    /// Fail with this, and do nothing.
    Nothing(io::Error),
    /// Do a part, and then the process is dead.
    Crash,
}

/// What is to go wrong in one life, and what has happened in it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    faults: Vec<Fault>,
    crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) operations: u64,
    pub(super) mutations: u64,
    pub(super) log: Vec<Call>,
}

impl Plan {
    pub(super) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
        self.crash_at = None;
    }

    /// The `mutation`-th mutating call from now on, counted from 0.
    pub(super) fn crash_at(&mut self, mutation: u64) {
        self.crash_at = Some(self.mutations.saturating_add(mutation));
    }

    /// Takes note of what became of a call.
    pub(super) fn record(
        &mut self,
        ask: &Ask<'_>,
        state: &State,
        range: Range<u64>,
        outcome: Outcome,
    ) {
        let path = ask.name(state).to_owned();
        let to = ask.to.map(Path::to_owned);
        self.log.push(Call { op: ask.op, path, to, range, outcome });
    }

    /// Counts a call and says what it is to do.
    pub(super) fn judge(&mut self, ask: &Ask<'_>, state: &State) -> Verdict {
        self.operations += 1;
        if ask.op.is_mutation() {
            let number = self.mutations;
            self.mutations += 1;
            if self.crash_at == Some(number) {
                return Verdict::Crash;
            }
        }
        let mut verdict = Verdict::Whole;
        self.faults.retain_mut(|fault| {
            if !matches!(verdict, Verdict::Whole) || !fault.fits(ask, state) {
                return true;
            }
            if let Some(skip) = fault.skip.checked_sub(1) {
                fault.skip = skip;
                return true;
            }
            verdict = match fault.failure {
                Failure::Short => Verdict::Short,
                Failure::Lie => Verdict::Lie,
                Failure::Interrupted => Verdict::Nothing(fault.failure.error()),
                Failure::Io | Failure::NoSpace => Verdict::Partly(fault.failure.error()),
            };
            fault.for_ever
        });
        verdict
    }
}
