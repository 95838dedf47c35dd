//! `kill -9` at any instant, for real: a child works on a store from several threads and tells
//! this process, over a pipe, what was acknowledged to it; then it is killed, wherever it is,
//! opening and recovering included. This process opens the store and looks whether everything
//! that was acknowledged is there, whole turns only, and whether the state is the fold of the
//! events.
//!
//! `ANNALS_CRASH_ROUNDS` is the number of kills (default 150), `ANNALS_SEED` replays a run (as
//! far as the scheduler lets it). A test binary of its own, because it starts itself as a child.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a harness of its own"
)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{
    Actor, ActorOptions, Durability, Handle, Seq, SnapshotPolicy, Store, StoreOptions, Turn,
};
use parking_lot::Mutex;

const THREADS: u64 = 3;
const ACTORS: u64 = 4;
const ROUNDS_PER_STORE: u64 = 25;
/// Stores at a time.
const LANES: u64 = 6;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// What event `part` of turn `turn` of an actor holds.
fn content(actor: u64, turn: u64, part: u64) -> u64 {
    Random(actor << 48 ^ turn << 8 ^ part).next()
}

/// How many events turn `turn` of an actor emits.
fn parts(actor: u64, turn: u64) -> u64 {
    1 + content(actor, turn, 255) % 5
}

#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Noted {
    turn: u64,
    part: u64,
    content: u64,
    filling: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Ledger {
    turns: u64,
    events: u64,
    fold: u64,
}

impl Actor for Ledger {
    type Event = Noted;
    const KIND: &'static str = "ledger";

    fn apply(&mut self, event: &Noted) {
        self.turns = event.turn;
        self.events += 1;
        self.fold = self.fold.rotate_left(7) ^ event.content;
    }

    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(50).on_passivate())
    }
}

/// Turn number `turns + 1`; answers its number.
struct Note {
    actor: u64,
    durability: Durability,
}

impl Handle<Note> for Ledger {
    type Reply = u64;

    fn handle(command: Note, turn: &mut Turn<'_, Self>) -> u64 {
        turn.durability(command.durability);
        let number = turn.turns + 1;
        for part in 0..parts(command.actor, number) {
            let content = content(command.actor, number, part);
            let filling = vec![7; usize::try_from(content % 300).unwrap()];
            turn.emit(Noted { turn: number, part, content, filling });
        }
        if number.is_multiple_of(97) {
            turn.passivate();
        }
        number
    }
}

struct Get;

impl Handle<Get> for Ledger {
    type Reply = Ledger;

    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Ledger {
        turn.state().clone()
    }
}

fn options() -> StoreOptions {
    Store::options()
        .durability(Durability::Process)
        .ring_bytes(128 << 10)
        .segment_bytes(32 << 10, 256 << 10)
        .frame_bytes_max(16 << 10)
        .snapshot_bytes_max(16 << 10)
        .flush_interval(Duration::from_millis(20))
}

fn name(thread: u64, actor: u64) -> (u64, String) {
    let number = thread * ACTORS + actor;
    (number, format!("ledger-{number}"))
}

/// The child: works until it is killed.
fn work(dir: &Path, seed: u64) -> ExitCode {
    let store = match options().open(dir) {
        Ok(store) => store,
        Err(error) => {
            eprintln!("the child could not open: {error}");
            return ExitCode::from(3);
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let mut random = Random(seed ^ thread);
                let actors: Vec<_> = (0..ACTORS)
                    .map(|actor| {
                        let (number, name) = name(thread, actor);
                        (number, store.actor::<Ledger>(&name).unwrap())
                    })
                    .collect();
                loop {
                    let (number, addr) = &actors[usize::try_from(random.below(ACTORS)).unwrap()];
                    let durability = match random.below(8) {
                        0 => Durability::Power,
                        _ => Durability::Process,
                    };
                    let turn = addr.ask(Note { actor: *number, durability }).unwrap();
                    let mut line = [0; 16];
                    line[..8].copy_from_slice(&number.to_le_bytes());
                    line[8..].copy_from_slice(&turn.to_le_bytes());
                    // One write below PIPE_BUF is all or nothing; the other end may be gone.
                    if std::io::stdout().lock().write_all(&line).is_err() {
                        return;
                    }
                    drop(std::io::stdout().flush());
                }
            });
        }
    });
    ExitCode::SUCCESS
}

fn start(dir: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env("ANNALS_CRASH_CHILD", dir)
        .env("ANNALS_SEED", seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets a child work and kills it; answers the last acknowledged turn of each actor.
fn kill_one(dir: &Path, random: &mut Random) -> Result<BTreeMap<u64, u64>, String> {
    let mut child = start(dir, random.next());
    let mut pipe = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        bytes
    });
    // Any instant: often within the opening, else some way into the work.
    let instant = match random.below(4) {
        0 => Duration::from_micros(random.below(15_000)),
        1 | 2 => Duration::from_micros(random.below(40_000)),
        _ => Duration::from_micros(random.below(120_000)),
    };
    let begun = Instant::now();
    std::thread::sleep(instant.saturating_sub(begun.elapsed()));
    if let Ok(Some(status)) = child.try_wait() {
        return Err(format!("the child ended by itself: {status}"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let bytes = reader.join().unwrap();
    let mut acknowledged = BTreeMap::new();
    for line in bytes.as_chunks::<16>().0 {
        let (number, turn) = line.split_at(8);
        let number = u64::from_le_bytes(number.try_into().unwrap());
        let turn = u64::from_le_bytes(turn.try_into().unwrap());
        let last = acknowledged.entry(number).or_insert(0);
        if turn <= *last {
            return Err(format!("turn {turn} of actor {number} was acknowledged twice"));
        }
        *last = turn;
    }
    Ok(acknowledged)
}

/// Everything that was acknowledged is there, whole, right, and nothing else is.
fn verify(dir: &Path, acknowledged: &BTreeMap<u64, u64>) -> Result<u64, String> {
    let store = options().open(dir).map_err(|error| format!("the store does not open: {error}"))?;
    let mut events_all = 0;
    for thread in 0..THREADS {
        for actor in 0..ACTORS {
            let (number, name) = name(thread, actor);
            let wrong = |what: String| format!("actor {number}: {what}");
            let history = store
                .history::<Ledger>(&name, Seq::ZERO)
                .map_err(|error| wrong(error.to_string()))?;
            let mut expected = Vec::new();
            let last = history.last().map_or(0, |past| past.event().unwrap().turn);
            for turn in 1..=last {
                expected.extend((0..parts(number, turn)).map(|part| (turn, part)));
            }
            let found: Vec<_> = history
                .iter()
                .filter_map(|past| past.event())
                .map(|it| (it.turn, it.part))
                .collect();
            if found != expected {
                return Err(wrong(format!("events up to turn {last} are not whole turns")));
            }
            let mut fold = Ledger::default();
            for (seq, past) in (1..).zip(&history) {
                let Noted { turn, part, content: is, .. } = *past.event().unwrap();
                if is != content(number, turn, part) || past.seq.get() != seq {
                    return Err(wrong(format!("event {seq} is not what was emitted")));
                }
                fold.apply(past.event().unwrap());
            }
            let promised = acknowledged.get(&number).copied().unwrap_or(0);
            if last < promised {
                return Err(wrong(format!("turn {promised} was acknowledged, {last} is the last")));
            }
            let addr = store.actor::<Ledger>(&name).map_err(|error| wrong(error.to_string()))?;
            let state = addr.ask(Get).map_err(|error| wrong(error.to_string()))?;
            if state != fold {
                return Err(wrong(format!("the state is {state:?}, the fold is {fold:?}")));
            }
            events_all += fold.events;
        }
    }
    Ok(events_all)
}

fn main() -> ExitCode {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    if let Some(dir) = std::env::var_os("ANNALS_CRASH_CHILD") {
        return work(&PathBuf::from(dir), seed.unwrap_or(0));
    }
    if std::env::args().any(|argument| argument == "--list") {
        println!("nothing_acknowledged_is_lost_to_kill_9: test");
        return ExitCode::SUCCESS;
    }
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap()
    });
    let rounds = std::env::var("ANNALS_CRASH_ROUNDS").ok();
    let rounds = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(150_u64);
    println!("\nrunning 1 test (ANNALS_CRASH_ROUNDS={rounds} ANNALS_SEED={seed})");
    match nothing_acknowledged_is_lost_to_kill_9(seed, rounds) {
        Ok(summary) => {
            println!("test nothing_acknowledged_is_lost_to_kill_9 ... ok");
            println!("{summary}");
            println!(
                "\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"
            );
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            println!("test nothing_acknowledged_is_lost_to_kill_9 ... FAILED");
            println!("{wrong}\nANNALS_SEED={seed} ANNALS_CRASH_ROUNDS={rounds}");
            println!(
                "\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out"
            );
            ExitCode::FAILURE
        }
    }
}

/// Several stores side by side: most of a round is waiting for the instant of the kill.
fn nothing_acknowledged_is_lost_to_kill_9(seed: u64, rounds: u64) -> Result<String, String> {
    let begun = Instant::now();
    let stores = rounds.div_ceil(ROUNDS_PER_STORE);
    let next = AtomicU64::new(0);
    let wrong: Mutex<Option<String>> = Mutex::new(None);
    let (turns, events) = (AtomicU64::new(0), AtomicU64::new(0));
    let lane = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= stores || wrong.lock().is_some() {
            return;
        }
        let rounds = ROUNDS_PER_STORE.min(rounds - number * ROUNDS_PER_STORE);
        match kill_store(number, seed, rounds) {
            Ok((acknowledged, found)) => {
                turns.fetch_add(acknowledged, Ordering::Relaxed);
                events.fetch_add(found, Ordering::Relaxed);
            }
            Err(what) => drop(wrong.lock().get_or_insert(what)),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..LANES.min(stores) {
            scope.spawn(lane);
        }
    });
    match wrong.into_inner() {
        Some(wrong) => Err(wrong),
        None => Ok(format!(
            "{rounds} kills ({:.0}/s), {} acknowledged turns and {} events all there",
            f64::from(u32::try_from(rounds).unwrap()) / begun.elapsed().as_secs_f64(),
            turns.into_inner(),
            events.into_inner(),
        )),
    }
}

/// Every other store is in memory: a kill asks nothing of the disk, and its syncs take long.
fn home(number: u64) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let in_memory = (number % 2 == 1).then(|| tempfile::tempdir_in(memory).ok()).flatten();
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// Kills and kills again whoever works on one store.
fn kill_store(number: u64, seed: u64, rounds: u64) -> Result<(u64, u64), String> {
    let mut random = Random(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let home = home(number);
    let dir = home.path().join("store");
    let mut acknowledged = BTreeMap::new();
    for round in 1..=rounds {
        let fresh = kill_one(&dir, &mut random);
        let told = fresh.and_then(|fresh| {
            acknowledged.extend(fresh);
            // Sometimes the next child does the recovery, and is killed in it.
            if random.below(3) == 0 { Ok(0) } else { verify(&dir, &acknowledged) }
        });
        if let Err(wrong) = told {
            let kept = home.keep();
            return Err(format!(
                "store {number}, round {round}: {wrong}\nkept in {}",
                kept.display()
            ));
        }
    }
    let turns = acknowledged.values().sum::<u64>();
    Ok((turns, verify(&dir, &acknowledged)?))
}
