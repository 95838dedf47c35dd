//! What is between frames and the socket: nothing, or TLS.

use std::fmt;
use std::io::{self, Read as _, Write as _};

use crate::sync::link::frame::Incoming;
use crate::sync::link::socket::Timed;

/// What one call takes off the socket before anything is proven.
const STRANGER_RAW_BYTES: usize = 2 << 10;

/// Of one connection. Under TLS it is one object for both directions, kept under the lock of what
/// is to be sent.
pub(super) enum Wire {
    /// The frames themselves.
    Plain,
    /// Encrypted.
    #[cfg(feature = "tls")]
    Tls(Box<rustls::Connection>),
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            #[cfg(feature = "tls")]
            Self::Tls(_) => "Tls",
        })
    }
}

impl Wire {
    /// Is what is received the frames themselves?
    pub(super) const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Appends `parts` to `out` as the socket is to have them.
    #[cfg_attr(not(feature = "tls"), expect(clippy::unnecessary_wraps, reason = "TLS can fail"))]
    pub(super) fn seal(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Plain => {
                for part in parts {
                    out.extend_from_slice(part);
                }
            }
            #[cfg(feature = "tls")]
            Self::Tls(tls) => {
                for part in parts {
                    tls.writer().write_all(part)?;
                }
                while tls.wants_write() {
                    tls.write_tls(out)?;
                }
            }
        }
        Ok(())
    }

    /// Takes what the socket gave. What TLS itself wants to say goes to `out`. `false`: the other
    /// end has said, properly, that this was all.
    #[cfg_attr(
        not(feature = "tls"),
        expect(unused, clippy::unnecessary_wraps, clippy::ptr_arg, reason = "of use to TLS alone")
    )]
    pub(super) fn open(
        &mut self,
        mut raw: &[u8],
        incoming: &mut Incoming,
        out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        match self {
            Self::Plain => incoming.take(raw),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => loop {
                if !raw.is_empty() {
                    tls.read_tls(&mut raw)?;
                }
                let state = tls.process_new_packets().map_err(tls_error)?;
                while tls.wants_write() {
                    tls.write_tls(out)?;
                }
                let mut left = state.plaintext_bytes_to_read();
                while left > 0 {
                    let bytes = tls.reader().read(incoming.room())?;
                    incoming.filled(bytes);
                    left = left.saturating_sub(bytes.max(1));
                }
                if state.peer_has_closed() {
                    return Ok(false);
                }
                if raw.is_empty() {
                    break;
                }
            },
        }
        Ok(true)
    }

    /// Reads something for a handshake, and blocks for it; `false`: there is an end.
    pub(super) fn read(
        &mut self,
        timed: &mut Timed<'_>,
        incoming: &mut Incoming,
    ) -> io::Result<bool> {
        if self.is_plain() {
            let bytes = timed.read(incoming.room())?;
            incoming.filled(bytes);
            return Ok(bytes > 0);
        }
        // What came together with the last word of TLS's own handshake is in there already.
        let (mut out, before) = (Vec::new(), incoming.unread());
        if !self.open(&[], incoming, &mut out)? {
            return Ok(false);
        }
        if incoming.unread() > before {
            return Ok(true);
        }
        let mut raw = [0; STRANGER_RAW_BYTES];
        let bytes = timed.read(&mut raw)?;
        let open = self.open(raw.get(..bytes).unwrap_or_default(), incoming, &mut out)?;
        timed.write_all(&out)?;
        Ok(open && bytes > 0)
    }

    /// Writes for a handshake, and blocks for it.
    pub(super) fn write(&mut self, timed: &mut Timed<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        self.seal(&[bytes], &mut out)?;
        timed.write_all(&out)
    }
}

/// As an I/O error, which is what it is to a link.
#[cfg(feature = "tls")]
pub(super) fn tls_error(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
