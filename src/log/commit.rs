//! Group commit: many waiters, one `fdatasync` at a time.
//!
//! A *commit* takes everything that is written when it begins, stores it, syncs it, and raises
//! the durable mark. At any time at most one is under way. Who needs a mark durable either finds
//! it so, or begins a commit on its own thread when none is under way (a lone waiter never waits
//! for another thread), or sleeps until the commit that covers it has ended: the running one, or
//! the next. Where somebody waits for the next, or several have just been woken, the next is the
//! committer thread's: it gives those who were woken a moment to come back ([`GATHER`]), so that
//! one commit carries them all. docs/why.md has what that is worth.
//!
//! Sleepers wait on one futex word per generation, of eight in turn: the end of a commit wakes
//! those it concerns and nobody else, with one system call.
//!
//! Locks: `state` guards the bookkeeping and is never held over I/O; `wakers` guards the futures'
//! heap. Neither is taken while the other is held.

use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::primitives::{AtomicU32, Condvar, Futex, Mutex, MutexGuard, Patience, fence, yield_now};

const WORDS: usize = 8;

/// How long the committer waits for those it has just woken.
const GATHER: Duration = Duration::from_micros(100);

/// The bookkeeping; what a commit does is the log's.
#[derive(Debug)]
pub(super) struct CommitQueue {
    state: Mutex<State>,
    words: [Word; WORDS],
    /// Wakes the committer thread.
    work: Condvar,
    wakers: Mutex<BinaryHeap<Waiting>>,
    /// Entries of `wakers`, so that its lock is left alone where there are none.
    waiting: AtomicU32,
    /// Commits that have ended well.
    pub commits: AtomicU64,
}

/// On a cache line of its own: each generation's sleepers look at theirs alone.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Word(Futex);

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "five facts that do not exclude each other")]
struct State {
    running: bool,
    /// The next commit is the committer thread's, and it has not begun yet.
    handed_over: bool,
    /// What the running commit covers.
    cap: u64,
    /// Number of the running commit, or of the last one.
    generation: u32,
    /// Somebody waits for the commit after the running one.
    wanted: bool,
    /// Who sleeps until the running commit has ended, and until the one after it has.
    sleepers: u32,
    sleepers_next: u32,
    /// Who was woken by the last commit and may be back with more.
    woken: u32,
    stop: bool,
    /// The committer thread exists and takes over.
    served: bool,
}

/// The right to commit, and the duty to [end](CommitQueue::end) it.
#[derive(Debug)]
#[must_use = "a commit that is begun must be ended"]
pub(super) struct Begun {
    generation: u32,
}

/// What a waiter is to do.
#[derive(Debug)]
pub(super) enum Turn {
    /// Commit, then look again.
    Commit(Begun),
    /// Sleep until this generation has ended, then look again.
    Sleep(u32),
}

/// What the committer thread is to do.
#[derive(Debug)]
pub(super) enum Work {
    Commit(Begun),
    /// Nobody wanted anything for the time given.
    Idle,
    Stop,
}

#[derive(Debug)]
struct Waiting {
    mark: u64,
    waker: Waker,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.mark == other.mark
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    /// The lowest mark is the greatest entry, because the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.mark.cmp(&self.mark)
    }
}

impl CommitQueue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State::default()),
            words: Default::default(),
            work: Condvar::new(),
            wakers: Mutex::new(BinaryHeap::new()),
            waiting: AtomicU32::new(0),
            commits: AtomicU64::new(0),
        }
    }

    /// For one who needs `mark` durable and has seen that it is not. `settled` says, under the
    /// lock, whether that has changed meanwhile; `written` is everything there is to commit.
    pub(super) fn turn(
        &self,
        mark: u64,
        settled: impl Fn() -> bool,
        written: impl Fn() -> u64,
    ) -> Option<Turn> {
        let mut state = self.state.lock();
        if settled() {
            return None;
        }
        if !state.running {
            return Some(Turn::Commit(state.begin(written())));
        }
        // Where no thread serves the next commit, one of those who wake after this one begins it.
        Some(Turn::Sleep(if mark <= state.cap || !state.served {
            state.sleepers += 1;
            state.generation
        } else {
            state.wanted = true;
            state.sleepers_next += 1;
            state.generation.wrapping_add(1)
        }))
    }

    /// Sees to it that what is written becomes durable soon, without waiting.
    pub(super) fn request(&self) {
        let mut state = self.state.lock();
        state.wanted = true;
        if !state.running {
            self.work.notify_one();
        }
    }

    /// Sleeps until commit `generation` has ended or `limit` is over; may wake early.
    pub(super) fn sleep(&self, generation: u32, limit: Option<Duration>) {
        let word = self.word(generation);
        // Acquire: pairs with the Release in `end`: who sees the generation sees its outcome.
        let seen = word.load(Ordering::Acquire);
        if reached(seen, generation) {
            return;
        }
        // Interrupted, timed out or changed in between: the caller looks again in any case.
        word.wait(seen, limit);
    }

    /// Ends a commit: wakes those it concerns; lets the committer go on if more is wanted.
    pub(super) fn end(&self, begun: &Begun, committed: bool) {
        let mut state = self.state.lock();
        state.woken = state.sleepers;
        // Where somebody waits for the next commit, or several will be back with more, it is the
        // committer's: whoever comes in between waits for that one too, instead of beginning one
        // of his own for himself alone.
        let hand_over = state.served && (state.wanted || state.woken > 1);
        state.handed_over = hand_over;
        state.running = hand_over;
        state.cap = 0;
        drop(state);
        if committed {
            // Relaxed: a counter.
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        let word = self.word(begun.generation);
        word.store(begun.generation, Ordering::Release);
        word.wake_all();
        if hand_over {
            self.work.notify_one();
        }
    }

    /// Wakes the futures whose marks are at or below `durable`; all of them if it is poisoned.
    pub(super) fn wake_futures(&self, durable: u64) {
        // Between the mark's store and this load; pairs with the fence in `register`.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut woken = Vec::new();
        {
            let mut wakers = self.wakers.lock();
            while wakers.peek().is_some_and(|waiting| waiting.mark <= durable) {
                woken.extend(wakers.pop().map(|waiting| waiting.waker));
            }
            let left = u32::try_from(wakers.len()).unwrap_or(u32::MAX);
            self.waiting.store(left, Ordering::Relaxed);
        }
        for waker in woken {
            // Anybody's code. A panic there must not end the thread that commits for all.
            drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
    }

    /// Notes a future. The caller looks at the mark once more afterwards.
    pub(super) fn register(&self, mark: u64, waker: &Waker) {
        let mut wakers = self.wakers.lock();
        wakers.push(Waiting { mark, waker: waker.clone() });
        let waiting = u32::try_from(wakers.len()).unwrap_or(u32::MAX);
        self.waiting.store(waiting, Ordering::Relaxed);
        // The caller looks at the mark after this; pairs with the fence in `wake_futures`.
        fence(Ordering::SeqCst);
    }

    /// The committer thread's next task; waits for it for `idle` at most.
    pub(super) fn work(&self, idle: Duration, written: impl Fn() -> u64) -> Work {
        let mut state = self.state.lock();
        state.served = true;
        loop {
            // Before it stops: somebody may be asleep until it is done.
            if state.handed_over || (state.wanted && !state.running) {
                gather(&mut state);
                if state.wanted {
                    return Work::Commit(state.begin(written()));
                }
                // Nobody came back.
                state.handed_over = false;
                state.running = false;
            }
            // Nor while another thread commits and somebody sleeps until the commit after that.
            if state.stop && !(state.running && state.wanted) {
                state.served = false;
                return Work::Stop;
            }
            if self.work.wait_for(&mut state, idle).timed_out() && !state.wanted && !state.stop {
                return Work::Idle;
            }
        }
    }

    /// Ends the committer thread.
    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.work.notify_all();
    }

    #[expect(clippy::indexing_slicing, reason = "modulo the array's length")]
    fn word(&self, generation: u32) -> &Futex {
        &self.words[generation as usize % WORDS].0
    }
}

/// Gives those whom the last commit has woken a moment to come back with more. Else the first of
/// them would have a commit for himself, and the others one after it.
fn gather(state: &mut MutexGuard<'_, State>) {
    // Who comes now waits for the commit that is about to begin.
    state.running = true;
    state.cap = 0;
    let expected = state.sleepers_next.saturating_add(state.woken);
    let patience = Patience::for_at_most(GATHER);
    while state.sleepers_next < expected && !patience.is_over() {
        MutexGuard::unlocked(state, yield_now);
    }
}

impl State {
    fn begin(&mut self, written: u64) -> Begun {
        self.running = true;
        self.handed_over = false;
        self.wanted = false;
        self.cap = written;
        self.sleepers = std::mem::take(&mut self.sleepers_next);
        self.woken = 0;
        self.generation = self.generation.wrapping_add(1);
        Begun { generation: self.generation }
    }
}

/// Has a word that shows `seen` passed `generation`? Words show every eighth, and wrap.
fn reached(seen: u32, generation: u32) -> bool {
    seen.wrapping_sub(generation) < u32::MAX / 2
}
