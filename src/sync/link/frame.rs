//! Frames: what the bytes of a link are cut into.
//!
//! ```text
//!  0  bytes  u25  how many follow the first eight of the head: 1 to a limit
//!  3  check  u7   of that number, in the word's upper bits: remainder by x^7 + x^3 + 1
//!  4  crc    u32  CRC-32 of what follows
//!  8  type   u8   see `kind`
//!  9  body
//! ```
//!
//! All numbers are little-endian. **A length is a claim**: it is compared with the limit before
//! anything else, and room is made as bytes arrive, never because a length says that they will.
//! It has a check of its own, because a length that grew on the way would swallow what follows,
//! and a link on which little is said would seem alive for hours.

use crc32fast::Hasher;

use crate::types::to_usize;

/// Bytes of a frame besides its body.
pub const HEAD_BYTES: usize = 9;
/// Bytes that its length does not count.
const UNCOUNTED: usize = 8;
/// The longest frame, by what a head counts.
pub const FRAME_BYTES_MAX: u32 = (1 << 25) - 1;
/// The first room of a reader; what a large frame made of it is given back.
const ROOM_BYTES: usize = 64 << 10;

/// Types of frames. Those of the link itself are below [`kind::FIRST_MESSAGE`].
pub mod kind {
    /// Dialer, first: versions, nonce.
    pub const KNOCK: u8 = 1;
    /// Acceptor: the version, nonce.
    pub const CHALLENGE: u8 = 2;
    /// Dialer: who it is, and that it has the secret.
    pub const PROVE: u8 = 3;
    /// Acceptor: the same.
    pub const ACCEPT: u8 = 4;
    /// Both: how much may be shipped at first, and what the layer above says of itself.
    pub const HELLO: u8 = 5;
    /// Instead of an answer: why there is none.
    pub const REFUSE: u8 = 6;
    /// The last frame: why the link ends.
    pub const CLOSE: u8 = 7;
    /// Nothing was to be said for a while.
    pub const KEEP: u8 = 8;
    /// How much may be shipped, counted from the link's beginning.
    pub const CREDIT: u8 = 9;
    /// From here on frames are messages of the layer above.
    pub const FIRST_MESSAGE: u8 = 0x10;
    /// From here up to [`BULK`], who does not know a message skips it.
    pub const FIRST_OPTIONAL: u8 = 0x40;
    /// Messages from here on are shipped: they wait for credit.
    pub const BULK: u8 = 0x80;
}

/// Why bytes are no frame. The link is closed: nothing that follows can be trusted.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameReject {
    /// None, or more than may come here.
    #[error("a frame of {bytes} bytes where at most {max} may come")]
    Length {
        /// What it claims.
        bytes: u32,
        /// The limit.
        max: u32,
    },
    /// Its length was changed on the way, or is none at all.
    #[error("a frame's length is damaged")]
    Head,
    /// Changed on the way.
    #[error("a frame's checksum does not fit")]
    Checksum,
}

/// One frame, borrowed from where it was read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// See [`kind`].
    pub kind: u8,
    /// What it says.
    pub body: &'a [u8],
}

/// A length with its check, as in a head. Any one or two flipped bits of it are noticed.
pub const fn guarded(bytes: u32) -> u32 {
    let mut rest = bytes << 7;
    let mut bit = 32;
    while bit > 7 {
        bit -= 1;
        if rest >> bit & 1 == 1 {
            rest ^= 0b1000_1001 << (bit - 7);
        }
    }
    bytes | rest << 25
}

/// The first nine bytes of a frame whose body is `parts` one after another; `None` if no frame is
/// so long.
pub fn head(kind: u8, parts: &[&[u8]]) -> Option<[u8; HEAD_BYTES]> {
    let mut bytes = 1_usize;
    let mut hasher = Hasher::new();
    hasher.update(&[kind]);
    for part in parts {
        bytes = bytes.checked_add(part.len())?;
        hasher.update(part);
    }
    let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= FRAME_BYTES_MAX)?;
    let [b0, b1, b2, b3] = guarded(bytes).to_le_bytes();
    let [c0, c1, c2, c3] = hasher.finalize().to_le_bytes();
    Some([b0, b1, b2, b3, c0, c1, c2, c3, kind])
}

/// Appends a whole frame to `out`; for small ones.
pub fn push(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    if let Some(head) = head(kind, &[body]) {
        out.extend_from_slice(&head);
        out.extend_from_slice(body);
    }
}

/// Takes bytes as they come, and gives frames.
#[derive(Debug)]
pub struct Incoming {
    room: Vec<u8>,
    /// What is in it and was not given out: `start..end`.
    start: usize,
    end: usize,
    /// The longest frame, by what a head counts.
    max: u32,
}

impl Incoming {
    /// Frames whose type and body have `max` bytes at most.
    pub fn new(max: u32) -> Self {
        Self { room: Vec::new(), start: 0, end: 0, max }
    }

    /// Another limit from here on.
    pub fn set_max(&mut self, max: u32) {
        self.max = max;
    }

    /// Where the next bytes go; never empty. Tell of them with [`filled`](Self::filled).
    pub fn room(&mut self) -> &mut [u8] {
        let least = ROOM_BYTES.min(to_usize(u64::from(self.max)).saturating_add(UNCOUNTED));
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.room.len() > ROOM_BYTES {
                self.room = Vec::new();
            }
        }
        if self.end == self.room.len() && self.start > 0 {
            self.room.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.room.len() {
            // Doubled when full: never more than twice what has come, however long it says it is.
            let doubled = self.room.len().saturating_mul(2);
            self.room.resize(doubled.max(least), 0);
        }
        self.room.get_mut(self.end..).unwrap_or_default()
    }

    /// `bytes` of the room have been filled.
    pub fn filled(&mut self, bytes: usize) {
        self.end = self.end.saturating_add(bytes).min(self.room.len());
    }

    /// Takes bytes that were read elsewhere.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let fits = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(fits);
            if let Some(place) = room.get_mut(..fits) {
                place.copy_from_slice(now);
            }
            self.filled(fits);
            bytes = later;
        }
    }

    /// Bytes that have come and were not given out.
    pub const fn unread(&self) -> usize {
        self.end - self.start
    }

    /// Bytes of memory that this holds.
    pub fn held(&self) -> usize {
        self.room.capacity()
    }

    /// The next frame, if all of it is there.
    ///
    /// # Errors
    /// See [`FrameReject`]. After one there is no telling where the next begins.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameReject> {
        let there = self.room.get(self.start..self.end).unwrap_or_default();
        let Some((length, rest)) = there.split_first_chunk::<4>() else { return Ok(None) };
        let word = u32::from_le_bytes(*length);
        let bytes = word & FRAME_BYTES_MAX;
        if guarded(bytes) != word {
            return Err(FrameReject::Head);
        }
        if bytes == 0 || bytes > self.max {
            return Err(FrameReject::Length { bytes, max: self.max });
        }
        let Some((crc, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = to_usize(u64::from(bytes));
        let Some(summed) = rest.get(..length) else { return Ok(None) };
        if crc32fast::hash(summed) != u32::from_le_bytes(*crc) {
            return Err(FrameReject::Checksum);
        }
        self.start += UNCOUNTED + length;
        let Some((kind, body)) = summed.split_first() else { return Ok(None) };
        Ok(Some(Frame { kind: *kind, body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        push(&mut bytes, 16, b"one");
        push(&mut bytes, 17, b"");
        push(&mut bytes, 18, &[7; 300]);
        bytes
    }

    fn drain(incoming: &mut Incoming) -> Result<Vec<(u8, Vec<u8>)>, FrameReject> {
        let mut frames = Vec::new();
        while let Some(frame) = incoming.next_frame()? {
            frames.push((frame.kind, frame.body.to_vec()));
        }
        Ok(frames)
    }

    #[test]
    fn frames_come_back_whole_in_whatever_pieces_the_bytes_come() {
        let whole = [(16, b"one".to_vec()), (17, Vec::new()), (18, vec![7; 300])];
        let bytes = stream();
        for piece in 1..=bytes.len() {
            let mut incoming = Incoming::new(1 << 20);
            let mut frames = Vec::new();
            for part in bytes.chunks(piece) {
                incoming.take(part);
                frames.extend(drain(&mut incoming).unwrap());
            }
            assert_eq!(frames, whole, "pieces of {piece}");
        }
    }

    #[test]
    fn a_cut_stream_gives_whole_frames_only_and_a_flipped_bit_never_gives_another() {
        let bytes = stream();
        let whole = drain(&mut with(&bytes)).unwrap();
        for cut in 0..bytes.len() {
            let frames = drain(&mut with(&bytes[..cut])).unwrap();
            assert!(frames.len() < whole.len() && whole.starts_with(&frames), "cut {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut incoming = with(&bad);
            let mut count = 0;
            let end = loop {
                match incoming.next_frame() {
                    Ok(Some(frame)) => {
                        assert_eq!((frame.kind, frame.body), (whole[count].0, &*whole[count].1));
                        count += 1;
                    }
                    other => break other.map(|_| ()),
                }
            };
            // At once, not when more comes: a length that grew is noticed by itself.
            assert!(end.is_err() && count < whole.len(), "bit {bit}");
        }
    }

    fn with(bytes: &[u8]) -> Incoming {
        let mut incoming = Incoming::new(1 << 20);
        incoming.take(bytes);
        incoming
    }

    #[test]
    fn one_or_two_flipped_bits_of_a_length_are_noticed_by_its_first_four_bytes() {
        for bytes in [1, 2, 9, 100, 1 << 20, FRAME_BYTES_MAX] {
            for one in 0..32 {
                for other in 0..32 {
                    let word =
                        guarded(bytes) ^ (1 << one) ^ if one == other { 0 } else { 1 << other };
                    let mut incoming = Incoming::new(FRAME_BYTES_MAX);
                    incoming.take(&word.to_le_bytes());
                    assert_eq!(
                        incoming.next_frame(),
                        Err(FrameReject::Head),
                        "{bytes}: {one}, {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_length_makes_no_room_before_its_bytes_are_there() {
        let mut incoming = Incoming::new(FRAME_BYTES_MAX);
        incoming.take(&guarded(FRAME_BYTES_MAX).to_le_bytes());
        assert_eq!(incoming.next_frame(), Ok(None));
        incoming.take(&[0; 1000]);
        assert_eq!(incoming.next_frame(), Ok(None));
        assert!(incoming.held() <= ROOM_BYTES, "{} bytes held", incoming.held());
        let mut small = Incoming::new(100);
        small.take(&[1, 0, 0]);
        assert!(small.held() <= 108, "{} bytes held for a stranger", small.held());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_by_its_first_four_bytes() {
        let most = FRAME_BYTES_MAX;
        for (bytes, refused) in [(0, true), (1, false), (100, false), (101, true), (most, true)] {
            let mut incoming = Incoming::new(100);
            incoming.take(&guarded(bytes).to_le_bytes());
            assert_eq!(incoming.next_frame().is_err(), refused, "{bytes}");
        }
    }

    #[test]
    fn the_room_of_a_large_frame_is_given_back() {
        let mut bytes = Vec::new();
        push(&mut bytes, 16, &vec![1; 1 << 20]);
        let mut incoming = Incoming::new(1 << 24);
        incoming.take(&bytes);
        assert!(incoming.held() >= bytes.len());
        assert!(incoming.next_frame().unwrap().is_some());
        incoming.room();
        assert!(incoming.held() <= ROOM_BYTES);
    }
}
