//! Lines that go out.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::{Conn, Found, HELLO, LINE_MAX, WRITE_LIMIT, resolve, retry};
use crate::edge::fault::Fault;
use crate::edge::pos::Pos;
use crate::edge::sink::{Level, Sink};
use crate::time::Clock;

/// Lines that are sent and not acknowledged, at most.
const OPEN_MAX: usize = 4 << 10;
/// Several lines that came of one input are told apart by these bits of their part.
const PARTS: u32 = 1 << 12;
/// A receiver that acknowledges nothing for so long is asked again, over a new connection.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A sink that sends lines over TCP. See [`connect`] and [`connect_plain`].
#[derive(Debug)]
pub struct ToLines {
    addrs: Vec<SocketAddr>,
    plain: bool,
    conn: Option<Conn>,
    /// What is not acknowledged: its position on the wire, its own, whether it is the last of its
    /// input, and the line.
    open: VecDeque<Line>,
    /// So many of them were sent in this connection.
    sent: usize,
    last: Option<(Pos, u32)>,
    settled: Option<Pos>,
    bytes: u64,
    clock: Clock,
    /// When something was heard last.
    heard: Duration,
}

#[derive(Debug)]
struct Line {
    wire: Pos,
    pos: Pos,
    last: bool,
    text: String,
}

/// Sends lines to a [receiver](super::listen) that acknowledges them; it connects when it has
/// something to send, and again when the connection ends. Settled is what was acknowledged, which
/// the receiver does when its own pipeline has settled it: [`Level::Acked`], and as safe as it is
/// there.
///
/// A line has no line break and less than 1 MiB, and of one input come 4,096 at most; others are
/// poison.
///
/// # Errors
/// `Fatal`: the address is none. That nobody is there yet is no error.
pub fn connect(addr: impl ToSocketAddrs) -> Result<ToLines, Fault> {
    ToLines::new(addr, false)
}

/// Sends lines to whoever listens, and nothing else: [`Level::Sent`]. What is under way when the
/// connection ends may be lost, and nobody is told.
///
/// # Errors
/// As for [`connect`].
pub fn connect_plain(addr: impl ToSocketAddrs) -> Result<ToLines, Fault> {
    ToLines::new(addr, true)
}

impl ToLines {
    fn new(addr: impl ToSocketAddrs, plain: bool) -> Result<Self, Fault> {
        Ok(Self {
            addrs: resolve(addr)?,
            plain,
            conn: None,
            open: VecDeque::new(),
            sent: 0,
            last: None,
            settled: None,
            bytes: 0,
            clock: Clock::System,
            heard: Duration::ZERO,
        })
    }

    /// Connects, and finds out what the receiver has.
    fn connect(&mut self) -> Result<(), Fault> {
        if self.conn.is_some() {
            return Ok(());
        }
        let mut failed = None;
        for addr in &self.addrs {
            match TcpStream::connect_timeout(addr, WRITE_LIMIT).and_then(Conn::new) {
                Ok(conn) => {
                    self.conn = Some(conn);
                    break;
                }
                Err(error) => failed = Some(error),
            }
        }
        self.sent = 0;
        self.heard = self.clock.monotonic();
        if let Some(error) = failed.filter(|_| self.conn.is_none()) {
            return Err(retry(error, "connecting"));
        }
        if self.plain {
            return Ok(());
        }
        let greeted = self.greet();
        if greeted.is_err() {
            self.conn = None;
        }
        greeted
    }

    fn greet(&mut self) -> Result<(), Fault> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        conn.write(format!("{HELLO}\n").as_bytes()).map_err(|error| retry(error, "greeting"))?;
        let by = self.clock.monotonic().saturating_add(WRITE_LIMIT);
        let said = loop {
            if let Some(line) = conn.line() {
                break line;
            }
            let left = by.saturating_sub(self.clock.monotonic());
            match conn.read(left) {
                Ok(Found::Some) => {}
                Ok(Found::Nothing) if !left.is_zero() => {}
                Ok(Found::Nothing) => return Err(Fault::retry("the receiver does not answer")),
                Ok(Found::End) => return Err(Fault::retry("the receiver has hung up")),
                Err(error) => return Err(retry(error, "greeting")),
            }
        };
        let said = str::from_utf8(&said).ok().and_then(|said| said.strip_prefix("at "));
        match said {
            Some("-") => {}
            Some(at) if let Ok(at) = at.parse() => self.acknowledged(at),
            _ => return Err(Fault::retry("the receiver speaks something else")),
        }
        Ok(())
    }

    /// Everything up to `wire` is done at the other end.
    fn acknowledged(&mut self, wire: Pos) {
        while let Some(line) = self.open.front().filter(|line| line.wire <= wire) {
            if line.last {
                self.settled = Some(line.pos);
            }
            self.open.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// Sends what was not sent in this connection.
    fn send(&mut self) -> Result<(), Fault> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        let mut bytes = Vec::new();
        for line in self.open.range(self.sent.min(self.open.len())..) {
            if !self.plain {
                bytes.extend_from_slice(line.wire.to_string().as_bytes());
                bytes.push(b' ');
            }
            bytes.extend_from_slice(line.text.as_bytes());
            bytes.push(b'\n');
        }
        if let Err(error) = conn.write(&bytes) {
            self.conn = None;
            return Err(retry(error, "sending"));
        }
        self.bytes += bytes.len() as u64;
        self.sent = self.open.len();
        if self.plain
            && let Some(wire) = self.open.back().map(|line| line.wire)
        {
            // Nothing more will ever be known.
            self.acknowledged(wire);
        }
        Ok(())
    }

    /// Hears what is acknowledged.
    fn hear(&mut self, limit: Duration) -> Result<(), Fault> {
        let Some(conn) = self.conn.as_mut().filter(|_| !self.open.is_empty()) else {
            return Ok(());
        };
        let now = self.clock.monotonic();
        let found = match conn.read(limit) {
            Ok(Found::Some) => Ok(()),
            Ok(Found::Nothing) if now.saturating_sub(self.heard) <= SILENCE_MAX => return Ok(()),
            Ok(Found::Nothing) => Err(Fault::retry("the receiver acknowledges nothing")),
            Ok(Found::End) => Err(Fault::retry("the receiver has hung up")),
            Err(error) => Err(retry(error, "receiving")),
        };
        if let Err(fault) = found {
            self.conn = None;
            return Err(fault);
        }
        self.heard = now;
        while let Some(line) = self.conn.as_mut().and_then(Conn::line) {
            let wire = str::from_utf8(&line).ok().and_then(|line| line.parse().ok());
            let Some(wire) = wire else {
                self.conn = None;
                return Err(Fault::retry("the receiver speaks something else"));
            };
            self.acknowledged(wire);
        }
        Ok(())
    }
}

impl Sink for ToLines {
    type Item = String;

    fn put(&mut self, pos: Pos, text: String, last: bool) -> Result<(), Fault> {
        let index = match self.last {
            Some((before, index)) if before == pos => index + 1,
            _ => 0,
        };
        let part = pos.part.checked_mul(PARTS).filter(|_| index < PARTS);
        let long = text.len() + 100 > LINE_MAX || text.contains('\n');
        let Some(part) = part.filter(|_| !long) else {
            return Err(Fault::poison(pos, "it is no line, or one of too many"));
        };
        self.last = Some((pos, index));
        if self.open.is_empty() {
            self.heard = self.clock.monotonic();
        }
        self.open.push_back(Line { wire: pos.at_part(part + index), pos, last, text });
        Ok(())
    }

    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        if !self.open.is_empty() {
            self.connect()?;
            self.send()?;
            self.hear(limit)?;
        }
        Ok(self.settled)
    }

    fn room(&self) -> usize {
        OPEN_MAX.saturating_sub(self.open.len())
    }

    fn level(&self) -> Level {
        if self.plain { Level::Sent } else { Level::Acked }
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
