//! What is left when a life ends.

use super::*;

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
    assert_eq!(disk.fork().kill().used(), 0);
    let next = disk.kill();
    assert_eq!(next.used(), 0, "nobody has it open any more");
    let disk = next;
    let file = durable(&disk, "/g", &[1; 10]);
    disk.remove(path("/g")).unwrap();
    drop(file);
    assert_eq!(disk.used(), 0);
    assert_eq!(disk.power_cut_losing_all().used(), 10, "the second removal was not synced");
}

#[test]
fn a_life_can_end_under_the_feet_of_its_threads() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, "/f", &[0; PAGE]);
        let handle = disk.handle();
        let next = std::thread::scope(|scope| {
            for version in 1..=4 {
                let (file, handle) = (&file, &handle);
                scope.spawn(move || {
                    // Until the answer is that of a dead disk.
                    let error = (0..)
                        .find_map(|at| {
                            let write = file.write_at(&sector(version), (at % 8) * SECTOR as u64);
                            let sync = file.sync_data();
                            let list = handle.list(path("/"));
                            write.err().or(sync.err()).or(list.err())
                        })
                        .unwrap();
                    assert!(Dead::is(&error));
                });
            }
            while disk.operations() < 100 {
                std::thread::yield_now();
            }
            if seed % 2 == 0 { disk.kill() } else { disk.power_cut(seed) }
        });
        let found = versions(&next, "/f");
        assert!(found.iter().all(|version| *version <= 4), "sectors are whole: {found:?}");
        assert_eq!(next.operations(), 0, "no late call has reached it");
    }
}
