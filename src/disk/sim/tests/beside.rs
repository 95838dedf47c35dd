//! The simulated disk beside the real one.

use super::*;

/// The same call on both, and the same answer from both.
#[expect(clippy::needless_pass_by_value, reason = "results are made to be handed over")]
fn both<T: PartialEq + fmt::Debug>(case: &str, sim: io::Result<T>, real: io::Result<T>) {
    let plain = |result: &io::Result<T>| result.as_ref().err().map(io::Error::kind);
    assert_eq!(plain(&sim), plain(&real), "{case}");
    if let (Ok(sim), Ok(real)) = (&sim, &real) {
        assert_eq!(sim, real, "{case}");
    }
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
                for map in &maps {
                    map.publish(bytes);
                }
                assert_eq!(maps[0].bytes(), maps[1].bytes(), "{case}");
            }
            both(case, sim.sync_data(), real.sync_data());
            both(case, sim.len(), real.len());
        }
    }
}
