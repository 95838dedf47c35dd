//! Steps: work outside of turns, on threads that come and go with it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::cell::Cell;
use super::durable::{Outcome, StepContext, Stepped};
use super::mailbox::{Cause, Due, Mark};
use super::note::Ended;
use super::runtime::Shared;
use super::turn::message_of;
use super::{Handle, Step};
use crate::trace;

/// A thread that has found nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(5);

/// A step that is to be run.
pub(crate) struct Task {
    pub run: Box<dyn FnOnce() + Send>,
    /// It waits until its beginning is as durable as the actor's replies.
    pub waits: bool,
}

/// The threads, and what waits for one.
pub(crate) struct Steps {
    queue: Sender<Box<dyn FnOnce() + Send>>,
    waiting: Receiver<Box<dyn FnOnce() + Send>>,
    /// Threads, and of those the idle ones; steps that were begun and have not come back.
    threads: AtomicUsize,
    idle: AtomicUsize,
    under_way: AtomicUsize,
}

impl Steps {
    pub(crate) fn new() -> Self {
        let (queue, waiting) = crossbeam_channel::unbounded();
        Self {
            queue,
            waiting,
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
        }
    }

    /// Steps that were begun in this life and have not come back.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps").field("under_way", &self.under_way()).finish_non_exhaustive()
    }
}

/// The work of a step, which ends with a command to its actor.
pub(crate) fn work<A, S>(
    cell: &Arc<Cell<A>>,
    step: S,
    context: StepContext,
) -> Box<dyn FnOnce() + Send>
where
    A: Handle<Stepped<S>>,
    S: Step,
{
    let cell = Arc::clone(cell);
    Box::new(move || {
        let clock = &cell.shared().clock;
        let (kind, name, key) = (A::KIND, &*cell.name, &*context.key);
        trace::StepBegun { kind, name, owed: &context.oid, key }.tell();
        let now = || if trace::ON { clock.monotonic() } else { Duration::ZERO };
        let began = now();
        let ran = catch_unwind(AssertUnwindSafe(|| step.run(&context)));
        let (outcome, how) = match ran {
            Ok(output) => (Outcome::Done(output), Ended::Done),
            Err(payload) => (Outcome::Panicked(message_of(payload)), Ended::Panicked),
        };
        let took_us = trace::micros(now().saturating_sub(began));
        let panicked = how == Ended::Panicked;
        trace::StepEnded { kind, name, owed: &context.oid, key, panicked, took_us }.tell();
        let cause = Cause::Step(context.oid.number, how);
        let command = Stepped { step, key: context.key, outcome };
        // Refused: the runtime is closed, and the step is in doubt.
        let due = Box::new(Due { command, cause, mark: None, permit: None });
        cell.push_due(due).unwrap_or_default();
    })
}

/// Runs steps once `mark` is durable.
pub(crate) fn begin(shared: &Arc<Shared>, tasks: Vec<Task>, mark: Mark) {
    for task in tasks {
        shared.steps.under_way.fetch_add(1, Ordering::AcqRel);
        let run = task.run;
        let owner = Arc::clone(shared);
        let run: Box<dyn FnOnce() + Send> = Box::new(move || {
            let counted = UnderWay(owner);
            run();
            drop(counted);
        });
        match mark.filter(|_| task.waits) {
            None => start(shared, run),
            Some(mark) => {
                let owner = Arc::clone(shared);
                let departure = Box::new(move || start(&owner, run));
                shared.departures.at(shared, mark, departure);
            }
        }
    }
}

/// Also if what it counts never ran.
struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.steps.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.note_activity();
    }
}

fn start(shared: &Arc<Shared>, run: Box<dyn FnOnce() + Send>) {
    let steps = &shared.steps;
    // The other end is beside it.
    let _queued: Result<(), _> = steps.queue.send(run);
    let enough = steps.idle.load(Ordering::Acquire) > steps.waiting.len().saturating_sub(1);
    let most = shared.options.steps_max.max(1);
    if enough || steps.threads.fetch_add(1, Ordering::AcqRel) >= most {
        if !enough {
            steps.threads.fetch_sub(1, Ordering::AcqRel);
        }
        return;
    }
    let waiting = steps.waiting.clone();
    let owner = Arc::downgrade(shared);
    let spawned = std::thread::Builder::new().name("annals-step".to_owned()).spawn(move || {
        loop {
            let Some(shared) = owner.upgrade() else { return };
            shared.steps.idle.fetch_add(1, Ordering::AcqRel);
            drop(shared);
            let next = waiting.recv_timeout(IDLE);
            let Some(shared) = owner.upgrade() else { return };
            shared.steps.idle.fetch_sub(1, Ordering::AcqRel);
            match next {
                Ok(run) => super::worker::survive(run),
                Err(_idle) => {
                    shared.steps.threads.fetch_sub(1, Ordering::AcqRel);
                    return;
                }
            }
        }
    });
    if spawned.is_err() {
        // Whoever has a thread takes it; with none at all, the next step tries again.
        steps.threads.fetch_sub(1, Ordering::AcqRel);
    }
}
