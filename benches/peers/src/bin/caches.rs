//! Annals' cache beside `quick_cache` and `moka`: hits, real traces, forgetting everything.
//!
//! `cargo run --release --bin caches -- [--quick] [trace ...]`: each trace is a file of 32-bit
//! little-endian keys, as in `benches/cache/`. All run in one process, in turns, and each figure is
//! the median of its rounds.
#![expect(clippy::disallowed_methods, reason = "benches measure real time")]
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::sync::cache::{Cache, Manager};
use annals::sync::freshness::{Freshness, Ticker};

const TTL: Duration = Duration::from_hours(1);

/// One of those that are compared. All hold `u32` under `u32`, with a TTL where they have one.
trait Peer: Sync {
    /// Was it there? If not, it is now.
    fn access(&self, key: u32) -> bool;
    /// What was there.
    fn hit(&self, key: u32) -> Option<u32>;
    fn clear(&self);
}

/// Ours, as of a node: under a lease, with a clock that a thread moves.
struct Ours {
    cache: Cache<u32, u32>,
    _ticker: Ticker,
}

impl Ours {
    fn new(entries: usize) -> Self {
        let ticker = Ticker::start(Duration::from_millis(5)).expect("a thread");
        let manager = Manager::new(Arc::clone(ticker.clock()));
        let freshness = Freshness::new(Arc::clone(ticker.clock()), TTL * 10);
        freshness.set(Some(ticker.clock().now()));
        manager.declare("keys", freshness);
        let cache = manager.cache("keys").entries(entries).ttl(TTL).build().expect("a cache");
        Self { cache, _ticker: ticker }
    }
}

impl Peer for Ours {
    fn access(&self, key: u32) -> bool {
        let mut hit = true;
        let answer = self.cache.get_or_load_with(&key, |key, _load| {
            hit = false;
            Ok(Some(*key))
        });
        black_box(answer.expect("a value").any());
        hit
    }

    fn hit(&self, key: u32) -> Option<u32> {
        self.cache.get(&key).fresh()
    }

    fn clear(&self) {
        self.cache.clear().expect("nobody to tell");
    }
}

impl Peer for quick_cache::sync::Cache<u32, u32> {
    fn access(&self, key: u32) -> bool {
        // Its `get_or_insert_with` loads once for all who ask, as the others here do, and has fewer
        // hits on these traces: this is the better of the two.
        let hit = black_box(self.get(&key)).is_some();
        if !hit {
            self.insert(key, key);
        }
        hit
    }

    fn hit(&self, key: u32) -> Option<u32> {
        self.get(&key)
    }

    fn clear(&self) {
        Self::clear(self);
    }
}

impl Peer for moka::sync::Cache<u32, u32> {
    fn access(&self, key: u32) -> bool {
        let mut hit = true;
        black_box(self.get_with(key, || {
            hit = false;
            key
        }));
        hit
    }

    fn hit(&self, key: u32) -> Option<u32> {
        self.get(&key)
    }

    fn clear(&self) {
        self.invalidate_all();
    }
}

const NAMES: [&str; 3] = ["annals", "quick_cache", "moka"];

fn peer(name: &str, entries: usize) -> Box<dyn Peer> {
    match name {
        "annals" => Box::new(Ours::new(entries)),
        "quick_cache" => Box::new(quick_cache::sync::Cache::<u32, u32>::new(entries)),
        _ => {
            let builder = moka::sync::Cache::builder().max_capacity(entries as u64);
            Box::new(builder.time_to_live(TTL).build())
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds for each access of the trace, in so many threads that take turns at it, and the
/// share of hits.
fn follow(peer: &dyn Peer, keys: &[u32], threads: usize) -> (f64, f64) {
    let hits = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let hits = &hits;
            scope.spawn(move || {
                let own = keys.iter().skip(thread).step_by(threads);
                let count: u64 = own.map(|key| u64::from(peer.access(*key))).sum();
                hits.fetch_add(count, Ordering::Relaxed);
            });
        }
    });
    let took = begun.elapsed().as_nanos() as f64 / keys.len() as f64;
    (took, hits.into_inner() as f64 / keys.len() as f64)
}

/// Nanoseconds for each hit of one thread, in so many at once.
fn hits(peer: &dyn Peer, entries: u32, (threads, count): (u64, u64)) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut state = 88_172_645_463_325_252 + thread * 7_919;
                for _ in 0..count {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let limit = u64::from(entries);
                    let key = (state % limit).min((state >> 32) % limit);
                    black_box(peer.hit(u32::try_from(key).unwrap_or(0)).expect("it is there"));
                }
            });
        }
    });
    begun.elapsed().as_nanos() as f64 / count as f64
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|it| it == "--quick");
    arguments.retain(|it| it != "--quick");
    let (rounds, count) = if quick { (3, 1_000_000) } else { (7, 5_000_000) };

    println!("| hit, ns | 1 thread | 2 threads |\n|---|---|---|");
    let entries: u32 = 100_000;
    let peers = NAMES.map(|name| (name, peer(name, 200_000)));
    for (_, peer) in &peers {
        assert!((0..entries).all(|key| !peer.access(key)));
    }
    let mut figures = vec![[Vec::new(), Vec::new()]; NAMES.len()];
    for _ in 0..rounds {
        for ((_, peer), figures) in peers.iter().zip(&mut figures) {
            for (threads, figures) in (1..).zip(figures) {
                figures.push(hits(&**peer, 100_000, (threads, count)));
            }
        }
    }
    for (name, [one, two]) in NAMES.iter().zip(figures) {
        println!("| {name} | {:.1} | {:.1} |", median(one), median(two));
    }
    drop(peers);

    let entries: u32 = if quick { 1_000_000 } else { 10_000_000 };
    println!("\n| clear of {entries} entries | |\n|---|---|");
    for name in NAMES {
        let peer = peer(name, usize::try_from(entries).unwrap_or(0) * 2);
        assert!((0..entries).all(|key| !peer.access(key)));
        let begun = Instant::now();
        peer.clear();
        println!("| {name} | {:?} |", begun.elapsed());
    }

    for path in &arguments {
        let bytes = std::fs::read(path).expect("the trace");
        let keys: Vec<u32> =
            bytes.as_chunks::<4>().0.iter().map(|key| u32::from_le_bytes(*key)).collect();
        println!("\n| {path}, {} accesses | hits | ns, 1 thread | ns, 2 threads |", keys.len());
        println!("|---|---|---|---|");
        for entries in [1_000, 10_000, 100_000] {
            for name in NAMES {
                let (mut one, mut two, mut share) = (Vec::new(), Vec::new(), 0.0);
                for _ in 0..rounds.min(3) {
                    let (took, hits) = follow(&*peer(name, entries), &keys, 1);
                    share = hits;
                    one.push(took);
                    two.push(follow(&*peer(name, entries), &keys, 2).0);
                }
                let (one, two) = (median(one), median(two));
                let share = share * 100.0;
                println!("| {name}, {entries} entries | {share:.1} % | {one:.0} | {two:.0} |");
            }
        }
    }
}
