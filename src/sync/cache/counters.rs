//! Counting without a bus: each thread adds to a row of its own, who asks sums them up.
//!
//! A hit takes some twenty nanoseconds, and adding to a number that others add to takes as long
//! again. A thread that has a row to itself loads and stores instead. There are as many rows as
//! threads that count at once, up to `ROWS`; later ones share the last, and add.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What is counted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Hit,
    Stale,
    Miss,
    TierHit,
    Load,
    LoadFailed,
    LoadVoid,
    Waited,
    Refresh,
    Refused,
    Invalidated,
    Evicted,
    TierRefused,
}

const COUNTS: usize = 16;
const _: () = assert!((Count::TierRefused as usize) < COUNTS, "a row is too short");
const ROWS: usize = 32;

/// 128 bytes: two lines of the processor's cache, which it fetches together.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Row([AtomicU64; COUNTS]);

/// The counts of one cache.
#[derive(Debug)]
pub(crate) struct Counters {
    rows: Box<[Row]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { rows: (0..ROWS).map(|_| Row::default()).collect() }
    }
}

/// Rows that no living thread has.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(0);
const NONE: usize = usize::MAX;

thread_local! {
    static ROW: Cell<usize> = const { Cell::new(NONE) };
    static KEPT: Kept = const { Kept };
}

/// Gives the thread's row back when it ends.
struct Kept;

impl Drop for Kept {
    fn drop(&mut self) {
        let row = ROW.replace(ROWS - 1);
        if row < ROWS - 1 {
            FREE.lock().push(row);
        }
    }
}

#[cold]
fn take_row() -> usize {
    let free = FREE.lock().pop();
    let row = free.unwrap_or_else(|| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        usize::try_from(next).unwrap_or(ROWS).min(ROWS - 1)
    });
    // A thread that is ending already shares the last row.
    let row = KEPT.try_with(|_kept| row).unwrap_or(ROWS - 1);
    ROW.set(row);
    row
}

impl Counters {
    /// One more.
    #[inline]
    pub(crate) fn add(&self, count: Count) {
        let mut row = ROW.get();
        if row == NONE {
            row = take_row();
        }
        let Some(Row(cells)) = self.rows.get(row) else { return };
        let Some(cell) = cells.get(count as usize) else { return };
        if row < ROWS - 1 {
            // Nobody else writes here: the row is this thread's until it ends, and the lock of
            // `FREE` orders its last store before the next owner's first load.
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        } else {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there were.
    pub(crate) fn sum(&self, count: Count) -> u64 {
        let cell =
            |Row(cells): &Row| cells.get(count as usize).map(|it| it.load(Ordering::Relaxed));
        self.rows.iter().filter_map(cell).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_however_many_threads_count_and_end() {
        let counters = Counters::default();
        for _round in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..2 * ROWS {
                    scope.spawn(|| (0..1_000).for_each(|_| counters.add(Count::Hit)));
                }
            });
        }
        assert_eq!(counters.sum(Count::Hit), 3 * 2 * 1_000 * ROWS as u64);
        assert_eq!(counters.sum(Count::Miss), 0);
    }
}
