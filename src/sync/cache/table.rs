//! The memory tier: entries in shards of `quick_cache`, and beside them what fills are checked by.
//!
//! A shard's lock guards its entries, its *generations* (one number for each stripe of keys) and
//! its flights, so comparing a ticket and putting a value is one step, and so is raising a
//! generation and removing what it speaks of. A hit takes the lock for reading, which others that
//! read share, looks at the entry where it lies and copies the value alone.
//!
//! No other lock is taken under a shard's, but that of the domain's holds, for a look.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use quick_cache::unsync::Cache as Quick;
use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, Weighter};

use crate::sync::cache::entry::{Entry, Look};
use crate::sync::cache::flight::{Flight, Ticket};
use crate::sync::cache::hold::Holds;
use crate::sync::cache::key::Key;
use crate::sync::cache::marks::Marks;
use crate::sync::cache::version::{Register, Version};

/// Stripes of keys in all: two keys of one stripe void each other's loads, and nothing else.
const STRIPES: usize = 1 << 14;
const SHARDS_MAX: usize = 64;
/// Floors that a shard remembers apart; then the newest of them becomes the floor of all.
const FLOORS_MAX: usize = 1 << 12;

/// A key as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Slot<K>(pub(crate) K);

impl<K: Key> PartialEq for Slot<K> {
    fn eq(&self, other: &Self) -> bool {
        other.0.with_bytes(|bytes| self.0.is(bytes))
    }
}

impl<K: Key> Eq for Slot<K> {}

impl<K: Key> Hash for Slot<K> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.with_bytes(|bytes| state.write(bytes));
    }
}

/// A key as it is looked for.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) hash: u64,
    pub(crate) bytes: &'a [u8],
}

impl Hash for Probe<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K: Key> Equivalent<Slot<K>> for Probe<'_> {
    #[inline]
    fn equivalent(&self, slot: &Slot<K>) -> bool {
        slot.0.is(self.bytes)
    }
}

/// Hashes a key's bytes, without their length, for there is nothing behind them; of a [`Probe`],
/// whose hash is there already, passes it on.
#[derive(Clone, Default)]
pub(crate) struct Hashing(DefaultHashBuilder);

impl fmt::Debug for Hashing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashing")
    }
}

pub(crate) struct Hashed {
    hasher: <DefaultHashBuilder as BuildHasher>::Hasher,
    known: Option<u64>,
}

impl Hasher for Hashed {
    #[inline]
    fn finish(&self) -> u64 {
        self.known.unwrap_or_else(|| self.hasher.finish())
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.known = Some(hash);
    }
}

impl BuildHasher for Hashing {
    type Hasher = Hashed;

    #[inline]
    fn build_hasher(&self) -> Hashed {
        Hashed { hasher: self.0.build_hasher(), known: None }
    }
}

/// Weighs an entry by what was said when it was put.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Weigh;

impl<K, V> Weighter<Slot<K>, Entry<V>> for Weigh {
    fn weight(&self, _key: &Slot<K>, entry: &Entry<V>) -> u64 {
        u64::from(entry.weight())
    }
}

/// Gathers what had to go, so that it is dropped and told of outside of the lock.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Gather;

impl<K, V> Lifecycle<Slot<K>, Entry<V>> for Gather {
    type RequestState = Evicted<K, V>;

    fn on_evict(&self, state: &mut Self::RequestState, key: Slot<K>, entry: Entry<V>) {
        state.0.push((key, entry));
    }
}

/// What had to go.
#[derive(Debug)]
pub(crate) struct Evicted<K, V>(pub(crate) Vec<(Slot<K>, Entry<V>)>);

impl<K, V> Default for Evicted<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// What became of a value that was to be put.
#[derive(Debug)]
pub(crate) enum Put<K, V> {
    /// It is there, and these went.
    Done(Evicted<K, V>),
    /// A token came after its ticket was taken.
    Void,
    /// A change of it is on its way.
    Held,
}

/// Switches for tests: each rule, off, must be missed.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Rules {
    /// A put compares its ticket.
    pub(crate) tickets: bool,
    /// What is held is not admitted.
    pub(crate) holds: bool,
    /// Who came after a token does not join a flight from before it.
    pub(crate) waiters: bool,
}

impl Rules {
    pub(crate) const ALL: Self = Self { tickets: true, holds: true, waiters: true };
}

/// A part of the table, and the lock's content.
#[derive(Debug)]
pub(crate) struct Shard<K, V> {
    entries: Quick<Slot<K>, Entry<V>, Weigh, Hashing, Gather>,
    /// A generation for each stripe: more with each token of a key in it.
    generations: Box<[u64]>,
    flights: Vec<(Slot<K>, Arc<Flight<V>>)>,
    /// Where values are sent: of keys that have no entry, what is known to be invalid.
    floors: std::collections::HashMap<u64, Version>,
    floor: Version,
    hasher: Hashing,
}

/// A shard and its lock, apart from the next one's: each hit writes to the lock.
#[derive(Debug)]
#[repr(align(128))]
struct Room<K, V>(RwLock<Shard<K, V>>);

/// All shards.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    shards: Box<[Room<K, V>]>,
    hasher: Hashing,
    pub(crate) rules: Rules,
}

impl<K: Key, V> Table<K, V> {
    /// For so much weight, and about so many entries.
    pub(crate) fn new(weight_max: u64, entries: usize, rules: Rules) -> Self {
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        let wanted = (cores * 4).next_power_of_two().min(SHARDS_MAX);
        // A shard bounds itself, so a small cache must not be cut into many.
        let roomy = (entries / 64).max(1).next_power_of_two();
        let count = wanted.min(roomy);
        let hasher = Hashing::default();
        let shard = || {
            let options = OptionsBuilder::new()
                .weight_capacity(weight_max.div_ceil(count as u64).max(1))
                .estimated_items_capacity(entries.div_ceil(count).max(1))
                .build();
            // Fails only where a capacity is missing.
            let options = options.unwrap_or_else(|_missing| unreachable!("both are given"));
            Room(RwLock::new(Shard {
                entries: Quick::with_options(options, Weigh, hasher.clone(), Gather),
                generations: std::iter::repeat_n(0, STRIPES / count).collect(),
                flights: Vec::new(),
                floors: std::collections::HashMap::new(),
                floor: Version::OLDEST,
                hasher: hasher.clone(),
            }))
        };
        let shards = (0..count).map(|_| shard()).collect();
        Self { shards, hasher, rules }
    }

    #[inline]
    pub(crate) fn probe<'a>(&self, bytes: &'a [u8]) -> Probe<'a> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(bytes);
        Probe { hash: hasher.finish(), bytes }
    }

    #[inline]
    fn shard(&self, hash: u64) -> Option<&RwLock<Shard<K, V>>> {
        // The map within uses the lowest and the highest bits.
        let at = crate::types::to_usize(hash >> 32) & (self.shards.len() - 1);
        self.shards.get(at).map(|Room(shard)| shard)
    }

    #[inline]
    pub(crate) fn read(&self, hash: u64) -> Option<RwLockReadGuard<'_, Shard<K, V>>> {
        self.shard(hash).map(RwLock::read)
    }

    pub(crate) fn write(&self, hash: u64) -> Option<RwLockWriteGuard<'_, Shard<K, V>>> {
        self.shard(hash).map(RwLock::write)
    }

    /// Entries, and their weight.
    pub(crate) fn size(&self) -> (usize, u64) {
        let sizes = self.shards.iter().map(|Room(shard)| {
            let shard = shard.read();
            (shard.entries.len(), shard.entries.weight())
        });
        sizes.fold((0, 0), |(count, weight), (more, heavier)| (count + more, weight + heavier))
    }

    /// Frees what no hit will ever find: expired by `stale_max` or more, or invalidated.
    pub(crate) fn sweep(&self, now: u64, stale_max: u64, marks: &Marks) {
        for Room(shard) in &self.shards {
            shard.write().entries.retain(|slot, entry| {
                match slot.0.with_bytes(|bytes| entry.state(bytes, now, marks)) {
                    Look::Hit(()) | Look::Soon(()) => true,
                    Look::Expired { since, .. } => since < stale_max,
                    Look::Dead { .. } | Look::Miss => false,
                }
            });
        }
    }
}

impl<K: Key, V> Shard<K, V> {
    /// Looks a key up. With `V: Clone` see [`Self::look`].
    #[inline]
    fn find(&self, probe: &Probe<'_>, now: u64, marks: &Marks) -> Look<&Option<V>> {
        let Some(entry) = self.entries.get(probe) else { return Look::Miss };
        let value = &entry.value;
        match entry.state(probe.bytes, now, marks) {
            Look::Hit(()) => Look::Hit(value),
            Look::Soon(()) => Look::Soon(value),
            Look::Expired { since, retry, .. } => Look::Expired { value, since, retry },
            Look::Dead { since, .. } => Look::Dead { value, since },
            Look::Miss => Look::Miss,
        }
    }

    /// Looks a key up, and copies its value.
    #[inline]
    pub(crate) fn look(&self, probe: &Probe<'_>, now: u64, marks: &Marks) -> Look<Option<V>>
    where
        V: Clone,
    {
        match self.find(probe, now, marks) {
            Look::Hit(value) => Look::Hit(value.clone()),
            Look::Soon(value) => Look::Soon(value.clone()),
            Look::Expired { value, since, retry } => {
                Look::Expired { value: value.clone(), since, retry }
            }
            Look::Dead { value, since } => Look::Dead { value: value.clone(), since },
            Look::Miss => Look::Miss,
        }
    }

    fn stripe(&self, hash: u64) -> usize {
        crate::types::to_usize(hash >> 40) & (self.generations.len() - 1)
    }

    /// A ticket for `probe`: what its fill is compared with.
    pub(crate) fn ticket(&self, hash: u64, marks: &Marks) -> Ticket {
        let stripe = self.generations.get(self.stripe(hash)).copied().unwrap_or(0);
        Ticket { hash, stripe, number: marks.number() }
    }

    /// Is what is loaded under `ticket` still to be given to those who ask now?
    fn holds_good(&self, ticket: &Ticket, marks: &Marks) -> bool {
        self.ticket(ticket.hash, marks) == *ticket
    }

    /// Joins the flight that loads a key, or begins one (`true`).
    ///
    /// Of a flight that began before `since` nobody is a passenger either: where nothing is heard
    /// of the writers, its age is all that is known of what it brings.
    pub(crate) fn join(
        &mut self,
        probe: &Probe<'_>,
        key: impl FnOnce() -> K,
        (marks, rules, now, since): (&Marks, Rules, u64, u64),
    ) -> (Arc<Flight<V>>, bool) {
        let there = self.flights.iter().position(|(slot, _)| probe.equivalent(slot));
        if let Some(at) = there
            && let Some((_, flight)) = self.flights.get(at)
        {
            let good = self.holds_good(&flight.ticket, marks) && flight.begun >= since;
            if good || !rules.waiters {
                return (Arc::clone(flight), false);
            }
            // It goes on, for those who came before the token.
            self.flights.swap_remove(at);
        }
        let flight = Arc::new(Flight::new(self.ticket(probe.hash, marks), now));
        self.flights.push((Slot(key()), Arc::clone(&flight)));
        (flight, true)
    }

    /// A flight is over: nobody joins it any more.
    pub(crate) fn leave(&mut self, flight: &Arc<Flight<V>>) {
        self.flights.retain(|(_, other)| !Arc::ptr_eq(flight, other));
    }

    /// Compare and put: the entry is there only if no token came after its ticket was taken.
    pub(crate) fn put(
        &mut self,
        slot: Slot<K>,
        (entry, ticket): (Entry<V>, &Ticket),
        (marks, holds, rules): (&Marks, &Holds, Rules),
    ) -> Put<K, V> {
        let (same, spared, held) = slot.0.with_bytes(|bytes| {
            (
                self.generations.get(self.stripe(ticket.hash)) == Some(&ticket.stripe),
                marks.number() == ticket.number || marks.spare(ticket.number, bytes, entry.tags()),
                holds.hold(bytes, entry.tags()),
            )
        });
        if rules.tickets && !(same && spared) {
            return Put::Void;
        }
        if rules.holds && held {
            return Put::Held;
        }
        let mut entry = entry;
        if !rules.tickets {
            entry.number = AtomicU64::new(marks.number());
        }
        let mut evicted = Evicted::default();
        self.entries.insert_with_lifecycle(slot, entry, &mut evicted);
        self.remember_floors(&evicted);
        Put::Done(evicted)
    }

    /// Raises the generation of a key's stripe: loads that have begun will not be remembered.
    pub(crate) fn raise(&mut self, hash: u64) {
        let stripe = self.stripe(hash);
        if let Some(generation) = self.generations.get_mut(stripe) {
            *generation += 1;
        }
    }

    /// Removes a key's entry, or, to be served under protest, keeps it as dead since `now`.
    pub(crate) fn remove(&mut self, probe: &Probe<'_>, keep: Option<u64>) -> Option<Entry<V>> {
        match keep {
            None => self.entries.remove(probe).map(|(_, entry)| entry),
            Some(now) => {
                if let Some(mut entry) = self.entries.get_mut(probe) {
                    entry.soft = 0;
                    if let Some(rest) = &mut entry.rest {
                        rest.dead = now.max(1);
                        return None;
                    }
                }
                self.entries.remove(probe).map(|(_, entry)| entry)
            }
        }
    }

    /// A key is being asked for anew: that is not begun again before `asked`.
    pub(crate) fn asked_until(&self, probe: &Probe<'_>, asked: u64) {
        if let Some(rest) = self.entries.peek(probe).and_then(|entry| entry.rest.as_ref()) {
            rest.asked.store(asked, Ordering::Relaxed);
        }
    }

    /// The source failed for a key: it is left alone until `retry`.
    pub(crate) fn retry_at(&self, probe: &Probe<'_>, retry: u64) {
        if let Some(rest) = self.entries.peek(probe).and_then(|entry| entry.rest.as_ref()) {
            rest.retry.store(retry, Ordering::Relaxed);
        }
    }

    // --- values that are sent ---

    fn remember_floors(&mut self, evicted: &Evicted<K, V>) {
        for (slot, entry) in &evicted.0 {
            if let Some(register) = entry.register() {
                let hash = self.hasher.hash_one(slot);
                self.keep_floor(hash, register.newest());
            }
        }
    }

    /// Nothing at or below `floor` is taken in for a key any more.
    fn keep_floor(&mut self, hash: u64, floor: Version) {
        if self.floors.len() >= FLOORS_MAX {
            let newest = self.floors.drain().map(|(_, version)| version).max();
            self.floor = self.floor.max(newest.unwrap_or(Version::OLDEST));
        }
        let held = self.floors.entry(hash).or_insert(Version::OLDEST);
        *held = floor.max(*held);
    }

    fn floor_of(&self, hash: u64) -> Version {
        self.floors.get(&hash).copied().unwrap_or(Version::OLDEST).max(self.floor)
    }

    /// Takes out what is known of a key's values, with `floor` applied.
    ///
    /// `true` if the key was remembered.
    pub(crate) fn take_register(
        &mut self,
        probe: &Probe<'_>,
        floor: Version,
    ) -> (bool, Register<V>) {
        let entry = self.entries.remove(probe).map(|(_, entry)| entry);
        let held = entry.is_some();
        let known = entry.and_then(|entry| entry.rest?.register);
        let mut register = known.unwrap_or_else(|| Register::new(Version::OLDEST));
        register.invalidate(floor.max(self.floor_of(probe.hash)));
        (held, register)
    }

    /// Puts back what is known of a key's values; an entry with `value` if there is one.
    pub(crate) fn put_register(
        &mut self,
        (hash, slot): (u64, Slot<K>),
        register: Register<V>,
        entry: Option<Entry<V>>,
    ) -> Evicted<K, V> {
        let mut evicted = Evicted::default();
        match entry {
            Some(mut entry) if !register.is_empty() => {
                if let Some(rest) = &mut entry.rest {
                    rest.register = Some(register);
                }
                self.entries.insert_with_lifecycle(slot, entry, &mut evicted);
            }
            Some(_) | None => self.keep_floor(hash, register.newest()),
        }
        self.remember_floors(&evicted);
        evicted
    }
}
