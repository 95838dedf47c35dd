//! Departures: what must not leave before its cause is durable, and has nobody who waits for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

use super::mailbox::Mark;
use super::runtime::Shared;
use super::worker::{Job, survive};
use crate::types::Lsn;

type Departure = Box<dyn FnOnce() + Send>;

/// What waits, by the mark that it waits for.
#[derive(Default)]
pub(crate) struct Departures {
    waiting: Mutex<BTreeMap<Lsn, Vec<Departure>>>,
}

struct Ring(Weak<Shared>);

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.send(Job::Depart(Arc::clone(&shared)));
        }
    }
}

impl Departures {
    /// Runs `departure` on a worker once `mark` is durable. Never, if that fails: then what it was
    /// to follow is in doubt.
    pub(crate) fn at(&self, shared: &Arc<Shared>, mark: Lsn, departure: Departure) {
        self.waiting.lock().entry(mark).or_default().push(departure);
        let waker = Waker::from(Arc::new(Ring(Arc::downgrade(shared))));
        shared.events.wake_when_durable(mark, &waker);
    }

    /// Lets go what may.
    pub(crate) fn depart(&self, shared: &Shared) {
        let durable = shared.events.durable();
        let mut due = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            while let Some(first) = waiting.first_entry()
                && first.key().get() <= durable
            {
                due.extend(first.remove());
            }
            if shared.events.poisoned().is_some() {
                waiting.clear();
            }
        }
        for departure in due {
            survive(departure);
        }
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// What waits will not leave.
    pub(crate) fn clear(&self) {
        self.waiting.lock().clear();
    }
}

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departures").field("empty", &self.is_empty()).finish()
    }
}

/// Runs what a turn wanted to be run after it.
pub(super) fn run_after(shared: &Arc<Shared>, after: Vec<Departure>, mark: Mark) {
    for departure in after {
        match mark {
            Some(mark) => shared.departures.at(shared, mark, departure),
            None => shared.send(Job::Run(departure)),
        }
    }
}
