//! The token record: the bytes that are in the log, in others' logs and on the wire alike.
//!
//! ```text
//!  0  crc     u32   over the bytes from 4 on, then origin u64, counter u64, nonce u64, lane u8
//!  4  bytes   u24   of the body
//!  7  kind    u8    see `TokenKind`
//!  8  seq     u48   number in its log: 1, 2, 3 ...
//! 14  flags   u16   0 so far; who does not know a flag takes the token for `All`
//! 16  time    u64   hybrid time of the node that published it
//! 24  domain  u64   `DomainId`; 0 for facts of no domain
//! 32  body          key, tag or prefix; of other kinds what their name says
//! ```
//!
//! All numbers are little-endian, and nothing is padded: records stand back to back. **A token
//! knows whose it is**: its log goes into the checksum, so one that strayed never validates.

use std::hash::Hasher as _;

use crc32fast::Hasher;
use siphasher::sip::SipHasher13;

use crate::sync::domain::DomainId;
use crate::sync::origin::{Lane, TokenLog};
use crate::types::{HybridTime, to_usize};

/// Bytes of a token besides its body.
pub const HEADER: usize = 32;
/// The longest body.
pub const BODY_BYTES_MAX: usize = (1 << 24) - 1;

/// What a token says.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// The value of a key has changed. Body: the key.
    Key,
    /// So has everything that bears a tag. Body: the tag.
    Tag,
    /// So has every key that begins so. Body: the prefix.
    Prefix,
    /// So may have everything of the domain; of all domains of the origin if it names none.
    All,
    /// A value, for those who hold it already. Body: key length u32, key, value.
    Put,
    /// Entry 1 of an incarnation: who its node was before, and its domains.
    Birth,
    /// Changes are about to be made outside; what matches is not to be remembered meanwhile. Body:
    /// id u64, then what `Key` records would have, each with its length u32 before it.
    Intent,
    /// They were made. Body: the intent's id.
    Done,
    /// It was found out whether they were made. Body: the intent's id.
    Resolved,
    /// An origin joins the writers. Body: see membership.
    Join,
    /// An origin leaves them.
    Leave,
    /// Measures delivery; invalidates nothing and proves nothing.
    Probe,
    /// Of a version that is not known here: to be taken for [`Self::All`].
    Unknown(u8),
}

impl TokenKind {
    /// As stored.
    pub const fn code(self) -> u8 {
        match self {
            Self::Key => 1,
            Self::Tag => 2,
            Self::Prefix => 3,
            Self::All => 4,
            Self::Put => 5,
            Self::Birth => 6,
            Self::Intent => 7,
            Self::Done => 8,
            Self::Resolved => 9,
            Self::Join => 10,
            Self::Leave => 11,
            Self::Probe => 12,
            Self::Unknown(code) => code,
        }
    }

    /// From what is stored.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Key,
            2 => Self::Tag,
            3 => Self::Prefix,
            4 => Self::All,
            5 => Self::Put,
            6 => Self::Birth,
            7 => Self::Intent,
            8 => Self::Done,
            9 => Self::Resolved,
            10 => Self::Join,
            11 => Self::Leave,
            12 => Self::Probe,
            code => Self::Unknown(code),
        }
    }
}

/// One token, borrowed from the bytes that it was read from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// Its number in its log: 1, 2, 3 ... without holes.
    pub seq: u64,
    /// When it was published, by the hybrid clock of its origin.
    pub time: HybridTime,
    /// Of which part of what is cached; [`DomainId::NONE`] for facts of no domain.
    pub domain: DomainId,
    /// What it says.
    pub kind: TokenKind,
    /// None is known so far.
    pub flags: u16,
    /// What it is said of.
    pub body: &'a [u8],
}

/// Why bytes are no token of the log that they are said to be of.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenReject {
    /// They end inside the record.
    #[error("the bytes end inside the token")]
    Short,
    /// Damaged, or of another node, life or lane.
    #[error("the token's checksum does not fit its log")]
    Checksum,
    /// The record cannot be written: its body or number is larger than the format holds.
    #[error("a token's body or number is larger than the format holds")]
    TooLarge,
}

/// What goes into the checksum besides the record.
fn salt(log: &TokenLog) -> [u8; 25] {
    let mut salt = [0; 25];
    let (origin, rest) = salt.split_at_mut(8);
    let (counter, rest) = rest.split_at_mut(8);
    let (nonce, lane) = rest.split_at_mut(8);
    origin.copy_from_slice(&log.origin.get().to_le_bytes());
    counter.copy_from_slice(&log.incarnation.counter.to_le_bytes());
    nonce.copy_from_slice(&log.incarnation.nonce.to_le_bytes());
    lane.fill(match log.lane {
        Lane::Tokens => 0,
        Lane::Values => 1,
    });
    salt
}

impl<'a> Token<'a> {
    /// Appends the record to `out`.
    ///
    /// # Errors
    /// [`TokenReject::TooLarge`]; `out` is as before.
    pub fn encode(&self, log: &TokenLog, out: &mut Vec<u8>) -> Result<(), TokenReject> {
        let bytes = u32::try_from(self.body.len()).map_err(|_too_long| TokenReject::TooLarge)?;
        if self.body.len() > BODY_BYTES_MAX || self.seq >> 48 != 0 {
            return Err(TokenReject::TooLarge);
        }
        let start = out.len();
        out.reserve(HEADER + self.body.len());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(bytes | u32::from(self.kind.code()) << 24).to_le_bytes());
        out.extend_from_slice(&(self.seq | u64::from(self.flags) << 48).to_le_bytes());
        out.extend_from_slice(&self.time.bits().to_le_bytes());
        out.extend_from_slice(&self.domain.get().to_le_bytes());
        out.extend_from_slice(self.body);
        let crc = checksum(out.get(start + 4..).unwrap_or_default(), log);
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        Ok(())
    }

    /// The first token of `bytes` and what follows it, checked.
    ///
    /// # Errors
    /// See [`TokenReject`].
    pub fn decode(bytes: &'a [u8], log: &TokenLog) -> Result<(Self, &'a [u8]), TokenReject> {
        let (record, rest) = split(bytes)?;
        let (crc, summed) = record.split_first_chunk::<4>().ok_or(TokenReject::Short)?;
        if checksum(summed, log) != u32::from_le_bytes(*crc) {
            return Err(TokenReject::Checksum);
        }
        Ok((Self::parse(record)?, rest))
    }

    /// A record that was checked before, as [`split`] hands it out.
    ///
    /// # Errors
    /// [`TokenReject::Short`].
    pub fn parse(record: &'a [u8]) -> Result<Self, TokenReject> {
        let (header, body) = record.split_first_chunk::<HEADER>().ok_or(TokenReject::Short)?;
        let word = |at: usize| -> u64 {
            let word = header.get(at..at + 8).and_then(|it| it.first_chunk::<8>());
            word.map_or(0, |word| u64::from_le_bytes(*word))
        };
        let [_, _, _, _, _, _, _, kind, ..] = *header;
        let numbered = word(8);
        Ok(Self {
            seq: numbered & ((1 << 48) - 1),
            time: HybridTime::from_bits(word(16)),
            domain: DomainId::from_u64(word(24)),
            kind: TokenKind::from_code(kind),
            flags: u16::try_from(numbered >> 48).unwrap_or(0),
            body,
        })
    }
}

fn checksum(summed: &[u8], log: &TokenLog) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(summed);
    hasher.update(&salt(log));
    hasher.finalize()
}

/// The first record of `bytes`, unchecked, and what follows it.
///
/// # Errors
/// [`TokenReject::Short`].
pub fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), TokenReject> {
    let [_, _, _, _, b0, b1, b2, ..] = *bytes.first_chunk::<8>().ok_or(TokenReject::Short)?;
    let body = to_usize(u64::from(u32::from_le_bytes([b0, b1, b2, 0])));
    bytes.split_at_checked(HEADER + body).ok_or(TokenReject::Short)
}

/// The running hash after `record`: SipHash-1-3 with the hash before it as the key.
///
/// It guards against mistakes: two logs that differ in a token do not agree from there on.
pub fn chain(before: u64, record: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(before, 0);
    hasher.write(record);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::origin::{Incarnation, Origin};

    fn log() -> TokenLog {
        TokenLog {
            origin: Origin::from_u64(7),
            incarnation: Incarnation { counter: 3, nonce: 99 },
            lane: Lane::Tokens,
        }
    }

    fn token(body: &[u8]) -> Token<'_> {
        Token {
            seq: 41,
            time: HybridTime::from_millis(5),
            domain: DomainId::of("prices"),
            kind: TokenKind::Key,
            flags: 0x8001,
            body,
        }
    }

    #[test]
    fn tokens_stand_back_to_back_and_come_back_one_by_one() {
        let mut bytes = Vec::new();
        for body in [&b"alice"[..], b"", &[9; 300]] {
            token(body).encode(&log(), &mut bytes).unwrap();
        }
        let mut left = &*bytes;
        for body in [&b"alice"[..], b"", &[9; 300]] {
            let (read, rest) = Token::decode(left, &log()).unwrap();
            assert_eq!(read, token(body));
            left = rest;
        }
        assert!(left.is_empty());
    }

    #[test]
    fn every_cut_every_flipped_bit_and_every_other_log_is_refused() {
        let mut bytes = Vec::new();
        token(b"alice").encode(&log(), &mut bytes).unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(Token::decode(&bytes[..cut], &log()), Err(TokenReject::Short), "cut {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Token::decode(&bad, &log()).is_err(), "bit {bit}");
        }
        let others = [
            TokenLog { origin: Origin::from_u64(8), ..log() },
            TokenLog { incarnation: Incarnation { counter: 4, nonce: 99 }, ..log() },
            TokenLog { incarnation: Incarnation { counter: 3, nonce: 98 }, ..log() },
            TokenLog { lane: Lane::Values, ..log() },
        ];
        for other in others {
            assert_eq!(Token::decode(&bytes, &other), Err(TokenReject::Checksum), "{other}");
        }
    }

    #[test]
    fn kinds_keep_their_codes_and_unknown_ones_are_kept_as_they_are() {
        for code in 0..=u8::MAX {
            assert_eq!(TokenKind::from_code(code).code(), code);
        }
    }

    #[test]
    fn the_running_hash_tells_order_and_content_apart() {
        let [one, two] = [b"one", b"two"].map(|body| {
            let mut bytes = Vec::new();
            token(body).encode(&log(), &mut bytes).unwrap();
            bytes
        });
        assert_ne!(chain(chain(0, &one), &two), chain(chain(0, &two), &one));
        assert_ne!(chain(0, &one), chain(0, &two));
        assert_ne!(chain(0, &one), 0);
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused_and_leaves_nothing_behind() {
        let mut out = Vec::new();
        let long = vec![0; BODY_BYTES_MAX + 1];
        assert_eq!(token(&long).encode(&log(), &mut out), Err(TokenReject::TooLarge));
        let late = Token { seq: 1 << 48, ..token(b"a") };
        assert_eq!(late.encode(&log(), &mut out), Err(TokenReject::TooLarge));
        assert!(out.is_empty());
    }
}
