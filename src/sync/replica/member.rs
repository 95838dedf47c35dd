//! Who may write, and how that changes (R9).
//!
//! - A **join** is a record in its sponsor's log. Whoever has a lease for a domain has one for the
//!   sponsor, so within a lease's time of the record everybody has it or has no lease; that is how
//!   long the new member waits. A majority has it on its disk before that, so that it is still
//!   known if the sponsor is removed.
//! - A **leave** is the last record of who leaves. It counts where all before it is applied; where
//!   that cannot be had within a lease's time, a clear counts as well.
//! - A **removal** is a record in an operator's node's log. It clears, and carries what a majority
//!   knew: the removed node may have sponsored somebody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::sync::domain::DomainId;
use crate::sync::fact::{Member, Members, Standing};
use crate::sync::message::{Ack, Marks, Message, Refusal};
use crate::sync::origin::{Lane, Origin};
use crate::sync::replica::event::{Link, Order};
use crate::sync::replica::{Action, Fence, LANES, Notice, Replica, Rule, Step, Why, of, of_mut};
use crate::sync::token::TokenKind;

/// A change of membership that this node is in the middle of.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// It lets somebody in.
    Sponsor { link: Link, origin: Origin, member: Member, ticket: u64, seq: Option<u64> },
    /// It asks to be let in.
    Joining { link: Link, domains: Vec<DomainId>, again: Duration },
    /// It was let in, and may write from then on.
    Waiting { term: u64, members: Members, until: Duration },
    /// It publishes no more; its last record comes next.
    Leaving,
    /// Its last record is being written.
    Left { ticket: u64, standing: Standing },
    /// It asks a majority what it knows, to remove somebody.
    Asking { origin: Origin, ask: u64, heard: BTreeSet<Origin>, since: Duration },
    /// The record of a removal is being written.
    Removing { ticket: u64, members: Members },
}

impl Change {
    /// When it wants to be looked at.
    pub(super) fn due(&self) -> Option<Duration> {
        match self {
            Self::Joining { again, .. } => Some(*again),
            Self::Waiting { until, .. } => Some(*until),
            Self::Leaving => Some(Duration::ZERO),
            _ => None,
        }
    }
}

impl Replica {
    pub(super) fn order(&mut self, order: Order, step: &mut Step<'_>) {
        match order {
            Order::Join { link, domains } => {
                if self.term == 0 && self.changes.is_empty() {
                    let again = step.now.boot;
                    self.changes.push(Change::Joining { link, domains, again });
                }
            }
            Order::Leave => {
                if self.term != 0 {
                    self.set_fence(Some(Fence::NoMember), step);
                    self.changes.push(Change::Leaving);
                }
            }
            Order::Remove { origin } => self.begin_removal(origin, step),
        }
    }

    pub(super) fn go_on_with_changes(&mut self, step: &mut Step<'_>) {
        let now = step.now.boot;
        for at in (0..self.changes.len()).rev() {
            let Some(change) = self.changes.get(at).cloned() else { continue };
            match change {
                Change::Joining { link, domains, again } if again <= now => {
                    // The next time another member is asked: this one may be away, or of no use.
                    let link = if self.peers.contains_key(&link) { link } else { self.after(link) };
                    step.send(link, Message::Join { domains: domains.clone() });
                    let link = self.after(link);
                    let again = now + self.config.lease;
                    if let Some(place) = self.changes.get_mut(at) {
                        *place = Change::Joining { link, domains, again };
                    }
                }
                Change::Waiting { term, members, until } if until <= now => {
                    self.changes.swap_remove(at);
                    self.term = term;
                    self.learn(&members, step);
                    self.persist(step);
                    self.set_fence(None, step);
                }
                // A step later: what others of this process were about to publish is in.
                Change::Leaving => {
                    let place = self.own_place(step.logs);
                    let standing = crate::sync::fact::left(&place);
                    let body = self.one(self.me, standing).encode();
                    let kind = TokenKind::Leave;
                    let ticket = self.publish(kind, DomainId::NONE, body, step.out);
                    if let Some(place) = self.changes.get_mut(at) {
                        *place = Change::Left { ticket, standing };
                    }
                }
                Change::Asking { origin, since, .. }
                    if now.saturating_sub(since) > self.config.lease * 4 =>
                {
                    self.changes.swap_remove(at);
                    step.report(Notice::NoMajority { origin });
                }
                _ => {}
            }
        }
    }

    /// The next connection to a member.
    fn after(&self, link: Link) -> Link {
        let member = |it: &(&Link, &super::peer::Peer)| self.members.is_member(it.1.origin);
        let links = || self.peers.iter().filter(member).map(|it| *it.0);
        links().find(|it| *it > link).or_else(|| links().next()).unwrap_or(link)
    }

    /// What a record says of one member.
    fn one(&self, origin: Origin, standing: Standing) -> Members {
        let mut member = match self.members.0.get(&origin) {
            Some(known) => known.clone(),
            None => Member { term: 1, standing, domains: Vec::new() },
        };
        member.standing = standing;
        Members(BTreeMap::from([(origin, member)]))
    }

    pub(super) fn published(&mut self, ticket: u64, seq: u64, step: &mut Step<'_>) {
        for at in (0..self.changes.len()).rev() {
            match self.changes.get(at).cloned() {
                Some(Change::Sponsor { ticket: its, link, origin, member, .. })
                    if its == ticket =>
                {
                    let members = Members(BTreeMap::from([(origin, member.clone())]));
                    if let Some(place) = self.changes.get_mut(at) {
                        *place = Change::Sponsor { link, origin, member, ticket, seq: Some(seq) };
                    }
                    self.learn(&members, step);
                    self.welcome_joined(step);
                }
                Some(Change::Left { ticket: its, standing }) if its == ticket => {
                    let members = self.one(self.me, standing);
                    self.changes.swap_remove(at);
                    self.term = 0;
                    self.members.merge(&members);
                    self.persist(step);
                }
                Some(Change::Removing { ticket: its, members }) if its == ticket => {
                    self.changes.swap_remove(at);
                    self.learn(&members, step);
                }
                _ => {}
            }
        }
    }

    fn persist(&self, step: &mut Step<'_>) {
        step.out.push(Action::Persist { members: self.members.clone(), term: self.term });
    }

    // --- joins ---

    pub(super) fn sponsor(&mut self, link: Link, domains: &[DomainId], step: &mut Step<'_>) {
        let Some(origin) = self.peers.get(&link).map(|it| it.origin) else { return };
        let mine =
            |domain| self.members.0.get(&self.me).is_some_and(|it| it.domains.contains(domain));
        let nobodys = |domain| !self.members.members().any(|it| it.1.domains.contains(domain));
        let may = self.rules.on(Rule::Sponsor);
        let may = !may || domains.iter().all(|domain| mine(domain) || nobodys(domain));
        if self.fence.is_some() || !may {
            step.send(link, Message::Refused(Refusal::Sponsor));
            return;
        }
        for change in &mut self.changes {
            if let Change::Sponsor { link: old, origin: its, .. } = change
                && *its == origin
            {
                *old = link;
                self.welcome_joined(step);
                return;
            }
        }
        let known = self.members.0.get(&origin);
        let term = known.map_or(1, |it| match it.standing {
            Standing::Member => it.term,
            Standing::Left(..) | Standing::Removed => it.term.saturating_add(1),
        });
        let mut domains = domains.to_vec();
        domains.sort_unstable();
        domains.dedup();
        let member = Member { term, standing: Standing::Member, domains };
        let body = Members(BTreeMap::from([(origin, member.clone())])).encode();
        let kind = TokenKind::Join;
        let ticket = self.publish(kind, DomainId::NONE, body, step.out);
        self.changes.push(Change::Sponsor { link, origin, member, ticket, seq: None });
    }

    /// More than half of `of` without `but`.
    fn is_majority(&self, of: usize, known: usize) -> bool {
        !self.rules.on(Rule::JoinMajority) || known > of / 2
    }

    fn welcome_joined(&mut self, step: &mut Step<'_>) {
        for at in (0..self.changes.len()).rev() {
            let Some(Change::Sponsor { link, origin, member, seq: Some(seq), .. }) =
                self.changes.get(at).cloned()
            else {
                continue;
            };
            let others = self.members.members().map(|it| it.0).filter(|it| *it != origin);
            let has = |it: &Origin| {
                *it == self.me || self.acked.get(it).is_some_and(|it| of(*it, Lane::Values) >= seq)
            };
            let others: Vec<_> = others.collect();
            let known = others.iter().filter(|it| has(it)).count();
            if self.is_majority(others.len(), known) {
                self.changes.swap_remove(at);
                let members = self.members.clone();
                step.send(link, Message::Welcome { term: member.term, members });
            }
        }
    }

    pub(super) fn welcome(&mut self, term: u64, members: &Members, step: &mut Step<'_>) {
        let is_joining = |it: &Change| matches!(it, Change::Joining { .. });
        let Some(at) = self.changes.iter().position(is_joining) else { return };
        self.changes.swap_remove(at);
        let wait = if self.rules.on(Rule::JoinWait) {
            self.config.lease + self.config.lease / 100 + self.config.beat
        } else {
            Duration::ZERO
        };
        let until = step.now.boot + wait;
        self.changes.push(Change::Waiting { term, members: members.clone(), until });
        self.set_fence(Some(Fence::Joining), step);
    }

    // --- removals ---

    fn begin_removal(&mut self, origin: Origin, step: &mut Step<'_>) {
        if origin == self.me || self.fence.is_some() {
            step.report(Notice::NoMajority { origin });
            return;
        }
        self.tickets += 1;
        let ask = self.tickets;
        for link in self.peers.keys() {
            step.send(*link, Message::Who { ask });
        }
        let heard = BTreeSet::from([self.me]);
        self.changes.push(Change::Asking { origin, ask, heard, since: step.now.boot });
        self.remove_if_heard(step);
    }

    pub(super) fn knows(&mut self, link: Link, ask: u64, members: &Members, step: &mut Step<'_>) {
        let Some(peer) = self.peers.get(&link).map(|it| it.origin) else { return };
        for change in &mut self.changes {
            if let Change::Asking { ask: its, heard, .. } = change
                && *its == ask
            {
                heard.insert(peer);
                if self.rules.on(Rule::Union) {
                    self.learn(members, step);
                }
                self.remove_if_heard(step);
                return;
            }
        }
    }

    /// Once a majority was heard, with the one that is removed counted among those that could be.
    fn remove_if_heard(&mut self, step: &mut Step<'_>) {
        for at in (0..self.changes.len()).rev() {
            let Some(Change::Asking { origin, heard, .. }) = self.changes.get(at).cloned() else {
                continue;
            };
            let all: Vec<_> = self.members.members().map(|it| it.0).collect();
            let known = all.iter().filter(|it| heard.contains(it)).count();
            if !self.is_majority(all.len(), known) {
                continue;
            }
            let mut members = self.one(origin, Standing::Removed);
            if self.rules.on(Rule::Union) {
                let mut all = self.members.clone();
                all.merge(&members);
                members = all;
            }
            let kind = TokenKind::Leave;
            let body = members.encode();
            let ticket = self.publish(kind, DomainId::NONE, body, step.out);
            if let Some(place) = self.changes.get_mut(at) {
                *place = Change::Removing { ticket, members };
            }
        }
    }

    pub(super) fn was_removed(&mut self, step: &mut Step<'_>) {
        if self.term != 0 {
            self.term = 0;
            let members = self.one(self.me, Standing::Removed);
            self.members.merge(&members);
            self.persist(step);
        }
        self.set_fence(Some(Fence::Removed), step);
    }

    // --- what is known ---

    pub(super) fn is_removed(&self, origin: Origin) -> bool {
        self.members.0.get(&origin).is_some_and(|it| it.standing == Standing::Removed)
    }

    /// Takes in what somebody knows of who is a member.
    pub(super) fn learn(&mut self, members: &Members, step: &mut Step<'_>) {
        let before = self.members.clone();
        if !self.members.merge(members) {
            return;
        }
        let after = self.members.clone();
        self.persist(step);
        for (origin, member) in &after.0 {
            let was = before.0.get(origin);
            if was == Some(member) {
                continue;
            }
            let was_member = before.is_member(*origin);
            let is_member = member.standing == Standing::Member;
            if *origin == self.me {
                let lost = !is_member && member.term >= self.term && self.term != 0;
                if lost {
                    self.was_removed(step);
                }
                continue;
            }
            self.known.entry(*origin).or_default();
            match member.standing {
                Standing::Member => {
                    self.leaving.remove(origin);
                }
                Standing::Left(..) if was_member || was.is_none() => {
                    self.leaving.insert(*origin, step.now.boot);
                    self.visible_if_left(*origin, step);
                }
                Standing::Removed if was.is_none_or(|it| it.standing != Standing::Removed) => {
                    self.leaving.remove(origin);
                    if self.rules.on(Rule::Removed) {
                        self.clear_origin(*origin, Why::Removed, step);
                    }
                    step.out.push(Action::Settle { origin: *origin });
                    self.unask_all(*origin, step);
                }
                Standing::Left(..) | Standing::Removed => {}
            }
            if was_member != is_member {
                step.report(Notice::Membership { origin: *origin, member: is_member });
            }
        }
        self.leave_if_caught_up(step);
        self.refresh(step);
    }

    /// Those that left need no proof any more where all that they ever wrote is applied; or where
    /// it is cleared, which is done if it cannot be had.
    pub(super) fn leave_if_caught_up(&mut self, step: &mut Step<'_>) {
        let leaving: Vec<_> = self.leaving.iter().map(|it| (*it.0, *it.1)).collect();
        for (origin, since) in leaving {
            let Some(member) = self.members.0.get(&origin) else { continue };
            let Standing::Left(incarnation, marks) = member.standing else { continue };
            let there = self.place(origin).is_some_and(|it| {
                !it.diverged
                    && (it.incarnation > incarnation
                        || (it.incarnation == incarnation && it.marks.covers(&marks)))
            });
            let late = step.now.boot.saturating_sub(since) >= self.config.lease;
            let counts = there || !self.rules.on(Rule::Left);
            if !counts && late {
                self.clear_origin(origin, Why::Removed, step);
            }
            if counts || late {
                self.leaving.remove(&origin);
                step.out.push(Action::Settle { origin });
            }
        }
    }

    // --- what members have ---

    pub(super) fn ack(&mut self, link: Link, acks: &[Ack], step: &mut Step<'_>) {
        let Some(peer) = self.peers.get(&link).map(|it| it.origin) else { return };
        for ack in acks {
            if ack.log.origin == self.me && ack.log.incarnation == self.incarnation {
                let acked = self.acked.entry(peer).or_default();
                let place = of_mut(acked, ack.log.lane);
                let has = if self.rules.on(Rule::Retain) { ack.durable } else { ack.applied };
                *place = has.max(*place);
            }
        }
        self.retain(step);
        self.welcome_joined(step);
    }

    /// What every member has on its disk may go (R10).
    fn retain(&mut self, step: &mut Step<'_>) {
        for lane in LANES {
            let others = self.members.members().map(|it| it.0).filter(|it| *it != self.me);
            let has = |it| self.acked.get(&it).map_or(0, |it| of(*it, lane));
            let Some(upto) = others.map(has).min() else { continue };
            let upto = upto.min(step.logs.head(lane).seq);
            let place = of_mut(&mut self.retained, lane);
            if upto > *place {
                *place = upto;
                step.out.push(Action::Retain { lane, upto });
            }
        }
    }

    /// Where this node's own logs end, for its operator.
    pub fn heads(&self, logs: &dyn super::Logs) -> Marks {
        self.own_place(logs).marks
    }
}
