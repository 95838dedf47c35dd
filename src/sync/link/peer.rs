//! A link that is up: what is said over it, what waits, and how it ends.
//!
//! Whoever has something to say writes to the socket himself, without blocking. What the socket
//! does not take at once is parked, up to a bound, and the link's writer thread sends it on. What
//! is *said* (small, and not to be lost) finds room behind the bound, or the link ends; what is
//! *shipped* (much, and kept in a log anyway) is refused when there is no room or no credit, and
//! whoever wanted to ship is told when there is again. So a peer that reads slowly costs a bounded
//! number of bytes, and nobody waits for it.

use std::fmt;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::sync::link::frame::{Frame, FrameReject, Incoming, head, kind, push};
use crate::sync::link::handshake::{Greeting, Who};
use crate::sync::link::socket::{end, receive_now, send_now, wait_writable};
use crate::sync::link::wire::Wire;
use crate::sync::link::{Above, LinkOptions};
use crate::sync::origin::Origin;
use crate::time::Clock;

/// The longest text of a CLOSE.
const REASON_BYTES_MAX: usize = 255;
/// What one call takes off a TLS socket.
const RAW_BYTES: usize = 16 << 10;
/// What is kept of the room for parked bytes when they are gone.
const PARKED_KEPT: usize = 64 << 10;
/// Body of a KEEP that wants one back.
const ANSWER: &[u8] = &[1];

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Down {
    /// The other end is gone without a word.
    #[error("the other end has closed the connection")]
    Closed,
    /// The other end has said why.
    #[error("closed by the other end: {reason}")]
    Told {
        /// Its words.
        reason: String,
    },
    /// This end has closed it.
    #[error("closed: {reason}")]
    Here {
        /// Why.
        reason: String,
    },
    /// The network said so.
    #[error("connection lost: {error}")]
    Lost {
        /// What sort of error.
        kind: io::ErrorKind,
        /// Its text.
        error: String,
    },
    /// Nothing was heard for longer than a live peer is silent.
    #[error("nothing was heard for too long")]
    Silent,
    /// It reads nothing, or too slowly for what cannot be left out.
    #[error("the other end does not read")]
    Stalled,
    /// What came breaks the rules of the link.
    #[error("broken protocol: {0}")]
    Broken(#[from] Broken),
    /// Another connection with the same peer took its place.
    #[error("another connection took its place")]
    Replaced,
    /// This node closes.
    #[error("this node closes")]
    Shutdown,
}

/// Which rule was broken.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// See [`FrameReject`].
    #[error(transparent)]
    Frame(#[from] FrameReject),
    /// A frame that does not come on a link that is up.
    #[error("a frame of type {0} does not belong here")]
    Kind(u8),
    /// More was shipped than was allowed.
    #[error("more was shipped than allowed")]
    Credit,
}

impl From<io::Error> for Down {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            kind => Self::Lost { kind, error: error.to_string() },
        }
    }
}

/// What was not said.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The link has ended, or ends because of this: the peer does not read.
    #[error("the link has ended")]
    Ended,
    /// Longer than a frame may be; nothing was sent.
    #[error("longer than a frame may be")]
    TooLarge,
}

/// What became of something to ship.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Shipped {
    /// It is on its way.
    Sent,
    /// There is no room or no credit: nothing was sent. [`Above::writable`] tells when there is.
    Full,
}

/// A link with a peer. A handle: clones are the same link.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    number: u64,
    who: Who,
    remote: SocketAddr,
    /// Who dialled.
    dialer: Origin,
    stream: TcpStream,
    options: LinkOptions,
    clock: Clock,
    outbox: Mutex<Outbox>,
    /// Something is parked, or the link has ended.
    work: Condvar,
    heard: Mutex<Heard>,
}

/// When something was heard last, and when somebody last asked whether the peer is still there.
#[derive(Debug, Default)]
struct Heard {
    at: Duration,
    asked: Option<Duration>,
}

/// What is on its way to the peer. Guards the order of frames.
#[derive(Debug)]
struct Outbox {
    wire: Wire,
    parked: Vec<u8>,
    /// How much of `parked` is sent.
    sent: usize,
    /// By how much the last frame that was shipped into an empty outbox is longer than the bound.
    excess: usize,
    /// Bytes of bodies shipped, and how many may be, both from the link's beginning.
    shipped: u64,
    granted: u64,
    /// Somebody was refused, and waits to be told.
    wanted: bool,
    /// Something was said since the writer last looked.
    spoke: bool,
    ended: Option<Down>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} with {} at {})", self.number(), self.origin(), self.remote())
    }
}

impl Outbox {
    fn waiting(&self) -> usize {
        self.parked.len().saturating_sub(self.sent)
    }

    /// Sends what the socket takes, and parks the rest.
    fn write(&mut self, stream: &TcpStream, parts: &[&[u8]]) -> io::Result<()> {
        self.spoke = true;
        if !self.wire.is_plain() || self.waiting() > 0 {
            let free = self.waiting() == 0;
            self.wire.seal(parts, &mut self.parked)?;
            return if free { self.flush(stream) } else { Ok(()) };
        }
        let mut sent = send_now(stream, parts)?;
        for part in parts {
            let gone = sent.min(part.len());
            sent -= gone;
            self.parked.extend_from_slice(part.get(gone..).unwrap_or_default());
        }
        Ok(())
    }

    /// Sends what is parked, as far as the socket takes it.
    fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        while self.waiting() > 0 {
            let bytes = send_now(stream, &[self.parked.get(self.sent..).unwrap_or_default()])?;
            if bytes == 0 {
                // What is sent makes room for what comes, at the price of moving the rest.
                if self.sent >= self.parked.len() / 2 {
                    self.parked.drain(..self.sent);
                    self.sent = 0;
                }
                return Ok(());
            }
            self.sent += bytes;
        }
        self.parked.clear();
        self.parked.shrink_to(PARKED_KEPT);
        self.sent = 0;
        Ok(())
    }

    /// Is there room again for whoever was refused? Asked once, answered once.
    fn freed(&mut self, bound: usize) -> bool {
        let freed = self.wanted && self.waiting() <= bound / 2 && self.shipped < self.granted;
        if freed {
            self.wanted = false;
        }
        freed
    }
}

/// A connection whose handshake is over.
pub(super) struct Ready {
    pub(super) stream: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) dialer: Origin,
    pub(super) wire: Wire,
    pub(super) incoming: Incoming,
    pub(super) greeting: Greeting,
}

impl Link {
    pub(super) fn new(
        number: u64,
        ready: Ready,
        options: &LinkOptions,
        clock: &Clock,
    ) -> (Self, Incoming, Greeting) {
        let Ready { stream, remote, dialer, wire, incoming, greeting } = ready;
        let outbox = Outbox {
            wire,
            parked: Vec::new(),
            sent: 0,
            excess: 0,
            shipped: 0,
            granted: u64::from(greeting.window),
            wanted: false,
            spoke: true,
            ended: None,
        };
        let inner = Inner {
            number,
            who: greeting.who,
            remote,
            dialer,
            stream,
            options: options.clone(),
            clock: clock.clone(),
            outbox: Mutex::new(outbox),
            work: Condvar::new(),
            heard: Mutex::new(Heard { at: clock.monotonic(), asked: None }),
        };
        (Self(Arc::new(inner)), incoming, greeting)
    }

    /// Tells links apart, also those with one peer: each has another number.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The peer.
    pub fn origin(&self) -> Origin {
        self.0.who.origin
    }

    /// The peer, its life, and what both can.
    pub fn who(&self) -> &Who {
        &self.0.who
    }

    /// Where it is, as the socket says.
    pub fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    /// Which of the two has dialled.
    pub fn dialer(&self) -> Origin {
        self.0.dialer
    }

    /// Bytes that wait for the peer to read.
    pub fn parked_bytes(&self) -> usize {
        self.0.outbox.lock().waiting()
    }

    /// Says something small that must not be left out. Never blocks.
    ///
    /// # Errors
    /// See [`SendError`]. A peer that lets even this pile up is closed.
    pub fn say(&self, kind: u8, parts: &[&[u8]]) -> Result<(), SendError> {
        self.send(kind, parts, false).map(|_sent| ())
    }

    /// Ships something large, if there is room and credit for it. Never blocks. The type is one of
    /// [`kind::BULK`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn ship(&self, kind: u8, parts: &[&[u8]]) -> Result<Shipped, SendError> {
        debug_assert!(kind >= kind::BULK, "type {kind} is not counted by the other end");
        self.send(kind, parts, true)
    }

    fn send(&self, kind: u8, parts: &[&[u8]], bulk: bool) -> Result<Shipped, SendError> {
        let inner = &*self.0;
        let bound = inner.options.outbox_bytes;
        let head = head(kind, parts).ok_or(SendError::TooLarge)?;
        let body: usize = parts.iter().map(|part| part.len()).sum();
        if body >= inner.options.frame_bytes_max {
            return Err(SendError::TooLarge);
        }
        let length = head.len().saturating_add(body);
        let mut outbox = inner.outbox.lock();
        if outbox.ended.is_some() {
            return Err(SendError::Ended);
        }
        let waiting = outbox.waiting();
        if bulk {
            let room = waiting == 0 || waiting.saturating_add(length) <= bound;
            if !room || outbox.shipped >= outbox.granted {
                outbox.wanted = true;
                return Ok(Shipped::Full);
            }
            outbox.shipped = outbox.shipped.saturating_add(body as u64);
            outbox.excess = if waiting == 0 { body.saturating_sub(bound) } else { outbox.excess };
        } else if waiting > 0 {
            // A frame that is longer than the bound, alone, was not the reader's fault.
            let max = bound.saturating_mul(2).saturating_add(outbox.excess);
            if waiting.saturating_add(length) > max {
                self.end(outbox, Down::Stalled);
                return Err(SendError::Ended);
            }
        }
        let all: Vec<&[u8]> = std::iter::once(&head[..]).chain(parts.iter().copied()).collect();
        match outbox.write(&inner.stream, &all) {
            Ok(()) => {}
            Err(error) => {
                self.end(outbox, error.into());
                return Err(SendError::Ended);
            }
        }
        if waiting == 0 && outbox.waiting() > 0 {
            inner.work.notify_all();
        }
        Ok(Shipped::Sent)
    }

    /// Ends the link, telling the peer why if it can still be told. What is parked is lost.
    pub fn close(&self, reason: &str) {
        self.finish(Down::Here { reason: reason.to_owned() });
    }

    pub(super) fn finish(&self, why: Down) {
        self.end(self.0.outbox.lock(), why);
    }

    fn end(&self, mut outbox: MutexGuard<'_, Outbox>, why: Down) {
        if outbox.ended.is_none() {
            if outbox.waiting() == 0 && !matches!(why, Down::Lost { .. } | Down::Closed) {
                let text = why.to_string();
                let end = text.floor_char_boundary(REASON_BYTES_MAX);
                let mut frame = Vec::new();
                push(&mut frame, kind::CLOSE, text.get(..end).unwrap_or_default().as_bytes());
                if let Err(_gone) = outbox.write(&self.0.stream, &[&frame]) {
                    outbox.parked.clear();
                }
            }
            outbox.ended = Some(why);
        }
        drop(outbox);
        end(&self.0.stream);
        self.0.work.notify_all();
    }

    /// Waits until all that is parked was sent, or `deadline`, or the end.
    pub(super) fn drain(&self, deadline: Duration) {
        let mut outbox = self.0.outbox.lock();
        while outbox.waiting() > 0 && outbox.ended.is_none() {
            let left = deadline.saturating_sub(self.0.clock.monotonic());
            if left.is_zero() {
                return;
            }
            self.0.work.wait_for(&mut outbox, left);
        }
    }

    /// Somebody wants to take this link's place and may not. Is it still alive? `false`: it was
    /// asked a while ago and did not answer, and has ended now.
    pub(super) fn still_there(&self) -> bool {
        let now = self.0.clock.monotonic();
        let mut heard = self.0.heard.lock();
        match heard.asked {
            Some(asked) if heard.at < asked => {
                if now.saturating_sub(asked) < self.0.options.answer_max {
                    return true;
                }
                drop(heard);
                self.finish(Down::Silent);
                false
            }
            _ => {
                heard.asked = Some(now);
                drop(heard);
                // If it cannot be said, the link has ended.
                self.say(kind::KEEP, &[ANSWER]).is_ok()
            }
        }
    }

    // --- the writer's thread ---

    /// Sends on what is parked, and says something when nothing was said for a while.
    pub(super) fn write_on(&self, above: &dyn Above) {
        let inner = &*self.0;
        let options = &inner.options;
        let mut moved = inner.clock.monotonic();
        let mut outbox = inner.outbox.lock();
        while outbox.ended.is_none() {
            if outbox.waiting() == 0 {
                outbox.spoke = false;
                let waited = inner.work.wait_for(&mut outbox, options.keep_every);
                moved = inner.clock.monotonic();
                if waited.timed_out() && !outbox.spoke && outbox.ended.is_none() {
                    drop(outbox);
                    // If it cannot be said, the link has ended, and the loop sees it.
                    let _ended = self.say(kind::KEEP, &[]);
                    outbox = inner.outbox.lock();
                }
                continue;
            }
            let before = outbox.waiting();
            drop(outbox);
            let at_most = options.stall_max.min(options.keep_every);
            let ready = wait_writable(&inner.stream, at_most);
            outbox = inner.outbox.lock();
            let now = inner.clock.monotonic();
            match ready.and_then(|_maybe| outbox.flush(&inner.stream)) {
                Err(error) => {
                    self.end(outbox, error.into());
                    return;
                }
                Ok(()) if outbox.waiting() < before => moved = now,
                Ok(()) => {}
            }
            if now.saturating_sub(moved) > options.stall_max {
                self.end(outbox, Down::Stalled);
                return;
            }
            if outbox.waiting() == 0 {
                inner.work.notify_all();
            }
            if outbox.freed(options.outbox_bytes) {
                drop(outbox);
                above.writable(self);
                outbox = inner.outbox.lock();
            }
        }
    }

    // --- the reader's thread ---

    /// Reads until the link ends, and says why it did.
    pub(super) fn read_on(&self, above: &dyn Above, incoming: Incoming) -> Down {
        let mut reader = Reader {
            link: self,
            above,
            incoming,
            window: u64::from(self.0.options.window_bytes),
            shipped: 0,
            granted: u64::from(self.0.options.window_bytes),
            misses: 0,
            raw: Vec::new(),
        };
        let why = reader.run();
        let mut outbox = self.0.outbox.lock();
        let why = outbox.ended.get_or_insert(why).clone();
        self.end(outbox, why.clone());
        why
    }
}

/// The reading side of a link.
struct Reader<'a> {
    link: &'a Link,
    above: &'a dyn Above,
    incoming: Incoming,
    window: u64,
    /// Bytes of bodies shipped to us, and how many we have allowed.
    shipped: u64,
    granted: u64,
    /// How often in a row turning round for the next frame was in vain.
    misses: u32,
    /// Where bytes of TLS go.
    raw: Vec<u8>,
}

impl Reader<'_> {
    fn run(&mut self) -> Down {
        let inner = &*self.link.0;
        self.incoming.set_max(u32::try_from(inner.options.frame_bytes_max).unwrap_or(u32::MAX));
        if let Err(error) = inner.stream.set_read_timeout(Some(inner.options.idle_max)) {
            return error.into();
        }
        // The handshake may have read more than its own.
        let mut open = if inner.outbox.lock().wire.is_plain() { Ok(true) } else { self.unseal(0) };
        loop {
            match self.frames() {
                Ok(()) => {}
                Err(down) => return down,
            }
            match open {
                Ok(true) => {}
                Ok(false) => return Down::Closed,
                Err(error) => return error.into(),
            }
            open = self.receive();
        }
    }

    /// Handles all frames that are there.
    fn frames(&mut self) -> Result<(), Down> {
        let link = self.link;
        loop {
            let next = self.incoming.next_frame().map_err(Broken::Frame)?;
            let Some(Frame { kind, body }) = next else { return Ok(()) };
            match kind {
                kind::BULK.. => {
                    if self.shipped >= self.granted {
                        return Err(Broken::Credit.into());
                    }
                    self.shipped = self.shipped.saturating_add(body.len() as u64);
                    self.above.frame(link, Frame { kind, body });
                    self.grant();
                }
                kind::FIRST_MESSAGE.. => self.above.frame(link, Frame { kind, body }),
                kind::KEEP if body == ANSWER => {
                    // If it cannot be said, the link has ended.
                    let _ended = link.say(kind::KEEP, &[]);
                }
                kind::KEEP => {}
                kind::CREDIT => {
                    let granted = body.first_chunk::<8>().ok_or(Broken::Kind(kind))?;
                    let granted = u64::from_le_bytes(*granted);
                    let mut outbox = link.0.outbox.lock();
                    outbox.granted = outbox.granted.max(granted);
                    let freed = outbox.freed(link.0.options.outbox_bytes);
                    drop(outbox);
                    if freed {
                        self.above.writable(link);
                    }
                }
                kind::CLOSE => {
                    let body = body.get(..REASON_BYTES_MAX).unwrap_or(body);
                    let reason: String = String::from_utf8_lossy(body)
                        .chars()
                        .filter(|letter| !letter.is_control())
                        .collect();
                    return Err(Down::Told { reason });
                }
                other => return Err(Broken::Kind(other).into()),
            }
            if link.0.outbox.lock().ended.is_some() {
                return Err(Down::Closed);
            }
        }
    }

    /// What was shipped has been taken in: as much more may come. Told by halves of the window.
    fn grant(&mut self) {
        let due = self.shipped.saturating_add(self.window);
        if due.saturating_sub(self.granted) >= (self.window / 2).max(1) {
            self.granted = due;
            // If it cannot be said, the link has ended.
            let _ended = self.link.say(kind::CREDIT, &[&due.to_le_bytes()]);
        }
    }

    /// Takes what comes next, however long that is; `false`: nothing more will.
    fn receive(&mut self) -> io::Result<bool> {
        let inner = &*self.link.0;
        let plain = inner.outbox.lock().wire.is_plain();
        if !plain {
            self.raw.resize(RAW_BYTES, 0);
        }
        let room = if plain { self.incoming.room() } else { &mut self.raw };
        let spin = inner.options.spin;
        let bytes = if let Some(bytes) = spun(inner, room, spin, &mut self.misses)? {
            bytes
        } else {
            let began = if spin.is_zero() { spin } else { inner.clock.monotonic() };
            let bytes = sleep_for(&inner.stream, room)?;
            if !spin.is_zero() && inner.clock.monotonic().saturating_sub(began) < spin {
                self.misses = 0;
            }
            bytes
        };
        let mut heard = inner.heard.lock();
        heard.at = inner.clock.monotonic_coarse().max(heard.at);
        // The coarse clock may stand behind the moment of the question.
        if heard.asked.is_some() {
            heard.at = inner.clock.monotonic();
        }
        drop(heard);
        if bytes == 0 {
            return Ok(false);
        }
        if plain {
            self.incoming.filled(bytes);
            return Ok(true);
        }
        self.unseal(bytes)
    }

    /// Takes the first `bytes` of `raw` through TLS.
    fn unseal(&mut self, bytes: usize) -> io::Result<bool> {
        let inner = &*self.link.0;
        let mut outbox = inner.outbox.lock();
        let Outbox { wire, parked, .. } = &mut *outbox;
        let before = parked.len();
        let raw = self.raw.get(..bytes).unwrap_or_default();
        let open = wire.open(raw, &mut self.incoming, parked)?;
        if parked.len() > before {
            inner.work.notify_all();
        }
        Ok(open)
    }
}

/// Sleeps until something comes, or the read timeout is over.
fn sleep_for(mut stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Turns round for the next bytes for a while, if that has been worth it lately: they come some
/// microseconds sooner than to a thread that sleeps.
fn spun(
    inner: &Inner,
    room: &mut [u8],
    spin: Duration,
    misses: &mut u32,
) -> io::Result<Option<usize>> {
    const MISSES_MAX: u32 = 4;
    if spin.is_zero() || *misses >= MISSES_MAX {
        return Ok(None);
    }
    let until = inner.clock.monotonic() + spin;
    loop {
        if let Some(bytes) = receive_now(&inner.stream, room)? {
            *misses = 0;
            return Ok(Some(bytes));
        }
        if inner.clock.monotonic() >= until {
            *misses += 1;
            return Ok(None);
        }
        std::hint::spin_loop();
    }
}
