//! Loading: the newest usable snapshot, then the events after it that still count.
//!
//! A rewind is a fact among the events: from there on the state is what it was after an earlier
//! event. So the state after event `n` is made of *stretches*: of the last rewind at or before `n`
//! the events behind it, before them those of the state that it went to, and so on down, each
//! stretch below the one before:
//!
//! ```text
//!   1 2 3 4 5 [6: to 3] 7 8 [9: to 7] 10      after 10: 1..=3, 7, 10
//! ```
//!
//! Most actors have no rewind, and one pass over the frames is enough. Where there is one, the
//! first pass ends there; the stretches are found from the end down, snapshot by snapshot, so that
//! no frame is looked at for that twice; and a second pass applies what lies in them. However
//! often and however deep an actor was rewound, its events are read at most three times.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::cell::{Cell, Live, drop_quietly};
use super::error::{StopReason, Stopped};
use super::mailbox::Mark;
use super::note::Note;
use super::provider::{EventStore, Replayed, SnapshotStore};
use super::saving::WallTime;
use super::side::Side;
use super::turn::message_of;
use super::{Actor, ActorError, ActorOptions, Old, Value as _};
use crate::log::frame::{Frame, Record, RecordKind};
use crate::log::name;
use crate::trace;
use crate::types::{FRAME_ALIGN, HybridTime, Lsn, Seq, StreamId};

/// Where an actor's past is.
pub(crate) struct Source<'a, A: Actor> {
    pub(crate) name: &'a str,
    pub(crate) stream: StreamId,
    pub(crate) events: &'a dyn EventStore,
    pub(crate) snapshots: &'a dyn SnapshotStore,
    pub(crate) options: &'a ActorOptions<A>,
}

/// A state as it is, or once was.
pub(crate) struct Rebuilt<A: Actor> {
    pub(crate) state: A,
    /// The event after which it was so.
    pub(crate) seq: Seq,
    /// The last frame that was read for it.
    pub(crate) lsn: Option<Lsn>,
    /// The mark that covers the stream's last frame.
    pub(crate) end: Mark,
    /// The event of the snapshot that it began with.
    pub(crate) saved: Seq,
    /// When the first turn behind that snapshot was.
    pub(crate) since: Option<HybridTime>,
    /// What the actor carries besides. Not told of the past.
    pub(crate) side: Option<Box<Side>>,
}

/// The state of an actor as its events left it. The caller is inside a turn as far as `ask` is
/// concerned, since this runs `apply`.
pub(crate) fn load<A: Actor>(cell: &Cell<A>) -> Result<Live<A>, ActorError> {
    let rebuilt = rebuild(&cell.source(), None)?;
    let Rebuilt { state, seq, lsn, end, saved, since, side } = rebuilt;
    let tried_ms = match since {
        Some(since) => since.millis(),
        None if cell.kind.sees_time => cell.shared().clock.wall_ms(),
        None => 0,
    };
    Ok(Live {
        state,
        seq,
        lsn,
        end,
        saved,
        tried: saved,
        tried_at: WallTime::of_ms(tried_ms),
        save_asked: false,
        leave_asked: false,
        side,
    })
}

/// The state as it was after event `upto`, or as it is. As for [`load`], the caller is inside a
/// turn.
pub(crate) fn rebuild<A: Actor>(
    source: &Source<'_, A>,
    upto: Option<Seq>,
) -> Result<Rebuilt<A>, ActorError> {
    let limit = upto.unwrap_or(Seq::MAX);
    let mut at_most = limit;
    loop {
        let base = source.base(at_most)?;
        let start = base.seq;
        let stretches = vec![Stretch { after: start, upto: limit }];
        let (loading, replayed) = match Loading::new(source, base, stretches).run() {
            Ok(Ran::Through(loading, replayed)) => (loading, replayed),
            Ok(Ran::IntoRewind) => return rewound(source, upto),
            // What cannot be applied may be something that a later rewind went back behind.
            Err(error) if is_unfit(&error) => {
                let rewinds = source.rewinds(start, limit);
                if rewinds.is_ok_and(|it| !it.found.is_empty()) {
                    return rewound(source, upto).map_err(|_also| error);
                }
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        // How far it had to come.
        let last = upto.unwrap_or(replayed.last);
        match loading.seq.cmp(&last) {
            Ordering::Equal => return Ok(loading.done(&replayed)),
            Ordering::Less if replayed.last < last => {
                loading.give_up();
                return Err(ActorError::NoEvent { seq: last, last: replayed.last });
            }
            Ordering::Less => return Err(loading.hole(&replayed)),
            // A snapshot of what is not in the log: not of this past. The one before may be.
            Ordering::Greater => {
                at_most = Seq::new(start.get().saturating_sub(1)).unwrap_or(Seq::ZERO);
                loading.give_up();
            }
        }
    }
}

/// Is it about an event that is there and cannot be applied?
fn is_unfit(error: &ActorError) -> bool {
    let ActorError::Stopped(stopped) = error else { return false };
    match stopped.why {
        StopReason::Panicked(_) | StopReason::NotArchive(_) | StopReason::Unreadable { .. } => true,
        StopReason::Hole | StopReason::Dropped | StopReason::Frame | StopReason::Note => false,
    }
}

/// [`rebuild`], where at least one rewind lies on the way.
fn rewound<A: Actor>(source: &Source<'_, A>, upto: Option<Seq>) -> Result<Rebuilt<A>, ActorError> {
    let Lineage { base, stretches, last } = source.lineage(upto)?;
    match Loading::new(source, base, stretches).run()? {
        Ran::Through(mut loading, replayed) => {
            if loading.ends_at(last) {
                Ok(loading.done(&replayed))
            } else if replayed.last < last {
                loading.give_up();
                Err(ActorError::NoEvent { seq: last, last: replayed.last })
            } else {
                Err(loading.hole(&replayed))
            }
        }
        Ran::IntoRewind => Err(source.stopped(last, None, StopReason::Frame)),
    }
}

/// The event after which the first turn later than `time` follows.
///
/// # Errors
/// [`StopReason::Dropped`] where that cannot be told any more.
pub(crate) fn seq_at<A: Actor>(
    source: &Source<'_, A>,
    time: HybridTime,
) -> Result<Seq, ActorError> {
    let mut found = Seq::ZERO;
    let replayed = source.events.replay(source.stream, Seq::ZERO, &mut |frame| {
        let header = frame.header();
        if header.time > time {
            return ControlFlow::Break(());
        }
        let numbered = frame.records().flatten().filter(|it| it.kind.is_numbered()).count() as u64;
        found = header.seq.checked_add(numbered.saturating_sub(1)).unwrap_or(Seq::MAX);
        ControlFlow::Continue(())
    })?;
    if found > Seq::ZERO && found < replayed.dropped {
        return Err(source.stopped(found, None, StopReason::Dropped));
    }
    Ok(found)
}

/// Has the actor gone back below event `floor` since? Then a snapshot of that event is not enough
/// for it. Also where that cannot be told.
pub(crate) fn goes_below(events: &dyn EventStore, stream: StreamId, floor: Seq) -> bool {
    let mut below = false;
    let read = events.replay(stream, floor, &mut |frame| {
        let mut seq = frame.seq();
        for record in frame.records().flatten().filter(|it| it.kind.is_numbered()) {
            if record.kind == RecordKind::Rewind && seq > floor {
                below |= rewound_to(&record, seq).is_none_or(|to| to < floor);
            }
            seq = seq.checked_add(1).unwrap_or(Seq::MAX);
        }
        if below { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    below || read.is_err()
}

/// What a rewind's record says: the event that it goes back to.
pub(crate) fn rewound_to(record: &Record<'_>, seq: Seq) -> Option<Seq> {
    let (to, rest) = record.payload.split_first_chunk::<8>()?;
    let to = Seq::new(u64::from_le_bytes(*to))?;
    (rest.is_empty() && to < seq).then_some(to)
}

/// Events that count: those behind `after`, up to `upto`.
#[derive(Copy, Clone, Debug)]
struct Stretch {
    after: Seq,
    upto: Seq,
}

/// What a state begins with: a snapshot, or nothing.
struct Base<A> {
    state: A,
    seq: Seq,
    covers: Option<Lsn>,
    side: Option<Box<Side>>,
}

/// Of what the state after event `last` is made.
struct Lineage<A> {
    base: Base<A>,
    /// In order.
    stretches: Vec<Stretch>,
    last: Seq,
}

/// Rewinds in a part of a stream, in order: where they stand, and where they go.
struct Rewinds {
    found: Vec<(Seq, Seq)>,
    replayed: Replayed,
}

impl<A: Actor> Source<'_, A> {
    /// The newest usable snapshot at or before `at_most`, or nothing.
    fn base(&self, at_most: Seq) -> Result<Base<A>, ActorError> {
        if let Some(base) = self.newest(at_most)? {
            return Ok(base);
        }
        match catch_unwind(AssertUnwindSafe(A::default)) {
            Ok(state) => Ok(Base { state, seq: Seq::ZERO, covers: None, side: None }),
            Err(payload) => {
                let why = StopReason::Panicked(message_of(payload));
                Err(self.stopped(Seq::ZERO, None, why))
            }
        }
    }

    /// Goes from event `upto` (or the last one) down, from rewind to rewind, until a snapshot lies
    /// in a stretch, or the first event does.
    fn lineage(&self, upto: Option<Seq>) -> Result<Lineage<A>, ActorError> {
        let mut last = upto;
        let mut bound = upto.unwrap_or(Seq::MAX);
        let mut stretches = Vec::new();
        loop {
            let base = self.base(bound)?;
            let rewinds = self.rewinds(base.seq, bound)?;
            let last = *last.get_or_insert(rewinds.replayed.last);
            bound = bound.min(last);
            for (at, to) in rewinds.found.into_iter().rev() {
                // Those between where the last one goes and where it stands do not count.
                if at <= bound && bound >= base.seq {
                    stretches.push(Stretch { after: at, upto: bound });
                    bound = to;
                }
            }
            if bound >= base.seq {
                // Before the first event nothing need be read.
                if bound > Seq::ZERO {
                    stretches.push(Stretch { after: base.seq, upto: bound });
                }
                stretches.reverse();
                return Ok(Lineage { base, stretches, last });
            }
            drop_quietly(base.state);
        }
    }

    /// The rewinds after `after`, up to `upto`.
    fn rewinds(&self, after: Seq, upto: Seq) -> Result<Rewinds, ActorError> {
        let mut found = Vec::new();
        let mut failure = None;
        let replayed = self.events.replay(
            self.stream,
            after,
            &mut |frame| match self.rewinds_in(&frame, (after, upto), &mut found) {
                Ok(going_on) => going_on,
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        match failure {
            Some(error) => Err(error),
            None => Ok(Rewinds { found, replayed }),
        }
    }

    fn rewinds_in(
        &self,
        frame: &Frame<'_>,
        (after, upto): (Seq, Seq),
        found: &mut Vec<(Seq, Seq)>,
    ) -> Result<ControlFlow<()>, ActorError> {
        let mut seq = frame.seq();
        for record in frame.records() {
            let wrong = || self.stopped(seq, Some(frame.lsn()), StopReason::Frame);
            let record = record.map_err(|_reject| wrong())?;
            if record.kind == RecordKind::Name {
                self.check_name(record.payload, frame.lsn(), seq)?;
            }
            if !record.kind.is_numbered() {
                continue;
            }
            if seq > upto {
                return Ok(ControlFlow::Break(()));
            }
            if record.kind == RecordKind::Rewind && seq > after {
                found.push((seq, rewound_to(&record, seq).ok_or_else(wrong)?));
            }
            seq = seq.checked_add(1).unwrap_or(Seq::MAX);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The newest snapshot at or before `at_most` that this build can read.
    fn newest(&self, at_most: Seq) -> Result<Option<Base<A>>, ActorError> {
        if self.options.snapshots.is_none() {
            return Ok(None);
        }
        let mut found = None;
        let mut collision = None;
        let mut unread = Vec::new();
        let visited = self.snapshots.load(self.stream, &mut |snapshot| {
            if snapshot.seq > at_most || snapshot.seq == Seq::ZERO {
                return ControlFlow::Continue(());
            }
            if !self.options.knows_state(snapshot.version) {
                if trace::ON {
                    unread.push((snapshot.seq, snapshot.version));
                }
                return ControlFlow::Continue(());
            }
            let (wanted, named) = ((A::KIND, self.name), (snapshot.kind, snapshot.name));
            if wanted != named {
                collision = Some(ActorError::collision(wanted, named));
                return ControlFlow::Break(());
            }
            let side = Side::decode(snapshot.side, self.options.answers);
            let read = || self.options.read_state(snapshot.version, snapshot.state);
            match (side, catch_unwind(AssertUnwindSafe(read))) {
                (Ok(side), Ok(Some(state))) => {
                    let (seq, covers) = (snapshot.seq, Some(snapshot.covers));
                    found = Some(Base { state, seq, covers, side });
                    ControlFlow::Break(())
                }
                (_, undecoded) => {
                    drop_quietly(undecoded);
                    if trace::ON {
                        unread.push((snapshot.seq, snapshot.version));
                    }
                    ControlFlow::Continue(())
                }
            }
        });
        for (seq, version) in unread {
            let (seq, version) = (seq.get(), version.into());
            trace::SnapshotUnreadable { kind: A::KIND, name: self.name, seq, version }.tell();
        }
        match (collision, visited) {
            (Some(collision), _) => Err(collision),
            // A snapshot store that cannot be read costs a replay.
            (None, Ok(()) | Err(_)) => Ok(found),
        }
    }

    fn check_name(&self, payload: &[u8], lsn: Lsn, seq: Seq) -> Result<(), ActorError> {
        let wanted = (A::KIND, self.name);
        let named = name::decode(payload);
        let (kind, name) = named.ok_or_else(|| self.stopped(seq, Some(lsn), StopReason::Frame))?;
        if (kind, name) == wanted {
            Ok(())
        } else {
            Err(ActorError::collision(wanted, (kind, name)))
        }
    }

    pub(crate) fn stopped(&self, seq: Seq, lsn: Option<Lsn>, why: StopReason) -> ActorError {
        let name = self.name.into();
        ActorError::Stopped(Arc::new(Stopped { kind: A::KIND, name, seq, lsn, why }))
    }
}

struct Loading<'a, A: Actor> {
    source: &'a Source<'a, A>,
    state: A,
    /// The last event that was seen, applied or not.
    seq: Seq,
    lsn: Option<Lsn>,
    saved: Seq,
    since: Option<HybridTime>,
    side: Option<Box<Side>>,
    named: bool,
    stretches: Vec<Stretch>,
    /// The stretch that it is in, or before.
    at: usize,
    upcast: Vec<A::Event>,
}

/// How a pass over the frames ended.
enum Ran<'a, A: Actor> {
    /// All there are, or that were wanted.
    Through(Loading<'a, A>, Replayed),
    IntoRewind,
}

/// Why a pass over the frames ends early.
enum Halt {
    Enough,
    Rewind,
    Failed(ActorError),
}

impl<'a, A: Actor> Loading<'a, A> {
    fn new(source: &'a Source<'a, A>, base: Base<A>, stretches: Vec<Stretch>) -> Self {
        let Base { state, seq, covers, side } = base;
        Self {
            source,
            state,
            seq,
            lsn: covers,
            saved: seq,
            since: None,
            side,
            // In the first frame, which is not read where it begins later.
            named: seq > Seq::ZERO,
            stretches,
            at: 0,
            upcast: Vec::new(),
        }
    }

    /// Visits the frames behind its base. What is half done is given up where it fails.
    fn run(mut self) -> Result<Ran<'a, A>, ActorError> {
        let (events, stream) = (self.source.events, self.source.stream);
        let mut halt = None;
        let replayed = events.replay(stream, self.seq, &mut |frame| match self.frame(&frame) {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                halt = Some(why);
                ControlFlow::Break(())
            }
        });
        match (halt, replayed) {
            (Some(Halt::Failed(error)), replayed) => {
                let hole = matches!(&error, ActorError::Stopped(it) if it.why == StopReason::Hole);
                match replayed {
                    Ok(replayed) if hole => Err(self.hole(&replayed)),
                    Ok(_) | Err(_) => {
                        self.give_up();
                        Err(error)
                    }
                }
            }
            (Some(Halt::Rewind), _) => {
                self.give_up();
                Ok(Ran::IntoRewind)
            }
            (Some(Halt::Enough) | None, Ok(replayed)) => Ok(Ran::Through(self, replayed)),
            (Some(Halt::Enough) | None, Err(error)) => {
                self.give_up();
                Err(error.into())
            }
        }
    }

    /// Applies what is new in a frame and counts.
    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), Halt> {
        let lsn = frame.lsn();
        let mut seq = frame.seq();
        // A snapshot is taken between two frames: what it covers, it covers whole. What was noted
        // since counts, also where the events beside it do not.
        let new = seq > self.saved;
        for record in frame.records() {
            let record = record
                .map_err(|_reject| Halt::Failed(self.stopped(StopReason::Frame, Some(lsn))))?;
            match record.kind {
                RecordKind::Name => {
                    self.source.check_name(record.payload, lsn, seq).map_err(Halt::Failed)?;
                    self.named = true;
                }
                RecordKind::Event => {
                    if self.counts(seq, lsn)? {
                        self.event(seq, &record, lsn)?;
                    }
                    seq = seq.checked_add(1).unwrap_or(Seq::MAX);
                }
                RecordKind::Turn => {
                    if self.counts(seq, lsn)? {
                        self.seq = seq;
                    }
                    seq = seq.checked_add(1).unwrap_or(Seq::MAX);
                }
                RecordKind::Rewind => {
                    if self.counts(seq, lsn)? {
                        return Err(Halt::Rewind);
                    }
                    seq = seq.checked_add(1).unwrap_or(Seq::MAX);
                }
                RecordKind::Note if new => self.note(&record, lsn)?,
                RecordKind::Snapshot
                | RecordKind::State
                | RecordKind::Side
                | RecordKind::Token
                | RecordKind::Note
                | RecordKind::Meta
                | RecordKind::Tag => {}
            }
        }
        if self.since.is_none() && seq.get() > self.saved.get() + 1 {
            self.since = Some(frame.header().time);
        }
        self.lsn = Some(lsn);
        Ok(())
    }

    /// What the actor owes, or has settled.
    fn note(&mut self, record: &Record<'_>, lsn: Lsn) -> Result<(), Halt> {
        let Some(note) = Note::decode(record.version, record.payload) else {
            return Err(Halt::Failed(self.stopped(StopReason::Note, Some(lsn))));
        };
        self.side.get_or_insert_default().apply(&note, self.source.options.answers);
        Ok(())
    }

    /// Is event `seq` one that counts, and the next of these?
    #[inline]
    fn counts(&mut self, seq: Seq, lsn: Lsn) -> Result<bool, Halt> {
        while let Some(stretch) = self.stretches.get(self.at) {
            if seq <= stretch.after {
                return Ok(false);
            }
            self.seq = self.seq.max(stretch.after);
            if seq <= stretch.upto {
                return if self.seq.checked_add(1) == Some(seq) {
                    Ok(true)
                } else {
                    Err(Halt::Failed(self.stopped(StopReason::Hole, Some(lsn))))
                };
            }
            if self.seq < stretch.upto {
                return Err(Halt::Failed(self.stopped(StopReason::Hole, Some(lsn))));
            }
            self.at += 1;
        }
        Err(Halt::Enough)
    }

    /// Has it come to the end of its last stretch, which is event `last`?
    fn ends_at(&mut self, last: Seq) -> bool {
        for stretch in self.stretches.get(self.at..).unwrap_or_default() {
            self.seq = self.seq.max(stretch.after);
            if self.seq < stretch.upto {
                return false;
            }
        }
        self.seq == last
    }

    fn event(&mut self, seq: Seq, record: &Record<'_>, lsn: Lsn) -> Result<(), Halt> {
        if !self.named {
            return Err(Halt::Failed(self.stopped(StopReason::Frame, Some(lsn))));
        }
        let applied = catch_unwind(AssertUnwindSafe(|| self.apply(seq, record)));
        let why = match applied {
            Ok(Ok(())) => {
                self.seq = seq;
                return Ok(());
            }
            Ok(Err(why)) => why,
            Err(payload) => StopReason::Panicked(message_of(payload)),
        };
        Err(Halt::Failed(self.stopped(why, Some(lsn))))
    }

    fn apply(&mut self, seq: Seq, record: &Record<'_>) -> Result<(), StopReason> {
        let Record { version, payload, .. } = *record;
        if version == A::VERSION {
            // Looked at where it was put: an event can be large.
            return match &A::Event::decode(payload) {
                Ok(event) => {
                    self.state.apply(event);
                    Ok(())
                }
                Err(error) => Err(StopReason::NotArchive(error.to_string().into())),
            };
        }
        self.upcast.clear();
        A::upcast(Old { version, seq, bytes: payload }, &mut self.upcast)
            .map_err(|_unreadable| StopReason::Unreadable { version })?;
        self.upcast.iter().for_each(|event| self.state.apply(event));
        Ok(())
    }

    fn done(self, replayed: &Replayed) -> Rebuilt<A> {
        let Self { state, seq, lsn, saved, since, side, .. } = self;
        // Marks lie between frames: one above the frame's beginning covers it whole.
        let covers = lsn.and_then(|lsn| Lsn::new(lsn.get() + FRAME_ALIGN as u64));
        Rebuilt { state, seq, lsn, end: replayed.end.or(covers), saved, since, side }
    }

    /// The event after the last that was applied could not be.
    fn stopped(&self, why: StopReason, lsn: Option<Lsn>) -> ActorError {
        self.source.stopped(self.seq.checked_add(1).unwrap_or(Seq::MAX), lsn, why)
    }

    /// An event is missing. One that retention has dropped is no damage.
    fn hole(self, replayed: &Replayed) -> ActorError {
        let dropped = replayed.dropped > self.seq;
        let error =
            self.stopped(if dropped { StopReason::Dropped } else { StopReason::Hole }, None);
        self.give_up();
        error
    }

    /// A state that may be half changed: even its `Drop` may panic.
    fn give_up(self) {
        drop_quietly(self.state);
        drop_quietly(self.upcast);
    }
}
