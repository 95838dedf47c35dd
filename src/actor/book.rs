//! The book: everything that is owed in the whole store, as of one position of its log.
//!
//! A state machine without I/O: notes go in, in the order of the log, and what is open is there to
//! be looked up. The same calls build it while the store lives and from the log after a crash, so
//! the two cannot differ. It is never a source of truth: a checkpoint of it saves reading.

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::note::{Note, Oid, Reader, Writer};
use crate::log::frame::{Frame, RecordKind};
use crate::types::{Lsn, Seq, StreamId};

/// Of [`Book::encode`].
const VERSION: u16 = 1;

/// Something that was opened and not closed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// The frame that says so: its notes have all that is not here.
    pub lsn: Lsn,
    /// The frame's number in its stream: it must not go before this is closed.
    pub seq: Seq,
    pub what: What,
}

/// What is owed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A message that the receiver has not handled.
    Message { to: StreamId },
    /// A timer that has not fired, due at this millisecond of the Unix epoch.
    Timer { due: u64 },
    /// A step whose end is not known.
    Step,
}

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    open: BTreeMap<Oid, Open>,
    /// How often what is open has been taken up after a crash.
    tries: HashMap<Oid, u32>,
    counted: Counted,
}

/// How much is open.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub messages: u64,
    pub timers: u64,
    pub steps: u64,
}

impl Counted {
    fn of(&mut self, what: What) -> &mut u64 {
        match what {
            What::Message { .. } => &mut self.messages,
            What::Timer { .. } => &mut self.timers,
            What::Step => &mut self.steps,
        }
    }
}

/// What a note has changed for those who wait for time to pass.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// It is due then, and not when it was before.
    Due(Oid, u64),
    Closed(Oid),
}

impl Book {
    /// Takes in a note of the frame at `lsn` of `stream`, whose first number is `seq`.
    pub(crate) fn apply(
        &mut self,
        stream: StreamId,
        lsn: Lsn,
        seq: Seq,
        note: &Note<'_>,
    ) -> Change {
        let own = |number| Oid { stream, number };
        match note {
            Note::Sent { number, kind, name, .. } => {
                let what = What::Message { to: StreamId::of(kind, name) };
                self.open(own(*number), Open { lsn, seq, what });
                Change::None
            }
            Note::Armed { number, rhythm, .. } => {
                let what = What::Timer { due: rhythm.due };
                self.open(own(*number), Open { lsn, seq, what });
                Change::Due(own(*number), rhythm.due)
            }
            Note::Began { number, .. } => {
                self.open(own(*number), Open { lsn, seq, what: What::Step });
                Change::None
            }
            Note::Handled { oid, .. } => self.close(*oid),
            Note::Disarmed { number }
            | Note::Ended { number, .. }
            | Note::Fired { number, due: 0 } => self.close(own(*number)),
            Note::Fired { number, due } => {
                let oid = own(*number);
                self.tries.remove(&oid);
                let Some(open) = self.get(oid) else { return Change::None };
                self.open(oid, Open { what: What::Timer { due: *due }, ..open });
                Change::Due(oid, *due)
            }
            Note::Tried { oids } => {
                for oid in oids.iter().filter(|oid| self.open.contains_key(oid)) {
                    *self.tries.entry(oid).or_default() += 1;
                }
                Change::None
            }
            Note::Freed { oid } => {
                self.tries.remove(oid);
                Change::None
            }
            Note::Answered { .. } | Note::Policy { .. } | Note::Outside { .. } => Change::None,
        }
    }

    /// Answers whether it was not open before.
    fn open(&mut self, oid: Oid, open: Open) -> bool {
        *self.counted.of(open.what) += 1;
        let before = self.open.insert(oid, open);
        if let Some(before) = before {
            *self.counted.of(before.what) -= 1;
        }
        before.is_none()
    }

    fn close(&mut self, oid: Oid) -> Change {
        self.tries.remove(&oid);
        let Some(open) = self.open.remove(&oid) else { return Change::None };
        *self.counted.of(open.what) -= 1;
        Change::Closed(oid)
    }

    /// How much is open, by what it is.
    pub(crate) fn counted(&self) -> Counted {
        self.counted
    }

    pub(crate) fn get(&self, oid: Oid) -> Option<Open> {
        self.open.get(&oid).copied()
    }

    pub(crate) fn tries(&self, oid: Oid) -> u32 {
        self.tries.get(&oid).copied().unwrap_or(0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Oid, Open)> {
        self.open.iter().map(|(oid, open)| (*oid, *open))
    }

    /// Takes in all notes of a frame.
    pub(crate) fn read(&mut self, frame: &Frame<'_>) {
        let header = frame.header();
        for record in frame.records().flatten() {
            if record.kind == RecordKind::Note
                && let Some(note) = Note::decode(record.version, record.payload)
            {
                self.apply(header.stream, frame.lsn(), header.seq, &note);
            }
        }
    }

    /// What is open for longest, in that order; how often it was taken up, too.
    pub(crate) fn oldest(&self, max: usize) -> Vec<(Oid, Open, u32)> {
        let mut oldest = BinaryHeap::new();
        for (oid, open) in &self.open {
            let age = (open.lsn, *oid);
            if oldest.len() < max {
                oldest.push(age);
            } else if let Some(mut youngest) = oldest.peek_mut()
                && age < *youngest
            {
                *youngest = age;
            }
        }
        let found = oldest.into_sorted_vec().into_iter();
        found.filter_map(|(_, oid)| Some((oid, self.get(oid)?, self.tries(oid)))).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The first number of `stream` whose frame must stay.
    pub(crate) fn owed_from(&self, stream: StreamId) -> Option<Seq> {
        let all = Oid { stream, number: 0 }..=Oid { stream, number: u64::MAX };
        self.open.range(all).map(|(_, open)| open.seq).min()
    }

    /// For a checkpoint.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.open.len() * 64);
        let mut to = Writer::new(&mut bytes);
        to.u16(VERSION).u64(self.open.len() as u64);
        for (oid, open) in &self.open {
            to.oid(*oid).u64(open.lsn.get()).u64(open.seq.get());
            match open.what {
                What::Message { to: receiver } => to.u8(1).u128(receiver.get()),
                What::Timer { due } => to.u8(2).u64(due),
                What::Step => to.u8(3),
            };
            to.u64(u64::from(self.tries(*oid)));
        }
        bytes
    }

    /// `None` where the bytes are no book that this build can read: then the log is.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.u16()? != VERSION {
            return None;
        }
        let mut book = Self::default();
        for _ in 0..from.u64()? {
            let oid = from.oid()?;
            let (lsn, seq) = (Lsn::new(from.u64()?)?, Seq::new(from.u64()?)?);
            let what = match from.u8()? {
                1 => What::Message { to: StreamId::from_u128(from.u128()?) },
                2 => What::Timer { due: from.u64()? },
                3 => What::Step,
                _ => return None,
            };
            let tries = u32::try_from(from.u64()?).ok()?;
            if tries > 0 {
                book.tries.insert(oid, tries);
            }
            if !book.open(oid, Open { lsn, seq, what }) {
                return None;
            }
        }
        from.0.is_empty().then_some(book)
    }
}
