//! What is counted of a pipeline. Its thread adds to it once a turn, not once a record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::drive::Counts;
use super::pos::Pos;

/// Powers of two of a microsecond that are told apart: up to a bit more than an hour.
const BUCKETS: usize = 33;

/// Numbers of one pipeline, since it was started. Read them at any time, from any thread.
#[derive(Debug, Default)]
pub struct Gauges {
    pulled: AtomicU64,
    emitted: AtomicU64,
    put: AtomicU64,
    settled: AtomicU64,
    dead: AtomicU64,
    retries: AtomicU64,
    gaps: AtomicU64,
    lost: AtomicU64,
    replayed: AtomicU64,
    repeated: AtomicU64,
    inflight: AtomicU64,
    bytes: AtomicU64,
    lag_us: AtomicU64,
    frontier: AtomicPos,
    head: AtomicPos,
    latency: Latency,
    skipped: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Debug)]
struct Latency([AtomicU64; BUCKETS]);

impl Default for Latency {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// A position of which the parts may be of two moments; each only rises in most sources.
#[derive(Debug, Default)]
struct AtomicPos {
    epoch: AtomicU64,
    seq: AtomicU64,
    part: AtomicU32,
}

impl AtomicPos {
    // Relaxed, here and below: numbers to look at.
    fn set(&self, pos: Pos) {
        self.epoch.store(pos.epoch, Ordering::Relaxed);
        self.seq.store(pos.seq, Ordering::Relaxed);
        self.part.store(pos.part, Ordering::Relaxed);
    }

    fn get(&self) -> Pos {
        Pos {
            epoch: self.epoch.load(Ordering::Relaxed),
            seq: self.seq.load(Ordering::Relaxed),
            part: self.part.load(Ordering::Relaxed),
        }
    }
}

/// A copy of the numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Numbers {
    /// Records that the source gave.
    pub pulled: u64,
    /// Records that came out of the stages.
    pub emitted: u64,
    /// Records that the sink was given.
    pub put: u64,
    /// Records of the source behind which the frontier is.
    pub settled: u64,
    /// Dead letters.
    pub dead: u64,
    /// What was to be tried again.
    pub retries: u64,
    /// Gaps.
    pub gaps: u64,
    /// Records in gaps, as far as their number is known.
    pub lost: u64,
    /// Records that came again though the sink has them: it was gone back for a stage's state.
    pub replayed: u64,
    /// Records that came out of the stages and were not put, because the sink has them.
    pub repeated: u64,
    /// Records of the source that are between the frontier and its head.
    pub inflight: u64,
    /// Bytes that the sink has written, where it counts them.
    pub bytes: u64,
    /// For how long the oldest record that is in flight has been so, in microseconds.
    pub lag_us: u64,
    /// Everything up to here is done.
    pub frontier: Pos,
    /// The last record that the source gave.
    pub head: Pos,
    /// Records that stages have dropped on purpose, by reason. `unsaid`: a stage did not say so.
    pub skipped: BTreeMap<&'static str, u64>,
    /// From the pull to the frontier: how many samples took less than 2^i microseconds, and not
    /// less than half of that. One sample for each pull that gave something.
    pub latency: Vec<u64>,
}

impl Gauges {
    /// A copy of the numbers.
    pub fn read(&self) -> Numbers {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Numbers {
            pulled: of(&self.pulled),
            emitted: of(&self.emitted),
            put: of(&self.put),
            settled: of(&self.settled),
            dead: of(&self.dead),
            retries: of(&self.retries),
            gaps: of(&self.gaps),
            lost: of(&self.lost),
            replayed: of(&self.replayed),
            repeated: of(&self.repeated),
            inflight: of(&self.inflight),
            bytes: of(&self.bytes),
            lag_us: of(&self.lag_us),
            frontier: self.frontier.get(),
            head: self.head.get(),
            skipped: self.skipped.lock().clone(),
            latency: self.latency.0.iter().map(of).collect(),
        }
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gap(&self, lost: Option<u64>) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(lost.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn replayed(&self, records: u64) {
        self.replayed.fetch_add(records, Ordering::Relaxed);
    }

    /// Adds what the stages have counted.
    pub(super) fn count(&self, counts: &mut Counts) {
        for (to, from) in [
            (&self.emitted, &mut counts.emitted),
            (&self.put, &mut counts.put),
            (&self.repeated, &mut counts.repeated),
            (&self.dead, &mut counts.dead),
        ] {
            to.fetch_add(std::mem::take(from), Ordering::Relaxed);
        }
        self.skip(counts.skipped.drain(..));
    }

    pub(super) fn skip(&self, skipped: impl IntoIterator<Item = (&'static str, u64)>) {
        let mut skipped = skipped.into_iter().peekable();
        if skipped.peek().is_none() {
            return;
        }
        let mut all = self.skipped.lock();
        for (reason, count) in skipped {
            *all.entry(reason).or_default() += count;
        }
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// What of the source was pulled when, until the frontier has passed it.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    /// The last position of a pull, how many records there were up to it, and when.
    open: VecDeque<(Pos, u64, Duration)>,
    pulled: u64,
    settled: u64,
}

impl Pulls {
    pub(super) fn pulled(&mut self, head: Pos, records: u64, now: Duration, gauges: &Gauges) {
        self.pulled += records;
        gauges.pulled.store(self.pulled, Ordering::Relaxed);
        gauges.head.set(head);
        self.open.push_back((head, self.pulled, now));
    }

    pub(super) fn passed(&mut self, frontier: Option<Pos>, now: Duration, gauges: &Gauges) {
        while let Some((head, total, at)) = self.open.front()
            && Some(*head) <= frontier
        {
            self.settled = *total;
            let took = u64::try_from(now.saturating_sub(*at).as_micros()).unwrap_or(u64::MAX);
            let bucket = (u64::BITS - took.leading_zeros()) as usize;
            let last = gauges.latency.0.get(bucket).or(gauges.latency.0.last());
            if let Some(bucket) = last {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
            self.open.pop_front();
        }
        gauges.settled.store(self.settled, Ordering::Relaxed);
        gauges.inflight.store(self.pulled - self.settled, Ordering::Relaxed);
        let lag = self.open.front().map_or(Duration::ZERO, |(_, _, at)| now.saturating_sub(*at));
        gauges.lag_us.store(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(frontier) = frontier {
            gauges.frontier.set(frontier);
        }
    }
}
