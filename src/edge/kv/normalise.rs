//! From what an engine has sent to events of one form.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::event::{Block, Change, KvEvent};
use super::told::Told;
use super::wire::{Batch, EngineEvent, EngineStored};
use crate::edge::fault::{Fault, Why};
use crate::edge::pos::Pos;
use crate::edge::stage::{Emit, Stage};

/// The seed of the hash of a block's tokens, as in NVIDIA Dynamo.
const SEED: u64 = 1337;
/// Ranks of one source, at most. There is one usually; more than this is a mistake or an attack.
const RANKS_MAX: usize = 1_024;

/// Reads batches, and makes [`KvEvent`]s of what they say.
///
/// A cut becomes a [`Change::Cleared`] of each rank of the source. A batch that cannot be read is
/// poison: what it said is missing, so it clears, too.
#[derive(Clone, Debug)]
pub struct Normalise {
    /// Of batches that do not say it.
    rank: u32,
    /// All that were seen.
    ranks: BTreeSet<u32>,
    /// A block's tokens as bytes, for the hash.
    bytes: Vec<u8>,
}

impl Normalise {
    /// `rank` is that of batches which do not say it, and is cleared where there is a cut.
    pub fn new(rank: u32) -> Self {
        Self { rank, ranks: BTreeSet::from([rank]), bytes: Vec::new() }
    }

    fn clear(&self, pos: Pos, out: &mut dyn Emit<KvEvent>) {
        for rank in &self.ranks {
            out.emit(pos, KvEvent::cleared(*rank));
        }
    }

    fn blocks(&mut self, stored: &EngineStored) -> Vec<Block> {
        let size = stored.block_size as usize;
        if size == 0 {
            return Vec::new();
        }
        // Blocks whose tokens are missing end the chain: those behind them have no parent here.
        let whole = stored.hashes.iter().zip(stored.tokens.chunks_exact(size));
        let hash_of = |tokens: &[u32]| {
            self.bytes.clear();
            self.bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
            xxh3_64_with_seed(&self.bytes, SEED)
        };
        let mut hash_of = hash_of;
        whole.map(|(hash, tokens)| Block { hash: *hash, tokens: hash_of(tokens) }).collect()
    }
}

impl Stage for Normalise {
    type In = Told;
    type Out = KvEvent;

    fn step(&mut self, pos: Pos, told: Told, out: &mut dyn Emit<KvEvent>) -> Result<(), Fault> {
        let payload = match told {
            Told::Cut(_) => {
                self.clear(pos, out);
                return Ok(());
            }
            Told::Batch(payload) => payload,
        };
        let batch = match Batch::decode(&payload) {
            Ok(batch) => batch,
            Err(reject) => {
                self.clear(pos, out);
                return Err(Fault::poison(pos, Why::error(reject)));
            }
        };
        let rank = batch.rank.unwrap_or(self.rank);
        self.ranks.insert(rank);
        if self.ranks.len() > RANKS_MAX {
            self.ranks.remove(&rank);
            return Err(Fault::poison(pos, format!("rank {rank} is one too many")));
        }
        let mut emitted = false;
        for event in batch.events {
            let (medium, group, change) = match event {
                EngineEvent::Stored(stored) => {
                    let change =
                        Change::Stored { parent: stored.parent, blocks: self.blocks(&stored) };
                    (stored.medium, stored.group, change)
                }
                EngineEvent::Removed { hashes, medium, group } => {
                    (medium, group, Change::Removed(hashes))
                }
                EngineEvent::Cleared => {
                    emitted = true;
                    out.emit(pos, KvEvent::cleared(rank));
                    continue;
                }
            };
            let event = KvEvent { id: 0, rank, medium, group, change };
            if event.blocks() > 0 {
                emitted = true;
                out.emit(pos, event);
            }
        }
        if !emitted {
            out.skip(pos, if batch.unknown > 0 { "unknown events" } else { "no blocks" });
        }
        Ok(())
    }

    fn save(&self, state: &mut Vec<u8>) -> bool {
        state.extend(self.ranks.iter().flat_map(|rank| rank.to_le_bytes()));
        true
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Why> {
        self.ranks = BTreeSet::from([self.rank]);
        let (ranks, rest) = state.unwrap_or_default().as_chunks::<4>();
        if !rest.is_empty() || ranks.len() > RANKS_MAX {
            return Err("these are no ranks".into());
        }
        self.ranks.extend(ranks.iter().map(|rank| u32::from_le_bytes(*rank)));
        Ok(())
    }
}
