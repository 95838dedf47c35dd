//! Holds: what is not to be remembered for now, because a change of it is on its way.
//!
//! A token may arrive before the change that it tells of can be read, and a change outside may be
//! announced before it is made. Whoever loads meanwhile reads the old value and must not remember
//! it: **evicting early and refilling the old value is the classic fault**. So such a token holds
//! what it speaks of until its origin says that it is visible, and an intent until it is done.
//!
//! Before a hold is let go, generations rise once more ([`Holds::release`] answers for what), so
//! that no load which began under the hold is remembered after it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::sync::cache::marks::TagHash;
use crate::sync::origin::{Origin, TokenLog};

/// Holds of one log that are kept apart; of those beyond, one holds everything.
const EACH_MAX: usize = 1 << 16;

/// What a token speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Key(Box<[u8]>),
    Tag(TagHash),
    Prefix(Box<[u8]>),
    All,
}

/// The holds of one domain.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    /// How many there are: a fill that sees zero asks no further.
    count: AtomicUsize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// By log, oldest first.
    tokens: HashMap<TokenLog, VecDeque<(u64, What)>>,
    intents: HashMap<(Origin, u64), Vec<What>>,
    keys: HashMap<Box<[u8]>, usize>,
    tags: HashMap<TagHash, usize>,
    prefixes: Vec<Box<[u8]>>,
    all: usize,
}

impl Held {
    fn add(&mut self, what: &What) {
        match what {
            What::Key(key) => *self.keys.entry(key.clone()).or_default() += 1,
            What::Tag(tag) => *self.tags.entry(*tag).or_default() += 1,
            What::Prefix(prefix) => self.prefixes.push(prefix.clone()),
            What::All => self.all += 1,
        }
    }

    fn take(&mut self, what: &What) {
        fn one_less<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        match what {
            What::Key(key) => one_less(&mut self.keys, key),
            What::Tag(tag) => one_less(&mut self.tags, tag),
            What::Prefix(prefix) => {
                if let Some(at) = self.prefixes.iter().position(|held| held == prefix) {
                    self.prefixes.swap_remove(at);
                }
            }
            What::All => self.all = self.all.saturating_sub(1),
        }
    }

    fn count(&self) -> usize {
        self.tokens.values().map(VecDeque::len).sum::<usize>() + self.intents.len()
    }
}

impl Holds {
    /// Until token `seq` of `log` is visible.
    pub(crate) fn token(&self, log: TokenLog, seq: u64, what: What) {
        let mut held = self.held.lock();
        let queue = held.tokens.entry(log).or_default();
        if queue.len() > EACH_MAX {
            // The last one holds everything, and only has to last longer.
            if let Some((last, _everything)) = queue.back_mut() {
                *last = seq;
            }
            return;
        }
        let what = if queue.len() < EACH_MAX { what } else { What::All };
        queue.push_back((seq, what.clone()));
        held.add(&what);
        self.tell(&held);
    }

    /// Until the intent is done. Said again, it is the same one.
    pub(crate) fn intent(&self, origin: Origin, id: u64, what: Vec<What>) {
        let mut held = self.held.lock();
        for what in &what {
            held.add(what);
        }
        if let Some(before) = held.intents.insert((origin, id), what) {
            for what in &before {
                held.take(what);
            }
        }
        self.tell(&held);
    }

    /// What the tokens of `log` up to `upto` hold: raise generations for it, then
    /// [`release`](Self::release).
    pub(crate) fn up_to(&self, log: &TokenLog, upto: u64) -> Vec<What> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let held = self.held.lock();
        let queue = held.tokens.get(log).into_iter().flatten();
        queue.take_while(|(seq, _)| *seq <= upto).map(|(_, what)| what.clone()).collect()
    }

    /// Lets go what [`up_to`](Self::up_to) answered.
    pub(crate) fn release(&self, log: &TokenLog, upto: u64) {
        let mut held = self.held.lock();
        let Some(mut queue) = held.tokens.remove(log) else { return };
        while queue.front().is_some_and(|(seq, _)| *seq <= upto) {
            if let Some((_, what)) = queue.pop_front() {
                held.take(&what);
            }
        }
        if !queue.is_empty() {
            held.tokens.insert(*log, queue);
        }
        self.tell(&held);
    }

    /// What an open intent holds; `None` if there is none.
    pub(crate) fn of_intent(&self, origin: Origin, id: u64) -> Option<Vec<What>> {
        self.held.lock().intents.get(&(origin, id)).cloned()
    }

    /// Lets an intent go.
    pub(crate) fn release_intent(&self, origin: Origin, id: u64) {
        let mut held = self.held.lock();
        for what in held.intents.remove(&(origin, id)).unwrap_or_default() {
            held.take(&what);
        }
        self.tell(&held);
    }

    /// Is this key, or one of these tags, not to be remembered for now?
    #[inline]
    pub(crate) fn hold(&self, key: &[u8], tags: &[TagHash]) -> bool {
        // Acquire: pairs with the Release in `tell`.
        self.count.load(Ordering::Acquire) > 0 && self.match_any(key, tags)
    }

    #[cold]
    fn match_any(&self, key: &[u8], tags: &[TagHash]) -> bool {
        let held = self.held.lock();
        held.all > 0
            || held.keys.contains_key(key)
            || tags.iter().any(|tag| held.tags.contains_key(tag))
            || held.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    fn tell(&self, held: &Held) {
        self.count.store(held.count(), Ordering::Release);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::origin::{Incarnation, Lane};

    fn log(origin: u64) -> TokenLog {
        let incarnation = Incarnation { counter: 1, nonce: 1 };
        TokenLog { origin: Origin::from_u64(origin), incarnation, lane: Lane::Tokens }
    }

    fn key(key: &str) -> What {
        What::Key(key.as_bytes().into())
    }

    #[test]
    fn a_hold_lasts_until_the_last_token_that_needs_it_is_visible() {
        let holds = Holds::default();
        assert!(!holds.hold(b"a", &[]));
        holds.token(log(1), 1, key("a"));
        holds.token(log(1), 2, key("b"));
        holds.token(log(2), 7, key("a"));
        assert!(holds.hold(b"a", &[]) && holds.hold(b"b", &[]) && !holds.hold(b"c", &[]));

        assert_eq!(holds.up_to(&log(1), 1), [key("a")]);
        holds.release(&log(1), 1);
        assert!(holds.hold(b"a", &[]), "the other log still holds it");
        holds.release(&log(2), 9);
        assert!(!holds.hold(b"a", &[]));
        holds.release(&log(1), 2);
        assert_eq!(holds.count(), 0);
    }

    #[test]
    fn tags_prefixes_and_everything_hold_what_they_speak_of() {
        let holds = Holds::default();
        let red = TagHash::of(b"red");
        holds.token(log(1), 1, What::Tag(red));
        holds.token(log(1), 2, What::Prefix(b"user/"[..].into()));
        assert!(holds.hold(b"x", &[red]) && holds.hold(b"user/1", &[]) && !holds.hold(b"x", &[]));
        holds.token(log(1), 3, What::All);
        assert!(holds.hold(b"x", &[]));
        holds.token(log(1), 4, key("y"));
        holds.release(&log(1), 3);
        assert!(holds.hold(b"y", &[]) && !holds.hold(b"x", &[red]));
        holds.release(&log(1), 4);
        assert_eq!(holds.count(), 0);
    }

    #[test]
    fn an_intent_holds_until_it_is_done_however_often_it_is_said() {
        let holds = Holds::default();
        let origin = Origin::from_u64(1);
        holds.intent(origin, 5, vec![key("a"), key("b")]);
        holds.intent(origin, 5, vec![key("a")]);
        assert!(holds.hold(b"a", &[]) && !holds.hold(b"b", &[]));
        holds.release(&log(1), u64::MAX);
        assert!(holds.hold(b"a", &[]), "no visibility ends it");
        assert_eq!(holds.of_intent(origin, 5), Some(vec![key("a")]));
        holds.release_intent(origin, 5);
        assert!(!holds.hold(b"a", &[]));
        assert_eq!(holds.of_intent(origin, 5), None);
    }

    #[test]
    fn more_holds_than_are_kept_apart_hold_everything() {
        let holds = Holds::default();
        for seq in 1..=EACH_MAX as u64 + 10 {
            holds.token(log(1), seq, What::Key(seq.to_le_bytes().into()));
        }
        assert!(holds.hold(b"anything", &[]));
        assert_eq!(holds.count(), EACH_MAX + 1);
        holds.release(&log(1), EACH_MAX as u64 + 9);
        assert!(holds.hold(b"anything", &[]));
        holds.release(&log(1), EACH_MAX as u64 + 10);
        assert!(!holds.hold(b"anything", &[]));
    }
}
