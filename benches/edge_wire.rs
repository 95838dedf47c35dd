//! The edges to the outside: decoding an engine's events, publishing to JetStream, and both.
//!
//! Beside each its limit: a pass over the same bytes; a bare forwarder with the same client and the
//! same window, which keeps no order and remembers nothing; the slower of hearing and publishing.
//! `nats-server` has to be there (`scripts/servers.sh`), or the last two are skipped.
#![expect(clippy::disallowed_methods, reason = "benches measure real time")]
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

#[expect(dead_code, reason = "the other benches need more of it")]
mod support;

use std::collections::VecDeque;
use std::future::IntoFuture as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use annals::edge::kv::{
    Batch, BlockHash, EngineEvent, EngineStored, Gather, Holders, KvEvent, Medium, Normalise,
    Number, Schema, Told,
};
use annals::edge::nats::{NatsOptions, NatsSink};
use annals::edge::zmq::{ZmqOptions, ZmqSource};
use annals::edge::{self, Emit, Pos, Sink as _, Stage as _, Why};
use support::table::Unit;
use support::{Bench, Pair};

/// Blocks of a request, and tokens of a block.
const BLOCKS: u64 = 8;
const TOKENS: u32 = 16;
/// Patience with a server.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let mut bench = Bench::new("edge_wire");
    decode(&mut bench);
    match Server::start(&bench.home.fresh("nats")) {
        Some(server) => {
            publish(&mut bench, &server);
            through(&mut bench, &server);
        }
        None => eprintln!("*** SKIPPED: publishing, because there is no nats-server"),
    }
    bench.table.print();
}

/// What an engine sends for one request: eight blocks stored, and eight old ones removed.
fn payload(number: u64, schema: Schema) -> Vec<u8> {
    let hash = |block: u64| BlockHash((block + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let first = number * BLOCKS;
    let stored = EngineStored {
        hashes: (first..first + BLOCKS).map(hash).collect(),
        parent: None,
        tokens: (0..TOKENS * 8).collect(),
        block_size: TOKENS,
        medium: Medium::Device,
        group: 0,
    };
    let old = first.saturating_sub(100 * BLOCKS);
    let hashes = (old..old + BLOCKS).map(hash).collect();
    let removed = EngineEvent::Removed { hashes, medium: Medium::Device, group: 0 };
    let events = vec![EngineEvent::Stored(stored), removed];
    Batch { ts: 1.0, rank: Some(0), events, unknown: 0 }.encode(schema)
}

struct Out<T>(Vec<(Pos, T)>);

impl<T> Emit<T> for Out<T> {
    fn emit(&mut self, pos: Pos, item: T) {
        self.0.push((pos, item));
    }

    fn skip(&mut self, _pos: Pos, _reason: &'static str) {}

    fn poison(&mut self, pos: Pos, why: Why) {
        panic!("{pos}: {why}");
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// From the engine's bytes to JSON, with all stages: events in a second.
fn decode(bench: &mut Bench) {
    if !bench.wants("decode") {
        return;
    }
    let batches = bench.scale.pick(100, 5_000, 20_000);
    for (name, schema) in [("arrays to JSON", Schema::Arrays), ("maps to JSON", Schema::Maps)] {
        let payloads: Vec<_> = (0..batches).map(|number| payload(number, schema)).collect();
        bench.compare(("decode", name), Unit::PerSecond, batches * 2, &mut |times| {
            let mut pair = Pair { ours: Duration::ZERO, limit: Duration::ZERO };
            for _ in 0..times {
                let began = Instant::now();
                let bytes = all_stages(&payloads);
                pair.ours += began.elapsed();
                assert!(bytes > 0, "something came of it");
                let began = Instant::now();
                let sum: u64 = payloads.iter().map(|it| u64::from(crc32fast::hash(it))).sum();
                pair.limit += began.elapsed();
                assert!(sum > 0, "a checksum");
            }
            pair
        });
    }
}

fn all_stages(payloads: &[Vec<u8>]) -> usize {
    let mut normalise = Normalise::new(0);
    let mut holders = Holders::new(1 << 20);
    let mut number = Number::default();
    let (mut events, mut changes, mut numbered) =
        (Out(Vec::new()), Out(Vec::new()), Out::<KvEvent>(Vec::new()));
    let mut bytes = 0;
    for (seq, payload) in payloads.iter().enumerate() {
        let pos = Pos::new(1, seq as u64);
        normalise.step(pos, Told::Batch(payload.clone()), &mut events).expect("a batch");
        for (pos, event) in events.0.drain(..) {
            holders.step(pos, event, &mut changes).expect("an event");
        }
        for (pos, event) in changes.0.drain(..) {
            number.step(pos, event, &mut numbered).expect("a change");
        }
        bytes += numbered.0.drain(..).map(|(_, event)| event.to_json(1).len()).sum::<usize>();
    }
    bytes
}

/// A server of our own, killed at the end.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(dir: &Path) -> Option<Self> {
        std::fs::create_dir_all(dir).expect("a folder");
        let mut command = Command::new("nats-server");
        command.args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"]);
        command.arg(dir.join("jetstream")).arg("--ports_file_dir").arg(dir);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().ok()?;
        let file = dir.join(format!("nats-server_{}.ports", child.id()));
        let began = Instant::now();
        let text = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) if text.contains('}') => break text,
                _ => assert!(began.elapsed() < PATIENCE, "nats-server does not start"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let url = text.split('"').find(|part| part.starts_with("nats://")).expect("an address");
        Some(Self { child, url: url.to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().expect("it was killed");
        }
    }
}

/// A stream's name that was not used yet.
fn fresh_name() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("bench-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn sink(server: &Server, window: usize) -> NatsSink {
    let mut options = NatsOptions::new(&server.url, fresh_name(), "bench");
    (options.create, options.window) = (true, window);
    let mut sink = NatsSink::new(options).expect("a thread");
    sink.last().expect("a server");
    sink
}

/// Acknowledged publishes of 1 KiB in a second, against a bare forwarder.
fn publish(bench: &mut Bench, server: &Server) {
    if !bench.wants("publish") {
        return;
    }
    let record = vec![b'x'; 1_024];
    for window in [1, 256] {
        let records = if window == 1 { 500 } else { 10_000 };
        let records = bench.scale.pick(20, records, records * 4);
        let name = format!("1 KiB, window {window}");
        bench.compare(("publish", &name), Unit::PerSecond, records, &mut |times| {
            let mut pair = Pair { ours: Duration::ZERO, limit: Duration::ZERO };
            for _ in 0..times {
                let mut sink = sink(server, window);
                let began = Instant::now();
                for seq in 1..=records {
                    while sink.room() == 0 {
                        sink.settle(PATIENCE).expect("a server");
                    }
                    sink.put(Pos::new(1, seq), record.clone(), true).expect("room");
                }
                while sink.settle(PATIENCE).expect("a server") < Some(Pos::new(1, records)) {}
                pair.ours += began.elapsed();
                pair.limit += forward(&server.url, (0..records).map(|_| record.clone()), window);
            }
            pair
        });
    }
}

/// Publishes and awaits, with `window` under way; the time without connecting.
fn forward(url: &str, records: impl Iterator<Item = Vec<u8>>, window: usize) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let name = fresh_name();
        let client = async_nats::connect(url).await.expect("a server");
        let context = async_nats::jetstream::new(client);
        let config = async_nats::jetstream::stream::Config {
            name: name.clone(),
            subjects: vec![name.clone()],
            ..Default::default()
        };
        context.create_stream(config).await.expect("a stream");
        let began = Instant::now();
        let mut waiting = VecDeque::new();
        for record in records {
            if waiting.len() == window
                && let Some(oldest) = waiting.pop_front()
            {
                let oldest: async_nats::jetstream::context::PublishAckFuture = oldest;
                oldest.into_future().await.expect("an ack");
            }
            let sent = context.publish(name.clone(), record.into()).await;
            waiting.push_back(sent.expect("a connection"));
        }
        for rest in waiting {
            rest.into_future().await.expect("an ack");
        }
        began.elapsed()
    })
}

/// Publishes batches on a socket as fast as somebody takes them, once there is somebody.
fn engine(payloads: &[Vec<u8>]) -> (String, zmq::Socket) {
    let socket = zmq::Context::new().socket(zmq::XPUB).expect("a socket");
    socket.set_linger(-1).expect("an option");
    socket.set_sndhwm(i32::try_from(payloads.len()).unwrap_or(0) + 1).expect("an option");
    socket.bind("tcp://127.0.0.1:*").expect("a port");
    let address = socket.get_last_endpoint().expect("bound").expect("text");
    (address, socket)
}

fn say_all(socket: &zmq::Socket, payloads: &[Vec<u8>]) {
    // Somebody has subscribed.
    socket.recv_multipart(0).expect("a subscription");
    for (seq, payload) in payloads.iter().enumerate() {
        let seq = (seq as u64).swap_bytes().to_le_bytes();
        socket.send_multipart([&b"kv"[..], &seq, payload], 0).expect("room");
    }
}

/// Batches from an engine's socket to JetStream in a second, against the slower of the two halves
/// by themselves: hearing the batches, and publishing what comes of them.
fn through(bench: &mut Bench, server: &Server) {
    if !bench.wants("through") {
        return;
    }
    let batches = bench.scale.pick(50, 5_000, 20_000);
    let payloads: Vec<_> = (0..batches).map(|number| payload(number, Schema::Maps)).collect();
    let events = json(&payloads);
    bench.compare(("through", "engine to JetStream"), Unit::PerSecond, batches, &mut |times| {
        let mut pair = Pair { ours: Duration::ZERO, limit: Duration::ZERO };
        for _ in 0..times {
            pair.ours += ours(server, &payloads);
            let heard = hear(&payloads);
            pair.limit += heard.max(forward(&server.url, events.iter().cloned(), 256));
        }
        pair
    });
}

fn json(payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut out = Out(Vec::new());
    let mut normalise = Normalise::new(0);
    for payload in payloads {
        let told = Told::Batch(payload.clone());
        normalise.step(Pos::default(), told, &mut out).expect("a batch");
    }
    out.0.iter().map(|(_, event)| event.to_json(1)).collect()
}

fn hear(payloads: &[Vec<u8>]) -> Duration {
    let (address, socket) = engine(payloads);
    std::thread::scope(|scope| {
        scope.spawn(move || say_all(&socket, payloads));
        let taker = zmq::Context::new().socket(zmq::SUB).expect("a socket");
        taker.set_rcvhwm(0).expect("an option");
        taker.connect(&address).expect("an address");
        taker.set_subscribe(b"kv").expect("an option");
        let began = Instant::now();
        for _ in payloads {
            taker.recv_multipart(0).expect("a batch");
        }
        began.elapsed()
    })
}

fn ours(server: &Server, payloads: &[Vec<u8>]) -> Duration {
    let (address, socket) = engine(payloads);
    let sink = sink(server, 256);
    let mut options = ZmqOptions::new(address);
    options.topic.push_str("kv");
    std::thread::scope(|scope| {
        scope.spawn(move || say_all(&socket, payloads));
        let began = Instant::now();
        let pipeline = edge::from(ZmqSource::new(options))
            .then(Normalise::new(0))
            .then(Holders::new(1 << 20))
            .then(Gather::new(128, Duration::ZERO))
            .then(Number::default())
            .map(|event: KvEvent| event.to_json(1))
            .into(sink)
            .spawn("bench")
            .expect("a thread");
        let last = payloads.len() as u64;
        while pipeline.numbers().frontier.seq < last {
            assert!(began.elapsed() < PATIENCE, "{:?}", pipeline.numbers());
            std::thread::sleep(Duration::from_micros(200));
        }
        let took = began.elapsed();
        pipeline.stop();
        pipeline.join().expect("it was stopped");
        took
    })
}
