//! The past of an actor: what happened, when, by whom and why; the state of then; and back.
//!
//! ```text
//! cargo run --release --example time_travel -- --case KNA
//! ```
//!
//! The patients of a hospital's log, one actor each; every event says who did it. Then, without
//! loading an actor, the example reads one patient's past, and asks for the state after an event
//! and at a time. At last somebody corrects a mistake: the patient goes back to before it
//! ([`Turn::rewind`]), which is itself an event of the past, and so can be undone in turn.
//!
//! All of it is compared with a fold of the file by other code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::time::{Clock, ManualClock};
use annals::{
    Actor, ActorError, ActorOptions, At, Durability, Handle, Happened, HybridTime, Past, Seq,
    SnapshotPolicy, Span, Store, Turn,
};

const HELP: &str = "\
Reads the past of a patient, goes back in it, and forth.

Usage: time_travel [options]
  --case NAME   whose past to show [the longest one]
  --help";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A row of the file.
#[derive(Clone, Debug)]
struct Row {
    activity: String,
    time: String,
    department: String,
}

/// What was done to a patient.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Done {
    activity: String,
    department: String,
}

/// A patient, as the events leave it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Patient {
    events: u64,
    at: String,
    counts: BTreeMap<String, u64>,
}

impl Patient {
    fn line(&self) -> String {
        let most = self.counts.iter().max_by_key(|(_, count)| **count);
        let most = most.map_or_else(String::new, |(what, count)| format!(", {count} x {what}"));
        let at = if self.at.is_empty() { "nobody" } else { &self.at };
        format!("{} done, last by {at}{most}", self.events)
    }
}

impl Actor for Patient {
    type Event = Done;
    const KIND: &'static str = "patient";

    fn apply(&mut self, done: &Done) {
        self.events += 1;
        self.at.clone_from(&done.department);
        *self.counts.entry(done.activity.clone()).or_default() += 1;
    }

    fn options() -> ActorOptions<Self> {
        // A state of the past begins with the newest snapshot before it.
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(16))
    }
}

/// Somebody has done something.
struct Do {
    done: Done,
    written: String,
}

impl Handle<Do> for Patient {
    type Reply = Seq;

    fn handle(command: Do, turn: &mut Turn<'_, Self>) -> Seq {
        // No state depends on these; they stand beside the event for ever.
        turn.note("who", &format!("department {}", command.done.department));
        turn.note("written", &command.written);
        if command.done.activity.starts_with("Release") {
            turn.tag("release");
        }
        turn.emit(command.done);
        turn.seq()
    }
}

/// Everything after that event was a mistake.
struct GoBack {
    to: Seq,
    who: &'static str,
    why: &'static str,
}

impl Handle<GoBack> for Patient {
    type Reply = Result<Seq, ActorError>;

    fn handle(command: GoBack, turn: &mut Turn<'_, Self>) -> Self::Reply {
        turn.rewind(command.to)?;
        turn.note("who", command.who);
        turn.note("why", command.why);
        Ok(turn.seq())
    }
}

struct Show;

impl Handle<Show> for Patient {
    type Reply = Patient;

    fn handle(_: Show, turn: &mut Turn<'_, Self>) -> Patient {
        turn.state().clone()
    }
}

/// The rows of each patient, in the order of the file.
fn rows() -> Result<BTreeMap<String, Vec<Row>>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/sepsis.csv");
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().ok_or("no names of columns")?.split(';').collect();
    let column = |name: &str| names.iter().position(|it| *it == name).ok_or("a column is missing");
    let (case, activity) = (column("Case ID")?, column("Activity")?);
    let (time, group) = (column("Complete Timestamp")?, column("org:group")?);
    let mut patients = BTreeMap::<String, Vec<Row>>::new();
    for line in lines {
        let fields: Vec<&str> = line.split(';').collect();
        let field = |number: usize| {
            fields.get(number).map(|it| (*it).to_owned()).ok_or_else(|| format!("no row: {line}"))
        };
        let row = Row { activity: field(activity)?, time: field(time)?, department: field(group)? };
        patients.entry(field(case)?).or_default().push(row);
    }
    Ok(patients)
}

/// What a patient should be after so many of its rows, by code that knows no actors.
fn fold(rows: &[Row], count: usize) -> Patient {
    let mut patient = Patient::default();
    for row in rows.iter().take(count) {
        patient.events += 1;
        patient.at.clone_from(&row.department);
        *patient.counts.entry(row.activity.clone()).or_insert(0) += 1;
    }
    patient
}

fn check<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, wanted: &T) -> Result<(), Failure> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {wanted:?}").into())
}

fn seq(number: usize) -> Result<Seq, Failure> {
    Ok(Seq::new(number as u64).ok_or("too large a number")?)
}

fn print(past: &Past<Done>) {
    let what = match &past.what {
        Happened::Event(done) => done.activity.clone(),
        Happened::Rewound { to } => format!("back to what it was after {to}"),
    };
    let said: Vec<_> = past.meta.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    println!(
        "  {:>4}  +{:>6} s  {what:<24}  {}",
        past.seq,
        past.time.millis() / 1000,
        said.join(", ")
    );
}

/// Feeds all patients, an hour apart by a clock of our own, so that times can be asked for.
fn feed(
    store: &Store,
    clock: &Arc<ManualClock>,
    patients: &BTreeMap<String, Vec<Row>>,
) -> Result<usize, Failure> {
    let longest = patients.values().map(Vec::len).max().unwrap_or(0);
    let mut fed = 0;
    for number in 0..longest {
        clock.advance(Duration::from_hours(1));
        let mut tickets = Vec::new();
        for (name, rows) in patients {
            let Some(row) = rows.get(number) else { continue };
            let done = Done { activity: row.activity.clone(), department: row.department.clone() };
            let command = Do { done, written: row.time.clone() };
            tickets.push(store.actor::<Patient>(name)?.post(command)?);
        }
        fed += tickets.len();
        for ticket in tickets {
            ticket.wait()?;
        }
    }
    Ok(fed)
}

fn travel(case: Option<String>) -> Result<(), Failure> {
    let patients = rows()?;
    let longest = patients.iter().max_by_key(|(_, rows)| rows.len());
    let name = case.or_else(|| longest.map(|(name, _)| name.clone())).ok_or("no patients")?;
    let rows = patients.get(&name).ok_or_else(|| format!("there is no patient {name}"))?;
    if rows.len() < 4 {
        return Err(format!("{name} has only {} events: choose another", rows.len()).into());
    }
    let folder = tempfile::Builder::new().prefix("annals-time-").tempdir()?;
    let clock = ManualClock::at_millis(0);
    let open = || {
        Store::options()
            .clock(Clock::Manual(Arc::clone(&clock)))
            .durability(Durability::Process)
            .open(folder.path().join("store"))
    };
    let store = open()?;
    let fed = feed(&store, &clock, &patients)?;
    println!("{fed} events of {} patients.", patients.len());
    let _closed = store.close(Duration::from_secs(10))?;

    // A new life. Nothing below here loads an actor, until one is asked.
    let store = open()?;
    let count = rows.len();
    println!("\nThe last five of {name}'s {count} events:");
    let mut last = store.history::<Patient>(&name, Span::all().newest_first().limit(5))?;
    last.reverse();
    last.iter().for_each(print);
    check("how many are shown", &last.len(), &count.min(5))?;
    check("the last one", &last.last().map(|it| it.seq), &Some(seq(count)?))?;

    println!("\nThe state of then:");
    for number in [0, count / 3, count * 2 / 3, count] {
        let (state, at) = store.state_at::<Patient>(&name, At::Seq(seq(number)?))?;
        println!("  after event {at:>3}: {}", state.line());
        check("a state of then", &state, &fold(rows, number))?;
    }
    // Every hour one event: so many had happened by half past.
    for number in [1, count / 2] {
        let half_past = number as u64 * 3_600_000 + 1_800_000;
        let (state, at) =
            store.state_at::<Patient>(&name, At::Time(HybridTime::from_millis(half_past)))?;
        println!("  at {:>7} s, after event {at:>3}: {}", half_past / 1000, state.line());
        check("a state at a time", &(state, at), &(fold(rows, number), seq(number)?))?;
    }
    let between = Span::all()
        .since(HybridTime::from_millis(2 * 3_600_000))
        .before(HybridTime::from_millis(4 * 3_600_000));
    check("events of two hours", &store.history::<Patient>(&name, between)?.len(), &2)?;
    check("states in memory", &store.stats().residents, &0)?;
    println!(
        "  All of that was read without loading an actor: {} in memory.",
        store.stats().residents
    );

    undo_and_redo(&store, &clock, &name, rows)?;
    let _closed = store.close(Duration::from_secs(10))?;

    // What was undone and redone is so in the next life too.
    let store = open()?;
    let patient = store.actor::<Patient>(&name)?;
    check("the state in the next life", &patient.ask(Show)?, &fold(rows, count))?;
    let everybody = patients.iter().map(|(name, rows)| {
        let (state, _) = store.state_at::<Patient>(name, At::Now)?;
        check(name, &state, &fold(rows, rows.len()))
    });
    everybody.collect::<Result<(), Failure>>()?;
    println!("\nAll {} patients are what the file says.", patients.len());
    Ok(())
}

fn undo_and_redo(
    store: &Store,
    clock: &Arc<ManualClock>,
    name: &str,
    rows: &[Row],
) -> Result<(), Failure> {
    let count = rows.len();
    let patient = store.actor::<Patient>(name)?;
    clock.advance(Duration::from_hours(1));
    let to = seq(count - 3)?;
    let mistake = GoBack { to, who: "Dr. Brown", why: "the last three were another patient's" };
    let undone = patient.ask(mistake)??;
    check("the state after going back", &patient.ask(Show)?, &fold(rows, count - 3))?;

    // Going back is a fact like any other, with a number. What was before it is still there.
    clock.advance(Duration::from_hours(1));
    let before = seq(count)?;
    let redo = GoBack { to: before, who: "Dr. Green", why: "they were this patient's after all" };
    let redone = patient.ask(redo)??;
    check("the state after the undo of the undo", &patient.ask(Show)?, &fold(rows, count))?;

    println!("\nBack, and back to before that:");
    let history = store.history::<Patient>(name, Span::all().after(to))?;
    history.iter().for_each(print);
    check("nothing is missing in the past", &history.len(), &5)?;
    for (at, wanted) in [(undone, count - 3), (redone, count), (before, count)] {
        let (state, _) = store.state_at::<Patient>(name, At::Seq(at))?;
        println!("  after {at:>3}: {}", state.line());
        check("the state after it", &state, &fold(rows, wanted))?;
    }
    let nobody = patient.ask(GoBack { to: seq(count + 100)?, who: "", why: "" })?;
    if !matches!(nobody, Err(ActorError::NoEvent { .. })) {
        return Err("it went to where it has never been".into());
    }
    Ok(())
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("time_travel: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    use lexopt::prelude::{Long, Short, ValueExt as _};
    let mut case = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            Long("case") => case = Some(parser.value()?.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    travel(case)
}
