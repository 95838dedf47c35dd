//! Workers: the threads that run what was told, and what is left to do after a turn.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::Actor;
use super::cell::{Cell, drop_quietly};
use super::loads::Permit;
use super::ready::Ready;
use super::runtime::Shared;

/// An entry of the ready queue. Each actor has at most one `Visit` in it.
pub(crate) enum Job {
    /// Commands are queued.
    Visit(Arc<dyn Resident>),
    /// The same, for one that had to wait for its leave to be read.
    Load(Arc<dyn Resident>, Permit),
    /// A snapshot is due.
    Save(Arc<dyn Resident>),
    /// The state wants to leave memory.
    Passivate(Arc<dyn Resident>),
    /// Something may leave that waited for the disk.
    Depart(Arc<Shared>),
    /// What a turn has left to be run.
    Run(Box<dyn FnOnce() + Send>),
    /// One worker ends.
    Stop,
}

/// An actor of any type, as workers and tickets see it.
pub(crate) trait Resident: Send + Sync {
    fn shared(&self) -> &Arc<Shared>;
    fn visit(self: Arc<Self>, commands_max: NonZeroU32, permit: Option<Permit>);
    fn save(&self);
    fn flush(self: Arc<Self>);
    fn passivate(&self);
}

impl<A: Actor> Resident for Cell<A> {
    fn shared(&self) -> &Arc<Shared> {
        Self::shared(self)
    }

    fn visit(self: Arc<Self>, commands_max: NonZeroU32, permit: Option<Permit>) {
        let max = usize::try_from(commands_max.get()).unwrap_or(usize::MAX);
        Self::visit(&self, max, permit);
    }

    fn save(&self) {
        self.save_asked();
    }

    fn flush(self: Arc<Self>) {
        Self::flush(&self);
    }

    fn passivate(&self) {
        Self::passivate(self);
    }
}

/// Panics of turns are caught where the turn is; what arrives here comes from a storage provider
/// or a user's `Drop`. It has cost what was being done, and must not cost the thread.
pub(crate) fn survive(work: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
        drop_quietly(payload);
    }
}

/// Until it is told to stop.
pub(crate) fn work(ready: &Ready, to_do: &Receiver<Job>, commands_max: NonZeroU32) {
    loop {
        let job = ready.take(to_do);
        if let Job::Stop = job {
            return;
        }
        survive(|| match job {
            Job::Visit(resident) => resident.visit(commands_max, None),
            Job::Load(resident, permit) => resident.visit(commands_max, Some(permit)),
            Job::Save(resident) => resident.save(),
            Job::Passivate(resident) => resident.passivate(),
            Job::Depart(shared) => shared.departures.depart(&shared),
            Job::Run(run) => run(),
            Job::Stop => {}
        });
    }
}
