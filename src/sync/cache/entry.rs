//! An entry of the memory tier, and what a look at it comes to.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::cache::flight::Ticket;
use crate::sync::cache::marks::{Marks, TagHash};
use crate::sync::cache::version::Register;

/// Times of an entry, boot time in nanoseconds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// When the source was asked.
    pub(crate) filled: u64,
    /// From when on it is expired; `u64::MAX`: never.
    pub(crate) expires: u64,
    /// From when on a hit asks for it anew; `u64::MAX`: never.
    pub(crate) refresh: u64,
    /// It expires when nobody has asked for it so long; 0: it may lie.
    pub(crate) idle: u64,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    /// `None`: the source has none.
    pub(super) value: Option<V>,
    /// The domain's, up to which no token is known to speak of it.
    pub(super) number: AtomicU64,
    /// Before this time nothing needs to be looked at.
    pub(super) soft: u64,
    times: Times,
    touched: AtomicU64,
    /// The source failed: it is not asked again before this.
    pub(super) retry: AtomicU64,
    /// It was asked for anew: not again before this.
    pub(super) asked: AtomicU64,
    /// Since when it is known to be invalid; 0: it is not.
    pub(super) dead: AtomicU64,
    pub(super) tags: Box<[TagHash]>,
    pub(super) weight: u32,
    /// Where values are sent: what this one was made of.
    pub(super) register: Option<Box<Register<V>>>,
}

impl<V> Entry<V> {
    pub(crate) fn new(value: Option<V>, ticket: &Ticket, fill: Fill) -> Self {
        let Fill { times, tags, weight } = fill;
        let soft = if times.idle > 0 { 0 } else { times.expires.min(times.refresh) };
        Self {
            value,
            number: AtomicU64::new(ticket.number),
            soft,
            times,
            touched: AtomicU64::new(times.filled),
            retry: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            tags,
            weight,
            register: None,
        }
    }
}

/// What an entry is besides its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) times: Times,
    pub(crate) tags: Box<[TagHash]>,
    pub(crate) weight: u32,
}

/// What a look at a key finds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look<T> {
    /// An entry that counts.
    Hit(T),
    /// An entry that counts, and would better be asked for anew.
    Soon(T),
    /// Its time was over this long ago, nanoseconds; its source is not to be asked before `retry`.
    Expired { value: T, since: u64, retry: u64 },
    /// A token has spoken of it this long ago; how long is known where it was removed by its key.
    Dead { value: T, since: u64 },
    /// Nothing.
    Miss,
}

impl<V> Entry<V> {
    /// What it is at time `now`.
    #[inline]
    pub(super) fn state(&self, bytes: &[u8], now: u64, marks: &Marks) -> Look<()> {
        let number = marks.number();
        if self.number.load(Ordering::Relaxed) == number && now < self.soft {
            return Look::Hit(());
        }
        self.state_slow(bytes, now, (number, marks))
    }

    #[cold]
    fn state_slow(&self, bytes: &[u8], now: u64, (number, marks): (u64, &Marks)) -> Look<()> {
        let dead = self.dead.load(Ordering::Relaxed);
        if dead != 0 {
            return Look::Dead { value: (), since: now.saturating_sub(dead) };
        }
        let known = self.number.load(Ordering::Relaxed);
        if known != number {
            let spared = match &self.register {
                None => marks.spare(known, bytes, &self.tags),
                // What was sent is newer than all that was invalidated, or it is nothing.
                Some(register) => register.oldest() > marks.floor(),
            };
            if !spared {
                let since = now.saturating_sub(self.times.filled);
                return Look::Dead { value: (), since };
            }
            // It need not be asked again. Another thread may store another number, for which the
            // same holds.
            self.number.store(number, Ordering::Relaxed);
        }
        let retry = self.retry.load(Ordering::Relaxed);
        let mut expires = self.times.expires;
        if self.times.idle > 0 {
            let touched = self.touched.load(Ordering::Relaxed);
            expires = expires.min(touched.saturating_add(self.times.idle));
        }
        if now >= expires {
            return Look::Expired { value: (), since: now - expires, retry };
        }
        if self.times.idle > 0 {
            self.touched.fetch_max(now, Ordering::Relaxed);
        }
        let asked = self.asked.load(Ordering::Relaxed);
        if now >= self.times.refresh && now >= asked { Look::Soon(()) } else { Look::Hit(()) }
    }
}
