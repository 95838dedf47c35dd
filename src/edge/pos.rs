//! Where a record stands in its source.

use std::fmt;
use std::str::FromStr;

/// Where a record stands in its source: positions increase from record to record.
///
/// They are compared as they are written: first the epoch, then the number, then the part.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos {
    /// The producer's incarnation: a larger one after each start that begins to number again.
    pub epoch: u64,
    /// The unit: a message, a line, a frame of a log.
    pub seq: u64,
    /// The record within the unit, where one unit holds several.
    pub part: u32,
}

impl Pos {
    /// Bytes that a position takes.
    pub const BYTES: usize = 20;

    /// The first record of unit `seq`.
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq, part: 0 }
    }

    /// Another record of the same unit.
    #[must_use]
    pub const fn at_part(self, part: u32) -> Self {
        Self { part, ..self }
    }

    /// For keeping: `epoch u64 | seq u64 | part u32`, little-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (epoch, rest) = bytes.split_at_mut(8);
        let (seq, part) = rest.split_at_mut(8);
        epoch.copy_from_slice(&self.epoch.to_le_bytes());
        seq.copy_from_slice(&self.seq.to_le_bytes());
        part.copy_from_slice(&self.part.to_le_bytes());
        bytes
    }

    /// The other way round.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [e0, e1, e2, e3, e4, e5, e6, e7, rest @ ..] = bytes;
        let [s0, s1, s2, s3, s4, s5, s6, s7, part @ ..] = rest;
        Self {
            epoch: u64::from_le_bytes([e0, e1, e2, e3, e4, e5, e6, e7]),
            seq: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            part: u32::from_le_bytes(part),
        }
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.seq, self.part)
    }
}

impl FromStr for Pos {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let parsed = next().zip(next()).zip(next());
        let found = parsed.and_then(|((epoch, seq), part)| {
            Some(Self { epoch, seq, part: u32::try_from(part).ok()? })
        });
        found.ok_or("expected a position, as in 1.42.0")
    }
}

/// A position, and what tells the record there from any other that could come to stand there.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Where.
    pub pos: Pos,
    /// A hash of the record there, as its source has it; `None` where the source has none.
    pub hash: Option<u64>,
}

impl Mark {
    /// Bytes that a mark takes.
    pub const BYTES: usize = Pos::BYTES + 9;

    /// For keeping: the position, then `1 | hash u64` or nine zeros.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (pos, rest) = bytes.split_at_mut(Pos::BYTES);
        pos.copy_from_slice(&self.pos.to_bytes());
        let (there, hash) = rest.split_at_mut(1);
        there.fill(u8::from(self.hash.is_some()));
        hash.copy_from_slice(&self.hash.unwrap_or(0).to_le_bytes());
        bytes
    }

    /// The other way round; `None` where they are no mark's.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (pos, rest) = bytes.split_first_chunk::<{ Pos::BYTES }>()?;
        let (there, hash) = rest.split_first()?;
        let hash = u64::from_le_bytes(hash.try_into().ok()?);
        let hash = match there {
            0 if hash == 0 => None,
            1 => Some(hash),
            _ => return None,
        };
        Some(Self { pos: Pos::from_bytes(*pos), hash })
    }
}

impl From<Pos> for Mark {
    fn from(pos: Pos) -> Self {
        Self { pos, hash: None }
    }
}

/// Records that a source had and cannot give any more, or that never came.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last record before it; `None` where it begins with the source's first.
    pub after: Option<Pos>,
    /// The first record behind it; `None` where that is not known yet.
    pub before: Option<Pos>,
    /// How many are missing, where that is known.
    pub lost: Option<u64>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            Some(after) => write!(f, "after {after}")?,
            None => write!(f, "from the beginning")?,
        }
        if let Some(before) = self.before {
            write!(f, ", before {before}")?;
        }
        if let Some(lost) = self.lost {
            write!(f, ", {lost} lost")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_marks_come_back_from_bytes_and_text_and_keep_their_order() {
        let numbers = [0, 1, 255, 256, 1 << 40, u64::MAX];
        let mut all = Vec::new();
        for epoch in numbers {
            for seq in numbers {
                for part in [0, 1, u32::MAX] {
                    all.push(Pos { epoch, seq, part });
                }
            }
        }
        assert!(all.is_sorted(), "epoch before number before part");
        for pos in all {
            assert_eq!(Pos::from_bytes(pos.to_bytes()), pos);
            assert_eq!(pos.to_string().parse(), Ok(pos));
            for hash in [None, Some(0), Some(u64::MAX)] {
                let mark = Mark { pos, hash };
                assert_eq!(Mark::from_bytes(&mark.to_bytes()), Some(mark));
            }
        }
        for text in ["", "1", "1.2", "1.2.", "1.2.4294967296", "1.2.3.4", "a.1.2", "-1.0.0"] {
            assert!(text.parse::<Pos>().is_err(), "{text:?}");
        }
        let good = Mark::from(Pos::new(1, 2)).to_bytes();
        for length in 0..good.len() {
            assert_eq!(Mark::from_bytes(&good[..length]), None, "{length} bytes");
        }
        assert_eq!(Mark::from_bytes(&[&good[..], &[0]].concat()), None);
    }
}
