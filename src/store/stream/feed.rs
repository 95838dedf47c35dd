//! A feed: what happens to the actors of one kind, decoded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::facts::{Begin, Fact, Filter, Position};
use super::{Happening, Subscription};
use crate::actor::Actor;
use crate::error::{Error, StreamError};
use crate::store::Store;
use crate::types::{HybridTime, Seq};

/// What has happened to an actor of a known type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<E> {
    /// Where it stands.
    pub position: Position,
    /// Its number among the actor's events.
    pub seq: Seq,
    /// When its turn was appended.
    pub time: HybridTime,
    /// The actor's name.
    pub name: Arc<str>,
    /// What it is.
    pub what: Change<E>,
}

/// An event, or that it went back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change<E> {
    /// An event.
    Event(E),
    /// The actor's state is what it was after event `to`.
    Rewound {
        /// The last event that counts.
        to: Seq,
    },
}

/// Delivers what happens to the actors of one kind, decoded. See [`Store::feed`].
#[derive(Debug)]
pub struct Feed<A: Actor> {
    subscription: Subscription,
    /// What one old event has become.
    waiting: VecDeque<Told<A::Event>>,
}

impl<A: Actor> Feed<A> {
    /// Decodes what `subscription` delivers, which must be of kind `A` alone.
    pub fn new(subscription: Subscription) -> Self {
        Self { subscription, waiting: VecDeque::new() }
    }

    /// As [`Subscription::next`], decoded. An old event that has become several comes as several
    /// with one position and one number; one that has become none does not come.
    ///
    /// # Errors
    /// As for [`Subscription::next`] and [`Happening::decode`]; the next call goes on behind an
    /// event that cannot be decoded.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Told<A::Event>>, Error> {
        loop {
            if let Some(told) = self.waiting.pop_front() {
                return Ok(Some(told));
            }
            let Some(happening) = self.subscription.next(limit)? else { return Ok(None) };
            let Happening { position, seq, time, .. } = happening;
            let name: Arc<str> = happening.name.into();
            let told = |what| Told { position, seq, time, name: Arc::clone(&name), what };
            match happening.fact {
                Fact::Event => {
                    let events = happening.decode::<A>()?;
                    self.waiting.extend(events.into_iter().map(|it| told(Change::Event(it))));
                }
                Fact::Rewound { to } => return Ok(Some(told(Change::Rewound { to }))),
                Fact::Note => {}
            }
        }
    }

    /// As [`Subscription::position`].
    pub fn position(&self) -> Position {
        // What one event has become is behind as a whole.
        self.waiting.front().map_or(self.subscription.position(), |told| told.position)
    }

    /// As [`Subscription::ack`].
    ///
    /// # Errors
    /// As for [`Subscription::ack`].
    pub fn ack(&mut self) -> Result<(), StreamError> {
        let position = self.position();
        self.subscription.ack_at(position)
    }
}

impl Store {
    /// Delivers what happens to all actors of a kind, decoded.
    ///
    /// # Errors
    /// As for [`subscribe`](Self::subscribe).
    pub fn feed<A: Actor>(&self, begin: impl Into<Begin>) -> Result<Feed<A>, Error> {
        Ok(Feed::new(self.subscribe(Filter::kind(A::KIND), begin)?))
    }
}
