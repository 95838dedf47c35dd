//! How a node is set up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::domain::Domain;
use crate::sync::link::{Key, LinkOptions, Security};
use crate::sync::node::error::NodeError;
use crate::sync::node::intents::{Resolve, Resolver};
use crate::sync::origin::ClusterId;
use crate::types::Durability;

pub use crate::sync::cache::WhenStale;

/// How a node is set up: see [`StoreOptions::node`](crate::StoreOptions::node).
///
/// ```
/// use annals::sync::domain::Domain;
/// use annals::sync::origin::ClusterId;
/// use annals::NodeConfig;
///
/// let config = NodeConfig::found(ClusterId::from_u128(7)).domain(Domain::new("users", 1));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a configuration does nothing by itself"]
pub struct NodeConfig {
    pub(crate) cluster: ClusterId,
    pub(crate) found: bool,
    pub(crate) secret: Vec<u8>,
    pub(crate) links: LinkOptions,
    pub(crate) discover: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::sync::link::Tls>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) peers: Vec<String>,
    pub(crate) domains: Vec<Domain>,
    pub(crate) lease: Duration,
    pub(crate) beat: Option<Duration>,
    pub(crate) skew_max: Duration,
    pub(crate) visible_at: Option<Durability>,
    pub(crate) when_stale: WhenStale,
    pub(crate) sync_interval: Duration,
    pub(crate) retain_bytes: u64,
    pub(crate) retain_age: Duration,
    pub(crate) resolver: Option<Resolver>,
}

impl NodeConfig {
    fn new(cluster: ClusterId, found: bool) -> Self {
        Self {
            cluster,
            found,
            secret: Vec::new(),
            links: LinkOptions::default(),
            discover: false,
            #[cfg(feature = "tls")]
            tls: None,
            listen: None,
            peers: Vec::new(),
            domains: Vec::new(),
            lease: Duration::from_secs(2),
            beat: None,
            skew_max: Duration::from_millis(500),
            visible_at: None,
            when_stale: WhenStale::Revalidate,
            sync_interval: Duration::from_millis(100),
            retain_bytes: 256 << 20,
            retain_age: Duration::from_hours(24),
            resolver: None,
        }
    }

    /// The first node of a cluster, which needs nobody. In a folder that has a node already this
    /// is the same as [`join`](Self::join): a cluster is founded once.
    pub fn found(cluster: ClusterId) -> Self {
        Self::new(cluster, true)
    }

    /// A node that becomes a member with the help of one that is; before that it may not publish.
    pub fn join(cluster: ClusterId) -> Self {
        Self::new(cluster, false)
    }

    /// What the nodes of the cluster prove themselves with: 32 random bytes, the same everywhere.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = secret.into();
        self
    }

    /// How links behave: timeouts, bounds, limits on strangers.
    pub fn links(mut self, options: LinkOptions) -> Self {
        self.links = options;
        self
    }

    /// Finds the other nodes by itself: peers that do the same name each other the addresses that
    /// they know, so one [`peer`](Self::peer) is enough. Such nodes must reach each other at the
    /// addresses that they connect from, or are configured with.
    pub fn discover(mut self) -> Self {
        self.discover = true;
        self
    }

    /// Links are under mutual TLS. The secret may be left out then; with one, both are needed.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::sync::link::Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Where others may connect. Without it this node only connects to others.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Another node, `host:port`, to connect to and to stay connected to.
    pub fn peer(mut self, address: impl Into<String>) -> Self {
        self.peers.push(address.into());
        self
    }

    /// A domain that this node writes or caches. All nodes that have it must agree on its schema.
    pub fn domain(mut self, domain: Domain) -> Self {
        self.domains.push(domain);
        self
    }

    /// L: an answer from memory is as of at most this long ago, or is not called fresh. Default:
    /// 2 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Between two proofs, at most a quarter of the lease. Default: an eighth.
    pub fn beat(mut self, beat: Duration) -> Self {
        self.beat = Some(beat);
        self
    }

    /// How far nodes' clocks may be apart. Default: 500 ms.
    pub fn skew_max(mut self, skew: Duration) -> Self {
        self.skew_max = skew;
        self
    }

    /// From when on a change that is published may be read by others: at [`Durability::Power`]
    /// they remember nothing new of what it is about until it is on this node's disk. Default: as
    /// the store acknowledges.
    pub fn visible_at(mut self, durability: Durability) -> Self {
        self.visible_at = Some(durability);
        self
    }

    /// What becomes of answers whose freshness is not proved. Default: the source is asked.
    pub fn when_stale(mut self, when: WhenStale) -> Self {
        self.when_stale = when;
        self
    }

    /// Others' tokens are on this node's disk within this time. Default: 100 ms.
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.sync_interval = interval;
        self
    }

    /// How far back tokens are kept for those who were away: the node's own, and others', in
    /// bytes of log, and how long. Who was away for longer clears what he has. Default: 256 MiB,
    /// a day.
    pub fn retain(mut self, bytes: u64, age: Duration) -> Self {
        self.retain_bytes = bytes;
        self.retain_age = age;
        self
    }

    /// Finds out what became of changes that were announced ([`Node::intent`]) and whose maker was
    /// interrupted. Without it they stay open until somebody calls [`Node::resolve`].
    ///
    /// [`Node::intent`]: super::Node::intent
    /// [`Node::resolve`]: super::Node::resolve
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Some(Resolver(Arc::new(resolver)));
        self
    }

    /// # Errors
    /// [`NodeError::Config`].
    pub(crate) fn check(&self) -> Result<(), NodeError> {
        let beat = self.beat_every();
        let mut ids: Vec<_> = self.domains.iter().map(Domain::id).collect();
        ids.sort_unstable();
        let why = if self.domains.is_empty() {
            "a node needs a domain: without one nothing that it says concerns anybody"
        } else if self.domains.len() > crate::sync::message::DOMAINS_MAX {
            "a node declares 256 domains at most"
        } else if self.domains.iter().any(|it| !(1..=255).contains(&it.name.len())) {
            "a domain's name has 1 to 255 bytes"
        } else if ids.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            "two domains have one name, or names with one hash"
        } else if self.lease < Duration::from_millis(20) {
            "a lease is 20 ms at least"
        } else if beat.is_zero() || beat > self.lease / 4 {
            "a beat is at most a quarter of the lease"
        } else if (self.listen.is_some() || !self.peers.is_empty()) && self.is_open() {
            "a node with peers needs a secret of at least 16 bytes"
        } else {
            return Ok(());
        };
        Err(NodeError::Config(why))
    }

    fn is_open(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return false;
        }
        self.secret.len() < 16
    }

    /// What keeps strangers out.
    pub(crate) fn security(&self) -> Security {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Security::Tls(tls.clone().with_secret(&self.secret));
        }
        Security::Secret(Key::from_secret(&self.secret))
    }

    pub(crate) fn beat_every(&self) -> Duration {
        self.beat.unwrap_or(self.lease / 8)
    }
}
