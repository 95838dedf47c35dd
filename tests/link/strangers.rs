//! Those who have not proven anything: what they cost, and what they learn.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use annals::sync::link::frame::{FRAME_BYTES_MAX, FrameReject, guarded, kind};
use annals::sync::link::handshake::STRANGER_BYTES_MAX;
use annals::sync::link::{Failed, LinkOptions, Refusal, Refused};
use rustix::net::{AddressFamily, SocketType};

use super::world::{Node, PATIENCE, Raw, Told, hears, local, options};

/// A connection from an address of its own, of all those that this machine is.
fn from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("one");
    rustix::net::bind(&socket, &SocketAddr::from((address, 0))).expect("a loopback address");
    rustix::net::connect(&socket, &to).expect("somebody listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// What comes until the end.
fn hear_out(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // Reset instead of closed: what was sent was not read.
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    all
}

#[test]
fn a_thousand_strangers_keep_nobody_out_and_learn_nothing() {
    let options = LinkOptions { strangers_max: 40, strangers_per_address_max: 4, ..options() };
    let (one, two) = (Node::new(local(1), options), Node::of(2));
    one.dial(&two.address().to_string());
    hears(&one, &two, 2, b"before");
    let mut strangers: Vec<TcpStream> = (0..1_000_u32)
        .map(|number| {
            let [low, high, ..] = (number / 5).to_le_bytes();
            from([127, 1, high, low], one.address())
        })
        .collect();
    // All but as many as may stand at the door are sent away.
    one.seen.until("all others are sent away", |told| {
        let crowd = told.iter().filter(|it| **it == Told::Failed(Failed::Crowd)).count();
        (crowd >= 960).then_some(())
    });
    let threads = std::fs::read_dir("/proc/self/task").expect("threads").count();
    assert!(threads < 400, "{threads} threads");
    // The link lives; and one that we dial is let in, though the door is full.
    hears(&two, &one, 1, b"meanwhile");
    let three = Node::of(3);
    one.dial(&three.address().to_string());
    hears(&three, &one, 1, b"in spite of all");
    let mut quiet = 0;
    for stranger in &mut strangers {
        // It may have been sent away: then this fails, now or with the next.
        drop(stranger.write_all(b"GET / HTTP/1.1\r\nHost: annals\r\n\r\n"));
        let heard = hear_out(stranger);
        assert!(heard.is_empty(), "a stranger was told {heard:?}");
        quiet += 1;
    }
    assert_eq!(quiet, 1_000);
    // They are gone, and there is room again.
    let mut late = Raw::connect(one.address());
    late.send(kind::KNOCK, &knock()).expect("a peer");
    assert_eq!(late.next().expect("an answer").0, kind::CHALLENGE);
}

fn knock() -> Vec<u8> {
    [&b"ANNLLINK"[..], &[1, 0, 1, 0], &[5; 32]].concat()
}

#[test]
fn who_says_nothing_or_a_byte_now_and_then_is_gone_at_the_deadline() {
    let options = LinkOptions { handshake_max: Duration::from_millis(300), ..options() };
    let node = Node::new(local(1), options);
    let mut silent = Raw::connect(node.address());
    let mut slow = Raw::connect(node.address());
    let mut half = Raw::connect(node.address());
    half.send(kind::KNOCK, &knock()).expect("a peer");
    assert!(half.next().is_some());
    let mut bytes = 0;
    // A length that is legal, and then the rest,
    let mut head = guarded(STRANGER_BYTES_MAX).to_le_bytes().into_iter();
    // as slowly as can be without ever being silent: a timeout for each read would never end.
    slow.stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
    loop {
        if slow.stream.write_all(&[head.next().unwrap_or(0)]).is_err() {
            break;
        }
        bytes += 1;
        assert!(bytes < 3_000, "it goes on for ever");
        match slow.stream.read(&mut [0]) {
            Ok(0) => break,
            Ok(_) => panic!("a stranger was told something"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    assert!(silent.next().is_none());
    assert!(half.next().is_none());
    node.seen.until("all three are over", |told| (told.len() >= 3).then_some(()));
    assert!(!node.seen.told().iter().any(|it| matches!(it, Told::Up(..))));
}

#[test]
fn a_long_frame_of_a_stranger_is_refused_by_its_length() {
    let node = Node::of(1);
    for length in [0, STRANGER_BYTES_MAX + 1, 1 << 20, FRAME_BYTES_MAX] {
        let mut raw = Raw::connect(node.address());
        raw.stream.write_all(&guarded(length).to_le_bytes()).expect("a peer");
        assert!(raw.next().is_none(), "{length}");
        let reject = FrameReject::Length { bytes: length, max: STRANGER_BYTES_MAX };
        let refused = Failed::Refused(Refused::Here(Refusal::Frame(reject)));
        let last =
            |told: &[Told]| (told.last() == Some(&Told::Failed(refused.clone()))).then_some(());
        node.seen.until("refused by its length", last);
    }
}
