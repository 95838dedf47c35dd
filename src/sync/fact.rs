//! Facts in logs of tokens that are about nodes rather than caches: births, joins, leaves; and
//! what they add up to, who is a member.
//!
//! Bodies of tokens, and parts of messages, so each has its bytes here. All numbers are
//! little-endian; a body that is too short, too long or says something impossible is `None`, and
//! whoever reads it takes the token for one of an unknown kind.

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::sync::domain::DomainId;
use crate::sync::message::{Mark, Marks, Place};
use crate::sync::origin::{Incarnation, Origin};

/// What a life says of the one before it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Clean {
    /// Nothing: something may be lost, so everything of the node's is to be cleared.
    Not,
    /// It was killed, its log is whole, and the machine did not restart: cursors exactly at its
    /// end go on, but domains whose changes are made outside are to be cleared.
    Inside,
    /// It ended as it should: cursors exactly at its end go on.
    Whole,
}

/// A domain in a birth.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Born {
    /// Which.
    pub domain: DomainId,
    /// Its changes may be made outside of the log.
    pub outside: bool,
}

/// Token 1 of each life: who its node was before, and its domains, which do not change in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Birth {
    /// The life before, and where its logs ended; `None` in a node's first.
    pub previous: Option<(Incarnation, Marks)>,
    /// How it ended.
    pub clean: Clean,
    /// What the node writes.
    pub domains: Vec<Born>,
}

impl Birth {
    /// As a token's body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.byte(match self.clean {
            Clean::Not => 0,
            Clean::Inside => 1,
            Clean::Whole => 2,
        });
        out.byte(u8::from(self.previous.is_some()));
        if let Some((incarnation, marks)) = &self.previous {
            out.incarnation(*incarnation);
            out.marks(marks);
        }
        out.count(self.domains.len());
        for born in &self.domains {
            out.word(born.domain.get());
            out.byte(u8::from(born.outside));
        }
        out.0
    }

    /// From a token's body.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut body = Reader(body);
        let birth = Self::read(&mut body)?;
        body.0.is_empty().then_some(birth)
    }

    fn read(body: &mut Reader<'_>) -> Option<Self> {
        let clean = match body.byte()? {
            0 => Clean::Not,
            1 => Clean::Inside,
            2 => Clean::Whole,
            _ => return None,
        };
        let previous = if body.flag()? { Some((body.incarnation()?, body.marks()?)) } else { None };
        let mut domains = Vec::new();
        for _ in 0..body.count(9)? {
            domains.push(Born { domain: DomainId::from_u64(body.word()?), outside: body.flag()? });
        }
        Some(Self { previous, clean, domains })
    }
}

/// Is a node a member, that is, somebody who may write?
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It may write: a lease needs proof of it.
    Member,
    /// It has left by itself, here: who is exactly there needs no more proof of it.
    Left(Incarnation, Marks),
    /// An operator has removed it, and vouches that it writes no more.
    Removed,
}

/// What is known of one node's membership. More of it never contradicts less: of two, the higher
/// term counts, and within a term it goes from member to left to removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// 1 at its first join, one more at each later one.
    pub term: u64,
    /// In that term.
    pub standing: Standing,
    /// What it writes, in order.
    pub domains: Vec<DomainId>,
}

impl Member {
    fn rank(&self) -> (u64, u8) {
        let rank = match self.standing {
            Standing::Member => 0,
            Standing::Left(..) => 1,
            Standing::Removed => 2,
        };
        (self.term, rank)
    }

    /// Takes in what another node knows of the same member; does that change anything?
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = self.clone();
        if other.rank() > self.rank() {
            self.standing = other.standing;
        }
        if other.term > self.term {
            self.term = other.term;
            self.domains.clone_from(&other.domains);
        } else if other.term == self.term {
            self.domains.extend_from_slice(&other.domains);
            self.domains.sort_unstable();
            self.domains.dedup();
        }
        *self != before
    }

    fn write(&self, origin: Origin, out: &mut Writer) {
        out.word(origin.get());
        out.word(self.term);
        match &self.standing {
            Standing::Member => out.byte(0),
            Standing::Left(incarnation, marks) => {
                out.byte(1);
                out.incarnation(*incarnation);
                out.marks(marks);
            }
            Standing::Removed => out.byte(2),
        }
        out.count(self.domains.len());
        for domain in &self.domains {
            out.word(domain.get());
        }
    }

    fn read(body: &mut Reader<'_>) -> Option<(Origin, Self)> {
        let origin = Origin::from_u64(body.word()?);
        let term = body.word()?;
        let standing = match body.byte()? {
            0 => Standing::Member,
            1 => Standing::Left(body.incarnation()?, body.marks()?),
            2 => Standing::Removed,
            _ => return None,
        };
        let mut domains = Vec::new();
        for _ in 0..body.count(8)? {
            domains.push(DomainId::from_u64(body.word()?));
        }
        Some((origin, Self { term, standing, domains }))
    }
}

/// Who is, and was, a member. Grows by [`merge`](Self::merge) alone, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Members(pub BTreeMap<Origin, Member>);

impl Members {
    /// Each is a member of term 1 that writes `domains`: a cluster at its foundation.
    pub fn founded(origins: &[Origin], domains: &[DomainId]) -> Self {
        let mut domains = domains.to_vec();
        domains.sort_unstable();
        domains.dedup();
        let member = Member { term: 1, standing: Standing::Member, domains };
        Self(origins.iter().map(|origin| (*origin, member.clone())).collect())
    }

    /// Takes in what another node knows; does that change anything?
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (origin, member) in &other.0 {
            if let Some(known) = self.0.get_mut(origin) {
                changed |= known.merge(member);
            } else {
                self.0.insert(*origin, member.clone());
                changed = true;
            }
        }
        changed
    }

    /// May it write?
    pub fn is_member(&self, origin: Origin) -> bool {
        self.0.get(&origin).is_some_and(|it| it.standing == Standing::Member)
    }

    /// Those that may write.
    pub fn members(&self) -> impl Iterator<Item = (Origin, &Member)> {
        self.0
            .iter()
            .filter(|(_, it)| it.standing == Standing::Member)
            .map(|(origin, it)| (*origin, it))
    }

    /// A hash of all that is known: equal where the same is known.
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write(&self.encode());
        hasher.finish()
    }

    /// As the body of a [`Join`](crate::sync::token::TokenKind::Join) or
    /// [`Leave`](crate::sync::token::TokenKind::Leave): what the record adds to what is known. For
    /// an operator's removal, the union of what a majority knew.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.count(self.0.len());
        for (origin, member) in &self.0 {
            member.write(*origin, &mut out);
        }
        out.0
    }

    /// From a body.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut body = Reader(body);
        let mut members = BTreeMap::new();
        for _ in 0..body.count(21)? {
            let (origin, member) = Member::read(&mut body)?;
            members.insert(origin, member);
        }
        body.0.is_empty().then_some(Self(members))
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn word(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&count.to_le_bytes());
    }

    fn incarnation(&mut self, incarnation: Incarnation) {
        self.word(incarnation.counter);
        self.word(incarnation.nonce);
    }

    fn marks(&mut self, marks: &Marks) {
        for mark in [marks.tokens, marks.values] {
            self.word(mark.seq);
            self.word(mark.hash);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }

    /// A number of things of at least `least` bytes each, which must be there.
    fn count(&mut self, least: usize) -> Option<usize> {
        let (count, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        (count.checked_mul(least)? <= self.0.len()).then_some(count)
    }

    fn incarnation(&mut self) -> Option<Incarnation> {
        Some(Incarnation { counter: self.word()?, nonce: self.word()? })
    }

    fn marks(&mut self) -> Option<Marks> {
        let tokens = Mark { seq: self.word()?, hash: self.word()? };
        let values = Mark { seq: self.word()?, hash: self.word()? };
        Some(Marks { tokens, values })
    }
}

/// A node that has left, as its last fact says it: where its logs end before that.
pub fn left(at: &Place) -> Standing {
    Standing::Left(at.incarnation, at.marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Members {
        let domains = vec![DomainId::of("a"), DomainId::of("b")];
        let marks = Marks { tokens: Mark { seq: 4, hash: 5 }, values: Mark::ZERO };
        let inc = Incarnation { counter: 2, nonce: 3 };
        let of = |term, standing| Member { term, standing, domains: domains.clone() };
        Members(BTreeMap::from([
            (Origin::from_u64(1), of(1, Standing::Member)),
            (Origin::from_u64(2), of(3, Standing::Left(inc, marks))),
            (Origin::from_u64(9), of(2, Standing::Removed)),
        ]))
    }

    fn birth() -> Birth {
        Birth {
            previous: Some((
                Incarnation { counter: 7, nonce: 8 },
                Marks { tokens: Mark { seq: 1, hash: 2 }, values: Mark { seq: 3, hash: 4 } },
            )),
            clean: Clean::Inside,
            domains: vec![Born { domain: DomainId::of("a"), outside: true }],
        }
    }

    #[test]
    fn facts_come_back_as_they_were_and_every_cut_of_one_is_refused() {
        let first = Birth { previous: None, clean: Clean::Not, domains: Vec::new() };
        for birth in [birth(), first] {
            let body = birth.encode();
            assert_eq!(Birth::decode(&body), Some(birth));
            for cut in 0..body.len() {
                assert_eq!(Birth::decode(&body[..cut]), None, "cut {cut}");
            }
        }
        let body = members().encode();
        assert_eq!(Members::decode(&body), Some(members()));
        for cut in 0..body.len() {
            assert_eq!(Members::decode(&body[..cut]), None, "cut {cut}");
        }
        assert_eq!(Members::decode(&[255; 64]), None, "a count that is not there");
    }

    #[test]
    fn what_is_known_of_members_is_the_same_in_whatever_order_it_was_heard() {
        let one = |term, standing| {
            let member = Member { term, standing, domains: vec![DomainId::from_u64(term)] };
            Members(BTreeMap::from([(Origin::from_u64(1), member)]))
        };
        let inc = Incarnation::default();
        let said = [
            one(1, Standing::Member),
            one(1, Standing::Left(inc, Marks::ZERO)),
            one(1, Standing::Removed),
            one(2, Standing::Member),
        ];
        for bits in 0..16_usize {
            let heard: Vec<_> = (0..4).filter(|at| bits >> at & 1 == 1).collect();
            let known = |order: &mut dyn Iterator<Item = &usize>| {
                let mut known = Members::default();
                for at in order {
                    known.merge(&said[*at]);
                }
                known
            };
            let forth = known(&mut heard.iter());
            let back = known(&mut heard.iter().rev());
            assert_eq!(forth, back, "{heard:?}");
            assert_eq!(forth.digest(), back.digest());
            if let Some(last) = heard.last() {
                let standing = said[*last].0[&Origin::from_u64(1)].standing;
                assert_eq!(forth.0[&Origin::from_u64(1)].standing, standing);
            }
        }
    }
}
