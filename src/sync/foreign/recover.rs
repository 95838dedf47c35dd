//! What a frame of the foreign log says, and what an open makes of them.

use std::ops::ControlFlow;

use crate::error::{OpenError, ReadError};
use crate::log::frame::{Frame, RecordKind};
use crate::log::{Limit, Log};
use crate::sync::origin::{Incarnation, Lane, Origin, TokenLog};
use crate::types::StreamId;

use super::vector::{Records, Vector, number};

/// Kind of the streams of this log.
const KIND: &str = "annals.foreign";
/// Versions of the notes: whose tokens a frame has; a vector.
pub(super) const OF_TOKENS: u16 = 1;
pub(super) const OF_VECTOR: u16 = 2;

/// Of a frame with tokens: whose, from where on.
pub(super) struct Note {
    pub log: TokenLog,
    pub since: u64,
    pub first: u64,
    pub before: u64,
}

const NOTE_BYTES: usize = 6 * 8 + 1;

impl Note {
    pub(super) fn encode(&self) -> [u8; NOTE_BYTES] {
        let mut out = [0; NOTE_BYTES];
        let words = [
            self.log.origin.get(),
            self.log.incarnation.counter,
            self.log.incarnation.nonce,
            self.since,
            self.first,
            self.before,
        ];
        for (target, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *target = word.to_le_bytes();
        }
        if let Some(last) = out.last_mut() {
            *last = u8::from(number(self.log.lane) != 0);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<NOTE_BYTES>()?;
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let origin = Origin::from_u64(words.next()?);
        let incarnation = Incarnation { counter: words.next()?, nonce: words.next()? };
        let (since, first, before) = (words.next()?, words.next()?, words.next()?);
        let lane = match bytes.last()? {
            0 => Lane::Tokens,
            1 => Lane::Values,
            _ => return None,
        };
        let log = TokenLog { origin, incarnation, lane };
        (first > 0 && since > 0).then_some(Self { log, since, first, before })
    }
}

/// The tokens of a frame, and since when its log's frames follow each other; `None` for frames of
/// other things.
pub(super) fn note_of<'a>(frame: &Frame<'a>) -> Option<(u64, Records<'a>)> {
    let mut records = frame.records();
    let note = records.next()?.ok().filter(|it| it.kind == RecordKind::Note)?;
    if note.version != OF_TOKENS {
        return None;
    }
    let note = Note::decode(note.payload)?;
    let tokens = records.next()?.ok().filter(|it| it.kind == RecordKind::Token)?;
    let Note { log, since, first, before } = note;
    Some((since, Records { log, first, before, bytes: tokens.payload }))
}

fn vector_of(frame: &Frame<'_>) -> Option<Vector> {
    let record = frame.records().next()?.ok()?;
    let is_vector = record.kind == RecordKind::Note && record.version == OF_VECTOR;
    Vector::decode(record.payload).filter(|_| is_vector)
}

pub(super) fn vector_stream() -> StreamId {
    StreamId::of(KIND, "vector")
}

pub(super) fn stream(log: &TokenLog, since: u64) -> StreamId {
    let TokenLog { origin, incarnation, lane } = log;
    let Incarnation { counter, nonce } = incarnation;
    StreamId::of(KIND, &format!("{origin}/{counter}.{nonce}/{}/{since}", number(*lane)))
}

/// The vector as the folder says it; and whether it must be written anew before anything else.
pub(super) fn recover(log: &Log, life: u64, damaged: bool) -> Result<(Vector, bool), OpenError> {
    let mut newest = None;
    let mut broken = damaged;
    let visited = log.stream_newest(vector_stream(), &mut |frame| {
        let found = frame.map(|frame| (vector_of(&frame), frame.lsn()));
        if let Ok((Some(vector), lsn)) = found {
            newest = Some((vector, lsn.get()));
            return ControlFlow::Break(());
        }
        broken = true;
        ControlFlow::Continue(())
    });
    broken |= visited.is_err();
    let (mut vector, from) = newest.unwrap_or_default();
    match replay(log, &mut vector, from) {
        Ok(whole) => broken |= !whole,
        Err(ReadError::Disk(error)) => return Err(error.into()),
        Err(ReadError::Damage(_) | ReadError::PositionLost { .. }) => broken = true,
    }
    if broken {
        vector.begin_anew(life);
    }
    Ok((vector, broken))
}

/// Takes in the frames behind the newest vector; `false` if one of them does not follow.
fn replay(log: &Log, vector: &mut Vector, from: u64) -> Result<bool, ReadError> {
    let mut frames = log.frames(from, Limit::Written)?;
    let mut whole = true;
    while let Some(frame) = frames.next()? {
        let Some((since, records)) = note_of(&frame) else { continue };
        let known = vector.get(&records.log).map_or(0, |kept| kept.since);
        // Frames of before the log was adopted anew are not what it is now.
        if known == 0 || known == since {
            whole &= vector.keep(&records, since);
        }
    }
    Ok(whole)
}
