//! Linux, through `std`, rustix and the maps next door.
#![expect(clippy::disallowed_methods, reason = "this is the door that the rest must go through")]

use std::fs;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, SeekFrom};
use rustix::io::Errno;

use super::{
    Access, Disk, Entry, File, Fill, LockGuard, PAGE, RingSource, RingWriter, SegmentMap,
    best_effort, map,
};
use crate::types::to_usize;

#[cfg(test)]
mod tests;

/// The file systems of this machine.
#[derive(Copy, Clone, Debug, Default)]
pub struct RealDisk;

/// How much is written at a time where a file is filled.
const FILL_BYTES: usize = 1 << 20;

/// Page-aligned zeros: `O_DIRECT` takes nothing less.
#[repr(align(4096))]
struct Zeros([u8; FILL_BYTES]);

static ZEROS: Zeros = Zeros([0; FILL_BYTES]);

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let data = match entry.metadata() {
                Ok(data) => data,
                // Removed between the two calls: a live store does that under a reader's feet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let (true, Ok(name)) = (data.is_file(), entry.file_name().into_string()) {
                entries.push(Entry { name, bytes: data.len() });
            }
        }
        Ok(entries)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::Create => {
                options.write(true).create(true).truncate(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn owner(&self, path: &Path) -> io::Result<Option<String>> {
        let data = fs::metadata(path)?;
        let (major, minor) = (rustix::fs::major(data.dev()), rustix::fs::minor(data.dev()));
        // To try the lock would be to take it for a moment, and somebody's open would be refused.
        let locks = fs::read_to_string("/proc/locks")?;
        let inode = format!("{major:02x}:{minor:02x}:{}", data.ino());
        let holds = |line: &&str| {
            let mut words = line.split_whitespace();
            words.clone().nth(1) == Some("FLOCK") && words.any(|word| word == inode)
        };
        if locks.lines().find(holds).is_none() {
            return Ok(None);
        }
        // By its own word: the number in the list is of another name space now and then.
        Ok(Some(fs::read_to_string(path)?.trim().to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        if let Some(name) = network_name(rustix::fs::fstatfs(&file)?.f_type) {
            let refused = format!("a store cannot be kept on {name}, a network file system");
            return Err(io::Error::new(io::ErrorKind::Unsupported, refused));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let owner = fs::read_to_string(path).unwrap_or_default();
                return Err(io::Error::new(io::ErrorKind::WouldBlock, owner.trim().to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
        // For whoever is refused; the lock holds without it.
        best_effort(file.set_len(0));
        best_effort(writeln!(file, "{}", std::process::id()));
        Ok(Box::new(RealLock(file)))
    }

    fn boot(&self) -> u64 {
        // A UUID, random at each start of the kernel.
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        u64::from_str_radix(&digits, 16).unwrap_or(0)
    }

    fn machine(&self) -> u64 {
        let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        u64::from_str_radix(&digits, 16).unwrap_or(0)
    }

    fn place(&self, dir: &Path) -> io::Result<[u64; 2]> {
        let found = fs::metadata(dir)?;
        Ok([found.dev(), found.ino()])
    }
}

/// File systems whose locks, syncs and maps another machine answers for. The magic numbers are
/// those of `statfs(2)`.
fn network_name(magic: i64) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x00c3_6400 => "Ceph",
        0x0102_1997 => "9P",
        0x5346_414f => "AFS",
        0x7375_7245 => "Coda",
        0x0bd0_0bd0 => "Lustre",
        _ => return None,
    })
}

/// The lock is the open file's: it goes when the process does, however that ends.
#[derive(Debug)]
struct RealLock(fs::File);

impl LockGuard for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // A child that is being started may hold a copy of the descriptor for a moment, and with
        // it the lock: so it is given up for all copies, not just closed.
        best_effort(rustix::fs::flock(&self.0, FlockOperation::Unlock));
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }

    fn next_data(&self, from: u64) -> Option<u64> {
        match rustix::fs::seek(&self.0, SeekFrom::Data(from)) {
            Ok(offset) => Some(offset),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => None,
            // Not every file system can tell.
            Err(_) => Some(from),
        }
    }

    fn forget(&self, range: Range<u64>) {
        let bytes = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        best_effort(rustix::fs::fadvise(&self.0, range.start, bytes, Advice::DontNeed));
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.0.write_at(bytes, at)
    }

    fn write_ring(&self, ring: &RingSource, from: u64, bytes: usize, at: u64) -> io::Result<usize> {
        ring.pwrite(self.0.as_fd(), from, bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, bytes: u64, fill: Fill) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            // Some file systems reserve by writing only; what is there stays.
            Err(Errno::OPNOTSUPP) if fill == Fill::Reserve => {
                return self.fill_buffered(self.len()?..bytes);
            }
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        match fill {
            Fill::Reserve => Ok(()),
            Fill::Zero => match self.fill_direct(bytes) {
                // Not every file system, or not for this size; or there is no /proc.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                    ) =>
                {
                    self.fill_buffered(0..bytes)
                }
                result => result,
            },
        }
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.nlink())
    }

    fn map_segment(&self, bytes: usize) -> io::Result<SegmentMap> {
        SegmentMap::of_file(&self.0, bytes)
    }

    fn map_ring(&self, bytes: usize) -> io::Result<(RingWriter, RingSource)> {
        map::file_ring(&self.0, bytes)
    }
}

impl RealFile {
    /// Past the page cache: no large folios are left behind, and no memory is used.
    fn fill_direct(&self, bytes: u64) -> io::Result<()> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        // The same file by its descriptor: by now its name may be another's.
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let direct = fs::OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        write_zeros(&direct, 0..bytes, FILL_BYTES)?;
        direct.sync_data()
    }

    /// In pages, because the size of a write is the size of the folio, and a folio is written
    /// back whole; then out of the cache.
    fn fill_buffered(&self, range: Range<u64>) -> io::Result<()> {
        write_zeros(&self.0, range, PAGE)?;
        self.0.sync_data()?;
        best_effort(rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed));
        Ok(())
    }
}

fn write_zeros(file: &fs::File, range: Range<u64>, step: usize) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let left = to_usize(range.end - at).min(step);
        let zeros = ZEROS.0.get(..left).unwrap_or(&ZEROS.0);
        match file.write_at(zeros, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => at += written as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
