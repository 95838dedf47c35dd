//! TCP with a peer, or a network, that cuts at each byte.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::unbounded;
use parking_lot::Mutex;

use crate::edge::{self, Fault, Handle, tcp};

const LONG: Duration = Duration::from_secs(20);
const LINES: u64 = 6;

/// A network between the two that dies in its first connection, after so many bytes of one
/// direction; it works from then on.
struct Cut {
    addr: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// Carries bytes one way, at most so many; then both ways end.
fn carry(from: &TcpStream, to: &TcpStream, limit: usize) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let (mut left, mut bytes) = (limit, [0; 512]);
    while left > 0 {
        let room = left.min(bytes.len());
        let Ok(read) = from.read(&mut bytes[..room]) else { break };
        if read == 0 || to.write_all(&bytes[..read]).is_err() {
            break;
        }
        left -= read;
    }
    from.shutdown(std::net::Shutdown::Both).unwrap_or_default();
    to.shutdown(std::net::Shutdown::Both).unwrap_or_default();
}

impl Cut {
    /// `there` and `back` are for the first connection; the second carries everything.
    fn new(target: SocketAddr, (there, back): (usize, usize)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            for (there, back) in [(there, back), (usize::MAX, usize::MAX)] {
                let Ok((sender, _)) = listener.accept() else { return };
                let Ok(receiver) = TcpStream::connect(target) else { return };
                std::thread::scope(|scope| {
                    scope.spawn(|| carry(&sender, &receiver, there));
                    carry(&receiver, &sender, back);
                });
            }
        });
        Self { addr, thread: Some(thread) }
    }
}

/// A receiver, and what it has got.
fn receiver(got: &Arc<Mutex<Vec<String>>>) -> (SocketAddr, Handle) {
    let source = tcp::listen("127.0.0.1:0").unwrap();
    let addr = source.addr().unwrap();
    let got = Arc::clone(got);
    let sink = edge::call(move |_, line: &String| {
        got.lock().push(line.clone());
        Ok(())
    });
    let pipeline = edge::from(source).into(sink);
    (addr, pipeline.set(|options| options.wait = Duration::from_millis(1)).spawn("in").unwrap())
}

fn lines() -> Vec<String> {
    (0..LINES).map(|n| format!("line {n}")).collect()
}

fn send(addr: SocketAddr) {
    let pipeline = edge::from(edge::iter(lines())).into(tcp::connect(addr).unwrap());
    let pipeline = pipeline.set(|options| options.backoff_min = Duration::from_micros(100));
    pipeline.run_to_end("out").unwrap();
}

/// After the sender has heard that all is done, the receiver has each line, once, in order: however
/// many bytes came through in either direction before the connection was cut.
#[test]
fn each_line_arrives_once_whichever_byte_the_connection_was_cut_at() {
    let bytes = "annals-lines 1\n".len() + lines().iter().map(|it| it.len() + 7).sum::<usize>();
    let acks = "at -\n".len() + 6 * usize::try_from(LINES).unwrap();
    let cuts = (0..=bytes).map(|there| (there, usize::MAX));
    let cuts = cuts.chain((0..=acks).map(|back| (usize::MAX, back)));
    for cut in cuts {
        let got = Arc::default();
        let (addr, handle) = receiver(&got);
        let mut network = Cut::new(addr, cut);
        send(network.addr);
        assert_eq!(*got.lock(), lines(), "cut at {cut:?}");
        drop(handle);
        // Where it was not cut at all, it still waits for a second connection.
        drop(TcpStream::connect(network.addr));
        network.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_receiver_that_begins_again_is_sent_what_it_has_not_and_a_stranger_is_sent_away() {
    let got = Arc::default();
    let (addr, handle) = receiver(&got);
    let mut stranger = TcpStream::connect(addr).unwrap();
    stranger.set_read_timeout(Some(LONG)).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Closed, without a word, or reset.
    let read = stranger.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{read:?}");
    send(addr);
    // A sender that was itself begun again, and sends all of it.
    send(addr);
    assert_eq!(*got.lock(), lines());
    drop(handle);
}

#[test]
fn plain_peers_are_heard_line_by_line_the_last_one_without_an_end_too() {
    let source = tcp::listen_plain("127.0.0.1:0").unwrap();
    let addr = source.addr().unwrap();
    let (sender, got) = unbounded();
    let sink = edge::call(move |_, line: &String| {
        sender.send(line.clone()).map_err(|error| Fault::fatal(error.to_string()))
    });
    let pipeline = edge::from(source).into(sink).spawn("plain").unwrap();
    let mut peer = TcpStream::connect(addr).unwrap();
    peer.write_all(b"one\r\ntwo\n\nlast").unwrap();
    drop(peer);
    for expected in ["one", "two", "", "last"] {
        assert_eq!(got.recv_timeout(LONG).unwrap(), expected);
    }
    let pipe = edge::from(edge::iter(["x".to_owned(), "y".to_owned()]));
    pipe.into(tcp::connect_plain(addr).unwrap()).run_to_end("out").unwrap();
    assert_eq!(
        (got.recv_timeout(LONG).unwrap(), got.recv_timeout(LONG).unwrap()),
        ("x".to_owned(), "y".to_owned())
    );
    drop(pipeline);
}
