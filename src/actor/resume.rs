//! Taking up what was owed: after a crash, when it is due, and when a handler has failed.
//!
//! Everything that is open is seen to by one function, [`deliver`], which reads from the log what
//! the book does not hold. A message that was told in this life comes on its own, and is delivered
//! from here only if its handler failed.
//!
//! After an open, one thread reads the book: the newest checkpoint's, and the frames behind it.
//! What was open then is *interrupted*, and is taken up oldest first, so many at a time. Before
//! a batch is delivered a frame says so: who is found to have been taken up several times without
//! an end has ended the process each time, and is set aside. Whoever is suspected of it is taken up
//! alone, so that nobody is blamed for another.

use std::any::type_name;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::book::{Book, Open, What};
use super::cell::{Body, Cell};
use super::desk::Desk;
use super::durable::Of;
use super::kind::AnyKind;
use super::mailbox::{Cause, Wake};
use super::note::{self, Ended, Note, Oid};
use super::runtime::{Gate, Shared};
use super::turn::within_turn;
use super::{Actor, ActorError, commit};
use crate::error::{AppendError, ReadError};
use crate::log::frame::RecordKind;
use crate::log::name;
use crate::metrics::Measure;
use crate::trace;
use crate::types::{Lsn, Seq, StreamId};

/// Its kind and name.
const KIND: &str = "annals.resume";
const NAME: &str = "attempts";

/// What a handler that failed is given the time to get over, doubled with each failure.
const BACKOFF_MS_FIRST: u64 = 50;
const BACKOFF_MS_MAX: u64 = 60_000;
/// And a disk that is full, or cannot be read.
const WAIT_MS: u64 = 1_000;
/// A timer that rings later than that is told of.
const LATE_MS: u64 = 1_000;
/// Progress is told after so many frames.
const TELL_EVERY: u64 = 1 << 16;

/// The stream that remembers what was taken up.
pub(crate) fn attempts() -> StreamId {
    StreamId::of(KIND, NAME)
}

/// Held while something that was interrupted is with its actor.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Window>);

impl Permit {
    /// It only waits for its time, or for its kind to be known: it has ended no process.
    pub(crate) fn put_aside(self: Arc<Self>, oid: Oid) {
        self.0.waiting.lock().push(oid);
    }
}

/// How many are out.
#[derive(Debug, Default)]
struct Window {
    out: Mutex<usize>,
    changed: Condvar,
    /// Of those that are back: who was not run.
    waiting: Mutex<Vec<Oid>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.out.lock() -= 1;
        self.0.changed.notify_all();
    }
}

impl Window {
    fn permit(self: &Arc<Self>) -> Arc<Permit> {
        *self.out.lock() += 1;
        Arc::new(Permit(Arc::clone(self)))
    }

    /// Waits until all are back, or the runtime closes.
    fn all_back(&self, shared: &Shared) -> bool {
        let mut out = self.out.lock();
        while *out > 0 {
            if shared.gate() != Gate::Open {
                return false;
            }
            // A close does not ring here.
            self.changed.wait_for(&mut out, Duration::from_millis(50));
        }
        true
    }
}

/// How far the taking up of what was interrupted has come.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// What is being done.
    pub phase: RecoveryPhase,
    /// Frames read behind the newest checkpoint.
    pub frames: u64,
    /// Bytes of the log read, and to be read in all.
    pub bytes: u64,
    /// See `bytes`.
    pub bytes_total: u64,
    /// What was open when the process ended: messages not handled, timers due, steps without an
    /// end.
    pub interrupted: u64,
    /// Actors that it belongs to.
    pub actors: u64,
    /// Of `interrupted`, taken up so far.
    pub resumed: u64,
    /// Of `interrupted`, what is still to be taken up.
    pub remaining: u64,
    /// Of `interrupted`, what waits for a kind of actor that this process does not know. It is not
    /// lost, and is taken up as soon as an address of its kind is asked for; whoever wants it to be
    /// taken up by itself names the kind in the options
    /// ([`StoreOptions::actor`](crate::StoreOptions::actor)). Known once the phase is
    /// [`Done`](RecoveryPhase::Done).
    pub unknown: u64,
    /// The kinds of `unknown`.
    pub unknown_kinds: Vec<String>,
    /// What has ended the process too often and is not taken up by itself.
    pub quarantined: Vec<Oid>,
    /// Messages of which nobody can say whether they were handled: see `docs/recovery.md`.
    pub in_doubt: Vec<Oid>,
    /// Since the open.
    pub took: Duration,
    /// Why the log could not be read, if so.
    pub failure: Option<ReadError>,
}

impl Recovery {
    /// Frames read a second.
    pub fn frames_per_second(&self) -> u64 {
        let millis = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX).max(1);
        self.frames.saturating_mul(1_000) / millis
    }

    fn tell_read(&self, shared: &Shared, told: bool) {
        let path = shared.events.path();
        let start = if told { "checkpoint" } else { "beginning" };
        let Self { frames, bytes, interrupted, actors, .. } = *self;
        let took_us = trace::micros(self.took);
        trace::OwedRead { path, start, frames, bytes, interrupted, actors, took_us }.tell();
    }

    fn tell_resumed(&self, shared: &Shared) {
        if !trace::ON {
            return;
        }
        let path = shared.events.path();
        for (kind, count) in shared.ledger.parked() {
            trace::OwedUnclaimed { path, kind: &kind, count: count as u64 }.tell();
        }
        let unknown_kinds = &self.unknown_kinds.join(", ");
        let Self { interrupted, resumed, unknown, .. } = *self;
        let quarantined = self.quarantined.len() as u64;
        let in_doubt = self.in_doubt.len() as u64;
        let took_us = trace::micros(self.took);
        trace::OwedResumed {
            path,
            interrupted,
            resumed,
            unknown,
            unknown_kinds,
            quarantined,
            in_doubt,
            took_us,
        }
        .tell();
    }
}

/// What a recovery is at.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum RecoveryPhase {
    /// Finding out what was interrupted.
    #[default]
    Reading,
    /// Taking it up.
    Resuming,
    /// Everything was taken up that can be.
    Done,
    /// The log cannot be read: what was interrupted is not known.
    Failed,
}

/// Who is told of a recovery's progress.
pub type OnRecovery = Arc<dyn Fn(&Recovery) + Send + Sync>;

/// A kind of actor, to be known from the start.
#[derive(Copy, Clone)]
pub struct Registrar {
    kind: &'static str,
    register: fn(&Arc<Shared>) -> Result<(), ActorError>,
}

impl Registrar {
    pub(crate) fn of<A: Actor>() -> Self {
        Self { kind: A::KIND, register: |shared| shared.register::<A>().map(drop) }
    }

    pub(crate) fn register(&self, shared: &Arc<Shared>) -> Result<(), ActorError> {
        (self.register)(shared)
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registrar({})", self.kind)
    }
}

/// Finds out what was interrupted, and takes it up.
pub(crate) fn resume(shared: &Arc<Shared>) {
    let began = shared.clock.monotonic();
    let mut recovery = Recovery::default();
    let tell = |recovery: &mut Recovery| {
        recovery.took = shared.clock.monotonic().saturating_sub(began);
        shared.tell_recovery(recovery);
    };
    let book = match read_book(shared, &mut recovery, &tell) {
        Ok(read) => read,
        Err(error) => {
            shared.ledger.give_up_reading();
            recovery.phase = RecoveryPhase::Failed;
            let (path, frames) = (shared.events.path(), recovery.frames);
            trace::OwedNotRead { path, frames, error: &error }.tell();
            recovery.failure = Some(error);
            tell(&mut recovery);
            return;
        }
    };
    // A close ends the reading early: then nobody knows the whole of it, and no checkpoint may say
    // that this is all.
    let Some((book, told)) = book else { return };
    let book_is_whole = told || !shared.events.has_dropped();
    let now = shared.clock.wall_ms();
    let mut interrupted = shared.ledger.install(book, now);
    interrupted.sort_unstable_by_key(|(oid, open)| (open.lsn, *oid));
    recovery.interrupted = interrupted.len() as u64;
    let mut streams: Vec<_> = interrupted.iter().map(|(oid, _)| oid.stream).collect();
    streams.sort_unstable();
    streams.dedup();
    recovery.actors = streams.len() as u64;
    recovery.remaining = recovery.interrupted;
    recovery.phase = RecoveryPhase::Resuming;
    tell(&mut recovery);
    recovery.tell_read(shared, told);
    let window = Arc::new(Window::default());
    let mut batch = Vec::new();
    for (oid, open) in interrupted {
        if shared.gate() != Gate::Open {
            return;
        }
        let tries = shared.ledger.tries(oid);
        if tries >= shared.options.resume_tries {
            recovery.quarantined.push(oid);
            recovery.remaining -= 1;
            shared.quarantine(oid);
            let (lsn, tries) = (open.lsn.get(), u64::from(tries));
            let path = shared.events.path();
            trace::OwedQuarantined { path, owed: &oid, lsn, tries }.tell();
            continue;
        }
        if !book_is_whole && was_perhaps_handled(shared, open) {
            recovery.in_doubt.push(oid);
            recovery.remaining -= 1;
            shared.quarantine(oid);
            let path = shared.events.path();
            trace::OwedInDoubt { path, owed: &oid, lsn: open.lsn.get() }.tell();
            continue;
        }
        // Who may have ended the process is taken up alone.
        if tries > 0 && !take_up(shared, &window, &mut batch, &mut recovery) {
            return;
        }
        batch.push((oid, open));
        let full = batch.len() >= shared.options.resume_max.max(1);
        if (tries > 0 || full) && !take_up(shared, &window, &mut batch, &mut recovery) {
            return;
        }
        tell(&mut recovery);
    }
    if !take_up(shared, &window, &mut batch, &mut recovery) {
        return;
    }
    let unknown = shared.ledger.parked();
    recovery.unknown = unknown.iter().map(|(_, count)| *count as u64).sum();
    recovery.unknown_kinds = unknown.into_iter().map(|(kind, _)| kind).collect();
    recovery.unknown_kinds.sort_unstable();
    recovery.phase = RecoveryPhase::Done;
    // Before anybody who waits for the end goes on.
    recovery.took = shared.clock.monotonic().saturating_sub(began);
    recovery.tell_resumed(shared);
    tell(&mut recovery);
}

/// The book of the newest checkpoint, and what came behind it before this life; `None` where a
/// close came before all was read. And whether a checkpoint had a part in it.
fn read_book(
    shared: &Shared,
    recovery: &mut Recovery,
    tell: &dyn Fn(&mut Recovery),
) -> Result<Option<(Book, bool)>, ReadError> {
    // What this life appends goes into the book by itself.
    let end = shared.ledger.before();
    let found = shared.events.testimony();
    let found = found.and_then(|found| Some((Book::decode(&found.bytes)?, found.position)));
    let told = found.is_some();
    let (mut book, from) = found.unwrap_or_default();
    recovery.bytes_total = end.saturating_sub(from);
    let mut whole = true;
    shared.events.scan(from, &mut |frame| {
        let lsn = frame.lsn().get();
        if lsn < from {
            return ControlFlow::Continue(());
        }
        if lsn >= end {
            return ControlFlow::Break(());
        }
        book.read(&frame);
        recovery.frames += 1;
        recovery.bytes = recovery.bytes.max(lsn - from);
        if recovery.frames.is_multiple_of(TELL_EVERY) {
            tell(recovery);
        }
        if shared.gate() == Gate::Closed {
            whole = false;
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    recovery.bytes = recovery.bytes_total;
    Ok(whole.then_some((book, told)))
}

/// Nothing but the log is left to say what was handled, and part of the receiver's is gone.
fn was_perhaps_handled(shared: &Shared, open: Open) -> bool {
    let What::Message { to } = open.what else { return false };
    // From the beginning: what was dropped below where a reader begins he is not told.
    let looked = shared.events.replay(to, Seq::ZERO, &mut |_| ControlFlow::Break(()));
    !looked.is_ok_and(|found| found.dropped == Seq::ZERO)
}

/// Delivers a batch and waits for it. `false` when the runtime closes.
fn take_up(
    shared: &Arc<Shared>,
    window: &Arc<Window>,
    batch: &mut Vec<(Oid, Open)>,
    recovery: &mut Recovery,
) -> bool {
    if batch.is_empty() {
        return true;
    }
    let oids: Vec<_> = batch.iter().map(|(oid, _)| note::oid_bytes(*oid)).collect();
    // Where that cannot be stored, nothing else can: then it is as if it had not been taken up.
    drop(shared.remember(&[note::tried(&oids)]));
    for (oid, open) in batch.drain(..) {
        deliver(shared, oid, open, Some(window.permit()));
        recovery.resumed += 1;
        recovery.remaining -= 1;
    }
    let all = window.all_back(shared);
    let waiting = std::mem::take(&mut *window.waiting.lock());
    if all && !waiting.is_empty() {
        let freed: Vec<_> = waiting.into_iter().map(|oid| Note::Freed { oid }).collect();
        // Where that cannot be stored they stay suspects, of a life that stores nothing.
        drop(shared.remember(&freed));
    }
    all
}

/// What rings or is taken up, with its actor: false if that is not known.
pub(crate) fn deliver(shared: &Arc<Shared>, oid: Oid, open: Open, permit: Option<Arc<Permit>>) {
    let delivered = match open.what {
        What::Message { .. } => deliver_message(shared, oid, open.lsn, permit),
        What::Timer { .. } | What::Step => deliver_own(shared, oid, open, permit),
    };
    if delivered.is_err() {
        shared.ledger.again(oid, shared.clock.wall_ms().saturating_add(WAIT_MS));
    }
}

fn deliver_message(
    shared: &Arc<Shared>,
    oid: Oid,
    lsn: Lsn,
    permit: Option<Arc<Permit>>,
) -> Result<(), ReadError> {
    let mut frame_bytes = None;
    shared.events.frame(lsn, &mut |frame| {
        for record in frame.records().flatten().filter(|it| it.kind == RecordKind::Note) {
            if let Some(Note::Sent { number, kind, name, command }) =
                Note::decode(record.version, record.payload)
                && number == oid.number
            {
                let whom = (kind.to_owned(), name.to_owned());
                let what = (command.name.to_owned(), command.version, command.archive.to_vec());
                frame_bytes = Some((whom, what));
            }
        }
    })?;
    let Some(((kind, name), (command, version, archive))) = frame_bytes else { return Ok(()) };
    let Some(known) = shared.kind(&kind) else {
        park(shared, &kind, oid, permit);
        return Ok(());
    };
    let of = Of { cause: Cause::Sent(oid), key: "".into(), permit };
    known.deliver(&name, Owed::Message { command: (&command, version), archive: &archive, of });
    Ok(())
}

/// Waits for its kind to be known. Looked at again afterwards: it may have been made known between
/// the first look and this, and then nobody else comes for it.
fn park(shared: &Shared, kind: &str, oid: Oid, permit: Option<Arc<Permit>>) {
    if let Some(permit) = permit {
        permit.put_aside(oid);
    }
    let first = shared.ledger.park(kind, oid);
    if shared.kind(kind).is_some() {
        shared.ledger.unpark(kind, shared.clock.wall_ms());
    } else if first && shared.is_recovered() {
        // What was interrupted is told of at the end of the recovery, all at once.
        trace::OwedUnclaimed { path: shared.events.path(), kind, count: 1 }.tell();
    }
}

fn deliver_own(
    shared: &Arc<Shared>,
    oid: Oid,
    open: Open,
    permit: Option<Arc<Permit>>,
) -> Result<(), ReadError> {
    let Some((kind, name)) = shared.events.name_of(oid.stream)? else { return Ok(()) };
    let Some(known) = shared.kind(&kind) else {
        park(shared, &kind, oid, permit);
        return Ok(());
    };
    known.deliver(
        &name,
        match open.what {
            What::Step => Owed::Step { number: oid.number, permit },
            What::Timer { .. } | What::Message { .. } => Owed::Timer { number: oid.number, permit },
        },
    );
    Ok(())
}

/// What is brought to an actor.
pub(crate) enum Owed<'a> {
    Message { command: (&'a str, u16), archive: &'a [u8], of: Of },
    Timer { number: u64, permit: Option<Arc<Permit>> },
    Step { number: u64, permit: Option<Arc<Permit>> },
}

/// A timer's turn has come.
pub(crate) fn wake<A: Actor>(wake: Wake, cell: &Arc<Cell<A>>, body: &mut Body<A>) {
    let Wake { number, permit } = wake;
    let oid = Oid { stream: cell.stream, number };
    let live = match cell.live(body) {
        Ok(live) => live,
        Err(why) => return failed(cell, body, Cause::Timer(number), ("a timer", why)),
    };
    let Some(side) = &live.side else { return };
    if let Some(timer) = side.timer_numbered(number).cloned() {
        let now = cell.shared().clock.wall_ms();
        if timer.rhythm.due > now {
            // It was set to ring later meanwhile, or time was set back.
            cell.shared().ledger.again(oid, timer.rhythm.due);
            return;
        }
        if timer.rhythm.is_missed(now) {
            let due = timer.rhythm.after(now);
            settle(cell, body, &Note::Fired { number, due });
            return;
        }
        let late_ms = now.saturating_sub(timer.rhythm.due);
        let late = Duration::from_millis(late_ms);
        cell.shared().meter.add_time(Measure::TimerLate, A::KIND, late);
        if late_ms > LATE_MS {
            let (kind, name) = (A::KIND, &*cell.name);
            within_turn(|| trace::TimerLate { kind, name, owed: &oid, late_ms }.tell());
        }
        let command = timer.command.packed();
        let of = Of { cause: Cause::Timer(number), key: "".into(), permit };
        let durables = &cell.kind.options.durables;
        match durables.open_command((command.name, command.version), command.archive, of) {
            Some(envelope) => envelope.run(cell, body),
            None => unreadable(cell, command.name),
        }
        return;
    }
    // A step that comes back in doubt.
    if let Some(step) = side.step(number).cloned() {
        let (kind, name) = (A::KIND, &*cell.name);
        let key = &*step.key;
        within_turn(|| trace::StepInDoubt { kind, name, owed: &oid, key }.tell());
        let packed = step.work.packed();
        let of = Of { cause: Cause::Step(number, Ended::InDoubt), key: step.key.into(), permit };
        let durables = &cell.kind.options.durables;
        match durables.open_step((packed.name, packed.version), packed.archive, of) {
            Some(envelope) => envelope.run(cell, body),
            None => unreadable(cell, packed.name),
        }
    }
}

/// It stays open, for a build that can read it.
pub(crate) fn unreadable<A: Actor>(cell: &Cell<A>, command: &str) {
    let why = format!("`{command}` is not among the durable types of {}, or not readable", A::KIND);
    cell.dead_letter("a durable value", ActorError::NotArchived { reason: why.into() });
}

/// A handler has failed with something that is owed.
pub(crate) fn failed<A: Actor>(
    cell: &Arc<Cell<A>>,
    body: &mut Body<A>,
    cause: Cause,
    (command, why): (&'static str, ActorError),
) {
    let shared = cell.shared();
    let own = |number| Oid { stream: cell.stream, number };
    let (oid, closing) = match cause {
        Cause::Command => return,
        Cause::Sent(oid) => (oid, Note::Handled { oid, given_up: true }),
        Cause::Timer(number) => (own(number), Note::Fired { number, due: 0 }),
        Cause::Step(number, how) => (own(number), Note::Ended { number, how }),
    };
    let now = shared.clock.wall_ms();
    match &why {
        // Until the next open.
        ActorError::Closed | ActorError::Stopped(_) | ActorError::Collision(_) => {}
        ActorError::Append(error) if matches!(**error, AppendError::Poisoned(_)) => {}
        ActorError::Append(error) if !matches!(**error, AppendError::GroupTooLarge { .. }) => {
            shared.ledger.again(oid, now.saturating_add(WAIT_MS));
            return;
        }
        // The actor rests: that is nobody's failure but its own.
        ActorError::Resting { left } => {
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            shared.ledger.again(oid, now.saturating_add(left).saturating_add(1));
            return;
        }
        ActorError::GivenUp { .. } => {
            shared.ledger.again(oid, now.saturating_add(BACKOFF_MS_MAX));
            return;
        }
        ActorError::Read(_) | ActorError::Full => {
            shared.ledger.again(oid, now.saturating_add(WAIT_MS));
            return;
        }
        _ => {
            let failures = shared.ledger.failed(oid);
            let (kind, name, owed) = (A::KIND, &*cell.name, &oid);
            let (count, error) = (u64::from(failures), &why);
            if failures < shared.options.attempts_max {
                let backoff_ms = (BACKOFF_MS_FIRST << failures.min(16)).min(BACKOFF_MS_MAX);
                shared.counts.retried();
                let told =
                    trace::OwedRetried { kind, name, owed, failures: count, backoff_ms, error };
                within_turn(|| told.tell());
                shared.ledger.again(oid, now.saturating_add(backoff_ms));
                return;
            }
            let told = trace::OwedGivenUp { kind, name, owed, failures: count, error };
            within_turn(|| told.tell());
            settle(cell, body, &closing);
        }
    }
    cell.dead_letter(command, why);
}

/// Appends a note by itself.
fn settle<A: Actor>(cell: &Arc<Cell<A>>, body: &mut Body<A>, note: &Note<'_>) {
    let Ok(live) = cell.live(body) else { return };
    let settled = commit::append_note(cell, live, note);
    if settled.is_err() {
        cell.forget(body);
    }
}

impl Shared {
    /// Appends notes, as one frame, to the stream that remembers what was taken up.
    pub(crate) fn remember(&self, notes: &[Note<'_>]) -> Result<(), AppendError> {
        let stream = attempts();
        let mut last = self.remembered.lock();
        let seq = if let Some(seq) = *last {
            seq
        } else {
            self.events.replay(stream, Seq::MAX, &mut |_| ControlFlow::Break(()))?.last
        };
        let mut desk = Desk::take();
        let mut record = |kind, bytes: &[u8]| desk.batch.push(kind, 1, bytes);
        let full = |_| AppendError::GroupTooLarge { bytes: usize::MAX, max: usize::MAX };
        if seq == Seq::ZERO {
            record(RecordKind::Name, &name::encode(KIND, NAME).unwrap_or_default())
                .map_err(full)?;
        }
        record(RecordKind::Turn, &[]).map_err(full)?;
        for note in notes {
            desk.note(note).map_err(full)?;
        }
        let next = seq.checked_add(1).unwrap_or(Seq::MAX);
        self.ledger.append(&*self.events, &mut desk, stream, next)?;
        desk.put_back();
        *last = Some(next);
        Ok(())
    }

    /// The kind of that name, if it is known.
    pub(crate) fn kind(&self, kind: &str) -> Option<Arc<dyn AnyKind>> {
        super::runtime::KnownKinds::of(self, kind)
    }
}

/// Rings what is due, until it is told to stop.
pub(crate) fn keep_time(shared: &Arc<Shared>) {
    loop {
        match shared.ledger.wait(&shared.clock) {
            super::ledger::Due::Stopped => return,
            super::ledger::Due::Alarms(due) => {
                for (oid, open) in due {
                    super::worker::survive(|| deliver(shared, oid, open, None));
                }
            }
            super::ledger::Due::Flushes(actors) => {
                for actor in actors {
                    super::worker::survive(|| actor.flush());
                }
            }
        }
    }
}

/// The name of a durable type that a kind does not take, as a mistake of its author.
pub(crate) fn unregistered<A: Actor, C>(what: &str) -> String {
    format!("{} is no {what} of kind `{}`: name it in its options", type_name::<C>(), A::KIND)
}
