//! Making an index from frames, and searching its file.

use super::*;
use crate::error::Reject;
use crate::log::frame::{About, Batch, Frame, Place as FramePlace, RecordKind, Salt};
use crate::types::HybridTime;

const HEADER_OF_IT: SegmentHeader = SegmentHeader {
    log: 7,
    base: 1 << 20,
    bytes: 1 << 20,
    life: Life { number: 1, bits: 99 },
    previous: None,
};

/// An index file in which each stream has one frame, its first event numbered by its place.
fn index_of(streams: &[u128]) -> Mapped {
    let mut growing = Growing::new(HEADER_OF_IT.life);
    for (number, stream) in streams.iter().enumerate() {
        let number = u32::try_from(number).unwrap();
        let first = Seq::new(u64::from(number) + 1).unwrap();
        let row = Row { first, newest: number, count: 1 };
        growing.rows.insert(StreamId::from_u128(*stream), row);
        growing.entries.push(Entry { offset: 256 + number * 3, before: END_OF_LIST });
    }
    let end = HEADER_OF_IT.limit();
    let file = growing.encode(&HEADER_OF_IT, end);
    Mapped::check(Content::Read(file), &HEADER_OF_IT, end).expect("an index")
}

/// Numbers that look like hashes.
fn spread(count: u128) -> Vec<u128> {
    let odd = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128;
    (1..=count).map(|number| number.wrapping_mul(odd)).collect()
}

/// Guesses rest on streams being hashes. That saves time, and decides nothing.
#[test]
fn every_stream_is_found_and_no_other_whether_they_are_spread_or_crowd() {
    let crowds: [Vec<u128>; 7] = [
        vec![],
        vec![1],
        spread(1_000),
        (1..500).collect(),
        (1..500).map(|number| u128::MAX - number * 2).collect(),
        (0..128).map(|bit| 1 << bit).collect(),
        spread(300).into_iter().chain((0..300).map(|number| (1 << 100) + number)).collect(),
    ];
    for streams in crowds {
        let index = index_of(&streams);
        for (number, stream) in streams.iter().enumerate() {
            let number = u32::try_from(number).unwrap();
            let (first, places) = index.find(StreamId::from_u128(*stream)).expect("it is there");
            assert_eq!(first.get(), u64::from(number) + 1, "{stream:x} of {}", streams.len());
            assert_eq!(places, [(256 + number * 3).to_le_bytes()]);
            assert_eq!(offset_of(places[0]), u64::from(256 + number * 3) * 16);
            for other in [stream.wrapping_sub(1), stream.wrapping_add(1), stream.rotate_left(64)] {
                let row = index.row_of(StreamId::from_u128(other));
                assert_eq!(row.is_some(), streams.contains(&other), "{other:x} is near {stream:x}");
            }
        }
        for other in [0, 2, u128::MAX, 1 << 127, (1 << 100) + 1_000] {
            let row = index.row_of(StreamId::from_u128(other));
            assert_eq!(row.is_some(), streams.contains(&other), "{other:x}");
        }
    }
}

const LIVES: [Life; 2] = [HEADER_OF_IT.life, Life { number: 2, bits: 77 }];

fn salt(life: Life) -> Salt {
    Salt { log: HEADER_OF_IT.log, life, base: HEADER_OF_IT.base }
}

/// A segment's bytes, as far as they are written.
struct Written {
    bytes: Vec<u8>,
    /// Where each frame begins.
    frames: Vec<usize>,
}

impl Written {
    fn put(&mut self, life: Life, batch: &mut Batch, kind: Option<FrameKind>, about: (u128, u64)) {
        let (stream, seq) = (StreamId::from_u128(about.0), Seq::new(about.1).unwrap());
        let mut sealed = batch.seal(kind, &About { stream, seq, durable: 0 });
        let offset = self.bytes.len() as u64;
        let time = HybridTime::default();
        let (head, rest) = sealed.place(&FramePlace { salt: salt(life), offset, durable: 0, time });
        self.frames.push(self.bytes.len());
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(rest);
    }

    /// Two lives of `events` events each, in 7 streams, and the seal.
    fn two_lives(events: u64) -> Self {
        let mut this = Self { bytes: vec![0; to_usize(FIRST_FRAME)], frames: Vec::new() };
        for (before, life) in (0..).zip(LIVES) {
            let page = this.bytes.len().next_multiple_of(to_usize(PAGE_U64));
            this.bytes.resize(page, 0);
            let body = [life.number.to_le_bytes(), life.bits.to_le_bytes(), [0; 8], [0; 8]];
            let mut batch = Batch::of_body(body.as_flattened());
            this.put(life, &mut batch, Some(FrameKind::Life), (0, 0));
            for event in 0..events {
                let mut batch = Batch::new();
                let payload = vec![0x5a; to_usize(event * 13 % 300)];
                batch.push(RecordKind::Event, 1, &payload).unwrap();
                let stream = u128::from(event % 7 + 1) << 100;
                let seq = (before * events + event) / 7 + 1;
                this.put(life, &mut batch, None, (stream, seq));
            }
            let last = if life == LIVES[1] { FrameKind::Seal } else { FrameKind::Close };
            this.put(life, &mut Batch::new(), Some(last), (0, 0));
        }
        this
    }

    /// Grown by one thread, frame by frame.
    fn alone(&self) -> (Growing, Result<(), Reject>) {
        let mut growing = Growing::new(HEADER_OF_IT.life);
        let grown = growing.grow(&self.bytes, &salt);
        (growing, grown)
    }

    /// Grown by several, each taking so many bytes at a time.
    fn together(&self, stretch: u64) -> Option<Growing> {
        let mut growing = Growing::new(HEADER_OF_IT.life);
        growing.grow_with_help(&self.bytes, &salt, stretch).then_some(growing)
    }
}

fn file_of(growing: &Growing) -> Vec<u8> {
    growing.encode(&HEADER_OF_IT, HEADER_OF_IT.limit())
}

#[test]
fn an_index_that_several_threads_make_is_the_one_that_one_makes() {
    let written = Written::two_lives(300);
    let (alone, grown) = written.alone();
    assert_eq!((grown, alone.sealed), (Ok(()), true));
    assert_eq!(alone.lives.iter().map(|(_, life)| *life).collect::<Vec<_>>(), LIVES);
    let end = HEADER_OF_IT.limit();
    let index = Mapped::check(Content::Read(file_of(&alone)), &HEADER_OF_IT, end).unwrap();
    for stream in 1..=7_u128 {
        let stream = StreamId::from_u128(stream << 100);
        let (first, places) = index.find(stream).expect("it has frames");
        assert_eq!(first.get(), 1);
        let frame_at = |place: &Place| {
            let (offset, lives) = (offset_of(*place), LIVES.map(salt));
            let rest = &written.bytes[to_usize(offset)..];
            lives
                .into_iter()
                .find_map(|salt| Frame::read(rest, offset, salt).ok())
                .expect("a frame")
        };
        let frames: Vec<_> = places.iter().map(frame_at).collect();
        assert!(frames.iter().all(|frame| frame.stream() == stream), "and nobody else's");
        assert!(frames.is_sorted_by_key(Frame::lsn), "in order");
        assert_eq!(places.len(), written.frames_of(stream));
    }
    for stretch in [1, 100, 1_000, 10_000, 1 << 30] {
        let together = written.together(stretch).expect("all of it is sound");
        assert_eq!(file_of(&together), file_of(&alone), "{stretch} bytes at a time");
        assert_eq!(together.upto, alone.upto);
    }
    // And where another life goes on later, or the segment is not sealed.
    for frames in [1, 2, 50, 301, 302, 303, 304, 500] {
        let end = written.frames[frames];
        let part = Written { bytes: written.bytes[..end].to_vec(), frames: Vec::new() };
        let (alone, grown) = part.alone();
        assert_eq!(grown, Ok(()));
        let together = part.together(700).expect("all of it is sound");
        assert_eq!(file_of(&together), file_of(&alone), "{frames} frames");
    }
}

impl Written {
    fn frames_of(&self, stream: StreamId) -> usize {
        let is = |at: &&usize| {
            FrameHeader::read(&self.bytes[**at..]).is_ok_and(|header| header.stream == stream)
        };
        self.frames.iter().filter(is).count()
    }
}

/// What the helpers would have to find out: a walk over headers believes them.
#[test]
fn a_flipped_bit_in_any_frame_is_noticed_by_those_who_help() {
    let mut written = Written::two_lives(60);
    for (number, at) in written.frames.clone().into_iter().enumerate() {
        // One in the head, in the length, in the stream's name and at the end of the body.
        let next = written.frames.get(number + 1).copied().unwrap_or(written.bytes.len());
        let length = FrameHeader::read(&written.bytes[at..]).unwrap().length;
        assert!(at + length <= next, "frames follow each other");
        for (byte, bit) in [(3, 7), (9, 0), (16, 0), (17, 6), (40, 3), (length - 1, 5)] {
            written.bytes[at + byte] ^= 1 << bit;
            let (alone, grown) = written.alone();
            assert!(grown.is_err(), "frame {number}, byte {byte}");
            let seen = alone.entries.len() + alone.lives.len();
            assert!(seen <= number + 1, "nothing is believed behind it");
            for stretch in [200, 1 << 20] {
                assert!(written.together(stretch).is_none(), "frame {number}, byte {byte}");
            }
            written.bytes[at + byte] ^= 1 << bit;
        }
    }
    assert!(written.together(200).is_some(), "as it was");
}
