//! A node's links over TCP: between [`pipe`](super::pipe), which speaks messages, and
//! [`link`](crate::sync::link), which speaks bytes.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::sync::link::frame::kind;
use crate::sync::link::{
    Above, Down, Endpoint, Failed, Frame, Greeting, Link, LinkOptions, Local, Refusal, Refused,
    Security, SendError, Shipped, Who,
};
use crate::sync::members::{Addresses, Told};
use crate::sync::message::{self, Hello, Message, Tokens};
use crate::sync::node::error::NodeError;
use crate::sync::node::pipe::{Pipe, Rim};
use crate::sync::node::{Inner, Node};
use crate::sync::origin::{ClusterId, Incarnation, Origin};
use crate::sync::replica;
use crate::sync::wire::{self, Said, TOKENS};

/// Type of a frame with addresses: who does not know it skips it.
const ADDRESSES: u8 = kind::FIRST_OPTIONAL;
/// Failures that are kept for those who ask.
const FAILURES_KEPT: usize = 64;

/// All links of a node.
pub(super) struct Net {
    endpoint: Arc<Endpoint>,
    face: Arc<Face>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

/// Whom others take this node for.
#[derive(Copy, Clone, Debug)]
pub(super) struct Name {
    pub(super) cluster: ClusterId,
    pub(super) origin: Origin,
    pub(super) incarnation: Incarnation,
}

impl Name {
    const fn who(self) -> Who {
        let Self { cluster, origin, incarnation } = self;
        Who { cluster, origin, incarnation, features: 0 }
    }
}

impl Net {
    /// Takes links from now on, where `listen` says so.
    ///
    /// # Errors
    /// The address cannot be had, or there is no thread.
    pub(super) fn start(
        name: Name,
        security: Security,
        options: LinkOptions,
        (listen, discover): (Option<SocketAddr>, bool),
        rim: Arc<dyn Rim>,
    ) -> io::Result<Self> {
        let face = Arc::new(Face {
            rim,
            links: Mutex::default(),
            failures: Mutex::default(),
            finder: discover.then(Finder::default),
        });
        let local = Local::new(name.who(), security);
        let above: Arc<dyn Above> = Arc::<Face>::clone(&face);
        let endpoint = Arc::new(Endpoint::open(local, options, listen, above)?);
        if let Some(finder) = &face.finder {
            // It was not set: the face is new.
            finder.endpoint.set(Arc::downgrade(&endpoint)).unwrap_or_default();
        }
        Ok(Self { endpoint, face })
    }

    /// What became of connections that were none, the newest last: where to, and why.
    pub(super) fn failures(&self) -> Vec<(String, Failed)> {
        self.face.failures.lock().clone()
    }
}

impl Node {
    /// Where others can connect to it, with the port that it was given; `None` if they cannot.
    pub fn address(&self) -> Option<SocketAddr> {
        self.inner.net.lock().as_ref().and_then(|net| net.endpoint.address())
    }

    /// Connects to another node (`host:port`), and again whenever there is no link with it.
    ///
    /// # Errors
    /// [`NodeError::Config`] for a node without [`listen`](super::NodeConfig::listen) and
    /// [`peer`](super::NodeConfig::peer), [`NodeError::Thread`].
    pub fn connect(&self, address: &str) -> Result<(), NodeError> {
        let net = self.inner.net.lock();
        let net = net.as_ref().ok_or(NodeError::Config("the node has no links"))?;
        net.endpoint.dial(address).map_err(|why| NodeError::Thread(Arc::new(why)))
    }

    /// Connects to it no more. A link that is up stays.
    pub fn disconnect(&self, address: &str) {
        if let Some(net) = &*self.inner.net.lock() {
            net.endpoint.forget(address);
        }
    }

    /// Connections that did not become links, the newest last: with whom, and why. Of very many
    /// the newest.
    pub fn link_failures(&self) -> Vec<(String, Failed)> {
        self.inner.net.lock().as_ref().map(Net::failures).unwrap_or_default()
    }
}

impl Inner {
    /// Listens, and connects to its peers, where it has been told of any.
    pub(super) fn connect(&self) -> Result<(), NodeError> {
        let config = &self.config;
        if config.listen.is_none() && config.peers.is_empty() {
            return Ok(());
        }
        let rim = Arc::clone(&self.shared) as Arc<dyn Rim>;
        let links = config.links.clone();
        let where_at = (config.listen, config.discover);
        let started = Net::start(self.name(), config.security(), links, where_at, rim);
        let net = started.map_err(|why| match config.listen {
            Some(address) => NodeError::Listen { address, why: Arc::new(why) },
            None => NodeError::Thread(Arc::new(why)),
        })?;
        for peer in &config.peers {
            net.face.configured(peer);
            let dialled = net.endpoint.dial(peer);
            dialled.map_err(|why| NodeError::Thread(Arc::new(why)))?;
        }
        *self.net.lock() = Some(net);
        Ok(())
    }

    /// The node goes on in another life: whoever has met the one that is over meets this one.
    pub(super) fn renamed(&self) {
        if let Some(net) = &*self.net.lock() {
            net.endpoint.set_who(self.name().who());
        }
        self.shared.close_links(false);
    }

    /// Takes no more links, and hands out those there are: they end when that is dropped.
    pub(super) fn quiesce(&self) -> Option<Net> {
        let net = self.net.lock().take();
        if let Some(net) = &net {
            net.endpoint.quiesce();
        }
        net
    }

    fn name(&self) -> Name {
        let identity = self.identity.lock();
        let (cluster, origin) = self.who;
        Name { cluster, origin, incarnation: identity.incarnation }
    }
}

/// What the links see of the node.
struct Face {
    rim: Arc<dyn Rim>,
    links: Mutex<Links>,
    failures: Mutex<Vec<(String, Failed)>>,
    /// For a node that looks for the others by itself.
    finder: Option<Finder>,
}

/// Finds nodes by the addresses that peers name.
#[derive(Default)]
struct Finder {
    endpoint: OnceLock<Weak<Endpoint>>,
    addresses: Mutex<Addresses>,
}

impl Finder {
    fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.endpoint.get().and_then(Weak::upgrade)
    }

    fn tell(&self, links: &[Link]) {
        let Some(endpoint) = self.endpoint() else { return };
        let port = endpoint.address().map_or(0, |address| address.port());
        let told = self.addresses.lock().tell(port).encode();
        for link in links {
            // A link that has ended needs no addresses.
            link.say(ADDRESSES, &[&told]).unwrap_or_default();
        }
    }

    fn hear(&self, link: &Link, body: &[u8]) {
        let (Some(endpoint), Some(told)) = (self.endpoint(), Told::decode(body)) else { return };
        let new = self.addresses.lock().hear(link.remote(), &told);
        for address in &new {
            // Without a thread it is not dialled now; it will be named again.
            if endpoint.dial(&address.to_string()).is_err() {
                self.addresses.lock().forget(*address);
            }
        }
        if !new.is_empty() {
            self.tell(&endpoint.links());
        }
    }

    fn failed(&self, dialled: &str, why: &Failed) {
        let (Some(endpoint), Ok(address)) = (self.endpoint(), dialled.parse()) else { return };
        let mut addresses = self.addresses.lock();
        let over = match why {
            Failed::Refused(Refused::Here(Refusal::Myself) | Refused::There(Refusal::Myself)) => {
                addresses.is_own(address)
            }
            Failed::Io { .. } | Failed::Deadline => addresses.failed(address),
            _ => false,
        };
        drop(addresses);
        if over {
            endpoint.forget(dialled);
        }
    }
}

/// How links are called on both sides.
#[derive(Default)]
struct Links {
    ids: HashMap<u64, replica::Link>,
    /// Those that had room again before the node had given them a number.
    early: HashSet<u64>,
}

impl Face {
    fn configured(&self, peer: &str) {
        if let (Some(finder), Ok(address)) = (&self.finder, peer.parse()) {
            finder.addresses.lock().configure(address);
        }
    }

    fn id(&self, link: &Link) -> Option<replica::Link> {
        self.links.lock().ids.get(&link.number()).copied()
    }
}

/// Is it of whom the link has proven it to be?
fn fits(hello: &Hello, who: &Who) -> bool {
    let Who { cluster, origin, incarnation, features: _ } = *who;
    (hello.cluster, hello.origin, hello.incarnation) == (cluster, origin, incarnation)
}

impl Above for Face {
    fn hello(&self) -> Vec<u8> {
        wire::encode_hello(&self.rim.hello())
    }

    fn up(&self, link: &Link, greeting: &Greeting) {
        let hello = match wire::decode_hello(&greeting.hello) {
            Ok(hello) if fits(&hello, &greeting.who) => hello,
            Ok(_) => return link.close("the hello is another node's"),
            Err(reject) => return link.close(&reject.to_string()),
        };
        let id = self.rim.up(&hello, Arc::new(Wired(link.clone())));
        let mut links = self.links.lock();
        links.ids.insert(link.number(), id);
        let early = links.early.remove(&link.number());
        drop(links);
        if early {
            self.rim.writable(id);
        }
        if let Some(finder) = &self.finder {
            finder.tell(std::slice::from_ref(link));
        }
    }

    fn frame(&self, link: &Link, frame: Frame<'_>) {
        let Some(id) = self.id(link) else { return };
        if frame.kind == ADDRESSES {
            if let Some(finder) = &self.finder {
                finder.hear(link, frame.body);
            }
            return;
        }
        match wire::decode(frame.kind, frame.body) {
            Ok(Said::Tokens(tokens)) => self.rim.tokens(id, &tokens),
            Ok(Said::Message(message)) => self.rim.message(id, &message),
            Ok(Said::Skipped) => {}
            Err(reject) => link.close(&reject.to_string()),
        }
    }

    fn down(&self, link: &Link, _why: &Down) {
        let mut links = self.links.lock();
        let id = links.ids.remove(&link.number());
        links.early.remove(&link.number());
        drop(links);
        if let Some(id) = id {
            self.rim.down(id);
        }
    }

    fn writable(&self, link: &Link) {
        let mut links = self.links.lock();
        let id = links.ids.get(&link.number()).copied();
        if id.is_none() {
            links.early.insert(link.number());
        }
        drop(links);
        if let Some(id) = id {
            self.rim.writable(id);
        }
    }

    fn failed(&self, remote: Option<SocketAddr>, dialled: Option<&str>, why: &Failed) {
        if let (Some(finder), Some(dialled)) = (&self.finder, dialled) {
            finder.failed(dialled, why);
        }
        let at = dialled.map(str::to_owned).or_else(|| Some(remote?.to_string()));
        let mut failures = self.failures.lock();
        if failures.len() >= FAILURES_KEPT {
            failures.remove(0);
        }
        failures.push((at.unwrap_or_default(), why.clone()));
    }
}

/// The way out of one link.
#[derive(Debug)]
struct Wired(Link);

impl Pipe for Wired {
    fn send(&self, message: &Message) {
        let mut body = Vec::new();
        let kind = wire::encode(message, &mut body);
        match self.0.say(kind, &[&body]) {
            // Where it has ended, the node is told that it is down.
            Ok(()) | Err(SendError::Ended) => {}
            Err(SendError::TooLarge) => self.0.close("a message is longer than a frame"),
        }
    }

    fn tokens(&self, tokens: &Tokens<'_>) -> bool {
        match self.0.ship(TOKENS, &[&wire::encode_tokens(tokens), tokens.bytes]) {
            Ok(Shipped::Sent) => true,
            Ok(Shipped::Full) | Err(SendError::Ended) => false,
            Err(SendError::TooLarge) => {
                self.0.close("a token is longer than a frame");
                false
            }
        }
    }

    fn close(&self, refusal: Option<&message::Refusal>) {
        let Some(refusal) = refusal else { return self.0.close("not needed") };
        self.send(&Message::Refused(refusal.clone()));
        self.0.close(&refusal.to_string());
    }
}
