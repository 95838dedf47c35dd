//! What few actors have: commands put aside, replies promised for later, trouble. It hangs on the
//! mailbox by one pointer, so that the others pay 8 bytes for it.
//!
//! It belongs to the cell and not to the state: a state that is thrown away after a panic, or
//! leaves memory, takes neither a command nor a promise with it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Actor;
use super::cell::Cell;
use super::later::Promises;
use super::mailbox::Letter;
use super::supervise::Trouble;

pub(crate) struct Aside<A: Actor> {
    /// Commands whose time has not come, in the order of their arrival.
    pub(crate) stash: VecDeque<Letter<A>>,
    pub(crate) promises: Promises,
    pub(crate) trouble: Option<Trouble>,
}

impl<A: Actor> Default for Aside<A> {
    fn default() -> Self {
        Self { stash: VecDeque::new(), promises: Promises::default(), trouble: None }
    }
}

impl<A: Actor> Aside<A> {
    fn is_empty(&self) -> bool {
        self.stash.is_empty() && self.promises.is_empty() && self.trouble.is_none()
    }

    /// Nobody would miss it.
    pub(crate) fn is_vacant(&self, now: Duration) -> bool {
        self.stash.is_empty()
            && !self.promises.is_wanted()
            && self.trouble.as_ref().is_none_or(|trouble| trouble.is_over(now))
    }
}

/// What is asked before every turn and is hardly ever so. The lower bits are the
/// [weight](super::weight) of the state.
#[derive(Default)]
pub(crate) struct Flags(AtomicU32);

/// A turn has asked for the stashed commands.
pub(crate) const UNSTASH: u32 = 1 << 31;
/// The last turn or load has failed, and that counts.
pub(crate) const TROUBLED: u32 = 1 << 30;
const WEIGHT: u32 = TROUBLED - 1;

impl Flags {
    pub(crate) fn has(&self, flag: u32) -> bool {
        // Relaxed: it says where to look. What is found there is under the mailbox' lock.
        self.0.load(Ordering::Relaxed) & flag != 0
    }

    pub(crate) fn set(&self, flag: u32) {
        self.0.fetch_or(flag, Ordering::Relaxed);
    }

    pub(crate) fn clear(&self, flag: u32) {
        self.0.fetch_and(!flag, Ordering::Relaxed);
    }

    /// In the unit of [`super::weight`].
    pub(crate) fn weight(&self) -> u32 {
        // Relaxed: it orders nothing. It changes under the body's lock alone.
        self.0.load(Ordering::Relaxed) & WEIGHT
    }

    /// Answers what it was before. The caller has the body's lock.
    pub(crate) fn set_weight(&self, units: u32) -> u32 {
        let before = self.weight();
        // By the difference, since flags may change meanwhile.
        self.0.fetch_add(units.min(WEIGHT).wrapping_sub(before), Ordering::Relaxed);
        before
    }
}

impl<A: Actor> Cell<A> {
    /// Changes what is aside. Nothing of a user's may be dropped within: `change` hands it out.
    pub(crate) fn aside<T>(&self, change: impl FnOnce(&mut Aside<A>) -> T) -> T {
        let mut lane = self.lane();
        let mut aside = lane.aside.take().unwrap_or_default();
        let changed = change(&mut aside);
        if !aside.is_empty() {
            lane.aside = Some(aside);
        }
        changed
    }
}
