//! The source with an engine of this file's own on the other side of real sockets.

#![expect(clippy::disallowed_methods, reason = "sockets are waited for in real time")]
#![expect(clippy::big_endian_bytes, reason = "numbers on the wire are big-endian")]

use std::collections::VecDeque;

use super::*;
use crate::edge::kv::Cut;
use crate::edge::kv::Why as CutWhy;

/// Publishes and answers as vLLM does, when it is told to.
struct Engine {
    publisher: zmq::Socket,
    replay: zmq::Socket,
    buffer: VecDeque<(u64, Vec<u8>)>,
    kept: usize,
}

/// Where it is found.
#[derive(Clone)]
struct Addresses {
    publish: String,
    replay: String,
}

fn number(seq: u64) -> [u8; 8] {
    seq.to_be_bytes()
}

impl Engine {
    /// On any ports, or on those of the one before.
    fn start(context: &zmq::Context, at: Option<&Addresses>, kept: usize) -> (Self, Addresses) {
        let any = "tcp://127.0.0.1:*".to_owned();
        let bind = |kind, address: &str| {
            let socket = context.socket(kind).unwrap();
            socket.set_linger(0).unwrap();
            let begun = std::time::Instant::now();
            while let Err(error) = socket.bind(address) {
                assert!(begun.elapsed() < Duration::from_secs(10), "{address}: {error}");
                std::thread::yield_now();
            }
            let address = socket.get_last_endpoint().unwrap().unwrap();
            (socket, address)
        };
        let (publisher, publish) = bind(zmq::PUB, at.map_or(&any, |at| &at.publish));
        let (replay, replayed) = bind(zmq::ROUTER, at.map_or(&any, |at| &at.replay));
        let this = Self { publisher, replay, buffer: VecDeque::new(), kept };
        (this, Addresses { publish, replay: replayed })
    }

    fn keep(&mut self, seq: u64, payload: &[u8]) {
        self.buffer.push_back((seq, payload.to_vec()));
        if self.buffer.len() > self.kept {
            self.buffer.pop_front();
        }
    }

    fn publish(&mut self, seq: u64, payload: &[u8]) {
        self.keep(seq, payload);
        self.publisher.send_multipart([b"kv", &number(seq)[..], payload], 0).unwrap();
    }

    /// Answers what was asked, in three frames or in four.
    fn serve(&self, frames: usize) {
        while let Ok(asked) = self.replay.recv_multipart(zmq::DONTWAIT) {
            let from = u64::from_be_bytes(<[u8; 8]>::try_from(&asked[2][..]).unwrap());
            let topic: &[&[u8]] = if frames == 4 { &[b"kv"] } else { &[] };
            for (seq, payload) in self.buffer.iter().filter(|(seq, _)| *seq >= from) {
                let head: &[&[u8]] = &[&asked[0], b""];
                let seq = number(*seq);
                let answer = [head, topic, &[&seq, payload]].concat();
                self.replay.send_multipart(answer, 0).unwrap();
            }
            self.replay.send_multipart([&asked[0][..], b"", &number(u64::MAX), b""], 0).unwrap();
        }
    }
}

#[derive(Default)]
struct Taken(Vec<(Pos, Option<u64>, Told)>);

impl Give<Told> for Taken {
    fn give(&mut self, pos: Pos, item: Told) {
        self.0.push((pos, None, item));
    }

    fn give_hashed(&mut self, pos: Pos, hash: u64, item: Told) {
        self.0.push((pos, Some(hash), item));
    }
}

impl Taken {
    fn batches(&self) -> Vec<&[u8]> {
        let batch = |told: &'_ Told| matches!(told, Told::Batch(_));
        self.0
            .iter()
            .filter(|(.., told)| batch(told))
            .map(|(.., told)| match told {
                Told::Batch(payload) => &payload[..],
                Told::Cut(_) => &[][..],
            })
            .collect()
    }

    fn cuts(&self) -> Vec<CutWhy> {
        let why = |told: &Told| match told {
            Told::Cut(Cut { why, .. }) => Some(*why),
            Told::Batch(_) => None,
        };
        self.0.iter().filter_map(|(.., told)| why(told)).collect()
    }
}

/// Pulls, and lets the engine answer, until so many batches are there.
fn pull(source: &mut ZmqSource, engine: &Engine, taken: &mut Taken, count: usize, frames: usize) {
    let begun = std::time::Instant::now();
    while taken.batches().len() < count {
        let have = taken.batches().len();
        assert!(begun.elapsed() < Duration::from_secs(20), "{have} of {count}: {source:?}");
        engine.serve(frames);
        source.pull(10, Duration::from_millis(5), taken).unwrap();
    }
}

fn source(at: &Addresses) -> ZmqSource {
    let mut options = ZmqOptions::new(&at.publish);
    options.replay = Some(at.replay.clone());
    options.topic = "kv".to_owned();
    options.idle = Duration::from_millis(50);
    options.answer = Duration::from_secs(10);
    ZmqSource::new(options)
}

/// Batches from before the connection, live ones, one that got lost, and the tail that got lost.
#[test]
fn what_an_engine_has_said_before_during_and_unheard_arrives_in_order() {
    for frames in [3, 4] {
        let context = zmq::Context::new();
        let (mut engine, at) = Engine::start(&context, None, 1_000);
        for seq in 0..5 {
            engine.publish(seq, &[1, u8::try_from(seq).unwrap()]);
        }
        let mut source = source(&at);
        source.seek(None).unwrap();
        let mut taken = Taken::default();
        pull(&mut source, &engine, &mut taken, 5, frames);
        engine.publish(5, &[1, 5]);
        engine.keep(6, &[1, 6]);
        engine.publish(7, &[1, 7]);
        engine.keep(8, &[1, 8]);
        pull(&mut source, &engine, &mut taken, 9, frames);
        let expected: Vec<[u8; 2]> = (0..9).map(|seq| [1, seq]).collect();
        assert_eq!(taken.batches(), expected);
        assert_eq!(taken.cuts(), [CutWhy::Begin]);
        assert!(taken.0.is_sorted_by(|a, b| a.0 < b.0));
    }
}

/// A new engine at the old addresses, and further than the old one was. Then it is only we who
/// begin anew: it is known again, and nothing is said twice.
#[test]
fn another_engine_at_the_same_address_is_another_and_the_same_one_is_the_same() {
    let context = zmq::Context::new();
    let (mut engine, at) = Engine::start(&context, None, 1_000);
    (0..3).for_each(|seq| engine.publish(seq, &[1, u8::try_from(seq).unwrap()]));
    let mut first = source(&at);
    first.seek(None).unwrap();
    let mut taken = Taken::default();
    pull(&mut first, &engine, &mut taken, 3, 3);
    drop(engine);
    let (mut engine, _) = Engine::start(&context, Some(&at), 1_000);
    (0..6).for_each(|seq| engine.publish(seq, &[2, u8::try_from(seq).unwrap()]));
    pull(&mut first, &engine, &mut taken, 9, 3);
    let expected: Vec<[u8; 2]> =
        (0..3).map(|seq| [1, seq]).chain((0..6).map(|seq| [2, seq])).collect();
    assert_eq!(taken.batches(), expected);
    assert_eq!(taken.cuts(), [CutWhy::Begin, CutWhy::Restarted]);

    let (pos, hash, _) = taken.0[taken.0.len() - 2].clone();
    drop(first);
    let mut second = source(&at);
    second.seek(Some(Mark { pos, hash })).unwrap();
    let mut taken = Taken::default();
    pull(&mut second, &engine, &mut taken, 1, 3);
    assert_eq!(taken.batches(), [[2, 5]]);
    assert_eq!(taken.cuts(), []);
    assert_eq!(second.counts().connections(), 1);
}

/// What is no engine's message does no harm: it is counted, and asked about as a gap.
#[test]
fn messages_of_a_stranger_are_counted_and_lose_nothing() {
    let context = zmq::Context::new();
    let (mut engine, at) = Engine::start(&context, None, 1_000);
    let mut source = source(&at);
    source.seek(None).unwrap();
    let mut taken = Taken::default();
    engine.publish(0, &[0]);
    pull(&mut source, &engine, &mut taken, 1, 3);
    let (short, high) = ([1, 2], number(u64::MAX - 7));
    for frames in [
        vec![&b"kv"[..]],
        vec![b"kv", &short, b"x"],
        vec![b"kv", &high, b"x"],
        vec![b"kv2", &number(1), b"x"],
        vec![b"kv", &number(1), b"x", b"y"],
    ] {
        engine.publisher.send_multipart(frames, 0).unwrap();
    }
    engine.publish(1, &[1]);
    pull(&mut source, &engine, &mut taken, 2, 3);
    assert_eq!(taken.batches(), [[0], [1]]);
    assert_eq!(taken.cuts(), [CutWhy::Begin]);
    assert!(FollowOptions::default().recent >= 100_000, "as many as may wait");
}

#[test]
fn a_rank_is_added_to_both_ports() {
    let mut options = ZmqOptions::new("tcp://host:5557");
    options.replay = Some("tcp://[::1]:6000".to_owned());
    let options = options.at_rank(3).unwrap();
    assert_eq!(options.endpoint, "tcp://host:5560");
    assert_eq!(options.replay.as_deref(), Some("tcp://[::1]:6003"));
    for endpoint in ["ipc://path", "tcp://host", "tcp://host:65535", "tcp://host:x"] {
        assert!(ZmqOptions::new(endpoint).at_rank(1).is_err(), "{endpoint}");
    }
}
