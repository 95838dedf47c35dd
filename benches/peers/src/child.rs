//! A child process: one task with one store in one folder. Each has a process of its own, so that
//! threads that a store leaves behind disturb no other, and a kill is a kill.
//!
//! What it says on its output: `= name figure` for each figure, `ready` when it may be killed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::actors;
use crate::actors::work::{Job, Work};
use crate::limit;
use crate::store::{Answer, Event, Level, Peer, Seen};
use crate::stores::PEERS;
use crate::support::FRAME_BYTES;
use crate::work::{self, Figures, Scale, TAIL_EVENTS};

/// The name of the limits among the stores.
pub(crate) const LIMIT: &str = "limit";

/// What a child is told to do.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Durable appends by so many threads.
    Durable(u64),
    InFlight,
    /// Appends that survive the process, by so many threads.
    Append(u64),
    /// Appends the data, and waits to be killed.
    Load,
    /// Opens what was left, and reads it.
    Read,
    /// Appends until it is killed, and notes what it was answered.
    Kill,
    /// Counts what is there.
    Count,
    /// Appends so many MiB of log, and waits to be killed.
    Fill(u64),
    /// Opens what was left, appends a little, and waits to be killed.
    Reopen,
    /// Of actors; first what has to be there before.
    Prepare(Work),
    Actors(Work),
}

impl Task {
    fn words(self) -> (&'static str, u64) {
        match self {
            Self::Durable(threads) => ("durable", threads),
            Self::InFlight => ("in-flight", 0),
            Self::Append(threads) => ("append", threads),
            Self::Load => ("load", 0),
            Self::Read => ("read", 0),
            Self::Kill => ("kill", 0),
            Self::Count => ("count", 0),
            Self::Fill(mib) => ("fill", mib),
            Self::Reopen => ("reopen", 0),
            Self::Actors(work) => (work.name(), 0),
            Self::Prepare(work) => (work.name(), 1),
        }
    }

    fn from_words(word: &str, number: u64) -> Option<Self> {
        let all = [
            Self::Durable(number),
            Self::InFlight,
            Self::Append(number),
            Self::Load,
            Self::Read,
            Self::Kill,
            Self::Count,
            Self::Fill(number),
            Self::Reopen,
        ];
        let actors = || {
            let work = Work::by_name(word)?;
            Some(if number == 0 { Self::Actors(work) } else { Self::Prepare(work) })
        };
        all.into_iter().find(|task| task.words().0 == word).or_else(actors)
    }
}

/// A task with all that belongs to it, as it goes through a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) task: Task,
    pub(crate) store: String,
    pub(crate) dir: PathBuf,
    pub(crate) scale: Scale,
}

impl Order {
    pub(crate) fn arguments(&self) -> Vec<String> {
        let (word, number) = self.task.words();
        let scale = &self.scale;
        vec![
            "child".to_owned(),
            word.to_owned(),
            number.to_string(),
            self.store.clone(),
            self.dir.display().to_string(),
            scale.warm.as_millis().to_string(),
            scale.measure.as_millis().to_string(),
            scale.streams.to_string(),
            scale.per_stream.to_string(),
        ]
    }

    /// `None` if these are not a child's arguments.
    pub(crate) fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [child, word, number, store, dir, warm, measure, streams, per_stream] = arguments
        else {
            return None;
        };
        let millis = |text: &str| Some(Duration::from_millis(text.parse().ok()?));
        (child == "child").then_some(())?;
        Some(Self {
            task: Task::from_words(word, number.parse().ok()?)?,
            store: store.clone(),
            dir: dir.into(),
            scale: Scale {
                warm: millis(warm)?,
                measure: millis(measure)?,
                streams: streams.parse().ok()?,
                per_stream: per_stream.parse().ok()?,
            },
        })
    }

    /// What the store needs to be told by its environment.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        [("WALRUS_DATA_DIR", self.dir.display().to_string()), ("WALRUS_QUIET", "1".to_owned())]
    }
}

/// Does it, and says what came of it.
pub(crate) fn run(order: &Order) -> Answer<()> {
    // Nobody is to be left behind if the parent is ended.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    fs::create_dir_all(&order.dir)?;
    for (name, figure) in figures(order)? {
        println!("= {name} {figure}");
    }
    Ok(())
}

fn figures(order: &Order) -> Answer<Figures> {
    let (dir, scale) = (order.dir.as_path(), order.scale);
    let actors = |work, prepare| actors::figures(&order.store, &Job { work, prepare, dir, scale });
    match order.task {
        Task::Actors(work) => return actors(work, false),
        Task::Prepare(work) => return actors(work, true),
        _ => {}
    }
    if order.store == LIMIT {
        return match order.task {
            Task::Durable(threads) => limit::durable(dir, threads, scale),
            Task::InFlight => limit::in_flight(dir, scale),
            Task::Append(threads) => limit::append(dir, threads, scale),
            Task::Read => limit::read(dir, scale),
            _ => Ok(Vec::new()),
        };
    }
    let peer = PEERS.iter().find(|it| it.name == order.store).ok_or("there is no such store")?;
    match order.task {
        Task::Durable(threads) => work::durable(peer, dir, threads, scale),
        Task::InFlight => work::in_flight(peer, dir, scale),
        Task::Append(threads) => work::append(peer, dir, threads, scale),
        Task::Load => {
            let store = (peer.open)(dir, Level::Process)?;
            work::load(&*store, scale)?;
            await_the_end()
        }
        Task::Read => work::read(peer, dir, scale),
        Task::Kill => append_until_killed(peer, dir, scale),
        Task::Count => count(peer, dir),
        Task::Fill(mib) => {
            let store = (peer.open)(dir, Level::Process)?;
            let per_stream = (mib << 20) / FRAME_BYTES as u64 / scale.streams;
            work::load(&*store, Scale { per_stream, ..scale })?;
            await_the_end()
        }
        Task::Reopen => reopen(peer, dir),
        Task::Actors(_) | Task::Prepare(_) => Err("this is no work of a store".into()),
    }
}

fn say_ready() -> Answer<()> {
    println!("ready");
    std::io::stdout().flush()?;
    Ok(())
}

fn await_the_end() -> ! {
    if let Err(error) = say_ready() {
        eprintln!("{error}");
    }
    loop {
        std::thread::park();
    }
}

/// Where a child notes what it was answered: a file beside its folder, mapped, so that the note
/// outlives it.
pub(crate) fn acknowledged(dir: &Path) -> PathBuf {
    dir.with_extension("acknowledged")
}

fn append_until_killed(peer: &Peer, dir: &Path, scale: Scale) -> Answer<Figures> {
    let path = acknowledged(dir);
    fs::write(&path, [0; 8])?;
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    #[expect(unsafe_code, reason = "a note that survives a kill, at no cost")]
    // SAFETY: The parent reads the file, and only after this process has ended.
    let mut note = unsafe { MmapMut::map_mut(&file) }?;
    let store = (peer.open)(dir, Level::Process)?;
    let mut writer = store.writer()?;
    let mut event = Event::new(0, 1);
    let began = Instant::now();
    let mut ready = false;
    loop {
        writer.append(&event)?;
        note.copy_from_slice(&event.seq.to_le_bytes());
        event.step();
        if !ready && event.seq.is_multiple_of(64) && began.elapsed() >= scale.measure {
            ready = true;
            say_ready()?;
        }
    }
}

fn count(peer: &Peer, dir: &Path) -> Answer<Figures> {
    let store = (peer.open)(dir, Level::Process)?;
    let mut seen = Seen::default();
    store.scan(&mut seen)?;
    if !seen.is_prefix() {
        return Err(format!("not a beginning of what was appended: {seen:?}").into());
    }
    Ok(vec![("found", seen.events as f64)])
}

fn reopen(peer: &Peer, dir: &Path) -> Answer<Figures> {
    let before = resident()?;
    let began = Instant::now();
    let store = (peer.open)(dir, Level::Process)?;
    let took = began.elapsed().as_secs_f64();
    let after = resident()?;
    println!("= open {took}");
    println!("= resident {after}");
    println!("= grown {}", after.saturating_sub(before));
    let mut writer = store.writer()?;
    // A stream of its own, so that it may begin at 1: nobody reads it.
    let mut event = Event::new(u64::from(std::process::id()) << 32, 1);
    for _ in 0..TAIL_EVENTS {
        writer.append(&event)?;
        event.step();
    }
    await_the_end()
}

/// Bytes of this process that are in memory.
fn resident() -> Answer<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.and_then(|it| it.split_whitespace().next()).ok_or("VmRSS")?.parse()?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_comes_through_a_command_line() {
        let actors = Work::ALL.map(Task::Actors).into_iter().chain(Work::ALL.map(Task::Prepare));
        let stores = [Task::Durable(64), Task::InFlight, Task::Read, Task::Fill(7)];
        for task in stores.into_iter().chain(actors) {
            let scale = Scale {
                warm: Duration::from_millis(1),
                measure: Duration::from_millis(2),
                streams: 3,
                per_stream: 4,
            };
            let order = Order { task, store: "x".to_owned(), dir: "/a b".into(), scale };
            assert_eq!(Order::from_arguments(&order.arguments()), Some(order));
        }
        assert_eq!(Order::from_arguments(&["--quick".to_owned()]), None);
    }
}
