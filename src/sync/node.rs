//! The node: a store that takes part in a cluster.
//!
//! It publishes what has changed here, hears what has changed elsewhere, and keeps others' tokens
//! for those who are cut off from them. The protocol is [`replica`](crate::sync::replica)'s; here
//! are its threads, its folder and what a program asks of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::{AppendError, DiskError};
use crate::log::frame::Batch;
use crate::log::{Appended, Log};
use crate::op::{Op, Ops};
use crate::sync::apply::{Applier, Publisher};
use crate::sync::cache::Manager;
use crate::sync::domain::{Domain, DomainId};
use crate::sync::fact::{Clean, Members};
use crate::sync::foreign::{Foreign, ForeignOptions};
use crate::sync::freshness::{Freshness, Lease, Ticker, boot_time};
use crate::sync::message::{Mark, Marks};
use crate::sync::origin::{ClusterId, Cursor, Incarnation, Lane, Origin, TokenLog};
use crate::sync::own::{Own, Said};
use crate::sync::replica::{Config, Event, Fence, Order, Previous, Replica, Start};
use crate::sync::token::TokenKind;
use crate::time::Clock;
use crate::trace;
use crate::types::{Durability, HybridTime, Seq, StreamId};

use history::Voice;
use identity::Identity;
use intents::Intents;
use logs::LogSet;
use net::Net;
use rim::{Parts, Shared};
use signals::Signals;

mod config;
mod error;
mod history;
mod identity;
mod intents;
#[cfg(any(test, feature = "internals"))]
pub mod local;
mod logs;
mod net;
pub(crate) mod pipe;
mod rim;
mod ship;
mod signals;
mod status;
mod timer;

pub use config::{NodeConfig, WhenStale};
pub use error::NodeError;
pub(crate) use identity::Lives;
pub use intents::{Intent, OpenIntent, Resolution, Resolve};
pub use signals::Change;
pub use status::{DomainStatus, NodeStats, NodeStatus, OriginStatus, PeerStatus};

/// The clock that hits look at ticks so often.
const TICK: Duration = Duration::from_millis(2);
/// An open intent is announced again once so many tokens have come after it.
const HELD_MAX: u64 = 100_000;
/// The node's thread looks at what has no hurry so often.
const LOOK: Duration = Duration::from_secs(1);

/// Where a node lives: what its store gives it.
pub(crate) struct Place {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    /// The store's id.
    pub store: u64,
    pub lives: Lives,
    pub log: Arc<Log>,
    pub clock: Clock,
    pub durability: Durability,
    pub threads: bool,
}

/// What becomes of an answer from memory, for a domain.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is as of at most a lease ago: give it.
    Fresh,
    /// It is not proved to be so: do as the node was [told](NodeConfig::when_stale). It is as of
    /// this long ago; [`Duration::MAX`]: of nothing is that known.
    Stale(WhenStale, Duration),
}

/// A store's part in a cluster: see the [module](self).
pub struct Node {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Inner {
    shared: Arc<Shared>,
    intents: Intents,
    manager: Manager,
    identity: Mutex<Identity>,
    who: (ClusterId, Origin),
    config: NodeConfig,
    place: Place,
    /// Moves the clock that hits look at.
    _ticker: Ticker,
    resolving: Mutex<Option<JoinHandle<()>>>,
    /// Its links, where it has any over the network.
    net: Mutex<Option<Net>>,
    /// It has left, and does not join again by itself.
    left: AtomicBool,
    closed: AtomicBool,
    /// The position that was noted last for the next life.
    noted: AtomicU64,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("who", &self.inner.who).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("who", &self.who).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts the node of a store whose life has begun. Nothing was appended in that life.
    ///
    /// # Errors
    /// See [`NodeError`]. Nothing was told to anybody.
    pub(crate) fn start(config: NodeConfig, place: Place) -> Result<Self, NodeError> {
        config.check()?;
        let mut random = random;
        let identity = Identity::begin(
            (&*place.disk, &place.dir),
            config.cluster,
            (&place.lives, &place.log),
            &mut random,
        )?;
        let foreign = Foreign::open(
            &place.disk,
            place.store,
            place.lives.life,
            ForeignOptions {
                dir: place.dir.join("foreign"),
                sync_interval: config.sync_interval,
                bytes_max: config.retain_bytes,
                age_max: config.retain_age,
                threads: place.threads,
                clock: place.clock.clone(),
            },
        )?;
        let foreign = Arc::new(foreign);
        let own = [Lane::Tokens, Lane::Values].map(|lane| {
            let log = Arc::clone(&place.log);
            Arc::new(Own::new(log, log_of(&identity, lane), place.clock.clone()))
        });
        let ticker = Ticker::start(TICK).map_err(|why| NodeError::Thread(Arc::new(why)))?;
        let fresh = |domain: &Domain| {
            (domain.id(), Freshness::new(Arc::clone(ticker.clock()), config.lease))
        };
        let fresh: BTreeMap<_, _> = config.domains.iter().map(fresh).collect();
        let signals = Signals::start().map_err(|why| NodeError::Thread(Arc::new(why)))?;
        let logs = LogSet {
            own,
            foreign,
            visible_at: config.visible_at.unwrap_or(place.durability),
            oldest_intent: AtomicU64::new(0),
        };
        let retain = (config.retain_bytes, config.retain_age);
        let parts = Parts { logs, clock: place.clock.clone(), signals, fresh, retain };
        let shared = Shared::new(parts);
        let intents = Intents::read(&place.log)
            .map_err(|error| NodeError::Append(AppendError::Read(error)))?;
        let manager = Manager::new(Arc::clone(ticker.clock()));
        for domain in &config.domains {
            if let Some(fresh) = shared.fresh.get(&domain.id()) {
                manager.declare(&domain.name, Arc::clone(fresh));
            }
        }
        let inner = Arc::new(Inner {
            shared: Arc::clone(&shared),
            intents,
            manager: manager.clone(),
            who: (identity.cluster, identity.origin),
            identity: Mutex::new(identity),
            config,
            place,
            _ticker: ticker,
            resolving: Mutex::new(None),
            net: Mutex::new(None),
            left: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            noted: AtomicU64::new(0),
        });
        for own in &shared.logs.own {
            own.listen(Some(Arc::clone(&shared) as Arc<dyn crate::sync::own::Listener>));
        }
        let stored = Arc::downgrade(&shared);
        shared.logs.foreign.on_stored(Some(Box::new(move |marks| {
            if let Some(shared) = stored.upgrade() {
                shared.stored(marks);
            }
        })));
        let voice = Arc::new(Voice(Arc::downgrade(&inner)));
        manager.connect(Arc::clone(&voice) as Arc<dyn Publisher>, Some(voice));
        inner.introduce(&manager);
        shared.appliers.write().push(Arc::new(manager));
        inner.begin_life()?;
        inner.connect()?;
        let thread = if inner.place.threads {
            let worker = Arc::clone(&inner);
            let spawned = std::thread::Builder::new()
                .name("annals-node".to_owned())
                .spawn(move || worker.run())
                .map_err(|why| NodeError::Thread(Arc::new(why)))?;
            Some(spawned)
        } else {
            None
        };
        inner.resolve_soon();
        Ok(Self { inner, thread: Mutex::new(thread) })
    }

    /// Its name in the cluster.
    pub fn origin(&self) -> Origin {
        self.inner.who.1
    }

    /// Its cluster.
    pub fn cluster(&self) -> ClusterId {
        self.inner.who.0
    }

    /// Its life, as others know it.
    pub fn incarnation(&self) -> Incarnation {
        self.inner.identity.lock().incarnation
    }

    /// Says on all nodes that something has changed: appended to the log when this returns, heard
    /// by this node's caches, and on its way to all others. It survives the process; power loss
    /// only once the log is synced, but what is lost so is cleared everywhere.
    ///
    /// # Errors
    /// [`NodeError::Fenced`], [`NodeError::Domain`], [`NodeError::Append`]: nothing was said.
    pub fn publish(&self, op: Op<'_>) -> Result<u64, NodeError> {
        self.publish_many(&[op])
    }

    /// The same for many at once, as one frame of the log: all or none. Answers the last one's
    /// number.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish); and what does not fit a frame.
    pub fn publish_many(&self, ops: &[Op<'_>]) -> Result<u64, NodeError> {
        for op in ops {
            self.inner.declared(op.domain)?;
        }
        let published = self.inner.own_tokens()?.publish(ops.iter().map(|op| Said::from(*op)))?;
        Ok(published.last)
    }

    /// Is told when `key` changes, here or anywhere: see [`Change`].
    pub fn token(&self, domain: DomainId, key: &[u8]) -> Change {
        self.inner.shared.signals.token(domain, key)
    }

    /// Calls `then` once when `change` comes, on a thread of the node's; soon if it came already.
    pub fn on_change(&self, change: &Change, then: impl FnOnce() + Send + 'static) {
        change.on_change(&self.inner.shared.signals, then);
    }

    /// `key` has changed: whoever asked for its [`token`](Self::token) is told, on all nodes.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub fn trigger(&self, domain: DomainId, key: &[u8]) -> Result<u64, NodeError> {
        self.publish(Op::key(domain, key))
    }

    /// Announces a change that is made outside of Annals, such as a SQL commit, **before** it is
    /// made: durable when this returns. While it is open nobody remembers anything of its keys.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish), and [`NodeError::Sync`]: make no change then.
    pub fn intent(&self, domain: DomainId, keys: &[&[u8]]) -> Result<Intent, NodeError> {
        self.inner.declared(domain)?;
        self.inner.own_tokens()?;
        let id = self.inner.intents.begin(&self.inner.shared, domain, keys)?;
        Ok(Intent { node: Arc::clone(&self.inner), id, closed: false })
    }

    /// The intents that are open.
    pub fn intents(&self) -> Vec<OpenIntent> {
        self.inner.intents.open()
    }

    /// Closes an intent whose maker is gone, for one who knows that the change was made, or never
    /// will be. `false` if it was not open.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub fn resolve(&self, id: u64) -> Result<bool, NodeError> {
        self.inner.intents.close(&self.inner.shared, (id, TokenKind::Resolved))
    }

    /// May an answer from memory be given as fresh? One atomic load of what is proved and one of
    /// the time.
    pub fn answer(&self, domain: DomainId) -> Answer {
        let age = match self.inner.shared.fresh.get(&domain).map(|fresh| fresh.check()) {
            Some(Lease::Fresh) => return Answer::Fresh,
            Some(Lease::Stale(age)) => age,
            None => Duration::MAX,
        };
        Answer::Stale(self.inner.config.when_stale, age)
    }

    /// What is proved of a domain, for those who ask at every hit; `None` if it was not declared.
    pub fn freshness(&self, domain: DomainId) -> Option<Arc<Freshness>> {
        self.inner.shared.fresh.get(&domain).cloned()
    }

    /// The caches of this node: exactly one manager.
    pub fn caches(&self) -> &Manager {
        &self.inner.manager
    }

    /// Has `onlooker` hear every token from now on, as the caches do.
    pub fn look_on(&self, onlooker: Arc<dyn Applier>) {
        let shared = &self.inner.shared;
        let mut appliers = shared.appliers.write();
        self.inner.introduce(&*onlooker);
        appliers.push(onlooker);
    }

    /// Waits until this node may publish, at most that long.
    ///
    /// # Errors
    /// [`NodeError::Fenced`] with what still stands against it.
    pub fn wait_member(&self, limit: Duration) -> Result<(), NodeError> {
        let shared = &self.inner.shared;
        shared.wait_until(limit, || !shared.fenced.load(Ordering::SeqCst));
        self.inner.unfenced()
    }

    /// Waits until a domain's answers are fresh, at most that long; `false` if they are not.
    pub fn wait_fresh(&self, domain: DomainId, limit: Duration) -> bool {
        let deadline = Clock::System.monotonic().saturating_add(limit);
        loop {
            if self.answer(domain) == Answer::Fresh {
                return true;
            }
            let left = deadline.saturating_sub(Clock::System.monotonic());
            if left.is_zero() {
                return false;
            }
            self.inner.shared.wait_until(left.min(TICK), || false);
        }
    }

    /// Publishes a token that says nothing, and measures how long it takes until each member that
    /// is connected has applied it: `None` for those that had not by then.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub fn probe(&self, limit: Duration) -> Result<Vec<(Origin, Option<Duration>)>, NodeError> {
        let shared = &self.inner.shared;
        let peers: Vec<_> = shared.peers().into_iter().map(|(_, peer)| peer).collect();
        let began = Clock::System.monotonic();
        let said = Said { kind: TokenKind::Probe, domain: DomainId::NONE, body: &[] };
        let seq = self.inner.own_tokens()?.publish(std::iter::once(said))?.last;
        let mut took: BTreeMap<_, _> = peers.into_iter().map(|peer| (peer, None)).collect();
        shared.wait_until(limit, || {
            let now = Clock::System.monotonic().saturating_sub(began);
            let acked = shared.acked.lock();
            for (peer, took) in &mut took {
                if took.is_none() && acked.get(peer).is_some_and(|it| it.applied >= seq) {
                    *took = Some(now);
                }
            }
            took.values().all(Option::is_some)
        });
        Ok(took.into_iter().collect())
    }

    /// Leaves the cluster: says so in its log, and publishes nothing from then on. Its last tokens
    /// are shipped while it lives. It joins again only when it is started anew.
    ///
    /// # Errors
    /// [`NodeError::Timeout`].
    pub fn leave(&self, limit: Duration) -> Result<(), NodeError> {
        let shared = &self.inner.shared;
        self.inner.left.store(true, Ordering::SeqCst);
        shared.order(Order::Leave);
        let left = shared.wait_until(limit, || shared.fenced.load(Ordering::SeqCst));
        if left { Ok(()) } else { Err(NodeError::Timeout) }
    }

    /// Takes a member out that will never come back as it was: the caller vouches that it writes
    /// no more. Everything of its domains is cleared everywhere.
    ///
    /// # Errors
    /// [`NodeError::Timeout`] where no majority answered.
    pub fn remove(&self, origin: Origin, limit: Duration) -> Result<(), NodeError> {
        let shared = &self.inner.shared;
        shared.order(Order::Remove { origin });
        let gone = shared.wait_until(limit, || {
            shared.look(|core| !core.members().is_member(origin)).unwrap_or(true)
        });
        if gone { Ok(()) } else { Err(NodeError::Timeout) }
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Appends a turn's frame, and what the turn publishes in it.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended.
    pub(crate) fn publish_in(
        &self,
        batch: &mut Batch,
        of: (StreamId, Seq),
        ops: &Ops,
    ) -> Result<Appended, AppendError> {
        let own = self.inner.own_tokens().map_err(|_fenced| AppendError::Fenced)?;
        for op in ops.iter() {
            self.inner.declared(op.domain).map_err(|_unknown| AppendError::Domain(op.domain))?;
        }
        let published = own.publish_in(batch, of, ops.iter().map(Said::from))?;
        own.ring();
        Ok(published.at)
    }

    /// Up to where the frames of a stream are of no use: that of intents, before the oldest that
    /// is open.
    pub(crate) fn goes_upto(&self, stream: StreamId) -> Option<Seq> {
        self.inner.intents.goes_upto(stream)
    }

    /// Nothing of the event log at or above this position may go.
    pub(crate) fn pinned(&self) -> Option<u64> {
        let [tokens, values] = &self.inner.shared.logs.own;
        tokens.pinned().into_iter().chain(values.pinned()).min()
    }

    /// Ends its threads and links, and writes down how far it is. The event log must be open
    /// still.
    ///
    /// # Errors
    /// See [`NodeError`]: the next life begins as after a crash.
    pub fn close(&self) -> Result<(), NodeError> {
        if self.inner.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let shared = &self.inner.shared;
        shared.timer.stop();
        if let Some(Err(panic)) = self.thread.lock().take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        if let Some(thread) = self.inner.resolving.lock().take() {
            // It sleeps in the way of nobody, and sees that the node is closed.
            drop(thread.join());
        }
        let net = self.inner.quiesce();
        shared.end();
        drop(net);
        shared.signals.close();
        shared.logs.foreign.on_stored(None);
        let kept = shared.logs.foreign.close();
        self.inner.end_life()?;
        for own in &shared.logs.own {
            own.listen(None);
        }
        kept.map_err(|why| {
            let dir = self.inner.place.dir.join("foreign");
            let error = std::io::Error::other(why.to_string());
            NodeError::Disk(DiskError::at("closing", &dir)(error))
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        self.close().unwrap_or_default();
    }
}

fn log_of(identity: &Identity, lane: Lane) -> TokenLog {
    TokenLog { origin: identity.origin, incarnation: identity.incarnation, lane }
}

/// 64 random bits from the kernel.
fn random() -> Result<u64, DiskError> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    let error = match filled {
        Ok(8) => return Ok(u64::from_le_bytes(bytes)),
        Ok(_) => std::io::ErrorKind::UnexpectedEof.into(),
        Err(error) => std::io::Error::from(error),
    };
    Err(DiskError::at("reading", Path::new("random bits"))(error))
}

impl Inner {
    fn declared(&self, domain: DomainId) -> Result<(), NodeError> {
        let known = self.shared.fresh.contains_key(&domain);
        if known { Ok(()) } else { Err(NodeError::Domain(domain)) }
    }

    fn unfenced(&self) -> Result<(), NodeError> {
        if !self.shared.fenced.load(Ordering::SeqCst) {
            return Ok(());
        }
        let fence = *self.shared.fence.lock();
        fence.map_or(Ok(()), |fence| Err(NodeError::Fenced(fence)))
    }

    fn own_tokens(&self) -> Result<&Arc<Own>, NodeError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(NodeError::Closed);
        }
        self.unfenced()?;
        Ok(self.shared.logs.lane(Lane::Tokens))
    }

    /// Makes a core for this incarnation, and does what it asks for first.
    fn begin_life(&self) -> Result<(), NodeError> {
        let random = random()?;
        let (origin, incarnation, previous, reborn) = {
            let identity = self.identity.lock();
            (identity.origin, identity.incarnation, identity.previous, identity.reborn)
        };
        let domains: Vec<_> = self.config.domains.iter().map(Domain::id).collect();
        let stored = self.shared.logs.foreign.members();
        let known = stored.split_first_chunk::<8>().and_then(|(term, members)| {
            Some((u64::from_le_bytes(*term), Members::decode(members)?))
        });
        let alone = |members: &Members| {
            // A copy of the only member there is: nobody could sponsor it.
            !members.is_member(origin) && members.members().count() <= 1 && previous.is_none()
        };
        let (term, members) = match known {
            Some((term, members)) if !(self.config.found && alone(&members)) => (term, members),
            Some(_) | None if self.config.found => {
                let members = Members::founded(&[origin], &domains);
                let mut bytes = 1_u64.to_le_bytes().to_vec();
                bytes.extend_from_slice(&members.encode());
                self.shared.logs.foreign.persist(bytes).unwrap_or_default();
                (1, members)
            }
            Some(_) | None => (0, Members::default()),
        };
        let config = Config {
            cluster: self.config.cluster,
            domains: self.config.domains.clone(),
            lease: self.config.lease,
            beat: self.config.beat_every(),
            skew_max: self.config.skew_max,
        };
        let kept = self.shared.logs.foreign.found();
        let start = Start { origin, incarnation, previous, kept, members, term, reborn, random };
        self.shared.begin(|now, out| Replica::new(config, start, now, out));
        self.intents.announce(&self.shared)?;
        self.note_down(false)
    }

    /// Another life, because somebody names this node as it cannot have been.
    fn be_reborn(&self, above: u64) -> Result<(), NodeError> {
        self.shared.close_links(false);
        let heads = self.heads().0;
        {
            let mut identity = self.identity.lock();
            let incarnation = identity.incarnation;
            identity.next(&*self.place.disk, above, &mut random)?;
            identity.previous = Some(Previous { incarnation, heads, clean: Clean::Not });
            identity.reborn = Some(Duration::from_millis(self.place.clock.wall_ms()));
            for (own, lane) in self.shared.logs.own.iter().zip([Lane::Tokens, Lane::Values]) {
                own.begin_again(log_of(&identity, lane));
            }
        }
        self.begin_life()?;
        self.renamed();
        Ok(())
    }

    fn heads(&self) -> (Marks, u64) {
        let [tokens, values] = &self.shared.logs.own;
        let ((tokens, first), (values, second)) = (tokens.anchor(), values.anchor());
        let mark = |cursor: Cursor| Mark { seq: cursor.seq, hash: cursor.hash };
        (Marks { tokens: mark(tokens), values: mark(values) }, first.min(second))
    }

    fn note_down(&self, clean: bool) -> Result<(), NodeError> {
        let (heads, lsn) = self.heads();
        if !clean && self.noted.swap(lsn, Ordering::Relaxed) == lsn {
            return Ok(());
        }
        self.identity.lock().note(&*self.place.disk, (&heads, lsn), clean)
    }

    /// What the log holds is durable, and nothing comes after it.
    fn end_life(&self) -> Result<(), NodeError> {
        self.place.log.sync()?;
        self.note_down(true)
    }

    fn run(self: &Arc<Self>) {
        let waker = Waker::from(Arc::new(Visible(Arc::downgrade(&self.shared))));
        let mut looked = boot_time();
        while let Some(due) = self.shared.timer.wait(LOOK, || self.shared.now().boot) {
            if due {
                self.shared.step(Event::Tick);
            }
            self.shared.catch_up();
            self.tell();
            crate::sync::own::Listener::news(&*self.shared);
            if let Some(mark) = self.shared.to_watch() {
                self.shared.set_watching(true);
                self.place.log.wake_when_durable(mark, &waker);
            }
            if let Some(above) = self.shared.wants_life()
                && self.be_reborn(above).is_err()
            {
                // It stays silent: its core is over, and a restart tries again.
                self.shared.close_links(false);
            }
            let now = boot_time();
            if now.saturating_sub(looked) >= LOOK {
                looked = now;
                self.look();
            }
        }
    }

    /// Tells what was reported, on the one thread that holds nothing then.
    fn tell(&self) {
        let told = std::mem::take(&mut *self.shared.untold.lock());
        for notice in told {
            let what = format!("{notice:?}");
            trace::NodeReported { path: &self.place.dir, what: &what }.tell();
        }
    }

    /// What has no hurry.
    fn look(&self) {
        let (bytes, age) = self.shared.retain;
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let oldest = self.place.clock.wall_ms().saturating_sub(age);
        let logs = &self.shared.logs;
        let held = logs.held(Lane::Tokens);
        if held < u64::MAX && logs.lane(Lane::Tokens).head().seq.saturating_sub(held) > HELD_MAX {
            // Said again, it holds up nothing. What fails is tried again in a second.
            self.intents.announce(&self.shared).unwrap_or_default();
        }
        for lane in [Lane::Tokens, Lane::Values] {
            let oldest = HybridTime::from_millis(oldest);
            logs.lane(lane).release_old(bytes, oldest, logs.held(lane));
        }
        // Without it the next life after a kill clears more than it would have to.
        self.note_down(false).unwrap_or_default();
        let wants =
            *self.shared.fence.lock() == Some(Fence::NoMember) && !self.left.load(Ordering::SeqCst);
        if wants && let Some((link, _)) = self.shared.peers().first().copied() {
            let domains = self.config.domains.iter().map(Domain::id).collect();
            self.shared.order(Order::Join { link, domains });
        }
    }
}

/// What was published is durable by now.
struct Visible(Weak<Shared>);

impl Wake for Visible {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.set_watching(false);
            shared.timer.wake();
        }
    }
}
