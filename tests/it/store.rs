//! A store with actors on the simulated disk: what an ask was answered survives as it said.

use std::collections::BTreeSet;
use std::time::Duration;

use annals::disk::sim::{Call, Failure, Fault, Op, Random, SimDisk};
use annals::error::{Error, OpenError, ReadError};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::types::Seq;
use annals::{Actor, ActorOptions, Durability, Handle, SnapshotPolicy, Store, Turn};

use crate::damage::every_damage;
use crate::support::{End, Replay, disk, scaled, seeds, snapshot};

/// Keeps what it was told, in order.
#[derive(Default, Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Strict(Vec<u64>);

/// The same, and does not wait for the disk.
#[derive(Default, Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Loose(Vec<u64>);

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Noted(u64);

impl Actor for Strict {
    type Event = Noted;
    const KIND: &'static str = "strict";
    fn apply(&mut self, event: &Noted) {
        self.0.push(event.0);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(3))
    }
}

impl Actor for Loose {
    type Event = Noted;
    const KIND: &'static str = "loose";
    fn apply(&mut self, event: &Noted) {
        self.0.push(event.0);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new()
            .durability(Durability::Process)
            .snapshots(1, SnapshotPolicy::every(2).on_passivate())
    }
}

struct Note(u64);
struct Get;

impl Handle<Note> for Strict {
    type Reply = usize;
    fn handle(command: Note, turn: &mut Turn<'_, Self>) -> usize {
        turn.emit(Noted(command.0));
        turn.0.len()
    }
}

impl Handle<Note> for Loose {
    type Reply = usize;
    fn handle(command: Note, turn: &mut Turn<'_, Self>) -> usize {
        turn.emit(Noted(command.0));
        turn.0.len()
    }
}

impl Handle<Get> for Strict {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.0.clone()
    }
}

impl Handle<Get> for Loose {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.0.clone()
    }
}

/// What one actor was told, and what of it was answered.
#[derive(Clone, Debug, Default)]
struct Told {
    sent: Vec<u64>,
    process: usize,
    power: usize,
}

impl Told {
    fn ended(&mut self, end: End) {
        if end == End::PowerCut {
            self.process = self.power;
        }
    }

    fn found(&mut self, state: &[u64], history: &[u64], what: &str) {
        assert_eq!(state, history, "{what}: state and history");
        assert!(self.sent.starts_with(state), "{what}: {state:?} was never told, {self:?}");
        assert!(state.len() >= self.process, "{what}: {state:?} is less than promised, {self:?}");
        self.sent.truncate(state.len());
        (self.process, self.power) = (state.len(), state.len());
    }
}

/// What was answered is on the disk.
fn keep_all(told: &mut [Told; 4]) {
    for told in told {
        told.power = told.process;
    }
}

fn open(disk: &SimDisk) -> Result<Store, Error> {
    Store::options()
        .disk(disk.handle())
        .threads(false)
        .ring_bytes(16 << 10)
        .segment_bytes(8 << 10, 16 << 10)
        .frame_bytes_max(4 << 10)
        .snapshot_bytes_max(4 << 10)
        .workers(std::num::NonZeroUsize::MIN)
        .open("/store")
}

const NAMES: [&str; 2] = ["a", "b"];

/// What there is, against what was told: two strict actors, then two loose ones.
fn check(store: &Store, told: &mut [Told; 4], what: &str) {
    for (number, told) in told.iter_mut().enumerate() {
        let name = NAMES[number % 2];
        let (state, history) = if number < 2 {
            let state = store.actor::<Strict>(name).unwrap().ask(Get).unwrap();
            (state, store.history::<Strict>(name, Seq::ZERO).unwrap())
        } else {
            let state = store.actor::<Loose>(name).unwrap().ask(Get).unwrap();
            (state, store.history::<Loose>(name, Seq::ZERO).unwrap())
        };
        let history: Vec<u64> =
            history.into_iter().filter_map(|past| past.event().map(|it| it.0)).collect();
        told.found(&state, &history, &format!("{what}, actor {number}"));
    }
}

/// Tells one actor one number, and takes note of the answer.
fn tell(store: &Store, disk: &SimDisk, told: &mut [Told; 4], number: usize, note: u64) {
    let name = NAMES[number % 2];
    told[number].sent.push(note);
    let answer = if number < 2 {
        store.actor::<Strict>(name).unwrap().ask(Note(note))
    } else {
        store.actor::<Loose>(name).unwrap().ask(Note(note))
    };
    match answer {
        // An answer of a process that is dead was never heard.
        Ok(_) if disk.has_crashed() => {}
        Ok(count) => {
            let told = &mut told[number];
            assert_eq!(count, told.sent.len());
            told.process = count;
            if number < 2 {
                told.power = count;
            }
        }
        Err(error) => assert!(disk.has_crashed(), "{error}"),
    }
}

fn run(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut disk = disk(seed);
    let mut told: [Told; 4] = Default::default();
    let mut note = 0;
    let mut states = 0;
    for _ in 0..6 {
        if random.once_in(3) {
            disk.crash_at(random.below(40) as u64);
        }
        let store = match open(&disk) {
            Ok(store) if !disk.has_crashed() => {
                disk.clear_faults();
                check(&store, &mut told, &format!("seed {seed}"));
                states += 1;
                Some(store)
            }
            Ok(dead) => Some(dead),
            Err(error) => {
                assert!(disk.has_crashed(), "refused: {error}");
                None
            }
        };
        if let Some(store) = store.as_ref().filter(|_| !disk.has_crashed()) {
            if random.once_in(3) {
                disk.crash_at(random.below(40) as u64);
            }
            for _ in 0..random.below(25) {
                note += 1;
                tell(store, &disk, &mut told, random.below(4), note);
                if disk.has_crashed() {
                    break;
                }
                if random.once_in(8) && store.sync().is_ok() && !disk.has_crashed() {
                    keep_all(&mut told);
                }
            }
        }
        let mut store = store;
        if random.once_in(3)
            && let Some(store) = store.take()
        {
            let closed = store.close(Duration::from_secs(10));
            assert!(disk.has_crashed() || closed.is_ok(), "{closed:?}");
            if !disk.has_crashed() {
                keep_all(&mut told);
            }
        }
        let (next, end) = match random.below(3) {
            0 => (disk.kill(), End::Kill),
            1 => (disk.power_cut_losing_all(), End::PowerCut),
            _ => (disk.power_cut(random.bits()), End::PowerCut),
        };
        drop(store);
        for told in &mut told {
            told.ended(end);
        }
        disk = next;
    }
    let store = open(&disk).unwrap_or_else(|error| panic!("refused: {error}"));
    check(&store, &mut told, &format!("seed {seed}, at last"));
    states + 1
}

#[test]
fn an_actor_is_what_it_was_told_and_answered_whatever_ended_its_lives() {
    let mut states = 0;
    for seed in seeds(200) {
        let _replay = Replay(seed);
        states += run(seed);
    }
    println!("{states} recoveries were looked at");
}

/// A closed store, and what its actors were told.
fn closed() -> (SimDisk, [Told; 4]) {
    let disk = disk(1);
    let mut told: [Told; 4] = Default::default();
    for life in 0..3 {
        let store = open(&disk).unwrap();
        for note in 0..40 {
            tell(&store, &disk, &mut told, usize::try_from(note % 4).unwrap(), life * 100 + note);
        }
        let _report = store.close(Duration::from_secs(10)).unwrap();
    }
    let disk = disk.kill();
    (disk, told)
}

#[test]
fn a_second_open_is_refused_as_locked_until_the_first_is_over() {
    let disk = disk(1);
    let store = open(&disk).unwrap();
    assert!(matches!(open(&disk), Err(Error::Open(OpenError::Locked { .. }))));
    let _report = store.close(Duration::from_secs(10)).unwrap();
    let store = open(&disk).unwrap();
    let next = disk.kill();
    drop(store);
    open(&next).unwrap();
}

#[test]
fn without_its_snapshots_a_store_is_the_same() {
    let (disk, told) = closed();
    let paths: Vec<_> = disk
        .list_all()
        .into_iter()
        .filter(|(path, _)| path.starts_with("/store/snapshots"))
        .collect();
    assert!(paths.iter().any(|(path, _)| path.extension().is_some_and(|it| it == "seg")));
    for (path, bytes) in &paths {
        for at in (0..*bytes).step_by(2_003) {
            let damaged = disk.fork();
            damaged.flip_bit(path, at, 3).unwrap();
            let store = open(&damaged).unwrap();
            check(&store, &mut told.clone(), &format!("{}, byte {at}", path.display()));
        }
    }
    for (path, _) in &paths {
        disk.delete(path).unwrap();
    }
    check(&open(&disk).unwrap(), &mut told.clone(), "without snapshots");
}

/// Every kind of damage to every file of a store: refused and nothing changed, or found when it is
/// read, or nothing is missing.
#[test]
fn damage_to_any_file_of_a_store_is_refused_or_noticed_or_harmless() {
    let (disk, told) = closed();
    let (foreign, _) = closed();
    let mut stale = snapshot(&disk);
    // Another life behind them makes these old.
    let store = open(&disk).unwrap();
    let mut told = told;
    for note in 900..920 {
        tell(&store, &disk, &mut told, usize::try_from(note % 4).unwrap(), note);
    }
    let _report = store.close(Duration::from_secs(10)).unwrap();
    let disk = disk.kill();
    stale.retain(|(path, bytes)| disk.copy_bytes(path).is_ok_and(|now| now != *bytes));
    let (mut refused, mut harmless, mut noticed) = (0, 0, 0);
    every_damage(&disk, &stale, &foreign, 2_003, &mut |damaged, _, what| {
        let before = snapshot(damaged);
        match open(damaged) {
            Ok(store) => {
                let whole = check_durable(&store, &told, what);
                *(if whole { &mut harmless } else { &mut noticed }) += 1;
            }
            Err(Error::Open(OpenError::Damage(_))) => {
                let is_lock = |path: &std::path::Path| path.ends_with("LOCK");
                let mut after = snapshot(damaged);
                after.retain(|(path, _)| !is_lock(path));
                let mut before = before;
                before.retain(|(path, _)| !is_lock(path));
                assert!(after == before, "{what}: refused, and changed something");
                refused += 1;
            }
            Err(other) => panic!("{what}: {other}"),
        }
    });
    println!("{refused} refused, {noticed} noticed, {harmless} harmless");
    assert!(refused > 0 && noticed > 0 && harmless > 0);
}

/// All that was durable is there (`true`), or reading says what is not.
fn check_durable(store: &Store, told: &[Told; 4], what: &str) -> bool {
    let mut whole = true;
    for (number, told) in told.iter().enumerate() {
        let name = NAMES[number % 2];
        let history = if number < 2 {
            store.history::<Strict>(name, Seq::ZERO)
        } else {
            store.history::<Loose>(name, Seq::ZERO)
        };
        match history {
            Ok(history) => {
                let notes: Vec<u64> =
                    history.into_iter().filter_map(|past| past.event().map(|it| it.0)).collect();
                assert_eq!(notes, told.sent, "{what}: actor {number}");
            }
            Err(error) => {
                assert!(matches!(error, Error::Read(ReadError::Damage(_))), "{what}: {error}");
                whole = false;
            }
        }
    }
    whole
}

/// Of one actor's notes, in order: what was promised about each.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// The answer was an error: it may be there or not.
    Unknown,
    Process,
    Power,
}

/// What is found holds every note that was promised, in order, and none that was not sent.
fn check_notes(sent: &[(u64, Fate)], found: &[u64], least: Fate, what: &str) {
    let mut rest = found.iter().peekable();
    for (note, fate) in sent {
        if rest.next_if_eq(&note).is_none() {
            assert!(*fate < least, "{what}: {note} is missing in {found:?} of {sent:?}");
        }
    }
    assert_eq!(rest.next(), None, "{what}: what is left was never sent, of {found:?}");
}

/// Opens a store, tells its actors something, syncs and closes it, twice. Whatever fails is a
/// typed error; goes on with what there is.
fn work(disk: &SimDisk, told: &mut [Vec<(u64, Fate)>; 4]) -> usize {
    let mut errors = 0;
    for life in 0..2 {
        let Ok(store) = open(disk).or_else(|_| open(disk)) else { return errors + 2 };
        for step in 0..8 {
            let number = usize::try_from(step % 4).unwrap();
            let (name, note) = (NAMES[number % 2], life * 100 + step);
            let answer = if number < 2 {
                store.actor::<Strict>(name).and_then(|it| Ok(it.ask(Note(note))?))
            } else {
                store.actor::<Loose>(name).and_then(|it| Ok(it.ask(Note(note))?))
            };
            errors += usize::from(answer.is_err());
            let fate = match answer {
                Ok(_) if number < 2 => Fate::Power,
                Ok(_) => Fate::Process,
                Err(_) => Fate::Unknown,
            };
            told[number].push((note, fate));
        }
        let closed = match store.sync() {
            Ok(()) => store.close(Duration::from_secs(10)).is_ok(),
            Err(_) => false,
        };
        errors += usize::from(!closed);
        if closed {
            for (_, fate) in told.iter_mut().flatten() {
                *fate = if *fate == Fate::Process { Fate::Power } else { *fate };
            }
        }
    }
    errors
}

fn check_after(disk: &SimDisk, told: &[Vec<(u64, Fate)>; 4], kill_only: bool, what: &str) {
    disk.clear_faults();
    let ends = [
        (disk.fork().kill(), Fate::Process),
        (disk.fork().power_cut_losing_all(), Fate::Power),
        (disk.fork().power_cut(1), Fate::Power),
    ];
    for (number, (disk, least)) in ends.into_iter().enumerate() {
        if kill_only && least == Fate::Power {
            break;
        }
        let what = format!("{what}, end {number}");
        let store = open(&disk).unwrap_or_else(|error| panic!("{error}: {what}"));
        for (number, sent) in told.iter().enumerate() {
            let name = NAMES[number % 2];
            let history = if number < 2 {
                store.history::<Strict>(name, Seq::ZERO).unwrap()
            } else {
                store.history::<Loose>(name, Seq::ZERO).unwrap()
            };
            let notes: Vec<u64> =
                history.into_iter().filter_map(|past| past.event().map(|it| it.0)).collect();
            check_notes(sent, &notes, least, &format!("{what}, actor {number}"));
        }
    }
}

/// Each call of each kind that a store makes, its lock and its snapshot log included: answered
/// with each kind of failure, once and for ever.
#[test]
fn whatever_call_of_a_store_fails_what_it_had_answered_is_kept() {
    let begun = |fresh: bool| {
        let disk = disk(1);
        let mut told: [Vec<(u64, Fate)>; 4] = Default::default();
        if fresh {
            return (disk, told);
        }
        assert_eq!(work(&disk, &mut told), 0);
        // Killed in the middle: the next open has something to recover.
        let store = open(&disk).unwrap();
        store.actor::<Loose>("a").unwrap().ask(Note(500)).unwrap();
        told[2].push((500, Fate::Process));
        let next = disk.kill();
        drop(store);
        (next, told)
    };
    let (mut tried, mut failed) = (0, 0);
    let mut of_snapshots = BTreeSet::new();
    for fresh in [true, false] {
        let (disk, mut told) = begun(fresh);
        disk.record(true);
        assert_eq!(work(&disk, &mut told), 0);
        let calls = disk.log();
        let is_snapshots = |call: &&Call| call.path.starts_with("/store/snapshots");
        of_snapshots.extend(calls.iter().filter(is_snapshots).map(|call| call.op));
        for op in Op::ALL {
            let count = calls.iter().filter(|call| call.op == op).count() as u64;
            assert!(fresh || count > 0 || op == Op::CreateDir, "{op:?} is never called");
            let step = 1 + count / scaled(20);
            for skip in (0..count).step_by(usize::try_from(step).unwrap()) {
                for failure in [Failure::Io, Failure::NoSpace, Failure::Interrupted, Failure::Short]
                {
                    for for_ever in [false, true] {
                        // A call that is interrupted for ever would be tried for ever.
                        if for_ever && failure == Failure::Interrupted {
                            continue;
                        }
                        let (disk, mut told) = begun(fresh);
                        let fault = Fault::new(failure).on(op).after(skip);
                        disk.fail(if for_ever { fault.for_ever() } else { fault });
                        let what = format!("{failure:?} at {op:?} {skip}, {for_ever}, {fresh}");
                        failed += u64::from(work(&disk, &mut told) > 0);
                        // Where the name of a folder is never made durable although a later
                        // sync says so, nothing in the folder is: no store can help that.
                        let nameless = fresh && op == Op::SyncDir;
                        check_after(&disk, &told, nameless, &what);
                        tried += 1;
                    }
                }
            }
        }
    }
    println!("{tried} stores with a failing call, of which {failed} answered with an error");
    assert!(failed > 100);
    let all = [
        (Op::CreateDir, Op::List),
        (Op::Open, Op::Create),
        (Op::Rename, Op::SyncDir),
        (Op::Read, Op::Write),
        (Op::WriteRing, Op::SyncData),
        (Op::Allocate, Op::MapSegment),
    ];
    for op in all.into_iter().flat_map(|(first, second)| [first, second]) {
        assert!(of_snapshots.contains(&op), "{op:?} is of no snapshots");
    }
}

/// Every crash at every call of a store's life, from its first open on: what had been answered
/// before that call is there.
#[test]
fn every_crash_in_every_call_of_a_stores_life_is_recovered_from() {
    let disk = disk(1);
    let mut told: [Told; 4] = Default::default();
    let mut states = 0;
    let look = |disk: &SimDisk, before: &[Told; 4], now: &[Told; 4], states: &mut u64| {
        for (number, crash) in disk.take_crashes().iter().enumerate() {
            let cuts = crash.power_cuts_by(0..3).map(|(_, cut)| (cut, End::PowerCut));
            let losing = (crash.fork().power_cut_losing_all(), End::PowerCut);
            for (next, end) in cuts.chain([(crash.fork().kill(), End::Kill), losing]) {
                let mut told = now.clone();
                for (told, before) in told.iter_mut().zip(before) {
                    (told.process, told.power) = (before.process, before.power);
                    told.ended(end);
                }
                let store = open(&next).unwrap_or_else(|error| panic!("{error}: crash {number}"));
                check(&store, &mut told, &format!("crash {number}, {end:?}"));
                *states += 1;
            }
        }
    };
    disk.watch();
    for life in 0..3 {
        let before = told.clone();
        let store = open(&disk).unwrap();
        look(&disk, &before, &told, &mut states);
        for note in 0..10 {
            let before = told.clone();
            tell(&store, &disk, &mut told, usize::try_from(note % 4).unwrap(), life * 100 + note);
            look(&disk, &before, &told, &mut states);
        }
        let before = told.clone();
        let _report = store.close(Duration::from_secs(10)).unwrap();
        keep_all(&mut told);
        look(&disk, &before, &told, &mut states);
    }
    println!("{states} recoveries were looked at");
    assert!(states > 500);
}

/// A life is durable in the identity before its first frame is.
#[test]
fn a_missing_sync_of_the_identity_is_found_out() {
    let lost = |lie: bool| {
        let disk = disk(1);
        if lie {
            disk.fail(Fault::new(Failure::Lie).on(Op::SyncData).at_path("identity").for_ever());
        }
        let store = open(&disk).unwrap();
        store.actor::<Strict>("a").unwrap().ask(Note(1)).unwrap();
        let next = disk.power_cut_losing_all();
        drop(store);
        let Ok(store) = open(&next) else { return true };
        store.history::<Strict>("a", Seq::ZERO).unwrap().is_empty()
    };
    assert!(!lost(false));
    assert!(lost(true));
}
