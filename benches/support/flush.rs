//! The limit of everything durable: `pwrite` and `fdatasync` on a file that is all zeros, with
//! nobody to wake.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::disk::{Access, Disk as _, File, Fill, RealDisk, write_full};

use super::FRAME_BYTES;
use super::histogram::Histogram;

const FILE_BYTES: u64 = 16 << 20;

/// A file to flush into, from its beginning on, again and again.
pub(crate) struct Flush {
    file: Arc<dyn File>,
    bytes: Vec<u8>,
    at: u64,
}

impl Flush {
    /// `frames` of 176 bytes are written before each flush.
    pub(crate) fn new(path: &Path, frames: usize) -> Self {
        let file = RealDisk.open(path, Access::Create).expect("the limit's file");
        file.allocate(FILE_BYTES, Fill::Zero).expect("room for the limit's file");
        Self { file, bytes: vec![0x5a; frames * FRAME_BYTES], at: 0 }
    }

    pub(crate) fn flush(&mut self) {
        let length = self.bytes.len() as u64;
        if self.at + length > FILE_BYTES {
            self.at = 0;
        }
        write_full(&*self.file, &self.bytes, self.at).expect("a write");
        self.file.sync_data().expect("a flush");
        self.at += length;
    }

    /// Flushes so often, and notes each time.
    pub(crate) fn run(&mut self, times: u64, each: &mut Histogram) -> Duration {
        let began = Instant::now();
        let mut last = began;
        for _ in 0..times {
            self.flush();
            let now = Instant::now();
            each.record(now - last);
            last = now;
        }
        last - began
    }
}
