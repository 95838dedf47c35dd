//! The same thing only once.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher as _};
use std::marker::PhantomData;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::fault::{Fault, Why};
use super::pos::Pos;
use super::stage::{Emit, Stage};

/// Version of a saved state.
const VERSION: u8 = 1;
/// Bytes of one remembered key: its position and its hash.
const ENTRY: usize = Pos::BYTES + 16;

/// Lets through what it has not seen among the last so many. See [`dedup`].
pub struct Dedup<T, F> {
    key: F,
    max: usize,
    /// What was seen, and with which record first.
    seen: HashMap<u128, Pos>,
    /// The same, the oldest first.
    order: VecDeque<(Pos, u128)>,
    of: PhantomData<fn(T)>,
}

impl<T, F> fmt::Debug for Dedup<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (max, seen) = (self.max, self.seen.len());
        f.debug_struct("Dedup").field("max", &max).field("seen", &seen).finish_non_exhaustive()
    }
}

/// Lets a record through if none of the last `max` (at least 1) that were let through had the same
/// key. The others are counted as `repeated`.
///
/// Keys are remembered by 128 bits of hash. What it knows is saved with the pipeline's position,
/// where that keeps one, and is as it was there; else it begins empty after a crash. A record that
/// goes to the dead letters is forgotten: one like it goes through.
pub fn dedup<T, K: Hash, F: FnMut(&T) -> K>(max: usize, key: F) -> Dedup<T, F> {
    let max = max.max(1);
    Dedup { key, max, seen: HashMap::new(), order: VecDeque::new(), of: PhantomData }
}

impl<T, F> Dedup<T, F> {
    fn remember(&mut self, pos: Pos, hash: u128) {
        self.seen.insert(hash, pos);
        self.order.push_back((pos, hash));
        while self.seen.len() > self.max {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((pos, hash)) = self.order.pop_front() else { return };
        // It may have been forgotten, and have come again since.
        if self.seen.get(&hash) == Some(&pos) {
            self.seen.remove(&hash);
        }
    }

    fn read(&mut self, state: &[u8]) -> Option<()> {
        let (version, entries) = state.split_first()?;
        let (entries, rest) = entries.as_chunks::<ENTRY>();
        if *version != VERSION || !rest.is_empty() {
            return None;
        }
        for entry in entries {
            let (pos, hash) = entry.split_first_chunk::<{ Pos::BYTES }>()?;
            let hash = u128::from_le_bytes(hash.try_into().ok()?);
            self.remember(Pos::from_bytes(*pos), hash);
        }
        Some(())
    }
}

impl<T, K: Hash, F: FnMut(&T) -> K> Stage for Dedup<T, F> {
    type In = T;
    type Out = T;

    fn step(&mut self, pos: Pos, item: T, out: &mut dyn Emit<T>) -> Result<(), Fault> {
        // Keys without a secret: a saved state is read by other processes.
        let mut hasher = SipHasher13::new();
        (self.key)(&item).hash(&mut hasher);
        hasher.write_u8(0xff);
        let hash = hasher.finish128().as_u128();
        if self.seen.contains_key(&hash) {
            out.skip(pos, "repeated");
        } else {
            self.remember(pos, hash);
            out.emit(pos, item);
        }
        Ok(())
    }

    fn poisoned(&mut self, pos: Pos) {
        let from = self.order.partition_point(|(seen, _)| *seen < pos);
        let found = self.order.iter().skip(from).take_while(|(seen, _)| *seen == pos);
        for (_, hash) in found {
            self.seen.remove(hash);
        }
        self.order.retain(|(seen, _)| *seen != pos);
    }

    fn save(&self, state: &mut Vec<u8>) -> bool {
        state.push(VERSION);
        for (pos, hash) in &self.order {
            state.extend(pos.to_bytes());
            state.extend(hash.to_le_bytes());
        }
        true
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Why> {
        self.seen.clear();
        self.order.clear();
        let Some(state) = state else { return Ok(()) };
        if self.read(state).is_none() {
            self.seen.clear();
            self.order.clear();
            return Err("the saved state is not one of a stage that drops repetitions".into());
        }
        Ok(())
    }
}
