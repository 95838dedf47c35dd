//! The identity: who the store is and how often it was opened.
//!
//! Two [slots](crate::log::slots) in the file `identity`, both the same, with the fields: store id,
//! node id, life number, life bits, a position of the event log that had been durable when that
//! life began, format version and archive layout in one, the machine's boot, 1 zero.
//!
//! A life is durable here before its first frame is written. The file is durable before the
//! first segment is made, so a store with segments and without an identity is a damaged one.

use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Damage, DamageReason, DiskError, OpenError};
use crate::log::segment::{FORMAT_VERSION, layout};
use crate::log::slots::{self, Fields, Found, Slots};
use crate::types::Life;

const MAGIC: [u8; 8] = *b"ANNALSID";

/// What the file says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Random; the event log's id too.
    pub store: u64,
    /// Random; names this store among others that talk to it.
    pub node: u64,
    /// The newest life.
    pub life: Life,
    /// Everything below was durable when that life began.
    pub durable: u64,
    /// What [`Disk::boot`] said then.
    pub boot: u64,
}

/// The identity file, read.
#[derive(Debug)]
pub(super) struct IdentityFile {
    path: PathBuf,
    found: Found,
    /// What it says, if it says anything.
    pub identity: Option<Identity>,
}

impl IdentityFile {
    /// Reads `path`. `begun` says whether anything else of the store is there, so that a missing
    /// identity is damage.
    ///
    /// # Errors
    /// Damage, the file system's, another version's or layout's file.
    pub(super) fn read(disk: &dyn Disk, path: &Path, begun: bool) -> Result<Self, OpenError> {
        let found = slots::read(disk, path, MAGIC)?;
        let identity = match found.valid.first() {
            Some(fields) => Some(decode(fields, path)?),
            None if begun => {
                return Err(OpenError::Damage(Damage {
                    file: path.to_owned(),
                    offset: 0,
                    lsns: 0..u64::MAX,
                    reason: DamageReason::Identity,
                }));
            }
            None => None,
        };
        Ok(Self { path: path.to_owned(), found, identity })
    }

    /// Offsets of slots that were written and are not valid.
    pub(super) fn bad_slots(&self) -> &[u64] {
        &self.found.bad
    }

    /// Makes `identity` durable. `dir` is the file's.
    ///
    /// # Errors
    /// The file system's; the identity before holds.
    pub(super) fn write(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        identity: &Identity,
    ) -> Result<(), DiskError> {
        let mut slots = Slots::open(disk, &self.path, MAGIC, &self.found)?;
        slots.write(&encode(identity))?;
        slots.sync()?;
        disk.sync_dir(dir).map_err(DiskError::at("syncing", dir))?;
        // The other slot too, once this one is safe: so that each of them alone knows the newest
        // life, and one bad sector costs nothing.
        slots.write(&encode(identity))?;
        slots.sync()
    }
}

fn encode(identity: &Identity) -> Fields {
    let Identity { store, node, life, durable, boot } = *identity;
    let format = u64::from(FORMAT_VERSION) << 32 | u64::from(layout());
    [store, node, life.number, life.bits, durable, format, boot, 0]
}

fn decode(fields: &Fields, path: &Path) -> Result<Identity, OpenError> {
    let [store, node, number, bits, durable, format, boot, _] = *fields;
    let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0);
    let (version, found) = (low(format >> 32), low(format));
    let path = || path.to_owned();
    if version != FORMAT_VERSION {
        return Err(OpenError::Version { path: path(), found: version, known: FORMAT_VERSION });
    }
    if found != layout() {
        return Err(OpenError::Layout { path: path(), found, here: layout() });
    }
    Ok(Identity { store, node, life: Life { number, bits }, durable, boot })
}
