//! How a node stands with everybody, for those who look after it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::sync::freshness::Lease;
use crate::sync::message::Marks;
use crate::sync::node::{Inner, Node};
use crate::sync::origin::{Incarnation, Lane, Origin};
use crate::sync::replica::{Fence, Logs as _, Notice};

/// How a node stands: see [`Node::status`](super::Node::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The node.
    pub origin: Origin,
    /// Its life.
    pub incarnation: Incarnation,
    /// Why it may not publish; `None` if it may.
    pub fence: Option<Fence>,
    /// Its own tokens: the last, and up to where others may read what changed.
    pub head: u64,
    /// See there.
    pub visible: u64,
    /// Its domains.
    pub domains: Vec<DomainStatus>,
    /// All origins that it knows of, but itself.
    pub origins: Vec<OriginStatus>,
    /// The peers that it has connections with.
    pub peers: Vec<PeerStatus>,
    /// Intents that are open.
    pub intents: usize,
    /// Tokens of others that were applied.
    pub applied: u64,
    /// Tokens that were given to connections, and their bytes.
    pub shipped: u64,
    /// See there.
    pub shipped_bytes: u64,
    /// How often everything of some domain was cleared here.
    pub flushes: u64,
    /// How often tokens of an origin were passed over (gaps, lives without a word).
    pub cleared: u64,
    /// How often all leases were dropped because time was lost.
    pub times_lost: u64,
    /// Bytes of memory that wait for peers, however many there are and however slow.
    pub held_bytes: usize,
    /// Why others' tokens are not kept any more, if so: nothing is relayed, and a restart clears.
    pub keep_failed: Option<Arc<str>>,
}

/// A domain of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DomainStatus {
    /// What it is called.
    pub name: String,
    /// May answers be called fresh, or how old is what is known?
    pub lease: Lease,
}

/// An origin, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OriginStatus {
    /// Who.
    pub origin: Origin,
    /// It may write.
    pub member: bool,
    /// In which life it is known; `None` if nothing of it is.
    pub incarnation: Option<Incarnation>,
    /// How far it is applied here.
    pub applied: Marks,
    /// How long ago everything of it was known here; `None` if nothing is proved.
    pub age: Option<Duration>,
    /// There are two logs with its name.
    pub diverged: bool,
}

/// A peer with a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Who.
    pub origin: Origin,
    /// The last of this node's tokens that it has applied, as it said.
    pub applied: u64,
    /// And that are on its disk.
    pub durable: u64,
    /// How many it has not applied yet.
    pub lag: u64,
}

/// Numbers of a node since it was started, and how it stands: what is published as metrics.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStats {
    /// Tokens of its own in this life.
    pub published: u64,
    /// Tokens of others that were applied.
    pub applied: u64,
    /// Tokens given to connections.
    pub shipped: u64,
    /// Their bytes.
    pub shipped_bytes: u64,
    /// How often everything of some domain was cleared.
    pub flushes: u64,
    /// How often tokens of an origin were passed over.
    pub cleared: u64,
    /// How often all leases were dropped because time was lost.
    pub times_lost: u64,
    /// Peers with a connection.
    pub peers: u64,
    /// Tokens that the peer which is farthest behind has not applied.
    pub lag_max: u64,
    /// Domains whose answers are not fresh.
    pub stale_domains: u64,
    /// Intents that are open.
    pub intents: u64,
    /// 1 while it may not publish.
    pub fenced: u64,
}

impl Node {
    /// The last of its tokens that nobody can have any more: who was away since is told so, and
    /// clears.
    pub fn floor(&self) -> u64 {
        self.inner.shared.logs.lane(Lane::Tokens).floor().seq
    }

    /// What was reported since the last call, oldest first; of very many the newest.
    pub fn notices(&self) -> Vec<Notice> {
        self.inner.shared.notices.lock().drain(..).collect()
    }

    /// How it stands with everybody.
    pub fn status(&self) -> NodeStatus {
        self.inner.status()
    }

    /// Numbers, for metrics.
    pub fn stats(&self) -> NodeStats {
        self.inner.stats()
    }
}

impl Inner {
    pub(super) fn stats(&self) -> NodeStats {
        let shared = &self.shared;
        // Relaxed: counters.
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let head = shared.logs.head(Lane::Tokens).seq;
        let peers = shared.peers();
        let acked = shared.acked.lock();
        let lag = |origin: &Origin| {
            head.saturating_sub(acked.get(origin).copied().unwrap_or_default().applied)
        };
        let stale = shared.fresh.values().filter(|fresh| fresh.check() != Lease::Fresh);
        NodeStats {
            published: head,
            applied: of(&shared.counts.applied),
            shipped: of(&shared.counts.shipped),
            shipped_bytes: of(&shared.counts.shipped_bytes),
            flushes: of(&shared.counts.flushes),
            cleared: of(&shared.counts.cleared),
            times_lost: of(&shared.counts.times_lost),
            peers: peers.len() as u64,
            lag_max: peers.iter().map(|(_, origin)| lag(origin)).max().unwrap_or(0),
            stale_domains: stale.count() as u64,
            intents: self.intents.open().len() as u64,
            fenced: u64::from(shared.fenced.load(Ordering::SeqCst)),
        }
    }

    pub(super) fn status(&self) -> NodeStatus {
        let shared = &self.shared;
        let now = shared.now().boot;
        let head = shared.logs.head(Lane::Tokens).seq;
        let origins = shared.look(|core| {
            let mut all: Vec<_> = core.members().0.keys().copied().collect();
            all.extend(shared.logs.foreign.found().iter().map(|it| it.place.origin));
            all.sort_unstable();
            all.dedup();
            let of = |origin: &Origin| {
                let place = core.place(*origin);
                OriginStatus {
                    origin: *origin,
                    member: core.members().is_member(*origin),
                    incarnation: place.map(|place| place.incarnation),
                    applied: place.map_or(Marks::ZERO, |place| place.marks),
                    age: core.as_of(*origin).map(|as_of| now.saturating_sub(as_of)),
                    diverged: place.is_some_and(|place| place.diverged),
                }
            };
            all.iter().filter(|it| **it != self.who.1).map(of).collect()
        });
        let acked = shared.acked.lock().clone();
        let peer = |(_, origin)| {
            let acked = acked.get(&origin).copied().unwrap_or_default();
            let lag = head.saturating_sub(acked.applied);
            PeerStatus { origin, applied: acked.applied, durable: acked.durable, lag }
        };
        // Relaxed: counters.
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let domains = self.config.domains.iter().map(|domain| DomainStatus {
            name: domain.name.clone(),
            lease: shared
                .fresh
                .get(&domain.id())
                .map_or(Lease::Stale(Duration::MAX), |fresh| fresh.check()),
        });
        NodeStatus {
            origin: self.who.1,
            incarnation: self.identity.lock().incarnation,
            fence: *shared.fence.lock(),
            head,
            visible: shared.logs.visible(),
            domains: domains.collect(),
            origins: origins.unwrap_or_default(),
            peers: shared.peers().into_iter().map(peer).collect(),
            intents: self.intents.open().len(),
            applied: of(&shared.counts.applied),
            shipped: of(&shared.counts.shipped),
            shipped_bytes: of(&shared.counts.shipped_bytes),
            flushes: of(&shared.counts.flushes),
            cleared: of(&shared.counts.cleared),
            times_lost: of(&shared.counts.times_lost),
            held_bytes: shared.held_bytes(),
            keep_failed: shared.logs.foreign.failed(),
        }
    }
}
