//! What is done with records on their way.

use std::any::Any;
use std::time::Duration;

use super::fault::{Fault, Why};
use super::pos::{Gap, Pos};

/// Makes of one record none, one or several.
///
/// A stage may hold records back, to let them go together or later. It then says so by
/// [`held`](Self::held), or they are lost in a crash: the frontier passes what nobody holds.
///
/// **Order.** What a stage lets go has positions that do not decrease. A position stands for all
/// inputs up to it that were not let go before: a batch of records has the position of the last.
/// One input may have become several records on the way, all at its position; who gathers lets go
/// of all of them together, and knows by [`end`](Self::end) that there are no more.
pub trait Stage {
    /// What comes in.
    type In;
    /// What goes out.
    type Out;

    /// Takes the next record. Gives `out` whatever comes of it; where that is nothing, and the
    /// record is not held either, it says so: [`Emit::skip`].
    ///
    /// # Errors
    /// `Poison`: the record was forgotten, and what was emitted for it stands.
    /// `Retry`: the record was kept, `held` says so, and [`flush`](Self::flush) goes on with it;
    /// no other is given until that has succeeded. `Fatal`.
    fn step(
        &mut self,
        pos: Pos,
        item: Self::In,
        out: &mut dyn Emit<Self::Out>,
    ) -> Result<(), Fault>;

    /// There are no more records at positions up to `pos`. Called after each input, with the
    /// position of what was given last.
    ///
    /// # Errors
    /// As for [`step`](Self::step); it is called again.
    fn end(&mut self, pos: Pos, out: &mut dyn Emit<Self::Out>) -> Result<(), Fault> {
        let _ = (pos, out);
        Ok(())
    }

    /// Lets go of what is due by now, or of everything that is held if `all`. Called when
    /// [`due`](Self::due) of any stage has come, and after a `Retry`; with `all` before a swap, a
    /// checkpoint and the end.
    ///
    /// # Errors
    /// As for [`step`](Self::step).
    fn flush(&mut self, all: bool, out: &mut dyn Emit<Self::Out>) -> Result<(), Fault> {
        let _ = (all, out);
        Ok(())
    }

    /// How many more records it would take now without holding more than it may. Where there is no
    /// room, nothing is pulled from the source.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// When it wants to be flushed at the latest, on the clock of [`Emit::now`].
    fn due(&self) -> Option<Duration> {
        None
    }

    /// The oldest input that was not wholly let go, skipped or forgotten.
    fn held(&self) -> Option<Pos> {
        None
    }

    /// The record at `pos` has gone to the dead letters, wherever it was found to be poison. A
    /// stage that remembers having seen it forgets that: one like it is no repetition.
    fn poisoned(&mut self, pos: Pos) {
        let _ = pos;
    }

    /// Records are missing before the next one, or the picture of all follows: what the stage
    /// knows of the past may be wrong.
    fn gap(&mut self, gap: &Gap) {
        let _ = gap;
    }

    /// Writes down what it knows of the past, and says that it has; `false` where it has no
    /// state. Only called when it holds nothing, and all it has let go is settled: so this is its
    /// state at the frontier.
    fn save(&self, state: &mut Vec<u8>) -> bool {
        let _ = state;
        false
    }

    /// Takes up what was saved, before the first record; `None` where the source goes on at some
    /// position and no state was saved with it: it begins empty, and whoever relies on the past
    /// has to be told.
    ///
    /// # Errors
    /// It cannot be read; then the stage is empty. That is reported, and goes on.
    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Why> {
        let _ = state;
        Ok(())
    }

    /// Puts `new` in the place of the stage called `name`, where that is this one or within it.
    /// Called when nothing is held. For those that hold other stages.
    fn swap(&mut self, name: &str, new: &mut Option<Box<dyn Any + Send>>) -> Swap {
        let _ = (name, new);
        Swap::Unknown
    }
}

/// What became of a swap.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Swap {
    /// The new stage is in its place, and took over the state of the old one (or neither has any).
    Done,
    /// The new stage is in its place, and begins empty: it could not read the old one's state.
    Emptied,
    /// No stage has that name.
    Unknown,
    /// The new stage takes or gives something else than the old one.
    OtherType,
}

/// Where a stage puts what comes of a record.
pub trait Emit<T> {
    /// Something came of the record at `pos`, or of all up to it that were held.
    fn emit(&mut self, pos: Pos, item: T);

    /// The record at `pos` ends here, on purpose. `reason` is counted: a word or two, always the
    /// same.
    fn skip(&mut self, pos: Pos, reason: &'static str);

    /// The record at `pos` cannot be handled and was forgotten: what `step` says by `Poison`, for
    /// a stage that finds it out of one record while it lets go of several.
    fn poison(&mut self, pos: Pos, why: Why);

    /// The same of a record that was made of all inputs behind `behind`, up to `pos`. Who carries
    /// records from one stage to the next says so; a stage need not.
    fn poison_behind(&mut self, behind: Option<Pos>, pos: Pos, why: Why) {
        let _ = behind;
        self.poison(pos, why);
    }

    /// The time: since some fixed moment, and never going back. It stands during a batch.
    fn now(&self) -> Duration;
}

impl<S: Stage + ?Sized> Stage for Box<S> {
    type In = S::In;
    type Out = S::Out;

    fn step(
        &mut self,
        pos: Pos,
        item: Self::In,
        out: &mut dyn Emit<Self::Out>,
    ) -> Result<(), Fault> {
        (**self).step(pos, item, out)
    }

    fn end(&mut self, pos: Pos, out: &mut dyn Emit<Self::Out>) -> Result<(), Fault> {
        (**self).end(pos, out)
    }

    fn flush(&mut self, all: bool, out: &mut dyn Emit<Self::Out>) -> Result<(), Fault> {
        (**self).flush(all, out)
    }

    fn room(&self) -> usize {
        (**self).room()
    }

    fn due(&self) -> Option<Duration> {
        (**self).due()
    }

    fn held(&self) -> Option<Pos> {
        (**self).held()
    }

    fn poisoned(&mut self, pos: Pos) {
        (**self).poisoned(pos);
    }

    fn gap(&mut self, gap: &Gap) {
        (**self).gap(gap);
    }

    fn save(&self, state: &mut Vec<u8>) -> bool {
        (**self).save(state)
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Why> {
        (**self).restore(state)
    }

    fn swap(&mut self, name: &str, new: &mut Option<Box<dyn Any + Send>>) -> Swap {
        (**self).swap(name, new)
    }
}
