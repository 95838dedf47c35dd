//! A node's disk: its own logs with what of them is durable, others' logs, and the small facts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sync::domain::DomainId;
use crate::sync::fact::{Birth, Members};
use crate::sync::message::{Mark, Marks, Place};
use crate::sync::origin::{Incarnation, Lane, Origin, TokenLog};
use crate::sync::replica::{Logs, Previous};
use crate::sync::sim::app::{Said, said};
use crate::sync::token::{Token, TokenKind, chain};
use crate::types::HybridTime;

/// One log of tokens, with a floor, and an end up to which it survives power loss.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) log: TokenLog,
    pub(super) floor: Mark,
    bytes: Vec<u8>,
    /// Of each token behind the floor: where it ends, the running hash, what it says.
    tokens: Vec<(usize, u64, Said)>,
    pub(super) durable: u64,
}

impl Chain {
    pub(super) fn new(log: TokenLog, floor: Mark) -> Self {
        Self { log, floor, bytes: Vec::new(), tokens: Vec::new(), durable: floor.seq }
    }

    pub(super) fn head(&self) -> Mark {
        let seq = self.floor.seq + self.tokens.len() as u64;
        Mark { seq, hash: self.tokens.last().map_or(self.floor.hash, |it| it.1) }
    }

    fn at(&self, seq: u64) -> usize {
        usize::try_from(seq - self.floor.seq).unwrap()
    }

    pub(super) fn hash_at(&self, seq: u64) -> Option<u64> {
        if seq < self.floor.seq || seq > self.head().seq {
            return None;
        }
        let at = self.at(seq);
        Some(if at == 0 { self.floor.hash } else { self.tokens[at - 1].1 })
    }

    pub(super) fn push(&mut self, kind: TokenKind, domain: DomainId, body: &[u8]) -> u64 {
        let (seq, time) = (self.head().seq + 1, HybridTime::from_millis(self.head().seq));
        let token = Token { seq, time, domain, kind, flags: 0, body };
        let start = self.bytes.len();
        token.encode(&self.log, &mut self.bytes).unwrap();
        let hash = chain(self.head().hash, &self.bytes[start..]);
        self.tokens.push((self.bytes.len(), hash, said(&token)));
        seq
    }

    /// Records of a log as they were shipped.
    pub(super) fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (token, rest) = Token::decode(bytes, &self.log).unwrap();
            let record = &bytes[..bytes.len() - rest.len()];
            let hash = chain(self.head().hash, record);
            self.bytes.extend_from_slice(record);
            self.tokens.push((self.bytes.len(), hash, said(&token)));
            bytes = rest;
        }
    }

    /// Up to `most` tokens behind `after`: the running hash before them, and their bytes.
    pub(super) fn read(&self, after: u64, most: usize) -> Option<(u64, u64, &[u8])> {
        let before = self.hash_at(after)?;
        let from = self.at(after);
        let to = self.tokens.len().min(from + most);
        let start = if from == 0 { 0 } else { self.tokens[from - 1].0 };
        let end = if to == 0 { 0 } else { self.tokens[to - 1].0 };
        (to > from).then(|| (before, self.floor.seq + to as u64, &self.bytes[start..end]))
    }

    pub(super) fn said(&self, from: u64) -> impl Iterator<Item = (u64, &Said)> {
        let skip = usize::try_from(from.saturating_sub(self.floor.seq + 1)).unwrap();
        let first = self.floor.seq + 1;
        (first..).zip(&self.tokens).skip(skip).map(|(seq, it)| (seq, &it.2))
    }

    /// What follows `seq` is gone.
    pub(super) fn cut(&mut self, seq: u64) {
        let at = self.at(seq.clamp(self.floor.seq, self.head().seq));
        self.tokens.truncate(at);
        self.bytes.truncate(self.tokens.last().map_or(0, |it| it.0));
        self.durable = self.durable.min(seq);
    }

    /// What is up to `seq` is gone.
    pub(super) fn drop_to(&mut self, seq: u64) {
        let Some(hash) = self.hash_at(seq) else { return };
        let at = self.at(seq);
        let gone = if at == 0 { 0 } else { self.tokens[at - 1].0 };
        self.tokens.drain(..at);
        self.bytes.drain(..gone);
        for token in &mut self.tokens {
            token.0 -= gone;
        }
        self.floor = Mark { seq, hash };
    }

    pub(super) fn oldest_intent(&self) -> Option<u64> {
        let mut open: Vec<(u64, u64)> = Vec::new();
        for (seq, said) in self.said(0) {
            match said {
                Said::Intent(id, _) if open.iter().all(|it| it.1 != *id) => open.push((seq, *id)),
                Said::Done(id, _) => open.retain(|it| it.1 != *id),
                _ => {}
            }
        }
        open.first().map(|it| it.0)
    }
}

/// What is kept of another origin.
#[derive(Clone, Debug)]
pub(super) struct Foreign {
    pub(super) incarnation: Incarnation,
    pub(super) diverged: bool,
    pub(super) lanes: [Chain; 2],
    pub(super) visible: u64,
    pub(super) birth: Option<Birth>,
}

impl Foreign {
    pub(super) fn new(to: &Place, visible: u64, birth: Option<Birth>) -> Self {
        let lanes =
            [Lane::Tokens, Lane::Values].map(|lane| Chain::new(to.log(lane), to.marks.of(lane)));
        let (incarnation, diverged) = (to.incarnation, to.diverged);
        Self { incarnation, diverged, lanes, visible, birth }
    }

    pub(super) fn place(&self, origin: Origin) -> Place {
        let marks = Marks { tokens: self.lanes[0].head(), values: self.lanes[1].head() };
        let (incarnation, diverged) = (self.incarnation, self.diverged);
        Place { origin, incarnation, marks, diverged }
    }
}

/// An own intent.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) key: u8,
    /// In this life's log.
    pub(super) seq: u64,
    /// An earlier life's log has it too.
    pub(super) old: bool,
    /// By this token, which may not be durable yet.
    pub(super) closed: Option<u64>,
}

/// An entry of the tier that outlives the process: what was filled, and with which ticket.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) version: u32,
    pub(super) stamp: Vec<Place>,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) origin: Origin,
    pub(super) counter: u64,
    pub(super) own: Option<[Chain; 2]>,
    pub(super) previous: Option<Previous>,
    /// The life before, for the persistent tier.
    pub(super) before: Option<[Chain; 2]>,
    pub(super) foreign: BTreeMap<Origin, Foreign>,
    pub(super) members: Members,
    pub(super) term: u64,
    pub(super) reborn: Option<Duration>,
    /// The next life is a new one, whatever rules are off.
    pub(super) anew: bool,
    /// Own intents that are neither done nor resolved on the disk.
    pub(super) open: Vec<Open>,
    pub(super) tier: BTreeMap<u8, Entry>,
}

pub(super) const fn lane(lane: Lane) -> usize {
    match lane {
        Lane::Tokens => 0,
        Lane::Values => 1,
    }
}

impl Disk {
    pub(super) fn chain(&self, log: &TokenLog) -> Option<&Chain> {
        let lanes = if log.origin == self.origin {
            self.own.as_ref()?
        } else {
            &self.foreign.get(&log.origin)?.lanes
        };
        let chain = &lanes[lane(log.lane)];
        (chain.log.incarnation == log.incarnation).then_some(chain)
    }

    pub(super) fn own(&self) -> &[Chain; 2] {
        self.own.as_ref().unwrap()
    }

    pub(super) fn own_mut(&mut self) -> &mut [Chain; 2] {
        self.own.as_mut().unwrap()
    }

    pub(super) fn own_place(&self) -> Place {
        let [tokens, values] = self.own();
        let marks = Marks { tokens: tokens.head(), values: values.head() };
        let (origin, incarnation) = (self.origin, tokens.log.incarnation);
        Place { origin, incarnation, marks, diverged: false }
    }

    /// Where everything applied stands, for a fill's ticket.
    pub(super) fn stamp(&self) -> Vec<Place> {
        let foreign = self.foreign.iter().map(|(origin, it)| it.place(*origin));
        foreign.chain([self.own_place()]).collect()
    }
}

impl Logs for Disk {
    fn head(&self, which: Lane) -> Mark {
        self.own()[lane(which)].head()
    }

    fn visible(&self) -> u64 {
        self.own()[0].durable
    }

    fn floor(&self, log: &TokenLog) -> Option<Mark> {
        self.chain(log).map(|it| it.floor)
    }

    fn hash_at(&self, log: &TokenLog, seq: u64) -> Option<u64> {
        self.chain(log).and_then(|it| it.hash_at(seq))
    }

    fn oldest_intent(&self, log: &TokenLog) -> Option<u64> {
        if log.origin == self.origin {
            let open = self.open.iter().filter(|it| it.closed.is_none());
            return open.map(|it| it.seq).min();
        }
        self.chain(log).and_then(Chain::oldest_intent)
    }

    fn time_at(&self, _log: &TokenLog, seq: u64) -> HybridTime {
        HybridTime::from_millis(seq)
    }
}
