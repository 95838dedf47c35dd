//! Commands whose replies leave when they are on disk.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annals::{Addr, Durability};

use crate::account::{Account, Deposit, Get, addresses, open};
use crate::support::flush::Flush;
use crate::support::histogram::Histogram;
use crate::support::table::{Row, Unit};
use crate::support::{Bench, Pair};

/// One command at a time.
pub(crate) fn lone(bench: &mut Bench) {
    if !bench.wants("command") {
        return;
    }
    let store = open(&bench.home.fresh("command"), Durability::Power);
    let address = addresses::<Account>(&store, 1).remove(0);
    let mut flush = Flush::new(&bench.home.fresh("flush"), 1);
    let (mut ours, mut limit) = (Histogram::new(), Histogram::new());
    bench.compare(("command", "1 in flight"), Unit::PerSecond, 1, &mut |times| {
        let began = Instant::now();
        let each = Histogram::of_each(times, &mut || {
            address.ask(Deposit).expect("an answer");
        });
        ours.merge(&each);
        Pair { ours: began.elapsed(), limit: flush.run(times, &mut limit) }
    });
    percentiles(bench, "command: 1 in flight", (ours, limit));
}

/// Many actors and as many commands on their way, posted by one thread or by two.
pub(crate) fn pipelined(bench: &mut Bench) {
    if !bench.wants("command") {
        return;
    }
    for (actors, threads) in [(64, 1), (1_000, 1), (1_000, 2)] {
        let store = open(&bench.home.fresh("command"), Durability::Power);
        let addresses = addresses::<Account>(&store, actors);
        let mut flush = Flush::new(&bench.home.fresh("flush"), actors);
        let (mut ours, mut limit) = (Histogram::new(), Histogram::new());
        let s = if threads == 1 { "" } else { "s" };
        let name = format!("{actors} in flight, {threads} thread{s}");
        bench.compare(("command", &name), Unit::PerSecond, actors as u64, &mut |times| {
            let began = Instant::now();
            std::thread::scope(|scope| {
                let share = actors / threads;
                let drivers: Vec<_> = addresses
                    .chunks(share)
                    .map(|mine| scope.spawn(move || post(mine, times * share as u64)))
                    .collect();
                for driver in drivers {
                    ours.merge(&driver.join().expect("no panic"));
                }
            });
            Pair { ours: began.elapsed(), limit: flush.run(times, &mut limit) }
        });
        percentiles(bench, &format!("command: {name}"), (ours, limit));
    }
}

/// Posts to each in turn; as many as there are actors are on their way. Each command's time is
/// from its post to its reply.
fn post(addresses: &[Addr<Account>], commands: u64) -> Histogram {
    let mut times = Histogram::new();
    let mut flying = VecDeque::with_capacity(addresses.len());
    let mut receivers = addresses.iter().cycle();
    let mut left = commands;
    while left > 0 || !flying.is_empty() {
        if left > 0 && flying.len() < addresses.len() {
            let receiver = receivers.next().expect("a cycle has no end");
            let posted = Instant::now();
            flying.push_back((posted, receiver.post(Deposit).expect("there is room")));
            left -= 1;
        } else if let Some((posted, ticket)) = flying.pop_front() {
            ticket.wait().expect("an answer");
            times.record(posted.elapsed());
        }
    }
    times
}

/// Asks of an actor that has nothing to commit, while others commit without a pause. The limit
/// is the same with nobody else.
pub(crate) fn reads_beside_commits(bench: &mut Bench) {
    if !bench.wants("read beside commits") {
        return;
    }
    let store = open(&bench.home.fresh("beside"), Durability::Power);
    let addresses = addresses::<Account>(&store, 3);
    let [clean, busy @ ..] = &addresses[..] else { unreachable!("three were made") };
    clean.ask(Deposit).expect("an answer");
    let run = Duration::from_millis(bench.scale.pick(5, 1_000, 5_000));
    let stop = AtomicBool::new(false);
    let quiet = ask_for(clean, run / 4);
    let commits = store.stats().log.commits;
    let beside = std::thread::scope(|scope| {
        for address in busy {
            scope.spawn(|| {
                // Relaxed: nothing else depends on it.
                while !stop.load(Ordering::Relaxed) {
                    address.ask(Deposit).expect("an answer");
                }
            });
        }
        let beside = ask_for(clean, run);
        stop.store(true, Ordering::Relaxed);
        beside
    });
    println!("reads beside commits: {} commits meanwhile", store.stats().log.commits - commits);
    percentiles(bench, "read beside commits", (beside, quiet));
}

fn ask_for(address: &Addr<Account>, run: Duration) -> Histogram {
    let mut times = Histogram::new();
    let began = Instant::now();
    let mut last = began;
    while last - began < run {
        address.ask(Get).expect("an answer");
        let now = Instant::now();
        times.record(now - last);
        last = now;
    }
    times
}

fn percentiles(bench: &mut Bench, work: &str, (ours, limit): (Histogram, Histogram)) {
    if ours.is_empty() {
        return;
    }
    for (part, figures) in [("p50", (ours.p50(), limit.p50())), ("p99", (ours.p99(), limit.p99()))]
    {
        let figures = (figures.0, Some(figures.1));
        bench.table.add(Row::measured(format!("{work}, {part}"), Unit::Time, figures));
    }
    bench.table.distribution(work, ours);
    bench.table.distribution("its limit", limit);
}
