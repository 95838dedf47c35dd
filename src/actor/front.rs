//! What actors owe, from outside: for fuzz targets, which make up its bytes.

use super::book::{Book, What};
use super::note::{Note, Oid};
use super::side::{AnswersKept, Side};
use crate::types::{Lsn, Seq, StreamId};

/// Reads a note, and answers it as it would be written, with its version.
pub fn note(version: u16, bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let note = Note::decode(version, bytes)?;
    let mut again = Vec::new();
    note.encode(&mut again).then(|| (note.version(), again))
}

/// Reads what a snapshot holds besides the state, of which so many answers of such an age are kept,
/// and answers it as it would be written. `None` if it is refused.
pub fn side(bytes: &[u8], (count, age_ms): (usize, u64)) -> Option<Vec<u8>> {
    let side = Side::decode(bytes, AnswersKept { count, age_ms }).ok()?;
    Some(side.map_or_else(Vec::new, |side| side.encode()))
}

/// What is owed in a whole store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owed(Book);

/// Something that is owed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub oid: Oid,
    /// The frame that says so.
    pub lsn: Lsn,
    /// That frame's number in its stream.
    pub seq: Seq,
    /// What it is.
    pub what: Thing,
    /// How often it was taken up after a crash.
    pub tries: u32,
}

/// What is owed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// To that actor.
    Message(StreamId),
    /// Due at that millisecond.
    Timer(u64),
    /// Without an end.
    Step,
}

impl Owed {
    /// As a checkpoint says.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Book::decode(bytes).map(Self)
    }

    /// For a checkpoint.
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }

    /// Takes in a note; `false` if it is none.
    pub fn apply(&mut self, (stream, lsn, seq): (StreamId, Lsn, Seq), bytes: &[u8]) -> bool {
        let Some(note) = Note::decode(1, bytes) else { return false };
        self.0.apply(stream, lsn, seq, &note);
        true
    }

    /// All of it, in the order of its names.
    pub fn entries(&self) -> Vec<Entry> {
        let thing = |what| match what {
            What::Message { to } => Thing::Message(to),
            What::Timer { due } => Thing::Timer(due),
            What::Step => Thing::Step,
        };
        let entry = |(oid, open): (Oid, super::book::Open)| Entry {
            oid,
            lsn: open.lsn,
            seq: open.seq,
            what: thing(open.what),
            tries: self.0.tries(oid),
        };
        self.0.iter().map(entry).collect()
    }

    /// The first number of a stream that must stay.
    pub fn owed_from(&self, stream: StreamId) -> Option<Seq> {
        self.0.owed_from(stream)
    }
}
