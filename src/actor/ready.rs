//! The ready queue: jobs for the workers, and who of them sleeps.
//!
//! A thread that sends must not pay for a worker's waking up each time: that is a call of the
//! system, and dearer than the turn. So a worker that finds nothing *searches* for a while before
//! it sleeps, nobody is woken as long as one searches, and who finds a job as the last searcher
//! wakes the next if there is more. So the workers that are up are as many as there is work for.
//!
//! No job is overlooked. Who sends puts its job in and then reads how many search; who ends its
//! search says so and then looks into the queue; between the two steps both have a fence, so one of
//! them sees the other.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex};

use super::worker::Job;

/// In `Ready::state`: the number of sleepers from here on up, that of searchers below.
const ASLEEP: u64 = 1 << 32;
const SEARCHING: u64 = 1;

/// Rounds of a search that only spin, and those that let other threads go first.
const SPINS: u32 = 6;
const YIELDS: u32 = 6;

/// See the [module](self).
pub(crate) struct Ready {
    jobs: Sender<Job>,
    state: AtomicU64,
    /// Sleepers that were told to get up and have not yet.
    called: Mutex<usize>,
    call: Condvar,
}

impl Ready {
    /// The queue, and the end that workers take from: each has one of its own.
    pub(crate) fn new() -> (Self, Receiver<Job>) {
        let (jobs, to_do) = crossbeam_channel::unbounded();
        let (state, called) = (AtomicU64::new(0), Mutex::new(0));
        (Self { jobs, state, called, call: Condvar::new() }, to_do)
    }

    /// Jobs that wait for a worker.
    #[cfg(feature = "metrics")]
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn send(&self, job: Job) {
        // The receivers live as long as the workers. After them nobody must run anything: what
        // is in mailboxes is settled by the close that ended them.
        if let Err(unsent) = self.jobs.send(job) {
            drop(unsent);
        }
        fence(Ordering::SeqCst);
        self.call_one();
    }

    /// The next job, as soon as there is one.
    pub(crate) fn take(&self, to_do: &Receiver<Job>) -> Job {
        if let Ok(job) = to_do.try_recv() {
            return job;
        }
        self.state.fetch_add(SEARCHING, Ordering::SeqCst);
        loop {
            if let Some(job) = search(to_do) {
                let before = self.state.fetch_sub(SEARCHING, Ordering::SeqCst);
                if searchers(before) == 1 {
                    fence(Ordering::SeqCst);
                    if !self.jobs.is_empty() {
                        self.call_one();
                    }
                }
                return job;
            }
            self.sleep();
        }
    }

    /// A searcher sleeps until it is called, and searches again.
    fn sleep(&self) {
        // From a searcher to a sleeper in one step.
        self.state.fetch_add(ASLEEP - SEARCHING, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !self.jobs.is_empty() && self.get_up(|_| true) {
            return;
        }
        let mut called = self.called.lock();
        while *called == 0 {
            self.call.wait(&mut called);
        }
        *called -= 1;
    }

    /// Wakes a worker if all are busy or asleep.
    fn call_one(&self) {
        if self.get_up(|state| searchers(state) == 0) {
            *self.called.lock() += 1;
            self.call.notify_one();
        }
    }

    /// Makes a searcher of a sleeper: of any, since nobody can tell one from another.
    fn get_up(&self, wanted: impl Fn(u64) -> bool) -> bool {
        let mut state = self.state.load(Ordering::SeqCst);
        while state >= ASLEEP && wanted(state) {
            let up = state - ASLEEP + SEARCHING;
            let changed =
                self.state.compare_exchange_weak(state, up, Ordering::SeqCst, Ordering::SeqCst);
            match changed {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }
}

fn search(to_do: &Receiver<Job>) -> Option<Job> {
    for round in 0..SPINS + YIELDS {
        // The sending end is in the queue itself: there is nothing, or nothing yet.
        if let Ok(job) = to_do.try_recv() {
            return Some(job);
        }
        if round < SPINS {
            (0..1 << round).for_each(|_| std::hint::spin_loop());
        } else {
            std::thread::yield_now();
        }
    }
    None
}

fn searchers(state: u64) -> u64 {
    state % ASLEEP
}
