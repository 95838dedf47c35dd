//! A cache that is never stale unknowingly: memory, tiers below it, and the loader.
//!
//! A [`Cache`] remembers values of one domain. What tokens speak of it forgets, whoever published
//! them; what it answers it answers as [`Fresh`](Answer::Fresh), or says since when it is not.
//!
//! ```text
//!  get_or_load --> memory --> tiers (each entry proves itself) --> one load per key
//!                    ^                                                 |
//!                    |    compare and put, under the stripe's lock     |
//!                    +------- its ticket was taken before the source --+
//!                    |
//!  token --> Manager: hold, generation up, remove
//! ```
//!
//! **A value that was loaded before an invalidation is never found after it.** Every fill takes a
//! [`Ticket`] before the source is read, and is admitted only if neither its stripe's generation
//! nor a mark that speaks of it has risen since. A load whose ticket is void answers those who came
//! before the token, and nobody else.

mod counters;
mod entry;
mod events;
mod fill;
mod flight;
mod hold;
mod key;
mod load;
mod manager;
mod marks;
mod options;
mod proof;
mod scope;
mod sled;
mod table;
#[cfg(test)]
mod tests;
mod tier;
mod version;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use crate::sync::cache::events::{CacheStats, Event, EventKind, Why};
pub use crate::sync::cache::flight::{LoadError, Ticket};
pub use crate::sync::cache::key::{Bytes, Key};
pub use crate::sync::cache::load::Load;
pub use crate::sync::cache::manager::Manager;
pub use crate::sync::cache::options::{
    BoxError, BuildError, CacheBuilder, Keep, Loader, WhenStale,
};
pub use crate::sync::cache::sled::{SledTier, SledTierOptions, SledTierState};
pub use crate::sync::cache::tier::Tier;
pub use crate::sync::cache::version::Version;
pub use crate::sync::cache::write::WriteError;

use crate::sync::cache::counters::{Count, Counters};
use crate::sync::cache::entry::Look;
use crate::sync::cache::fill::Leading;
use crate::sync::cache::load::{Gate, Jitter, Pool};
use crate::sync::cache::options::Options;
use crate::sync::cache::proof::Proof;
use crate::sync::cache::scope::Scope;
use crate::sync::cache::table::{Probe, Table};
use crate::sync::domain::DomainId;
use crate::sync::freshness::{BootClock, Freshness, Lease, nanos};
use crate::time::Clock;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer<V> {
    /// The value: the source's now, or no longer ago than the domain's lease.
    Fresh(V),
    /// A value that is not known to be so any more.
    Stale {
        /// The value.
        value: V,
        /// For how long that has not been known; for values that were invalidated by more than
        /// their key, how old they are.
        since: Duration,
        /// What is wrong with it.
        why: Stale,
    },
    /// The source was asked, no longer ago than may be, and has no such thing.
    Absent,
    /// Nothing is remembered, and nobody was asked.
    Miss,
}

/// Why a value is served that is not fresh.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stale {
    /// Nothing was heard of all writers for so long.
    Lease,
    /// Its time is over, and the source failed, or took too long.
    Expired,
    /// A token has spoken of it, and the source failed, or took too long.
    Invalidated,
}

impl<V> Answer<V> {
    /// The value, if it is fresh.
    pub fn fresh(self) -> Option<V> {
        match self {
            Self::Fresh(value) => Some(value),
            Self::Stale { .. } | Self::Absent | Self::Miss => None,
        }
    }

    /// The value, fresh or not.
    pub fn any(self) -> Option<V> {
        match self {
            Self::Fresh(value) | Self::Stale { value, .. } => Some(value),
            Self::Absent | Self::Miss => None,
        }
    }

    /// Is nothing remembered?
    pub const fn is_miss(&self) -> bool {
        matches!(self, Self::Miss)
    }

    fn of(value: Option<V>) -> Self {
        value.map_or(Self::Absent, Self::Fresh)
    }

    fn stale(value: Option<V>, since: u64, why: Stale) -> Self {
        let since = Duration::from_nanos(since);
        value.map_or(Self::Absent, |value| Self::Stale { value, since, why })
    }
}

/// A cache of one domain. A clone is the same cache.
///
/// ```
/// use annals::sync::cache::{Answer, Cache};
///
/// let pages: Cache<String, String> = Cache::local("pages")?
///     .entries(1_000)
///     .loader(|name: &String, load| {
///         load.tag("public"); // the slow source is asked here
///         Ok(Some(format!("<h1>{name}</h1>")))
///     })
///     .build()?;
///
/// assert!(pages.get("home").is_miss());
/// assert_eq!(pages.get_or_load("home")?, Answer::Fresh("<h1>home</h1>".to_owned()));
/// assert_eq!(pages.get("home").fresh().as_deref(), Some("<h1>home</h1>"));
///
/// pages.remove("home")?; // one key, on all nodes; so do `remove_tag`, `remove_prefix`, `clear`
/// pages.remove_tag("public")?;
/// assert!(pages.get("home").is_miss());
/// assert_eq!(pages.stats().loads, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cache<K, V>(Arc<Inner<K, V>>);

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.0.name).finish_non_exhaustive()
    }
}

struct Inner<K, V> {
    name: String,
    domain: DomainId,
    manager: Manager,
    scope: Arc<Scope>,
    freshness: Arc<Freshness>,
    clock: Arc<BootClock>,
    wall: Clock,
    table: Table<K, V>,
    options: Options<K, V>,
    counters: Counters,
    gate: Gate,
    jitter: Jitter,
    proof: Option<Proof>,
    /// Random; in the records of tiers.
    life: u64,
    /// Last of all: its threads may still ask the rest while it is dropped.
    pool: Option<Pool>,
}

impl<K, V> fmt::Debug for Inner<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<K, V> Cache<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    /// A cache of this process alone.
    ///
    /// # Errors
    /// The thread of its clock could not be started.
    pub fn local(name: &str) -> std::io::Result<CacheBuilder<K, V>> {
        Ok(Manager::local()?.cache(name))
    }

    fn build(manager: Manager, name: String, options: Options<K, V>) -> Result<Self, BuildError> {
        let domain = DomainId::of(&name);
        let scope = manager.scope(domain).ok_or(BuildError::Domains)?;
        let background = options.refresh_ahead.is_some() || options.deadline.is_some();
        let pool = if background { Some(Pool::start(options.threads)?) } else { None };
        let inner = Arc::new(Inner {
            name,
            domain,
            freshness: scope.freshness(),
            clock: Arc::clone(manager.clock()),
            wall: Clock::System,
            table: Table::new(options.weight_max, options.entries, options.rules),
            counters: Counters::default(),
            gate: Gate::new(options.loads_max),
            jitter: Jitter::new(options.jitter, options.seed),
            // From here on what is applied is counted in `scope`; what was before is read.
            proof: match manager.history() {
                Some(history) if !options.tiers.is_empty() => Some(Proof::read(history, domain)),
                Some(_) | None => None,
            },
            life: fill::random_life()?,
            manager,
            scope,
            options,
            pool,
        });
        let weak = Arc::downgrade(&inner);
        inner.scope.add(weak);
        Ok(Self(inner))
    }

    /// What is remembered of a key, in memory or below; the source is not asked.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Answer<V>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized,
    {
        key.with_bytes(|bytes| self.0.get(bytes, || key.to_owned()))
    }

    /// What is remembered of a key, or what the cache's loader finds: however many ask, the source
    /// is asked once.
    ///
    /// # Errors
    /// See [`LoadError`]; none while something stale may be served instead.
    pub fn get_or_load<Q>(&self, key: &Q) -> Result<Answer<V>, LoadError>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized,
    {
        key.with_bytes(|bytes| self.0.get_or_load(bytes, || key.to_owned()))
    }

    /// Like [`get_or_load`](Self::get_or_load), with a loader of this call's own. It runs in this
    /// thread, if it runs; who else asks for the key meanwhile is given what it finds.
    ///
    /// # Errors
    /// See [`LoadError`]; none while something stale may be served instead.
    pub fn get_or_load_with<Q>(
        &self,
        key: &Q,
        load: impl FnOnce(&K, &mut Load) -> Result<Option<V>, BoxError>,
    ) -> Result<Answer<V>, LoadError>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized,
    {
        key.with_bytes(|bytes| self.0.get_or_load_with(bytes, || key.to_owned(), load))
    }

    /// [`get`](Self::get) for each key, in their order.
    pub fn get_many<'a, Q>(&self, keys: impl IntoIterator<Item = &'a Q>) -> Vec<Answer<V>>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized + 'a,
    {
        keys.into_iter().map(|key| self.get(key)).collect()
    }

    /// [`get_or_load`](Self::get_or_load) for each key, in their order; one after the other.
    pub fn get_or_load_many<'a, Q>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
    ) -> Vec<Result<Answer<V>, LoadError>>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized + 'a,
    {
        keys.into_iter().map(|key| self.get_or_load(key)).collect()
    }

    /// Frees the memory of what no hit will find any more: entries that are expired, or that a
    /// tag, a prefix or a clear has spoken of. They would go in time, to make room.
    pub fn sweep(&self) {
        let stale_max = nanos(self.0.options.stale_max);
        self.0.table.sweep(self.0.clock.nanos(), stale_max, &self.0.scope.marks);
    }

    /// What it has counted.
    pub fn stats(&self) -> CacheStats {
        self.0.stats()
    }

    /// The domain's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Is what is remembered known to be so now?
    pub fn lease(&self) -> Lease {
        self.0.freshness.check()
    }
}

impl<K, V> Inner<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    #[inline]
    fn count(&self, count: Count) {
        self.counters.add(count);
    }

    #[inline]
    fn tell(&self, key: &[u8], kind: EventKind) {
        if !self.options.listeners.is_empty() {
            self.tell_listeners(key, kind);
        }
    }

    #[cold]
    fn tell_listeners(&self, key: &[u8], kind: EventKind) {
        for listener in &self.options.listeners {
            listener(&Event { cache: &self.name, key, kind });
        }
    }

    #[inline]
    fn look(&self, probe: &Probe<'_>) -> Look<Option<V>> {
        match self.table.read(probe.hash) {
            Some(shard) => shard.look(probe, self.clock.nanos(), &self.scope.marks),
            None => Look::Miss,
        }
    }

    #[inline]
    fn hit(&self, bytes: &[u8], value: Option<V>) -> Answer<V> {
        self.count(Count::Hit);
        self.tell(bytes, EventKind::Hit);
        Answer::of(value)
    }

    #[inline]
    fn get(self: &Arc<Self>, bytes: &[u8], key: impl FnOnce() -> K) -> Answer<V> {
        let probe = self.table.probe(bytes);
        match (self.freshness.check(), self.look(&probe)) {
            (Lease::Fresh, Look::Hit(value)) => self.hit(bytes, value),
            (lease, look) => self.get_slow(&probe, (lease, look), key),
        }
    }

    #[cold]
    fn get_slow(
        self: &Arc<Self>,
        probe: &Probe<'_>,
        found: (Lease, Look<Option<V>>),
        key: impl FnOnce() -> K,
    ) -> Answer<V> {
        match self.found(probe, found) {
            Found::Answer(answer, soon) => {
                if soon {
                    self.refresh(probe, key());
                }
                answer
            }
            Found::Refused(_) | Found::Nothing { revalidate: true, .. } => Answer::Miss,
            Found::Nothing { revalidate: false, .. } => match self.promote(probe, key) {
                Some(fill::Had(value)) => Answer::of(value),
                None => Answer::Miss,
            },
        }
    }

    /// What is made of a look, under the lease. Counts it and tells of it.
    fn found(&self, probe: &Probe<'_>, found: (Lease, Look<Option<V>>)) -> Found<V> {
        match found {
            (Lease::Fresh, Look::Hit(value)) => Found::Answer(self.hit(probe.bytes, value), false),
            (Lease::Fresh, Look::Soon(value)) => Found::Answer(self.hit(probe.bytes, value), true),
            (Lease::Fresh, look) => {
                self.count(Count::Miss);
                self.tell(probe.bytes, EventKind::Miss);
                Found::Nothing { look, revalidate: false }
            }
            (Lease::Stale(age), look) => match (self.options.when_stale, look) {
                (WhenStale::Refuse, _) => {
                    self.count(Count::Refused);
                    Found::Refused(age)
                }
                (WhenStale::Serve, Look::Hit(value) | Look::Soon(value)) => {
                    Found::Answer(self.stale(probe.bytes, (value, nanos(age), Stale::Lease)), false)
                }
                (WhenStale::Serve | WhenStale::Revalidate, look) => {
                    self.count(Count::Miss);
                    self.tell(probe.bytes, EventKind::Miss);
                    // What lies in tiers is no more known to be so than what lies in memory.
                    Found::Nothing { look, revalidate: true }
                }
            },
        }
    }

    fn stale(&self, bytes: &[u8], (value, since, why): (Option<V>, u64, Stale)) -> Answer<V> {
        self.count(Count::Stale);
        self.tell(bytes, EventKind::Stale);
        Answer::stale(value, since, why)
    }

    fn get_or_load(
        self: &Arc<Self>,
        bytes: &[u8],
        key: impl Fn() -> K,
    ) -> Result<Answer<V>, LoadError> {
        let Some(loader) = &self.options.loader else { return Err(LoadError::NoLoader) };
        let Some(deadline) = self.options.deadline else {
            let loader = Arc::clone(loader);
            return self.get_or_load_with(bytes, key, move |key, load| loader(key, load));
        };
        let probe = self.table.probe(bytes);
        let begin = |leading: Leading<K, V>, key: K, from_tiers| {
            let loader = Arc::clone(loader);
            let job = move || drop(leading.load(&key, from_tiers, |key, load| loader(key, load)));
            self.pool.as_ref().is_some_and(|pool| pool.run(job))
        };
        self.answer(&probe, &key, |flight, from_tiers| {
            let flight_waits = Arc::clone(&flight.flight);
            if flight.leads && !begin(flight.into_leading(self), key(), from_tiers) {
                return Err(LoadError::Busy);
            }
            flight_waits.wait(Some(deadline)).unwrap_or(Err(LoadError::TimedOut(deadline)))
        })
    }

    fn get_or_load_with(
        self: &Arc<Self>,
        bytes: &[u8],
        key: impl Fn() -> K,
        load: impl FnOnce(&K, &mut Load) -> Result<Option<V>, BoxError>,
    ) -> Result<Answer<V>, LoadError> {
        let probe = self.table.probe(bytes);
        let deadline = self.options.deadline;
        self.answer(&probe, &key, |flight, from_tiers| {
            if flight.leads {
                return flight.into_leading(self).load(&key(), from_tiers, load);
            }
            let limit = deadline.unwrap_or(Duration::MAX);
            let landed = flight.flight.wait(deadline);
            landed.unwrap_or(Err(LoadError::TimedOut(limit)))
        })
    }

    /// From memory, or by a flight that `fly` leads or waits for; or stale, if that fails.
    fn answer(
        self: &Arc<Self>,
        probe: &Probe<'_>,
        key: &dyn Fn() -> K,
        fly: impl FnOnce(fill::Joined<V>, bool) -> Result<Option<V>, LoadError>,
    ) -> Result<Answer<V>, LoadError> {
        let found = (self.freshness.check(), self.look(probe));
        let (look, revalidate) = match self.found(probe, found) {
            Found::Answer(answer, soon) => {
                if soon {
                    self.refresh(probe, key());
                }
                return Ok(answer);
            }
            Found::Refused(age) => return Err(LoadError::Stale(age)),
            Found::Nothing { look, revalidate } => (look, revalidate),
        };
        let stale_max = nanos(self.options.stale_max);
        let now = self.clock.nanos();
        if let Look::Expired { value, since, retry } = &look
            && now < *retry
            && *since <= stale_max
        {
            return Ok(self.stale(probe.bytes, (value.clone(), *since, Stale::Expired)));
        }
        let joined = match self.join(probe, key, revalidate) {
            fill::Boarding::There(value) => return Ok(Answer::of(value)),
            fill::Boarding::Joined(joined) => joined,
        };
        if !joined.leads {
            self.count(Count::Waited);
        }
        match fly(joined, !revalidate) {
            Ok(value) => Ok(Answer::of(value)),
            Err(error) => self.instead(probe, look, stale_max).ok_or(error),
        }
    }

    /// What is served instead of an error.
    fn instead(
        &self,
        probe: &Probe<'_>,
        look: Look<Option<V>>,
        stale_max: u64,
    ) -> Option<Answer<V>> {
        match look {
            Look::Expired { value, since, .. } if since <= stale_max => {
                let retry = self.clock.nanos().saturating_add(nanos(self.options.retry_after));
                if let Some(shard) = self.table.read(probe.hash) {
                    shard.retry_at(probe, retry);
                }
                Some(self.stale(probe.bytes, (value, since, Stale::Expired)))
            }
            Look::Dead { value, since } if self.options.serve_invalidated => {
                Some(self.stale(probe.bytes, (value, since, Stale::Invalidated)))
            }
            Look::Hit(_)
            | Look::Soon(_)
            | Look::Expired { .. }
            | Look::Dead { .. }
            | Look::Miss => None,
        }
    }

    fn stats(&self) -> CacheStats {
        let (entries, weight) = self.table.size();
        let sum = |count| self.counters.sum(count);
        CacheStats {
            hits: sum(Count::Hit),
            stale: sum(Count::Stale),
            misses: sum(Count::Miss),
            tier_hits: sum(Count::TierHit),
            tier_refused: sum(Count::TierRefused),
            loads: sum(Count::Load),
            loads_failed: sum(Count::LoadFailed),
            loads_void: sum(Count::LoadVoid),
            waited: sum(Count::Waited),
            refreshes: sum(Count::Refresh),
            refused: sum(Count::Refused),
            invalidated: sum(Count::Invalidated),
            evicted: sum(Count::Evicted),
            entries,
            weight,
            holds: self.scope.holds.count(),
        }
    }
}

/// What a look comes to.
enum Found<V> {
    /// An answer, and whether the source had better be asked soon.
    Answer(Answer<V>, bool),
    Refused(Duration),
    /// Nothing that counts; below memory neither, if `revalidate`.
    Nothing {
        look: Look<Option<V>>,
        revalidate: bool,
    },
}

/// The guide's example runs as a test too.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/cache.md")]
struct Guide;
