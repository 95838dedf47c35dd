//! What this node takes in of others: their tokens, gaps, new lives.

use std::collections::BTreeSet;

use crate::sync::fact::{Birth, Clean, Members, Standing};
use crate::sync::message::{Breach, Gap, Mark, Marks, Place, Tokens};
use crate::sync::origin::{Incarnation, Lane, Origin};
use crate::sync::replica::event::Link;
use crate::sync::replica::peer::Want;
use crate::sync::replica::{Action, Notice, Replica, Rule, Step, Which, Why};
use crate::sync::token::{Token, TokenKind, chain, split};
use crate::types::HybridTime;

/// What a batch has that is new, and where its last token stands.
struct Batch {
    /// Before the first new token.
    before: u64,
    /// Where the first new one begins.
    start: usize,
    last: Mark,
    birth: Option<Birth>,
    members: Vec<Members>,
}

/// Why a batch cannot be taken.
enum Bad {
    Breach(Breach),
    /// It is of another log with the same name.
    Differs,
}

/// In each lane the later of two places of one life: a relay may be behind in one of them.
fn ahead(from: Option<Place>, mut to: Place) -> Place {
    if let Some(from) = from.filter(|it| it.incarnation == to.incarnation && !it.diverged) {
        for lane in super::LANES {
            if from.marks.of(lane).seq > to.marks.of(lane).seq {
                to.marks.set(lane, from.marks.of(lane));
            }
        }
    }
    to
}

impl Replica {
    pub(super) fn from(&mut self, link: Link, ask: u64, at: &Place, step: &mut Step<'_>) {
        let Some(peer) = self.peers.get_mut(&link) else { return };
        let Some(known) = self.known.get(&at.origin) else { return };
        let asked = peer.wants.get(&at.origin).copied();
        let Some(Want::Asked(since, number)) = asked else { return };
        if number != ask || known.incarnation() != Some(at.incarnation) {
            return;
        }
        peer.wants.insert(at.origin, Want::Accepted(since));
        for lane in super::LANES {
            self.owe_ack(link, at.log(lane), 0, step);
        }
        self.route(at.origin, step);
    }

    /// What was agreed on this connection about the origin is over; it may be asked again.
    fn unaccept(&mut self, link: Link, origin: Origin) -> bool {
        self.peers.get_mut(&link).is_some_and(|it| it.wants.remove(&origin).is_some())
    }

    pub(super) fn gap(&mut self, link: Link, gap: &Gap, step: &mut Step<'_>) {
        let origin = gap.floor.origin;
        if origin == self.me || !self.unaccept(link, origin) {
            return;
        }
        let Some(known) = self.known.get_mut(&origin) else { return };
        let behind = known.place.is_some_and(|it| {
            it.incarnation > gap.floor.incarnation
                || (it.incarnation == gap.floor.incarnation
                    && !it.diverged
                    && it.marks.covers(&gap.head)
                    && it.marks != gap.floor.marks)
        });
        if behind {
            return;
        }
        let own = self.peers.get(&link).is_some_and(|it| it.origin == origin);
        // Somebody else may have what this relay has not, and then nothing is to be cleared.
        if own || known.place.is_none() || !self.rules.on(Rule::Offer) {
            self.take_gap(link, gap, step);
        } else {
            if known.offer.is_none() {
                known.offer = Some((gap.clone(), link, step.now.boot));
            }
            self.route(origin, step);
        }
    }

    /// Relays' gaps that nobody could better within the lease's time: not by having an answer, but
    /// by proving that there is nothing newer than what is here. (A relay that is behind itself
    /// answers too.)
    pub(super) fn take_offers(&mut self, step: &mut Step<'_>) {
        let now = step.now.boot;
        let mut due = Vec::new();
        for known in self.known.values_mut() {
            let Some((gap, link, since)) = &known.offer else { continue };
            if known.as_of.is_some_and(|it| it > *since) {
                known.offer = None;
            } else if now.saturating_sub(*since) >= self.config.lease {
                due.push((gap.clone(), *link));
                known.offer = None;
            }
        }
        for (gap, link) in due {
            self.take_gap(link, &gap, step);
        }
    }

    fn take_gap(&mut self, link: Link, gap: &Gap, step: &mut Step<'_>) {
        let origin = gap.floor.origin;
        let from = self.place(origin);
        let why = if from.is_none() { Why::Adopted } else { Why::Gap };
        // Both are tables of what may be cached: the old life's, and the new one's.
        let domains = match &gap.birth {
            Some(birth) => self.domains_of(origin, &[Some(birth)]),
            None => Which::Every,
        };
        if self.rules.on(Rule::Gap) {
            step.out.push(Action::Flush { domains, why, floor: gap.time });
        }
        let to = ahead(from, gap.floor);
        self.cleared(origin, why, (from, to), step);
        let known = self.known.get(&origin).filter(|it| it.incarnation() == Some(to.incarnation));
        let visible = known.map_or(0, |it| it.visible).max(gap.floor.marks.tokens.seq);
        self.adopt(to, visible, gap.birth.clone(), step);
        self.ask(link, origin, step);
    }

    fn cleared(
        &self,
        origin: Origin,
        why: Why,
        (from, to): (Option<Place>, Place),
        step: &mut Step<'_>,
    ) {
        if self.rules.on(Rule::Report) {
            step.report(Notice::Cleared { origin, why, from, to });
        }
    }

    /// Goes on from there, and tells those who got it from here, and all others.
    fn adopt(&mut self, to: Place, visible: u64, birth: Option<Birth>, step: &mut Step<'_>) {
        let Some(known) = self.known.get_mut(&to.origin) else { return };
        let is_news = known.incarnation() != Some(to.incarnation);
        step.out.push(Action::Adopt { to, visible, birth: birth.clone() });
        known.move_to(to, visible, birth);
        // Its origin may ship the same on a connection that stands still: what comes of it later
        // is not new, and would be acknowledged by nobody.
        for lane in super::LANES {
            self.owe_acks(to.log(lane), step);
        }
        self.serve_anew(to.origin, step);
        if is_news {
            self.announce(&to, step);
        }
    }

    pub(super) fn new_life(
        &mut self,
        link: Link,
        (origin, incarnation): (Origin, Incarnation),
        birth: &Birth,
        step: &mut Step<'_>,
    ) {
        if origin == self.me || !self.unaccept(link, origin) {
            return;
        }
        let from = self.place(origin);
        if from.is_some_and(|it| it.incarnation >= incarnation) {
            self.ask(link, origin, step);
            return;
        }
        let exact = from.filter(|it| {
            let end = (it.incarnation, it.marks);
            !it.diverged && birth.previous == Some(end) && birth.clean != Clean::Not
        });
        let outside = birth.domains.iter().filter(|it| it.outside).map(|it| it.domain);
        let domains = match (exact, birth.clean) {
            (Some(_), Clean::Whole) => Which::These(Vec::new()),
            (Some(_), _) => Which::These(outside.collect()),
            // Nobody can have missed anything of a node before its first life.
            (None, _) if from.is_none() && birth.previous.is_none() => Which::These(Vec::new()),
            (None, _) => self.domains_of(origin, &[Some(birth)]),
        };
        let to = Place { origin, incarnation, marks: Marks::ZERO, diverged: false };
        if let Some(place) = exact {
            // It ended with its log whole: what it had written may be read by now.
            let (log, upto) = (place.log(Lane::Tokens), place.marks.tokens.seq);
            step.out.push(Action::Visible { log, upto });
        }
        if domains != Which::These(Vec::new()) && self.rules.on(Rule::NewLife) {
            let floor = HybridTime::default();
            step.out.push(Action::Flush { domains, why: Why::NewLife, floor });
        }
        if exact.is_none() {
            self.cleared(origin, Why::NewLife, (from, to), step);
        }
        self.adopt(to, 0, Some(birth.clone()), step);
        self.ask(link, origin, step);
    }

    /// Two logs have this place's name: nobody has a lease for it before the origin's next life.
    pub(super) fn diverged(&mut self, at: &Place, step: &mut Step<'_>) {
        let Some(known) = self.known.get_mut(&at.origin) else { return };
        let Some(place) = &mut known.place else { return };
        if place.incarnation != at.incarnation || place.diverged {
            return;
        }
        place.diverged = true;
        let place = *place;
        known.forget_proof();
        for peer in self.peers.values_mut() {
            peer.wants.remove(&at.origin);
        }
        let domains = self.domains_of(at.origin, &[]);
        let floor = HybridTime::default();
        step.out.push(Action::Flush { domains, why: Why::Diverged, floor });
        step.out.push(Action::Mark { at: place });
        self.cleared(at.origin, Why::Diverged, (Some(place), place), step);
        self.serve_anew(at.origin, step);
        self.announce(&place, step);
        self.refresh(step);
    }

    pub(super) fn tokens(&mut self, link: Link, tokens: &Tokens<'_>, step: &mut Step<'_>) {
        let origin = tokens.log.origin;
        let Some(place) = self.place(origin) else { return };
        let accepted = self.peers.get(&link).is_some_and(|it| it.is_accepted(origin));
        // Of who was removed everything is cleared; what it wrote may never become visible.
        let removed = self.is_removed(origin);
        if !accepted || removed || place.incarnation != tokens.log.incarnation || place.diverged {
            return;
        }
        match self.check(&place, tokens, step) {
            Ok(Some(batch)) => self.take(link, tokens, batch, step),
            Ok(None) => self.raise_visible(&place, tokens, step),
            Err(Bad::Breach(breach)) => self.breach(link, breach, step),
            Err(Bad::Differs) => self.diverged(&Place { diverged: true, ..place }, step),
        }
    }

    /// Every token is whole, in order, and behind what was received (R1).
    fn check(
        &self,
        place: &Place,
        tokens: &Tokens<'_>,
        step: &Step<'_>,
    ) -> Result<Option<Batch>, Bad> {
        let log = &tokens.log;
        let had = place.marks.of(log.lane);
        let hashed = self.rules.on(Rule::Hash);
        if tokens.first > had.seq.saturating_add(1) && self.rules.on(Rule::Dense) {
            return Err(Bad::Breach(Breach::Hole));
        }
        if tokens.first == had.seq + 1 && tokens.before != had.hash && hashed {
            return Err(Bad::Differs);
        }
        let mut at = Mark { seq: tokens.first.wrapping_sub(1), hash: tokens.before };
        let (mut rest, mut birth, mut members) = (tokens.bytes, None, Vec::new());
        let (mut start, mut before) = (0, tokens.before);
        while !rest.is_empty() {
            let damaged = |_rejected| Bad::Breach(Breach::Damaged);
            let (record, after) = split(rest).map_err(damaged)?;
            let (token, _) = Token::decode(record, log).map_err(damaged)?;
            if token.seq != at.seq.wrapping_add(1) {
                return Err(Bad::Breach(Breach::Hole));
            }
            at = Mark { seq: token.seq, hash: chain(at.hash, record) };
            if token.seq == had.seq && hashed && at.hash != had.hash {
                return Err(Bad::Differs);
            }
            if token.seq <= had.seq {
                (start, before) = (start + record.len(), at.hash);
            } else {
                match token.kind {
                    TokenKind::Birth => birth = Birth::decode(token.body),
                    TokenKind::Join | TokenKind::Leave => {
                        members.extend(Members::decode(token.body));
                    }
                    _ => {}
                }
            }
            rest = after;
        }
        if at.seq > had.seq {
            return Ok(Some(Batch { before, start, last: at, birth, members }));
        }
        let known = step.logs.hash_at(log, at.seq);
        let differs = hashed && known.is_some_and(|known| known != at.hash);
        if differs { Err(Bad::Differs) } else { Ok(None) }
    }

    fn take(&mut self, link: Link, tokens: &Tokens<'_>, batch: Batch, step: &mut Step<'_>) {
        let log = tokens.log;
        let Some(known) = self.known.get_mut(&log.origin) else { return };
        let Some(mut place) = known.place else { return };
        let had = place.marks.of(log.lane).seq.max(tokens.first.saturating_sub(1));
        // First, so that what is visible already is applied as such.
        self.raise_visible(&place, tokens, step);
        step.out.push(Action::Apply {
            log,
            first: had + 1,
            last: batch.last.seq,
            before: batch.before,
            bytes: batch.start..tokens.bytes.len(),
        });
        place.marks.set(log.lane, batch.last);
        let Some(known) = self.known.get_mut(&log.origin) else { return };
        known.place = Some(place);
        if let Some(birth) = batch.birth {
            known.birth = Some(birth);
        }
        known.settle(self.rules.on(Rule::Applied));
        for members in &batch.members {
            self.learn(members, step);
        }
        self.owe_ack(link, log, batch.last.seq - had, step);
        if self.leaving.contains_key(&log.origin) {
            self.leave_if_caught_up(step);
        }
        self.refresh_origin(log.origin, step);
    }

    fn raise_visible(&mut self, place: &Place, tokens: &Tokens<'_>, step: &mut Step<'_>) {
        if tokens.log.lane == Lane::Tokens {
            self.visible_at_least(place, tokens.visible, step);
            self.visible_if_left(place.origin, step);
        }
    }

    /// The record of a leave is durable, and so is all before it.
    pub(super) fn visible_if_left(&mut self, origin: Origin, step: &mut Step<'_>) {
        let standing = self.members.0.get(&origin).map(|it| it.standing);
        let Some(Standing::Left(incarnation, marks)) = standing else { return };
        let place = self.place(origin).filter(|it| it.incarnation == incarnation);
        if let Some(place) = place {
            self.visible_at_least(&place, marks.tokens.seq, step);
        }
    }

    pub(super) fn visible_at_least(&mut self, place: &Place, visible: u64, step: &mut Step<'_>) {
        let Some(known) = self.known.get_mut(&place.origin) else { return };
        if visible > known.visible && known.incarnation() == Some(place.incarnation) {
            known.visible = visible;
            step.out.push(Action::Visible { log: place.log(Lane::Tokens), upto: visible });
        }
    }

    /// Clears what an origin may have written, whoever wrote it too.
    pub(super) fn clear_origin(&self, origin: Origin, why: Why, step: &mut Step<'_>) {
        let domains = self.domains_of(origin, &[]);
        let nothing = match &domains {
            Which::Every => false,
            Which::These(these) => these.iter().collect::<BTreeSet<_>>().is_empty(),
        };
        if !nothing {
            step.out.push(Action::Flush { domains, why, floor: HybridTime::default() });
        }
    }
}
