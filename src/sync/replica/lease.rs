//! What is proved, and since when (R8).
//!
//! A proof is a duration on the clock of whoever uses it: "when you sent ping n, or later, my logs
//! ended here". A relay adds how long ago that was for it. No two clocks are ever compared, so
//! only their rates matter, and ages are rounded up for those.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::sync::domain::DomainId;
use crate::sync::message::{Beat, But, Marks, Message};
use crate::sync::origin::Origin;
use crate::sync::replica::event::Link;
use crate::sync::replica::known::Proof;
use crate::sync::replica::{Action, Replica, Rule, Step, of};

impl Replica {
    pub(super) fn send_pings(&mut self, step: &mut Step<'_>) {
        for (link, peer) in &mut self.peers {
            let n = peer.next_ping(step.now.boot);
            step.send(*link, Message::Ping { n });
        }
    }

    pub(super) fn ping(&mut self, link: Link, n: u64, step: &mut Step<'_>) {
        let mut beat = Beat {
            echo: n,
            incarnation: self.incarnation,
            head: self.own_place(step.logs).marks,
            visible: step.logs.visible(),
            age: None,
            but: Vec::new(),
            marks: Vec::new(),
            members: self.members.digest(),
        };
        let Some(peer) = self.peers.get_mut(&link) else { return };
        let mut ages = Vec::new();
        for (origin, serve) in &mut peer.serves {
            if *origin == self.me {
                continue;
            }
            let Some(known) = self.known.get(origin) else { continue };
            let Some(place) = known.place else { continue };
            let sent = place.incarnation == serve.incarnation
                && place.marks.tokens.seq <= of(serve.shipped, crate::sync::origin::Lane::Tokens)
                && place.marks.values.seq <= of(serve.shipped, crate::sync::origin::Lane::Values);
            let as_of = known.as_of.filter(|_| sent && !place.diverged);
            ages.push((*origin, as_of.map(|it| step.now.boot.saturating_sub(it))));
            if place.incarnation == serve.incarnation && known.visible > serve.visible {
                serve.visible = known.visible;
                beat.marks.push((*origin, place.incarnation, known.visible));
            }
        }
        // One number for all that are about as old; the others are named.
        let stated = |age: Duration| self.stated(age);
        let common = |age: &Duration| *age <= self.config.lease / 2;
        beat.age = ages.iter().filter_map(|it| it.1).filter(common).max().map(stated);
        for (origin, age) in ages {
            if !age.is_some_and(|it| common(&it)) {
                let age = age.filter(|it| *it <= self.config.lease).map(stated);
                beat.but.push(But { origin, age });
            }
        }
        step.send(link, Message::Beat(beat));
    }

    /// An age as it is told to somebody whose clock may run a little faster.
    fn stated(&self, age: Duration) -> Duration {
        if !self.rules.on(Rule::Age) {
            return Duration::ZERO;
        }
        if !self.rules.on(Rule::Drift) {
            return age;
        }
        age + age / 1_000 + Duration::from_nanos(1)
    }

    pub(super) fn beat(&mut self, link: Link, beat: &Beat, step: &mut Step<'_>) {
        let Some(peer) = self.peers.get(&link) else { return };
        let origin = peer.origin;
        let pinged = peer.pinged(beat.echo);
        // What answers no ping of ours proves nothing: it may have been on its way for long.
        let as_of = if self.rules.on(Rule::Echo) { pinged } else { Some(step.now.boot) };
        let strict = self.rules.on(Rule::Members);
        let same_members = beat.members == self.members.digest() || !strict;
        if !same_members {
            step.send(link, Message::Members(self.members.clone()));
        }
        let relayed: Vec<_> = peer
            .wants
            .keys()
            .copied()
            .filter(|it| *it != origin && peer.is_accepted(*it))
            .collect();
        let but: BTreeSet<_> = beat.but.iter().map(|it| it.origin).collect();
        let marks = [(origin, beat.incarnation, beat.visible)];
        for (origin, incarnation, visible) in marks.iter().chain(&beat.marks) {
            let place = self.place(*origin).filter(|it| it.incarnation == *incarnation);
            if let Some(place) = place {
                self.visible_at_least(&place, *visible, step);
            }
        }
        // A peer that knows of a writer that is not known here cannot say that nothing is missing.
        let Some(as_of) = as_of.filter(|_| same_members) else { return };
        self.prove(origin, beat, as_of);
        for relayed in relayed {
            if let Some(age) = beat.age.filter(|_| !but.contains(&relayed)) {
                self.prove_aged(relayed, as_of, age);
            }
        }
        for But { origin, age } in &beat.but {
            let wanted = self.peers.get(&link).is_some_and(|it| it.is_accepted(*origin));
            if let Some(age) = age.filter(|_| wanted) {
                self.prove_aged(*origin, as_of, age);
            }
        }
        self.refresh(step);
    }

    fn prove(&mut self, origin: Origin, beat: &Beat, as_of: Duration) {
        let needs_applied = self.rules.on(Rule::Applied);
        let (incarnation, head): (_, Marks) = (beat.incarnation, beat.head);
        if let Some(known) = self.known.get_mut(&origin) {
            known.prove(Proof { incarnation, head, as_of }, needs_applied);
        }
    }

    fn prove_aged(&mut self, origin: Origin, as_of: Duration, age: Duration) {
        if let (Some(known), Some(as_of)) = (self.known.get_mut(&origin), as_of.checked_sub(age)) {
            known.as_of_at_least(as_of);
        }
    }

    // --- what it means for a domain ---

    /// Those whose proof a domain's lease needs, away or not. A domain that nobody writes needs
    /// all members: any of them may be the one that lets its first writer in.
    fn writers(&self, domain: DomainId) -> Vec<Origin> {
        let counts = |origin: &Origin| {
            *origin != self.me
                && (self.rules.on(Rule::Writers)
                    || self.peers.values().any(|peer| peer.origin == *origin))
        };
        let leaving = self.leaving.keys().filter_map(|it| Some((*it, self.members.0.get(it)?)));
        let all: Vec<_> = self.members.members().chain(leaving).collect();
        let mine = all.iter().any(|it| it.0 == self.me && it.1.domains.contains(&domain));
        let writers: Vec<_> = all
            .iter()
            .filter(|it| it.1.domains.contains(&domain))
            .map(|it| it.0)
            .filter(counts)
            .collect();
        if writers.is_empty() && !mine && self.rules.on(Rule::Sponsor) {
            return all.iter().map(|it| it.0).filter(counts).collect();
        }
        writers
    }

    /// As of when everything of the domain is known here; `None` if something is not proved.
    pub fn fresh(&self, domain: DomainId) -> Option<Duration> {
        if self.members.0.is_empty() {
            return None;
        }
        let mut all = Duration::MAX;
        for origin in self.writers(domain) {
            all = all.min(self.known.get(&origin)?.as_of?);
        }
        Some(all)
    }

    pub(super) fn refresh(&mut self, step: &mut Step<'_>) {
        let domains: Vec<_> = self.fresh.keys().copied().collect();
        for domain in domains {
            let as_of = self.fresh(domain);
            if let Some(told) = self.fresh.get_mut(&domain)
                && *told != as_of
            {
                *told = as_of;
                step.out.push(Action::Fresh { domain, as_of });
            }
        }
    }

    /// After tokens of this origin came: only where they were what a proof waited for.
    pub(super) fn refresh_origin(&mut self, origin: Origin, step: &mut Step<'_>) {
        let as_of = self.as_of(origin);
        let newer = |told: &Option<Duration>| told.is_none() || as_of > *told;
        if as_of.is_some() && self.fresh.values().any(newer) {
            self.refresh(step);
        }
    }
}
