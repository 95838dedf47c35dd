//! Nodes over TCP on the loopback, with a proxy between them that can be cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use annals::sync::domain::Domain;
use annals::sync::node::{NodeConfig, NodeError};
use annals::sync::origin::ClusterId;
use annals::{Op, Store};
use tempfile::TempDir;

use crate::world::{LONG, Recorder, cluster, config, log_of, options, users};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A cluster of so many nodes, each of which dials all before it.
fn mesh(count: usize) -> (Vec<TempDir>, Vec<Store>) {
    let dirs: Vec<_> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut stores: Vec<Store> = Vec::new();
    for (at, dir) in dirs.iter().enumerate() {
        let mut config = config(at == 0).secret(SECRET).listen(ANY);
        for store in &stores {
            config = config.peer(store.node().unwrap().address().unwrap().to_string());
        }
        let store = options(config).open(dir.path()).unwrap();
        store.node().unwrap().wait_member(LONG).unwrap();
        stores.push(store);
    }
    (dirs, stores)
}

#[test]
fn three_nodes_over_the_loopback_hear_each_other_and_are_fresh() {
    let (_dirs, stores) = mesh(3);
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
        let took = node.probe(LONG).unwrap();
        assert_eq!(took.iter().filter(|(_, took)| took.is_some()).count(), 2, "{took:?}");
    }
}

#[test]
fn a_cache_forgets_what_another_node_says_has_changed() {
    let (_dirs, stores) = mesh(2);
    let nodes: Vec<_> = stores.iter().map(|store| store.node().unwrap()).collect();
    let source = Arc::new(std::sync::atomic::AtomicU64::new(1));
    let at = Arc::clone(&source);
    let cache = nodes[1]
        .caches()
        .cache::<String, u64>("users")
        .loader(move |_: &String, _: &mut annals::sync::cache::Load| {
            Ok(Some(at.load(std::sync::atomic::Ordering::SeqCst)))
        })
        .build()
        .unwrap();
    assert!(nodes[1].wait_fresh(users(), LONG));
    let key = "17".to_owned();
    assert_eq!(cache.get_or_load(&key).unwrap().any(), Some(1));
    source.store(2, std::sync::atomic::Ordering::SeqCst);
    let recorder = Recorder::on(nodes[1]);
    nodes[0].publish(Op::key(users(), b"17")).unwrap();
    recorder.wait_key(b"17");
    assert_eq!(cache.get_or_load(&key).unwrap().any(), Some(2));
}

#[test]
fn a_node_with_another_schema_secret_or_cluster_is_refused_and_both_say_so() {
    let (_dirs, stores) = mesh(1);
    let first = stores[0].node().unwrap();
    let address = first.address().unwrap().to_string();
    let base = |cluster: ClusterId| NodeConfig::join(cluster).lease(Duration::from_millis(400));
    let cases = [
        ("schema", base(cluster()).domain(Domain::new("users", 2)).secret(SECRET)),
        ("secret", base(cluster()).domain(Domain::new("users", 1)).secret([7; 32])),
        ("cluster", base(ClusterId::from_u128(99)).domain(Domain::new("users", 1)).secret(SECRET)),
    ];
    for (what, config) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = options(config.peer(address.clone())).open(dir.path()).unwrap();
        let node = store.node().unwrap();
        let said = || {
            let notices = node.notices();
            !node.link_failures().is_empty() || !notices.is_empty()
        };
        let deadline = std::time::Instant::now() + LONG;
        while !said() {
            assert!(std::time::Instant::now() < deadline, "{what}: {:?}", node.status());
            std::thread::yield_now();
        }
        let refused = node.publish(Op::key(users(), b"1"));
        assert!(matches!(refused, Err(NodeError::Fenced(_))), "{what}: {refused:?}");
    }
}

#[test]
fn a_node_that_was_closed_and_comes_back_misses_nothing() {
    let (dirs, mut stores) = mesh(2);
    let address = stores[0].node().unwrap().address().unwrap().to_string();
    let recorder = Recorder::on(stores[0].node().unwrap());
    let old = log_of(stores[1].node().unwrap());
    stores[1].node().unwrap().publish(Op::key(users(), b"one")).unwrap();
    recorder.wait_key(b"one");
    stores.pop().unwrap().close(LONG).unwrap();
    stores[0].node().unwrap().publish(Op::key(users(), b"meanwhile")).unwrap();
    // Linked only once there is somebody who writes down what comes.
    let again = options(config(false).secret(SECRET).listen(ANY)).open(dirs[1].path()).unwrap();
    let node = again.node().unwrap();
    let heard = Recorder::on(node);
    node.connect(&address).unwrap();
    node.wait_member(LONG).unwrap();
    assert_eq!(node.origin(), old.origin);
    stores[0].node().unwrap().publish(Op::key(users(), b"after")).unwrap();
    let heard = heard.wait_key(b"after");
    heard.check_dense();
    assert!(heard.keys.contains(&b"meanwhile".to_vec()));
    assert_eq!(heard.flushes, []);
    node.publish(Op::key(users(), b"two")).unwrap();
    recorder.wait_key(b"two").check_dense();
}

/// Each is told of the first alone, and all meet all.
#[test]
fn nodes_find_each_other_by_the_address_of_any_one() {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut stores: Vec<Store> = Vec::new();
    for (at, dir) in dirs.iter().enumerate() {
        let mut config = config(at == 0).secret(SECRET).listen(ANY).discover();
        if let Some(first) = stores.first() {
            config = config.peer(first.node().unwrap().address().unwrap().to_string());
        }
        let store = options(config).open(dir.path()).unwrap();
        store.node().unwrap().wait_member(LONG).unwrap();
        stores.push(store);
    }
    for store in &stores {
        let node = store.node().unwrap();
        let deadline = std::time::Instant::now() + LONG;
        while node.status().peers.len() < 3 {
            assert!(std::time::Instant::now() < deadline, "{:?}", node.status());
            node.wait_fresh(users(), Duration::from_millis(10));
        }
    }
}
