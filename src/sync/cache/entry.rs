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

/// One entry. What a hit needs comes first and is small, for a table is as fast as much of it the
/// processor's cache holds; the rest is elsewhere, and in the plainest case is not.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    /// `None`: the source has none.
    pub(super) value: Option<V>,
    /// The domain's, up to which no token is known to speak of it.
    pub(super) number: AtomicU64,
    /// Before this time nothing needs to be looked at; without a rest, its end.
    pub(super) soft: u64,
    pub(super) rest: Option<Box<Rest<V>>>,
}

/// What is looked at now and then.
#[derive(Debug)]
pub(crate) struct Rest<V> {
    times: Times,
    touched: AtomicU64,
    /// The source failed: it is not asked again before this.
    pub(super) retry: AtomicU64,
    /// It was asked for anew: not again before this.
    pub(super) asked: AtomicU64,
    /// Since when it is known to be invalid; 0: it is not.
    pub(super) dead: u64,
    tags: Box<[TagHash]>,
    weight: u32,
    /// Where values are sent: what this one was made of.
    pub(super) register: Option<Register<V>>,
}

impl<V> Entry<V> {
    pub(crate) fn new(value: Option<V>, ticket: &Ticket, fill: Fill) -> Self {
        let Fill { times, tags, weight, plain } = fill;
        let soft = if times.idle > 0 { 0 } else { times.expires.min(times.refresh) };
        let plain = plain && soft == times.expires && tags.is_empty() && weight == 1;
        let rest = || Rest {
            times,
            touched: AtomicU64::new(times.filled),
            retry: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            dead: 0,
            tags,
            weight,
            register: None,
        };
        let number = AtomicU64::new(ticket.number);
        Self { value, number, soft, rest: (!plain).then(|| Box::new(rest())) }
    }

    pub(super) fn tags(&self) -> &[TagHash] {
        self.rest.as_ref().map_or(&[], |rest| &rest.tags)
    }

    pub(super) fn weight(&self) -> u32 {
        self.rest.as_ref().map_or(1, |rest| rest.weight.max(1))
    }

    pub(super) fn register(&self) -> Option<&Register<V>> {
        self.rest.as_ref()?.register.as_ref()
    }
}

/// What an entry is besides its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) times: Times,
    pub(crate) tags: Box<[TagHash]>,
    pub(crate) weight: u32,
    /// Nothing of it will be asked that an entry without a rest does not know.
    pub(crate) plain: bool,
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
        let rest = self.rest.as_deref();
        if let Some(rest) = rest.filter(|rest| rest.dead != 0) {
            return Look::Dead { value: (), since: now.saturating_sub(rest.dead) };
        }
        let known = self.number.load(Ordering::Relaxed);
        if known != number {
            let spared = match self.register() {
                None => marks.spare(known, bytes, self.tags()),
                // What was sent is newer than all that was invalidated, or it is nothing.
                Some(register) => register.oldest() > marks.floor(),
            };
            if !spared {
                let since = rest.map_or(0, |rest| now.saturating_sub(rest.times.filled));
                return Look::Dead { value: (), since };
            }
            // It need not be asked again. Another thread may store another number, for which the
            // same holds.
            self.number.store(number, Ordering::Relaxed);
        }
        let Some(rest) = rest else {
            let retry = 0;
            return match now.checked_sub(self.soft) {
                None => Look::Hit(()),
                Some(since) => Look::Expired { value: (), since, retry },
            };
        };
        let Times { mut expires, refresh, idle, .. } = rest.times;
        if idle > 0 {
            expires = expires.min(rest.touched.load(Ordering::Relaxed).saturating_add(idle));
        }
        if now >= expires {
            let retry = rest.retry.load(Ordering::Relaxed);
            return Look::Expired { value: (), since: now - expires, retry };
        }
        if idle > 0 {
            rest.touched.fetch_max(now, Ordering::Relaxed);
        }
        let asked = rest.asked.load(Ordering::Relaxed);
        if now >= refresh && now >= asked { Look::Soon(()) } else { Look::Hit(()) }
    }
}
