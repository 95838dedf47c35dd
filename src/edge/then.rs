//! Two stages as one, and names for stages that are exchanged while the pipeline runs.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::fault::{Fault, Why};
use super::pos::{Gap, Pos};
use super::stage::{Emit, Stage, Swap};

/// A stage of which nothing more is known than what goes in and out.
pub type Boxed<In, Out> = Box<dyn Stage<In = In, Out = Out> + Send>;

/// Lets everything through: a pipeline without stages.
pub struct Pass<T>(PhantomData<fn(T) -> T>);

impl<T> Default for Pass<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> fmt::Debug for Pass<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pass")
    }
}

impl<T> Stage for Pass<T> {
    type In = T;
    type Out = T;

    #[inline]
    fn step(&mut self, pos: Pos, item: T, out: &mut dyn Emit<T>) -> Result<(), Fault> {
        out.emit(pos, item);
        Ok(())
    }
}

/// One stage after another.
///
/// What the first lets go is given to the second at once. Only while the second asks for time
/// does it wait between them.
#[derive(Debug)]
pub struct Then<A: Stage, B> {
    first: A,
    second: B,
    /// What the second has not been given yet.
    between: VecDeque<(Pos, A::Out)>,
    /// The second asked for time, and goes on in a flush.
    stalled: bool,
    given: Given,
}

/// The positions that the second stage was given last: a record stands for all inputs behind the
/// position of the one before it.
#[derive(Copy, Clone, Debug, Default)]
struct Given {
    before: Option<Pos>,
    last: Option<Pos>,
    /// A part of the last one's input is held by the first stage: what comes next belongs to it.
    partial: bool,
    /// Up to here the first stage was given all.
    ended: Option<Pos>,
    /// And the second stage was told so.
    told: Option<Pos>,
}

impl Given {
    #[inline]
    fn next(&mut self, pos: Pos) {
        if self.last != Some(pos) {
            if !self.partial {
                self.before = self.last;
            }
            self.last = Some(pos);
            self.partial = false;
        }
    }

    /// Tells `out` of poison, with all that it stands for.
    fn told<T>(self, acted: Result<(), Fault>, out: &mut dyn Emit<T>) -> Result<(), Fault> {
        match acted {
            Err(Fault::Poison { pos, why }) if self.last == Some(pos) => {
                out.poison_behind(self.before, pos, why);
                Ok(())
            }
            acted => unpoisoned(acted, out),
        }
    }
}

impl<A: Stage, B: Stage<In = A::Out>> Then<A, B> {
    /// `first`, then `second`.
    pub fn new(first: A, second: B) -> Self {
        Self { first, second, between: VecDeque::new(), stalled: false, given: Given::default() }
    }

    /// Tells the second stage that it was given all of an input, once that is so.
    #[inline]
    fn end_second(&mut self, out: &mut dyn Emit<B::Out>) -> Result<(), Fault> {
        let Given { last, ended, told, partial, .. } = self.given;
        if told == last || last > ended || partial || !self.between.is_empty() {
            return Ok(());
        }
        let Some(pos) = last else { return Ok(()) };
        let acted = self.second.end(pos, out);
        self.given.told(acted, out).inspect_err(|_| self.stalled = true)?;
        self.given.told = last;
        Ok(())
    }

    /// Calls the first, with an outlet that leads into the second.
    #[inline]
    fn first(
        &mut self,
        out: &mut dyn Emit<B::Out>,
        act: impl FnOnce(&mut A, &mut dyn Emit<A::Out>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (second, between, given) = (&mut self.second, &mut self.between, &mut self.given);
        let mut link = Link { second, between, given, out, fault: None };
        let acted = act(&mut self.first, &mut link);
        let fault = link.fault;
        self.given.partial = self.first.held().is_some_and(|held| Some(held) <= self.given.last);
        let acted = unpoisoned(acted, out);
        match fault {
            None => acted,
            Some(fault) => {
                self.stalled = true;
                // The first's word comes again by itself, unless it is the end.
                match acted {
                    Err(fatal @ Fault::Fatal(_)) => Err(fatal),
                    Ok(()) | Err(Fault::Retry { .. } | Fault::Poison { .. }) => Err(fault),
                }
            }
        }
    }
}

/// Poison is told to `out`, and then it is nobody's failure any more.
#[inline]
pub(super) fn unpoisoned<T>(acted: Result<(), Fault>, out: &mut dyn Emit<T>) -> Result<(), Fault> {
    match acted {
        Err(Fault::Poison { pos, why }) => {
            out.poison(pos, why);
            Ok(())
        }
        acted => acted,
    }
}

/// The way from the first stage into the second.
struct Link<'a, B: Stage> {
    second: &'a mut B,
    between: &'a mut VecDeque<(Pos, B::In)>,
    given: &'a mut Given,
    out: &'a mut dyn Emit<B::Out>,
    /// The second asked for time, or ended.
    fault: Option<Fault>,
}

impl<B: Stage> Emit<B::In> for Link<'_, B> {
    #[inline]
    fn emit(&mut self, pos: Pos, item: B::In) {
        if self.fault.is_some() {
            self.between.push_back((pos, item));
            return;
        }
        self.given.next(pos);
        let stepped = self.second.step(pos, item, self.out);
        self.fault = self.given.told(stepped, self.out).err();
    }

    fn skip(&mut self, pos: Pos, reason: &'static str) {
        self.out.skip(pos, reason);
    }

    fn poison(&mut self, pos: Pos, why: Why) {
        self.out.poison(pos, why);
    }

    fn poison_behind(&mut self, behind: Option<Pos>, pos: Pos, why: Why) {
        self.out.poison_behind(behind, pos, why);
    }

    fn now(&self) -> Duration {
        self.out.now()
    }
}

impl<A: Stage, B: Stage<In = A::Out>> Stage for Then<A, B> {
    type In = A::In;
    type Out = B::Out;

    #[inline]
    fn step(
        &mut self,
        pos: Pos,
        item: Self::In,
        out: &mut dyn Emit<Self::Out>,
    ) -> Result<(), Fault> {
        debug_assert!(!self.stalled, "a record came while a stage was asking for time");
        self.first(out, |first, link| first.step(pos, item, link))
    }

    #[inline]
    fn end(&mut self, pos: Pos, out: &mut dyn Emit<Self::Out>) -> Result<(), Fault> {
        self.given.ended = Some(pos);
        self.first(out, |first, link| first.end(pos, link))?;
        self.end_second(out)
    }

    fn flush(&mut self, all: bool, out: &mut dyn Emit<Self::Out>) -> Result<(), Fault> {
        if self.stalled {
            let flushed = self.second.flush(false, out);
            self.given.told(flushed, out)?;
            self.stalled = false;
        }
        while let Some((pos, item)) = self.between.pop_front() {
            self.given.next(pos);
            let stepped = self.second.step(pos, item, out);
            if let Err(fault) = self.given.told(stepped, out) {
                self.stalled = true;
                return Err(fault);
            }
        }
        self.first(out, |first, link| first.flush(all, link))?;
        self.end_second(out)?;
        let flushed = self.second.flush(all, out);
        self.given.told(flushed, out).inspect_err(|_| self.stalled = true)
    }

    fn room(&self) -> usize {
        self.first.room().min(self.second.room())
    }

    fn due(&self) -> Option<Duration> {
        self.first.due().into_iter().chain(self.second.due()).min()
    }

    #[inline]
    fn held(&self) -> Option<Pos> {
        let between = self.between.front().map(|(pos, _)| *pos);
        self.first.held().into_iter().chain(between).chain(self.second.held()).min()
    }

    fn poisoned(&mut self, pos: Pos) {
        self.first.poisoned(pos);
        self.second.poisoned(pos);
    }

    fn gap(&mut self, gap: &Gap) {
        self.first.gap(gap);
        self.second.gap(gap);
    }

    /// `length of the first's u64, or all ones where it has none | the first's | the second's`.
    fn save(&self, state: &mut Vec<u8>) -> bool {
        let at = state.len();
        state.extend(u64::MAX.to_le_bytes());
        if self.first.save(state) {
            let length = (state.len() - at - 8) as u64;
            if let Some(place) = state.get_mut(at..at + 8) {
                place.copy_from_slice(&length.to_le_bytes());
            }
            self.second.save(state);
            return true;
        }
        state.truncate(at + 8);
        let saved = self.second.save(state);
        if !saved {
            state.truncate(at);
        }
        saved
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Why> {
        let Some(state) = state else {
            let first = self.first.restore(None);
            return self.second.restore(None).and(first);
        };
        let parted = state.split_first_chunk::<8>().and_then(|(length, rest)| {
            let length = u64::from_le_bytes(*length);
            if length == u64::MAX {
                return Some((None, rest));
            }
            let (first, second) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Some(first), second))
        });
        let Some((first, second)) = parted else {
            self.restore(None)?;
            return Err("the saved state is not one of these stages".into());
        };
        let first = self.first.restore(first);
        let second = self.second.restore((!second.is_empty()).then_some(second));
        second.and(first)
    }

    fn swap(&mut self, name: &str, new: &mut Option<Box<dyn Any + Send>>) -> Swap {
        match self.first.swap(name, new) {
            Swap::Unknown => self.second.swap(name, new),
            swapped => swapped,
        }
    }
}

/// Stages of one type one after another, put together when the program runs.
pub fn all<T: Send + 'static>(stages: impl IntoIterator<Item = Boxed<T, T>>) -> Boxed<T, T> {
    let mut stages = stages.into_iter();
    let Some(first) = stages.next() else { return Box::new(Pass::default()) };
    stages.fold(first, |all, next| Box::new(Then::new(all, next)))
}

/// A stage that has a name, by which it can be exchanged while the pipeline runs.
pub struct Named<In, Out> {
    name: Box<str>,
    stage: Boxed<In, Out>,
}

impl<In, Out> Named<In, Out> {
    /// Gives `stage` a name.
    pub fn new(name: &str, stage: impl Stage<In = In, Out = Out> + Send + 'static) -> Self {
        Self { name: name.into(), stage: Box::new(stage) }
    }
}

impl<In, Out> fmt::Debug for Named<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Says which stage it was.
fn within(fault: Fault, name: &str) -> Fault {
    match fault {
        Fault::Retry { after, why } => Fault::Retry { after, why: why.within(name) },
        Fault::Poison { pos, why } => Fault::Poison { pos, why: why.within(name) },
        Fault::Fatal(why) => Fault::Fatal(why.within(name)),
    }
}

impl<In: 'static, Out: 'static> Stage for Named<In, Out> {
    type In = In;
    type Out = Out;

    fn step(&mut self, pos: Pos, item: In, out: &mut dyn Emit<Out>) -> Result<(), Fault> {
        self.stage.step(pos, item, out).map_err(|fault| within(fault, &self.name))
    }

    fn flush(&mut self, all: bool, out: &mut dyn Emit<Out>) -> Result<(), Fault> {
        self.stage.flush(all, out).map_err(|fault| within(fault, &self.name))
    }

    fn end(&mut self, pos: Pos, out: &mut dyn Emit<Out>) -> Result<(), Fault> {
        self.stage.end(pos, out).map_err(|fault| within(fault, &self.name))
    }

    fn room(&self) -> usize {
        self.stage.room()
    }

    fn due(&self) -> Option<Duration> {
        self.stage.due()
    }

    fn held(&self) -> Option<Pos> {
        self.stage.held()
    }

    fn poisoned(&mut self, pos: Pos) {
        self.stage.poisoned(pos);
    }

    fn gap(&mut self, gap: &Gap) {
        self.stage.gap(gap);
    }

    fn save(&self, state: &mut Vec<u8>) -> bool {
        self.stage.save(state)
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Why> {
        self.stage.restore(state).map_err(|why| why.within(&self.name))
    }

    fn swap(&mut self, name: &str, new: &mut Option<Box<dyn Any + Send>>) -> Swap {
        if name != &*self.name {
            return self.stage.swap(name, new);
        }
        debug_assert_eq!(self.stage.held(), None, "swapped a stage that holds records");
        let Some(boxed) = new.take() else { return Swap::Unknown };
        let mut stage = match boxed.downcast::<Boxed<In, Out>>() {
            Ok(stage) => *stage,
            Err(other) => {
                *new = Some(other);
                return Swap::OtherType;
            }
        };
        let mut state = Vec::new();
        let saved = self.stage.save(&mut state);
        let took = stage.restore(saved.then_some(&state));
        self.stage = stage;
        if took.is_ok() { Swap::Done } else { Swap::Emptied }
    }
}
