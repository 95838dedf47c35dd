//! What people, programs and the world do, at random.

use crate::sync::domain::DomainId;
use crate::sync::fact::{Clean, Members};
use crate::sync::origin::Lane;
use crate::sync::replica::{Link, Order, Rules};
use crate::sync::sim::app::{KEYS, domain};
use crate::sync::sim::disk::{Entry, lane};
use crate::sync::sim::{Dice, Due, LEASE, MS, Plan, Time, Todo, World, all_domains, origin};
use crate::sync::token::TokenKind;

/// One schedule: the fault that was found, if there was one.
pub(super) fn schedule(seed: u64, rules: Rules) -> Result<World, Box<World>> {
    let mut dice = Dice(seed ^ 0x5EED);
    let nodes = 2 + dice.index(3);
    let mesh = !dice.one_in(4);
    // Deep clusters need more beats: `Config::reaches`.
    let beats = if mesh { 4 } else { 8 };
    let mut world = World::new(seed, Plan { nodes, rules, mesh, manual: false, beats });
    world.run(300 * MS);
    let steps = 15 + dice.below(45);
    for _ in 0..steps {
        if world.wrong.is_some() {
            break;
        }
        world.something();
        let most = if world.dice.one_in(8) { LEASE } else { 80 * MS };
        let time = world.dice.below(most);
        world.run(time);
    }
    if world.wrong.is_none() {
        world.check_quiet();
    }
    if world.wrong.is_none() { Ok(world) } else { Err(Box::new(world)) }
}

impl World {
    fn some(&mut self) -> usize {
        let nodes = self.nodes.len();
        self.dice.index(nodes)
    }

    pub(super) fn something(&mut self) {
        let at = self.some();
        match self.dice.below(100) {
            0..30 => {
                let key = u8::try_from(self.dice.below(u64::from(KEYS))).unwrap();
                self.load(at, key);
            }
            30..44 => {
                let key = u8::try_from(self.dice.below(4)).unwrap();
                self.write_own(at, key);
            }
            44..50 => {
                let key = 4 + u8::try_from(self.dice.below(2)).unwrap();
                self.write_intent(at, key);
            }
            50..54 => {
                let key = 6 + u8::try_from(self.dice.below(2)).unwrap();
                self.write_outside(at, key);
            }
            54..57 => self.write_tag(at),
            57..66 => self.trouble_with_links(at),
            66..74 => self.trouble_with_lives(at),
            74..79 => self.trouble_with_time(at),
            79..84 => self.trouble_with_logs(at),
            84..88 => self.membership(at),
            _ => {}
        }
        self.settle();
    }

    fn writes(&self, at: usize) -> bool {
        let it = &self.nodes[at];
        it.frozen.is_none() && it.live.as_ref().is_some_and(|it| !it.fenced)
    }

    // --- reads and writes ---

    pub(super) fn load(&mut self, at: usize, key: u8) {
        let id = self.id();
        let it = &mut self.nodes[at];
        let Some(live) = it.live.as_mut().filter(|_| it.frozen.is_none()) else { return };
        live.app.begin(id, key, it.disk.stamp());
        let life = it.life;
        let delay = self.dice.below(60 * MS);
        self.after(delay, Due::Read { node: at, life, load: id });
    }

    pub(super) fn read_source(&mut self, node: usize, life: u64, load: u64) {
        if !self.is_life(node, life) {
            return;
        }
        let Some(live) = &mut self.nodes[node].live else { return };
        let Some(load) = live.app.loads.iter_mut().find(|it| it.id == load) else { return };
        load.read = Some(self.truth.current(load.key));
        let load = load.id;
        let delay = self.dice.below(60 * MS);
        self.after(delay, Due::Insert { node, life, load });
    }

    pub(super) fn insert(&mut self, node: usize, life: u64, load: u64) {
        if !self.is_life(node, life) {
            return;
        }
        let it = &mut self.nodes[node];
        let Some(live) = &mut it.live else { return };
        if let Some(load) = live.app.insert(load)
            && let Some(version) = load.read
        {
            it.disk.tier.insert(load.key, Entry { version, stamp: load.stamp });
        }
    }

    pub(super) fn write_own(&mut self, at: usize, key: u8) {
        if !self.writes(at) {
            return;
        }
        let unknown = !self.plan.manual && self.dice.one_in(10);
        let kind = if unknown { TokenKind::Unknown(200) } else { TokenKind::Key };
        let seq = self.append(at, (Lane::Tokens, kind), domain(0), &[key]);
        self.nodes[at].wrote |= 1 << key;
        self.change_when_durable(at, seq, key);
        self.pump(at);
    }

    fn write_tag(&mut self, at: usize) {
        if !self.writes(at) {
            return;
        }
        let odd = u8::try_from(self.dice.below(2)).unwrap();
        let seq = self.append(at, (Lane::Tokens, TokenKind::Tag), domain(0), &[odd]);
        for key in [odd, odd + 2] {
            self.nodes[at].wrote |= 1 << key;
            self.change_when_durable(at, seq, key);
        }
        self.pump(at);
    }

    pub(super) fn write_intent(&mut self, at: usize, key: u8) {
        if !self.writes(at) {
            return;
        }
        let id = self.id();
        let seq = self.publish_intent(at, id, key, false);
        self.commit_when_durable(at, seq, id, key);
        self.pump(at);
    }

    pub(super) fn commit(&mut self, node: usize, life: u64, id: u64, key: u8) {
        if !self.flying.remove(&id) {
            return;
        }
        self.truth.change(key, self.now);
        self.note(|| format!("{node} commits intent {id}"));
        if self.is_life(node, life) {
            self.close_intent(node, id, TokenKind::Done);
        } else {
            self.after(LEASE / 4, Due::Resolve { node, id });
        }
    }

    pub(super) fn close_intent(&mut self, node: usize, id: u64, kind: TokenKind) {
        if !self.is_open(node, id) {
            return;
        }
        let seq = self.append(node, (Lane::Tokens, kind), domain(1), &id.to_le_bytes());
        for open in self.nodes[node].disk.open.iter_mut().filter(|it| it.id == id) {
            open.closed = Some(seq);
        }
        self.pump(node);
    }

    fn is_open(&self, node: usize, id: u64) -> bool {
        self.nodes[node].disk.open.iter().any(|it| it.id == id && it.closed.is_none())
    }

    pub(super) fn resolve(&mut self, node: usize, id: u64) {
        let open = self.is_open(node, id) && !self.nodes[node].gone;
        let here = self.nodes[node].live.is_some() && self.nodes[node].frozen.is_none();
        if here && !self.flying.contains(&id) {
            self.close_intent(node, id, TokenKind::Resolved);
        } else if open {
            self.after(LEASE / 4, Due::Resolve { node, id });
        }
    }

    pub(super) fn write_outside(&mut self, at: usize, key: u8) {
        if !self.writes(at) {
            return;
        }
        self.truth.change(key, self.now);
        let (delay, life) = (self.dice.below(100 * MS), self.nodes[at].life);
        self.after(delay, Due::Tell { node: at, life, key });
    }

    pub(super) fn tell_change(&mut self, node: usize, life: u64, key: u8) {
        let it = &self.nodes[node];
        if it.life == life && it.live.is_some() && it.frozen.is_some() {
            self.after(50 * MS, Due::Tell { node, life, key });
        } else if self.is_life(node, life) {
            self.append(node, (Lane::Tokens, TokenKind::Key), domain(2), &[key]);
            self.pump(node);
        }
    }

    // --- trouble ---

    fn trouble_with_links(&mut self, at: usize) {
        let other = self.some();
        match self.dice.below(8) {
            0 | 1 if other != at => {
                self.note(|| format!("cut {at} -> {other}"));
                self.cut.insert((at, other));
                if self.dice.one_in(2) {
                    self.cut.insert((other, at));
                }
            }
            2 if other != at => {
                self.connect(at, other);
            }
            3 => {
                for other in 0..self.nodes.len() {
                    if other != at {
                        self.cut.extend([(at, other), (other, at)]);
                    }
                }
            }
            4 | 5 => self.heal(),
            _ => {
                let open: Vec<_> = (0..self.conns.len())
                    .filter(|it| self.conns[*it].open[0] && !self.conns[*it].broken)
                    .collect();
                if !open.is_empty() {
                    let conn = open[self.dice.index(open.len())];
                    self.break_conn(conn);
                }
            }
        }
    }

    fn trouble_with_lives(&mut self, at: usize) {
        match self.dice.below(10) {
            0 | 1 => self.kill(at, false),
            2 | 3 => self.kill(at, true),
            4 | 5 => self.stop(at),
            6 => {
                self.nodes[at].backup = Some(Box::new(self.nodes[at].disk.clone()));
                return;
            }
            7 => {
                self.restore(at);
                return;
            }
            _ => {
                for at in 0..self.nodes.len() {
                    self.start(at);
                }
                return;
            }
        }
        let delay = self.dice.below(2 * LEASE);
        self.after(delay, Due::Start { node: at });
    }

    /// Its disk is what it was once, and with it its own state.
    pub(super) fn restore(&mut self, at: usize) {
        let Some(backup) = self.nodes[at].backup.take() else { return };
        self.kill(at, true);
        self.note(|| format!("restore {at}"));
        let it = &mut self.nodes[at];
        if it.gone {
            return;
        }
        // What an operator keeps beside the backup: who is a member, and when it was reborn.
        let (members, term, reborn) = (it.disk.members.clone(), it.disk.term, it.disk.reborn);
        // An intent that the backup does not know cannot be resolved by it: the operator waits
        // until nothing is under way.
        let open = it.disk.open.clone();
        it.disk = *backup;
        it.disk.open.extend(open);
        it.disk.open.sort_unstable_by_key(|it| it.id);
        it.disk.open.dedup_by_key(|it| it.id);
        for open in &mut it.disk.open {
            (open.old, open.closed) = (true, None);
        }
        let ids: Vec<_> = it.disk.open.iter().map(|it| it.id).collect();
        it.disk.members = members;
        it.disk.term = term;
        it.disk.reborn = reborn;
        it.disk.tier.clear();
        it.clean = Clean::Not;
        it.restored = true;
        for chain in it.disk.own_mut() {
            chain.durable = chain.head().seq;
        }
        let wrote = it.wrote;
        for key in (0..4).filter(|key| wrote >> key & 1 == 1) {
            self.truth.change(key, self.now);
        }
        for id in ids {
            self.after(LEASE, Due::Resolve { node: at, id });
        }
        let delay = self.dice.below(LEASE);
        self.after(delay, Due::Start { node: at });
    }

    fn trouble_with_time(&mut self, at: usize) {
        match self.dice.below(4) {
            0 => self.nodes[at].wall += 700_000,
            1 => {
                let hidden = self.dice.one_in(2);
                let time = LEASE / 16 + MS + self.dice.below(2 * LEASE);
                self.freeze(at, time, hidden);
            }
            2 => {
                // Below what is noticed: this much is added to the bound.
                let time = self.dice.below(LEASE / 40);
                self.freeze(at, time, true);
                self.slack += time;
            }
            _ => self.nodes[at].wall -= 300_000,
        }
        // Clocks are set right again before anybody is refused for long.
        let wall = &mut self.nodes[at].wall;
        *wall = (*wall).clamp(0, 400_000);
    }

    /// Nothing runs there for so long; hidden if its boot clock stands still as well.
    pub(super) fn freeze(&mut self, at: usize, time: Time, hidden: bool) {
        let it = &mut self.nodes[at];
        if it.live.is_none() || it.frozen.is_some() {
            return;
        }
        it.frozen = Some((self.now, hidden));
        self.note(|| format!("freeze {at} for {} hidden {hidden}", time / MS));
        self.after(time, Due::Resume { node: at });
    }

    fn trouble_with_logs(&mut self, at: usize) {
        let other = self.some();
        match self.dice.below(3) {
            0 => {
                // Bytes bound the own log, whoever needs it.
                for which in [Lane::Tokens, Lane::Values] {
                    let Some(own) = &self.nodes[at].disk.own else { continue };
                    let upto = own[lane(which)].durable;
                    self.drop_own(at, which, upto);
                }
            }
            1 => {
                let origin = self.nodes[other].origin();
                let Some(foreign) = self.nodes[at].disk.foreign.get_mut(&origin) else { return };
                let visible = foreign.visible;
                for chain in &mut foreign.lanes {
                    let open = chain.oldest_intent().map_or(u64::MAX, |it| it - 1);
                    let upto = chain.durable.min(open);
                    chain.drop_to(if chain.log.lane == Lane::Tokens {
                        upto.min(visible)
                    } else {
                        upto
                    });
                }
            }
            _ => {
                // A bit on its way: the checksum of the frame would find it, and so does the core.
                let conns = self.conns.len();
                let conn = self.dice.index(conns);
                let side = self.dice.index(2);
                let bit = self.dice.next();
                for (_, parcel) in
                    self.conns.get_mut(conn).into_iter().flat_map(|it| &mut it.to[side])
                {
                    if let super::net::Parcel::Tokens { bytes, .. } = parcel
                        && !bytes.is_empty()
                    {
                        let at = usize::try_from(bit % (bytes.len() as u64 * 8)).unwrap();
                        bytes[at / 8] ^= 1 << (at % 8);
                        break;
                    }
                }
            }
        }
    }

    pub(super) fn drop_own(&mut self, at: usize, which: Lane, upto: u64) {
        use crate::sync::replica::Logs as _;
        let disk = &mut self.nodes[at].disk;
        let log = disk.own()[lane(which)].log;
        let mut upto = upto.min(disk.own()[lane(which)].durable);
        if which == Lane::Tokens {
            upto = upto.min(disk.oldest_intent(&log).map_or(u64::MAX, |it| it - 1));
        }
        disk.own_mut()[lane(which)].drop_to(upto);
    }

    // --- members ---

    pub(super) fn order(&mut self, at: usize, order: Order) {
        self.note(|| format!("{at} ordered {order:?}"));
        self.tell(at, Todo::Order(order));
        self.settle();
    }

    /// One change of membership at a time, while everybody knows the same: an operator's rule.
    fn membership(&mut self, at: usize) {
        let alive = |it: &&super::Node| it.live.is_some() && !it.gone;
        let mut digests: Vec<_> =
            self.nodes.iter().filter(|it| !it.gone).map(|it| it.disk.members.digest()).collect();
        digests.dedup();
        let waiting = self
            .nodes
            .iter()
            .filter(alive)
            .any(|it| it.live.as_ref().is_some_and(|it| it.replica.is_changing()));
        let gone = self.nodes.iter().any(|it| it.gone && self.is_member_somewhere(it.origin()));
        if digests.len() > 1 || waiting || gone || self.nodes.len() >= 6 || !self.plan.mesh {
            return;
        }
        match self.dice.below(3) {
            0 => {
                let new = self.add_node(origin(self.nodes.len()), Members::default(), 0);
                self.start(new);
                self.join_through(new, at);
            }
            1 if self.writes(at) && self.nodes[at].disk.open.is_empty() => {
                if self.nodes.iter().filter(|it| it.disk.term != 0).count() > 2 {
                    self.nodes[at].left = true;
                    self.order(at, Order::Leave);
                }
            }
            _ => {
                let members = self.nodes.iter().filter(|it| it.disk.term != 0 && !it.gone).count();
                if members > 2
                    && self.nodes[at].disk.term != 0
                    && self.nodes[at].disk.open.is_empty()
                {
                    self.kill(at, true);
                    self.gone(at);
                }
            }
        }
    }

    pub(super) fn gone(&mut self, at: usize) {
        self.nodes[at].gone = true;
        for (a, b) in self.pairs() {
            self.after(0, Due::Connect { a, b });
        }
    }

    pub(super) fn is_member_somewhere(&self, origin: crate::sync::origin::Origin) -> bool {
        self.nodes.iter().any(|it| !it.gone && it.disk.members.is_member(origin))
    }

    /// Connects, and asks.
    pub(super) fn join_through(&mut self, new: usize, sponsor: usize) {
        for (a, b) in self.pairs() {
            self.after(0, Due::Connect { a, b });
        }
        self.connect(sponsor, new);
        self.run(100 * MS);
        self.join(new);
    }

    /// Asks the first that it is connected to.
    pub(super) fn join(&mut self, new: usize) {
        let conn = self.conns.iter().position(|it| {
            it.ends.iter().any(|it| it.0 == new) && it.open[0] && it.open[1] && !it.broken
        });
        if let Some(conn) = conn {
            let domains: Vec<DomainId> = all_domains();
            self.order(new, Order::Join { link: Link(conn as u64), domains });
        }
    }
}
