//! What few actors have: commands put aside, replies promised for later, trouble. It hangs on the
//! mailbox by one pointer, so that the others pay 8 bytes for it.
//!
//! It belongs to the cell and not to the state: a state that is thrown away after a panic, or
//! leaves memory, takes neither a command nor a promise with it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
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

/// What is asked before every turn and is hardly ever so.
#[derive(Default)]
pub(crate) struct Flags(AtomicU8);

/// A turn has asked for the stashed commands.
pub(crate) const UNSTASH: u8 = 1;
/// The last turn or load has failed, and that counts.
pub(crate) const TROUBLED: u8 = 2;

impl Flags {
    pub(crate) fn has(&self, flag: u8) -> bool {
        // Relaxed: it says where to look. What is found there is under the mailbox' lock.
        self.0.load(Ordering::Relaxed) & flag != 0
    }

    pub(crate) fn set(&self, flag: u8) {
        self.0.fetch_or(flag, Ordering::Relaxed);
    }

    pub(crate) fn clear(&self, flag: u8) {
        self.0.fetch_and(!flag, Ordering::Relaxed);
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
