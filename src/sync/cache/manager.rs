//! The manager: the one of a node that applies tokens to its caches.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::sync::apply::{Applier, Flush, History, Publisher};
use crate::sync::cache::events::{CacheStats, Why};
use crate::sync::cache::hold::What;
use crate::sync::cache::key::Key;
use crate::sync::cache::marks::TagHash;
use crate::sync::cache::options::CacheBuilder;
use crate::sync::cache::scope::Scope;
use crate::sync::cache::version::Version;
use crate::sync::domain::DomainId;
use crate::sync::freshness::{BootClock, Freshness, Ticker};
use crate::sync::origin::{Lane, TokenLog};
use crate::sync::token::{Token, TokenKind};

/// Domains that a manager knows at most, those that only others have among them.
const DOMAINS_MAX: usize = 4096;
/// How often the clock of a manager without a node is moved.
const TICK: Duration = Duration::from_millis(5);

/// Applies tokens to the caches of a node, and builds those caches.
///
/// One per node; a clone is the same one. It is made before its node is opened, because the node
/// hands it tokens from the beginning, and is [connected](Self::connect) to it after.
#[derive(Clone)]
pub struct Manager(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<BootClock>,
    /// Of a manager without a node: keeps the clock going.
    _ticker: Option<Arc<Ticker>>,
    scopes: RwLock<HashMap<DomainId, Arc<Scope>>>,
    /// How far each log is visible.
    seen: Mutex<HashMap<TokenLog, u64>>,
    publisher: OnceLock<Arc<dyn Publisher>>,
    history: OnceLock<Arc<dyn History>>,
    /// Nobody else writes: what is remembered is fresh.
    alone: bool,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domains = self.0.scopes.read().len();
        f.debug_struct("Manager").field("domains", &domains).finish_non_exhaustive()
    }
}

/// The clock of all managers without a node.
fn shared_ticker() -> std::io::Result<Arc<Ticker>> {
    static TICKER: Mutex<std::sync::Weak<Ticker>> = Mutex::new(std::sync::Weak::new());
    let mut shared = TICKER.lock();
    if let Some(ticker) = shared.upgrade() {
        return Ok(ticker);
    }
    let ticker = Arc::new(Ticker::start(TICK)?);
    *shared = Arc::downgrade(&ticker);
    Ok(ticker)
}

impl Manager {
    /// Of a node whose clock this is. Of each domain nothing is fresh before it is
    /// [declared](Self::declare).
    pub fn new(clock: Arc<BootClock>) -> Self {
        Self::with(clock, None, false)
    }

    /// Of a process that is alone: what is invalidated is said by its own calls.
    ///
    /// # Errors
    /// The thread of its clock could not be started.
    pub fn local() -> std::io::Result<Self> {
        let ticker = shared_ticker()?;
        Ok(Self::with(Arc::clone(ticker.clock()), Some(ticker), true))
    }

    /// Like [`local`](Self::local), with a clock that the caller moves.
    pub fn local_with(clock: Arc<BootClock>) -> Self {
        Self::with(clock, None, true)
    }

    fn with(clock: Arc<BootClock>, ticker: Option<Arc<Ticker>>, alone: bool) -> Self {
        Self(Arc::new(Shared {
            clock,
            _ticker: ticker,
            scopes: RwLock::default(),
            seen: Mutex::default(),
            publisher: OnceLock::new(),
            history: OnceLock::new(),
            alone,
        }))
    }

    /// From here on what its caches write is said through `publisher`, and what they keep is
    /// checked with `history`. Before caches are built; a second call changes nothing.
    pub fn connect(&self, publisher: Arc<dyn Publisher>, history: Option<Arc<dyn History>>) {
        // The first stays: an `OnceLock` gives the other back.
        drop(self.0.publisher.set(publisher));
        if let Some(history) = history {
            drop(self.0.history.set(history));
        }
    }

    /// What the node proves of a domain is read from here, by the caches that are built after.
    pub fn declare(&self, domain: &str, freshness: Arc<Freshness>) {
        if let Some(scope) = self.scope(DomainId::of(domain)) {
            scope.set_freshness(freshness);
        }
    }

    /// A cache of a domain.
    pub fn cache<K, V>(&self, domain: &str) -> CacheBuilder<K, V>
    where
        K: Key + Clone,
        V: Clone + Send + Sync + 'static,
    {
        CacheBuilder::new(self.clone(), domain)
    }

    pub(crate) fn clock(&self) -> &Arc<BootClock> {
        &self.0.clock
    }

    pub(crate) fn publisher(&self) -> Option<&Arc<dyn Publisher>> {
        self.0.publisher.get()
    }

    pub(crate) fn history(&self) -> Option<&Arc<dyn History>> {
        self.0.history.get()
    }

    /// The domain here, made if need be; `None` if there are too many.
    pub(crate) fn scope(&self, id: DomainId) -> Option<Arc<Scope>> {
        if let Some(scope) = self.0.scopes.read().get(&id) {
            return Some(Arc::clone(scope));
        }
        let mut scopes = self.0.scopes.write();
        if scopes.len() >= DOMAINS_MAX && !scopes.contains_key(&id) {
            return None;
        }
        let scope = scopes.entry(id).or_insert_with(|| {
            let clock = Arc::clone(&self.0.clock);
            let freshness = if self.0.alone {
                Freshness::always(clock)
            } else {
                Freshness::new(clock, Duration::ZERO)
            };
            Scope::new(freshness)
        });
        Some(Arc::clone(scope))
    }

    fn scopes(&self) -> Vec<Arc<Scope>> {
        self.0.scopes.read().values().cloned().collect()
    }

    /// What the caches have counted, each under its domain's name.
    pub fn stats(&self) -> Vec<(String, CacheStats)> {
        let all = Mutex::new(Vec::new());
        for scope in self.scopes() {
            scope.each(|cache| all.lock().push(cache.stats()));
        }
        all.into_inner()
    }

    /// Every domain that a token speaks of.
    fn each(&self, id: DomainId, each: impl Fn(&Scope)) {
        if id != DomainId::NONE {
            let scope = self.0.scopes.read().get(&id).cloned();
            if let Some(scope) = scope {
                each(&scope);
            }
            return;
        }
        for scope in &self.scopes() {
            each(scope);
        }
    }

    fn is_visible(&self, log: &TokenLog, seq: u64) -> bool {
        // Values are sent once they are durable.
        log.lane == Lane::Values || self.0.seen.lock().get(log).is_some_and(|upto| seq <= *upto)
    }

    /// Hold, if it is not visible yet; then generation up; then remove.
    fn say(&self, log: &TokenLog, token: &Token<'_>, (what, why): (&What, Why)) {
        let visible = self.is_visible(log, token.seq);
        if !visible && token.domain != DomainId::NONE {
            // A cache of it may be built while the change is on its way.
            let _scope = self.scope(token.domain);
        }
        let version = Version { time: token.time, origin: log.origin, seq: token.seq };
        self.each(token.domain, |scope| {
            if !visible {
                scope.holds.token(*log, token.seq, what.clone());
            }
            scope.invalidate(what, Some(version), why);
        });
    }

    fn intent(&self, log: &TokenLog, token: &Token<'_>) {
        let Some((id, keys)) = intent_keys(token.body) else {
            return self.say(log, token, (&What::All, Why::Intent));
        };
        let what: Vec<What> = keys.into_iter().map(|key| What::Key(key.into())).collect();
        if let Some(scope) = self.scope(token.domain) {
            scope.holds.intent(log.origin, id, what.clone());
            for what in &what {
                scope.invalidate(what, None, Why::Intent);
            }
        }
    }

    /// What an intent held is invalidated, and let go.
    fn done(&self, log: &TokenLog, token: &Token<'_>) {
        let id = token.body.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
        let mut known = false;
        if let Some(id) = id {
            for scope in self.scopes() {
                let Some(held) = scope.holds.of_intent(log.origin, id) else { continue };
                known = true;
                for what in &held {
                    scope.invalidate(what, None, Why::Intent);
                }
                scope.holds.release_intent(log.origin, id);
            }
        }
        if !known {
            // What it announced was not heard here.
            self.say(log, token, (&What::All, Why::Intent));
        }
    }
}

/// The id and the keys of an intent's body.
pub(crate) fn intent_keys(body: &[u8]) -> Option<(u64, Vec<&[u8]>)> {
    let (id, mut rest) = body.split_first_chunk::<8>()?;
    let mut keys = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = crate::types::to_usize(u64::from(u32::from_le_bytes(*length)));
        let (key, after) = after.split_at_checked(length)?;
        keys.push(key);
        rest = after;
    }
    rest.is_empty().then_some((u64::from_le_bytes(*id), keys))
}

/// Key and value of a put's body.
pub(crate) fn put_parts(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    rest.split_at_checked(crate::types::to_usize(u64::from(u32::from_le_bytes(*length))))
}

impl Applier for Manager {
    fn apply(&self, log: &TokenLog, token: &Token<'_>) {
        let key = || What::Key(token.body.into());
        let (what, why) = match token.kind {
            // Of a version that is not known here.
            _ if token.flags != 0 => (What::All, Why::All),
            TokenKind::Key => (key(), Why::Key),
            TokenKind::Tag => (What::Tag(TagHash::of(token.body)), Why::Tag),
            TokenKind::Prefix => (What::Prefix(token.body.into()), Why::Prefix),
            TokenKind::All | TokenKind::Unknown(_) => (What::All, Why::All),
            TokenKind::Put => match put_parts(token.body) {
                // What is not visible yet may be taken back: nobody has its value from here.
                Some((key, _value)) if !self.is_visible(log, token.seq) => {
                    (What::Key(key.into()), Why::Put)
                }
                Some((key, value)) => {
                    let version = Version { time: token.time, origin: log.origin, seq: token.seq };
                    return self.each(token.domain, |scope| {
                        scope.each(|cache| cache.put(key, value, version));
                    });
                }
                None => (What::All, Why::All),
            },
            TokenKind::Intent => return self.intent(log, token),
            TokenKind::Done | TokenKind::Resolved => return self.done(log, token),
            TokenKind::Birth | TokenKind::Join | TokenKind::Leave | TokenKind::Probe => return,
        };
        self.say(log, token, (&what, why));
    }

    fn visible(&self, log: &TokenLog, upto: u64) {
        let mut seen = self.0.seen.lock();
        let mark = seen.entry(*log).or_default();
        if upto <= *mark {
            return;
        }
        *mark = upto;
        drop(seen);
        self.each(DomainId::NONE, |scope| {
            // Raised before it is let go: a load that began under the hold ends on either.
            for what in scope.holds.up_to(log, upto) {
                scope.raise(&what);
            }
            scope.holds.release(log, upto);
        });
    }

    fn flush(&self, flush: &Flush) {
        let why = Why::Flush(flush.reason);
        if flush.domains.is_empty() {
            self.each(DomainId::NONE, |scope| scope.flush(flush.floor, why));
        }
        for domain in &flush.domains {
            self.each(*domain, |scope| scope.flush(flush.floor, why));
        }
    }

    fn ended(&self, log: &TokenLog) {
        self.visible(log, u64::MAX);
        self.0.seen.lock().remove(log);
    }
}
