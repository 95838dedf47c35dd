//! States that come back: one actor's, and a store's with many that sleep.

use std::time::{Duration, Instant};

use annals::{Actor, Addr, Durability, Handle, Store};

use crate::account::{Account, Deposit, Get, Kept, addresses, open, options};
use crate::support::table::{Row, Unit, median};
use crate::support::{Bench, FRAME_BYTES, Pair};

const EVENTS: usize = 100;

/// The first ask of an actor that has left memory, warm: from 100 events that lie among those of
/// others, and from a snapshot. The limit sums the same frames where they lie.
pub(crate) fn recover(bench: &mut Bench) {
    if !bench.wants("recover") {
        return;
    }
    let actors = bench.scale.pick(10, 2_000, 10_000);
    let store = open(&bench.home.fresh("recover"), Durability::Process);
    let frames = vec![0x5a_u8; actors * EVENTS * FRAME_BYTES];
    let from_events = sleepers::<Account>(&store, actors);
    compare(bench, "100 events", &from_events, &|actor| {
        let mine = frames.chunks_exact(FRAME_BYTES).skip(actor).step_by(actors);
        mine.for_each(|frame| {
            std::hint::black_box(crc32fast::hash(frame));
        });
    });
    let from_snapshots = sleepers::<Kept>(&store, actors);
    compare(bench, "a snapshot", &from_snapshots, &|actor| {
        let frame = &frames[actor * FRAME_BYTES..][..FRAME_BYTES];
        std::hint::black_box(crc32fast::hash(frame));
    });
}

/// Actors of 100 events each, out of memory, all of it on disk and indexed.
fn sleepers<A: Handle<Deposit> + Handle<Get>>(store: &Store, actors: usize) -> Vec<Addr<A>> {
    let addresses = addresses::<A>(store, actors);
    for _ in 0..EVENTS {
        for address in &addresses {
            drop(address.ask(Deposit).expect("an answer"));
        }
    }
    for address in &addresses {
        address.passivate().expect("outside of a turn");
    }
    store.sync().expect("a commit");
    // The first to come back waits for the index, once for all.
    drop(addresses[0].ask(Get).expect("an answer"));
    addresses[0].passivate().expect("outside of a turn");
    addresses
}

fn compare<A: Actor + Handle<Get>>(
    bench: &mut Bench,
    name: &str,
    addresses: &[Addr<A>],
    limit: &dyn Fn(usize),
) {
    let mut next = 0;
    bench.compare(("recover", name), Unit::Time, 1, &mut |times| {
        let mut pair = Pair { ours: Duration::ZERO, limit: Duration::ZERO };
        for _ in 0..times {
            next = (next + 7_919) % addresses.len();
            let address = &addresses[next];
            let began = Instant::now();
            drop(address.ask(Get).expect("an answer"));
            pair.ours += began.elapsed();
            address.passivate().expect("outside of a turn");
            let began = Instant::now();
            limit(next);
            pair.limit += began.elapsed();
        }
        pair
    });
}

/// A store with many actors of whom none is awake. The limit is a store with one.
pub(crate) fn open_many(bench: &mut Bench) {
    if !bench.wants("open") {
        return;
    }
    // A million takes minutes to make.
    let own = std::env::var("ANNALS_BENCH_SLEEPERS").ok();
    let own = own.map(|number| number.parse().expect("ANNALS_BENCH_SLEEPERS is a number"));
    let few = bench.scale.pick(100, 20_000, 100_000);
    let rounds = bench.scale.pick(1, 5, 11);
    let limit = median(&opens(bench, 1, rounds));
    for actors in [few].into_iter().chain(own) {
        if let Some(took) = median(&opens(bench, actors, rounds)) {
            let work = format!("open: {actors} sleeping actors");
            bench.table.add(Row::measured(work, Unit::Time, (took, limit)));
        }
    }
}

fn opens(bench: &Bench, actors: usize, rounds: usize) -> Vec<f64> {
    let path = bench.home.fresh("open");
    // So that making them does not need memory for all at once.
    let store = options(Durability::Process).residents_max(50_000).open(&path).expect("a store");
    for number in 0..actors {
        let address = store.actor::<Account>(&number.to_string()).expect("an address");
        address.ask(Deposit).expect("an answer");
    }
    drop(store);
    let mut times = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        let store = open(&path, Durability::Power);
        times.push(began.elapsed().as_nanos() as f64);
        drop(store);
    }
    times
}
