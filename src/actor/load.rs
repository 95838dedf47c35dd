//! Loading: the newest usable snapshot, then the events after it.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::cell::{Cell, Live, drop_quietly};
use super::error::{StopReason, Stopped};
use super::note::Note;
use super::side::Side;
use super::turn::message_of;
use super::{Actor, ActorError, Old, Value as _};
use crate::log::frame::{Frame, Record, RecordKind};
use crate::log::name;
use crate::trace;
use crate::types::{FRAME_ALIGN, Lsn, Seq};

/// The state of an actor as its events left it. The caller is inside a turn as far as `ask` is
/// concerned, since this runs `apply`.
pub(crate) fn load<A: Actor>(cell: &Cell<A>) -> Result<Live<A>, ActorError> {
    let mut older_than = None;
    loop {
        let mut loading = Loading::start(cell, older_than)?;
        let start = loading.live.seq;
        let replayed = cell.shared().events.replay(cell.stream, start, &mut |frame| match loading
            .frame(&frame)
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                loading.failure = Some(error);
                ControlFlow::Break(())
            }
        });
        // A hole that retention has made is no damage.
        let dropped = replayed.as_ref().is_ok_and(|it| it.dropped > loading.live.seq);
        if let Some(error) = loading.failure.take() {
            let hole = matches!(&error, ActorError::Stopped(it) if it.why == StopReason::Hole);
            let error =
                if hole && dropped { loading.stopped(StopReason::Dropped, None) } else { error };
            loading.give_up();
            return Err(error);
        }
        let replayed = replayed?;
        let end = replayed.end;
        match loading.live.seq.cmp(&replayed.last) {
            Ordering::Equal => {}
            Ordering::Less => {
                let why = if dropped { StopReason::Dropped } else { StopReason::Hole };
                let error = loading.stopped(why, None);
                loading.give_up();
                return Err(error);
            }
            // A snapshot of what is not in the log: not of this past. The one before may be.
            Ordering::Greater => {
                older_than = Some(start);
                loading.give_up();
                continue;
            }
        }
        let mut live = loading.live;
        // Marks lie between frames: one above the frame's beginning covers it whole.
        let covers = live.lsn.and_then(|lsn| Lsn::new(lsn.get() + FRAME_ALIGN as u64));
        live.end = end.or(covers);
        return Ok(live);
    }
}

struct Loading<'a, A: Actor> {
    cell: &'a Cell<A>,
    live: Live<A>,
    named: bool,
    failure: Option<ActorError>,
    upcast: Vec<A::Event>,
}

impl<'a, A: Actor> Loading<'a, A> {
    /// From the newest usable snapshot before `older_than`, or from nothing.
    fn start(cell: &'a Cell<A>, older_than: Option<Seq>) -> Result<Self, ActorError> {
        let snapshot = newest(cell, older_than)?;
        let (state, side, seq, lsn) = match snapshot {
            Some((state, side, seq, covers)) => (state, side, seq, Some(covers)),
            None => match catch_unwind(AssertUnwindSafe(A::default)) {
                Ok(state) => (state, None, Seq::ZERO, None),
                Err(payload) => {
                    let why = StopReason::Panicked(message_of(payload));
                    return Err(stopped(cell, Seq::ZERO, None, why));
                }
            },
        };
        let live = Live {
            state,
            seq,
            lsn,
            end: None,
            saved: seq,
            save_asked: false,
            leave_asked: false,
            side,
        };
        let named = seq > Seq::ZERO;
        Ok(Self { cell, live, named, failure: None, upcast: Vec::new() })
    }

    /// Applies what is new in a frame.
    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), ActorError> {
        let lsn = frame.lsn();
        let mut seq = frame.seq();
        // A snapshot is taken between two frames: what it covers, it covers whole.
        let new = seq > self.live.seq;
        for record in frame.records() {
            let record = record.map_err(|_reject| self.stopped(StopReason::Frame, Some(lsn)))?;
            match record.kind {
                RecordKind::Name => self.check_name(record.payload, lsn)?,
                RecordKind::Event => {
                    if seq > self.live.seq {
                        self.event(seq, &record, lsn)?;
                    }
                    seq = seq.checked_add(1).unwrap_or(Seq::MAX);
                }
                RecordKind::Turn | RecordKind::Rewind => {
                    if seq > self.live.seq {
                        self.step_to(seq, lsn)?;
                    }
                    seq = seq.checked_add(1).unwrap_or(Seq::MAX);
                }
                RecordKind::Note if new => self.note(&record, lsn)?,
                RecordKind::Snapshot
                | RecordKind::State
                | RecordKind::Side
                | RecordKind::Note
                | RecordKind::Meta
                | RecordKind::Tag => {}
            }
        }
        self.live.lsn = Some(lsn);
        Ok(())
    }

    /// What the actor owes, or has settled.
    fn note(&mut self, record: &Record<'_>, lsn: Lsn) -> Result<(), ActorError> {
        let Some(note) = Note::decode(record.version, record.payload) else {
            return Err(self.stopped(StopReason::Note, Some(lsn)));
        };
        let kept = self.cell.kind.options.answers;
        self.live.side.get_or_insert_default().apply(&note, kept);
        Ok(())
    }

    /// The next number is that of a turn without an event.
    fn step_to(&mut self, seq: Seq, lsn: Lsn) -> Result<(), ActorError> {
        if self.live.seq.checked_add(1) != Some(seq) {
            return Err(self.stopped(StopReason::Hole, Some(lsn)));
        }
        self.live.seq = seq;
        Ok(())
    }

    fn event(&mut self, seq: Seq, record: &Record<'_>, lsn: Lsn) -> Result<(), ActorError> {
        if self.live.seq.checked_add(1) != Some(seq) {
            return Err(self.stopped(StopReason::Hole, Some(lsn)));
        }
        if !self.named {
            return Err(self.stopped(StopReason::Frame, Some(lsn)));
        }
        let applied = catch_unwind(AssertUnwindSafe(|| self.apply(seq, record)));
        let why = match applied {
            Ok(Ok(())) => {
                self.live.seq = seq;
                return Ok(());
            }
            Ok(Err(why)) => why,
            Err(payload) => StopReason::Panicked(message_of(payload)),
        };
        Err(self.stopped(why, Some(lsn)))
    }

    fn apply(&mut self, seq: Seq, record: &Record<'_>) -> Result<(), StopReason> {
        let Record { version, payload, .. } = *record;
        if version == A::VERSION {
            // Looked at where it was put: an event can be large.
            return match &A::Event::decode(payload) {
                Ok(event) => {
                    self.live.state.apply(event);
                    Ok(())
                }
                Err(error) => Err(StopReason::NotArchive(error.to_string().into())),
            };
        }
        self.upcast.clear();
        A::upcast(Old { version, seq, bytes: payload }, &mut self.upcast)
            .map_err(|_unreadable| StopReason::Unreadable { version })?;
        self.upcast.iter().for_each(|event| self.live.state.apply(event));
        Ok(())
    }

    fn check_name(&mut self, payload: &[u8], lsn: Lsn) -> Result<(), ActorError> {
        let wanted = (A::KIND, &*self.cell.name);
        let (kind, name) =
            name::decode(payload).ok_or_else(|| self.stopped(StopReason::Frame, Some(lsn)))?;
        if (kind, name) != wanted {
            return Err(ActorError::collision(wanted, (kind, name)));
        }
        self.named = true;
        Ok(())
    }

    /// The event after the last that was applied could not be.
    fn stopped(&self, why: StopReason, lsn: Option<Lsn>) -> ActorError {
        stopped(self.cell, self.live.seq.checked_add(1).unwrap_or(Seq::MAX), lsn, why)
    }

    /// A state that may be half changed: even its `Drop` may panic.
    fn give_up(self) {
        drop_quietly(self.live.state);
        drop_quietly(self.upcast);
    }
}

fn stopped<A: Actor>(cell: &Cell<A>, seq: Seq, lsn: Option<Lsn>, why: StopReason) -> ActorError {
    let name = Arc::clone(&cell.name);
    ActorError::Stopped(Arc::new(Stopped { kind: A::KIND, name, seq, lsn, why }))
}

/// A snapshot that was read.
type Found<A> = (A, Option<Box<Side>>, Seq, Lsn);

/// The newest snapshot before `older_than` that this build can read.
fn newest<A: Actor>(
    cell: &Cell<A>,
    older_than: Option<Seq>,
) -> Result<Option<Found<A>>, ActorError> {
    let Some(options) = &cell.kind.options.snapshots else { return Ok(None) };
    let mut found = None;
    let mut collision = None;
    let mut unread = Vec::new();
    let visited = cell.shared().snapshots.load(cell.stream, &mut |snapshot| {
        let too_new = older_than.is_some_and(|older_than| snapshot.seq >= older_than);
        if too_new || snapshot.version != options.version || snapshot.seq == Seq::ZERO {
            if !too_new && trace::ON {
                unread.push((snapshot.seq, snapshot.version));
            }
            return ControlFlow::Continue(());
        }
        let (wanted, named) = ((A::KIND, &*cell.name), (snapshot.kind, snapshot.name));
        if wanted != named {
            collision = Some(ActorError::collision(wanted, named));
            return ControlFlow::Break(());
        }
        let side = Side::decode(snapshot.side, cell.kind.options.answers);
        match (side, catch_unwind(AssertUnwindSafe(|| (options.decode)(snapshot.state)))) {
            (Some(side), Ok(Ok(state))) => {
                found = Some((state, side, snapshot.seq, snapshot.covers));
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
        trace::SnapshotUnreadable { kind: A::KIND, name: &cell.name, seq, version }.tell();
    }
    match (collision, visited) {
        (Some(collision), _) => Err(collision),
        // A snapshot store that cannot be read costs a replay.
        (None, Ok(()) | Err(_)) => Ok(found),
    }
}
