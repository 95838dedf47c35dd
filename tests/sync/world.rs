//! Nodes for tests: stores in folders of their own, and one who writes down what it hears.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals::sync::apply::{Applier, Flush};
use annals::sync::domain::Domain;
use annals::sync::node::Node;
use annals::sync::origin::{ClusterId, Lane, TokenLog};
use annals::sync::token::{Token, TokenKind};
use annals::{DomainId, Durability, NodeConfig, Store, StoreOptions};
use parking_lot::{Condvar, Mutex};

/// Long enough for whatever a machine that is busy with other things takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn users() -> DomainId {
    DomainId::of("users")
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::from_u128(0x00c1_0573)
}

/// A node that founds the cluster, or joins it.
pub(crate) fn config(found: bool) -> NodeConfig {
    let config = if found { NodeConfig::found(cluster()) } else { NodeConfig::join(cluster()) };
    config.domain(Domain::new("users", 1)).lease(Duration::from_millis(400))
}

pub(crate) fn options(config: NodeConfig) -> StoreOptions {
    Store::options().durability(Durability::Process).node(config)
}

pub(crate) fn open(dir: &Path, found: bool) -> Store {
    options(config(found)).open(dir).unwrap()
}

/// What a node has heard.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    heard: Mutex<Heard>,
    came: Condvar,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Heard {
    /// Of each log the numbers, as they came.
    pub(crate) numbers: BTreeMap<TokenLog, Vec<u64>>,
    /// The keys, of all logs.
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) flushes: Vec<Flush>,
    pub(crate) visible: BTreeMap<TokenLog, u64>,
    pub(crate) ended: Vec<TokenLog>,
}

impl Applier for Recorder {
    fn apply(&self, log: &TokenLog, token: &Token<'_>) {
        let mut heard = self.heard.lock();
        heard.numbers.entry(*log).or_default().push(token.seq);
        if token.kind == TokenKind::Key {
            heard.keys.push(token.body.to_vec());
        }
        self.came.notify_all();
    }

    fn visible(&self, log: &TokenLog, upto: u64) {
        self.heard.lock().visible.insert(*log, upto);
        self.came.notify_all();
    }

    fn flush(&self, flush: &Flush) {
        self.heard.lock().flushes.push(flush.clone());
        self.came.notify_all();
    }

    fn ended(&self, log: &TokenLog) {
        self.heard.lock().ended.push(*log);
    }
}

impl Recorder {
    pub(crate) fn on(node: &Node) -> Arc<Self> {
        let recorder = Arc::new(Self::default());
        node.look_on(Arc::clone(&recorder) as Arc<dyn Applier>);
        recorder
    }

    /// Waits until `met` says that it is there.
    pub(crate) fn wait(&self, what: &str, met: impl Fn(&Heard) -> bool) -> Heard {
        let mut heard = self.heard.lock();
        let over = self.came.wait_while_for(&mut heard, |heard| !met(heard), LONG);
        assert!(!over.timed_out(), "{what}: {heard:?}");
        heard.clone()
    }

    pub(crate) fn wait_key(&self, key: &[u8]) -> Heard {
        let what = format!("never heard of {}", String::from_utf8_lossy(key));
        self.wait(&what, |heard| heard.keys.iter().any(|it| it == key))
    }
}

impl Heard {
    /// Every log was heard without a hole and without anything twice.
    pub(crate) fn check_dense(&self) {
        for (log, numbers) in &self.numbers {
            for pair in numbers.windows(2) {
                assert_eq!(pair[1], pair[0] + 1, "{log}: {pair:?}");
            }
        }
    }
}

/// The log of a node's tokens.
pub(crate) fn log_of(node: &Node) -> TokenLog {
    TokenLog { origin: node.origin(), incarnation: node.incarnation(), lane: Lane::Tokens }
}
