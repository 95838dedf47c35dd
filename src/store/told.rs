//! What is told of a store's opening and closing, once its locks are not held any more.

use std::path::Path;
use std::time::Duration;

use super::{OpenReport, Store};
use crate::actor::CloseReport;
use crate::error::Error;
use crate::log::{RecoveryReport, Start};
use crate::trace;

/// What came of an open.
pub(super) fn opened(path: &Path, opened: &Result<Store, Error>) {
    if !trace::ON {
        return;
    }
    match opened {
        Ok(store) => {
            let OpenReport { store: id, life, events, snapshots, took } = store.report();
            recovered(store.events.dir(), events);
            recovered(store.snapshots.log().dir(), snapshots);
            let lsn = store.events.written();
            trace::LifeBegun { path, life: life.number, lsn }.tell();
            let (store, took_us) = (format!("{id:016x}"), trace::micros(*took));
            trace::Opened { path, store: &store, life: life.number, took_us }.tell();
        }
        Err(error) => trace::OpenFailed { path, error }.tell(),
    }
}

/// What was found of a log, and done about it.
fn recovered(dir: &Path, report: &RecoveryReport) {
    let start = match report.start {
        Start::Fresh => "fresh",
        Start::Continued => "continued",
        Start::Recovered => "recovered",
        Start::SetAside => "set aside",
    };
    trace::Recovered {
        dir,
        start,
        lsn: report.end,
        durable: report.durable,
        frames: report.frames,
        bytes: report.bytes,
        rescued: report.rescued,
        took_us: trace::micros(report.took),
    }
    .tell();
    if let Some(damage) = &report.damage {
        let (file, offset, lsn) = (&*damage.file, damage.offset, damage.lsns.start);
        trace::SetAside { file, offset, lsn, error: &damage.reason }.tell();
    }
    if report.repaired {
        trace::RingRepaired { dir, lsn: report.end }.tell();
    }
    if !report.lost.is_empty() {
        trace::TornTail { dir, lsn: report.lost.start, lsn_end: report.lost.end }.tell();
    }
}

/// What came of a close.
pub(super) fn closed(path: &Path, closed: &Result<CloseReport, Error>, took: Duration) {
    match closed {
        Ok(report) => trace::Closed {
            path,
            dead_letters: report.dead_letters,
            threads_left: report.threads_left as u64,
            took_us: trace::micros(took),
        }
        .tell(),
        Err(error) => trace::CloseFailed { path, error }.tell(),
    }
}
