//! What is owed and where cursors are, listed: from inside and from outside it is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::disk::sim::{Random, SimDisk};
use annals::log::frame::RecordKind;
use annals::log::{Seen, name};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::time::{Clock, ManualClock};
use annals::{
    Actor, ActorName, ActorOptions, Addr, Debt, Durable, Handle, HybridTime, Missed, Noted, Owed,
    Position, Retain, SnapshotPolicy, Step, StepContext, Stepped, Store, StoreOptions, Turn, View,
};

use crate::support::{Replay, disk, scaled, seeds};

const LONG: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_hours(1);

/// Holds up what it is sent until it is opened.
#[derive(Default, Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Desk {
    open: bool,
    padding: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
enum Event {
    Opened(bool),
    Padded(Vec<u8>),
}

impl Actor for Desk {
    type Event = Event;
    const KIND: &'static str = "desk";
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Opened(open) => self.open = *open,
            Event::Padded(padding) => self.padding.clone_from(padding),
        }
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new()
            .command::<Letter>()
            .command::<Reminder>()
            .step::<Walk>()
            .snapshots(1, SnapshotPolicy::every(5))
    }
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Letter(u64);

impl Durable for Letter {
    const NAME: &'static str = "letter";
}

impl Handle<Letter> for Desk {
    type Reply = ();
    fn handle(_: Letter, _: &mut Turn<'_, Self>) {}
    fn admits(_: &Letter, desk: &Self) -> bool {
        desk.open
    }
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Reminder;

impl Durable for Reminder {
    const NAME: &'static str = "reminder";
}

impl Handle<Reminder> for Desk {
    type Reply = ();
    fn handle(_: Reminder, _: &mut Turn<'_, Self>) {}
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Walk;

static ARRIVED: AtomicBool = AtomicBool::new(false);

impl Durable for Walk {
    const NAME: &'static str = "walk";
}

impl Step for Walk {
    type Output = ();
    fn run(&self, _: &StepContext) {
        while !ARRIVED.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }
}

impl Handle<Stepped<Walk>> for Desk {
    type Reply = ();
    fn handle(_: Stepped<Walk>, _: &mut Turn<'_, Self>) {}
}

enum Do {
    Send(String),
    Arm(String, Duration),
    Cancel(String),
    Walk,
    Pad(usize),
    Outside,
    /// Opens it, or closes it again.
    Open(bool),
}

impl Handle<Do> for Desk {
    type Reply = ();
    fn handle(wish: Do, turn: &mut Turn<'_, Self>) {
        match wish {
            Do::Send(name) => {
                let to = turn.actor::<Self>(&name).unwrap();
                assert!(turn.send(&to, Letter(1)).is_ok());
            }
            Do::Arm(key, every) => {
                let due = HybridTime::from_millis(turn.now().millis() + 3_600_000);
                if every.is_zero() {
                    turn.wake_at(&key, due, &Reminder);
                } else {
                    turn.remind(&key, (due, every), Missed::FireOnce, &Reminder);
                }
            }
            Do::Cancel(key) => {
                turn.cancel(&key);
            }
            Do::Walk => turn.step("to the gate", Walk),
            Do::Pad(bytes) => turn.emit(Event::Padded(vec![1; bytes])),
            Do::Outside => turn.outside("mail", &Letter(2)),
            Do::Open(open) => {
                turn.emit(Event::Opened(open));
                turn.unstash();
            }
        }
    }
}

fn options(disk: &SimDisk, clock: &Arc<ManualClock>) -> StoreOptions {
    strange(disk, clock).actor::<Desk>()
}

/// The kind is not known.
fn strange(disk: &SimDisk, clock: &Arc<ManualClock>) -> StoreOptions {
    Store::options()
        .disk(disk.handle())
        .clock(Clock::Manual(Arc::clone(clock)))
        .threads(false)
        .workers(NonZeroUsize::MIN)
        .ring_bytes(16 << 10)
        .segment_bytes(8 << 10, 16 << 10)
        .frame_bytes_max(4 << 10)
        .snapshot_bytes_max(4 << 10)
        .run_bytes_max(200 << 10)
        .retain(Retain::UntilSnapshot)
}

fn desk(store: &Store, name: &str) -> Addr<Desk> {
    store.actor::<Desk>(name).unwrap()
}

fn actor(name: &str) -> ActorName {
    ActorName { kind: "desk".to_owned(), name: name.to_owned() }
}

/// Each kind of debt, with all that is said of it, from inside and outside, open and closed.
#[test]
fn each_kind_of_debt_is_listed_with_whose_it_is_and_since_when() {
    let (disk, clock) = (disk(1), ManualClock::at_millis(1_000_000_000_000));
    clock.advance(HOUR);
    let store = options(&disk, &clock).open("/store").unwrap();
    store.wait_recovered(LONG);
    assert_eq!(store.owed(10).unwrap(), []);
    desk(&store, "a").ask(Do::Send("b".to_owned())).unwrap();
    clock.advance(Duration::from_mins(1));
    desk(&store, "b").ask(Do::Arm("noon".to_owned(), Duration::ZERO)).unwrap();
    clock.advance(Duration::from_mins(1));
    desk(&store, "a").ask(Do::Arm("daily".to_owned(), 24 * HOUR)).unwrap();
    clock.advance(Duration::from_mins(1));
    desk(&store, "c").ask(Do::Walk).unwrap();
    clock.advance(Duration::from_mins(1));
    let listed = store.owed(10).unwrap();
    let due = |owed: &Owed| Some(HybridTime::from_millis(owed.since?.millis() + 3_600_000));
    let (a, b, c) = (actor("a"), actor("b"), actor("c"));
    let whose: Vec<_> = listed.iter().map(|owed| owed.actor.clone().unwrap()).collect();
    assert_eq!(whose, [a.clone(), b.clone(), a, c]);
    let ages: Vec<_> = listed.iter().map(|owed| owed.age.as_secs()).collect();
    assert_eq!(ages, [240, 180, 120, 60]);
    let oids: Vec<_> = listed.iter().map(|owed| owed.oid.number).collect();
    assert_eq!(oids, [1, 1, 2, 1]);
    let letter = |to: &ActorName| Debt::Message { to: to.clone(), command: "letter".to_owned() };
    assert_eq!(listed[0].what, letter(&b));
    let [key, command, daily] = ["noon", "reminder", "daily"].map(str::to_owned);
    for (owed, key, every) in [(&listed[1], key, Duration::ZERO), (&listed[2], daily, 24 * HOUR)] {
        let (due, command) = (due(owed).unwrap(), command.clone());
        assert_eq!(owed.what, Debt::Timer { key, due, every, command });
    }
    let [key, step] = ["to the gate", "walk"].map(str::to_owned);
    assert_eq!(listed[3].what, Debt::Step { key, step });
    // Fewer are the oldest.
    for max in 0..4 {
        assert_eq!(store.owed(max).unwrap(), listed[..max]);
    }
    let outside = |disk: &SimDisk| options(disk, &clock).read_only("/store").unwrap();
    for max in 0..6 {
        assert_eq!(outside(&disk).owed(max).unwrap(), listed[..max.min(4)]);
    }
    // After a crash, before anybody has opened it again; and what was taken up and only waits for
    // its time is no suspect.
    let killed = disk.kill();
    assert_eq!(outside(&killed).owed(9).unwrap(), listed);
    let next = options(&killed, &clock).open("/store").unwrap();
    next.wait_recovered(LONG);
    let message = &next.owed(9).unwrap()[0];
    assert_eq!((&message.what, message.tries), (&listed[0].what, 0));
    ARRIVED.store(true, Ordering::Release);
    drop((next, store));
}

/// What is expected to be owed.
#[derive(Default)]
struct Model {
    letters: BTreeMap<String, u64>,
    timers: BTreeSet<(String, String)>,
}

fn pick(random: &mut Random, of: Range<usize>) -> String {
    format!("desk-{}", of.start + random.below(of.len()))
}

/// Lives, checkpoints, compaction, retention: what is listed from inside is what is listed from
/// outside, is what the counts say, and is what is owed.
#[test]
fn whatever_happens_a_listing_is_the_same_from_inside_and_from_outside() {
    let mut all = BTreeSet::new();
    for seed in seeds(12) {
        let _replay = Replay(seed);
        let (mut random, clock) = (Random::new(seed), ManualClock::at_millis(1_000_000_000_000));
        let mut disk = disk(seed);
        let (mut model, mut most) = (Model::default(), 0);
        for _ in 0..scaled(6) {
            let store = options(&disk, &clock).open("/store").unwrap();
            store.wait_recovered(LONG);
            for _ in 0..30 {
                act(&store, &mut model, &mut random);
                if random.once_in(6) {
                    most = most.max(compare(&store, &disk, &clock, &model));
                }
            }
            compare(&store, &disk, &clock, &model);
            if random.once_in(2) {
                store.close(LONG).unwrap();
            }
            disk = disk.kill();
        }
        let said = said(&options(&disk, &clock).read_only("/store").unwrap());
        println!("{most} at a time, {said:?}");
        all.extend(said);
    }
    for noted in ["Sent", "Handled", "Armed", "Disarmed", "Outside", "Tried"] {
        assert!(all.contains(noted), "{noted} is in no store");
    }
}

/// What the notes of a store say; each can be read by who knows whose it is.
fn said(view: &View) -> BTreeSet<String> {
    let (mut kinds, mut said) = (BTreeMap::new(), BTreeSet::new());
    let mut frames = view.frames(0);
    while let Some(Seen::Frame(frame)) = frames.next().unwrap() {
        for record in frame.records().flatten() {
            if record.kind == RecordKind::Name {
                let (kind, _) = name::decode(record.payload).unwrap();
                kinds.insert(frame.stream(), kind.to_owned());
            }
        }
        let kind = kinds.get(&frame.stream()).map_or("", |kind| kind);
        for record in frame.records().flatten().filter(|it| it.kind == RecordKind::Note) {
            let noted = format!("{:?}", Noted::read(kind, &record).unwrap());
            said.extend(noted.split(' ').next().map(str::to_owned));
        }
    }
    said
}

fn act(store: &Store, model: &mut Model, random: &mut Random) {
    let (name, key) = (pick(random, 0..4), format!("key-{}", random.below(3)));
    let one = desk(store, &name);
    match random.below(9) {
        0 | 1 => {
            // Who is open would handle it at some moment.
            let to = pick(random, 4..7);
            one.ask(Do::Send(to.clone())).unwrap();
            *model.letters.entry(to).or_default() += 1;
        }
        2 => {
            one.ask(Do::Arm(key.clone(), Duration::ZERO)).unwrap();
            model.timers.insert((name, key));
        }
        3 => {
            one.ask(Do::Arm(key.clone(), HOUR)).unwrap();
            model.timers.insert((name, key));
        }
        4 => {
            one.ask(Do::Cancel(key.clone())).unwrap();
            model.timers.remove(&(name, key));
        }
        5 => one.ask(Do::Outside).unwrap(),
        6 => {
            let to = pick(random, 4..7);
            let other = desk(store, &to);
            other.ask(Do::Open(true)).unwrap();
            other.ask(Do::Open(false)).unwrap();
            model.letters.remove(&to);
        }
        7 if random.once_in(4) => drop(store.compact().unwrap()),
        _ => one.ask(Do::Pad(1 + random.below(2_500))).unwrap(),
    }
}

fn compare(store: &Store, disk: &SimDisk, clock: &Arc<ManualClock>, model: &Model) -> usize {
    let inside = store.owed(usize::MAX).unwrap();
    let (mut letters, mut timers) = (BTreeMap::<_, u64>::new(), BTreeSet::new());
    for owed in &inside {
        match &owed.what {
            Debt::Message { to, .. } => *letters.entry(to.name.clone()).or_default() += 1,
            Debt::Timer { key, .. } => {
                assert!(timers.insert((owed.actor.clone().unwrap().name, key.clone())));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((&letters, &timers), (&model.letters, &model.timers));
    let counted = store.stats().owed;
    assert_eq!(counted.messages, model.letters.values().sum::<u64>());
    assert_eq!(counted.timers, model.timers.len() as u64);
    let view = options(disk, clock).read_only("/store").unwrap();
    assert_eq!(view.owed(usize::MAX).unwrap(), inside);
    let half = inside.len() / 2;
    assert_eq!(view.owed(half).unwrap(), inside[..half]);
    inside.len()
}

/// Set, set again, deleted, by many lives; some are not touched for long.
#[test]
fn cursors_are_where_a_view_says_they_are() {
    for seed in seeds(12) {
        let _replay = Replay(seed);
        let (mut random, clock) = (Random::new(seed), ManualClock::at_millis(1_000_000_000_000));
        let mut disk = disk(seed);
        for _ in 0..scaled(5) {
            let store = options(&disk, &clock).open("/store").unwrap();
            store.wait_recovered(LONG);
            for _ in 0..25 {
                let name = format!("cursor-{}", random.below(6).min(random.below(6)));
                match random.below(8) {
                    0 => drop(store.delete_cursor(&name).unwrap()),
                    1..4 => {
                        let written = store.log().written();
                        let at = Position::new(written * random.below(100) as u64 / 100, 0);
                        store.cursor(&name).unwrap().save(at).unwrap();
                    }
                    4 if random.once_in(5) => drop(store.compact().unwrap()),
                    _ => desk(&store, "a").ask(Do::Pad(1_500)).unwrap(),
                }
            }
            let view = options(&disk, &clock).read_only("/store").unwrap();
            let found = view.cursors().unwrap();
            let listed: BTreeMap<_, _> =
                found.iter().map(|cursor| (cursor.name.clone(), cursor.position)).collect();
            assert_eq!(listed, store.cursors().unwrap());
            assert_eq!(listed.len(), found.len());
            for cursor in &found {
                assert_eq!(cursor.lag_bytes, view.written() - cursor.position.lsn());
            }
            if random.once_in(2) {
                store.close(LONG).unwrap();
            }
            disk = disk.kill();
        }
    }
}

#[test]
fn what_waits_in_a_stash_over_many_lives_is_no_suspect() {
    let (mut disk, clock) = (SimDisk::new(77), ManualClock::at_millis(1_000_000));
    for life in 0..6 {
        // Every other life does not know the kind at all.
        let known = life % 2 == 0;
        let options = if known { options(&disk, &clock) } else { strange(&disk, &clock) };
        let store = options.open("/waiting").unwrap();
        let recovery = store.wait_recovered(LONG);
        assert_eq!(recovery.quarantined, [], "in life {life}");
        assert_eq!(recovery.unknown, u64::from(!known), "in life {life}");
        if life == 0 {
            let send = Do::Send("closed".to_owned());
            store.actor::<Desk>("sender").unwrap().ask(send).unwrap();
        }
        disk = disk.kill();
    }
    let store = options(&disk, &clock).open("/waiting").unwrap();
    assert_eq!(store.wait_recovered(LONG).resumed, 1);
    store.actor::<Desk>("closed").unwrap().ask(Do::Open(true)).unwrap();
    store.close(LONG).unwrap();
    let store = options(&disk, &clock).open("/waiting").unwrap();
    assert_eq!(store.wait_recovered(LONG).interrupted, 0, "it was handled when its time had come");
}
