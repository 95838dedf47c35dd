//! Links under mutual TLS.

use annals::sync::link::{Failed, LinkOptions, Local, Security, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::traffic::both_ways;
use super::world::{Node, Told, hears, local, options, who};

const NAME: &str = "annals.test";

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// What a node has, after `change`.
    fn node(&self, change: impl FnOnce(&mut CertificateParams), name: &str) -> Tls {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let authority = [self.certificate.clone()];
        Tls::new(&authority, &[certificate.der().to_vec()], key.serialize_der(), name)
            .expect("what it needs")
    }
}

fn node(origin: u64, tls: Tls) -> Node {
    Node::new(Local::new(who(origin), Security::Tls(tls)), options())
}

#[test]
fn nodes_of_one_authority_meet_under_tls_and_ship_both_ways() {
    let authority = Authority::new();
    let plain = |_: &mut CertificateParams| {};
    let (one, two) = (node(1, authority.node(plain, NAME)), node(2, authority.node(plain, NAME)));
    one.dial(&two.address().to_string());
    hears(&one, &two, 2, b"there");
    hears(&two, &one, 1, b"back");
    both_ways(&one, &two, 1_500);
}

#[test]
fn a_slow_peer_under_tls_is_bounded_too() {
    let authority = Authority::new();
    let options = LinkOptions { window_bytes: 64 << 10, outbox_bytes: 32 << 10, ..options() };
    let new = |origin| {
        let tls = authority.node(|_| {}, NAME);
        Node::new(Local::new(who(origin), Security::Tls(tls)), options.clone())
    };
    let (one, two) = (new(1), new(2));
    one.dial(&two.address().to_string());
    let link = one.link(2);
    two.seen.stop();
    let mut sent = 0_u64;
    let body =
        |number: u64| [number.to_le_bytes().to_vec(), vec![number.to_le_bytes()[0]; 992]].concat();
    while link.ship(super::world::COUNTED, &[&body(sent)]) == Ok(annals::sync::link::Shipped::Sent)
    {
        sent += 1;
    }
    assert!(sent * 1_000 <= (64 << 10) + 1_000, "{sent}");
    assert!(link.parked_bytes() <= 40 << 10, "{}", link.parked_bytes());
    two.seen.go_on();
    two.seen.until("all of it", |_| (two.seen.counted.lock().0 == sent).then_some(()));
}

#[test]
fn certificates_that_are_not_the_clusters_are_refused_by_whoever_sees_them() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let plain = |_: &mut CertificateParams| {};
    let expired = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let not_yet = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2990, 1, 1);
        params.not_after = date_time_ymd(2999, 1, 1);
    };
    let other_name = |params: &mut CertificateParams| {
        *params = CertificateParams::new(vec!["other.test".to_owned()]).expect("a name");
    };
    let good = || ours.node(plain, NAME);
    for (what, dialer, acceptor) in [
        ("another authority's dialer", theirs.node(plain, NAME), good()),
        ("another authority's acceptor", good(), theirs.node(plain, NAME)),
        ("an expired dialer", ours.node(expired, NAME), good()),
        ("an expired acceptor", good(), ours.node(expired, NAME)),
        ("a dialer that is not valid yet", ours.node(not_yet, NAME), good()),
        ("an acceptor of another name", good(), ours.node(other_name, NAME)),
        ("a dialer with another secret", good().with_secret(b"one"), good().with_secret(b"two")),
        ("a dialer with no secret", good(), good().with_secret(b"two")),
    ] {
        let (one, two) = (node(1, dialer), node(2, acceptor));
        one.dial(&two.address().to_string());
        let (here, there) = (one.seen.until_failed(), two.seen.until_failed());
        let with_secret = what.contains("secret");
        if with_secret {
            assert_eq!(here, Failed::Silence { proven: true }, "{what}");
        } else {
            let tls = matches!(here, Failed::Tls(_)) || matches!(there, Failed::Tls(_));
            assert!(tls, "{what}: {here}, {there}");
        }
        for node in [one, two] {
            assert!(!node.seen.told().iter().any(|it| matches!(it, Told::Up(..))), "{what}");
        }
    }
}

#[test]
fn a_dialer_without_tls_or_certificate_does_not_get_in() {
    let authority = Authority::new();
    let two = node(2, authority.node(|_| {}, NAME));
    let one = Node::new(local(1), options());
    one.dial(&two.address().to_string());
    one.seen.until_failed();
    assert!(matches!(two.seen.until_failed(), Failed::Tls(_)));
    // And the other way round.
    let three = node(3, authority.node(|_| {}, NAME));
    three.dial(&one.address().to_string());
    three.seen.until_failed();
    for node in [one, two, three] {
        assert!(!node.seen.told().iter().any(|it| matches!(it, Told::Up(..))));
    }
}

#[test]
fn a_bit_flipped_under_tls_ends_the_link() {
    use super::proxy::{Proxy, Way};
    let authority = Authority::new();
    // The first three bytes of a record mean nothing to TLS 1.3, and changing them changes nothing.
    for at in [3, 4, 5, 20, 60] {
        let plain = |_: &mut CertificateParams| {};
        let (one, two) =
            (node(1, authority.node(plain, NAME)), node(2, authority.node(plain, NAME)));
        let proxy = Proxy::to(two.address());
        one.dial(&proxy.address());
        hears(&one, &two, 2, b"before");
        proxy.set(Way::There, |faults| faults.flip_at = Some((proxy.passed(Way::There) + at, 0)));
        let link = one.link(2);
        for _ in 0..100 {
            let _ended = link.say(0x10, &[&[7; 100]]);
        }
        let told = two.seen.until("the end", |told| {
            told.iter().any(|it| matches!(it, Told::Down(..))).then(|| told.to_vec())
        });
        for it in told {
            if let Told::Frame(_, _, body) = it {
                assert!(body == b"before" || body == [7; 100], "{body:?}");
            }
        }
    }
}
