//! The end of a runtime: its threads, and what becomes of what was accepted.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::ActorError;
use super::cell::drop_quietly;
use super::resume;
use super::runtime::{Gate, Shared};
use super::sweep::{self, Call};
use super::ticket::Deadline;
use super::turn::in_turn;
use super::worker::{self, Job};

/// How often a close looks again, if nobody tells it that something has changed.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What threads that are in no turn get to end, even when the deadline is over.
const GRACE: Duration = Duration::from_millis(200);

/// How a close went.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Commands that were told and accepted, and not handled before the deadline.
    pub dead_letters: u64,
    /// Threads whose turn had not ended at the deadline. They end when it does.
    pub threads_left: usize,
}

/// The runtime's threads.
pub(crate) struct Threads {
    workers: usize,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        jobs: &Receiver<Job>,
        calls: Receiver<Call>,
    ) -> Result<Self, ActorError> {
        let mut threads = Self { workers: 0, handles: Vec::new() };
        let workers = shared.options.workers.get();
        let mut result = Ok(());
        for number in 0..workers {
            let jobs = jobs.clone();
            let commands_max = shared.options.visit_commands;
            result = threads.spawn(shared, format!("annals-worker-{number}"), move |shared| {
                worker::work(&shared.ready, &jobs, commands_max);
            });
            if result.is_err() {
                break;
            }
            threads.workers += 1;
        }
        let result = result.and_then(|()| {
            threads.spawn(shared, "annals-keeper".to_owned(), move |shared| {
                sweep::keep(shared, &calls);
            })
        });
        let result = result
            .and_then(|()| threads.spawn(shared, "annals-timer".to_owned(), resume::keep_time));
        let result =
            result.and_then(|()| threads.spawn(shared, "annals-resume".to_owned(), resume::resume));
        match result {
            Ok(()) => Ok(threads),
            Err(error) => {
                let _report: CloseReport = threads.close(shared, Duration::from_secs(1));
                Err(error)
            }
        }
    }

    fn spawn(
        &mut self,
        shared: &Arc<Shared>,
        name: String,
        run: impl FnOnce(&Arc<Shared>) + Send + 'static,
    ) -> Result<(), ActorError> {
        let shared = Arc::clone(shared);
        let thread = Builder::new().name(name).spawn(move || {
            let _ended = Ended(&shared);
            run(&shared);
        });
        self.handles.push(thread.map_err(|error| ActorError::Thread(Arc::new(error)))?);
        Ok(())
    }

    /// Shuts the gate, drains, settles, joins.
    pub(crate) fn close(self, shared: &Arc<Shared>, limit: Duration) -> CloseReport {
        let deadline = Deadline::after(limit);
        shared.shut(Gate::Closing);
        shared.ledger.stop();
        // From here on nobody outside is let in: who had a lane's lock before this is in its
        // queue, who has it after sees the gate.
        for kind in shared.each_kind() {
            kind.wake();
        }
        drain(shared, &deadline);
        let before = shared.dead_letters();
        shared.shut(Gate::Closed);
        shared.loads.close();
        for _ in 0..self.workers {
            shared.send(Job::Stop);
        }
        shared.call_keeper(Call::Stop);
        let inside = in_turn();
        if !inside {
            self.await_end(shared, deadline);
        }
        shared.departures.clear();
        for kind in shared.each_kind() {
            kind.close();
        }
        shared.forget_kinds();
        let all = self.handles.len();
        let all_ended = !inside && *shared.ended.lock() == all;
        let mut threads_left = 0;
        for handle in self.handles {
            if all_ended || handle.is_finished() {
                if let Err(payload) = handle.join() {
                    drop_quietly(payload);
                }
            } else {
                threads_left += 1;
            }
        }
        CloseReport { dead_letters: shared.dead_letters() - before, threads_left }
    }

    fn await_end(&self, shared: &Shared, deadline: Deadline) {
        // Also past the deadline threads that are in no turn need a moment to end.
        let deadline = deadline.max(Deadline::after(GRACE));
        let mut ended = shared.ended.lock();
        while *ended < self.handles.len() && !deadline.is_over() {
            shared.changed.wait_for(&mut ended, deadline.left());
        }
    }
}

/// Waits until nobody runs and nothing is queued, or for the deadline.
fn drain(shared: &Shared, deadline: &Deadline) {
    loop {
        // An actor that was seen idle may be sent something by one that is looked at later; but
        // then that one's visit ends in between, and the count has changed.
        let before = shared.activity();
        let idle = shared.each_kind().iter().all(|kind| kind.is_idle());
        let idle = idle && shared.steps.under_way() == 0 && shared.departures.is_empty();
        if idle && shared.activity() == before {
            return;
        }
        if deadline.is_over() {
            return;
        }
        let mut ended = shared.ended.lock();
        shared.changed.wait_for(&mut ended, LOOK_AGAIN.min(deadline.left()));
    }
}

/// Counts a thread's end, also if by a panic.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.ended.lock() += 1;
        self.0.changed.notify_all();
    }
}
