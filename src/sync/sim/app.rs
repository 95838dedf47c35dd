//! What tokens are for: sources of truth, caches of them, and loads that race with tokens.

use std::sync::LazyLock;

use crate::sync::domain::DomainId;
use crate::sync::origin::Origin;
use crate::sync::replica::{Rule, Rules};
use crate::sync::token::{Token, TokenKind};

/// Keys in all: four of the nodes' own states, two that are changed under an intent, and two that
/// are changed outside without one.
pub(super) const KEYS: u8 = 8;
const MASKS: [u16; 3] = [0b0000_1111, 0b0011_0000, 0b1100_0000];

pub(super) const NAMES: [&str; 3] = ["own", "intents", "outside"];
static IDS: LazyLock<[DomainId; 3]> = LazyLock::new(|| NAMES.map(DomainId::of));

/// The three domains: own state; outside, under intents; outside without.
pub(super) fn domain(at: usize) -> DomainId {
    IDS[at]
}

pub(super) fn number_of(domain: DomainId) -> Option<usize> {
    IDS.iter().position(|it| *it == domain)
}

pub(super) const fn domain_of_key(key: u8) -> usize {
    match key {
        0..4 => 0,
        4 | 5 => 1,
        _ => 2,
    }
}

/// Which keys a domain has.
pub(super) fn mask_of(domain: DomainId) -> u16 {
    number_of(domain).map_or(all_mask(), |at| MASKS[at])
}

pub(super) fn all_mask() -> u16 {
    (1 << KEYS) - 1
}

/// What a token means for a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    Clears(u16),
    Intent(u64, u16),
    /// And what to clear if the intent is not known.
    Done(u64, u16),
}

pub(super) fn said(token: &Token<'_>) -> Said {
    let id = || token.body.first_chunk().map_or(0, |id| u64::from_le_bytes(*id));
    match token.kind {
        TokenKind::Key => token.body.first().map_or(Said::Nothing, |key| Said::Clears(1 << key)),
        TokenKind::Tag => {
            let odd = if token.body == [1] { 0xAAAA } else { 0x5555 };
            Said::Clears(mask_of(token.domain) & odd)
        }
        TokenKind::Intent => {
            let keys = token.body.get(12..).unwrap_or_default();
            Said::Intent(id(), keys.iter().fold(0, |mask, key| mask | 1 << key))
        }
        TokenKind::Done | TokenKind::Resolved => Said::Done(id(), mask_of(token.domain)),
        TokenKind::Prefix | TokenKind::All | TokenKind::Put | TokenKind::Unknown(_) => {
            Said::Clears(mask_of(token.domain))
        }
        TokenKind::Birth | TokenKind::Join | TokenKind::Leave | TokenKind::Probe => Said::Nothing,
    }
}

pub(super) fn intent_body(id: u64, key: u8) -> Vec<u8> {
    [&id.to_le_bytes()[..], &1_u32.to_le_bytes(), &[key]].concat()
}

/// What was, and is, true of each key: version by version, and since when.
#[derive(Debug)]
pub(super) struct Truth {
    history: [Vec<(u64, u32)>; KEYS as usize],
    next: u32,
}

impl Truth {
    pub(super) fn new() -> Self {
        Self { history: std::array::from_fn(|_| vec![(0, 0)]), next: 1 }
    }

    pub(super) fn change(&mut self, key: u8, now: u64) {
        self.history[usize::from(key)].push((now, self.next));
        self.next += 1;
    }

    pub(super) fn current(&self, key: u8) -> u32 {
        self.history[usize::from(key)].last().unwrap().1
    }

    /// The version that was true at a time.
    pub(super) fn at(&self, key: u8, time: u64) -> u32 {
        let history = &self.history[usize::from(key)];
        history.iter().rev().find(|it| it.0 <= time).map_or(0, |it| it.1)
    }
}

/// A load under way.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) id: u64,
    pub(super) key: u8,
    ticket: u32,
    pub(super) stamp: Vec<crate::sync::message::Place>,
    pub(super) read: Option<u32>,
}

/// A node's cache in memory.
#[derive(Debug)]
pub(super) struct App {
    pub(super) entries: [Option<u32>; KEYS as usize],
    generations: [u32; KEYS as usize],
    /// Of whom, which token, which keys.
    provisional: Vec<(Origin, u64, u16)>,
    intents: Vec<(Origin, u64, u16)>,
    pub(super) loads: Vec<Load>,
    rules: Rules,
    coin: u64,
}

impl App {
    pub(super) fn new(rules: Rules, seed: u64) -> Self {
        Self {
            entries: [None; KEYS as usize],
            generations: [0; KEYS as usize],
            provisional: Vec::new(),
            intents: Vec::new(),
            loads: Vec::new(),
            rules,
            coin: seed | 1,
        }
    }

    fn flip(&mut self) -> bool {
        self.coin ^= self.coin << 13;
        self.coin ^= self.coin >> 7;
        self.coin ^= self.coin << 17;
        self.coin & 1 == 0
    }

    pub(super) fn blocked(&self, key: u8) -> bool {
        let matches = |it: &(Origin, u64, u16)| it.2 >> key & 1 == 1;
        (self.rules.on(Rule::Provisional) && self.provisional.iter().any(matches))
            || self.intents.iter().any(matches)
    }

    // --- fills ---

    pub(super) fn begin(&mut self, id: u64, key: u8, stamp: Vec<crate::sync::message::Place>) {
        let ticket = self.generations[usize::from(key)];
        self.loads.push(Load { id, key, ticket, stamp, read: None });
    }

    /// The end of a load: the value, if it was admitted.
    pub(super) fn insert(&mut self, id: u64) -> Option<Load> {
        let at = self.loads.iter().position(|it| it.id == id)?;
        let load = self.loads.swap_remove(at);
        let good = load.ticket == self.generations[usize::from(load.key)];
        if (good || !self.rules.on(Rule::Ticket)) && !self.blocked(load.key) {
            self.entries[usize::from(load.key)] = load.read;
            return Some(load);
        }
        None
    }

    /// What was kept over a restart, if nothing is against it.
    pub(super) fn promote(&mut self, key: u8, version: u32) {
        if !self.blocked(key) {
            self.entries[usize::from(key)] = Some(version);
        }
    }

    // --- tokens ---

    fn raise(&mut self, mask: u16) {
        for key in (0..KEYS).filter(|key| mask >> key & 1 == 1) {
            self.generations[usize::from(key)] += 1;
        }
    }

    fn remove(&mut self, mask: u16) {
        for key in (0..KEYS).filter(|key| mask >> key & 1 == 1) {
            self.entries[usize::from(key)] = None;
        }
    }

    /// Generation up, then remove; and between the two a load may end.
    pub(super) fn clear(&mut self, mask: u16) {
        let in_order = self.rules.on(Rule::Order);
        if in_order {
            self.raise(mask);
        } else {
            self.remove(mask);
        }
        if self.flip() {
            let ready: Vec<_> =
                self.loads.iter().filter(|it| it.read.is_some()).map(|it| it.id).collect();
            for id in ready {
                self.insert(id);
            }
        }
        if in_order {
            self.remove(mask);
        } else {
            self.raise(mask);
        }
    }

    pub(super) fn apply(&mut self, origin: Origin, seq: u64, said: &Said, provisional: bool) {
        match *said {
            Said::Nothing => {}
            Said::Clears(mask) => {
                if provisional {
                    self.provisional.push((origin, seq, mask));
                }
                self.clear(mask);
            }
            Said::Intent(id, mask) => {
                self.intents.retain(|it| (it.0, it.1) != (origin, id));
                self.intents.push((origin, id, mask));
                self.clear(mask);
            }
            Said::Done(id, every) => {
                let at = self.intents.iter().position(|it| (it.0, it.1) == (origin, id));
                let mask = at.map_or(every, |at| self.intents.swap_remove(at).2);
                if provisional {
                    self.provisional.push((origin, seq, mask));
                }
                self.clear(mask);
            }
        }
    }

    pub(super) fn visible(&mut self, origin: Origin, upto: u64) {
        let mut mask = 0;
        self.provisional.retain(|it| {
            let settled = it.0 == origin && it.1 <= upto;
            mask |= if settled { it.2 } else { 0 };
            !settled
        });
        self.raise(mask);
    }

    /// The origin begins elsewhere, or ends: what was provisional of it was cleared, or has become
    /// visible; intents that are open yet come again behind the place where it begins.
    pub(super) fn settle(&mut self, origin: Origin) {
        self.provisional.retain(|it| it.0 != origin);
        self.intents.retain(|it| it.0 != origin);
    }
}
