//! What a publish costs, how long it takes to get there, how many get there, and how fast one
//! catches up.

use std::time::{Duration, Instant};

use annals::log::frame::{Batch, RecordKind};
use annals::{Op, Seq, StreamId};

use crate::nodes::{Count, LONG, open, users};
use crate::raw::Raw;
use crate::support::histogram::Histogram;
use crate::support::table::{Row, Unit};
use crate::support::{Bench, Pair};

/// Bytes of a token: its header and a key of 32.
const TOKEN_BYTES: usize = 64;
const KEY: [u8; 32] = [7; 32];
/// Tokens in one call.
const MANY: usize = 256;
/// Readers turn round for so long, where that is said.
const SPIN: Duration = Duration::from_micros(200);

/// What the write path costs, with nobody connected and with some. The limit: an append of as many
/// bytes to the event log.
pub(crate) fn publish(bench: &mut Bench) {
    if !bench.wants("publish") {
        return;
    }
    for peers in [0, 1, 8] {
        let store = open(&bench.home.fresh("node"), &[], Duration::ZERO);
        let address = store.node().expect("a node").address().expect("an address");
        let others: Vec<_> = (0..peers)
            .map(|at| open(&bench.home.fresh(&format!("peer {at}")), &[address], Duration::ZERO))
            .collect();
        let counts: Vec<_> = others.iter().map(Count::on).collect();
        let node = store.node().expect("a node");
        let mut said = 0;
        let mut batch = Batch::new();
        let mut seq = 0;
        for many in [1, MANY] {
            let ops = vec![Op::key(users(), &KEY); many];
            let body = vec![7; TOKEN_BYTES * many];
            let s = if peers == 1 { "" } else { "s" };
            let name = format!("{many} a call, {peers} peer{s}");
            bench.compare(("publish", &name), Unit::PerSecond, many as u64, &mut |times| {
                let began = Instant::now();
                for _ in 0..times {
                    node.publish_many(&ops).expect("published");
                }
                let ours = began.elapsed();
                said += times * many as u64;
                for count in &counts {
                    count.wait(said);
                }
                let began = Instant::now();
                for _ in 0..times {
                    seq += 1;
                    batch.clear();
                    batch.push(RecordKind::Turn, 1, &body).expect("room");
                    let first = Seq::new(seq).expect("48 bits");
                    let stream = StreamId::of("bench", "limit");
                    store.log().append(&mut batch, stream, first).expect("appended");
                }
                Pair { ours, limit: began.elapsed() }
            });
        }
    }
}

/// From the call to the cache manager of the other node. The limit: one message of as many bytes
/// over a plain socket, read by a thread that sleeps.
pub(crate) fn one_way(bench: &mut Bench) {
    if !bench.wants("one way") {
        return;
    }
    for (mode, spin) in [("sleeping readers", Duration::ZERO), ("readers that spin", SPIN)] {
        let store = open(&bench.home.fresh("node"), &[], spin);
        let address = store.node().expect("a node").address().expect("an address");
        let other = open(&bench.home.fresh("peer"), &[address], spin);
        let count = Count::on(&other);
        let node = store.node().expect("a node");
        let mut raw = Raw::new();
        let (mut ours, mut limit) = (Histogram::new(), Histogram::new());
        let mut said = 0;
        bench.compare(("one way", mode), Unit::Time, 1, &mut |times| {
            let began = Instant::now();
            ours.merge(&Histogram::of_each(times, &mut || {
                node.publish(Op::key(users(), &KEY)).expect("published");
                said += 1;
                count.wait(said);
            }));
            let took = began.elapsed();
            Pair { ours: took, limit: raw.one_way(times, TOKEN_BYTES + 64, &mut limit) }
        });
        let figures = [("p50", ours.p50(), limit.p50()), ("p99", ours.p99(), limit.p99())];
        for (part, ours, limit) in figures {
            let work = format!("one way: {mode}, {part}");
            bench.table.add(Row::measured(work, Unit::Time, (ours, Some(limit))));
        }
        bench.table.distribution(format!("one way: {mode}"), ours);
        bench.table.distribution("its limit", limit);
    }
}

/// Tokens that are logged and summed at both ends. The limit: as many bytes in as large messages
/// over a plain socket.
pub(crate) fn stream(bench: &mut Bench) {
    if !bench.wants("stream") {
        return;
    }
    let store = open(&bench.home.fresh("node"), &[], Duration::ZERO);
    let address = store.node().expect("a node").address().expect("an address");
    let other = open(&bench.home.fresh("peer"), &[address], Duration::ZERO);
    let count = Count::on(&other);
    let node = store.node().expect("a node");
    let ops = vec![Op::key(users(), &KEY); MANY];
    let mut raw = Raw::new();
    let mut said = 0;
    let rounds = bench.scale.pick(4, 400, 2_000);
    let elements = rounds * MANY as u64;
    bench.compare(("stream", "64 B, 256 a call"), Unit::PerSecond, elements, &mut |times| {
        let began = Instant::now();
        for _ in 0..times * rounds {
            node.publish_many(&ops).expect("published");
        }
        said += times * elements;
        count.wait(said);
        let ours = began.elapsed();
        Pair { ours, limit: raw.stream(times * rounds, TOKEN_BYTES * MANY) }
    });
}

/// A node that was away for so many tokens, from its connection to the last one applied. The
/// limit: as many bytes over a plain socket.
pub(crate) fn catch_up(bench: &mut Bench) {
    if !bench.wants("catch up") {
        return;
    }
    let store = open(&bench.home.fresh("node"), &[], Duration::ZERO);
    let address = store.node().expect("a node").address().expect("an address");
    let peer = bench.home.fresh("peer");
    // It joins, and goes.
    drop(open(&peer, &[address], Duration::ZERO));
    let node = store.node().expect("a node");
    let tokens = bench.scale.pick(4_096, 1 << 20, 10 << 20);
    let ops = vec![Op::key(users(), &KEY); MANY];
    for _ in 0..tokens / MANY {
        node.publish_many(&ops).expect("published");
    }
    let began = Instant::now();
    let other = open(&peer, &[address], Duration::ZERO);
    let head = node.status().head;
    let there = |status: annals::sync::node::NodeStatus| {
        status.origins.iter().any(|it| it.applied.tokens.seq >= head)
    };
    while !there(other.node().expect("a node").status()) {
        assert!(began.elapsed() < LONG, "{:?}", other.node().expect("a node").status());
        std::thread::yield_now();
    }
    let took = began.elapsed();
    let limit = Raw::new().stream((tokens / MANY) as u64, TOKEN_BYTES * MANY);
    let per = |time: Duration| time.as_nanos() as f64 / tokens as f64;
    let figures = (per(took), Some(per(limit)));
    let work = format!("catch up: {tokens} tokens, from the open");
    bench.table.add(Row::measured(work, Unit::PerSecond, figures));
    let status = node.status();
    println!("catch up: {} bytes held for peers, {} cleared", status.held_bytes, status.cleared);
}
