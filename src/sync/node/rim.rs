//! The rim: what the protocol's core is told, and what it asks to be done.
//!
//! One lock holds the core, its links and what is being shipped. Whoever brings something (a
//! message, a tick, a publisher with news) takes it, lets the core step, and does what that asks
//! for. A publisher who finds it taken leaves word and goes: the holder looks again before it
//! leaves. So nobody waits for a socket, and a lone publisher writes to the sockets itself.
//!
//! Lock order: the core's, then a log's of tokens, the signals', the applier's. A publisher holds
//! its log's lock while its own caches are told, and takes the core's only after that.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::sync::apply::{Applier, Flush, FlushReason};
use crate::sync::domain::DomainId;
use crate::sync::freshness::{Freshness, boot_time};
use crate::sync::message::{Hello, Mark, Message, Tokens};
use crate::sync::node::logs::LogSet;
use crate::sync::node::pipe::{self, Pipe};
use crate::sync::node::ship::Ship;
use crate::sync::node::signals::Signals;
use crate::sync::node::timer::Timer;
use crate::sync::origin::{Lane, Origin, TokenLog};
use crate::sync::own::{Listener, Said};
use crate::sync::replica::{Action, Event, Fence, Link, Notice, Now, Order, Replica, Which, Why};
use crate::sync::token::{Token, split};
use crate::time::Clock;
use crate::types::HybridTime;

/// Notices that are remembered for who asks.
const NOTICES: usize = 256;

/// See the [module](self).
pub(super) struct Shared {
    pub logs: LogSet,
    pub clock: Clock,
    core: Mutex<Option<Core>>,
    /// Somebody has published, or something became visible, since the core's holder looked.
    dirty: AtomicBool,
    pub links: AtomicUsize,
    /// Whoever speaks on a link of an earlier core is nobody to this one.
    next_link: AtomicU64,
    /// Somebody is told when what is on its way is durable.
    pub watching: AtomicBool,
    pub signals: Arc<Signals>,
    /// Who hears every token: the cache manager, and those who look on.
    pub appliers: RwLock<Vec<Arc<dyn Applier>>>,
    pub fresh: BTreeMap<DomainId, Arc<Freshness>>,
    pub fence: Mutex<Option<Fence>>,
    pub fenced: AtomicBool,
    pub notices: Mutex<VecDeque<Notice>>,
    /// What is to be told to subscribers, by a thread that holds none of our locks.
    pub untold: Mutex<Vec<Notice>>,
    pub counts: Counts,
    /// When the node's thread is to wake, and whether it is to end.
    pub timer: Timer,
    /// Rung whenever something came that somebody may wait for: acknowledgements, fences.
    news: Condvar,
    heard: Mutex<u64>,
    /// What the core is to be told of foreign logs.
    stored: Mutex<BTreeMap<TokenLog, u64>>,
    pub acked: Mutex<BTreeMap<Origin, Acked>>,
    pub retain: (u64, Duration),
}

/// Numbers since the node was started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub applied: AtomicU64,
    pub shipped: AtomicU64,
    pub shipped_bytes: AtomicU64,
    pub flushes: AtomicU64,
    pub cleared: AtomicU64,
    pub times_lost: AtomicU64,
}

/// How far a member is with this node's tokens, as it said itself.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Acked {
    pub durable: u64,
    pub applied: u64,
}

pub(super) struct Core {
    pub replica: Replica,
    pub links: BTreeMap<Link, Conn>,
    pub actions: Vec<Action>,
    pub events: VecDeque<Later>,
    pub buffer: Vec<u8>,
    pub reborn: Option<u64>,
    /// There may be something to ship.
    pub moved: bool,
}

pub(super) struct Conn {
    pub peer: Origin,
    pub pipe: Arc<dyn Pipe>,
    pub ships: BTreeMap<TokenLog, Ship>,
    /// It said that there is no room.
    pub full: bool,
}

/// What the core is to be told after what it asked for is done.
pub(super) enum Later {
    Published { ticket: u64, seq: u64 },
    Stored { log: TokenLog, seq: u64 },
    Shipped { link: Link, log: TokenLog, seq: u64 },
    Behind { link: Link, origin: Origin },
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("links", &self.links).finish_non_exhaustive()
    }
}

/// What [`Shared::new`] takes.
pub(super) struct Parts {
    pub logs: LogSet,
    pub clock: Clock,
    pub signals: Arc<Signals>,
    pub fresh: BTreeMap<DomainId, Arc<Freshness>>,
    pub retain: (u64, Duration),
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            logs: parts.logs,
            clock: parts.clock,
            core: Mutex::new(None),
            dirty: AtomicBool::new(false),
            links: AtomicUsize::new(0),
            next_link: AtomicU64::new(1),
            watching: AtomicBool::new(false),
            signals: parts.signals,
            appliers: RwLock::default(),
            fresh: parts.fresh,
            fence: Mutex::new(Some(Fence::NoMember)),
            fenced: AtomicBool::new(true),
            notices: Mutex::default(),
            untold: Mutex::default(),
            counts: Counts::default(),
            timer: Timer::default(),
            news: Condvar::new(),
            heard: Mutex::new(0),
            stored: Mutex::default(),
            acked: Mutex::default(),
            retain: parts.retain,
        })
    }

    /// A life of the core begins: `make` makes it. Answers the counter above which another life is
    /// to be taken, if that is what it wants.
    pub(super) fn begin(&self, make: impl FnOnce(Now, &mut Vec<Action>) -> Replica) -> Option<u64> {
        let mut held = self.core.lock();
        let mut actions = Vec::new();
        let replica = make(self.now(), &mut actions);
        let core = held.insert(Core {
            replica,
            links: BTreeMap::new(),
            actions,
            events: VecDeque::new(),
            buffer: Vec::new(),
            reborn: None,
            moved: false,
        });
        self.carry_out(core, None);
        core.reborn
    }

    pub(super) fn now(&self) -> Now {
        match &self.clock {
            Clock::System => {
                Now { boot: boot_time(), wall: Duration::from_millis(self.clock.wall_ms()) }
            }
            Clock::Manual(_) => Now {
                boot: self.clock.monotonic(),
                wall: Duration::from_millis(self.clock.wall_ms()),
            },
        }
    }

    /// Looks at the core.
    pub(super) fn look<T>(&self, at: impl FnOnce(&Replica) -> T) -> Option<T> {
        let looked = self.core.lock().as_ref().map(|core| at(&core.replica));
        self.news();
        looked
    }

    /// The links that stand.
    pub(super) fn peers(&self) -> Vec<(Link, Origin)> {
        let core = self.core.lock();
        let links = core.iter().flat_map(|core| &core.links);
        links.map(|(link, conn)| (*link, conn.peer)).collect()
    }

    /// Bytes that are held for peers: a buffer, whatever they do.
    pub(super) fn held_bytes(&self) -> usize {
        self.core.lock().as_ref().map_or(0, |core| core.buffer.capacity())
    }

    /// Foreign logs are durable up to there. Said by the thread that writes them, which waits for
    /// nobody: whoever holds the core may be waiting for it.
    pub(super) fn stored(&self, marks: &[(TokenLog, u64)]) {
        self.stored.lock().extend(marks.iter().copied());
        self.timer.wake();
    }

    /// Something came that somebody may wait for.
    fn announce(&self) {
        *self.heard.lock() += 1;
        self.news.notify_all();
    }

    /// Waits until `met` says so, at most that long; `false` if it did not. `met` is asked whenever
    /// something came, without a lock of this module's.
    pub(super) fn wait_until(&self, limit: Duration, mut met: impl FnMut() -> bool) -> bool {
        let deadline = Clock::System.monotonic().saturating_add(limit);
        loop {
            let heard = *self.heard.lock();
            if met() {
                return true;
            }
            let left = deadline.saturating_sub(Clock::System.monotonic());
            if left.is_zero() {
                return false;
            }
            let mut now = self.heard.lock();
            if *now == heard {
                self.news.wait_for(&mut now, left);
            }
        }
    }

    /// Another life is wanted, with a counter above this; all links are to be closed.
    pub(super) fn wants_life(&self) -> Option<u64> {
        self.core.lock().as_ref().and_then(|core| core.reborn)
    }

    /// Tells the core, and does what it asks for.
    pub(super) fn step(&self, event: Event<'_>) {
        {
            let mut held = self.core.lock();
            let Some(core) = &mut *held else { return };
            let batch = match &event {
                Event::Tokens { tokens, .. } => Some(tokens.bytes),
                _ => None,
            };
            core.replica.step(self.now(), &self.logs, event, &mut core.actions);
            self.carry_out(core, batch);
            let stored = std::mem::take(&mut *self.stored.lock());
            for (log, seq) in stored {
                core.events.push_back(Later::Stored { log, seq });
            }
            if !core.events.is_empty() {
                self.carry_out(core, None);
            }
            if core.moved {
                self.pump(core);
            }
        }
        self.after();
    }

    pub(super) fn order(&self, order: Order) {
        self.step(Event::Order(order));
    }

    /// What was left to the holder meanwhile.
    fn after(&self) {
        if self.dirty.load(Ordering::SeqCst) {
            self.news();
        }
    }

    /// Tells the core what waits for it.
    pub(super) fn catch_up(&self) {
        if !self.stored.lock().is_empty() {
            self.step(Event::Tick);
        }
    }

    /// There are new tokens, or some became visible.
    fn look_again(&self) {
        if self.links.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.dirty.store(true, Ordering::SeqCst);
        while self.dirty.load(Ordering::SeqCst) {
            // Whoever holds it looks at `dirty` after letting go.
            let Some(mut held) = self.core.try_lock() else { return };
            self.dirty.store(false, Ordering::SeqCst);
            if let Some(core) = &mut *held {
                self.pump(core);
            }
        }
    }

    /// Does what the core asked for, tells it what came of it, and so on.
    pub(super) fn carry_out(&self, core: &mut Core, batch: Option<&[u8]>) {
        loop {
            let mut actions = std::mem::take(&mut core.actions);
            for action in actions.drain(..) {
                self.act(core, action, batch);
            }
            // The room stays.
            core.actions = actions;
            let Some(later) = core.events.pop_front() else { return };
            let event = match later {
                Later::Published { ticket, seq } => Event::Published { ticket, seq },
                Later::Stored { log, seq } => Event::Stored { log, seq },
                Later::Shipped { link, log, seq } => Event::Shipped { link, log, seq },
                Later::Behind { link, origin } => Event::Behind { link, origin },
            };
            core.replica.step(self.now(), &self.logs, event, &mut core.actions);
        }
    }

    fn act(&self, core: &mut Core, action: Action, batch: Option<&[u8]>) {
        core.moved |= matches!(
            action,
            Action::Ship { .. }
                | Action::Apply { .. }
                | Action::Visible { .. }
                | Action::Publish { .. }
                | Action::Adopt { .. }
        );
        match action {
            Action::Send { link, message } => {
                if let Some(conn) = core.links.get(&link) {
                    conn.pipe.send(&message);
                }
            }
            Action::Ship { link, log, after } => {
                if let Some(conn) = core.links.get_mut(&link) {
                    let reader = self.logs.is_own(&log).then(|| self.logs.lane(log.lane).reader());
                    let last = Mark { seq: after, hash: 0 };
                    conn.ships.insert(log, Ship { last, known: false, visible: 0, reader });
                }
            }
            Action::Halt { link, log } => {
                if let Some(conn) = core.links.get_mut(&link) {
                    conn.ships.remove(&log);
                }
            }
            Action::Apply { log, first, last: _, before, bytes } => {
                let bytes = batch.and_then(|batch| batch.get(bytes)).unwrap_or_default();
                self.apply(&log, bytes);
                self.logs.foreign.keep(log, first, before, bytes);
            }
            Action::Visible { log, upto } => {
                for applier in &*self.appliers.read() {
                    applier.visible(&log, upto);
                }
                self.logs.foreign.visible(log, upto);
            }
            Action::Flush { domains, why, floor } => self.flush(&domains, why, floor),
            Action::Adopt { to, visible, birth } => {
                self.settle(to.origin);
                for applier in &*self.appliers.read() {
                    applier.visible(&to.log(Lane::Tokens), visible);
                }
                self.logs.foreign.adopt(to, visible, birth);
            }
            Action::Settle { origin } => self.settle(origin),
            Action::Mark { at } => self.logs.foreign.diverged(at),
            Action::Close { link, refusal } => {
                if let Some(conn) = core.links.get(&link) {
                    conn.pipe.close(refusal.as_ref());
                }
            }
            Action::Fresh { domain, as_of } => {
                if let Some(fresh) = self.fresh.get(&domain) {
                    fresh.set(as_of);
                }
            }
            Action::Publish { ticket, lane, kind, domain, body } => {
                let own = self.logs.lane(lane);
                let said = Said { kind, domain, body: &body };
                let published = own.publish(std::iter::once(said));
                if let Ok(published) = published {
                    // What is in the other lane is not shipped before it is durable. A failure
                    // poisons the log, and says so to whoever publishes next.
                    let durable = lane == Lane::Tokens
                        || own.events().wait_durable(published.at.end, None).is_ok();
                    if durable {
                        core.events.push_back(Later::Published { ticket, seq: published.last });
                    }
                }
            }
            Action::Fence(fence) => {
                *self.fence.lock() = fence;
                self.fenced.store(fence.is_some(), Ordering::SeqCst);
                self.announce();
            }
            Action::Persist { members, term } => {
                let mut bytes = term.to_le_bytes().to_vec();
                bytes.extend_from_slice(&members.encode());
                // What the disk says is in the status: nothing more is kept from then on.
                self.logs.foreign.persist(bytes).unwrap_or_default();
                self.announce();
            }
            Action::Retain { lane, upto } => {
                self.logs.lane(lane).release(upto, self.logs.held(lane));
            }
            Action::Reborn { above } => {
                core.reborn = Some(above);
                self.timer.wake();
            }
            Action::Arm { at } => self.timer.arm(at),
            Action::Report(notice) => self.report(notice),
        }
    }

    fn apply(&self, log: &TokenLog, bytes: &[u8]) {
        let appliers = self.appliers.read();
        let (mut rest, mut count) = (bytes, 0);
        while let Ok((record, after)) = split(rest) {
            rest = after;
            count += 1;
            if let Ok(token) = Token::parse(record) {
                for applier in &*appliers {
                    applier.apply(log, &token);
                }
                self.signals.apply(&token);
            }
        }
        // Relaxed, here and below: counters.
        self.counts.applied.fetch_add(count, Ordering::Relaxed);
    }

    fn flush(&self, which: &Which, why: Why, floor: HybridTime) {
        let domains = match which {
            Which::Every => Vec::new(),
            Which::These(these) if these.is_empty() => return,
            Which::These(these) => these.clone(),
        };
        self.counts.flushes.fetch_add(1, Ordering::Relaxed);
        let reason = match why {
            Why::Gap => FlushReason::Gap,
            Why::NewLife => FlushReason::Incarnation,
            Why::Unclean => FlushReason::Unclean,
            Why::Diverged => FlushReason::Diverged,
            Why::Adopted => FlushReason::Adopted,
            Why::Removed => FlushReason::Removed,
        };
        for applier in &*self.appliers.read() {
            applier.flush(&Flush { domains: domains.clone(), reason, floor });
        }
        self.signals.flush(&domains);
    }

    /// What was provisional of an origin, or open, is settled.
    fn settle(&self, origin: Origin) {
        let appliers = self.appliers.read();
        for (log, _, _) in self.logs.foreign.logs() {
            if log.origin == origin && log.lane == Lane::Tokens {
                for applier in &*appliers {
                    applier.ended(&log);
                }
            }
        }
    }

    fn report(&self, notice: Notice) {
        match &notice {
            Notice::Cleared { .. } => {
                self.counts.cleared.fetch_add(1, Ordering::Relaxed);
            }
            Notice::TimeLost { .. } => {
                self.counts.times_lost.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        if crate::trace::ON {
            let mut untold = self.untold.lock();
            if untold.len() < NOTICES {
                untold.push(notice.clone());
            }
            self.timer.wake();
        }
        let mut notices = self.notices.lock();
        if notices.len() >= NOTICES {
            notices.pop_front();
        }
        notices.push_back(notice);
        drop(notices);
        self.announce();
    }

    /// Ends all links.
    pub(super) fn close_links(&self, goodbye: bool) {
        let mut held = self.core.lock();
        let Some(core) = &mut *held else { return };
        for conn in core.links.values() {
            if goodbye {
                conn.pipe.send(&Message::Bye);
            }
            conn.pipe.close(None);
        }
        core.links.clear();
        self.links.store(0, Ordering::SeqCst);
    }

    /// Nothing is done any more.
    pub(super) fn end(&self) {
        self.close_links(true);
        *self.core.lock() = None;
    }
}

impl Listener for Shared {
    fn said(&self, log: &TokenLog, token: &Token<'_>) {
        for applier in &*self.appliers.read() {
            applier.apply(log, token);
        }
        self.signals.apply(token);
    }

    fn news(&self) {
        self.look_again();
    }
}

impl pipe::Rim for Shared {
    fn hello(&self) -> Hello {
        let core = self.core.lock();
        let now = self.now();
        match &*core {
            Some(core) => core.replica.hello(now),
            // Nobody is there any more: nobody takes this for anybody.
            None => Hello {
                cluster: crate::sync::origin::ClusterId::from_u128(0),
                origin: Origin::from_u64(0),
                incarnation: crate::sync::origin::Incarnation::default(),
                protocol: 0,
                features: 0,
                time: HybridTime::default(),
                term: 0,
                domains: Vec::new(),
            },
        }
    }

    fn up(&self, hello: &Hello, pipe: Arc<dyn Pipe>) -> Link {
        let link = {
            let mut held = self.core.lock();
            let Some(core) = &mut *held else { return Link(0) };
            // Relaxed: only that it is another each time.
            let link = Link(self.next_link.fetch_add(1, Ordering::Relaxed));
            let ships = BTreeMap::new();
            core.links.insert(link, Conn { peer: hello.origin, pipe, ships, full: false });
            self.links.store(core.links.len(), Ordering::SeqCst);
            link
        };
        self.step(Event::Up { link, hello });
        self.announce();
        link
    }

    fn message(&self, link: Link, message: &Message) {
        if let Message::Ack(acks) = message {
            self.note_acks(link, acks);
        }
        self.step(Event::Message { link, message });
    }

    fn tokens(&self, link: Link, tokens: &Tokens<'_>) {
        self.step(Event::Tokens { link, tokens: *tokens });
    }

    fn writable(&self, link: Link) {
        {
            let mut held = self.core.lock();
            let Some(core) = &mut *held else { return };
            if let Some(conn) = core.links.get_mut(&link) {
                conn.full = false;
            }
            self.pump(core);
        }
        self.after();
    }

    fn down(&self, link: Link) {
        {
            let mut held = self.core.lock();
            let Some(core) = &mut *held else { return };
            core.links.remove(&link);
            self.links.store(core.links.len(), Ordering::SeqCst);
        }
        self.step(Event::Down { link });
        self.announce();
    }
}

impl Shared {
    fn note_acks(&self, link: Link, acks: &[crate::sync::message::Ack]) {
        let own = self.logs.lane(Lane::Tokens).tokens();
        let peer = {
            let held = self.core.lock();
            held.as_ref().and_then(|core| core.links.get(&link)).map(|conn| conn.peer)
        };
        let Some(peer) = peer else { return };
        for ack in acks.iter().filter(|ack| ack.log == own) {
            let mut acked = self.acked.lock();
            let known = acked.entry(peer).or_default();
            known.applied = known.applied.max(ack.applied);
            known.durable = known.durable.max(ack.durable);
        }
        self.announce();
    }
}
