//! What outlives a pipeline's crash, for the model: a source that forgets, a sink that keeps what
//! was durable and by luck some of the rest, dead letters, and what is kept. Every call of the
//! pipeline to any of these may be its last.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::edge::dead::Dead;
use crate::edge::{
    Fault, Flow, Gap, Give, Keep, Kept, Last, Level, Mark, Pos, Resume, Sink, Source,
};

/// Random numbers of a seed.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// A record: the numbers of the source's records that it is made of.
pub(super) type Ids = Vec<u64>;

#[expect(clippy::struct_excessive_bools, reason = "what is so in this world: facts")]
pub(super) struct World {
    pub random: Random,
    pub count: u64,
    /// The source has forgotten everything up to this number.
    forgotten: u64,
    given: u64,
    /// What the sink was given, in the order of that: durable.
    pub sink: Vec<(Pos, Ids, bool)>,
    /// Put, and not durable yet.
    volatile: Vec<(Pos, Ids, bool)>,
    settled: Option<Pos>,
    remembers: bool,
    /// And what came to nothing, if it is told.
    passed: Option<Mark>,
    remembers_skips: bool,
    pub window: usize,
    pub dead: Vec<(Pos, Ids)>,
    dead_volatile: Vec<(Pos, Pos, Ids)>,
    dead_settled: Option<Pos>,
    kept: Option<Kept>,
    /// Calls until the crash.
    calls_left: u64,
    pub crashed: bool,
    pub gaps: Vec<Gap>,
    /// Records that cannot be handled.
    pub poison: BTreeSet<u64>,
    /// Those that the sink cannot handle.
    pub bitter: BTreeSet<u64>,
    failures: bool,
    /// Where the records begin that the last crash let come again.
    pub lives: Vec<usize>,
}

pub(super) type Shared = Arc<Mutex<World>>;

/// The number of a position, and the other way round: units of several parts.
pub(super) const PARTS: u64 = 3;

pub(super) fn at(id: u64) -> Pos {
    let (seq, part) = (id / PARTS, id % PARTS);
    Pos::new(1, seq).at_part(u32::try_from(part).unwrap())
}

pub(super) fn id(pos: Pos) -> u64 {
    pos.seq * PARTS + u64::from(pos.part)
}

pub(super) fn hash(id: u64) -> u64 {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 7
}

impl World {
    pub(super) fn new(mut random: Random, count: u64, remembers: bool, failures: bool) -> Shared {
        let remembers_skips = random.one_in(2);
        Arc::new(Mutex::new(Self {
            random,
            count,
            forgotten: 0,
            given: 0,
            sink: Vec::new(),
            volatile: Vec::new(),
            settled: None,
            remembers,
            passed: None,
            remembers_skips,
            window: 8,
            dead: Vec::new(),
            dead_volatile: Vec::new(),
            dead_settled: None,
            kept: None,
            calls_left: u64::MAX,
            crashed: false,
            gaps: Vec::new(),
            poison: BTreeSet::new(),
            bitter: BTreeSet::new(),
            failures,
            lives: Vec::new(),
        }))
    }

    /// A life begins, which ends after so many calls.
    pub(super) fn begin(&mut self, calls: u64) {
        // Of what was put and not settled, a beginning is there: cut behind a whole input, as a
        // sink does that repairs its end.
        let keep = usize::try_from(self.random.below(self.volatile.len() as u64 + 1)).unwrap();
        let lost = self.volatile.split_off(keep);
        drop(lost);
        let whole = self.volatile.iter().rposition(|(_, _, last)| *last).map_or(0, |at| at + 1);
        self.volatile.truncate(whole);
        let durable = std::mem::take(&mut self.volatile);
        self.sink.extend(durable);
        self.dead_volatile.clear();
        self.dead_settled = None;
        self.settled = None;
        self.calls_left = calls;
        self.crashed = false;
        self.lives.push(self.sink.len());
    }

    /// Is this call still made?
    fn call(&mut self) -> Result<(), Fault> {
        if self.calls_left == 0 {
            self.crashed = true;
        }
        if self.crashed {
            return Err(Fault::fatal("the power is gone"));
        }
        self.calls_left -= 1;
        if self.failures && self.random.one_in(9) {
            return Err(Fault::retry("not now"));
        }
        Ok(())
    }
}

pub(super) struct From(pub Shared);

impl Source for From {
    type Item = Ids;

    fn seek(&mut self, to: Option<Mark>) -> Result<Resume, Fault> {
        let mut world = self.0.lock();
        world.call()?;
        let behind = to.map_or(0, |mark| id(mark.pos));
        if let Some(Mark { hash: Some(found), pos }) = to {
            assert_eq!(found, hash(id(pos)), "another record's hash came back");
        }
        world.given = behind.max(world.forgotten);
        if behind < world.forgotten {
            let gap = Gap { after: to.map(|mark| mark.pos), before: None, lost: None };
            world.gaps.push(gap);
            return Ok(Resume::Gap(gap));
        }
        Ok(Resume::Exact)
    }

    fn pull(
        &mut self,
        max: usize,
        _limit: Duration,
        out: &mut dyn Give<Ids>,
    ) -> Result<Flow, Fault> {
        let mut world = self.0.lock();
        world.call()?;
        let many = world.random.below(5).min(max as u64);
        let mut given = Vec::new();
        for _ in 0..many {
            if world.given < world.count {
                world.given += 1;
                given.push(world.given);
            }
        }
        let end = world.given >= world.count;
        // Whoever is given something calls others.
        drop(world);
        for record in given {
            if record % 2 == 0 {
                out.give_hashed(at(record), hash(record), vec![record]);
            } else {
                out.give(at(record), vec![record]);
            }
        }
        Ok(if end { Flow::End } else { Flow::More })
    }

    fn done(&mut self, at: Pos) -> Result<(), Fault> {
        let mut world = self.0.lock();
        world.call()?;
        assert!(id(at) >= world.forgotten, "done went back");
        world.forgotten = id(at);
        Ok(())
    }
}

pub(super) struct Into(pub Shared);

impl Sink for Into {
    type Item = Ids;

    fn put(&mut self, pos: Pos, item: Ids, last: bool) -> Result<(), Fault> {
        let mut world = self.0.lock();
        let called = world.call();
        if world.crashed {
            return called;
        }
        if item.iter().any(|id| world.bitter.contains(id)) {
            return Err(Fault::poison(pos, "bitter"));
        }
        world.volatile.push((pos, item, last));
        called
    }

    fn settle(&mut self, _limit: Duration) -> Result<Option<Pos>, Fault> {
        let mut world = self.0.lock();
        world.call()?;
        let length = world.volatile.len() as u64;
        let many = usize::try_from(world.random.below(length + 2).min(length)).unwrap();
        let whole = world.volatile[..many].iter().rposition(|(_, _, last)| *last);
        let durable: Vec<_> = world.volatile.drain(..whole.map_or(0, |at| at + 1)).collect();
        if let Some((pos, _, _)) = durable.last() {
            world.settled = Some(*pos);
        }
        world.sink.extend(durable);
        Ok(world.settled)
    }

    fn room(&self) -> usize {
        let world = self.0.lock();
        world.window.saturating_sub(world.volatile.len())
    }

    fn last(&mut self) -> Result<Last, Fault> {
        let mut world = self.0.lock();
        world.call()?;
        if !world.remembers {
            return Ok(Last::Untold);
        }
        let last = world.sink.iter().rev().find(|(_, _, last)| *last);
        let last = last.map(|(pos, _, _)| Mark::from(*pos));
        let known = last.into_iter().chain(world.passed).max_by_key(|mark| mark.pos);
        Ok(known.map_or(Last::Never, Last::At))
    }

    fn passed(&mut self, pos: Mark) -> Result<bool, Fault> {
        let mut world = self.0.lock();
        world.call()?;
        if world.remembers_skips {
            world.passed = Some(pos);
        }
        Ok(world.remembers_skips)
    }

    fn level(&self) -> Level {
        Level::Power
    }
}

pub(super) struct Letters(pub Shared);

impl Sink for Letters {
    type Item = Dead<Ids>;

    fn put(&mut self, pos: Pos, item: Dead<Ids>, last: bool) -> Result<(), Fault> {
        let mut world = self.0.lock();
        let called = world.call();
        if world.crashed {
            return called;
        }
        assert!(last, "a dead letter has one part");
        world.dead_volatile.push((pos, item.pos, item.item.unwrap_or_default()));
        called
    }

    fn settle(&mut self, _limit: Duration) -> Result<Option<Pos>, Fault> {
        let mut world = self.0.lock();
        world.call()?;
        let length = world.dead_volatile.len() as u64;
        let many = usize::try_from(world.random.below(length + 1)).unwrap();
        let durable: Vec<_> = world.dead_volatile.drain(..many).collect();
        for (pos, at, ids) in durable {
            world.dead_settled = Some(pos);
            world.dead.push((at, ids));
        }
        Ok(world.dead_settled)
    }

    fn level(&self) -> Level {
        Level::Power
    }
}

pub(super) struct Keeper(pub Shared);

impl Keep for Keeper {
    fn load(&mut self) -> Result<Option<Kept>, Fault> {
        let mut world = self.0.lock();
        world.call()?;
        Ok(world.kept.clone())
    }

    fn save(&mut self, kept: &Kept) -> Result<(), Fault> {
        let mut world = self.0.lock();
        world.call()?;
        let bytes = kept.to_bytes();
        world.kept = Kept::from_bytes(&bytes);
        assert_eq!(world.kept.as_ref(), Some(kept));
        Ok(())
    }
}
