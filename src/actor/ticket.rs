//! Tickets: replies that are fetched later.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::ActorError;
use super::mailbox::Mark;
use super::runtime::Shared;
use super::turn::in_turn;
use super::worker::Resident;
use crate::error::SyncError;
use crate::time::Clock;

/// The reply to a posted command, to be fetched when it is wanted.
///
/// The reply leaves when what it depends on is durable; until then it is parked in the ticket,
/// and the first who waits sees to the commit. A dropped ticket changes nothing: the command is
/// handled all the same. As a [`Future`] it needs no runtime of any kind; polled inside a turn
/// it is ready with [`ActorError::InTurn`], and can be polled again outside.
///
/// ```
/// # use annals::actor::memory::Memory;
/// # use annals::actor::{Actor, Handle, Runtime, RuntimeOptions, Turn};
/// # #[derive(Default)]
/// # struct Counter(u64);
/// # impl Actor for Counter {
/// #     type Event = u64;
/// #     const KIND: &'static str = "counter";
/// #     fn apply(&mut self, event: &u64) { self.0 += event; }
/// # }
/// # struct Add(u64);
/// # impl Handle<Add> for Counter {
/// #     type Reply = u64;
/// #     fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
/// #         turn.emit(number);
/// #         turn.0
/// #     }
/// # }
/// # let memory = Memory::new();
/// # let runtime = Runtime::start(memory.clone(), memory, Default::default(),
/// #     RuntimeOptions::default())?;
/// let counter = runtime.actor::<Counter>("a")?;
/// let tickets: Vec<_> = (0..100).map(|_| counter.post(Add(1))).collect::<Result<_, _>>()?;
/// for (before, ticket) in (0..).zip(tickets) {
///     assert_eq!(ticket.wait()?, before + 1);
/// }
/// # Ok::<(), annals::actor::ActorError>(())
/// ```
#[must_use = "the reply is in it; `drop` it if none is wanted"]
pub struct Ticket<R> {
    home: Arc<dyn Resident>,
    state: State<R>,
    /// Who is woken when the mark is durable.
    registered: Option<Waker>,
}

enum State<R> {
    /// In the making.
    Slot(Arc<Slot<R>>),
    /// Made, but perhaps not durable.
    Parked(Parked<R>),
    Taken,
}

/// A reply and what must be durable before it leaves.
pub(crate) struct Parked<R> {
    pub(crate) result: Result<R, ActorError>,
    pub(crate) mark: Mark,
}

impl<R> Parked<R> {
    /// An answer that tells nothing about a state.
    pub(crate) const fn error(error: ActorError) -> Self {
        Self { result: Err(error), mark: None }
    }

    /// Whether it may leave now; `Some(Err)` if it never will.
    fn check(&self, shared: &Shared) -> Option<Result<(), ActorError>> {
        let Some(mark) = self.mark else { return Some(Ok(())) };
        let events = &shared.events;
        if events.durable() >= mark.get() {
            return Some(Ok(()));
        }
        let cause = events.poisoned()?;
        // What was durable at the time of the failure is durable for good.
        if events.durable() >= mark.get() {
            return Some(Ok(()));
        }
        shared.note_poisoned();
        Some(Err(ActorError::InDoubt { lsn: mark, cause: Box::new(cause) }))
    }

    /// Waits until it may leave. A `Timeout` is told from the reply by the caller's `limit`.
    fn wait(&self, shared: &Shared, limit: Option<Duration>) -> Result<(), ActorError> {
        match self.mark {
            Some(mark) if shared.events.durable() < mark.get() => {
                let waited = shared.events.wait_durable(mark, limit);
                if let Err(SyncError::InDoubt { .. }) = waited {
                    shared.note_poisoned();
                }
                Ok(waited?)
            }
            _ => Ok(()),
        }
    }

    /// Waits until it may leave, and is the answer.
    #[inline]
    pub(crate) fn settle(
        self,
        shared: &Shared,
        deadline: Option<&Deadline>,
    ) -> Result<R, ActorError> {
        if self.mark.is_some() {
            self.wait(shared, deadline.map(Deadline::left))?;
        }
        self.result
    }
}

impl<R: Send + 'static> Ticket<R> {
    pub(crate) fn parked(home: Arc<dyn Resident>, parked: Parked<R>) -> Self {
        Self { home, state: State::Parked(parked), registered: None }
    }

    pub(crate) fn waiting(home: Arc<dyn Resident>, slot: Arc<Slot<R>>) -> Self {
        Self { home, state: State::Slot(slot), registered: None }
    }

    /// Waits for the reply.
    ///
    /// # Errors
    /// Those of [`Addr::ask`](super::Addr::ask). Inside a turn [`ActorError::InTurn`]: the reply
    /// is given up, the command is handled.
    pub fn wait(mut self) -> Result<R, ActorError> {
        self.wait_until(None)
    }

    /// Waits for the reply at most that long.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`ActorError::Timeout`] or [`ActorError::InTurn`], after
    /// which the ticket can be waited for again. [`ActorError::Taken`] after a reply.
    pub fn wait_for(&mut self, limit: Duration) -> Result<R, ActorError> {
        self.wait_until(Some(&Deadline::after(limit)))
    }

    pub(crate) fn wait_until(&mut self, deadline: Option<&Deadline>) -> Result<R, ActorError> {
        if in_turn() {
            return Err(ActorError::InTurn);
        }
        if let State::Slot(slot) = &self.state {
            let parked = slot.wait(deadline).ok_or(ActorError::Timeout)?;
            self.state = State::Parked(parked);
        }
        if let State::Parked(parked) = &self.state {
            match parked.wait(self.home.shared(), deadline.map(Deadline::left)) {
                Err(ActorError::Timeout) => return Err(ActorError::Timeout),
                Err(error) => {
                    self.state = State::Taken;
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        self.take()
    }

    /// The reply if it is there and may leave; never waits, and commits nothing.
    pub fn try_take(&mut self) -> Option<Result<R, ActorError>> {
        if let State::Slot(slot) = &self.state {
            self.state = State::Parked(slot.try_take(None)?);
        }
        self.take_if_durable()
    }

    fn take_if_durable(&mut self) -> Option<Result<R, ActorError>> {
        if let State::Parked(parked) = &self.state {
            let checked = parked.check(self.home.shared())?;
            if let Err(error) = checked {
                self.state = State::Taken;
                return Some(Err(error));
            }
        }
        Some(self.take())
    }

    fn take(&mut self) -> Result<R, ActorError> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Parked(parked) => parked.result,
            State::Slot(_) | State::Taken => Err(ActorError::Taken),
        }
    }
}

impl<R> Unpin for Ticket<R> {}

impl<R: Send + 'static> Future for Ticket<R> {
    type Output = Result<R, ActorError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if in_turn() {
            return Poll::Ready(Err(ActorError::InTurn));
        }
        if let State::Slot(slot) = &self.state {
            let Some(parked) = slot.try_take(Some(context.waker())) else { return Poll::Pending };
            self.state = State::Parked(parked);
        }
        if let Some(reply) = self.take_if_durable() {
            return Poll::Ready(reply);
        }
        if let State::Parked(Parked { mark: Some(mark), .. }) = &self.state {
            let mark = *mark;
            // A waker is used once, when the reply is ready: one registration per task is enough.
            let known = self.registered.as_ref().is_some_and(|it| it.will_wake(context.waker()));
            if !known {
                self.registered = Some(context.waker().clone());
                self.home.shared().events.wake_when_durable(mark, context.waker());
            }
        }
        Poll::Pending
    }
}

impl<R> fmt::Debug for Ticket<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Slot(_) => "Ticket(waiting)",
            State::Parked(_) => "Ticket(parked)",
            State::Taken => "Ticket(taken)",
        })
    }
}

/// Where a reply is put by who made it, and found by who wants it.
pub(crate) struct Slot<R> {
    content: Mutex<Content<R>>,
    filled: Condvar,
}

struct Content<R> {
    parked: Option<Parked<R>>,
    waker: Option<Waker>,
}

impl<R> Slot<R> {
    /// A slot and its one writer.
    pub(crate) fn new() -> (Arc<Self>, Replier<R>) {
        let content = Mutex::new(Content { parked: None, waker: None });
        let slot = Arc::new(Self { content, filled: Condvar::new() });
        (Arc::clone(&slot), Replier { slot: Some(slot) })
    }

    fn wait(&self, deadline: Option<&Deadline>) -> Option<Parked<R>> {
        let mut content = self.content.lock();
        loop {
            if let Some(parked) = content.parked.take() {
                return Some(parked);
            }
            match deadline {
                None => self.filled.wait(&mut content),
                Some(deadline) => {
                    if self.filled.wait_for(&mut content, deadline.left()).timed_out() {
                        return content.parked.take();
                    }
                }
            }
        }
    }

    fn try_take(&self, waker: Option<&Waker>) -> Option<Parked<R>> {
        let mut content = self.content.lock();
        let parked = content.parked.take();
        if let (None, Some(waker)) = (&parked, waker) {
            content.waker = Some(waker.clone());
        }
        parked
    }

    fn put(&self, parked: Parked<R>) {
        let waker = {
            let mut content = self.content.lock();
            content.parked = Some(parked);
            content.waker.take()
        };
        self.filled.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Who must fill a slot. Dropped without, it says [`ActorError::Lost`].
pub(crate) struct Replier<R> {
    slot: Option<Arc<Slot<R>>>,
}

impl<R> Replier<R> {
    pub(crate) fn put(mut self, parked: Parked<R>) {
        if let Some(slot) = self.slot.take() {
            slot.put(parked);
        }
    }

    /// Does somebody wait for it?
    pub(crate) fn is_wanted(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| Arc::strong_count(slot) > 1)
    }

    pub(crate) fn refuse(self, why: ActorError) {
        self.put(Parked::error(why));
    }
}

impl<R> Drop for Replier<R> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.put(Parked::error(ActorError::Lost));
        }
    }
}

/// When a wait is over. Threads sleep in real time, so it is the machine's clock that counts
/// here, whatever clock the actors see.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline {
    at: Duration,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self { at: Clock::System.monotonic().saturating_add(limit) }
    }

    pub(crate) fn left(&self) -> Duration {
        self.at.saturating_sub(Clock::System.monotonic())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}
