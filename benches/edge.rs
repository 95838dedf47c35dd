//! Edges: what a pipeline costs beside a bare loop, through memory and through the log.
//!
//! ```text
//! cargo bench --bench edge
//! ```
//!
//! Every row is measured in the same run as the bare loop that does the same work without a
//! pipeline: a filter that drops each tenth, batches of 128, a sum.
#![expect(clippy::disallowed_methods, reason = "benches measure real time on a real disk")]
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use annals::edge::{self, Boxed};
use annals::{Durability, Filter, Store};

const RUNS: usize = 7;

/// The best of some runs, in records a second.
fn best(records: u64, mut run: impl FnMut() -> u64) -> f64 {
    let mut best = Duration::MAX;
    let expected = (1..=records).filter(|n| n % 10 != 0).sum::<u64>();
    for _ in 0..RUNS {
        let began = Instant::now();
        let sum = black_box(run());
        best = best.min(began.elapsed());
        assert_eq!(sum, expected, "what came out");
    }
    records as f64 / best.as_secs_f64()
}

fn row(name: &str, rate: f64, bare: f64) {
    println!(
        "{name:44} {:>9.2} M/s {:>7.1} ns {:>7.3} of bare",
        rate / 1e6,
        1e9 / rate,
        rate / bare
    );
}

fn bare(records: u64) -> u64 {
    let (mut sum, mut batch) = (0_u64, Vec::new());
    for number in 1..=records {
        if number % 10 != 0 {
            batch.push(number);
        }
        if batch.len() >= 128 {
            sum += black_box(std::mem::take(&mut batch)).iter().sum::<u64>();
        }
    }
    sum + batch.iter().sum::<u64>()
}

/// A sum that a callback adds up.
#[derive(Clone, Default)]
struct Sum(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl Sum {
    fn sink(&self) -> impl edge::Sink<Item = Vec<u64>> + Send + use<> {
        let sum = std::sync::Arc::clone(&self.0);
        edge::call(move |_, batch: &Vec<u64>| {
            sum.fetch_add(batch.iter().sum(), std::sync::atomic::Ordering::Relaxed);
            Ok(())
        })
    }

    fn get(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let records = if test { 10_000 } else { 4_000_000 };
    let time = Duration::from_millis(5);
    let bare = best(records, || bare(records));
    row("bare loop", bare, bare);

    let rate = best(records, || {
        let sum = Sum::default();
        let pipeline = edge::from(edge::iter(1..=records)).filter(|n| n % 10 != 0);
        pipeline.batch(128, time).into(sum.sink()).run_to_end("static").unwrap();
        sum.get()
    });
    row("pipeline: filter, batch, callback", rate, bare);

    let rate = best(records, || {
        let sum = Sum::default();
        let filter: Boxed<u64, u64> = Box::new(edge::filter(|n: &u64| n % 10 != 0));
        let batch: Boxed<u64, Vec<u64>> = Box::new(edge::batch(128, time));
        let pipeline = edge::from(edge::iter(1..=records)).then(filter).then(batch);
        pipeline.into(sum.sink()).run_to_end("boxed").unwrap();
        sum.get()
    });
    row("the same, boxed stages", rate, bare);

    let rate = best(records / 4, || {
        let sum = Sum::default();
        let source = edge::buffered(edge::iter(1..=records / 4), 4_096);
        let pipeline = edge::from(source).filter(|n| n % 10 != 0).batch(128, time);
        pipeline.into(sum.sink()).run_to_end("buffered").unwrap();
        sum.get()
    });
    row("the same, source on its own thread", rate, bare);

    let logged = records / 16;
    for (name, durability) in [("Process", Durability::Process), ("Power", Durability::Power)] {
        let rate = best(logged, || through_log(logged, durability));
        row(&format!("inbox ({name}), outbox, filter, batch"), rate, bare);
    }
    still(if test { 1_000 } else { 200_000 });
}

/// Into a store and out of it again, each step after the other.
fn through_log(records: u64, durability: Durability) -> u64 {
    let home = tempfile::tempdir_in(".").unwrap();
    let store = Store::open(home.path()).unwrap();
    let inbox = store.inbox("numbers", durability).unwrap();
    let numbers = edge::iter((1..=records).map(|number| number.to_le_bytes()));
    edge::from(numbers).into(inbox).run_to_end("in").unwrap();
    let sum = Sum::default();
    let outbox = store.outbox("out", Filter::inbox("numbers")).unwrap();
    let pipeline = edge::from(outbox)
        .map(|event| u64::from_le_bytes(event.bytes.try_into().unwrap_or_default()))
        .filter(|n| n % 10 != 0)
        .batch(128, Duration::from_millis(5))
        .into(sum.sink())
        .spawn("out")
        .unwrap();
    while pipeline.numbers().settled < records {
        std::thread::sleep(Duration::from_micros(200));
    }
    drop(pipeline);
    sum.get()
}

/// Resident memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// A sink that takes nothing any more: what is in memory stays what it was.
fn still(per_look: u64) {
    let (sink, receiver) = edge::channel::bounded(1_000);
    let source = edge::iter((0..u64::MAX).map(|n| n.to_string().repeat(10)));
    let pipeline = edge::from(source).into(sink).spawn("still").unwrap();
    for _ in 0..per_look {
        receiver.recv().unwrap();
    }
    let (before, pulled) = (resident(), pipeline.numbers().pulled);
    for look in 1..=4 {
        std::thread::sleep(Duration::from_millis(250));
        let now = pipeline.numbers();
        println!(
            "sink stands still, look {look}: {} pulled since, {} in flight, {:+} KiB",
            now.pulled - pulled,
            now.inflight,
            resident().cast_signed() - before.cast_signed()
        );
    }
    drop(receiver);
    drop(pipeline);
}
