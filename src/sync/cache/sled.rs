//! The tier in sled: a folder of its own, bounded, dropped when it is late or damaged.
//!
//! sled loses acknowledged writes at power loss and may bring deleted entries back; for a tier
//! that is no harm ([`tier`](crate::sync::cache::tier)). What it must not do is make an open wait:
//! it is opened in a thread that nobody waits for longer than the limit, and the cache goes on
//! without it.
//!
//! It is bounded by two trees: the younger one is written, and when it holds half of the bound, the
//! older one is dropped and they change places. A read looks at the younger one first.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use crate::catalogue::{folder_bytes, open_within};
use crate::sync::cache::tier::Tier;

/// Which tree is the younger; in the tree of all.
const YOUNGER: &[u8] = b"younger";
const TREES: [&str; 2] = ["annals-tier-0", "annals-tier-1"];

/// How a tier is opened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SledTierOptions {
    /// Bytes of keys and records that it holds, about. The folder may be a few times as large. A
    /// folder of more than eight times this is dropped at open.
    pub bytes_max: u64,
    /// How long an open may take before the cache goes on without it.
    pub open_limit: Duration,
}

impl Default for SledTierOptions {
    fn default() -> Self {
        Self { bytes_max: 256 << 20, open_limit: Duration::from_secs(5) }
    }
}

/// What became of it at open.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SledTierState {
    /// It is there, with what was in it.
    Kept,
    /// There was none.
    New,
    /// It was dropped, for this reason, and is new.
    Dropped(&'static str),
    /// The cache does without, for this reason.
    Absent(&'static str),
}

/// See the module.
pub struct SledTier {
    db: Option<sled::Db>,
    trees: Option<[sled::Tree; 2]>,
    state: SledTierState,
    bytes_max: u64,
    /// Which tree is the younger, and how much is in it. Held for a write.
    younger: Mutex<(usize, u64)>,
    dir: PathBuf,
}

impl fmt::Debug for SledTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, dir, .. } = self;
        f.debug_struct("SledTier").field("dir", dir).field("state", state).finish_non_exhaustive()
    }
}

impl SledTier {
    /// Opens the tier in `dir`, which is nobody else's, or does without: see
    /// [`state`](Self::state).
    pub fn open(dir: impl Into<PathBuf>, options: SledTierOptions) -> Self {
        let dir = dir.into();
        let (opened, state) = open(&dir, options);
        let younger = opened.as_ref().map_or(0, |(db, _)| younger_of(db));
        let trees = opened.as_ref().map(|(_, trees)| trees.clone());
        let bytes = trees.as_ref().and_then(|trees| trees.get(younger)).map_or(0, tree_bytes);
        Self {
            db: opened.map(|(db, _)| db),
            trees,
            state,
            bytes_max: options.bytes_max,
            younger: Mutex::new((younger, bytes)),
            dir,
        }
    }

    /// What became of it at open.
    pub const fn state(&self) -> SledTierState {
        self.state
    }

    /// Writes out what it holds. Needed by nothing but the hit rate of the next life.
    pub fn flush(&self) {
        if let Some(db) = &self.db {
            // What is not written out is loaded again.
            drop(db.flush());
        }
    }

    fn tree(&self, index: usize) -> Option<&sled::Tree> {
        self.trees.as_ref()?.get(index)
    }
}

fn younger_of(db: &sled::Db) -> usize {
    match db.get(YOUNGER) {
        Ok(Some(value)) if *value == [1] => 1,
        _ => 0,
    }
}

/// Reads the younger tree through: it holds half of the bound at most.
fn tree_bytes(tree: &sled::Tree) -> u64 {
    let sizes = tree.iter().map_while(Result::ok);
    sizes.map(|(key, record)| (key.len() + record.len()) as u64).sum()
}

type Opened = (sled::Db, [sled::Tree; 2]);

fn open(dir: &Path, options: SledTierOptions) -> (Option<Opened>, SledTierState) {
    let attempt = || -> Result<Opened, &'static str> {
        let db = open_within(dir, options.open_limit)?;
        let [one, other] = TREES;
        let tree = |name| db.open_tree(name).map_err(|_unreadable| "it cannot be read");
        let trees = [tree(one)?, tree(other)?];
        Ok((db, trees))
    };
    let existed = dir.exists();
    let reason = if existed && folder_bytes(dir) > options.bytes_max.saturating_mul(8) {
        "it is too large"
    } else {
        match attempt() {
            Ok(opened) if existed => return (Some(opened), SledTierState::Kept),
            Ok(opened) => return (Some(opened), SledTierState::New),
            Err(crate::catalogue::TOO_LONG) => {
                // It may still open, in a thread that nobody waits for: it is left to that one.
                return (None, SledTierState::Absent(crate::catalogue::TOO_LONG));
            }
            Err(reason) => reason,
        }
    };
    if std::fs::remove_dir_all(dir).is_err() {
        return (None, SledTierState::Absent(reason));
    }
    match attempt() {
        Ok(opened) => (Some(opened), SledTierState::Dropped(reason)),
        Err(reason) => (None, SledTierState::Absent(reason)),
    }
}

impl Tier for SledTier {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let younger = self.younger.lock().0;
        let look = |index| self.tree(index)?.get(key).ok()?;
        look(younger).or_else(|| look(1 - younger)).map(|record| record.to_vec())
    }

    fn put(&self, key: &[u8], record: &[u8]) {
        let size = (key.len() + record.len()) as u64;
        let mut younger = self.younger.lock();
        if younger.1 + size > self.bytes_max / 2 {
            let older = 1 - younger.0;
            let Some(tree) = self.tree(older) else { return };
            if tree.clear().is_err() {
                return;
            }
            *younger = (older, 0);
            if let (Some(db), Ok(index)) = (&self.db, u8::try_from(older)) {
                // A crash may undo this: then the wrong one is dropped first.
                drop(db.insert(YOUNGER, &[index]));
            }
        }
        let Some(tree) = self.tree(younger.0) else { return };
        match tree.insert(key, record) {
            Ok(Some(before)) => {
                younger.1 = (younger.1 + size).saturating_sub((key.len() + before.len()) as u64);
            }
            Ok(None) => younger.1 += size,
            // What it does not keep is loaded again.
            Err(_unkept) => {}
        }
    }

    fn remove(&self, key: &[u8]) {
        for tree in self.trees.iter().flatten() {
            drop(tree.remove(key));
        }
    }

    fn clear(&self) {
        let mut younger = self.younger.lock();
        for tree in self.trees.iter().flatten() {
            drop(tree.clear());
        }
        younger.1 = 0;
    }
}
