//! How many states are read at the same time, and who is next.
//!
//! A *permit* goes to who has waited for longest: to a caller's thread, or with a job to a worker.
//! Workers never wait for one: an actor that needs one stands in line, and its worker goes on to
//! the next. So however many actors wait to be read, those in memory are served
//! (`RuntimeOptions::loads_max` below the number of workers keeps one for them).
//!
//! Nobody waits for ever: who waits for a permit holds no body, who has one is reading or is a job
//! that a worker comes to, and workers wait for nothing but bodies.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::ActorError;
use super::runtime::Shared;
use super::worker::{Job, Resident};

pub(crate) struct Loads {
    /// `usize::MAX` is no limit, and costs nothing.
    max: usize,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    /// Permits that somebody has.
    taken: usize,
    waiting: VecDeque<Waiter>,
    closed: bool,
}

enum Waiter {
    Thread(Arc<Called>),
    Actor(Arc<dyn Resident>),
}

/// Where a thread waits.
#[derive(Default)]
struct Called {
    answer: Mutex<Option<Result<(), ActorError>>>,
    changed: Condvar,
}

impl Called {
    fn answer(&self, answer: Result<(), ActorError>) {
        *self.answer.lock() = Some(answer);
        self.changed.notify_one();
    }

    fn wait(&self) -> Result<(), ActorError> {
        let mut answer = self.answer.lock();
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            self.changed.wait(&mut answer);
        }
    }
}

/// Leave to read one state. Dropped, it goes to the next in line.
pub(crate) struct Permit {
    shared: Arc<Shared>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let next = {
            let mut line = self.shared.loads.line.lock();
            let next = line.waiting.pop_front();
            if next.is_none() {
                line.taken -= 1;
            }
            next
        };
        match next {
            Some(Waiter::Thread(called)) => called.answer(Ok(())),
            Some(Waiter::Actor(resident)) => {
                let permit = Self { shared: Arc::clone(&self.shared) };
                self.shared.send(Job::Load(resident, permit));
            }
            None => {}
        }
    }
}

impl Loads {
    pub(crate) fn new(max: usize) -> Self {
        Self { max: max.max(1), line: Mutex::default() }
    }

    pub(crate) const fn are_limited(&self) -> bool {
        self.max < usize::MAX
    }

    /// The runtime is closed: nobody is given a permit any more.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut line = self.line.lock();
            line.closed = true;
            std::mem::take(&mut line.waiting)
        };
        for waiter in waiting {
            match waiter {
                Waiter::Thread(called) => called.answer(Err(ActorError::Closed)),
                // What it has in its mailbox is settled by the close.
                Waiter::Actor(resident) => drop(resident),
            }
        }
    }
}

impl Shared {
    /// A permit, after those who came before. The caller holds no body.
    ///
    /// # Errors
    /// [`ActorError::Closed`].
    pub(crate) fn wait_to_load(self: &Arc<Self>) -> Result<Permit, ActorError> {
        let called = {
            let mut line = self.loads.line.lock();
            if line.closed {
                return Err(ActorError::Closed);
            }
            if line.taken < self.loads.max {
                line.taken += 1;
                return Ok(Permit { shared: Arc::clone(self) });
            }
            let called = Arc::new(Called::default());
            line.waiting.push_back(Waiter::Thread(Arc::clone(&called)));
            called
        };
        called.wait()?;
        Ok(Permit { shared: Arc::clone(self) })
    }

    /// A permit if there is one.
    pub(crate) fn try_to_load(self: &Arc<Self>) -> Option<Permit> {
        let mut line = self.loads.line.lock();
        if line.closed || line.taken >= self.loads.max {
            return None;
        }
        line.taken += 1;
        Some(Permit { shared: Arc::clone(self) })
    }

    /// An actor that is to be visited when there is a permit for it.
    pub(crate) fn stand_in_line(self: &Arc<Self>, resident: Arc<dyn Resident>) {
        let permit = {
            let mut line = self.loads.line.lock();
            if line.closed {
                return;
            }
            if line.taken >= self.loads.max {
                line.waiting.push_back(Waiter::Actor(resident));
                return;
            }
            line.taken += 1;
            Permit { shared: Arc::clone(self) }
        };
        self.send(Job::Load(resident, permit));
    }
}
