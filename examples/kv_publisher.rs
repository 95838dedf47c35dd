//! Follows a vLLM engine's KV events and publishes what changes, exactly, whatever crashes.
//!
//! ```text
//! cargo run --release --features zmq,nats,redis --example kv_publisher -- \
//!     --engine tcp://127.0.0.1:5557 --replay tcp://127.0.0.1:5558 --topic kv-events \
//!     --nats nats://127.0.0.1:4222 --keep kv.state
//! ```
//!
//! vLLM has to be started with `--kv-events-config '{"enable_kv_cache_events": true, "publisher":
//! "zmq", "topic": "kv-events", "replay_endpoint": "tcp://*:5558"}'`. Its batches are decoded,
//! made events of one form, reduced to what changes the set of blocks that are held, put together,
//! numbered, and published as JSON, as NVIDIA Dynamo's routers read it: into NATS JetStream, a Redis
//! stream, or the terminal.
//!
//! It may be killed at any moment, and so may the engine and the server. The next start reads from
//! the server what was published last and from `--keep` what was held there; it asks the engine for
//! what it has said since. Where the engine has no more of that, it says so by a `cleared`, and
//! tells the terminal.
#![expect(clippy::disallowed_methods, reason = "an example has a file of its own")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annals::edge::keep::{Keep, Kept};
use annals::edge::kv::{Gather, Holders, KvEvent, Normalise, Number};
use annals::edge::nats::{NatsOptions, NatsSink};
use annals::edge::redis::{RedisOptions, RedisSink};
use annals::edge::zmq::{ZmqCounts, ZmqOptions, ZmqSource};
use annals::edge::{self, Fault, Handle, Health, OnPoison, Pos, Sink};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const HELP: &str = "\
Publishes the KV-cache events of a vLLM engine.

Usage: kv_publisher --engine tcp://HOST:5557 [options]
  --engine ADDRESS   where the engine publishes its events
  --replay ADDRESS   where it answers what it has published (its replay_endpoint)
  --topic TOPIC      what its messages are called []
  --rank N           its data-parallel rank: added to both ports [0]
  --worker N         what the engine is called in the events [0]
  --nats URL         publishes to NATS JetStream
  --stream NAME      into this stream, made if there is none [kv-events]
  --redis URL        or to Redis
  --key NAME         into this stream [kv-events]
  --id NAME          who publishes [kv-<worker>]
  --keep FILE        keeps here what is held, for the next start
  --window N         records that are under way at once [256]
  --gather MS        how long an event may wait for others to join it [0]
  --blocks N         blocks that are remembered at most [4000000]
  --for SECONDS      ends after this, with a table; else it runs until it is killed
  --plain            a line now and then instead of a progress bar
  --help";

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Arguments {
    engine: ZmqOptions,
    rank: u16,
    worker: u64,
    nats: Option<String>,
    stream: String,
    redis: Option<String>,
    key: String,
    id: Option<String>,
    keep: Option<PathBuf>,
    window: usize,
    gather: Duration,
    blocks: usize,
    time: Option<Duration>,
    plain: bool,
}

fn arguments() -> Result<Option<Arguments>, Failure> {
    use lexopt::prelude::{Long, Short, ValueExt as _};
    let mut given = Arguments {
        engine: ZmqOptions::new(""),
        rank: 0,
        worker: 0,
        nats: None,
        stream: "kv-events".to_owned(),
        redis: None,
        key: "kv-events".to_owned(),
        id: None,
        keep: None,
        window: 256,
        gather: Duration::ZERO,
        blocks: 4_000_000,
        time: None,
        plain: false,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(None);
            }
            Long("engine") => given.engine.endpoint = parser.value()?.string()?,
            Long("replay") => given.engine.replay = Some(parser.value()?.string()?),
            Long("topic") => given.engine.topic = parser.value()?.string()?,
            Long("rank") => given.rank = parser.value()?.parse()?,
            Long("worker") => given.worker = parser.value()?.parse()?,
            Long("nats") => given.nats = Some(parser.value()?.string()?),
            Long("stream") => given.stream = parser.value()?.string()?,
            Long("redis") => given.redis = Some(parser.value()?.string()?),
            Long("key") => given.key = parser.value()?.string()?,
            Long("id") => given.id = Some(parser.value()?.string()?),
            Long("keep") => given.keep = Some(parser.value()?.into()),
            Long("window") => given.window = parser.value()?.parse()?,
            Long("gather") => given.gather = Duration::from_millis(parser.value()?.parse()?),
            Long("blocks") => given.blocks = parser.value()?.parse()?,
            Long("for") => given.time = Some(Duration::from_secs_f64(parser.value()?.parse()?)),
            Long("plain") => given.plain = true,
            _ => return Err(argument.unexpected().into()),
        }
    }
    if given.engine.endpoint.is_empty() {
        return Err(format!("--engine is missing\n\n{HELP}").into());
    }
    if given.rank > 0 {
        given.engine = given.engine.at_rank(given.rank)?;
    }
    Ok(Some(given))
}

/// Prints what it is given.
fn terminal() -> Result<Box<dyn Sink<Item = Vec<u8>> + Send>, Fault> {
    Ok(Box::new(edge::call(|_: Pos, event: &Vec<u8>| {
        let mut out = io::stdout().lock();
        let written = out.write_all(event).and_then(|()| out.write_all(b"\n"));
        written.map_err(Fault::fatal)
    })))
}

fn sink(given: &Arguments) -> Result<Box<dyn Sink<Item = Vec<u8>> + Send>, Fault> {
    let id = given.id.clone().unwrap_or_else(|| format!("kv-{}", given.worker));
    match (&given.nats, &given.redis) {
        (Some(server), _) => {
            let mut options = NatsOptions::new(server, &given.stream, id);
            options.create = true;
            options.window = given.window;
            Ok(Box::new(NatsSink::new(options)?))
        }
        (None, Some(server)) => {
            let mut options = RedisOptions::new(server, &given.key, id);
            options.window = given.window;
            Ok(Box::new(RedisSink::new(options)))
        }
        (None, None) => terminal(),
    }
}

/// Keeps what is held in a file: a new one takes the place of the old one, all or nothing.
struct KeepFile(PathBuf);

impl Keep for KeepFile {
    fn load(&mut self) -> Result<Option<Kept>, Fault> {
        match fs::read(&self.0) {
            Ok(bytes) => Ok(Kept::from_bytes(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Fault::fatal(error)),
        }
    }

    fn save(&mut self, kept: &Kept) -> Result<(), Fault> {
        let new = self.0.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&kept.to_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.0)
        };
        write().map_err(Fault::fatal)
    }
}

fn start(given: Arguments) -> Result<(Handle, std::sync::Arc<ZmqCounts>), Failure> {
    let sink = sink(&given)?;
    let source = ZmqSource::new(given.engine);
    let counts = source.counts();
    let worker = given.worker;
    let pipeline = edge::from(source)
        .then(Normalise::new(u32::from(given.rank)))
        .then(Holders::new(given.blocks))
        .then(Gather::new(128, given.gather))
        .then(Number::default())
        .map(move |event: KvEvent| event.to_json(worker))
        .into(sink)
        .set(|options| {
            options.keep_every = Duration::from_millis(200);
            options.backoff_max = Duration::from_secs(1);
            // What it said is cleared, and it goes on.
            options.on_poison = OnPoison::Drop;
        });
    let pipeline = match given.keep {
        Some(path) => pipeline.keep(KeepFile(path)),
        None => pipeline,
    };
    Ok((pipeline.spawn("kv")?, counts))
}

fn run() -> Result<(), Failure> {
    let Some(given) = arguments()? else { return Ok(()) };
    let (time, plain) = (given.time, given.plain);
    let begun = Instant::now();
    let (handle, counts) = start(given)?;
    let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    let mut gaps = 0;
    let mut said = String::new();
    while time.is_none_or(|time| begun.elapsed() < time) {
        std::thread::sleep(Duration::from_millis(100));
        let (numbers, health) = (handle.numbers(), handle.health());
        if numbers.gaps > gaps {
            gaps = numbers.gaps;
            println!("gap: {gaps} so far, {} batches lost at least", numbers.lost);
        }
        let line = format!(
            "{health}; {} records in, {} events out, {} settled, {} gaps",
            numbers.pulled, numbers.put, numbers.settled, numbers.gaps
        );
        if plain && line != said {
            println!("{line}");
        }
        bar.set_message(line.clone());
        bar.tick();
        said = line;
        if matches!(health, Health::Down(_) | Health::Ended { .. }) {
            break;
        }
    }
    bar.finish_and_clear();
    handle.stop();
    let numbers = handle.numbers();
    let seconds = begun.elapsed().as_secs_f64();
    let health = handle.join()?;
    println!("{:<28}{:>12}", "records of the engine", numbers.pulled);
    println!("{:<28}{:>12}", "events published", numbers.put);
    println!("{:<28}{:>12}", "settled", numbers.settled);
    println!("{:<28}{:>12}", "published in an earlier life", numbers.repeated);
    println!("{:<28}{:>12}", "gaps", numbers.gaps);
    println!("{:<28}{:>12}", "batches lost, as known", numbers.lost);
    println!("{:<28}{:>12}", "could not be read", numbers.dead);
    for (reason, count) in &numbers.skipped {
        println!("{:<28}{count:>12}", format!("left out: {reason}"));
    }
    println!("{:<28}{:>12}", "connections", counts.connections());
    println!("{:<28}{:>12}", "questions", counts.questions());
    println!("{:<28}{:>12}", "bytes", numbers.bytes);
    println!("{:<28}{seconds:>12.1}", "seconds");
    println!("{health}");
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
