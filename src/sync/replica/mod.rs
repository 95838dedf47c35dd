//! The protocol's state machine: without I/O, clock or randomness.
//!
//! It knows how far this node is with everybody, what is proved of whom and since when, who is a
//! member, and what each connection is in the middle of. It never holds a token: those are in
//! the logs, which the rim has. Each [`Event`] is one [`Replica::step`], which leaves [`Action`]s
//! that the rim does in order before the next.
//!
//! ```text
//! Replica::new(config, start, now, &mut actions) -> Replica    do the actions: the birth is among
//!                                                               them; publish open intents again;
//!                                                               only then connect to anybody
//! replica.hello(now) -> Hello                                   for the link, on each connection
//! replica.step(now, &logs, event, &mut actions)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::sync::domain::DomainId;
use crate::sync::fact::{Birth, Born, Clean, Members};
use crate::sync::message::{Hello, Message, PROTOCOL, Place, Schema};
use crate::sync::origin::{Incarnation, Lane, Origin};
use crate::sync::replica::known::Known;
use crate::sync::replica::member::Change;
use crate::sync::replica::peer::Peer;
use crate::sync::token::TokenKind;
use crate::types::HybridTime;

mod action;
mod event;
mod known;
mod lease;
mod member;
mod peer;
pub mod rules;
mod serve;
mod take;

pub use action::{Action, Fence, Notice, Which, Why};
pub use event::{Config, Event, Kept, Link, Logs, Now, Order, Previous, Start};
pub use rules::{Rule, Rules};

/// An acknowledgement waits at most this long for others.
const ACK_AFTER: Duration = Duration::from_millis(5);
/// Or until this many tokens wait for it.
const ACK_TOKENS: u64 = 256;
/// Who was reborn this short a time ago is not reborn again.
const REBORN_AGAIN: Duration = Duration::from_hours(1);

/// One node's part in the protocol.
#[derive(Debug)]
pub struct Replica {
    config: Config,
    rules: Rules,
    me: Origin,
    incarnation: Incarnation,
    birth: Birth,
    /// Everybody else that was ever heard of.
    known: BTreeMap<Origin, Known>,
    peers: BTreeMap<Link, Peer>,
    members: Members,
    /// Those that have left, where not all before that is applied yet, and since when: they count
    /// as writers until it is.
    leaving: BTreeMap<Origin, Duration>,
    /// The term in which this node may write; 0 if it may not.
    term: u64,
    fence: Option<Fence>,
    /// Changes of membership that this node is in the middle of.
    changes: Vec<Change>,
    /// What members have on their disks of this life's logs.
    acked: BTreeMap<Origin, [u64; 2]>,
    retained: [u64; 2],
    /// As it was told last.
    fresh: BTreeMap<DomainId, Option<Duration>>,
    /// The last step's clocks, and those that the wall clock is compared from.
    last: Now,
    fixed: Now,
    next_beat: Duration,
    ack_at: Option<Duration>,
    armed: Option<Duration>,
    tickets: u64,
    reborn: Option<Duration>,
    /// It was told to begin again, and does nothing more.
    over: bool,
}

/// What every part of a step may use.
struct Step<'a> {
    now: Now,
    logs: &'a dyn Logs,
    out: &'a mut Vec<Action>,
}

impl Step<'_> {
    fn send(&mut self, link: Link, message: Message) {
        self.out.push(Action::Send { link, message });
    }

    fn report(&mut self, notice: Notice) {
        self.out.push(Action::Report(notice));
    }
}

impl Replica {
    /// A life begins. Nothing is told to anybody before what is in `out` is done.
    pub fn new(config: Config, start: Start, now: Now, out: &mut Vec<Action>) -> Self {
        Self::with_rules(config, start, now, Rules::default(), out)
    }

    /// With a rule switched off, for the simulator.
    pub(crate) fn with_rules(
        config: Config,
        start: Start,
        now: Now,
        rules: Rules,
        out: &mut Vec<Action>,
    ) -> Self {
        let mut domains: Vec<_> =
            config.domains.iter().map(|it| Born { domain: it.id(), outside: it.outside }).collect();
        domains.sort_unstable_by_key(|it| it.domain);
        let birth = Birth {
            previous: start.previous.map(|it| (it.incarnation, it.heads)),
            clean: start.previous.map_or(Clean::Not, |it| it.clean),
            domains,
        };
        let known = start.kept.into_iter().map(|it| (it.place.origin, Known::kept(it))).collect();
        let leaving = BTreeMap::new();
        let part = u32::try_from(start.random % 1_024).unwrap_or(0);
        let jitter = config.beat / 1_024 * part;
        let mut replica = Self {
            rules,
            me: start.origin,
            incarnation: start.incarnation,
            birth,
            known,
            peers: BTreeMap::new(),
            members: start.members,
            leaving,
            term: start.term,
            fence: None,
            changes: Vec::new(),
            acked: BTreeMap::new(),
            retained: [0; 2],
            fresh: BTreeMap::new(),
            last: now,
            fixed: now,
            next_beat: now.boot + jitter,
            ack_at: None,
            armed: None,
            tickets: 0,
            reborn: start.reborn,
            over: false,
            config,
        };
        replica.begin(out);
        replica
    }

    /// The birth; and where the life before does not vouch for what it did, a clear (R4).
    fn begin(&mut self, out: &mut Vec<Action>) {
        let standing = self.members.0.get(&self.me);
        if standing.is_none_or(|it| it.term != self.term) || !self.members.is_member(self.me) {
            self.term = 0;
        }
        self.fence = (self.term == 0).then_some(Fence::NoMember);
        out.push(Action::Fence(self.fence));
        let body = self.birth.encode();
        self.publish(TokenKind::Birth, DomainId::NONE, body, out);
        let unclean: Vec<_> = match (self.birth.previous, self.birth.clean) {
            (None, _) | (_, Clean::Whole) => Vec::new(),
            (_, Clean::Inside) => {
                self.birth.domains.iter().filter(|it| it.outside).map(|it| it.domain).collect()
            }
            (_, Clean::Not) => self.birth.domains.iter().map(|it| it.domain).collect(),
        };
        if !unclean.is_empty() && self.rules.on(Rule::Unclean) {
            for domain in &unclean {
                self.publish(TokenKind::All, *domain, Vec::new(), out);
            }
            let floor = HybridTime::default();
            let why = Why::Unclean;
            out.push(Action::Flush { domains: Which::These(unclean), why, floor });
        }
        for domain in self.config.domains.iter().map(crate::sync::domain::Domain::id) {
            self.fresh.insert(domain, None);
            out.push(Action::Fresh { domain, as_of: None });
        }
        // At once: a node that is alone is proved from its first tick on.
        out.push(Action::Arm { at: self.last.boot });
    }

    /// To the lane where such facts belong: joins and leaves are synced at once.
    fn publish(
        &mut self,
        kind: TokenKind,
        domain: DomainId,
        body: Vec<u8>,
        out: &mut Vec<Action>,
    ) -> u64 {
        self.tickets += 1;
        let lane = match kind {
            TokenKind::Join | TokenKind::Leave => Lane::Values,
            _ => Lane::Tokens,
        };
        out.push(Action::Publish { ticket: self.tickets, lane, kind, domain, body });
        self.tickets
    }

    /// What this node says first on a connection.
    pub fn hello(&self, now: Now) -> Hello {
        let schema =
            |it: &crate::sync::domain::Domain| Schema { domain: it.id(), schema: it.schema };
        Hello {
            cluster: self.config.cluster,
            origin: self.me,
            incarnation: self.incarnation,
            protocol: PROTOCOL,
            features: 0,
            time: HybridTime::from_millis(millis(now.wall)),
            term: self.term,
            domains: self.config.domains.iter().map(schema).collect(),
        }
    }

    /// Takes in what has happened; what is to be done is appended to `out`.
    pub fn step(&mut self, now: Now, logs: &dyn Logs, event: Event<'_>, out: &mut Vec<Action>) {
        if self.over {
            return;
        }
        let mut step = Step { now, logs, out };
        self.mind_the_time(&mut step);
        match event {
            Event::Up { link, hello } => self.up(link, hello, &mut step),
            Event::Down { link } => self.down(link, &mut step),
            Event::Message { link, message } => self.message(link, message, &mut step),
            Event::Tokens { link, tokens } => self.tokens(link, &tokens, &mut step),
            Event::Stored { log, seq } => self.stored(log, seq, &mut step),
            Event::Shipped { link, log, seq } => self.shipped(link, log, seq),
            Event::Behind { link, origin } => self.behind(link, origin, &mut step),
            Event::Published { ticket, seq } => self.published(ticket, seq, &mut step),
            Event::Order(order) => self.order(order, &mut step),
            Event::Tick => {}
        }
        if !self.over {
            self.tick(&mut step);
        }
    }

    fn message(&mut self, link: Link, message: &Message, step: &mut Step<'_>) {
        if !self.peers.contains_key(&link) {
            return;
        }
        match message {
            Message::Have { places, .. } => self.have(link, places, step),
            Message::Want { origin, ask, at } => {
                self.want(link, (*origin, *ask), at.as_ref(), step);
            }
            Message::Unwant { origin } => self.unserve(link, *origin, step),
            Message::From { ask, at } => self.from(link, *ask, at, step),
            Message::Gap(gap) => self.gap(link, gap, step),
            Message::NewInc { origin, incarnation, birth } => {
                self.new_life(link, (*origin, *incarnation), birth, step);
            }
            Message::Diverged { at } => self.diverged(at, step),
            Message::Ack(acks) => self.ack(link, acks, step),
            Message::Ping { n } => self.ping(link, *n, step),
            Message::Beat(beat) => self.beat(link, beat, step),
            Message::Members(members) => self.learn(members, step),
            Message::Who { ask } => {
                let members = self.members.clone();
                step.send(link, Message::Knows { ask: *ask, members });
            }
            Message::Knows { ask, members } => self.knows(link, *ask, members, step),
            Message::Join { domains } => self.sponsor(link, domains, step),
            Message::Welcome { term, members } => self.welcome(*term, members, step),
            Message::Refused(refusal) => self.refused(link, refusal, step),
            // A hello comes with the link, and credit is between links. After a goodbye the link
            // goes down, which says all.
            Message::Hello(_) | Message::Credit { .. } | Message::Bye => {}
        }
    }

    /// What is due by the clock.
    fn tick(&mut self, step: &mut Step<'_>) {
        let now = step.now.boot;
        if self.ack_at.is_some_and(|at| at <= now) {
            self.send_acks(step);
        }
        if self.next_beat <= now {
            self.next_beat = now + self.config.beat;
            self.send_pings(step);
            self.leave_if_caught_up(step);
            self.take_offers(step);
            self.route_all(step);
            self.refresh(step);
        }
        self.go_on_with_changes(step);
        let due = self.changes.iter().filter_map(Change::due).chain(self.ack_at);
        let at = due.fold(self.next_beat, Duration::min).max(now);
        if self.armed != Some(at) {
            self.armed = Some(at);
            step.out.push(Action::Arm { at });
        }
    }

    /// Leases end where time was lost: the wall clock ran on while the other stood, or nothing
    /// ran for too long (R8).
    fn mind_the_time(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        let boot = now.boot.saturating_sub(self.fixed.boot);
        let wall = now.wall.saturating_sub(self.fixed.wall);
        let apart = if now.wall < self.fixed.wall {
            self.fixed.wall.saturating_sub(now.wall) + boot
        } else {
            boot.abs_diff(wall)
        };
        let late = now.boot.saturating_sub(self.armed.unwrap_or(now.boot));
        self.last = now;
        let lost = apart.max(if late > self.config.lease / 4 { late } else { Duration::ZERO });
        if apart > self.apart_max() || late > self.config.lease / 4 {
            self.fixed = now;
            if !self.rules.on(Rule::Jump) {
                return;
            }
            for known in self.known.values_mut() {
                known.forget_proof();
            }
            for peer in self.peers.values_mut() {
                peer.forget_pings();
            }
            step.report(Notice::TimeLost { by: lost });
            self.refresh(step);
            self.next_beat = now.boot;
        } else if boot > self.config.lease {
            self.fixed = now;
        }
    }

    /// How far the two clocks may part within about one lease.
    fn apart_max(&self) -> Duration {
        self.config.skew_max.min(self.config.lease / 16)
    }

    /// Somebody names this node as it cannot have been: it was rolled back, or copied (R13).
    fn rolled_back(&mut self, known: &Place, step: &mut Step<'_>) {
        if !self.rules.on(Rule::Reborn) {
            return;
        }
        step.report(Notice::RolledBack { known: *known });
        let again = self.reborn.is_some_and(|at| step.now.wall.abs_diff(at) < REBORN_AGAIN);
        if again {
            self.set_fence(Some(Fence::Copied), step);
            return;
        }
        let above = known.incarnation.counter.max(self.incarnation.counter);
        self.over = true;
        step.out.push(Action::Reborn { above });
    }

    fn set_fence(&mut self, fence: Option<Fence>, step: &mut Step<'_>) {
        // What an operator must clear is not cleared by anything else.
        let stays = matches!(self.fence, Some(Fence::Copied | Fence::Later(_)));
        if self.fence != fence && !stays {
            self.fence = fence;
            step.out.push(Action::Fence(fence));
        }
    }

    /// The place of this life's own logs.
    fn own_place(&self, logs: &dyn Logs) -> Place {
        let mut marks = crate::sync::message::Marks::ZERO;
        for lane in LANES {
            marks.set(lane, logs.head(lane));
        }
        Place { origin: self.me, incarnation: self.incarnation, marks, diverged: false }
    }

    /// Which domains are an origin's, by its birth and its membership together. `Every` where
    /// nothing is known.
    fn domains_of(&self, origin: Origin, births: &[Option<&Birth>]) -> Which {
        let known = self.known.get(&origin).and_then(|it| it.birth.as_ref());
        if known.is_none() && self.known.get(&origin).is_some_and(|it| it.place.is_some()) {
            return Which::Every;
        }
        let mut domains = BTreeSet::new();
        for birth in births.iter().copied().chain([known]) {
            domains.extend(birth.into_iter().flat_map(|it| &it.domains).map(|it| it.domain));
        }
        if let Some(member) = self.members.0.get(&origin) {
            domains.extend(&member.domains);
        }
        Which::These(domains.into_iter().collect())
    }

    // --- for those who look at it ---

    /// How far this node is with an origin; `None` if it has nothing of it.
    pub fn place(&self, origin: Origin) -> Option<Place> {
        self.known.get(&origin).and_then(|it| it.place)
    }

    /// As of when (of `CLOCK_BOOTTIME`) everything of the origin is known here.
    pub fn as_of(&self, origin: Origin) -> Option<Duration> {
        self.known.get(&origin).and_then(|it| it.as_of)
    }

    /// Who is, and was, a member, as far as is known here.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Why this node may not publish.
    pub fn fence(&self) -> Option<Fence> {
        self.fence
    }

    /// This life.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Is it in the middle of a join, a leave or a removal?
    pub fn is_changing(&self) -> bool {
        !self.changes.is_empty()
    }

    /// It has asked for another life and does nothing more.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Things that it remembers: what bounds its memory are origins and connections.
    pub fn size(&self) -> usize {
        let peers: usize = self.peers.values().map(Peer::size).sum();
        self.known.len() + peers + self.changes.len() + self.acked.len() + self.members.0.len()
    }
}

/// Both, as indexes go.
const LANES: [Lane; 2] = [Lane::Tokens, Lane::Values];

/// The one of two that is the lane's.
const fn of<T: Copy>(both: [T; 2], lane: Lane) -> T {
    let [tokens, values] = both;
    match lane {
        Lane::Tokens => tokens,
        Lane::Values => values,
    }
}

const fn of_mut<T>(both: &mut [T; 2], lane: Lane) -> &mut T {
    let [tokens, values] = both;
    match lane {
        Lane::Tokens => tokens,
        Lane::Values => values,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
