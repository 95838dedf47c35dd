//! The vector: how far the foreign logs go, as one value. No I/O.
//!
//! It is kept twice: as what was received, and as what is in the folder; and an open makes it
//! again, from the newest one that is stored and the frames behind that.

use std::collections::BTreeMap;

use crate::sync::fact::Birth;
use crate::sync::message::{Mark, Marks, Place};
use crate::sync::origin::{Incarnation, Lane, Origin, TokenLog};
use crate::sync::token::{Token, TokenKind, chain, split};
use crate::types::HybridTime;

/// Version of the encoding.
const VERSION: u8 = 1;

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vector {
    pub origins: BTreeMap<Origin, Known>,
    /// Who is a member, as the core says it.
    pub members: Vec<u8>,
}

/// What is known of one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub incarnation: Incarnation,
    pub diverged: bool,
    pub visible: u64,
    /// Of its life.
    pub birth: Option<Birth>,
    pub lanes: [Kept; 2],
}

/// One log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The life of this folder since which its frames follow each other: part of their stream.
    pub since: u64,
    pub floor: Mark,
    pub head: Mark,
    /// Intents that are open, and where they are.
    pub intents: BTreeMap<u64, u64>,
    /// The newest time of a token.
    pub time: HybridTime,
}

/// Records of one log that were checked and follow each other.
#[derive(Copy, Clone, Debug)]
pub(super) struct Records<'a> {
    pub log: TokenLog,
    pub first: u64,
    pub before: u64,
    pub bytes: &'a [u8],
}

/// A lane's place in a pair.
pub(super) const fn number(lane: Lane) -> usize {
    match lane {
        Lane::Tokens => 0,
        Lane::Values => 1,
    }
}

impl Known {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, diverged: false, visible: 0, birth: None, lanes: Default::default() }
    }

    pub(super) fn lane(&self, lane: Lane) -> &Kept {
        let [tokens, values] = &self.lanes;
        match lane {
            Lane::Tokens => tokens,
            Lane::Values => values,
        }
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut Kept {
        let [tokens, values] = &mut self.lanes;
        match lane {
            Lane::Tokens => tokens,
            Lane::Values => values,
        }
    }

    pub(super) fn marks(&self) -> Marks {
        let [tokens, values] = &self.lanes;
        Marks { tokens: tokens.head, values: values.head }
    }
}

impl Vector {
    /// The log, if it is kept.
    pub(super) fn get(&self, log: &TokenLog) -> Option<&Kept> {
        let known = self.origins.get(&log.origin)?;
        (known.incarnation == log.incarnation).then(|| known.lane(log.lane))
    }

    pub(super) fn get_mut(&mut self, log: &TokenLog) -> Option<&mut Kept> {
        let known = self.origins.get_mut(&log.origin)?;
        (known.incarnation == log.incarnation).then(|| known.lane_mut(log.lane))
    }

    /// Takes in records; `false` if they do not follow what is there: nothing has changed then.
    /// A log that is not there begins with them in `life`.
    pub(super) fn keep(&mut self, records: &Records<'_>, life: u64) -> bool {
        let Records { log, first, before, bytes } = *records;
        let known = self.origins.entry(log.origin).or_insert_with(|| Known::new(log.incarnation));
        if known.incarnation != log.incarnation {
            if known.incarnation > log.incarnation {
                return false;
            }
            *known = Known::new(log.incarnation);
        }
        let mut birth = None;
        let kept = known.lane_mut(log.lane);
        if kept.since == 0 {
            let floor = Mark { seq: first.saturating_sub(1), hash: before };
            *kept = Kept { since: life, floor, head: floor, ..Kept::default() };
        }
        if first != kept.head.seq + 1 || before != kept.head.hash {
            return false;
        }
        let mut rest = bytes;
        while let Ok((record, after)) = split(rest) {
            rest = after;
            kept.head.hash = chain(kept.head.hash, record);
            kept.head.seq += 1;
            let Ok(token) = Token::parse(record) else { continue };
            kept.time = kept.time.max(token.time);
            let id = token.body.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
            match (token.kind, id) {
                (TokenKind::Intent, Some(id)) => {
                    kept.intents.insert(id, token.seq);
                }
                (TokenKind::Done | TokenKind::Resolved, Some(id)) => {
                    kept.intents.remove(&id);
                }
                (TokenKind::Birth, _) => {
                    birth = Birth::decode(token.body);
                }
                _ => {}
            }
        }
        if birth.is_some() {
            known.birth = birth;
        }
        true
    }

    /// The logs of an origin begin behind `to`.
    pub(super) fn adopt(&mut self, to: &Place, visible: u64, birth: Option<&Birth>, life: u64) {
        let known = self.origins.entry(to.origin).or_insert_with(|| Known::new(to.incarnation));
        if known.incarnation != to.incarnation {
            *known = Known::new(to.incarnation);
        }
        known.diverged = to.diverged;
        known.visible = visible;
        if birth.is_some() {
            known.birth = birth.cloned();
        }
        for lane in [Lane::Tokens, Lane::Values] {
            let (kept, mark) = (known.lane_mut(lane), to.marks.of(lane));
            // What is already there stays readable, if this is where it ends.
            let goes_on = kept.since != 0 && kept.head == mark;
            if !goes_on {
                let time = kept.time;
                let intents = std::mem::take(&mut kept.intents);
                let intents = intents.into_iter().filter(|(_, seq)| *seq > mark.seq).collect();
                *kept = Kept { since: life, floor: mark, head: mark, intents, time };
            }
        }
    }

    /// Nothing of before `life` can be read: every log begins where it is.
    pub(super) fn begin_anew(&mut self, life: u64) {
        for known in self.origins.values_mut() {
            for kept in known.lanes.iter_mut().filter(|kept| kept.since != 0) {
                (kept.since, kept.floor) = (life, kept.head);
            }
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let word = |out: &mut Vec<u8>, word: u64| out.extend_from_slice(&word.to_le_bytes());
        word(&mut out, self.members.len() as u64);
        out.extend_from_slice(&self.members);
        word(&mut out, self.origins.len() as u64);
        for (origin, known) in &self.origins {
            word(&mut out, origin.get());
            word(&mut out, known.incarnation.counter);
            word(&mut out, known.incarnation.nonce);
            out.push(u8::from(known.diverged) | u8::from(known.birth.is_some()) << 1);
            word(&mut out, known.visible);
            let birth = known.birth.as_ref().map(Birth::encode).unwrap_or_default();
            word(&mut out, birth.len() as u64);
            out.extend_from_slice(&birth);
            for kept in &known.lanes {
                let Kept { since, floor, head, intents, time } = kept;
                for number in [*since, floor.seq, floor.hash, head.seq, head.hash, time.bits()] {
                    word(&mut out, number);
                }
                word(&mut out, intents.len() as u64);
                for (id, seq) in intents {
                    word(&mut out, *id);
                    word(&mut out, *seq);
                }
            }
        }
        out
    }

    /// `None` for what no vector is.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let mut input = Input(rest);
        let members = input.count(1)?;
        let (members, rest) = input.0.split_at_checked(members)?;
        let mut vector = Self { members: members.to_vec(), ..Self::default() };
        input.0 = rest;
        for _ in 0..input.count(8)? {
            let origin = Origin::from_u64(input.word()?);
            let mut known =
                Known::new(Incarnation { counter: input.word()?, nonce: input.word()? });
            let (flags, rest) = input.0.split_first()?;
            input.0 = rest;
            known.diverged = flags & 1 != 0;
            known.visible = input.word()?;
            let birth = input.count(1)?;
            let (birth, rest) = input.0.split_at_checked(birth)?;
            input.0 = rest;
            if flags & 2 != 0 {
                known.birth = Some(Birth::decode(birth)?);
            }
            for kept in &mut known.lanes {
                kept.since = input.word()?;
                kept.floor = Mark { seq: input.word()?, hash: input.word()? };
                kept.head = Mark { seq: input.word()?, hash: input.word()? };
                kept.time = HybridTime::from_bits(input.word()?);
                for _ in 0..input.count(16)? {
                    kept.intents.insert(input.word()?, input.word()?);
                }
            }
            vector.origins.insert(origin, known);
        }
        input.0.is_empty().then_some(vector)
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }

    /// A number of things of at least `least` bytes each, which must be there.
    fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(self.word()?).ok()?;
        (count.checked_mul(least)? <= self.0.len()).then_some(count)
    }
}
