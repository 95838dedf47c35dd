//! Bytes taken for a frame.
//!
//! Arbitrary bytes almost never have the right checksum, so they are also tried with one: summed
//! here, after the format's description rather than by the library's code. Whatever is read must
//! not panic, must stay within its bytes, and must not survive the flip of a bit.

use annals::log::frame::{Batch, Frame, HEADER, Header, RecordKind, Salt};
use annals::types::Life;

/// Bytes of the input that are taken for [`Choices`].
const CHOICES: usize = 40;

/// One input.
pub fn run(data: &[u8]) {
    if let Ok(header) = Header::read(data) {
        assert!(header.length >= HEADER && header.length.is_multiple_of(16));
    }
    push(data);
    let Some((Choices { salt, offset, bit }, bytes)) = choose(data) else { return };
    read(bytes, offset, salt);

    let Some(mut mended) = mend(bytes, offset, salt) else { return };
    if read(&mended, offset, salt) {
        let bit = usize::try_from(bit).unwrap_or(0) % (mended.len() * 8);
        mended[bit / 8] ^= 1 << (bit % 8);
        assert!(Frame::read(&mended, offset, salt).is_err(), "bit {bit} does not matter");
        mended[bit / 8] ^= 1 << (bit % 8);
        let stale = Salt { life: Life { bits: salt.life.bits ^ 1, ..salt.life }, ..salt };
        assert!(Frame::read(&mended, offset, stale).is_err(), "another life's frame was taken");
        assert!(Frame::read(&mended, offset + 16, salt).is_err(), "a moved frame was taken");
    }
}

/// The log, the life and the place that bytes are taken to belong to, and the bit to flip.
struct Choices {
    salt: Salt,
    offset: u64,
    bit: u64,
}

fn choose(data: &[u8]) -> Option<(Choices, &[u8])> {
    let (choices, bytes) = data.split_first_chunk::<CHOICES>()?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| choices[at + byte]));
    let life = Life { number: number(8) >> 32, bits: number(8) };
    let salt = Salt { log: number(0), life, base: (number(16) >> 8) & !15 };
    // A frame stands behind its segment's header page.
    let offset = 4096 + (number(24) >> 32) % (1 << 28) * 16;
    Some((Choices { salt, offset, bit: number(32) }, bytes))
}

/// Reads everything that there is to read; the answer is whether it was a frame.
fn read(bytes: &[u8], offset: u64, salt: Salt) -> bool {
    if let Ok((frame, life)) = Frame::read_life(bytes, offset, salt.log, salt.base) {
        walk(&frame, bytes);
        assert!(Frame::read(bytes, offset, Salt { life, ..salt }).is_ok());
    }
    match Frame::read(bytes, offset, salt) {
        Ok(frame) => {
            walk(&frame, bytes);
            assert_eq!(frame.lsn().get(), salt.base + offset);
            true
        }
        Err(_) => false,
    }
}

fn walk(frame: &Frame<'_>, bytes: &[u8]) {
    assert!(frame.bytes().len() <= bytes.len());
    assert!(frame.durable() <= frame.lsn().get() && frame.lsn().get() < frame.end());
    let within = frame.body().as_ptr_range();
    let mut records = 0_u16;
    for record in frame.records() {
        records += 1;
        let Ok(record) = record else { break };
        let payload = record.payload.as_ptr_range();
        assert!(within.start <= payload.start && payload.end <= within.end);
    }
    assert!(records <= frame.header().count(), "more records than counted");
}

/// The same bytes with the length, the position and the checksum that make them a frame.
pub(crate) fn mend(bytes: &[u8], offset: u64, salt: Salt) -> Option<Vec<u8>> {
    let length = bytes.len() / 16 * 16;
    if length < HEADER {
        return None;
    }
    let mut frame = bytes[..length].to_vec();
    let sixteenths = u32::try_from(length / 16).ok().filter(|sixteenths| *sixteenths < 1 << 24)?;
    frame[16..19].copy_from_slice(&sixteenths.to_le_bytes()[..3]);
    frame[4..8].copy_from_slice(&((salt.base + offset) / 16).to_le_bytes()[..4]);
    let word = (salt.log ^ salt.life.bits ^ salt.base).to_le_bytes();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[16..]);
    hasher.update(&std::array::from_fn::<u8, 4, _>(|byte| word[byte] ^ word[byte + 4]));
    hasher.update(&frame[4..16]);
    frame[..4].copy_from_slice(&hasher.finalize().to_le_bytes());
    Some(frame)
}

/// The other direction, as far as it is public: records go into a batch, and their bytes count.
fn push(data: &[u8]) {
    let mut batch = Batch::new();
    let kinds = [
        RecordKind::Event,
        RecordKind::Name,
        RecordKind::Snapshot,
        RecordKind::State,
        RecordKind::Turn,
        RecordKind::Rewind,
        RecordKind::Note,
        RecordKind::Side,
    ];
    let mut rest = data;
    while let Some(([choice, length], after)) = rest.split_first_chunk::<2>() {
        let (payload, after) = after.split_at(after.len().min(usize::from(*length)));
        let before = batch.frame_bytes();
        let kind = kinds[usize::from(choice % 8)];
        let align = 1 << ((choice >> 2) % 5);
        let pushed = batch.push_with(kind, u16::from(*choice), align, |buffer| {
            buffer.extend_from_slice(payload);
            Ok(())
        });
        assert!(pushed.is_ok() && batch.frame_bytes() >= before + payload.len());
        rest = after;
    }
    assert_eq!(batch.is_empty(), data.len() < 2);
    batch.clear();
    assert!(batch.is_empty() && batch.events() == 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else most of `run` would never be reached.
    #[test]
    fn the_checksum_summed_here_is_the_library_s() {
        for (name, seed) in [
            ("single", &include_bytes!("../seeds/frame/single")[..]),
            ("records", include_bytes!("../seeds/frame/records")),
            ("snapshot", include_bytes!("../seeds/frame/snapshot")),
            ("seal", include_bytes!("../seeds/frame/seal")),
            ("close", include_bytes!("../seeds/frame/close")),
            ("life", include_bytes!("../seeds/frame/life")),
        ] {
            let (Choices { salt, offset, .. }, bytes) = choose(seed).expect("a whole seed");
            let mended = mend(bytes, offset, salt).expect("long enough");
            assert!(read(&mended, offset, salt), "{name}");
        }
    }
}
