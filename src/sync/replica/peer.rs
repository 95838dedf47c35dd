//! A connection: what its peer can offer, what is wanted and served on it, and who is asked for
//! what.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sync::fact::Standing;
use crate::sync::message::{Ack, Breach, Hello, Message, ORIGINS_MAX, PROTOCOL, Place, Refusal};
use crate::sync::origin::{Incarnation, Origin, TokenLog};
use crate::sync::replica::event::Link;
use crate::sync::replica::{
    ACK_AFTER, ACK_TOKENS, Action, Fence, LANES, Notice, Replica, Rule, Step, millis, of,
};

/// Pings that may be answered yet.
const PINGS: usize = 4;

/// Origins that are remembered; more are not heard of.
const KNOWN_MAX: usize = 1 << 16;

/// What was asked of a peer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Asked, at this time, with this number.
    Asked(Duration, u64),
    /// Answered: tokens come, and the peer's proof counts.
    Accepted(Duration),
}

/// What a peer asked for and gets.
#[derive(Copy, Clone, Debug)]
pub(super) struct Serve {
    pub(super) incarnation: Incarnation,
    /// Given to the connection so far.
    pub(super) shipped: [u64; 2],
    /// Told so far.
    pub(super) visible: u64,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) origin: Origin,
    /// What it has said that it has.
    pub(super) has: BTreeMap<Origin, Incarnation>,
    pub(super) wants: BTreeMap<Origin, Want>,
    pub(super) serves: BTreeMap<Origin, Serve>,
    /// When pings were sent, the latest last.
    pings: Vec<(u64, Duration)>,
    ping: u64,
    asks: u64,
    /// Tokens that came on it since the last acknowledgement.
    pub(super) unacked: BTreeMap<TokenLog, u64>,
}

impl Peer {
    fn new(hello: &Hello) -> Self {
        Self {
            origin: hello.origin,
            has: BTreeMap::from([(hello.origin, hello.incarnation)]),
            wants: BTreeMap::new(),
            serves: BTreeMap::new(),
            pings: Vec::new(),
            ping: 0,
            asks: 0,
            unacked: BTreeMap::new(),
        }
    }

    /// The number of the next ping, which is sent now.
    pub(super) fn next_ping(&mut self, now: Duration) -> u64 {
        self.ping += 1;
        if self.pings.len() == PINGS {
            self.pings.remove(0);
        }
        self.pings.push((self.ping, now));
        self.ping
    }

    /// When that ping was sent, if it is remembered.
    pub(super) fn pinged(&self, n: u64) -> Option<Duration> {
        self.pings.iter().find(|it| it.0 == n).map(|it| it.1)
    }

    pub(super) fn forget_pings(&mut self) {
        self.pings.clear();
    }

    pub(super) fn is_accepted(&self, origin: Origin) -> bool {
        matches!(self.wants.get(&origin), Some(Want::Accepted(_)))
    }

    pub(super) fn size(&self) -> usize {
        1 + self.has.len()
            + self.wants.len()
            + self.serves.len()
            + self.pings.len()
            + self.unacked.len()
    }
}

impl Replica {
    pub(super) fn up(&mut self, link: Link, hello: &Hello, step: &mut Step<'_>) {
        if let Some(refusal) = self.objection(hello, step) {
            step.report(Notice::Refused {
                peer: hello.origin,
                refusal: refusal.clone(),
                by_peer: false,
            });
            self.close(link, Some(refusal), step);
            return;
        }
        let shared = |it: &crate::sync::domain::Domain| {
            hello.domains.iter().any(|theirs| theirs.domain == it.id())
        };
        if !self.config.domains.iter().any(shared) {
            step.report(Notice::NothingShared { peer: hello.origin });
        }
        let mut peer = Peer::new(hello);
        let n = peer.next_ping(step.now.boot);
        self.peers.insert(link, peer);
        self.known.entry(hello.origin).or_default();
        let mut places: Vec<_> = self.known.values().filter_map(|it| it.place).collect();
        places.push(self.own_place(step.logs));
        let parts = places.chunks(ORIGINS_MAX).count();
        for (part, places) in places.chunks(ORIGINS_MAX).enumerate() {
            let whole = part + 1 == parts;
            step.send(link, Message::Have { places: places.to_vec(), whole });
        }
        step.send(link, Message::Ping { n });
        self.route(hello.origin, step);
    }

    /// Why this peer is not to be talked to.
    fn objection(&mut self, hello: &Hello, step: &mut Step<'_>) -> Option<Refusal> {
        if hello.cluster != self.config.cluster {
            return Some(Refusal::Cluster);
        }
        if hello.protocol != PROTOCOL {
            return Some(Refusal::Protocol(PROTOCOL));
        }
        if hello.origin == self.me {
            return Some(self.met_itself(hello, step));
        }
        let apart = hello.time.millis().abs_diff(millis(step.now.wall));
        if u128::from(apart) > self.config.skew_max.as_millis() {
            return Some(Refusal::Skew(Duration::from_millis(apart)));
        }
        if self.rules.on(Rule::Schema) {
            for ours in &self.config.domains {
                let same = |it: &&crate::sync::message::Schema| it.domain == ours.id();
                if let Some(theirs) = hello.domains.iter().find(same)
                    && theirs.schema != ours.schema
                {
                    let (domain, theirs, ours) = (ours.id(), theirs.schema, ours.schema);
                    return Some(Refusal::Schema { domain, theirs, ours });
                }
            }
        }
        let standing = self.members.0.get(&hello.origin);
        if hello.term != 0
            && standing.is_some_and(|it| it.standing == Standing::Removed && hello.term <= it.term)
        {
            return Some(Refusal::Removed);
        }
        let known = self.known.get(&hello.origin).and_then(super::known::Known::incarnation);
        match known {
            Some(known) if known > hello.incarnation && self.rules.on(Rule::Fenced) => {
                Some(Refusal::Fenced(known))
            }
            _ => None,
        }
    }

    /// Two lives of one node: the lower may not write, and of two that are the same neither.
    fn met_itself(&mut self, hello: &Hello, step: &mut Step<'_>) -> Refusal {
        if self.rules.on(Rule::Fenced) && hello.incarnation >= self.incarnation {
            let fence = if hello.incarnation == self.incarnation {
                Fence::Copied
            } else {
                Fence::Later(hello.incarnation)
            };
            self.set_fence(Some(fence), step);
        }
        Refusal::Fenced(self.incarnation)
    }

    pub(super) fn down(&mut self, link: Link, step: &mut Step<'_>) {
        let Some(peer) = self.peers.remove(&link) else { return };
        for known in self.known.values_mut() {
            if known.offer.as_ref().is_some_and(|it| it.1 == link) {
                known.offer = None;
            }
        }
        for origin in peer.wants.keys() {
            self.route(*origin, step);
        }
    }

    pub(super) fn close(&mut self, link: Link, refusal: Option<Refusal>, step: &mut Step<'_>) {
        if let Some(refusal) = &refusal {
            step.send(link, Message::Refused(refusal.clone()));
        }
        step.out.push(Action::Close { link, refusal });
        self.down(link, step);
    }

    pub(super) fn breach(&mut self, link: Link, breach: Breach, step: &mut Step<'_>) {
        let Some(peer) = self.peers.get(&link) else { return };
        let refusal = Refusal::Broken(breach);
        step.report(Notice::Broke { peer: peer.origin, refusal: refusal.clone() });
        self.close(link, Some(refusal), step);
    }

    pub(super) fn refused(&mut self, link: Link, refusal: &Refusal, step: &mut Step<'_>) {
        let Some(peer) = self.peers.get(&link) else { return };
        step.report(Notice::Refused { peer: peer.origin, refusal: refusal.clone(), by_peer: true });
        match refusal {
            Refusal::Fenced(later) if *later > self.incarnation => {
                let mut known = self.own_place(step.logs);
                known.incarnation = *later;
                self.rolled_back(&known, step);
            }
            Refusal::Removed => self.was_removed(step),
            _ => {}
        }
        if !self.over {
            step.out.push(Action::Close { link, refusal: None });
            self.down(link, step);
        }
    }

    pub(super) fn have(&mut self, link: Link, places: &[Place], step: &mut Step<'_>) {
        for place in places {
            if place.origin == self.me {
                if self.cannot_have_been(place, step) {
                    self.rolled_back(place, step);
                    if self.over {
                        return;
                    }
                }
                continue;
            }
            // A peer is trusted, but not with all memory.
            if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&place.origin) {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&link) {
                peer.has.insert(place.origin, place.incarnation);
            }
            self.known.entry(place.origin).or_default();
            if place.diverged {
                self.diverged(place, step);
            }
            self.route(place.origin, step);
        }
    }

    /// Does somebody name this life, or a later one, as it was not (R13)?
    pub(super) fn cannot_have_been(&self, place: &Place, step: &Step<'_>) -> bool {
        if place.incarnation != self.incarnation {
            return place.incarnation.counter >= self.incarnation.counter;
        }
        place.diverged
            || LANES.iter().any(|lane| {
                let mark = place.marks.of(*lane);
                let hash = step.logs.hash_at(&place.log(*lane), mark.seq);
                mark.seq > step.logs.head(*lane).seq
                    || (self.rules.on(Rule::Hash) && hash.is_some_and(|hash| hash != mark.hash))
            })
    }

    /// Tells everybody of a place that is news, but those who get it from here.
    pub(super) fn announce(&self, place: &Place, step: &mut Step<'_>) {
        for (link, peer) in &self.peers {
            if peer.origin != place.origin || place.diverged {
                step.send(*link, Message::Have { places: vec![*place], whole: true });
            }
        }
    }

    // --- who is asked for what ---

    pub(super) fn route_all(&mut self, step: &mut Step<'_>) {
        let origins: Vec<_> = self.known.keys().copied().collect();
        for origin in origins {
            self.route(origin, step);
        }
    }

    /// Asks the origin itself where there is a connection; a relay too if there is none, or if
    /// nothing was proved for half a lease. A relay that proves nothing is left for the next.
    pub(super) fn route(&mut self, origin: Origin, step: &mut Step<'_>) {
        let Some(known) = self.known.get(&origin).filter(|_| !self.is_removed(origin)) else {
            return;
        };
        let now = step.now.boot;
        let half = self.config.lease / 2;
        let proved = known.as_of.is_some_and(|it| now.saturating_sub(it) <= half);
        let direct = self.peers.iter().rev().find(|it| it.1.origin == origin).map(|it| *it.0);
        let mut alone = direct.is_none();
        if let Some(link) = direct {
            match self.peers.get(&link).and_then(|it| it.wants.get(&origin)) {
                None => self.ask(link, origin, step),
                Some(Want::Asked(at, _) | Want::Accepted(at)) => {
                    alone = !proved && now.saturating_sub(*at) > half;
                }
            }
        }
        let relays: Vec<_> = self
            .peers
            .iter()
            .filter(|it| it.1.origin != origin && it.1.wants.contains_key(&origin))
            .map(|it| *it.0)
            .collect();
        if !alone {
            // Not before the origin has answered: it may have a gap where the relay has not.
            if direct.is_some_and(|it| self.peers.get(&it).is_some_and(|it| it.is_accepted(origin)))
            {
                for link in relays {
                    self.unask(link, origin, step);
                }
            }
            return;
        }
        let asked = self.known.get(&origin).and_then(|it| it.asked);
        let patient = asked.is_some_and(|it| proved || now.saturating_sub(it.1) <= half);
        if !relays.is_empty() && patient {
            let chosen = asked.map(|it| it.0).filter(|link| {
                proved && self.peers.get(link).is_some_and(|it| it.is_accepted(origin))
            });
            if let Some(chosen) = chosen {
                relays.iter().filter(|it| **it != chosen).for_each(|it| {
                    self.unask(*it, origin, step);
                });
            }
            return;
        }
        let mine = self.known.get(&origin).and_then(super::known::Known::incarnation);
        let can = |peer: &Peer| {
            peer.origin != origin
                && peer.has.get(&origin).is_some_and(|it| mine.is_none_or(|mine| *it >= mine))
        };
        let after = asked.map_or(Link(0), |it| it.0);
        // Rather somebody who does not ask the same of this node; but two that ask each other are
        // better than one that asks nobody.
        let others = |it: &(&Link, &Peer)| can(it.1) && !it.1.serves.contains_key(&origin);
        let first = || self.peers.iter().filter(others).map(|it| *it.0);
        let any = || self.peers.iter().filter(|it| can(it.1)).map(|it| *it.0);
        let next = first()
            .find(|it| *it > after)
            .or_else(|| first().next())
            .or_else(|| any().find(|it| *it > after))
            .or_else(|| any().next());
        let Some(next) = next else { return };
        // The only one there is, and it has answered: all is said.
        if self.peers.get(&next).is_some_and(|it| it.is_accepted(origin)) {
            return;
        }
        for link in relays {
            if link != next {
                self.unask(link, origin, step);
            }
        }
        self.ask(next, origin, step);
    }

    pub(super) fn ask(&mut self, link: Link, origin: Origin, step: &mut Step<'_>) {
        let at = self.known.get(&origin).and_then(|it| it.place);
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.asks += 1;
            let relay = peer.origin != origin;
            if let Some(known) = self.known.get_mut(&origin).filter(|_| relay) {
                known.asked = Some((link, step.now.boot));
            }
            peer.wants.insert(origin, Want::Asked(step.now.boot, peer.asks));
            step.send(link, Message::Want { origin, ask: peer.asks, at });
        }
    }

    fn unask(&mut self, link: Link, origin: Origin, step: &mut Step<'_>) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.wants.remove(&origin);
            step.send(link, Message::Unwant { origin });
        }
    }

    pub(super) fn unask_all(&mut self, origin: Origin, step: &mut Step<'_>) {
        let wants = |it: &(&Link, &Peer)| it.1.wants.contains_key(&origin);
        let links: Vec<_> = self.peers.iter().filter(wants).map(|it| *it.0).collect();
        for link in links {
            self.unask(link, origin, step);
        }
    }

    // --- acknowledgements ---

    /// Something of this log is to be acknowledged on a connection.
    pub(super) fn owe_ack(&mut self, link: Link, log: TokenLog, tokens: u64, step: &mut Step<'_>) {
        let Some(peer) = self.peers.get_mut(&link) else { return };
        let unacked = peer.unacked.entry(log).or_default();
        *unacked = unacked.saturating_add(tokens);
        let at = step.now.boot + if *unacked >= ACK_TOKENS { Duration::ZERO } else { ACK_AFTER };
        self.ack_at = Some(self.ack_at.map_or(at, |it| it.min(at)));
    }

    pub(super) fn stored(&mut self, log: TokenLog, seq: u64, step: &mut Step<'_>) {
        let Some(known) = self.known.get_mut(&log.origin) else { return };
        if known.incarnation() != Some(log.incarnation) {
            return;
        }
        let durable = super::of_mut(&mut known.durable, log.lane);
        *durable = seq.max(*durable);
        self.owe_acks(log, step);
    }

    /// More of this log is on the disk, wherever it came from: all that ship it are to hear of it.
    pub(super) fn owe_acks(&mut self, log: TokenLog, step: &mut Step<'_>) {
        let accepted = |it: &(&Link, &Peer)| it.1.is_accepted(log.origin);
        let links: Vec<_> = self.peers.iter().filter(accepted).map(|it| *it.0).collect();
        for link in links {
            self.owe_ack(link, log, 0, step);
        }
    }

    pub(super) fn send_acks(&mut self, step: &mut Step<'_>) {
        self.ack_at = None;
        for (link, peer) in &mut self.peers {
            let mut acks = Vec::new();
            for (log, _) in std::mem::take(&mut peer.unacked) {
                let Some(known) = self.known.get(&log.origin) else { continue };
                let Some(place) = known.place else { continue };
                if place.incarnation == log.incarnation {
                    let (durable, applied) =
                        (of(known.durable, log.lane), place.marks.of(log.lane));
                    acks.push(Ack { log, durable, applied: applied.seq });
                }
            }
            if !acks.is_empty() {
                step.send(*link, Message::Ack(acks));
            }
        }
    }
}
