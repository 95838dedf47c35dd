//! Nodes for tests of links: what they were told, and a peer that speaks by hand.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use annals::sync::link::frame::{Incoming, kind, push};
use annals::sync::link::handshake::{Handshake, Ourselves, Progress, VERSIONS};
use annals::sync::link::{
    Above, Down, Endpoint, Failed, Frame, Greeting, Key, Link, LinkOptions, Local, Security, Who,
};
use annals::sync::origin::{ClusterId, Incarnation, Origin};
use parking_lot::{Condvar, Mutex};

pub(crate) const SECRET: &[u8] = b"the secret of the tests' cluster";
/// Longer than anything takes here, on whatever machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Something that the layer above was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Up(u64, Greeting),
    Frame(u64, u8, Vec<u8>),
    Down(u64, Down),
    Failed(Failed),
}

/// The layer above: keeps what it is told, and can be made to stop in the middle of a frame.
#[derive(Default)]
pub(crate) struct Seen {
    told: Mutex<Vec<Told>>,
    more: Condvar,
    pub(crate) writable: Mutex<Vec<u64>>,
    /// While it is set, nobody comes back from a frame.
    pub(crate) stopped: Mutex<bool>,
    go: Condvar,
    /// Bodies of these types are only counted.
    pub(crate) counted: Mutex<(u64, u64)>,
}

/// Only counted, and its body must be of the frame's number.
pub(crate) const COUNTED: u8 = 0x90;

impl Seen {
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }

    /// What was told, after a moment in which there may be more.
    pub(crate) fn glance(&self) -> Vec<Told> {
        let mut told = self.told.lock();
        self.more.wait_for(&mut told, Duration::from_millis(10));
        told.clone()
    }

    /// Waits until what was told is as `wanted` says.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, wanted: impl Fn(&[Told]) -> Option<T>) -> T {
        let mut told = self.told.lock();
        loop {
            if let Some(found) = wanted(&told) {
                return found;
            }
            let over = self.more.wait_for(&mut told, PATIENCE).timed_out();
            assert!(!over, "{what} has not come; told: {told:?}");
        }
    }

    #[track_caller]
    pub(crate) fn until_down(&self) -> Down {
        self.until("the end of a link", |told| {
            told.iter()
                .find_map(|it| if let Told::Down(_, why) = it { Some(why.clone()) } else { None })
        })
    }

    #[track_caller]
    pub(crate) fn until_failed(&self) -> Failed {
        self.until("a failure", |told| {
            told.iter()
                .find_map(|it| if let Told::Failed(why) = it { Some(why.clone()) } else { None })
        })
    }

    pub(crate) fn stop(&self) {
        *self.stopped.lock() = true;
    }

    pub(crate) fn go_on(&self) {
        *self.stopped.lock() = false;
        self.go.notify_all();
    }

    fn push(&self, told: Told) {
        self.told.lock().push(told);
        self.more.notify_all();
    }

    /// Links up now, by what was told; each at most once up and down, in this order.
    pub(crate) fn up_now(told: &[Told]) -> Vec<u64> {
        let mut up = Vec::new();
        for it in told {
            match it {
                Told::Up(number, _) => up.push(*number),
                Told::Down(number, _) => {
                    let at = up.iter().position(|other| other == number);
                    up.remove(at.expect("up before it is down"));
                }
                Told::Frame(number, ..) => assert!(up.contains(number), "a frame of no link"),
                Told::Failed(_) => {}
            }
        }
        up
    }
}

impl Above for Seen {
    fn hello(&self) -> Vec<u8> {
        b"hello".to_vec()
    }

    fn up(&self, link: &Link, greeting: &Greeting) {
        self.push(Told::Up(link.number(), greeting.clone()));
    }

    fn frame(&self, link: &Link, frame: Frame<'_>) {
        let mut stopped = self.stopped.lock();
        while *stopped {
            self.go.wait(&mut stopped);
        }
        drop(stopped);
        if frame.kind != COUNTED {
            self.push(Told::Frame(link.number(), frame.kind, frame.body.to_vec()));
            return;
        }
        let number = u64::from_le_bytes(*frame.body.first_chunk().expect("its number"));
        let mut counted = self.counted.lock();
        assert_eq!(counted.0, number, "frames in order, each once");
        assert!(frame.body[8..].iter().all(|byte| *byte == number.to_le_bytes()[0]));
        *counted = (number + 1, counted.1 + frame.body.len() as u64);
        drop(counted);
        let _told = self.told.lock();
        self.more.notify_all();
    }

    fn down(&self, link: &Link, why: &Down) {
        self.push(Told::Down(link.number(), why.clone()));
    }

    fn writable(&self, link: &Link) {
        self.writable.lock().push(link.number());
        let _told = self.told.lock();
        self.more.notify_all();
    }

    fn failed(&self, _remote: Option<SocketAddr>, _dialled: Option<&str>, why: &Failed) {
        self.push(Told::Failed(why.clone()));
    }
}

pub(crate) fn who(origin: u64) -> Who {
    Who {
        cluster: ClusterId::from_u128(7),
        origin: Origin::from_u64(origin),
        incarnation: Incarnation { counter: 1, nonce: origin },
        features: 0,
    }
}

pub(crate) fn local(origin: u64) -> Local {
    Local::new(who(origin), Security::Secret(Key::from_secret(SECRET)))
}

pub(crate) fn options() -> LinkOptions {
    LinkOptions {
        redial_min: Duration::from_millis(1),
        redial_max: Duration::from_millis(50),
        handshake_max: Duration::from_secs(30),
        ..LinkOptions::default()
    }
}

pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) seen: Arc<Seen>,
}

impl Node {
    pub(crate) fn new(local: Local, options: LinkOptions) -> Self {
        let seen = Arc::new(Seen::default());
        let listen = Some("127.0.0.1:0".parse().expect("an address"));
        let above: Arc<dyn Above> = Arc::<Seen>::clone(&seen);
        let endpoint = Endpoint::open(local, options, listen, above).expect("an endpoint");
        Self { endpoint, seen }
    }

    pub(crate) fn of(origin: u64) -> Self {
        Self::new(local(origin), options())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address().expect("it listens")
    }

    pub(crate) fn dial(&self, address: &str) {
        self.endpoint.dial(address).expect("a thread");
    }

    /// The link with a peer, when there is one.
    #[track_caller]
    pub(crate) fn link(&self, origin: u64) -> Link {
        self.seen.until("a link", |told| {
            let up = Seen::up_now(told);
            let link = self.endpoint.link(Origin::from_u64(origin))?;
            up.contains(&link.number()).then_some(link)
        })
    }
}

/// Says `text` from one end until the other has heard it: links may come and go.
#[track_caller]
pub(crate) fn hears(from: &Node, to: &Node, to_origin: u64, text: &[u8]) {
    let heard =
        |told: &[Told]| told.iter().any(|it| matches!(it, Told::Frame(_, _, body) if body == text));
    for _ in 0..600 {
        // It may have ended by now: then there is another soon.
        let _ended = from.link(to_origin).say(kind::FIRST_MESSAGE, &[text]);
        let mut told = to.seen.told.lock();
        if !heard(&told) {
            to.seen.more.wait_for(&mut told, Duration::from_millis(100));
        }
        if heard(&told) {
            return;
        }
    }
    panic!("never heard; {:?} and {:?}", from.seen.told(), to.seen.told());
}

/// A peer that speaks by hand.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    pub(crate) incoming: Incoming,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, incoming: Incoming::new(20 << 20) }
    }

    /// Goes through the handshake.
    pub(crate) fn link(address: SocketAddr, who: Who, window: u32) -> Self {
        let mut this = Self::connect(address);
        let ours = Ourselves { who, versions: VERSIONS, window, hello: Vec::new() };
        let mut out = Vec::new();
        let key = Key::from_secret(SECRET);
        let mut handshake = Handshake::dial(ours, key, [9; 32], &mut out);
        loop {
            this.stream.write_all(&out).expect("a peer");
            out.clear();
            let (kind, body) = this.next().expect("an answer");
            let frame = Frame { kind, body: &body };
            if let Progress::Done(_) = handshake.step(frame, &mut out).expect("a handshake") {
                return this;
            }
        }
    }

    /// The next frame; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = self.incoming.next_frame().expect("frames") {
                return Some((frame.kind, frame.body.to_vec()));
            }
            match self.stream.read(self.incoming.room()) {
                Ok(0) => return None,
                Ok(bytes) => self.incoming.filled(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn send(&mut self, kind: u8, body: &[u8]) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        push(&mut bytes, kind, body);
        self.stream.write_all(&bytes)
    }
}
