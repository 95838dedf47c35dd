//! Appends events whose content follows from their number, and says so; or checks a store for
//! them. A harness that kills, cuts the power or fills the disk runs this and keeps the record.
//!
//! ```text
//! crash_child -- work DIR COUNT BATCH [--durability power|process] [--actors N]
//! crash_child -- verify DIR ACKED
//! ```
//!
//! `work` appends events first, first + 1, ... in groups of BATCH; a group is one turn of one
//! actor, so it is there as a whole or not at all. After a group is acknowledged at the given
//! level it prints `ACK n` for each of its events. Run again on the same directory, it goes on
//! behind what is there. Group g belongs to actor g % N; the store itself knows N, as an event of
//! its own. Segments and ring are small, so that a few hundred events cross several segments.
//!
//! `verify` exits 0 if events 1 to ACKED, and perhaps more, are there without a hole, in order
//! and with their content; if no group is there in part; and if each actor's state (from a
//! snapshot and what follows it) is what its events add up to. It exits 3 if the store reports
//! damage, and 1 for anything else: something that was acknowledged is lost, or wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use annals::actor::ActorError;
use annals::error::{OpenError, ReadError};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::types::Seq;
use annals::{Actor, ActorOptions, Durability, Error, Handle, SnapshotPolicy, Store, Turn};

const HELP: &str = "\
Usage: crash_child work DIR COUNT BATCH [--durability power|process] [--actors N]
       crash_child verify DIR ACKED

  work     append COUNT events in groups of BATCH (at most 128); print `ACK n` for each
  verify   check events 1 to ACKED; exit 0: all there, 3: the store reports damage, 1: lost";

const EXIT_LOST: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_DAMAGE: u8 = 3;

const SEGMENT_BYTES_FIRST: u64 = 64 << 10;
const SEGMENT_BYTES_MAX: u64 = 256 << 10;
const RING_BYTES: usize = 256 << 10;
const FRAME_BYTES_MAX: usize = 16 << 10;
const SNAPSHOT_BYTES_MAX: usize = 4 << 10;
const WORKERS: NonZeroUsize = NonZeroUsize::new(2).unwrap();
/// An actor is snapshotted after so many of its events.
const SNAPSHOT_EVERY: u64 = 16;
/// A group of this many events, with their headers, still fits into a frame.
const BATCH_MAX: u64 = 128;
/// What the payloads of a group may take together.
const GROUP_BYTES: u64 = 6 << 10;
const PAYLOAD_BYTES_MAX: u64 = 1000;
const ACTORS: u64 = 5;

/// Scrambles a number (splitmix64's last step), so that content can be computed again.
fn hash(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// One event. Everything in it follows from its number and its group.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[rkyv(crate = annals::rkyv)]
struct Written {
    /// 1, 2, 3 ... over all actors.
    number: u64,
    group: Group,
    payload: Vec<u8>,
}

/// The turn that an event was emitted in.
#[derive(Archive, Serialize, Deserialize, Copy, Clone, Debug, PartialEq, Eq)]
#[rkyv(crate = annals::rkyv)]
struct Group {
    /// 0, 1, 2 ... over all actors.
    index: u64,
    /// Its events: `first..first + count`.
    first: u64,
    count: u64,
}

impl Written {
    fn new(number: u64, group: Group) -> Self {
        let most = (GROUP_BYTES / group.count.max(1)).min(PAYLOAD_BYTES_MAX);
        let bytes = hash(number) % (most + 1);
        let payload = (0..bytes).map(|at| hash(number ^ at << 32).to_le_bytes()[0]).collect();
        Self { number, group, payload }
    }
}

/// An actor that takes every Nth group.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(crate = annals::rkyv)]
struct Writer {
    events: u64,
    last: Option<Group>,
    /// Over all its events, in their order.
    digest: u64,
}

impl Actor for Writer {
    type Event = Written;
    const KIND: &'static str = "writer";

    fn apply(&mut self, event: &Written) {
        self.events += 1;
        self.last = Some(event.group);
        self.digest = hash(self.digest ^ hash(event.number));
        for byte in &event.payload {
            self.digest = self.digest.rotate_left(7) ^ u64::from(*byte);
        }
    }

    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(SNAPSHOT_EVERY))
    }
}

impl Handle<Group> for Writer {
    type Reply = ();

    fn handle(group: Group, turn: &mut Turn<'_, Self>) {
        for number in group.first..group.first + group.count {
            turn.emit(Written::new(number, group));
        }
    }
}

/// Knows how many writers there are. Its one event is acknowledged before the first group.
#[derive(Debug, Default)]
struct Register {
    writers: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
#[rkyv(crate = annals::rkyv)]
struct Registered {
    writers: u64,
}

impl Actor for Register {
    type Event = Registered;
    const KIND: &'static str = "register";

    fn apply(&mut self, event: &Registered) {
        self.writers = Some(event.writers);
    }
}

/// Sets the number of writers, unless it is set; the answer is the number that counts.
#[derive(Debug)]
struct Enter {
    writers: u64,
}

impl Handle<Enter> for Register {
    type Reply = u64;

    fn handle(command: Enter, turn: &mut Turn<'_, Self>) -> u64 {
        if let Some(writers) = turn.writers {
            return writers;
        }
        turn.emit(Registered { writers: command.writers });
        command.writers
    }
}

/// The one register of a store.
const REGISTER: &str = "register";

fn writer_name(index: u64) -> String {
    format!("writer-{index}")
}

/// Why `work` or `verify` did not succeed.
#[derive(Debug)]
enum Failure {
    Store(Error),
    Output(io::Error),
    /// Something is not what it must be.
    Wrong(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<ActorError> for Failure {
    fn from(error: ActorError) -> Self {
        Self::Store(error.into())
    }
}

fn open(dir: &Path, durability: Durability) -> Result<Store, Failure> {
    Ok(Store::options()
        .durability(durability)
        .segment_bytes(SEGMENT_BYTES_FIRST, SEGMENT_BYTES_MAX)
        .ring_bytes(RING_BYTES)
        .frame_bytes_max(FRAME_BYTES_MAX)
        .snapshot_bytes_max(SNAPSHOT_BYTES_MAX)
        .workers(WORKERS)
        .open(dir)?)
}

fn close(store: Store) -> Result<(), Failure> {
    let report = store.close(Duration::from_mins(1))?;
    if report.dead_letters > 0 || report.threads_left > 0 {
        return Err(Failure::Wrong(format!("not closed cleanly: {report:?}")));
    }
    Ok(())
}

/// Appends `count` events behind what is there.
fn work(task: &Task) -> Result<(), Failure> {
    let Task { dir, count, batch, durability, actors } = task;
    let store = open(dir, *durability)?;
    let writers = store.actor::<Register>(REGISTER)?.ask(Enter { writers: *actors })?;
    let writers = (0..writers)
        .map(|index| store.actor(&writer_name(index)))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut index, mut next) = (0, 1);
    for writer in &writers {
        if let Some(last) = writer.peek(|writer: &Writer| writer.last)?.value {
            (index, next) = (index.max(last.index + 1), next.max(last.end()));
        }
    }
    let end = next + count;
    while next < end {
        let group = Group { index, first: next, count: (end - next).min(*batch) };
        let writer = usize::try_from(index % writers.len() as u64).unwrap_or_default();
        writers[writer].ask(group)?;
        acknowledge(group).map_err(Failure::Output)?;
        index += 1;
        next = group.end();
    }
    close(store)
}

impl Group {
    /// The number after its last event.
    fn end(self) -> u64 {
        self.first + self.count
    }
}

/// Says that the events of a group are acknowledged, each on a line.
fn acknowledge(group: Group) -> io::Result<()> {
    let mut lines = String::new();
    for number in group.first..group.end() {
        writeln!(lines, "ACK {number}").map_err(io::Error::other)?;
    }
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    out.flush()
}

/// Checks that events 1 to `acked` are there and right; the answer is how many there are.
fn verify(dir: &Path, acked: u64) -> Result<u64, Failure> {
    let store = open(dir, Durability::Power)?;
    let register = store.actor::<Register>(REGISTER)?;
    let writers = register.peek(|register| register.writers)?.value.unwrap_or(0);
    let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
    for index in 0..writers {
        let of_writer = verify_writer(&store, index, writers)?;
        groups.extend(of_writer.into_iter().map(|group| (group.index, group)));
    }
    let mut next = 1;
    for (expected, (index, group)) in (0..).zip(&groups) {
        if *index != expected || group.first != next {
            return Err(Failure::Wrong(format!(
                "event {next} of group {expected} is missing; there is group {index}, which \
                 begins with event {}",
                group.first
            )));
        }
        next = group.end();
    }
    let there = next - 1;
    if there < acked {
        return Err(Failure::Wrong(format!("{acked} events were acknowledged, {there} are there")));
    }
    close(store)?;
    Ok(there)
}

/// The groups of one writer, each whole, in order, right in content and in the writer's state.
fn verify_writer(store: &Store, writer: u64, writers: u64) -> Result<Vec<Group>, Failure> {
    let name = writer_name(writer);
    let mut folded = Writer::default();
    let mut groups: Vec<Group> = Vec::new();
    let mut rest = 0..0;
    for past in store.history::<Writer>(&name, Seq::ZERO)? {
        let seq = past.seq;
        let Some(event) = past.into_event() else { continue };
        let wrong = |what: &str| {
            let Written { number, group, .. } = &event;
            Err(Failure::Wrong(format!("{name}, event {seq} ({number} of {group:?}): {what}")))
        };
        let group = event.group;
        if rest.is_empty() {
            if group.index % writers != writer {
                return wrong("the group is another writer's");
            }
            if groups.last().is_some_and(|last| last.index + writers != group.index) {
                return wrong("not the writer's next group");
            }
            groups.push(group);
            rest = group.first..group.end();
        }
        if rest.next() != Some(event.number) || groups.last() != Some(&group) {
            return wrong("out of order");
        }
        if seq.get() != folded.events + 1 {
            return wrong("not the next of the stream");
        }
        if event != Written::new(event.number, group) {
            return wrong("another content");
        }
        folded.apply(&event);
    }
    if !rest.is_empty() {
        return Err(Failure::Wrong(format!("{name}: a part of a group, {rest:?} are missing")));
    }
    let state = store.actor::<Writer>(&name)?.peek(Clone::clone)?.value;
    if state != folded {
        return Err(Failure::Wrong(format!(
            "{name}: its events make {folded:?}, its state is {state:?}"
        )));
    }
    Ok(groups)
}

/// What `work` is to do.
#[derive(Debug)]
struct Task {
    dir: PathBuf,
    count: u64,
    batch: u64,
    durability: Durability,
    actors: u64,
}

enum Command {
    Work(Task),
    Verify { dir: PathBuf, acked: u64 },
    Help,
}

fn parse() -> Result<Command, lexopt::Error> {
    use lexopt::prelude::{Long, Short, Value, ValueExt as _};
    let mut values = Vec::new();
    let (mut durability, mut actors) = (Durability::Power, ACTORS);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("durability") => durability = parser.value()?.parse()?,
            Long("actors") => actors = parser.value()?.parse()?,
            Value(value) => values.push(value),
            _ => return Err(argument.unexpected()),
        }
    }
    match values.as_slice() {
        [verb, dir, count, batch] if verb == "work" => {
            let (count, batch) = (count.parse()?, batch.parse()?);
            if !(1..=BATCH_MAX).contains(&batch) || actors == 0 {
                return Err("BATCH is 1 to 128, and there is at least one actor".into());
            }
            Ok(Command::Work(Task { dir: dir.into(), count, batch, durability, actors }))
        }
        [verb, dir, acked] if verb == "verify" => {
            Ok(Command::Verify { dir: dir.into(), acked: acked.parse()? })
        }
        _ => Err("expected `work DIR COUNT BATCH` or `verify DIR ACKED`".into()),
    }
}

fn main() -> ExitCode {
    let result = match parse() {
        Ok(Command::Work(task)) => work(&task),
        Ok(Command::Verify { dir, acked }) => {
            verify(&dir, acked).map(|there| println!("OK {there} events, {acked} acknowledged"))
        }
        Ok(Command::Help) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("crash_child: {error}\n{HELP}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Store(error)) if is_damage(&error) => {
            eprintln!("crash_child: {error}");
            ExitCode::from(EXIT_DAMAGE)
        }
        Err(Failure::Store(error)) => lost(&error.to_string()),
        Err(Failure::Output(error)) => lost(&format!("writing to the output: {error}")),
        Err(Failure::Wrong(what)) => lost(&what),
    }
}

fn lost(what: &str) -> ExitCode {
    eprintln!("crash_child: {what}");
    ExitCode::from(EXIT_LOST)
}

/// Did the store say that promised bytes are gone?
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Open(OpenError::Damage(_)) | Error::Read(ReadError::Damage(_)) => true,
        Error::Actor(ActorError::Read(error)) => matches!(**error, ReadError::Damage(_)),
        _ => false,
    }
}
