//! What an engine's sequence numbers let one conclude: a state machine without I/O.
//!
//! An engine numbers its batches from 0 in each life of its process and says nowhere which life
//! that is. It forgets what it could not send, drops what a slow subscriber does not take, and
//! keeps the last ten thousand or so for those who ask. [`Follow`] is told what was heard (a
//! connection, a live batch, an answer to a question, silence) and says what to do ([`Act`]): give
//! a record on, say that something is missing, ask, connect anew.
//!
//! **Within an epoch there are no holes, and all batches are of one life of the engine.** An epoch
//! begins with a record of its own, [`Cut`]: whatever was known of the engine's blocks is void.
//! What makes that true:
//!
//! - Whenever a connection is new, and at each gap, the engine is asked for everything from our
//!   last batch on, *that one included*. Only if that one is what we have (its hash) is it the
//!   same life: an engine that was restarted and has overtaken us looks like an exact answer else.
//! - Live batches wait while a question is open, so nothing overtakes what is older.
//! - A question may be answered by another process than the one that the live connection leads to.
//!   So the first live batch of each connection must be found in an answer, too: then they are
//!   the same. Batches of a connection that has turned out to be to an older life are thrown away.
//! - A hole that the engine does not have either is asked for once; then a new epoch begins. (One
//!   between answers is asked for as long as that brings anything: engines drop answers.)
//! - Who has heard nothing for a while asks: so a loss at the very end is found.
//!
//! Without a socket to ask at, each connection and each gap begins a new epoch.

use std::collections::VecDeque;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::told::{Cut, Told, Why};
use crate::edge::pos::{Gap, Mark, Pos};

/// How patient it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowOptions {
    /// Is there somewhere to ask?
    pub asks: bool,
    /// Silence after which the engine is asked.
    pub idle: Duration,
    /// Silence after which a question counts as not answered.
    pub answer: Duration,
    /// How often a question is asked before it is given up.
    pub tries: u32,
    /// Hashes kept of the epoch's newest batches: as many as may wait in the live connection.
    pub recent: usize,
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self {
            asks: true,
            idle: Duration::from_secs(1),
            answer: Duration::from_secs(2),
            tries: 3,
            recent: 100_000,
        }
    }
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Give this record on.
    Give {
        /// Its place: `seq` is the engine's number + 1, and 0 for the cut that begins an epoch.
        pos: Pos,
        /// Of a batch's bytes.
        hash: Option<u64>,
        /// What it says.
        told: Told,
    },
    /// Say that records are missing before what is given next.
    Gap(Gap),
    /// Ask for everything from this number on. Answers to an earlier question are not to be
    /// mixed with these.
    Ask {
        /// The first batch that is wanted.
        from: u64,
    },
    /// Close the live connection with whatever is still in it, and make another.
    Connect,
}

/// What is to be listened to now.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A connection has to be there first.
    Connection,
    /// Answers; live batches wait.
    Answers,
    /// Live batches.
    Live,
}

/// Which parts of the rules are in force: all, but in tests that show what each is for.
#[expect(clippy::struct_excessive_bools, reason = "one for each rule")]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// The last batch is asked for again and compared.
    pub(super) inclusive: bool,
    /// A new connection is asked about.
    pub(super) on_connect: bool,
    /// The first live batch of a connection has to be found in an answer.
    pub(super) bound: bool,
    /// Silence is asked about.
    pub(super) idle: bool,
    /// Another life found in an answer ends the live connection.
    pub(super) reconnect: bool,
}

impl Rules {
    const ALL: Self =
        Self { inclusive: true, on_connect: true, bound: true, idle: true, reconnect: true };
}

/// One engine, as far as it is known.
#[derive(Debug)]
pub struct Follow {
    options: FollowOptions,
    rules: Rules,
    epoch: u64,
    /// The epoch's newest batch.
    last: Option<Seen>,
    /// Hashes of the epoch's newest batches, `last` being the last of them. There are no holes.
    recent: VecDeque<u64>,
    /// Why the epoch began, as long as no batch of it was given; `None` also where it was begun
    /// in an earlier life.
    empty: Option<Why>,
    phase: Phase,
    /// The live connection is over; what is left in it may still be heard.
    ending: bool,
    /// The live connection is known to lead to the life of this epoch.
    bound: bool,
    /// When something was heard last.
    heard: Duration,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Seen {
    seq: u64,
    hash: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Apart,
    Asking(Question),
    Live,
}

#[derive(Debug, PartialEq, Eq)]
struct Question {
    /// The life that answers is that of this epoch.
    same: bool,
    /// The live batch that was the reason to ask.
    pending: Option<Live>,
    /// Nothing was wrong: it was quiet.
    idle: bool,
    /// Something new was among the answers.
    gained: bool,
    tries: u32,
    until: Duration,
}

#[derive(Debug, PartialEq, Eq)]
struct Live {
    seq: u64,
    hash: u64,
    payload: Vec<u8>,
}

/// When something is said: both clocks.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since some fixed moment, never going back.
    pub since: Duration,
    /// Milliseconds since the Unix epoch: epochs are named by it, so that no two ever have the
    /// same name, even where this life knows less than the last one did.
    pub wall_ms: u64,
}

impl Follow {
    /// Knows nothing yet.
    pub fn new(options: FollowOptions) -> Self {
        Self::with(options, Rules::ALL)
    }

    pub(super) fn with(options: FollowOptions, rules: Rules) -> Self {
        Self {
            options,
            rules,
            epoch: 0,
            last: None,
            recent: VecDeque::new(),
            empty: None,
            phase: Phase::Apart,
            ending: false,
            bound: false,
            heard: Duration::ZERO,
        }
    }

    /// Goes on behind a record that was handled, or begins. A connection has to be made after it.
    pub fn seek(&mut self, at: Option<Mark>) {
        self.phase = Phase::Apart;
        self.empty = None;
        self.recent.clear();
        self.epoch = at.map_or(0, |mark| mark.pos.epoch);
        self.last = at.and_then(|mark| {
            let seq = mark.pos.seq.checked_sub(1)?;
            Some(Seen { seq, hash: mark.hash? })
        });
        self.recent.extend(self.last.map(|last| last.hash));
    }

    /// What is to be listened to now.
    pub fn listen(&self) -> Listen {
        match self.phase {
            Phase::Apart => Listen::Connection,
            Phase::Asking(_) => Listen::Answers,
            Phase::Live => Listen::Live,
        }
    }

    /// When [`tick`](Self::tick) is wanted.
    pub fn due(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Asking(question) => Some(question.until),
            Phase::Live if self.options.asks && self.rules.idle && !self.ending => {
                Some(self.heard.saturating_add(self.options.idle))
            }
            Phase::Apart | Phase::Live => None,
        }
    }

    /// There is a new live connection.
    pub fn connected(&mut self, now: Moment, acts: &mut Vec<Act>) {
        self.ending = false;
        self.bound = !self.options.asks || !self.rules.bound;
        self.heard = now.since;
        if !self.options.asks && self.last.is_some() {
            self.cut(Why::Unproven, None, now, acts);
        } else if self.last.is_none() && self.empty.is_none() {
            let why = if self.epoch == 0 { Why::Begin } else { Why::Unproven };
            self.cut(why, None, now, acts);
        }
        if self.options.asks && self.rules.on_connect {
            self.ask(None, false, now, acts);
        } else {
            self.phase = Phase::Live;
        }
    }

    /// It is over. What is still in it may be heard, until [`drained`](Self::drained).
    pub fn disconnected(&mut self, now: Moment) {
        self.ending = true;
        if let Phase::Asking(question) = &mut self.phase {
            // What was answered may still be on its way; more will not come.
            let short = now.since.saturating_add(self.options.answer / 8);
            question.until = question.until.min(short);
        }
    }

    /// Nothing is left in a connection that is over.
    pub fn drained(&mut self, acts: &mut Vec<Act>) {
        self.connect(acts);
    }

    /// A live batch.
    pub fn live(&mut self, seq: u64, payload: Vec<u8>, now: Moment, acts: &mut Vec<Act>) {
        if self.phase != Phase::Live {
            debug_assert!(false, "nobody listens to live batches");
            return;
        }
        self.heard = now.since;
        let live = Live { seq, hash: xxh3_64(&payload), payload };
        match self.last {
            Some(last) if seq <= last.seq => {
                if self.has(&live) {
                    self.bound = true;
                } else if self.options.asks {
                    // Of another life: either the connection is an old one, or the answer was.
                    self.connect(acts);
                } else {
                    self.cut(Why::Restarted, None, now, acts);
                    self.give(live, acts);
                }
            }
            Some(last) if self.bound && Some(seq) == last.seq.checked_add(1) => {
                self.give(live, acts);
            }
            None if self.bound => self.give(live, acts),
            _ if self.ending => self.connect(acts),
            _ if self.options.asks => self.ask(Some(live), false, now, acts),
            _ => {
                self.cut(Why::Hole, Some(seq), now, acts);
                self.give(live, acts);
            }
        }
    }

    /// One of the batches that were asked for.
    pub fn answer(&mut self, seq: u64, payload: Vec<u8>, now: Moment, acts: &mut Vec<Act>) {
        let until = now.since.saturating_add(self.options.answer);
        let Phase::Asking(question) = &mut self.phase else { return };
        question.until = if self.ending { question.until } else { until };
        let answer = Live { seq, hash: xxh3_64(&payload), payload };
        let Some(last) = self.last else {
            question.gained = true;
            return self.give(answer, acts);
        };
        if !question.same {
            if last == (Seen { seq, hash: answer.hash }) {
                question.same = true;
            } else {
                self.other_life(now, acts);
            }
        } else if Some(seq) == last.seq.checked_add(1) {
            question.gained = true;
            self.give(answer, acts);
        } else if seq > last.seq && question.gained {
            // An engine drops answers, too, where they are too many at once. As long as it goes
            // forward it is asked for the rest.
            let (pending, idle) = (question.pending.take(), question.idle);
            self.ask(pending, idle, now, acts);
        } else if seq > last.seq {
            question.gained = true;
            self.cut(Why::Hole, Some(seq), now, acts);
            self.give(answer, acts);
        } else if !self.has(&answer) {
            self.other_life(now, acts);
        }
    }

    /// That was all.
    pub fn answered(&mut self, now: Moment, acts: &mut Vec<Act>) {
        let Phase::Asking(question) = std::mem::replace(&mut self.phase, Phase::Live) else {
            debug_assert!(false, "nobody has asked");
            return;
        };
        self.heard = now.since;
        let newest = self.last.map(|last| last.seq);
        let missing = question.pending.as_ref().is_some_and(|pending| Some(pending.seq) > newest);
        if !question.same {
            self.other_life(now, acts);
        } else if missing && question.gained {
            self.ask(question.pending, false, now, acts);
        } else {
            self.go_on(question.pending, now, acts);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment, acts: &mut Vec<Act>) {
        if self.due().is_none_or(|due| now.since < due) {
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Live) {
            Phase::Apart => self.phase = Phase::Apart,
            Phase::Live => self.ask(None, true, now, acts),
            Phase::Asking(question) => self.not_answered(question, now, acts),
        }
    }

    fn not_answered(&mut self, question: Question, now: Moment, acts: &mut Vec<Act>) {
        self.heard = now.since;
        if self.ending {
            // What is left in the connection is heard, then comes the next.
            if let Some(pending) = question.pending {
                self.live(pending.seq, pending.payload, now, acts);
            }
            return;
        }
        if question.tries < self.options.tries {
            let tries = question.tries + 1;
            self.ask(question.pending, question.idle, now, acts);
            if let Phase::Asking(question) = &mut self.phase {
                question.tries = tries;
            }
        } else if question.same {
            self.go_on(question.pending, now, acts);
        } else if !question.idle {
            // Whether this is the same life cannot be known.
            self.cut(Why::Unproven, None, now, acts);
            self.bound = true;
            if let Some(pending) = question.pending {
                self.give(pending, acts);
            }
        }
    }

    /// All answers were of this life. The batch that was the reason to ask is among them, or not.
    fn go_on(&mut self, pending: Option<Live>, now: Moment, acts: &mut Vec<Act>) {
        let Some(pending) = pending else { return };
        match self.last {
            Some(last) if pending.seq <= last.seq => {
                if !self.has(&pending) {
                    // The connection leads to another life than the answers came from.
                    self.connect(acts);
                    return;
                }
            }
            // It can be no other's: this connection is of this life.
            Some(last) if self.bound && Some(pending.seq) == last.seq.checked_add(1) => {
                self.give(pending, acts);
            }
            Some(_) => {
                self.cut(Why::Hole, Some(pending.seq), now, acts);
                self.give(pending, acts);
            }
            None => self.give(pending, acts),
        }
        self.bound = true;
    }

    /// Who answers is not who was followed so far.
    fn other_life(&mut self, now: Moment, acts: &mut Vec<Act>) {
        self.cut(Why::Restarted, None, now, acts);
        if self.rules.reconnect {
            self.connect(acts);
        } else {
            self.ask(None, false, now, acts);
        }
    }

    fn connect(&mut self, acts: &mut Vec<Act>) {
        self.phase = Phase::Apart;
        acts.push(Act::Connect);
    }

    fn ask(&mut self, pending: Option<Live>, idle: bool, now: Moment, acts: &mut Vec<Act>) {
        let until = now.since.saturating_add(self.options.answer);
        let same = self.last.is_none() || !self.rules.inclusive;
        self.phase =
            Phase::Asking(Question { same, pending, idle, gained: false, tries: 1, until });
        let next = |last: Seen| if self.rules.inclusive { last.seq } else { last.seq + 1 };
        acts.push(Act::Ask { from: self.last.map_or(0, next) });
    }

    /// Is that the batch of this epoch that was given with that number?
    fn has(&self, live: &Live) -> bool {
        let back = self.last.and_then(|last| last.seq.checked_sub(live.seq));
        let back = back.and_then(|back| usize::try_from(back).ok());
        let at = back.and_then(|back| self.recent.len().checked_sub(back + 1));
        at.and_then(|at| self.recent.get(at)) == Some(&live.hash)
    }

    fn give(&mut self, batch: Live, acts: &mut Vec<Act>) {
        let pos = self.pos(batch.seq);
        if self.empty.take() == Some(Why::Begin) && batch.seq > 0 {
            // Of the engine's past nothing was known; now it is known how much that is.
            let after = Some(Pos::new(self.epoch, 0));
            acts.push(Act::Gap(Gap { after, before: Some(pos), lost: Some(batch.seq) }));
        }
        self.last = Some(Seen { seq: batch.seq, hash: batch.hash });
        if self.recent.len() >= self.options.recent.max(1) {
            self.recent.pop_front();
        }
        self.recent.push_back(batch.hash);
        let told = Told::Batch(batch.payload);
        acts.push(Act::Give { pos, hash: Some(batch.hash), told });
    }

    /// Begins an epoch. `next` is the first batch of it, where the same life goes on behind a
    /// hole.
    fn cut(&mut self, why: Why, next: Option<u64>, now: Moment, acts: &mut Vec<Act>) {
        let last = self.last.take();
        let after = last.map(|last| self.pos(last.seq));
        self.recent.clear();
        self.epoch = self.epoch.saturating_add(1).max(now.wall_ms);
        self.empty = Some(why);
        let lost = last.zip(next).map(|(last, next)| next.saturating_sub(last.seq + 1));
        let before = next.map(|next| self.pos(next));
        if why != Why::Begin {
            acts.push(Act::Gap(Gap { after, before, lost }));
        }
        let told = Told::Cut(Cut { why, lost });
        acts.push(Act::Give { pos: Pos::new(self.epoch, 0), hash: None, told });
    }

    fn pos(&self, seq: u64) -> Pos {
        Pos::new(self.epoch, seq.saturating_add(1))
    }
}

#[cfg(test)]
mod tests;
