//! A node's own tokens: numbered, chained and appended to the event log under one lock.
//!
//! ```text
//!  ops --> [lock: number, encode, chain, append the frame, window, local caches] --> told to peers
//! ```
//!
//! So the order of the log is the order of the numbers, and nothing is scanned to find out what was
//! published. What nodes publish by themselves goes into system frames of the event log, which no
//! actor's stream has and no index knows; what a turn publishes is in the turn's own frame.
//!
//! Whoever is up to date is served from the *window*: the newest records as they are sent, a few
//! MiB for all peers together. Laggards are served from the log, through one remembered position
//! for every 256 tokens. Below the *floor* nothing can be had any more; its hash is kept.
//!
//! Lock order: `state`, then the log's; `state`, then `tail`. `tail` is never held over I/O.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::error::{AppendError, ReadError, Reject};
use crate::log::frame::{Batch, RecordKind};
use crate::log::{Appended, Frames, Limit, Log};
use crate::op::{Op, OpKind};
use crate::sync::domain::DomainId;
use crate::sync::origin::{Cursor, TokenLog};
use crate::sync::token::{Token, TokenKind, chain, split};
use crate::time::Clock;
use crate::types::{HybridTime, Lsn, Seq, StreamId};

use window::Window;

pub(crate) mod window;

/// Version of a record of tokens in a frame.
const VERSION: u16 = 1;
/// A position is remembered for every so many tokens.
const INDEXED: u64 = 256;
/// What is read at a time to work out a hash.
const READ_BYTES: usize = 64 << 10;
/// What is kept of the newest tokens, as they are sent.
const WINDOW_BYTES: usize = 4 << 20;
/// Tokens become visible in steps of so many bytes of the log, at least.
const MARKED: u64 = 4096;

/// What is said in a token, before it has its number.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Said<'a> {
    pub kind: TokenKind,
    pub domain: DomainId,
    pub body: &'a [u8],
}

impl<'a> From<Op<'a>> for Said<'a> {
    fn from(op: Op<'a>) -> Self {
        let kind = match op.kind {
            OpKind::Key => TokenKind::Key,
            OpKind::Tag => TokenKind::Tag,
            OpKind::Prefix => TokenKind::Prefix,
            OpKind::All => TokenKind::All,
        };
        Self { kind, domain: op.domain, body: op.body }
    }
}

/// Who is told of what this node publishes.
pub(crate) trait Listener: Debug + Send + Sync {
    /// In the order of the numbers, under the lock: short, and it publishes nothing.
    fn said(&self, log: &TokenLog, token: &Token<'_>);

    /// There are new tokens. Called without the lock.
    fn news(&self);
}

/// What was published.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// The number of the last token.
    pub last: u64,
    /// When, by the node's hybrid clock.
    pub time: HybridTime,
    /// Where its frame is.
    pub at: Appended,
}

/// The node's own tokens of this life.
#[derive(Debug)]
pub(crate) struct Own {
    log: Arc<Log>,
    clock: Clock,
    state: Mutex<State>,
    tail: Mutex<Tail>,
    listener: RwLock<Option<Arc<dyn Listener>>>,
}

#[derive(Debug)]
struct State {
    numbers: Numbers,
    /// For frames of their own.
    batch: Batch,
}

/// What gives numbers.
#[derive(Debug)]
struct Numbers {
    tokens: TokenLog,
    seq: u64,
    hash: u64,
    time: HybridTime,
    encoded: Vec<u8>,
}

/// What is remembered of what was published.
#[derive(Debug)]
struct Tail {
    tokens: TokenLog,
    seq: u64,
    hash: u64,
    time: HybridTime,
    window: Window,
    index: VecDeque<Entry>,
    /// Of the oldest token that can be had: the number and the hash before it.
    floor: (u64, u64),
    /// What is not durable yet.
    marks: VecDeque<Mark>,
    /// Durable up to this number.
    durable: u64,
}

/// Where the tokens from `first` on begin.
#[derive(Copy, Clone, Debug)]
struct Entry {
    first: u64,
    /// The running hash before it.
    hash: u64,
    lsn: u64,
    time: HybridTime,
}

/// Once the log is durable up to `end`, so are the tokens up to `seq`.
#[derive(Copy, Clone, Debug)]
struct Mark {
    start: u64,
    end: u64,
    seq: u64,
}

impl Own {
    /// The tokens of a life whose log is `log`. None was published in it.
    pub(crate) fn new(log: Arc<Log>, tokens: TokenLog, clock: Clock) -> Self {
        let time = HybridTime::default();
        let numbers = Numbers { tokens, seq: 0, hash: 0, time, encoded: Vec::new() };
        Self {
            log,
            clock,
            state: Mutex::new(State { numbers, batch: Batch::new() }),
            tail: Mutex::new(Tail::new(tokens, time)),
            listener: RwLock::new(None),
        }
    }

    /// Whose, in which life.
    pub(crate) fn tokens(&self) -> TokenLog {
        self.tail.lock().tokens
    }

    /// From now on `listener` is told, and nobody else.
    pub(crate) fn listen(&self, listener: Option<Arc<dyn Listener>>) {
        // Under the lock: so that what is told begins between two frames.
        let _state = self.state.lock();
        *self.listener.write() = listener;
    }

    /// The last token that was published.
    pub(crate) fn head(&self) -> Cursor {
        let tail = self.tail.lock();
        Cursor { log: tail.tokens, seq: tail.seq, hash: tail.hash }
    }

    /// The last token that no power cut takes back.
    pub(crate) fn durable(&self) -> u64 {
        let durable = self.log.durable();
        self.tail.lock().settle(durable)
    }

    /// What is to be durable for all tokens to be so; `None` if they are.
    pub(crate) fn pending(&self) -> Option<Lsn> {
        let durable = self.log.durable();
        let mut tail = self.tail.lock();
        tail.settle(durable);
        tail.marks.back().and_then(|mark| Lsn::new(mark.end))
    }

    /// The log that they are in.
    pub(crate) fn events(&self) -> &Arc<Log> {
        &self.log
    }

    /// Publishes `said` in a frame of its own.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was published.
    #[expect(single_use_lifetimes, reason = "an `impl` cannot do without its name")]
    pub(crate) fn publish<'a>(
        &self,
        said: impl Iterator<Item = Said<'a>>,
    ) -> Result<Published, AppendError> {
        let published = {
            let mut state = self.state.lock();
            let State { numbers, batch } = &mut *state;
            batch.clear();
            self.append(numbers, batch, (StreamId::SYSTEM, Seq::ZERO), said)?
        };
        self.ring();
        Ok(published)
    }

    /// Appends a turn's frame with what the turn publishes. [`ring`](Self::ring) is left to the
    /// caller.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended. The batch may have grown.
    #[expect(single_use_lifetimes, reason = "an `impl` cannot do without its name")]
    pub(crate) fn publish_in<'a>(
        &self,
        batch: &mut Batch,
        of: (StreamId, Seq),
        said: impl Iterator<Item = Said<'a>>,
    ) -> Result<Published, AppendError> {
        self.append(&mut self.state.lock().numbers, batch, of, said)
    }

    /// Tells that there are new tokens.
    pub(crate) fn ring(&self) {
        let listener = self.listener.read().clone();
        if let Some(listener) = listener {
            listener.news();
        }
    }

    #[expect(single_use_lifetimes, reason = "an `impl` cannot do without its name")]
    fn append<'a>(
        &self,
        numbers: &mut Numbers,
        batch: &mut Batch,
        (stream, first): (StreamId, Seq),
        said: impl Iterator<Item = Said<'a>>,
    ) -> Result<Published, AppendError> {
        let (before, tokens) = ((numbers.seq, numbers.hash), numbers.tokens);
        let time = self.clock.hybrid_after(numbers.time);
        let (mut seq, mut hash) = before;
        numbers.encoded.clear();
        for Said { kind, domain, body } in said {
            seq += 1;
            let start = numbers.encoded.len();
            Token { seq, time, domain, kind, flags: 0, body }
                .encode(&tokens, &mut numbers.encoded)
                .map_err(|_reject| too_large(body.len()))?;
            hash = chain(hash, numbers.encoded.get(start..).unwrap_or_default());
        }
        if seq == before.0 {
            // Nothing is said: then it is a frame like others, if there is anything in it.
            let at = self.log.append(batch, stream, first)?;
            return Ok(Published { last: seq, time, at });
        }
        batch
            .push(RecordKind::Token, VERSION, &numbers.encoded)
            .map_err(|_full: Reject| too_large(numbers.encoded.len()))?;
        let at = self.log.append(batch, stream, first)?;
        (numbers.seq, numbers.hash, numbers.time) = (seq, hash, time);
        self.tail.lock().take_in(before, (seq, hash, time), &at, &numbers.encoded);
        if let Some(listener) = &*self.listener.read() {
            let mut rest = &*numbers.encoded;
            while let Ok((record, after)) = split(rest) {
                rest = after;
                if let Ok(token) = Token::parse(record) {
                    listener.said(&tokens, &token);
                }
            }
        }
        Ok(Published { last: seq, time, at })
    }

    /// Nothing at or below this one can be had: the number, and the hash after it.
    pub(crate) fn floor(&self) -> Cursor {
        let tail = self.tail.lock();
        let (seq, hash) = tail.floor;
        Cursor { log: tail.tokens, seq, hash }
    }

    /// Tokens up to `upto` need not be had any more; but from number `held` on they must.
    pub(crate) fn release(&self, upto: u64, held: u64) {
        self.tail.lock().release(&|next| next.first <= held && next.first <= upto + 1);
    }

    /// Nor what lies more than so many bytes back in the log, or is older than `oldest`.
    pub(crate) fn release_old(&self, bytes_max: u64, oldest: HybridTime, held: u64) {
        let below = self.log.written().saturating_sub(bytes_max);
        let is_old = |next: &Entry| next.lsn < below || next.time < oldest;
        self.tail.lock().release(&|next| next.first <= held && is_old(next));
    }

    /// Nothing of the log at or above this position may go; `None` if no token is there.
    pub(crate) fn pinned(&self) -> Option<u64> {
        self.tail.lock().index.front().map(|entry| entry.lsn)
    }

    /// The running hash at a number from the floor to the head.
    pub(crate) fn hash_at(self: &Arc<Self>, seq: u64) -> Option<u64> {
        let (mut at, mut hash) = {
            let tail = self.tail.lock();
            if seq == tail.seq {
                return Some(tail.hash);
            }
            if seq < tail.floor.0 || seq > tail.seq {
                return None;
            }
            let number = tail.index.partition_point(|entry| entry.first <= seq + 1);
            let entry = number.checked_sub(1).and_then(|it| tail.index.get(it));
            entry.map_or(tail.floor, |entry| (entry.first - 1, entry.hash))
        };
        let (mut reader, mut out) = (self.reader(), Vec::new());
        while at < seq {
            out.clear();
            reader.read(at + 1, READ_BYTES, &mut out).ok()??;
            let mut rest = &*out;
            while let Ok((record, after)) = split(rest)
                && at < seq
            {
                (at, hash, rest) = (at + 1, chain(hash, record), after);
            }
        }
        Some(hash)
    }

    /// The time of the newest token.
    pub(crate) fn time(&self) -> HybridTime {
        self.tail.lock().time
    }

    /// How far it is, and a position of the log from which on there is all that follows.
    pub(crate) fn anchor(&self) -> (Cursor, u64) {
        // No token's frame is on its way while this is held.
        let state = self.state.lock();
        let Numbers { tokens, seq, hash, .. } = state.numbers;
        (Cursor { log: tokens, seq, hash }, self.log.written())
    }

    /// Another life of the node: its numbers begin anew.
    pub(crate) fn begin_again(&self, tokens: TokenLog) {
        let mut state = self.state.lock();
        let mut tail = self.tail.lock();
        let time = state.numbers.time;
        state.numbers = Numbers { tokens, seq: 0, hash: 0, time, encoded: Vec::new() };
        *tail = Tail::new(tokens, time);
    }

    /// Follows the tokens, for one who ships them.
    pub(crate) fn reader(self: &Arc<Self>) -> OwnReader {
        OwnReader { own: Arc::clone(self), frames: None, next: 0 }
    }

    /// The last token of a log that the event log has from position `from` on, where `cursor` is
    /// at the last one before that. For a life that has ended: the event log ended at `end` with
    /// it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(crate) fn last_of(
        log: &Log,
        (from, end): (u64, u64),
        mut cursor: Cursor,
    ) -> Result<Cursor, ReadError> {
        if from >= end {
            return Ok(cursor);
        }
        let mut frames = log.frames(from, Limit::Written)?;
        while let Some(frame) = frames.next()? {
            for record in frame.records().flatten().filter(|it| it.kind == RecordKind::Token) {
                let mut rest = record.payload;
                while let Ok((token, after)) = Token::decode(rest, &cursor.log) {
                    let bytes = rest.len() - after.len();
                    if token.seq == cursor.seq + 1 {
                        cursor.hash = chain(cursor.hash, rest.get(..bytes).unwrap_or_default());
                        cursor.seq = token.seq;
                    }
                    rest = after;
                }
            }
        }
        Ok(cursor)
    }
}

fn too_large(bytes: usize) -> AppendError {
    AppendError::GroupTooLarge { bytes, max: super::token::BODY_BYTES_MAX }
}

impl Tail {
    fn new(tokens: TokenLog, time: HybridTime) -> Self {
        Self {
            tokens,
            seq: 0,
            hash: 0,
            time,
            window: Window::of(WINDOW_BYTES),
            index: VecDeque::new(),
            floor: (0, 0),
            marks: VecDeque::new(),
            durable: 0,
        }
    }

    fn take_in(
        &mut self,
        (before, hash_before): (u64, u64),
        (seq, hash, time): (u64, u64, HybridTime),
        at: &Appended,
        encoded: &[u8],
    ) {
        (self.seq, self.hash, self.time) = (seq, hash, time);
        let first = before + 1;
        if self.index.back().is_none_or(|last| first >= last.first + INDEXED) {
            self.index.push_back(Entry { first, hash: hash_before, lsn: at.lsn.get(), time });
        }
        match self.marks.back_mut() {
            Some(mark) if at.end.get() - mark.start <= MARKED => {
                (mark.end, mark.seq) = (at.end.get(), seq);
            }
            Some(_) | None => {
                self.marks.push_back(Mark { start: at.lsn.get(), end: at.end.get(), seq });
            }
        }
        self.window.push(first, encoded);
    }

    /// The log is durable up to there; answers which token is.
    fn settle(&mut self, durable: u64) -> u64 {
        while let Some(mark) = self.marks.front().filter(|mark| mark.end <= durable) {
            self.durable = mark.seq;
            self.marks.pop_front();
        }
        self.durable
    }

    /// Raises the floor up to the last remembered position that `may` go to; the newest stays.
    fn release(&mut self, may: &dyn Fn(&Entry) -> bool) {
        while let Some(next) = self.index.get(1).copied()
            && may(&next)
        {
            self.index.pop_front();
            self.floor = (next.first - 1, next.hash);
        }
    }
}

/// Why tokens cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// They are below the floor.
    #[error("the tokens are no longer kept")]
    Gone,
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Reads a node's own tokens, in order, from anywhere.
#[derive(Debug)]
pub(crate) struct OwnReader {
    own: Arc<Own>,
    frames: Option<Frames>,
    /// What `frames` comes to next, at the latest.
    next: u64,
}

impl OwnReader {
    /// Adds the records from number `from` on to `out`, as many as fit `bytes_max`, but one at
    /// least; answers the number of the last; `None` if there is none yet.
    ///
    /// # Errors
    /// See [`Unread`]; `out` may have grown by whole records.
    pub(crate) fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, Unread> {
        let entry = {
            let tail = self.own.tail.lock();
            if from > tail.seq {
                return Ok(None);
            }
            if from <= tail.floor.0 {
                return Err(Unread::Gone);
            }
            if let Some(last) = tail.window.read(from, bytes_max, out) {
                self.frames = None;
                return Ok(Some(last));
            }
            let number = tail.index.partition_point(|entry| entry.first <= from);
            *number.checked_sub(1).and_then(|it| tail.index.get(it)).ok_or(Unread::Gone)?
        };
        let read = self.read_log(from, bytes_max, out, entry);
        if let Err(Unread::Read(_)) = &read {
            self.frames = None;
            // Nobody will read there: that is a gap, and whoever asks is told so.
            self.own.tail.lock().release(&|next| next.first <= entry.first + INDEXED);
        }
        read
    }

    fn read_log(
        &mut self,
        from: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
        entry: Entry,
    ) -> Result<Option<u64>, Unread> {
        // Where it stands may be nearer than what is remembered.
        let stands = self.frames.as_ref().is_some() && self.next == from;
        let mut frames = match self.frames.take().filter(|_| stands) {
            Some(frames) => frames,
            None => self.own.log.frames(entry.lsn, Limit::Written)?,
        };
        let start = out.len();
        let mut last = None;
        while let Some(frame) = frames.next()? {
            for record in frame.records().flatten().filter(|it| it.kind == RecordKind::Token) {
                let mut rest = record.payload;
                while let Ok((bytes, after)) = split(rest) {
                    rest = after;
                    let seq = Token::parse(bytes).map_or(0, |token| token.seq);
                    if seq < from {
                        continue;
                    }
                    if out.len() - start + bytes.len() > bytes_max && last.is_some() {
                        // In the midst of a frame: the next call looks for it again.
                        return Ok(last);
                    }
                    out.extend_from_slice(bytes);
                    last = Some(seq);
                }
            }
            if out.len() - start >= bytes_max {
                break;
            }
        }
        if let Some(last) = last {
            (self.frames, self.next) = (Some(frames), last + 1);
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests;
