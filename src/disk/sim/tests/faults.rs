//! What fails on demand, what is counted, and what is damaged.

use super::*;

/// One call of each kind, that succeeds on a disk with a file `/f` of one page.
fn strike(disk: &SimDisk, file: &dyn File, op: Op) -> io::Result<()> {
    match op {
        Op::CreateDir => disk.create_dir(path("/dir")),
        Op::List => disk.list(path("/")).map(drop),
        Op::Open => disk.open(path("/f"), Access::Read).map(drop),
        Op::Create => disk.open(path("/new"), Access::Create).map(drop),
        Op::Rename => disk.rename(path("/f"), path("/renamed")),
        Op::Remove => disk.remove(path("/f")),
        Op::SyncDir => disk.sync_dir(path("/")),
        Op::Lock => disk.lock(path("/LOCK")).map(drop),
        Op::Len => file.len().map(drop),
        Op::Read => file.read_at(&mut [0; 100], 0).map(drop),
        Op::Write => file.write_at(&[2; 100], 0).map(drop),
        Op::WriteRing => file.write_ring(&heap_ring(PAGE)?.1, 0, 100, 0).map(drop),
        Op::SyncData => file.sync_data(),
        Op::Allocate => file.allocate(PAGES as u64, Fill::Zero),
        Op::MapSegment => file.map_segment(PAGE).map(drop),
        Op::MapRing => file.map_ring(PAGE).map(drop),
    }
}

#[test]
fn every_kind_of_call_fails_on_demand_once_or_for_ever_and_leaves_names_as_they_were() {
    let failures = [
        (Failure::Io, libc::EIO),
        (Failure::NoSpace, libc::ENOSPC),
        (Failure::Interrupted, libc::EINTR),
    ];
    for op in Op::ALL {
        for (failure, code) in failures {
            for for_ever in [false, true] {
                let case = format!("{op:?} {failure:?} {for_ever}");
                let disk = SimDisk::new(1);
                let file = durable(&disk, "/f", &[1; PAGE]);
                let fault = Fault::new(failure).on(op);
                disk.fail(if for_ever { fault.for_ever() } else { fault });
                let error = strike(&disk, &*file, op).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(code), "{case}");
                let last = disk.log().pop().unwrap();
                assert_eq!((last.op, last.outcome), (op, Outcome::Failed(error.kind())), "{case}");
                assert_eq!(names(&disk), ["/f"], "{case}");
                if for_ever {
                    strike(&disk, &*file, op).unwrap_err();
                    let other = if op == Op::Len { Op::Read } else { Op::Len };
                    strike(&disk, &*file, other).unwrap();
                    disk.clear_faults();
                }
                strike(&disk, &*file, op).unwrap();
            }
        }
    }
}

#[test]
fn a_fault_counts_only_the_calls_that_it_could_strike() {
    let disk = SimDisk::new(1);
    let (first, second) = (durable(&disk, "/first", b""), durable(&disk, "/second", b""));
    disk.fail(Fault::new(Failure::Io).on(Op::Write).at_path("second").after(2));
    let results: Vec<_> = (0..4)
        .map(|_| {
            (
                first.write_at(b"x", 0).is_ok(),
                second.len().is_ok(),
                second.write_at(b"x", 0).is_ok(),
            )
        })
        .collect();
    let passes = (true, true, true);
    assert_eq!(results, [passes, passes, (true, true, false), passes]);
    disk.fail(Fault::new(Failure::Io).after(1));
    first.len().unwrap();
    second.sync_data().unwrap_err();
}

#[test]
fn a_failing_write_or_allocation_may_leave_a_part_and_an_interrupted_one_leaves_nothing() {
    for (failure, different) in [(Failure::Io, true), (Failure::Interrupted, false)] {
        let mut lengths = BTreeSet::new();
        for seed in 0..SEEDS {
            let disk = SimDisk::new(seed);
            let file = durable(&disk, "/f", b"");
            disk.fail(Fault::new(failure).on(Op::Write));
            disk.fail(Fault::new(failure).on(Op::Allocate));
            file.write_at(b"0123456789", 0).unwrap_err();
            let written = disk.copy_bytes(path("/f")).unwrap();
            assert!(b"0123456789".starts_with(&written));
            file.allocate(PAGE_U64, Fill::Zero).unwrap_err();
            assert!(file.len().unwrap() <= PAGE_U64);
            lengths.insert(written.len());
        }
        assert_eq!(lengths.len() > 1, different);
        assert!(lengths.contains(&0));
    }
}

#[test]
fn short_and_interrupted_transfers_are_gone_on_with_and_come_out_whole() {
    let content: Vec<u8> = (0..=255).cycle().take(PAGE).collect();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, "/f", b"");
        disk.fail(Fault::new(Failure::Short).for_ever());
        for calls in [1, 3, 5] {
            disk.fail(Fault::new(Failure::Interrupted).on(Op::WriteRing).after(calls));
        }
        write_full(&*file, &content, 0).unwrap();
        let (mut writer, source) = heap_ring(PAGE).unwrap();
        writer.copy_in(100, &content);
        write_ring_full(&*file, &source, 100, PAGE, PAGE_U64).unwrap();
        let mut found = vec![0; PAGES];
        assert_eq!(read_full(&*file, &mut found, 0).unwrap(), PAGES);
        assert_eq!(found, content.repeat(2));
        let transfers = disk.log().iter().filter(|call| call.op == Op::Write).count();
        assert!(transfers > 2, "they were short");
    }
}

/// Replaces `/store/f` in the one way that survives everything; true once it may be relied on.
fn replace(disk: &dyn Disk, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path("/store/new"), Access::Create)?;
    write_full(&*file, bytes, 0)?;
    file.sync_data()?;
    disk.rename(path("/store/new"), path("/store/f"))?;
    disk.sync_dir(path("/store"))
}

#[test]
fn a_careful_replacement_survives_a_crash_at_every_call_and_everything_before_it_is_kept() {
    let base = SimDisk::new(1);
    base.create_dir(path("/store")).unwrap();
    base.sync_dir(path("/")).unwrap();
    replace(&base, b"old").unwrap();
    let whole = base.fork();
    replace(&whole, b"new").unwrap();
    assert_eq!(whole.mutations(), 5);
    for mutation in 0..=whole.mutations() {
        let disk = base.fork();
        disk.crash_at(mutation);
        let result = replace(&disk, b"new");
        let acknowledged = result.is_ok();
        assert_eq!(acknowledged, mutation == whole.mutations());
        assert_eq!(disk.has_crashed(), !acknowledged);
        if let Err(error) = result {
            assert!(Dead::is(&error));
            assert!(Dead::is(&disk.list(path("/")).unwrap_err()), "and everything after it");
            assert_eq!(disk.log().pop().unwrap().outcome, Outcome::Crashed);
        }
        for next in disk.power_cuts(1000).chain([disk.fork().kill(), disk.power_cut(mutation)]) {
            let found = next.copy_bytes(path("/store/f")).unwrap();
            assert!(found == b"new" || (!acknowledged && found == b"old"));
        }
    }
}

#[test]
fn the_cuts_find_out_which_sync_lies() {
    for lie in [Op::SyncData, Op::SyncDir] {
        let disk = SimDisk::new(1);
        disk.create_dir(path("/store")).unwrap();
        disk.sync_dir(path("/")).unwrap();
        replace(&disk, b"old").unwrap();
        disk.fail(Fault::new(Failure::Lie).on(lie));
        replace(&disk, b"new").unwrap();
        assert!(!disk.is_durable(path("/store/f")).unwrap());
        let lost = |cut: &SimDisk| cut.copy_bytes(path("/store/f")).unwrap() != b"new";
        assert!(disk.power_cuts(1000).any(|cut| lost(&cut)), "{lie:?}");
        assert!((0..SEEDS).any(|seed| lost(&disk.fork().power_cut(seed))), "{lie:?}");
    }
}

#[test]
fn a_crash_can_tear_a_write_and_freezes_the_ring() {
    let mut lengths = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, "/f", b"");
        let ring = durable(&disk, "/ring", &[0; PAGE]);
        let (mut writer, _source) = ring.map_ring(PAGE).unwrap();
        writer.copy_in(0, b"in time");
        disk.crash_at(0);
        file.write_at(b"0123456789", 0).unwrap_err();
        writer.copy_in(0, b"too late");
        let next = disk.kill();
        assert!(next.copy_bytes(path("/ring")).unwrap().starts_with(b"in time"));
        lengths.insert(next.copy_bytes(path("/f")).unwrap().len());
    }
    assert_eq!(lengths, (0..=10).collect());
}

#[test]
fn a_full_disk_takes_what_fits_and_works_again_when_there_is_room() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; 10]);
    disk.set_capacity(Some(15));
    assert_eq!(file.write_at(&[2; 10], 8).unwrap(), 7, "as much as fits");
    let full = file.write_at(&[2; 10], 15).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[3; 15], 0).unwrap(), 15, "what is there can be written over");
    let full = file.allocate(16, Fill::Zero).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    disk.set_capacity(Some(16));
    file.allocate(16, Fill::Zero).unwrap();
    assert_eq!(disk.used(), 16);
    let other = disk.open(path("/g"), Access::Create).unwrap();
    assert_eq!(write_full(&*other, b"x", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.remove(path("/f")).unwrap();
    drop(file);
    write_full(&*other, b"x", 0).unwrap();
}

#[test]
fn the_log_says_what_was_done_in_which_order_and_where() {
    let disk = SimDisk::new(1);
    let file = disk.open(path("/new"), Access::Create).unwrap();
    file.write_at(b"bytes", 10).unwrap();
    disk.rename(path("/new"), path("/f")).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path("/")).unwrap();
    file.read_at(&mut [0; 100], 12).unwrap();
    let log = disk.log();
    let found: Vec<_> =
        log.iter().map(|call| (call.op, call.path.to_str().unwrap(), call.range.clone())).collect();
    let expected = [
        (Op::Create, "/new", 0..0),
        (Op::Write, "/new", 10..15),
        (Op::Rename, "/new", 0..0),
        (Op::SyncData, "/f", 0..0),
        (Op::SyncDir, "/", 0..0),
        (Op::Read, "/f", 12..15),
    ];
    assert_eq!(found, expected);
    assert_eq!(log[2].to.as_deref(), Some(path("/f")));
    assert!(log.iter().all(Call::is_done));
    assert_eq!((disk.operations(), disk.mutations()), (6, 5));
    let next = disk.kill();
    assert_eq!((next.operations(), next.log().len(), disk.log().len()), (0, 0, 6));
}

#[test]
fn damage_is_seen_and_durable_whatever_was_synced() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[0; 2 * SECTOR]);
    write_full(&*file, &sector(1), 0).unwrap();
    disk.flip_bit(path("/f"), 3, 7).unwrap();
    disk.zero(path("/f"), 4..6).unwrap();
    assert_eq!(disk.copy_bytes(path("/f")).unwrap()[..7], [1, 1, 1, 0x81, 0, 0, 1]);
    for cut in disk.power_cuts(10) {
        assert_eq!(cut.copy_bytes(path("/f")).unwrap()[3] & 0x80, 0x80);
    }
    disk.truncate(path("/f"), 5).unwrap();
    assert_eq!(disk.durable_bytes(path("/f")).unwrap().unwrap(), [0, 0, 0, 0x80, 0]);
    disk.put(path("/g"), b"put".to_vec()).unwrap();
    disk.delete(path("/f")).unwrap();
    assert_eq!(disk.list_all(), [(path("/g").to_owned(), 3)]);
    assert_eq!(names(&disk.power_cut_losing_all()), ["/g"]);
}
