//! The only door to the file system.
//!
//! Everything above asks a [`Disk`] for [`File`]s. There are two implementors: [`real`], and
//! [`sim`], which keeps live and durable bytes apart, fails on demand and can lose power. The
//! surface is small on purpose: what is not here cannot go wrong behind a test's back.
//!
//! What the rest of Annals relies on, and nothing more:
//! - `write_at` reaches the page cache: it survives the process, not the machine.
//! - `sync_data` makes a file's content durable, `sync_dir` its name. Neither does the other's.
//! - an interrupted 512-byte sector holds its old or its new content, no mixture.
//! - after a failed `sync_data` nothing is known about the pages it covered.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub mod map;
mod published;
pub mod real;
#[cfg(any(test, feature = "internals"))]
pub mod sim;
#[cfg(all(feature = "testkit", not(any(test, feature = "internals"))))]
#[expect(dead_code, reason = "the test kit shows a part of it")]
pub mod sim;

pub use map::{RingSource, RingWriter, SegmentMap};
pub use real::RealDisk;

/// The page size that the format is built on, whatever the machine's is.
pub const PAGE: usize = 4096;
/// [`PAGE`] as a file offset.
pub const PAGE_U64: u64 = PAGE as u64;

/// A file's name and size, from a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last part of the path. Names that are not UTF-8 are not listed: none of ours is.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// How a file is opened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Must exist; only reads.
    Read,
    /// Must exist; reads and writes.
    Write,
    /// Made empty if absent, emptied if present; reads and writes.
    Create,
}

/// How room for a file is made.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Blocks are reserved, not written: cheap, but the first sync of each costs a journal commit.
    Reserve,
    /// Blocks are written with zeros and on the disk when the call returns.
    Zero,
}

/// A file system, or what passes for one in a test.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Makes a directory with its parents; it may exist. Its name is not durable until its
    /// parent is synced.
    ///
    /// # Errors
    /// The operating system's; nothing else changed.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The files (not directories) in `dir`, in no order.
    ///
    /// # Errors
    /// The operating system's, `NotFound` among them.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Opens a file.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name in the same directory, replacing what had it; or a directory,
    /// replacing nothing but an empty one.
    ///
    /// # Errors
    /// The operating system's; then the old name holds.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name. Open files and maps of it stay good.
    ///
    /// # Errors
    /// The operating system's; then the name holds.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file a second name on the same file system. Nothing is replaced.
    ///
    /// # Errors
    /// The operating system's; `Unsupported`, `CrossesDevices`, `PermissionDenied` or
    /// `TooManyLinks` where a copy would do.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The number of the process that holds the [`lock`](Self::lock) at `path`, found without
    /// taking it, so that nobody who does is kept out; `None` if nobody is known to.
    ///
    /// # Errors
    /// The operating system's.
    fn owner(&self, path: &Path) -> io::Result<Option<String>>;

    /// Makes the names in `dir` durable.
    ///
    /// # Errors
    /// The operating system's; then nothing is known of names made since the last sync.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the one lock that keeps a second writer out, until the guard is dropped, and
    /// writes this process' number into the file.
    ///
    /// # Errors
    /// `WouldBlock` with the other's number in the text where it is taken.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>>;

    /// A number that is another one after each start of the machine, so that who finds the same
    /// one again knows that nothing in the page cache was lost. 0 where that is not known.
    fn boot(&self) -> u64;

    /// A number that names the machine; 0 where that is not known.
    fn machine(&self) -> u64 {
        0
    }

    /// Numbers that name a directory on this machine: who finds others has a copy, or one that
    /// was put back.
    ///
    /// # Errors
    /// The operating system's.
    fn place(&self, dir: &Path) -> io::Result<[u64; 2]> {
        let _ = dir;
        Ok([0; 2])
    }
}

/// Keeps the lock while it lives.
pub trait LockGuard: Debug + Send + Sync {}

/// An open file. Offsets are bytes from its beginning.
#[cfg_attr(
    any(test, feature = "internals"),
    expect(clippy::len_without_is_empty, reason = "nobody asks, and it would be another call")
)]
pub trait File: Debug + Send + Sync + 'static {
    /// Its size in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;

    /// Reads at most `buffer.len()` bytes; 0 means the end of the file.
    ///
    /// # Errors
    /// The operating system's, `Interrupted` among them.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// The first offset at or behind `from` where anything was ever written, as far as the file
    /// system can tell; `None` if there is nothing. A hint: what lies between reads as zeros.
    fn next_data(&self, from: u64) -> Option<u64> {
        Some(from)
    }

    /// The cache may forget what is clean in `range`: advice, and no more.
    fn forget(&self, range: Range<u64>) {
        let _ = range;
    }

    /// Writes at most `bytes.len()` bytes into the page cache.
    ///
    /// # Errors
    /// The operating system's; then none or some of the bytes were written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Writes at most `bytes` bytes from the ring's position `from` (wrapping) into the page
    /// cache.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    fn write_ring(&self, ring: &RingSource, from: u64, bytes: usize, at: u64) -> io::Result<usize>;

    /// Makes the content durable: `fdatasync`. Never called twice at a time on one file.
    ///
    /// # Errors
    /// The operating system's; **then what was written since the last sync may be lost, and a
    /// further call may succeed without it. Never retry.**
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the file at least `bytes` long with room for all of it, and not zero bytes. What is
    /// there stays with [`Fill::Reserve`], and is zeros after [`Fill::Zero`].
    ///
    /// # Errors
    /// `StorageFull` where there is no room; the file may then have any size.
    fn allocate(&self, bytes: u64, fill: Fill) -> io::Result<()>;

    /// How many names it has: a backup may have linked it.
    ///
    /// # Errors
    /// The operating system's.
    fn links(&self) -> io::Result<u64>;

    /// Maps the file read-only. Nothing of the map is readable until the log has
    /// published it.
    ///
    /// # Errors
    /// The operating system's.
    fn map_segment(&self, bytes: usize) -> io::Result<SegmentMap>;

    /// Maps the file as a ring, populated. At most once per file and process.
    ///
    /// # Errors
    /// The operating system's.
    fn map_ring(&self, bytes: usize) -> io::Result<(RingWriter, RingSource)>;
}

/// Reads until `buffer` is full or the file ends; answers how much was read.
///
/// # Errors
/// The operating system's; interruptions and short reads are gone on with.
pub fn read_full(file: &dyn File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `bytes`.
///
/// # Errors
/// The operating system's; interruptions and short writes are gone on with. Some bytes may have
/// been written.
pub fn write_full(file: &dyn File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        done += progress(file.write_at(rest, at + done as u64))?;
    }
    Ok(())
}

/// Writes `bytes` bytes from the ring's position `from`.
///
/// # Errors
/// As for [`write_full`].
pub fn write_ring_full(
    file: &dyn File,
    ring: &RingSource,
    from: u64,
    bytes: usize,
    at: u64,
) -> io::Result<()> {
    let mut done = 0;
    while done < bytes {
        let offset = done as u64;
        done += progress(file.write_ring(ring, from + offset, bytes - done, at + offset))?;
    }
    Ok(())
}

/// For advice: a kernel that does not take it is slower, and right all the same.
fn best_effort<T, E>(_advice: Result<T, E>) {}

/// An interruption is no progress and no error; no progress without one is an error.
fn progress(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(written) => Ok(written),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}
