//! What the simulated disk may do, and what it may never do: every combination where they can be
//! counted, many seeds where they cannot, and the real disk beside it.

mod beside;
mod bytes;
mod faults;
mod lives;
mod maps;
mod names;

use std::collections::BTreeSet;

use super::content::SECTOR;
use super::*;
use crate::disk::map::heap_ring;
use crate::disk::{Fill, PAGE, PAGE_U64, RealDisk, read_full, write_full, write_ring_full};

const SEEDS: u64 = 200;
const PAGES: usize = 2 * PAGE;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn sector(version: u8) -> [u8; SECTOR] {
    [version; SECTOR]
}

/// A file of which all is durable.
fn durable(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(path(name), Access::Create).unwrap();
    write_full(&*file, bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path(name).parent().unwrap()).unwrap();
    file
}

/// The first byte of each sector: enough where sectors are uniform.
fn versions(disk: &SimDisk, name: &str) -> Vec<u8> {
    let bytes = disk.copy_bytes(path(name)).unwrap();
    let sectors = bytes.chunks(SECTOR).map(|sector| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
        sector[0]
    });
    sectors.collect()
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list_all().iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect()
}
