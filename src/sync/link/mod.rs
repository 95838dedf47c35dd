//! Links between nodes: one duplex TCP connection for each pair, proven at both ends.
//!
//! Frames go to and from the layer above ([`Above`]) as bytes; what they mean is its matter.
//!
//! - **Strangers learn nothing and cost little.** Each connection proves itself before a deadline
//!   ([`handshake`]), or is closed; how many may try at a time is limited ([`gate`]).
//! - **Nobody waits for a peer.** Whoever has something to say writes without blocking; what does
//!   not fit is parked up to a bound, or refused and told of later ([`Link::ship`]).
//! - **One link for each pair.** If both dial at once, both keep the same one.
//! - **A silent peer is noticed.** Each read has a timeout; each side says something now and then.
//! - **It comes back by itself**, after a growing and random wait ([`backoff`]).
//!
//! Threads: one listens, one dials for each address, and each link has a reader, which is also who
//! tells the layer above, and a writer, which sleeps unless something is parked. No lock is held
//! over a call of [`Above`]. Locks, in their order: the table of links, then one link's outbox;
//! a link's `heard`, the gate and the list of threads are taken alone.

use std::net::SocketAddr;
use std::time::Duration;

pub mod backoff;
mod choose;
mod endpoint;
pub mod frame;
pub mod gate;
pub mod handshake;
mod peer;
mod shake;
mod socket;
#[cfg(feature = "tls")]
mod tls;
mod wire;

pub use endpoint::{Endpoint, Local};
pub use frame::Frame;
pub use handshake::{Greeting, Key, Refusal, Refused, Versions, Who};
pub use peer::{Broken, Down, Link, SendError, Shipped};
pub use shake::Failed;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};

/// What keeps strangers out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Security {
    /// A secret that all nodes of the cluster share. What is said is neither hidden nor protected
    /// against those who can change packets on the way.
    Secret(Key),
    /// Mutual TLS 1.3, both ends with a certificate of the cluster's own authority.
    #[cfg(feature = "tls")]
    Tls(Tls),
}

/// How links behave. The defaults are for a data centre.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// From the connection to the last word of the handshake.
    pub handshake_max: Duration,
    /// Something is said at least so often.
    pub keep_every: Duration,
    /// A peer of whom nothing was heard for so long is gone; several times `keep_every`.
    pub idle_max: Duration,
    /// How long a peer may take to answer when its link is in the way of a new one.
    pub answer_max: Duration,
    /// A peer that takes nothing of what is parked for so long is gone.
    pub stall_max: Duration,
    /// How long a close waits for what is parked.
    pub linger_max: Duration,
    /// Bytes that may be shipped to us and not be taken in. More: more throughput over a long way,
    /// and more that beats have to stand behind.
    pub window_bytes: u32,
    /// Bytes parked for a peer that does not take them. As much again is for what cannot be left
    /// out, and one frame may always be parked, however long it is.
    pub outbox_bytes: usize,
    /// The longest frame.
    pub frame_bytes_max: usize,
    /// Connections that have not proven anything yet: in all, but for addresses that we dial.
    pub strangers_max: u32,
    /// The same, of one address.
    pub strangers_per_address_max: u32,
    /// The first wait before somebody is dialled again, and the longest.
    pub redial_min: Duration,
    /// See there.
    pub redial_max: Duration,
    /// For so long a reader turns round for the next frame before it sleeps, where that has been
    /// worth it lately. Costs a core while there is traffic; 0: never.
    pub spin: Duration,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            handshake_max: Duration::from_secs(5),
            keep_every: Duration::from_secs(2),
            idle_max: Duration::from_secs(10),
            answer_max: Duration::from_secs(1),
            stall_max: Duration::from_secs(10),
            linger_max: Duration::from_millis(500),
            window_bytes: 1 << 20,
            outbox_bytes: 256 << 10,
            frame_bytes_max: 17 << 20,
            strangers_max: 64,
            strangers_per_address_max: 8,
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(5),
            spin: Duration::ZERO,
        }
    }
}

/// The layer above. For each link: one [`up`](Self::up), then frames, then one
/// [`down`](Self::down), all by one thread; of two links with one life of a peer the first is down
/// before the second is up. Another life of a peer that is linked, earlier or a copy, gets a link
/// too, and so does another life of this node itself: whoever is above has to tell it.
/// [`writable`](Self::writable) may come from another thread at any time, also
/// when there is room for a single frame only, or none any more.
///
/// Whoever blocks here holds up this one peer, whose bytes then wait where it is.
pub trait Above: Send + Sync + 'static {
    /// What a peer is to be told of us when it has proven itself.
    fn hello(&self) -> Vec<u8>;
    /// A link is up.
    fn up(&self, link: &Link, greeting: &Greeting);
    /// A message has come: of type [`frame::kind::FIRST_MESSAGE`] or above.
    fn frame(&self, link: &Link, frame: Frame<'_>);
    /// A link has ended.
    fn down(&self, link: &Link, why: &Down);
    /// There is room and credit again, after a [`Shipped::Full`].
    fn writable(&self, link: &Link);
    /// A connection did not become a link: a dialled one (`dialled`: to where), or one of somebody
    /// who came. For those who look after it.
    fn failed(&self, remote: Option<SocketAddr>, dialled: Option<&str>, why: &Failed);
}
