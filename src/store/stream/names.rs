//! Whose streams are whose, as far as it is remembered. No I/O.
//!
//! A frame has its stream's hash, and only the stream's first frame says kind and name. To read
//! those again for each frame would cost more than the frame, so they are remembered, within
//! bounds: two generations of at most [`STREAMS_MAX`] streams and [`BYTES_MAX`] of names each.
//! When the young one is full it becomes the old one, which is forgotten; who is met again is
//! young again. Of kinds that nobody asks for only that is remembered, without the name.

use std::sync::Arc;

use crate::types::{StreamId, StreamMap};

/// Streams in one generation: what fits a map of 4.3 MB.
pub(super) const STREAMS_MAX: usize = (1 << 17) / 8 * 7;
/// Bytes of names in one generation.
const BYTES_MAX: usize = 8 << 20;

// Two generations of maps and names; the documentation of `Store::subscribe` says 25 MB.
const _: () =
    assert!(2 * ((1 << 17) * (size_of::<(StreamId, Known)>() + 1) + BYTES_MAX) < 26 << 20);

/// Kind and name of an actor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub kind: Box<str>,
    pub name: Box<str>,
}

/// What is known of a stream.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Wanted(Arc<Name>),
    /// Of a kind that is not asked for.
    Other,
}

/// A bounded memory of names.
#[derive(Debug, Default)]
pub(super) struct Names {
    young: StreamMap<Known>,
    old: StreamMap<Known>,
    bytes: usize,
}

impl Names {
    /// What is remembered of `stream`.
    pub(super) fn get(&mut self, stream: StreamId) -> Option<Known> {
        if let Some(known) = self.young.get(&stream) {
            return Some(known.clone());
        }
        let known = self.old.remove(&stream)?;
        self.put(stream, known.clone());
        Some(known)
    }

    pub(super) fn put(&mut self, stream: StreamId, known: Known) {
        let bytes = match &known {
            // What an allocation takes besides counts too.
            Known::Wanted(name) => name.kind.len() + name.name.len() + 96,
            Known::Other => 0,
        };
        if self.young.len() >= STREAMS_MAX || self.bytes + bytes > BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.young.insert(stream, known);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize, bytes: usize) -> Known {
        let name = format!("{number:0bytes$}").into();
        Known::Wanted(Arc::new(Name { kind: "kind".into(), name }))
    }

    #[test]
    fn names_are_remembered_within_bounds_and_those_in_use_are_not_forgotten() {
        let id = |number: usize| StreamId::of("kind", &number.to_string());
        for bytes in [1, 60_000] {
            let mut names = Names::default();
            for number in 0..3 * STREAMS_MAX / bytes.min(300) {
                names.put(id(number), name(number, bytes));
                assert!(names.get(id(0)).is_some(), "who is met each time, at {number}");
                assert!(names.len() <= 2 * STREAMS_MAX);
                assert!(names.bytes <= BYTES_MAX);
            }
            assert!(names.get(id(1)).is_none(), "who is not met is forgotten");
        }
    }
}
