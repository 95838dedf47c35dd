//! Nodes for the benches, over TCP on the loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::sync::apply::{Applier, Flush};
use annals::sync::domain::Domain;
use annals::sync::link::LinkOptions;
use annals::sync::origin::{ClusterId, TokenLog};
use annals::sync::token::{Token, TokenKind};
use annals::{DomainId, Durability, NodeConfig, Store};

/// Nothing here takes longer.
pub(crate) const LONG: Duration = Duration::from_mins(2);

pub(crate) fn users() -> DomainId {
    DomainId::of("users")
}

/// A store that is a node, which founds the cluster, or joins the one that is at `peers`.
pub(crate) fn open(dir: &Path, peers: &[SocketAddr], spin: Duration) -> Store {
    let cluster = ClusterId::from_u128(1);
    let base =
        if peers.is_empty() { NodeConfig::found(cluster) } else { NodeConfig::join(cluster) };
    let mut config = base
        .domain(Domain::new("users", 1))
        .secret([7; 32])
        .listen((Ipv4Addr::LOCALHOST, 0).into())
        .lease(Duration::from_secs(4))
        .links(LinkOptions { spin, ..LinkOptions::default() });
    for peer in peers {
        config = config.peer(peer.to_string());
    }
    let options = Store::options().durability(Durability::Process).node(config);
    let store = options.open(dir).expect("a store");
    store.node().expect("a node").wait_member(LONG).expect("a member");
    store
}

/// Counts what it hears.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Applier for Count {
    fn apply(&self, _log: &TokenLog, token: &Token<'_>) {
        if token.kind == TokenKind::Key {
            // Release: pairs with the Acquire in `get`.
            self.0.fetch_add(1, Ordering::Release);
        }
    }
    fn visible(&self, _log: &TokenLog, _upto: u64) {}
    fn flush(&self, _flush: &Flush) {}
    fn ended(&self, _log: &TokenLog) {}
}

impl Count {
    pub(crate) fn on(store: &Store) -> Arc<Self> {
        let count = Arc::new(Self::default());
        store.node().expect("a node").look_on(Arc::clone(&count) as Arc<dyn Applier>);
        count
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Turns round until it has heard of so many.
    pub(crate) fn wait(&self, least: u64) {
        let mut rounds = 0_u32;
        while self.get() < least {
            rounds += 1;
            // The other threads may have no processor of their own.
            if rounds.is_multiple_of(64) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}
