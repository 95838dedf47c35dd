//! The cache: a hit with everything that is asked at it beside `quick_cache` alone, forgetting
//! everything, tokens taken in, and a trace of a real service.
//!
//! `benches/README.md` says what each row means.
#![expect(clippy::disallowed_methods, reason = "benches measure real time")]
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

#[expect(dead_code, reason = "some of it is for the other benches")]
mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::sync::apply::Applier as _;
use annals::sync::cache::{Cache, Manager};
use annals::sync::domain::DomainId;
use annals::sync::freshness::{Freshness, Ticker};
use annals::sync::origin::{Incarnation, Lane, Origin, TokenLog};
use annals::sync::token::{Token, TokenKind};
use annals::types::HybridTime;
use support::Bench;
use support::table::{Row, Unit, median};

/// Entries of the table that is hit.
const ENTRIES: u64 = 100_000;

fn main() {
    let mut bench = Bench::new("cache");
    hits(&mut bench);
    clear(&mut bench);
    tokens(&mut bench);
    trace(&mut bench);
    bench.table.print();
}

/// A cache of a node: under a lease, with a clock that a thread moves.
fn of_a_node(entries: u64) -> (Ticker, Manager, Cache<u64, u64>) {
    let ticker = Ticker::start(Duration::from_millis(5)).expect("a thread");
    let manager = Manager::new(Arc::clone(ticker.clock()));
    let freshness = Freshness::new(Arc::clone(ticker.clock()), Duration::from_hours(10));
    freshness.set(Some(ticker.clock().now()));
    manager.declare("numbers", freshness);
    let entries = usize::try_from(entries).expect("64 bits");
    let cache = manager.cache("numbers").entries(entries).ttl(Duration::from_hours(9));
    (ticker, manager, cache.build().expect("a cache"))
}

/// Keys as a service asks for them: few often, many now and then. Times one thread's part.
fn each_key(thread: u64, count: u64, mut each: impl FnMut(u64)) {
    let mut state = 88_172_645_463_325_252 + thread * 7_919;
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        each((state % ENTRIES).min((state >> 32) % ENTRIES));
    }
}

/// Nanoseconds for each of `count` keys, in so many threads at once.
fn timed(threads: u64, count: u64, hit: impl Fn(u64) + Sync) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let hit = &hit;
            scope.spawn(move || each_key(thread, count, hit));
        }
    });
    begun.elapsed().as_nanos() as f64 / count as f64
}

/// A hit: lease, tokens, time, value, count. The limit is a hit of `quick_cache` alone.
fn hits(bench: &mut Bench) {
    if !bench.wants("hit") {
        return;
    }
    let (_ticker, _manager, cache) = of_a_node(2 * ENTRIES);
    let quick = quick_cache::sync::Cache::new(usize::try_from(2 * ENTRIES).expect("64 bits"));
    for key in 0..ENTRIES {
        cache.set(&key, key).expect("nobody to tell");
        quick.insert(key, key);
    }
    let count = bench.scale.pick(1_000, 2_000_000, 10_000_000);
    for threads in [1, 2] {
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..bench.scale.pick(1, 5, 11) {
            limits.push(timed(threads, count, |key| {
                black_box(quick.get(&key).expect("it is there"));
            }));
            ours.push(timed(threads, count, |key| {
                black_box(cache.get(&key).fresh().expect("it is there"));
            }));
        }
        if let Some(ours) = median(&ours) {
            let work = format!("hit: {threads} thread{}", if threads == 1 { "" } else { "s" });
            bench.table.add(Row::measured(work, Unit::Time, (ours, median(&limits))));
        }
    }
}

/// Forgetting everything, and that nothing is found after it.
fn clear(bench: &mut Bench) {
    if !bench.wants("clear") {
        return;
    }
    let entries: u64 = bench.scale.pick(1_000, 1_000_000, 10_000_000);
    let (_ticker, _manager, cache) = of_a_node(entries + entries / 4);
    let mut took = Vec::new();
    for key in 0..entries {
        cache.set(&key, key).expect("nobody to tell");
    }
    for _ in 0..bench.scale.pick(1, 11, 11) {
        let begun = Instant::now();
        cache.clear().expect("nobody to tell");
        took.push(begun.elapsed().as_nanos() as f64);
        assert!((0..100_u64).all(|key| cache.get(&(key * entries / 100)).is_miss()));
    }
    if let Some(took) = median(&took) {
        let work = format!("clear: {entries} entries");
        bench.table.add(Row::measured(work, Unit::Time, (took, None)));
    }
}

/// Tokens of others, each of a key that is not here: what most tokens of a large cluster are.
fn tokens(bench: &mut Bench) {
    if !bench.wants("token") {
        return;
    }
    let (_ticker, manager, cache) = of_a_node(ENTRIES);
    cache.set(&1, 1).expect("nobody to tell");
    let incarnation = Incarnation { counter: 1, nonce: 1 };
    let log = TokenLog { origin: Origin::from_u64(1), incarnation, lane: Lane::Tokens };
    manager.visible(&log, u64::MAX);
    let domain = DomainId::of("numbers");
    let count = bench.scale.pick(1_000, 1_000_000, 5_000_000);
    let mut took = Vec::new();
    for _ in 0..bench.scale.pick(1, 5, 11) {
        let begun = Instant::now();
        for seq in 1..=count {
            let (time, body) = (HybridTime::from_millis(seq), &(seq << 20).to_le_bytes());
            let token = Token { seq, time, domain, kind: TokenKind::Key, flags: 0, body };
            manager.apply(&log, &token);
        }
        took.push(begun.elapsed().as_nanos() as f64 / count as f64);
    }
    if let Some(took) = median(&took) {
        bench.table.add(Row::measured("token: a key", Unit::Time, (took, None)));
    }
}

/// The beginning of a trace of real requests, or all of one that is named by `ANNALS_TRACE`: time
/// of each, loads (of nothing) among them. The limit is `quick_cache` alone.
fn trace(bench: &mut Bench) {
    if !bench.wants("trace") {
        return;
    }
    let bytes = match std::env::var_os("ANNALS_TRACE") {
        Some(path) => std::fs::read(path).expect("the trace"),
        None => include_bytes!("cache/web07-excerpt.trace").to_vec(),
    };
    let keys: Vec<u32> =
        bytes.as_chunks::<4>().0.iter().map(|key| u32::from_le_bytes(*key)).collect();
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    let entries = 2_000;
    for _ in 0..bench.scale.pick(1, 11, 31) {
        let quick = quick_cache::sync::Cache::new(entries);
        let begun = Instant::now();
        for key in &keys {
            if quick.get(key).is_none() {
                quick.insert(*key, *key);
            }
        }
        limits.push(begun.elapsed().as_nanos() as f64 / keys.len() as f64);
        let cache: Cache<u32, u32> =
            Cache::local("trace").expect("a clock").entries(entries).build().expect("a cache");
        let begun = Instant::now();
        for key in &keys {
            let answer = cache.get_or_load_with(key, |key, _load| Ok(Some(*key)));
            black_box(answer.expect("a value").any());
        }
        ours.push(begun.elapsed().as_nanos() as f64 / keys.len() as f64);
    }
    if let Some(ours) = median(&ours) {
        let work = "trace: an access, loads of nothing among them";
        bench.table.add(Row::measured(work, Unit::Time, (ours, median(&limits))));
    }
}
