//! What checkpoints hold for somebody above the log: whatever ends a life and whenever, a testimony
//! that is believed was true at its position, and the position is part of the log.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use annals::disk::Disk as _;
use annals::disk::sim::{Random, SimDisk};
use annals::log::frame::{Batch, RecordKind};
use annals::log::rule::{Rule, without};
use annals::log::{Limit, Log, LogOptions, Opening, Testimony, Witness};
use annals::types::StreamId;
use annals::{BackupOptions, Durability, Seq, Store};
use parking_lot::Mutex;

use crate::noted::{Told, check_whole, options, tell};
use crate::support::{disk, life, seeds, snapshot, stream, tiny};
use crate::world::World;

/// Says where the frames are that it was told of.
#[derive(Debug, Default)]
struct Ledger(Mutex<Testimony>);

impl Ledger {
    fn note(&self, lsn: u64, end: u64) {
        let mut told = self.0.lock();
        told.position = end;
        told.bytes.extend(lsn.to_le_bytes());
    }
}

impl Witness for Ledger {
    fn testify(&self) -> Option<Testimony> {
        Some(self.0.lock().clone())
    }
}

fn frames_in(testimony: &Testimony) -> Vec<u64> {
    testimony.bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

/// Where the frames of `log` are.
fn frames_of(log: &Log) -> Vec<u64> {
    let mut found = Vec::new();
    let mut frames = log.frames(0, Limit::Written).unwrap();
    while let Some(frame) = frames.next().unwrap() {
        if frame.header().stream != StreamId::SYSTEM {
            found.push(frame.lsn().get());
        }
    }
    found
}

/// Is what `log` believes true?
fn check(log: &Log, what: &str) -> Option<Testimony> {
    let testimony = log.testimony()?;
    let mut below = frames_of(log);
    below.retain(|lsn| *lsn < testimony.position);
    assert_eq!(frames_in(&testimony), below, "{what}: as of {}", testimony.position);
    assert!(testimony.position <= log.written(), "{what}: beyond the log");
    Some(testimony)
}

fn checkpoints(disk: &SimDisk) -> BTreeSet<PathBuf> {
    let named = |path: &PathBuf| path.to_string_lossy().contains("ckpt-");
    disk.list_all().into_iter().map(|(path, _)| path).filter(named).collect()
}

#[derive(Copy, Clone, Debug)]
enum Act {
    Append,
    RollOver,
    Commit,
    Keep,
    Close,
    Open,
}

fn act(act: Act, world: &mut World, disk: &SimDisk, ledger: &Arc<Ledger>) {
    let bytes = match act {
        Act::Append => 100,
        Act::RollOver => 3_500,
        Act::Commit => return world.events.wait_last(disk).unwrap(),
        Act::Keep => return world.events.log.as_ref().unwrap().prepare_ahead(),
        Act::Close => {
            world.events.close(disk).unwrap();
            return world.snapshots.close(disk).unwrap();
        }
        Act::Open => {
            drop(world.open(disk).unwrap());
            let heeding = Arc::<Ledger>::clone(ledger);
            return world.events.log.as_ref().unwrap().heed(heeding);
        }
    };
    let entry = world.events.append(disk, 0, bytes).unwrap();
    ledger.note(entry.lsn, entry.end);
}

/// What a program of acts comes to.
fn program(seed: u64) -> Vec<Act> {
    let mut random = Random::new(seed);
    let mut acts = vec![Act::Open];
    for _ in 0..14 {
        match random.below(8) {
            0..2 => acts.push(Act::Append),
            2..5 => acts.push(Act::RollOver),
            5 => acts.push(Act::Commit),
            6 => acts.push(Act::Keep),
            _ => acts.extend([Act::Close, Act::Open]),
        }
    }
    acts.extend([Act::RollOver, Act::RollOver, Act::Append, Act::Keep, Act::Close]);
    acts
}

/// What was found over all crashes.
#[derive(Copy, Clone, Debug, Default)]
struct Seen {
    states: u64,
    believed: u64,
    /// Checkpoints that an open removed, since they told of what is not there.
    strangers: u64,
}

fn look(shape: &World, disk: &SimDisk, seen: &mut Seen, what: &str) {
    let mut world = World { lives: 1_000, ..shape.clone() };
    let before = checkpoints(disk);
    world.open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    seen.states += 1;
    seen.strangers += before.difference(&checkpoints(disk)).count() as u64;
    seen.believed += u64::from(check(world.events.log.as_ref().unwrap(), what).is_some());
    disk.crash();
}

/// Runs the programs of all `seeds` and crashes at each call of each.
fn crash_everywhere(seeds: &[u64]) -> Seen {
    let shape = World::new(tiny(true), tiny(false));
    let mut seen = Seen::default();
    for seed in seeds {
        let disk = disk(*seed);
        disk.watch();
        let (mut world, ledger) = (shape.clone(), Arc::new(Ledger::default()));
        for (number, next) in program(*seed).into_iter().enumerate() {
            act(next, &mut world, &disk, &ledger);
            for (crash, left) in disk.take_crashes().iter().enumerate() {
                let what = format!("seed {seed}, act {number}, {next:?}, crash at {crash}");
                look(&shape, &left.fork().kill(), &mut seen, &format!("{what}, kill"));
                let by = (0..4).map(|cut| seed << 8 | cut);
                for (cut, left) in left.power_cuts_by(by) {
                    look(&shape, &left, &mut seen, &format!("{what}, power cut {cut}"));
                }
                let all = left.fork().power_cut_losing_all();
                look(&shape, &all, &mut seen, &format!("{what}, all lost"));
            }
        }
        disk.crash();
    }
    seen
}

#[test]
fn whatever_testimony_is_believed_after_a_crash_was_true_at_its_position() {
    let seen = crash_everywhere(&seeds(12));
    println!("{seen:?}");
    assert!(seen.believed > 0 && seen.believed < seen.states);
    assert_eq!(seen.strangers, 0, "no crash leaves a checkpoint that tells of what is lost");
}

/// The rule is needed: without it power cuts leave such checkpoints.
#[test]
fn a_checkpoint_that_is_named_before_what_it_tells_of_is_durable_is_found_out() {
    let seen = without(Rule::CheckpointDurable, || crash_everywhere(&seeds(4)));
    assert!(seen.strangers > 0, "{seen:?}");
}

/// The simplest log that there is, with a ledger of what is in it.
fn open(disk: &SimDisk, number: u64) -> Log {
    Opening::new(&disk.handle(), tiny(true), 42, 0).unwrap().start(life(number)).unwrap().0
}

fn append(log: &Log, ledger: &Ledger, seq: u64, bytes: usize) {
    let mut batch = Batch::new();
    batch.push(RecordKind::Event, 1, &vec![7; bytes]).unwrap();
    let appended = log.append(&mut batch, stream(0), Seq::new(seq).unwrap()).unwrap();
    ledger.note(appended.lsn.get(), appended.end.get());
}

#[test]
fn a_testimony_outlives_lives_that_nobody_testifies_in() {
    let disk = disk(1);
    let ledger = Arc::new(Ledger::default());
    let log = open(&disk, 1);
    log.heed(Arc::<Ledger>::clone(&ledger));
    append(&log, &ledger, 1, 100);
    assert_eq!(log.testimony(), None, "no checkpoint yet");
    log.close().unwrap();
    assert_eq!(Arc::weak_count(&ledger), 0, "let go");
    drop(log);
    let told = ledger.testify().unwrap();
    for number in 2..6 {
        let log = open(&disk, number);
        assert_eq!(log.testimony(), Some(told.clone()), "life {number}");
        if number == 3 {
            // Nobody holds it any more when it would be asked; and one that lies is not kept.
            log.heed(Arc::new(Ledger::default()));
        }
        let liar = Ledger(Mutex::new(Testimony { position: u64::MAX - 1, bytes: Vec::new() }));
        let liar = Arc::new(liar);
        if number == 4 {
            log.heed(Arc::<Ledger>::clone(&liar));
        }
        append(&log, &Ledger::default(), number, 100);
        log.close().unwrap();
    }
}

/// The newest is used that is whole, and without any there is none.
#[test]
fn a_damaged_testimony_gives_way_to_the_one_before() {
    let disk = disk(1);
    let ledger = Arc::new(Ledger::default());
    let mut told = Vec::new();
    for number in 1..=3 {
        let log = open(&disk, number);
        log.heed(Arc::<Ledger>::clone(&ledger));
        append(&log, &ledger, number, 100);
        log.close().unwrap();
        told.push(ledger.testify().unwrap());
    }
    let files = checkpoints(&disk);
    assert_eq!(files.len(), 2, "the last two are kept");
    for (file, left) in files.iter().rev().zip([Some(told[1].clone()), None]) {
        disk.damage(file, |bytes| *bytes.last_mut().unwrap() ^= 1).unwrap();
        let log = open(&disk.fork(), 4);
        assert_eq!(log.testimony(), left);
        assert_eq!(log.totals().unwrap().events, 3, "the rest of the checkpoint is used");
    }
    for file in &files {
        disk.remove(file).unwrap();
    }
    let log = open(&disk, 4);
    assert_eq!(log.testimony(), None);
    assert_eq!(frames_of(&log).len(), 3, "only time is lost");
}

/// A checkpoint of a log that went further than this one, put beside it by hand: it tells of a
/// future that is not this log's, now and once the log has grown past it.
#[test]
fn a_checkpoint_of_another_past_is_never_believed() {
    let first = disk(1);
    let ledger = Arc::new(Ledger::default());
    let log = open(&first, 1);
    log.heed(Arc::<Ledger>::clone(&ledger));
    append(&log, &ledger, 1, 100);
    log.sync().unwrap();
    let mut other = first.fork().kill();
    for seq in 2..8 {
        append(&log, &ledger, seq, 3_500);
    }
    log.close().unwrap();
    for (file, content) in snapshot(&first) {
        if checkpoints(&first).contains(&file) {
            other.put(&file, content).unwrap();
        }
    }
    let ledger = Ledger::default();
    for number in 2..5 {
        let log = open(&other, number);
        assert_eq!(log.testimony(), None, "life {number}");
        for seq in 0..3 {
            append(&log, &ledger, (number - 2) * 3 + seq + 2, 3_500);
        }
        log.sync().unwrap();
        assert_eq!(log.testimony(), None, "life {number}");
        let next = other.kill();
        drop(log);
        other = next;
    }
}

/// Whoever has the lock that the witness wants may be waiting for a segment, and for nobody else
/// than the thread that asks the witness.
#[test]
fn asking_a_witness_stops_nobody_who_appends_under_its_lock() {
    let disk = disk(1);
    let options = LogOptions { threads: true, ..tiny(true) };
    let opening = Opening::new(&disk.handle(), options, 42, 0).unwrap();
    let log = Arc::new(opening.start(life(1)).unwrap().0);
    let ledger = Arc::new(Ledger::default());
    log.heed(Arc::<Ledger>::clone(&ledger));
    let (done, waited) = mpsc::channel();
    let writer = std::thread::spawn(move || {
        let mut seq = 0;
        for _ in 0..20 {
            let mut told = ledger.0.lock();
            for _ in 0..40 {
                seq += 1;
                let mut batch = Batch::new();
                batch.push(RecordKind::Event, 1, &[7; 3_500]).unwrap();
                let first = Seq::new(seq).unwrap();
                let appended = log.append(&mut batch, stream(0), first).unwrap();
                told.position = appended.end.get();
                told.bytes.extend(appended.lsn.get().to_le_bytes());
            }
        }
        log.close().unwrap();
        assert!(check(&log, "closed").is_some());
        done.send(()).unwrap();
    });
    waited.recv_timeout(Duration::from_mins(1)).expect("nobody waits for ever");
    writer.join().unwrap();
}

/// The copy has what lay below its mark; what was testified later is not in it.
#[test]
fn a_backup_is_not_told_of_what_it_does_not_have() {
    let disk = disk(3);
    let mut notes = Told::new();
    let store = options(&disk).open("/store").unwrap();
    let ledger = Arc::new(Ledger::default());
    store.log().heed(Arc::<Ledger>::clone(&ledger));
    let note_all = || {
        let bytes = frames_of(store.log()).into_iter().flat_map(u64::to_le_bytes).collect();
        *ledger.0.lock() = Testimony { position: store.log().written(), bytes };
    };
    let mut number = 0;
    let mut tell_until_sealed = |notes: &mut Told, store: &Store| {
        let seals = store.log().stats().seals;
        while store.log().stats().seals == seals {
            number += 1;
            tell(store, notes, number, Durability::Power);
        }
    };
    tell_until_sealed(&mut notes, &store);
    note_all();
    store.log().prepare_ahead();
    let older = ledger.testify().unwrap();
    tell_until_sealed(&mut notes, &store);
    // The checkpoint that is due covers what the copy has; what it tells of is written after.
    let copied = notes.clone();
    let view = options(&disk).read_only("/store").unwrap();
    for number in 1_000..1_010 {
        tell(&store, &mut notes, number, Durability::Power);
    }
    note_all();
    store.log().prepare_ahead();
    assert_eq!(store.log().testimony(), ledger.testify());
    let mut go_on = |_: annals::Progress| std::ops::ControlFlow::Continue(());
    view.backup("/copy", &BackupOptions::default(), &mut go_on).unwrap();
    let copy = options(&disk).open("/copy").unwrap();
    assert_eq!(copy.log().testimony(), Some(older), "the newest that the copy has all of");
    drop(copy);
    check_whole(&disk, "/copy".as_ref(), &copied);
}
