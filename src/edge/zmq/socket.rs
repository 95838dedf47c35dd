//! The two sockets of an engine, and what may come out of them. Nothing here waits.

#![expect(clippy::big_endian_bytes, reason = "numbers on the wire are big-endian")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::ZmqOptions;

/// A socket that has to be made again never does so by itself: it would try after this.
const NEVER_MS: i32 = 1_000_000_000;
/// The number that ends an answer.
const END: u64 = u64::MAX;
/// Numbers of batches are below this.
const SEQ_MAX: u64 = u64::MAX >> 1;

/// A live connection.
pub(super) struct Live {
    socket: zmq::Socket,
    monitor: zmq::Socket,
    topic: Vec<u8>,
    state: State,
    until: Duration,
}

/// What has become of a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Up,
    /// With what is left in it to be read, if it was up.
    Over,
}

/// What is left of a live connection that was closed.
///
/// The library closes a socket on a thread of its own, which says so to the monitor, and waits for
/// ever where nobody is there to hear it; then no socket is ever closed again.
pub(super) struct Closing(zmq::Socket);

impl Closing {
    /// Waits until the connection is closed, at most `limit`: is it?
    pub(super) fn is_closed(&self, limit: Duration) -> bool {
        let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        loop {
            let waited = self.0.poll(zmq::POLLIN, limit);
            if !matches!(waited, Ok(1..)) {
                return matches!(waited, Err(zmq::Error::ETERM | zmq::Error::ENOTSOCK));
            }
            let Ok(event) = self.0.recv_multipart(zmq::DONTWAIT) else { continue };
            if kind(&event) == Some(zmq::SocketEvent::MONITOR_STOPPED) {
                return true;
            }
        }
    }
}

/// What an event of a monitor is.
fn kind(event: &[Vec<u8>]) -> Option<zmq::SocketEvent> {
    let (raw, _) = event.first()?.split_first_chunk()?;
    Some(zmq::SocketEvent::from_raw(native(*raw)))
}

/// What a live connection says.
pub(super) enum Heard {
    Batch {
        seq: u64,
        payload: Vec<u8>,
    },
    /// It is no engine's message.
    Malformed,
    Nothing,
}

impl Live {
    /// Begins to connect; it should be up at `until`.
    pub(super) fn connect(
        context: &zmq::Context,
        options: &ZmqOptions,
        until: Duration,
    ) -> Result<Self, zmq::Error> {
        // Its number makes the name of the monitor's address.
        static NUMBER: AtomicU64 = AtomicU64::new(0);

        let socket = context.socket(zmq::SUB)?;
        common(&socket, options)?;
        socket.set_rcvhwm(i32::try_from(options.waiting_max).unwrap_or(i32::MAX))?;
        socket.set_reconnect_ivl(NEVER_MS)?;
        // A machine that is gone without a word is noticed like a process that is.
        let heartbeat = i32::try_from(options.answer.as_millis()).unwrap_or(i32::MAX).max(1);
        socket.set_heartbeat_ivl(heartbeat)?;
        socket.set_heartbeat_timeout(heartbeat.saturating_mul(3))?;
        socket.set_subscribe(options.topic.as_bytes())?;
        // Relaxed: only that no two are the same.
        let name = format!("inproc://monitor-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        socket.monitor(&name, i32::from(zmq::SocketEvent::ALL.to_raw()))?;
        let monitor = context.socket(zmq::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&name)?;
        socket.connect(&options.endpoint)?;
        let topic = options.topic.clone().into_bytes();
        Ok(Self { socket, monitor, topic, state: State::Connecting, until })
    }

    /// Closes it. What is returned is to be kept until it is closed.
    pub(super) fn close(self) -> Closing {
        Closing(self.monitor)
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// When it counts as failed, if it is not up by then.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    /// Looks at what has become of the connection: one step at a time, so that nobody misses that
    /// it was up.
    pub(super) fn look(&mut self, now: Duration) -> State {
        while let Ok(event) = self.monitor.recv_multipart(zmq::DONTWAIT) {
            let Some(kind) = kind(&event) else { continue };
            let before = self.state;
            self.state = state_after(before, kind);
            if self.state != before {
                return self.state;
            }
        }
        if self.state == State::Connecting && now >= self.until {
            self.state = State::Over;
        }
        self.state
    }

    pub(super) fn hear(&self) -> Result<Heard, zmq::Error> {
        let frames = match self.socket.recv_multipart(zmq::DONTWAIT) {
            Ok(frames) => frames,
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => return Ok(Heard::Nothing),
            Err(error) => return Err(error),
        };
        let Ok([topic, seq, payload]) = <[Vec<u8>; 3]>::try_from(frames) else {
            return Ok(Heard::Malformed);
        };
        match number(&seq) {
            Some(seq) if seq < SEQ_MAX && topic == self.topic => Ok(Heard::Batch { seq, payload }),
            _ => Ok(Heard::Malformed),
        }
    }

    pub(super) fn item(&self) -> zmq::PollItem<'_> {
        self.socket.as_poll_item(zmq::POLLIN)
    }

    pub(super) fn monitor_item(&self) -> zmq::PollItem<'_> {
        self.monitor.as_poll_item(zmq::POLLIN)
    }
}

fn state_after(state: State, event: zmq::SocketEvent) -> State {
    use zmq::SocketEvent as Event;
    match event {
        Event::HANDSHAKE_SUCCEEDED if state == State::Connecting => State::Up,
        Event::CLOSED
        | Event::DISCONNECTED
        | Event::CONNECT_RETRIED
        | Event::MONITOR_STOPPED
        | Event::HANDSHAKE_FAILED_NO_DETAIL
        | Event::HANDSHAKE_FAILED_PROTOCOL
        | Event::HANDSHAKE_FAILED_AUTH => State::Over,
        _ => state,
    }
}

/// What both kinds of sockets have in common.
fn common(socket: &zmq::Socket, options: &ZmqOptions) -> Result<(), zmq::Error> {
    socket.set_linger(0)?;
    socket.set_ipv6(true)?;
    socket.set_maxmsgsize(i64::try_from(options.message_bytes_max).unwrap_or(i64::MAX))
}

fn number(frame: &[u8]) -> Option<u64> {
    frame.try_into().ok().map(u64::from_be_bytes)
}

#[expect(clippy::host_endian_bytes, reason = "the monitor is in this process")]
fn native(raw: [u8; 2]) -> u16 {
    u16::from_ne_bytes(raw)
}

/// Where an engine is asked for what it has said before.
pub(super) struct Replay {
    socket: zmq::Socket,
    /// Everything that was asked for was answered.
    at_end: bool,
}

/// What is answered.
pub(super) enum Answer {
    Batch {
        seq: u64,
        payload: Vec<u8>,
    },
    End,
    /// It is no engine's message.
    Malformed,
    Nothing,
}

impl Replay {
    pub(super) fn connect(
        context: &zmq::Context,
        endpoint: &str,
        options: &ZmqOptions,
    ) -> Result<Self, zmq::Error> {
        let socket = context.socket(zmq::DEALER)?;
        common(&socket, options)?;
        // All that an engine keeps is sent in one go, and what it cannot send it drops.
        socket.set_rcvhwm(i32::try_from(options.waiting_max).unwrap_or(i32::MAX))?;
        socket.connect(endpoint)?;
        Ok(Self { socket, at_end: true })
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }

    pub(super) fn ask(&mut self, from: u64) -> Result<(), zmq::Error> {
        self.at_end = false;
        match self.socket.send_multipart([&[][..], &from.to_be_bytes()], zmq::DONTWAIT) {
            // Then nothing will be answered, which is noticed.
            Ok(()) | Err(zmq::Error::EAGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn hear(&mut self) -> Result<Answer, zmq::Error> {
        let frames = match self.socket.recv_multipart(zmq::DONTWAIT) {
            Ok(frames) => frames,
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => return Ok(Answer::Nothing),
            Err(error) => return Err(error),
        };
        let answer = read_answer(frames);
        self.at_end |= matches!(answer, Answer::End);
        Ok(answer)
    }

    pub(super) fn item(&self) -> zmq::PollItem<'_> {
        self.socket.as_poll_item(zmq::POLLIN)
    }
}

/// An empty frame, the topic in newer engines, the number, the payload.
fn read_answer(mut frames: Vec<Vec<u8>>) -> Answer {
    let payload = frames.pop();
    let seq = frames.pop().and_then(|seq| number(&seq));
    let empty = frames.first().is_some_and(Vec::is_empty);
    match (seq, payload) {
        (Some(seq), Some(payload)) if empty && frames.len() <= 2 => match seq {
            END => Answer::End,
            SEQ_MAX.. => Answer::Malformed,
            seq => Answer::Batch { seq, payload },
        },
        _ => Answer::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_three_and_of_four_frames_are_read_and_others_are_not() {
        let seq = |seq: u64| seq.to_be_bytes().to_vec();
        let (empty, topic, payload) = (Vec::new(), b"kv".to_vec(), vec![7]);
        for (frames, expected) in [
            (vec![empty.clone(), seq(5), payload.clone()], "batch"),
            (vec![empty.clone(), topic.clone(), seq(5), payload.clone()], "batch"),
            (vec![empty.clone(), seq(END), empty.clone()], "end"),
            (vec![empty.clone(), empty.clone(), seq(END), empty.clone()], "end"),
            (vec![empty.clone(), topic.clone(), seq(END), empty.clone()], "end"),
            (vec![empty.clone(), seq(1 << 63), payload.clone()], "malformed"),
            (vec![topic.clone(), seq(5), payload.clone()], "malformed"),
            (vec![empty.clone(), vec![5], payload.clone()], "malformed"),
            (vec![seq(5), payload.clone()], "malformed"),
            (vec![payload], "malformed"),
            (Vec::new(), "malformed"),
            (vec![empty.clone(), topic.clone(), topic, seq(5), empty], "malformed"),
        ] {
            let text = format!("{frames:?}");
            let answer = match read_answer(frames) {
                Answer::Batch { seq, payload } => {
                    assert_eq!((seq, payload), (5, vec![7]), "{text}");
                    "batch"
                }
                Answer::End => "end",
                Answer::Malformed => "malformed",
                Answer::Nothing => "nothing",
            };
            assert_eq!(answer, expected, "{text}");
        }
    }
}
