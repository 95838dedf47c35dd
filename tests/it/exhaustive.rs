//! All short sequences of operations, and a crash at every call that changes anything: the work's,
//! and for some of them the recovery's too.

use annals::disk::sim::SimDisk;
use annals::log::LogOptions;

use crate::support::{End, Track, disk, life, scaled, tiny};

/// What a log is asked to do.
#[derive(Copy, Clone, Debug)]
enum Act {
    Small,
    /// Does not fit behind another one of its size: the segment is sealed.
    Large,
    Commit,
    Reopen,
    Store,
    Prepare,
}

const ACTS: [Act; 6] = [Act::Small, Act::Large, Act::Commit, Act::Reopen, Act::Store, Act::Prepare];

/// With a ring and without, in segments that take little, and in some that a life goes on in
/// where the one before was closed.
fn shapes() -> Vec<LogOptions> {
    let mut shapes = Vec::new();
    for ring in [true, false] {
        shapes.push(tiny(ring));
        let (first, max) = (16 << 10, 32 << 10);
        shapes.push(LogOptions {
            segment_bytes_first: first,
            segment_bytes_max: max,
            ..tiny(ring)
        });
    }
    shapes
}

/// All sequences of one to three acts.
fn sequences() -> Vec<Vec<Act>> {
    let mut all: Vec<Vec<Act>> = vec![Vec::new()];
    let mut longest = all.clone();
    for _ in 0..3 {
        longest = longest
            .iter()
            .flat_map(|before| ACTS.map(|act| [before.as_slice(), &[act]].concat()))
            .collect();
        all.extend(longest.iter().cloned());
    }
    all
}

/// Does one act after the other, until one fails, which it may after a crash only.
fn run(disk: &SimDisk, track: &mut Track, acts: &[Act]) {
    let mut lives = 1;
    if let Err(error) = track.open(disk, life(lives)) {
        assert!(disk.has_crashed(), "{error}");
        return;
    }
    for act in acts {
        let done = match act {
            Act::Small => track.append(disk, 0, 100).map(drop).map_err(|e| e.to_string()),
            Act::Large => track.append(disk, 1, 3_500).map(drop).map_err(|e| e.to_string()),
            Act::Commit => track.wait_last(disk).map_err(|e| e.to_string()),
            Act::Store => track.store(disk).map_err(|e| e.to_string()),
            Act::Prepare => {
                track.log.as_ref().unwrap().prepare_ahead();
                Ok(())
            }
            Act::Reopen => {
                let closed = track.close(disk).map_err(|error| error.to_string());
                lives += 1;
                closed.and_then(|()| {
                    track.open(disk, life(lives)).map(drop).map_err(|error| error.to_string())
                })
            }
        };
        if disk.has_crashed() {
            return;
        }
        done.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The ways in which a life can end here: disks and what they may have lost.
fn ends(disk: &SimDisk, seeds: u64) -> Vec<(String, SimDisk, End)> {
    let mut ends = vec![
        ("kill".to_owned(), disk.fork().kill(), End::Kill),
        ("power cut, all lost".to_owned(), disk.fork().power_cut_losing_all(), End::PowerCut),
    ];
    for seed in 0..seeds {
        ends.push((format!("power cut {seed}"), disk.fork().power_cut(seed), End::PowerCut));
    }
    ends
}

/// Every recovery of `acts`, crashed at every call of the work; answers how many. `deep` crashes
/// each of the recoveries at every one of its calls too.
fn explore(options: &LogOptions, acts: &[Act], deep: bool) -> u64 {
    let mut states = 0;
    for crash in 0.. {
        let disk = disk(7);
        let mut track = Track::new(options.clone(), 42);
        disk.crash_at(crash);
        run(&disk, &mut track, acts);
        for (how, next, end) in ends(&disk, if deep { 1 } else { 3 }) {
            let what = || format!("{acts:?}, crash at {crash}, {how}");
            states += 1 + recover(&track, &next, end, deep, &what);
        }
        // Past the last call: the life ended after all its work.
        if !disk.has_crashed() {
            break;
        }
    }
    states
}

fn recover(track: &Track, disk: &SimDisk, end: End, deep: bool, what: &dyn Fn() -> String) -> u64 {
    let mut states = 0;
    for crash in (0..).take_while(|_| deep) {
        let (disk, mut track) = (disk.fork(), track.clone());
        track.ended(end);
        disk.crash_at(crash);
        drop(track.open(&disk, life(50)));
        if !disk.has_crashed() {
            break;
        }
        for (how, next, end) in ends(&disk, 2) {
            let mut track = track.clone();
            track.ended(end);
            finish(&mut track, &next, &|| format!("{}, in recovery at {crash}, {how}", what()));
            states += 1;
        }
    }
    let mut track = track.clone();
    track.ended(end);
    finish(&mut track, &disk.fork(), what);
    states
}

/// Opens, compares, works on, and comes back after a power cut with all that was recovered.
fn finish(track: &mut Track, disk: &SimDisk, what: &dyn Fn() -> String) {
    let report = track.open(disk, life(60)).unwrap_or_else(|error| panic!("{error}: {}", what()));
    assert_eq!(report.damage, None, "{}", what());
    track.compare().unwrap_or_else(|broken| panic!("{broken}: {}", what()));
    track.append(disk, 2, 200).unwrap_or_else(|error| panic!("{error}: {}", what()));
    let disk = disk.power_cut_losing_all();
    track.ended(End::PowerCut);
    let opened = track.open(&disk, life(61));
    opened.unwrap_or_else(|error| panic!("{error}: a life later: {}", what()));
    track.compare().unwrap_or_else(|broken| panic!("{broken}: a life later: {}", what()));
}

#[test]
fn every_crash_in_every_short_sequence_is_recovered_from() {
    let mut states = 0;
    for options in shapes() {
        for acts in sequences() {
            states += explore(&options, &acts, false);
        }
    }
    println!("{states} recoveries were looked at");
}

#[test]
fn every_crash_in_every_recovery_of_some_sequences_is_recovered_from() {
    let step = usize::try_from(64 / scaled(1).clamp(1, 64)).unwrap();
    let mut states = 0;
    for (shift, options) in shapes().into_iter().enumerate() {
        for acts in sequences().iter().rev().skip(shift * step / 4).step_by(step) {
            states += explore(&options, acts, true);
        }
    }
    println!("{states} recoveries were looked at");
}
