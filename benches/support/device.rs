//! What reaches the block device, as the kernel counts it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The device that a folder is on.
pub(crate) struct Device(PathBuf);

impl Device {
    /// `None`, and a word about it, where the file system is on no device of its own.
    pub(crate) fn of(dir: &Path) -> Option<Self> {
        let number = fs::metadata(dir).expect("the folder").dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let this = Self(format!("/sys/dev/block/{major}:{minor}/stat").into());
        if this.read().is_none() {
            eprintln!(
                "*** SKIPPED: what a commit writes to the device cannot be known here, because \
                 there is no {}",
                this.0.display()
            );
            return None;
        }
        Some(this)
    }

    /// Bytes written to it so far, by whomever.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.read().expect("it could be read before")
    }

    fn read(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.0).ok()?;
        // "sectors written" is the seventh; a sector is 512 bytes here, whatever the device's.
        let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
        Some(sectors * 512)
    }
}

/// Blocks on disk of the files in `dir` with that extension, in bytes.
pub(crate) fn bytes_on_disk(dir: &Path, extension: &str) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry")) {
        let data = entry.metadata().expect("its size");
        let path = entry.path();
        if data.is_dir() {
            bytes += bytes_on_disk(&path, extension);
        } else if path.extension().is_some_and(|it| it == extension) {
            bytes += data.blocks() * 512;
        }
    }
    bytes
}
