//! The timer: what the node's thread sleeps on.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Wakes one thread, at a time or at once.
#[derive(Debug, Default)]
pub(super) struct Timer {
    state: Mutex<State>,
    ring: Condvar,
}

#[derive(Debug, Default)]
struct State {
    at: Option<Duration>,
    /// Something is to be looked at now.
    rung: bool,
    stopped: bool,
}

impl Timer {
    /// A tick is due at this time; replaces the one before.
    pub(super) fn arm(&self, at: Duration) {
        self.state.lock().at = Some(at);
        self.ring.notify_one();
    }

    /// Has the thread look.
    pub(super) fn wake(&self) {
        self.state.lock().rung = true;
        self.ring.notify_one();
    }

    /// Ends the waits.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.ring.notify_one();
    }

    /// Waits until something is due or rung, `most` at most; `None` when it is over, else whether
    /// a tick is due.
    pub(super) fn wait(&self, most: Duration, now: impl Fn() -> Duration) -> Option<bool> {
        let deadline = now().saturating_add(most);
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            let now = now();
            let due = state.at.is_some_and(|at| at <= now);
            if due {
                state.at = None;
            }
            if due || state.rung || now >= deadline {
                state.rung = false;
                return Some(due);
            }
            let until = state.at.map_or(deadline, |at| at.min(deadline));
            self.ring.wait_for(&mut state, until.saturating_sub(now));
        }
    }
}
