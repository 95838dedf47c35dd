//! All short sequences of operations on a store's two logs, and a crash at every call of theirs
//! that changes anything: the work's, and for some the recovery's too, and the recovery's of that.
//!
//! The bound: sequences of up to four operations; of each crash every disk that it can leave if
//! there are few of them, else the first of them and as many by chance ([`Explorer::cuts`]).

use annals::disk::sim::SimDisk;
use annals::log::LogOptions;
use annals::time::Clock;

use crate::support::{disk, scaled, tiny};
use crate::world::{Counts, Explorer, World};

/// What a store is asked to do.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Append,
    /// An append that does not fit behind another one of its size: the segment is sealed.
    RollOver,
    Commit,
    /// A snapshot, which survives the process when it is stored.
    Snapshot,
    /// Closed, and opened again.
    Close,
    /// What is in the ring goes to its segment.
    Store,
    /// What the keeper thread does: segments ahead, indexes, checkpoints.
    Keep,
    /// What can be, becomes a run, all of it kept.
    Compact,
}

const ALL: [Act; 8] = [
    Act::Append,
    Act::RollOver,
    Act::Commit,
    Act::Snapshot,
    Act::Close,
    Act::Store,
    Act::Keep,
    Act::Compact,
];

/// Small segments; and some that a life goes on in where the one before was closed.
pub(crate) fn shapes() -> [World; 2] {
    let larger = |options: LogOptions| LogOptions {
        segment_bytes_first: 16 << 10,
        segment_bytes_max: 32 << 10,
        ..options
    };
    let small = World::new(tiny(true), tiny(false));
    [small, World::new(larger(tiny(true)), larger(tiny(false)))]
}

/// All sequences of so many acts.
pub(crate) fn sequences(acts: u32) -> Vec<Vec<Act>> {
    let mut all: Vec<Vec<Act>> = vec![Vec::new()];
    for _ in 0..acts {
        all = all
            .iter()
            .flat_map(|before| ALL.map(|act| [before.as_slice(), &[act]].concat()))
            .collect();
    }
    all
}

/// An act in steps, so that between them it is known what has been promised.
fn step(world: &mut World, disk: &SimDisk, act: Act, step: u32) -> bool {
    match (act, step) {
        (Act::Append, 0) => drop(world.events.append(disk, 0, 100).unwrap()),
        (Act::RollOver, 0) => drop(world.events.append(disk, 1, 3_500).unwrap()),
        (Act::Commit, 0) => world.events.wait_last(disk).unwrap(),
        (Act::Snapshot, 0) => drop(world.snapshots.append(disk, 0, 1_500).unwrap()),
        (Act::Snapshot, 1) => world.snapshots.store(disk).unwrap(),
        (Act::Close, 0) => world.events.close(disk).unwrap(),
        (Act::Close, 1) => world.snapshots.close(disk).unwrap(),
        (Act::Close, 2) => drop(world.open(disk).unwrap()),
        (Act::Store, 0) => world.events.store(disk).unwrap(),
        (Act::Keep, 0) => {
            let log = world.events.log.as_ref().unwrap();
            log.prepare_ahead();
            log.keep();
        }
        (Act::Compact, 0) => {
            let made = world.events.compact(&[], true).unwrap();
            world.compacted += u64::from(made.is_some());
        }
        _ => return false,
    }
    true
}

/// Runs a sequence and looks at the crashes in its last act, and at its end: those in the acts
/// before are the shorter sequence's.
pub(crate) fn explore(explorer: &mut Explorer, shape: &World, acts: &[Act]) {
    let disk = disk(7);
    let mut world = shape.clone();
    let (last, before) = acts.split_last().map_or((None, acts), |(last, rest)| (Some(last), rest));
    if last.is_none() {
        disk.watch();
    }
    let mut promised = world.promises();
    world.open(&disk).unwrap();
    for act in before {
        for number in 0.. {
            if !step(&mut world, &disk, *act, number) {
                break;
            }
        }
    }
    if last.is_some() {
        promised = world.promises();
        disk.watch();
    }
    for number in 0.. {
        let done = match last {
            Some(act) => step(&mut world, &disk, *act, number),
            None => number == 0,
        };
        let now = world.promises();
        let between = promised.before(&now);
        for (crash, left) in disk.take_crashes().iter().enumerate() {
            let what = || format!("{acts:?}, step {number}, crash at {crash}");
            explorer.crashed(left, &between, 2, &what);
        }
        promised = now;
        if !done {
            break;
        }
    }
    explorer.crashed(&disk.fork(), &promised, 2, &|| format!("{acts:?}, at its end"));
    explorer.counts.compacted += world.compacted;
    disk.crash();
}

/// All sequences of at most so many acts; of every `deep`-th recovery, each crash in it too.
fn explore_all(shape: &World, longest: u32, deep: u64) -> Counts {
    let began = Clock::System.monotonic();
    let cuts = usize::try_from(scaled(6).min(4_096)).unwrap();
    let mut explorer = Explorer::new(shape, cuts, deep);
    let mut done = 0;
    for acts in (0..=longest).flat_map(sequences) {
        explore(&mut explorer, shape, &acts);
        done += 1;
    }
    let counts = explorer.counts;
    let took = Clock::System.monotonic().saturating_sub(began).as_secs_f64();
    let rate = |count: u64| {
        #[expect(clippy::cast_precision_loss, reason = "for eyes")]
        let rate = count as f64 / took;
        format!("{count} ({rate:.0}/s)")
    };
    println!(
        "{done} sequences: crash states {}, different ones {}, in {took:.1} s\n{counts:?}",
        rate(counts.states),
        rate(counts.opened + counts.later),
    );
    counts
}

#[test]
fn every_crash_in_every_short_sequence_is_recovered_from() {
    let [small, _] = shapes();
    let counts = explore_all(&small, 4, 600);
    counts.check_coverage();
    assert!(counts.compacted > 0);
}

#[test]
fn every_crash_in_every_short_sequence_is_recovered_from_where_lives_share_a_segment() {
    let [_, larger] = shapes();
    explore_all(&larger, 4, 600).check_coverage();
}

#[test]
fn every_crash_in_every_recovery_of_some_sequences_is_recovered_from() {
    for shape in shapes() {
        let counts = explore_all(&shape, 2, 16);
        assert!(counts.in_recovery > 1_000);
    }
}

/// Where there are several old segments to begin with, so that there is something to compact.
#[test]
fn every_crash_while_old_segments_become_runs_is_recovered_from() {
    let mut before = vec![Act::RollOver; 12];
    before.extend([Act::Commit, Act::Close]);
    for shape in shapes() {
        let mut explorer = Explorer::new(&shape, 8, 40);
        for last in (1..=2).flat_map(sequences) {
            explore(&mut explorer, &shape, &[before.as_slice(), &last].concat());
        }
        println!("{:?}", explorer.counts);
        assert!(explorer.counts.compacted > 0);
    }
}
