//! A node: its disk, and while it lives a core, a cache, and the rim between them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sync::domain::{Domain, DomainId};
use crate::sync::fact::{Clean, Members};
use crate::sync::message::{Hello, Marks, Message};
use crate::sync::origin::{ClusterId, Incarnation, Lane, Origin, TokenLog};
use crate::sync::replica::{
    Action, Config, Event, Kept, Link, Notice, Now, Previous, Replica, Rule, Start,
};
use crate::sync::sim::app::{App, NAMES, Said, all_mask, mask_of, number_of};
use crate::sync::sim::disk::{Chain, Disk, Entry};
use crate::sync::sim::net::Parcel;
use crate::sync::sim::{Due, EPOCH, LEASE, MS, Time, Todo, World, all_domains, origin};

#[derive(Debug)]
pub(super) struct Ship {
    pub(super) link: Link,
    pub(super) log: TokenLog,
    /// The last token that was sent, and the visible mark.
    pub(super) sent: u64,
    pub(super) visible: u64,
    /// Nothing more: what comes next is gone.
    pub(super) halted: bool,
}

/// What a process has in memory.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) replica: Replica,
    pub(super) app: App,
    pub(super) fresh: [Option<Duration>; 3],
    pub(super) fenced: bool,
    pub(super) ships: Vec<Ship>,
    pub(super) pump: bool,
    /// Own changes that are read once their token is durable.
    pub(super) changes: Vec<(u64, u8)>,
    /// Own intents whose commit is sent once they are durable.
    pub(super) intents: Vec<(u64, u64, u8)>,
    /// Some place was passed over in this batch of actions, and it was said.
    pub(super) told: bool,
    armed: Option<Duration>,
    /// The most that the core has remembered.
    pub(super) size: usize,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) disk: Disk,
    pub(super) live: Option<Live>,
    /// Changes with each start, so that what was meant for an earlier one is dropped.
    pub(super) life: u64,
    pub(super) clean: Clean,
    /// Since when nothing runs here, and whether its boot clock stands still too.
    pub(super) frozen: Option<(Time, bool)>,
    /// Of its boot clock, in millionths.
    pub(super) rate: i64,
    pub(super) lost: Time,
    pub(super) wall: i64,
    /// It does not come back.
    pub(super) gone: bool,
    /// It was told to leave.
    pub(super) left: bool,
    pub(super) domains: Vec<DomainId>,
    pub(super) schema: u64,
    pub(super) backup: Option<Box<Disk>>,
    /// The keys of its own state that it ever changed: what a restore takes back.
    pub(super) wrote: u16,
    /// Its disk was put back to what it was.
    pub(super) restored: bool,
}

impl Node {
    pub(super) fn boot(&self, now: Time) -> Duration {
        let ran = now - self.lost;
        let drift = i64::try_from(ran).unwrap() * self.rate / 1_000_000;
        Duration::from_micros(ran.saturating_add_signed(drift))
    }

    pub(super) fn now(&self, now: Time) -> Now {
        let wall = EPOCH + Duration::from_micros(now.saturating_add_signed(self.wall));
        Now { boot: self.boot(now), wall }
    }

    pub(super) fn origin(&self) -> Origin {
        self.disk.origin
    }
}

impl World {
    pub(super) fn is_life(&self, node: usize, life: u64) -> bool {
        let it = &self.nodes[node];
        it.life == life && it.live.is_some() && it.frozen.is_none()
    }

    pub(super) fn node_of(&self, origin: Origin) -> Option<usize> {
        self.nodes.iter().rposition(|it| it.origin() == origin)
    }

    /// A member since the foundation.
    pub(super) fn found(&mut self, at: usize, origins: &[Origin]) {
        let members = Members::founded(origins, &all_domains());
        self.add_node(origin(at), members, 1);
    }

    pub(super) fn add_node(&mut self, origin: Origin, members: Members, term: u64) -> usize {
        let rate = i64::try_from(self.dice.below(1_001)).unwrap() - 500;
        let wall = i64::try_from(self.dice.below(100_000)).unwrap();
        let disk = Disk {
            origin,
            counter: 0,
            own: None,
            previous: None,
            before: None,
            foreign: BTreeMap::new(),
            members,
            term,
            reborn: None,
            anew: false,
            open: Vec::new(),
            tier: BTreeMap::new(),
        };
        self.nodes.push(Node {
            disk,
            live: None,
            life: 0,
            clean: Clean::Not,
            frozen: None,
            rate,
            lost: 0,
            wall,
            gone: false,
            left: false,
            domains: all_domains(),
            schema: 1,
            backup: None,
            wrote: 0,
            restored: false,
        });
        self.nodes.len() - 1
    }

    fn config(&self, node: usize) -> Config {
        let schema = self.nodes[node].schema;
        let domain = |id: &DomainId| {
            let at = number_of(*id).unwrap();
            Domain { name: NAMES[at].to_owned(), schema, outside: at != 0 }
        };
        let domains = self.nodes[node].domains.iter();
        Config {
            cluster: ClusterId::from_u128(7),
            domains: domains.map(domain).collect(),
            lease: Duration::from_micros(LEASE),
            beat: Duration::from_micros(LEASE / self.plan.beats),
            skew_max: Duration::from_millis(500),
        }
    }

    // --- lives ---

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].live.is_some() || self.nodes[node].gone {
            return;
        }
        let nonce = self.dice.next();
        let (life, same) = (self.id(), !self.rule(Rule::Life));
        let rules = self.plan.rules;
        let it = &mut self.nodes[node];
        it.life = life;
        let clean = std::mem::replace(&mut it.clean, Clean::Not);
        let disk = &mut it.disk;
        let old = disk.own.take();
        disk.previous = old.as_ref().map(|old| Previous {
            incarnation: old[0].log.incarnation,
            heads: Marks { tokens: old[0].head(), values: old[1].head() },
            clean,
        });
        disk.counter += 1;
        let mut incarnation = Incarnation { counter: disk.counter, nonce };
        let same = same && !std::mem::take(&mut disk.anew);
        if let (Some(old), true) = (&old, same) {
            incarnation = old[0].log.incarnation;
        }
        let log = |lane| TokenLog { origin: disk.origin, incarnation, lane };
        let lanes = [Lane::Tokens, Lane::Values].map(|lane| Chain::new(log(lane), ZERO));
        disk.own = Some(if same { old.clone().unwrap_or(lanes) } else { lanes });
        disk.before = old;
        let start = Start {
            origin: disk.origin,
            incarnation,
            previous: disk.previous,
            kept: disk
                .foreign
                .iter()
                .map(|(origin, it)| Kept {
                    place: it.place(*origin),
                    visible: it.visible,
                    birth: it.birth.clone(),
                })
                .collect(),
            members: disk.members.clone(),
            term: disk.term,
            reborn: disk.reborn,
            random: nonce,
        };
        let open = std::mem::take(&mut disk.open);
        let mut app = App::new(rules, nonce);
        for (origin, foreign) in &disk.foreign {
            for (seq, said) in foreign.lanes[0].said(0) {
                app.apply(*origin, seq, said, seq > foreign.visible);
            }
        }
        let (config, now) = (self.config(node), self.nodes[node].now(self.now));
        let mut out = std::mem::take(&mut self.out);
        let replica = Replica::with_rules(config, start, now, rules, &mut out);
        self.note(|| format!("start {node} as {incarnation} {clean:?}"));
        self.nodes[node].live = Some(Live {
            replica,
            app,
            fresh: [None; 3],
            fenced: true,
            ships: Vec::new(),
            pump: false,
            changes: Vec::new(),
            intents: Vec::new(),
            told: false,
            armed: None,
            size: 0,
        });
        self.promote(node, clean);
        self.perform(node, &mut out, None);
        self.out = out;
        // What was open stays open, before anybody hears of this life.
        if self.rule(Rule::Intent) {
            for open in open {
                self.publish_intent(node, open.id, open.key, true);
            }
        }
        self.fsync(node);
        self.settle();
        self.after(20 * MS, Due::Fsync { node, life });
    }

    /// Entries of the tier that prove themselves are taken up (R14).
    fn promote(&mut self, node: usize, clean: Clean) {
        let stamps = self.rule(Rule::Stamp);
        // What a clear at the start would take, it takes before anything is read.
        let mut cleared = 0;
        if self.rule(Rule::Unclean) && self.nodes[node].disk.previous.is_some() {
            cleared = match clean {
                Clean::Whole => 0,
                Clean::Inside => all_mask() & !mask_of(super::app::domain(0)),
                Clean::Not => all_mask(),
            };
        }
        let it = &mut self.nodes[node];
        let (disk, Some(live)) = (&it.disk, &mut it.live) else { return };
        for (key, entry) in &disk.tier {
            if cleared >> key & 1 == 0 && (!stamps || stamped(disk, *key, entry)) {
                live.app.promote(*key, entry.version);
            }
        }
    }

    /// It is killed; or the machine loses its power, and with it what was not synced.
    pub(super) fn kill(&mut self, node: usize, power: bool) {
        let Some(live) = self.nodes[node].live.take() else { return };
        self.note(|| format!("kill {node}, power {power}"));
        let keep = self.dice.next();
        let inside = self.dice.one_in(2);
        let it = &mut self.nodes[node];
        it.frozen = None;
        let kept = |chain: &mut Chain| {
            if power {
                let room = chain.head().seq - chain.durable;
                chain.cut(chain.durable + keep % (room + 1));
            }
        };
        it.disk.own_mut().iter_mut().for_each(kept);
        for foreign in it.disk.foreign.values_mut() {
            foreign.lanes.iter_mut().for_each(kept);
            if power {
                foreign.visible = foreign.visible.min(foreign.lanes[0].head().seq);
            }
        }
        let own = it.disk.own()[0].head().seq;
        for open in &mut it.disk.open {
            open.closed = open.closed.filter(|seq| *seq <= own);
        }
        it.disk.open.retain(|it| (it.seq <= own || it.old) && it.closed.is_none());
        it.clean = if !power && inside { Clean::Inside } else { Clean::Not };
        it.disk.own_mut().iter_mut().for_each(|chain| chain.durable = chain.head().seq);
        // What was written and is found again may be read.
        for (seq, key) in live.changes {
            if seq <= own {
                self.truth.change(key, self.now);
            }
        }
        // Commits that were sent land, or not; those of lost intents never were sent.
        for id in self.nodes[node].disk.open.iter().map(|it| it.id).collect::<Vec<_>>() {
            if self.flying.contains(&id) && self.dice.one_in(2) {
                self.flying.remove(&id);
            }
            let delay = self.dice.below(LEASE);
            self.after(delay, Due::Resolve { node, id });
        }
        self.drop_conns(node);
    }

    /// It ends as it should. Its intents are done by then.
    pub(super) fn stop(&mut self, node: usize) {
        if self.nodes[node].live.is_none() || !self.nodes[node].disk.open.is_empty() {
            return;
        }
        self.fsync(node);
        self.settle();
        self.note(|| format!("stop {node}"));
        self.nodes[node].live = None;
        self.nodes[node].frozen = None;
        // Changes outside of which nobody was told yet: it would wait for them.
        let untold = self
            .due
            .iter()
            .any(|it| matches!(&it.0.2.0, Due::Tell { node: its, .. } if *its == node));
        self.nodes[node].clean = if untold { Clean::Inside } else { Clean::Whole };
        self.drop_conns(node);
    }

    pub(super) fn drop_conns(&mut self, node: usize) {
        for conn in 0..self.conns.len() {
            let it = &self.conns[conn];
            if it.ends.iter().any(|it| it.0 == node) && (it.open[0] || it.open[1]) {
                self.break_conn(conn);
            }
        }
    }

    pub(super) fn resume(&mut self, node: usize) {
        let Some((since, hidden)) = self.nodes[node].frozen.take() else { return };
        if hidden {
            self.nodes[node].lost += self.now - since;
        }
        self.note(|| format!("resume {node}"));
        self.tell(node, Todo::Tick);
        let life = self.nodes[node].life;
        self.after(MS, Due::Tick { node, life });
        self.after(20 * MS, Due::Fsync { node, life });
        self.redeliver();
    }

    pub(super) fn hello(&self, node: usize) -> Option<Hello> {
        let it = &self.nodes[node];
        let live = it.live.as_ref().filter(|it| !it.replica.is_over())?;
        Some(live.replica.hello(it.now(self.now)))
    }

    // --- steps ---

    pub(super) fn step(&mut self, node: usize, todo: Todo) {
        if self.nodes[node].frozen.is_some() {
            return;
        }
        self.steps += 1;
        let now = self.nodes[node].now(self.now);
        let mut out = std::mem::take(&mut self.out);
        let it = &mut self.nodes[node];
        let Some(live) = &mut it.live else {
            self.out = out;
            return;
        };
        let (mut parcel, disk) = (None, &it.disk);
        let hello;
        let message;
        let event = match todo {
            Todo::Published { ticket, seq } => Event::Published { ticket, seq },
            Todo::Shipped { link, log, seq } => Event::Shipped { link, log, seq },
            Todo::Behind { link, origin } => Event::Behind { link, origin },
            Todo::Order(order) => Event::Order(order),
            Todo::Up { link, hello: said } => {
                hello = said;
                Event::Up { link, hello: &hello }
            }
            Todo::Down { link } => {
                live.ships.retain(|it| it.link != link);
                Event::Down { link }
            }
            Todo::Stored { log, seq } => Event::Stored { log, seq },
            Todo::Tick => Event::Tick,
            Todo::Parcel { link, parcel: said } => {
                if let Parcel::Message(said) = *said {
                    message = said;
                    Event::Message { link, message: &message }
                } else {
                    let said = parcel.insert(said);
                    match said.tokens() {
                        Some(tokens) => Event::Tokens { link, tokens },
                        None => Event::Tick,
                    }
                }
            }
        };
        live.replica.step(now, disk, event, &mut out);
        live.size = live.size.max(live.replica.size());
        self.perform(node, &mut out, parcel.as_deref());
        self.out = out;
    }

    fn perform(&mut self, node: usize, out: &mut Vec<Action>, parcel: Option<&Parcel>) {
        let tokens = parcel.and_then(Parcel::tokens);
        for action in out.drain(..) {
            match action {
                Action::Send { link, message } => self.send(node, link, message),
                Action::Ship { link, log, after } => {
                    if let Some(live) = &mut self.nodes[node].live {
                        live.ships.push(Ship { link, log, sent: after, visible: 0, halted: false });
                        live.pump = true;
                    }
                }
                Action::Halt { link, log } => {
                    if let Some(live) = &mut self.nodes[node].live {
                        live.ships.retain(|it| it.link != link || it.log != log);
                    }
                }
                Action::Apply { log, first, last, before, bytes } => {
                    let Some(tokens) = &tokens else { continue };
                    self.take(node, log, (first, last, before), &tokens.bytes[bytes]);
                }
                Action::Visible { log, upto } => self.seen(node, log, upto),
                Action::Flush { domains, why, .. } => self.flush(node, &domains, why),
                Action::Adopt { to, visible, birth } => self.adopt(node, to, visible, birth),
                Action::Settle { origin } => {
                    if let Some(live) = &mut self.nodes[node].live {
                        live.app.settle(origin);
                    }
                }
                Action::Mark { at } => {
                    if let Some(foreign) = self.nodes[node].disk.foreign.get_mut(&at.origin) {
                        foreign.diverged = true;
                    }
                }
                Action::Close { link, .. } => self.close(node, link),
                Action::Fresh { domain, as_of } => {
                    if let Some(live) = &mut self.nodes[node].live
                        && let Some(at) = number_of(domain)
                    {
                        live.fresh[at] = as_of;
                    }
                }
                Action::Publish { ticket, lane, kind, domain, body } => {
                    let seq = self.append(node, (lane, kind), domain, &body);
                    self.tell(node, Todo::Published { ticket, seq });
                }
                Action::Fence(fence) => {
                    self.note(|| format!("{node} fence {fence:?}"));
                    if let Some(live) = &mut self.nodes[node].live {
                        live.fenced = fence.is_some();
                    }
                }
                Action::Persist { members, term } => {
                    self.nodes[node].disk.members = members;
                    self.nodes[node].disk.term = term;
                }
                Action::Retain { lane, upto } => self.check_retained(node, lane, upto),
                Action::Reborn { above } => self.begin_again(node, above),
                Action::Arm { at } => self.arm(node, at),
                Action::Report(notice) => self.report(node, &notice),
            }
        }
        if let Some(live) = &mut self.nodes[node].live {
            live.told = false;
        }
        self.pump(node);
    }

    fn send(&mut self, node: usize, link: Link, message: Message) {
        if let Some((conn, side)) = self.side(link, node) {
            self.note(|| format!("{node} -> {}: {message:?}", self.conns[conn].ends[1 - side].0));
            self.put(conn, 1 - side, Parcel::Message(message));
        }
    }

    fn close(&mut self, node: usize, link: Link) {
        if let Some((conn, side)) = self.side(link, node) {
            self.conns[conn].open[side] = false;
            if let Some(live) = &mut self.nodes[node].live {
                live.ships.retain(|it| it.link != link);
            }
            // What was sent arrives first.
            let delay = 50 * MS;
            self.after(delay, Due::Down { conn, side: 1 - side });
        }
    }

    /// A timer that waits by the node's own clock.
    pub(super) fn timer(&mut self, node: usize) {
        let armed = self.nodes[node].live.as_ref().and_then(|it| it.armed);
        match armed {
            Some(at) if at > self.nodes[node].boot(self.now) => self.arm(node, at),
            _ => self.tell(node, Todo::Tick),
        }
    }

    fn arm(&mut self, node: usize, at: Duration) {
        if let Some(live) = &mut self.nodes[node].live {
            live.armed = Some(at);
        }
        let it = &self.nodes[node];
        let delay = at.saturating_sub(it.boot(self.now));
        let micros = u64::try_from(delay.as_micros()).unwrap();
        // The clock may be slow: it is certainly that late then.
        let life = it.life;
        self.after(micros + micros / 1_000 + 1, Due::Tick { node, life });
    }

    fn begin_again(&mut self, node: usize, above: u64) {
        let wall = self.nodes[node].now(self.now).wall;
        self.kill(node, false);
        let it = &mut self.nodes[node];
        it.clean = Clean::Not;
        it.disk.counter = it.disk.counter.max(above);
        it.disk.reborn = Some(wall);
        it.disk.anew = true;
        self.after(MS, Due::Start { node });
    }

    fn report(&mut self, node: usize, notice: &Notice) {
        self.note(|| format!("{node} {notice:?}"));
        if let (Notice::Cleared { .. }, Some(live)) = (notice, &mut self.nodes[node].live) {
            live.told = true;
        }
    }
}

const ZERO: crate::sync::message::Mark = crate::sync::message::Mark::ZERO;

/// Does no token since its ticket speak against the entry, as far as the logs go back (R14)?
fn stamped(disk: &Disk, key: u8, entry: &Entry) -> bool {
    let known: Vec<_> = disk.foreign.keys().copied().chain([disk.origin]).collect();
    known.iter().all(|origin| {
        let Some(stamp) = entry.stamp.iter().find(|it| it.origin == *origin) else {
            return false;
        };
        let lanes = match disk.foreign.get(origin) {
            Some(foreign) if foreign.diverged => return false,
            Some(foreign) => &foreign.lanes,
            None => match &disk.before {
                Some(before) => before,
                None => return false,
            },
        };
        lanes.iter().all(|chain| {
            let mark = stamp.marks.of(chain.log.lane);
            let clears = |said: &Said| match said {
                Said::Nothing => 0,
                Said::Clears(mask) | Said::Intent(_, mask) | Said::Done(_, mask) => *mask,
            };
            chain.log.incarnation == stamp.incarnation
                && chain.hash_at(mark.seq) == Some(mark.hash)
                && chain.said(mark.seq + 1).all(|it| clears(it.1) >> key & 1 == 0)
        })
    })
}
