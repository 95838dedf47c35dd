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

/// A frame at `offset` of the example's segment.
fn placed(batch: &mut Batch, kind: Option<FrameKind>, (offset, tick): (u64, u64)) -> Vec<u8> {
    let system = kind.is_some();
    let place = Place {
        salt: Salt { log: LOG, life: LIFE, base: BASE },
        offset,
        durable: BASE + FIRST_FRAME,
        time: HybridTime::from_bits(TIME << 16 | tick),
        stream: if system { StreamId::SYSTEM } else { StreamId::of("account", "alice") },
        seq: Seq::new(if system { 0 } else { tick }).unwrap(),
    };
    batch.seal(kind).place(&place).to_vec()
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
    batch
        .push(RecordKind::Name, 1, &crate::log::name::encode("account", "alice").unwrap())
        .unwrap();
    batch.push(RecordKind::Event, 1, &500_u64.to_le_bytes()).unwrap();
    let first = placed(&mut batch, None, (4176, 1));
    assert_documented("records", &first);

    batch.clear();
    batch.push(RecordKind::Event, 1, &5_u64.to_le_bytes()).unwrap();
    let second = placed(&mut batch, None, (4272, 2));
    assert_documented("single", &second);

    // The checksum, from the words of the document alone.
    for frame in [&life, &first, &second] {
        let mut input = frame[HEADER..].to_vec();
        input.extend_from_slice(&[0; 4]);
        input.extend_from_slice(&frame[4..HEADER]);
        input.extend_from_slice(&LOG.to_le_bytes());
        input.extend_from_slice(&(LIFE.bits ^ BASE).to_le_bytes());
        assert_eq!(frame[..4], crc_32(&input).to_le_bytes());
    }
    assert_documented("checksum input", &{
        let mut input = second[HEADER..].to_vec();
        input.extend_from_slice(&[0; 4]);
        input.extend_from_slice(&second[4..HEADER]);
        input.extend_from_slice(&LOG.to_le_bytes());
        input.extend_from_slice(&(LIFE.bits ^ BASE).to_le_bytes());
        input
    });
}

#[test]
fn one_event_of_128_bytes_takes_176_bytes() {
    let mut batch = Batch::new();
    batch.push(RecordKind::Event, 1, &[7; 128]).unwrap();
    assert_eq!(batch.seal(None).bytes(), 176);
}
