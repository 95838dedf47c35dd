//! A handle of a simulated file.

use std::io;
use std::ops::Range;

use super::names::FileId;
use super::{Ask, Of, Op, Part, SimDisk};
use crate::disk::{Access, File, Fill, RingSource, RingWriter, SegmentMap};
use crate::types::to_usize;

/// An open file of one life.
#[derive(Debug)]
pub(super) struct SimFile {
    disk: SimDisk,
    file: FileId,
    access: Access,
}

impl SimFile {
    pub(super) const fn new(disk: SimDisk, file: FileId, access: Access) -> Self {
        Self { disk, file, access }
    }

    const fn ask(&self, op: Op, range: Range<u64>) -> Ask<'static> {
        Ask { op, of: Of::File(self.file), to: None, range }
    }

    /// Writes need more than `Access::Read`.
    fn writable(&self) -> io::Result<()> {
        match self.access {
            Access::Read => Err(io::Error::from_raw_os_error(libc::EBADF)),
            Access::Write | Access::Create => Ok(()),
        }
    }

    fn write(&self, op: Op, at: u64, bytes: &[u8]) -> io::Result<usize> {
        self.disk.run_parts(&self.ask(op, range(at, bytes.len())), |state, done, part| {
            self.writable()?;
            let wanted = state.part_of(bytes.len(), part);
            let bytes = bytes.get(..wanted).unwrap_or_default();
            let written = state.write(self.file, to_usize(at), bytes)?;
            *done = range(at, written);
            Ok(written)
        })
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.run(&self.ask(Op::Len, 0..0), |state| Ok(state.file(self.file)?.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.disk.run_parts(&self.ask(Op::Read, range(at, buffer.len())), |state, done, part| {
            let wanted = state.part_of(buffer.len(), part);
            let buffer = buffer.get_mut(..wanted).unwrap_or_default();
            let read = state.file(self.file)?.read(to_usize(at), buffer);
            *done = range(at, read);
            Ok(read)
        })
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.write(Op::Write, at, bytes)
    }

    fn write_ring(&self, ring: &RingSource, from: u64, bytes: usize, at: u64) -> io::Result<usize> {
        // Up to the wrap, like the kernel that is given an address and a length.
        let mut copy = vec![0; ring.contiguous(from, bytes)];
        ring.copy_out(from, &mut copy);
        if let Some(state) = &mut self.disk.life.lock().state {
            state.note_ring(ring, from, copy.len());
        }
        self.write(Op::WriteRing, at, &copy)
    }

    fn sync_data(&self) -> io::Result<()> {
        let ask = self.ask(Op::SyncData, 0..0);
        self.disk.run_parts(&ask, |state, _, part| match part {
            Part::Whole | Part::Short => state.sync_data(self.file),
            Part::Failing => state.sync_data_failed(self.file),
            Part::Nothing | Part::Crashing => Ok(()),
        })
    }

    fn allocate(&self, bytes: u64, fill: Fill) -> io::Result<()> {
        self.disk.run_parts(&self.ask(Op::Allocate, 0..bytes), |state, _, part| {
            self.writable()?;
            match part {
                Part::Whole | Part::Short => state.allocate(self.file, to_usize(bytes), fill),
                Part::Nothing | Part::Failing | Part::Crashing => {
                    let bytes = state.part_of(to_usize(bytes), part);
                    state.allocate(self.file, bytes, Fill::Reserve)
                }
            }
        })
    }

    fn map_segment(&self, bytes: usize) -> io::Result<SegmentMap> {
        let ask = self.ask(Op::MapSegment, range(0, bytes));
        self.disk.run(&ask, |state| state.file(self.file)?.map_segment(bytes))
    }

    fn map_ring(&self, bytes: usize) -> io::Result<(RingWriter, RingSource)> {
        self.disk.run(&self.ask(Op::MapRing, range(0, bytes)), |state| {
            self.writable()?;
            state.file(self.file)?.map_ring(bytes)
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(state) = &mut self.disk.life.lock().state {
            state.close(self.file);
        }
    }
}

const fn range(at: u64, bytes: usize) -> Range<u64> {
    at..at.saturating_add(bytes as u64)
}
