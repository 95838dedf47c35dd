//! Backups: a copy holds what is below its mark and nothing else, whenever it was made and
//! whatever came in between.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use annals::disk::Disk as _;
use annals::{BackupOptions, Durability, Error, OpenError, Seq, Store};

use crate::noted::{Left, Note, Notes, Told, check_whole, filled, note_of, options, tell};
use crate::support::disk;
use crate::verify::{print, verify};

fn go_on(_: annals::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_backup_of_a_closed_or_killed_store_is_whole_and_verifies() {
    for left in [Left::Closed, Left::Killed] {
        let (disk, told, _) = filled(left);
        let view = options(&disk).read_only("/store").unwrap();
        let node = view.node_id();
        let store = view.store_id();
        let made = view.backup("/copy", &BackupOptions::default(), &mut go_on).unwrap();
        let copy = options(&disk).read_only("/copy").unwrap();
        assert_eq!(copy.store_id(), store);
        assert_eq!(copy.node_id(), Some(made.node));
        assert_ne!(copy.node_id(), node, "the two can be told apart");
        let verified = verify(&disk, "/copy");
        assert!(!verified.is_damaged(), "{}", print(&verified));
        // Power goes at once: it was synced.
        let disk = disk.power_cut_losing_all();
        let verified = verify(&disk, "/copy");
        assert!(verified.worst() <= Some(annals::Severity::Note), "{}", print(&verified));
        check_whole(&disk, Path::new("/copy"), &told);
        check_whole(&disk, Path::new("/store"), &told);
    }
}

/// From inside, between any two commands; then both go on, and neither knows the other's.
#[test]
fn a_backup_from_inside_has_what_was_acknowledged_and_both_go_on() {
    for notes in 0..60 {
        let disk = disk(5);
        let mut told = Told::new();
        let store = options(&disk).open("/store").unwrap();
        for note in 0..notes {
            tell(&store, &mut told, note, Durability::Process);
        }
        store.backup("/copy", &BackupOptions::default(), &mut go_on).unwrap();
        let mut more = told.clone();
        for note in notes..notes + 20 {
            tell(&store, &mut more, note, Durability::Power);
        }
        let _report = store.close(Duration::from_secs(5)).unwrap();
        let verified = verify(&disk, "/copy");
        assert!(!verified.is_damaged(), "{notes}: {}", print(&verified));
        check_whole(&disk, Path::new("/copy"), &told);
        let copy = options(&disk).open("/copy").unwrap();
        for note in 1_000..1_010 {
            tell(&copy, &mut told, note, Durability::Power);
        }
        let _report = copy.close(Duration::from_secs(5)).unwrap();
        check_whole(&disk, Path::new("/copy"), &told);
        check_whole(&disk, Path::new("/store"), &more);
    }
}

#[test]
fn a_target_that_is_there_is_refused_and_left_alone() {
    let (disk, _, _) = filled(Left::Closed);
    let view = options(&disk).read_only("/store").unwrap();
    let refused = view.backup("/store", &BackupOptions::default(), &mut go_on);
    assert!(matches!(refused, Err(Error::Open(OpenError::Exists { .. }))), "{refused:?}");
}

/// A crash at any call of a backup: there is no target, or a whole one, and the next try works.
#[test]
fn a_backup_killed_at_any_call_leaves_nothing_or_all_of_it() {
    let (disk, told, _) = filled(Left::Killed);
    let whole = disk.fork();
    let view = options(&whole).read_only("/store").unwrap();
    view.backup("/copy", &BackupOptions::default(), &mut go_on).unwrap();
    let calls = whole.mutations();
    assert!(calls > 20);
    for call in 0..calls {
        for cut in [false, true] {
            let disk = disk.fork();
            disk.crash_at(call);
            let view = options(&disk).read_only("/store").unwrap();
            let failed = view.backup("/copy", &BackupOptions::default(), &mut go_on);
            assert!(failed.is_err() || disk.has_crashed());
            let disk = if cut { disk.power_cut(call) } else { disk.kill() };
            if disk.list(Path::new("/copy")).is_err() {
                let view = options(&disk).read_only("/store").unwrap();
                view.backup("/copy", &BackupOptions::default(), &mut go_on)
                    .unwrap_or_else(|error| panic!("call {call}: {error}"));
            }
            check_whole(&disk, Path::new("/copy"), &told);
            check_whole(&disk, Path::new("/store"), &told);
        }
    }
}

/// With links, threads, a real disk and writers that do not stop.
#[test]
fn a_backup_while_several_threads_write_is_a_prefix_of_each() {
    for links in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("store");
        let store = Store::options()
            .segment_bytes(64 << 10, 128 << 10)
            .ring_bytes(64 << 10)
            .frame_bytes_max(8 << 10)
            .snapshot_bytes_max(8 << 10)
            .catalogue(false)
            .open(&at)
            .unwrap();
        let copies: Vec<_> = std::thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                let store = &store;
                scope.spawn(move || {
                    let actor = store.actor::<Notes>(name).unwrap();
                    for note in 0..3_000 {
                        actor.ask(Note(note, 100, Durability::Process)).unwrap();
                    }
                });
            }
            let mut copies = Vec::new();
            for number in 0..4 {
                let to = dir.path().join(format!("copy{number}"));
                let options = BackupOptions::default().links(links);
                let made = if number % 2 == 0 {
                    store.backup(&to, &options, &mut go_on).unwrap()
                } else {
                    let view = Store::read_only(&at).unwrap();
                    view.backup(&to, &options, &mut go_on).unwrap()
                };
                copies.push((to, made));
            }
            copies
        });
        drop(store);
        for (to, made) in copies {
            let view = Store::read_only(&to).unwrap();
            let verified = view.verify(&mut |_| ControlFlow::Continue(())).unwrap();
            assert!(!verified.is_damaged(), "{}", print(&verified));
            assert!(view.written() <= made.mark);
            let all = Store::read_only(&at).unwrap();
            let mut frames = all.frames(0);
            frames.stop_at(made.mark);
            let mut expected = 0;
            while frames.next().unwrap().is_some() {
                expected += 1;
            }
            assert_eq!(verified.events.frames, expected, "all below the mark and nothing else");
            for name in ["a", "b", "c"] {
                let mut next = 0;
                let bad = view.history("notes", name, Seq::ZERO, &mut |event| {
                    assert_eq!(note_of(event.bytes), next);
                    next += 1;
                    ControlFlow::Continue(())
                });
                assert_eq!(bad.unwrap(), []);
            }
            let store = Store::options().catalogue(false).open(&to).unwrap();
            drop(store);
        }
    }
}

/// Runs are part of a store like segments are.
#[test]
fn a_compacted_store_is_seen_verified_and_backed_up() {
    let (disk, told, _) = filled(Left::Closed);
    let store = options(&disk).open("/store").unwrap();
    let keep = |_| Ok(annals::log::Keep::ALL);
    let plan = annals::log::Plan {
        run_bytes_max: 1 << 20,
        keep: &keep,
        pinned: u64::MAX,
        unnamed: u64::MAX,
        below: u64::MAX,
        before: annals::HybridTime::from_bits(u64::MAX),
        renew: true,
        thorough: false,
    };
    let mut runs = 0;
    while store.log().compact(&plan).unwrap().is_some() {
        runs += 1;
    }
    assert!(runs > 0);
    let _report = store.close(Duration::from_secs(5)).unwrap();
    let verified = verify(&disk, "/store");
    assert!(verified.worst() <= Some(annals::Severity::Note), "{}", print(&verified));
    assert_eq!(verified.events.events, told.values().map(Vec::len).sum::<usize>() as u64);
    let view = options(&disk).read_only("/store").unwrap();
    assert_eq!(view.totals().unwrap().events, verified.events.events);
    let (all, bad) = crate::noted::seen(&view);
    assert_eq!(bad, 0);
    assert!(told.iter().all(|(name, notes)| all.get(*name) == Some(notes)));
    view.backup("/copy", &BackupOptions::default(), &mut go_on).unwrap();
    check_whole(&disk, Path::new("/copy"), &told);
    // And damage to one is found, with whose it is.
    let is_run =
        |path: &Path| path.starts_with("/store/log") && path.extension() == Some("run".as_ref());
    let run = disk.list_all().into_iter().map(|(path, _)| path).find(|path| is_run(path)).unwrap();
    disk.flip_bit(&run, 4_096 + 60, 1).unwrap();
    let verified = verify(&disk, "/store");
    let loss = verified.all().find(|finding| finding.severity == annals::Severity::Loss).unwrap();
    assert_eq!(loss.file, run);
    assert_eq!(loss.streams.as_ref().map(Vec::len), Some(1));
}
