//! The end of a turn: appended, or gathered with those before it.

use std::sync::Arc;

use super::cell::{Asked, Cell, Live};
use super::desk::{Before, Desk};
use super::mailbox::Mark;
use super::note::Note;
use super::policy::{Decision, Persistence};
use super::side::Pending;
use super::turn::{StateIs, Wishes, label, within_turn};
use super::worker::Job;
use super::{Actor, ActorError, Turn};
use crate::error::AppendError;
use crate::log::frame::RecordKind;
use crate::log::name;
use crate::trace;
use crate::types::{Durability, Seq};

/// Gathered turns are appended before their frame grows past this: a frame that was to take them
/// and one more turn has room for that, unless the turn is itself nearly as large as a frame.
const GATHERED_BYTES_MAX: usize = 256 * 1024;
/// And before they have so many records, of 65,535 that a frame holds.
const GATHERED_EVENTS_MAX: u16 = 16 * 1024;

/// A turn that has been handled.
pub(super) struct Ending<'t, 'a, A: Actor> {
    pub turn: &'t mut Turn<'a, A>,
    /// The last event before it.
    pub first: Seq,
    /// What the command depended on, and whether somebody gets the reply.
    pub arrival: (Mark, bool),
}

impl<A: Actor> Ending<'_, '_, A> {
    /// The turn counts: answers what its reply waits for.
    ///
    /// # Errors
    /// It could not be appended. Turns that had been gathered before it are, or are gathered still.
    pub(super) fn succeed(self) -> Result<Mark, Box<(ActorError, StateIs)>> {
        let Self { turn, first, arrival: (carried, answered) } = self;
        let Turn { cell, live, desk, before, wishes, .. } = turn;
        let cell = *cell;
        if let Some(mut desk) = desk.take() {
            let start = before.unwrap_or_else(Before::nothing);
            if desk.grew(start) && live.seq == first {
                // What was stored without an event has a number all the same.
                let next = live.seq.checked_add(1);
                let numbered = next.filter(|_| desk.batch.push(RecordKind::Turn, 1, &[]).is_ok());
                let Some(next) = numbered else {
                    let failure = super::turn::too_large(desk.batch.frame_bytes());
                    put_away(live, desk, Some(start));
                    return Err(Box::new((failure, wishes.state)));
                };
                live.seq = next;
            }
            let labelled = live.seq > first && !wishes.labels().is_empty();
            if labelled && let Err(failure) = label::add(wishes.labels(), &mut desk.batch) {
                live.seq = first;
                put_away(live, desk, Some(start));
                return Err(Box::new((failure, wishes.state)));
            }
            let kept = cell.kind.options.answers;
            if desk.has_notes_since(start) {
                let side = live.side.get_or_insert_default();
                for note in desk.notes(Some(start)) {
                    side.apply(&note, kept);
                }
            }
            // What is said of a turn is said of its frame: it has one of its own.
            let leaves = answered || wishes.barrier || labelled || !desk.outgoing.is_empty();
            if !leaves && defers(cell, live, &desk, wishes) {
                gather(cell, live, desk, (first, start));
            } else if let Err(failure) = append(cell, live, &mut desk, (first, start)) {
                if desk.has_notes_since(start) {
                    // The side has taken them in: both are read again.
                    wishes.state = StateIs::Ahead;
                }
                let lost = !matches!(wishes.state, StateIs::Stored) && !start.is_empty();
                live.seq = first;
                put_away(live, desk, Some(start));
                if lost {
                    flush(cell, live).unwrap_or_else(|why| give_up(cell, live, &why));
                }
                return Err(Box::new((failure, wishes.state)));
            } else {
                let reply = mark_of_turn(cell, live, (carried, wishes.durability));
                desk.deliver(live.end.max(carried), reply);
                desk.put_back();
            }
        } else if (answered || wishes.barrier) && live.has_gathered() {
            // Who is answered learns of turns that were gathered.
            if let Err(failure) = flush(cell, live) {
                return Err(Box::new((failure, wishes.state)));
            }
        }
        let mark = mark_of_turn(cell, live, (carried, wishes.durability));
        aftermath(cell, live, first, wishes);
        if let Some(rare) = wishes.rare.take() {
            if let Some(rewinding) = &rare.rewinding {
                let (kind, name, seq) = (A::KIND, &*cell.name, live.seq.get());
                let to = rewinding.to().get();
                trace::ActorRewound { kind, name, seq, to }.tell();
            }
            let mark_of_steps = if mark.is_some() { live.end.max(carried) } else { None };
            super::steps::begin(cell.shared(), rare.steps, mark_of_steps);
            super::departures::run_after(cell.shared(), rare.after, mark);
        }
        Ok(mark)
    }

    /// The turn does not count. Answers what it is that may have been told, and whether the state
    /// is still that of the log.
    #[cold]
    pub(super) fn fail(self) -> (Mark, bool) {
        let Self { turn, first, arrival: (carried, _) } = self;
        let Turn { cell, live, desk, before, wishes, .. } = turn;
        let cell = *cell;
        let stored = wishes.state == StateIs::Stored;
        live.seq = first;
        if let Some(desk) = desk.take() {
            put_away(live, desk, Some(before.unwrap_or_else(Before::nothing)));
        }
        let mark = mark_of_turn(cell, live, (carried, wishes.durability));
        if !stored {
            // The state goes, and turns that were gathered before must not go with it.
            flush(cell, live).unwrap_or_else(|why| give_up(cell, live, &why));
        }
        (mark, stored)
    }
}

/// Drops what a turn has written, and puts the desk where it was.
fn put_away<A: Actor>(live: &mut Live<A>, mut desk: Box<Desk>, before: Option<Before>) {
    if let Some(before) = before {
        desk.restore(before);
    }
    match live.side.as_mut().and_then(|side| side.pending.as_mut()) {
        Some(pending) => pending.desk = Some(desk),
        None => desk.put_back(),
    }
}

/// Is this turn left for later?
fn defers<A: Actor>(cell: &Cell<A>, live: &Live<A>, desk: &Desk, wishes: &Wishes) -> bool {
    let own = live.side.as_ref().and_then(|side| side.persistence);
    let kind = cell.kind.options.persistence;
    let persistence = own.or(kind).unwrap_or(cell.shared().options.persistence);
    let gathered = live.side.as_ref().is_some_and(|side| side.pending.is_some());
    if persistence == Persistence::EachTurn && wishes.decision == Decision::Inherit && !gathered {
        return false;
    }
    let batch = &desk.batch;
    if batch.frame_bytes() > GATHERED_BYTES_MAX || batch.events() > GATHERED_EVENTS_MAX {
        return false;
    }
    match wishes.decision {
        Decision::Commit => false,
        Decision::Defer => true,
        Decision::Inherit => !persistence.is_due(u64::from(batch.events())),
    }
}

/// Keeps a turn for later.
fn gather<A: Actor>(
    cell: &Arc<Cell<A>>,
    live: &mut Live<A>,
    desk: Box<Desk>,
    (first, before): (Seq, Before),
) {
    if !desk.grew(before) && before.is_empty() {
        desk.put_back();
        return;
    }
    let side = live.side.get_or_insert_default();
    if let Some(pending) = &mut side.pending {
        pending.desk = Some(desk);
        pending.turns += 1;
        return;
    }
    let first = first.checked_add(1).unwrap_or(Seq::MAX);
    side.pending = Some(Pending { desk: Some(desk), first, turns: 1 });
    let own = side.persistence.or(cell.kind.options.persistence);
    if let Persistence::Interval(time) = own.unwrap_or(cell.shared().options.persistence) {
        cell.shared().ledger.flush_after(time, &cell.resident(), &cell.shared().clock);
    }
}

/// Appends what is on the desk.
fn append<A: Actor>(
    cell: &Cell<A>,
    live: &mut Live<A>,
    desk: &mut Desk,
    (first, before): (Seq, Before),
) -> Result<(), ActorError> {
    if desk.batch.is_empty() {
        return Ok(());
    }
    let pending = live.side.as_ref().and_then(|side| side.pending.as_ref());
    let first = match pending {
        Some(pending) if !before.is_empty() => pending.first,
        Some(_) | None => first.checked_add(1).unwrap_or(Seq::MAX),
    };
    let whole = desk.before();
    let shared = cell.shared();
    let appended = if desk.has_notes() {
        shared.ledger.append(&*shared.events, desk, cell.stream, first)
    } else {
        desk.append(&*shared.events, cell.stream, first)
    };
    shared.note_append(appended.as_ref().err());
    match appended {
        Ok(appended) => {
            live.lsn = Some(appended.lsn);
            live.end = Some(appended.end);
            if let Some(gathered) = live.side.as_mut().and_then(|side| side.pending.take()) {
                shared.counts.gathered(gathered.turns);
            }
            Ok(())
        }
        Err(error) => {
            if let AppendError::Poisoned(_) = error {
                shared.note_poisoned();
            }
            // It was padded to be appended, and others may come behind it.
            desk.keep(whole);
            Err(error.into())
        }
    }
}

/// Appends the turns that were gathered.
///
/// # Errors
/// They could not be, and are gathered still.
pub(super) fn flush<A: Actor>(cell: &Cell<A>, live: &mut Live<A>) -> Result<(), ActorError> {
    let Some(pending) = live.side.as_mut().and_then(|side| side.pending.as_mut()) else {
        return Ok(());
    };
    let first = pending.first;
    let Some(mut desk) = pending.desk.take() else { return Ok(()) };
    let all = desk.before();
    let before = Seq::new(first.get().saturating_sub(1)).unwrap_or(Seq::ZERO);
    let appended = append(cell, live, &mut desk, (before, all));
    match appended {
        Ok(()) => desk.put_back(),
        Err(_) => put_away(live, desk, None),
    }
    appended
}

/// Turns that were gathered are lost with the state: the disk does not take them.
pub(super) fn give_up<A: Actor>(cell: &Cell<A>, live: &mut Live<A>, why: &ActorError) {
    let Some(pending) = live.side.as_mut().and_then(|side| side.pending.take()) else { return };
    cell.shared().counts.lost(pending.turns);
    let (kind, name, seq) = (A::KIND, &*cell.name, pending.first.get());
    let lost = trace::TurnsLost { kind, name, seq, turns: u64::from(pending.turns), error: why };
    within_turn(|| lost.tell());
    for _ in 0..pending.turns {
        cell.dead_letter("a deferred turn", why.clone());
    }
}

/// What a reply waits for.
pub(super) fn mark_of<A: Actor>(cell: &Cell<A>, live: &Live<A>, carried: Mark) -> Mark {
    mark_of_turn(cell, live, (carried, None))
}

fn mark_of_turn<A: Actor>(
    cell: &Cell<A>,
    live: &Live<A>,
    (carried, durability): (Mark, Option<Durability>),
) -> Mark {
    let level =
        durability.or(cell.kind.options.durability).unwrap_or(cell.shared().options.durability);
    // At `Process` an appended frame is durable enough, and all that marks name are. After a
    // failed sync nobody knows what a reopen will find: then only the disk counts.
    let waits = level == Durability::Power || cell.shared().is_poisoned();
    if waits { live.end.max(carried) } else { None }
}

/// What a turn leaves for the workers to do.
fn aftermath<A: Actor>(cell: &Arc<Cell<A>>, live: &mut Live<A>, first: Seq, wishes: &Wishes) {
    let Wishes { seen, snapshot: by_hand, suspended, .. } = *wishes;
    if cell.is_save_due(live, Asked { seen, by_hand, suspended }) && !live.save_asked {
        live.save_asked = true;
        cell.shared().send(Job::Save(cell.resident()));
    }
    if live.seq != first {
        cell.weigh(&live.state);
    }
    if wishes.passivate && !live.leave_asked {
        live.leave_asked = true;
        cell.shared().send(Job::Passivate(cell.resident()));
    }
}

/// Appends a note by itself, in no turn: what it speaks of is over without one.
pub(super) fn append_note<A: Actor>(
    cell: &Arc<Cell<A>>,
    live: &mut Live<A>,
    note: &Note<'_>,
) -> Result<(), ActorError> {
    flush(cell, live)?;
    let mut desk = Desk::take();
    desk.settles = true;
    let first = live.seq;
    let before = desk.before();
    let next = first.checked_add(1).ok_or_else(|| super::turn::too_large(usize::MAX))?;
    let full = |_| super::turn::too_large(usize::MAX);
    if first == Seq::ZERO {
        let name = name::encode(A::KIND, &cell.name).ok_or(ActorError::BadName)?;
        desk.batch.push(RecordKind::Name, 1, &name).map_err(full)?;
    }
    desk.batch.push(RecordKind::Turn, 1, &[]).map_err(full)?;
    desk.note(note).map_err(full)?;
    append(cell, live, &mut desk, (first, before))?;
    live.seq = next;
    let kept = cell.kind.options.answers;
    live.side.get_or_insert_default().apply(note, kept);
    desk.put_back();
    Ok(())
}
