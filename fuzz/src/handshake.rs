//! Somebody without the secret between two nodes that have it: he passes on, leaves out, changes,
//! repeats, sends back and makes up what he likes.
//!
//! If an end comes to its end, it has met the other one, and has heard of it what that said.

use annals::sync::link::frame::{Frame, Incoming, kind};
use annals::sync::link::handshake::{Handshake, Ourselves, Progress, VERSIONS};
use annals::sync::link::{Greeting, Key, Who};
use annals::sync::origin::{ClusterId, Incarnation, Origin};

/// What he does at most.
const ACTS: usize = 64;

fn ours(origin: u64) -> Ourselves {
    let who = Who {
        cluster: ClusterId::from_u128(3),
        origin: Origin::from_u64(origin),
        incarnation: Incarnation { counter: origin, nonce: 9 },
        features: 1,
    };
    Ourselves { who, versions: VERSIONS, window: 100, hello: vec![7; 5] }
}

struct End {
    handshake: Handshake,
    over: bool,
    met: Option<Greeting>,
}

impl End {
    fn hear(&mut self, bytes: &[u8], said: &mut Vec<Vec<u8>>) {
        let mut incoming = Incoming::new(self.handshake.bytes_max());
        incoming.take(bytes);
        while !self.over {
            incoming.set_max(self.handshake.bytes_max());
            let mut out = Vec::new();
            let step = match incoming.next_frame() {
                Ok(Some(frame)) => self.handshake.step(frame, &mut out),
                Ok(None) => return,
                Err(_) => {
                    self.over = true;
                    return;
                }
            };
            match step {
                Ok(Progress::Proven(_)) => self.handshake.accept(&mut out),
                Ok(Progress::Done(greeting)) => {
                    self.met = Some(greeting);
                    self.over = true;
                }
                Ok(Progress::More | Progress::Accepted(_)) => {}
                Err(_) => self.over = true,
            }
            said.extend(frames(&out));
        }
    }
}

fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut incoming = Incoming::new(1 << 20);
    incoming.take(bytes);
    let mut frames = Vec::new();
    while let Some(Frame { kind, body }) = incoming.next_frame().expect("what an end says") {
        let mut frame = Vec::new();
        annals::sync::link::frame::push(&mut frame, kind, body);
        frames.push(frame);
    }
    frames
}

/// One input: what he does, two bytes each.
pub fn run(data: &[u8]) {
    met(data);
}

/// How many of the two have come to the end.
fn met(data: &[u8]) -> usize {
    let key = || Key::from_secret(b"nobody but these two");
    let mut first = Vec::new();
    let dialer = Handshake::dial(ours(1), key(), [1; 32], &mut first);
    let acceptor = Handshake::answer(ours(2), key(), [2; 32]);
    let end = |handshake| End { handshake, over: false, met: None };
    let mut ends = [end(dialer), end(acceptor)];
    let mut said = frames(&first);
    let mut next = 0;
    for act in data.chunks_exact(2).take(ACTS) {
        let [what, which] = *act else { break };
        let to = usize::from(what >> 7);
        let chosen = said.get(usize::from(which) % said.len().max(1)).cloned().unwrap_or_default();
        let bytes = match what & 7 {
            // What is due, to whom it is due: as it is, or changed.
            0..=2 => {
                let Some(bytes) = said.get(next).cloned() else { continue };
                next += 1;
                bytes
            }
            3 => chosen,
            4 => changed(&chosen, which, what),
            5 => made_up(data, which),
            _ => continue,
        };
        let due = bytes.get(8).is_some_and(|kind| {
            matches!(*kind, kind::KNOCK | kind::PROVE) || *kind == kind::HELLO && what & 64 > 0
        });
        let to = if what & 7 <= 2 { usize::from(due) } else { to };
        ends[to].hear(&bytes, &mut said);
    }
    for (end, other) in ends.iter().zip([2, 1]) {
        if let Some(met) = &end.met {
            assert_eq!((met.who, &met.hello), (ours(other).who, &ours(other).hello));
            assert_eq!((met.version, met.window), (1, 100));
        }
    }
    ends.iter().filter(|end| end.met.is_some()).count()
}

#[test]
fn who_only_passes_on_brings_both_to_the_end() {
    assert_eq!(met(include_bytes!("../seeds/handshake/whole")), 2);
    assert_eq!(met(&[0, 0, 0, 0, 0x84, 2]), 0);
}

/// One bit of the body is another, and the checksum fits.
fn changed(bytes: &[u8], which: u8, what: u8) -> Vec<u8> {
    let Some((kind, body)) = bytes.get(8..).and_then(<[u8]>::split_first) else {
        return Vec::new();
    };
    let mut body = body.to_vec();
    let at = usize::from(which) * 3 % body.len().max(1);
    if let Some(byte) = body.get_mut(at) {
        *byte ^= 1 << (what >> 3 & 7);
    }
    let mut out = Vec::new();
    annals::sync::link::frame::push(&mut out, *kind, &body);
    out
}

/// A frame of the input's own bytes.
fn made_up(data: &[u8], which: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let body = data.get(..usize::from(which)).unwrap_or(data);
    annals::sync::link::frame::push(&mut out, 1 + which % 9, body);
    out
}
