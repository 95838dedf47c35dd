//! The handshake over a socket: bytes in and out of the state machine, until a deadline.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use crate::sync::link::Security;
use crate::sync::link::frame::Incoming;
use crate::sync::link::handshake::{
    Greeting, Handshake, Key, NONCE_BYTES, Nonce, Ourselves, Progress, Refusal, Refused, Who,
};
use crate::sync::link::socket::Timed;
use crate::sync::link::wire::Wire;
use crate::time::Clock;

/// Why a connection did not become a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// One of the two ends refused the other.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The name was not resolved, or nobody listens, or the connection broke.
    #[error("{error}")]
    Io {
        /// What sort of error.
        kind: io::ErrorKind,
        /// Its text.
        error: String,
    },
    /// It took too long.
    #[error("the handshake took too long")]
    Deadline,
    /// The other end closed without a word; after our proof that is what it does if its secret is
    /// another.
    #[error("the other end closed without a word{}", if *.proven {
        ", after our proof: its secret may be another"
    } else {
        ""
    })]
    Silence {
        /// Our proof was sent.
        proven: bool,
    },
    /// Too many who have not proven anything yet are here.
    #[error("too many connections that have proven nothing")]
    Crowd,
    /// TLS refused the other end, or it us.
    #[error("TLS: {0}")]
    Tls(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Deadline,
            io::ErrorKind::UnexpectedEof => Self::Silence { proven: false },
            io::ErrorKind::InvalidData => Self::Tls(error.to_string()),
            kind => Self::Io { kind, error: error.to_string() },
        }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

/// One handshake.
pub(super) struct Shake<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) clock: &'a Clock,
    pub(super) deadline: Duration,
    pub(super) security: &'a Security,
    pub(super) ours: Ourselves,
}

/// What is left of it.
pub(super) struct Shaken {
    pub(super) greeting: Greeting,
    pub(super) wire: Wire,
    pub(super) incoming: Incoming,
}

impl Shake<'_> {
    /// Goes through it. `admit` hears who the other is as soon as that is proven, and may refuse.
    pub(super) fn run(
        self,
        dialer: bool,
        mut admit: impl FnMut(&Who) -> Result<(), Refusal>,
    ) -> Result<Shaken, Failed> {
        let Self { stream, clock, deadline, security, ours } = self;
        let mut timed = Timed { stream, clock, deadline };
        let (mut wire, key) = secure(security, dialer, &mut timed)?;
        let mut out = Vec::new();
        let nonce = random()?;
        let mut handshake = if dialer {
            Handshake::dial(ours, key, nonce, &mut out)
        } else {
            Handshake::answer(ours, key, nonce)
        };
        let mut incoming = Incoming::new(handshake.bytes_max());
        let mut proven = false;
        loop {
            if !out.is_empty() {
                wire.write(&mut timed, &out)?;
                out.clear();
            }
            incoming.set_max(handshake.bytes_max());
            let Some(frame) = incoming.next_frame().map_err(Refusal::Frame)? else {
                if !wire.read(&mut timed, &mut incoming)? {
                    return Err(Failed::Silence { proven });
                }
                continue;
            };
            let progress = handshake.step(frame, &mut out);
            let refused = match progress {
                Ok(Progress::More) => {
                    proven = dialer;
                    None
                }
                Ok(Progress::Proven(who)) => match admit(&who) {
                    Ok(()) => {
                        handshake.accept(&mut out);
                        None
                    }
                    Err(refusal) => {
                        handshake.refuse(refusal, &mut out);
                        Some(Refused::Here(refusal))
                    }
                },
                Ok(Progress::Accepted(who)) => admit(&who).err().map(Refused::Here),
                Ok(Progress::Done(greeting)) => return Ok(Shaken { greeting, wire, incoming }),
                Err(refused) => Some(refused),
            };
            if let Some(refused) = refused {
                // What it says is only help: that it could not be said changes nothing.
                drop(wire.write(&mut timed, &out));
                return Err(refused.into());
            }
        }
    }
}

/// TLS first, where it is on, and the key of the proofs.
#[cfg_attr(
    not(feature = "tls"),
    expect(unused_variables, clippy::unnecessary_wraps, reason = "of use to TLS alone")
)]
fn secure(security: &Security, dialer: bool, timed: &mut Timed<'_>) -> Result<(Wire, Key), Failed> {
    match security {
        Security::Secret(key) => Ok((Wire::Plain, key.clone())),
        #[cfg(feature = "tls")]
        Security::Tls(tls) => tls.greet(dialer, timed),
    }
}

fn random() -> io::Result<Nonce> {
    let mut nonce = [0; NONCE_BYTES];
    let filled = rustix::rand::getrandom(&mut nonce[..], rustix::rand::GetRandomFlags::empty())?;
    if filled == NONCE_BYTES { Ok(nonce) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// 64 random bits for a wait; where there are none, none.
pub(super) fn random_bits() -> u64 {
    let nonce = random().unwrap_or_default();
    nonce.first_chunk::<8>().map_or(0, |bits| u64::from_le_bytes(*bits))
}
