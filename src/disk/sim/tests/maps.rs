//! Maps, rings and their files.

use super::*;

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
