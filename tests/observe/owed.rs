//! What may become of what actors owe: handlers that fail, processes that end in the midst, logs
//! that cannot be read. As in `scenes`.

use std::num::NonZeroU32;
use std::time::Duration;

use annals::actor::Supervision;
use annals::disk::sim::SimDisk;
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::types::HybridTime;
use annals::{
    Actor, ActorOptions, Begin, Durability, Durable, Filter, Handle, Retain, Seq, SnapshotPolicy,
    Step, StepContext, Stepped, Store, Turn,
};

use crate::actors::{Count, Fall, Leave, Note, Noted, Save, disk, files, kind, on, until};
use crate::hear::{Heard, heard};
use crate::scenes::{LONG, field, number, one, told};

/// All of them.
pub(crate) const ALL: [(&str, fn()); 8] = [
    ("a message that ends the process", a_message_that_ends_the_process),
    ("a late timer and a step in doubt", a_late_timer_and_a_step_in_doubt),
    ("an actor that rests", an_actor_that_rests),
    ("a past that is gone", a_past_that_is_gone),
    ("a log that cannot be read", a_log_that_cannot_be_read),
    ("steps that end", steps_that_end),
    ("an actor that goes back", an_actor_that_goes_back),
    ("those who follow", those_who_follow),
];

kind!(Debtor, "debtor", 1, ActorOptions::new().command::<Later>());
kind!(
    Worker,
    "worker",
    1,
    ActorOptions::new().command::<Later>().command::<Stumble>().step::<Dig>().step::<Scratch>()
);
kind!(
    Forgetful,
    "forgetful",
    1,
    ActorOptions::new().command::<Later>().snapshots(1, SnapshotPolicy::every(2))
);
kind!(
    Weary,
    "weary",
    1,
    ActorOptions::new().supervise(Supervision {
        failures_max: NonZeroU32::new(2),
        backoff_min: Duration::from_millis(1),
        ..Supervision::default()
    })
);

/// A durable command that works.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Later(u64);

impl Durable for Later {
    const NAME: &'static str = "later";
}

/// And one that does not.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Stumble(u64);

impl Durable for Stumble {
    const NAME: &'static str = "stumble";
}

/// A step that has no end in this process.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Dig(u64);

impl Durable for Dig {
    const NAME: &'static str = "dig";
}

impl Step for Dig {
    type Output = ();
    fn run(&self, _: &StepContext) {
        until("the scene is over", || !told("/late", "closed").is_empty());
    }
}

/// A step that ends, well or not.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Scratch(bool);

impl Durable for Scratch {
    const NAME: &'static str = "scratch";
}

impl Step for Scratch {
    type Output = ();
    fn run(&self, _: &StepContext) {
        assert!(self.0, "it does not end well");
    }
}

impl Handle<Stepped<Scratch>> for Worker {
    type Reply = ();
    fn handle(_: Stepped<Scratch>, turn: &mut Turn<'_, Self>) {
        turn.emit(Noted { padding: vec![2] });
    }
}

/// Goes back to the first event.
struct Back;

impl Handle<Back> for Worker {
    type Reply = ();
    fn handle(_: Back, turn: &mut Turn<'_, Self>) {
        turn.rewind(Seq::new(1).unwrap()).unwrap();
    }
}

macro_rules! takes_later {
    ($($Kind:ident)+) => {$(
        impl Handle<Later> for $Kind {
            type Reply = ();
            fn handle(_: Later, turn: &mut Turn<'_, Self>) {
                turn.emit(Noted { padding: Vec::new() });
            }
        }
    )+};
}
takes_later!(Debtor Worker Forgetful);

impl Handle<Stumble> for Worker {
    type Reply = ();
    fn handle(_: Stumble, _: &mut Turn<'_, Self>) {
        panic!("it stumbles, as it always does");
    }
}

impl Handle<Stepped<Dig>> for Worker {
    type Reply = ();
    fn handle(_: Stepped<Dig>, turn: &mut Turn<'_, Self>) {
        turn.emit(Noted { padding: vec![1] });
    }
}

/// Has a debtor owe a worker, or the forgetful one, something.
enum Owe {
    Stumble,
    Forgetful,
}

impl Handle<Owe> for Debtor {
    type Reply = ();
    fn handle(owe: Owe, turn: &mut Turn<'_, Self>) {
        let sent = match owe {
            Owe::Stumble => {
                let worker = turn.actor::<Worker>("w").unwrap();
                turn.send(&worker, Stumble(1)).is_ok()
            }
            Owe::Forgetful => {
                let forgetful = turn.actor::<Forgetful>("f").unwrap();
                turn.send(&forgetful, Later(1)).is_ok()
            }
        };
        assert!(sent);
    }
}

/// Arms a timer that should have rung long ago, or begins to dig.
enum Begun {
    Late,
    Dig,
    Scratch(bool),
}

impl Handle<Begun> for Worker {
    type Reply = ();
    fn handle(begin: Begun, turn: &mut Turn<'_, Self>) {
        match begin {
            Begun::Late => turn.wake_at("alarm", HybridTime::from_millis(1), &Later(2)),
            Begun::Dig => turn.step("hole", Dig(3)),
            Begun::Scratch(well) => turn.step("itch", Scratch(well)),
        }
    }
}

/// Of what is owed, all that was told of an actor, or of one thing by its name.
fn of(name: &str, key: &str, value: &str) -> Vec<Heard> {
    let is = |it: &Heard| it.name == name && it.fields.get(key).is_some_and(|its| its == value);
    heard().into_iter().filter(is).collect()
}

/// Three lives end while they try, the fourth sets it aside; released, it is tried so often as it
/// may be.
fn a_message_that_ends_the_process() {
    let place = "/stumbles";
    let mut disk = disk(30);
    let open = |disk: &SimDisk| on(disk).actor::<Debtor>().actor::<Worker>().open(place).unwrap();
    let store = open(&disk);
    let debtor = store.actor::<Debtor>("d").unwrap();
    debtor.ask(Owe::Stumble).unwrap();
    let owed = format!("{}#1", debtor.id());
    until("it fails", || !of("owed retried", "owed", &owed).is_empty());
    let retried = &of("owed retried", "owed", &owed)[0];
    assert_eq!((field(retried, "kind"), field(retried, "name")), ("worker", "w"));
    assert!(field(retried, "error").contains("stumbles"), "{retried:?}");
    for life in 0..4 {
        assert!(of("owed quarantined", "owed", &owed).is_empty(), "in life {life}");
        disk = disk.kill();
        let store = open(&disk);
        let recovery = store.wait_recovered(LONG);
        assert_eq!(recovery.interrupted, 1);
    }
    let quarantined = of("owed quarantined", "owed", &owed);
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    assert_eq!(number(&quarantined[0], "tries"), 3);
    assert!(of("owed given up", "owed", &owed).is_empty());
    disk = disk.kill();
    let last = open(&disk);
    let recovery = last.wait_recovered(LONG);
    assert!(last.runtime().release(recovery.quarantined[0]).unwrap());
    assert_eq!(of("owed released", "owed", &owed).len(), 1);
    until("it is given up", || !of("owed given up", "owed", &owed).is_empty());
    let given_up = &of("owed given up", "owed", &owed)[0];
    assert_eq!(number(given_up, "failures"), 5);
    until("a dead letter", || !told("worker", "dead letter").is_empty());
    let done = heard().into_iter().filter(|it| it.name == "owed resumed");
    assert!(done.clone().any(|it| number(&it, "quarantined") == 1));
    assert!(done.clone().any(|it| number(&it, "resumed") == 1));
    let read = heard().into_iter().filter(|it| it.name == "owed read");
    assert!(read.clone().any(|it| field(&it, "start") == "checkpoint"));
    last.close(LONG).unwrap();
    drop(store);
}

/// A timer that was due in 1970, and a process that ends while a step runs.
fn a_late_timer_and_a_step_in_doubt() {
    let place = "/late";
    let before = disk(31);
    let store = on(&before).open(place).unwrap();
    let worker = store.actor::<Worker>("late").unwrap();
    worker.ask(Begun::Late).unwrap();
    until("it rings", || !of("timer late", "name", "late").is_empty());
    let late = &of("timer late", "name", "late")[0];
    assert_eq!(field(late, "owed"), format!("{}#1", worker.id()));
    assert!(number(late, "late_ms") > 1_000_000_000_000, "{late:?}");
    worker.ask(Begun::Dig).unwrap();
    let after = before.kill();
    let next = on(&after).actor::<Worker>().open(place).unwrap();
    until("it is in doubt", || !of("step in doubt", "name", "late").is_empty());
    let doubt = &of("step in doubt", "name", "late")[0];
    assert_eq!((field(doubt, "kind"), field(doubt, "key")), ("worker", "hole"));
    next.close(LONG).unwrap();
    drop(store);
}

/// Twice, and not again.
fn an_actor_that_rests() {
    let disk = disk(32);
    let store = on(&disk).open("/weary").unwrap();
    let weary = store.actor::<Weary>("w").unwrap();
    weary.ask(Fall).unwrap_err();
    let resting = one("weary", "actor resting");
    assert_eq!(number(&resting, "failures"), 1);
    assert!((500..=1_000).contains(&number(&resting, "rest_us")), "{resting:?}");
    until("it has rested", || weary.ask(Count).is_ok());
    weary.ask(Fall).unwrap_err();
    until("it rests again", || {
        let _either = weary.ask(Fall);
        !told("weary", "actor given up").is_empty()
    });
    assert_eq!(number(&one("weary", "actor given up"), "failures"), 2);
    store.close(LONG).unwrap();
}

/// A message was handled, but what says so was dropped, and so is every checkpoint.
fn a_past_that_is_gone() {
    let place = "/gone";
    let disk = disk(33);
    let open = || {
        on(&disk)
            .retain(Retain::UntilSnapshot)
            .actor::<Debtor>()
            .actor::<Forgetful>()
            .open(place)
            .unwrap()
    };
    for life in 0..20 {
        let store = open();
        // Not in its first frame, which stays for the name.
        if life == 1 {
            store.actor::<Debtor>("d").unwrap().ask(Owe::Forgetful).unwrap();
        }
        let forgetful = store.actor::<Forgetful>("f").unwrap();
        for _ in 0..2 {
            forgetful.ask(Note(2_500)).unwrap();
        }
        until("a snapshot", || store.stats().snapshots.saved > 0);
        store.close(LONG).unwrap();
    }
    let store = open();
    store.actor::<Forgetful>("f").unwrap().ask(Count).unwrap();
    assert!(store.compact().unwrap().events_dropped > 0);
    let owed = format!("{}#1", store.actor::<Debtor>("d").unwrap().id());
    store.close(LONG).unwrap();
    assert!(of("owed in doubt", "owed", &owed).is_empty());
    let checkpoints = files(&disk, place, "").into_iter();
    for path in checkpoints.filter(|path| path.to_string_lossy().contains("ckpt-")) {
        disk.delete(&path).unwrap();
    }
    let store = open();
    let recovery = store.wait_recovered(LONG);
    assert_eq!(recovery.in_doubt.len(), 1, "{recovery:?}");
    let book = crate::numbers::Book::default();
    crate::numbers::publish(&store, &book);
    assert!((book.gauge("annals_recovery_in_doubt", &[]) - 1.0).abs() < 0.5);
    assert!((book.gauge("annals_owed_set_aside", &[]) - 1.0).abs() < 0.5);
    assert_eq!(of("owed in doubt", "owed", &owed).len(), 1);
    store.close(LONG).unwrap();
}

/// A sealed segment is not what it was, and no checkpoint says what was owed.
fn a_log_that_cannot_be_read() {
    let place = "/unread";
    let disk = disk(34);
    let open = || on(&disk).open(place).unwrap();
    for _ in 0..8 {
        let store = open();
        let debtor = store.actor::<Debtor>("d").unwrap();
        for _ in 0..3 {
            debtor.ask(Note(2_000)).unwrap();
        }
        store.close(LONG).unwrap();
    }
    for path in files(&disk, place, "") {
        if path.to_string_lossy().contains("ckpt-") {
            disk.damage(&path, |bytes| {
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
            })
            .unwrap();
        }
    }
    let segment = files(&disk, "/unread/log", ".seg").remove(2);
    disk.flip_bit(&segment, 4_096 + 60, 3).unwrap();
    let store = open();
    let recovery = store.wait_recovered(LONG);
    let failure = recovery.failure.expect("it cannot be read").to_string();
    let unread = of("owed not read", "error", &failure);
    assert_eq!(unread.len(), 1, "{unread:?}");
    drop::<Store>(store);
}

/// One as it should, one by a panic.
fn steps_that_end() {
    let disk = disk(35);
    let store = on(&disk).open("/steps").unwrap();
    let worker = store.actor::<Worker>("stepper").unwrap();
    for (well, number) in [(true, 1), (false, 2)] {
        worker.ask(Begun::Scratch(well)).unwrap();
        until("it comes back", || worker.ask(Count).unwrap() == number);
    }
    let (begun, ended) = (of("step begun", "name", "stepper"), of("step ended", "name", "stepper"));
    for told in [&begun, &ended] {
        let owed: Vec<_> = told.iter().map(|it| field(it, "owed")).collect();
        assert_eq!(owed, [1, 2].map(|number| format!("{}#{number}", worker.id())));
        assert!(told.iter().all(|it| field(it, "key") == "itch" && field(it, "kind") == "worker"));
    }
    let panicked: Vec<_> = ended.iter().map(|it| field(it, "panicked")).collect();
    assert_eq!(panicked, ["false", "true"]);
    drop(store);
}

fn an_actor_that_goes_back() {
    let disk = disk(36);
    let store = on(&disk).open("/back").unwrap();
    let worker = store.actor::<Worker>("back").unwrap();
    for _ in 0..3 {
        worker.ask(Note(1)).unwrap();
    }
    assert!(of("actor rewound", "name", "back").is_empty());
    worker.ask(Back).unwrap();
    let rewound = of("actor rewound", "name", "back");
    assert_eq!(rewound.len(), 1);
    assert_eq!((number(&rewound[0], "seq"), number(&rewound[0], "to")), (4, 1));
    assert_eq!(worker.ask(Count).unwrap(), 1);
    drop(store);
}

/// A cursor comes and goes; who had seen everything does not look for 17 MiB.
fn those_who_follow() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let store = Store::options().durability(Durability::Process).open(folder.path()).unwrap();
    let cursor = store.cursor("mailer").unwrap();
    let mut all = store.subscribe_written(Filter::all(), Begin::Now).unwrap().keep(&cursor);
    let plain = store.actor::<Debtor>("d").unwrap();
    let behind = || told(&place, "subscription behind");
    for round in 1..=2 {
        while all.next(Duration::ZERO).unwrap().is_some() {}
        for _ in 0..17 {
            plain.ask(Note(1 << 20)).unwrap();
        }
        assert_eq!(behind().len(), round - 1);
        // Once, though there is much to read.
        for _ in 0..3 {
            all.next(Duration::ZERO).unwrap().unwrap();
        }
        assert_eq!(behind().len(), round);
    }
    let told_behind = &behind()[0];
    assert_eq!((field(told_behind, "filter"), field(told_behind, "cursor")), ("all", "mailer"));
    assert!(number(told_behind, "lsn_end") - number(told_behind, "lsn") > 16 << 20);
    all.ack().unwrap();
    let saved = one(&place, "cursor saved");
    assert_eq!(field(&saved, "cursor"), "mailer");
    assert_eq!(field(&saved, "position"), all.position().to_string());
    drop(all);
    assert!(store.delete_cursor("mailer").unwrap());
    assert!(!store.delete_cursor("mailer").unwrap());
    assert_eq!(field(&one(&place, "cursor deleted"), "cursor"), "mailer");
    drop(store);
}
