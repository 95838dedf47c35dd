//! What this node answers when it is asked for an origin: its own tokens, or others' as a relay.

use crate::sync::fact::{Birth, Clean};
use crate::sync::message::{Gap, Mark, Marks, Message, Place};
use crate::sync::origin::{Lane, Origin, TokenLog};
use crate::sync::replica::event::{Link, Logs};
use crate::sync::replica::peer::Serve;
use crate::sync::replica::{Action, LANES, Replica, Rule, Step, of_mut};

/// A new life is shipped from its birth on to those who must clear anyway if it is this short.
const SHORT: u64 = 1_024;

/// What can be served of an origin.
struct Source {
    place: Place,
    birth: Option<Birth>,
    visible: u64,
}

impl Source {
    /// Behind what each lane can be had; `None` if one of them is not kept.
    fn floor(&self, logs: &dyn Logs) -> Option<Marks> {
        let mut floor = Marks::ZERO;
        for lane in LANES {
            floor.set(lane, logs.floor(&self.place.log(lane))?);
        }
        Some(floor)
    }

    /// Where somebody who clears may begin: as late as may be, but not above what is visible, and
    /// before every open intent. The change of a token that is skipped must be readable by then,
    /// or what is filled after the clear is what was there before it (R2).
    fn entry(&self, strict: bool, logs: &dyn Logs) -> Marks {
        let mut entry = self.place.marks;
        let log = self.place.log(Lane::Tokens);
        let mut seq = entry.tokens.seq;
        if strict {
            seq = seq.min(self.visible);
            if let Some(open) = logs.oldest_intent(&log) {
                seq = seq.min(open.saturating_sub(1));
            }
        }
        let floor = logs.floor(&log).unwrap_or(entry.tokens);
        if let Some(hash) = logs.hash_at(&log, seq) {
            entry.tokens = Mark { seq, hash };
        } else if seq < entry.tokens.seq {
            entry.tokens = floor;
        }
        entry
    }
}

impl Replica {
    fn source(&self, origin: Origin, logs: &dyn Logs) -> Option<Source> {
        if origin == self.me {
            let (place, birth) = (self.own_place(logs), Some(self.birth.clone()));
            return Some(Source { place, birth, visible: logs.visible() });
        }
        let known = self.known.get(&origin)?;
        let (place, visible) = (known.place?, known.visible);
        Some(Source { place, birth: known.birth.clone(), visible })
    }

    pub(super) fn want(
        &mut self,
        link: Link,
        (origin, ask): (Origin, u64),
        at: Option<&Place>,
        step: &mut Step<'_>,
    ) {
        self.unserve(link, origin, step);
        let Some(source) = self.source(origin, step.logs) else { return };
        let Some(at) = at else {
            self.answer_new(link, &source, None, step);
            return;
        };
        if at.incarnation > source.place.incarnation {
            // A relay is behind, and will be asked again; the origin itself cannot be.
            if origin == self.me {
                self.rolled_back(at, step);
            }
            return;
        }
        if at.incarnation < source.place.incarnation {
            self.answer_new(link, &source, Some(at), step);
            return;
        }
        if source.place.diverged || self.differs(at, step.logs) {
            step.send(link, Message::Diverged { at: *at });
            if origin == self.me {
                self.rolled_back(at, step);
            } else if !source.place.diverged {
                self.diverged(&Place { diverged: true, ..source.place }, step);
            }
            return;
        }
        let floor = source.floor(step.logs);
        if floor.is_none_or(|floor| !at.marks.covers(&floor)) {
            self.answer_gap(link, &source, step);
            return;
        }
        let shipped = LANES.map(|lane| at.marks.of(lane).seq);
        let incarnation = at.incarnation;
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.serves.insert(origin, Serve { incarnation, shipped, visible: 0 });
        }
        step.send(link, Message::From { ask, at: *at });
        for lane in LANES {
            step.out.push(Action::Ship { link, log: at.log(lane), after: at.marks.of(lane).seq });
        }
    }

    /// Is that place beside this node's log, or ahead of the origin itself?
    fn differs(&self, at: &Place, logs: &dyn Logs) -> bool {
        if !self.rules.on(Rule::Hash) {
            return false;
        }
        LANES.iter().any(|lane| {
            let (log, mark) = (at.log(*lane), at.marks.of(*lane));
            (at.origin == self.me && mark.seq > logs.head(*lane).seq)
                || logs.hash_at(&log, mark.seq).is_some_and(|hash| hash != mark.hash)
        })
    }

    /// To somebody who has nothing of this life: it is told of it where it can go on without a
    /// clear, or where all of it is soon told. Else it clears, and begins near the end.
    fn answer_new(&self, link: Link, source: &Source, at: Option<&Place>, step: &mut Step<'_>) {
        let whole = source.floor(step.logs) == Some(Marks::ZERO);
        let exact = |birth: &Birth| {
            birth.clean != Clean::Not
                && at.is_some_and(|it| birth.previous == Some((it.incarnation, it.marks)))
        };
        let marks = source.place.marks;
        let short = marks.tokens.seq.saturating_add(marks.values.seq) <= SHORT;
        match &source.birth {
            Some(birth) if whole && (short || exact(birth)) => {
                self.send_members(link, step);
                let Place { origin, incarnation, .. } = source.place;
                step.send(link, Message::NewInc { origin, incarnation, birth: birth.clone() });
            }
            _ => self.answer_gap(link, source, step),
        }
    }

    /// What is skipped may hold joins and leaves: what they add up to goes before it.
    fn send_members(&self, link: Link, step: &mut Step<'_>) {
        if self.rules.on(Rule::Members) {
            step.send(link, Message::Members(self.members.clone()));
        }
    }

    fn answer_gap(&self, link: Link, source: &Source, step: &mut Step<'_>) {
        let strict = self.rules.on(Rule::Floor);
        let marks = source.entry(strict, step.logs);
        let floor = Place { marks, diverged: false, ..source.place };
        let time = LANES
            .iter()
            .map(|lane| step.logs.time_at(&floor.log(*lane), marks.of(*lane).seq))
            .max()
            .unwrap_or_default();
        self.send_members(link, step);
        let (head, birth) = (source.place.marks, source.birth.clone());
        step.send(link, Message::Gap(Gap { floor, head, time, birth }));
    }

    pub(super) fn unserve(&mut self, link: Link, origin: Origin, step: &mut Step<'_>) {
        let serve = self.peers.get_mut(&link).and_then(|it| it.serves.remove(&origin));
        if let Some(Serve { incarnation, .. }) = serve {
            for lane in LANES {
                step.out.push(Action::Halt { link, log: TokenLog { origin, incarnation, lane } });
            }
        }
    }

    pub(super) fn shipped(&mut self, link: Link, log: TokenLog, seq: u64) {
        let serve = self.peers.get_mut(&link).and_then(|it| it.serves.get_mut(&log.origin));
        if let Some(serve) = serve
            && serve.incarnation == log.incarnation
        {
            let shipped = of_mut(&mut serve.shipped, log.lane);
            *shipped = seq.max(*shipped);
        }
    }

    /// Retention has passed a slow reader.
    pub(super) fn behind(&mut self, link: Link, origin: Origin, step: &mut Step<'_>) {
        self.unserve(link, origin, step);
        if let Some(source) = self.source(origin, step.logs) {
            self.answer_gap(link, &source, step);
        }
    }

    /// This node has left what it relayed: whoever got it from here is answered anew.
    pub(super) fn serve_anew(&mut self, origin: Origin, step: &mut Step<'_>) {
        let serves = |it: &(&Link, &super::peer::Peer)| it.1.serves.contains_key(&origin);
        let links: Vec<_> = self.peers.iter().filter(serves).map(|it| *it.0).collect();
        for link in links {
            self.unserve(link, origin, step);
            let Some(source) = self.source(origin, step.logs) else { continue };
            if source.place.diverged {
                step.send(link, Message::Diverged { at: source.place });
            } else {
                self.answer_new(link, &source, None, step);
            }
        }
    }
}
