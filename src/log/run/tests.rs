//! The table and the header of a run: found again, and every flipped bit noticed.

use super::*;

fn made() -> (RunHeader, Vec<u8>) {
    let life = Life { number: 3, bits: 99 };
    let origins = vec![Origin { from: 8192, base: 8192, life }, Origin { from: 0, base: 0, life }];
    let mut maker = TableMaker::new(origins, vec![7000..8192, 9000..12_288]);
    let seq = |number| Seq::new(number).unwrap();
    let row = |stream, first, dropped, start, count| Row {
        stream: StreamId::from_u128(stream),
        first: seq(first),
        dropped: seq(dropped),
        start,
        count,
    };
    maker.frame(4096, 4096);
    maker.frame(12_384, 4160);
    maker.row(row(5, 1, 7, 0, 2));
    maker.row(row(6, 10, 9, 2, 0));
    maker.frame(4192, 4256);
    maker.row(row(9, 1, 0, 2, 1));
    let mut header = RunHeader {
        log: 7,
        start: 0,
        limit: 16_384,
        before: None,
        previous: 8192,
        bytes: 0,
        table: 4352,
        totals: Totals { frames: 9, events: 8, streams: 3 },
        dropped: 4,
        origins: 0,
        lost: 0,
        rows: 0,
        carried: 0,
        sums: true,
        table_crc: 0,
        gone: 12_400,
    };
    let mut table = Vec::new();
    maker
        .write::<()>(&mut header, &mut |bytes| {
            table.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
    (header, table)
}

#[test]
fn a_runs_header_comes_back_and_every_flipped_bit_of_it_is_noticed() {
    let (header, _) = made();
    let page = header.encode();
    assert_eq!(RunHeader::decode(&page), Ok(header));
    let later = RunHeader { start: 4096, before: Some(0), ..header };
    assert_eq!(RunHeader::decode(&later.encode()), Ok(later));
    let bytes = header.table + header.summed_bytes();
    let earlier = RunHeader { sums: false, bytes, ..header };
    assert_eq!(RunHeader::decode(&earlier.encode()), Ok(earlier), "version 1");
    for bit in 0..PAGE * 8 {
        let mut page = page;
        page[bit / 8] ^= 1 << (bit % 8);
        assert!(RunHeader::decode(&page).is_err(), "bit {bit}");
    }
    for cut in [0, 8, 124, PAGE - 1] {
        assert!(RunHeader::decode(&page[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_runs_header_with_impossible_numbers_is_none() {
    let (good, _) = made();
    for forged in [
        RunHeader { start: 16, ..good },
        RunHeader { limit: 0, ..good },
        RunHeader { limit: u64::MAX - 4095, ..good },
        RunHeader { previous: 16_384, ..good },
        RunHeader { before: Some(0), ..good },
        RunHeader { bytes: good.bytes + 16, ..good },
        RunHeader { bytes: u64::MAX, ..good },
        RunHeader { table: 0, ..good },
        RunHeader { sums: false, ..good },
        RunHeader { table: u64::MAX, ..good },
        RunHeader { carried: u32::MAX, ..good },
        RunHeader { dropped: u64::MAX, ..good },
        RunHeader { gone: 16_400, ..good },
        RunHeader { totals: Totals { frames: u64::MAX, ..good.totals }, ..good },
    ] {
        let read = RunHeader::decode(&forged.encode());
        assert!(matches!(read, Err(HeaderReject::Bad(_))), "{forged:?}");
    }
}

#[test]
fn every_flipped_bit_of_a_runs_table_is_noticed() {
    let (header, table) = made();
    RunTable::check(&header, &table).unwrap();
    for bit in 0..table.len() * 8 {
        let mut table = table.clone();
        table[bit / 8] ^= 1 << (bit % 8);
        assert!(RunTable::check(&header, &table).is_err(), "bit {bit}");
    }
    for cut in 0..table.len() {
        assert!(RunTable::check(&header, &table[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_runs_table_finds_frames_by_stream_and_by_position() {
    let (header, bytes) = made();
    let table = RunTable::check(&header, &bytes).unwrap();
    assert_eq!((table.rows(), table.carried()), (3, 3));
    let found = table.find(StreamId::from_u128(5)).unwrap();
    assert_eq!((found.numbers(), found.first.get(), found.dropped.get()), (0..2, 1, 7));
    assert_eq!(table.find(StreamId::from_u128(6)).unwrap().numbers(), 2..2);
    for absent in [0, 4, 7, 10] {
        assert_eq!(table.find(StreamId::from_u128(absent)), None);
    }
    let order: Vec<_> = (0..4).map(|rank| table.ranked(rank)).collect();
    assert_eq!(order, [Some(0), Some(2), Some(1), None]);
    let places: Vec<_> = (0..4).map(|number| table.place(number)).collect();
    assert_eq!(places, [Some((4096, 4096)), Some((12_384, 4160)), Some((4192, 4256)), None]);
    assert_eq!(table.length(0), Some(64));
    assert_eq!(table.length(2), Some(96));
    for (position, rank) in [(0, 0), (4096, 0), (4097, 1), (4192, 1), (12_384, 2), (13_000, 3)] {
        assert_eq!(table.rank_from(position), rank, "{position}");
    }
    assert_eq!(table.origin_of(8191).unwrap().base, 0);
    assert_eq!(table.origin_of(8192).unwrap().base, 8192);
    assert_eq!(table.lost().collect::<Vec<_>>(), [7000..8192, 9000..12_288]);
}

#[test]
fn the_name_of_a_run_says_its_range() {
    let path = run_path(Path::new("log"), &(4096..1 << 20), "run");
    let name = "00000000000000004096-00000000000001048576.run";
    assert_eq!(path, Path::new("log").join(name));
    assert_eq!(range_of(name), Some(4096..1 << 20));
    let absurd = format!("{0}-{0}.run", u64::MAX);
    for other in ["4096-8192.run", "00000000000000004096.run", "x.run", &absurd, ""] {
        assert_eq!(range_of(other), None, "{other}");
    }
}
