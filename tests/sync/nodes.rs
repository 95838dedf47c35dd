//! Nodes in one process, with links that are cut and healed.

use annals::sync::apply::{Applier, Flush, FlushReason};
use annals::sync::node::local::Local;
use annals::sync::node::{Answer, NodeError};
use annals::sync::origin::TokenLog;
use annals::sync::token::Token;
use annals::{Error, Op, Store};
use tempfile::TempDir;

use crate::world::{LONG, Recorder, config, log_of, open, options, users};

/// A cluster of so many nodes, each joined through the one before.
fn cluster(count: usize) -> (Vec<TempDir>, Vec<Store>, Vec<Local>) {
    let dirs: Vec<_> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
    let stores: Vec<_> =
        dirs.iter().enumerate().map(|(at, dir)| open(dir.path(), at == 0)).collect();
    let mut links = Vec::new();
    for pair in stores.windows(2) {
        let [one, other] = pair else { panic!("two") };
        links.push(Local::connect(one.node().unwrap(), other.node().unwrap()));
        other.node().unwrap().wait_member(LONG).unwrap();
    }
    (dirs, stores, links)
}

#[test]
fn a_token_reaches_every_node_also_through_another_one() {
    let (_dirs, stores, _links) = cluster(3);
    let nodes: Vec<_> = stores.iter().map(|store| store.node().unwrap()).collect();
    let heard: Vec<_> = nodes.iter().map(|node| Recorder::on(node)).collect();
    for (number, node) in nodes.iter().enumerate() {
        let key = format!("key of {number}");
        node.publish(Op::key(users(), key.as_bytes())).unwrap();
        for recorder in &heard {
            recorder.wait_key(key.as_bytes()).check_dense();
        }
    }
    for node in &nodes {
        assert!(node.wait_fresh(users(), LONG), "{:?}", node.status());
        assert_eq!(node.answer(users()), Answer::Fresh);
    }
}

#[test]
fn a_node_that_was_away_catches_up_with_exactly_what_it_missed() {
    let (_dirs, stores, mut links) = cluster(2);
    let [one, other] = [stores[0].node().unwrap(), stores[1].node().unwrap()];
    let recorder = Recorder::on(other);
    one.publish(Op::key(users(), b"before")).unwrap();
    recorder.wait_key(b"before");
    let from = one.status().head;
    drop(links.pop());
    let keys: Vec<_> = (0..20_000).map(u32::to_le_bytes).collect();
    for keys in keys.chunks(100) {
        let ops: Vec<_> = keys.iter().map(|key| Op::key(users(), key)).collect();
        one.publish_many(&ops).unwrap();
    }
    one.publish(Op::key(users(), b"after")).unwrap();
    let _link = Local::connect(one, other);
    let heard = recorder.wait_key(b"after");
    heard.check_dense();
    assert_eq!(heard.keys.len(), 20_002);
    assert!(keys.iter().zip(&heard.keys[1..]).all(|(said, heard)| said == &heard[..]));
    assert_eq!(heard.numbers[&log_of(one)].last(), Some(&(from + 20_001)));
    assert_eq!(heard.flushes, [], "nothing was lost, so nothing is cleared");
}

#[test]
fn what_was_heard_before_a_clean_restart_is_not_told_again_and_nothing_is_cleared() {
    let (dirs, mut stores, mut links) = cluster(2);
    let recorder = Recorder::on(stores[0].node().unwrap());
    stores[1].node().unwrap().publish(Op::key(users(), b"first life")).unwrap();
    recorder.wait_key(b"first life");
    let log = log_of(stores[1].node().unwrap());
    drop(links.pop());
    stores.pop().unwrap().close(LONG).unwrap();
    let again = open(dirs[1].path(), false);
    let node = again.node().unwrap();
    assert_eq!(node.origin(), log.origin);
    assert!(node.incarnation() > log.incarnation);
    let _link = Local::connect(stores[0].node().unwrap(), node);
    node.wait_member(LONG).unwrap();
    node.publish(Op::key(users(), b"second life")).unwrap();
    let heard = recorder.wait_key(b"second life");
    heard.check_dense();
    assert_eq!(heard.flushes, []);
    assert_eq!(heard.ended, [log]);
}

#[test]
fn a_change_is_told_where_it_is_made_and_elsewhere_and_only_once() {
    let (_dirs, stores, _links) = cluster(2);
    let [one, other] = [stores[0].node().unwrap(), stores[1].node().unwrap()];
    for (here, there) in [(one, other), (other, one)] {
        let changes = [here.token(users(), b"17"), there.token(users(), b"17")];
        let untouched = there.token(users(), b"18");
        let (called, calls) = std::sync::mpsc::channel();
        here.on_change(&changes[0], move || called.send(()).unwrap());
        here.trigger(users(), b"17").unwrap();
        assert!(changes[0].is_changed(), "where it is made it is told before the call returns");
        assert!(changes[1].wait(LONG));
        calls.recv_timeout(LONG).unwrap();
        here.trigger(users(), b"17").unwrap();
        assert!(calls.recv().is_err(), "once");
        assert!(!untouched.is_changed());
    }
}

#[test]
fn who_is_no_member_may_not_publish_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), false);
    let node = store.node().unwrap();
    assert!(matches!(node.publish(Op::key(users(), b"1")), Err(NodeError::Fenced(_))));
    let unknown = annals::DomainId::of("unknown");
    assert!(matches!(node.publish(Op::key(unknown, b"1")), Err(NodeError::Domain(_))));
    let plain = Store::open(tempfile::tempdir().unwrap().path()).unwrap();
    assert!(matches!(plain.node(), Err(Error::Node(NodeError::NoNode))));
}

#[test]
fn an_answer_is_not_fresh_once_a_writer_was_not_heard_of_for_a_lease() {
    let (_dirs, stores, mut links) = cluster(2);
    let node = stores[0].node().unwrap();
    assert!(node.wait_fresh(users(), LONG));
    drop(links.pop());
    let mut changed = false;
    let deadline = std::time::Instant::now() + LONG;
    while !changed && std::time::Instant::now() < deadline {
        changed = matches!(node.answer(users()), Answer::Stale(..));
        std::thread::yield_now();
    }
    assert!(changed, "the other one may have written");
    // It is fresh again once it has left for good.
    let _link = Local::connect(node, stores[1].node().unwrap());
    assert!(node.wait_fresh(users(), LONG));
    stores[1].node().unwrap().leave(LONG).unwrap();
    let refused = stores[1].node().unwrap().publish(Op::key(users(), b"1"));
    assert!(matches!(refused, Err(NodeError::Fenced(_))), "{refused:?}");
}

#[test]
fn a_probe_measures_how_long_delivery_takes_to_each_peer() {
    let (_dirs, stores, _links) = cluster(3);
    let middle = stores[1].node().unwrap();
    let took = middle.probe(LONG).unwrap();
    assert_eq!(took.len(), 2);
    assert!(took.iter().all(|(_, took)| took.is_some()), "{took:?}");
}

#[test]
fn who_was_away_for_longer_than_tokens_are_kept_is_told_so_and_clears() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let kept = config(true).retain(64 << 10, LONG);
    let stores = [options(kept).open(dirs[0].path()).unwrap(), open(dirs[1].path(), false)];
    let [one, other] = [stores[0].node().unwrap(), stores[1].node().unwrap()];
    let link = Local::connect(one, other);
    other.wait_member(LONG).unwrap();
    let recorder = Recorder::on(other);
    one.publish(Op::key(users(), b"before")).unwrap();
    recorder.wait_key(b"before");
    drop(link);
    let cleared = other.status().cleared;
    let ops = vec![Op::key(users(), &[7; 100]); 100];
    // What is kept is looked at once a second.
    let deadline = std::time::Instant::now() + LONG;
    let from = one.status().head;
    while one.floor() <= from {
        one.publish_many(&ops).unwrap();
        assert!(std::time::Instant::now() < deadline, "nothing was let go");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _link = Local::connect(one, other);
    let heard = recorder.wait("no flush", |heard| !heard.flushes.is_empty());
    assert_eq!(heard.flushes[0].reason, FlushReason::Gap);
    assert_eq!(other.status().cleared, cleared + 1, "{:?}", other.notices());
    one.publish(Op::key(users(), b"after")).unwrap();
    recorder.wait_key(b"after");
}

/// Takes nothing while it is held.
#[derive(Debug, Default)]
struct Gate {
    held: parking_lot::Mutex<()>,
}

impl Applier for Gate {
    fn apply(&self, _log: &TokenLog, _token: &Token<'_>) {
        drop(self.held.lock());
    }
    fn visible(&self, _log: &TokenLog, _upto: u64) {}
    fn flush(&self, _flush: &Flush) {}
    fn ended(&self, _log: &TokenLog) {}
}

#[test]
fn a_peer_that_takes_nothing_costs_no_memory_and_holds_nobody_up() {
    let (_dirs, stores, _links) = cluster(2);
    let [one, other] = [stores[0].node().unwrap(), stores[1].node().unwrap()];
    let gate = std::sync::Arc::new(Gate::default());
    other.look_on(std::sync::Arc::clone(&gate) as std::sync::Arc<dyn Applier>);
    let recorder = Recorder::on(other);
    let held = gate.held.lock();
    let body = [9; 200];
    let ops = vec![Op::key(users(), &body); 100];
    for _ in 0..500 {
        one.publish_many(&ops).unwrap();
        assert!(one.status().held_bytes <= 512 << 10, "{}", one.status().held_bytes);
    }
    one.publish(Op::key(users(), b"last")).unwrap();
    drop(held);
    let heard = recorder.wait_key(b"last");
    heard.check_dense();
    assert_eq!(heard.keys.len(), 50_001);
    assert_eq!(heard.flushes, []);
}
