//! Verifying: what is damaged is found, and what is not is not.

use std::ops::ControlFlow;
use std::path::Path;

use annals::disk::sim::{Random, SimDisk};
use annals::{Durability, Severity, Verification, What};

use crate::damage::every_damage;
use crate::noted::{Left, NAMES, Note, Notes, filled, options, seen, tell};
use crate::support::{Replay, disk, seeds, snapshot};

pub(crate) fn verify(disk: &SimDisk, path: &str) -> Verification {
    let view = options(disk).read_only(path).unwrap();
    view.verify(&mut |_| ControlFlow::Continue(())).unwrap()
}

pub(crate) fn print(verified: &Verification) -> String {
    let lines: Vec<String> =
        verified.all().map(|finding| format!("{finding} {:?}", finding.streams)).collect();
    lines.join("\n")
}

#[test]
fn a_store_that_is_open_closed_or_killed_has_nothing_wrong() {
    for left in [Left::Closed, Left::Killed] {
        let (disk, told, _) = filled(left);
        let before = snapshot(&disk);
        let mutations = disk.mutations();
        let verified = verify(&disk, "/store");
        assert!(verified.worst() <= Some(Severity::Note), "{left:?}: {}", print(&verified));
        assert_eq!(verified.events.events, told.values().map(Vec::len).sum::<usize>() as u64);
        assert_eq!(verified.events.streams, 4);
        let mut snapshots = 0;
        options(&disk).read_only("/store").unwrap().snapshots(&mut |_| snapshots += 1).unwrap();
        assert!(verified.snapshots.frames >= snapshots, "{snapshots}: {:?}", verified.snapshots);
        assert_eq!(disk.mutations(), mutations, "something was written");
        assert!(snapshot(&disk) == before);
        // And while it is open.
        let store = options(&disk).open("/store").unwrap();
        let mut told = told;
        for note in 100..140 {
            tell(&store, &mut told, note, Durability::Process);
            let verified = verify(&disk, "/store");
            assert!(verified.worst() <= Some(Severity::Note), "{}", print(&verified));
            assert_eq!(verified.events.events, told.values().map(Vec::len).sum::<usize>() as u64);
        }
    }
}

/// Whatever a power cut leaves is a store without damage: torn tails are none.
#[test]
fn no_power_cut_makes_damage() {
    let mut states = 0;
    for seed in seeds(150) {
        let _replay = Replay(seed);
        let mut random = Random::new(seed);
        let mut disk = disk(seed);
        let mut note = 0;
        for _ in 0..4 {
            if random.once_in(3) {
                disk.crash_at(random.below(60) as u64);
            }
            let store = options(&disk).open("/store");
            if let Ok(store) = &store {
                for _ in 0..random.below(30) {
                    if disk.has_crashed() {
                        break;
                    }
                    note += 1;
                    let level =
                        if random.once_in(2) { Durability::Power } else { Durability::Process };
                    let name = NAMES[random.below(4)];
                    let note = Note(note, random.below(1_500), level);
                    let asked = store.actor::<Notes>(name).unwrap().ask(note);
                    assert!(asked.is_ok() || disk.has_crashed());
                    if random.once_in(10) {
                        store.log().keep();
                        store.log().prepare_ahead();
                    }
                }
            }
            let next = if random.once_in(4) { disk.kill() } else { disk.power_cut(random.bits()) };
            drop(store);
            disk = next;
            let view = match options(&disk).read_only("/store") {
                Ok(view) => view,
                Err(annals::Error::Open(annals::OpenError::NoStore { .. })) => continue,
                Err(error) => panic!("{error}"),
            };
            let verified = view.verify(&mut |_| ControlFlow::Continue(())).unwrap();
            assert!(!verified.is_damaged(), "{}", print(&verified));
            states += 1;
        }
    }
    println!("{states} states were verified");
}

/// Every damage to every file: it is found, or all that was promised is there.
#[test]
fn every_damage_is_found_or_harmless() {
    let (mut trials, mut found, mut harmless) = (0, 0, 0);
    for left in [Left::Closed, Left::Killed] {
        let (disk, told, stale) = filled(left);
        every_damage(&disk, &stale, &SimDisk::new(1), 401, &mut |damaged, file, what| {
            trials += 1;
            let what = format!("{left:?}: {what}");
            let view = match options(damaged).read_only("/store") {
                Ok(view) => view,
                // Without any segment and identity there is no store to look at.
                Err(error) => panic!("{what}: {error}"),
            };
            let verified = view.verify(&mut |_| ControlFlow::Continue(())).unwrap();
            if verified.worst() > Some(Severity::Note) {
                found += 1;
                let wrong = verified.all().any(|finding| {
                    finding.severity > Severity::Note
                        && (finding.file == file || {
                            // A file that is taken for another's past.
                            finding.severity == Severity::Loss
                        })
                });
                assert!(wrong, "{what}: {}", print(&verified));
            } else {
                harmless += 1;
                let (all, bad) = seen(&view);
                assert_eq!(bad, 0, "{what}");
                let expected: std::collections::BTreeMap<String, Vec<u64>> =
                    told.iter().map(|(name, notes)| ((*name).to_owned(), notes.clone())).collect();
                assert_eq!(all, expected, "{what}: harmless, and something is gone");
            }
        });
    }
    println!("{trials} damages: {found} found, {harmless} harmless");
    assert!(found > 0 && harmless > 0);
}

#[test]
fn a_finding_names_file_offset_positions_and_streams() {
    let (disk, _, _) = filled(Left::Closed);
    let view = options(&disk).read_only("/store").unwrap();
    let mut cursor = view.frames(0);
    let mut frames = Vec::new();
    while let Some(annals::log::Seen::Frame(frame)) = cursor.next().unwrap() {
        frames.push((frame.lsn().get(), frame.end(), frame.header()));
    }
    let first = &view.segments()[0];
    let (lsn, end, header) = frames
        .iter()
        .find(|(lsn, _, header)| *lsn < first.base + 6_000 && header.seq.get() > 0)
        .copied()
        .unwrap();
    disk.flip_bit(&first.path, lsn - first.base + 50, 3).unwrap();
    let verified = verify(&disk, "/store");
    let finding = verified.all().find(|finding| finding.severity == Severity::Loss).unwrap();
    assert_eq!(finding.file, first.path);
    assert_eq!(finding.offset, lsn - first.base);
    assert_eq!(finding.lsns, lsn..end);
    assert!(matches!(finding.what, What::Frame(_)));
    let streams = finding.streams.as_ref().unwrap();
    assert_eq!(streams.len(), 1, "{streams:?}");
    assert_eq!(streams[0].stream, header.stream);
    assert_eq!(streams[0].from, header.seq);
    assert_eq!(streams[0].frames, 1);
    assert!(Path::new(&finding.file).ends_with("log/00000000000000000000.seg"));
}
