//! Two-slot records: small facts that are rewritten in place and never torn.
//!
//! A file of two 4 KiB slots; writes alternate, and a reader takes the newest slot that
//! validates. A torn or stale slot only means the one before.
//!
//! ```text
//!  0  magic   8 bytes  what it is
//!  8  count   u64      one more at each write
//! 16  fields  8 x u64
//! 80  crc     u32      over all before
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Access, Disk, File, PAGE, PAGE_U64, read_full, write_full};
use crate::error::DiskError;

/// How many numbers a slot holds.
pub const FIELDS: usize = 8;
const BODY: usize = 16 + FIELDS * 8;
const SLOT: usize = BODY + 4;

const _: () = assert!(SLOT <= 512, "a slot fits a sector, so that a power cut does not tear it");

/// The numbers of a slot; what they mean is their owner's.
pub type Fields = [u64; FIELDS];

/// An open two-slot file.
#[derive(Debug)]
pub struct Slots {
    file: Arc<dyn File>,
    path: PathBuf,
    magic: [u8; 8],
    count: u64,
}

/// What a two-slot file said.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The valid slots, newest first.
    pub valid: Vec<Fields>,
    count: u64,
    /// The file was there.
    pub exists: bool,
    /// Offsets of slots that were written and are not valid.
    pub bad: Vec<u64>,
}

/// Reads the slots of the file at `path`; a file that is absent has none.
///
/// # Errors
/// The file system's.
pub fn read(disk: &dyn Disk, path: &Path, magic: [u8; 8]) -> Result<Found, DiskError> {
    let file = match disk.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(DiskError::at("opening", path)(error)),
    };
    let (mut slots, mut bad) = (Vec::new(), Vec::new());
    for at in [0, PAGE_U64] {
        let mut slot = [0; SLOT];
        let read = read_full(&*file, &mut slot, at).map_err(DiskError::at("reading", path))?;
        match decode(&slot, magic) {
            Some(decoded) if read == SLOT => slots.push(decoded),
            None if read == SLOT && slot.iter().all(|byte| *byte == 0) => {}
            // Not even zeros have got there: a power cut at the file's beginning.
            None if read == 0 && at == 0 => {}
            Some(_) | None => bad.push(at),
        }
    }
    if slots.is_empty() && bad == [PAGE_U64] {
        bad.clear();
    }
    slots.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    Ok(Found {
        count: slots.first().map_or(0, |(count, _)| *count),
        valid: slots.into_iter().map(|(_, fields)| fields).collect(),
        exists: true,
        bad,
    })
}

impl Slots {
    /// Opens the file to write on after what was `found` in it; makes it if it is absent. A file
    /// that was made has a durable name when `sync_dir` of its directory has been called.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(
        disk: &dyn Disk,
        path: &Path,
        magic: [u8; 8],
        found: &Found,
    ) -> Result<Self, DiskError> {
        let access = if found.exists { Access::Write } else { Access::Create };
        let file = disk.open(path, access).map_err(DiskError::at("opening", path))?;
        if !found.exists {
            // Both pages at once, so that no later write makes the file grow.
            write_full(&*file, &[0; 2 * PAGE], 0).map_err(DiskError::at("writing", path))?;
        }
        Ok(Self { file, path: path.to_owned(), magic, count: found.count })
    }

    /// Writes the older slot. It survives the process, not the machine.
    ///
    /// # Errors
    /// The file system's; the other slot holds.
    pub fn write(&mut self, fields: &Fields) -> Result<(), DiskError> {
        let count = self.count + 1;
        let mut slot = [0; SLOT];
        let (body, crc) = slot.split_at_mut(BODY);
        let words = [u64::from_le_bytes(self.magic), count];
        for (target, word) in body.as_chunks_mut::<8>().0.iter_mut().zip(words.iter().chain(fields))
        {
            *target = word.to_le_bytes();
        }
        crc.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let at = (count % 2) * PAGE_U64;
        write_full(&*self.file, &slot, at).map_err(DiskError::at("writing", &self.path))?;
        self.count = count;
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The file system's.
    pub fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(DiskError::at("syncing", &self.path))
    }
}

fn decode(slot: &[u8; SLOT], magic: [u8; 8]) -> Option<(u64, Fields)> {
    let (body, crc) = slot.split_at(BODY);
    if crc != crc32fast::hash(body).to_le_bytes() {
        return None;
    }
    let mut words = body.as_chunks::<8>().0.iter();
    if words.next() != Some(&magic) {
        return None;
    }
    // No file is written so often, and the next write counts on from here.
    let count = u64::from_le_bytes(*words.next()?);
    if count == u64::MAX {
        return None;
    }
    let mut fields = [0; FIELDS];
    for (field, word) in fields.iter_mut().zip(words) {
        *field = u64::from_le_bytes(*word);
    }
    Some((count, fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    /// Found by fuzzing: the write after it overflowed.
    #[test]
    fn a_slot_that_cannot_be_counted_on_from_is_none() {
        let disk = SimDisk::new(1);
        let path = Path::new("/slots");
        for (count, valid) in [(u64::MAX - 1, 1), (u64::MAX, 0)] {
            let mut slots = Slots::open(&disk, path, *b"ANNALTST", &Found::default()).unwrap();
            slots.count = count - 1;
            slots.write(&[1; FIELDS]).unwrap();
            let found = read(&disk, path, *b"ANNALTST").unwrap();
            assert_eq!(found.valid.len(), valid, "count {count}");
            Slots::open(&disk, path, *b"ANNALTST", &found).unwrap().write(&[2; FIELDS]).unwrap();
        }
    }
}
