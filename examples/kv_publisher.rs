//! Follows a vLLM engine's KV events and publishes what changes, exactly, whatever crashes.
//!
//! ```text
//! cargo run --release --features zmq,nats,redis --example kv_publisher -- \
//!     --engine tcp://127.0.0.1:5557 --replay tcp://127.0.0.1:5558 --topic kv-events \
//!     --nats nats://127.0.0.1:4222 --store kv.store
//! ```
//!
//! vLLM has to be started with `--kv-events-config '{"enable_kv_cache_events": true, "publisher":
//! "zmq", "topic": "kv-events", "replay_endpoint": "tcp://*:5558"}'`. Its batches are decoded,
//! made events of one form, reduced to what changes the set of blocks that are held, put together,
//! numbered, and published as JSON, as NVIDIA Dynamo's routers read it: into NATS JetStream, a
//! Redis stream, or the terminal.
//!
//! It may be killed at any moment, and so may the engine and the server. There are two ways:
//!
//! - With `--store DIR` **two pipelines with a log between them**: what the engine says is in the
//!   store's log first, each batch once, whether the server is there or not. The other pipeline
//!   publishes from there; how far it is and what was held there is in the same log.
//! - Without it **one pipeline**: the next start reads from the server what was published last, and
//!   from `--keep FILE` what was held there, and asks the engine for what it has said since.
//!
//! Where the engine has no more of what is asked for, that is said by a `cleared`, and on the
//! terminal.
#![expect(clippy::disallowed_methods, reason = "an example has a file of its own")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::edge::keep::{Keep, Kept};
use annals::edge::kv::{Gather, Holders, KvEvent, Normalise, Number, Told};
use annals::edge::nats::{NatsOptions, NatsSink};
use annals::edge::redis::{RedisOptions, RedisSink};
use annals::edge::zmq::{ZmqCounts, ZmqOptions, ZmqSource};
use annals::edge::{
    self, Fault, Flow, Give, Handle, Health, Mark, OnPoison, Pos, Resume, Sink, Source,
};
use annals::{Durability, Filter, Occurrence, Store};
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
  --store DIR        puts a store's log between engine and server
  --keep FILE        without a store: keeps here what is held, for the next start
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
    store: Option<PathBuf>,
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
        store: None,
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
            Long("store") => given.store = Some(parser.value()?.into()),
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
fn terminal() -> Box<dyn Sink<Item = Vec<u8>> + Send> {
    Box::new(edge::call(|_: Pos, event: &Vec<u8>| {
        let mut out = io::stdout().lock();
        let written = out.write_all(event).and_then(|()| out.write_all(b"\n"));
        written.map_err(Fault::fatal)
    }))
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
        (None, None) => Ok(terminal()),
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

/// Says when something was kept for the first time: from then on a kill costs nothing.
struct Announced<K> {
    keep: K,
    said: bool,
}

impl<K: Keep> Keep for Announced<K> {
    fn load(&mut self) -> Result<Option<Kept>, Fault> {
        self.keep.load()
    }

    fn save(&mut self, kept: &Kept) -> Result<(), Fault> {
        self.keep.save(kept)?;
        if !std::mem::replace(&mut self.said, true) {
            println!("kept");
        }
        Ok(())
    }
}

/// What runs.
struct Running {
    /// From the engine; the same as `out` where there is no store.
    taken: Option<Handle>,
    out: Handle,
    counts: Arc<ZmqCounts>,
    /// Closed last.
    _store: Option<Store>,
}

fn start(given: &Arguments) -> Result<Running, Failure> {
    let source = ZmqSource::new(given.engine.clone());
    let counts = source.counts();
    let Some(dir) = &given.store else {
        let keep = given.keep.clone().map(KeepFile);
        let out = publish(source, keep, given)?;
        return Ok(Running { taken: None, out, counts, _store: None });
    };
    let store = Store::open(dir)?;
    // What the engine forgets meanwhile it forgets whether it was settled here or not.
    let inbox = store.inbox("engine", Durability::Process)?;
    let told = edge::from(source).map(|told: Told| told.to_bytes());
    let taken = told.into(inbox).spawn("kv-in")?;
    let outbox = store.outbox("kv-out", Filter::inbox("engine"))?;
    let keeper = store.keeper("kv-out")?;
    let out = publish(Log(outbox), Some(keeper), given)?;
    Ok(Running { taken: Some(taken), out, counts, _store: Some(store) })
}

/// Events out of a store, as the engine has said them.
struct Log<S>(S);

/// Reads what comes out of the log.
struct Read<'a>(&'a mut dyn Give<Told>);

impl Give<Occurrence> for Read<'_> {
    fn give(&mut self, pos: Pos, item: Occurrence) {
        // What is none of it is a batch that cannot be read: that is told further on.
        self.0.give(pos, told(&item));
    }

    fn give_hashed(&mut self, pos: Pos, hash: u64, item: Occurrence) {
        self.0.give_hashed(pos, hash, told(&item));
    }
}

fn told(item: &Occurrence) -> Told {
    Told::from_bytes(&item.bytes).unwrap_or_else(|| Told::Batch(item.bytes.clone()))
}

impl<S: Source<Item = Occurrence>> Source for Log<S> {
    type Item = Told;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        self.0.seek(at)
    }

    fn pull(
        &mut self,
        max: usize,
        limit: Duration,
        out: &mut dyn Give<Told>,
    ) -> Result<Flow, Fault> {
        self.0.pull(max, limit, &mut Read(out))
    }

    fn done(&mut self, at: Pos) -> Result<(), Fault> {
        self.0.done(at)
    }
}

/// The pipeline that ends at the server.
fn publish<S, K>(source: S, keep: Option<K>, given: &Arguments) -> Result<Handle, Failure>
where
    S: Source<Item = Told> + Send + 'static,
    K: Keep + Send + 'static,
{
    let worker = given.worker;
    let pipeline = edge::from(source)
        .then(Normalise::new(u32::from(given.rank)))
        .then(Holders::new(given.blocks))
        .then(Gather::new(128, given.gather))
        .then(Number::default())
        .map(move |event: KvEvent| event.to_json(worker))
        .into(sink(given)?)
        .set(|options| {
            options.keep_every = Duration::from_millis(200);
            options.backoff_max = Duration::from_secs(1);
            // What it said is cleared, and it goes on.
            options.on_poison = OnPoison::Drop;
        });
    let pipeline = match keep {
        Some(keep) => pipeline.keep(Announced { keep, said: false }),
        None => pipeline,
    };
    Ok(pipeline.spawn("kv-out")?)
}

fn run() -> Result<(), Failure> {
    let Some(given) = arguments()? else { return Ok(()) };
    let (time, plain) = (given.time, given.plain);
    let begun = Instant::now();
    let Running { taken, out, counts, _store } = start(&given)?;
    let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    let mut gaps = 0;
    let mut said = String::new();
    while time.is_none_or(|time| begun.elapsed() < time) {
        std::thread::sleep(Duration::from_millis(100));
        let numbers = out.numbers();
        let taking = taken.as_ref().map_or_else(|| out.numbers(), Handle::numbers);
        let down = taken.as_ref().map(Handle::health).filter(is_over);
        let health = down.unwrap_or_else(|| out.health());
        if taking.gaps > gaps {
            gaps = taking.gaps;
            println!("gap: {gaps} so far, {} batches lost at least", taking.lost);
        }
        let line = format!(
            "{health}; {} records in, {} events out, {} settled, {} gaps",
            taking.pulled, numbers.put, numbers.settled, taking.gaps
        );
        if plain && line != said {
            println!("{line}");
        }
        bar.set_message(line.clone());
        bar.tick();
        said = line;
        if is_over(&health) {
            break;
        }
    }
    bar.finish_and_clear();
    let taking = taken.as_ref().map_or_else(|| out.numbers(), Handle::numbers);
    if let Some(taken) = taken {
        taken.stop();
        taken.join()?;
    }
    out.stop();
    let numbers = out.numbers();
    let seconds = begun.elapsed().as_secs_f64();
    let health = out.join()?;
    println!("{:<28}{:>12}", "records of the engine", taking.pulled);
    println!("{:<28}{:>12}", "events published", numbers.put);
    println!("{:<28}{:>12}", "settled", numbers.settled);
    println!("{:<28}{:>12}", "published in an earlier life", numbers.repeated);
    println!("{:<28}{:>12}", "gaps", taking.gaps);
    println!("{:<28}{:>12}", "batches lost, as known", taking.lost);
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

fn is_over(health: &Health) -> bool {
    matches!(health, Health::Down(_) | Health::Ended { .. })
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
