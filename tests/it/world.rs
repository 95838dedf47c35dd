//! A store's two logs and its identity on one disk, opened in the order in which a store opens
//! them; and the explorer, which looks at crash states of it: each is a disk as a crash left it.
//!
//! What looks the same opens the same, so each image is opened once, and what was found there is
//! held against every oracle that comes with it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use annals::disk::Disk as _;
use annals::disk::sim::{Random, SimDisk};
use annals::error::{DiskError, OpenError};
use annals::log::recover::Evidence;
use annals::log::slots::{self, Slots};
use annals::log::{LogOptions, Opening, RecoveryReport, Start};
use annals::types::Life;

use crate::support::{End, Entry, Oracle, Track, read_all};

const MAGIC: [u8; 8] = *b"ANNALSID";
const IDENTITY: &str = "/store/identity";

/// Both logs over their lives.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub events: Track,
    pub snapshots: Track,
    /// No two lives have the same random bits.
    pub lives: u64,
    /// Runs that were made of segments.
    pub compacted: u64,
}

/// What both logs had promised.
#[derive(Clone, Debug)]
pub(crate) struct Promises {
    pub events: Oracle,
    pub snapshots: Oracle,
}

impl Promises {
    pub(crate) fn ended(&mut self, end: End) {
        self.events.ended(end);
        self.snapshots.ended(end);
    }

    /// What was promised before, of the frames that there are now: of a call that is under way
    /// nothing is promised, and all of it may be found.
    pub(crate) fn before(&self, now: &Self) -> Self {
        let of = |before: &Oracle, now: &Oracle| {
            let mut now = now.clone();
            (now.process, now.power) = (before.process, before.power);
            now.in_flight = now.entries.len() - before.entries.len();
            now
        };
        let events = of(&self.events, &now.events);
        Self { events, snapshots: of(&self.snapshots, &now.snapshots) }
    }

    fn check(&self, found: &Found) -> Result<(), String> {
        self.events.check(&found.events).map_err(|broken| format!("events: {broken}"))?;
        self.snapshots.check(&found.snapshots).map_err(|broken| format!("snapshots: {broken}"))
    }
}

impl World {
    pub(crate) fn new(events: LogOptions, snapshots: LogOptions) -> Self {
        let (events, snapshots) = (Track::new(events, 42), Track::new(snapshots, 43));
        Self { events, snapshots, lives: 0, compacted: 0 }
    }

    pub(crate) fn promises(&self) -> Promises {
        let (events, snapshots) = (self.events.oracle.clone(), self.snapshots.oracle.clone());
        Promises { events, snapshots }
    }

    /// Opens both logs as [`annals::Store`] does: both are made sound, then the life is durable
    /// in the identity, then both begin it.
    pub(crate) fn open(&mut self, disk: &SimDisk) -> Result<[RecoveryReport; 2], OpenError> {
        self.lives += 1;
        let handle = disk.handle();
        let known = slots::read(&*handle, IDENTITY.as_ref(), MAGIC)?;
        let boot = disk.boot();
        let [number, durable, bits, then, ..] = known.valid.first().copied().unwrap_or_default();
        // Where the machine has been up since, it was a kill, and that is evidence.
        let killed = (then == boot).then_some(Life { number, bits });
        let evidence = Evidence { durable, killed };
        let events = Opening::new(&handle, self.events.options.clone(), 42, evidence)?;
        let snapshots = Opening::new(&handle, self.snapshots.options.clone(), 43, 0)?;
        let life = Life { number: number + 1, bits: Random::new(self.lives << 20).bits() };
        let fields = [life.number, events.report().end, life.bits, boot, 0, 0, 0, 0];
        let mut slots = Slots::open(&*handle, IDENTITY.as_ref(), MAGIC, &known)?;
        slots.write(&fields)?;
        slots.sync()?;
        handle.sync_dir("/store".as_ref()).map_err(|error| {
            let (doing, path) = ("syncing", "/store".into());
            OpenError::Disk(DiskError { doing, path, source: Arc::new(error) })
        })?;
        slots.write(&fields)?;
        slots.sync()?;
        let (log, first) = events.start(life)?;
        self.events.log = Some(log);
        let (log, second) = snapshots.start(life)?;
        self.snapshots.log = Some(log);
        Ok([first, second])
    }

    /// The process is dead, and nobody cares for what is left of it.
    pub(crate) fn drop_logs(&mut self) {
        self.events.log = None;
        self.snapshots.log = None;
    }
}

/// What an open found.
#[derive(Debug)]
struct Found {
    events: Vec<Entry>,
    snapshots: Vec<Entry>,
}

/// What was looked at, and how often what there is to look at happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Crashes at a call.
    pub crashes: u64,
    /// Crashes of which every disk that they could leave was looked at.
    pub complete: u64,
    /// Disks after a crash, each held against its oracle.
    pub states: u64,
    /// Different ones of them, each recovered from.
    pub opened: u64,
    /// Recoveries that crashed themselves.
    pub in_recovery: u64,
    /// Lives after those, opened after another power cut.
    pub later: u64,
    pub fresh: u64,
    pub continued: u64,
    pub recovered: u64,
    /// Recoveries that had frames from the ring.
    pub rescued: u64,
    /// And those where a durable frame was missing from its segment.
    pub repaired: u64,
    /// Recoveries that found less than had been appended.
    pub took_back: u64,
    pub kills: u64,
    pub cuts: u64,
    /// Runs that were made, where that is among the acts.
    pub compacted: u64,
}

impl Counts {
    fn each(&self) -> [(&'static str, u64); 14] {
        [
            ("crashes", self.crashes),
            ("complete", self.complete),
            ("states", self.states),
            ("opened", self.opened),
            ("in_recovery", self.in_recovery),
            ("later", self.later),
            ("fresh", self.fresh),
            ("continued", self.continued),
            ("recovered", self.recovered),
            ("rescued", self.rescued),
            ("repaired", self.repaired),
            ("took_back", self.took_back),
            ("kills", self.kills),
            ("cuts", self.cuts),
        ]
    }

    pub(crate) fn add(&mut self, more: &Self) {
        let mine = [
            &mut self.crashes,
            &mut self.complete,
            &mut self.states,
            &mut self.opened,
            &mut self.in_recovery,
            &mut self.later,
            &mut self.fresh,
            &mut self.continued,
            &mut self.recovered,
            &mut self.rescued,
            &mut self.repaired,
            &mut self.took_back,
            &mut self.kills,
            &mut self.cuts,
        ];
        for (mine, (_, more)) in mine.into_iter().zip(more.each()) {
            *mine += more;
        }
    }

    /// Everything that is to be looked at has happened.
    pub(crate) fn check_coverage(&self) {
        for (what, count) in self.each() {
            assert!(count > 0, "nothing of this has happened: {what}");
        }
    }
}

/// Looks at crash states of one shape of world.
#[derive(Debug)]
pub(crate) struct Explorer {
    shape: World,
    known: HashMap<u64, Rc<Found>>,
    /// Disks to look at after a crash at one call, at least.
    pub cuts: usize,
    /// Every so many recoveries are crashed themselves; 0: none.
    pub deep: u64,
    pub counts: Counts,
}

impl Explorer {
    pub(crate) fn new(shape: &World, cuts: usize, deep: u64) -> Self {
        let shape = World::new(shape.events.options.clone(), shape.snapshots.options.clone());
        Self { shape, known: HashMap::new(), cuts, deep, counts: Counts::default() }
    }

    /// The process died, and `disk` is as it left it: looks at what a kill and power cuts make of
    /// it, all that there are if there are few.
    pub(crate) fn crashed(
        &mut self,
        disk: &SimDisk,
        promises: &Promises,
        depth: u32,
        what: &dyn Fn() -> String,
    ) {
        self.counts.crashes += 1;
        let most = if depth > 0 { self.cuts } else { self.cuts.div_ceil(4) };
        let mut killed = promises.clone();
        killed.ended(End::Kill);
        self.counts.kills += 1;
        self.look(&disk.fork().kill(), &killed, depth, &|| format!("{}, kill", what()));
        let mut cut = promises.clone();
        cut.ended(End::PowerCut);
        let mut number = 0;
        for next in disk.power_cuts(most + 1) {
            number += 1;
            if number > most {
                break;
            }
            let what = || format!("{}, power cut {number}", what());
            self.look(&next, &cut, depth, &what);
        }
        self.counts.complete += u64::from(number <= most);
        if number > most {
            // By the image's own number: another one for each crash, and the same in a replay.
            let mut random = Random::new(disk.fingerprint());
            let seeds = std::iter::repeat_with(|| random.bits()).take(most);
            for (seed, next) in disk.power_cuts_by(seeds) {
                number += 1;
                let what = || format!("{}, power cut of seed {seed}", what());
                self.look(&next, &cut, depth, &what);
            }
        }
        self.counts.cuts += number as u64;
    }

    /// One crash state.
    fn look(&mut self, disk: &SimDisk, promises: &Promises, depth: u32, what: &dyn Fn() -> String) {
        self.counts.states += 1;
        let image = disk.fingerprint();
        let known = self.known.get(&image).map(Rc::clone);
        let found = known.unwrap_or_else(|| {
            let deep = self.deep > 0 && depth > 0 && image.is_multiple_of(self.deep);
            let crashing = deep.then(|| disk.fork());
            let found = Rc::new(self.recover(disk, image, promises, what));
            self.known.insert(image, Rc::clone(&found));
            if let Some(crashing) = crashing {
                self.crash_in_recovery(&crashing, promises, depth, what);
            }
            found
        });
        promises.check(&found).unwrap_or_else(|broken| panic!("{broken}: {}", what()));
        let appended = promises.events.entries.len() + promises.snapshots.entries.len();
        let took_back = found.events.len() + found.snapshots.len() < appended;
        self.counts.took_back += u64::from(took_back);
    }

    /// Recovers, and looks whether what is there fits together.
    fn recover(
        &mut self,
        disk: &SimDisk,
        image: u64,
        promises: &Promises,
        what: &dyn Fn() -> String,
    ) -> Found {
        self.counts.opened += 1;
        let mut world = self.shape.clone();
        world.lives = 1_000;
        let reports = world.open(disk).unwrap_or_else(|error| panic!("{error}: {}", what()));
        for report in &reports {
            assert_eq!(report.damage, None, "no crash makes damage: {}", what());
            match report.start {
                Start::Fresh => self.counts.fresh += 1,
                Start::Continued => self.counts.continued += 1,
                Start::Recovered => self.counts.recovered += 1,
                Start::SetAside => panic!("set aside: {}", what()),
            }
            self.counts.rescued += u64::from(report.rescued > 0);
            self.counts.repaired += u64::from(report.repaired);
        }
        let found = read(&mut world, promises, what);
        if image % 4 == 1 {
            self.later(world, disk, &found, (promises, what));
        } else {
            disk.crash();
        }
        found
    }

    /// Works on, and comes back after a power cut that loses all it can: what was recovered is
    /// there, and no position is given out twice.
    fn later(
        &mut self,
        mut world: World,
        disk: &SimDisk,
        found: &Found,
        (promises, what): (&Promises, &dyn Fn() -> String),
    ) {
        self.counts.later += 1;
        let what = || format!("a life later: {}", what());
        let appended = world.events.append(disk, 2, 200);
        let appended = appended.unwrap_or_else(|error| panic!("{error}: {}", what()));
        let disk = disk.power_cut_losing_all();
        world.drop_logs();
        let mut world = World { lives: world.lives, ..self.shape.clone() };
        world.open(&disk).unwrap_or_else(|error| panic!("{error}: {}", what()));
        let mut again = read(&mut world, promises, &what);
        again.events.retain(|entry| entry.number != appended.number);
        assert_eq!(again.events, found.events, "{}", what());
        assert_eq!(again.snapshots, found.snapshots, "{}", what());
        let next = world.events.append(&disk, 2, 200);
        let next = next.unwrap_or_else(|error| panic!("{error}: {}", what()));
        assert!(next.lsn >= appended.end, "{next:?} was given out before: {}", what());
        disk.crash();
    }

    /// The same recovery, dead at each of its calls.
    fn crash_in_recovery(
        &mut self,
        disk: &SimDisk,
        promises: &Promises,
        depth: u32,
        what: &dyn Fn() -> String,
    ) {
        let mut world = self.shape.clone();
        world.lives = 2_000 + u64::from(depth);
        disk.watch();
        world.open(disk).unwrap_or_else(|error| panic!("{error}: {}", what()));
        let crashes = disk.take_crashes();
        disk.crash();
        for (number, crash) in crashes.iter().enumerate() {
            self.counts.in_recovery += 1;
            let what = || format!("{}, in recovery at {number}", what());
            self.crashed(crash, promises, depth - 1, &what);
        }
    }
}

/// Everything that is there, in order and stream by stream; and nothing that is not.
fn read(world: &mut World, promises: &Promises, what: &dyn Fn() -> String) -> Found {
    let read = |track: &mut Track, appended: &Oracle| {
        let found = read_all(track.log.as_ref().unwrap());
        let found = found.unwrap_or_else(|error| panic!("{error}: {}", what()));
        track.oracle = appended.after(&found);
        track.check_found();
        found
    };
    let events = read(&mut world.events, &promises.events);
    Found { events, snapshots: read(&mut world.snapshots, &promises.snapshots) }
}
