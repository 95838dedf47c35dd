//! Where nodes are: the addresses that were configured, and those that peers have named. So a node
//! finds all others by the address of any one.
//!
//! This is about connections alone. Who is a *member*, that is a writer whose proof a lease needs,
//! is said in logs and decided by the core: whoever is not reached is still waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Addresses that are remembered, and that are told.
pub const ADDRESSES_MAX: usize = 64;
/// An address that was only heard of, and was not reached so often, is forgotten until it is heard
/// of again.
const FAILURES_MAX: u32 = 100;
/// Of one address as it is told: 1 byte for its family, 16 for IPv6, 2 for the port.
const V6_BYTES: usize = 1 + 16 + 2;

/// The addresses that a node knows.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Heard of, and how often in vain since.
    heard: BTreeMap<SocketAddr, u32>,
    /// Not to be dialled: it is this node.
    own: BTreeSet<SocketAddr>,
    /// To be told, but dialled by configuration.
    configured: BTreeSet<SocketAddr>,
}

/// What a peer tells of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Where it listens itself: the address is that of the connection. 0: nowhere.
    pub port: u16,
    /// Others that it knows.
    pub others: Vec<SocketAddr>,
}

impl Addresses {
    /// Is to be told to others; whoever configured it has it dialled.
    pub fn configure(&mut self, address: SocketAddr) {
        self.configured.insert(address);
    }

    /// Takes what the peer at `remote` has told; answers what is new, and is to be dialled.
    pub fn hear(&mut self, remote: SocketAddr, told: &Told) -> Vec<SocketAddr> {
        let mut itself = remote;
        itself.set_port(told.port);
        let itself = (told.port > 0).then_some(itself);
        let mut new = Vec::new();
        for address in itself.into_iter().chain(told.others.iter().copied()) {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let known = self.configured.contains(&address)
                || self.own.contains(&address)
                || self.heard.get_mut(&address).map(|failures| *failures = 0).is_some();
            let real = address.port() > 0
                && !address.ip().is_unspecified()
                && !address.ip().is_multicast();
            if !known && real && self.heard.len() < ADDRESSES_MAX {
                self.heard.insert(address, 0);
                new.push(address);
            }
        }
        new
    }

    /// An address turned out to be this node's own. `true`: it is to be dialled no more.
    pub fn is_own(&mut self, address: SocketAddr) -> bool {
        if self.own.len() < ADDRESSES_MAX {
            self.own.insert(address);
        }
        self.heard.remove(&address).is_some()
    }

    /// It is not dialled after all.
    pub fn forget(&mut self, address: SocketAddr) {
        self.heard.remove(&address);
    }

    /// An address was not reached. `true`: it is to be dialled no more.
    pub fn failed(&mut self, address: SocketAddr) -> bool {
        let Some(failures) = self.heard.get_mut(&address) else { return false };
        *failures += 1;
        let over = *failures > FAILURES_MAX;
        if over {
            self.heard.remove(&address);
        }
        over
    }

    /// What a peer is told by a node that listens at `port`.
    pub fn tell(&self, port: u16) -> Told {
        let others = self.configured.iter().chain(self.heard.keys()).copied();
        Told { port, others: others.take(ADDRESSES_MAX).collect() }
    }
}

impl Told {
    /// As the body of a frame: port u16, then of each address its family (4 or 6), its bytes and
    /// its port u16.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.port.to_le_bytes().to_vec();
        for address in self.others.iter().take(ADDRESSES_MAX) {
            match address {
                SocketAddr::V4(address) => {
                    out.push(4);
                    out.extend_from_slice(&address.ip().octets());
                }
                SocketAddr::V6(address) => {
                    out.push(6);
                    out.extend_from_slice(&address.ip().octets());
                }
            }
            out.extend_from_slice(&address.port().to_le_bytes());
        }
        out
    }

    /// From a body; `None` if it is none.
    pub fn decode(body: &[u8]) -> Option<Self> {
        if body.len() > 2 + ADDRESSES_MAX * V6_BYTES {
            return None;
        }
        let (port, mut left) = body.split_first_chunk::<2>()?;
        let mut others = Vec::new();
        while let Some((family, rest)) = left.split_first() {
            let (ip, rest) = match family {
                4 => {
                    let (ip, rest) = rest.split_first_chunk::<4>()?;
                    (std::net::IpAddr::from(*ip), rest)
                }
                6 => {
                    let (ip, rest) = rest.split_first_chunk::<16>()?;
                    (std::net::IpAddr::from(*ip), rest)
                }
                _ => return None,
            };
            let (port, rest) = rest.split_first_chunk::<2>()?;
            others.push(SocketAddr::new(ip, u16::from_le_bytes(*port)));
            left = rest;
        }
        (others.len() <= ADDRESSES_MAX).then(|| Self { port: u16::from_le_bytes(*port), others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], port))
    }

    #[test]
    fn what_is_told_comes_back_and_every_cut_is_refused_or_is_less() {
        let v6 = "[2001:db8::7]:9".parse().unwrap();
        let told = Told { port: 7, others: vec![at(1, 2), v6, at(3, 4)] };
        let bytes = told.encode();
        assert_eq!(Told::decode(&bytes), Some(told.clone()));
        for cut in 0..bytes.len() {
            if let Some(less) = Told::decode(&bytes[..cut]) {
                assert!(told.others.starts_with(&less.others) && less != told, "cut {cut}");
            }
        }
        assert_eq!(Told::decode(&[7, 0, 5]), None, "a family that is none");
        assert_eq!(Told::decode(&vec![4; 2 + 7 * (ADDRESSES_MAX + 1)]), None);
    }

    #[test]
    fn an_address_is_dialled_once_and_neither_our_own_nor_one_that_is_none() {
        let mut book = Addresses::default();
        book.configure(at(1, 7));
        let told = Told { port: 7, others: vec![at(1, 7), at(3, 7), at(4, 0), at(9, 7)] };
        assert_eq!(book.hear(at(2, 50_000), &told), [at(2, 7), at(3, 7), at(9, 7)]);
        assert!(book.hear(at(2, 50_001), &told).is_empty());
        assert!(book.is_own(at(9, 7)));
        assert!(book.hear(at(2, 50_001), &told).is_empty());
        assert_eq!(book.tell(5).others, [at(1, 7), at(2, 7), at(3, 7)]);
        let nowhere = Told { port: 0, others: vec!["0.0.0.0:7".parse().unwrap()] };
        assert!(book.hear(at(8, 1), &nowhere).is_empty());
    }

    #[test]
    fn a_peer_that_makes_addresses_up_costs_a_bounded_number() {
        let mut book = Addresses::default();
        let mut new = 0;
        for port in 1..1_000 {
            new += book.hear(at(2, 9), &Told { port: 0, others: vec![at(3, port)] }).len();
        }
        assert_eq!(new, ADDRESSES_MAX);
        assert!((0..FAILURES_MAX).all(|_| !book.failed(at(3, 1))));
        assert!(book.failed(at(3, 1)), "forgotten, and there is room for another");
        assert_eq!(book.hear(at(2, 9), &Told { port: 0, others: vec![at(4, 1)] }), [at(4, 1)]);
        assert!(!book.failed(at(5, 5)), "never heard of");
    }
}
