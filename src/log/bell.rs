//! A bell: many ring, one thread wakes; rings while it is awake count once.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use parking_lot::Mutex;

/// Wakes one background thread.
#[derive(Debug)]
pub(super) struct Bell {
    ring: Mutex<Option<Sender<()>>>,
    answer: Receiver<()>,
}

/// What woke the thread.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    Bell,
    Timeout,
    /// The bell is taken down: end.
    Stopped,
}

impl Bell {
    pub(super) fn new() -> Self {
        let (ring, answer) = bounded(1);
        Self { ring: Mutex::new(Some(ring)), answer }
    }

    pub(super) fn ring(&self) {
        if let Some(ring) = &*self.ring.lock() {
            match ring.try_send(()) {
                // Full: it has been rung and not been answered yet. Disconnected: nobody listens.
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
    }

    pub(super) fn wait(&self, limit: Duration) -> Rung {
        match self.answer.recv_timeout(limit) {
            Ok(()) => Rung::Bell,
            Err(RecvTimeoutError::Timeout) => Rung::Timeout,
            Err(RecvTimeoutError::Disconnected) => Rung::Stopped,
        }
    }

    pub(super) fn stop(&self) {
        self.ring.lock().take();
    }
}
