//! What states in memory weigh, where that is limited.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Actor;
use super::cell::{Cell, drop_quietly};
use super::sweep::Call;

/// Weights are counted in units of so many bytes: 30 bits, which they share with
/// [flags](super::aside::Flags), are enough for 64 GiB.
const UNIT_BYTES: usize = 64;

/// The weight of all.
pub(crate) struct Weights {
    units: AtomicU64,
    bytes_max: usize,
}

impl Weights {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { units: AtomicU64::new(0), bytes_max }
    }

    pub(crate) const fn are_limited(&self) -> bool {
        self.bytes_max < usize::MAX
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        u64::try_from(self.bytes_max).unwrap_or(u64::MAX)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.units.load(Ordering::Relaxed).saturating_mul(UNIT_BYTES as u64)
    }
}

impl<A: Actor> Cell<A> {
    /// The state has changed, or has come into memory. The caller has the body's lock.
    pub(crate) fn weigh(&self, state: &A) {
        if !self.shared().weights.are_limited() {
            return;
        }
        let beside = self.kind.options.weigh.map_or(0, |weigh| {
            catch_unwind(AssertUnwindSafe(|| weigh(state))).unwrap_or_else(|payload| {
                drop_quietly(payload);
                0
            })
        });
        let units = size_of::<Self>().saturating_add(beside).div_ceil(UNIT_BYTES);
        let before = self.shared().weights.bytes();
        self.set_weight(u32::try_from(units).unwrap_or(u32::MAX));
        // Once, when it becomes too much: where nothing can leave, calling again does not help.
        // The keeper looks by itself now and then.
        let max = self.shared().weights.bytes_max();
        if before <= max && self.shared().weights.bytes() > max {
            self.shared().call_keeper(Call::Crowded);
        }
    }

    /// The state has left memory.
    pub(crate) fn weightless(&self) {
        if self.shared().weights.are_limited() {
            self.set_weight(0);
        }
    }

    /// Bytes of the state; 0 while it is not in memory.
    pub(crate) fn weight(&self) -> u64 {
        u64::from(self.flags.weight()) * UNIT_BYTES as u64
    }

    fn set_weight(&self, units: u32) {
        let before = self.flags.set_weight(units);
        let now = self.flags.weight();
        let all = &self.shared().weights.units;
        if now >= before {
            all.fetch_add(u64::from(now - before), Ordering::Relaxed);
        } else {
            all.fetch_sub(u64::from(before - now), Ordering::Relaxed);
        }
    }
}
