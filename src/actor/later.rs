//! Replies from a later turn: promised in one, given in another.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::cell::{Cell, drop_quietly};
use super::mailbox::{Mark, Outgoing};
use super::ticket::{Parked, Replier, Slot};
use super::{Actor, Ticket, Turn};

/// Promises that are kept before it is looked whether somebody still waits for them.
const UNLOOKED_MIN: usize = 64;

/// What a promised reply is found by: a number or a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplyKey {
    /// A number.
    Number(u64),
    /// A text.
    Text(Box<str>),
}

impl From<u64> for ReplyKey {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for ReplyKey {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for ReplyKey {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<A: Actor> Turn<'_, A> {
    /// Promises a reply that a later turn gives with [`reply`](Self::reply): a handler whose
    /// `Reply` is a `Ticket<R>` answers with what this returns, and whoever asked waits for that.
    ///
    /// The promise is made when the turn's events are stored, and never if the turn fails. It is
    /// in memory: it outlives the state (a passivation, a panic), not the process. At close who
    /// waits gets [`ActorError::Lost`](super::ActorError::Lost). There may be several of one key;
    /// they are given in their order.
    ///
    /// ```
    /// # use annals::actor::memory::Memory;
    /// # use annals::actor::{Actor, Handle, Runtime, RuntimeOptions, Ticket, Turn};
    /// # #[derive(Default)]
    /// # struct Parcel { sent: bool }
    /// # impl Actor for Parcel {
    /// #     type Event = ();
    /// #     const KIND: &'static str = "parcel";
    /// #     fn apply(&mut self, _: &()) { self.sent = true; }
    /// # }
    /// struct AwaitSent;
    /// struct Send(u64);
    ///
    /// impl Handle<AwaitSent> for Parcel {
    ///     type Reply = Ticket<u64>;
    ///
    ///     fn handle(_: AwaitSent, turn: &mut Turn<'_, Self>) -> Ticket<u64> {
    ///         turn.later("sent")
    ///     }
    /// }
    ///
    /// impl Handle<Send> for Parcel {
    ///     type Reply = ();
    ///
    ///     fn handle(Send(number): Send, turn: &mut Turn<'_, Self>) {
    ///         turn.emit(());
    ///         while turn.reply("sent", number) {} // all who wait
    ///     }
    /// }
    /// # let memory = Memory::new();
    /// # let runtime = Runtime::start(memory.clone(), memory, Default::default(),
    /// #     RuntimeOptions::default())?;
    /// let parcel = runtime.actor::<Parcel>("a")?;
    /// let sent = parcel.ask(AwaitSent)?;
    /// parcel.tell(Send(17))?;
    /// assert_eq!(sent.wait()?, 17);
    /// # Ok::<(), annals::actor::ActorError>(())
    /// ```
    pub fn later<R: Send + 'static>(&mut self, key: impl Into<ReplyKey>) -> Ticket<R> {
        let (slot, replier) = Slot::new();
        let place = Place::of::<R>(key.into());
        let forgotten = self.cell_ref().aside(|aside| {
            aside.promises.push_back(place.clone(), Box::new(replier));
            aside.promises.forget_unwanted()
        });
        drop_quietly(forgotten);
        let cell = Arc::clone(self.cell_ref());
        self.take_along(Box::new(Promised { cell: Some(cell), place }));
        Ticket::waiting(self.cell_ref().resident(), slot)
    }

    /// Gives the reply that was promised under that key for longest; `false` if none of that type
    /// is, or nobody waits for it any more.
    ///
    /// The value leaves as the reply of this turn does: once what it depends on is as durable as
    /// asked for. If the turn fails it is not given, and the promise stands.
    pub fn reply<R: Send + 'static>(&mut self, key: impl Into<ReplyKey>, value: R) -> bool {
        let place = Place::of::<R>(key.into());
        loop {
            let taken = self.cell_ref().aside(|aside| aside.promises.pop_front(&place));
            let Some(promise) = taken else { return false };
            let wanted = promise.is_wanted();
            match promise.into_any().downcast::<Replier<R>>() {
                Ok(replier) if wanted => {
                    let cell = Arc::clone(self.cell_ref());
                    let reply = Some((*replier, value));
                    self.take_along(Box::new(Given { cell, place, reply }));
                    return true;
                }
                unwanted => drop(unwanted),
            }
        }
    }
}

/// Replies that were promised and not given, by type and key.
#[derive(Default)]
pub(crate) struct Promises {
    by_place: HashMap<Place, VecDeque<Box<dyn Promise>>>,
    count: usize,
    /// As many must there be before it is looked whether they are wanted.
    look_at: usize,
}

/// Where a promise is found.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place(TypeId, ReplyKey);

impl Place {
    fn of<R: 'static>(key: ReplyKey) -> Self {
        Self(TypeId::of::<R>(), key)
    }
}

/// A replier of any type.
trait Promise: Send {
    fn is_wanted(&self) -> bool;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<R: Send + 'static> Promise for Replier<R> {
    fn is_wanted(&self) -> bool {
        Self::is_wanted(self)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Promises {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Does anybody wait for one?
    pub(crate) fn is_wanted(&self) -> bool {
        self.by_place.values().flatten().any(|promise| promise.is_wanted())
    }

    fn push_back(&mut self, place: Place, promise: Box<dyn Promise>) {
        self.by_place.entry(place).or_default().push_back(promise);
        self.count += 1;
    }

    fn push_front(&mut self, place: Place, promise: Box<dyn Promise>) {
        self.by_place.entry(place).or_default().push_front(promise);
        self.count += 1;
    }

    fn pop_front(&mut self, place: &Place) -> Option<Box<dyn Promise>> {
        self.pop(place, VecDeque::pop_front)
    }

    fn pop_back(&mut self, place: &Place) -> Option<Box<dyn Promise>> {
        self.pop(place, VecDeque::pop_back)
    }

    fn pop(
        &mut self,
        place: &Place,
        end: impl FnOnce(&mut VecDeque<Box<dyn Promise>>) -> Option<Box<dyn Promise>>,
    ) -> Option<Box<dyn Promise>> {
        let queue = self.by_place.get_mut(place)?;
        let promise = end(queue)?;
        self.count -= 1;
        if queue.is_empty() {
            self.by_place.remove(place);
        }
        Some(promise)
    }

    /// Now and then: those for which nobody waits any more. Else an actor that promises often
    /// and is given up on would keep them all.
    fn forget_unwanted(&mut self) -> Vec<Box<dyn Promise>> {
        if self.count < self.look_at.max(UNLOOKED_MIN) {
            return Vec::new();
        }
        let mut unwanted = Vec::new();
        for queue in self.by_place.values_mut() {
            let all = std::mem::take(queue);
            let (wanted, others): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|promise| promise.is_wanted());
            *queue = wanted.into();
            unwanted.extend(others);
        }
        self.by_place.retain(|_, queue| !queue.is_empty());
        self.count -= unwanted.len();
        self.look_at = self.count * 2;
        unwanted
    }
}

/// A promise of a turn that has not ended.
struct Promised<A: Actor> {
    /// `None` once it stands.
    cell: Option<Arc<Cell<A>>>,
    place: Place,
}

impl<A: Actor> Outgoing for Promised<A> {
    fn deliver(mut self: Box<Self>, _: Mark, _: Mark) {
        self.cell = None;
    }
}

impl<A: Actor> Drop for Promised<A> {
    /// The turn has failed. What it did after this has been undone before: the promise is the
    /// last of its place.
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            drop(cell.aside(|aside| aside.promises.pop_back(&self.place)));
        }
    }
}

/// A reply that is given if the turn succeeds.
struct Given<A: Actor, R: Send + 'static> {
    cell: Arc<Cell<A>>,
    place: Place,
    /// `None` once it was given.
    reply: Option<(Replier<R>, R)>,
}

impl<A: Actor, R: Send + 'static> Outgoing for Given<A, R> {
    fn deliver(mut self: Box<Self>, _: Mark, mark: Mark) {
        if let Some((replier, value)) = self.reply.take() {
            replier.put(Parked { result: Ok(value), mark });
        }
    }
}

impl<A: Actor, R: Send + 'static> Drop for Given<A, R> {
    /// The turn has failed: the promise stands where it stood.
    fn drop(&mut self) {
        if let Some((replier, value)) = self.reply.take() {
            let place = self.place.clone();
            self.cell.aside(|aside| aside.promises.push_front(place, Box::new(replier)));
            drop_quietly(value);
        }
    }
}
