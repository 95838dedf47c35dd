//! The past of an actor, read without loading it: the store's front of
//! [`actor::past`](crate::actor::past).

use std::ops::ControlFlow;

use super::Store;
use crate::actor::past::{At, Past, RawEvent, Span};
use crate::actor::{Actor, ActorError};
use crate::error::Error;
use crate::types::Seq;

impl Store {
    /// What happened to `A`/`name`, with numbers, times, and what its turns have said of it,
    /// without loading the actor. An actor that has none has an empty history.
    ///
    /// A [`Span`] says which part; a [`Seq`] alone stands for what comes behind that event. It
    /// shows what is appended, durable or not. For a long one,
    /// [`visit_history`](Self::visit_history) needs no memory for all of it.
    ///
    /// # Errors
    /// [`Error::Read`], or [`ActorError::Stopped`] with the place of what cannot be read.
    pub fn history<A: Actor>(
        &self,
        name: &str,
        span: impl Into<Span>,
    ) -> Result<Vec<Past<A::Event>>, Error> {
        let mut history = Vec::new();
        self.visit_history::<A>(name, span, |past| {
            history.push(past);
            ControlFlow::Continue(())
        })?;
        Ok(history)
    }

    /// Visits what [`history`](Self::history) would answer, one by one, until `Break`.
    ///
    /// # Errors
    /// As there; what came before was visited.
    pub fn visit_history<A: Actor>(
        &self,
        name: &str,
        span: impl Into<Span>,
        mut visit: impl FnMut(Past<A::Event>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.runtime.visit_history::<A>(name, span, &mut visit).map_err(told)
    }

    /// Visits what is stored of `kind`/`name` without knowing its type, in order, until `Break`.
    /// [`Span::newest_first`] has no effect here.
    ///
    /// # Errors
    /// [`Error::Read`]; [`ActorError::Collision`].
    pub fn raw_history(
        &self,
        kind: &str,
        name: &str,
        span: impl Into<Span>,
        mut visit: impl FnMut(RawEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.runtime.raw_history((kind, name), span, &mut visit).map_err(told)
    }

    /// The state of `A`/`name` as it is or once was, and the event after which it was so, whether
    /// the actor is in memory or not, and without touching it.
    ///
    /// It begins with the newest snapshot at or before that moment, so it costs what a load does;
    /// for [`At::Time`] all frames of the actor are looked at as well. It shows what is appended,
    /// durable or not.
    ///
    /// # Errors
    /// [`Error::Read`]; [`ActorError::NoEvent`] for an event that is not there yet;
    /// [`ActorError::Stopped`] for what cannot be applied, or with
    /// [`StopReason::Dropped`](crate::actor::StopReason::Dropped) was dropped by retention.
    pub fn state_at<A: Actor>(&self, name: &str, at: At) -> Result<(A, Seq), Error> {
        self.runtime.state_at::<A>(name, at).map_err(told)
    }
}

/// What could not be read is no fault of an actor's.
fn told(error: ActorError) -> Error {
    match error {
        ActorError::Read(error) => Error::Read(*error),
        error => Error::Actor(error),
    }
}
