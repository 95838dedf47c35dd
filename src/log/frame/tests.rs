//! The example in docs/format.md, byte by byte: it is what the code writes, and what the code
//! writes is what the text says.

use super::*;
use crate::log::segment::{FIRST_FRAME, Previous, SegmentHeader};

/// The text itself.
const DOCUMENT: &str = include_str!("../../../docs/format.md");

const LOG: u64 = 0x1111_2222_3333_4444;
const LIFE: Life = Life { number: 3, bits: 0x5555_6666_7777_8888 };
const BASE: u64 = 1 << 20;
const TIME: u64 = 1_700_000_000_000;

/// The bytes of the example that the document calls `name`: lines of `offset | hex | meaning`.
fn documented(name: &str) -> Vec<u8> {
    let mark = format!("<!-- example: {name} -->\n\n```text\n");
    let (_, rest) = DOCUMENT.split_once(&mark).unwrap_or_else(|| panic!("no example {name}"));
    let (block, _) = rest.split_once("```").expect("the end of the example");
    let mut bytes = Vec::new();
    for line in block.lines() {
        let mut columns = line.split('|').map(str::trim);
        let (offset, hex) = (columns.next().unwrap(), columns.next().unwrap());
        assert_eq!(offset.parse(), Ok(bytes.len()), "{name}: {line}");
        let hex = hex.split_whitespace();
        bytes.extend(hex.map(|byte| u8::from_str_radix(byte, 16).expect("two digits")));
    }
    bytes
}

#[track_caller]
fn assert_documented(name: &str, written: &[u8]) {
    let hex = |bytes: &[u8]| {
        let rows = bytes.chunks(16).map(|row| {
            let row: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            row.join(" ")
        });
        rows.collect::<Vec<_>>().join("\n")
    };
    let found = documented(name);
    assert!(found == written, "{name}: the code writes\n{}\n", hex(written));
}

/// CRC-32 as the document describes it, bit by bit.
fn crc_32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

fn whole((head, rest): ([u8; HEAD], &[u8])) -> Vec<u8> {
    [&head, rest].concat()
}

/// A frame at `offset` of the example's segment.
fn placed(batch: &mut Batch, kind: Option<FrameKind>, (offset, tick): (u64, u64)) -> Vec<u8> {
    let system = kind.is_some();
    let place = Place {
        salt: Salt { log: LOG, life: LIFE, base: BASE },
        offset,
        durable: BASE + FIRST_FRAME,
        time: HybridTime::from_bits(TIME << 16 | tick),
    };
    let about = About {
        stream: if system { StreamId::SYSTEM } else { StreamId::of("account", "alice") },
        seq: Seq::new(if system { 0 } else { tick }).unwrap(),
        durable: place.durable,
    };
    whole(batch.seal(kind, &about).place(&place))
}

#[test]
fn the_format_example_is_what_the_code_writes() {
    let previous = Some(Previous { base: 0, end: Some(8_640) });
    let header = SegmentHeader { log: LOG, base: BASE, bytes: 1 << 20, life: LIFE, previous };
    let page = header.encode();
    assert_documented("header page", &page[..80]);
    assert!(page[80..4092].iter().all(|byte| *byte == 0));
    assert_documented("header checksum", &[&[0; 12][..], &page[4092..]].concat()[12..]);
    assert_eq!(page[4092..], crc_32(&page[..4092]).to_le_bytes());

    let numbers = [LIFE.number, LIFE.bits, TIME, 0];
    let body: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let life = placed(&mut Batch::of_body(&body), Some(FrameKind::Life), (4096, 0));
    assert_documented("life", &life);

    let mut batch = Batch::new();
    batch.push(RecordKind::Name, 1, &name::encode("account", "alice").unwrap()).unwrap();
    batch.push(RecordKind::Event, 1, &500_u64.to_le_bytes()).unwrap();
    let first = placed(&mut batch, None, (4176, 1));
    assert_documented("records", &first);

    batch.clear();
    batch.push(RecordKind::Event, 1, &5_u64.to_le_bytes()).unwrap();
    let second = placed(&mut batch, None, (4272, 2));
    assert_documented("single", &second);

    // The checksum, from the words of the document alone.
    let input = |frame: &[u8]| {
        let salt = LOG ^ LIFE.bits ^ BASE;
        let salt = u32::try_from(salt >> 32 ^ salt & u64::from(u32::MAX)).unwrap();
        [&frame[16..], &salt.to_le_bytes(), &frame[4..16]].concat()
    };
    for frame in [&life, &first, &second] {
        assert_eq!(frame[..4], crc_32(&input(frame)).to_le_bytes());
    }
    assert_documented("checksum input", &input(&second));
}

/// An event's frame at `offset` of a segment of that salt, and its durable mark.
fn event_at(salt: Salt, offset: u64, durable: u64) -> Vec<u8> {
    let mut batch = Batch::new();
    batch.push(RecordKind::Event, 1, &[7; 40]).unwrap();
    let about = About { stream: StreamId::of("account", "alice"), seq: Seq::MAX, durable };
    let place = Place { salt, offset, durable, time: HybridTime::from_bits(TIME << 16) };
    whole(batch.seal(None, &about).place(&place))
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let salt = Salt { log: LOG, life: LIFE, base: BASE };
    let frame = event_at(salt, 4096, BASE);
    assert!(Frame::read(&frame, 4096, salt).is_ok());
    for bit in 0..frame.len() * 8 {
        let mut frame = frame.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        assert!(Frame::read(&frame, 4096, salt).is_err(), "bit {bit}");
    }
}

/// What a segment's file held in an earlier use stands at the same offset, and was valid there.
#[test]
fn a_frame_at_the_same_offset_of_another_segment_is_refused_by_its_position() {
    let salt = Salt { log: LOG, life: LIFE, base: BASE };
    let frame = event_at(salt, 4096, BASE);
    for shift in 12..36 {
        let later = Salt { base: BASE + (1 << shift), ..salt };
        assert_eq!(Frame::read(&frame, 4096, later).unwrap_err(), Reject::Position, "{shift}");
    }
    // From there on the stored half of the position is the same, and the checksum says it.
    for shift in 36..60 {
        let later = Salt { base: BASE + (1 << shift), ..salt };
        assert_eq!(Frame::read(&frame, 4096, later).unwrap_err(), Reject::Checksum, "{shift}");
    }
}

#[test]
fn a_durable_mark_comes_back_over_the_end_of_its_32_bits() {
    for base in [BASE, (1 << 36) - (1 << 20), (1 << 59) + (1 << 36)] {
        let salt = Salt { log: LOG, life: LIFE, base };
        for lag in [0, 16, 4096, 1 << 20, 1 << 35, LAG_MAX] {
            let lsn = base + 4096;
            let Some(durable) = lsn.checked_sub(lag) else { continue };
            let bytes = event_at(salt, 4096, durable);
            let frame = Frame::read(&bytes, 4096, salt).unwrap();
            assert_eq!((frame.lsn().get(), frame.durable()), (lsn, durable), "{base} {lag}");
        }
    }
}

#[test]
fn a_mark_that_moved_between_sealing_and_placing_is_the_one_in_the_frame() {
    let salt = Salt { log: LOG, life: LIFE, base: BASE };
    let mut batch = Batch::new();
    batch.push(RecordKind::Event, 1, &[7; 200]).unwrap();
    let about = About { stream: StreamId::of("a", "b"), seq: Seq::MAX, durable: BASE };
    let mut sealed = batch.seal(None, &about);
    let time = HybridTime::from_bits(TIME << 16);
    let place = Place { salt, offset: 8192, durable: BASE + 4096, time };
    let bytes = whole(sealed.place(&place));
    assert_eq!(Frame::read(&bytes, 8192, salt).unwrap().durable(), BASE + 4096);
}

#[test]
fn one_event_of_128_bytes_takes_176_bytes() {
    let mut batch = Batch::new();
    batch.push(RecordKind::Event, 1, &[7; 128]).unwrap();
    let about = About { stream: StreamId::SYSTEM, seq: Seq::ZERO, durable: 0 };
    assert_eq!(batch.seal(None, &about).bytes(), 176);
}
