//! The stages that are closures: one record at a time, and nothing is held.

use std::fmt;
use std::marker::PhantomData;

use super::fault::{Fault, Why};
use super::pos::Pos;
use super::stage::{Emit, Stage};

macro_rules! closure {
    ($(#[$doc:meta])+ $Type:ident<$In:ident, $F:ident $(, $More:ident)?>) => {
        $(#[$doc])+
        pub struct $Type<$In, $F $(, $More)?> {
            act: $F,
            of: PhantomData<fn($In) $(-> $More)?>,
        }

        impl<$In, $F $(, $More)?> fmt::Debug for $Type<$In, $F $(, $More)?> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($Type))
            }
        }
    };
}

closure! {
    /// Makes one record of each. See [`map`].
    Map<In, F>
}
closure! {
    /// Lets some through. See [`filter`].
    Filter<In, F>
}
closure! {
    /// Makes none or several of each. See [`flat_map`].
    FlatMap<In, F>
}
closure! {
    /// Whatever a closure makes of it. See [`from_fn`].
    FromFn<In, F, Out>
}

/// Makes one record of each.
pub fn map<In, Out, F: FnMut(In) -> Out>(act: F) -> Map<In, F> {
    Map { act, of: PhantomData }
}

impl<In, Out, F: FnMut(In) -> Out> Stage for Map<In, F> {
    type In = In;
    type Out = Out;

    #[inline]
    fn step(&mut self, pos: Pos, item: In, out: &mut dyn Emit<Out>) -> Result<(), Fault> {
        out.emit(pos, (self.act)(item));
        Ok(())
    }
}

/// Lets through what `act` says yes to. The others are counted as `filtered`.
pub fn filter<In, F: FnMut(&In) -> bool>(act: F) -> Filter<In, F> {
    Filter { act, of: PhantomData }
}

impl<In, F: FnMut(&In) -> bool> Stage for Filter<In, F> {
    type In = In;
    type Out = In;

    #[inline]
    fn step(&mut self, pos: Pos, item: In, out: &mut dyn Emit<In>) -> Result<(), Fault> {
        if (self.act)(&item) {
            out.emit(pos, item);
        } else {
            out.skip(pos, "filtered");
        }
        Ok(())
    }
}

/// Makes none or several of each. Where it is none, the record is counted as `empty`.
pub fn flat_map<In, Outs: IntoIterator, F: FnMut(In) -> Outs>(act: F) -> FlatMap<In, F> {
    FlatMap { act, of: PhantomData }
}

impl<In, Outs: IntoIterator, F: FnMut(In) -> Outs> Stage for FlatMap<In, F> {
    type In = In;
    type Out = Outs::Item;

    fn step(&mut self, pos: Pos, item: In, out: &mut dyn Emit<Outs::Item>) -> Result<(), Fault> {
        let mut empty = true;
        for item in (self.act)(item) {
            out.emit(pos, item);
            empty = false;
        }
        if empty {
            out.skip(pos, "empty");
        }
        Ok(())
    }
}

/// A stage that is a closure: it is given a position, a record, and where to put what comes of it.
/// What it answers is [`Stage::step`]'s answer, but it keeps nothing: where it says `Retry`, the
/// record is lost, and the pipeline ends. Use [`try_map`] for what may have to be tried again.
pub fn from_fn<In, Out, F>(act: F) -> FromFn<In, F, Out>
where
    F: FnMut(Pos, In, &mut dyn Emit<Out>) -> Result<(), Fault>,
{
    FromFn { act, of: PhantomData }
}

impl<In, Out, F> Stage for FromFn<In, F, Out>
where
    F: FnMut(Pos, In, &mut dyn Emit<Out>) -> Result<(), Fault>,
{
    type In = In;
    type Out = Out;

    fn step(&mut self, pos: Pos, item: In, out: &mut dyn Emit<Out>) -> Result<(), Fault> {
        match (self.act)(pos, item, out) {
            // The record is gone with the closure's argument; to go on would lose it silently.
            Err(Fault::Retry { why, .. }) => Err(Fault::Fatal(why)),
            acted => acted,
        }
    }
}

/// Makes one record of each, or fails. See [`try_map`].
pub struct TryMap<In, F> {
    act: F,
    /// What is tried again.
    kept: Option<(Pos, In)>,
}

impl<In, F> fmt::Debug for TryMap<In, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.as_ref().map(|(pos, _)| pos);
        f.debug_struct("TryMap").field("kept", &kept).finish_non_exhaustive()
    }
}

/// Makes one record of each, by what may fail. With `Retry` it is tried again with the same
/// record, and nothing overtakes it; with [`poison`](bad) the record goes to the dead letters.
pub fn try_map<In, Out, F>(act: F) -> TryMap<In, F>
where
    F: FnMut(Pos, &In) -> Result<Out, Fault>,
{
    TryMap { act, kept: None }
}

/// What [`try_map`] answers of a record that cannot be handled.
pub fn bad(pos: Pos, why: impl Into<Why>) -> Fault {
    Fault::poison(pos, why)
}

impl<In, F> TryMap<In, F> {
    fn attempt<Out>(&mut self, (pos, item): (Pos, In), out: &mut dyn Emit<Out>) -> Result<(), Fault>
    where
        F: FnMut(Pos, &In) -> Result<Out, Fault>,
    {
        match (self.act)(pos, &item) {
            Ok(made) => {
                out.emit(pos, made);
                Ok(())
            }
            Err(fault) => {
                if matches!(fault, Fault::Retry { .. }) {
                    self.kept = Some((pos, item));
                }
                Err(fault)
            }
        }
    }
}

impl<In, Out, F> Stage for TryMap<In, F>
where
    F: FnMut(Pos, &In) -> Result<Out, Fault>,
{
    type In = In;
    type Out = Out;

    fn step(&mut self, pos: Pos, item: In, out: &mut dyn Emit<Out>) -> Result<(), Fault> {
        debug_assert!(self.kept.is_none(), "a record came while one was to be tried again");
        self.attempt((pos, item), out)
    }

    fn flush(&mut self, _all: bool, out: &mut dyn Emit<Out>) -> Result<(), Fault> {
        self.kept.take().map_or(Ok(()), |kept| self.attempt(kept, out))
    }

    fn held(&self) -> Option<Pos> {
        self.kept.as_ref().map(|(pos, _)| *pos)
    }
}
