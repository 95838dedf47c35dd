//! Links over TCP, as the rim knows them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::sync::link::{
    Above, Down, Endpoint, Failed, Frame, Greeting, Key, Link as Wire, LinkOptions, Local, Refused,
    Security, Shipped, Who,
};
use crate::sync::message::{Message, Refusal, Tokens};
use crate::sync::node::NodeConfig;
use crate::sync::node::error::NodeError;
use crate::sync::node::pipe::{Pipe, Rim};
use crate::sync::origin::{ClusterId, Incarnation, Origin};
use crate::sync::replica::Link;
use crate::sync::wire::{self, Said};

/// What a message is put together in, per link, and how much of that is kept.
const KEPT_BYTES: usize = 16 << 10;

/// One link, outwards.
struct Out {
    wire: Wire,
    buffer: Mutex<Vec<u8>>,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("peer", &self.wire.origin()).finish_non_exhaustive()
    }
}

impl Pipe for Out {
    fn send(&self, message: &Message) {
        let mut buffer = self.buffer.lock();
        buffer.clear();
        let kind = wire::encode(message, &mut buffer);
        // A link that has ended says so by itself.
        self.wire.say(kind, &[&buffer]).unwrap_or_default();
        buffer.shrink_to(KEPT_BYTES);
    }

    fn tokens(&self, tokens: &Tokens<'_>) -> bool {
        let head = wire::encode_tokens(tokens);
        match self.wire.ship(wire::TOKENS, &[&head, tokens.bytes]) {
            Ok(Shipped::Sent) => true,
            // Of a link that has ended nothing is asked any more.
            Ok(Shipped::Full) | Err(_) => false,
        }
    }

    fn close(&self, refusal: Option<&Refusal>) {
        match refusal {
            Some(refusal) => self.wire.close(&refusal.to_string()),
            None => self.wire.close("not needed"),
        }
    }
}

/// What links tell their node.
pub(super) struct Door {
    rim: Arc<dyn Rim>,
    links: Mutex<BTreeMap<u64, Link>>,
    /// Connections that did not become links.
    pub failed: AtomicU64,
    last: Mutex<Option<String>>,
    /// A life of this node that somebody else has seen.
    pub rival: Mutex<Option<Incarnation>>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Door {
    pub(super) fn new(rim: Arc<dyn Rim>) -> Arc<Self> {
        Arc::new(Self {
            rim,
            links: Mutex::default(),
            failed: AtomicU64::new(0),
            last: Mutex::default(),
            rival: Mutex::default(),
        })
    }

    /// Why the last connection that did not become a link did not.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.last.lock().clone()
    }

    fn link(&self, wire: &Wire) -> Option<Link> {
        self.links.lock().get(&wire.number()).copied()
    }
}

impl Above for Door {
    fn hello(&self) -> Vec<u8> {
        wire::encode_hello(&self.rim.hello())
    }

    fn up(&self, link: &Wire, greeting: &Greeting) {
        let hello = match wire::decode_hello(&greeting.hello) {
            Ok(hello)
                if hello.origin == greeting.who.origin
                    && hello.incarnation == greeting.who.incarnation =>
            {
                hello
            }
            Ok(_) | Err(_) => {
                link.close("its hello is not that of who it has proven to be");
                return;
            }
        };
        let out = Out { wire: link.clone(), buffer: Mutex::default() };
        let number = self.rim.up(&hello, Arc::new(out));
        self.links.lock().insert(link.number(), number);
    }

    fn frame(&self, link: &Wire, frame: Frame<'_>) {
        let Some(number) = self.link(link) else { return };
        match wire::decode(frame.kind, frame.body) {
            Ok(Said::Message(message)) => self.rim.message(number, &message),
            Ok(Said::Tokens(tokens)) => self.rim.tokens(number, &tokens),
            Ok(Said::Skipped) => {}
            Err(reject) => link.close(&reject.to_string()),
        }
    }

    fn down(&self, link: &Wire, _why: &Down) {
        let number = self.links.lock().remove(&link.number());
        if let Some(number) = number {
            self.rim.down(number);
        }
    }

    fn writable(&self, link: &Wire) {
        if let Some(number) = self.link(link) {
            self.rim.writable(number);
        }
    }

    fn failed(&self, remote: Option<SocketAddr>, dialled: Option<&str>, why: &Failed) {
        use crate::sync::link::Refusal as Told;
        // Relaxed: a counter.
        self.failed.fetch_add(1, Ordering::Relaxed);
        let whom = dialled.map(ToOwned::to_owned).or_else(|| remote.map(|it| it.to_string()));
        *self.last.lock() = Some(format!("{}: {why}", whom.unwrap_or_default()));
        if let Failed::Refused(
            Refused::There(Told::SameOrigin { incarnation } | Told::Superseded { incarnation })
            | Refused::Here(Told::SameOrigin { incarnation }),
        ) = why
        {
            *self.rival.lock() = Some(*incarnation);
        }
    }
}

/// Opens the node's end of all links, and dials its peers.
pub(super) fn open(
    config: &NodeConfig,
    (cluster, origin, incarnation): (ClusterId, Origin, Incarnation),
    listen: Option<SocketAddr>,
    door: &Arc<Door>,
) -> Result<Endpoint, NodeError> {
    let who = Who { cluster, origin, incarnation, features: 0 };
    let security = Security::Secret(Key::from_secret(&config.secret));
    let options = LinkOptions { spin: config.spin, ..LinkOptions::default() };
    let above = Arc::clone(door) as Arc<dyn Above>;
    let endpoint =
        Endpoint::open(Local::new(who, security), options, listen, above).map_err(|why| {
            match listen {
                Some(address) => NodeError::Listen { address, why: Arc::new(why) },
                None => NodeError::Thread(Arc::new(why)),
            }
        })?;
    for peer in &config.peers {
        endpoint.dial(peer).map_err(|why| NodeError::Thread(Arc::new(why)))?;
    }
    Ok(endpoint)
}
