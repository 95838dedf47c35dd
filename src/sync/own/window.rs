//! The window: the newest tokens, as they are sent, once for all who are up to date.

use std::collections::VecDeque;

use crate::sync::token::split;

/// What a page holds, unless one token is larger.
const PAGE_BYTES: usize = 64 << 10;
/// In a page every so manieth record can be found without a walk.
const MARKED: u64 = 16;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Window {
    pages: VecDeque<Page>,
    bytes: usize,
    bytes_max: usize,
}

/// Records back to back.
#[derive(Debug)]
struct Page {
    first: u64,
    /// Behind the last.
    next: u64,
    bytes: Vec<u8>,
    /// Where the first, the 17th, the 33rd ... record begins.
    marks: Vec<u32>,
}

impl Page {
    fn clear(&mut self, first: u64) {
        (self.first, self.next) = (first, first);
        self.bytes.clear();
        self.marks.clear();
        // One large token is not to hold its room for ever.
        self.bytes.shrink_to(PAGE_BYTES);
    }

    fn push(&mut self, record: &[u8]) {
        if (self.next - self.first).is_multiple_of(MARKED) {
            self.marks.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
        }
        self.bytes.extend_from_slice(record);
        self.next += 1;
    }

    /// The records from number `from` on.
    fn from(&self, from: u64) -> &[u8] {
        let steps = from.saturating_sub(self.first);
        let mark = usize::try_from(steps / MARKED).ok().and_then(|it| self.marks.get(it));
        let start = mark.map_or(usize::MAX, |mark| *mark as usize);
        let mut rest = self.bytes.get(start..).unwrap_or_default();
        for _ in 0..steps % MARKED {
            rest = split(rest).map_or(&[], |(_, rest)| rest);
        }
        rest
    }
}

impl Window {
    /// One that holds so many bytes; at least what was pushed last.
    pub(crate) fn of(bytes_max: usize) -> Self {
        Self { pages: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// The number of the first token that it holds, or `u64::MAX`.
    pub(crate) fn first(&self) -> u64 {
        self.pages.front().map_or(u64::MAX, |page| page.first)
    }

    /// Adds `records`, of which `first` is the number of the first.
    pub(crate) fn push(&mut self, first: u64, records: &[u8]) {
        let mut rest = records;
        let mut seq = first;
        while let Ok((record, after)) = split(rest) {
            rest = after;
            let fits = self.pages.back().is_some_and(|page| {
                page.next == seq && page.bytes.len() + record.len() <= PAGE_BYTES
            });
            if !fits {
                self.turn_over(seq, record.len());
            }
            if let Some(page) = self.pages.back_mut() {
                page.push(record);
                self.bytes += record.len();
            }
            seq += 1;
        }
    }

    /// A new page, the oldest one if there are enough.
    fn turn_over(&mut self, first: u64, bytes: usize) {
        let mut spare = None;
        while self.bytes + bytes > self.bytes_max
            && let Some(oldest) = self.pages.pop_front()
        {
            self.bytes -= oldest.bytes.len();
            spare = Some(oldest);
        }
        let mut page = spare.unwrap_or_else(|| Page {
            first,
            next: first,
            bytes: Vec::with_capacity(PAGE_BYTES),
            marks: Vec::new(),
        });
        page.clear(first);
        self.pages.push_back(page);
    }

    /// Adds the records from number `from` on to `out`, as many as fit `bytes_max`, but one at
    /// least; answers the number of the last; `None` if it has not got them.
    pub(crate) fn read(&self, from: u64, bytes_max: usize, out: &mut Vec<u8>) -> Option<u64> {
        let number = self.pages.partition_point(|page| page.next <= from);
        let mut pages = self.pages.range(number..);
        let page = pages.next().filter(|page| page.first <= from)?;
        let (mut last, mut left) = (None, bytes_max);
        let mut take = |from: u64, records: &[u8], pages_last: u64| {
            if records.len() <= left {
                out.extend_from_slice(records);
                left -= records.len();
                last = Some(pages_last);
                return true;
            }
            let (mut rest, mut seq, mut bytes) = (records, from, 0);
            while let Ok((record, after)) = split(rest) {
                if bytes + record.len() > left && last.is_some() {
                    break;
                }
                bytes += record.len();
                last = Some(seq);
                seq += 1;
                rest = after;
            }
            out.extend_from_slice(records.get(..bytes).unwrap_or_default());
            false
        };
        if take(from, page.from(from), page.next - 1) {
            for page in pages {
                if !take(page.first, &page.bytes, page.next - 1) {
                    break;
                }
            }
        }
        last
    }
}
