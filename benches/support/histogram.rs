//! A distribution of times in constant space: below 1/64 off at any size.

use std::time::{Duration, Instant};

/// Buckets for each doubling.
const STEPS: u64 = 64;
const BUCKETS: usize = 3_776;

/// Times in nanoseconds, counted.
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    recorded: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into(), recorded: 0, max: 0 }
    }

    /// How long each of so many takes. The clock is read once for each: where one ends the next
    /// begins.
    pub(crate) fn of_each(times: u64, work: &mut dyn FnMut()) -> Self {
        let mut this = Self::new();
        let mut last = Instant::now();
        for _ in 0..times {
            work();
            let now = Instant::now();
            this.record(now - last);
            last = now;
        }
        this
    }

    pub(crate) fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.recorded += 1;
        self.max = self.max.max(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.recorded += other.recorded;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.recorded == 0
    }

    pub(crate) fn max(&self) -> f64 {
        self.max as f64
    }

    /// The time in nanoseconds that `parts` in 1,000 do not exceed.
    pub(crate) fn per_mille(&self, parts: u64) -> f64 {
        let wanted = (self.recorded * parts).div_ceil(1_000);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(bucket as u64).min(self.max) as f64;
            }
        }
        self.max()
    }

    pub(crate) fn p50(&self) -> f64 {
        self.per_mille(500)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.per_mille(990)
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = u64::from(nanos.max(1).ilog2().saturating_sub(STEPS.ilog2()));
    usize::try_from(shift * STEPS + (nanos >> shift)).expect("there are 3,776")
}

fn middle(bucket: u64) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    ((bucket - shift * STEPS) << shift) + ((1 << shift) >> 1)
}
