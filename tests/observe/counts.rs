//! The numbers of what actors owe and of those who follow: each moves when the thing happens.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::actor::Supervision;
use annals::disk::sim::{Failure, Fault, Op, SimDisk};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::types::HybridTime;
use annals::{
    Actor, ActorOptions, Begin, CommandId, Durability, Durable, Filter, Handle, Missed,
    Persistence, RuntimeOptions, Step, StepContext, Stepped, Store, StoreOptions, Turn,
};

use crate::actors::{Count, Fall, Leave, Note, Noted, Save, disk, kind, on, until};
use crate::numbers::{Book, publish};
use crate::scenes::LONG;

kind!(
    Clerk,
    "clerk",
    1,
    ActorOptions::new().command::<Later>().command::<Stumble>().command::<Dated>().step::<Dig>()
);
kind!(
    Gatherer,
    "gatherer",
    1,
    ActorOptions::new()
        .persistence(Persistence::Every(4))
        .supervise(Supervision { failures_max: NonZeroU32::new(9), ..Supervision::default() })
);

/// A durable command that is admitted once the clerk has an event.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Later(u64);

impl Durable for Later {
    const NAME: &'static str = "later";
}

impl Handle<Later> for Clerk {
    type Reply = ();
    fn handle(_: Later, turn: &mut Turn<'_, Self>) {
        turn.emit(Noted { padding: Vec::new() });
        HOLD.pass();
    }
    fn admits(_: &Later, clerk: &Self) -> bool {
        clerk.count > 0
    }
}

/// One that does not work.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Stumble(u64);

impl Durable for Stumble {
    const NAME: &'static str = "stumble";
}

impl Handle<Stumble> for Clerk {
    type Reply = ();
    fn handle(_: Stumble, _: &mut Turn<'_, Self>) {
        panic!("it stumbles, as it always does");
    }
}

/// What a timer brings.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Dated(u64);

impl Durable for Dated {
    const NAME: &'static str = "dated";
}

impl Handle<Dated> for Clerk {
    type Reply = ();
    fn handle(_: Dated, _: &mut Turn<'_, Self>) {}
}

/// A step: how it ends.
#[derive(Clone, Copy, Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
enum Dig {
    Well,
    Badly,
    Never,
}

impl Durable for Dig {
    const NAME: &'static str = "dig";
}

impl Step for Dig {
    type Output = ();
    fn run(&self, _: &StepContext) {
        match self {
            Self::Well => {}
            Self::Badly => panic!("the spade breaks"),
            Self::Never => until("nobody waits for it any more", || OVER.load(Ordering::Acquire)),
        }
    }
}

impl Handle<Stepped<Dig>> for Clerk {
    type Reply = ();
    fn handle(_: Stepped<Dig>, _: &mut Turn<'_, Self>) {}
}

/// The step that does not end may.
static OVER: AtomicBool = AtomicBool::new(false);

/// A door that handlers stand before.
struct Hold(AtomicBool);
static HOLD: Hold = Hold(AtomicBool::new(false));

impl Hold {
    fn pass(&self) {
        until("the door opens", || !self.0.load(Ordering::Acquire));
    }
}

/// What the clerk is to do.
#[derive(Clone, Copy)]
enum Do {
    Send,
    SendStumble,
    Arm,
    ArmDue,
    ArmMissed,
    Cancel,
    Dig(Dig),
    Outside,
    Unstash,
}

impl Handle<Do> for Clerk {
    type Reply = u64;
    fn handle(wish: Do, turn: &mut Turn<'_, Self>) -> u64 {
        let (past, day) = (HybridTime::from_millis(1), Duration::from_hours(24));
        match wish {
            Do::Send | Do::SendStumble => {
                let other = turn.actor::<Self>("other").unwrap();
                let sent = match wish {
                    Do::Send => turn.send(&other, Later(1)).is_ok(),
                    _ => turn.send(&other, Stumble(1)).is_ok(),
                };
                assert!(sent);
            }
            Do::Arm => turn.wake_after("alarm", day, &Dated(1)),
            Do::ArmDue => turn.wake_at("now", past, &Dated(2)),
            Do::ArmMissed => turn.remind("alarm", (past, day), Missed::Skip, &Dated(3)),
            Do::Cancel => assert!(turn.cancel("alarm")),
            Do::Dig(dig) => turn.step("hole", dig),
            Do::Outside => turn.outside("mail", &Later(4)),
            Do::Unstash => {
                turn.emit(Noted { padding: Vec::new() });
                turn.unstash();
            }
        }
        7
    }
}

/// A store whose numbers are looked at.
struct Seen<'a> {
    store: &'a Store,
    book: &'a Book,
    moved: BTreeSet<&'static str>,
}

impl Seen<'_> {
    fn value(&self, name: &str) -> u64 {
        publish(self.store, self.book);
        let name = format!("annals_{name}");
        if name.ends_with("_total") {
            return self.book.counter(&name, &[]);
        }
        let value = self.book.gauge(&name, &[]);
        (0..u64::MAX).find(|number| *number >= 1 << 40 || exact(*number) >= value).unwrap()
    }

    /// After `act` each of these is by so much more than before, or less.
    #[track_caller]
    fn moves(&mut self, by: &[(&'static str, i64)], act: impl FnOnce()) {
        let before: Vec<_> = by.iter().map(|(name, _)| self.value(name)).collect();
        act();
        for ((name, by), before) in by.iter().zip(before) {
            let expected = before.checked_add_signed(*by).unwrap();
            until(name, || self.value(name) == expected);
            self.moved.insert(name);
        }
    }
}

/// Small.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn exact(number: u64) -> f64 {
    number as f64
}

fn options(disk: &SimDisk) -> StoreOptions {
    on(disk).attempts_max(2).actor::<Clerk>()
}

#[test]
fn every_number_of_what_is_owed_moves_when_it_happens() {
    let (mut disk, book) = (disk(50), Book::default());
    let store = options(&disk).open("/owed").unwrap();
    let mut seen = Seen { store: &store, book: &book, moved: BTreeSet::new() };
    let clerk = store.actor::<Clerk>("c").unwrap();
    let wish = |wish: Do| assert_eq!(clerk.ask(wish).unwrap(), 7);

    // Not admitted at first, and then it is.
    seen.moves(
        &[("messages_sent_total", 1), ("owed_messages", 1), ("commands_stashed", 1)],
        || {
            wish(Do::Send);
        },
    );
    seen.moves(
        &[("messages_handled_total", 1), ("owed_messages", -1), ("commands_stashed", -1)],
        || assert_eq!(store.actor::<Clerk>("other").unwrap().ask(Do::Unstash).unwrap(), 7),
    );
    seen.moves(
        &[("owed_retried_total", 1), ("owed_given_up_total", 1), ("dead_letters_total", 1)],
        || wish(Do::SendStumble),
    );
    seen.moves(&[("timers_armed_total", 1), ("owed_timers", 1)], || wish(Do::Arm));
    seen.moves(&[("owed_timers", -1)], || wish(Do::Cancel));
    seen.moves(&[("timers_fired_total", 1), ("timers_passed_over_total", 0)], || {
        wish(Do::ArmDue);
    });
    let late = book.samples("annals_timer_late_seconds", &[("kind", "clerk")]);
    assert!(late.len() == 1 && late[0] > 1e9, "due in 1970: {late:?}");
    seen.moves(&[("timers_passed_over_total", 1), ("timers_fired_total", 0)], || {
        wish(Do::ArmMissed);
    });
    seen.moves(&[("steps_begun_total", 1), ("steps_done_total", 1)], || wish(Do::Dig(Dig::Well)));
    seen.moves(&[("steps_panicked_total", 1)], || wish(Do::Dig(Dig::Badly)));
    seen.moves(&[("owed_steps", 1)], || wish(Do::Dig(Dig::Never)));
    seen.moves(&[("outside_messages_total", 1)], || wish(Do::Outside));
    let id = CommandId::of("once");
    assert_eq!(clerk.ask_once(id, Do::Unstash).unwrap(), 7);
    seen.moves(&[("answered_again_total", 1)], || {
        assert_eq!(clerk.ask_once(id, Do::Unstash).unwrap(), 7);
    });
    // The last of four takes the three before it along.
    let gatherer = store.actor::<Gatherer>("g").unwrap();
    seen.moves(&[("deferred_turns_total", 3), ("deferred_frames_total", 1)], || {
        (0..4).for_each(|_| gatherer.tell(Note(10)).unwrap());
    });
    let (owed, actors) = (store.stats().owed, store.stats().actors);
    assert_eq!((owed.messages, owed.timers, owed.steps), (0, 1, 1));
    assert_eq!((owed.sent, owed.handled, owed.given_up), (2, 1, 1));
    assert_eq!((actors.gathered_turns, actors.answered_again, actors.stashed), (3, 1, 0));
    assert_eq!(seen.value("deferred_turns_lost_total"), 0);
    // Two more, of which the process sees no end.
    HOLD.0.store(true, Ordering::Release);
    let other = store.actor::<Clerk>("third").unwrap();
    other.ask(Note(1)).unwrap();
    wish(Do::Send);
    wish(Do::Send);
    let mut moved = std::mem::take(&mut seen.moved);
    disk = disk.kill();

    let runtime = RuntimeOptions { resume_max: 1, ..RuntimeOptions::default() };
    let next = options(&disk).runtime(runtime).open("/owed").unwrap();
    let (store_before, second) = (store, Book::default());
    let mut seen = Seen { store: &next, book: &second, moved: BTreeSet::new() };
    until("it waits for the first of them", || seen.value("recovery_remaining") > 0);
    HOLD.0.store(false, Ordering::Release);
    let recovery = next.wait_recovered(LONG);
    assert_eq!(recovery.unknown_kinds, [""; 0]);
    // The step and the messages; the reminder is due tomorrow.
    for (name, expected) in [
        ("recovery_interrupted", 3),
        ("recovery_actors", 1),
        ("recovery_remaining", 0),
        ("recovery_frames", recovery.frames),
        ("recovery_bytes", recovery.bytes),
        ("recovery_bytes_of", recovery.bytes_total),
        ("steps_in_doubt_total", 1),
        ("messages_handled_total", 2),
    ] {
        until(name, || seen.value(name) == expected);
        seen.moved.insert(name);
    }
    assert!(recovery.frames > 5 && recovery.bytes > 500, "{recovery:?}");
    moved.append(&mut seen.moved);
    OVER.store(true, Ordering::Release);
    for name in new_names() {
        let elsewhere = ["unknown", "quarantined", "unclaimed", "set_aside", "in_doubt", "lost"];
        let here = moved.contains(&*name) || elsewhere.iter().any(|part| name.contains(part));
        assert!(here || of_followers(&name), "{name} has not moved");
    }
    next.close(LONG).unwrap();
    drop(store_before);
}

fn of_followers(name: &str) -> bool {
    ["cursor", "subscription"].iter().any(|part| name.starts_with(part))
}

/// Those of the table that this file is about.
fn new_names() -> Vec<String> {
    let rows = crate::table::rows("Numbers");
    let parts = ["owed", "messages", "outside", "timers", "steps", "answered", "deferred"];
    let more = ["commands_stashed", "subscription", "cursor", "recovery"];
    let names = rows.into_keys().map(|name| name.replacen("annals_", "", 1));
    let is_one = |name: &String| parts.iter().chain(&more).any(|part| name.starts_with(part));
    let names: Vec<_> = names.filter(is_one).collect();
    assert!(names.len() > 30, "{names:?}");
    names
}

/// A process that does not know the kind, and one that has tried too often.
#[test]
fn what_nobody_takes_up_is_a_number_and_is_told_loudly() {
    crate::hear::listen();
    let (disk, book) = (disk(51), Book::default());
    let store = options(&disk).open("/unclaimed").unwrap();
    let clerk = store.actor::<Clerk>("c").unwrap();
    clerk.ask(Do::Send).unwrap();
    let after = disk.kill();
    let next = on(&after).open("/unclaimed").unwrap();
    let recovery = next.wait_recovered(LONG);
    assert_eq!((recovery.unknown, &*recovery.unknown_kinds), (1, &["clerk".to_owned()][..]));
    let seen = Seen { store: &next, book: &book, moved: BTreeSet::new() };
    assert_eq!((seen.value("recovery_unknown"), seen.value("owed_unclaimed")), (1, 1));
    let told = crate::scenes::one("/unclaimed", "owed unclaimed");
    assert_eq!(crate::scenes::field(&told, "kind"), "clerk");
    assert_eq!(crate::scenes::number(&told, "count"), 1);
    // Asked for, it is taken up; and waits in the stash.
    next.actor::<Clerk>("other").unwrap();
    until("it is with its actor", || seen.value("commands_stashed") == 1);
    assert_eq!(seen.value("owed_unclaimed"), 0);
    let last = after.kill();
    let runtime = RuntimeOptions { resume_tries: 0, ..RuntimeOptions::default() };
    let third = options(&last).runtime(runtime).open("/unclaimed").unwrap();
    third.wait_recovered(LONG);
    let seen = Seen { store: &third, book: &book, moved: BTreeSet::new() };
    assert_eq!((seen.value("recovery_quarantined"), seen.value("owed_set_aside")), (1, 1));
    assert_eq!(third.stats().owed.set_aside, 1);
    drop((third, next, store));
}

/// The disk fails while turns wait for the next.
#[test]
fn deferred_turns_that_the_disk_does_not_take_are_counted_and_told() {
    crate::hear::listen();
    let (disk, book) = (disk(52), Book::default());
    let store = on(&disk).durability(Durability::Process).open("/lost").unwrap();
    let gatherer = store.actor::<Gatherer>("lost").unwrap();
    gatherer.tell(Note(10)).unwrap();
    gatherer.tell(Note(10)).unwrap();
    until("they are handled", || gatherer.peek(|it| it.count).unwrap().value == 2);
    disk.fail(Fault::new(Failure::Io).on(Op::SyncData).at_path("/lost/log").for_ever());
    store.sync().unwrap_err();
    // The state goes with what cannot be appended, and they with it.
    gatherer.ask(Note(10)).unwrap_err();
    let seen = Seen { store: &store, book: &book, moved: BTreeSet::new() };
    until("they are lost", || seen.value("deferred_turns_lost_total") == 2);
    let told = crate::scenes::one("gatherer", "deferred turns lost");
    let number = |field| crate::scenes::number(&told, field);
    assert_eq!((number("seq"), number("turns")), (1, 2));
    assert_eq!(store.stats().actors.lost_turns, 2);
    drop(store);
}

#[test]
fn every_number_of_those_who_follow_moves_when_it_happens() {
    let (disk, book) = (disk(53), Book::default());
    let store = on(&disk).open("/followed").unwrap();
    let mut seen = Seen { store: &store, book: &book, moved: BTreeSet::new() };
    let clerk = store.actor::<Clerk>("c").unwrap();
    let mut opened = Vec::new();
    seen.moves(&[("subscriptions", 2)], || {
        opened.push(store.subscribe(Filter::all(), Begin::Now).unwrap());
        opened.push(store.subscribe(Filter::actor("clerk", "nobody"), Begin::Now).unwrap());
    });
    let follow =
        |it: &mut annals::Subscription| while it.next(Duration::ZERO).unwrap().is_some() {};
    opened.iter_mut().for_each(follow);
    assert_eq!(seen.value("subscription_lag_bytes"), 0);
    clerk.ask(Note(1_000)).unwrap();
    assert!(seen.value("subscription_lag_bytes") >= 1_000);
    opened.iter_mut().for_each(follow);
    assert_eq!(seen.value("subscription_lag_bytes"), 0, "also where there was nothing for it");
    // Nor does who waits fall behind, because others have something to say.
    let mut waiting = opened.pop().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| waiting.next(Duration::from_secs(1)).unwrap().is_none());
        for _ in 0..5 {
            clerk.ask(Note(1_000)).unwrap();
        }
        follow(&mut opened[0]);
        until("it waits", || seen.value("subscription_lag_bytes") == 0);
        assert!(waiter.join().unwrap());
    });
    assert_eq!(seen.value("subscription_lag_bytes"), 0);
    seen.moves(&[("subscriptions", -1)], || drop(waiting));
    assert_eq!(store.stats().subscriptions.open, 1);

    let cursor = store.cursor("mailer").unwrap();
    let lag = || {
        publish(&store, &book);
        book.gauge("annals_cursor_lag_bytes", &[("cursor", "mailer")])
    };
    seen.moves(&[("cursors", 1), ("cursors_saved_total", 1)], || {
        cursor.save(opened[0].position()).unwrap();
    });
    let before = lag();
    clerk.ask(Note(1_000)).unwrap();
    assert!(lag() >= before + 1_000.0, "{before}");
    assert!(exact(store.stats().cursors.lag_bytes) >= before + 1_000.0);
    // In the next life it is there before anybody asks for it.
    drop((opened, clerk, cursor));
    store.close(LONG).unwrap();
    let store = on(&disk).open("/followed").unwrap();
    let lag = || {
        publish(&store, &book);
        book.gauge("annals_cursor_lag_bytes", &[("cursor", "mailer")])
    };
    assert!(lag() >= before + 1_000.0);
    let mut seen = Seen { store: &store, book: &book, moved: BTreeSet::new() };
    seen.moves(&[("cursors", -1), ("cursors_deleted_total", 1)], || {
        assert!(store.delete_cursor("mailer").unwrap());
    });
    assert!(lag() < 0.5);
}
