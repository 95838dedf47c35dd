//! The record: what a frame is made of that holds more than one event.

use super::RECORD_HEADER;
use crate::error::Reject;
use crate::types::to_usize;

/// What a record is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An event of the stream; events of a frame are numbered on from the frame's `seq`.
    Event,
    /// `kind len u16 | kind | name`, UTF-8: whose stream this is. In the frame with seq 1.
    Name,
    /// What a snapshot covers; see `crate::snapshot`.
    Snapshot,
    /// An archived state.
    State,
    /// Stands for a turn that has no event but left something else to be stored, and takes a
    /// number like an event: so every frame of a stream has its place in the numbering.
    Turn,
    /// `to u64`: from here on the state is what it was after event `to`. Numbered like an event.
    Rewind,
    /// What an actor owes or has settled: a timer, a message, a step; see `crate::actor`.
    Note,
    /// `key len u16 | key | value`, UTF-8: says who or why, of all events of the frame.
    Meta,
    /// UTF-8: all events of the frame can be found by it.
    Tag,
    /// What belongs to an archived state besides it: what its actor owes.
    Side,
    /// One or more tokens back to back, each with its own checksum; see `crate::sync::token`.
    Token,
}

impl RecordKind {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Event => 1,
            Self::Name => 2,
            Self::Snapshot => 3,
            Self::State => 4,
            Self::Turn => 5,
            Self::Rewind => 6,
            Self::Note => 7,
            Self::Meta => 8,
            Self::Tag => 9,
            Self::Side => 10,
            Self::Token => 11,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Event,
            2 => Self::Name,
            3 => Self::Snapshot,
            4 => Self::State,
            5 => Self::Turn,
            6 => Self::Rewind,
            7 => Self::Note,
            8 => Self::Meta,
            9 => Self::Tag,
            10 => Self::Side,
            11 => Self::Token,
            _ => return None,
        })
    }

    /// Does a record of this kind take a number in its stream?
    pub const fn is_numbered(self) -> bool {
        match self {
            Self::Event | Self::Turn | Self::Rewind => true,
            Self::Name
            | Self::Snapshot
            | Self::State
            | Self::Note
            | Self::Meta
            | Self::Tag
            | Self::Side
            | Self::Token => false,
        }
    }
}

/// One record of a frame.
#[derive(Copy, Clone, Debug)]
pub struct Record<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// Version of what is in it.
    pub version: u16,
    /// Its bytes; aligned as its archive needs when the frame is.
    pub payload: &'a [u8],
}

/// Iterator over a frame's records.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    pub(super) left: u16,
    pub(super) state: RecordsState<'a>,
}

#[derive(Clone, Debug)]
pub(super) enum RecordsState<'a> {
    Single(Record<'a>),
    Many(&'a [u8]),
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Reject>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.state {
            RecordsState::Single(record) => Some(Ok(*record)),
            RecordsState::Many(body) => Some(match record(body) {
                Ok((record, rest)) => {
                    *body = rest;
                    Ok(record)
                }
                Err(reject) => {
                    self.left = 0;
                    Err(reject)
                }
            }),
        }
    }
}

/// The first record of `body`, and what follows it.
fn record(body: &[u8]) -> Result<(Record<'_>, &[u8]), Reject> {
    let (header, rest) = body.split_first_chunk::<RECORD_HEADER>().ok_or(Reject::Records)?;
    let [b0, b1, b2, b3, v0, v1, kind, gap] = *header;
    let kind = RecordKind::from_code(kind).ok_or(Reject::Records)?;
    if gap != 0 && gap != 8 {
        return Err(Reject::Records);
    }
    let bytes = to_usize(u64::from(u32::from_le_bytes([b0, b1, b2, b3])));
    let start = usize::from(gap);
    let end = start.checked_add(bytes).ok_or(Reject::Records)?;
    let payload = rest.get(start..end).ok_or(Reject::Records)?;
    // The last record is followed by the frame's padding, which `body` does not include.
    let after = rest.get(end.next_multiple_of(8)..).unwrap_or_default();
    Ok((Record { kind, version: u16::from_le_bytes([v0, v1]), payload }, after))
}
