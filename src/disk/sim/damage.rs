//! What a test does to files, and asks of them, that no process could.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::SimDisk;
use crate::types::to_usize;

/// Looking at files, and damaging them, behind the back of the process.
impl SimDisk {
    /// A file's bytes as they are seen.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Panics
    /// This life has ended.
    pub fn copy_bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.with(|state| Ok(state.content(path)?.live()))
    }

    /// A file's bytes as they would be found if all were lost that is not durable; `None` if
    /// its name were lost.
    ///
    /// # Errors
    /// The path is not one.
    ///
    /// # Panics
    /// This life has ended.
    pub fn durable_bytes(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.with(|state| state.durable_bytes(path))
    }

    /// Would any power cut leave this file, name and bytes, as it is seen now?
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Panics
    /// This life has ended.
    pub fn is_durable(&self, path: &Path) -> io::Result<bool> {
        self.with(|state| state.is_durable(path))
    }

    /// The paths and sizes of all files, in order.
    ///
    /// # Panics
    /// This life has ended.
    pub fn list_all(&self) -> Vec<(PathBuf, u64)> {
        self.with(|state| state.list_all())
    }

    /// Flips one bit, in what is seen and on the disk.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` where the file is mapped in this life.
    ///
    /// # Panics
    /// This life has ended.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        self.damage(path, |bytes| {
            if let Some(byte) = bytes.get_mut(to_usize(byte)) {
                *byte ^= 1 << (bit % 8);
            }
        })
    }

    /// Zeroes a range, in what is seen and on the disk.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` where the file is mapped in this life.
    ///
    /// # Panics
    /// This life has ended.
    pub fn zero(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        self.damage(path, |bytes| {
            let end = to_usize(range.end).min(bytes.len());
            bytes.get_mut(to_usize(range.start)..end).unwrap_or_default().fill(0);
        })
    }

    /// Cuts a file, in what is seen and on the disk.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` where the file is mapped in this life.
    ///
    /// # Panics
    /// This life has ended.
    pub fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.damage(path, |content| content.truncate(to_usize(bytes)))
    }

    /// Any other damage, or none: what `change` does is done to what is seen, and then to what
    /// is on the disk, whose length may be another.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` where the file is mapped in this life.
    ///
    /// # Panics
    /// This life has ended.
    pub fn damage(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) -> io::Result<()> {
        self.with(|state| state.content(path)?.damage(change))
    }

    /// Takes a file's name away, durably. Who has it open, keeps it.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Panics
    /// This life has ended.
    pub fn delete(&self, path: &Path) -> io::Result<()> {
        self.with(|state| state.delete(path))
    }

    /// Puts a file there, durable in name (as far as its directory is) and bytes. What had the
    /// name loses it.
    ///
    /// # Errors
    /// `NotFound`: there is no such directory.
    ///
    /// # Panics
    /// This life has ended.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        self.with(|state| state.put(path, bytes))
    }
}
