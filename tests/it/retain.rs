//! Retention in a store: events go that snapshots cover, and no actor notices.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annals::actor::{ActorError, Durable, StopReason};
use annals::disk::Disk as _;
use annals::disk::sim::{Failure, Fault, Random, SimDisk};
use annals::error::{Error, OpenError};
use annals::log::frame::{Batch, RecordKind};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::time::{Clock, ManualClock};
use annals::types::{Seq, StreamId};
use annals::{
    Actor, ActorOptions, Durability, Handle, Retain, SnapshotPolicy, Store, StoreOptions, Turn,
};

use crate::support::{Replay, disk, seeds, snapshot};

/// What was told so far, in a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Sum {
    count: u64,
    hash: u64,
}

impl Sum {
    fn add(&mut self, note: u64) {
        self.count += 1;
        self.hash = (self.hash ^ note).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    fn of(notes: &[u64]) -> Self {
        let mut sum = Self::default();
        for note in notes {
            sum.add(*note);
        }
        sum
    }
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Noted {
    note: u64,
    padding: Vec<u8>,
}

struct Note(u64, usize);
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Get;

/// Actors that differ in their snapshots alone.
macro_rules! kind {
    ($name:ident, $kind:literal, $options:expr) => {
        #[derive(Default, Archive, Serialize, Deserialize)]
        #[rkyv(crate = annals::rkyv)]
        struct $name(Sum);

        impl Actor for $name {
            type Event = Noted;
            const KIND: &'static str = $kind;
            fn apply(&mut self, event: &Noted) {
                self.0.add(event.note);
            }
            fn options() -> ActorOptions<Self> {
                $options
            }
        }

        impl Handle<Note> for $name {
            type Reply = Sum;
            fn handle(Note(note, bytes): Note, turn: &mut Turn<'_, Self>) -> Sum {
                turn.emit(Noted { note, padding: vec![7; bytes] });
                turn.0
            }
        }

        impl Handle<Get> for $name {
            type Reply = Sum;
            fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Sum {
                turn.0
            }
        }
    };
}

kind!(Often, "often", ActorOptions::new().snapshots(1, SnapshotPolicy::every(3)));
kind!(
    Loose,
    "loose",
    ActorOptions::new().durability(Durability::Process).snapshots(1, SnapshotPolicy::every(3))
);
kind!(Never, "never", ActorOptions::new());
kind!(Asked, "asked", ActorOptions::new().snapshots(1, SnapshotPolicy::manual()));
// The same actors, a version of their state later.
kind!(Newer, "often", ActorOptions::new().snapshots(2, SnapshotPolicy::every(3)));

fn options(disk: &SimDisk) -> StoreOptions {
    small().disk(disk.handle()).threads(false)
}

fn small() -> StoreOptions {
    Store::options()
        .ring_bytes(16 << 10)
        .segment_bytes(8 << 10, 16 << 10)
        .frame_bytes_max(4 << 10)
        .snapshot_bytes_max(4 << 10)
        .run_bytes_max(200 << 10)
        .workers(NonZeroUsize::MIN)
}

fn sum<A: Actor + Handle<Get, Reply = Sum>>(store: &Store, name: &str) -> Sum {
    store.actor::<A>(name).unwrap().ask(Get).unwrap()
}

/// Tells actor `name` of kind `A` numbers from `from` on, over some lives, each with room for
/// segments of its own.
fn fill<A: Actor + Handle<Note, Reply = Sum>>(
    open: &dyn Fn() -> Store,
    name: &str,
    notes: std::ops::Range<u64>,
) {
    for note in notes {
        let store = open();
        store.actor::<A>(name).unwrap().ask(Note(note, 2_000)).unwrap();
        store.close(Duration::from_secs(10)).unwrap();
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Nine actors: three that are durable when they answer, three that are not, and three without
/// snapshots.
#[derive(Default)]
struct Told {
    sent: [Vec<u64>; 9],
    /// What survives the process, and what survives power loss.
    process: [usize; 9],
    power: [usize; 9],
    note: u64,
}

impl Told {
    fn sum(store: &Store, number: usize) -> Sum {
        let name = NAMES[number % 3];
        match number {
            0..3 => sum::<Often>(store, name),
            3..6 => sum::<Loose>(store, name),
            _ => sum::<Never>(store, name),
        }
    }

    /// What is there is what was told, and as much as was promised.
    fn check(&mut self, store: &Store) {
        for number in 0..9 {
            let found = Self::sum(store, number);
            let count = usize::try_from(found.count).unwrap();
            assert!(count >= self.process[number], "actor {number} lost something");
            self.sent[number].truncate(count);
            assert_eq!(found, Sum::of(&self.sent[number]), "actor {number}");
            (self.process[number], self.power[number]) = (count, count);
        }
    }

    fn tell(&mut self, store: &Store, number: usize, bytes: usize) {
        self.note += 1;
        let (name, note) = (NAMES[number % 3], Note(self.note, bytes));
        self.sent[number].push(self.note);
        let told = match number {
            0..3 => store.actor::<Often>(name).unwrap().ask(note),
            3..6 => store.actor::<Loose>(name).unwrap().ask(note),
            _ => store.actor::<Never>(name).unwrap().ask(note),
        };
        let count = usize::try_from(told.unwrap().count).unwrap();
        self.process[number] = count;
        if !(3..6).contains(&number) {
            self.power[number] = count;
        }
    }
}

#[test]
fn an_actor_is_the_same_whatever_retention_drops_and_whatever_ends_its_lives() {
    let mut dropped = 0;
    for seed in seeds(25) {
        let _replay = Replay(seed);
        let mut random = Random::new(seed ^ 0x5eed);
        let mut disk = disk(seed);
        let mut told = Told::default();
        for _ in 0..14 {
            if random.once_in(4) {
                disk.crash_at(random.below(60) as u64);
            }
            let opened = options(&disk).retain(Retain::UntilSnapshot).open("/store");
            if !disk.has_crashed() {
                disk.clear_faults();
                let store = opened.as_ref().unwrap();
                told.check(store);
                for _ in 0..random.below(40) {
                    told.tell(store, random.below(9), random.below(1_500));
                }
                if random.once_in(2) {
                    disk.crash_at(random.below(80) as u64);
                }
                match store.compact() {
                    Ok(stats) => dropped += stats.events_dropped,
                    Err(error) => assert!(disk.has_crashed(), "{error}"),
                }
            }
            if disk.has_crashed() || random.once_in(2) {
                let cut = random.below(3);
                let next = match cut {
                    0 => disk.kill(),
                    1 => disk.power_cut_losing_all(),
                    _ => disk.power_cut(random.bits()),
                };
                drop(opened);
                if cut > 0 {
                    told.process = told.power;
                }
                disk = next;
            } else {
                disk.clear_faults();
                opened.unwrap().close(Duration::from_secs(10)).unwrap();
                disk = disk.kill();
            }
        }
    }
    assert!(dropped > 100, "only {dropped} frames were dropped");
}

/// What is left of an actor's history.
fn history<A: Actor>(store: &Store, name: &str) -> Vec<u64> {
    let past = store.history::<A>(name, Seq::ZERO).unwrap();
    past.into_iter().map(|past| past.seq.get()).collect()
}

#[test]
fn what_snapshots_cover_goes_and_the_first_turn_and_what_they_do_not_cover_stay() {
    let disk = disk(1);
    let open = || options(&disk).retain(Retain::UntilSnapshot).open("/store").unwrap();
    fill::<Often>(&open, "a", 0..20);
    fill::<Never>(&open, "a", 0..10);
    let store = open();
    // Actors are known by then; else nothing of theirs may go.
    store.actor::<Often>("a").unwrap();
    store.actor::<Never>("a").unwrap();
    let stats = store.compact().unwrap();
    assert!(stats.events_dropped > 0 && stats.reclaimed_bytes > 0, "{stats:?}");
    // Snapshots at 18 and 15: what is above the older one is there.
    assert_eq!(history::<Often>(&store, "a"), [1, 16, 17, 18, 19, 20]);
    assert_eq!(history::<Never>(&store, "a").len(), 10, "no snapshots: all is kept");
    assert_eq!(store.totals().unwrap().events, 30);
    let names: BTreeSet<String> = ["a".to_owned()].into();
    assert_eq!(store.names::<Often>().unwrap(), names);
    assert_eq!(store.stats().retention, stats);
    drop(store);
    let store = open();
    assert_eq!(sum::<Often>(&store, "a"), Sum::of(&(0..20).collect::<Vec<_>>()));
    assert_eq!(sum::<Never>(&store, "a"), Sum::of(&(0..10).collect::<Vec<_>>()));
    assert_eq!(store.totals().unwrap().events, 30);
    assert_eq!(store.names::<Often>().unwrap(), names);
}

#[test]
fn of_a_kind_that_is_not_known_nothing_goes() {
    let disk = disk(1);
    let open = || options(&disk).retain(Retain::UntilSnapshot).open("/store").unwrap();
    fill::<Often>(&open, "a", 0..20);
    let store = open();
    let stats = store.compact().unwrap();
    assert_eq!((stats.events_dropped, stats.laggards_asked), (0, 0));
    assert!(stats.compactions > 0);
    assert_eq!(history::<Often>(&store, "a").len(), 20);
}

#[test]
fn a_store_that_keeps_all_compacts_and_drops_no_event() {
    let disk = disk(1);
    let open = || options(&disk).open("/store").unwrap();
    fill::<Often>(&open, "a", 0..20);
    let store = open();
    store.actor::<Often>("a").unwrap();
    let stats = store.compact().unwrap();
    assert_eq!(stats.events_dropped, 0);
    assert!(stats.compactions > 0);
    assert!(stats.snapshots_dropped > 0, "of six snapshots two are needed: {stats:?}");
    assert_eq!(history::<Often>(&store, "a").len(), 20);
}

// Arms timers, and disarms them.
kind!(Waits, "waits", ActorOptions::new().snapshots(1, SnapshotPolicy::every(3)).command::<Get>());

impl Durable for Get {
    const NAME: &'static str = "get";
}

/// Arms a timer of that name, or disarms it.
struct Arm(&'static str, bool);

impl Handle<Arm> for Waits {
    type Reply = u64;
    fn handle(Arm(key, armed): Arm, turn: &mut Turn<'_, Self>) -> u64 {
        if armed {
            turn.wake_after(key, Duration::from_secs(1 << 30), &Get);
        } else {
            assert!(turn.cancel(key), "it is armed");
        }
        turn.seq().get() + 1
    }
}

#[test]
fn what_is_owed_stays_whatever_snapshots_cover_and_goes_once_it_is_settled() {
    let disk = disk(1);
    let open = || options(&disk).retain(Retain::UntilSnapshot).open("/store").unwrap();
    let arm = |key, armed| {
        let store = open();
        let seq = store.actor::<Waits>("a").unwrap().ask(Arm(key, armed)).unwrap();
        store.close(Duration::from_secs(10)).unwrap();
        seq
    };
    let compacted = || {
        let store = open();
        store.actor::<Waits>("a").unwrap();
        store.compact().unwrap();
        store.runtime().wait_recovered(Duration::from_secs(10));
        let owed = store.runtime().owed();
        let mut frames = Vec::new();
        let visit = &mut |frame: annals::log::frame::Frame<'_>| {
            frames.push(frame.header().seq.get());
            ControlFlow::Continue(())
        };
        store.log().stream(StreamId::of("waits", "a"), Seq::ZERO, visit).unwrap();
        store.close(Duration::from_secs(10)).unwrap();
        (owed, frames)
    };
    fill::<Waits>(&open, "a", 0..10);
    let early = arm("early", true);
    fill::<Waits>(&open, "a", 10..20);
    let late = arm("late", true);
    fill::<Waits>(&open, "a", 20..40);
    let (owed, frames) = compacted();
    assert_eq!((owed, frames[..2].to_vec()), (2, vec![1, early]));
    assert_eq!(frames.last(), frames.iter().max(), "to its end");
    arm("early", false);
    fill::<Waits>(&open, "a", 40..60);
    let (owed, frames) = compacted();
    assert_eq!((owed, frames[..2].to_vec()), (1, vec![1, late]));
    arm("late", false);
    fill::<Waits>(&open, "a", 60..80);
    let (owed, frames) = compacted();
    assert_eq!(owed, 0);
    assert!(frames[1] > 60, "{frames:?}");
    assert_eq!(sum::<Waits>(&open(), "a"), Sum::of(&(0..80).collect::<Vec<_>>()));
}

/// What no checkpoint tells of must be there to be read after a crash.
#[test]
fn nothing_goes_that_no_checkpoint_tells_of() {
    let disk = disk(1);
    let open = || options(&disk).retain(Retain::UntilSnapshot).open("/store").unwrap();
    fill::<Often>(&open, "a", 0..40);
    let store = open();
    store.actor::<Often>("a").unwrap();
    let checkpoints = || {
        let files = snapshot(&disk).into_iter().map(|(file, _)| file);
        files.filter(|file| file.to_string_lossy().contains("ckpt-")).collect::<Vec<_>>()
    };
    for file in checkpoints() {
        disk.remove(&file).unwrap();
    }
    disk.fail(Fault::new(Failure::Io).at_path("ckpt").for_ever());
    assert_eq!(store.compact().unwrap().events_dropped, 0);
    disk.clear_faults();
    assert!(store.compact().unwrap().events_dropped > 0);
    assert!(!checkpoints().is_empty(), "made for that");
}

/// Of a cursor's stream two frames are enough, in a store that keeps all; and it is no actor.
#[test]
fn of_a_cursors_stream_the_name_and_the_newest_stay_and_nobody_lists_it() {
    let disk = disk(1);
    let open = || options(&disk).catalogue(true).open("/store").unwrap();
    let cursor = StreamId::of("annals.cursor", "reader");
    for seq in 1..=30 {
        let store = open();
        let mut batch = Batch::new();
        if seq == 1 {
            let name = annals::log::name::encode("annals.cursor", "reader").unwrap();
            batch.push(RecordKind::Name, 1, &name).unwrap();
        }
        batch.push(RecordKind::Event, 1, &[7; 2_000]).unwrap();
        store.log().append(&mut batch, cursor, Seq::new(seq).unwrap()).unwrap();
        store.actor::<Often>("a").unwrap().ask(Note(seq, 100)).unwrap();
        store.close(Duration::from_secs(10)).unwrap();
    }
    let store = open();
    let stats = store.compact().unwrap();
    assert_eq!(stats.events_dropped, 0);
    assert!(stats.reclaimed_bytes > 20_000, "{stats:?}");
    assert!(!store.log().has_dropped(), "the snapshots are derived still");
    let mut frames = Vec::new();
    let visit = &mut |frame: annals::log::frame::Frame<'_>| {
        frames.push(frame.header().seq.get());
        ControlFlow::Continue(())
    };
    store.log().stream(cursor, Seq::ZERO, visit).unwrap();
    assert_eq!((frames[0], frames[frames.len() - 1]), (1, 30));
    assert!(frames.len() < 8, "{frames:?}");
    assert_eq!(history::<Often>(&store, "a").len(), 30);
    store.close(Duration::from_secs(10)).unwrap();
    let view = options(&disk).read_only("/store").unwrap();
    let names = |kind| view.names(kind).unwrap().into_iter().map(|actor| actor.kind);
    assert_eq!(names(None).collect::<Vec<_>>(), ["often"]);
    assert_eq!(names(Some("annals.cursor")).collect::<Vec<_>>(), ["annals.cursor"]);
}

kind!(Ours, "annals.cursor", ActorOptions::new());

#[test]
fn no_actor_may_have_a_kind_that_annals_keeps_for_itself() {
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    let refused = store.actor::<Ours>("reader").map(drop);
    assert!(matches!(refused, Err(Error::Actor(ActorError::KindTaken { .. }))), "{refused:?}");
}

#[test]
fn an_actor_without_a_snapshot_is_asked_for_one() {
    let disk = disk(1);
    let open = || options(&disk).retain(Retain::UntilSnapshot).open("/store").unwrap();
    fill::<Asked>(&open, "a", 0..15);
    let store = open();
    store.actor::<Asked>("a").unwrap();
    let stats = store.compact().unwrap();
    assert_eq!(stats.laggards_asked, 1);
    assert_eq!(store.runtime().residents(), 0, "it was loaded for that only");
    assert!(stats.events_dropped > 5, "{stats:?}");
    drop(store);
    assert_eq!(sum::<Asked>(&open(), "a"), Sum::of(&(0..15).collect::<Vec<_>>()));
}

#[test]
fn an_age_or_a_size_is_kept_at_least() {
    for retain in [Retain::Age(Duration::from_secs(10)), Retain::Bytes(20 << 10)] {
        let disk = disk(1);
        let clock = ManualClock::at_millis(1_000_000);
        let manual = Clock::Manual(Arc::clone(&clock));
        let open = || {
            let options = options(&disk).retain(retain).clock(manual.clone());
            let store = options.open("/store").unwrap();
            clock.advance(Duration::from_secs(1));
            store
        };
        fill::<Often>(&open, "a", 0..40);
        let store = open();
        store.actor::<Often>("a").unwrap();
        let stats = store.compact().unwrap();
        assert!(stats.events_dropped > 0, "{retain:?}: {stats:?}");
        let past = store.history::<Often>("a", Seq::ZERO).unwrap();
        let kept = past.iter().skip(1).map(|past| (past.seq.get(), past.time, past.lsn.get()));
        let (first, _, _) = kept.clone().next().unwrap();
        assert!(first > 2, "something went");
        assert_eq!(past.len() as u64, 1 + 40 - (first - 1), "without a hole");
        match retain {
            Retain::Age(age) => {
                let age = u64::try_from(age.as_millis()).unwrap();
                let now = manual.wall_ms();
                // One event a second.
                assert!(40 - (first - 1) >= 9, "{first}");
                assert!(kept.clone().any(|(_, time, _)| time.millis() <= now - age + 2_000));
            }
            Retain::Bytes(bytes) => {
                let (_, _, lsn) = kept.clone().next().unwrap();
                assert!(lsn + bytes <= store.log().written(), "{first}");
            }
            _ => unreachable!(),
        }
    }
}

/// A store of one actor, with events dropped.
fn dropped() -> SimDisk {
    let disk = disk(1);
    let open = || options(&disk).retain(Retain::UntilSnapshot).open("/store").unwrap();
    fill::<Often>(&open, "a", 0..20);
    let store = open();
    store.actor::<Often>("a").unwrap();
    assert!(store.compact().unwrap().events_dropped > 0);
    store.close(Duration::from_secs(10)).unwrap();
    disk.kill()
}

fn why(error: &ActorError) -> &StopReason {
    match error {
        ActorError::Stopped(stopped) => &stopped.why,
        other => panic!("{other}"),
    }
}

#[test]
fn an_actor_whose_events_went_and_whose_snapshots_are_gone_says_so() {
    let disk = dropped();
    let snapshots = disk.list_all().into_iter().map(|(path, _)| path);
    for path in snapshots.filter(|path| path.starts_with("/store/snapshots")) {
        disk.delete(&path).unwrap();
    }
    let store = options(&disk).open("/store").unwrap();
    let error = store.actor::<Often>("a").unwrap().ask(Get).unwrap_err();
    assert_eq!(why(&error), &StopReason::Dropped, "{error}");
    // Nobody else is concerned.
    store.actor::<Often>("b").unwrap().ask(Note(1, 1)).unwrap();
}

#[test]
fn an_actor_whose_events_went_and_whose_snapshots_are_of_another_version_says_so() {
    let disk = dropped();
    let store = options(&disk).open("/store").unwrap();
    let error = store.actor::<Newer>("a").unwrap().ask(Get).unwrap_err();
    assert_eq!(why(&error), &StopReason::Dropped, "{error}");
}

#[test]
fn one_unreadable_snapshot_is_not_enough_to_lose_an_actor_whose_events_went() {
    let disk = dropped();
    let all = disk.list_all().into_iter().map(|(path, _)| path);
    let files: Vec<_> = all.filter(|path| path.starts_with("/store/snapshots")).collect();
    let bytes: Vec<_> = files.iter().map(|path| disk.copy_bytes(path).unwrap()).collect();
    // The newest of the last two, wherever it is.
    let store = options(&disk).open("/store").unwrap();
    let before = store.stats().snapshots.skipped;
    assert_eq!(before, 0);
    drop(store);
    let mut survived = 0;
    for (path, bytes) in files.iter().zip(&bytes) {
        for (at, _) in bytes.windows(5).enumerate().filter(|(_, part)| *part == b"often") {
            let disk = disk.fork();
            disk.flip_bit(path, at as u64, 1).unwrap();
            match options(&disk).open("/store") {
                Ok(store) => {
                    assert_eq!(sum::<Often>(&store, "a").count, 20);
                    survived += 1;
                }
                // Its snapshots are no longer what it can do without.
                Err(Error::Open(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(survived > 0);
}

#[test]
fn damage_in_the_snapshot_log_refuses_the_open_once_events_went_and_changes_nothing() {
    let kept = {
        let disk = disk(1);
        let open = || options(&disk).open("/store").unwrap();
        fill::<Often>(&open, "a", 0..20);
        disk.kill()
    };
    for (disk, refused) in [(dropped(), true), (kept, false)] {
        let files = disk.list_all().into_iter().map(|(path, _)| path);
        let files = files.filter(|path| path.starts_with("/store/snapshots"));
        let headed = |path: &PathBuf| {
            [".seg", ".run"].iter().any(|ending| path.to_string_lossy().ends_with(ending))
        };
        for path in files.filter(headed) {
            let disk = disk.fork();
            disk.flip_bit(&path, 30, 1).unwrap();
            let before = snapshot(&disk);
            let opened = options(&disk).open("/store");
            if refused {
                assert!(matches!(opened, Err(Error::Open(OpenError::Damage(_)))), "{opened:?}");
                // The lock's file holds who had it.
                let after = snapshot(&disk);
                assert!(
                    before.iter().filter(|it| !it.0.ends_with("LOCK")).all(|it| after.contains(it))
                );
            } else {
                assert_eq!(sum::<Often>(&opened.unwrap(), "a").count, 20);
            }
        }
    }
}

#[test]
fn a_store_with_threads_keeps_what_it_must_while_its_old_files_go() {
    const ACTORS: usize = 40;
    let home = tempfile::tempdir().unwrap();
    let open = || {
        small()
            .ring_bytes(64 << 10)
            .segment_bytes(32 << 10, 64 << 10)
            .workers(NonZeroUsize::new(2).unwrap())
            .durability(Durability::Process)
            .flush_interval(Duration::from_millis(20))
            .run_bytes_max(1 << 20)
            .retain(Retain::UntilSnapshot)
            .open(home.path())
            .unwrap()
    };
    let mut sent: Vec<Vec<u64>> = vec![Vec::new(); ACTORS];
    let mut note = 0;
    let (mut dropped, mut runs) = (0, 0);
    for _ in 0..3 {
        let store = open();
        for (number, sent) in sent.iter().enumerate() {
            assert_eq!(sum::<Often>(&store, &format!("{number}")), Sum::of(sent));
        }
        std::thread::scope(|scope| {
            let store = &store;
            for part in sent.chunks_mut(ACTORS / 4).enumerate().collect::<Vec<_>>() {
                let start = note;
                scope.spawn(move || {
                    let (part, sent) = part;
                    for turn in 0..100 {
                        for (number, sent) in sent.iter_mut().enumerate() {
                            let name = format!("{}", part * (ACTORS / 4) + number);
                            let note = start + turn;
                            sent.push(note);
                            let addr = store.actor::<Often>(&name).unwrap();
                            assert_eq!(addr.ask(Note(note, 900)).unwrap(), Sum::of(sent));
                            if turn % 10 == 0 {
                                let past = store.history::<Often>(&name, Seq::ZERO).unwrap();
                                assert_eq!(past.first().map(|past| past.seq.get()), Some(1));
                                let last = past.last().map(|past| past.seq.get());
                                assert_eq!(last, Some(sent.len() as u64));
                            }
                        }
                    }
                });
            }
        });
        note += 100;
        store.compact().unwrap();
        let stats = store.stats();
        assert_eq!(stats.retention.failures, 0);
        dropped += stats.retention.events_dropped;
        runs = stats.log.runs;
        store.close(Duration::from_secs(20)).unwrap();
    }
    assert!(dropped > 1_000, "only {dropped} frames went");
    assert!(runs > 0);
    let store = open();
    for (number, sent) in sent.iter().enumerate() {
        assert_eq!(sum::<Often>(&store, &format!("{number}")), Sum::of(sent));
    }
    assert_eq!(store.names::<Often>().unwrap().len(), ACTORS);
    assert_eq!(store.totals().unwrap().events, 3 * 100 * ACTORS as u64);
}
