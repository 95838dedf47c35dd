//! Every message there and back, and bytes that are none.

use super::*;
use crate::sync::fact::{Born, Clean, Member, Standing};

/// splitmix64.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Small, large and in between.
    fn number(&mut self) -> u64 {
        let bits = self.word() % 65;
        if bits == 0 { 0 } else { self.word() >> (64 - bits) }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn list<T>(&mut self, most: u64, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }

    fn origin(&mut self) -> Origin {
        Origin::from_u64(self.number())
    }

    fn incarnation(&mut self) -> Incarnation {
        Incarnation { counter: self.number(), nonce: self.word() }
    }

    fn marks(&mut self) -> Marks {
        let tokens = Mark { seq: self.number(), hash: self.word() };
        Marks { tokens, values: Mark { seq: self.number(), hash: self.word() } }
    }

    fn place(&mut self) -> Place {
        Place {
            origin: self.origin(),
            incarnation: self.incarnation(),
            marks: self.marks(),
            diverged: self.flag(),
        }
    }

    fn log(&mut self) -> TokenLog {
        let lane = if self.flag() { Lane::Tokens } else { Lane::Values };
        TokenLog { origin: self.origin(), incarnation: self.incarnation(), lane }
    }

    fn domain(&mut self) -> DomainId {
        DomainId::from_u64(self.word())
    }

    fn time(&mut self) -> Duration {
        Duration::from_nanos(self.number())
    }

    fn birth(&mut self) -> Birth {
        let clean =
            [Clean::Not, Clean::Inside, Clean::Whole][usize::try_from(self.below(3)).unwrap()];
        Birth {
            previous: self.flag().then(|| (self.incarnation(), self.marks())),
            clean,
            domains: self.list(3, |it| Born { domain: it.domain(), outside: it.flag() }),
        }
    }

    fn members(&mut self) -> Members {
        let members = self.list(3, |it| {
            let standing = match it.below(3) {
                0 => Standing::Member,
                1 => Standing::Left(it.incarnation(), it.marks()),
                _ => Standing::Removed,
            };
            let domains = it.list(3, Self::domain);
            (it.origin(), Member { term: it.number(), standing, domains })
        });
        Members(members.into_iter().collect())
    }

    fn refusal(&mut self) -> Refusal {
        match self.below(12) {
            0 => Refusal::Cluster,
            1 => Refusal::Protocol(u16::try_from(self.below(1 << 16)).unwrap()),
            2 => Refusal::Skew(self.time()),
            3 => Refusal::Schema {
                domain: self.domain(),
                theirs: self.number(),
                ours: self.number(),
            },
            4 => Refusal::Fenced(self.incarnation()),
            5 => Refusal::Removed,
            6 => Refusal::Broken(Breach::Hole),
            7 => Refusal::Broken(Breach::Damaged),
            8 => Refusal::Broken(Breach::Turn),
            9 => Refusal::Broken(Breach::Size),
            10 => Refusal::Sponsor,
            _ => Refusal::Busy,
        }
    }

    /// One of the sort `which`; `None` behind the last.
    fn message(&mut self, which: u8) -> Option<Message> {
        Some(match which {
            0 => Message::Hello(Hello {
                cluster: ClusterId::from_u128(
                    u128::from(self.word()) << 64 | u128::from(self.word()),
                ),
                origin: self.origin(),
                incarnation: self.incarnation(),
                protocol: u16::try_from(self.below(1 << 16)).unwrap(),
                features: self.number(),
                time: HybridTime::from_bits(self.number()),
                term: self.number(),
                domains: self.list(3, |it| Schema { domain: it.domain(), schema: it.number() }),
            }),
            1 => Message::Have { places: self.list(3, Self::place), whole: self.flag() },
            2 => Message::Want {
                origin: self.origin(),
                ask: self.number(),
                at: self.flag().then(|| self.place()),
            },
            3 => Message::Unwant { origin: self.origin() },
            4 => Message::From { ask: self.number(), at: self.place() },
            5 => Message::Gap(Gap {
                floor: self.place(),
                head: self.marks(),
                time: HybridTime::from_bits(self.number()),
                birth: self.flag().then(|| self.birth()),
            }),
            6 => Message::NewInc {
                origin: self.origin(),
                incarnation: self.incarnation(),
                birth: self.birth(),
            },
            7 => Message::Diverged { at: self.place() },
            8 => Message::Ack(self.list(3, |it| Ack {
                log: it.log(),
                durable: it.number(),
                applied: it.number(),
            })),
            9 => Message::Credit { bytes: self.number() },
            10 => Message::Ping { n: self.number() },
            11 => Message::Beat(Beat {
                echo: self.number(),
                incarnation: self.incarnation(),
                head: self.marks(),
                visible: self.number(),
                age: self.flag().then(|| self.time()),
                but: self
                    .list(3, |it| But { origin: it.origin(), age: it.flag().then(|| it.time()) }),
                marks: self.list(3, |it| (it.origin(), it.incarnation(), it.number())),
                members: self.word(),
            }),
            12 => Message::Members(self.members()),
            13 => Message::Who { ask: self.number() },
            14 => Message::Knows { ask: self.number(), members: self.members() },
            15 => Message::Join { domains: self.list(3, Self::domain) },
            16 => Message::Welcome { term: self.number(), members: self.members() },
            17 => Message::Bye,
            18 => Message::Refused(self.refusal()),
            _ => return None,
        })
    }
}

/// Messages of every sort, `rounds` of each.
#[expect(clippy::print_stdout, reason = "a failure is to say its seed")]
fn each(rounds: u64, mut with: impl FnMut(&Message)) {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("ANNALS_SEED={seed}");
    for round in 0..rounds {
        let mut random = Random(seed + round);
        let mut which = 0;
        while let Some(message) = random.message(which) {
            with(&message);
            which += 1;
        }
        assert_eq!(which, 19, "as many sorts as there are messages");
    }
}

fn bytes_of(message: &Message) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    (encode(message, &mut bytes), bytes)
}

#[test]
fn every_message_comes_back_as_it_was_said() {
    each(2_000, |message| {
        let (kind, bytes) = bytes_of(message);
        assert_eq!(decode(kind, &bytes), Ok(Said::Message(message.clone())));
        if let Message::Hello(hello) = message {
            assert_eq!(encode_hello(hello), bytes);
            assert_eq!(decode_hello(&bytes).as_ref(), Ok(hello));
        }
    });
}

#[test]
fn each_sort_of_message_has_a_type_of_its_own_that_never_changes() {
    let mut kinds = std::collections::BTreeSet::new();
    each(1, |message| {
        kinds.insert(bytes_of(message).0);
    });
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (0x10..0x23).collect::<Vec<_>>());
}

#[test]
fn every_cut_and_every_byte_too_many_is_refused() {
    each(40, |message| {
        let (kind, bytes) = bytes_of(message);
        for cut in 0..bytes.len() {
            let cut_short = decode(kind, &bytes[..cut]);
            assert!(cut_short.is_err(), "{message:?} cut to {cut}: {cut_short:?}");
        }
        let long = [&bytes[..], &[0]].concat();
        assert_eq!(decode(kind, &long), Err(WireReject::Long(kind)), "{message:?}");
    });
}

/// A flipped bit gives another message or none (frames have checksums; this is about what is made
/// of hostile bytes): whatever is taken says exactly the bytes that it was made of.
#[test]
fn whatever_is_taken_says_exactly_its_bytes() {
    each(20, |message| {
        let (kind, bytes) = bytes_of(message);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Said::Message(other)) = decode(kind, &bad) {
                assert_ne!(&other, message, "bit {bit} means nothing");
                // Members are a map: their order on the wire is not kept, nor two of one name.
                let a_map = matches!(
                    other,
                    Message::Members(_) | Message::Knows { .. } | Message::Welcome { .. }
                );
                assert!(a_map || bytes_of(&other).1 == bad, "bit {bit} of {message:?}");
            }
        }
    });
}

#[test]
fn hostile_lengths_are_refused_before_anything_is_made_of_them() {
    let mut body = vec![0];
    for count in [1, 2, 1_025, 1 << 20, u32::MAX] {
        body.truncate(1);
        body.extend_from_slice(&count.to_le_bytes());
        assert_eq!(decode(HAVE, &body), Err(WireReject::Short(HAVE)), "{count}");
        assert_eq!(decode(MEMBERS, &body[1..]), Err(WireReject::Short(MEMBERS)), "{count}");
    }
    // A list that is there, but longer than is allowed.
    let place = Random(1).place();
    for (count, taken) in [(ORIGINS_MAX, true), (ORIGINS_MAX + 1, false)] {
        let have = Message::Have { places: vec![place; count], whole: true };
        let (kind, bytes) = bytes_of(&have);
        assert_eq!(decode(kind, &bytes).is_ok(), taken, "{count} places");
    }
    let domains = vec![DomainId::of("a"); DOMAINS_MAX + 1];
    let (kind, bytes) = bytes_of(&Message::Join { domains });
    assert!(decode(kind, &bytes).is_err());
}

#[test]
fn unknown_types_are_refused_but_for_those_that_may_be_skipped() {
    for kind in 0..=u8::MAX {
        let wanted = match kind {
            0x10..0x23 | TOKENS => continue,
            0x40..0x80 => Ok(Said::Skipped),
            _ => Err(WireReject::Unknown(kind)),
        };
        assert_eq!(decode(kind, &[1, 2, 3]), wanted, "type {kind}");
    }
}

#[test]
fn tokens_are_their_head_and_then_the_records_as_they_are() {
    let mut random = Random(3);
    for bytes in [&b""[..], b"records"] {
        let tokens = Tokens {
            log: random.log(),
            first: random.number(),
            before: random.word(),
            visible: random.number(),
            bytes,
        };
        let body = [&encode_tokens(&tokens)[..], bytes].concat();
        assert_eq!(decode(TOKENS, &body), Ok(Said::Tokens(tokens)));
        for cut in 0..TOKENS_HEAD {
            assert_eq!(decode(TOKENS, &body[..cut]), Err(WireReject::Short(TOKENS)));
        }
        let mut bad = body.clone();
        bad[24] = 2;
        assert_eq!(decode(TOKENS, &bad), Err(WireReject::Value(TOKENS)), "a third lane");
    }
}
