//! What must hold: at every step, where something is adopted or dropped, and when all is quiet.

use std::time::Duration;

use crate::sync::fact::{Birth, Clean};
use crate::sync::message::Place;
use crate::sync::origin::{Lane, TokenLog};
use crate::sync::replica::Fence;
use crate::sync::sim::app::{KEYS, domain, domain_of_key};
use crate::sync::sim::disk::lane;
use crate::sync::sim::{LEASE, MS, World};

impl World {
    /// A fresh hit is at least what was true a lease ago, of what is written through the log or
    /// under an intent.
    pub(super) fn check_reads(&mut self) {
        if self.copied || self.wrong.is_some() || self.nodes.len() > 8 {
            return;
        }
        // The lease is the reader's, whose clock may be slow; and some time may be hidden.
        let bound = self.bound + self.slack;
        let then = self.now.saturating_sub(bound);
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            let Some(live) = &node.live else { continue };
            if node.frozen.is_some() {
                continue;
            }
            let now = node.boot(self.now);
            for key in 0..6 {
                let Some(version) = live.app.entries[usize::from(key)] else { continue };
                let least = self.truth.at(key, then);
                if version >= least {
                    continue;
                }
                let fresh = live.fresh[domain_of_key(key)]
                    .is_some_and(|as_of| now.saturating_sub(as_of) <= Duration::from_micros(LEASE));
                if fresh {
                    self.fail(|| {
                        format!(
                            "node {at} calls key {key} fresh at {version}, {least} was a lease ago"
                        )
                    });
                    return;
                }
            }
        }
    }

    /// There are never two records with one number of one log.
    pub(super) fn record(&mut self, log: TokenLog, seq: u64, hash: u64) {
        let known = *self.records.entry((log, seq)).or_insert(hash);
        if known != hash && !self.copied {
            self.fail(|| format!("two records are {log} {seq}"));
        }
    }

    /// Places only move on, and whatever is passed over is told.
    pub(super) fn check_adopted(&mut self, node: usize, to: &Place, birth: Option<&Birth>) {
        let Some(foreign) = self.nodes[node].disk.foreign.get(&to.origin) else { return };
        let from = foreign.place(to.origin);
        let on = from.incarnation < to.incarnation || to.marks.covers(&from.marks);
        if !on && !from.diverged {
            self.fail(|| format!("node {node} goes back from {from:?} to {to:?}"));
        }
        let exact = birth.is_some_and(|it| {
            it.previous == Some((from.incarnation, from.marks)) && it.clean != Clean::Not
        });
        if !exact && !self.was_told(node) {
            self.fail(|| format!("node {node} passes over tokens of {} in silence", to.origin));
        }
    }

    /// What may go is on the disks of all members.
    pub(super) fn check_retained(&mut self, node: usize, which: Lane, upto: u64) {
        let (origin, life) = {
            let disk = &self.nodes[node].disk;
            (disk.origin, disk.own()[0].log.incarnation)
        };
        let members: Vec<_> = self.nodes[node].disk.members.members().map(|it| it.0).collect();
        for member in members {
            let Some(other) = self.node_of(member).filter(|it| *it != node) else { continue };
            let other = &self.nodes[other];
            if other.restored || self.copied {
                continue;
            }
            let has = other.disk.foreign.get(&origin).is_some_and(|it| {
                it.incarnation > life
                    || (it.incarnation == life && it.lanes[lane(which)].durable >= upto)
            });
            if !has {
                self.fail(|| format!("node {node} lets {upto} go, which {member} has not stored"));
            }
        }
        if self.dice.one_in(2) {
            self.drop_own(node, which, upto);
        }
    }

    /// All faults are over: everybody comes to know everything, and nothing old is left.
    pub(super) fn check_quiet(&mut self) {
        self.heal();
        for at in 0..self.nodes.len() {
            if self.nodes[at].frozen.is_some() {
                self.resume(at);
            }
        }
        self.settle();
        for round in 0..24 {
            for at in 0..self.nodes.len() {
                self.start(at);
            }
            self.remove_the_gone(round);
            self.let_in();
            self.run(LEASE);
            if self.wrong.is_some() || (round > 5 && self.is_quiet()) {
                break;
            }
        }
        self.note(|| "quiet".to_owned());
        self.run(2 * LEASE);
        if self.wrong.is_some() {
            return;
        }
        let present: Vec<_> = (0..self.nodes.len()).filter(|at| !self.nodes[*at].gone).collect();
        for at in &present {
            self.check_node(*at, &present);
        }
    }

    /// No intent is open, nothing is under way.
    fn is_quiet(&self) -> bool {
        let gone = |it: &super::Node| it.gone && self.is_member_somewhere(it.origin());
        self.nodes.iter().all(|it| {
            !gone(it) && (it.gone || (it.disk.open.is_empty() && (it.left || it.disk.term != 0)))
        })
    }

    fn check_node(&mut self, at: usize, present: &[usize]) {
        let Some(live) = &self.nodes[at].live else {
            self.fail(|| format!("node {at} does not live"));
            return;
        };
        // Nobody has a lease while a writer is out until an operator has looked at it.
        let helpless = (0..self.nodes.len()).any(|at| self.needs_operator(at));
        let stale = (0..KEYS).find(|key| {
            let entry = live.app.entries[usize::from(*key)];
            entry.is_some_and(|it| it != self.truth.current(*key))
        });
        let blocked = (0..KEYS).find(|key| live.app.blocked(*key));
        let fresh = |at: usize| {
            let now = self.nodes[at].boot(self.now);
            live.fresh.iter().all(|it| {
                it.is_some_and(|it| now.saturating_sub(it) <= Duration::from_micros(LEASE))
            })
        };
        let is_fresh = fresh(at);
        // A life that is fenced may be below one that is known, and is not followed then.
        let behind = present.iter().filter(|other| !self.needs_operator(**other)).find(|other| {
            let other = &self.nodes[**other];
            other.origin() != self.nodes[at].origin()
                && live.replica.place(other.origin()) != Some(other.disk.own_place())
        });
        let behind = behind.copied();
        let bound = (self.nodes.len() + 2) * 12 * (self.conns_of(at) + 4);
        let size = live.size;
        let fenced = live.fenced;
        let member = live.replica.members().is_member(self.nodes[at].origin());
        let entry = |key: u8| live.app.entries[usize::from(key)];
        let said = if let Some(key) = stale {
            let (has, is) = (entry(key), self.truth.current(key));
            Some(format!("node {at} is stale at key {key} for ever: {has:?}, not {is}"))
        } else if let Some(key) = blocked {
            Some(format!("node {at} never admits key {key} again"))
        } else if let Some(other) = behind {
            let place = live.replica.place(self.nodes[other].origin());
            let own = self.nodes[other].disk.own_place();
            Some(format!("node {at} never caught up with {other}: {place:?}, not {own:?}"))
        } else if !is_fresh && !helpless {
            Some(format!("node {at} never gets its lease again: {:?}", live.fresh))
        } else if size > bound {
            Some(format!("node {at} remembers {size} things, more than {bound}"))
        } else if fenced && member && !self.needs_operator(at) {
            Some(format!("node {at} is a member and may never write again"))
        } else {
            None
        };
        if let Some(said) = said {
            self.fail(|| said);
        }
    }

    /// It was rolled back or copied, and that again.
    fn needs_operator(&self, at: usize) -> bool {
        let fence = self.nodes[at].live.as_ref().and_then(|it| it.replica.fence());
        matches!(fence, Some(Fence::Copied | Fence::Later(_)))
    }

    fn conns_of(&self, at: usize) -> usize {
        let life = self.nodes[at].life;
        self.conns.iter().filter(|it| it.ends.contains(&(at, life))).count()
    }

    /// Whoever is gone for good was removed, or its domains would never be fresh again.
    fn remove_the_gone(&mut self, round: usize) {
        for gone in 0..self.nodes.len() {
            if !self.nodes[gone].gone {
                continue;
            }
            let origin = self.nodes[gone].origin();
            let can: Vec<_> = (0..self.nodes.len())
                .filter(|at| {
                    self.nodes[*at].live.as_ref().is_some_and(|it| {
                        !it.fenced
                            && it.replica.members().is_member(origin)
                            && self.nodes[*at].origin() != origin
                    })
                })
                .collect();
            let by = can.get(round % can.len().max(1)).copied();
            if let Some(by) = by {
                self.order(by, crate::sync::replica::Order::Remove { origin });
                self.run(200 * MS);
            }
        }
    }
}

impl World {
    /// Who was on its way in, and crashed, asks again.
    fn let_in(&mut self) {
        for at in 0..self.nodes.len() {
            let it = &self.nodes[at];
            let out = it.live.as_ref().is_some_and(|it| !it.replica.is_changing());
            if out && !it.left && !it.gone && it.disk.term == 0 {
                self.join(at);
            }
        }
    }
}

/// For those who ask by name.
pub(super) fn every_domain_is_fresh(world: &World, at: usize) -> bool {
    let node = &world.nodes[at];
    let now = node.boot(world.now);
    node.live.as_ref().is_some_and(|live| {
        (0..3).all(|it| {
            live.replica
                .fresh(domain(it))
                .is_some_and(|as_of| now.saturating_sub(as_of) <= Duration::from_micros(LEASE))
        })
    })
}
