//! The plain types that every part of Annals speaks: positions, names of streams, lives, times.
//!
//! A number that leaves a function has a type. All of these are `Copy`, compare as one expects,
//! and none of them touches a disk or a clock.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU64;

use siphasher::sip::SipHasher24 as SipHasher;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// Every frame, and so every [`Lsn`], is aligned to this many bytes.
pub const FRAME_ALIGN: usize = 16;

/// Position of a frame in a log: base of its segment + offset in the segment's file.
///
/// A multiple of 16, never zero, and **never issued twice** in one log: what a power cut took
/// back leaves a gap. As a *mark* it is half-open: "durable is `x`" means that every frame that
/// begins below `x` is durable.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(NonZeroU64);

impl Lsn {
    /// `None` if `position` is zero or no multiple of 16: such a position cannot be a frame's.
    pub const fn new(position: u64) -> Option<Self> {
        match NonZeroU64::new(position) {
            Some(position) if position.get().is_multiple_of(FRAME_ALIGN as u64) => {
                Some(Self(position))
            }
            _ => None,
        }
    }

    /// The position in bytes from the log's beginning.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({})", self.get())
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Number of an event in its stream: 1, 2, 3 ... without holes; 0 is "before the first".
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Self = Self(0);
    /// The largest number that the format holds: 48 bits.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// `None` above [`Seq::MAX`].
    pub const fn new(seq: u64) -> Option<Self> {
        if seq <= Self::MAX.0 { Some(Self(seq)) } else { None }
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number `count` events further on; `None` past [`Seq::MAX`].
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(seq) => Self::new(seq),
            None => None,
        }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a stream, that is one actor's events: a 128-bit hash of the actor's kind and name.
///
/// Aligned as its halves: what holds one has no hole for it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(8))]
pub struct StreamId(u128);

impl StreamId {
    /// The stream of system frames: no actor's.
    pub const SYSTEM: Self = Self(0);

    /// SipHash-2-4-128 with a zero key over `len(kind) u64 LE | kind | name`.
    ///
    /// Not a secret, but no cheap collisions either: names often come from outside. The name is
    /// kept in the stream's first frame, so a collision is an error rather than a mix-up.
    pub fn of(kind: &str, name: &str) -> Self {
        let mut hasher = SipHasher24::new();
        hasher.write(&(kind.len() as u64).to_le_bytes());
        hasher.write(kind.as_bytes());
        hasher.write(name.as_bytes());
        let hash = hasher.finish128().as_u128();
        Self(if hash == 0 { 1 } else { hash })
    }

    /// From its number, as stored in a frame.
    pub const fn from_u128(hash: u128) -> Self {
        Self(hash)
    }

    /// The hash itself.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.get())
    }
}

/// Names a domain on the wire and in tokens: a hash of its name. Two names with one hash are
/// refused where they are declared.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(u64);

impl DomainId {
    /// Of facts that belong to no domain, such as the birth of a node.
    pub const NONE: Self = Self(0);

    /// SipHash-2-4 with a zero key over the name.
    pub fn of(name: &str) -> Self {
        let mut hasher = SipHasher::new();
        hasher.write(name.as_bytes());
        Self(hasher.finish().max(1))
    }

    /// From its number.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomainId({:016x})", self.0)
    }
}

/// A map keyed by [`StreamId`]: the id is a hash already and is not hashed again.
pub(crate) type StreamMap<V> =
    std::collections::HashMap<StreamId, V, BuildHasherDefault<StreamHasher>>;

/// Passes a stream id's own bits through, folded to 64.
#[derive(Debug, Default)]
pub(crate) struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        let [low, high] = halves(hash);
        self.0 = low ^ high.rotate_left(32);
    }
}

/// The low and the high 64 bits.
pub(crate) const fn halves(hash: u128) -> [u64; 2] {
    const MASK: u128 = u64::MAX as u128;
    [(hash & MASK) as u64, (hash >> 64) as u64]
}

/// One open of a store, from open to close or crash.
///
/// The bits are random and go into the checksum of every frame of that life, so that a frame
/// left over from an earlier one never passes for a frame of this.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    /// 1 for the first open of a store, and one more each time.
    pub number: u64,
    /// 64 random bits.
    pub bits: u64,
}

/// Hybrid time: 48 bits of milliseconds since the Unix epoch, then 16 bits that count.
///
/// Strictly increasing within a log, whatever the wall clock does.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HybridTime(u64);

impl HybridTime {
    /// From its bits, as stored.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// At the beginning of a millisecond since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis << 16)
    }

    /// As stored in a frame.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The least time that is later.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// How hard an append is: what it survives once it was acknowledged.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Whatever leaves this kernel running: `kill -9`, the OOM killer, a panic, the end of a
    /// container. Costs no system call.
    Process,
    /// Power loss, a kernel panic, the reset of a virtual machine: `fdatasync` has returned.
    #[default]
    Power,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Power => "power",
        })
    }
}

impl std::str::FromStr for Durability {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "process" => Ok(Self::Process),
            "power" => Ok(Self::Power),
            _ => Err("expected `process` or `power`"),
        }
    }
}

/// `u64` to `usize`, which are the same width wherever Annals builds.
#[expect(clippy::cast_possible_truncation, reason = "64-bit only, asserted beside it")]
pub(crate) const fn to_usize(number: u64) -> usize {
    const { assert!(usize::BITS == 64, "Annals needs a 64-bit platform") };
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_no_frame_can_have_is_refused() {
        assert_eq!(Lsn::new(0), None);
        assert_eq!(Lsn::new(17), None);
        assert_eq!(Lsn::new(4096).map(Lsn::get), Some(4096));
    }

    #[test]
    fn kind_and_name_do_not_run_into_each_other() {
        assert_ne!(StreamId::of("ab", "c"), StreamId::of("a", "bc"));
        assert_ne!(StreamId::of("a", "x"), StreamId::of("b", "x"));
    }

    #[test]
    fn the_hash_of_a_name_is_part_of_the_format_and_never_changes() {
        let hash = StreamId::of("account", "alice");
        assert_eq!(hash, StreamId::of("account", "alice"));
        assert_eq!(hash.to_string(), "d397279c78bd1991dc7f80fb2f32e63e");
    }
}
