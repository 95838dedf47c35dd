//! What can be set of a pipeline.

use std::time::Duration;

use super::drive::OnPoison;
use crate::time::Clock;

/// What can be set of a pipeline. The defaults lose nothing and try for ever.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Records that are pulled at a time, at most.
    pub pull_max: usize,
    /// How long a turn waits for the source or the sink: a command to the pipeline (pause, swap,
    /// stop) may take that long to be heard.
    pub wait: Duration,
    /// What is waited before it is tried again, the first time; each time it is twice as long.
    pub backoff_min: Duration,
    /// And at most.
    pub backoff_max: Duration,
    /// After so many failures in a row it is given up; `None`: never.
    pub tries_max: Option<u32>,
    /// How often the frontier is kept, where the pipeline keeps it.
    pub keep_every: Duration,
    /// And where it is further by skips alone.
    pub skips_every: Duration,
    /// How long a stop waits for what is under way to be settled.
    pub stop_limit: Duration,
    /// Poison, where no sink takes dead letters.
    pub on_poison: OnPoison,
    /// Records are missing in the source.
    pub on_gap: OnGap,
    /// The source is not the one that it was.
    pub on_diverged: OnDiverged,
    /// Where the time comes from.
    pub clock: Clock,
    /// For the jitter of what is waited; 0: another one in each process.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pull_max: 1_024,
            wait: Duration::from_millis(50),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(30),
            tries_max: None,
            keep_every: Duration::from_secs(1),
            skips_every: Duration::from_secs(5),
            stop_limit: Duration::from_secs(5),
            on_poison: OnPoison::End,
            on_gap: OnGap::GoOn,
            on_diverged: OnDiverged::End,
            clock: Clock::System,
            seed: 0,
        }
    }
}

/// What is done about a gap. It is counted and told of, and stages are told, in any case.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// It goes on behind it.
    #[default]
    GoOn,
    /// The pipeline ends.
    End,
}

/// What is done about a source that has other records than those that were handled.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum OnDiverged {
    /// The pipeline ends: a person must look.
    #[default]
    End,
    /// It begins with the oldest record that the source has, and reports a gap.
    Restart,
}

/// How long is waited before it is tried again: twice as long each time, and at random between
/// half of that and all of it, so that many who lost the same peer do not come back as one.
#[derive(Debug)]
pub(super) struct Backoff {
    state: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        let seed = if seed == 0 { u64::from(std::process::id()) } else { seed };
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1) }
    }

    /// Before try number `tries`, which is 1 after the first failure.
    pub(super) fn wait(&mut self, tries: u32, options: &Options) -> Duration {
        let doubled = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = options.backoff_min.saturating_mul(doubled).min(options.backoff_max);
        // xorshift64
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let half = whole / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half.saturating_add(Duration::from_nanos(self.state % spread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_its_bound_and_is_never_the_same_for_all() {
        let options = Options::default();
        let mut waits = Vec::new();
        for seed in 1..50 {
            let mut backoff = Backoff::new(seed);
            for tries in 1..=64 {
                let whole =
                    (options.backoff_min * (1 << (tries - 1).min(20))).min(options.backoff_max);
                let wait = backoff.wait(tries, &options);
                assert!(wait >= whole / 2 && wait <= whole, "try {tries}: {wait:?}");
                if tries == 10 {
                    waits.push(wait);
                }
            }
        }
        waits.sort();
        waits.dedup();
        assert!(waits.len() > 40, "{waits:?}");
    }
}
