//! What a cache tells of itself: events as they happen, and counts when asked.

use std::fmt;

use crate::sync::apply::FlushReason;

/// Something happened to a key, or to all of a cache.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The domain's name.
    pub cache: &'a str,
    /// The key's bytes; of tokens that speak of more, the tag or prefix, or nothing.
    pub key: &'a [u8],
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// It was there.
    Hit,
    /// It was there, and was served though it was not fresh.
    Stale,
    /// It was not there.
    Miss,
    /// It was found in a tier below memory.
    TierHit,
    /// The source was asked, and answered.
    Loaded,
    /// The source was asked, and failed.
    LoadFailed,
    /// The source was asked, and a token came before it had answered: not remembered.
    LoadVoid,
    /// It was asked for anew before its time was over.
    Refreshed,
    /// It was put by hand.
    Set,
    /// It had to make room.
    Evicted,
    /// It is not so any more.
    Invalidated(Why),
}

/// Why something was invalidated.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// A token named the key.
    Key,
    /// A token named a tag.
    Tag,
    /// A token named what the key begins with.
    Prefix,
    /// A token, or a call, named everything.
    All,
    /// Another value was sent.
    Put,
    /// A change outside was announced, or done.
    Intent,
    /// No token could say what has changed.
    Flush(FlushReason),
}

/// Counts since the cache was built; they may lag by what happens while they are summed up.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Answered from memory, fresh.
    pub hits: u64,
    /// Answered, though not fresh.
    pub stale: u64,
    /// Not in memory.
    pub misses: u64,
    /// Of the misses, found in a tier below.
    pub tier_hits: u64,
    /// Found in a tier below, and not proven to be so still.
    pub tier_refused: u64,
    /// Calls of a loader.
    pub loads: u64,
    /// Of them, those that failed.
    pub loads_failed: u64,
    /// Of them, those that were not remembered, because a token came or a change was on its way.
    pub loads_void: u64,
    /// Callers that were given what another's load brought.
    pub waited: u64,
    /// Loads ahead of time.
    pub refreshes: u64,
    /// Calls that were refused for want of a lease.
    pub refused: u64,
    /// Tokens that spoke of this cache.
    pub invalidated: u64,
    /// Entries that had to make room.
    pub evicted: u64,
    /// Entries in memory, those that no hit will find any more among them.
    pub entries: usize,
    /// Their weight.
    pub weight: u64,
    /// Changes on their way, of which nothing is remembered meanwhile.
    pub holds: usize,
}

impl CacheStats {
    /// Of all that was asked for, how much was answered without a load: 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        let asked = self.hits + self.stale + self.misses;
        if asked == 0 {
            return 0.0;
        }
        let share = |part: u64| f64::from(u32::try_from(part * 1_000_000 / asked).unwrap_or(0));
        share(self.hits + self.stale + self.tier_hits) / 1_000_000.0
    }
}

impl fmt::Display for CacheStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} hits, {} stale, {} misses, {} loads ({} failed, {} void), {} entries",
            self.hits,
            self.stale,
            self.misses,
            self.loads,
            self.loads_failed,
            self.loads_void,
            self.entries
        )
    }
}
