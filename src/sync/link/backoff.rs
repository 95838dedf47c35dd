//! When somebody who could not be reached is tried again.

use std::time::Duration;

/// Longer from one try to the next, and never at the same moment as others.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    /// `min` before the second try, twice that before the third, up to `max`.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, tries: 0 }
    }

    /// How long to wait now: between half of what is due and all of it, as `random` says.
    pub fn next(&mut self, random: u64) -> Duration {
        let due = self.min.saturating_mul(1 << self.tries.min(20)).min(self.max);
        self.tries = self.tries.saturating_add(1);
        let half = due / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(random % nanos.saturating_add(1))
    }

    /// It went well: the next wait is the first again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_between_half_and_whole() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(5));
        for random in [0, 1, 12_345, u64::MAX] {
            let mut backoff = Backoff::new(min, max);
            for tries in 0..40_u32 {
                let due = (min * 2_u32.pow(tries.min(10))).min(max);
                let wait = backoff.next(random);
                assert!((due / 2..=due).contains(&wait), "try {tries}: {wait:?} of {due:?}");
            }
            backoff.reset();
            assert!(backoff.next(random) <= min);
        }
    }
}
