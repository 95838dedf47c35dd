//! Which of two connections with one peer stays.

use crate::sync::link::handshake::Who;
use crate::sync::origin::Origin;

/// What becomes of a connection with somebody with whom there is a link.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The link stays; the connection is refused.
    Held,
    /// The connection takes its place.
    Offered,
    /// Both: it is another life of the same node, which is over or a copy, and has to hear so from
    /// the layer above.
    Beside,
}

/// Decides between a link that is up and a connection with the same peer: the later life; of one
/// life that which the lesser origin dialled, so that both ends decide alike; of one dialer the
/// newer, for it would not have dialled had the older one lived.
pub(super) fn choose(us: Origin, held: (&Who, Origin), offered: (&Who, Origin)) -> Choice {
    let [held_life, offered_life] = [held.0.incarnation, offered.0.incarnation];
    if held_life != offered_life {
        return if held_life < offered_life { Choice::Offered } else { Choice::Beside };
    }
    let stays = us.min(offered.0.origin);
    if offered.1 == held.1 || offered.1 == stays { Choice::Offered } else { Choice::Held }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::origin::{ClusterId, Incarnation};

    fn who(origin: u64, counter: u64, nonce: u64) -> Who {
        Who {
            cluster: ClusterId::from_u128(1),
            origin: Origin::from_u64(origin),
            incarnation: Incarnation { counter, nonce },
            features: 0,
        }
    }

    /// Two nodes with two connections, one dialled by each: seen from both ends, in both orders of
    /// arrival, the same one stays.
    #[test]
    fn both_ends_keep_the_same_one_of_two_connections_in_whatever_order_they_come() {
        let (one, two) = (who(1, 1, 1), who(2, 1, 2));
        let kept = |us: Who, peer: Who, first: Origin, second: Origin| match choose(
            us.origin,
            (&peer, first),
            (&peer, second),
        ) {
            Choice::Held => first,
            Choice::Offered => second,
            Choice::Beside => panic!("it is the same life"),
        };
        for (us, peer) in [(one, two), (two, one)] {
            for (first, second) in [(one.origin, two.origin), (two.origin, one.origin)] {
                assert_eq!(kept(us, peer, first, second), one.origin);
            }
        }
    }

    #[test]
    fn a_later_life_takes_the_place_and_an_earlier_or_a_copied_one_stands_beside_it() {
        let us = Origin::from_u64(1);
        let peer = |counter, nonce| who(2, counter, nonce);
        for dialers in [[1, 1], [1, 2], [2, 1], [2, 2]] {
            let [held, offered] = dialers.map(Origin::from_u64);
            let choice = |one: Who, other: Who| choose(us, (&one, held), (&other, offered));
            assert_eq!(choice(peer(3, 1), peer(4, 9)), Choice::Offered);
            assert_eq!(choice(peer(3, 1), peer(2, 9)), Choice::Beside);
            assert_eq!(choice(peer(3, 9), peer(3, 1)), Choice::Beside, "a copy");
        }
    }
}
