//! A node's rim: what it appends and syncs, what it ships, and what it does as the core decides.

use crate::sync::domain::DomainId;
use crate::sync::fact::Birth;
use crate::sync::message::{Mark, Marks, Place};
use crate::sync::origin::{Lane, TokenLog};
use crate::sync::replica::{Which, Why};
use crate::sync::sim::app::{Said, all_mask, mask_of};
use crate::sync::sim::disk::{Chain, Foreign, Open, lane};
use crate::sync::sim::net::Parcel;
use crate::sync::sim::node::Node;
use crate::sync::sim::{Due, MS, Todo, World};
use crate::sync::token::TokenKind;

/// Batches that may be on their way to a peer before it has taken any.
const WINDOW: usize = 8;

impl World {
    // --- the logs ---

    pub(super) fn append(
        &mut self,
        node: usize,
        (which, kind): (Lane, TokenKind),
        domain: DomainId,
        body: &[u8],
    ) -> u64 {
        let chain = &mut self.nodes[node].disk.own_mut()[lane(which)];
        let seq = chain.push(kind, domain, body);
        let (log, head) = (chain.log, chain.head());
        if which == Lane::Values {
            chain.durable = seq;
        }
        let said = chain.said(seq).next().map_or(Said::Nothing, |it| it.1.clone());
        self.note(|| format!("{node} appends {log} {seq} {kind:?} {said:?}"));
        self.record(log, seq, head.hash);
        let origin = log.origin;
        if let Some(live) = &mut self.nodes[node].live {
            live.app.apply(origin, seq, &said, which == Lane::Tokens);
            live.pump = true;
        }
        // Both lanes are in one log, of which what is durable is a prefix.
        if which == Lane::Values {
            self.fsync(node);
        }
        seq
    }

    pub(super) fn publish_intent(&mut self, node: usize, id: u64, key: u8, old: bool) -> u64 {
        let body = crate::sync::sim::app::intent_body(id, key);
        let domain = crate::sync::sim::app::domain(1);
        let seq = self.append(node, (Lane::Tokens, TokenKind::Intent), domain, &body);
        let open = &mut self.nodes[node].disk.open;
        open.push(Open { id, key, seq, old, closed: None });
        seq
    }

    pub(super) fn change_when_durable(&mut self, node: usize, seq: u64, key: u8) {
        if let Some(live) = &mut self.nodes[node].live {
            live.changes.push((seq, key));
        }
    }

    pub(super) fn commit_when_durable(&mut self, node: usize, seq: u64, id: u64, key: u8) {
        if let Some(live) = &mut self.nodes[node].live {
            live.intents.push((seq, id, key));
        }
    }

    pub(super) fn fsync_due(&mut self, node: usize, life: u64) {
        if !self.is_life(node, life) {
            return;
        }
        if !self.dice.one_in(3) && self.syncs {
            self.fsync(node);
        }
        let delay = 1 + self.dice.below(60 * MS);
        self.after(delay, Due::Fsync { node, life });
    }

    /// All that is written is on the disk; what waited for that happens.
    pub(super) fn fsync(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let (disk, Some(live)) = (&mut it.disk, &mut it.live) else { return };
        let origin = disk.origin;
        let own = &mut disk.own.as_mut().unwrap()[0];
        own.durable = own.head().seq;
        let upto = own.durable;
        disk.open.retain(|it| it.closed.is_none_or(|seq| seq > upto));
        let mut stored = Vec::new();
        for foreign in disk.foreign.values_mut() {
            for chain in &mut foreign.lanes {
                if chain.durable < chain.head().seq {
                    chain.durable = chain.head().seq;
                    stored.push((chain.log, chain.durable));
                }
            }
        }
        // The change is there before anything that is filled now could be called old.
        for (_, key) in live.changes.drain(..) {
            self.truth.change(key, self.now);
        }
        live.app.visible(origin, upto);
        live.pump = true;
        let (intents, life) = (std::mem::take(&mut live.intents), it.life);
        for (_, id, key) in intents {
            self.flying.insert(id);
            let delay = self.dice.below(300 * MS);
            self.after(delay, Due::Commit { node, life, id, key });
        }
        for (log, seq) in stored {
            self.tell(node, Todo::Stored { log, seq });
        }
        self.pump(node);
    }

    /// Sends what the standing orders say, as far as there is room.
    pub(super) fn pump(&mut self, node: usize) {
        let ready = self.nodes[node].live.as_mut().is_some_and(|it| std::mem::take(&mut it.pump));
        if !ready || self.nodes[node].frozen.is_some() {
            return;
        }
        let mut at = 0;
        loop {
            let Some(live) = &self.nodes[node].live else { return };
            let Some(ship) = live.ships.get(at) else { return };
            let (link, log, sent) = (ship.link, ship.log, ship.sent);
            let room = self.side(link, node).is_some_and(|(conn, side)| {
                self.conns[conn].to[1 - side].len() < WINDOW || log.lane == Lane::Values
            });
            let disk = &self.nodes[node].disk;
            let chain = disk.chain(&log).filter(|_| room && !ship.halted);
            if chain.is_some_and(|it| it.floor.seq > sent) {
                if let Some(live) = &mut self.nodes[node].live {
                    live.ships[at].halted = true;
                }
                self.tell(node, Todo::Behind { link, origin: log.origin });
                at += 1;
                continue;
            }
            let most = self.dice.index(6) + 1;
            let it = &self.nodes[node];
            let (disk, told) = (&it.disk, it.live.as_ref().map_or(0, |it| it.ships[at].visible));
            let own = log.origin == disk.origin;
            let visible = match disk.foreign.get(&log.origin) {
                _ if own => disk.own()[0].durable,
                Some(foreign) => foreign.visible,
                None => 0,
            };
            let chain = disk.chain(&log).filter(|_| room && !ship_halted(it, at));
            // Nothing new but that more may be read: a batch without tokens says so.
            let news = log.lane == Lane::Tokens && visible > told;
            let empty =
                |chain: &Chain| Some((chain.hash_at(sent)?, sent, &[][..])).filter(|_| news);
            let batch = chain.and_then(|it| it.read(sent, most).or_else(|| empty(it)));
            let Some((before, last, bytes)) = batch else {
                at += 1;
                continue;
            };
            self.messages[1] += bytes.len();
            let (first, bytes) = (sent + 1, bytes.to_vec());
            let parcel = Parcel::Tokens { log, first, before, visible, bytes };
            if let Some(live) = &mut self.nodes[node].live {
                live.ships[at].sent = last;
                live.ships[at].visible = visible;
            }
            if let Some((conn, side)) = self.side(link, node) {
                self.put(conn, 1 - side, parcel);
            }
            if !own && last > sent {
                self.tell(node, Todo::Shipped { link, log, seq: last });
            }
        }
    }

    // --- what the core has decided ---

    pub(super) fn take(
        &mut self,
        node: usize,
        log: TokenLog,
        (first, last, before): (u64, u64, u64),
        bytes: &[u8],
    ) {
        let it = &mut self.nodes[node];
        let foreign = it.disk.foreign.entry(log.origin).or_insert_with(|| {
            let place = Place {
                origin: log.origin,
                incarnation: log.incarnation,
                marks: Marks::ZERO,
                diverged: false,
            };
            Foreign::new(&place, 0, None)
        });
        let chain = &mut foreign.lanes[lane(log.lane)];
        let (head, theirs) = (chain.head(), (first, before, log));
        if (head.seq + 1, head.hash, chain.log) != theirs {
            // Only where rules are off: a relay goes on all the same, and so does the test.
            let marks = Mark { seq: first - 1, hash: before };
            *chain = Chain::new(log, marks);
        }
        chain.extend(bytes);
        let hash = chain.head().hash;
        let visible = foreign.visible;
        let said: Vec<_> = chain.said(first).map(|(seq, said)| (seq, said.clone())).collect();
        self.tokens += said.len();
        let Some(live) = &mut it.live else { return };
        for (seq, said) in said {
            let provisional = log.lane == Lane::Tokens && seq > visible;
            live.app.apply(log.origin, seq, &said, provisional);
        }
        live.pump = true;
        self.note(|| format!("{node} applies {log} {first}..={last}"));
        self.record(log, last, hash);
    }

    pub(super) fn seen(&mut self, node: usize, log: TokenLog, upto: u64) {
        let it = &mut self.nodes[node];
        if let Some(foreign) = it.disk.foreign.get_mut(&log.origin)
            && foreign.incarnation == log.incarnation
        {
            foreign.visible = upto.max(foreign.visible);
        }
        if let Some(live) = &mut it.live {
            live.app.visible(log.origin, upto);
            live.pump = true;
        }
    }

    pub(super) fn flush(&mut self, node: usize, domains: &Which, why: Why) {
        self.note(|| format!("{node} flush {domains:?} {why:?}"));
        self.flushes += usize::from(why != Why::Unclean);
        let mask = match domains {
            Which::Every => all_mask(),
            Which::These(these) => these.iter().fold(0, |mask, it| mask | mask_of(*it)),
        };
        if let Some(live) = &mut self.nodes[node].live {
            live.app.clear(mask);
        }
    }

    pub(super) fn adopt(&mut self, node: usize, to: Place, visible: u64, birth: Option<Birth>) {
        self.note(|| format!("{node} adopts {to:?}"));
        self.check_adopted(node, &to, birth.as_ref());
        let it = &mut self.nodes[node];
        let birth =
            birth.or_else(|| it.disk.foreign.get(&to.origin).and_then(|it| it.birth.clone()));
        it.disk.foreign.insert(to.origin, Foreign::new(&to, visible, birth));
        if let Some(live) = &mut it.live {
            live.app.settle(to.origin);
        }
    }

    pub(super) fn was_told(&self, node: usize) -> bool {
        self.nodes[node].live.as_ref().is_some_and(|it| it.told)
    }
}

fn ship_halted(node: &Node, at: usize) -> bool {
    node.live.as_ref().and_then(|it| it.ships.get(at)).is_none_or(|it| it.halted)
}
