//! A million actors that sleep: what they cost, and how they wake.
//!
//! ```text
//! cargo run --release --example sleepers
//! ```
//!
//! Each sleeper takes one turn and leaves memory. The store is closed, and opened by another
//! process, which reads nothing of them. Some wake by a timer that they had set, some by a message
//! that another actor sends for good, and one by being asked. What is printed is measured; what is
//! claimed is checked.
#![expect(clippy::disallowed_methods, reason = "an example reads /proc, and a stopwatch")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{
    Actor, ActorOptions, Addr, Durability, Durable, Handle, RecoveryPhase, Store, StoreOptions,
    Turn,
};

const HELP: &str = "\
Makes many actors that sleep, and wakes some of them.

Usage: sleepers [options]
  --count N    how many there are [1000000]
  --dir DIR    where the store goes; must be empty or absent [a temporary directory]
  --help";

/// One of so many has set an alarm; as many are sent a message.
const AWAKE_OF: u64 = 1_000;
/// Set in one life, to ring in the next.
const ALARM: Duration = Duration::from_secs(3);
/// Turns that are under way at a time.
const IN_FLIGHT: usize = 4_096;
/// How long any of this may take, before it is called an error.
const LONG: Duration = Duration::from_mins(2);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Somebody who is called now and then.
#[derive(Default)]
struct Sleeper {
    calls: u64,
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
enum Event {
    Born,
    Called,
}

impl Actor for Sleeper {
    type Event = Event;
    const KIND: &'static str = "sleeper";

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Born => {}
            Event::Called => self.calls += 1,
        }
    }

    fn options() -> ActorOptions<Self> {
        ActorOptions::new().command::<Call>()
    }
}

/// Is born, and stays in memory or does not.
struct Begin {
    stay: bool,
}

impl Handle<Begin> for Sleeper {
    type Reply = ();

    fn handle(command: Begin, turn: &mut Turn<'_, Self>) {
        turn.emit(Event::Born);
        if !command.stay {
            turn.passivate();
        }
    }
}

/// Sets an alarm and sleeps on.
struct SetAlarm(Duration);

impl Handle<SetAlarm> for Sleeper {
    type Reply = ();

    fn handle(SetAlarm(after): SetAlarm, turn: &mut Turn<'_, Self>) {
        turn.wake_after("alarm", after, &Call);
        turn.passivate();
    }
}

/// From the alarm, or from somebody else.
#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = annals::rkyv)]
struct Call;

impl Durable for Call {
    const NAME: &'static str = "call";
}

impl Handle<Call> for Sleeper {
    type Reply = ();

    fn handle(_: Call, turn: &mut Turn<'_, Self>) {
        turn.emit(Event::Called);
    }
}

/// To one who is awake: call another.
struct Wake(String);

impl Handle<Wake> for Sleeper {
    type Reply = bool;

    fn handle(Wake(name): Wake, turn: &mut Turn<'_, Self>) -> bool {
        // Stored with this turn, and handled once, also if the process ends before.
        turn.actor::<Sleeper>(&name).is_ok_and(|other| turn.send(&other, Call).is_ok())
    }
}

struct Calls;

impl Handle<Calls> for Sleeper {
    type Reply = u64;

    fn handle(_: Calls, turn: &mut Turn<'_, Self>) -> u64 {
        turn.calls
    }
}

fn name_of(number: u64) -> String {
    format!("sleeper-{number}")
}

/// Memory of this process that is its own, in bytes: not the pages of files that it has mapped.
fn memory() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no RssAnon")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

fn options() -> StoreOptions {
    Store::options().durability(Durability::Process).actor::<Sleeper>()
}

/// Has all of them born, many at a time.
fn begin(
    store: &Store,
    count: u64,
    stay: bool,
    name: impl Fn(u64) -> String,
) -> Result<Duration, Failure> {
    let began = Instant::now();
    let mut tickets = Vec::with_capacity(IN_FLIGHT);
    let steps = (count / 10).max(1);
    for number in 0..count {
        tickets.push(store.actor::<Sleeper>(&name(number))?.post(Begin { stay })?);
        if tickets.len() == IN_FLIGHT {
            for ticket in tickets.drain(..) {
                ticket.wait()?;
            }
        }
        if number % steps == steps - 1 {
            println!("  {} of {count} after {:.1} s", number + 1, began.elapsed().as_secs_f64());
        }
    }
    for ticket in tickets {
        ticket.wait()?;
    }
    Ok(began.elapsed())
}

/// Waits until `done` says so.
fn wait(what: &str, mut done: impl FnMut() -> Result<bool, Failure>) -> Result<Duration, Failure> {
    let began = Instant::now();
    while !done()? {
        if began.elapsed() > LONG {
            return Err(format!("{what} did not come").into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(began.elapsed())
}

fn per(bytes: u64, count: u64) -> u64 {
    bytes / count.max(1)
}

/// In a process of its own, so that nothing of this is in the memory that is measured.
fn make(dir: &Path, count: u64) -> Result<(), Failure> {
    let store = options().open(dir)?;
    println!("{count} sleepers are born:");
    let born = begin(&store, count, false, name_of)?;
    println!("  {:.0} thousand a second", thousands(count) / born.as_secs_f64());
    for number in (0..count).filter(|number| number % AWAKE_OF == 0) {
        store.actor::<Sleeper>(&name_of(number))?.ask(SetAlarm(ALARM))?;
    }
    let _closed = store.close(LONG)?;
    Ok(())
}

fn run(dir: &Path, count: u64) -> Result<(), Failure> {
    let mut maker = Command::new(std::env::current_exe()?);
    maker.arg("--make").arg("--dir").arg(dir).args(["--count", &count.to_string()]);
    let ended = maker.status()?;
    if !ended.success() {
        return Err(format!("who made them ended with {ended}").into());
    }

    let before = memory()?;
    let began = Instant::now();
    let store = options().open(dir)?;
    let opened = began.elapsed();
    let recovery = store.runtime().wait_recovered(LONG);
    if recovery.phase != RecoveryPhase::Done {
        return Err(format!("the recovery is at {:?}", recovery.phase).into());
    }
    let sleeping = memory()?.saturating_sub(before);
    println!("The store is open again:");
    println!(
        "  after {:.1} ms; what is owed is known after {:.1} ms",
        millis(opened),
        millis(recovery.took)
    );
    println!(
        "  {} actors in memory, {} promises kept in mind",
        store.stats().residents,
        store.runtime().owed()
    );
    println!(
        "  the open store takes {} KiB in all, {} bytes a sleeper",
        sleeping / 1024,
        per(sleeping, count)
    );

    // The first question finds nothing in memory: it reads that one actor.
    let last = store.actor::<Sleeper>(&name_of(count - 1))?;
    let mut asked = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let calls = last.ask(Calls)?;
        asked.push(began.elapsed());
        if calls != 0 {
            return Err("it was called by nobody, and was".into());
        }
    }
    let [first, second, third] = asked[..] else { return Err("asked three times".into()) };
    println!(
        "  the first question to one is answered after {} us, then {} and {} us",
        first.as_micros(),
        second.as_micros(),
        third.as_micros()
    );

    by_message(&store, &last, count)?;
    by_alarm(&store, count.div_ceil(AWAKE_OF))?;
    all_awake(&store, count)?;
    let _closed = store.close(LONG)?;
    Ok(())
}

/// Some are sent a message by the one who is awake.
fn by_message(store: &Store, awake: &Addr<Sleeper>, count: u64) -> Result<(), Failure> {
    // The neighbours of those with an alarm.
    let called: Vec<_> = (0..count).filter(|number| number % AWAKE_OF == 1).map(name_of).collect();
    let owed = store.runtime().owed();
    let began = Instant::now();
    for name in &called {
        if !awake.ask(Wake(name.clone()))? {
            return Err(format!("no room at {name}").into());
        }
    }
    wait("the messages' end", || {
        let calls: Result<Vec<u64>, _> = called
            .iter()
            .map(|name| store.actor::<Sleeper>(name).and_then(|it| Ok(it.ask(Calls)?)))
            .collect();
        Ok(calls?.iter().all(|calls| *calls == 1))
    })?;
    println!("  {} woke by a message, in {:.1} ms", called.len(), millis(began.elapsed()));
    if store.runtime().owed() > owed {
        return Err("a message that was handled is owed still".into());
    }
    Ok(())
}

/// Some have set an alarm in the life before.
fn by_alarm(store: &Store, alarms: u64) -> Result<(), Failure> {
    let waited = wait("the last alarm", || Ok(store.runtime().owed() == 0))?;
    for number in 0..alarms {
        let sleeper = store.actor::<Sleeper>(&name_of(number * AWAKE_OF))?;
        let calls = sleeper.ask(Calls)?;
        if calls != 1 {
            return Err(format!("{} has had {calls} calls", sleeper.name()).into());
        }
    }
    println!(
        "  {alarms} woke by their alarms of the life before, after another {:.1} s",
        waited.as_secs_f64()
    );
    Ok(())
}

/// For comparison: as many who do not sleep.
fn all_awake(store: &Store, count: u64) -> Result<(), Failure> {
    let few = count.min(100_000);
    println!("For comparison, {few} who stay awake:");
    let (memory_before, before) = (memory()?, store.stats().residents);
    begin(store, few, true, |number| format!("awake-{number}"))?;
    let took = memory()?.saturating_sub(memory_before);
    let residents = (store.stats().residents - before) as u64;
    println!(
        "  the process grew by {} KiB, what it took to write them included: {} bytes each",
        took / 1024,
        per(took, residents)
    );
    if residents != few {
        return Err(format!("{residents} are in memory").into());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn thousands(count: u64) -> f64 {
    count as f64 / 1_000.0
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sleepers: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    use lexopt::prelude::{Long, Short, ValueExt as _};
    let (mut count, mut is_maker) = (1_000_000, false);
    let mut dir = None::<OsString>;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            Long("count") => count = parser.value()?.parse()?,
            Long("dir") => dir = Some(parser.value()?),
            Long("make") => is_maker = true,
            _ => return Err(argument.unexpected().into()),
        }
    }
    if count < 10 {
        return Err("--count must be at least 10".into());
    }
    if is_maker {
        return make(Path::new(&dir.ok_or("who makes them needs --dir")?), count);
    }
    let temporary = tempfile::Builder::new().prefix("annals-sleepers-").tempdir()?;
    let dir = dir.map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    fs::create_dir_all(&dir)?;
    if dir.read_dir()?.next().is_some() {
        return Err(format!("{} is not empty", dir.display()).into());
    }
    run(&dir, count)
}
