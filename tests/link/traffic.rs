//! What goes over a link that is up: much of it, to slow readers, and through a bad network.

use std::time::Duration;

use annals::sync::link::frame::{FrameReject, guarded, kind};
use annals::sync::link::{Broken, Down, Link, LinkOptions, SendError, Shipped};

use super::proxy::{Proxy, Way};
use super::world::{COUNTED, Node, PATIENCE, Raw, Told, hears, local, options, who};

/// Body number `number`.
fn body(number: u64, bytes: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(bytes.max(8), number.to_le_bytes()[0]);
    body
}

/// Ships bodies from `next` on until there is no room.
fn ship(link: &Link, next: &mut u64, bytes: usize) {
    while link.ship(COUNTED, &[&body(*next, bytes)]).expect("a link") == Shipped::Sent {
        *next += 1;
    }
}

fn small() -> LinkOptions {
    LinkOptions { window_bytes: 64 << 10, outbox_bytes: 32 << 10, ..options() }
}

#[test]
fn a_slow_peer_costs_bounded_memory_and_holds_up_nobody() {
    let one = Node::new(local(1), small());
    let (slow, fast) = (Node::new(local(2), small()), Node::of(3));
    one.dial(&slow.address().to_string());
    one.dial(&fast.address().to_string());
    let (to_slow, _to_fast) = (one.link(2), one.link(3));
    slow.seen.stop();
    let mut next = 0;
    ship(&to_slow, &mut next, 1_000);
    let taken = next * 1_000;
    // The window, and the one that was begun within it.
    assert!(taken <= (64 << 10) + 1_000, "{taken} bytes taken for a peer that reads nothing");
    assert!(to_slow.parked_bytes() <= 32 << 10);
    // Beats still pass to the others, at once, and even towards the slow one nobody waits.
    for round in 0..50 {
        hears(&one, &fast, 3, format!("beat {round}").as_bytes());
        to_slow.say(kind::FIRST_MESSAGE, &[b"beat"]).expect("room for what is small");
        ship(&to_slow, &mut next, 1_000);
    }
    assert_eq!(next * 1_000, taken, "no credit came");
    slow.seen.go_on();
    // From now on as it reads; nothing is lost, nothing comes twice.
    while next < 2_000 {
        let told = one.seen.writable.lock().len();
        ship(&to_slow, &mut next, 1_000);
        one.seen.until("room", |_| (one.seen.writable.lock().len() > told).then_some(()));
    }
    slow.seen.until("all of it", |_| (slow.seen.counted.lock().0 == next).then_some(()));
    assert_eq!(slow.seen.counted.lock().1, next * 1_000);
}

/// It grants credit without end and reads nothing: what is parked is bounded all the same, and
/// what cannot be left out ends the link.
#[test]
fn a_peer_that_never_reads_is_bounded_in_whatever_it_is_sent() {
    let node = Node::new(local(1), small());
    let mut raw = Raw::link(node.address(), who(2), u32::MAX);
    let link = node.link(2);
    let mut next = 0;
    ship(&link, &mut next, 1_000);
    let parked = link.parked_bytes();
    assert!(parked > 16 << 10, "the socket takes everything: {parked} parked");
    assert!(parked <= (32 << 10) + 1_100, "{parked}");
    let mut said = 0;
    let end = loop {
        match link.say(kind::FIRST_MESSAGE, &[&[7; 500]]) {
            Ok(()) => said += 1,
            Err(error) => break error,
        }
        assert!(link.parked_bytes() <= 64 << 10, "{}", link.parked_bytes());
        assert!(said < 10_000);
    };
    assert_eq!(end, SendError::Ended);
    assert_eq!(node.seen.until_down(), Down::Stalled);
    assert_eq!(link.ship(COUNTED, &[b"more"]), Err(SendError::Ended));
    // What did leave is whole frames in their order, up to the end.
    let mut expected = 0;
    while let Some((kind, got)) = raw.next() {
        if kind == COUNTED {
            assert_eq!(got, body(expected, 1_000));
            expected += 1;
        }
    }
}

#[test]
fn a_peer_that_takes_nothing_of_what_is_parked_is_given_up() {
    let options = LinkOptions {
        stall_max: Duration::from_millis(200),
        keep_every: Duration::from_millis(50),
        ..small()
    };
    let node = Node::new(local(1), options);
    let mut raw = Raw::link(node.address(), who(2), u32::MAX);
    let link = node.link(2);
    let mut next = 0;
    ship(&link, &mut next, 1_000);
    // It is not silent: it only takes nothing.
    let mut down = None;
    while down.is_none() {
        drop(raw.send(kind::KEEP, &[]));
        down = node.seen.glance().into_iter().find(|it| matches!(it, Told::Down(..)));
    }
    let Some(Told::Down(_, why)) = down else { panic!("{down:?}") };
    // Whoever notices first: the writer's thread, or the kernel's user timeout.
    assert!(matches!(why, Down::Stalled | Down::Silent | Down::Lost { .. }), "{why}");
}

#[test]
fn frames_as_large_as_allowed_pass_and_larger_ones_are_refused_before_anything_is_sent() {
    let options = LinkOptions { frame_bytes_max: 3 << 20, ..small() };
    let (one, two) = (Node::new(local(1), options.clone()), Node::new(local(2), options));
    one.dial(&two.address().to_string());
    let link = one.link(2);
    let large = body(0, (3 << 20) - 1);
    // Larger than window and outbox: it goes alone.
    assert_eq!(link.ship(COUNTED, &[&large]), Ok(Shipped::Sent));
    assert_eq!(link.ship(COUNTED, &[&large, b"x"]), Err(SendError::TooLarge));
    assert_eq!(link.say(kind::FIRST_MESSAGE, &[&large, b"x"]), Err(SendError::TooLarge));
    hears(&one, &two, 2, b"behind it");
    assert_eq!(two.seen.counted.lock().0, 1);
    let mut next = 1;
    while next < 5 {
        let told = one.seen.writable.lock().len();
        match link.ship(COUNTED, &[&body(next, 3 << 19)]).expect("a link") {
            Shipped::Sent => next += 1,
            Shipped::Full => {
                one.seen.until("room", |_| (one.seen.writable.lock().len() > told).then_some(()));
            }
        }
    }
    two.seen.until("all of it", |_| (two.seen.counted.lock().0 == 5).then_some(()));
}

#[test]
fn what_breaks_the_rules_of_a_link_ends_it() {
    let hello = [0; 36];
    for (kind, body, broken) in [
        (kind::KNOCK, &[0; 44][..], Some(Broken::Kind(kind::KNOCK))),
        (kind::HELLO, &hello, Some(Broken::Kind(kind::HELLO))),
        (kind::REFUSE, &[], Some(Broken::Kind(kind::REFUSE))),
        (0, &[], Some(Broken::Kind(0))),
        (15, &[], Some(Broken::Kind(15))),
        (kind::CREDIT, &[1, 2], Some(Broken::Kind(kind::CREDIT))),
        (kind::CLOSE, b"enough\n", None),
    ] {
        let node = Node::new(local(1), small());
        let mut raw = Raw::link(node.address(), who(2), 1_000);
        raw.send(kind, body).expect("a peer");
        let wanted =
            broken.map_or_else(|| Down::Told { reason: "enough".to_owned() }, Down::Broken);
        assert_eq!(node.seen.until_down(), wanted, "type {kind}");
    }
    // A length beyond the limit, and a checksum that does not fit.
    let limit = u32::try_from(small().frame_bytes_max).expect("a length");
    for (bytes, reject) in [
        (
            [&guarded(limit + 1).to_le_bytes()[..], &[0; 5]].concat(),
            FrameReject::Length { bytes: limit + 1, max: limit },
        ),
        ([&guarded(1).to_le_bytes()[..], &[0; 5]].concat(), FrameReject::Checksum),
    ] {
        let node = Node::new(local(1), small());
        let mut raw = Raw::link(node.address(), who(2), 1_000);
        std::io::Write::write_all(&mut raw.stream, &bytes).expect("a peer");
        assert_eq!(node.seen.until_down(), Down::Broken(Broken::Frame(reject)));
    }
}

#[test]
fn who_ships_more_than_was_granted_is_cut_off() {
    let node = Node::new(local(1), small());
    let mut raw = Raw::link(node.address(), who(2), 1_000);
    node.seen.stop();
    let mut sent = 0;
    while sent <= 80_u64 {
        if raw.send(COUNTED, &body(sent, 1_000)).is_err() {
            break;
        }
        sent += 1;
    }
    // While nothing is taken in, nothing is granted: the first is in the hands of the one who is
    // stopped, and is only counted when that is over. So is all that is legal.
    node.seen.go_on();
    let told = node.seen.until("counted, or cut off", |told| {
        let counted = node.seen.counted.lock().0;
        let down = told.iter().any(|it| matches!(it, Told::Down(..)));
        (down || counted > 80).then_some((counted, down))
    });
    // Taken in one by one, each is granted again: that is legal.
    assert_eq!(told, (81, false));
    // One that is not: beyond what any grant can have been.
    drop(raw);
    let node = Node::new(local(1), LinkOptions { window_bytes: 0, ..small() });
    let mut raw = Raw::link(node.address(), who(2), 1_000);
    raw.send(COUNTED, &body(0, 8)).expect("a peer");
    assert_eq!(node.seen.until_down(), Down::Broken(Broken::Credit));
}

/// A bit is flipped on the way, at many places of a stream of frames: never a wrong frame.
#[test]
fn a_bit_flipped_on_the_way_ends_the_link_and_never_gives_another_frame() {
    let mut ended = 0;
    for at in (0..1_200).step_by(13) {
        let (one, two) = (Node::of(1), Node::of(2));
        let proxy = Proxy::to(two.address());
        one.dial(&proxy.address());
        hears(&one, &two, 2, b"before");
        let link = one.link(2);
        let bit = u8::try_from(at % 8).expect("a bit");
        proxy.set(Way::There, |faults| faults.flip_at = Some((proxy.passed(Way::There) + at, bit)));
        let mut next = 0;
        while one.endpoint.link(who(2).origin).is_some_and(|now| now.number() == link.number()) {
            if let Ok(Shipped::Sent) = link.ship(COUNTED, &[&body(next, 60)]) {
                next += 1;
            }
            std::thread::yield_now();
        }
        let why = two.seen.until_down();
        assert!(matches!(why, Down::Broken(_)), "byte {at}: {why}");
        ended += 1;
    }
    assert_eq!(ended, 93);
}

#[test]
fn much_passes_both_ways_at_once_over_a_slow_and_cut_up_network() {
    let (one, two) = (Node::new(local(1), small()), Node::new(local(2), small()));
    let proxy = Proxy::to(two.address());
    for way in [Way::There, Way::Back] {
        proxy.set(way, |faults| {
            faults.piece = 777;
            faults.delay = Duration::from_micros(100);
        });
    }
    one.dial(&proxy.address());
    both_ways(&one, &two, 400);
}

/// `count` bodies of different lengths each way, at once.
pub(crate) fn both_ways(one: &Node, two: &Node, count: u64) {
    let (there, back) = (one.link(2), two.link(1));
    std::thread::scope(|scope| {
        for (from, link) in [(one, &there), (two, &back)] {
            scope.spawn(move || {
                let mut next = 0;
                while next < count {
                    let told = from.seen.writable.lock().len();
                    let bytes = usize::try_from(next * 37 % 5_000).expect("a length");
                    match link.ship(COUNTED, &[&body(next, bytes)]).expect("a link") {
                        Shipped::Sent => next += 1,
                        Shipped::Full => {
                            let room =
                                |_: &[Told]| (from.seen.writable.lock().len() > told).then_some(());
                            from.seen.until("room", room);
                        }
                    }
                }
            });
        }
    });
    for node in [one, two] {
        node.seen.until("all of it", |_| (node.seen.counted.lock().0 == count).then_some(()));
    }
    assert!(PATIENCE > Duration::ZERO);
}

/// The reader turns round for frames instead of sleeping: the same comes out.
#[test]
fn a_reader_that_spins_reads_the_same() {
    let options = LinkOptions { spin: Duration::from_micros(100), ..small() };
    let (one, two) = (Node::new(local(1), options.clone()), Node::new(local(2), options));
    one.dial(&two.address().to_string());
    both_ways(&one, &two, 2_000);
}
