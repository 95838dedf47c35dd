//! Lines of text over TCP, both ends; acknowledged where both speak it.
//!
//! ```text
//! sender                          receiver
//!   annals-lines 1          -->
//!                           <--   at 1.41.0        (or: at -)
//!   1.42.0 some text        -->
//!   1.43.0 more of it       -->
//!                           <--   1.43.0           (all up to here is done)
//! ```
//!
//! The receiver acknowledges what its pipeline has settled, not what it has read. What is not
//! acknowledged when a connection ends is sent again in the next one, and what the receiver has
//! already it leaves out, by position. One sender at a time: a new connection takes the place of
//! the old one.
//!
//! A plain peer, who knows nothing of this, is a stream of lines and no more
//! ([`listen_plain`], [`connect_plain`]): what is under way when a connection ends may be lost, or
//! not, and nobody knows.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::fault::{Fault, Why};

mod receive;
mod send;

pub use receive::{Lines, listen, listen_plain};
pub use send::{ToLines, connect, connect_plain};

const HELLO: &str = "annals-lines 1";
/// The longest line.
const LINE_MAX: usize = 1 << 20;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// A peer that takes nothing for so long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// The shortest wait that a socket knows.
const SHORTEST: Duration = Duration::from_micros(100);

fn retry(error: io::Error, doing: &str) -> Fault {
    Fault::retry(Why::from(error).within(doing))
}

/// One connection, and what was read of it and is no line yet.
#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Of the buffer, so much was looked at.
    looked: usize,
}

/// What a read has found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Found {
    Some,
    Nothing,
    End,
}

impl Conn {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        Ok(Self { stream, buffer: Vec::new(), looked: 0 })
    }

    /// Reads what is there; waits for it at most `limit`.
    fn read(&mut self, limit: Duration) -> io::Result<Found> {
        if limit.is_zero() {
            self.stream.set_nonblocking(true)?;
        } else {
            self.stream.set_read_timeout(Some(limit.max(SHORTEST)))?;
        }
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        let into = self.buffer.get_mut(length..).unwrap_or_default();
        let read = self.stream.read(into);
        self.buffer.truncate(length + read.as_ref().copied().unwrap_or(0));
        if limit.is_zero() {
            self.stream.set_nonblocking(false)?;
        }
        match read {
            Ok(0) => Ok(Found::End),
            Ok(_) => Ok(Found::Some),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(Found::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// The next whole line, without its break.
    fn line(&mut self) -> Option<Vec<u8>> {
        let fresh = self.buffer.get(self.looked..).unwrap_or_default();
        let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.looked = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(self.looked + at + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.looked = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}

fn resolve(addr: impl ToSocketAddrs) -> Result<Vec<SocketAddr>, Fault> {
    let found: Vec<_> = addr.to_socket_addrs().map_err(Fault::fatal)?.collect();
    if found.is_empty() {
        return Err(Fault::fatal("the address is none"));
    }
    Ok(found)
}

/// Waits a moment, without a socket to wait for.
fn rest(limit: Duration) {
    // It ends by its limit alone.
    crossbeam_channel::never::<()>().recv_timeout(limit).unwrap_or_default();
}

fn bind(addr: impl ToSocketAddrs) -> Result<TcpListener, Fault> {
    let listener = TcpListener::bind(&*resolve(addr)?).map_err(Fault::fatal)?;
    listener.set_nonblocking(true).map_err(Fault::fatal)?;
    Ok(listener)
}
