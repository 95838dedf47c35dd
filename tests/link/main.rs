//! Links between nodes over real sockets, through a network that loses, holds, cuts and changes.

mod proxy;
mod strangers;
#[cfg(feature = "tls")]
mod tls;
mod traffic;
mod world;

use std::time::Duration;

use annals::sync::link::{Down, Failed, Key, Refusal, Refused, Security, Versions};
use annals::sync::origin::ClusterId;

use proxy::{Proxy, Way};
use world::{Node, PATIENCE, Seen, Told, hears, local, options, who};

#[test]
fn two_nodes_meet_and_hear_each_other() {
    let (one, two) = (Node::of(1), Node::of(2));
    one.dial(&two.address().to_string());
    let greeting = one.seen.until("up", |told| {
        told.iter().find_map(|it| if let Told::Up(_, it) = it { Some(it.clone()) } else { None })
    });
    assert_eq!((greeting.who, greeting.version), (who(2), 1));
    assert_eq!(greeting.hello, b"hello");
    hears(&one, &two, 2, b"from one");
    hears(&two, &one, 1, b"from two");
    drop(two);
    let why = one.seen.until_down();
    assert_eq!(why, Down::Told { reason: "this node closes".to_owned() });
}

/// Both dial at the same moment, again and again.
#[test]
fn of_two_connections_that_both_dialled_both_keep_the_same() {
    for round in 0..20 {
        let (one, two) = (Node::of(1), Node::of(2));
        let proxies = [Proxy::to(two.address()), Proxy::to(one.address())];
        std::thread::scope(|scope| {
            scope.spawn(|| one.dial(&proxies[0].address()));
            scope.spawn(|| two.dial(&proxies[1].address()));
        });
        // It ends with that of the lesser, at both ends, and it is the only one.
        for (node, peer) in [(&one, 2), (&two, 1)] {
            node.seen.until("the one that stays", |told| {
                let up = Seen::up_now(told);
                assert!(up.len() <= 1, "two at a time: {told:?}");
                let link = node.endpoint.link(who(peer).origin)?;
                (link.dialer() == who(1).origin && up == [link.number()]).then_some(())
            });
        }
        let text = format!("round {round}");
        hears(&one, &two, 2, text.as_bytes());
        hears(&two, &one, 1, text.as_bytes());
        for node in [&one, &two] {
            assert_eq!(node.endpoint.links().len(), 1);
        }
    }
}

/// The connection is lost at every byte of the handshake, in both directions, and behind it.
#[test]
fn a_connection_lost_at_any_byte_of_the_handshake_is_made_again() {
    let mut whole = None;
    for way in [Way::There, Way::Back] {
        for cut in 0.. {
            let (one, two) = (Node::of(1), Node::of(2));
            let proxy = Proxy::to(two.address());
            proxy.set(way, |faults| faults.cut_at = Some(cut));
            one.dial(&proxy.address());
            one.link(2);
            two.link(1);
            hears(&one, &two, 2, b"there");
            hears(&two, &one, 1, b"back");
            for node in [&one, &two] {
                assert_eq!(Seen::up_now(&node.seen.told()).len(), 1, "{way:?} cut at {cut}");
            }
            let cut_in_handshake = one.seen.told().iter().any(|it| matches!(it, Told::Failed(_)));
            if !cut_in_handshake {
                // The cut lies behind the dialer's handshake: what it says or hears next.
                assert!(cut > 100, "{way:?} cut at {cut} was not noticed");
                whole = Some(cut);
            }
            if cut > 260 {
                break;
            }
        }
        assert!(whole.take().is_some(), "{way:?}: no cut lay behind the handshake");
    }
}

#[test]
fn another_secret_cluster_or_version_is_refused_with_the_reason_where_it_may_be_known() {
    let secret = |secret: &[u8]| {
        let mut local = local(1);
        local.security = Security::Secret(Key::from_secret(secret));
        local
    };
    let mut cluster = local(1);
    cluster.who.cluster = ClusterId::from_u128(8);
    let mut version = local(1);
    version.versions = Versions { min: 2, max: 3 };
    let (ours, theirs) = (version.versions, local(2).versions);
    let here = |refusal| Failed::Refused(Refused::Here(refusal));
    let there = |refusal| Failed::Refused(Refused::There(refusal));
    for (dialer, of_dialer, of_acceptor) in [
        (secret(b"another"), Failed::Silence { proven: true }, here(Refusal::Proof)),
        (cluster, there(Refusal::Cluster), here(Refusal::Cluster)),
        (
            version,
            there(Refusal::Version { here: theirs, there: ours }),
            here(Refusal::Version { here: theirs, there: ours }),
        ),
        (local(2), there(Refusal::Myself), here(Refusal::Myself)),
    ] {
        let (one, two) = (Node::new(dialer, options()), Node::of(2));
        one.dial(&two.address().to_string());
        assert_eq!(one.seen.until_failed(), of_dialer);
        assert_eq!(two.seen.until_failed(), of_acceptor);
        for node in [one, two] {
            assert!(!node.seen.told().iter().any(|it| matches!(it, Told::Up(..))));
        }
    }
}

#[test]
fn a_later_life_takes_the_place_of_an_earlier_which_comes_back_only_beside_it() {
    let one = Node::of(1);
    let mut later = local(2);
    later.who.incarnation.counter = 2;
    let first = Node::of(2);
    first.dial(&one.address().to_string());
    let old = one.link(2);
    let second = Node::new(later, options());
    second.dial(&one.address().to_string());
    second.link(1);
    hears(&second, &one, 1, b"the second");
    assert_ne!(one.link(2).number(), old.number());
    assert_eq!(one.seen.until_down(), Down::Replaced);
    // The first dials again, and is met: to be told by whoever is above that it is over.
    hears(&first, &one, 1, b"the first, again");
    assert_eq!(one.link(2).who().incarnation.counter, 2);
    assert_eq!(one.endpoint.links().len(), 2);
    drop(first);
    one.seen.until("the end of the first", |told| (Seen::up_now(told).len() == 1).then_some(()));
    assert_eq!(one.link(2).who().incarnation.counter, 2);
    hears(&second, &one, 1, b"the second, still");
}

#[test]
fn two_lives_of_one_node_meet_so_that_one_can_be_told() {
    let one = Node::of(1);
    let mut copy = local(1);
    copy.who.incarnation.counter = 5;
    let copy = Node::new(copy, options());
    copy.dial(&one.address().to_string());
    for (node, counter) in [(&one, 5), (&copy, 1)] {
        node.seen.until("the other life", |told| {
            let met = told.iter().find_map(|it| {
                if let Told::Up(_, it) = it { Some(it.who.incarnation.counter) } else { None }
            })?;
            (met == counter).then_some(())
        });
    }
}

#[test]
fn a_peer_that_has_fallen_silent_is_noticed_from_both_ends_and_found_again() {
    for way in [Way::There, Way::Back] {
        let options = annals::sync::link::LinkOptions {
            keep_every: Duration::from_millis(50),
            idle_max: Duration::from_millis(400),
            ..options()
        };
        let one = Node::new(local(1), options.clone());
        let two = Node::new(local(2), options);
        let proxy = Proxy::to(two.address());
        one.dial(&proxy.address());
        hears(&one, &two, 2, b"before");
        proxy.set(way, |faults| faults.held = true);
        let (deaf, other) = if way == Way::There { (&two, &one) } else { (&one, &two) };
        assert_eq!(deaf.seen.until_down(), Down::Silent);
        // The other hears that it was given up, or is silent with the next connection's attempts.
        other.seen.until_down();
        proxy.set(way, |faults| faults.held = false);
        hears(&one, &two, 2, b"after");
        hears(&two, &one, 1, b"after, too");
    }
}

/// The lesser origin has dialled, and its end does not know that the connection is dead: the other
/// comes back from elsewhere, which at first loses against the one that is held.
#[test]
fn a_dead_link_does_not_stand_in_the_way_of_a_living_one() {
    let patient =
        annals::sync::link::LinkOptions { answer_max: Duration::from_millis(100), ..options() };
    let one = Node::new(local(1), patient);
    let two = Node::of(2);
    let proxy = Proxy::to(two.address());
    one.dial(&proxy.address());
    hears(&one, &two, 2, b"before");
    let dead = one.link(2);
    for way in [Way::There, Way::Back] {
        proxy.set(way, |faults| faults.held = true);
    }
    // Nobody tells node one that this life of node two has lost it.
    drop(two);
    let again = Node::of(2);
    again.dial(&one.address().to_string());
    hears(&again, &one, 1, b"after");
    assert_ne!(one.link(2).number(), dead.number());
    assert_eq!(one.seen.until_down(), Down::Silent);
}

#[test]
fn a_severed_link_comes_back_however_often() {
    let (one, two) = (Node::of(1), Node::of(2));
    let proxy = Proxy::to(two.address());
    one.dial(&proxy.address());
    for round in 0..30 {
        hears(&one, &two, 2, format!("there {round}").as_bytes());
        hears(&two, &one, 1, format!("back {round}").as_bytes());
        proxy.sever();
    }
    assert!(proxy.connections() >= 30);
}

#[test]
fn an_address_that_is_forgotten_is_dialled_no_more() {
    let (one, two) = (Node::of(1), Node::of(2));
    let proxy = Proxy::to(two.address());
    one.dial(&proxy.address());
    one.dial(&proxy.address());
    assert_eq!(one.endpoint.dialled(), [proxy.address()]);
    hears(&one, &two, 2, b"hello");
    one.endpoint.forget(&proxy.address());
    assert_eq!(one.endpoint.dialled().len(), 0);
    let connections = proxy.connections();
    proxy.sever();
    one.seen.until_down();
    // It would be dialled again within milliseconds; a second address shows that time has passed.
    let other = Proxy::to(two.address());
    one.dial(&other.address());
    hears(&one, &two, 2, b"by another way");
    assert_eq!(proxy.connections(), connections);
}

#[test]
fn a_closed_endpoint_has_no_threads_and_takes_nobody() {
    let names = |prefix: &str| {
        let mut count = 0;
        for task in std::fs::read_dir("/proc/self/task").expect("threads") {
            let path = task.expect("a thread").path().join("comm");
            // It may be gone by now.
            let name = std::fs::read_to_string(path).unwrap_or_default();
            count += usize::from(name.trim() == prefix);
        }
        count
    };
    // Other tests run beside this one: names of its own would be better, but there are none; so
    // the end is that `close` comes back, having joined all, and that nobody answers.
    let (one, two) = (Node::of(1), Node::of(2));
    // Nobody is at this address, and nobody will say so.
    two.dial("127.0.0.1:9");
    one.dial(&two.address().to_string());
    hears(&one, &two, 2, b"hello");
    assert!(names("annals-link") > 0);
    let address = two.address();
    two.endpoint.close();
    two.endpoint.close();
    assert!(std::net::TcpStream::connect_timeout(&address, PATIENCE).is_err());
    let told = two.seen.told();
    assert!(Seen::up_now(&told).is_empty(), "every link that was up was told down: {told:?}");
    two.endpoint.dial(&one.address().to_string()).expect("no thread is needed");
    assert!(two.endpoint.links().is_empty());
}
