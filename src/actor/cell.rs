//! The cell: all that is in memory of one actor.
//!
//! Three things, each under a lock or atomic of its own: the *lane* (mailbox, and whether
//! somebody takes turns), the *body* (state, locked during turns), and when it was last used.
//! There is one cell per name, and a state lives nowhere but in its cell's body: so there is
//! never a second live incarnation.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::aside::{Flags, UNSTASH};
use super::commit;
use super::error::Why;
use super::kind::Kind;
use super::load::{self, Source};
use super::loads::Permit;
use super::mailbox::{Arrival, Lane, Letter, Mark, Once};
use super::name::Name;
use super::options::DeadLetter;
use super::queue::Queue;
use super::runtime::{Gate, Shared};
use super::saving::WallTime;
use super::side::Side;
use super::ticket::{Deadline, Parked};
use super::turn::{Depth, take_turn};
use super::worker::{Job, Resident};
use super::{Actor, ActorError, Handle};
use crate::trace;
use crate::types::{Lsn, Seq, StreamId};

/// Commands queued before it that a caller runs on its own thread to get at its own.
const QUEUED_BEFORE_CALLER_MAX: usize = 32;

/// When turns are tried to be appended again that could not be.
const FLUSH_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

pub(crate) struct Cell<A: Actor> {
    pub(crate) kind: Arc<Kind<A>>,
    pub(crate) name: Name,
    pub(crate) stream: StreamId,
    pub(super) lane: Mutex<Lane<A>>,
    pub(super) body: Mutex<Body<A>>,
    /// The runtime's tick at the last turn; 0 while there is no state.
    used: AtomicU32,
    pub(crate) flags: Flags,
}

/// The state, if it is in memory.
pub(crate) enum Body<A: Actor> {
    Absent,
    Live(Live<A>),
    /// Its events do not make a state.
    Stopped(ActorError),
}

/// A state in memory.
pub(crate) struct Live<A: Actor> {
    pub(crate) state: A,
    /// The last event in it.
    pub(crate) seq: Seq,
    /// The frame that holds that event.
    pub(crate) lsn: Option<Lsn>,
    /// The mark that covers that frame.
    pub(crate) end: Mark,
    /// The last event that is in a snapshot, as far as is known.
    pub(crate) saved: Seq,
    /// The last event for which a snapshot was asked, or is there.
    pub(crate) tried: Seq,
    /// When that was, by the wall clock, where the policy asks for time.
    pub(crate) tried_at: WallTime,
    /// A worker has been asked to take a snapshot.
    pub(crate) save_asked: bool,
    /// A worker has been asked to take the state out of memory.
    pub(crate) leave_asked: bool,
    /// What it carries besides; most carry nothing.
    pub(crate) side: Option<Box<Side>>,
}

impl<A: Actor> Live<A> {
    /// Was the command of that identity handled before?
    pub(crate) fn has_answered<R>(&self, once: Option<&Once<R>>) -> bool {
        once.is_some_and(|once| {
            self.side.as_ref().is_some_and(|side| side.answer(once.id.0).is_some())
        })
    }

    /// Are there turns that were not appended yet?
    pub(crate) fn has_gathered(&self) -> bool {
        self.side.as_ref().is_some_and(|side| side.pending.is_some())
    }
}

/// What a turn says of a snapshot.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Asked {
    /// Which predicates of the policy its events have met.
    pub(crate) seen: u64,
    pub(crate) by_hand: bool,
    pub(crate) suspended: bool,
}

/// Why a caller did not take the turn itself.
pub(crate) enum Unserved<C> {
    /// Others are before it: to be queued.
    Later(C),
    Refused(C, Why),
}

impl<A: Actor> Cell<A> {
    pub(crate) fn new(kind: &Arc<Kind<A>>, name: Name, stream: StreamId) -> Arc<Self> {
        Arc::new(Self {
            kind: Arc::clone(kind),
            name,
            stream,
            lane: Mutex::new(Lane::new()),
            body: Mutex::new(Body::Absent),
            used: AtomicU32::new(0),
            flags: Flags::default(),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.kind.shared
    }

    /// Where its past is.
    pub(crate) fn source(&self) -> Source<'_, A> {
        let shared = self.shared();
        Source {
            name: &self.name,
            stream: self.stream,
            events: &*shared.events,
            snapshots: &*shared.snapshots,
            options: &self.kind.options,
        }
    }

    pub(crate) fn used(&self) -> u32 {
        // Relaxed: a hint of age; what depends on it is decided under the body's lock.
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.lane.lock().is_idle()
    }

    /// Nothing would be lost with the cell, if nobody else holds it.
    pub(crate) fn is_vacant(&self) -> bool {
        let now = || self.shared().clock.monotonic_coarse();
        let lane = self.lane.lock();
        let idle = lane.is_idle() && lane.aside.as_ref().is_none_or(|it| it.is_vacant(now()));
        drop(lane);
        idle && self.body.try_lock().is_some_and(|body| !matches!(*body, Body::Live(_)))
    }

    /// Takes the turn on this thread if the actor is idle and little is queued. The reply is put
    /// where it is wanted: handed from function to function, it would be copied by each.
    pub(crate) fn serve<C: Send + 'static>(
        self: &Arc<Self>,
        command: C,
        once: Option<Once<A::Reply>>,
        reply: &mut Option<Parked<A::Reply>>,
    ) -> Result<(), Unserved<C>>
    where
        A: Handle<C>,
    {
        let mut lane = self.lane.lock();
        if let Err(why) = self.shared().gate().outside() {
            return Err(Unserved::Refused(command, why));
        }
        if lane.running || lane.queue.len() > QUEUED_BEFORE_CALLER_MAX {
            return Err(Unserved::Later(command));
        }
        lane.running = true;
        // What arrives from now on comes after this command.
        let before = (!lane.queue.is_empty()).then(|| std::mem::take(&mut lane.queue));
        self.unlock_with_room(lane, before.is_some());
        let _visit = Visit { cell: self };
        let mut body = self.body();
        if let Some(letters) = before {
            body = match self.run_before(body, letters) {
                Some(body) => body,
                None => return Err(Unserved::Later(command)),
            };
        }
        let mut body = match self.loaded(body) {
            Ok(body) => body,
            Err(error) => {
                drop_quietly(command);
                *reply = Some(Parked::error(error));
                return Ok(());
            }
        };
        match self.admits(&mut body, &command, once.as_ref()) {
            Ok(true) => {}
            // Through the mailbox into the stash.
            Ok(false) => return Err(Unserved::Later(command)),
            Err(error) => {
                drop_quietly(command);
                *reply = Some(Parked::error(error));
                return Ok(());
            }
        }
        let arrival = Arrival { once, ..Arrival::of(None, true) };
        let taken = self.guarded(&mut body, |body| take_turn(self, body, &arrival, command, reply));
        if self.flags.has(UNSTASH) {
            let mut letters = Queue::new();
            self.unstash(&mut letters);
            self.put_back(letters);
        }
        MutexGuard::unlock_fair(body);
        match taken {
            Ok(()) => Ok(()),
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// Runs what is queued before a caller's own command. `None` if that comes to be too much.
    #[cold]
    fn run_before<'a>(
        self: &'a Arc<Self>,
        mut body: MutexGuard<'a, Body<A>>,
        mut letters: Queue<Letter<A>>,
    ) -> Option<MutexGuard<'a, Body<A>>> {
        while let Some(letter) = letters.pop_front() {
            body = match self.loaded(body) {
                Ok(body) => body,
                Err(error) => {
                    body = self.body();
                    self.turn_away(&mut body, letter, error);
                    continue;
                }
            };
            self.run(&mut body, letter);
            self.unstash(&mut letters);
            if letters.len() > QUEUED_BEFORE_CALLER_MAX {
                // What came out of the stash is before the caller, and too much for it.
                self.put_back(letters);
                return None;
            }
        }
        Some(body)
    }

    /// Runs up to `commands_max` queued commands; called by a worker for an entry of the ready
    /// queue.
    pub(crate) fn visit(self: &Arc<Self>, commands_max: usize, mut permit: Option<Permit>) {
        let mut lane = self.lane.lock();
        lane.listed = false;
        if lane.running || lane.queue.is_empty() {
            return; // Who runs will list it again when leaving.
        }
        lane.running = true;
        // If it takes all, the buffer goes along: an idle actor has none.
        let mut letters = lane.queue.take_front(commands_max);
        self.unlock_with_room(lane, true);
        let _visit = Visit { cell: self };
        let mut body = self.body();
        for _ in 0..commands_max {
            let Some(letter) = letters.pop_front() else { break };
            match self.load_here(&mut body, &mut permit) {
                Ok(true) => self.run(&mut body, letter),
                Ok(false) => {
                    letters.push_front(letter);
                    self.put_back(letters);
                    self.lane.lock().listed = true;
                    drop(body);
                    self.shared().stand_in_line(self.resident());
                    return;
                }
                Err(error) => self.turn_away(&mut body, letter, error),
            }
            self.unstash(&mut letters);
            MutexGuard::bump(&mut body);
        }
        self.put_back(letters);
    }

    /// Where loads are limited: the body, with a state in it unless it cannot be read. May wait,
    /// and does that without the body's lock.
    #[inline]
    pub(super) fn loaded<'a>(
        &'a self,
        body: MutexGuard<'a, Body<A>>,
    ) -> Result<MutexGuard<'a, Body<A>>, ActorError> {
        if !matches!(*body, Body::Absent) || !self.shared().loads.are_limited() {
            return Ok(body);
        }
        self.load_in_turn(body)
    }

    #[cold]
    fn load_in_turn<'a>(
        &'a self,
        body: MutexGuard<'a, Body<A>>,
    ) -> Result<MutexGuard<'a, Body<A>>, ActorError> {
        drop(body);
        self.is_rested()?;
        let _permit = self.shared().wait_to_load()?;
        let mut body = self.body();
        let _depth = Depth::enter();
        self.live(&mut body).map(drop)?;
        Ok(body)
    }

    /// The same for a worker, which does not wait: `false` if the actor must stand in line.
    fn load_here(
        &self,
        body: &mut Body<A>,
        permit: &mut Option<Permit>,
    ) -> Result<bool, ActorError> {
        let here = permit.take();
        if !self.shared().loads.are_limited() || !matches!(*body, Body::Absent) {
            return Ok(true);
        }
        self.is_rested()?;
        let Some(_permit) = here.or_else(|| self.shared().try_to_load()) else { return Ok(false) };
        let _depth = Depth::enter();
        self.live(body).map(|_live| true)
    }

    /// A command that the actor is not in a state to handle.
    fn turn_away(self: &Arc<Self>, body: &mut Body<A>, letter: Letter<A>, error: ActorError) {
        let away = AssertUnwindSafe(|| letter.turn_away(self, body, error));
        if let Err(payload) = catch_unwind(away) {
            drop_quietly(payload);
        }
    }

    /// A command that nobody will handle.
    fn refuse(&self, letter: Letter<A>, error: ActorError) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| letter.refuse(self, error))) {
            drop_quietly(payload);
        }
    }

    /// One queued command. A panic that got past the turn (a `Drop` of user code, a storage
    /// provider) leaves a state that nobody can vouch for.
    fn run(self: &Arc<Self>, body: &mut Body<A>, letter: Letter<A>) {
        let run = |body: &mut Body<A>| {
            if let Some(letter) = self.admit(body, letter) {
                letter.run(self, body);
            }
        };
        if let Err(payload) = self.guarded(body, run) {
            drop_quietly(payload);
        }
    }

    fn guarded<T>(
        &self,
        body: &mut Body<A>,
        run: impl FnOnce(&mut Body<A>) -> T,
    ) -> std::thread::Result<T> {
        catch_unwind(AssertUnwindSafe(|| run(body))).inspect_err(|_| {
            self.forget(body);
            self.note_failure();
        })
    }

    /// The body, for turns.
    pub(crate) fn body(&self) -> MutexGuard<'_, Body<A>> {
        self.body.lock()
    }

    pub(crate) fn lane(&self) -> MutexGuard<'_, Lane<A>> {
        self.lane.lock()
    }

    /// The state, read from storage if it is not in memory.
    #[inline]
    pub(crate) fn live<'a>(&self, body: &'a mut Body<A>) -> Result<&'a mut Live<A>, ActorError> {
        self.is_rested()?;
        if let Body::Absent = body {
            self.fetch(body)?;
        }
        match body {
            Body::Live(live) => {
                self.used.store(self.shared().tick(), Ordering::Relaxed);
                Ok(live)
            }
            Body::Stopped(error) => Err(error.clone()),
            Body::Absent => Err(ActorError::Lost),
        }
    }

    /// Reads the state from storage.
    #[cold]
    fn fetch(&self, body: &mut Body<A>) -> Result<(), ActorError> {
        let began = self.shared().meter.began(&self.shared().clock);
        match load::load(self) {
            Ok(live) => {
                self.shared().loaded::<A>(&self.name, (live.saved, live.seq), began);
                self.weigh(&live.state);
                *body = Body::Live(live);
                self.shared().resident_added();
            }
            Err(error @ (ActorError::Stopped(_) | ActorError::Collision(_))) => {
                trace::ActorStopped { kind: A::KIND, name: &self.name, error: &error }.tell();
                *body = Body::Stopped(error);
            }
            Err(error) => {
                self.note_failure();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Throws the state away: the next command reads it from storage.
    pub(crate) fn forget(&self, body: &mut Body<A>) {
        if let Body::Live(live) = body {
            // Turns that were gathered count; what is in memory of them may not.
            commit::flush(self, live).unwrap_or_else(|why| commit::give_up(self, live, &why));
            let old = std::mem::replace(body, Body::Absent);
            self.left_memory();
            drop_quietly(old);
        }
    }

    pub(crate) fn left_memory(&self) {
        self.used.store(0, Ordering::Relaxed);
        self.shared().resident_removed();
        self.weightless();
    }

    /// Looks at the state between two turns.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Live<A>) -> T) -> Result<T, ActorError> {
        self.shared().gate().outside()?;
        let mut body = self.loaded(self.body())?;
        let _depth = Depth::enter();
        Ok(look(self.live(&mut body)?))
    }

    /// Room in the mailbox, as of now.
    fn room(&self, lane: &Lane<A>) -> Result<(), Why> {
        if lane.has_room(self.kind.options.mailbox) { Ok(()) } else { Err(Why::Full) }
    }

    /// Queues a letter that `seal` makes if there is room.
    pub(crate) fn push<E>(
        self: &Arc<Self>,
        envelope: Box<E>,
        seal: impl FnOnce(Box<E>) -> Letter<A>,
    ) -> Result<(), (Box<E>, Why)> {
        let mut lane = self.lane.lock();
        if let Err(why) = self.shared().gate().outside().and_then(|()| self.room(&lane)) {
            return Err((envelope, why));
        }
        lane.queue.push_back(seal(envelope));
        self.unlock_listed(lane);
        Ok(())
    }

    /// Queues a letter as soon as there is room.
    pub(crate) fn push_waiting(
        self: &Arc<Self>,
        letter: Letter<A>,
        deadline: Option<&Deadline>,
    ) -> Result<(), ActorError> {
        let mut lane = self.lane.lock();
        loop {
            self.shared().gate().outside()?;
            if self.room(&lane).is_ok() {
                break;
            }
            if deadline.is_some_and(Deadline::is_over) {
                return Err(ActorError::Timeout);
            }
            lane.waiting = lane.waiting.saturating_add(1);
            self.kind.room.wait_unlocking(lane, deadline);
            lane = self.lane.lock();
            lane.waiting = lane.waiting.saturating_sub(1);
        }
        lane.queue.push_back(letter);
        self.unlock_listed(lane);
        Ok(())
    }

    /// Promises room to a turn of another actor.
    pub(crate) fn reserve(&self) -> Result<(), Why> {
        let mut lane = self.lane.lock();
        self.shared().gate().inside()?;
        self.room(&lane)?;
        lane.reserved += 1;
        Ok(())
    }

    pub(crate) fn unreserve(&self) {
        let mut lane = self.lane.lock();
        lane.reserved = lane.reserved.saturating_sub(1);
        self.unlock_with_room(lane, true);
    }

    /// Queues a letter because of what is owed: of that there is a bound elsewhere.
    pub(crate) fn push_due(self: &Arc<Self>, letter: Letter<A>) -> Result<(), Why> {
        let mut lane = self.lane.lock();
        self.shared().gate().inside()?;
        lane.queue.push_back(letter);
        self.unlock_listed(lane);
        Ok(())
    }

    /// Appends the turns that were gathered, if nobody did since.
    pub(crate) fn flush(self: &Arc<Self>) {
        let mut body = self.body();
        if let Body::Live(live) = &mut *body
            && commit::flush(self, live).is_err()
            && !self.shared().is_poisoned()
        {
            let shared = self.shared();
            shared.ledger.flush_after(FLUSH_AGAIN, &self.resident(), &shared.clock);
        }
    }

    /// Queues a letter for which room was reserved.
    pub(crate) fn deliver(self: &Arc<Self>, letter: Letter<A>) {
        let mut lane = self.lane.lock();
        lane.reserved = lane.reserved.saturating_sub(1);
        if self.shared().gate().inside().is_err() {
            drop(lane);
            letter.refuse(self, ActorError::Closed);
            return;
        }
        lane.queue.push_back(letter);
        self.unlock_listed(lane);
    }

    /// Puts the cell into the ready queue if it must be there and is not.
    fn unlock_listed(self: &Arc<Self>, mut lane: MutexGuard<'_, Lane<A>>) {
        let list = !lane.running && !lane.listed && !lane.queue.is_empty();
        lane.listed |= list;
        drop(lane);
        if list {
            self.shared().send(Job::Visit(self.resident()));
        }
    }

    fn unlock_with_room(&self, lane: MutexGuard<'_, Lane<A>>, has_room: bool) {
        let waiting = lane.waiting;
        drop(lane);
        if has_room && waiting > 0 {
            self.kind.room.notify();
        }
    }

    pub(crate) fn resident(self: &Arc<Self>) -> Arc<dyn Resident> {
        Arc::<Self>::clone(self)
    }

    /// Wakes those who wait for room, so that they see the gate closed.
    pub(crate) fn wake(&self) {
        let lane = self.lane.lock();
        self.unlock_with_room(lane, true);
    }

    /// The runtime is closed: settles what is queued and lets the state go.
    pub(crate) fn close(&self) {
        let (letters, aside) = {
            let mut lane = self.lane.lock();
            (std::mem::take(&mut lane.queue), lane.aside.take())
        };
        // Promised replies that go with it say that they are lost.
        let stash: VecDeque<_> =
            aside.map(|mut aside| std::mem::take(&mut aside.stash)).unwrap_or_default();
        self.shared().counts.unstashed(stash.len());
        for letter in stash.into_iter().chain(letters) {
            self.refuse(letter, ActorError::Closed);
        }
        self.wake();
        if let Some(mut body) = self.body.try_lock() {
            let _depth = Depth::enter();
            self.forget(&mut body);
        }
    }

    /// Threads that wait for room.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> u16 {
        self.lane.lock().waiting
    }

    /// What the queued commands depend on.
    #[cfg(test)]
    pub(crate) fn queued_marks(&self) -> Vec<Mark> {
        self.lane.lock().queue.iter().map(|letter| letter.mark()).collect()
    }

    pub(crate) fn dead_letter(&self, command: &'static str, why: ActorError) {
        let name = Arc::from(&*self.name);
        self.shared().dead_letter(&DeadLetter { kind: A::KIND, name, command, why });
    }
}

/// A stay at an actor, during which nobody else takes turns.
struct Visit<'a, A: Actor> {
    cell: &'a Arc<Cell<A>>,
}

impl<A: Actor> Drop for Visit<'_, A> {
    fn drop(&mut self) {
        let mut lane = self.cell.lane.lock();
        lane.running = false;
        if self.cell.shared().gate() != Gate::Open {
            self.cell.shared().note_activity();
        }
        self.cell.unlock_listed(lane);
    }
}

/// Drops a value of a user's type. A panic in its `Drop` is ignored: there is nobody to tell,
/// and nothing depends on the value any more.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // A payload that panics while dropped would be the third panic in a row.
        let _dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
}
