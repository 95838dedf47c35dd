//! What may become of a store: lives, crashes, damage, disks that fail. Each scene is run for what
//! is told of it, in a folder of its own, and looks at what it can know of that.

use std::ops::ControlFlow;
use std::time::Duration;

use annals::disk::sim::{Failure, Fault, Op, SimDisk};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{
    Actor, ActorOptions, BackupOptions, Begin, Durability, Filter, Handle, Retain, SnapshotPolicy,
    Store, Turn,
};

use crate::actors::{Count, Fall, Leave, Note, Noted, Save, disk, files, kind, on, small, until};
use crate::hear::{Heard, heard};

pub(crate) const LONG: Duration = Duration::from_secs(10);

kind!(Plain, "plain", 1, ActorOptions::new().durability(Durability::Power));
kind!(Loose, "loose", 1, ActorOptions::new().durability(Durability::Process));
kind!(Often, "often", 1, ActorOptions::new().snapshots(1, SnapshotPolicy::every(2)));
kind!(OftenLater, "often", 1, ActorOptions::new().snapshots(2, SnapshotPolicy::every(2)));
kind!(
    Fast,
    "fast",
    1,
    ActorOptions::new().durability(Durability::Process).snapshots(1, SnapshotPolicy::every(1))
);
kind!(Asked, "asked", 1, ActorOptions::new().snapshots(1, SnapshotPolicy::manual()));
kind!(Alive, "alive", 1, ActorOptions::new().snapshots(1, SnapshotPolicy::every(2)));
kind!(AliveLater, "alive", 2, ActorOptions::new().snapshots(2, SnapshotPolicy::manual()));

/// All of them.
pub(crate) const ALL: [(&str, fn()); 17] = [
    ("nodes that meet", nodes_that_meet),
    ("a life", a_life),
    ("a catalogue", a_catalogue),
    ("a power cut", a_power_cut),
    ("a ring that helps", a_ring_that_helps),
    ("snapshots that are damaged", snapshots_that_are_damaged),
    ("a past that was taken back", a_past_that_was_taken_back),
    ("damage and repair", damage_and_repair),
    ("a sync that fails", a_sync_that_fails),
    ("a full disk", a_full_disk),
    ("files that cannot be written", files_that_cannot_be_written),
    ("snapshots that cannot be written", snapshots_that_cannot_be_written),
    ("retention", retention),
    ("retention that fails", retention_that_fails),
    ("a scrub", a_scrub),
    ("a scrub that fails", a_scrub_that_fails),
    ("a small ring", a_small_ring),
];

/// What was told of a place.
pub(crate) fn told(place: &str, name: &str) -> Vec<Heard> {
    heard().into_iter().filter(|it| it.name == name && it.is_of(place)).collect()
}

/// The one that was told of a place.
#[track_caller]
pub(crate) fn one(place: &str, name: &str) -> Heard {
    let told = told(place, name);
    assert_eq!(told.len(), 1, "{place}: {name}: {told:#?}");
    told.into_iter().next().unwrap()
}

#[track_caller]
pub(crate) fn field<'a>(heard: &'a Heard, name: &str) -> &'a str {
    heard.fields.get(name).unwrap_or_else(|| panic!("{name}: {heard:?}"))
}

#[track_caller]
pub(crate) fn number(heard: &Heard, name: &str) -> u64 {
    field(heard, name).parse().unwrap()
}

/// One founds a cluster, the other joins it.
fn nodes_that_meet() {
    use annals::NodeConfig;
    use annals::sync::domain::Domain;
    use annals::sync::node::local::Local;
    use annals::sync::origin::ClusterId;
    let dirs = ["nodes that meet", "nodes that meet, the other"];
    let cluster = ClusterId::from_u128(5);
    let configs = [NodeConfig::found(cluster), NodeConfig::join(cluster)];
    let homes: Vec<_> =
        dirs.iter().map(|name| tempfile::tempdir().unwrap().path().join(name)).collect();
    let stores: Vec<_> = configs
        .into_iter()
        .zip(&homes)
        .map(|(config, home)| {
            let config = config.domain(Domain::new("users", 1)).lease(Duration::from_millis(400));
            Store::options().node(config).open(home).unwrap()
        })
        .collect();
    let nodes: Vec<_> = stores.iter().map(|store| store.node().unwrap()).collect();
    let _link = Local::connect(nodes[0], nodes[1]);
    nodes[1].wait_member(LONG).unwrap();
    let home = homes[0].display().to_string();
    until("a report", || !told(&home, "node reported").is_empty());
}

fn note<A: Actor + Handle<Note, Reply = u64>>(store: &Store, name: &str, bytes: usize) -> u64 {
    store.actor::<A>(name).unwrap().ask(Note(bytes)).unwrap()
}

/// Lives of one note each, so that there are segments.
fn fill<A: Actor + Handle<Note, Reply = u64>>(open: &dyn Fn() -> Store, name: &str, notes: usize) {
    for _ in 0..notes {
        let store = open();
        note::<A>(&store, name, 2_000);
        store.close(LONG).unwrap();
    }
}

/// With threads, on a real disk: opened, used, closed, opened again by a later program.
fn a_life() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let store = small().snapshot_bytes_max(2 << 10).open(folder.path()).unwrap();
    for number in 1..=4 {
        note::<Alive>(&store, "a", 1_000);
        until("a snapshot", || told("alive", "snapshot taken").len() == number / 2);
    }
    let alive = store.actor::<Alive>("a").unwrap();
    alive.ask(Fall).unwrap_err();
    alive.tell(Fall).unwrap();
    until("a dead letter", || !told("alive", "dead letter").is_empty());
    alive.ask(Leave).unwrap();
    until("it leaves", || !told("alive", "actor passivated").is_empty());
    for _ in 0..2 {
        note::<Alive>(&store, "large", 3_000);
    }
    until("it is too large", || !told("alive", "snapshot too large").is_empty());
    for _ in 0..20 {
        note::<Alive>(&store, "b", 2_000);
    }
    until("the catalogue", || !told(&place, "catalogue opened").is_empty());
    drop(alive);
    store.close(LONG).unwrap();

    let life = one(&place, "life begun");
    assert_eq!(number(&life, "life"), 1);
    assert_eq!(life.within, 1, "told within the span of the open");
    assert_eq!(field(&one(&place, "opened"), "path"), place);
    assert_eq!(field(&one(&place, "catalogue opened"), "new"), "true");
    let panicked = &told("alive", "turn panicked")[0];
    assert_eq!((field(panicked, "name"), number(panicked, "seq")), ("a", 4));
    assert!(field(panicked, "error").contains("as it was told to"), "{panicked:?}");
    let letter = one("alive", "dead letter");
    assert!(field(&letter, "command").ends_with("Fall"), "{letter:?}");
    assert!(told(&place, "segment sealed").len() > 2 && told(&place, "segment made").len() > 3);
    assert!(!told(&place, "checkpoint written").is_empty());
    assert_eq!(number(&one(&place, "closed"), "threads_left"), 0);
    let starts: Vec<_> = told(&place, "recovered");
    assert!(starts.iter().all(|it| field(it, "start") == "fresh"), "{starts:?}");

    // A later program, which knows neither the events nor the snapshots.
    let store = small().open(folder.path()).unwrap();
    store.actor::<AliveLater>("a").unwrap().ask(Count).unwrap_err();
    let stopped = one("alive", "actor stopped");
    assert!(field(&stopped, "error").contains("version"), "{stopped:?}");
    let unreadable = told("alive", "snapshot unreadable");
    assert_eq!(number(&unreadable[0], "seq"), 4);
    drop(store);
    assert_eq!(told(&place, "closed").len(), 2, "a drop closes as well");
    let starts: Vec<_> = told(&place, "recovered");
    assert_eq!(field(&starts[2], "start"), "continued");
}

/// A catalogue that is no catalogue, and a place where there can be none.
fn a_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let dir = folder.path().join("catalogue");
    drop(small().open(folder.path()).unwrap());
    let mut folders = vec![dir.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::metadata(&path).unwrap().len();
                let noise = (0..bytes).map(|at| u8::try_from(at * 37 % 251).unwrap());
                write(&path, &noise.collect::<Vec<_>>());
            }
        }
    }
    let store = small().open(folder.path()).unwrap();
    until("it is built again", || !told(&place, "catalogue rebuilt").is_empty());
    drop(store);
    std::fs::remove_dir_all(&dir).unwrap();
    write(&dir, b"a file");
    let store = small().open(folder.path()).unwrap();
    until("it is absent", || !told(&place, "catalogue absent").is_empty());
    drop(store);
}

#[expect(clippy::disallowed_methods, reason = "what a test does to a file from outside")]
fn write(path: &std::path::Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

/// What was not durable is gone, and its positions are lost.
fn a_power_cut() {
    let place = "/power-cut";
    let before = disk(1);
    let store = on(&before).open(place).unwrap();
    note::<Plain>(&store, "a", 100);
    let durable = store.log().durable();
    note::<Loose>(&store, "b", 100);
    let after = before.power_cut_losing_all();
    drop(store);
    drop(on(&after).open(place).unwrap());
    let torn: Vec<_> = told(place, "torn tail");
    assert_eq!(torn.len(), 1, "{torn:?}");
    assert_eq!(number(&torn[0], "lsn"), durable);
    assert!(number(&torn[0], "lsn_end") > durable);
    assert_eq!(torn[0].within, 1);
    let recovered = told(place, "recovered");
    assert_eq!(field(&recovered[2], "start"), "recovered");
    assert_eq!(number(&recovered[2], "lsn"), durable);
    assert_eq!(number(&told(place, "life begun")[1], "life"), 2);
}

/// A disk that has lost what it said it had, after a kill: the ring has it still.
fn a_ring_that_helps() {
    let place = "/ring-helps";
    let before = disk(2);
    let store = on(&before).open(place).unwrap();
    note::<Plain>(&store, "a", 100);
    note::<Plain>(&store, "a", 100);
    let after = before.kill();
    drop(store);
    let segment = files(&after, "/ring-helps/log", ".seg").remove(0);
    // Behind the life's first frame.
    after.zero(&segment, 4_096 + 128..4_096 + 600).unwrap();
    let store = on(&after).open(place).unwrap();
    assert_eq!(store.actor::<Plain>("a").unwrap().ask(Count).unwrap(), 2);
    drop(store);
    assert_eq!(field(&one(place, "repaired from ring"), "dir"), "/ring-helps/log");
}

/// The snapshots' log can do without what is damaged.
fn snapshots_that_are_damaged() {
    let place = "/snapshots-damaged";
    let disk = disk(3);
    let open = || on(&disk).open(place).unwrap();
    fill::<Often>(&open, "a", 4);
    let segment = files(&disk, "/snapshots-damaged/snapshots", ".seg").pop().unwrap();
    disk.flip_bit(&segment, 20, 3).unwrap();
    let store = open();
    assert_eq!(store.actor::<Often>("a").unwrap().ask(Count).unwrap(), 4);
    drop(store);
    let aside = one(place, "set aside");
    assert!(field(&aside, "file").starts_with("/snapshots-damaged/snapshots/"), "{aside:?}");
    assert_eq!(number(&aside, "offset") % 16, 0);
}

/// A snapshot is durable, and what it covers is not.
fn a_past_that_was_taken_back() {
    let place = "/taken-back";
    let before = disk(4);
    let open = |disk: &SimDisk| on(disk).retain(Retain::UntilSnapshot).open(place).unwrap();
    let store = open(&before);
    note::<Plain>(&store, "other", 100);
    let after = before.fork().power_cut_losing_all();
    note::<Fast>(&store, "a", 100);
    until("a snapshot", || store.stats().snapshots.saved == 1);
    // It syncs both logs; of the snapshots it is that disk which comes back, of the events not.
    store.compact().unwrap();
    let synced = before.power_cut_losing_all();
    drop(store);
    for path in files(&synced, "/taken-back/snapshots", "") {
        after.put(&path, synced.copy_bytes(&path).unwrap()).unwrap();
    }
    let store = open(&after);
    assert_eq!(store.actor::<Fast>("a").unwrap().ask(Count).unwrap(), 0);
    drop(store);
    let passed = one(place, "snapshot passed over");
    assert!(field(&passed, "error").contains("taken back"), "{passed:?}");
}

/// An open is refused; a look, a backup and a repair say what they think of it.
fn damage_and_repair() {
    let place = "/damaged";
    let disk = disk(5);
    let open = || on(&disk).open(place).unwrap();
    fill::<Plain>(&open, "a", 6);
    let whole = on(&disk).read_only(place).unwrap();
    let backup = whole.backup("/backup", &BackupOptions::default(), &mut |_| go_on()).unwrap();
    let made = one("/backup", "backup made");
    assert_eq!(number(&made, "lsn"), backup.mark);
    assert_eq!(number(&made, "bytes"), backup.bytes);
    assert_eq!(made.within, 1);
    let again = on(&disk).read_only(place).unwrap();
    again.backup("/backup", &BackupOptions::default(), &mut |_| go_on()).unwrap_err();
    assert!(field(&one("/backup", "backup failed"), "error").contains("exists"));

    let segment = files(&disk, "/damaged/log", ".seg").pop().unwrap();
    disk.zero(&segment, 4_096..8_192).unwrap();
    // The ring has it still, else.
    disk.zero("/damaged/ring".as_ref(), 0..16 << 10).unwrap();
    let error = on(&disk).open(place).map(drop).unwrap_err();
    assert_eq!(field(&one(place, "open failed"), "error"), error.to_string());
    let repair = on(&disk).repair(place).unwrap();
    let steps = repair.plan().steps.len();
    assert!(steps > 0);
    assert_eq!(number(&one(place, "repair planned"), "steps"), steps as u64);
    repair.carry_out(&mut |_| go_on()).unwrap();
    assert_eq!(told(place, "repair step").len(), steps);
    assert!(field(&one(place, "repaired"), "aside").starts_with("/damaged/aside-"));
    assert!(told(place, "verified").len() >= 2);
    drop(open());
}

fn go_on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Nothing is accepted after it, and the close is in doubt.
fn a_sync_that_fails() {
    let place = "/sync-fails";
    let disk = disk(6);
    let store = on(&disk).open(place).unwrap();
    note::<Plain>(&store, "a", 100);
    let durable = store.log().durable();
    disk.fail(Fault::new(Failure::Io).on(Op::SyncData).at_path("/sync-fails/log/"));
    store.actor::<Plain>("a").unwrap().ask(Note(100)).unwrap_err();
    let poisoned = one(place, "poisoned");
    assert_eq!(number(&poisoned, "lsn"), durable);
    assert!(field(&poisoned, "error").starts_with("syncing /sync-fails/log/"), "{poisoned:?}");
    store.actor::<Plain>("a").unwrap().ask(Note(100)).unwrap_err();
    store.close(LONG).unwrap_err();
    one(place, "poisoned");
    one(place, "close failed");
}

/// There is no room, then there is.
fn a_full_disk() {
    let place = "/full";
    let disk = disk(7);
    let store = on(&disk).open(place).unwrap();
    let actor = store.actor::<Plain>("a").unwrap();
    actor.ask(Note(100)).unwrap();
    disk.set_capacity(Some(disk.used() + 1_000));
    while actor.ask(Note(3_000)).is_ok() {}
    actor.ask(Note(3_000)).unwrap_err();
    assert_eq!(told(place, "disk has room").len(), 0);
    one(place, "disk full");
    disk.set_capacity(None);
    // The room is looked for now and then.
    until("there is room", || actor.ask(Note(3_000)).is_ok());
    one(place, "disk has room");
    one(place, "disk full");
    // Another error than that.
    disk.fail(Fault::new(Failure::Io).on(Op::Allocate).at_path("/full/log"));
    while actor.ask(Note(3_000)).is_ok() {}
    actor.ask(Note(3_000)).unwrap();
    assert!(field(&one(place, "segment failed"), "error").starts_with("allocating"));
}

/// Small files that only save time.
fn files_that_cannot_be_written() {
    let place = "/small-files";
    let disk = disk(8);
    let store = on(&disk).open(place).unwrap();
    for part in ["/small-files/mark", "/small-files/ckpt", ".itmp"] {
        disk.fail(Fault::new(Failure::Io).on(Op::Write).at_path(part).for_ever());
    }
    for _ in 0..8 {
        note::<Plain>(&store, "a", 3_000);
    }
    store.log().keep();
    store.close(LONG).unwrap();
    // Once, though it happens with every commit.
    assert!(number(&one(place, "mark failed"), "failures") > 0);
    assert!(!told(place, "index failed").is_empty());
    assert!(field(&one(place, "checkpoint failed"), "error").contains("ckpt"));
}

/// The actors go on without.
fn snapshots_that_cannot_be_written() {
    let disk = disk(9);
    let store = on(&disk).open("/no-snapshots").unwrap();
    disk.fail(Fault::new(Failure::Io).on(Op::WriteRing).at_path("/snapshots/").for_ever());
    for _ in 0..4 {
        note::<Often>(&store, "unsaved", 100);
    }
    until("they fail", || store.stats().snapshots.failed > 0);
    let is_its = |it: &Heard| it.fields.get("name").is_some_and(|name| name == "unsaved");
    until("it is told", || told("often", "snapshot refused").iter().any(is_its));
    assert!(told("often", "snapshot failed").iter().any(is_its));
    drop(store);
}

/// Old events go, and those who hold some up are asked.
fn retention() {
    let place = "/retention";
    let disk = disk(10);
    let open = || on(&disk).retain(Retain::UntilSnapshot).open(place).unwrap();
    // Lives of their own, because what is new is not compacted.
    for _ in 0..20 {
        let store = open();
        note::<Often>(&store, "often", 2_000);
        note::<Asked>(&store, "asked", 1_000);
        note::<Often>(&store, "often", 3_000);
        until("a snapshot", || store.stats().snapshots.saved == 1);
        store.close(LONG).unwrap();
    }
    let store = open();
    // Known kinds only.
    store.actor::<Often>("often").unwrap().ask(Count).unwrap();
    store.actor::<Asked>("asked").unwrap().ask(Count).unwrap();
    let done = store.compact().unwrap();
    assert!(done.events_dropped > 0 && done.laggards_asked > 0, "{done:?}");
    let told_done = told(place, "retention done");
    let dropped: u64 = told_done.iter().map(|it| number(it, "events_dropped")).sum();
    assert_eq!(dropped, done.events_dropped);
    let asked: u64 = told(place, "laggards asked").iter().map(|it| number(it, "asked")).sum();
    assert_eq!(asked, done.laggards_asked);
    let made = told(place, "compacted");
    assert_eq!(made.len() as u64, done.compactions);
    assert_eq!(told(place, "compaction begun").len(), made.len());
    assert!(!told(place, "segment retired").is_empty());
    let mut all = store.subscribe(Filter::all(), Begin::First).unwrap();
    let gone = all.next(Duration::ZERO).unwrap_err();
    let cut = one(place, "subscription cut");
    assert_eq!((number(&cut, "lsn"), field(&cut, "filter")), (0, "all"));
    let upto = number(&cut, "lsn_end");
    assert_eq!(gone.to_string(), annals::error::StreamError::Dropped { upto }.to_string());
    drop(all);
    for _ in 0..10 {
        note::<Often>(&store, "often", 2_000);
    }
    let recycled = |it: &Heard| field(it, "recycled") == "true";
    assert!(told(place, "segment made").iter().any(recycled));
    drop(store);
}

/// A run that cannot be written: all is as it was, and the store goes on.
fn retention_that_fails() {
    let place = "/not-compacted";
    let disk = disk(11);
    let open = || on(&disk).retain(Retain::UntilSnapshot).open(place).unwrap();
    fill::<Plain>(&open, "a", 8);
    let store = open();
    disk.fail(Fault::new(Failure::Io).on(Op::Write).at_path(".rtmp"));
    let error = store.compact().unwrap_err();
    assert_eq!(field(&one(place, "compaction failed"), "error"), error.to_string());
    assert_eq!(field(&one(place, "retention failed"), "error"), error.to_string());
    note::<Plain>(&store, "a", 100);
    drop(store);
}

/// A sealed segment that nobody reads is not what it was.
fn a_scrub() {
    let place = "/scrubbed";
    let disk = disk(12);
    let open = || on(&disk).open(place).unwrap();
    fill::<Plain>(&open, "a", 8);
    let store = open();
    for _ in 0..20 {
        note::<Plain>(&store, "a", 2_000);
    }
    store.close(LONG).unwrap();
    let segment = files(&disk, "/scrubbed/log", ".seg").remove(2);
    disk.flip_bit(&segment, 4_096 + 60, 3).unwrap();
    let store = on(&disk).scrub(1 << 40).open(place).unwrap();
    until("a pass", || !told(place, "scrubbed").is_empty());
    let found = one(place, "scrub found");
    let finding = &store.findings()[0];
    assert_eq!(field(&found, "file"), segment.display().to_string());
    assert_eq!(number(&found, "offset"), finding.offset);
    assert_eq!(number(&found, "lsn"), finding.lsns.start);
    assert_eq!(field(&found, "severity"), "loss");
    drop(store);
}

/// It cannot even list the files.
fn a_scrub_that_fails() {
    let place = "/unscrubbed";
    let disk = disk(13);
    let open = || on(&disk).open(place).unwrap();
    fill::<Plain>(&open, "a", 2);
    // How often an open lists the log's folder.
    let counted = disk.fork();
    counted.clear_log();
    counted.record(true);
    let store = on(&counted).open(place).unwrap();
    let lists = |call: &annals::disk::sim::Call| {
        call.op == Op::List && call.path.ends_with("unscrubbed/log")
    };
    let count = counted.log().iter().filter(|call| lists(call)).count();
    drop(store);
    let fault = Fault::new(Failure::Io).on(Op::List).at_path("/unscrubbed/log");
    disk.fail(fault.after(count as u64).for_ever());
    let store = on(&disk).scrub(1 << 40).open(place).unwrap();
    until("it fails", || !told(place, "scrub failed").is_empty());
    drop(store);
}

/// More is appended than the ring takes.
fn a_small_ring() {
    let place = "/small-ring";
    let disk = disk(14);
    let store = on(&disk).open(place).unwrap();
    for _ in 0..20 {
        note::<Loose>(&store, "a", 3_000);
    }
    drop(store);
    // Once, though it happened again and again.
    let waited = one(place, "appends waited");
    assert_eq!(number(&waited, "ring_full") + number(&waited, "lag_waits"), 1);
}

/// The same actors by a program that has changed their snapshots: it is read by their events.
#[test]
fn a_snapshot_of_another_version_is_told_with_the_actor_it_is_of() {
    crate::hear::listen();
    let disk = disk(15);
    let store = on(&disk).open("/versions").unwrap();
    for number in 1..=4 {
        note::<Often>(&store, "versions", 100);
        until("a snapshot", || store.stats().snapshots.saved == number / 2);
    }
    store.close(LONG).unwrap();
    let store = on(&disk).open("/versions").unwrap();
    assert_eq!(store.actor::<OftenLater>("versions").unwrap().ask(Count).unwrap(), 4);
    let mut unread = told("often", "snapshot unreadable");
    unread.retain(|it| field(it, "name") == "versions");
    let seqs: Vec<_> = unread.iter().map(|it| number(it, "seq")).collect();
    assert_eq!(seqs, [4, 2], "newest first");
    drop(store);
}
