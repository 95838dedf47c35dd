//! The scrub: damage in old segments comes to light although nobody reads them.

use std::time::Duration;

use annals::disk::sim::SimDisk;
use annals::time::Clock;
use annals::{Severity, Store};

use crate::noted::{Left, filled, options};

/// Opens the store with a scrub that does not hold back, and waits until it has been through.
fn scrubbed(disk: &SimDisk) -> Store {
    let store = options(disk).scrub(1 << 40).open("/store").unwrap();
    let began = Clock::System.monotonic();
    while store.stats().scrub.passes == 0 {
        assert_eq!(store.stats().scrub.failures, 0);
        assert!(
            Clock::System.monotonic() < began + Duration::from_mins(1),
            "{:?}",
            store.stats().scrub
        );
        std::thread::yield_now();
    }
    store
}

#[test]
fn a_scrub_finds_damage_in_every_sealed_segment_where_it_is_and_nothing_in_a_good_store() {
    let (disk, _, _) = filled(Left::Closed);
    let store = scrubbed(&disk.fork());
    assert_eq!(store.findings(), Vec::new());
    assert!(store.stats().scrub.bytes > 0);
    drop(store);
    let view = options(&disk).read_only("/store").unwrap();
    // The newest ones are read by the open.
    let segments = view.segments();
    let old = segments.len().saturating_sub(4);
    let mut found = 0;
    for segment in segments.iter().take(old) {
        let damaged = disk.fork();
        let at = 4_096 + 60;
        damaged.flip_bit(&segment.path, at, 3).unwrap();
        let store = scrubbed(&damaged);
        let findings = store.findings();
        let hit = findings.iter().find(|finding| finding.file == segment.path);
        let hit = hit.unwrap_or_else(|| panic!("{}: {findings:?}", segment.path.display()));
        assert_eq!(hit.severity, Severity::Loss);
        assert!(hit.offset <= at && hit.lsns.start <= segment.base + at, "{hit:?}");
        assert_eq!(store.stats().scrub.findings, findings.len() as u64);
        found += 1;
    }
    assert!(found > 3, "{found}");
}

/// The pace is a bound on what it reads, and a close does not wait for it.
#[test]
fn a_slow_scrub_is_ended_by_a_close_at_once() {
    let (disk, _, _) = filled(Left::Closed);
    let store = options(&disk).scrub(1).open("/store").unwrap();
    let began = Clock::System.monotonic();
    let _report = store.close(Duration::from_secs(10)).unwrap();
    // At a byte a second the pass would take days.
    assert!(Clock::System.monotonic() < began + Duration::from_secs(10));
}
