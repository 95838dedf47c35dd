//! Lines that come in.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use super::{Conn, Found, HELLO, LINE_MAX, bind, rest, retry};
use crate::edge::fault::Fault;
use crate::edge::pos::{Gap, Mark, Pos};
use crate::edge::source::{Flow, Give, Resume, Source};

/// How often it is looked whether somebody connects.
const ACCEPT_EVERY: Duration = Duration::from_millis(5);

/// A source of lines over TCP. See [`listen`] and [`listen_plain`].
#[derive(Debug)]
pub struct Lines {
    listener: TcpListener,
    plain: bool,
    conn: Option<Conn>,
    /// The sender has said who it is.
    greeted: bool,
    /// The last line that was given, and the last that is done.
    last: Option<Pos>,
    done: Option<Pos>,
    /// A line that was too long is thrown away up to its end.
    skipping: bool,
}

/// Takes lines from one sender at a time that [acknowledges](super): each line is acknowledged when
/// it is settled at this pipeline's other end, and sent again if it was not. With a sink that
/// remembers (an inbox, a file) each arrives once.
///
/// Anybody who can connect can send. The longest line has 1 MiB; a longer one is poison, as one
/// that is not UTF-8.
///
/// # Errors
/// `Fatal`: nobody can listen there.
pub fn listen(addr: impl ToSocketAddrs) -> Result<Lines, Fault> {
    Lines::new(addr, false)
}

/// Takes lines from one plain peer at a time, **at most once**: what is under way when this process
/// ends is lost. Positions begin with a new epoch in each life, and a gap of unknown size is
/// reported where one went before.
///
/// # Errors
/// As for [`listen`].
pub fn listen_plain(addr: impl ToSocketAddrs) -> Result<Lines, Fault> {
    Lines::new(addr, true)
}

impl Lines {
    fn new(addr: impl ToSocketAddrs, plain: bool) -> Result<Self, Fault> {
        let listener = bind(addr)?;
        let (greeted, last, done, skipping) = (false, None, None, false);
        Ok(Self { listener, plain, conn: None, greeted, last, done, skipping })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whoever connects last is the sender.
    fn accept(&mut self) -> Result<(), Fault> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.conn = Conn::new(stream).ok();
                    (self.greeted, self.skipping) = (self.plain, false);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The peer was gone before it was looked at.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(retry(error, "accepting")),
            }
        }
    }

    fn say(&mut self, line: &str) {
        if let Some(conn) = &mut self.conn
            && conn.write(line.as_bytes()).is_err()
        {
            // It is sent again in the next connection.
            self.conn = None;
        }
    }

    /// Looks at one line; answers whether it was given.
    fn take(&mut self, line: Vec<u8>, out: &mut dyn Give<String>) -> Result<bool, Fault> {
        if self.skipping {
            self.skipping = false;
            return Ok(false);
        }
        if !self.greeted {
            if line != HELLO.as_bytes() {
                self.conn = None;
                return Ok(false);
            }
            self.greeted = true;
            let at = self.done.map_or_else(|| "-".to_owned(), |at| at.to_string());
            self.say(&format!("at {at}\n"));
            return Ok(false);
        }
        let text = String::from_utf8(line);
        if self.plain {
            let pos = self.next_plain();
            let text = text.map_err(|error| Fault::poison(pos, error.to_string()))?;
            out.give(pos, text);
            return Ok(true);
        }
        let lossy = |error: std::string::FromUtf8Error| {
            let text = String::from_utf8_lossy(error.as_bytes());
            (text.split_once(' ').and_then(|(pos, _)| pos.parse().ok()), error.to_string())
        };
        let text = match text.map_err(lossy) {
            Ok(text) => text,
            Err((Some(pos), why)) if Some(pos) > self.last => {
                self.last = Some(pos);
                return Err(Fault::poison(pos, why));
            }
            Err(_) => return Ok(self.hang_up()),
        };
        let split = text.split_once(' ').and_then(|(pos, rest)| Some((pos.parse().ok()?, rest)));
        let Some((pos, rest)) = split else { return Ok(self.hang_up()) };
        if Some(pos) <= self.last {
            // It has come before, in another connection.
            return Ok(false);
        }
        self.last = Some(pos);
        out.give(pos, rest.to_owned());
        Ok(true)
    }

    /// The peer does not speak it: it may try again.
    fn hang_up(&mut self) -> bool {
        self.conn = None;
        false
    }

    fn next_plain(&mut self) -> Pos {
        let last = self.last.unwrap_or_default();
        let next = Pos::new(last.epoch, last.seq + 1);
        self.last = Some(next);
        next
    }

    /// A line without an end, longer than it may be.
    fn too_long(&mut self) -> Result<(), Fault> {
        let Some(conn) = self.conn.as_mut().filter(|conn| conn.buffer.len() > LINE_MAX) else {
            return Ok(());
        };
        let start = conn.buffer.get(..100).unwrap_or_default();
        let pos = start.split(|byte| *byte == b' ').next();
        let pos = pos.and_then(|pos| str::from_utf8(pos).ok()?.parse::<Pos>().ok());
        conn.buffer.clear();
        conn.looked = 0;
        if self.skipping {
            return Ok(());
        }
        self.skipping = true;
        let pos = if self.plain { Some(self.next_plain()) } else { pos };
        if let Some(pos) = pos.filter(|pos| self.plain || Some(*pos) > self.last) {
            self.last = Some(pos);
            return Err(Fault::poison(pos, "the line is longer than 1 MiB"));
        }
        self.conn = None;
        Ok(())
    }

    /// The lines that were read already.
    fn give_read(&mut self, max: usize, out: &mut dyn Give<String>) -> Result<usize, Fault> {
        let mut given = 0;
        while given < max
            && let Some(line) = self.conn.as_mut().and_then(Conn::line)
        {
            given += usize::from(self.take(line, out)?);
        }
        self.too_long()?;
        Ok(given)
    }
}

impl Source for Lines {
    type Item = String;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        self.conn = None;
        let at = at.map(|mark| mark.pos);
        if self.plain {
            let epoch = at.map_or(0, |at| at.epoch.saturating_add(1));
            self.last = Some(Pos::new(epoch, 0));
            let gap = Gap { after: at, before: None, lost: None };
            return Ok(if at.is_some() { Resume::Gap(gap) } else { Resume::Exact });
        }
        (self.last, self.done) = (at, at);
        Ok(Resume::Exact)
    }

    fn pull(
        &mut self,
        max: usize,
        limit: Duration,
        out: &mut dyn Give<String>,
    ) -> Result<Flow, Fault> {
        let given = self.give_read(max, out)?;
        if given > 0 {
            return Ok(Flow::More);
        }
        self.accept()?;
        let Some(conn) = &mut self.conn else {
            rest(limit.min(ACCEPT_EVERY));
            return Ok(Flow::Idle);
        };
        match conn.read(limit) {
            Ok(Found::Nothing) => return Ok(Flow::Idle),
            Ok(Found::Some) => {}
            Ok(Found::End) => {
                // The last line of a plain peer may have no end.
                let rest = std::mem::take(&mut conn.buffer);
                self.conn = None;
                if self.plain && !rest.is_empty() {
                    self.take(rest, out)?;
                    return Ok(Flow::More);
                }
                return Ok(Flow::Idle);
            }
            Err(_gone) => {
                self.conn = None;
                return Ok(Flow::Idle);
            }
        }
        let given = self.give_read(max, out)?;
        Ok(if given > 0 { Flow::More } else { Flow::Idle })
    }

    fn done(&mut self, at: Pos) -> Result<(), Fault> {
        self.done = Some(at);
        if !self.plain && self.greeted {
            self.say(&format!("{at}\n"));
        }
        Ok(())
    }
}
