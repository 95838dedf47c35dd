//! What a frame holds for a subscriber, and which of it is asked for. No I/O.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::actor::outside_message;
use crate::error::Reject;
use crate::log::frame::{Frame, FrameKind, Record, RecordKind};
use crate::log::name;
use crate::types::{Seq, StreamId};

/// Kinds that begin so are the store's own, and no subscriber sees them.
pub(super) const OWN: &str = "annals.";

/// A place between two records of the log: everything before it is behind a subscriber who is
/// there.
///
/// The position of a frame, or of the log's end, and how many of that frame's records are behind:
/// so it can stand between two events of one turn. It stays what it is for as long as the log
/// lives, and can be kept anywhere ([`to_bytes`](Self::to_bytes), or as text).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    lsn: u64,
    index: u32,
}

impl Position {
    /// Before the first event.
    pub const BEGINNING: Self = Self { lsn: 0, index: 0 };

    /// Before record `index` of the frame at `lsn`.
    pub const fn new(lsn: u64, index: u32) -> Self {
        Self { lsn, index }
    }

    /// The frame's position.
    pub const fn lsn(self) -> u64 {
        self.lsn
    }

    /// How many of the frame's records are behind.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Behind this one record.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { lsn: self.lsn, index: self.index.saturating_add(1) }
    }

    /// For keeping: `lsn u64 | index u32`, little-endian.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let (lsn, index) = bytes.split_at_mut(8);
        lsn.copy_from_slice(&self.lsn.to_le_bytes());
        index.copy_from_slice(&self.index.to_le_bytes());
        bytes
    }

    /// The other way round.
    pub fn from_bytes(bytes: [u8; 12]) -> Self {
        let [l0, l1, l2, l3, l4, l5, l6, l7, index @ ..] = bytes;
        let lsn = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        Self { lsn, index: u32::from_le_bytes(index) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.lsn, self.index)
    }
}

impl FromStr for Position {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('.').and_then(|(lsn, index)| {
            Some(Self { lsn: lsn.parse().ok()?, index: index.parse().ok()? })
        });
        parsed.ok_or("expected a position, as in 4096.0")
    }
}

/// Where a subscription begins.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the first event that there is.
    First,
    /// With the first one that is appended from now on.
    Now,
    /// With the first one at or behind a position.
    At(Position),
}

impl From<Position> for Begin {
    fn from(position: Position) -> Self {
        Self::At(position)
    }
}

/// Which events are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(pub(super) By);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum By {
    All,
    Kind(Box<str>),
    Actor(StreamId),
    Tag(Box<str>),
    Outside(Box<str>),
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            By::All => f.write_str("all"),
            By::Kind(kind) => write!(f, "kind {kind}"),
            By::Actor(stream) => write!(f, "actor {stream}"),
            By::Tag(tag) => write!(f, "tag {tag}"),
            By::Outside(topic) => write!(f, "outside {topic}"),
        }
    }
}

impl Filter {
    /// Those of all actors.
    pub fn all() -> Self {
        Self(By::All)
    }

    /// Those of all actors of a kind, by [`Actor::KIND`](crate::Actor::KIND).
    pub fn kind(kind: &str) -> Self {
        Self(By::Kind(kind.into()))
    }

    /// Those of one actor. What is old is found by the indexes, without reading what is between.
    pub fn actor(kind: &str, name: &str) -> Self {
        Self(By::Actor(StreamId::of(kind, name)))
    }

    /// No events, but the messages that turns have left for the outside under this topic
    /// ([`Turn::outside`](crate::Turn::outside)), of all actors.
    /// [`Happening::message`](crate::Happening::message) reads them.
    pub fn outside(topic: &str) -> Self {
        Self(By::Outside(topic.into()))
    }

    /// What has come through the inbox `source` ([`Store::inbox`](crate::Store::inbox)): it is no
    /// actor's, and not among [`all`](Self::all).
    pub fn inbox(source: &str) -> Self {
        Self(By::Actor(StreamId::of(crate::store::edge::INBOX, source)))
    }

    /// Those of turns with this tag.
    pub fn tag(tag: &str) -> Self {
        Self(By::Tag(tag.into()))
    }
}

/// What has happened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// An event of the actor.
    Event,
    /// The actor went back: its state is what it was after event `to`.
    Rewound {
        /// The last event that counts.
        to: Seq,
    },
    /// A message to the outside, or something else that was asked for.
    Note,
}

/// Which notes are delivered too.
pub(super) type Select = fn(&Record<'_>) -> bool;

/// One fact of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub fact: Fact,
    /// Which record of the frame it is.
    pub index: u32,
    /// Its number; of a note, that of the turn's last numbered record before it.
    pub seq: Seq,
    pub version: u16,
    /// Its payload, in the frame.
    pub payload: Range<usize>,
}

/// What a frame holds for a subscriber. Used again from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    pub items: Vec<Item>,
    /// The payloads of these, in the frame.
    pub tags: Vec<Range<usize>>,
    pub meta: Vec<Range<usize>>,
    pub name: Option<Range<usize>>,
}

impl Leaf {
    /// Reads `frame` from record `from` on.
    ///
    /// # Errors
    /// Its records do not add up.
    pub(super) fn read(
        &mut self,
        frame: &Frame<'_>,
        from: u32,
        select: Option<Select>,
    ) -> Result<(), Reject> {
        self.clear();
        let start = frame.bytes().as_ptr().addr();
        let mut seq = frame.seq();
        let mut last = seq;
        for (index, record) in (0..).zip(frame.records()) {
            let record = record?;
            let at = record.payload.as_ptr().addr() - start;
            let payload = at..at + record.payload.len();
            let fact = match record.kind {
                RecordKind::Event => Some(Fact::Event),
                RecordKind::Rewind => {
                    let to = record.payload.first_chunk().map(|to| u64::from_le_bytes(*to));
                    Some(Fact::Rewound { to: to.and_then(Seq::new).ok_or(Reject::Records)? })
                }
                RecordKind::Note => select.filter(|select| select(&record)).map(|_| Fact::Note),
                RecordKind::Tag => {
                    self.tags.push(payload.clone());
                    None
                }
                RecordKind::Meta => {
                    self.meta.push(payload.clone());
                    None
                }
                RecordKind::Name => {
                    self.name = Some(payload.clone());
                    None
                }
                RecordKind::Turn
                | RecordKind::Snapshot
                | RecordKind::State
                | RecordKind::Side
                | RecordKind::Token => None,
            };
            if record.kind.is_numbered() {
                last = seq;
                seq = seq.checked_add(1).unwrap_or(Seq::MAX);
            }
            if let Some(fact) = fact.filter(|_| index >= from) {
                let version = record.version;
                self.items.push(Item { fact, index, seq: last, version, payload });
            }
        }
        Ok(())
    }

    /// Leaves messages to the outside of that topic, and nothing else.
    pub(super) fn keep_topic(&mut self, frame: &Frame<'_>, topic: &str) {
        self.items.retain(|item| {
            let payload = frame.bytes().get(item.payload.clone()).unwrap_or_default();
            item.fact == Fact::Note
                && outside_message(item.version, payload).is_some_and(|it| it.topic == topic)
        });
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.tags.clear();
        self.meta.clear();
        self.name = None;
    }

    pub(super) fn has_tag(&self, frame: &Frame<'_>, tag: &str) -> bool {
        let is = |at: &Range<usize>| frame.bytes().get(at.clone()) == Some(tag.as_bytes());
        self.tags.iter().any(is)
    }

    /// Kind and name, where the frame begins a stream.
    pub(super) fn named<'a>(&self, frame: &Frame<'a>) -> Option<(&'a str, &'a str)> {
        name::decode(frame.bytes().get(self.name.clone()?)?)
    }
}

/// Is it a message to the outside?
pub(super) fn is_outside(record: &Record<'_>) -> bool {
    outside_message(record.version, record.payload).is_some()
}

/// Can it hold anything for a subscriber?
pub(super) fn is_of_users(frame: &Frame<'_>) -> bool {
    frame.stream() != StreamId::SYSTEM
        && matches!(frame.header().kind, FrameKind::Single | FrameKind::Records)
}

/// Key and value of a `Meta` record; `None` where the payload is none.
pub(super) fn meta(payload: &[u8]) -> Option<(&str, &str)> {
    // As in a name record: a length, and two texts.
    name::decode(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_from_bytes_and_from_text() {
        for (lsn, index) in [(0, 0), (4096, 1), (u64::MAX, u32::MAX), (1 << 40, 7)] {
            let position = Position::new(lsn, index);
            assert_eq!(Position::from_bytes(position.to_bytes()), position);
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for text in ["", ".", "1", "1.", ".1", "a.1", "1.-1", "1.1.1"] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
        assert!(Position::new(16, 3) < Position::new(16, 4));
        assert!(Position::new(16, 4) < Position::new(32, 0));
    }
}
