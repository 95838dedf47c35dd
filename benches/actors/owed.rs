//! What outlives a crash: messages, timers, answers to commands with an id, turns that are
//! gathered; and how long it takes to take up what was interrupted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::actor::{ActorOptions, CommandId, Durable};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{Actor, Addr, Durability, Handle, Store, Turn};

use crate::account::{Account, Counted, Deposit, Gathered, Get, addresses, options};
use crate::support::table::{Row, Unit, median};
use crate::support::{Bench, FRAME_BYTES, Pair};

/// Things done in one iteration.
const TIMES: u64 = 1_000;

/// Messages that a crash has interrupted.
const INTERRUPTED: u64 = 10_000;

/// Turns between two flushes: less than may be written and not durable.
const GATHERED: u64 = 40_000;

/// Longer than any of it takes.
const LONG: Duration = Duration::from_mins(5);

/// Sends on, or gets.
#[derive(Default)]
struct Post;

/// Handled so far, of messages and timers.
static HANDLED: AtomicU64 = AtomicU64::new(0);
/// Nothing is handled while it is shut: what comes is put aside, and owed.
static SHUT: AtomicBool = AtomicBool::new(false);

impl Actor for Post {
    type Event = u64;
    const KIND: &'static str = "post";

    fn apply(&mut self, _: &u64) {}

    fn options() -> ActorOptions<Self> {
        ActorOptions::new().mailbox(1 << 20).command::<Letter>().command::<Ring>()
    }
}

/// 128 bytes.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Letter([u64; 16]);

impl Durable for Letter {
    const NAME: &'static str = "letter";
}

impl Handle<Letter> for Post {
    type Reply = ();

    fn handle(_: Letter, _: &mut Turn<'_, Self>) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }

    fn admits(_: &Letter, _: &Self) -> bool {
        !SHUT.load(Ordering::Relaxed)
    }
}

/// Send one letter to that one.
struct Send(Addr<Post>);

impl Handle<Send> for Post {
    type Reply = ();

    fn handle(Send(to): Send, turn: &mut Turn<'_, Self>) {
        assert!(turn.send(&to, Letter([7; 16])).is_ok(), "there is room");
    }
}

/// A timer that is due.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Ring;

impl Durable for Ring {
    const NAME: &'static str = "ring";
}

impl Handle<Ring> for Post {
    type Reply = ();

    fn handle(_: Ring, _: &mut Turn<'_, Self>) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Arm a timer of that key for now.
struct Arm(u64);

impl Handle<Arm> for Post {
    type Reply = ();

    fn handle(Arm(key): Arm, turn: &mut Turn<'_, Self>) {
        turn.wake_after(&key.to_string(), Duration::ZERO, &Ring);
    }
}

/// What must at least be done for each frame: a CRC and a copy.
struct Plain {
    frame: [u8; FRAME_BYTES],
    ring: Vec<u8>,
    place: usize,
}

impl Plain {
    fn new() -> Self {
        Self { frame: [0x5a; FRAME_BYTES], ring: vec![0; 8 << 20], place: 0 }
    }

    fn run(&mut self, frames: u64) -> Duration {
        let began = Instant::now();
        for _ in 0..frames {
            let crc = crc32fast::hash(&self.frame[4..]);
            self.frame[..4].copy_from_slice(&crc.to_le_bytes());
            if self.place + FRAME_BYTES > self.ring.len() {
                self.place = 0;
            }
            self.ring[self.place..][..FRAME_BYTES].copy_from_slice(&self.frame);
            self.place += FRAME_BYTES;
        }
        began.elapsed()
    }
}

fn store(bench: &Bench, name: &str) -> Store {
    options(Durability::Process).actor::<Post>().open(bench.home.fresh(name)).expect("a store")
}

fn await_handled(number: u64) {
    while HANDLED.load(Ordering::Relaxed) < number {
        std::thread::yield_now();
    }
}

/// Messages for good: stored with the turn that sends them and with the one that handles them.
pub(crate) fn send(bench: &mut Bench) {
    if !bench.wants("send") {
        return;
    }
    let mut plain = Plain::new();
    for (pairs, name) in [(1, "1 pair"), (64, "64 pairs")] {
        let store = store(bench, "send");
        let posts = addresses::<Post>(&store, 2 * pairs);
        bench.compare(("send", name), Unit::PerSecond, TIMES, &mut |times| {
            let before = HANDLED.load(Ordering::Relaxed);
            let mut turns = posts.chunks_exact(2).cycle();
            let began = Instant::now();
            for _ in 0..times * TIMES {
                let Some([from, to]) = turns.next() else { unreachable!("a cycle has no end") };
                assert!(from.tell(Send(to.clone())).is_ok(), "there is room");
            }
            await_handled(before + times * TIMES);
            Pair { ours: began.elapsed(), limit: plain.run(2 * times * TIMES) }
        });
    }
}

/// Timers of 64 actors: armed for now, and fired.
pub(crate) fn timers(bench: &mut Bench) {
    if !bench.wants("timers") {
        return;
    }
    let mut plain = Plain::new();
    let store = store(bench, "timers");
    let posts = addresses::<Post>(&store, 64);
    let mut keys = 0_u64..;
    bench.compare(("timers", "armed and fired"), Unit::PerSecond, TIMES, &mut |times| {
        let before = HANDLED.load(Ordering::Relaxed);
        let began = Instant::now();
        for (_, post) in (0..times * TIMES).zip(posts.iter().cycle()) {
            let key = keys.next().expect("there are enough");
            assert!(post.tell(Arm(key)).is_ok(), "there is room");
        }
        await_handled(before + times * TIMES);
        Pair { ours: began.elapsed(), limit: plain.run(2 * times * TIMES) }
    });
}

/// Commands that are handled once, however often they come.
pub(crate) fn once(bench: &mut Bench) {
    if !bench.wants("ask_once") {
        return;
    }
    let mut plain = Plain::new();
    let store = store(bench, "once");
    let address = addresses::<Account>(&store, 1).remove(0);
    let mut ids = (0..).map(CommandId);
    for (name, again) in [("emit, the first time", false), ("emit, once more", true)] {
        let known = CommandId::of("known");
        bench.compare(("ask_once", name), Unit::Time, 1, &mut |times| {
            let began = Instant::now();
            for _ in 0..times {
                let id = if again { known } else { ids.next().expect("there are enough") };
                std::hint::black_box(address.ask_once(id, Deposit).expect("an answer"));
            }
            Pair { ours: began.elapsed(), limit: plain.run(if again { 0 } else { times }) }
        });
    }
}

/// Turns of one event each that are gathered into one frame, and appended when it is time.
pub(crate) fn deferred(bench: &mut Bench) {
    if !bench.wants("deferred") {
        return;
    }
    let store = store(bench, "deferred");
    let each = addresses::<Account>(&store, 1).remove(0);
    let ten = addresses::<Counted>(&store, 1).remove(0);
    let all = addresses::<Gathered>(&store, 1).remove(0);
    gather(bench, &store, ("each by itself", &each));
    gather(bench, &store, ("every 10", &ten));
    gather(bench, &store, ("at the end", &all));
}

fn gather<A: Handle<Deposit> + Handle<Get>>(
    bench: &mut Bench,
    store: &Store,
    (name, address): (&str, &Addr<A>),
) {
    let mut plain = Plain::new();
    bench.compare(("deferred", name), Unit::PerSecond, TIMES, &mut |times| {
        let mut ours = Duration::ZERO;
        let mut left = times * TIMES;
        while left > 0 {
            let part = left.min(GATHERED);
            // Else the disk is what is measured: appends wait for it when too much is not durable.
            store.sync().expect("a commit");
            let began = Instant::now();
            for _ in 0..part {
                while address.tell(Deposit).is_err() {
                    std::thread::yield_now();
                }
            }
            // A reply is a barrier.
            drop(address.ask(Get).expect("an answer"));
            ours += began.elapsed();
            left -= part;
        }
        Pair { ours, limit: plain.run(times * TIMES) }
    });
}

/// From an open to the moment at which all messages that were interrupted have been handled. The
/// limit is an open with nothing to do.
pub(crate) fn resume(bench: &mut Bench) {
    if !bench.wants("resume") {
        return;
    }
    let messages = bench.scale.pick(100, INTERRUPTED, INTERRUPTED);
    let path = bench.home.fresh("resume");
    let open = || options(Durability::Process).actor::<Post>().open(&path).expect("a store");
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.pick(1, 5, 11) {
        SHUT.store(true, Ordering::Relaxed);
        let store = open();
        let posts = addresses::<Post>(&store, 128);
        for (_, pair) in (0..messages).zip(posts.chunks_exact(2).cycle()) {
            let [from, to] = pair else { unreachable!("they are pairs") };
            from.ask(Send(to.clone())).expect("an answer");
        }
        drop((posts, store));
        SHUT.store(false, Ordering::Relaxed);
        let before = HANDLED.load(Ordering::Relaxed);
        for times in [&mut ours, &mut limits] {
            let began = Instant::now();
            let store = open();
            let _recovery = store.runtime().wait_recovered(LONG);
            await_handled(before + messages);
            times.push(began.elapsed().as_nanos() as f64);
            drop(store);
        }
    }
    if let Some(took) = median(&ours) {
        let work = format!("resume: {messages} interrupted messages");
        bench.table.add(Row::measured(work, Unit::Time, (took, median(&limits))));
    }
}
