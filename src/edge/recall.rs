//! What a sink outside keeps beside each record, so that its newest record is its memory. No I/O.
//!
//! A record carries its input's position, its place among the records of that input, whether it
//! is the last of them, and the input before. From the newest one follows what is stored, and
//! where the source has to go on.
//!
//! One case needs care: **an input of which only a part is stored.** It comes again, but what
//! stages make of it may be cut otherwise this time (a batch that time has ended). So its records
//! are held back until there are as many as are stored, and a checksum over all of them says
//! whether these are the same. If so, they are not sent again. If not, all of them are sent,
//! under new numbers: twice is better than never.

use bytes::Bytes;
use crc32fast::Hasher;

use super::pos::{Mark, Pos};
use super::sink::Last;

/// Names a record: its input, and its place among the records of that.
pub(super) type Key = (Pos, u32);

/// A record that is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) about: About,
    pub(super) payload: Bytes,
}

/// What is stored beside a record.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) key: Key,
    /// It is the last of its input.
    pub(super) last: bool,
    /// The hash of its input, where the source has one; said of the last record only.
    pub(super) hash: Option<u64>,
    /// The input before.
    pub(super) before: Option<Mark>,
    /// Over the records of the input up to this one.
    pub(super) sum: u64,
}

impl About {
    fn mark(&self) -> Mark {
        Mark { pos: self.key.0, hash: self.hash }
    }
}

/// What is to be done with records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Put {
    /// To be stored, in this order.
    pub(super) send: Vec<Record>,
    /// Everything up to here is stored, and needs nothing.
    pub(super) known: Option<Pos>,
}

/// Knows what is stored, and names what comes.
#[derive(Debug, Default)]
pub(super) struct Recall {
    /// The newest record, when it was first asked for.
    stored: Option<About>,
    /// The first records of an input that is stored in part.
    held: Vec<Record>,
    /// The input at hand.
    at: Option<At>,
    /// What the source says of an input that is not complete yet.
    hash: Option<Mark>,
    before: Option<Mark>,
}

#[derive(Copy, Clone, Debug)]
struct At {
    pos: Pos,
    /// Its records so far.
    count: u32,
    sum: u64,
    /// Added to their places: what is stored of it already is something else.
    shift: u32,
}

impl Recall {
    /// The newest record.
    pub(super) fn begin(&mut self, stored: Option<About>) {
        *self = Self { stored, ..Self::default() };
        self.before = stored
            .map(|about| if about.last { Some(about.mark()) } else { about.before })
            .unwrap_or_default();
    }

    /// Where a pipeline goes on.
    pub(super) fn last(&self) -> Last {
        match (&self.stored, self.before) {
            // Whether there was something, long ago, is not known.
            (None, _) => Last::Untold,
            (Some(_), Some(before)) => Last::At(before),
            (Some(_), None) => Last::Never,
        }
    }

    /// The hash of an input, before its last record.
    pub(super) fn hashed(&mut self, mark: Mark) {
        self.hash = Some(mark);
    }

    /// The next record of an input.
    pub(super) fn put(&mut self, pos: Pos, payload: Bytes, last: bool) -> Put {
        let at = match self.at.filter(|at| at.pos == pos) {
            Some(at) => at,
            None => At { pos, count: 0, sum: 0, shift: 0 },
        };
        let sum = sum(at.sum, &payload);
        self.at = Some(At { count: at.count.saturating_add(1), sum, ..at });
        let hash = self.hash.filter(|mark| last && mark.pos == pos).and_then(|mark| mark.hash);
        let key = (pos, at.count.saturating_add(at.shift));
        let before = self.before;
        let about = About { key, last, hash, before, sum };
        if last {
            self.before = Some(about.mark());
        }
        self.sort(Record { about, payload })
    }

    /// What is to be done with it?
    fn sort(&mut self, record: Record) -> Put {
        let About { key: (pos, place), last, sum, .. } = record.about;
        let Some(stored) = self.stored.filter(|stored| pos <= stored.key.0) else {
            return Put { send: vec![record], known: None };
        };
        // A position stands for all inputs up to it that did not go before.
        if pos < stored.key.0 || stored.last {
            return Put { send: Vec::new(), known: Some(pos) };
        }
        if place > stored.key.1 {
            return Put { send: vec![record], known: None };
        }
        self.held.push(record);
        let complete = place == stored.key.1;
        if complete && sum == stored.sum {
            self.held.clear();
            return Put { send: Vec::new(), known: last.then_some(pos) };
        }
        if !complete && !last {
            return Put::default();
        }
        // They are not what is stored.
        let shift = stored.key.1.saturating_add(1);
        if let Some(at) = &mut self.at {
            at.shift = shift;
        }
        let mut send = std::mem::take(&mut self.held);
        for record in &mut send {
            record.about.key.1 = record.about.key.1.saturating_add(shift);
        }
        Put { send, known: None }
    }
}

/// The checksum of the records of an input, one more of which is `record`.
fn sum(sum: u64, record: &[u8]) -> u64 {
    let mut hasher = Hasher::new();
    hasher.update(&sum.to_le_bytes());
    hasher.update(record);
    // Two halves: what it is, and how long.
    (u64::from(hasher.finalize()) << 32) | (record.len() as u64 & 0xffff_ffff)
}

pub(super) fn mark_to_text(mark: Mark) -> String {
    match mark.hash {
        Some(hash) => format!("{}/{hash:x}", mark.pos),
        None => mark.pos.to_string(),
    }
}

pub(super) fn mark_from_text(text: &str) -> Option<Mark> {
    let (pos, hash) = match text.split_once('/') {
        Some((pos, hash)) => (pos, Some(u64::from_str_radix(hash, 16).ok()?)),
        None => (text, None),
    };
    Some(Mark { pos: pos.parse().ok()?, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs of so many records, each of a text.
    fn put_all(recall: &mut Recall, inputs: &[(u64, &[&str])]) -> (Vec<Record>, Option<Pos>) {
        let (mut sent, mut known) = (Vec::new(), None);
        for (seq, records) in inputs {
            for (index, record) in records.iter().enumerate() {
                let last = index + 1 == records.len();
                let pos = Pos::new(1, *seq);
                if last {
                    recall.hashed(Mark { pos, hash: Some(*seq) });
                }
                let put = recall.put(pos, Bytes::from((*record).to_owned()), last);
                sent.extend(put.send);
                known = known.max(put.known);
            }
        }
        (sent, known)
    }

    fn texts(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| std::str::from_utf8(&record.payload).unwrap()).collect()
    }

    const INPUTS: [(u64, &[&str]); 4] =
        [(1, &["a"]), (2, &["b", "c", "d"]), (5, &["e", "f"]), (6, &["g"])];

    /// Whatever the newest stored record is: the same inputs again, and none is stored twice.
    #[test]
    fn inputs_that_come_again_are_stored_once_whatever_was_stored() {
        let mut recall = Recall::default();
        recall.begin(None);
        assert_eq!(recall.last(), Last::Untold);
        let (all, known) = put_all(&mut recall, &INPUTS);
        assert_eq!(texts(&all), ["a", "b", "c", "d", "e", "f", "g"]);
        assert_eq!(known, None);
        for stored in 0..all.len() {
            let mut recall = Recall::default();
            recall.begin(Some(all[stored].about));
            let (sent, known) = put_all(&mut recall, &INPUTS);
            assert_eq!(sent, all[stored + 1..], "{stored} is stored");
            let whole = all[..=stored].iter().rfind(|record| record.about.last);
            assert_eq!(known, whole.map(|record| record.about.key.0));
            let at = whole.map(|record| record.about.mark());
            assert_eq!(recall_last(&all[stored].about), at.map_or(Last::Never, Last::At));
        }
    }

    fn recall_last(about: &About) -> Last {
        let mut recall = Recall::default();
        recall.begin(Some(*about));
        recall.last()
    }

    /// Two of three records are stored, and the input comes again as others.
    #[test]
    fn an_input_that_was_stored_in_part_and_comes_otherwise_is_stored_whole() {
        let mut recall = Recall::default();
        recall.begin(None);
        let (all, _) = put_all(&mut recall, &[(2, &["b", "c", "d"])]);
        for (otherwise, expected) in [
            (&["bc", "d"][..], &[("bc", 2), ("d", 3)][..]),
            (&["b", "cd"], &[("b", 2), ("cd", 3)]),
            (&["bcd"], &[("bcd", 2)]),
            (&["b", "x", "c", "d"], &[("b", 2), ("x", 3), ("c", 4), ("d", 5)]),
            (&["b", "c", "x"], &[("x", 2)]),
        ] {
            let mut recall = Recall::default();
            recall.begin(Some(all[1].about));
            let (sent, _) = put_all(&mut recall, &[(2, otherwise), (3, &["z"])]);
            let (z, sent) = sent.split_last().unwrap();
            assert_eq!(
                (texts(std::slice::from_ref(z)), z.about.key),
                (vec!["z"], (Pos::new(1, 3), 0))
            );
            let places = sent.iter().map(|record| record.about.key.1);
            let said: Vec<_> = texts(sent).into_iter().zip(places).collect();
            assert_eq!(said, expected, "{otherwise:?}");
            assert!(sent.last().unwrap().about.last);
        }
    }

    #[test]
    fn a_mark_comes_back_from_its_text() {
        for hash in [None, Some(0), Some(u64::MAX)] {
            let mark = Mark { pos: Pos { epoch: 1, seq: u64::MAX, part: 3 }, hash };
            assert_eq!(mark_from_text(&mark_to_text(mark)), Some(mark));
        }
        for text in ["", "1.2", "1.2.3/", "1.2.3/x", "/1"] {
            assert_eq!(mark_from_text(text), None, "{text}");
        }
    }
}
