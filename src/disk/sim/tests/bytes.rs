//! What a power cut and a failed sync keep of bytes.

use super::*;

#[test]
fn a_power_cut_keeps_any_subset_of_the_unsynced_sectors_and_nothing_else() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[0; 3 * SECTOR]);
    write_full(&*file, &[1; 3 * SECTOR], 0).unwrap();
    let all: Vec<_> = disk.power_cuts(100).map(|cut| versions(&cut, "/f")).collect();
    let different: BTreeSet<_> = all.iter().cloned().collect();
    assert_eq!((all.len(), different.len()), (8, 8));
    let by_seed: BTreeSet<_> =
        (0..SEEDS).map(|seed| versions(&disk.fork().power_cut(seed), "/f")).collect();
    assert_eq!(by_seed, different);
}

#[test]
fn any_version_written_since_the_last_sync_can_be_the_one_that_is_kept() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &sector(9));
    for version in 1..=3 {
        write_full(&*file, &sector(version), 0).unwrap();
    }
    let found: Vec<_> = disk.power_cuts(100).map(|cut| versions(&cut, "/f")).collect();
    assert_eq!(found, [[9], [1], [2], [3]]);
    assert!(!disk.is_durable(path("/f")).unwrap());
    file.sync_data().unwrap();
    assert!(disk.is_durable(path("/f")).unwrap());
    assert_eq!(disk.power_cuts(100).map(|cut| versions(&cut, "/f")).collect::<Vec<_>>(), [[3]]);
}

#[test]
fn a_sector_written_without_end_is_remembered_within_bounds() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &sector(0));
    for version in 1..=200 {
        write_full(&*file, &sector(version), 0).unwrap();
    }
    let found: Vec<_> = disk.power_cuts(1000).map(|cut| versions(&cut, "/f")[0]).collect();
    assert_eq!(found.len(), 17);
    assert_eq!((found[0], found[1], found[16]), (0, 1, 200));
}

#[test]
fn a_size_that_is_not_synced_is_any_that_the_file_has_had() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", b"old");
    let cut = disk.open(path("/f"), Access::Create).unwrap();
    write_full(&*cut, b"newer", 0).unwrap();
    let found: BTreeSet<_> =
        disk.power_cuts(100).map(|cut| cut.copy_bytes(path("/f")).unwrap()).collect();
    let allowed: [&[u8]; 7] = [b"", b"\0\0\0", b"\0\0\0\0\0", b"new", b"newer", b"old", b"old\0\0"];
    assert_eq!(found, allowed.map(<[u8]>::to_vec).into());
    file.sync_data().unwrap();
    assert_eq!(disk.durable_bytes(path("/f")).unwrap().unwrap(), b"newer");
}

#[test]
fn what_was_cut_off_and_grown_again_never_comes_back_after_a_sync() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[7; 2 * SECTOR]);
    disk.open(path("/f"), Access::Create).unwrap();
    file.allocate(2 * SECTOR as u64, Fill::Reserve).unwrap();
    file.sync_data().unwrap();
    assert_eq!(versions(&disk.power_cut_losing_all(), "/f"), [0, 0]);
}

#[test]
fn a_filled_file_is_durable_and_a_reserved_one_is_not() {
    for (fill, pages) in [(Fill::Zero, 1), (Fill::Reserve, 0)] {
        let disk = SimDisk::new(1);
        let file = durable(&disk, "/f", b"");
        file.allocate(PAGE_U64, fill).unwrap();
        let cut = disk.power_cut_losing_all();
        assert_eq!(cut.copy_bytes(path("/f")).unwrap().len(), pages * PAGE);
    }
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, "/f", &[0; 8 * SECTOR]);
        disk.fail(Fault::new(Failure::Io).on(Op::Write));
        file.write_at(&[1; 8 * SECTOR], 0).unwrap_err();
        disk.fail(Fault::new(Failure::Io).on(Op::SyncData));
        file.sync_data().unwrap_err();
        disk.power_cut(seed + 1).copy_bytes(path("/f")).unwrap()
    };
    let different: BTreeSet<_> = (0..50).map(run).collect();
    assert!(different.len() > 10);
    assert_eq!((0..50).map(run).collect::<BTreeSet<_>>(), different);
}

#[test]
fn many_forks_of_one_point_do_not_touch_each_other() {
    let disk = SimDisk::new(1);
    for number in 0..20 {
        durable(&disk, &format!("/{number}"), &vec![number; 1 << 16]);
    }
    for number in 0..2000_u32 {
        let fork = disk.fork();
        let name = format!("/{}", number % 20);
        let file = fork.open(path(&name), Access::Write).unwrap();
        write_full(&*file, b"changed", 0).unwrap();
        assert!(fork.copy_bytes(path(&name)).unwrap().starts_with(b"changed"));
    }
    for number in 0..20 {
        assert_eq!(disk.copy_bytes(path(&format!("/{number}"))).unwrap(), vec![number; 1 << 16]);
    }
}

#[test]
fn what_a_failed_sync_loses_is_seen_until_the_cache_forgets_it_and_no_sync_brings_it_back() {
    let mut fates = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, "/f", &sector(0));
        write_full(&*file, &sector(1), 0).unwrap();
        disk.fail(Fault::new(Failure::Io).on(Op::SyncData));
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
        let early = versions(&disk.fork().power_cut_losing_all(), "/f")[0];
        file.sync_data().unwrap();
        let late = versions(&disk.fork().power_cut(seed), "/f")[0];
        assert_eq!(versions(&disk, "/f"), [1], "still seen");
        let next = disk.fork().kill();
        assert_eq!(versions(&next, "/f"), [1], "still seen by the next process");
        next.drop_caches();
        assert_eq!(versions(&next, "/f"), [late], "and then not");
        fates.insert((early, late));
        // Written again, though with the same bytes, it is dirty again.
        write_full(&*file, &sector(1), 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(versions(&disk.power_cut_losing_all(), "/f"), [1]);
    }
    assert_eq!(fates, [(0, 0), (0, 1), (1, 1)].into(), "lost, still dirty, written");
}
