//! Repair: a damaged store opens afterwards, and what is lost is what the plan said.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use annals::disk::sim::SimDisk;
use annals::{RepairStep, StreamId};

use crate::damage::every_damage;
use crate::noted::{Left, NAMES, filled, loaded, options};
use crate::support::snapshot;
use crate::verify::print;

#[test]
fn a_plan_changes_nothing_and_a_whole_store_needs_none() {
    let (disk, _, _) = filled(Left::Closed);
    let before = snapshot(&disk);
    let repair = options(&disk).repair("/store").unwrap();
    assert_eq!(repair.plan().steps, []);
    let done = repair.carry_out(&mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(done.aside, None);
    drop(done);
    let after: Vec<_> = snapshot(&disk);
    let same = |(path, bytes): &(std::path::PathBuf, Vec<u8>)| {
        path.ends_with("LOCK") || after.contains(&(path.clone(), bytes.clone()))
    };
    assert!(before.iter().all(same));
}

/// Every damage to every file: after a repair the store opens, every actor is whole, or is one
/// that the plan named, or stands where the plan said that nobody can tell.
#[test]
fn after_a_repair_a_store_opens_and_has_lost_what_the_plan_said() {
    let (mut trials, mut repaired, mut lossy) = (0_u64, 0, 0);
    for left in [Left::Closed, Left::Killed] {
        let (disk, told, stale) = filled(left);
        every_damage(&disk, &stale, &SimDisk::new(1), 401, &mut |damaged, _, what| {
            trials += 1;
            // Each is some ten times the work of a look.
            if trials % 7 != 0 && !what.contains("deleted") && !what.contains("copy") {
                return;
            }
            let what = format!("{left:?}: {what}");
            let repair =
                options(damaged).repair("/store").unwrap_or_else(|error| panic!("{what}: {error}"));
            let plan = repair.plan().clone();
            if !plan.steps.is_empty() {
                repaired += 1;
            }
            let found = print(repair.verification());
            let done = repair
                .carry_out(&mut |_| ControlFlow::Continue(()))
                .unwrap_or_else(|error| panic!("{what}: {error}\n{found}{:?}", plan.steps));
            let store = options(damaged)
                .open("/store")
                .unwrap_or_else(|error| panic!("{what}: {error}\n{found}{plan:?}"));
            let named: BTreeSet<StreamId> = plan.streams.iter().map(|it| it.stream).collect();
            if !plan.lost.is_empty() {
                lossy += 1;
            }
            for (name, notes) in loaded(&store) {
                let expected = &told[name];
                let affected = named.contains(&StreamId::of("notes", name));
                match notes {
                    Ok(notes) if notes == *expected => {}
                    Ok(notes) => {
                        assert!(expected.starts_with(&notes), "{what}: {name} is {notes:?}");
                        let said = affected || plan.unknown_streams;
                        // What the ring alone had was never on the disk.
                        let ring = what.contains("/ring");
                        assert!(said || ring, "{what}: {name} lost in silence\n{found}{plan:?}");
                    }
                    Err(error) => {
                        let said = affected || plan.unknown_streams;
                        assert!(said, "{what}: {name}: {error}\n{found}{plan:?}");
                    }
                }
            }
            drop(done);
        });
    }
    println!("{trials} damages, {repaired} repaired, {lossy} with losses");
    assert!(repaired > 0 && lossy > 0);
}

#[test]
fn a_hole_among_good_frames_stays_and_everybody_else_lives_on() {
    let (disk, told, _) = filled(Left::Closed);
    let view = options(&disk).read_only("/store").unwrap();
    let mut cursor = view.frames(0);
    let mut frames = Vec::new();
    while let Some(annals::log::Seen::Frame(frame)) = cursor.next().unwrap() {
        frames.push((frame.lsn().get(), frame.header()));
    }
    let (lsn, header) = *frames.iter().find(|(_, header)| header.seq.get() == 7).unwrap();
    let segments = view.segments();
    let segment = segments.iter().rfind(|segment| segment.base < lsn).unwrap();
    disk.flip_bit(&segment.path, lsn - segment.base + 60, 0).unwrap();
    let refused = options(&disk).open("/store");
    println!("{:?}", refused.as_ref().err());
    drop(refused);
    let repair = options(&disk).repair("/store").unwrap();
    let plan = repair.plan().clone();
    assert!(plan.steps.iter().any(|step| matches!(step, RepairStep::Hole { .. })), "{plan:?}");
    repair.carry_out(&mut |_| ControlFlow::Continue(())).unwrap();
    let store = options(&disk).open("/store").unwrap();
    let mut stopped = 0;
    for (name, notes) in loaded(&store) {
        let its = StreamId::of("notes", name) == header.stream;
        match notes {
            Ok(notes) => assert_eq!(notes, told[name], "{name}"),
            Err(error) => {
                assert!(its, "{name}: {error}");
                stopped += 1;
            }
        }
    }
    // With its snapshots an actor may not need the frame at all.
    assert!(stopped <= 1);
    assert!(NAMES.iter().any(|name| StreamId::of("notes", name) == header.stream));
}
