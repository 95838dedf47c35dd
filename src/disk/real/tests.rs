//! How the real door behaves, on this machine's file system.

use super::*;
use crate::disk::{PAGE_U64, read_full, write_full, write_ring_full};

fn create(dir: &Path, name: &str) -> Arc<dyn File> {
    RealDisk.open(&dir.join(name), Access::Create).unwrap()
}

fn all(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; to_usize(file.len().unwrap())];
    let read = read_full(file, &mut bytes, 0).unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

#[test]
fn only_files_are_listed_with_their_sizes() {
    let dir = tempfile::tempdir().unwrap();
    write_full(&*create(dir.path(), "a"), b"four", 0).unwrap();
    create(dir.path(), "b");
    RealDisk.create_dir(&dir.path().join("sub/deeper")).unwrap();
    let mut entries = RealDisk.list(dir.path()).unwrap();
    entries.sort_by(|first, second| first.name.cmp(&second.name));
    let found: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.bytes)).collect();
    assert_eq!(found, [("a", 4), ("b", 0)]);
    let missing = RealDisk.list(&dir.path().join("missing")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_rename_replaces_and_a_removed_file_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (create(dir.path(), "old"), create(dir.path(), "new"));
    write_full(&*old, b"old", 0).unwrap();
    write_full(&*new, b"new", 0).unwrap();
    RealDisk.rename(&dir.path().join("new"), &dir.path().join("old")).unwrap();
    RealDisk.sync_dir(dir.path()).unwrap();
    let found = RealDisk.open(&dir.path().join("old"), Access::Read).unwrap();
    assert_eq!(all(&*found), b"new");
    assert_eq!(all(&*old), b"old", "an open file outlives its name");
    RealDisk.remove(&dir.path().join("old")).unwrap();
    assert!(RealDisk.list(dir.path()).unwrap().is_empty());
    assert_eq!(all(&*found), b"new");
}

#[test]
fn a_second_lock_is_refused_and_told_who_has_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LOCK");
    let guard = RealDisk.lock(&path).unwrap();
    let refused = RealDisk.lock(&path).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(refused.to_string(), std::process::id().to_string());
    drop(guard);
    drop(RealDisk.lock(&path).unwrap());
    let elsewhere = RealDisk.lock(&dir.path().join("missing/LOCK")).unwrap_err();
    assert_eq!(elsewhere.kind(), io::ErrorKind::NotFound);
}

#[test]
fn reserved_room_keeps_what_is_there_and_zeroed_room_does_not() {
    // Sizes that O_DIRECT takes, and one that it does not.
    for bytes in [PAGE_U64, 3 * PAGE_U64, (1 << 20) + PAGE_U64, PAGE_U64 + 100] {
        let dir = tempfile::tempdir().unwrap();
        let file = create(dir.path(), "file");
        write_full(&*file, b"here", 0).unwrap();
        file.allocate(bytes, Fill::Reserve).unwrap();
        let found = all(&*file);
        assert_eq!(found.len() as u64, bytes);
        assert!(found.starts_with(b"here\0") && found[4..].iter().all(|byte| *byte == 0));
        file.allocate(bytes, Fill::Zero).unwrap();
        assert_eq!(all(&*file), vec![0; to_usize(bytes)], "{bytes}");
    }
}

#[test]
fn a_file_that_has_been_renamed_is_filled_and_not_what_took_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = create(dir.path(), "new");
    RealDisk.rename(&dir.path().join("new"), &dir.path().join("file")).unwrap();
    let other = create(dir.path(), "new");
    write_full(&*other, b"untouched", 0).unwrap();
    file.allocate(PAGE_U64, Fill::Zero).unwrap();
    assert_eq!(all(&*other), b"untouched");
    assert_eq!(all(&*file), [0; PAGE]);
}

#[test]
fn without_direct_writes_the_rest_is_filled_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    let file = RealFile(options.open(dir.path().join("file")).unwrap());
    write_full(&file, b"here", 0).unwrap();
    file.fill_buffered(4..PAGE_U64 + 5).unwrap();
    let found = all(&file);
    assert_eq!(found.len(), PAGE + 5);
    assert!(found.starts_with(b"here\0") && found[4..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_map_sees_what_was_written_before_and_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = create(dir.path(), "segment");
    file.allocate(2 * PAGE_U64, Fill::Zero).unwrap();
    write_full(&*file, b"before", 10).unwrap();
    let map = file.map_segment(2 * PAGE).unwrap();
    write_full(&*file, b"after", PAGE_U64).unwrap();
    assert_eq!((map.len(), map.bytes().len()), (2 * PAGE, 0));
    map.publish(PAGE + 5);
    assert_eq!(&map.bytes()[10..16], b"before");
    assert_eq!(&map.bytes()[PAGE..], b"after");
    map.sealed();
    drop(file);
    RealDisk.remove(&dir.path().join("segment")).unwrap();
    assert_eq!(&map.bytes()[10..16], b"before", "a map outlives file and name");
}

#[test]
fn a_ring_reaches_its_file_and_the_kernel_copies_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (file, segment) = (create(dir.path(), "ring"), create(dir.path(), "segment"));
    file.allocate(2 * PAGE_U64, Fill::Zero).unwrap();
    let (mut writer, source) = file.map_ring(2 * PAGE).unwrap();
    let piece: Vec<u8> = (0..=255).cycle().take(PAGE).collect();
    // Half of the piece before the wrap, half after it.
    let position = 5 * PAGE_U64 + PAGE_U64 / 2;
    writer.copy_in(position, &piece);
    let once = segment.write_ring(&source, position, PAGE, 0).unwrap();
    assert_eq!(once, PAGE / 2, "a kernel's copy ends at the wrap");
    write_ring_full(&*segment, &source, position, PAGE, 0).unwrap();
    assert_eq!(all(&*segment), piece);
    // Through the file, as the next process will read it.
    let in_file = all(&*file);
    assert_eq!(in_file[PAGE + PAGE / 2..], piece[..PAGE / 2]);
    assert_eq!(in_file[..PAGE / 2], piece[PAGE / 2..]);
}

#[test]
fn network_file_systems_are_known_by_their_numbers_and_local_ones_are_not_among_them() {
    assert_eq!(network_name(0x6969), Some("NFS"));
    assert_eq!(network_name(0xff53_4d42), Some("SMB"));
    for local in [0xef53, 0x5846_5342, 0x0102_1994, 0x9123_683e, 0x6573_5546] {
        assert_eq!(network_name(local), None, "{local:#x}");
    }
}
