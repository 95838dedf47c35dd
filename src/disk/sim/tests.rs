//! What the simulated disk may do, and what it may never do: every combination where they can be
//! counted, many seeds where they cannot, and the real disk beside it.

use std::collections::BTreeSet;

use super::content::SECTOR;
use super::*;
use crate::disk::map::heap_ring;
use crate::disk::{Fill, PAGE, PAGE_U64, RealDisk, read_full, write_full, write_ring_full};

const SEEDS: u64 = 200;
const PAGES: usize = 2 * PAGE;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn sector(version: u8) -> [u8; SECTOR] {
    [version; SECTOR]
}

/// A file of which all is durable.
fn durable(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(path(name), Access::Create).unwrap();
    write_full(&*file, bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path(name).parent().unwrap()).unwrap();
    file
}

/// The first byte of each sector: enough where sectors are uniform.
fn versions(disk: &SimDisk, name: &str) -> Vec<u8> {
    let bytes = disk.copy_bytes(path(name)).unwrap();
    let sectors = bytes.chunks(SECTOR).map(|sector| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
        sector[0]
    });
    sectors.collect()
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list_all().iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect()
}

// What a power cut keeps of bytes.

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
        durable(&disk, &format!("/{number}"), &[number; 1 << 16]);
    }
    for number in 0..2000_u32 {
        let fork = disk.fork();
        let name = format!("/{}", number % 20);
        let file = fork.open(path(&name), Access::Write).unwrap();
        write_full(&*file, b"changed", 0).unwrap();
        assert!(fork.copy_bytes(path(&name)).unwrap().starts_with(b"changed"));
    }
    for number in 0..20 {
        assert_eq!(disk.copy_bytes(path(&format!("/{number}"))).unwrap(), [number; 1 << 16]);
    }
}

// What a power cut keeps of names.

#[test]
fn a_file_whose_name_was_not_synced_can_be_lost_though_its_bytes_were() {
    let disk = SimDisk::new(1);
    let file = disk.open(path("/f"), Access::Create).unwrap();
    write_full(&*file, b"bytes", 0).unwrap();
    file.sync_data().unwrap();
    let found: Vec<_> = disk.power_cuts(100).map(|cut| cut.list_all().len()).collect();
    assert_eq!(found, [0, 1]);
    assert_eq!(disk.durable_bytes(path("/f")).unwrap(), None);
    assert!(!disk.is_durable(path("/f")).unwrap());
    disk.sync_dir(path("/")).unwrap();
    assert!(disk.is_durable(path("/f")).unwrap());
    assert_eq!(disk.power_cut_losing_all().copy_bytes(path("/f")).unwrap(), b"bytes");
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_and_never_neither() {
    let disk = SimDisk::new(1);
    durable(&disk, "/f", b"old");
    let new = disk.open(path("/new"), Access::Create).unwrap();
    write_full(&*new, b"new", 0).unwrap();
    new.sync_data().unwrap();
    disk.rename(path("/new"), path("/f")).unwrap();
    let found: BTreeSet<_> = disk
        .power_cuts(100)
        .map(|cut| (names(&cut), cut.copy_bytes(path("/f")).unwrap()))
        .collect();
    let some = |names: &[&str], bytes: &[u8]| {
        (names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), bytes.to_vec())
    };
    assert_eq!(
        found,
        [some(&["/f"], b"old"), some(&["/f", "/new"], b"old"), some(&["/f"], b"new")].into()
    );
}

/// One change of names in a directory of two durable files, a and b.
#[derive(Copy, Clone, Debug)]
enum Step {
    Create(&'static str),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    Sync,
}

const STEPS: [Step; 10] = [
    Step::Create("/a"),
    Step::Create("/c"),
    Step::Remove("/a"),
    Step::Remove("/b"),
    Step::Rename("/a", "/b"),
    Step::Rename("/b", "/a"),
    Step::Rename("/b", "/c"),
    Step::Rename("/c", "/a"),
    Step::Rename("/c", "/b"),
    Step::Sync,
];

/// Name -> content, where contents are told apart by their first bytes.
fn directory(disk: &SimDisk) -> Vec<Option<Vec<u8>>> {
    ["/a", "/b", "/c"].map(|name| disk.copy_bytes(path(name)).ok()).to_vec()
}

#[test]
fn names_in_every_order_of_changes_are_ones_that_were_seen_and_no_file_has_two() {
    for order in 0..STEPS.len().pow(4) {
        let steps = (0..4).map(|digit| STEPS[order / STEPS.len().pow(digit) % STEPS.len()]);
        let disk = SimDisk::new(1);
        durable(&disk, "/a", b"a");
        durable(&disk, "/b", b"b");
        // What each name has stood for since the last sync.
        let mut seen = vec![directory(&disk)];
        for (number, step) in steps.enumerate() {
            match step {
                Step::Sync => {
                    disk.sync_dir(path("/")).unwrap();
                    seen.clear();
                }
                Step::Create(name) if disk.copy_bytes(path(name)).is_err() => {
                    let file = disk.open(path(name), Access::Create).unwrap();
                    write_full(&*file, number.to_string().as_bytes(), 0).unwrap();
                    file.sync_data().unwrap();
                }
                Step::Create(_) => {}
                // Those that are not there are refused, and change nothing.
                Step::Remove(name) => drop(disk.remove(path(name))),
                Step::Rename(from, to) => drop(disk.rename(path(from), path(to))),
            }
            seen.push(directory(&disk));
        }
        let mut last = false;
        for cut in disk.power_cuts(100) {
            let found = directory(&cut);
            for (name, content) in found.iter().enumerate() {
                assert!(
                    seen.iter().any(|seen| seen[name] == *content),
                    "order {order}: name {name} is {content:?}"
                );
            }
            let files: Vec<_> = found.iter().flatten().collect();
            let different: BTreeSet<_> = files.iter().collect();
            assert_eq!(files.len(), different.len(), "order {order}: a file has two names");
            // A rename loses nothing: as long as no file is removed or replaced, all are there.
            if seen.iter().all(|seen| seen.iter().flatten().count() == 2) {
                assert_eq!(files.len(), 2, "order {order}: a rename has lost a file");
            }
            last |= found == *seen.last().unwrap();
        }
        assert!(last, "order {order}: what is seen is not among what can be kept");
    }
}

#[test]
fn a_directory_is_lost_with_its_name_and_all_that_is_in_it() {
    let disk = SimDisk::new(1);
    disk.create_dir(path("/store/log")).unwrap();
    durable(&disk, "/store/log/f", b"bytes");
    disk.sync_dir(path("/store")).unwrap();
    assert_eq!(disk.durable_bytes(path("/store/log/f")).unwrap(), None);
    let lost = disk.fork().power_cut_losing_all();
    assert!(lost.list_all().is_empty());
    assert_eq!(lost.list(path("/store")).unwrap_err().kind(), io::ErrorKind::NotFound);
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(names(&disk.power_cut_losing_all()), ["/store/log/f"]);
}

// Failed syncs.

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

#[test]
fn after_a_failed_sync_of_a_directory_any_name_may_be_durable_or_not_or_never() {
    let mut fates = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = disk.open(path("/f"), Access::Create).unwrap();
        file.sync_data().unwrap();
        disk.fail(Fault::new(Failure::Io).on(Op::SyncDir));
        disk.sync_dir(path("/")).unwrap_err();
        let early = disk.durable_bytes(path("/f")).unwrap().is_some();
        disk.sync_dir(path("/")).unwrap();
        fates.insert((early, disk.durable_bytes(path("/f")).unwrap().is_some()));
        assert_eq!(names(&disk.kill()), ["/f"]);
    }
    assert_eq!(fates, [(false, false), (false, true), (true, true)].into());
}

// Lives.

#[test]
fn a_kill_keeps_what_was_written_and_ends_what_was_open() {
    let disk = SimDisk::new(1);
    let file = disk.open(path("/f"), Access::Create).unwrap();
    write_full(&*file, b"written", 0).unwrap();
    let guard = disk.lock(path("/LOCK")).unwrap();
    let taken = disk.lock(path("/LOCK")).unwrap_err();
    assert_eq!((taken.kind(), taken.to_string().as_str()), (io::ErrorKind::WouldBlock, "1"));

    let next = disk.kill();
    assert_eq!(next.copy_bytes(path("/f")).unwrap(), b"written");
    let mut buffer = [0; 4];
    let answers = [
        file.len().unwrap_err(),
        file.read_at(&mut buffer, 0).unwrap_err(),
        file.write_at(b"late", 0).unwrap_err(),
        file.write_ring(&heap_ring(PAGE).unwrap().1, 0, 4, 0).unwrap_err(),
        file.sync_data().unwrap_err(),
        file.allocate(PAGE_U64, Fill::Zero).unwrap_err(),
        file.map_segment(4).unwrap_err(),
        file.map_ring(4).unwrap_err(),
        disk.create_dir(path("/dir")).unwrap_err(),
        disk.list(path("/")).unwrap_err(),
        disk.open(path("/f"), Access::Create).unwrap_err(),
        disk.rename(path("/f"), path("/g")).unwrap_err(),
        disk.remove(path("/f")).unwrap_err(),
        disk.sync_dir(path("/")).unwrap_err(),
        disk.lock(path("/LOCK")).unwrap_err(),
    ];
    assert!(answers.iter().all(Dead::is));
    let second = next.lock(path("/LOCK")).unwrap();
    drop((guard, file));
    let taken = next.lock(path("/LOCK")).unwrap_err();
    assert_eq!(taken.to_string(), "2", "a dead guard releases nothing");
    drop(second);
    next.lock(path("/LOCK")).unwrap();
    assert_eq!(next.copy_bytes(path("/f")).unwrap(), b"written");
}

#[test]
fn kills_and_power_cuts_mix_over_many_lives_and_synced_bytes_outlive_them_all() {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let mut disk = SimDisk::new(seed);
        durable(&disk, "/f", &[0; 4 * SECTOR]);
        // Per sector: what may be found, in the order in which it was written.
        let mut allowed = vec![vec![0_u8]; 4];
        let mut killed_only = true;
        for life in 1..=6 {
            let found = versions(&disk, "/f");
            for (number, version) in found.iter().enumerate() {
                assert!(allowed[number].contains(version), "seed {seed}, life {life}");
                if killed_only {
                    assert_eq!(allowed[number].last(), Some(version));
                } else {
                    allowed[number] = vec![*version];
                }
            }
            let file = disk.open(path("/f"), Access::Write).unwrap();
            for write in 0..random.below(5) {
                let number = random.below(4);
                let version = u8::try_from(life * 10 + write).unwrap();
                write_full(&*file, &sector(version), (number * SECTOR) as u64).unwrap();
                allowed[number].push(version);
                if random.once_in(4) {
                    file.sync_data().unwrap();
                    for versions in &mut allowed {
                        versions.drain(..versions.len() - 1);
                    }
                }
            }
            killed_only = random.once_in(2);
            disk = if killed_only { disk.kill() } else { disk.power_cut(random.bits()) };
        }
    }
}

#[test]
fn an_open_file_without_a_name_is_gone_with_the_life_and_takes_room_until_then() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; 100]);
    disk.remove(path("/f")).unwrap();
    assert_eq!((disk.used(), file.len().unwrap()), (100, 100));
    drop(file);
    assert_eq!(disk.used(), 0);
    assert_eq!(disk.power_cut_losing_all().used(), 100, "the removal was not synced");
}

// Maps.

#[test]
fn a_map_and_its_file_are_one() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; PAGES]);
    let map = file.map_segment(PAGES).unwrap();
    write_full(&*file, b"after", 100).unwrap();
    map.publish(105);
    assert_eq!(&map.bytes()[98..], b"\x01\x01after");
    assert!(disk.copy_bytes(path("/f")).unwrap()[100..].starts_with(b"after"));
    assert_eq!(disk.power_cuts(10).count(), 2);
    // The same bytes again, and others above: what a log does with its last page.
    write_full(&*file, b"\x01afterwards", 99).unwrap();
    let second = file.map_segment(PAGE).unwrap();
    assert_eq!((second.len(), second.bytes().len()), (PAGE, 0));
    let beyond = file.map_segment(PAGES + 1).unwrap_err();
    assert_eq!(beyond.kind(), io::ErrorKind::InvalidInput);
    let next = disk.kill();
    let file = next.open(path("/f"), Access::Write).unwrap();
    write_full(&*file, &[3; PAGES], 0).unwrap();
    assert_eq!(&map.bytes()[100..], b"after", "an old life's map sees no new life");
}

#[test]
#[should_panic(expected = "changes bytes that a map has published")]
fn changing_published_bytes_is_our_own_mistake() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; PAGE]);
    let map = file.map_segment(PAGE).unwrap();
    map.publish(100);
    write_full(&*file, &[2; 8], 99).unwrap();
}

#[test]
fn a_file_takes_another_size_only_while_it_is_not_mapped() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; PAGE]);
    let map = file.map_segment(PAGE).unwrap();
    let refused = write_full(&*file, b"beyond", PAGE_U64).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    drop(map);
    write_full(&*file, b"beyond", PAGE_U64).unwrap();
    assert_eq!(file.len().unwrap(), PAGE_U64 + 6);
}

#[test]
fn a_kill_keeps_the_ring_and_a_power_cut_keeps_any_of_its_sectors() {
    let disk = SimDisk::new(1);
    let ring = disk.open(path("/ring"), Access::Create).unwrap();
    ring.allocate(PAGE_U64, Fill::Zero).unwrap();
    disk.sync_dir(path("/")).unwrap();
    let (mut writer, source) = ring.map_ring(PAGE).unwrap();
    assert!(ring.map_ring(PAGE).is_err(), "a second ring over one file");
    writer.copy_in(PAGE_U64 - SECTOR as u64, &[1; 2 * SECTOR]);
    let expected = |first, last| [first, 0, 0, 0, 0, 0, 0, last];
    assert_eq!(versions(&disk.fork().kill(), "/ring"), expected(1, 1));
    let found: Vec<_> = disk.power_cuts(10).map(|cut| versions(&cut, "/ring")).collect();
    assert_eq!(found, [expected(0, 0), expected(0, 1), expected(1, 0), expected(1, 1)]);

    // An earlier lap that the kernel has seen can be what is kept.
    let segment = disk.open(path("/segment"), Access::Create).unwrap();
    let once = segment.write_ring(&source, PAGE_U64 - 8, 16, 0).unwrap();
    assert_eq!(once, 8, "a kernel's copy ends at the wrap");
    write_ring_full(&*segment, &source, PAGE_U64, 16, 8).unwrap();
    assert_eq!(disk.copy_bytes(path("/segment")).unwrap(), [1; 24]);
    writer.copy_in(2 * PAGE_U64, &[2; SECTOR]);
    let found: BTreeSet<_> = disk.power_cuts(999).map(|cut| versions(&cut, "/ring")[0]).collect();
    assert_eq!(found, [0, 1, 2].into());

    let next = disk.kill();
    writer.copy_in(0, &[9; PAGE]);
    assert_eq!(versions(&next, "/ring"), expected(2, 1), "an old writer reaches no new life");
    let ring = next.open(path("/ring"), Access::Write).unwrap();
    let (mut writer, _source) = ring.map_ring(PAGE).unwrap();
    writer.copy_in(SECTOR as u64, &[3; SECTOR]);
    let mut buffer = [0; 4];
    read_full(&*ring, &mut buffer, SECTOR as u64 - 2).unwrap();
    assert_eq!(buffer, [2, 2, 3, 3], "a new ring begins with what the old one left");
}

#[test]
fn a_ring_whose_writer_is_gone_can_be_mapped_again_in_the_same_life() {
    let disk = SimDisk::new(1);
    let ring = disk.open(path("/ring"), Access::Create).unwrap();
    ring.allocate(PAGE_U64, Fill::Reserve).unwrap();
    let (mut writer, source) = ring.map_ring(PAGE).unwrap();
    writer.copy_in(0, b"kept");
    drop((writer, source));
    drop(ring.map_ring(PAGE).unwrap());
    assert!(disk.copy_bytes(path("/ring")).unwrap().starts_with(b"kept"));
    ring.sync_data().unwrap();
    let cut = disk.fork();
    cut.sync_dir(path("/")).unwrap();
    assert!(cut.power_cut_losing_all().copy_bytes(path("/ring")).unwrap().starts_with(b"kept"));
}

// Faults.

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
fn the_cuts_find_out_who_forgets_a_sync() {
    // The careful replacement, with one sync left out.
    for forgotten in [Op::SyncData, Op::SyncDir] {
        let disk = SimDisk::new(1);
        durable(&disk, "/f", b"old");
        let file = disk.open(path("/new"), Access::Create).unwrap();
        write_full(&*file, b"new", 0).unwrap();
        if forgotten != Op::SyncData {
            file.sync_data().unwrap();
        }
        disk.rename(path("/new"), path("/f")).unwrap();
        if forgotten != Op::SyncDir {
            disk.sync_dir(path("/")).unwrap();
        }
        let broken = |seed| disk.fork().power_cut(seed).copy_bytes(path("/f")).unwrap() != b"new";
        assert!((0..SEEDS).any(broken), "{forgotten:?}");
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

// Beside the real one.

/// The same call on both, and the same answer from both.
fn both<T: PartialEq + fmt::Debug>(
    case: &str,
    sim: io::Result<T>,
    real: io::Result<T>,
) -> Option<T> {
    let plain = |result: &io::Result<T>| result.as_ref().err().map(io::Error::kind);
    assert_eq!(plain(&sim), plain(&real), "{case}");
    if let (Ok(sim), Ok(real)) = (&sim, &real) {
        assert_eq!(sim, real, "{case}");
    }
    sim.ok()
}

#[test]
fn the_simulated_and_the_real_disk_answer_alike() {
    const FILES: [&str; 7] = ["a", "b", "dir/a", "dir/sub/a", "a/b", "missing/a", "dir/./b"];
    const DIRS: [&str; 6] = ["", "dir", "dir/sub", "a", "a/sub", "missing"];
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().unwrap();
        let (disk, real) = (SimDisk::new(seed), RealDisk);
        let mut open: Vec<(Arc<dyn File>, Arc<dyn File>)> = Vec::new();
        let mut guards = Vec::new();
        for step in 0..150 {
            let name = FILES[random.below(FILES.len())];
            let (here, there) = (path(name), folder.path().join(name));
            let dir = DIRS[random.below(DIRS.len())];
            let (dir_here, dir_there) = (path(dir), folder.path().join(dir));
            let at = random.below(3 * SECTOR) as u64;
            let bytes = 1 + random.below(2 * SECTOR);
            let choice = random.below(14);
            let case = format!("seed {seed}, step {step}, choice {choice}, {name}, {dir:?}");
            match choice {
                // Directories do not move, and so none gets a name that moves.
                0 if !dir.starts_with('a') || disk.copy_bytes(path("a")).is_ok() => {
                    both(&case, disk.create_dir(dir_here), real.create_dir(&dir_there));
                }
                1 => {
                    let sorted = |list: io::Result<Vec<Entry>>| {
                        list.map(|mut list| {
                            // The owner's number in it is another.
                            list.retain(|entry| entry.name != "LOCK");
                            list.sort_by(|first, second| first.name.cmp(&second.name));
                            list
                        })
                    };
                    both(&case, sorted(disk.list(dir_here)), sorted(real.list(&dir_there)));
                }
                2 => {
                    let to = FILES[random.below(FILES.len())];
                    if path(to).parent() == here.parent() {
                        let real = real.rename(&there, &folder.path().join(to));
                        both(&case, disk.rename(here, path(to)), real);
                    }
                }
                3 => {
                    both(&case, disk.remove(here), real.remove(&there));
                }
                4 if dir != "a" => {
                    both(&case, disk.sync_dir(dir_here), real.sync_dir(&dir_there));
                }
                5 => {
                    let (sim, real) =
                        (disk.lock(path("LOCK")), real.lock(&folder.path().join("LOCK")));
                    let failed = sim.as_ref().err().map(io::Error::kind);
                    assert_eq!(failed, real.as_ref().err().map(io::Error::kind), "{case}");
                    guards.extend(sim.ok().zip(real.ok()));
                    if random.once_in(2) {
                        guards.clear();
                    }
                }
                6 | 7 => {
                    let access = [Access::Read, Access::Write, Access::Create][random.below(3)];
                    let (sim, real) = (disk.open(here, access), real.open(&there, access));
                    let failed = sim.as_ref().err().map(io::Error::kind);
                    assert_eq!(failed, real.as_ref().err().map(io::Error::kind), "{case}");
                    open.extend(sim.ok().zip(real.ok()));
                    if open.len() > 4 {
                        open.swap_remove(random.below(4));
                    }
                }
                8.. if !open.is_empty() => {
                    let (sim, real) = &open[random.below(open.len())];
                    on_files(&case, [&**sim, &**real], choice, at, bytes, &mut random);
                }
                _ => {}
            }
            for (name, _) in disk.list_all().iter().filter(|(name, _)| !name.ends_with("LOCK")) {
                let there = folder.path().join(name.strip_prefix("/").unwrap());
                let real = real.open(&there, Access::Read).unwrap();
                assert_eq!(disk.copy_bytes(name).unwrap(), whole(&*real), "{case} {name:?}");
            }
        }
    }
}

fn whole(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; to_usize(file.len().unwrap())];
    assert_eq!(read_full(file, &mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[expect(clippy::too_many_arguments, reason = "one step's dice")]
fn on_files(
    case: &str,
    [sim, real]: [&dyn File; 2],
    choice: usize,
    at: u64,
    bytes: usize,
    random: &mut Random,
) {
    match choice {
        8 => {
            let mut buffers = [vec![0; bytes], vec![0; bytes]];
            let [first, second] = &mut buffers;
            both(case, sim.read_at(first, at), real.read_at(second, at));
            assert_eq!(buffers[0], buffers[1], "{case}");
        }
        9 | 10 => {
            let content: Vec<_> = (0..bytes).map(|_| random.bits().to_le_bytes()[0]).collect();
            both(case, sim.write_at(&content, at), real.write_at(&content, at));
        }
        11 => {
            let (mut writer, source) = heap_ring(PAGE).unwrap();
            let from = random.bits() >> 8;
            writer.copy_in(from, &random.bits().to_le_bytes());
            both(
                case,
                sim.write_ring(&source, from, bytes, at),
                real.write_ring(&source, from, bytes, at),
            );
        }
        12 => {
            let fill = if random.once_in(2) { Fill::Zero } else { Fill::Reserve };
            let bytes = (1 + at / SECTOR as u64) * SECTOR as u64;
            both(case, sim.allocate(bytes, fill), real.allocate(bytes, fill));
        }
        _ => {
            let bytes = to_usize(sim.len().unwrap());
            if bytes > 0 {
                let maps = [sim.map_segment(bytes).unwrap(), real.map_segment(bytes).unwrap()];
                maps.iter().for_each(|map| map.publish(bytes));
                assert_eq!(maps[0].bytes(), maps[1].bytes(), "{case}");
            }
            both(case, sim.sync_data(), real.sync_data());
            both(case, sim.len(), real.len());
        }
    }
}
