//! A pipeline's loop, turn by turn: what is pulled, stepped, settled and kept, and when.
//!
//! There is no thread here and nothing sleeps but in a source or a sink, for as long as it is
//! allowed to. A turn that fails with `Retry` has lost nothing: the next one goes on with what
//! asked for time, and nothing overtakes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::drive::Drive;
use super::fault::{Fault, Why};
use super::gauge::{Gauges, Pulls};
use super::keep::{Keep, Kept};
use super::options::{OnDiverged, OnGap, Options};
use super::pos::{Gap, Mark, Pos};
use super::sink::{Last, Sink};
use super::source::{Flow, Give, Resume, Source};
use super::stage::Stage;
use crate::trace;

/// While something is not settled, a sink is waited for at most so long before the source is
/// looked at again.
const PATIENCE: Duration = Duration::from_millis(5);
/// A source that never runs dry still gives way to the sink so often, and so long.
const SETTLE_EVERY: Duration = Duration::from_millis(10);
const SETTLE_FOR: Duration = Duration::from_millis(1);

/// A pipeline between two turns.
#[expect(clippy::struct_excessive_bools, reason = "what was told, and what is to be done: facts")]
pub(super) struct Run<S: Source, C: Stage<In = S::Item>, K> {
    name: Arc<str>,
    source: S,
    drive: Drive<C, K>,
    keep: Option<Box<dyn Keep + Send>>,
    options: Options,
    gauges: Arc<Gauges>,
    begun: bool,
    /// A turn has failed: whoever asked for time is asked first.
    failed: bool,
    /// What was pulled and not stepped, because a stage or the sink asked for time.
    leftover: VecDeque<(Mark, S::Item)>,
    /// What the source has said behind that.
    said: Option<Said>,
    /// The source has ended.
    pub(super) ended: bool,
    /// Nothing is to be pulled until all is settled.
    pub(super) quieting: bool,
    /// The sink returned at once, with nothing new: it is not asked all the time.
    idle_sink: bool,
    patient_at: Duration,
    head: Option<Pos>,
    pulls: Pulls,
    /// The sink has these from a life before.
    covered: Option<Pos>,
    /// The sink remembers: the source is not told more than that.
    remembers: bool,
    /// What the sink was told came to nothing, or the last that was put and is settled.
    remembered: Option<Pos>,
    put_settled: Option<Pos>,
    told: Option<Pos>,
    passed_at: Duration,
    /// What is kept.
    kept: Option<Pos>,
    kept_put: Option<Pos>,
    kept_at: Duration,
    /// A stage knows something that has to be kept.
    stateful: bool,
    /// A checkpoint waits for quiet.
    checkpoint: bool,
}

/// What a source said instead of a record.
enum Said {
    Gap(Gap),
    Unreadable(Pos, Why),
    End,
}

/// What a turn has done.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Turned {
    /// Everything that was pulled is behind the frontier, and nothing is to be pulled.
    pub quiet: bool,
    /// There was nothing to do, and nobody was waited for: the next turn may come later.
    pub rest: Option<Duration>,
}

/// Puts records through the stages as they are given.
struct Intake<'a, C: Stage, K> {
    drive: &'a mut Drive<C, K>,
    leftover: &'a mut VecDeque<(Mark, C::In)>,
    fault: Option<Fault>,
    pulled: u64,
    replayed: u64,
    covered: Option<Pos>,
    head: &'a mut Option<Pos>,
}

impl<C: Stage, K: Sink<Item = C::Out>> Intake<'_, C, K> {
    #[inline]
    fn take(&mut self, mark: Mark, item: C::In) {
        if let Some(last) = self.head.filter(|last| mark.pos <= *last) {
            let why = Why::Order { last, then: mark.pos }.within("source");
            self.fault = Some(Fault::Fatal(why));
        }
        *self.head = Some(mark.pos);
        self.pulled += 1;
        self.replayed += u64::from(self.covered.is_some_and(|covered| mark.pos <= covered));
        if self.fault.is_some() {
            self.leftover.push_back((mark, item));
        } else {
            self.fault = self.drive.step(mark, item, true).err();
        }
    }
}

impl<C: Stage, K: Sink<Item = C::Out>> Give<C::In> for Intake<'_, C, K> {
    #[inline]
    fn give(&mut self, pos: Pos, item: C::In) {
        self.take(Mark { pos, hash: None }, item);
    }

    fn give_hashed(&mut self, pos: Pos, hash: u64, item: C::In) {
        self.take(Mark { pos, hash: Some(hash) }, item);
    }
}

impl<S, C, K> Run<S, C, K>
where
    S: Source,
    C: Stage<In = S::Item>,
    K: Sink<Item = C::Out>,
{
    pub(super) fn new(
        name: Arc<str>,
        (source, drive): (S, Drive<C, K>),
        keep: Option<Box<dyn Keep + Send>>,
        options: Options,
        gauges: Arc<Gauges>,
    ) -> Self {
        Self {
            name,
            source,
            drive,
            keep,
            options,
            gauges,
            begun: false,
            failed: false,
            leftover: VecDeque::new(),
            said: None,
            ended: false,
            quieting: false,
            idle_sink: false,
            patient_at: Duration::ZERO,
            head: None,
            pulls: Pulls::default(),
            covered: None,
            remembers: false,
            remembered: None,
            put_settled: None,
            told: None,
            passed_at: Duration::ZERO,
            kept: None,
            kept_put: None,
            kept_at: Duration::ZERO,
            stateful: false,
            checkpoint: false,
        }
    }

    pub(super) fn drive(&mut self) -> &mut Drive<C, K> {
        &mut self.drive
    }

    /// Finds out where the life before has come to, and sends the source there.
    fn begin(&mut self) -> Result<(), Fault> {
        let kept = match &mut self.keep {
            Some(keep) => keep.load()?,
            None => None,
        };
        let last = self.drive.sink().last()?;
        self.stateful = self.keep.is_some() && self.drive.chain().save(&mut Vec::new());
        let start = Start::of(last, kept.as_ref(), self.stateful);
        if let Some(lost) = start.lost {
            let (at, had) = (start.at.map(|mark| mark.pos), lost);
            let at = at.map_or_else(|| "nothing".to_owned(), |at| at.to_string());
            trace::PipelineSinkLost { pipeline: &self.name, had: &had, has: &at }.tell();
        }
        let mut at = start.at;
        let gap = match self.source.seek(at)? {
            Resume::Exact => None,
            Resume::Gap(gap) => Some(gap),
            Resume::Snapshot => {
                Some(Gap { after: at.map(|mark| mark.pos), before: None, lost: None })
            }
            Resume::Diverged => {
                let was = at.unwrap_or_else(|| Pos::default().into());
                let why = Why::Diverged(was);
                if self.options.on_diverged == OnDiverged::End {
                    return Err(Fault::Fatal(why));
                }
                trace::PipelineDiverged { pipeline: &self.name, at: &was.pos }.tell();
                at = None;
                if self.source.seek(None)? == Resume::Diverged {
                    return Err(Fault::Fatal(why));
                }
                Some(Gap { after: Some(was.pos), before: None, lost: None })
            }
        };
        let state = kept.as_ref().filter(|kept| Some(kept.mark.pos) == at.map(|at| at.pos));
        let state = state.and_then(|kept| kept.state.as_deref());
        if at.is_some() || kept.is_some() || gap.is_some() {
            let restored = self.drive.chain().restore(state);
            let empty = self.stateful && state.is_none();
            let why = restored.err().or_else(|| empty.then(|| "none was kept there".into()));
            if let Some(why) = why {
                trace::PipelineStateLost { pipeline: &self.name, error: &why }.tell();
            }
        }
        self.covered = start.covered;
        self.remembers = last != Last::Untold;
        self.head = at.map(|mark| mark.pos);
        self.told = self.head;
        self.kept = kept.as_ref().map(|kept| kept.mark.pos).filter(|kept| self.head >= Some(*kept));
        self.kept_put = kept.and_then(|kept| kept.put);
        self.put_settled = self.kept_put;
        self.remembered = self.head.max(start.covered);
        self.drive.begin(at, start.covered);
        if let Some(gap) = gap {
            self.gap(&gap)?;
        }
        let now = self.options.clock.monotonic();
        (self.passed_at, self.kept_at) = (now, now);
        self.begun = true;
        Ok(())
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), Fault> {
        self.gauges.gap(gap.lost);
        trace::PipelineGap { pipeline: &self.name, gap, lost: gap.lost.unwrap_or(0) }.tell();
        self.drive.gap(gap);
        match self.options.on_gap {
            OnGap::GoOn => Ok(()),
            OnGap::End => Err(Fault::Fatal(Why::Gap(*gap))),
        }
    }

    /// One turn. Waits at most `wait`, for the source or for the sink, if there is nothing to do.
    pub(super) fn turn(&mut self, pulling: bool, wait: Duration) -> Result<Turned, Fault> {
        let turned = self.turn_parts(pulling, wait);
        self.failed |= turned.is_err();
        self.count();
        turned
    }

    fn turn_parts(&mut self, pulling: bool, wait: Duration) -> Result<Turned, Fault> {
        if !self.begun {
            self.begin()?;
        }
        let now = self.options.clock.monotonic();
        self.drive.set_now(now);
        if self.failed {
            self.drive.go_on()?;
            self.failed = false;
        }
        while let Some((mark, item)) = self.leftover.pop_front() {
            self.drive.step(mark, item, true)?;
        }
        match self.said.take() {
            Some(Said::Gap(gap)) => self.gap(&gap)?,
            Some(Said::Unreadable(pos, why)) => self.drive.unreadable(pos, why)?,
            Some(Said::End) => (self.ended, self.quieting) = (true, true),
            None => {}
        }
        let quieting = self.quieting || self.checkpoint;
        if quieting {
            self.drive.flush(true)?;
            self.drive.sink().flush()?;
        } else if self.drive.due().is_some_and(|due| due <= now) {
            self.drive.flush(false)?;
        }
        let mut pulled = 0;
        let room = self.drive.room();
        if pulling && !quieting && room > 0 {
            pulled = self.pull(room, now, wait)?;
        }
        let before = self.drive.frontier();
        self.settle(pulled, room, now, wait)?;
        let quiet = self.is_quiet();
        self.keep_up(now, quiet)?;
        let moved = pulled > 0 || before != self.drive.frontier() || self.said.is_some();
        let rest = (!moved).then(|| self.rest(now, wait)).flatten();
        Ok(Turned { quiet: quiet && self.quieting, rest })
    }

    /// Where neither the source nor the sink has waited, somebody else has to: for a stage that is
    /// due, or for a sink that answers at once.
    fn rest(&self, now: Duration, wait: Duration) -> Option<Duration> {
        let waited = self.options.clock.monotonic().saturating_sub(now);
        let due = self.drive.due().map_or(wait, |due| due.saturating_sub(now));
        let rest = if self.drive.is_outstanding() { SETTLE_FOR } else { wait };
        Some(rest.min(due)).filter(|rest| waited < *rest)
    }

    fn is_quiet(&self) -> bool {
        self.leftover.is_empty()
            && self.said.is_none()
            && !self.drive.is_busy()
            && !self.drive.is_outstanding()
    }

    /// Takes what the source has, and puts it through the stages.
    fn pull(&mut self, room: usize, now: Duration, wait: Duration) -> Result<u64, Fault> {
        let outstanding = self.drive.is_outstanding();
        let mut limit = match (outstanding, self.idle_sink) {
            (true, false) => Duration::ZERO,
            (true, true) => SETTLE_FOR.min(wait),
            (false, _) => wait,
        };
        if let Some(due) = self.drive.due() {
            limit = limit.min(due.saturating_sub(now));
        }
        let mut intake = Intake {
            drive: &mut self.drive,
            leftover: &mut self.leftover,
            fault: None,
            pulled: 0,
            replayed: 0,
            covered: self.covered,
            head: &mut self.head,
        };
        let flow = self.source.pull(room.min(self.options.pull_max.max(1)), limit, &mut intake);
        let Intake { fault, pulled, replayed, .. } = intake;
        if let Some(head) = self.head.filter(|_| pulled > 0) {
            self.pulls.pulled(head, pulled, self.options.clock.monotonic(), &self.gauges);
            self.gauges.replayed(replayed);
        }
        let mut failed = None;
        match flow {
            Ok(Flow::More | Flow::Idle) => {}
            Ok(Flow::Gap(gap)) => self.said = Some(Said::Gap(gap)),
            Ok(Flow::End) => self.said = Some(Said::End),
            Err(Fault::Poison { pos, why }) => {
                self.head = self.head.max(Some(pos));
                self.said = Some(Said::Unreadable(pos, why));
            }
            Err(fault) => failed = Some(within(fault, "source")),
        }
        // The end of it comes before what can be tried again.
        match (fault, failed) {
            (Some(fatal @ Fault::Fatal(_)), _) | (_, Some(fatal @ Fault::Fatal(_))) => Err(fatal),
            (Some(fault), _) | (None, Some(fault)) => Err(fault),
            (None, None) => Ok(pulled),
        }
    }

    /// Asks the sink how far it is.
    fn settle(
        &mut self,
        pulled: u64,
        room: usize,
        now: Duration,
        wait: Duration,
    ) -> Result<(), Fault> {
        if !self.drive.is_outstanding() {
            self.idle_sink = false;
            self.drive.settle(Duration::ZERO)?;
            return Ok(());
        }
        let limit = if room == 0 {
            wait
        } else if pulled == 0 {
            PATIENCE.min(wait)
        } else if now.saturating_sub(self.patient_at) >= SETTLE_EVERY {
            SETTLE_FOR
        } else {
            Duration::ZERO
        };
        let before = self.drive.frontier();
        let after = self.drive.settle(limit)?;
        if !limit.is_zero() {
            self.patient_at = self.options.clock.monotonic();
            self.idle_sink = before == after;
        }
        Ok(())
    }

    /// Tells of the frontier whoever wants to know: the sink, what keeps it, the source.
    fn keep_up(&mut self, now: Duration, quiet: bool) -> Result<(), Fault> {
        let Some(frontier) = self.drive.frontier() else { return Ok(()) };
        let at = frontier.pos;
        if let Some(put) = self.drive.settled().filter(|put| *put <= at) {
            self.put_settled = self.put_settled.max(Some(put));
            self.remembered = self.remembered.max(Some(put));
        }
        let ending = quiet && self.quieting;
        if self.remembers
            && Some(at) > self.remembered
            && (ending || now.saturating_sub(self.passed_at) >= self.options.skips_every)
        {
            if self.drive.sink().passed(frontier)? {
                self.remembered = Some(at);
            }
            self.passed_at = now;
        }
        if self.keep.is_some() {
            self.checkpoint(frontier, now, quiet)?;
        }
        // No further than where the next life begins, which would report a gap otherwise.
        let upto = match (&self.keep, self.remembers) {
            (Some(_), _) => self.kept,
            (None, true) => self.remembered,
            (None, false) => Some(at),
        };
        if let Some(upto) = upto.map(|upto| upto.min(at))
            && Some(upto) > self.told
        {
            self.source.done(upto).map_err(|fault| within(fault, "source"))?;
            self.told = Some(upto);
        }
        Ok(())
    }

    /// Keeps the frontier, if it is time: with the stages' state only where all is quiet, since
    /// then they know what they knew there.
    fn checkpoint(&mut self, frontier: Mark, now: Duration, quiet: bool) -> Result<(), Fault> {
        if Some(frontier.pos) <= self.kept {
            self.checkpoint = false;
            return Ok(());
        }
        let put = self.put_settled > self.kept_put;
        let every = if put { self.options.keep_every } else { self.options.skips_every };
        let ending = quiet && self.quieting;
        if !self.checkpoint && !ending && now.saturating_sub(self.kept_at) < every {
            return Ok(());
        }
        #[cfg(test)]
        let quiet = quiet || self.drive.without == super::drive::Without::Quiet;
        if self.stateful && !quiet {
            self.checkpoint = true;
            return Ok(());
        }
        self.save(frontier)?;
        self.kept_at = now;
        self.checkpoint = false;
        Ok(())
    }

    fn save(&mut self, frontier: Mark) -> Result<(), Fault> {
        let mut state = Vec::new();
        let state = self.drive.chain().save(&mut state).then_some(state);
        let kept = Kept { mark: frontier, put: self.put_settled, state };
        if let Some(keep) = &mut self.keep {
            keep.save(&kept)?;
            self.kept = Some(frontier.pos);
            self.kept_put = kept.put;
        }
        Ok(())
    }

    /// The stages are others now: what is kept has to be theirs. All is quiet.
    pub(super) fn swapped(&mut self) -> Result<(), Fault> {
        let Some(frontier) = self.drive.frontier().filter(|_| self.keep.is_some()) else {
            return Ok(());
        };
        self.stateful = self.drive.chain().save(&mut Vec::new());
        self.save(frontier)
    }

    fn count(&mut self) {
        let now = self.options.clock.monotonic();
        let frontier = self.drive.frontier().map(|mark| mark.pos);
        self.pulls.passed(frontier, now, &self.gauges);
        let counts = self.drive.counts();
        self.gauges.count(counts);
        for poison in counts.poisons.drain(..) {
            let (at, error) = (&poison.pos, &poison.why);
            trace::PipelinePoison { pipeline: &self.name, at, error }.tell();
        }
        let sink = self.drive.sink();
        self.gauges.skip(sink.skipped());
        self.gauges.wrote(sink.bytes());
    }
}

/// Says in which part it was.
pub(super) fn within(fault: Fault, part: &str) -> Fault {
    match fault {
        Fault::Retry { after, why } => Fault::Retry { after, why: why.within(part) },
        Fault::Poison { pos, why } => Fault::Poison { pos, why: why.within(part) },
        Fault::Fatal(why) => Fault::Fatal(why.within(part)),
    }
}

/// Where a life begins.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Start {
    /// The source goes on behind this.
    at: Option<Mark>,
    /// The sink has everything up to here, and is not given it again.
    covered: Option<Pos>,
    /// What the sink had, and has no more.
    lost: Option<Pos>,
}

impl Start {
    /// From what the sink remembers, and what was kept.
    fn of(last: Last, kept: Option<&Kept>, stateful: bool) -> Self {
        let mark = kept.map(|kept| kept.mark);
        let put = kept.and_then(|kept| kept.put);
        match last {
            Last::Untold => Self { at: mark, covered: None, lost: None },
            // It would remember, so all that was put is gone; if nothing was, nothing is.
            Last::Never => match put {
                Some(put) => Self { at: None, covered: None, lost: Some(put) },
                None => Self { at: mark, covered: None, lost: None },
            },
            Last::At(last) | Last::NotBehind(last) if put > Some(last.pos) => {
                Self { at: Some(last), covered: Some(last.pos), lost: put }
            }
            Last::At(last) => {
                let covered = Some(last.pos);
                let at = match mark {
                    // Its state is that of there, and takes in what follows.
                    Some(mark) if stateful || mark.pos > last.pos => mark,
                    _ => last,
                };
                Self { at: Some(at), covered, lost: None }
            }
            Last::NotBehind(last) => {
                let at = mark.filter(|mark| mark.pos < last.pos).or(mark.map(|_| last));
                Self { at, covered: None, lost: None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(seq: u64) -> Mark {
        Pos::new(0, seq).into()
    }

    fn kept(seq: u64, put: Option<u64>) -> Kept {
        Kept { mark: mark(seq), put: put.map(|put| Pos::new(0, put)), state: None }
    }

    /// Where a life begins, for all that a sink and a keeper can know.
    #[test]
    fn a_life_begins_where_neither_sink_nor_keeper_would_miss_anything() {
        let start = |last, kept: Option<Kept>, stateful| {
            let start = Start::of(last, kept.as_ref(), stateful);
            (start.at.map(|at| at.pos.seq), start.covered.map(|it| it.seq), start.lost.is_some())
        };
        let (none, some) = (None::<Kept>, |seq, put| Some(kept(seq, put)));
        // Nobody remembers; only the keeper does.
        assert_eq!(start(Last::Untold, none.clone(), true), (None, None, false));
        assert_eq!(start(Last::Untold, some(7, Some(5)), true), (Some(7), None, false));
        // The sink has nothing: all was skipped, or it has lost everything.
        assert_eq!(start(Last::Never, none.clone(), false), (None, None, false));
        assert_eq!(start(Last::Never, some(7, None), false), (Some(7), None, false));
        assert_eq!(start(Last::Never, some(7, Some(5)), false), (None, None, true));
        // The sink is ahead of the keeper, who alone has the state.
        assert_eq!(start(Last::At(mark(9)), some(7, Some(5)), false), (Some(9), Some(9), false));
        assert_eq!(start(Last::At(mark(9)), some(7, Some(5)), true), (Some(7), Some(9), false));
        assert_eq!(start(Last::At(mark(9)), none.clone(), true), (Some(9), Some(9), false));
        // Skips are behind what was put last.
        assert_eq!(start(Last::At(mark(5)), some(7, Some(5)), false), (Some(7), Some(5), false));
        // The sink has less than was settled.
        assert_eq!(start(Last::At(mark(4)), some(7, Some(5)), false), (Some(4), Some(4), true));
        assert_eq!(start(Last::NotBehind(mark(4)), some(7, Some(5)), true).0, Some(4));
        // A part of it does not remember.
        assert_eq!(start(Last::NotBehind(mark(9)), some(7, Some(5)), true), (Some(7), None, false));
        assert_eq!(start(Last::NotBehind(mark(9)), none, false), (None, None, false));
    }
}
