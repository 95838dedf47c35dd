//! All logs of tokens that a node has, as its core asks for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::foreign::Foreign;
use crate::sync::message::Mark;
use crate::sync::origin::{Lane, TokenLog};
use crate::sync::own::Own;
use crate::sync::replica::Logs;
use crate::types::{Durability, HybridTime};

/// Both logs of a node, and others'.
pub(super) struct LogSet {
    pub own: [Arc<Own>; 2],
    pub foreign: Arc<Foreign>,
    /// What makes a change visible to others.
    pub visible_at: Durability,
    /// Open intents of this life, by number: see `intents`.
    pub oldest_intent: AtomicU64,
}

impl LogSet {
    pub(super) fn lane(&self, lane: Lane) -> &Arc<Own> {
        let [tokens, values] = &self.own;
        match lane {
            Lane::Tokens => tokens,
            Lane::Values => values,
        }
    }

    /// Own tokens from this number on stay, whoever has them: an intent that is open is there.
    pub(super) fn held(&self, lane: Lane) -> u64 {
        match (lane, self.oldest_intent.load(Ordering::Acquire)) {
            (Lane::Values, _) | (Lane::Tokens, 0) => u64::MAX,
            (Lane::Tokens, oldest) => oldest,
        }
    }

    pub(super) fn is_own(&self, log: &TokenLog) -> bool {
        self.lane(log.lane).tokens() == *log
    }
}

impl Logs for LogSet {
    fn head(&self, lane: Lane) -> Mark {
        let head = self.lane(lane).head();
        Mark { seq: head.seq, hash: head.hash }
    }

    fn visible(&self) -> u64 {
        let own = self.lane(Lane::Tokens);
        match self.visible_at {
            Durability::Process => own.head().seq,
            Durability::Power => own.durable(),
        }
    }

    fn floor(&self, log: &TokenLog) -> Option<Mark> {
        if self.is_own(log) {
            let floor = self.lane(log.lane).floor();
            return Some(Mark { seq: floor.seq, hash: floor.hash });
        }
        self.foreign.floor(log)
    }

    fn hash_at(&self, log: &TokenLog, seq: u64) -> Option<u64> {
        if self.is_own(log) {
            return self.lane(log.lane).hash_at(seq);
        }
        self.foreign.hash_at(log, seq)
    }

    fn oldest_intent(&self, log: &TokenLog) -> Option<u64> {
        if self.is_own(log) {
            let oldest = self.oldest_intent.load(Ordering::Acquire);
            return (log.lane == Lane::Tokens && oldest > 0).then_some(oldest);
        }
        self.foreign.oldest_intent(log)
    }

    fn time_at(&self, log: &TokenLog, _seq: u64) -> HybridTime {
        if self.is_own(log) { self.lane(log.lane).time() } else { self.foreign.time(log) }
    }
}
