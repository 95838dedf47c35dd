//! Cursors: named positions in the event stream that outlive a crash.
//!
//! A cursor is a stream of its own, of kind `annals.cursor` under the cursor's name; each save is
//! a frame there, with a note that is the position, or is empty where the cursor was deleted. One
//! stream more, `annals.cursors`/`names`, has the names, each before the cursor's first frame. So
//! cursors are found at open by a look at a few streams, and need nothing derived. None of these
//! notes is one that an actor could have left: those begin with a number from 1 to 15, a position
//! with a multiple of 16, and a name here has a zero before it.
//!
//! **A cursor never points at what a crash took back.** Whoever saves a position has read the log
//! up to there, so what is before the position was appended before the cursor's frame; and what
//! is durable is a prefix of the log. If the frame is there, so is all that it speaks of. For the
//! same reason a save waits for nothing.
//!
//! What retention may drop is another matter: there the lower of the last position that is
//! durable and the last that was saved counts ([`Cursors::floor`]), because a power cut may take
//! back the cursor and not what was dropped.
//!
//! Lock order: the table of cursors, then the log's.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::noted::Noted;
use super::providers::home;
use super::stream::Position;
use super::{Store, View};
use crate::actor::provider::Pins;
use crate::error::{AppendError, Error, ReadError, StreamError};
use crate::log::frame::{Batch, Record, RecordKind};
use crate::log::{Appended, Log, Seen, name as name_record};
use crate::sync::node::Node;
use crate::trace;
use crate::types::{HybridTime, Lsn, Seq, StreamId};

/// The kind of the streams of cursors.
const KIND: &str = "annals.cursor";
/// The stream of their names.
const NAMES: (&str, &str) = ("annals.cursors", "names");
/// Version of both notes.
const VERSION: u16 = 1;

/// The cursors of a store.
#[derive(Debug)]
pub(super) struct Cursors {
    log: Arc<Log>,
    /// Read when it is first asked for.
    table: Mutex<Option<Table>>,
    saved: AtomicU64,
    deleted: AtomicU64,
}

/// What there is of cursors, and what was done with them since the store was opened.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CursorStats {
    /// Cursors that are set: 0 until somebody has asked for any ([`Store::cursors`] does).
    pub set: u64,
    /// How many bytes of the log are before the last of them.
    pub lag_bytes: u64,
    /// Positions saved.
    pub saved: u64,
    /// Cursors deleted.
    pub deleted: u64,
}

#[derive(Debug, Default)]
struct Table {
    cells: BTreeMap<Arc<str>, Cell>,
    /// The last frame of the names' stream.
    names: Seq,
}

/// One cursor.
#[derive(Copy, Clone, Debug, Default)]
struct Cell {
    /// Its name is in the stream of names.
    listed: bool,
    /// The last frame of its stream.
    seq: Seq,
    /// Where it is; `None` where it was never saved, or deleted.
    position: Option<Position>,
    /// The mark that covers the frame which says so; 0: it was found at open.
    saved: u64,
    /// Where it was, the last time that this was known to be durable.
    durable: Option<Position>,
}

impl Cell {
    /// What no power cut takes back, now that everything below `mark` is durable.
    fn settle(&mut self, mark: u64) {
        if self.saved <= mark {
            self.durable = self.position;
        }
    }

    /// The lowest position that a next life may find.
    fn lowest(&self) -> Option<Position> {
        self.position.into_iter().chain(self.durable).min()
    }
}

impl Cursors {
    pub(super) fn new(log: &Arc<Log>) -> Arc<Self> {
        Arc::new(Self {
            log: Arc::clone(log),
            table: Mutex::new(None),
            saved: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
        })
    }

    /// Reads nothing.
    pub(super) fn stats(&self) -> CursorStats {
        // Relaxed, here and below: numbers, on which no data hangs.
        let (saved, deleted) =
            (self.saved.load(Ordering::Relaxed), self.deleted.load(Ordering::Relaxed));
        let table = self.table.lock();
        let cells = table.iter().flat_map(|table| table.cells.values());
        let (mut set, mut lowest) = (0, u64::MAX);
        for position in cells.filter_map(|cell| cell.position) {
            set += 1;
            lowest = lowest.min(position.lsn());
        }
        let lag_bytes = self.log.written().saturating_sub(lowest);
        CursorStats { set, lag_bytes, saved, deleted }
    }

    fn with<T, E: From<ReadError>>(
        &self,
        act: impl FnOnce(&Log, &mut Table) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut table = self.table.lock();
        if table.is_none() {
            *table = Some(read(&self.log)?);
        }
        act(&self.log, table.get_or_insert_default())
    }

    /// The names and positions of all cursors.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(super) fn all(&self) -> Result<BTreeMap<String, Position>, ReadError> {
        self.with(|_, table| {
            let cells = table.cells.iter();
            let there = |(name, cell): (&Arc<str>, &Cell)| Some((name.to_string(), cell.position?));
            Ok(cells.filter_map(there).collect())
        })
    }

    /// The lowest position that any cursor may be found at by the next life, whatever ends this
    /// one; `None` where there are no cursors. Nothing at or behind it may be dropped.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(super) fn floor(&self) -> Result<Option<Position>, ReadError> {
        self.with(|log, table| {
            let durable = log.durable();
            let lowest = table.cells.values_mut().filter_map(|cell| {
                cell.settle(durable);
                cell.lowest()
            });
            Ok(lowest.min())
        })
    }

    fn position(&self, name: &str) -> Result<Option<Position>, ReadError> {
        self.with(|_, table| Ok(table.cells.get(name).and_then(|cell| cell.position)))
    }

    /// Sets a cursor, or deletes it. Answers the mark that covers that.
    fn set(&self, name: &Arc<str>, position: Option<Position>) -> Result<Option<Lsn>, StreamError> {
        self.with(|log, table| {
            let end = log.written();
            if let Some(position) = position.filter(|position| position.lsn() > end) {
                return Err(StreamError::Ahead { position: position.lsn(), end });
            }
            if position.is_none() && table.cells.get(name).is_none_or(|it| it.position.is_none()) {
                return Ok(None);
            }
            let cell = table.cells.entry(Arc::clone(name)).or_default();
            if !cell.listed {
                note(log, NAMES, &mut table.names, &[&[0], name.as_bytes()].concat())?;
                cell.listed = true;
            }
            let bytes = position.map(Position::to_bytes);
            let payload = bytes.as_ref().map_or(&[][..], |bytes| &bytes[..]);
            let appended = note(log, (KIND, name), &mut cell.seq, payload)?;
            cell.settle(log.durable());
            cell.position = position;
            cell.saved = appended.end.get();
            let counter = if position.is_some() { &self.saved } else { &self.deleted };
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Some(appended.end))
        })
    }
}

/// What must stay of the events: what is owed, and what a cursor has not passed.
#[derive(Debug)]
pub(super) struct Pinned {
    pub owed: Arc<dyn Pins>,
    pub cursors: Arc<Cursors>,
    pub node: Option<Arc<Node>>,
}

impl Pins for Pinned {
    fn owed_from(&self, stream: StreamId) -> Option<Seq> {
        self.owed.owed_from(stream)
    }

    fn cursor_floor(&self) -> Option<u64> {
        let tokens = self.node_floor();
        match self.cursors.floor() {
            Ok(floor) => floor.map(Position::lsn).into_iter().chain(tokens).min(),
            // Nobody knows: nothing goes.
            Err(_unread) => Some(0),
        }
    }

    fn node_floor(&self) -> Option<u64> {
        self.node.as_ref().and_then(|node| node.pinned())
    }

    fn goes_upto(&self, stream: StreamId) -> Option<Seq> {
        self.node.as_ref().and_then(|node| node.goes_upto(stream))
    }

    fn is_superseding(&self, stream: StreamId) -> bool {
        self.owed.is_superseding(stream)
    }

    fn is_held_up(&self, stream: StreamId) {
        self.owed.is_held_up(stream);
    }

    fn wait_known(&self, limit: Duration) {
        self.owed.wait_known(limit);
    }
}

/// Appends a note to a stream whose last frame is `seq`.
pub(super) fn note(
    log: &Log,
    (kind, name): (&str, &str),
    seq: &mut Seq,
    payload: &[u8],
) -> Result<Appended, AppendError> {
    let mut batch = Batch::new();
    let pushed = (|| {
        if *seq == Seq::ZERO {
            let record = name_record::encode(kind, name).unwrap_or_default();
            batch.push(RecordKind::Name, 1, &record)?;
        }
        batch.push(RecordKind::Turn, 1, &[])?;
        batch.push(RecordKind::Note, VERSION, payload)
    })();
    let next = seq.checked_add(1).filter(|_| pushed.is_ok());
    // Some dozen bytes in three records, and 2^48 frames.
    let Some(next) = next else { return Err(AppendError::Closed) };
    let appended = log.append(&mut batch, StreamId::of(kind, name), next)?;
    *seq = next;
    Ok(appended)
}

/// Visits the notes of a stream after `after`; answers its last frame.
pub(super) fn notes(
    log: &Log,
    stream: StreamId,
    after: Seq,
    visit: &mut dyn FnMut(&[u8]),
) -> Result<Seq, ReadError> {
    let end = log.stream(stream, after, &mut |frame| {
        for record in frame.records().flatten() {
            if record.kind == RecordKind::Note && record.version == VERSION {
                visit(record.payload);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(end.last)
}

/// Reads what the log has of cursors.
fn read(log: &Log) -> Result<Table, ReadError> {
    let mut table = Table::default();
    let mut names = Vec::new();
    table.names = notes(log, StreamId::of(NAMES.0, NAMES.1), Seq::ZERO, &mut |payload| {
        let name = payload.get(1..).and_then(|name| str::from_utf8(name).ok());
        names.extend(name.map(Arc::<str>::from));
    })?;
    for name in names {
        let stream = StreamId::of(KIND, &name);
        let last = log.last_seq(stream)?;
        let before = Seq::new(last.get().saturating_sub(1)).unwrap_or_default();
        let mut position = None;
        let seq = notes(log, stream, before, &mut |payload| {
            position = payload.first_chunk().map(|bytes| Position::from_bytes(*bytes));
        })?;
        // What an open has found is durable.
        let cell = Cell { listed: true, seq, position, saved: 0, durable: position };
        table.cells.insert(name, cell);
    }
    Ok(table)
}

/// What a note in a stream of cursors says.
pub(super) fn noted<'a>(kind: &str, record: &Record<'a>) -> Option<Noted<'a>> {
    let payload = record.payload;
    Some(match kind {
        KIND if payload.is_empty() => Noted::CursorDeleted,
        KIND => {
            let position = Position::from_bytes(*payload.first_chunk()?);
            Noted::CursorSet { position }
        }
        _ if kind == NAMES.0 => {
            Noted::CursorNamed { name: str::from_utf8(payload.get(1..)?).ok()? }
        }
        _ => return None,
    })
}

/// A cursor, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CursorInfo {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub position: Position,
    /// How many bytes of the log are before it.
    pub lag_bytes: u64,
    /// When it was saved last.
    pub saved: HybridTime,
}

impl View {
    /// All cursors, as this view found them, by their names: of whoever has the store open, those
    /// that are set. Reads the log backwards, file by file, until it has found each of them: what
    /// is used is found at the end.
    ///
    /// # Errors
    /// The file system's. What is damaged is passed over: see [`verify`](Self::verify).
    pub fn cursors(&self) -> Result<Vec<CursorInfo>, Error> {
        let mut wanted: HashMap<StreamId, String> = HashMap::new();
        let mut names = self.events.stream(StreamId::of(NAMES.0, NAMES.1));
        names.stop_at(self.written());
        while let Some(seen) = names.next()? {
            let Seen::Frame(frame) = seen else { continue };
            for record in frame.records().flatten() {
                if let Some(Noted::CursorNamed { name }) = Noted::read(NAMES.0, &record) {
                    wanted.insert(StreamId::of(KIND, name), name.to_owned());
                }
            }
        }
        let mut found = Vec::new();
        let mut end = self.written();
        for segment in self.segments().iter().rev() {
            if wanted.is_empty() {
                break;
            }
            // The newest of this file, by their numbers.
            let mut newest: HashMap<StreamId, (Seq, Option<Position>, HybridTime)> = HashMap::new();
            let mut frames = self.events.frames(segment.base);
            frames.stop_at(end);
            while let Some(seen) = frames.next()? {
                let Seen::Frame(frame) = seen else { continue };
                let header = frame.header();
                let known = newest.get(&header.stream).map_or(Seq::ZERO, |known| known.0);
                if !wanted.contains_key(&header.stream) || header.seq < known {
                    continue;
                }
                for record in frame.records().flatten() {
                    let position = match Noted::read(KIND, &record) {
                        Some(Noted::CursorSet { position }) => Some(position),
                        Some(Noted::CursorDeleted) => None,
                        Some(_) | None => continue,
                    };
                    newest.insert(header.stream, (header.seq, position, header.time));
                }
            }
            for (stream, (_, position, saved)) in newest {
                let (Some(name), Some(position)) = (wanted.remove(&stream), position) else {
                    continue;
                };
                let lag_bytes = self.written().saturating_sub(position.lsn());
                found.push(CursorInfo { name, position, lag_bytes, saved });
            }
            end = segment.base;
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

/// A named position in the event stream. See [`Store::cursor`].
#[derive(Clone, Debug)]
pub struct Cursor {
    cursors: Arc<Cursors>,
    name: Arc<str>,
    /// Where it was when it was asked for; of all owners of the name the last to save counts.
    found: Option<Position>,
}

impl Cursor {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was saved last; `None` where it never was, or was deleted.
    pub fn position(&self) -> Option<Position> {
        self.cursors.position(&self.name).unwrap_or(self.found)
    }

    /// Sets it to `position`: what is before is handled. It may go back.
    ///
    /// It survives the process from here on, and power loss with the next commit, which is not
    /// waited for: before that a power cut leaves it where it was. Answers the mark that covers
    /// it.
    ///
    /// # Errors
    /// [`StreamError::Ahead`] where the log does not reach that far; [`StreamError::Append`]. The
    /// cursor is as it was.
    pub fn save(&self, position: Position) -> Result<Lsn, StreamError> {
        let saved = self.cursors.set(&self.name, Some(position))?;
        let (path, cursor) = (home(&self.cursors.log), &*self.name);
        trace::CursorSaved { path, cursor, position: &position }.tell();
        saved.ok_or(StreamError::Closed)
    }
}

impl Store {
    /// The cursor of that name, which need not exist: it does once it is saved. Its events are
    /// kept, whatever retention says, from its position on.
    ///
    /// # Errors
    /// [`StreamError::BadName`], [`StreamError::Read`].
    pub fn cursor(&self, name: &str) -> Result<Cursor, Error> {
        if !(1..=name_record::NAME_BYTES_MAX).contains(&name.len()) {
            return Err(StreamError::BadName.into());
        }
        let found = self.cursors.position(name)?;
        Ok(Cursor { cursors: Arc::clone(&self.cursors), name: name.into(), found })
    }

    /// All cursors, and where they are.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn cursors(&self) -> Result<BTreeMap<String, Position>, Error> {
        Ok(self.cursors.all()?)
    }

    /// Deletes a cursor: it keeps nothing any more. `false` where there was none.
    ///
    /// # Errors
    /// [`StreamError::Append`], [`StreamError::Read`].
    pub fn delete_cursor(&self, name: &str) -> Result<bool, Error> {
        let deleted = self.cursors.set(&name.into(), None)?.is_some();
        if deleted {
            trace::CursorDeleted { path: &self.path, cursor: name }.tell();
        }
        Ok(deleted)
    }

    /// The lowest position that any cursor may be found at after a crash; `None` without cursors.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn cursor_floor(&self) -> Result<Option<Position>, Error> {
        Ok(self.cursors.floor()?)
    }
}
