//! The bytes of a file: what is seen, what is durable, and every sector's versions in between.

use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::choice::{Choose, Random};
use crate::disk::map::FilePages;
use crate::disk::{RingSource, RingWriter, SegmentMap};
use crate::types::to_usize;

/// What the medium writes wholly or not at all.
pub(super) const SECTOR: usize = 512;

/// Versions of one sector that are remembered; then one from the middle is forgotten.
const VERSIONS_MAX: usize = 16;

type Sector = [u8; SECTOR];

/// Bytes that are shared between copies of a disk, and what they come to.
#[derive(Debug, Default)]
struct Bytes {
    bytes: Vec<u8>,
    /// The sum of what its sectors come to, if anybody has asked: a change of one costs no more.
    sum: OnceLock<u64>,
}

impl Bytes {
    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, sum: OnceLock::new() }
    }

    /// To be changed: nobody else sees it.
    fn change(this: &mut Arc<Self>) -> &mut Vec<u8> {
        let this = Arc::make_mut(this);
        this.sum = OnceLock::new();
        &mut this.bytes
    }

    /// Another version of one sector.
    fn put(this: &mut Arc<Self>, sector: usize, version: Option<&Arc<Sector>>) {
        let before = this.sum.get().map(|sum| sum.wrapping_sub(this.term(sector)));
        place(Self::change(this), sector, version);
        if let Some(before) = before {
            let sum = before.wrapping_add(this.term(sector));
            Self::know(this, sum);
        }
    }

    fn know(this: &mut Arc<Self>, sum: u64) {
        if let Some(this) = Arc::get_mut(this) {
            this.sum = OnceLock::from(sum);
        }
    }

    fn sum(&self) -> u64 {
        let all = || (0..self.len().div_ceil(SECTOR)).map(|sector| self.term(sector));
        *self.sum.get_or_init(|| all().fold(self.len() as u64, u64::wrapping_add))
    }

    fn term(&self, sector: usize) -> u64 {
        let rest = self.get(sector * SECTOR..).unwrap_or_default();
        mix(sector as u64, hash(rest.get(..SECTOR).unwrap_or(rest)))
    }
}

impl Clone for Bytes {
    fn clone(&self) -> Self {
        Self::of(self.bytes.clone())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A file's content.
#[derive(Debug)]
pub(super) struct Content {
    live: Live,
    /// Its length is the durable size.
    durable: Arc<Bytes>,
    /// Per sector what was written since the last sync, oldest first. A sector that is not here
    /// is clean, which after a failed sync does not say that it is durable.
    unsynced: BTreeMap<usize, Vec<Arc<Sector>>>,
    /// The sizes that it has had since the last sync, oldest first.
    sizes: Vec<usize>,
}

/// What reads see.
#[derive(Debug)]
enum Live {
    Plain(Arc<Bytes>),
    Mapped(FilePages),
    /// Written through the ring's writer, behind this module's back.
    Ring(RingSource),
}

impl Content {
    /// A file that is durable as it is.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self::clean(Arc::new(Bytes::of(bytes)))
    }

    fn clean(bytes: Arc<Bytes>) -> Self {
        Self {
            live: Live::Plain(Arc::clone(&bytes)),
            durable: bytes,
            unsynced: BTreeMap::new(),
            sizes: Vec::new(),
        }
    }

    /// Comes to know what its durable bytes come to, for all that share them.
    pub(super) fn sum_up(&self) {
        self.durable.sum();
    }

    /// What is seen, in 64 bits.
    pub(super) fn fingerprint(&self) -> u64 {
        match &self.live {
            Live::Plain(bytes) => bytes.sum(),
            Live::Mapped(_) | Live::Ring(_) => Bytes::of(self.live()).sum(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.live {
            Live::Plain(bytes) => bytes.len(),
            Live::Mapped(pages) => pages.len(),
            Live::Ring(ring) => ring.len(),
        }
    }

    pub(super) fn read(&self, at: usize, buffer: &mut [u8]) -> usize {
        let bytes = self.len().saturating_sub(at).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..bytes).filter(|buffer| !buffer.is_empty()) else {
            return 0;
        };
        match &self.live {
            Live::Plain(live) => {
                buffer.copy_from_slice(live.get(at..at + bytes).unwrap_or_default());
            }
            Live::Mapped(pages) => pages.copy_out(at, buffer),
            Live::Ring(ring) => ring.copy_out(at as u64, buffer),
        }
        bytes
    }

    pub(super) fn live(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.read(0, &mut bytes);
        bytes
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// Would it be the same after any power cut?
    pub(super) fn is_durable(&mut self) -> bool {
        self.catch_up();
        self.live() == **self.durable && self.unsynced.is_empty() && self.sizes.is_empty()
    }

    /// Writes into the cache. What lies between the end and `at` becomes zeros.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = at + bytes.len();
        if end > self.len() {
            self.resize(end)?;
        }
        match &mut self.live {
            Live::Plain(live) => {
                if let Some(target) = Bytes::change(live).get_mut(at..end) {
                    target.copy_from_slice(bytes);
                }
            }
            Live::Mapped(pages) => {
                let written = pages.copy_in(at, bytes);
                assert!(written.is_ok(), "a write at {at} changes bytes that a map has published");
            }
            Live::Ring(_) => return Err(refused("a write into a file that is mapped as a ring")),
        }
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            self.note(sector);
        }
        Ok(())
    }

    /// Writes zeros from the beginning to `end`, which is not behind the end of the file.
    pub(super) fn write_zeros(&mut self, end: usize) -> io::Result<()> {
        let blank = match &self.live {
            Live::Plain(live) => {
                self.unsynced.is_empty()
                    && live.get(..end).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
                    && self.durable.iter().all(|byte| *byte == 0)
            }
            Live::Mapped(_) | Live::Ring(_) => false,
        };
        if blank { Ok(()) } else { self.write(0, &vec![0; end]) }
    }

    /// Another size; what is new is zeros.
    pub(super) fn resize(&mut self, len: usize) -> io::Result<()> {
        let before = self.len();
        if len == before {
            return Ok(());
        }
        Bytes::change(self.plain()?).resize(len, 0);
        // What was cut off comes back as zeros, if it comes back.
        for sector in len / SECTOR..before.div_ceil(SECTOR) {
            self.note(sector);
        }
        if self.sizes.last() != Some(&len) {
            self.sizes.push(len);
        }
        Ok(())
    }

    /// Everything that is dirty becomes durable.
    pub(super) fn sync(&mut self) {
        self.catch_up();
        let len = self.len();
        if self.unsynced.is_empty() && self.durable.len() == len {
            self.sizes.clear();
            return;
        }
        let durable = Bytes::change(&mut self.durable);
        durable.resize(len, 0);
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            place(durable, sector, versions.last());
        }
        self.sizes.clear();
    }

    /// Each dirty sector becomes durable, or stays dirty, or is lost and clean.
    pub(super) fn sync_failed(&mut self, random: &mut Random) {
        self.catch_up();
        let len = self.len();
        let durable = Bytes::change(&mut self.durable);
        if random.once_in(2) {
            durable.resize(len, 0);
            self.sizes.clear();
        }
        self.unsynced.retain(|sector, versions| match random.below(3) {
            0 => false,
            1 if *sector * SECTOR < durable.len() => {
                place(durable, *sector, versions.last());
                false
            }
            _ => true,
        });
    }

    /// What is found when only the process went.
    pub(super) fn after_kill(&mut self) {
        self.catch_up();
        if !matches!(self.live, Live::Plain(_)) {
            self.live = Live::Plain(Arc::new(Bytes::of(self.live())));
        }
    }

    /// The same, while this one goes on.
    pub(super) fn fork(&mut self) -> Self {
        self.catch_up();
        let live = match &self.live {
            Live::Plain(live) => Arc::clone(live),
            Live::Mapped(_) | Live::Ring(_) => Arc::new(Bytes::of(self.live())),
        };
        Self {
            live: Live::Plain(live),
            durable: Arc::clone(&self.durable),
            unsynced: self.unsynced.clone(),
            sizes: self.sizes.clone(),
        }
    }

    /// What is found when the machine is up again. Not for a ring that is not caught up with.
    pub(super) fn after_power_cut(&self, choose: &mut dyn Choose) -> Self {
        if self.unsynced.is_empty() && self.sizes.is_empty() {
            return Self::clean(Arc::clone(&self.durable));
        }
        choose.group();
        let mut bytes = Arc::clone(&self.durable);
        let len = match self.sizes.len() {
            0 => bytes.len(),
            sizes => match choose.pick(1 + sizes) {
                0 => bytes.len(),
                size => self.sizes.get(size - 1).copied().unwrap_or_default(),
            },
        };
        if len != bytes.len() {
            Bytes::change(&mut bytes).resize(len, 0);
        }
        for (sector, versions) in self.unsynced.range(..len.div_ceil(SECTOR)) {
            if let Some(version) = choose.pick(1 + versions.len()).checked_sub(1) {
                Bytes::put(&mut bytes, *sector, versions.get(version));
            }
        }
        Self::clean(bytes)
    }

    /// The cache forgets what is clean: what a failed sync has lost comes to light.
    pub(super) fn drop_cache(&mut self) {
        self.catch_up();
        let Live::Plain(live) = &mut self.live else { return };
        let mut seen = self.durable.to_vec();
        seen.resize(live.len(), 0);
        for sector in self.unsynced.keys() {
            let version = sector_of(live, *sector);
            place(&mut seen, *sector, Some(&Arc::new(version)));
        }
        *live = Arc::new(Bytes::of(seen));
    }

    /// Changes seen and durable bytes alike, as if they had always been so.
    pub(super) fn damage(&mut self, change: impl Fn(&mut Vec<u8>)) -> io::Result<()> {
        change(Bytes::change(self.plain()?));
        change(Bytes::change(&mut self.durable));
        let live = self.live();
        self.unsynced.retain(|sector, _| *sector * SECTOR < live.len());
        for (sector, versions) in &mut self.unsynced {
            let now = sector_of(&live, *sector);
            if versions.last().is_some_and(|last| **last != now) {
                *versions = vec![Arc::new(now)];
            }
        }
        if self.sizes.last().is_some_and(|size| *size != live.len()) {
            self.sizes = vec![live.len()];
        }
        Ok(())
    }

    pub(super) fn map_segment(&mut self, bytes: usize) -> io::Result<SegmentMap> {
        if bytes > self.len() {
            return Err(refused("a map beyond the end of its file"));
        }
        if matches!(self.live, Live::Plain(_) | Live::Ring(_)) {
            let pages = FilePages::new(self.plain()?)?;
            self.live = Live::Mapped(pages);
        }
        match &mut self.live {
            Live::Mapped(pages) => Ok(pages.map(bytes)),
            Live::Plain(_) | Live::Ring(_) => Err(refused("a file that is not mapped")),
        }
    }

    pub(super) fn map_ring(&mut self, bytes: usize) -> io::Result<(RingWriter, RingSource)> {
        if bytes != self.len() {
            return Err(refused("a ring of another size than its file"));
        }
        let (writer, source) = FilePages::new(self.plain()?)?.into_ring();
        self.live = Live::Ring(source.clone());
        Ok((writer, source))
    }

    /// The kernel looks at `bytes` bytes of a ring: if it is this file, its sectors as they are
    /// now are what a power cut may keep of it.
    pub(super) fn note_ring(&mut self, seen: &RingSource, position: u64, bytes: usize) {
        let Live::Ring(ring) = &self.live else { return };
        if !ring.same(seen) {
            return;
        }
        let start = to_usize(position % (ring.len() as u64));
        for sector in start / SECTOR..(start + bytes).div_ceil(SECTOR) {
            self.note(sector);
        }
    }

    /// A ring is written behind our back: what differs by now is dirty.
    fn catch_up(&mut self) {
        if matches!(self.live, Live::Ring(_)) {
            for sector in 0..self.len().div_ceil(SECTOR) {
                self.note(sector);
            }
        }
    }

    /// The growable form, which a file in use by a map cannot take.
    fn plain(&mut self) -> io::Result<&mut Arc<Bytes>> {
        let free = match &self.live {
            Live::Plain(_) => true,
            Live::Mapped(pages) => pages.is_unmapped(),
            Live::Ring(ring) => ring.is_last(),
        };
        if !free {
            return Err(refused("a change that a mapped file cannot take"));
        }
        self.catch_up();
        if !matches!(self.live, Live::Plain(_)) {
            self.live = Live::Plain(Arc::new(Bytes::of(self.live())));
        }
        match &mut self.live {
            Live::Plain(bytes) => Ok(bytes),
            Live::Mapped(_) | Live::Ring(_) => Err(refused("a mapped file")),
        }
    }

    /// Remembers a sector as it is now, unless that is what would be found anyway.
    fn note(&mut self, sector: usize) {
        let mut now = [0; SECTOR];
        self.read(sector * SECTOR, &mut now);
        match self.unsynced.get_mut(&sector) {
            Some(versions) if versions.last().is_some_and(|last| **last == now) => {}
            Some(versions) => {
                if versions.len() == VERSIONS_MAX {
                    versions.remove(VERSIONS_MAX / 2);
                }
                versions.push(Arc::new(now));
            }
            // Not even dirty; but bytes that a failed sync has lost do differ, and are.
            None if sector_of(&self.durable, sector) == now => {}
            None => {
                self.unsynced.insert(sector, vec![Arc::new(now)]);
            }
        }
    }
}

/// A sector of `bytes`, filled up with zeros.
fn sector_of(bytes: &[u8], sector: usize) -> Sector {
    let mut found = [0; SECTOR];
    let rest = bytes.get(sector * SECTOR..).unwrap_or_default();
    let bytes = rest.len().min(SECTOR);
    if let (Some(target), Some(rest)) = (found.get_mut(..bytes), rest.get(..bytes)) {
        target.copy_from_slice(rest);
    }
    found
}

/// Writes a version of a sector, as far as `bytes` reaches.
fn place(bytes: &mut [u8], sector: usize, version: Option<&Arc<Sector>>) {
    let target = bytes.get_mut(sector * SECTOR..).unwrap_or_default();
    let bytes = target.len().min(SECTOR);
    if let Some(version) = version
        && let (Some(target), Some(version)) = (target.get_mut(..bytes), version.get(..bytes))
    {
        target.copy_from_slice(version);
    }
}

/// 64 bits of any bytes. Not for what somebody chose to look like something else.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut lanes = [bytes.len() as u64, 1, 2, 3];
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut last = [0; 32];
    for (target, byte) in last.iter_mut().zip(rest) {
        *target = *byte;
    }
    for block in blocks.iter().chain([&last]) {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    }
    let [a, b, c, d] = lanes;
    mix(mix(a, b), mix(c, d))
}

/// One number of two, where their order counts.
pub(super) const fn mix(first: u64, second: u64) -> u64 {
    let first = (first ^ 0x9e37_79b9_7f4a_7c15).rotate_left(23);
    let product = (first as u128 | 1) * ((second ^ 0xbf58_476d_1ce4_e5b9) as u128);
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    let folded = (product >> 64) as u64 ^ product as u64;
    folded ^ first
}

/// The simulation's own refusal: a real disk would let it pass, and harm might come of it.
fn refused(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
