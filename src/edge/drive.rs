//! Stages in front of a sink, and the frontier behind which all is done. No thread, no clock.
//!
//! **The frontier** is the highest known position such that every input up to it is settled, or
//! is a dead letter that is settled, or was skipped, and no stage holds any. It is worked out
//! from four facts, each cheap to have:
//!
//! - what has *entered*: the last input that went through the stages' `step`;
//! - what is *held*: the oldest input that a stage has not wholly let go;
//! - what the sink has *settled*, and whether anything else was put;
//! - the oldest dead letter that is not settled.
//!
//! A position stands for all inputs up to it that were not let go before. So while something is
//! put and not settled, only what is settled counts: an input before it may be inside of it (a
//! batch), and that it was not put by itself proves nothing. If nothing is outstanding, all that
//! has entered is done. Either must be below what is held and below what is dead and not settled.
//! Nothing has to be remembered for each record.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::dead::{Letters, Made, Poison};
use super::fault::{Fault, Why};
use super::pos::{Gap, Mark, Pos};
use super::sink::{Last, Level, Sink};
use super::stage::{Emit, Stage};
use super::then::unpoisoned;
use crate::time::Clock;

/// What is done with poison where there is no sink for dead letters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum OnPoison {
    /// The pipeline ends, and says which record it was.
    #[default]
    End,
    /// The record is counted and told of, and is gone.
    Drop,
    /// Whoever stands before this has to know.
    #[doc(hidden)]
    Pass,
}

/// What was counted since this was last asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub entered: u64,
    pub emitted: u64,
    pub put: u64,
    pub repeated: u64,
    pub dead: u64,
    pub skipped: Vec<(&'static str, u64)>,
    /// What was poison.
    pub poisons: Vec<Poison>,
}

impl Counts {
    fn skip(&mut self, reason: &'static str) {
        match self.skipped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.skipped.push((reason, 1)),
        }
    }
}

/// Rules of the frontier that a test switches off, to see that it notices.
#[cfg(test)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Without {
    #[default]
    Nothing,
    /// What stages hold is passed over.
    Held,
    /// A skip is believed while something before it is not settled.
    Outstanding,
    /// A sink is told of each record that it is the last of its input.
    Last,
    /// Dead letters are not waited for.
    Dead,
    /// The sink is given what is behind them.
    Mourning,
    /// What was poison is still remembered as seen.
    Poisoned,
    /// What a sink has from a life before is put again.
    Covered,
    /// What stages know is kept as it is, and not as it was at the frontier.
    Quiet,
}

/// Stages in front of a sink.
pub(super) struct Drive<C: Stage, K> {
    chain: C,
    outlet: Outlet<C::Out, K>,
    letters: Option<Box<dyn Letters<C::In>>>,
    on_poison: OnPoison,
    /// The last input that went through the stages.
    entered: Option<Pos>,
    /// The stages have not been told yet that there is no more of the last input.
    unended: bool,
    /// An input of which more is to come.
    open: Option<Pos>,
    frontier: Option<Mark>,
    /// The chain asked for time, and goes on in a flush.
    stalled: bool,
    #[cfg(test)]
    pub(super) without: Without,
}

/// The end of the stages: puts into the sink what comes out of them.
struct Outlet<T, K> {
    sink: K,
    now: Duration,
    /// What the sink has from a life before: not put again.
    covered: Option<Pos>,
    /// Whether it is the last of its input is not known yet.
    pending: Option<(Pos, T)>,
    /// A part of its input, or of one before, is held: what comes next belongs to it, whatever
    /// its position.
    partial: bool,
    /// The sink asks for time, or dead letters are not settled: it was not given these yet.
    waiting: VecDeque<(Pos, T, bool)>,
    /// Dead letters are not settled. Until they are the sink is given nothing: a sink that
    /// remembers something behind them would hide them from the next life.
    mourning: bool,
    fault: Option<Fault>,
    /// The highest position that was put, and of which all was put.
    put: Option<Pos>,
    put_last: Option<Pos>,
    /// The highest position of which all was put, and taken.
    put_done: Option<Pos>,
    /// What was put or waits, the last positions, where dead letters are kept: a position stands
    /// for all behind the one before it.
    outs: Option<VecDeque<Pos>>,
    settled: Option<Pos>,
    poisons: Vec<Poison>,
    /// What was skipped, where dead letters are kept.
    skips: Option<Vec<Pos>>,
    /// How often a stage has said anything.
    said: u64,
    /// Hashes of inputs behind the frontier, where the source has some.
    hashes: VecDeque<Mark>,
    counts: Counts,
    #[cfg(test)]
    without: Without,
}

impl<T, K: Sink<Item = T>> Outlet<T, K> {
    /// Puts into the sink, or behind what waits for it.
    fn put(&mut self, pos: Pos, item: T, last: bool) {
        if self.put_last.is_some_and(|done| pos <= done) {
            let (last, then) = (self.put_last.unwrap_or_default(), pos);
            self.fault = Some(Fault::Fatal(Why::Order { last, then }));
            return;
        }
        self.put = Some(pos);
        if last {
            self.put_last = Some(pos);
            if let Some(outs) = &mut self.outs {
                outs.push_back(pos);
            }
        }
        // What is poison is a dead letter first, and settled, before anything behind it is put.
        let held_up = self.fault.is_some() || self.mourning || !self.poisons.is_empty();
        if held_up || !self.waiting.is_empty() {
            self.waiting.push_back((pos, item, last));
        } else {
            self.give(pos, item, last);
        }
    }

    fn give(&mut self, pos: Pos, item: T, last: bool) {
        self.counts.put += 1;
        if last && let Some(mark) = mark_at(&self.hashes, pos) {
            self.sink.hashed(mark);
        }
        match self.sink.put(pos, item, last) {
            Err(Fault::Poison { why, .. }) => {
                // Nobody will hear of it again, and the whole input is in a dead letter: whatever
                // else came of it need not be settled.
                if self.put == Some(pos) {
                    self.put = self.put_done;
                }
                self.refused(pos, why);
                return;
            }
            Ok(()) => {}
            Err(fault) => self.fault = Some(fault),
        }
        if last {
            self.put_done = Some(pos);
        }
    }

    /// The sink cannot handle what was put at `pos`.
    fn refused(&mut self, pos: Pos, why: Why) {
        let before = self.outs.as_ref().and_then(|outs| {
            let at = outs.partition_point(|out| *out < pos).checked_sub(1)?;
            outs.get(at).copied()
        });
        self.poisons.push(Poison { made: Made::Behind(before), pos, why });
    }

    /// A step or a flush is over: what is pending was the last of its input, unless more of that
    /// is held, or is still to come.
    fn close(&mut self, held: Option<Pos>) {
        #[cfg(test)]
        let held = held.filter(|_| self.without != Without::Last);
        let more = |pos: Pos| held.is_some_and(|held| held <= pos);
        if let Some((pos, item)) = self.pending.take_if(|(pos, _)| !more(*pos)) {
            self.partial = false;
            self.put(pos, item, true);
        } else {
            self.partial = self.pending.is_some();
        }
    }

    fn is_outstanding(&self) -> bool {
        self.pending.is_some() || self.put > self.settled
    }

    /// Gives what waits, as far as the sink takes it.
    fn go_on(&mut self) -> Result<(), Fault> {
        if matches!(self.fault, Some(Fault::Retry { .. })) {
            // What it has kept comes first.
            self.settle(Duration::ZERO)?;
            self.fault = None;
        }
        self.give_waiting();
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn give_waiting(&mut self) {
        while self.fault.is_none()
            && !self.mourning
            && self.poisons.is_empty()
            && let Some((pos, item, last)) = self.waiting.pop_front()
        {
            self.give(pos, item, last);
        }
    }

    fn settle(&mut self, limit: Duration) -> Result<(), Fault> {
        if !self.is_outstanding() {
            return Ok(());
        }
        match self.sink.settle(limit) {
            Ok(settled) => self.settled = self.settled.max(settled),
            Err(Fault::Poison { pos, why }) => self.refused(pos, why),
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}

fn mark_at(hashes: &VecDeque<Mark>, pos: Pos) -> Option<Mark> {
    let newest = hashes.back()?;
    if newest.pos == pos {
        return Some(*newest);
    }
    let at = hashes.binary_search_by(|mark| mark.pos.cmp(&pos)).ok()?;
    hashes.get(at).copied()
}

impl<T, K: Sink<Item = T>> Emit<T> for Outlet<T, K> {
    #[inline]
    fn emit(&mut self, pos: Pos, item: T) {
        self.said += 1;
        self.counts.emitted += 1;
        if self.covered.is_some_and(|covered| pos <= covered) {
            self.counts.repeated += 1;
            return;
        }
        if let Some((before, item)) = self.pending.take() {
            if before > pos {
                self.fault = Some(Fault::Fatal(Why::Order { last: before, then: pos }));
                return;
            }
            #[cfg(test)]
            let last = before < pos && !self.partial || self.without == Without::Last;
            #[cfg(not(test))]
            let last = before < pos && !self.partial;
            self.partial = false;
            self.put(before, item, last);
        }
        self.pending = Some((pos, item));
    }

    fn skip(&mut self, pos: Pos, reason: &'static str) {
        self.said += 1;
        self.counts.skip(reason);
        if let Some(skips) = &mut self.skips {
            skips.push(pos);
        }
    }

    fn poison(&mut self, pos: Pos, why: Why) {
        self.said += 1;
        self.poisons.push(Poison { made: Made::OfOne, pos, why });
    }

    fn poison_behind(&mut self, behind: Option<Pos>, pos: Pos, why: Why) {
        self.said += 1;
        self.poisons.push(Poison { made: Made::Behind(behind), pos, why });
    }

    fn now(&self) -> Duration {
        self.now
    }
}

impl<C: Stage, K> fmt::Debug for Drive<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Drive");
        debug.field("entered", &self.entered).field("frontier", &self.frontier);
        debug.field("put", &self.outlet.put).field("settled", &self.outlet.settled);
        debug.field("held", &self.chain.held()).field("mourning", &self.outlet.mourning);
        debug.finish_non_exhaustive()
    }
}

impl<C: Stage, K: Sink<Item = C::Out>> Drive<C, K> {
    pub(super) fn new(chain: C, sink: K) -> Self {
        Self {
            chain,
            outlet: Outlet {
                sink,
                now: Duration::ZERO,
                covered: None,
                pending: None,
                partial: false,
                waiting: VecDeque::new(),
                mourning: false,
                fault: None,
                put: None,
                put_last: None,
                put_done: None,
                outs: None,
                settled: None,
                poisons: Vec::new(),
                skips: None,
                said: 0,
                hashes: VecDeque::new(),
                counts: Counts::default(),
                #[cfg(test)]
                without: Without::Nothing,
            },
            letters: None,
            on_poison: OnPoison::End,
            entered: None,
            unended: false,
            open: None,
            frontier: None,
            stalled: false,
            #[cfg(test)]
            without: Without::Nothing,
        }
    }

    /// What becomes of poison.
    pub(super) fn bury(&mut self, letters: Option<Box<dyn Letters<C::In>>>, or: OnPoison) {
        self.outlet.outs = letters.is_some().then(VecDeque::new);
        self.outlet.skips = letters.is_some().then(Vec::new);
        self.letters = letters;
        self.on_poison = or;
    }

    #[cfg(test)]
    pub(super) fn leave_out(&mut self, without: Without) {
        self.without = without;
        self.outlet.without = without;
    }

    pub(super) fn chain(&mut self) -> &mut C {
        &mut self.chain
    }

    pub(super) fn sink(&mut self) -> &mut K {
        &mut self.outlet.sink
    }

    /// Where the next input stands behind `at`; the sink has everything up to `covered`.
    pub(super) fn begin(&mut self, at: Option<Mark>, covered: Option<Pos>) {
        #[cfg(test)]
        let covered = covered.filter(|_| self.without != Without::Covered);
        self.frontier = at;
        self.entered = at.map(|mark| mark.pos);
        self.outlet.covered = covered;
    }

    pub(super) fn set_now(&mut self, now: Duration) {
        self.outlet.now = now;
    }

    /// The next input, or a part of one where `last` is not true yet.
    #[inline]
    pub(super) fn step(&mut self, mark: Mark, item: C::In, last: bool) -> Result<(), Fault> {
        let pos = mark.pos;
        if let Some(letters) = &mut self.letters {
            letters.came(pos, &item);
        }
        if mark.hash.is_some() && last {
            self.outlet.hashes.push_back(mark);
        }
        let said = self.outlet.said;
        let stepped = self.chain.step(pos, item, &mut self.outlet);
        let stepped = unpoisoned(stepped, &mut self.outlet);
        if self.outlet.said == said && stepped.is_ok() && self.held().is_none_or(|it| it > pos) {
            // A stage that drops and does not say so: nothing else was done with it.
            self.outlet.counts.skip("unsaid");
        }
        if last {
            self.entered = Some(pos);
            self.open = None;
            self.outlet.counts.entered += 1;
            self.unended = true;
        } else {
            self.open = Some(pos);
        }
        if self.unended && stepped.is_ok() {
            let ended = self.end();
            return self.after(ended);
        }
        self.after(stepped)
    }

    /// Tells the stages that there is no more of the last input.
    #[inline]
    fn end(&mut self) -> Result<(), Fault> {
        self.unended = false;
        let Some(pos) = self.entered else { return Ok(()) };
        let ended = self.chain.end(pos, &mut self.outlet);
        let ended = unpoisoned(ended, &mut self.outlet);
        self.unended = ended.is_err();
        ended
    }

    /// What a call of the chain leaves to be done.
    #[inline]
    fn after(&mut self, acted: Result<(), Fault>) -> Result<(), Fault> {
        if let Err(fault) = unpoisoned(acted, &mut self.outlet) {
            self.stalled = true;
            self.outlet.fault.get_or_insert(fault);
        }
        let held = self.held();
        self.outlet.close(held.into_iter().chain(self.open).min());
        if let (Some(skips), Some(letters)) = (&mut self.outlet.skips, &mut self.letters) {
            skips.drain(..).for_each(|pos| letters.skipped(pos));
        }
        while !self.outlet.poisons.is_empty() {
            let buried = self.bury_poisons();
            self.mourn();
            buried?;
            self.outlet.give_waiting();
        }
        self.outlet.fault.clone().map_or(Ok(()), Err)
    }

    fn held(&self) -> Option<Pos> {
        self.chain.held()
    }

    /// Holds back what is behind a dead letter that is not settled.
    fn mourn(&mut self) {
        let open = self.letters.as_ref().is_some_and(|letters| letters.open().is_some());
        #[cfg(test)]
        let open = open && self.without != Without::Mourning;
        self.outlet.mourning = open;
    }

    /// Poison goes to the dead letters, and nobody remembers it.
    fn bury_poisons(&mut self) -> Result<(), Fault> {
        let mut done = Ok(());
        for mut poison in std::mem::take(&mut self.outlet.poisons) {
            let mut buried = vec![poison.pos];
            if let Some(letters) = &mut self.letters {
                let frontier = self.frontier.map(|mark| mark.pos);
                if let Made::Behind(behind) = &mut poison.made {
                    *behind = frontier.max(*behind);
                }
                let put;
                (buried, put) = letters.bury(&poison);
                done = done.and(put);
                self.outlet.counts.dead += buried.len() as u64;
            } else if self.on_poison == OnPoison::End {
                let Poison { pos, why, .. } = poison;
                return Err(Fault::Fatal(Why::Poison { pos, why: why.into() }));
            } else if self.on_poison == OnPoison::Drop {
                self.outlet.counts.skip("poison");
            }
            for pos in buried {
                #[cfg(test)]
                if self.without == Without::Poisoned {
                    continue;
                }
                self.chain.poisoned(pos);
            }
            self.outlet.counts.poisons.push(poison);
        }
        done
    }

    /// The source could not read the record at `pos`.
    pub(super) fn unreadable(&mut self, pos: Pos, why: Why) -> Result<(), Fault> {
        self.outlet.poisons.push(Poison { made: Made::OfOne, pos, why });
        self.entered = Some(pos);
        self.after(Ok(()))
    }

    /// Goes on with whoever asked for time. After that inputs may come again.
    pub(super) fn go_on(&mut self) -> Result<(), Fault> {
        self.outlet.go_on()?;
        if self.stalled {
            self.stalled = false;
            let flushed = self.chain.flush(false, &mut self.outlet);
            self.after(flushed)?;
        }
        if self.unended {
            let ended = self.end();
            self.after(ended)?;
        }
        if let Some(letters) = &mut self.letters {
            letters.settle(Duration::ZERO)?;
        }
        self.after(Ok(()))
    }

    /// Lets go of what is due, or of everything.
    pub(super) fn flush(&mut self, all: bool) -> Result<(), Fault> {
        let flushed = self.chain.flush(all, &mut self.outlet);
        self.after(flushed)
    }

    /// When a stage wants to be flushed.
    pub(super) fn due(&self) -> Option<Duration> {
        self.chain.due()
    }

    pub(super) fn room(&self) -> usize {
        if self.outlet.mourning {
            return 0;
        }
        let waiting = self.outlet.waiting.len();
        let mut room = self.outlet.sink.room().saturating_sub(waiting);
        if !self.outlet.is_outstanding() {
            // What the sink has then waits for nothing but what comes next.
            room = room.max(1);
        }
        room.min(self.chain.room())
    }

    /// Has anything entered that is not behind the frontier?
    pub(super) fn is_busy(&self) -> bool {
        self.entered != self.frontier.map(|mark| mark.pos)
    }

    /// Is anything put that is not settled, or dead and not settled?
    pub(super) fn is_outstanding(&self) -> bool {
        self.outlet.is_outstanding()
            || self.letters.as_ref().is_some_and(|letters| letters.open().is_some())
    }

    /// Asks the sinks how far they are, and says where the frontier is then.
    pub(super) fn settle(&mut self, limit: Duration) -> Result<Option<Mark>, Fault> {
        if let Some(letters) = &mut self.letters {
            let limit = if self.outlet.is_outstanding() { Duration::ZERO } else { limit };
            letters.settle(limit)?;
        }
        self.mourn();
        self.outlet.give_waiting();
        self.outlet.settle(limit)?;
        self.after(Ok(()))?;
        Ok(self.reach())
    }

    fn reach(&mut self) -> Option<Mark> {
        let held = self.held().into_iter().chain(self.open).min();
        let dead = self.letters.as_ref().and_then(|letters| letters.open());
        #[cfg(test)]
        let held = held.filter(|_| self.without != Without::Held);
        #[cfg(test)]
        let dead = dead.filter(|_| self.without != Without::Dead);
        let below =
            |pos: &Pos| held.is_none_or(|held| *pos < held) && dead.is_none_or(|dead| *pos < dead);
        let outstanding = self.outlet.is_outstanding();
        #[cfg(test)]
        let outstanding = outstanding && self.without != Without::Outstanding;
        let entered = self.entered.filter(|_| !outstanding);
        let reached = entered.filter(below).or(self.outlet.settled.filter(below));
        if let Some(pos) = reached
            && self.frontier.is_none_or(|frontier| pos > frontier.pos)
        {
            self.frontier = Some(mark_at(&self.outlet.hashes, pos).unwrap_or(pos.into()));
            self.passed(pos);
        }
        self.frontier
    }

    /// What was kept for inputs up to `pos` is not needed any more.
    fn passed(&mut self, pos: Pos) {
        let hashes = &mut self.outlet.hashes;
        while hashes.front().is_some_and(|mark| mark.pos <= pos) {
            hashes.pop_front();
        }
        if let Some(letters) = &mut self.letters {
            letters.passed(pos);
        }
        if let Some(outs) = &mut self.outlet.outs {
            // One stays: it is what the next one begins behind.
            while outs.get(1).is_some_and(|out| *out <= pos) {
                outs.pop_front();
            }
        }
    }

    pub(super) fn frontier(&self) -> Option<Mark> {
        self.frontier
    }

    /// What the sink has said that it has.
    pub(super) fn settled(&self) -> Option<Pos> {
        self.outlet.settled
    }

    pub(super) fn gap(&mut self, gap: &Gap) {
        self.chain.gap(gap);
    }

    /// What was counted since the last call.
    pub(super) fn counts(&mut self) -> &mut Counts {
        &mut self.outlet.counts
    }

    /// Every input up to `mark` came to nothing or is settled: that is so here too.
    fn pass(&mut self, mark: Mark) {
        if self.open.is_none_or(|open| open > mark.pos) {
            self.entered = self.entered.max(Some(mark.pos));
        }
    }
}

/// Stages in front of a sink, which together are a sink. See [`branch`].
#[derive(Debug)]
pub struct Branch<C: Stage, K> {
    drive: Drive<C, K>,
    clock: Clock,
    stalled: bool,
    poisons: VecDeque<(Pos, Why)>,
}

/// Puts a stage in front of a sink: for a branch of a [`tee`](super::tee()) that wants something
/// else than the other. The stage's state is not saved, and begins empty in each life.
pub fn branch<C: Stage, K: Sink<Item = C::Out>>(stage: C, sink: K) -> Branch<C, K> {
    let mut drive = Drive::new(stage, sink);
    drive.bury(None, OnPoison::Pass);
    Branch { drive, clock: Clock::System, stalled: false, poisons: VecDeque::new() }
}

impl<C: Stage, K: Sink<Item = C::Out>> Branch<C, K> {
    fn after<T>(&mut self, acted: Result<T, Fault>) -> Result<T, Fault> {
        let poisons = self.drive.counts().poisons.drain(..);
        self.poisons.extend(poisons.map(|poison| (poison.pos, poison.why)));
        self.stalled |= acted.is_err();
        let acted = acted?;
        match self.poisons.pop_front() {
            Some((pos, why)) => Err(Fault::Poison { pos, why }),
            None => Ok(acted),
        }
    }

    fn settled(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        let now = self.clock.monotonic();
        self.drive.set_now(now);
        if self.stalled {
            self.drive.go_on()?;
            self.stalled = false;
        }
        if self.drive.due().is_some_and(|due| due <= now) {
            self.drive.flush(false)?;
        }
        Ok(self.drive.settle(limit)?.map(|mark| mark.pos))
    }
}

impl<C: Stage, K: Sink<Item = C::Out>> Sink for Branch<C, K> {
    type Item = C::In;

    fn put(&mut self, pos: Pos, item: C::In, last: bool) -> Result<(), Fault> {
        self.drive.set_now(self.clock.monotonic_coarse());
        let stepped = self.drive.step(pos.into(), item, last);
        self.after(stepped)
    }

    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        let settled = self.settled(limit);
        self.after(settled)
    }

    fn room(&self) -> usize {
        self.drive.room()
    }

    fn last(&mut self) -> Result<Last, Fault> {
        let last = self.drive.sink().last()?;
        if let Last::At(mark) | Last::NotBehind(mark) = last {
            self.drive.begin(None, Some(mark.pos));
        }
        Ok(last)
    }

    fn level(&self) -> Level {
        self.drive.outlet.sink.level()
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let flushed = self.drive.flush(true).and_then(|()| self.drive.sink().flush());
        self.after(flushed)
    }

    fn skipped(&mut self) -> Vec<(&'static str, u64)> {
        let mut skipped = std::mem::take(&mut self.drive.counts().skipped);
        skipped.extend(self.drive.sink().skipped());
        skipped
    }

    fn hashed(&mut self, mark: Mark) {
        self.drive.outlet.hashes.push_back(mark);
    }

    fn passed(&mut self, pos: Mark) -> Result<bool, Fault> {
        self.drive.pass(pos);
        self.drive.sink().passed(pos)
    }
}
