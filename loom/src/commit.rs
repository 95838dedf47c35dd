//! The commit queue: nobody sleeps for ever, one commit at a time, futures woken when due.

use std::task::{RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use crate::primitives;

macro_rules! variants {
    ($($name:ident),*) => {
        $(mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));

            crate::commit::log!();
        })*
    };
}

/// As much of a log as the queue needs, around one variant of it: `wait`, `commit`, the
/// committer and a future are those of `src/log/{mod,sync,open}.rs`, without the disk.
macro_rules! log {
    () => {
        pub(super) struct Log {
            queue: CommitQueue,
            written: loom::sync::atomic::AtomicU64,
            durable: loom::sync::atomic::AtomicU64,
            poisoned: loom::sync::atomic::AtomicBool,
            /// The first commit fails, and poisons.
            fails: bool,
            committing: loom::sync::atomic::AtomicBool,
        }

        impl Log {
            pub(super) fn new(fails: bool) -> loom::sync::Arc<Self> {
                loom::sync::Arc::new(Self {
                    queue: CommitQueue::new(),
                    written: loom::sync::atomic::AtomicU64::new(0),
                    durable: loom::sync::atomic::AtomicU64::new(0),
                    poisoned: loom::sync::atomic::AtomicBool::new(false),
                    fails,
                    committing: loom::sync::atomic::AtomicBool::new(false),
                })
            }

            /// Answers the mark of what was appended.
            pub(super) fn append(&self) -> u64 {
                self.written.fetch_add(1, Ordering::AcqRel) + 1
            }

            pub(super) fn durable(&self) -> u64 {
                self.durable.load(Ordering::Acquire)
            }

            fn settled(&self, mark: u64) -> bool {
                self.durable() >= mark || self.poisoned.load(Ordering::Acquire)
            }

            /// As `Log::wait_durable`.
            pub(super) fn wait(&self, mark: u64) {
                while !self.settled(mark) {
                    let written = || self.written.load(Ordering::Acquire);
                    match self.queue.turn(mark, || self.settled(mark), written) {
                        None => {}
                        Some(Turn::Commit(begun)) => self.commit(&begun),
                        Some(Turn::Sleep(generation)) => self.queue.sleep(generation, None),
                    }
                }
            }

            /// As `Shared::commit`.
            fn commit(&self, begun: &Begun) {
                let before = self.committing.swap(true, Ordering::AcqRel);
                assert!(!before, "two commits at a time");
                let cap = self.written.load(Ordering::Acquire);
                if self.fails {
                    self.poisoned.store(true, Ordering::Release);
                } else {
                    self.durable.store(cap, Ordering::Release);
                }
                self.committing.store(false, Ordering::Release);
                self.queue.end(begun, !self.fails);
                let poisoned = self.poisoned.load(Ordering::Acquire);
                self.queue.wake_futures(if poisoned { u64::MAX } else { self.durable() });
            }

            /// As the committer thread.
            pub(super) fn serve(&self) {
                let written = || self.written.load(Ordering::Acquire);
                while let Work::Commit(begun) = self.queue.work(Duration::ZERO, written) {
                    self.commit(&begun);
                }
            }

            pub(super) fn request(&self) {
                self.queue.request();
            }

            pub(super) fn stop(&self) {
                self.queue.stop();
            }

            /// As `Log::wake_when_durable`.
            pub(super) fn wake_when_durable(&self, mark: u64, waker: &Waker) {
                self.queue.register(mark, waker);
                if self.settled(mark) {
                    waker.wake_by_ref();
                }
            }
        }
    };
}
use log;

variants!(
    commit,
    commit_wakes_nobody,
    commit_hands_over_in_silence,
    commit_without_a_fence,
    commit_twice_at_once,
    commit_stops_at_once,
    commit_stops_beside_another
);

/// Tries every order with so many preemptions: what more threads than two can do grows fast.
fn model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    builder.check(run);
}

/// Threads that append and wait for it, each on its own, without a committer.
macro_rules! waiters {
    ($log:ty, $fails:expr) => {
        model(3, || {
            let log = <$log>::new($fails);
            let other = Arc::clone(&log);
            let thread = thread::spawn(move || other.wait(other.append()));
            log.wait(log.append());
            thread.join().unwrap();
            assert!($fails || log.durable() == 2, "both waited for the disk");
        })
    };
}

/// The same beside a committer thread, which is stopped when they are done; or while they wait.
macro_rules! served {
    ($log:ty, $fails:expr, $stopped_early:expr) => {
        model(2, || {
            let log = <$log>::new($fails);
            let (committer, other) = (Arc::clone(&log), Arc::clone(&log));
            let committer = thread::spawn(move || committer.serve());
            let waiter = thread::spawn(move || other.wait(other.append()));
            if $stopped_early {
                log.stop();
            }
            log.wait(log.append());
            waiter.join().unwrap();
            log.stop();
            committer.join().unwrap();
        })
    };
}

/// A waker that notes that it was called.
fn flag(woken: &'static AtomicBool) -> Waker {
    const TABLE: RawWakerVTable = RawWakerVTable::new(
        |data| RawWaker::new(data, &TABLE),
        |data| unsafe { &*data.cast::<AtomicBool>() }.store(true, Ordering::Release),
        |data| unsafe { &*data.cast::<AtomicBool>() }.store(true, Ordering::Release),
        |_| {},
    );
    let data: *const AtomicBool = woken;
    unsafe { Waker::from_raw(RawWaker::new(data.cast(), &TABLE)) }
}

/// A future that is polled while a commit runs: it is woken, and one for a later mark is not.
macro_rules! futures {
    ($log:ty, $fails:expr) => {
        model(3, || {
            let log = <$log>::new($fails);
            let mark = log.append();
            let other = Arc::clone(&log);
            let committer = thread::spawn(move || other.wait(mark));
            let (due, early): (&'static AtomicBool, &'static AtomicBool) = (leak(), leak());
            log.wake_when_durable(mark, &flag(due));
            log.wake_when_durable(mark + 1, &flag(early));
            committer.join().unwrap();
            let (woken, too_early) = (due.load(Ordering::Acquire), early.load(Ordering::Acquire));
            assert!(woken, "a future that is due was not woken");
            assert!(too_early == $fails, "a future was woken for nothing, or not for poison");
        })
    };
}

fn leak() -> &'static AtomicBool {
    Box::leak(Box::new(AtomicBool::new(false)))
}

#[test]
fn every_waiter_ends_when_its_mark_is_durable_and_one_commits_at_a_time() {
    waiters!(commit::Log, false);
}

#[test]
fn every_waiter_ends_when_the_log_is_poisoned() {
    waiters!(commit::Log, true);
}

#[test]
fn beside_a_committer_every_waiter_ends() {
    served!(commit::Log, false, false);
}

#[test]
fn beside_a_committer_every_waiter_ends_when_the_log_is_poisoned() {
    served!(commit::Log, true, false);
}

/// Found here: while another thread committed, the committer stopped, and who slept until the
/// commit after that one slept for ever. A close could do that to a waiter.
#[test]
fn a_committer_that_is_stopped_leaves_nobody_asleep() {
    served!(commit::Log, false, true);
}

#[test]
fn what_was_requested_is_committed_before_the_committer_stops() {
    model(3, || {
        let log = commit::Log::new(false);
        let committer = Arc::clone(&log);
        let committer = thread::spawn(move || committer.serve());
        let mark = log.append();
        log.request();
        log.stop();
        committer.join().unwrap();
        assert_eq!(log.durable(), mark);
    });
}

#[test]
fn a_future_is_woken_exactly_when_it_is_due() {
    futures!(commit::Log, false);
}

#[test]
fn every_future_is_woken_when_the_log_is_poisoned() {
    futures!(commit::Log, true);
}

/// What is broken, and what loom says to it. Each runs in a process of its own, because a model
/// that fails in the middle cannot be cleared away.
const BROKEN: [(&str, &str); 6] = [
    ("commit_wakes_nobody", "deadlock"),
    ("commit_hands_over_in_silence", "deadlock"),
    ("commit_without_a_fence", "a future that is due was not woken"),
    ("commit_twice_at_once", "two commits at a time"),
    ("commit_stops_at_once", "deadlock"),
    ("commit_stops_beside_another", "deadlock"),
];

#[test]
fn whatever_line_is_broken_is_noticed() {
    for (name, complaint) in BROKEN {
        crate::fails(&format!("commit::broken::{name}"), complaint);
    }
}

mod broken {
    use super::*;

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn commit_wakes_nobody() {
        waiters!(super::commit_wakes_nobody::Log, false);
    }

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn commit_hands_over_in_silence() {
        served!(super::commit_hands_over_in_silence::Log, false, false);
    }

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn commit_without_a_fence() {
        futures!(super::commit_without_a_fence::Log, false);
    }

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn commit_twice_at_once() {
        waiters!(super::commit_twice_at_once::Log, false);
    }

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn commit_stops_at_once() {
        served!(super::commit_stops_at_once::Log, false, true);
    }
    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn commit_stops_beside_another() {
        served!(super::commit_stops_beside_another::Log, false, true);
    }
}
