//! Linux, through `std`, rustix and the maps next door.
#![expect(clippy::disallowed_methods, reason = "this is the door that the rest must go through")]

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};

use super::{
    Access, Disk, Entry, File, Fill, LockGuard, PAGE, RingSource, RingWriter, SegmentMap,
    best_effort, map,
};
use crate::types::to_usize;

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
        let file = options.open(path)?;
        Ok(Arc::new(RealFile { file, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
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
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let owner = fs::read_to_string(path).unwrap_or_default();
            return Err(io::Error::new(io::ErrorKind::WouldBlock, owner.trim().to_owned()));
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Box::new(RealLock(file)))
    }
}

/// The lock is the open file's: it goes when the process does, however that ends.
#[derive(Debug)]
struct RealLock(#[expect(dead_code, reason = "held, not read")] fs::File);

impl LockGuard for RealLock {}

#[derive(Debug)]
struct RealFile {
    file: fs::File,
    path: PathBuf,
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.file.write_at(bytes, at)
    }

    fn write_ring(&self, ring: &RingSource, from: u64, bytes: usize, at: u64) -> io::Result<usize> {
        ring.pwrite(self.file.as_fd(), from, bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, bytes: u64, fill: Fill) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // tmpfs and some others reserve by writing only.
            Err(rustix::io::Errno::OPNOTSUPP) => return self.fill_buffered(bytes),
            Err(error) => return Err(error.into()),
        }
        match fill {
            Fill::Reserve => Ok(()),
            Fill::Zero => match self.fill_direct(bytes) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.fill_buffered(bytes)
                }
                result => result,
            },
        }
    }

    fn map_segment(&self, bytes: usize) -> io::Result<SegmentMap> {
        SegmentMap::of_file(&self.file, bytes)
    }

    fn map_ring(&self, bytes: usize) -> io::Result<(RingWriter, RingSource)> {
        map::file_ring(&self.file, bytes)
    }
}

impl RealFile {
    /// Past the page cache: no large folios are left behind, and no memory is used.
    fn fill_direct(&self, bytes: u64) -> io::Result<()> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        let direct = fs::OpenOptions::new().write(true).custom_flags(flags).open(&self.path)?;
        write_zeros(&direct, bytes, FILL_BYTES)?;
        direct.sync_data()
    }

    /// In pages, because the size of a write is the size of the folio, and a folio is written
    /// back whole; then out of the cache.
    fn fill_buffered(&self, bytes: u64) -> io::Result<()> {
        write_zeros(&self.file, bytes, PAGE)?;
        self.file.sync_data()?;
        best_effort(rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed));
        Ok(())
    }
}

fn write_zeros(file: &fs::File, bytes: u64, step: usize) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let left = to_usize(bytes - at).min(step);
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
