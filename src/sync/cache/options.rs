//! What can be set of a cache before it is built.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::cache::Cache;
use crate::sync::cache::events::Event;
use crate::sync::cache::key::{Bytes, Key};
use crate::sync::cache::load::Load;
use crate::sync::cache::manager::Manager;
use crate::sync::cache::table::Rules;
use crate::sync::cache::tier::{Persist, Tier};
use crate::sync::cache::version::MergeTwo;
use crate::sync::domain::DomainId;

/// Any error of a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Asks the source: `None` if it has no such thing.
pub type Loader<K, V> = Arc<dyn Fn(&K, &mut Load) -> Result<Option<V>, BoxError> + Send + Sync>;

/// Weighs an entry.
pub(crate) type Weigher<V> = Arc<dyn Fn(&[u8], Option<&V>) -> u32 + Send + Sync>;
/// Makes one value of two, the older one first.
pub(crate) type Merge<V> = Arc<MergeTwo<V>>;
pub(crate) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// What to do while nothing is heard of all writers, so that nobody knows whether what is
/// remembered is still so.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenStale {
    /// Ask the source each time; `get` finds nothing.
    #[default]
    Revalidate,
    /// Answer what is remembered, as `Stale` with its age.
    Serve,
    /// Fail.
    Refuse,
}

/// Who keeps values that other nodes send.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Who has the key already; for others it is an invalidation.
    #[default]
    Held,
    /// Everybody.
    All,
}

/// Sends values to the other nodes, and takes theirs.
pub(crate) struct Values<K, V> {
    pub(crate) keep: Keep,
    pub(crate) bytes_max: usize,
    pub(crate) merge: Option<Merge<V>>,
    pub(crate) write: fn(&V, &mut Vec<u8>),
    pub(crate) read: fn(&[u8]) -> Option<V>,
    pub(crate) key: fn(&[u8]) -> Option<K>,
}

/// All of it.
pub(crate) struct Options<K, V> {
    pub(crate) entries: usize,
    pub(crate) weight_max: u64,
    pub(crate) weigher: Option<Weigher<V>>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) jitter: f64,
    pub(crate) idle: Option<Duration>,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) refresh_ahead: Option<f64>,
    pub(crate) stale_max: Duration,
    pub(crate) retry_after: Duration,
    pub(crate) serve_invalidated: bool,
    pub(crate) when_stale: WhenStale,
    pub(crate) deadline: Option<Duration>,
    pub(crate) loads_max: usize,
    pub(crate) threads: usize,
    pub(crate) loader: Option<Loader<K, V>>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) tiers: Vec<Persist<V>>,
    pub(crate) values: Option<Values<K, V>>,
    pub(crate) seed: u64,
    pub(crate) rules: Rules,
}

/// Builds a [`Cache`].
#[must_use = "nothing is built before `build`"]
pub struct CacheBuilder<K, V> {
    manager: Manager,
    name: String,
    options: Options<K, V>,
    _keys: PhantomData<fn(K)>,
}

impl<K, V> fmt::Debug for CacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a cache cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A node knows no more than 4,096 domains.
    #[error("there are too many domains")]
    Domains,
    /// A thread could not be started.
    #[error("a thread for loads could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// Refresh ahead, and deadlines, need a loader that outlives the call.
    #[error("{0} needs a loader, and none was given")]
    Loader(&'static str),
}

impl<K, V> CacheBuilder<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(manager: Manager, name: &str) -> Self {
        let options = Options {
            entries: 10_000,
            weight_max: 10_000,
            weigher: None,
            ttl: None,
            jitter: 0.1,
            idle: None,
            negative_ttl: None,
            refresh_ahead: None,
            stale_max: Duration::ZERO,
            retry_after: Duration::from_secs(1),
            serve_invalidated: false,
            when_stale: WhenStale::default(),
            deadline: None,
            loads_max: 64,
            threads: 4,
            loader: None,
            listeners: Vec::new(),
            tiers: Vec::new(),
            values: None,
            seed: DomainId::of(name).get(),
            rules: Rules::ALL,
        };
        Self { manager, name: name.to_owned(), options, _keys: PhantomData }
    }

    /// How many entries memory holds, about. Default: 10,000.
    pub fn entries(mut self, entries: usize) -> Self {
        (self.options.entries, self.options.weight_max) = (entries, entries as u64);
        self
    }

    /// How heavy entries may be in all, and what each weighs (at least 1), given its key's bytes.
    /// An entry heavier than a shard's part of it is not kept.
    pub fn weight(
        mut self,
        weight_max: u64,
        weigh: impl Fn(&[u8], Option<&V>) -> u32 + Send + Sync + 'static,
    ) -> Self {
        self.options.weight_max = weight_max;
        self.options.weigher = Some(Arc::new(weigh));
        self
    }

    /// How long an entry counts, where its load does not say otherwise. Default: for ever, that is
    /// until a token speaks of it. Measured by a clock that lags by a few milliseconds.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// By how much of it a TTL is shortened at most, by chance, so that what was loaded at once
    /// does not end at once. 0 to 1; default: 0.1.
    pub fn jitter(mut self, share: f64) -> Self {
        self.options.jitter = share.clamp(0.0, 1.0);
        self
    }

    /// The random numbers of the jitter begin here. Default: from the name.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// An entry that nobody asks for ends after so long.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.options.idle = Some(idle);
        self
    }

    /// That the source has no such thing is remembered for so long. Default: not at all.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.options.negative_ttl = Some(ttl);
        self
    }

    /// A hit after this share of an entry's TTL (0 to 1) has it loaded anew in the background.
    pub fn refresh_ahead(mut self, share: f64) -> Self {
        self.options.refresh_ahead = Some(share.clamp(0.0, 1.0));
        self
    }

    /// Where the source fails, an entry that is expired by no more than this is served, as
    /// `Stale`; the source is left alone for `retry_after` then. Default: never.
    pub fn stale_on_error(mut self, expired_max: Duration, retry_after: Duration) -> Self {
        self.options.stale_max = expired_max;
        self.options.retry_after = retry_after;
        self
    }

    /// Where the source fails, even what a token has spoken of is served, as `Stale`. Such
    /// entries stay in memory for it.
    pub fn serve_invalidated(mut self, serve: bool) -> Self {
        self.options.serve_invalidated = serve;
        self
    }

    /// What to do while nothing is heard of all writers. Default: [`WhenStale::Revalidate`].
    pub fn when_stale(mut self, policy: WhenStale) -> Self {
        self.options.when_stale = policy;
        self
    }

    /// Nobody waits longer for a load. It goes on, in a thread of the cache, and what it finds is
    /// remembered. Loads that are handed in with a call run in the caller's thread: of those, only
    /// who waits for another's load has a deadline.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// How many loads run at once; others wait. Default: 64.
    pub fn loads_max(mut self, loads: usize) -> Self {
        self.options.loads_max = loads.max(1);
        self
    }

    /// How many threads load in the background, where there is anything to do so. Default: 4.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads.max(1);
        self
    }

    /// Asks the source. Must read what is at least as new as any token that has been applied: the
    /// writer itself, a primary, or a replica that is known to be so far.
    pub fn loader(
        mut self,
        load: impl Fn(&K, &mut Load) -> Result<Option<V>, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.options.loader = Some(Arc::new(load));
        self
    }

    /// Is told of each [`Event`], by the thread that it happens in, under no lock. Each costs every
    /// hit the call.
    pub fn on_event(mut self, listen: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.options.listeners.push(Arc::new(listen));
        self
    }

    /// A tier below memory, asked before the loader, the first one first. With a TTL of its own,
    /// if one is given, else the entry's.
    pub fn tier(mut self, tier: Arc<dyn Tier>, ttl: Option<Duration>) -> Self
    where
        V: Bytes,
    {
        self.options.tiers.push(Persist::new(tier, ttl, (V::write, V::read)));
        self
    }

    /// What is set here is sent to the other nodes, and theirs is taken. Values longer than
    /// `bytes_max` are sent as invalidations. Of two at once the one with the newer version counts
    /// on all nodes.
    pub fn values(mut self, keep: Keep, bytes_max: usize) -> Self
    where
        K: Bytes,
        V: Bytes,
    {
        let (write, read, key) = (V::write, V::read, K::read);
        self.options.values = Some(Values { keep, bytes_max, merge: None, write, read, key });
        self
    }

    /// Makes one of two values that were sent of one key, the older first, in the order of their
    /// versions; of the newest 16 at most. After [`values`](Self::values).
    pub fn merge(mut self, merge: impl Fn(&V, &V) -> V + Send + Sync + 'static) -> Self {
        if let Some(values) = &mut self.options.values {
            values.merge = Some(Arc::new(merge));
        }
        self
    }

    #[cfg(test)]
    pub(crate) fn rules(mut self, rules: Rules) -> Self {
        self.options.rules = rules;
        self
    }

    /// The cache.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(self) -> Result<Cache<K, V>, BuildError> {
        if self.options.loader.is_none() {
            if self.options.refresh_ahead.is_some() {
                return Err(BuildError::Loader("refresh ahead"));
            }
            if self.options.deadline.is_some() {
                return Err(BuildError::Loader("a deadline"));
            }
        }
        Cache::build(self.manager, self.name, self.options)
    }
}
