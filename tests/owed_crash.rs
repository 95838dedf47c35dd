//! `kill -9` at any instant, for real, on actors that owe something: messages, timers, steps,
//! commands with an id, and turns that are left for later.
//!
//! A child has actors work and tells this process over a pipe what it was answered, which steps
//! ran, and what ran after turns; then it is killed, wherever it is. This process reads the events
//! before it opens the store, opens it, waits until everything was taken up, and asks the oracle
//! (`it/owing.rs`) whether all of it was done exactly once.
//!
//! `ANNALS_CRASH_ROUNDS` is the number of kills (default 150), `ANNALS_SEED` replays a run (as
//! far as the scheduler lets it). A test binary of its own, because it starts itself as a child.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a harness of its own"
)]

#[expect(dead_code, reason = "what policies may lose is checked on the simulated disk")]
#[path = "it/owing.rs"]
mod owing;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use annals::actor::{
    CommandId, Durable, Missed, Outcome, Persistence, RecoveryPhase, Step, StepContext, Stepped,
};
use annals::disk::sim::Random;
use annals::rkyv::{self, Archive, Deserialize, Serialize};
use annals::types::HybridTime;
use annals::{
    Actor, ActorOptions, Durability, Handle, RuntimeOptions, Seq, SnapshotPolicy, Store,
    StoreOptions, Turn,
};
use owing::{Lines, Policy, alive, check_lines, check_survived, unsettled};

const CLERKS: [(&str, Policy); 6] = [
    ("a", Policy::EachTurn),
    ("b", Policy::EachTurn),
    ("c", Policy::EachTurn),
    ("every", Policy::Every(3)),
    ("interval", Policy::Interval),
    ("deferred", Policy::Deferred),
];
const ROUNDS_PER_STORE: u64 = 15;
const LANES: u64 = 4;
const LONG: Duration = Duration::from_secs(30);

/// Writes down what it does.
#[derive(Archive, Serialize, Deserialize, Default, Debug)]
#[rkyv(crate = annals::rkyv)]
struct Clerk(Vec<String>);

impl Actor for Clerk {
    type Event = String;
    const KIND: &'static str = "clerk";

    fn apply(&mut self, event: &String) {
        self.0.push(event.clone());
    }

    fn options() -> ActorOptions<Self> {
        ActorOptions::new()
            .command::<Letter>()
            .command::<Tick>()
            .step::<Work>()
            .snapshots(1, SnapshotPolicy::every(50))
    }
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Letter {
    id: String,
    hops: u8,
}
impl Durable for Letter {
    const NAME: &'static str = "letter";
}
impl Handle<Letter> for Clerk {
    type Reply = ();
    fn handle(Letter { id, hops }: Letter, turn: &mut Turn<'_, Self>) {
        turn.emit(format!("got {id}"));
        if hops > 0 {
            send(turn, CLERKS[id.len() % 6].0, format!("{id}+"), hops - 1);
        }
    }
}

fn send(turn: &mut Turn<'_, Clerk>, to: &str, id: String, hops: u8) {
    let addr = turn.actor::<Clerk>(to).unwrap();
    turn.emit(format!("sent {id} {to}"));
    assert!(turn.send(&addr, Letter { id, hops }).is_ok(), "there is room");
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Tick {
    key: String,
    generation: u64,
    every: u64,
}
impl Durable for Tick {
    const NAME: &'static str = "tick";
}
impl Handle<Tick> for Clerk {
    type Reply = ();
    fn handle(Tick { key, generation, every }: Tick, turn: &mut Turn<'_, Self>) {
        let due = turn.timer(&key).map_or(0, HybridTime::millis);
        let now = turn.now().millis();
        turn.emit(format!("tick {key} {generation} {due} {now} {every}"));
    }
}

/// Leaves a trace outside.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Work {
    id: u64,
    clerk: u8,
}
impl Durable for Work {
    const NAME: &'static str = "work";
}
impl Step for Work {
    type Output = ();
    fn run(&self, _: &StepContext) {
        say(&format!("ran {} began {}", CLERKS[usize::from(self.clerk)].0, self.id));
    }
}
impl Handle<Stepped<Work>> for Clerk {
    type Reply = ();
    fn handle(stepped: Stepped<Work>, turn: &mut Turn<'_, Self>) {
        let how = match stepped.outcome {
            Outcome::Done(()) => "done",
            Outcome::InDoubt => "doubt",
            Outcome::Panicked(_) => "wrong",
        };
        turn.emit(format!("stepped {} {how} around", stepped.step.id));
    }
}

struct Once(u64);
impl Handle<Once> for Clerk {
    type Reply = u64;
    fn handle(Once(id): Once, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(format!("once {id}"));
        turn.0.len() as u64
    }
}

struct Told(String);
impl Handle<Told> for Clerk {
    type Reply = ();
    fn handle(Told(line): Told, turn: &mut Turn<'_, Self>) {
        turn.emit(line);
    }
}

struct Do<F>(F);
impl<F, R> Handle<Do<F>> for Clerk
where
    F: FnOnce(&mut Turn<'_, Self>) -> R + Send + 'static,
    R: Send + 'static,
{
    type Reply = R;
    fn handle(Do(act): Do<F>, turn: &mut Turn<'_, Self>) -> R {
        act(turn)
    }
}

/// One write below `PIPE_BUF` is all or nothing; the other end may be gone.
fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(format!("{what}\n").as_bytes()));
    drop(out.flush());
}

fn options() -> StoreOptions {
    let runtime = RuntimeOptions { durability: Durability::Process, ..RuntimeOptions::default() };
    Store::options()
        .ring_bytes(128 << 10)
        .segment_bytes(32 << 10, 256 << 10)
        .frame_bytes_max(16 << 10)
        .snapshot_bytes_max(64 << 10)
        .flush_interval(Duration::from_millis(20))
        .runtime(runtime.actor::<Clerk>())
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
    let mut random = Random::new(seed);
    for (name, policy) in CLERKS {
        let policy = match policy {
            Policy::EachTurn => Persistence::EachTurn,
            Policy::Every(events) => Persistence::Every(u32::try_from(events).unwrap()),
            Policy::Interval => Persistence::Interval(Duration::from_millis(5)),
            Policy::Deferred => Persistence::Deferred,
        };
        let addr = store.actor::<Clerk>(name).unwrap();
        addr.ask(Do(move |turn: &mut Turn<'_, Clerk>| turn.persistence(policy))).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let (store, mut random) = (&store, Random::new(random.bits()));
            scope.spawn(move || {
                for number in 0_u64.. {
                    let id = (seed & 0xff_ffff) << 32 | thread << 31 | number;
                    act(store, &mut random, id);
                }
            });
        }
    });
    ExitCode::SUCCESS
}

fn act(store: &Store, random: &mut Random, id: u64) {
    let clerk = random.below(CLERKS.len());
    let (name, _) = CLERKS[clerk];
    let addr = store.actor::<Clerk>(name).unwrap();
    let power = random.once_in(6);
    let (kind, pick) = (random.below(9), random.below(6));
    if kind == 0 {
        let once = CommandId(u128::from(id));
        let answer = addr.ask_once(once, Once(id)).unwrap();
        // So many lines had this actor then, and this answer belongs to that id.
        return say(&format!("once {name} {answer} {id}"));
    }
    if kind < 3 {
        let lines = (0..=pick).map(|it| format!("told {id}.{it}"));
        return lines.for_each(|line| assert!(addr.tell(Told(line)).is_ok()));
    }
    let lines = addr.ask(Do(move |turn: &mut Turn<'_, Clerk>| {
        turn.durability(if power { Durability::Power } else { Durability::Process });
        let key = format!("k{}", pick % 3);
        match kind {
            3 | 4 => send(turn, CLERKS[pick].0, format!("m{id}"), u8::try_from(pick % 3).unwrap()),
            5 => {
                let (due, every) = (turn.now().millis() + pick as u64 * 5, [0, 250][pick % 2]);
                turn.emit(format!("armed {key} {id} {due} {every} FireOnce"));
                let (first, tick) = (
                    HybridTime::from_millis(due),
                    Tick { key: key.clone(), generation: id, every },
                );
                if every == 0 {
                    turn.wake_at(&key, first, &tick);
                } else {
                    let every = Duration::from_millis(every);
                    turn.remind(&key, (first, every), Missed::FireOnce, &tick);
                }
            }
            6 => {
                let armed = turn.cancel(&key);
                turn.emit(format!("{} {key}", if armed { "cancelled" } else { "unarmed" }));
            }
            7 => {
                turn.emit(format!("began {id}"));
                turn.step("", Work { id, clerk: u8::try_from(clerk).unwrap() });
            }
            _ => {
                turn.emit(format!("after {id}"));
                turn.after(move || say(&format!("ran {name} after {id}")));
            }
        }
        turn.0.len()
    }));
    say(&format!("ack {name} {}", lines.unwrap()));
}

/// What the child has told, in all its lives.
#[derive(Default)]
struct Record {
    /// So many lines of each were told of.
    answered: BTreeMap<&'static str, usize>,
    /// Lines of which something outside tells.
    ran: BTreeSet<(String, String)>,
    answers: BTreeMap<u64, (String, u64)>,
}

fn start(dir: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env("ANNALS_CRASH_CHILD", dir)
        .env("ANNALS_SEED", seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets a child work and kills it, and takes down what it has told.
fn kill_one(dir: &Path, random: &mut Random, record: &mut Record) -> Result<(), String> {
    let mut child = start(dir, random.bits());
    let mut pipe = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        bytes
    });
    let most = [15_000, 40_000, 40_000, 120_000][random.below(4)];
    std::thread::sleep(Duration::from_micros(random.below(most) as u64));
    if let Ok(Some(status)) = child.try_wait() {
        return Err(format!("the child ended by itself: {status}"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in String::from_utf8(reader.join().unwrap()).unwrap().lines() {
        let words: Vec<_> = line.split(' ').collect();
        let known = |name: &str| CLERKS.into_iter().map(|(it, _)| it).find(|it| *it == name);
        match *words.as_slice() {
            ["ran", name, what, id] => {
                if !record.ran.insert((name.to_owned(), format!("{what} {id}"))) {
                    return Err(format!("ran twice: {line}"));
                }
            }
            [how, name, count, ref rest @ ..] => {
                let name = known(name).ok_or_else(|| format!("who is that? {line}"))?;
                let count: usize = count.parse().unwrap();
                let answered = record.answered.entry(name).or_default();
                *answered = (*answered).max(count);
                if how == "once" {
                    let id = rest.first().unwrap().parse().unwrap();
                    record.answers.insert(id, (name.to_owned(), count as u64));
                }
            }
            _ => return Err(format!("what is that? {line}")),
        }
    }
    Ok(())
}

fn lines_of(store: &Store) -> Lines {
    let lines = |name| {
        let addr = store.actor::<Clerk>(name).unwrap();
        addr.ask(Do(|turn: &mut Turn<'_, Clerk>| turn.0.clone())).unwrap()
    };
    CLERKS.into_iter().map(|(name, _)| (name, lines(name))).collect()
}

/// The events in the log, before anybody takes anything up.
fn read(dir: &Path) -> Result<Lines, String> {
    let view = options().read_only(dir).map_err(|error| error.to_string())?;
    let mut all = Lines::new();
    for (name, _) in CLERKS {
        let lines = all.entry(name).or_default();
        let mut visit = |event: annals::RawEvent<'_>| {
            let mut aligned = rkyv::util::AlignedVec::<16>::new();
            aligned.extend_from_slice(event.bytes);
            let line = rkyv::access::<rkyv::string::ArchivedString, rkyv::rancor::Error>(&aligned);
            lines.push(line.unwrap().as_str().to_owned());
            std::ops::ControlFlow::Continue(())
        };
        let bad = view.history(Clerk::KIND, name, Seq::ZERO, &mut visit);
        let bad = bad.map_err(|error| error.to_string())?;
        if !bad.is_empty() {
            return Err(format!("{bad:?}"));
        }
    }
    Ok(all)
}

/// Is everything there, and is everything done that was owed?
fn verify(dir: &Path, record: &Record) -> Result<u64, String> {
    let opened_before = dir.join("identity").exists();
    let survived = if opened_before { read(dir).unwrap_or_default() } else { Lines::new() };
    check_lines(&survived)?;
    let store = options().open(dir).map_err(|error| format!("the store does not open: {error}"))?;
    let recovery = store.runtime().wait_recovered(LONG);
    if recovery.phase != RecoveryPhase::Done || !recovery.in_doubt.is_empty() {
        return Err(format!("{recovery:?}"));
    }
    let begun = Instant::now();
    let found = loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let found = lines_of(&store);
        check_lines(&found)?;
        let open = unsettled(&found, u64::try_from(now).unwrap());
        let owed = store.runtime().owed();
        if open.is_none() && owed == alive(&found) {
            break found;
        }
        if begun.elapsed() > LONG {
            return Err(format!("{open:?}, {owed} owed, {} timers", alive(&found)));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    for (name, lines) in &survived {
        if !found[name].starts_with(lines) {
            return Err(format!("{name} is another after the recovery"));
        }
    }
    check_survived(&found, &found, &record.answered)?;
    for (name, count) in &record.answered {
        let there = survived.get(name).map_or(0, Vec::len);
        if opened_before && there < *count {
            return Err(format!("{name} was answered with {count} lines, {there} survived"));
        }
    }
    for (name, line) in &record.ran {
        if !survived.get(name.as_str()).is_some_and(|lines| lines.contains(line)) {
            return Err(format!("{name}: {line:?} ran, and its turn is gone"));
        }
    }
    for (id, (name, answer)) in &record.answers {
        let addr = store.actor::<Clerk>(name).map_err(|error| error.to_string())?;
        let again = addr.ask_once(CommandId(u128::from(*id)), Once(*id)).unwrap();
        if again != *answer {
            return Err(format!("{id} was answered with {answer}, and then with {again}"));
        }
    }
    Ok(recovery.interrupted)
}

/// Kills and kills again whoever works on one store; answers what was interrupted.
fn kill_store(number: u64, seed: u64, rounds: u64) -> Result<(u64, usize), String> {
    let mut random = Random::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let shm = (number % 2 == 1).then(|| tempfile::tempdir_in("/dev/shm").ok()).flatten();
    let home = shm.unwrap_or_else(|| tempfile::tempdir().unwrap());
    let dir = home.path().join("store");
    let (mut record, mut interrupted) = (Record::default(), 0);
    for round in 1..=rounds {
        let told = kill_one(&dir, &mut random, &mut record).and_then(|()| {
            // Sometimes the next child takes things up, and is killed in that.
            let skips = round < rounds && random.once_in(3);
            if skips { Ok(0) } else { verify(&dir, &record) }
        });
        match told {
            Ok(found) => interrupted += found,
            Err(wrong) => {
                let kept = home.keep();
                let kept = kept.display();
                return Err(format!("store {number}, round {round}: {wrong}\nkept in {kept}"));
            }
        }
    }
    Ok((interrupted, record.answered.values().sum()))
}

fn what_actors_owe_survives_kill_9(seed: u64, rounds: u64) -> Result<String, String> {
    let stores = rounds.div_ceil(ROUNDS_PER_STORE);
    let lane = |lane: u64| {
        let mut all = (0, 0);
        for number in (lane..stores).step_by(usize::try_from(LANES).unwrap()) {
            let rounds = ROUNDS_PER_STORE.min(rounds - number * ROUNDS_PER_STORE);
            let (interrupted, answered) = kill_store(number, seed, rounds)?;
            all = (all.0 + interrupted, all.1 + answered);
        }
        Ok::<_, String>(all)
    };
    let found: Result<Vec<_>, String> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|it| scope.spawn(move || lane(it))).collect();
        lanes.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let found = found?;
    let (interrupted, answered) = found.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    Ok(format!("{rounds} kills, {answered} lines answered for, {interrupted} things interrupted"))
}

fn main() -> ExitCode {
    let name = "what_actors_owe_survives_kill_9";
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    if let Some(dir) = std::env::var_os("ANNALS_CRASH_CHILD") {
        return work(&PathBuf::from(dir), seed.unwrap_or(0));
    }
    if std::env::args().any(|argument| argument == "--list") {
        println!("{name}: test");
        return ExitCode::SUCCESS;
    }
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap()
    });
    let rounds = std::env::var("ANNALS_CRASH_ROUNDS").ok();
    let rounds = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(150_u64);
    println!("\nrunning 1 test (ANNALS_CRASH_ROUNDS={rounds} ANNALS_SEED={seed})");
    let (how, what, failed) = match what_actors_owe_survives_kill_9(seed, rounds) {
        Ok(summary) => ("ok", summary, 0),
        Err(wrong) => {
            ("FAILED", format!("{wrong}\nANNALS_SEED={seed} ANNALS_CRASH_ROUNDS={rounds}"), 1)
        }
    };
    println!("test {name} ... {how}\n{what}");
    println!(
        "\ntest result: {how}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out",
        1 - failed
    );
    ExitCode::from(failed)
}
