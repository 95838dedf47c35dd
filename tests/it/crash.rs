//! Random work over several lives, each ended by a kill, a power cut, a close, or a crash at some
//! call of the work, of the close or of the recovery. The oracle says what must be there.

use annals::disk::sim::{Random, SimDisk};

use crate::support::{End, Replay, STREAMS, Track, disk, life, seeds, tiny};
use crate::world::{Counts, Explorer, Promises, World};

/// A world that works by chance, and an explorer that looks at crashes by the way.
struct Run {
    disk: SimDisk,
    random: Random,
    world: World,
    explorer: Explorer,
    promised: Promises,
    /// Crashes that were recovered from, and worked on after.
    states: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x1234_5678);
        let mut events = tiny(true);
        let mut snapshots = tiny(false);
        for options in [&mut events, &mut snapshots] {
            options.ring_bytes = [16 << 10, 32 << 10][random.below(2)];
            options.segment_bytes_first = [8 << 10, 16 << 10][random.below(2)];
            options.segment_bytes_max = [16 << 10, 32 << 10][random.below(2)];
            options.frame_bytes_max = [1 << 10, 4 << 10][random.below(2)];
        }
        let world = World::new(events, snapshots);
        Self {
            disk: disk(seed),
            random,
            explorer: Explorer::new(&world, 3, 600),
            promised: world.promises(),
            world,
            states: 0,
        }
    }

    fn bytes(&mut self, max: usize) -> usize {
        match self.random.below(8) {
            0..4 => self.random.below(64),
            4..7 => self.random.below(max / 4),
            // The largest that fits: header, and alignment.
            _ => max - 48 - self.random.below(max / 8),
        }
    }

    /// Opens both logs, perhaps crashing on the way and trying again.
    fn open(&mut self) {
        loop {
            if self.random.once_in(2) {
                self.disk.crash_at(self.random.below(40) as u64);
            }
            let opened = self.world.open(&self.disk);
            if self.disk.has_crashed() {
                self.end();
                continue;
            }
            self.disk.clear_faults();
            let [events, snapshots] = opened.unwrap_or_else(|error| panic!("refused: {error}"));
            self.world.events.check_recovered(&events);
            self.world.snapshots.check_recovered(&snapshots);
            self.promised = self.world.promises();
            self.states += 1;
            return;
        }
    }

    /// Ends the life in one way or the other.
    fn end(&mut self) {
        let (next, end) = match self.random.below(5) {
            0 | 1 => (self.disk.kill(), End::Kill),
            2 => (self.disk.power_cut_losing_all(), End::PowerCut),
            _ => (self.disk.power_cut(self.random.bits()), End::PowerCut),
        };
        self.world.events.ended(end);
        self.world.snapshots.ended(end);
        self.disk = next;
    }

    /// One call. After a crash calls fail, and nothing of it counts.
    fn step(&mut self) {
        let disk = self.disk.clone();
        let stream = self.random.below(usize::try_from(STREAMS).unwrap()) as u64;
        let done = match self.random.below(16) {
            0..8 => {
                let bytes = self.bytes(self.world.events.options.frame_bytes_max);
                self.world.events.append(&disk, stream, bytes).map(drop).map_err(|e| e.to_string())
            }
            8..10 => {
                let last = self.world.events.oracle.entries.len();
                let number = last.saturating_sub(1 + self.random.below(4));
                self.world.events.wait(&disk, number).map_err(|e| e.to_string())
            }
            10 => self.world.events.sync(&disk).map_err(|e| e.to_string()),
            11 => self.world.events.store(&disk).map_err(|e| e.to_string()),
            12 | 13 => {
                let bytes = self.bytes(self.world.snapshots.options.frame_bytes_max);
                let appended = self.world.snapshots.append(&disk, stream, bytes);
                appended.map(drop).map_err(|error| error.to_string()).and_then(|()| {
                    self.world.snapshots.store(&disk).map_err(|error| error.to_string())
                })
            }
            14 => {
                let log = self.world.events.log.as_ref().unwrap();
                log.prepare_ahead();
                log.keep();
                Ok(())
            }
            _ => {
                let live = if self.random.once_in(8) && !disk.has_crashed() {
                    self.world.events.check_live().map_err(|error| error.to_string())
                } else {
                    Ok(())
                };
                let synced = self.world.snapshots.sync(&disk).map_err(|error| error.to_string());
                live.and(synced)
            }
        };
        if let Err(error) = done {
            assert!(disk.has_crashed(), "{error}");
        }
    }

    fn live(&mut self, steps: usize) {
        if self.random.once_in(3) {
            self.disk.crash_at(self.random.below(60) as u64);
        }
        self.disk.watch();
        for _ in 0..self.random.below(steps) {
            self.step();
            self.look();
            if self.disk.has_crashed() && self.random.once_in(2) {
                break;
            }
        }
        if self.random.once_in(3) {
            if self.random.once_in(3) {
                self.disk.crash_at(self.random.below(8) as u64);
            }
            let disk = self.disk.clone();
            let world = &mut self.world;
            let closed = (world.events.close(&disk), world.snapshots.close(&disk));
            assert!(disk.has_crashed() || closed.0.is_ok() && closed.1.is_ok(), "{closed:?}");
            self.look();
        }
    }

    /// Looks at one of the crashes that there could have been since the last look.
    fn look(&mut self) {
        let now = self.world.promises();
        let crashes = self.disk.take_crashes();
        if let Some(crash) = crashes.get(self.random.below(crashes.len())) {
            let lives = self.world.lives;
            let what = || format!("in life {lives}");
            self.explorer.crashed(crash, &self.promised.before(&now), 2, &what);
        }
        self.promised = now;
    }
}

#[test]
fn whatever_ends_a_life_what_was_promised_is_there_and_nothing_else() {
    let mut states = 0;
    let mut counts = Counts::default();
    for seed in seeds(300) {
        let _replay = Replay(seed);
        let mut run = Run::new(seed);
        run.open();
        for _ in 0..5 {
            run.live(60);
            run.end();
            run.open();
        }
        states += run.states;
        counts.add(&run.explorer.counts);
    }
    println!("{states} recoveries were worked on from; looked at by the way: {counts:?}");
    if std::env::var_os("ANNALS_SEED").is_none() {
        counts.check_coverage();
    }
}

/// Segments that were prepared and not used are removed, oldest first, at close and in a
/// recovery. After a crash in between, the younger one followed a file that was not there, and
/// the log was refused as damaged.
#[test]
fn a_crash_between_two_removals_of_unused_segments_is_no_damage() {
    for closes in [true, false] {
        for crash in 0..20 {
            for seed in 0..8 {
                let mut disk = disk(seed);
                let mut track = Track::new(tiny(true), 42);
                track.reopen(&disk, life(1));
                track.append(&disk, 0, 100).unwrap();
                track.log.as_ref().unwrap().prepare_ahead();
                if closes {
                    disk.crash_at(crash);
                    track.close(&disk).unwrap_or_default();
                } else {
                    disk = disk.kill();
                    track.ended(End::Kill);
                    disk.crash_at(crash);
                    drop(track.open(&disk, life(2)));
                }
                let (next, end) = match seed {
                    0 => (disk.kill(), End::Kill),
                    _ => (disk.power_cut(seed), End::PowerCut),
                };
                track.ended(end);
                track.reopen(&next, life(3));
            }
        }
    }
}

/// Long enough that the recovery begins in the middle of a life.
#[test]
fn a_long_life_is_recovered_from_where_its_mark_says() {
    for seed in seeds(60) {
        let _replay = Replay(seed);
        let mut random = Random::new(seed);
        let mut disk = disk(seed);
        let mut options = tiny(true);
        options.segment_bytes_max = 64 << 10;
        let mut track = Track::new(options, 42);
        track.reopen(&disk, life(1));
        for lives in 2..4 {
            disk.crash_at(500 + random.below(4_000) as u64);
            for number in 0..700 {
                let bytes = 2_000 + random.below(2_000);
                let appended = track.append(&disk, number % STREAMS, bytes).is_ok();
                let waited = !random.once_in(3) || track.wait_last(&disk).is_ok();
                assert!(appended && waited || disk.has_crashed());
                if disk.has_crashed() {
                    break;
                }
            }
            let (next, end) = match random.below(3) {
                0 => (disk.kill(), End::Kill),
                1 => (disk.power_cut_losing_all(), End::PowerCut),
                _ => (disk.power_cut(random.bits()), End::PowerCut),
            };
            track.ended(end);
            disk = next;
            let whole: u64 = disk.list_all().iter().map(|(_, bytes)| bytes).sum();
            let report = track.reopen(&disk, life(lives));
            assert!(whole < 2 << 20 || report.bytes < 5 << 18, "{report:?} of {whole} bytes");
        }
    }
}
