//! Messages in memory: tells, asks of an idle actor, two actors in conversation.

use std::time::{Duration, Instant};

use annals::{Actor, Addr, Durability, Handle, Store, Turn};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

use crate::account::{Account, Bounded, Deposit, Get, addresses, open};
use crate::support::histogram::Histogram;
use crate::support::table::{Row, Unit};
use crate::support::{Bench, FRAME_BYTES, Pair};

/// Messages of one iteration.
const MESSAGES: u64 = 1_000;

/// Tells until all have been handled, against crossbeam channels between bare threads.
pub(crate) fn tell(bench: &mut Bench) {
    if !bench.wants("tell") {
        return;
    }
    let store = open(&bench.home.fresh("tell"), Durability::Process);
    let one = addresses::<Account>(&store, 1);
    let thousand = addresses::<Account>(&store, 1_000);
    let small = addresses::<Bounded>(&store, 1);
    bench.compare(("tell", "1 -> 1"), Unit::PerSecond, MESSAGES, &mut |times| Pair {
        ours: tell_all(&one, 1, times),
        limit: channel(unbounded(), 1, times),
    });
    bench.compare(("tell", "4 -> 1"), Unit::PerSecond, 4 * MESSAGES, &mut |times| Pair {
        ours: tell_all(&one, 4, times),
        limit: channel(unbounded(), 4, times),
    });
    bench.compare(("tell", "1 -> 1,000"), Unit::PerSecond, MESSAGES, &mut |times| Pair {
        ours: tell_all(&thousand, 1, times),
        limit: channel(unbounded(), 1, times),
    });
    bench.compare(("tell", "mailbox of 1,024"), Unit::PerSecond, MESSAGES, &mut |times| Pair {
        ours: tell_all(&small, 1, times),
        limit: channel(bounded(1_024), 1, times),
    });
}

fn tell_all<A: Handle<Get, Reply = u64>>(to: &[Addr<A>], senders: usize, times: u64) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 1..senders {
            scope.spawn(|| tell_in_turn(to, times));
        }
        tell_in_turn(to, times);
    });
    for address in to {
        // Handled after what was told before it.
        address.ask(Get).expect("an answer");
    }
    began.elapsed()
}

fn tell_in_turn<A: Handle<Get>>(to: &[Addr<A>], times: u64) {
    let mut receivers = to.iter().cycle();
    for _ in 0..times * MESSAGES {
        let receiver = receivers.next().expect("a cycle has no end");
        while receiver.tell(Get).is_err() {
            std::thread::yield_now();
        }
    }
}

fn channel((sender, receiver): (Sender<u64>, Receiver<u64>), senders: u64, times: u64) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..senders {
            let sender = sender.clone();
            scope.spawn(move || {
                (0..times * MESSAGES).for_each(|number| sender.send(number).expect("a receiver"));
            });
        }
        drop(sender);
        assert_eq!(receiver.iter().count() as u64, senders * times * MESSAGES);
    });
    began.elapsed()
}

/// Asks of an idle actor by a thread of the system, one at a time.
pub(crate) fn ask(bench: &mut Bench) {
    if !bench.wants("ask") {
        return;
    }
    let store = open(&bench.home.fresh("ask"), Durability::Process);
    let address = addresses::<Account>(&store, 1).remove(0);
    let state = Mutex::new(0_u64);
    let mut frame = [0x5a_u8; FRAME_BYTES];
    let mut ring = vec![0_u8; 8 << 20];
    let mut places = (0..ring.len() / FRAME_BYTES).cycle();
    let mut read = || {
        std::hint::black_box(*state.lock());
    };
    let mut append = || {
        let mut state = state.lock();
        *state += 1;
        let crc = crc32fast::hash(&frame[4..]);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        let at = places.next().unwrap_or(0) * FRAME_BYTES;
        ring[at..at + FRAME_BYTES].copy_from_slice(&frame);
    };
    // What is emitted goes to disk, and must end some time.
    let times = bench.scale.pick(1_000, 500_000, 4_000_000);
    ask_row(bench, "read-only", times, (&mut || drop(address.ask(Get)), &mut read));
    ask_row(
        bench,
        "emit, kept over a kill",
        times,
        (&mut || drop(address.ask(Deposit)), &mut append),
    );
}

fn ask_row(
    bench: &mut Bench,
    name: &str,
    times: u64,
    (ours, limit): (&mut dyn FnMut(), &mut dyn FnMut()),
) {
    // Rates by criterion, without a clock in between; then the distribution.
    bench.compare(("ask", name), Unit::Time, 1, &mut |times| {
        let began = Instant::now();
        (0..times).for_each(|_| ours());
        let took = began.elapsed();
        let began = Instant::now();
        (0..times).for_each(|_| limit());
        Pair { ours: took, limit: began.elapsed() }
    });
    let (ours, limit) = (Histogram::of_each(times, ours), Histogram::of_each(times, limit));
    for (part, figures) in [("p50", (ours.p50(), limit.p50())), ("p99", (ours.p99(), limit.p99()))]
    {
        let figures = (figures.0, Some(figures.1));
        bench.table.add(Row::measured(format!("ask: {name}, {part}"), Unit::Time, figures));
    }
    bench.table.distribution(format!("ask, {name}"), ours);
    bench.table.distribution("its limit, under a lock", limit);
}

/// One of two that talk.
#[derive(Default)]
struct Player;

impl Actor for Player {
    type Event = u64;
    const KIND: &'static str = "player";

    fn apply(&mut self, _: &u64) {}
}

struct Ball {
    left: u64,
    from: Addr<Player>,
    done: Sender<()>,
}

impl Handle<Ball> for Player {
    type Reply = ();

    fn handle(Ball { left, from, done }: Ball, turn: &mut Turn<'_, Self>) {
        if left == 0 {
            done.send(()).expect("somebody waits");
            return;
        }
        let ball = Ball { left: left - 1, from: turn.me(), done };
        assert!(turn.tell(&from, ball).is_ok(), "there is room for one ball");
    }
}

/// Round trips between two actors. The limit takes each message through a channel and back, on
/// one thread.
pub(crate) fn ping_pong(bench: &mut Bench) {
    if !bench.wants("ping-pong") {
        return;
    }
    let store: Store = open(&bench.home.fresh("ping-pong"), Durability::Process);
    let players = addresses::<Player>(&store, 2);
    let (done, ended) = unbounded();
    let (sender, receiver) = unbounded();
    bench.compare(("ping-pong", "round trips"), Unit::PerSecond, MESSAGES, &mut |times| {
        let began = Instant::now();
        let ball =
            Ball { left: 2 * times * MESSAGES, from: players[1].clone(), done: done.clone() };
        assert!(players[0].tell(ball).is_ok(), "an idle actor has room");
        ended.recv().expect("the players hold the other end");
        let ours = began.elapsed();
        let began = Instant::now();
        for number in 0..2 * times * MESSAGES {
            sender.send(number).expect("the receiver is here");
            std::hint::black_box(receiver.recv().expect("it was just sent"));
        }
        Pair { ours, limit: began.elapsed() }
    });
}
