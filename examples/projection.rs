//! Projections that survive a crash: a table made of events, exact after any number of kills.
//!
//! ```text
//! cargo run --release --example projection -- --kill 20
//! ```
//!
//! One actor per patient of a hospital's log; what happened to the patient are its events. Two
//! projections follow them and count who hands patients over to whom, department by department:
//!
//! - **A file** that holds its table together with the position up to which that counts. Both get
//!   there by one rename, so a kill leaves the table before or the table after.
//! - **An actor** that is told of each event with its position. A cursor of the store says where to
//!   go on; what comes again after a kill the actor knows by its position, and leaves out.
//!
//! A child process does all that and gets `SIGKILL` at random moments; the parent starts the next.
//! At the end both tables are compared with one that is folded over the whole log, and with one
//! that is made of the data directly.
#![expect(clippy::disallowed_methods, reason = "an example reads its own data, and sleeps")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{
    Actor, Begin, Change, Durability, Feed, Filter, Handle, Position, Store, StoreOptions, Turn,
};

const HELP: &str = "\
Counts who hands patients over to whom, killing the process on the way.

Usage: projection [options]
  --kill N     how often to kill the process [10]
  --seed S     repeat the random moments of an earlier run
  --dir DIR    where the store and the file go; must be empty or absent [a temporary directory]
  --help";

/// The file is written after so many events, or when there is nothing new.
const SAVE_EVERY: u32 = 100;
/// What there is to count, to divide it among the lives.
const ROWS: u64 = 15_214;
/// The name of the actor that counts, and of its cursor.
const COUNTER: &str = "handovers";

type Failure = Box<dyn std::error::Error + Send + Sync>;
/// How often which department handed over to which.
type Table = BTreeMap<(String, String), u64>;

/// What happened to one patient.
#[derive(Default)]
struct Patient {
    count: u64,
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Seen {
    activity: String,
    department: String,
}

impl Actor for Patient {
    type Event = Seen;
    const KIND: &'static str = "patient";
    fn apply(&mut self, _: &Seen) {
        self.count += 1;
    }
}

/// Row `number` of the patient. One that it has already changes nothing: it may be fed again.
struct Feeding(u64, Seen);

impl Handle<Feeding> for Patient {
    type Reply = ();
    fn handle(Feeding(number, seen): Feeding, turn: &mut Turn<'_, Self>) {
        if number == turn.count {
            turn.emit(seen);
        }
    }
}

struct Known;

impl Handle<Known> for Patient {
    type Reply = u64;
    fn handle(_: Known, turn: &mut Turn<'_, Self>) -> u64 {
        turn.count
    }
}

/// What has been counted, up to which event, and where each patient is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Handovers {
    upto: Position,
    events: u64,
    at: BTreeMap<String, String>,
    table: Table,
}

impl Handovers {
    /// Counts the event at `position`, which is behind all that were counted.
    fn count(&mut self, position: Position, patient: &str, department: &str) {
        self.events += 1;
        self.upto = position.next();
        let before = self.at.insert(patient.to_owned(), department.to_owned());
        if let Some(before) = before.filter(|before| before != department) {
            *self.table.entry((before, department.to_owned())).or_default() += 1;
        }
    }

    /// As a file, with the position in its first line.
    fn text(&self) -> String {
        let mut text = format!("{} {}\n", self.upto, self.events);
        for (patient, department) in &self.at {
            text += &["at;", patient, ";", department, "\n"].concat();
        }
        for ((from, to), count) in &self.table {
            text += &[from, ";", to, ";", &count.to_string(), "\n"].concat();
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (upto, events) = lines.next()?.split_once(' ')?;
        let mut found =
            Self { upto: upto.parse().ok()?, events: events.parse().ok()?, ..Self::default() };
        for line in lines {
            let mut parts = line.split(';');
            match (parts.next()?, parts.next()?, parts.next()?) {
                ("at", patient, at) => drop(found.at.insert(patient.to_owned(), at.to_owned())),
                (from, to, count) => {
                    let pair = (from.to_owned(), to.to_owned());
                    found.table.insert(pair, count.parse().ok()?);
                }
            }
        }
        Some(found)
    }

    /// What the file holds; nothing where there is none yet.
    fn load(path: &Path) -> Result<Self, Failure> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).ok_or_else(|| "the table cannot be read".into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes it aside, syncs it, and puts it in the place of the one before.
    fn save(&self, path: &Path) -> Result<(), Failure> {
        let aside = path.with_extension("tmp");
        let mut file = File::create(&aside)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(path.parent().ok_or("no folder")?)?.sync_all()?;
        Ok(())
    }
}

/// The same as an actor: what it has counted it knows, so nothing counts twice.
#[derive(Default)]
struct Counter(Handovers);

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Counted {
    lsn: u64,
    index: u32,
    patient: String,
    department: String,
}

impl Actor for Counter {
    type Event = Counted;
    const KIND: &'static str = "handovers";
    fn apply(&mut self, event: &Counted) {
        let position = Position::new(event.lsn, event.index);
        self.0.count(position, &event.patient, &event.department);
    }
}

struct Count(Position, String, String);

impl Handle<Count> for Counter {
    type Reply = ();
    fn handle(Count(position, patient, department): Count, turn: &mut Turn<'_, Self>) {
        if position >= turn.0.upto {
            let (lsn, index) = (position.lsn(), position.index());
            turn.emit(Counted { lsn, index, patient, department });
        }
    }
}

struct Get;

impl Handle<Get> for Counter {
    type Reply = Handovers;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Handovers {
        turn.0.clone()
    }
}

/// The rows of the data: patient, activity, department, in the order of the file.
fn rows() -> Result<Vec<(String, Seen)>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/sepsis.csv");
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().ok_or("no names of columns")?.split(';').collect();
    let column = |name: &str| names.iter().position(|it| *it == name).ok_or("a column is missing");
    let (case, activity, group) = (column("Case ID")?, column("Activity")?, column("org:group")?);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(';').collect();
        let field = |number: usize| fields.get(number).map(|it| (*it).to_owned());
        let seen = Seen { activity: field(activity)?, department: field(group)? };
        Some((field(case)?, seen))
    };
    lines.map(|line| row(line).ok_or_else(|| format!("no row: {line}").into())).collect()
}

fn options() -> StoreOptions {
    // What a kill cannot take is enough for the actors; projections are told what is durable.
    Store::options().durability(Durability::Process).flush_interval(Duration::from_millis(2))
}

/// One life: feeds what is missing, and counts.
fn live(dir: &Path) -> Result<(), Failure> {
    let store = options().open(dir.join("store"))?;
    let rows = rows()?;
    let fed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| {
            let done = feed(&store, &rows);
            fed.store(true, Ordering::Release);
            done
        });
        let actor = scope.spawn(|| count_in_actor(&store, &fed));
        let file = count_in_file(&store, &dir.join("handovers.txt"), &fed);
        let joined = [feeder.join(), actor.join()];
        for ended in joined {
            ended.map_err(|_panic| "a thread panicked")??;
        }
        file
    })?;
    let _closed = store.close(Duration::from_secs(10))?;
    Ok(())
}

fn feed(store: &Store, rows: &[(String, Seen)]) -> Result<(), Failure> {
    let mut numbers = BTreeMap::<&str, u64>::new();
    for (patient, seen) in rows {
        let number = numbers.entry(patient).or_default();
        let addr = store.actor::<Patient>(patient)?;
        if *number >= addr.ask(Known)? {
            let Seen { activity, department } = seen;
            let (activity, department) = (activity.clone(), department.clone());
            addr.ask(Feeding(*number, Seen { activity, department }))?;
        }
        *number += 1;
    }
    store.sync()?;
    Ok(())
}

/// The projection that is a file: it knows itself where to go on.
fn count_in_file(store: &Store, path: &Path, fed: &AtomicBool) -> Result<(), Failure> {
    let mut counted = Handovers::load(path)?;
    let mut feed: Feed<Patient> = store.feed(counted.upto)?;
    let mut unsaved = 0;
    loop {
        let ended = fed.load(Ordering::Acquire);
        let told = feed.next(Duration::from_millis(5))?;
        if let Some(told) = &told
            && let Change::Event(seen) = &told.what
        {
            counted.count(told.position, &told.name, &seen.department);
            unsaved += 1;
        }
        if unsaved >= SAVE_EVERY || (unsaved > 0 && told.is_none()) {
            counted.save(path)?;
            unsaved = 0;
        }
        if told.is_none() && ended {
            return Ok(());
        }
    }
}

/// The projection that is an actor: the store knows where to go on, and the actor what it has.
fn count_in_actor(store: &Store, fed: &AtomicBool) -> Result<(), Failure> {
    let cursor = store.cursor(COUNTER)?;
    let counter = store.actor::<Counter>(COUNTER)?;
    let mut feed: Feed<Patient> = Feed::new(store.resume(Filter::kind(Patient::KIND), &cursor)?);
    loop {
        let ended = fed.load(Ordering::Acquire);
        match feed.next(Duration::from_millis(5))? {
            Some(told) => {
                if let Change::Event(seen) = told.what {
                    counter.ask(Count(told.position, told.name.to_string(), seen.department))?;
                }
                feed.ack()?;
            }
            None if ended => return Ok(()),
            None => {}
        }
    }
}

/// What both should be: folded over the whole log, and made of the data.
fn prove(dir: &Path) -> Result<(), Failure> {
    let store = options().open(dir.join("store"))?;
    let mut folded = Handovers::default();
    let mut feed: Feed<Patient> = store.feed(Begin::First)?;
    while let Some(told) = feed.next(Duration::ZERO)? {
        if let Change::Event(seen) = told.what {
            folded.count(told.position, &told.name, &seen.department);
        }
    }
    let mut expected = Handovers::default();
    let rows = rows()?;
    for (number, (patient, seen)) in rows.iter().enumerate() {
        expected.count(Position::new(number as u64, 0), patient, &seen.department);
    }
    expected.upto = folded.upto;
    let file = Handovers::load(&dir.join("handovers.txt"))?;
    let actor = store.actor::<Counter>(COUNTER)?.ask(Get)?;
    for (what, found) in [("the log", &folded), ("the file", &file), ("the actor", &actor)] {
        if *found != expected {
            return Err(format!(
                "{what} has {} events up to {}, {} were expected up to {}",
                found.events, found.upto, expected.events, expected.upto
            )
            .into());
        }
    }
    println!("The log, the file and the actor agree: {} events of {} patients.", rows.len(), {
        expected.at.len()
    });
    let mut most: Vec<_> = expected.table.into_iter().collect();
    most.sort_by_key(|(pair, count)| (std::cmp::Reverse(*count), pair.clone()));
    println!("The most frequent handovers:");
    for ((from, to), count) in most.iter().take(5) {
        println!("  {from} -> {to}  {count}");
    }
    Ok(())
}

/// Random numbers that come back with their seed (splitmix64).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *seed;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn child(dir: &Path) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    let child = command.arg("--child").arg("--dir").arg(dir).stdin(Stdio::null()).spawn()?;
    Ok(child)
}

/// Waits for the moment: most often until the file has come some way further, and a little more;
/// now and then it is early, while the store is opened.
fn wait_for_kill(dir: &Path, child: &mut Child, left: u32, seed: &mut u64) -> Result<(), Failure> {
    let more = Duration::from_micros(random(seed) % 20_000);
    if !random(seed).is_multiple_of(4) {
        let path = dir.join("handovers.txt");
        let has = Handovers::load(&path)?.events;
        let share = (ROWS.saturating_sub(has)) * 2 / u64::from(left + 1);
        let aim = has + random(seed) % share.max(1);
        while Handovers::load(&path)?.events <= aim && child.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    std::thread::sleep(more);
    Ok(())
}

/// Runs lives and kills them; the last one is left to finish.
fn run(dir: &Path, kills: u32, mut seed: u64) -> Result<(), Failure> {
    println!("Kills: {kills}, seed {seed}, folder {}", dir.display());
    let mut killed = 0;
    for life in 1_u32.. {
        let began = Instant::now();
        let mut child = child(dir)?;
        if killed < kills {
            wait_for_kill(dir, &mut child, kills - killed, &mut seed)?;
            child.kill()?;
        }
        let status = child.wait()?;
        let counted = Handovers::load(&dir.join("handovers.txt"))?;
        let after = began.elapsed().as_millis();
        match status.signal() {
            Some(9) => {
                killed += 1;
                println!("life {life}: killed after {after} ms; the file has {}", counted.events);
            }
            None if status.success() => {
                println!("life {life}: done after {after} ms; the file has {}", counted.events);
                if killed >= kills {
                    return prove(dir);
                }
                // It was quicker than the kill: there is nothing left to do. That counts too.
                killed += 1;
            }
            _ => return Err(format!("a life ended with {status}").into()),
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("projection: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    use lexopt::prelude::{Long, Short, ValueExt as _};
    let (mut kills, mut seed, mut dir, mut is_child) = (10, None, None::<OsString>, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            Long("kill") => kills = parser.value()?.parse()?,
            Long("seed") => seed = Some(parser.value()?.parse()?),
            Long("dir") => dir = Some(parser.value()?),
            Long("child") => is_child = true,
            _ => return Err(argument.unexpected().into()),
        }
    }
    if is_child {
        return live(Path::new(&dir.ok_or("a child needs --dir")?));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = seed.unwrap_or_else(|| u64::from(now.subsec_nanos()));
    let temporary = tempfile::Builder::new().prefix("annals-projection-").tempdir()?;
    let dir = dir.map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    fs::create_dir_all(&dir)?;
    if dir.read_dir()?.next().is_some() {
        return Err(format!("{} is not empty", dir.display()).into());
    }
    run(&dir, kills, seed)
}
