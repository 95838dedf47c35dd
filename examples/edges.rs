//! Lines over TCP, into a store, through a filter and batches, into a file: none lost, none twice,
//! however often the process in the middle is killed.
//!
//! ```text
//! cargo run --release --example edges -- --lines 200000 --kill 10
//!
//!  parent: numbers --> TCP ==> child: inbox | outbox --> filter --> batch --> JSON lines
//! ```
//!
//! The child has both pipelines and gets `SIGKILL` at random moments; the parent starts the next.
//! The sender in the parent is told of a line when the child has it on disk. At the end the file is
//! counted.
#![expect(clippy::disallowed_methods, reason = "an example reads its own data, and sleeps")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use annals::edge::{self, tcp};
use annals::{Durability, Filter, Store};

const HELP: &str = "\
Sends lines through a store into a file, killing the process on the way.

Usage: edges [options]
  --lines N    how many lines to send [200000]
  --kill N     how often to kill the process [5]
  --dir DIR    where the store and the file go [a temporary directory]
  --help";

/// Numbers that are divisible by this are left out on the way.
const LEFT_OUT: u64 = 10;
/// The child is given so long to catch up at the end.
const LIMIT: Duration = Duration::from_secs(100);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The process in the middle: runs until it is killed.
fn child(dir: &Path, addr: &str) -> Result<(), Failure> {
    let store = Store::open(dir.join("store"))?;
    let receiver = edge::from(tcp::listen(addr)?)
        .into(store.inbox("lines", Durability::Power)?)
        .spawn("receiver")?;
    let writer = edge::from(store.outbox("writer", Filter::inbox("lines"))?)
        .try_map(|pos, event| {
            let text = str::from_utf8(&event.bytes).ok();
            let number = text.and_then(|text| text.strip_prefix("line ")?.parse::<u64>().ok());
            number.ok_or_else(|| edge::bad(pos, "no number"))
        })
        .filter(|number| number % LEFT_OUT != 0)
        .batch(100, Duration::from_millis(5))
        .map(|numbers| {
            let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
            format!("[{}]", numbers.join(","))
        })
        .into(edge::json_lines(dir.join("out.jsonl"))?)
        .spawn("writer")?;
    receiver.join()?;
    writer.join()?;
    Ok(())
}

fn start(dir: &Path, addr: &str) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.arg("--child").arg(dir).arg(addr).spawn()?)
}

/// How often each number is in the file.
fn count(file: &Path) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    let text = std::fs::read(file).unwrap_or_default();
    for line in String::from_utf8_lossy(&text).lines() {
        let record = line.split_once("\"record\":[").and_then(|(_, rest)| rest.strip_suffix("]}"));
        let numbers = record.unwrap_or_default().split(',').filter_map(|it| it.parse().ok());
        for number in numbers {
            *counts.entry(number).or_default() += 1;
        }
    }
    counts
}

fn parent(dir: &Path, lines: u64, kills: u64) -> Result<(), Failure> {
    // A port that is free now, for all lives of the child.
    let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let began = Instant::now();
    let sender = edge::from(edge::iter((1..=lines).map(|number| format!("line {number}"))))
        .into(tcp::connect(&*addr)?)
        .set(|options| options.backoff_max = Duration::from_millis(50))
        .spawn("sender")?;
    let expected = lines - lines / LEFT_OUT;
    let mut random = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut process = start(dir, &addr)?;
    for kill in 1..=kills {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Somewhere in the midst, and then some: what is acknowledged comes in steps.
        let further = random % (lines / (kills + 1)).max(1);
        // Not beyond the last line, which may be acknowledged already.
        let target = (sender.numbers().settled + further).min(lines.saturating_sub(1));
        let patience = Instant::now();
        while sender.numbers().settled < target && patience.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random % 20_000));
        process.kill()?;
        let _status = process.wait()?;
        let (sent, written) = (sender.numbers().settled, count(&dir.join("out.jsonl")).len());
        println!("kill {kill}: {sent} lines acknowledged, {written} numbers in the file");
        process = start(dir, &addr)?;
    }
    let file = dir.join("out.jsonl");
    let mut counts = count(&file);
    while (counts.len() as u64) < expected && began.elapsed() < LIMIT {
        if let Some(status) = process.try_wait()? {
            return Err(format!("the process in the middle has ended: {status}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
        counts = count(&file);
    }
    sender.stop();
    let sender = sender.join()?;
    process.kill()?;
    let _status = process.wait()?;
    // What a last kill has torn is mended by who opens the file.
    drop(edge::json_lines(&file)?);
    let counts = count(&file);
    let lost = (1..=lines).filter(|n| n % LEFT_OUT != 0 && !counts.contains_key(n)).count();
    let twice = counts.values().filter(|count| **count > 1).count();
    let strange = counts.keys().filter(|n| *n % LEFT_OUT == 0 || **n > lines).count();
    println!("sender: {sender}; {lines} lines in {:.1?}", began.elapsed());
    println!("{} numbers after {kills} kills: {lost} lost, {twice} twice", counts.len());
    if lost + twice + strange > 0 {
        return Err(format!("{lost} lost, {twice} twice, {strange} that nobody sent").into());
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    use lexopt::prelude::{Long, ValueExt as _};
    let (mut lines, mut kills, mut dir) = (200_000, 5, None::<PathBuf>);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("lines") => lines = arguments.value()?.parse()?,
            Long("kill") => kills = arguments.value()?.parse()?,
            Long("dir") => dir = Some(arguments.value()?.into()),
            Long("child") => {
                let dir = PathBuf::from(arguments.value()?);
                let addr = arguments.value()?.parse::<String>()?;
                return child(&dir, &addr);
            }
            Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let temporary = tempfile::tempdir()?;
    let dir = dir.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    parent(&dir, lines, kills)
}
