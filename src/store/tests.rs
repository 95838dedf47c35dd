//! The store as a whole, on a real disk. Crashes are in `tests/`.

use std::path::Path;
use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};

use super::*;
use crate::actor::{ActorOptions, Handle, Persistence, RuntimeOptions, SnapshotPolicy, Turn};
use crate::disk::RealDisk;
use crate::types::{Durability, Seq};

#[derive(Archive, Serialize, Deserialize, Default)]
struct Counter {
    count: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Counted(u64);

impl Actor for Counter {
    type Event = Counted;
    const KIND: &'static str = "counter";
    fn apply(&mut self, event: &Counted) {
        self.count += event.0;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(10).on_passivate())
    }
}

struct Count(u64);

impl Handle<Count> for Counter {
    type Reply = u64;
    fn handle(command: Count, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(Counted(command.0));
        turn.count
    }
}

struct Get;

impl Handle<Get> for Counter {
    type Reply = u64;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> u64 {
        turn.count
    }
}

fn options() -> StoreOptions {
    Store::options()
        .durability(Durability::Process)
        .ring_bytes(64 << 10)
        .segment_bytes(32 << 10, 64 << 10)
        .frame_bytes_max(8 << 10)
        .snapshot_bytes_max(4 << 10)
}

fn names(count: u64) -> BTreeSet<String> {
    (0..count).map(|number| format!("counter-{number}")).collect()
}

/// `count` counters, of which number `n` has counted to `n`, in `turns` turns each.
fn fill(path: &Path, count: u64, turns: u64) {
    let store = options().open(path).unwrap();
    for _ in 0..turns {
        for number in 0..count {
            let addr = store.actor::<Counter>(&format!("counter-{number}")).unwrap();
            addr.ask(Count(number)).unwrap();
        }
    }
    store.close(Duration::from_secs(10)).unwrap();
}

fn check(store: &Store, count: u64, turns: u64) {
    for number in 0..count {
        let addr = store.actor::<Counter>(&format!("counter-{number}")).unwrap();
        assert_eq!(addr.ask(Get).unwrap(), number * turns, "counter {number}");
    }
}

/// Removes the files in `dir` that end in `ending`; answers how many there were.
fn remove_all(dir: &Path, ending: &str) -> usize {
    let found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    for path in &found {
        RealDisk.remove(path).unwrap();
    }
    found.len()
}

#[test]
fn without_catalogue_and_indexes_only_the_open_takes_longer() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    fill(&path, 50, 30);
    std::fs::remove_dir_all(path.join("catalogue")).unwrap();
    assert!(remove_all(&path.join("log"), ".idx") > 0, "there were indexes to remove");
    let store = options().open(&path).unwrap();
    check(&store, 50, 30);
    assert_eq!(store.names::<Counter>().unwrap(), names(50));
    assert_eq!(store.catalogue_state(), Some(CatalogueState::New));
    assert_eq!(store.totals().unwrap().events, 50 * 30);
    assert_eq!(store.history::<Counter>("counter-7", Seq::ZERO).unwrap().len(), 30);
}

#[test]
fn a_catalogue_of_damaged_bytes_is_never_believed_and_never_in_the_way() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    fill(&path, 40, 2);
    let mut good = Vec::new();
    for entry in std::fs::read_dir(path.join("catalogue")).unwrap() {
        let file = entry.unwrap().path();
        if file.is_file() {
            good.push((file.clone(), read(&file)));
        }
    }
    for trial in 0_usize..60 {
        for (file, bytes) in &good {
            let mut bytes = bytes.clone();
            match trial % 4 {
                // Spread over the part that holds anything.
                0 => {
                    let at = trial * 7919 % bytes.len().clamp(1, 20_000);
                    bytes[at] ^= 1 << (trial % 8);
                }
                1 => bytes.truncate(bytes.len() * trial / 60),
                2 => bytes.fill(0),
                _ => bytes.iter_mut().step_by(trial).for_each(|byte| *byte = byte.wrapping_add(1)),
            }
            write(file, &bytes);
        }
        let store = options().open(&path).unwrap();
        assert_eq!(store.names::<Counter>().unwrap(), names(40), "trial {trial}");
        assert_eq!(store.actor::<Counter>("counter-3").unwrap().ask(Get).unwrap(), 6);
        drop(store);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test that damages files")]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test that damages files")]
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_catalogue_of_another_past_is_built_again() {
    let home = tempfile::tempdir().unwrap();
    let (here, there) = (home.path().join("here"), home.path().join("there"));
    fill(&here, 10, 1);
    fill(&there, 20, 1);
    std::fs::remove_dir_all(here.join("catalogue")).unwrap();
    RealDisk.rename(&there.join("catalogue"), &here.join("catalogue")).unwrap();
    let store = options().open(&here).unwrap();
    assert_eq!(store.names::<Counter>().unwrap(), names(10));
    assert!(matches!(store.catalogue_state(), Some(CatalogueState::Rebuilt(_))));
}

#[test]
fn a_second_owner_is_refused_and_told_who_the_first_is() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let store = options().open(&path).unwrap();
    let refused = options().open(&path).unwrap_err();
    let Error::Open(OpenError::Locked { owner, .. }) = refused else { panic!("{refused}") };
    assert_eq!(owner, std::process::id().to_string());
    drop(store);
    options().open(&path).unwrap();
}

#[test]
fn snapshots_are_used_and_a_store_without_them_is_the_same() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    fill(&path, 20, 25);
    let store = options().open(&path).unwrap();
    assert_eq!(store.report().snapshots.start, crate::log::Start::Continued);
    check(&store, 20, 25);
    drop(store);
    std::fs::remove_dir_all(path.join("snapshots")).unwrap();
    let store = options().open(&path).unwrap();
    check(&store, 20, 25);
}

#[test]
fn a_turn_at_power_in_a_process_store_is_durable_when_it_returns() {
    struct Sure;
    impl Handle<Sure> for Counter {
        type Reply = ();
        fn handle(_: Sure, turn: &mut Turn<'_, Self>) {
            turn.durability(Durability::Power);
            turn.emit(Counted(1));
        }
    }
    let home = tempfile::tempdir().unwrap();
    let store = options().flush_interval(Duration::from_hours(1)).open(home.path()).unwrap();
    let counter = store.actor::<Counter>("a").unwrap();
    counter.ask(Count(1)).unwrap();
    assert!(store.log().durable() < store.log().written());
    counter.ask(Sure).unwrap();
    assert_eq!(store.log().durable(), store.log().written());
}

#[test]
fn what_nobody_waits_for_becomes_durable_within_the_flush_interval() {
    let home = tempfile::tempdir().unwrap();
    let store = options().flush_interval(Duration::from_millis(20)).open(home.path()).unwrap();
    store.actor::<Counter>("a").unwrap().ask(Count(1)).unwrap();
    let mark = store.log().written();
    let clock = crate::time::Clock::System;
    let limit = clock.monotonic() + Duration::from_secs(10);
    while store.log().durable() < mark {
        assert!(clock.monotonic() < limit, "not durable after 10 s");
        std::thread::yield_now();
    }
}

#[test]
fn a_history_has_times_and_numbers_and_goes_on_from_any_event() {
    let home = tempfile::tempdir().unwrap();
    let store = options().open(home.path()).unwrap();
    let counter = store.actor::<Counter>("a").unwrap();
    for number in 1..=5 {
        counter.ask(Count(number)).unwrap();
    }
    let all = store.history::<Counter>("a", Seq::ZERO).unwrap();
    let numbers: Vec<_> =
        all.iter().map(|past| (past.seq.get(), past.event().unwrap().0)).collect();
    assert_eq!(numbers, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
    assert!(all.is_sorted_by_key(|past| (past.time, past.lsn)));
    let rest = store.history::<Counter>("a", Seq::new(3).unwrap()).unwrap();
    assert_eq!(rest, all[3..]);
    assert_eq!(store.history::<Counter>("nobody", Seq::ZERO).unwrap(), []);
}

#[test]
fn either_slot_of_the_identity_is_enough_from_the_first_life_on() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    for lives in 1..=3 {
        fill(&path, 3, 1);
        let identity = path.join("identity");
        let good = read(&identity);
        for slot in [0, 4096] {
            let mut bad = good.clone();
            bad[slot..slot + 512].fill(0xff);
            write(&identity, &bad);
            let file = IdentityFile::read(&RealDisk, &identity, true).unwrap();
            assert_eq!(file.identity.map(|identity| identity.life.number), Some(lives));
        }
        write(&identity, &good);
    }
}

/// What is set by its name counts, before `runtime` and after it; the rest is what that brings.
#[test]
fn named_settings_are_kept_whether_they_come_before_the_runtimes_or_after() {
    use std::num::NonZeroUsize;

    struct Old(u8);
    struct New(u8);
    let two = NonZeroUsize::new(2).unwrap();
    let named = |options: StoreOptions| {
        options
            .durability(Durability::Process)
            .workers(two)
            .persistence(Persistence::Every(7))
            .residents_max(11)
            .idle(Duration::from_secs(12))
            .steps_max(13)
            .attempts_max(14)
            .on_dead_letter(|_| ())
            .on_recovery(|_| ())
            .actor::<Counter>()
            .service(New(1))
    };
    let whole = || RuntimeOptions {
        loads_max: 15,
        resume_tries: 16,
        residents_max: 17,
        ..RuntimeOptions::default().service(Old(2)).service(New(3))
    };
    let before = named(Store::options()).runtime(whole());
    let after = named(Store::options().runtime(whole()));
    let twice = named(Store::options()).runtime(RuntimeOptions::default()).runtime(whole());
    for StoreOptions { runtime, .. } in [before, after, twice] {
        assert_eq!(runtime.durability, Durability::Process);
        assert_eq!((runtime.workers, runtime.persistence), (two, Persistence::Every(7)));
        assert_eq!((runtime.residents_max, runtime.idle), (11, Duration::from_secs(12)));
        assert_eq!((runtime.steps_max, runtime.attempts_max), (13, 14));
        assert!(runtime.on_dead_letter.is_some() && runtime.on_recovery.is_some());
        assert_eq!((runtime.kinds.len(), runtime.loads_max, runtime.resume_tries), (1, 15, 16));
        let (old, new) = (runtime.services.get::<Old>(), runtime.services.get::<New>());
        assert_eq!((old.map(|it| it.0), new.map(|it| it.0)), (Some(2), Some(1)));
    }
    // The later of two of one name.
    let options = Store::options().steps_max(1).runtime(whole()).steps_max(2).runtime(whole());
    assert_eq!((options.runtime.steps_max, options.runtime.residents_max), (2, 17));
}

/// A dead letter finds who is told of it, and a handler is tried as often as the options say.
#[test]
fn a_dead_letter_is_told_to_whom_the_options_name() {
    struct Fall;
    impl Handle<Fall> for Counter {
        type Reply = ();
        fn handle(_: Fall, _: &mut Turn<'_, Self>) {
            panic!("it falls");
        }
    }
    let home = tempfile::tempdir().unwrap();
    let (sender, letters) = crossbeam_channel::unbounded();
    let options = options().on_dead_letter(move |letter| sender.send(letter.clone()).unwrap());
    let store = options.runtime(RuntimeOptions::default()).open(home.path()).unwrap();
    store.actor::<Counter>("a").unwrap().tell(Fall).unwrap();
    let letter = letters.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((letter.kind, &*letter.name), ("counter", "a"));
}

/// By the appender, by a reader of what no checkpoint covers, by a view, by a verification and in
/// the header of a run.
#[test]
fn streams_of_annals_own_are_counted_nowhere_among_the_actors() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    for life in 0..6 {
        let store = options().compaction(true).open(&path).unwrap();
        for name in ["a", "b", "c"] {
            for _ in 0..200 {
                store.actor::<Counter>(name).unwrap().ask(Count(1)).unwrap();
            }
        }
        for name in ["mailer", "other"] {
            store.cursor(name).unwrap().save(Position::new(4096, 0)).unwrap();
        }
        assert_eq!(store.totals().unwrap().streams, 3, "in life {life}");
        let view = Store::read_only(&path).unwrap();
        assert_eq!(view.totals().unwrap().streams, 3, "from outside, in life {life}");
        let verified = view.verify(&mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        assert_eq!(verified.events.streams, 3);
        store.close(Duration::from_secs(10)).unwrap();
        if life == 4 {
            for entry in std::fs::read_dir(&path).unwrap() {
                let file = entry.unwrap().path();
                if file.to_string_lossy().contains("ckpt-") {
                    RealDisk.remove(&file).unwrap();
                }
            }
        }
    }
    let store = options().compaction(true).open(&path).unwrap();
    assert!(store.compact().unwrap().compactions > 0);
    assert_eq!(store.totals().unwrap().streams, 3);
    drop(store);
    assert_eq!(Store::read_only(&path).unwrap().totals().unwrap().streams, 3);
}
