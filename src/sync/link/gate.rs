//! How many strangers may stand at the door: connections that have not yet proven anything.
//!
//! Each costs a thread, a socket and a little memory until it has proven itself or its time is
//! over. Addresses that we dial ourselves are not strangers: others cannot take their places.

use std::collections::HashMap;
use std::net::IpAddr;

/// Counts them.
#[derive(Debug)]
pub struct Gate {
    max: u32,
    per_address_max: u32,
    strangers: u32,
    by_address: HashMap<IpAddr, u32>,
}

impl Gate {
    /// At most `max` strangers, and `per_address_max` connections of one address.
    pub fn new(max: u32, per_address_max: u32) -> Self {
        Self { max, per_address_max, strangers: 0, by_address: HashMap::new() }
    }

    /// May one more come in? `known`: its address is one that we dial. Who came in goes out by
    /// [`leave`](Self::leave), with the same arguments.
    pub fn enter(&mut self, address: IpAddr, known: bool) -> bool {
        if !known && self.strangers >= self.max {
            return false;
        }
        let here = self.by_address.entry(network(address)).or_insert(0);
        if *here >= self.per_address_max {
            return false;
        }
        *here += 1;
        self.strangers += u32::from(!known);
        true
    }

    /// It has proven itself, or is gone.
    pub fn leave(&mut self, address: IpAddr, known: bool) {
        let address = network(address);
        if let Some(here) = self.by_address.get_mut(&address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                self.by_address.remove(&address);
            }
        }
        self.strangers = self.strangers.saturating_sub(u32::from(!known));
    }
}

/// What one person has as a matter of course: an IPv4 address, or 2^64 IPv6 addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn strangers_are_limited_in_all_and_by_address_and_leave_room_behind() {
        let mut gate = Gate::new(3, 2);
        assert!(gate.enter(address(1), false) && gate.enter(address(1), false));
        assert!(!gate.enter(address(1), false), "three of one address");
        assert!(gate.enter(address(2), false));
        assert!(!gate.enter(address(3), false), "four in all");
        gate.leave(address(1), false);
        assert!(gate.enter(address(3), false));
        for last in [1, 2, 3] {
            gate.leave(address(last), false);
        }
        assert!(gate.by_address.is_empty() && gate.strangers == 0);
    }

    #[test]
    fn strangers_do_not_take_the_place_of_an_address_that_is_dialled() {
        let mut gate = Gate::new(2, 2);
        assert!(gate.enter(address(1), false) && gate.enter(address(2), false));
        assert!(gate.enter(address(9), true) && gate.enter(address(9), true));
        assert!(!gate.enter(address(9), true), "even they have an end");
    }

    #[test]
    fn all_addresses_of_one_ipv6_network_count_as_one() {
        let mut gate = Gate::new(10, 1);
        assert!(gate.enter("2001:db8::1".parse().unwrap(), false));
        assert!(!gate.enter("2001:db8::2".parse().unwrap(), false));
        assert!(gate.enter("2001:db8:0:1::2".parse().unwrap(), false));
        assert!(gate.enter("::ffff:10.0.0.1".parse().unwrap(), false));
        assert!(!gate.enter(address(1), false), "the same, mapped");
    }
}
