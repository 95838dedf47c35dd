//! What is held, so that only changes of it go on.
//!
//! An engine may hold a block several times (two requests computed it at once): it stores it
//! twice and removes it twice. Whoever asks where a block is wants to know of the first and of the
//! last. Counting would do, if each event came exactly once; but a record may come again, and then
//! a count is wrong for ever. So what is kept of a block is a **set**: which of its copies there
//! are, each named by the position of the event that stored it. To put it in twice changes nothing.
//!
//! **What has gone on is what is held**, block by block: the tests hold that against a model that
//! has only the set. Where the past is not known (records are missing, the saved state is lost) it
//! says so by a [`Change::Cleared`] of each rank before it says anything else of it, and begins
//! empty.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use super::event::{Block, Change, KvEvent};
use super::wire::{BlockHash, Medium};
use crate::edge::fault::{Fault, Why};
use crate::edge::pos::{Gap, Pos};
use crate::edge::stage::{Emit, Stage};

/// Passes on the events that change what is held: the first copy of a block and the last one.
#[derive(Debug)]
pub struct Holders {
    blocks_max: usize,
    held: HashMap<Key, Copies>,
    /// After a loss: the ranks that were cleared since. Nothing is said of another before it is.
    void: Option<BTreeSet<u32>>,
    /// The input at hand, and how many of its events have come: names the copies.
    input: Pos,
    events: u32,
}

/// A block, and who has it where.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    hash: BlockHash,
    rank: u32,
    group: u32,
    medium: Medium,
}

/// The copies of a block, by the event that stored them, oldest first. There is one nearly always.
#[derive(Debug)]
enum Copies {
    One(Pos),
    More(BTreeSet<Pos>),
}

impl Copies {
    fn add(&mut self, at: Pos) {
        match self {
            Self::One(first) if *first == at => {}
            Self::One(first) => *self = Self::More(BTreeSet::from([*first, at])),
            Self::More(all) => {
                all.insert(at);
            }
        }
    }

    /// Takes the oldest away: was it the last one?
    fn take(&mut self) -> bool {
        match self {
            Self::One(_) => true,
            Self::More(all) => {
                all.pop_first();
                if let (1, Some(last)) = (all.len(), all.first()) {
                    *self = Self::One(*last);
                }
                false
            }
        }
    }
}

/// Bytes of one copy in what is saved: hash, rank, group, medium, position.
const SAVED: usize = 8 + 4 + 4 + 1 + Pos::BYTES;

impl Holders {
    /// Keeps `blocks_max` blocks at most. Where there are more it clears, and begins again.
    pub fn new(blocks_max: usize) -> Self {
        Self {
            blocks_max: blocks_max.max(1),
            held: HashMap::new(),
            void: None,
            input: Pos::default(),
            events: 0,
        }
    }

    /// Blocks that are held, each counted once for each rank, group and medium.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Is none?
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Nothing of the past counts.
    fn forget(&mut self) {
        self.held.clear();
        self.void = Some(BTreeSet::new());
    }

    fn stored(
        &mut self,
        key: Key,
        at: Pos,
        (mut parent, blocks): (Option<BlockHash>, Vec<Block>),
        mut run: impl FnMut(Option<BlockHash>, Vec<Block>),
    ) {
        let mut new = Vec::new();
        let mut before = parent;
        for block in blocks {
            match self.held.entry(Key { hash: block.hash, ..key }) {
                Entry::Occupied(mut held) => {
                    held.get_mut().add(at);
                    // What is new before it and behind it are two chains.
                    if !new.is_empty() {
                        run(parent, std::mem::take(&mut new));
                    }
                    parent = Some(block.hash);
                }
                Entry::Vacant(free) => {
                    free.insert(Copies::One(at));
                    if new.is_empty() {
                        parent = before;
                    }
                    new.push(block);
                }
            }
            before = Some(block.hash);
        }
        if !new.is_empty() {
            run(parent, new);
        }
    }

    /// Those of which no copy is left.
    fn removed(&mut self, key: Key, mut hashes: Vec<BlockHash>) -> Vec<BlockHash> {
        hashes.retain(|hash| match self.held.entry(Key { hash: *hash, ..key }) {
            Entry::Occupied(mut held) => {
                let last = held.get_mut().take();
                if last {
                    held.remove();
                }
                last
            }
            Entry::Vacant(_) => false,
        });
        hashes
    }
}

impl Stage for Holders {
    type In = KvEvent;
    type Out = KvEvent;

    fn step(&mut self, pos: Pos, event: KvEvent, out: &mut dyn Emit<KvEvent>) -> Result<(), Fault> {
        self.events = if pos == self.input { self.events.saturating_add(1) } else { 0 };
        self.input = pos;
        let KvEvent { rank, medium, group, .. } = event;
        let key = Key { hash: BlockHash::default(), rank, group, medium };
        if self.held.len() >= self.blocks_max && matches!(event.change, Change::Stored { .. }) {
            self.forget();
        }
        let untold = self.void.as_mut().is_some_and(|told| told.insert(rank));
        if untold && event.change != Change::Cleared {
            out.emit(pos, KvEvent::cleared(rank));
        }
        match event.change {
            Change::Cleared => {
                self.held.retain(|key, _| key.rank != rank);
                out.emit(pos, event);
            }
            Change::Removed(hashes) => {
                let gone = self.removed(key, hashes);
                if gone.is_empty() {
                    out.skip(pos, "held elsewhere or not at all");
                } else {
                    out.emit(pos, KvEvent { change: Change::Removed(gone), ..event });
                }
            }
            Change::Stored { parent, blocks } => {
                let mut any = false;
                let at = pos.at_part(self.events);
                self.stored(key, at, (parent, blocks), |parent, blocks| {
                    any = true;
                    let change = Change::Stored { parent, blocks };
                    out.emit(pos, KvEvent { id: 0, rank, medium, group, change });
                });
                if !any {
                    out.skip(pos, "held already");
                }
            }
        }
        Ok(())
    }

    fn gap(&mut self, _gap: &Gap) {
        self.forget();
    }

    fn poisoned(&mut self, _pos: Pos) {
        // What it would have changed is not known.
        self.forget();
    }

    fn save(&self, state: &mut Vec<u8>) -> bool {
        let copies = self.held.len().saturating_mul(SAVED);
        state.reserve(copies);
        for (key, held) in &self.held {
            let mut write = |at: &Pos| {
                state.extend_from_slice(&key.hash.0.to_le_bytes());
                state.extend_from_slice(&key.rank.to_le_bytes());
                state.extend_from_slice(&key.group.to_le_bytes());
                state.push(key.medium as u8);
                state.extend_from_slice(&at.to_bytes());
            };
            match held {
                Copies::One(at) => write(at),
                Copies::More(all) => all.iter().for_each(write),
            }
        }
        true
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Why> {
        self.forget();
        let Some(state) = state else { return Ok(()) };
        let (copies, rest) = state.as_chunks::<SAVED>();
        for copy in copies {
            let Some((key, at)) = read(copy) else { break };
            match self.held.entry(key) {
                Entry::Occupied(mut held) => held.get_mut().add(at),
                Entry::Vacant(free) => {
                    free.insert(Copies::One(at));
                }
            }
        }
        if !rest.is_empty() || copies.iter().any(|copy| read(copy).is_none()) {
            self.forget();
            return Err("these are no blocks".into());
        }
        self.void = None;
        Ok(())
    }
}

fn read(copy: &[u8; SAVED]) -> Option<(Key, Pos)> {
    let (hash, rest) = copy.split_first_chunk()?;
    let (rank, rest) = rest.split_first_chunk()?;
    let (group, rest) = rest.split_first_chunk()?;
    let (medium, at) = rest.split_first()?;
    let medium = Medium::ALL.into_iter().find(|known| *known as u8 == *medium)?;
    let key = Key {
        hash: BlockHash(u64::from_le_bytes(*hash)),
        rank: u32::from_le_bytes(*rank),
        group: u32::from_le_bytes(*group),
        medium,
    };
    Some((key, Pos::from_bytes(at.try_into().ok()?)))
}
