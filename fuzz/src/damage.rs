//! What an input does to the files of a simulated disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use annals::disk::sim::SimDisk;

/// Bytes of the input that describe one change.
pub(crate) const CHANGE: usize = 8;

/// One change to the files below `dir`, and what is left of the input.
pub(crate) fn damage<'a>(
    disk: SimDisk,
    dir: &str,
    change: [u8; CHANGE],
    rest: &'a [u8],
) -> (SimDisk, &'a [u8]) {
    let [what, file, a0, a1, b0, b1, c0, c1] = change;
    let [at, other, count] = [[a0, a1], [b0, b1], [c0, c1]].map(u16::from_le_bytes);
    let files = disk.list_all().into_iter().filter(|(path, _)| path.starts_with(dir));
    let files: BTreeMap<PathBuf, u64> = files.collect();
    let Some((path, bytes)) = files.iter().nth(usize::from(file) % files.len().max(1)) else {
        return (disk, rest);
    };
    let at = u64::from(at) % bytes.max(&1);
    let range = at..at.saturating_add(u64::from(count));
    let done = match what % 8 {
        0 | 1 => disk.flip_bit(path, at, c0 % 8),
        2 => disk.zero(path, range),
        3 => disk.truncate(path, at),
        4 => disk.delete(path),
        5 => {
            // A part of the file, at another place in it.
            let from = u64::from(other) % bytes.max(&1);
            copy(&disk, path, from, at, u64::from(count))
        }
        6 => {
            let (new, rest) = rest.split_at(rest.len().min(usize::from(count) % 256));
            write(&disk, path, at, new);
            return (disk, rest);
        }
        _ => return (disk.power_cut(u64::from(other)), rest),
    };
    done.expect("a file that was listed");
    (disk, rest)
}

fn copy(disk: &SimDisk, path: &Path, from: u64, to: u64, count: u64) -> std::io::Result<()> {
    let bytes = disk.copy_bytes(path)?;
    let from = usize::try_from(from).expect("64 bits");
    let end = from.saturating_add(usize::try_from(count).expect("64 bits")).min(bytes.len());
    write(disk, path, to, &bytes[from.min(end)..end]);
    Ok(())
}

/// Overwrites, but lets no file grow.
pub(crate) fn write(disk: &SimDisk, path: &Path, at: u64, new: &[u8]) {
    let at = usize::try_from(at).expect("64 bits");
    let done = disk.damage(path, |bytes| {
        for (target, byte) in bytes.iter_mut().skip(at).zip(new) {
            *target = *byte;
        }
    });
    done.expect("a file that was listed");
}

/// Takes an input to pieces, from its beginning: so a change of a byte changes one decision.
#[derive(Debug)]
pub(crate) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number below `end`; 0 at the end of the input.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte().unwrap_or(0)) % end.max(1)
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes([0, 1].map(|_| self.byte().unwrap_or(0)))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}
