//! What a power cut and a failed sync keep of names.

use super::*;

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
