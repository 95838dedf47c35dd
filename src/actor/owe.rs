//! What a turn may promise: messages, timers and steps that outlive a crash.
//!
//! All of them are records of the turn's own frame, so they are promised exactly if the turn's
//! events are there; and a turn that promises anything ends with a barrier.

use std::sync::Arc;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::durable::{Durable, Step, StepContext, Stepped};
use super::error::{Refused, Why};
use super::mailbox::{Cause, Sent};
use super::note::{Missed, Note, Oid, Packed, Rhythm, StepPolicy};
use super::resume::unregistered;
use super::steps::{self, Task};
use super::{Actor, ActorError, Addr, Handle, Turn};
use crate::types::HybridTime;

impl<A: Actor> Turn<'_, A> {
    /// Sends a command to another actor of this store (or to this one) for good: **it is handled
    /// exactly once**, whatever crashes come between, in the order in which this actor sends to
    /// that one as long as no handler fails and no crash comes between. (What is sent after a crash
    /// may be handled before what was sent ahead of it and is only being taken up.)
    ///
    /// It is stored with this turn, and that it was handled is stored with the turn that does so.
    /// If that turn fails it is tried again, with longer and longer pauses, at most
    /// [`attempts_max`](super::RuntimeOptions::attempts_max) times; then it is given up, which is
    /// stored too, and is a dead letter. Its reply is dropped.
    ///
    /// Room in the mailbox is taken at once, as by [`tell`](Self::tell).
    ///
    /// # Errors
    /// [`Refused`] gives the command back; the turn goes on.
    ///
    /// # Panics
    /// If `C` is not among the [commands](super::ActorOptions::command) of `B`: after a crash it
    /// could not be read. Also where it refuses to be archived.
    pub fn send<B, C>(&mut self, to: &Addr<B>, command: C) -> Result<(), Refused<C>>
    where
        B: Handle<C>,
        C: Durable,
    {
        let cell = to.cell();
        assert!(cell.kind.options.durables.takes(C::NAME), "{}", unregistered::<B, C>("command"));
        if !Arc::ptr_eq(cell.shared(), self.cell.shared()) {
            return Err(Refused { command, why: Why::Foreign });
        }
        if let Err(why) = cell.reserve() {
            return Err(Refused { command, why });
        }
        let number = self.open();
        let archive = self.archive(&command);
        let packed = Packed { name: C::NAME, version: C::VERSION, archive: &archive };
        self.write(&Note::Sent { number, kind: B::KIND, name: to.name(), command: packed });
        let oid = Oid { stream: self.cell.stream, number };
        let sent = Sent::new(Arc::clone(cell), command, Cause::Sent(oid));
        self.desk().outgoing.push(Box::new(sent));
        self.wishes.barrier = true;
        Ok(())
    }

    /// Has `command` handled by this actor at `time`, or as soon after as there is a process to do
    /// it. A timer of the same key is replaced.
    ///
    /// That it has fired is stored with the turn that handles it. If that fails it is tried again
    /// as for [`send`](Self::send).
    ///
    /// # Panics
    /// If `C` is not among the [commands](super::ActorOptions::command) of this kind, or refuses to
    /// be archived.
    pub fn wake_at<C>(&mut self, key: &str, time: HybridTime, command: &C)
    where
        A: Handle<C>,
        C: Durable,
    {
        let due = time.millis().max(1);
        self.arm(key, Rhythm { due, every: 0, missed: Missed::FireOnce }, command);
    }

    /// [`wake_at`](Self::wake_at), so long after this turn.
    ///
    /// # Panics
    /// As there.
    pub fn wake_after<C>(&mut self, key: &str, time: Duration, command: &C)
    where
        A: Handle<C>,
        C: Durable,
    {
        let due = self.now().millis().saturating_add(millis(time)).max(1);
        self.arm(key, Rhythm { due, every: 0, missed: Missed::FireOnce }, command);
    }

    /// A reminder: [`wake_at`](Self::wake_at) at `first`, and again each time `every` has passed
    /// since then, on that grid. `missed` says what becomes of times at which nobody was there.
    ///
    /// # Panics
    /// As there, and if `every` is less than a millisecond.
    pub fn remind<C>(
        &mut self,
        key: &str,
        (first, every): (HybridTime, Duration),
        missed: Missed,
        command: &C,
    ) where
        A: Handle<C>,
        C: Durable,
    {
        let every = millis(every);
        assert!(every > 0, "a reminder's period is a millisecond at least");
        self.arm(key, Rhythm { due: first.millis().max(1), every, missed }, command);
    }

    fn arm<C>(&mut self, key: &str, rhythm: Rhythm, command: &C)
    where
        A: Handle<C>,
        C: Durable,
    {
        let takes = self.cell.kind.options.durables.takes(C::NAME);
        assert!(takes, "{}", unregistered::<A, C>("command"));
        self.cancel(key);
        let number = self.open();
        let archive = self.archive(command);
        let command = Packed { name: C::NAME, version: C::VERSION, archive: &archive };
        self.write(&Note::Armed { number, key, rhythm, command });
        self.wishes.barrier = true;
    }

    /// Disarms a timer. `false` if none is armed under that key.
    pub fn cancel(&mut self, key: &str) -> bool {
        let Some(number) = self.armed(key) else { return false };
        self.write(&Note::Disarmed { number });
        true
    }

    /// The number of the timer under a key, with what this turn has done so far.
    fn armed(&self, wanted: &str) -> Option<u64> {
        let side = self.live.side.as_ref();
        let mut found = side.and_then(|side| side.timer(wanted)).map(|timer| timer.number);
        let notes = self.desk.iter().flat_map(|desk| desk.notes(self.before));
        for note in notes {
            match note {
                Note::Armed { number, key, .. } if key == wanted => found = Some(number),
                Note::Disarmed { number } | Note::Fired { number, due: 0 }
                    if found == Some(number) =>
                {
                    found = None;
                }
                _ => {}
            }
        }
        found
    }

    /// When the timer under a key is due, as far as earlier turns have armed it.
    pub fn timer(&self, key: &str) -> Option<HybridTime> {
        let timer = self.live.side.as_ref()?.timer(key)?;
        Some(HybridTime::from_millis(timer.rhythm.due))
    }

    /// Begins a step: work that runs outside of turns once this turn is stored as hard as its reply
    /// would be, and comes back as a command [`Stepped<S>`](Stepped).
    ///
    /// If the process ends before that command has been handled, the step comes back at the next
    /// open as [`Outcome::InDoubt`](super::Outcome::InDoubt); it is not run again by itself. A
    /// handler that fails with it gets it in doubt, too, after a pause.
    ///
    /// # Panics
    /// If `S` is not among the [steps](super::ActorOptions::step) of this kind, or refuses to be
    /// archived.
    pub fn step<S>(&mut self, key: &str, step: S)
    where
        A: Handle<Stepped<S>>,
        S: Step,
    {
        let known = self.cell.kind.options.durables.steps_with(S::NAME);
        assert!(known, "{}", unregistered::<A, S>("step"));
        let number = self.open();
        let archive = self.archive(&step);
        let packed = Packed { name: S::NAME, version: S::VERSION, archive: &archive };
        self.write(&Note::Began { number, policy: S::POLICY, key, step: packed });
        let oid = Oid { stream: self.cell.stream, number };
        let services = self.cell.shared().options.services.clone();
        let context = StepContext { oid, key: key.into(), services };
        let run = steps::work(self.cell, step, context);
        let waits = S::POLICY != StepPolicy::After;
        self.wishes.barrier |= waits;
        self.wishes.rare().steps.push(Task { run, waits });
    }

    /// Leaves a message for the outside, to be fetched by whoever follows that topic. It is stored
    /// with this turn.
    ///
    /// # Panics
    /// If it refuses to be archived.
    pub fn outside<M: Durable>(&mut self, topic: &str, message: &M) {
        let number = self.open();
        let archive = self.archive(message);
        let message = Packed { name: M::NAME, version: M::VERSION, archive: &archive };
        self.write(&Note::Outside { number, topic, message });
        self.wishes.barrier = true;
    }

    /// Runs `then` once this turn is as durable as its reply would be; never, if the turn fails or
    /// the process ends before. It runs on a worker and should be short.
    pub fn after(&mut self, then: impl FnOnce() + Send + 'static) {
        self.wishes.rare().after.push(Box::new(then));
        self.wishes.barrier = true;
    }

    /// The number of what is opened next.
    fn open(&mut self) -> u64 {
        let rare = self.wishes.rare();
        rare.opened += 1;
        self.live.side.as_ref().map_or(0, |side| side.opened) + rare.opened
    }

    fn archive<D: Durable>(&mut self, value: &D) -> AlignedVec<16> {
        let mut bytes = AlignedVec::new();
        if let Err(error) = value.encode(&mut bytes) {
            let reason = format!("{}: {error}", D::NAME).into();
            self.wishes.failure.get_or_insert(ActorError::NotArchived { reason });
        }
        bytes
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
