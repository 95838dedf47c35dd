//! The parent: who does what, in which order, and what came of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::actors::work::Work;
use crate::child::{LIMIT, Order, Task, acknowledged};
use crate::family::{Entrant, Family};
use crate::stats::median;
use crate::store::{Answer, Ask};
use crate::support::home::{Home, remove};
use crate::work::Scale;

/// A child that has said nothing for so long is ended.
const PATIENCE: Duration = Duration::from_mins(3);

/// What is measured, case by case.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Durable(u64),
    InFlight,
    Append(u64),
    Kill,
    Data,
    Actors(Work),
}

impl Case {
    const STORES: [Self; 8] = [
        Self::Durable(1),
        Self::Durable(8),
        Self::Durable(64),
        Self::InFlight,
        Self::Append(1),
        Self::Append(4),
        Self::Kill,
        Self::Data,
    ];

    pub(crate) fn all() -> Vec<Self> {
        Self::STORES.into_iter().chain(Work::ALL.map(Self::Actors)).collect()
    }

    pub(crate) fn family(self) -> Family {
        if matches!(self, Self::Actors(_)) { Family::Actors } else { Family::Stores }
    }

    /// As `--case` says it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Durable(threads) => format!("durable-{threads}"),
            Self::InFlight => "in-flight".to_owned(),
            Self::Append(threads) => format!("append-{threads}"),
            Self::Kill => "kill".to_owned(),
            Self::Data => "data".to_owned(),
            Self::Actors(work) => work.name().to_owned(),
        }
    }

    /// Of a store; reading is asked for in two ways.
    pub(crate) fn ask(self) -> Option<Ask> {
        match self {
            Self::Durable(_) => Some(Ask::Durable),
            Self::InFlight => Some(Ask::InFlight),
            Self::Append(_) | Self::Kill => Some(Ask::Append),
            Self::Data | Self::Actors(_) => None,
        }
    }
}

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) scale: Scale,
    pub(crate) rounds: u64,
    pub(crate) cases: Vec<Case>,
    /// Empty means all.
    pub(crate) only: Vec<String>,
}

impl Plan {
    pub(crate) fn entrants(&self, family: Family) -> impl Iterator<Item = Entrant> {
        family.entrants().into_iter().filter(|entrant| self.wants(entrant.name()))
    }

    /// Those of which anything is measured.
    pub(crate) fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|family| self.has(*family))
    }

    /// Is anything of this family measured?
    pub(crate) fn has(&self, family: Family) -> bool {
        self.cases.iter().any(|case| case.family() == family)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// All figures: `(store, what)`, one for each round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    figures: BTreeMap<(String, String), Vec<f64>>,
    /// Why a store has no figures in a case.
    pub(crate) failures: BTreeMap<(String, String), String>,
}

impl Results {
    pub(crate) fn add(&mut self, store: &str, what: &str, figure: f64) {
        self.figures.entry((store.to_owned(), what.to_owned())).or_default().push(figure);
    }

    pub(crate) fn all(&self, store: &str, what: &str) -> &[f64] {
        self.figures.get(&(store.to_owned(), what.to_owned())).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn median(&self, store: &str, what: &str) -> Option<f64> {
        median(self.all(store, what))
    }

    pub(crate) fn failed(&self, store: &str, case: Case) -> Option<&str> {
        self.failures.get(&(store.to_owned(), case.name())).map(String::as_str)
    }

    fn fail(&mut self, store: &str, case: Case, why: String) {
        eprintln!("*** {store}, {}: {why}", case.name());
        self.failures.insert((store.to_owned(), case.name()), why);
    }
}

/// Everything that was planned: case by case, and in each case all stores in turn, round by
/// round, so that what drifts hits all of them alike.
pub(crate) fn run(plan: &Plan, home: &Home) -> Results {
    let mut results = Results::default();
    for case in &plan.cases {
        let began = Instant::now();
        match case {
            // A limit alone is of no use.
            case if !plan.entrants(case.family()).any(|it| it.is_in(*case)) => continue,
            Case::Data => data(plan, home, &mut results),
            Case::Actors(work) if work.is_prepared() => {
                prepared(plan, home, *work, &mut results);
            }
            Case::Kill => rounds(plan, home, *case, &mut results, &kill_once),
            _ => rounds(plan, home, *case, &mut results, &measure_once),
        }
        eprintln!("{}: {:.1} s", case.name(), began.elapsed().as_secs_f64());
    }
    results
}

type Figures = Vec<(String, f64)>;
type Once<'a> = &'a dyn Fn(Case, &Order) -> Answer<Figures>;

fn rounds(plan: &Plan, home: &Home, case: Case, results: &mut Results, once: Once<'_>) {
    let mut stores = able(plan, case);
    if case != Case::Kill {
        stores.insert(0, LIMIT);
    }
    for round in 0..plan.rounds {
        // Another one begins each time.
        for store in turned(&stores, round) {
            if results.failed(store, case).is_some() {
                continue;
            }
            let order = order(plan, home, store);
            match once(case, &order) {
                Ok(figures) => {
                    for (name, figure) in figures {
                        results.add(store, &format!("{} {name}", case.name()), figure);
                    }
                }
                Err(error) => results.fail(store, case, error.to_string()),
            }
            remove(&order.dir);
            remove(&acknowledged(&order.dir));
        }
    }
}

/// Names of those who are measured.
fn able(plan: &Plan, case: Case) -> Vec<&'static str> {
    let able = |it: &Entrant| it.is_in(case) && it.cannot(case, case.ask()).is_none();
    plan.entrants(case.family()).filter(able).map(Entrant::name).collect()
}

/// The list, begun further on each round.
fn turned<'a>(stores: &[&'a str], round: u64) -> Vec<&'a str> {
    let mut turned = stores.to_vec();
    let by = usize::try_from(round).unwrap_or(0) % stores.len().max(1);
    turned.rotate_left(by);
    turned
}

fn order(plan: &Plan, home: &Home, store: &str) -> Order {
    let dir = home.fresh(&format!("{store}-work"));
    Order { task: Task::Count, store: store.to_owned(), dir, scale: plan.scale }
}

fn measure_once(case: Case, order: &Order) -> Answer<Figures> {
    let task = match case {
        Case::Durable(threads) => Task::Durable(threads),
        Case::InFlight => Task::InFlight,
        Case::Append(threads) => Task::Append(threads),
        Case::Actors(work) => Task::Actors(work),
        Case::Kill | Case::Data => return Err("no case of one step".into()),
    };
    spawn(&Order { task, ..order.clone() })?.figures()
}

/// Appends until the kill, then counts what is still there.
fn kill_once(_: Case, order: &Order) -> Answer<Figures> {
    spawn(&Order { task: Task::Kill, ..order.clone() })?.kill_when_ready()?;
    let note = fs::read(acknowledged(&order.dir))?;
    let number = note.first_chunk().ok_or("a note of eight bytes")?;
    let acknowledged = u64::from_le_bytes(*number) as f64;
    let counted = spawn(&Order { task: Task::Count, ..order.clone() })?.figures()?;
    let found = counted.first().ok_or("a count")?.1;
    let lost = (acknowledged - found).max(0.0);
    Ok(vec![("acknowledged".to_owned(), acknowledged), ("lost".to_owned(), lost)])
}

/// The data: written once by each store, killed; then opened and read from a copy, in rounds.
fn data(plan: &Plan, home: &Home, results: &mut Results) {
    let case = Case::Data;
    let events = plan.scale.events() as f64;
    let image = |store: &str| home.dir.join(format!("{store}-image"));
    let mut stores = vec![LIMIT];
    for store in able(plan, case) {
        let dir = home.fresh(&format!("{store}-image"));
        let order = Order {
            task: Task::Load,
            store: store.to_owned(),
            dir: dir.clone(),
            scale: plan.scale,
        };
        let began = Instant::now();
        match spawn(&order).and_then(Running::kill_when_ready) {
            Ok(()) => {
                stores.push(store);
                results.add(store, "data load", events / began.elapsed().as_secs_f64());
                let bytes = blocks(&dir) as f64;
                results.add(store, "data killed", bytes / events);
            }
            Err(error) => results.fail(store, case, error.to_string()),
        }
    }
    for round in 0..plan.rounds {
        for store in turned(&stores, round) {
            if results.failed(store, case).is_some() {
                continue;
            }
            let order = Order { task: Task::Read, ..order(plan, home, store) };
            let copied = if store == LIMIT { Ok(()) } else { copy(&image(store), &order.dir) };
            match copied.and_then(|()| spawn(&order)).and_then(Running::figures) {
                Ok(figures) => {
                    for (name, figure) in figures {
                        results.add(store, &format!("data {name}"), figure);
                    }
                    if store != LIMIT {
                        let bytes = blocks(&order.dir) as f64;
                        results.add(store, "data closed", bytes / events);
                    }
                }
                Err(error) => results.fail(store, case, error.to_string()),
            }
            remove(&order.dir);
        }
    }
    for store in stores {
        remove(&image(store));
    }
}

/// Work on what was made before: made once by each, closed, then found in each round.
fn prepared(plan: &Plan, home: &Home, work: Work, results: &mut Results) {
    let case = Case::Actors(work);
    let mut all = able(plan, case);
    all.insert(0, LIMIT);
    let order = |name: &str, task| Order {
        task,
        store: name.to_owned(),
        dir: home.dir.join(format!("{name}-prepared")),
        scale: plan.scale,
    };
    for name in &all {
        let order = order(name, Task::Prepare(work));
        remove(&order.dir);
        let made = spawn(&order).and_then(Running::figures).and_then(|_| sync_all(&order.dir));
        if let Err(error) = made {
            results.fail(name, case, error.to_string());
        }
    }
    for round in 0..plan.rounds {
        for name in turned(&all, round) {
            if results.failed(name, case).is_some() {
                continue;
            }
            match spawn(&order(name, Task::Actors(work))).and_then(Running::figures) {
                Ok(figures) => {
                    for (what, figure) in figures {
                        results.add(name, &format!("{} {what}", case.name()), figure);
                    }
                }
                Err(error) => results.fail(name, case, error.to_string()),
            }
        }
    }
    for name in all {
        remove(&order(name, Task::Prepare(work)).dir);
    }
}

/// A copy that has the holes of the original, on the disk: what is written of it later would
/// disturb.
fn copy(from: &Path, to: &Path) -> Answer<()> {
    remove(to);
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if !done.success() {
        return Err("cp has failed".into());
    }
    sync_all(to)
}

fn sync_all(dir: &Path) -> Answer<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            fs::File::open(path)?.sync_all()?;
        }
    }
    Ok(())
}

/// Bytes that the files of a folder take on the disk.
pub(crate) fn blocks(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let mut bytes = 0;
    for entry in entries.flatten() {
        let Ok(data) = entry.metadata() else { continue };
        bytes += if data.is_dir() { blocks(&entry.path()) } else { data.blocks() * 512 };
    }
    bytes
}

/// A child at work.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    complaints: JoinHandle<String>,
}

pub(crate) fn spawn(order: &Order) -> Answer<Running> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(order.arguments())
        .envs(order.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout.into_iter().next()?).lines() {
            sender.send(line.ok()?).ok()?;
        }
        Some(())
    });
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut stderr) = stderr {
            stderr.read_to_string(&mut text).unwrap_or_default();
        }
        text
    });
    Ok(Running { child, lines, complaints })
}

impl Running {
    /// Waits for its end.
    pub(crate) fn figures(mut self) -> Answer<Figures> {
        let mut figures = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => figures.extend(parse(&line)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(self.end("it took too long")),
            }
        }
        if self.child.wait()?.success() { Ok(figures) } else { Err(self.end("it has failed")) }
    }

    fn kill_when_ready(self) -> Answer<()> {
        self.figures_and_kill().map(|_| ())
    }

    /// Kills it with SIGKILL as soon as it has said that it is ready.
    pub(crate) fn figures_and_kill(mut self) -> Answer<Figures> {
        let mut figures = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line == "ready" => {
                    self.child.kill()?;
                    self.child.wait()?;
                    return Ok(figures);
                }
                Ok(line) => figures.extend(parse(&line)),
                Err(RecvTimeoutError::Disconnected) => return Err(self.end("it has failed")),
                Err(RecvTimeoutError::Timeout) => return Err(self.end("it took too long")),
            }
        }
    }

    /// Ends it; the last thing that it said is why.
    fn end(mut self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        // It may have ended by itself.
        self.child.kill().unwrap_or_default();
        let status = self.child.wait().map_or_else(|error| error.to_string(), |it| it.to_string());
        let complaints = self.complaints.join().unwrap_or_default();
        let last = complaints.lines().rfind(|line| !line.trim().is_empty() && !is_note(line));
        last.map_or_else(|| format!("{what}: {status}"), |last| format!("{what}: {last}")).into()
    }
}

fn is_note(line: &str) -> bool {
    line.starts_with("note: run with `RUST_BACKTRACE")
}

fn parse(line: &str) -> Option<(String, f64)> {
    let (name, figure) = line.strip_prefix("= ")?.split_once(' ')?;
    Some((name.to_owned(), figure.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_figures_are_figures() {
        assert_eq!(parse("= rate 12.5"), Some(("rate".to_owned(), 12.5)));
        assert_eq!(parse("recovered 12 entries"), None);
        assert_eq!(parse("= rate fast"), None);
    }

    #[test]
    fn each_round_begins_with_another_store() {
        let stores = ["a", "b", "c"];
        let firsts: Vec<_> = (0..4).map(|round| turned(&stores, round)[0]).collect();
        assert_eq!(firsts, ["a", "b", "c", "a"]);
        assert!(turned(&[], 3).is_empty());
    }
}
