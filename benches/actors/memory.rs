//! What an actor costs before it does anything: time to make it, memory to keep it.

use std::collections::HashMap;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::Instant;

use annals::{Durability, Store};
use parking_lot::Mutex;

use crate::account::{Account, Deposit, Get, options};
use crate::support::Bench;
use crate::support::home::Home;
use crate::support::table::{Row, Unit, median};

/// Set in the processes that measure memory and nothing else: `awake` or `asleep`, and how many.
const CHILD: &str = "ANNALS_BENCH_CHILD";

const STATE_BYTES: f64 = 48.0;

/// An address of a new name, and its first turn. The limit is an insertion into a map under a
/// lock.
pub(crate) fn create(bench: &mut Bench) {
    if !bench.wants("create") {
        return;
    }
    let actors = bench.scale.pick(100, 100_000, 1_000_000);
    let names: Vec<_> = (0..actors).map(|number: usize| number.to_string()).collect();
    let mut addresses = Vec::new();
    let mut turns = Vec::new();
    let mut limits = Vec::new();
    for _ in 0..bench.scale.pick(1, 3, 5) {
        let store = store(&bench.home);
        let began = Instant::now();
        for name in &names {
            drop(store.actor::<Account>(name).expect("an address"));
        }
        addresses.push(began.elapsed().as_nanos() as f64 / actors as f64);
        let began = Instant::now();
        for name in &names {
            let address = store.actor::<Account>(name).expect("an address");
            black_box(address.ask(Get).expect("an answer"));
        }
        turns.push(began.elapsed().as_nanos() as f64 / actors as f64);
        drop(store);
        let map = Mutex::new(HashMap::new());
        let began = Instant::now();
        for name in &names {
            map.lock().insert(name.clone(), Box::new([0_u64; 6]));
        }
        limits.push(began.elapsed().as_nanos() as f64 / actors as f64);
    }
    for (work, times) in
        [("create: an address", addresses), ("create: lookup and first turn", turns)]
    {
        if let Some(took) = median(&times) {
            bench.table.add(Row::measured(work, Unit::Time, (took, median(&limits))));
        }
    }
}

/// Memory of actors that are awake and idle, and of those that have left memory again.
pub(crate) fn resident(bench: &mut Bench) {
    if !bench.wants("memory") {
        return;
    }
    let actors: usize = bench.scale.pick(1_000, 200_000, 1_000_000);
    for (mode, work) in [
        ("awake", "memory: idle actor"),
        ("held", "memory: passivated, somebody holds its address"),
        ("asleep", "memory: passivated"),
    ] {
        let bytes = in_child(mode, actors);
        let limit = if mode == "awake" { Some(STATE_BYTES) } else { None };
        bench.table.add(Row::measured(work, Unit::Bytes, (bytes, limit)));
    }
}

/// In a process of its own: what others have freed would be used again here.
fn in_child(mode: &str, actors: usize) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program)
        .env(CHILD, format!("{mode} {actors}"))
        .stderr(Stdio::inherit())
        .output()
        .expect("a child");
    assert!(child.status.success(), "the child that measures memory: {}", child.status);
    let text = String::from_utf8(child.stdout).expect("a number");
    text.trim().parse().expect("a number")
}

/// If this process is such a child, it does its work.
pub(crate) fn is_child() -> bool {
    let Ok(task) = std::env::var(CHILD) else { return false };
    let (mode, actors) = task.split_once(' ').expect("a mode and a number");
    let actors = actors.parse().expect("a number");
    println!("{}", bytes_each(mode, actors));
    true
}

fn bytes_each(mode: &str, actors: usize) -> f64 {
    let home = Home::new("actors-memory");
    let store = store(&home);
    // What the first actors cost beside themselves is not theirs.
    first_turns(&store, 0..actors / 100);
    let before = memory();
    let mut held = Vec::new();
    let slice = 1_000;
    for start in (actors / 100..actors + actors / 100).step_by(slice) {
        let numbers = start..start + slice.min(actors);
        if mode == "awake" {
            first_turns(&store, numbers);
            continue;
        }
        for number in numbers {
            let address = store.actor::<Account>(&number.to_string()).expect("an address");
            address.ask(Deposit).expect("an answer");
            address.passivate().expect("outside of a turn");
            if mode == "held" {
                held.push(address);
            }
        }
        store.runtime().sweep();
    }
    let bytes = memory() - before;
    let list = held.capacity() * size_of::<annals::Addr<Account>>();
    (bytes - list as f64) / actors as f64
}

fn first_turns(store: &Store, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let address = store.actor::<Account>(&number.to_string()).expect("an address");
        black_box(address.ask(Get).expect("an answer"));
    }
}

/// Bytes of this process' own memory that are present: no files, no maps of them.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("what the kernel counts");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<f64>().ok()).expect("a number of KiB") * 1024.0
}

fn store(home: &Home) -> Store {
    let options = options(Durability::Process).catalogue(false).residents_max(usize::MAX / 2);
    options.open(home.fresh("memory")).expect("a store")
}
