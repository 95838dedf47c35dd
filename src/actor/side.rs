//! The side: what an actor carries besides its state, because of what it owes.
//!
//! Notes of its own turns change it, live and at a replay by the same call; a snapshot holds it
//! beside the state. What is deferred is here too, and in no snapshot: a snapshot is of what is
//! appended.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::desk::Desk;
use super::note::{NUMBER_MAX, Note, Packed, Reader, Rhythm, StepPolicy, Writer};
use super::policy::Persistence;
use crate::error::Reject;
use crate::types::Seq;

/// Of [`Side::encode`].
const VERSION: u16 = 1;

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Side {
    /// How many things this actor has ever opened.
    pub opened: u64,
    timers: BTreeMap<Box<str>, Timer>,
    steps: BTreeMap<u64, Step>,
    answers: Answers,
    /// The actor's own policy, if it was given one.
    pub persistence: Option<Persistence>,
    /// Turns that were not appended yet.
    pub pending: Option<Pending>,
}

/// Turns that were handled and not appended yet, and when the first of them was.
pub(crate) struct Pending {
    /// With a turn while it is taken.
    pub desk: Option<Box<Desk>>,
    /// Number of the first event in it.
    pub first: Seq,
    pub turns: u32,
}

/// An armed timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timer {
    pub number: u64,
    pub rhythm: Rhythm,
    pub command: Kept,
}

/// A step under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub policy: StepPolicy,
    pub key: Box<str>,
    pub work: Kept,
}

/// An archived value of a durable type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub name: Box<str>,
    pub version: u16,
    pub archive: Box<[u8]>,
}

impl From<&Packed<'_>> for Kept {
    fn from(packed: &Packed<'_>) -> Self {
        let Packed { name, version, archive } = *packed;
        Self { name: name.into(), version, archive: archive.into() }
    }
}

/// First answers, by the ids of the commands that they answer.
#[derive(Default)]
struct Answers {
    by_id: HashMap<u128, (u64, Kept)>,
    order: VecDeque<u128>,
}

/// How many answers are kept, and how long.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnswersKept {
    pub count: usize,
    pub age_ms: u64,
}

impl Side {
    /// Takes in a note of this actor's own turns.
    pub(crate) fn apply(&mut self, note: &Note<'_>, kept: AnswersKept) {
        match note {
            Note::Sent { number, .. } | Note::Outside { number, .. } => self.open(*number),
            Note::Armed { number, key, rhythm, command } => {
                self.open(*number);
                let timer = Timer { number: *number, rhythm: *rhythm, command: command.into() };
                self.timers.insert((*key).into(), timer);
            }
            Note::Disarmed { number } => self.timers.retain(|_, timer| timer.number != *number),
            Note::Fired { number, due: 0 } => {
                self.timers.retain(|_, timer| timer.number != *number);
            }
            Note::Fired { number, due } => {
                let timer = self.timers.values_mut().find(|timer| timer.number == *number);
                if let Some(timer) = timer {
                    timer.rhythm.due = *due;
                }
            }
            Note::Began { number, policy, key, step } => {
                self.open(*number);
                let step = Step { policy: *policy, key: (*key).into(), work: step.into() };
                self.steps.insert(*number, step);
            }
            Note::Ended { number, .. } => {
                self.steps.remove(number);
            }
            Note::Answered { id, at, reply } => self.answers.insert(*id, *at, reply.into(), kept),
            Note::Policy { code, n } => self.persistence = Persistence::from_code(*code, *n),
            // Others' obligations, and what only the book knows.
            Note::Handled { .. } | Note::Tried { .. } | Note::Freed { .. } => {}
        }
    }

    fn open(&mut self, number: u64) {
        self.opened = self.opened.max(number);
    }

    pub(crate) fn timer(&self, key: &str) -> Option<&Timer> {
        self.timers.get(key)
    }

    pub(crate) fn timers(&self) -> impl Iterator<Item = (&str, &Timer)> {
        self.timers.iter().map(|(key, timer)| (&**key, timer))
    }

    pub(crate) fn timer_numbered(&self, number: u64) -> Option<&Timer> {
        self.timers.values().find(|timer| timer.number == number)
    }

    pub(crate) fn step(&self, number: u64) -> Option<&Step> {
        self.steps.get(&number)
    }

    /// The first answer to the command with that id.
    pub(crate) fn answer(&self, id: u128) -> Option<&Kept> {
        self.answers.by_id.get(&id).map(|(_, kept)| kept)
    }

    /// Nothing is in it that a snapshot would have to hold.
    fn is_empty(&self) -> bool {
        self.opened == 0 && self.answers.order.is_empty() && self.persistence.is_none()
    }

    /// For a snapshot; empty if there is nothing to say.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.is_empty() {
            return bytes;
        }
        let mut to = Writer::new(&mut bytes);
        let mut notes = Vec::new();
        for (key, Timer { number, rhythm, command }) in &self.timers {
            let command = command.packed();
            notes.push(Note::Armed { number: *number, key, rhythm: *rhythm, command });
        }
        for (number, Step { policy, key, work }) in &self.steps {
            let step = work.packed();
            notes.push(Note::Began { number: *number, policy: *policy, key, step });
        }
        for id in &self.answers.order {
            if let Some((at, reply)) = self.answers.by_id.get(id) {
                notes.push(Note::Answered { id: *id, at: *at, reply: reply.packed() });
            }
        }
        if let Some((code, n)) = self.persistence.map(Persistence::code) {
            notes.push(Note::Policy { code, n });
        }
        to.u16(VERSION).u64(self.opened);
        let mut note_bytes = Vec::new();
        for note in &notes {
            note_bytes.clear();
            // What was a record before fits again.
            if note.encode(&mut note_bytes) {
                to.u16(note.version()).blob(&note_bytes);
            }
        }
        bytes
    }

    /// # Errors
    /// [`Reject::Records`] where the bytes are none that this build can read.
    pub(crate) fn decode(bytes: &[u8], kept: AnswersKept) -> Result<Option<Box<Self>>, Reject> {
        if bytes.is_empty() {
            return Ok(None);
        }
        Self::read(Reader(bytes), kept).map(Box::new).map(Some).ok_or(Reject::Records)
    }

    fn read(mut from: Reader<'_>, kept: AnswersKept) -> Option<Self> {
        if from.u16()? != VERSION {
            return None;
        }
        let opened = from.u64().filter(|opened| *opened <= NUMBER_MAX)?;
        let mut side = Self { opened, ..Self::default() };
        while !from.0.is_empty() {
            let version = from.u16()?;
            side.apply(&Note::decode(version, from.blob()?)?, kept);
        }
        Some(side)
    }
}

impl Kept {
    pub(crate) fn packed(&self) -> Packed<'_> {
        Packed { name: &self.name, version: self.version, archive: &self.archive }
    }
}

impl Answers {
    fn insert(&mut self, id: u128, at: u64, reply: Kept, kept: AnswersKept) {
        if self.by_id.insert(id, (at, reply)).is_none() {
            self.order.push_back(id);
        }
        let too_old = at.saturating_sub(kept.age_ms);
        while let Some(oldest) = self.order.front().copied() {
            let old = self.by_id.get(&oldest).is_none_or(|(at, _)| *at < too_old);
            if self.order.len() <= kept.count && !old {
                break;
            }
            self.order.pop_front();
            self.by_id.remove(&oldest);
        }
    }
}
