//! Two ends of a handshake, without a connection between them.

use super::*;
use crate::sync::link::frame::Incoming;

fn who(origin: u64) -> Who {
    Who {
        cluster: ClusterId::from_u128(0xc1),
        origin: Origin::from_u64(origin),
        incarnation: Incarnation { counter: 3, nonce: origin << 8 },
        features: 0b11,
    }
}

fn ours(origin: u64) -> Ourselves {
    let hello = format!("hello of {origin}").into_bytes();
    Ourselves { who: who(origin), versions: VERSIONS, window: 1000, hello }
}

fn key() -> Key {
    Key::from_secret(b"a secret of this cluster")
}

/// Both ends, and what each has said so far, frame by frame.
struct Pair {
    dialer: Handshake,
    acceptor: Handshake,
    frames: Vec<Vec<u8>>,
}

/// How the two ends came out of it.
type Outcome = [Result<Greeting, Option<Refused>>; 2];

impl Pair {
    fn new(dialer: Ourselves, acceptor: Ourselves, keys: [Key; 2]) -> Self {
        let mut first = Vec::new();
        let [of_dialer, of_acceptor] = keys;
        let dialer = Handshake::dial(dialer, of_dialer, [1; 32], &mut first);
        let acceptor = Handshake::answer(acceptor, of_acceptor, [2; 32]);
        Self { dialer, acceptor, frames: vec![first] }
    }

    /// Passes frames on until nobody says anything; each is changed on its way by `change`, which
    /// is told its number.
    fn run(mut self, mut change: impl FnMut(usize, &mut Vec<u8>)) -> (Outcome, Vec<Vec<u8>>) {
        let mut outcome: Outcome = [Err(None), Err(None)];
        let mut pending = vec![(false, self.frames[0].clone())];
        self.frames.clear();
        while let Some((by_acceptor, mut bytes)) = (!pending.is_empty()).then(|| pending.remove(0))
        {
            change(self.frames.len(), &mut bytes);
            self.frames.push(bytes.clone());
            let (end, at) =
                if by_acceptor { (&mut self.dialer, 0) } else { (&mut self.acceptor, 1) };
            let mut incoming = Incoming::new(end.bytes_max());
            incoming.take(&bytes);
            loop {
                incoming.set_max(end.bytes_max());
                let mut out = Vec::new();
                let step = match incoming.next_frame() {
                    Ok(None) => break,
                    Ok(Some(frame)) => end.step(frame, &mut out),
                    Err(reject) => Err(Refusal::Frame(reject).into()),
                };
                if matches!(step, Ok(Progress::Proven(_))) {
                    end.accept(&mut out);
                }
                if !out.is_empty() {
                    pending.push((at == 1, out));
                }
                match step {
                    Ok(Progress::Done(greeting)) => outcome[at] = Ok(greeting),
                    Ok(_) => {}
                    Err(refused) => {
                        outcome[at] = Err(Some(refused));
                        break;
                    }
                }
            }
        }
        (outcome, self.frames)
    }
}

fn pair() -> Pair {
    Pair::new(ours(1), ours(2), [key(), key()])
}

#[test]
fn both_ends_learn_who_the_other_is_and_what_both_can() {
    let mut acceptor = ours(2);
    acceptor.who.features = 0b110;
    let (outcome, frames) = Pair::new(ours(1), acceptor, [key(), key()]).run(|_, _| {});
    let [Ok(acceptor), Ok(dialer)] = outcome else { panic!("{outcome:?}") };
    assert_eq!(acceptor.who, Who { features: 0b10, ..who(2) });
    assert_eq!(dialer.who, Who { features: 0b10, ..who(1) });
    assert_eq!((&*acceptor.hello, &*dialer.hello), (&b"hello of 2"[..], &b"hello of 1"[..]));
    assert_eq!((acceptor.version, acceptor.window), (1, 1000));
    assert_eq!(frames.len(), 5, "KNOCK, CHALLENGE, PROVE, ACCEPT and HELLO, HELLO");
}

#[test]
fn without_the_secret_the_acceptor_says_nothing_after_its_challenge() {
    let other = Key::from_secret(b"a secret of this clustes");
    let (outcome, frames) = Pair::new(ours(1), ours(2), [other, key()]).run(|_, _| {});
    assert_eq!(outcome[1], Err(Some(Refused::Here(Refusal::Proof))));
    assert_eq!(outcome[0], Err(None), "nothing more was heard");
    assert_eq!(frames.len(), 3);
    // What was said to the one without the secret: a version and a nonce.
    let mut said = Vec::new();
    push(&mut said, kind::CHALLENGE, &[&1_u16.to_le_bytes()[..], &[2; 32]].concat());
    assert_eq!(frames[1], said);
}

#[test]
fn an_acceptor_without_the_secret_learns_no_hello() {
    // It takes whatever proof comes and answers with one of its own.
    let mut out = Vec::new();
    let mut dialer = Handshake::dial(ours(1), key(), [1; 32], &mut out);
    let mut step = |kind: u8, body: &[u8]| {
        let mut out = Vec::new();
        (dialer.step(Frame { kind, body }, &mut out), out)
    };
    let (progress, said) =
        step(kind::CHALLENGE, &[&1_u16.to_le_bytes()[..], &[9; NONCE_BYTES]].concat());
    assert_eq!(progress, Ok(Progress::More));
    assert!(!said.is_empty());
    let (progress, said) = step(kind::ACCEPT, &[&who(2).encode()[..], &[0; MAC_BYTES]].concat());
    assert_eq!(progress, Err(Refused::Here(Refusal::Proof)));
    assert!(said.is_empty());
}

/// Every bit of every frame, flipped with its checksum made to fit, so that only the proofs are
/// left to notice.
#[test]
fn every_bit_flipped_on_the_way_is_noticed_by_who_would_be_deceived() {
    let (_, frames) = pair().run(|_, _| {});
    let mut tried = 0;
    for (number, bytes) in frames.iter().enumerate() {
        let parts = split(bytes);
        for (part, (kind, body)) in parts.iter().enumerate() {
            for bit in 0..(body.len() + 1) * 8 {
                let mut changed = [&[*kind][..], body].concat();
                changed[bit / 8] ^= 1 << (bit % 8);
                let (outcome, _) = pair().run(|at, bytes| {
                    if at == number {
                        let mut all = Vec::new();
                        for (other, (kind, body)) in parts.iter().enumerate() {
                            if other == part {
                                push(&mut all, changed[0], &changed[1..]);
                            } else {
                                push(&mut all, *kind, body);
                            }
                        }
                        *bytes = all;
                    }
                });
                // The last to speak cannot know that its HELLO was changed, but the other does.
                let both = outcome.iter().all(Result::is_ok);
                assert!(!both, "frame {number}.{part} bit {bit}");
                if *kind != kind::HELLO {
                    assert!(outcome.iter().all(Result::is_err), "frame {number}.{part} bit {bit}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 2_000, "{tried}");
}

fn split(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut incoming = Incoming::new(1 << 20);
    incoming.take(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = incoming.next_frame().unwrap() {
        frames.push((frame.kind, frame.body.to_vec()));
    }
    frames
}

#[test]
fn what_was_said_once_proves_nothing_a_second_time() {
    let (_, frames) = pair().run(|_, _| {});
    // A recorded dialer, before an acceptor with a nonce of its own.
    let mut acceptor = Handshake::answer(ours(2), key(), [77; 32]);
    let mut out = Vec::new();
    for (number, wanted) in [(0, Ok(Progress::More)), (2, Err(Refused::Here(Refusal::Proof)))] {
        for (kind, body) in split(&frames[number]) {
            assert_eq!(acceptor.step(Frame { kind, body: &body }, &mut out), wanted);
        }
    }
    // A recorded acceptor, before a dialer with a nonce of its own.
    let mut dialer = Handshake::dial(ours(1), key(), [78; 32], &mut out);
    let said: Vec<_> = [1, 3].into_iter().flat_map(|number| split(&frames[number])).collect();
    let step = dialer.step(Frame { kind: said[0].0, body: &said[0].1 }, &mut out);
    assert_eq!(step, Ok(Progress::More));
    let step = dialer.step(Frame { kind: said[1].0, body: &said[1].1 }, &mut out);
    assert_eq!(step, Err(Refused::Here(Refusal::Proof)));
}

/// Somebody without the secret sends back whatever comes, on the same and on a second connection.
#[test]
fn nothing_can_be_sent_back_to_whom_it_came_from() {
    let mut said = Vec::new();
    let mut dialer = Handshake::dial(ours(1), key(), [1; 32], &mut said);
    let mut own = Handshake::answer(ours(1), key(), [3; 32]);
    let mut out = Vec::new();
    let (kind, body) = split(&said).remove(0);
    assert!(dialer.step(Frame { kind, body: &body }, &mut out).is_err(), "its own KNOCK");

    // Its own door answers its own knock: then it is found out to be itself.
    let mut dialer = Handshake::dial(ours(1), key(), [1; 32], &mut Vec::new());
    let mut out = Vec::new();
    assert_eq!(own.step(Frame { kind, body: &body }, &mut out), Ok(Progress::More));
    let (kind, body) = split(&out).remove(0);
    let mut out = Vec::new();
    assert_eq!(dialer.step(Frame { kind, body: &body }, &mut out), Ok(Progress::More));
    let (kind, body) = split(&out).remove(0);
    // Its own proof is none of an acceptor's,
    let sent_back = Frame { kind: kind::ACCEPT, body: &body };
    assert_eq!(dialer.step(sent_back, &mut Vec::new()), Err(Refused::Here(Refusal::Proof)));
    // and at its own door it is recognised.
    let mut out = Vec::new();
    let step = own.step(Frame { kind, body: &body }, &mut out);
    assert_eq!(step, Err(Refused::Here(Refusal::Myself)));
}

#[test]
fn reasons_are_told_to_those_who_have_the_secret_and_cannot_be_forged() {
    let mut cluster = ours(2);
    cluster.who.cluster = ClusterId::from_u128(0xc2);
    let mut myself = ours(2);
    myself.who = who(1);
    for (acceptor, there, here) in
        [(cluster, Refusal::Cluster, Refusal::Cluster), (myself, Refusal::Myself, Refusal::Myself)]
    {
        let pair = || Pair::new(ours(1), acceptor.clone(), [key(), key()]);
        let (outcome, frames) = pair().run(|_, _| {});
        assert_eq!(outcome[0], Err(Some(Refused::There(there))));
        assert_eq!(outcome[1], Err(Some(Refused::Here(here))));
        let (outcome, _) = pair().run(|at, bytes| {
            if at == frames.len() - 1 {
                let (kind, mut body) = split(bytes).remove(0);
                body[3] ^= 1;
                bytes.clear();
                push(bytes, kind, &body);
            }
        });
        assert_eq!(outcome[0], Err(Some(Refused::Here(Refusal::Proof))));
    }
}

#[test]
fn versions_are_agreed_on_or_refused_with_both_ranges() {
    let speaks = |min, max| Versions { min, max };
    for (here, there, common) in [
        (speaks(1, 1), speaks(1, 1), Some(1)),
        (speaks(1, 3), speaks(2, 9), Some(3)),
        (speaks(2, 9), speaks(1, 3), Some(3)),
        (speaks(1, 2), speaks(3, 4), None),
        (speaks(3, 4), speaks(1, 2), None),
    ] {
        let dialer = Ourselves { versions: here, ..ours(1) };
        let acceptor = Ourselves { versions: there, ..ours(2) };
        let (outcome, _) = Pair::new(dialer, acceptor, [key(), key()]).run(|_, _| {});
        match (outcome, common) {
            ([Ok(one), Ok(other)], Some(common)) => {
                assert_eq!((one.version, other.version), (common, common));
            }
            ([Err(Some(dialer)), Err(Some(acceptor))], None) => {
                let swapped = Refusal::Version { here: there, there: here };
                assert_eq!(dialer, Refused::There(swapped));
                assert_eq!(acceptor, Refused::Here(swapped));
            }
            other => panic!("{here} with {there}: {other:?}"),
        }
    }
}

#[test]
fn a_key_of_a_channel_is_no_key_of_a_secret() {
    let keys = [
        Key::from_secret(b"s"),
        Key::from_secret(b""),
        Key::from_channel(b"", b"s"),
        Key::from_channel(b"x", b"s"),
        Key::from_channel(b"x", b""),
    ];
    for (at, one) in keys.iter().enumerate() {
        for other in &keys[at + 1..] {
            assert_ne!(one.0, other.0);
        }
    }
    assert_eq!(format!("{:?}", keys[0]), "Key(..)");
}

#[test]
fn a_stranger_may_send_little_before_anything_is_proven() {
    let acceptor = Handshake::answer(ours(2), key(), [2; 32]);
    assert_eq!(acceptor.bytes_max(), STRANGER_BYTES_MAX);
    let long = [kind::KNOCK; 500];
    let mut incoming = Incoming::new(acceptor.bytes_max());
    incoming.take(&crate::sync::link::frame::guarded(500).to_le_bytes());
    incoming.take(&long);
    assert!(incoming.next_frame().is_err());
}
