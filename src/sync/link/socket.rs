//! The system calls of a link: what std has no name for, and deadlines over several calls.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, sockopt,
};

use crate::time::Clock;

/// How often somebody who waits for a connection looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// What all links' sockets have.
pub(super) fn prepare(stream: &TcpStream, stall_max: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let millis = u32::try_from(stall_max.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, millis)?;
    Ok(())
}

/// Sends what the socket takes at once, and says how much that is.
pub(super) fn send_now(stream: &TcpStream, parts: &[&[u8]]) -> io::Result<usize> {
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        let sent =
            rustix::net::sendmsg(stream, &slices, &mut SendAncillaryBuffer::default(), flags);
        match sent {
            Ok(bytes) => return Ok(bytes),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives what is there; `None` if nothing is. 0 bytes: the other end has said all.
pub(super) fn receive_now(stream: &TcpStream, room: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::net::recv(stream, room, RecvFlags::DONTWAIT) {
        Ok((bytes, _)) => Ok(Some(bytes)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the socket takes bytes; `false`: it does not yet.
pub(super) fn wait_writable(stream: &TcpStream, at_most: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::OUT)];
    let timeout = Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at_most.subsec_nanos()),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Ends both directions; whoever is blocked in a call on it returns.
pub(super) fn end(stream: &TcpStream) {
    // It fails where the connection is gone already, which is what was wanted.
    drop(stream.shutdown(Shutdown::Both));
}

/// Connects, unless `wanted` says no meanwhile.
pub(super) fn connect(
    address: &SocketAddr,
    at_most: Duration,
    clock: &Clock,
    wanted: impl Fn() -> bool,
) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    let connecting = rustix::net::connect(&socket, address);
    let stream = TcpStream::from(socket);
    match connecting {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => {
            let deadline = clock.monotonic() + at_most;
            while !wait_writable(&stream, LOOK)? {
                if !wanted() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                if clock.monotonic() >= deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
        }
        Err(error) => return Err(error.into()),
    }
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A stream whose reads and writes are all over at a deadline.
#[derive(Debug)]
pub(super) struct Timed<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) clock: &'a Clock,
    pub(super) deadline: Duration,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_sub(self.clock.monotonic());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A timeout of a socket reads as "would block".
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return io::ErrorKind::TimedOut.into();
    }
    error
}

impl Read for Timed<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.read(room).map_err(timed_out)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
