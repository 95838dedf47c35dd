//! Marks: which tokens of a domain spoke of more than one key, so that a hit can tell at once.
//!
//! Each such token takes the next *number* of the domain. An entry knows the number that its load
//! began under, and while the domain's is the same nothing has to be asked. Otherwise three
//! things are: the number of the last `All`, those of the entry's tags, and those of what its key
//! begins with. So clearing ten million entries is one store, and no token costs more than that.
//!
//! Tags and prefixes are kept as hashes in a table of fixed size: two that fall on one place are
//! taken for each other, which costs a load and is never stale.

use std::hash::Hasher as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use crate::sync::cache::version::Version;
use crate::types::HybridTime;

/// Places of the table: 512 KiB, allocated with the first tag or prefix that is raised.
const PLACES: usize = 1 << 16;
/// Longer prefixes are cut to this, and so speak of more.
const PREFIX_BYTES_MAX: usize = 255;

/// A tag as entries carry it: the same in every life, for it goes into tiers that outlive one.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TagHash(pub(crate) u32);

impl TagHash {
    pub(crate) fn of(tag: &[u8]) -> Self {
        Self(hash(u64::MAX, tag))
    }

    fn place(self) -> usize {
        usize::try_from(self.0).unwrap_or(0) % PLACES
    }
}

fn hash(kind: u64, bytes: &[u8]) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(kind, 0);
    hasher.write(bytes);
    let [b0, b1, b2, b3, ..] = hasher.finish().to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

fn prefix_place(prefix: &[u8]) -> usize {
    // The length is in the key of the hash, so "a" + "b" and "ab" are different places.
    usize::try_from(hash(prefix.len() as u64, prefix)).unwrap_or(0) % PLACES
}

/// The numbers of a domain.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Of the last token that spoke of more than a key.
    number: AtomicU64,
    /// Of the last that spoke of everything.
    all: AtomicU64,
    table: OnceLock<Box<[AtomicU64]>>,
    /// Which lengths of prefixes there were: one bit each.
    lengths: [AtomicU64; 4],
    /// The newest time of such a token: no value that was sent before it counts any more.
    floor: AtomicU64,
    /// Held to give out a number.
    raising: Mutex<()>,
}

impl Marks {
    /// The number that a load begins under.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        // Acquire: pairs with the Release in `raise`. Who sees a number sees what it was raised
        // for, in `all`, `table` and `lengths`.
        self.number.load(Ordering::Acquire)
    }

    /// Values that were sent at this time or before count for nothing from the next raise on.
    pub(crate) fn raise_floor(&self, time: HybridTime) {
        self.floor.fetch_max(time.bits(), Ordering::Relaxed);
    }

    /// See [`raise_floor`](Self::raise_floor).
    pub(crate) fn floor(&self) -> Version {
        match self.floor.load(Ordering::Relaxed) {
            0 => Version::OLDEST,
            bits => Version::end_of(HybridTime::from_bits(bits)),
        }
    }

    /// Everything.
    pub(crate) fn raise_all(&self) {
        self.raise(|number| self.all.store(number, Ordering::Relaxed));
    }

    /// Everything that bears a tag.
    pub(crate) fn raise_tag(&self, tag: TagHash) {
        self.raise(|number| self.mark(tag.place(), number));
    }

    /// Every key that begins so.
    pub(crate) fn raise_prefix(&self, prefix: &[u8]) {
        let prefix = prefix.get(..PREFIX_BYTES_MAX).unwrap_or(prefix);
        if prefix.is_empty() {
            return self.raise_all();
        }
        self.raise(|number| {
            self.mark(prefix_place(prefix), number);
            if let Some(word) = self.lengths.get(prefix.len() / 64) {
                word.fetch_or(1 << (prefix.len() % 64), Ordering::Relaxed);
            }
        });
    }

    fn raise(&self, mark: impl FnOnce(u64)) {
        let _one_at_a_time = self.raising.lock();
        let number = self.number.load(Ordering::Relaxed).saturating_add(1);
        mark(number);
        // Release: the mark is there before the number is seen.
        self.number.store(number, Ordering::Release);
    }

    fn mark(&self, place: usize, number: u64) {
        let table = self.table.get_or_init(|| (0..PLACES).map(|_| AtomicU64::new(0)).collect());
        if let Some(cell) = table.get(place) {
            cell.store(number, Ordering::Relaxed);
        }
    }

    /// Did no token after number `since` speak of this key or one of these tags?
    #[cold]
    pub(crate) fn spare(&self, since: u64, key: &[u8], tags: &[TagHash]) -> bool {
        if self.all.load(Ordering::Relaxed) > since {
            return false;
        }
        let Some(table) = self.table.get() else { return true };
        let marked =
            |place: usize| table.get(place).is_none_or(|cell| cell.load(Ordering::Relaxed) > since);
        if tags.iter().any(|tag| marked(tag.place())) {
            return false;
        }
        for (index, word) in self.lengths.iter().enumerate() {
            let mut lengths = word.load(Ordering::Relaxed);
            while lengths != 0 {
                let length = index * 64 + lengths.trailing_zeros() as usize;
                lengths &= lengths - 1;
                if key.get(..length).is_some_and(|prefix| marked(prefix_place(prefix))) {
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_speaks_of_what_it_says_and_of_nothing_that_came_after() {
        let marks = Marks::default();
        let (red, blue) = (TagHash::of(b"red"), TagHash::of(b"blue"));
        let begun = marks.number();
        assert!(marks.spare(begun, b"user/7", &[red]));

        marks.raise_tag(red);
        assert!(!marks.spare(begun, b"user/7", &[blue, red]));
        assert!(marks.spare(begun, b"user/7", &[blue]));
        assert!(marks.spare(begun, b"user/7", &[]));
        assert!(marks.spare(marks.number(), b"user/7", &[red]));

        let begun = marks.number();
        marks.raise_prefix(b"user/");
        assert!(!marks.spare(begun, b"user/7", &[]));
        assert!(!marks.spare(begun, b"user/", &[]));
        assert!(marks.spare(begun, b"user", &[]));
        assert!(marks.spare(begun, b"page/7", &[]));
        assert!(marks.spare(marks.number(), b"user/7", &[]));

        let begun = marks.number();
        marks.raise_prefix(b"");
        assert!(!marks.spare(begun, b"page/7", &[]));
        assert!(marks.spare(marks.number(), b"page/7", &[]));
    }

    #[test]
    fn a_prefix_of_any_length_is_heeded() {
        let key = [7_u8; 400];
        for length in 0..=400 {
            let marks = Marks::default();
            marks.raise_prefix(&key[..length]);
            assert!(!marks.spare(0, &key, &[]), "{length}");
            assert_eq!(marks.spare(0, &[8; 400], &[]), length > 0, "{length}");
        }
    }
}
