//! The proof: which tokens of the logs that are kept speak of an entry of an earlier life.
//!
//! Made once, when a cache with a tier is built: every token that is kept is read, and the newest
//! number of each log is remembered for each key, tag and prefix. What is applied later raises
//! generations and numbers as ever, and is asked there.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use crate::sync::apply::History;
use crate::sync::cache::manager::{intent_keys, put_parts};
use crate::sync::cache::marks::TagHash;
use crate::sync::domain::DomainId;
use crate::sync::origin::{Cursor, TokenLog};
use crate::sync::token::{Token, TokenKind};

/// Keys of one log that are told apart; if there are more, each counts as all.
const KEYS_MAX: usize = 1 << 20;
/// Cursors whose standing is remembered.
const STANDING_MAX: usize = 1 << 14;

/// What the tokens of one log spoke of last.
#[derive(Debug)]
struct LogProof {
    floor: Cursor,
    all: u64,
    keys: HashMap<u64, u64>,
    tags: HashMap<TagHash, u64>,
    prefixes: HashMap<Box<[u8]>, u64>,
    intents: HashMap<u64, Vec<u64>>,
}

fn key_hash(key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(key);
    hasher.finish()
}

impl LogProof {
    fn new(floor: Cursor) -> Self {
        let all = 0;
        let (keys, tags, prefixes) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { floor, all, keys, tags, prefixes, intents: HashMap::new() }
    }

    fn take(&mut self, token: &Token<'_>) {
        let seq = token.seq;
        match token.kind {
            _ if token.flags != 0 => self.all = seq,
            TokenKind::Key => self.key(key_hash(token.body), seq),
            TokenKind::Put => match put_parts(token.body) {
                Some((key, _value)) => self.key(key_hash(key), seq),
                None => self.all = seq,
            },
            TokenKind::Tag => drop(self.tags.insert(TagHash::of(token.body), seq)),
            TokenKind::Prefix => drop(self.prefixes.insert(token.body.into(), seq)),
            TokenKind::All | TokenKind::Unknown(_) => self.all = seq,
            TokenKind::Intent => match intent_keys(token.body) {
                Some((id, keys)) => {
                    let keys: Vec<u64> = keys.into_iter().map(key_hash).collect();
                    for key in &keys {
                        self.key(*key, seq);
                    }
                    self.intents.insert(id, keys);
                }
                None => self.all = seq,
            },
            TokenKind::Done | TokenKind::Resolved => {
                let id = token.body.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
                match id.and_then(|id| self.intents.remove(&id)) {
                    Some(keys) => keys.into_iter().for_each(|key| self.key(key, seq)),
                    // What it announced was said before the floor, or in another life.
                    None => self.all = seq,
                }
            }
            TokenKind::Birth | TokenKind::Join | TokenKind::Leave | TokenKind::Probe => {}
        }
    }

    fn key(&mut self, key: u64, seq: u64) {
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&key) {
            self.all = seq;
        } else {
            self.keys.insert(key, seq);
        }
    }

    /// Does no token after `seq` speak of it?
    fn spare(&self, seq: u64, (key, bytes): (u64, &[u8]), tags: &[TagHash]) -> bool {
        self.all <= seq
            && self.keys.get(&key).is_none_or(|last| *last <= seq)
            && tags.iter().all(|tag| self.tags.get(tag).is_none_or(|last| *last <= seq))
            && !self.prefixes.iter().any(|(prefix, last)| *last > seq && bytes.starts_with(prefix))
    }
}

/// What the logs of this node say of earlier lives' entries.
#[derive(Debug)]
pub(crate) struct Proof {
    history: Arc<dyn History>,
    logs: HashMap<TokenLog, LogProof>,
    standing: Mutex<HashMap<(TokenLog, u64, u64), bool>>,
}

impl Proof {
    /// Reads every token that is kept. After the domain is known to its manager: what is applied
    /// meanwhile is counted there.
    pub(crate) fn read(history: &Arc<dyn History>, domain: DomainId) -> Self {
        let mut logs = HashMap::new();
        for floor in history.floors() {
            let mut proof = LogProof::new(floor);
            let read = history.after(&floor, &mut |token| {
                if token.domain == domain || token.domain == DomainId::NONE {
                    proof.take(token);
                }
            });
            if read.is_err() {
                // No stamp is new enough.
                proof.all = u64::MAX;
            }
            logs.insert(floor.log, proof);
        }
        Self { history: Arc::clone(history), logs, standing: Mutex::default() }
    }

    /// Is an entry with this stamp still so, for all that the logs say?
    pub(crate) fn holds(&self, stamp: &[Cursor], key: &[u8], tags: &[TagHash]) -> bool {
        let stands = |cursor: &Cursor| cursor.seq == 0 || self.stands(cursor);
        if !stamp.iter().all(stands) {
            return false;
        }
        let hash = key_hash(key);
        self.logs.values().all(|log| {
            let at = stamp.iter().find(|cursor| cursor.log == log.floor.log);
            // A log that the stamp does not know had nothing in it then.
            let seq = at.map_or(0, |cursor| cursor.seq);
            seq >= log.floor.seq && log.spare(seq, (hash, key), tags)
        })
    }

    fn stands(&self, cursor: &Cursor) -> bool {
        let name = (cursor.log, cursor.seq, cursor.hash);
        if let Some(stands) = self.standing.lock().get(&name) {
            return *stands;
        }
        let stands = self.logs.contains_key(&cursor.log) && self.history.stands(cursor);
        let mut standing = self.standing.lock();
        if standing.len() >= STANDING_MAX {
            standing.clear();
        }
        standing.insert(name, stands);
        stands
    }
}
