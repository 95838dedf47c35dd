//! Tiers below memory, and how an entry there proves itself.
//!
//! A tier is trusted with nothing: it may lose an entry, bring one back that was deleted, or damage
//! it. So each record carries a checksum over itself, its domain and its key, what it was filled
//! under in this life (generation and number), and the *stamp* of its fill: how far every log of
//! tokens was both durable and applied here before the source was read. In this life generation
//! and number decide. In a later one the record is a hit only if no token after its stamp speaks
//! of it ([`Proof`](crate::sync::cache::proof::Proof)). **No correctness rests on a delete**, so an
//! applied token costs no I/O.
//!
//! ```text
//!  0  crc       u32   over the rest, then the domain u64 and the key
//!  4  version   u8    1
//!  5  flags     u8    1: the source has none
//!  6  tags      u16   how many
//!  8  life      u64   random: of the cache that wrote it
//! 16  stripe    u64   generation of its key's stripe in that life
//! 24  number    u64   of the domain in that life
//! 32  expires   u64   wall time, milliseconds; u64::MAX: never
//! 40  cursors   u32   how many
//! 44  tags      u32 each
//!     cursors   origin u64, counter u64, nonce u64, lane u8, seq u64, hash u64
//!     value     the rest
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crc32fast::Hasher;

use crate::sync::cache::marks::TagHash;
use crate::sync::domain::DomainId;
use crate::sync::origin::{Cursor, Incarnation, Lane, Origin, TokenLog};
use crate::types::to_usize;

const VERSION: u8 = 1;
const HEADER: usize = 44;
const CURSOR: usize = 41;
const ABSENT: u8 = 1;

/// A place below memory for bytes under keys. Whatever it loses is loaded again; whatever it brings
/// back is checked.
///
/// Called by threads that ask and load, under no lock.
pub trait Tier: Send + Sync + fmt::Debug {
    /// The record of a key, if it is there and can be read.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Keeps a record; or does not.
    fn put(&self, key: &[u8], record: &[u8]);
    /// Drops a record; or does not.
    fn remove(&self, key: &[u8]);
    /// Drops all.
    fn clear(&self);
}

pub(crate) type Write<V> = fn(&V, &mut Vec<u8>);
pub(crate) type Read<V> = fn(&[u8]) -> Option<V>;

/// A tier and how a cache uses it.
pub(crate) struct Persist<V> {
    pub(crate) tier: Arc<dyn Tier>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) write: Write<V>,
    pub(crate) read: Read<V>,
}

impl<V> Persist<V> {
    pub(crate) fn new(
        tier: Arc<dyn Tier>,
        ttl: Option<Duration>,
        (write, read): (Write<V>, Read<V>),
    ) -> Self {
        Self { tier, ttl, write, read }
    }
}

/// What is written with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) absent: bool,
    pub(crate) life: u64,
    pub(crate) stripe: u64,
    pub(crate) number: u64,
    /// Wall time, milliseconds.
    pub(crate) expires: u64,
    pub(crate) tags: Box<[TagHash]>,
    pub(crate) stamp: Arc<[Cursor]>,
}

fn checksum(summed: &[u8], domain: DomainId, key: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(summed);
    hasher.update(&domain.get().to_le_bytes());
    hasher.update(key);
    hasher.finalize()
}

impl Kept {
    /// The record of a value; `None` if there are more tags or cursors than it holds.
    pub(crate) fn encode(
        &self,
        (domain, key): (DomainId, &[u8]),
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Vec<u8>> {
        let tags = u16::try_from(self.tags.len()).ok()?;
        let cursors = u32::try_from(self.stamp.len()).ok()?;
        let mut out = vec![0; 4];
        out.push(VERSION);
        out.push(if self.absent { ABSENT } else { 0 });
        out.extend_from_slice(&tags.to_le_bytes());
        for word in [self.life, self.stripe, self.number, self.expires] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&cursors.to_le_bytes());
        for TagHash(tag) in &self.tags {
            out.extend_from_slice(&tag.to_le_bytes());
        }
        for Cursor { log, seq, hash } in self.stamp.iter() {
            let TokenLog { origin, incarnation: Incarnation { counter, nonce }, lane } = log;
            for word in [origin.get(), *counter, *nonce] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.push(match lane {
                Lane::Tokens => 0,
                Lane::Values => 1,
            });
            out.extend_from_slice(&seq.to_le_bytes());
            out.extend_from_slice(&hash.to_le_bytes());
        }
        value(&mut out);
        let crc = checksum(out.get(4..)?, domain, key);
        out.get_mut(..4)?.copy_from_slice(&crc.to_le_bytes());
        Some(out)
    }

    /// What was written of a key, and the value's bytes; `None` if this is not what was.
    pub(crate) fn decode<'a>(
        record: &'a [u8],
        (domain, key): (DomainId, &[u8]),
    ) -> Option<(Self, &'a [u8])> {
        let (crc, summed) = record.split_first_chunk::<4>()?;
        if checksum(summed, domain, key) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (header, rest) = record.split_first_chunk::<HEADER>()?;
        let [_, _, _, _, VERSION, flags, t0, t1, ..] = *header else { return None };
        let word = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(*header.get(at..at + 8)?.first_chunk::<8>()?))
        };
        let cursors = header.last_chunk::<4>().map(|count| u32::from_le_bytes(*count))?;
        let tag_bytes = usize::from(u16::from_le_bytes([t0, t1])) * 4;
        let (tags, rest) = rest.split_at_checked(tag_bytes)?;
        let stamp_bytes = to_usize(u64::from(cursors)).checked_mul(CURSOR)?;
        let (stamp, value) = rest.split_at_checked(stamp_bytes)?;
        let tags = tags.as_chunks::<4>().0.iter();
        let stamp: Option<Arc<[Cursor]>> =
            stamp.as_chunks::<CURSOR>().0.iter().map(cursor).collect();
        let kept = Self {
            absent: flags & ABSENT != 0,
            life: word(8)?,
            stripe: word(16)?,
            number: word(24)?,
            expires: word(32)?,
            tags: tags.map(|tag| TagHash(u32::from_le_bytes(*tag))).collect(),
            stamp: stamp?,
        };
        Some((kept, value))
    }
}

fn cursor(bytes: &[u8; CURSOR]) -> Option<Cursor> {
    let word = |at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(*bytes.get(at..at + 8)?.first_chunk::<8>()?))
    };
    let lane = match bytes.get(24)? {
        0 => Lane::Tokens,
        1 => Lane::Values,
        _ => return None,
    };
    let incarnation = Incarnation { counter: word(8)?, nonce: word(16)? };
    let log = TokenLog { origin: Origin::from_u64(word(0)?), incarnation, lane };
    Some(Cursor { log, seq: word(25)?, hash: word(33)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let log = TokenLog {
            origin: Origin::from_u64(3),
            incarnation: Incarnation { counter: 2, nonce: 9 },
            lane: Lane::Values,
        };
        Kept {
            absent: false,
            life: 7,
            stripe: 8,
            number: 9,
            expires: u64::MAX,
            tags: [TagHash(1), TagHash(2)].into(),
            stamp: [Cursor { log, seq: 5, hash: 6 }, Cursor::start(log)].into(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_not_at_all_once_a_bit_is_another() {
        let of = (DomainId::of("pages"), &b"key"[..]);
        let record = kept().encode(of, |out| out.extend_from_slice(b"value")).unwrap();
        assert_eq!(Kept::decode(&record, of), Some((kept(), &b"value"[..])));
        assert_eq!(Kept::decode(&record, (of.0, b"kez")), None, "of another key");
        assert_eq!(Kept::decode(&record, (DomainId::of("page"), of.1)), None, "another domain");
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Kept::decode(&damaged, of), None, "bit {bit}");
        }
        for cut in 0..record.len() {
            assert_eq!(Kept::decode(&record[..cut], of), None, "cut at {cut}");
        }
    }
}
