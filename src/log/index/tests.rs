//! Searching an index file.

use super::*;

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
        let row = Row { first, head: number, tail: number, count: 1 };
        growing.rows.insert(StreamId::from_u128(*stream), row);
        growing.entries.push(Entry { offset: 256 + number * 3, next: END_OF_LIST });
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
