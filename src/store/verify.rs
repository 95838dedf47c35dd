//! Reading all of a store: what is right is counted, what is wrong is listed with its place.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::time::Duration;

use super::View;
use crate::disk::Access;
use crate::error::{DiskError, Error};
use crate::log::finding::{Finding, Severity, What};
use crate::log::verify::Pass;
use crate::log::{LogVerification, checkpoint_is_valid, mark, slots};
use crate::time::Clock;
use crate::trace::{self, Work};
use crate::types::StreamId;

/// How far a long work has come.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes that there are, as far as is known.
    pub total: u64,
    /// Bytes a second, so far.
    pub rate: u64,
}

/// Counts what is done, and tells somebody.
pub(super) struct Teller<'a> {
    clock: Clock,
    began: Duration,
    progress: Progress,
    tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(
        clock: Clock,
        total: u64,
        tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Self {
        let began = clock.monotonic();
        Self { clock, began, progress: Progress { total, ..Progress::default() }, tell }
    }

    pub(super) fn add(&mut self, bytes: u64) -> ControlFlow<()> {
        self.progress.done += bytes;
        self.progress.total = self.progress.total.max(self.progress.done);
        let micros = (self.clock.monotonic().saturating_sub(self.began)).as_micros().max(1);
        let rate = u128::from(self.progress.done) * 1_000_000 / micros;
        self.progress.rate = u64::try_from(rate).unwrap_or(u64::MAX);
        (self.tell)(self.progress)
    }
}

/// What reading all of a store has come to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// What is wrong with the folder's own files: identity, mark file, ring, checkpoints.
    pub findings: Vec<Finding>,
    /// The event log.
    pub events: LogVerification,
    /// The snapshot log. Nothing rests on it, so what is wrong there costs time at most.
    pub snapshots: LogVerification,
    /// It was told to stop, and there may be more.
    pub stopped: bool,
    /// How long it took.
    pub took: Duration,
}

impl Verification {
    /// All that is wrong.
    pub fn all(&self) -> impl Iterator<Item = &Finding> {
        let logs = self.events.findings.iter().chain(&self.snapshots.findings);
        self.findings.iter().chain(logs)
    }

    /// The worst of it; `None` if nothing is worth a word.
    pub fn worst(&self) -> Option<Severity> {
        self.all().map(|finding| finding.severity).max()
    }

    /// Is anything that was promised not what it was, with or without another copy?
    pub fn is_damaged(&self) -> bool {
        self.all().any(Finding::is_damage)
    }
}

/// Names of affected streams that are looked up.
const NAMES_MAX: usize = 1000;

impl View {
    /// Reads everything that this view found when it was opened. Of a store that is open, what
    /// came later is not looked at. `progress` may answer `Break` to end it.
    ///
    /// # Errors
    /// The file system's, where not even a folder can be listed.
    pub fn verify(
        &self,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Verification, Error> {
        let _span = trace::within(Work::Verify, &self.path);
        let clock = &self.options.0.clock;
        let began = clock.monotonic();
        let total = self.events.verify_bytes() + self.snapshots.verify_bytes();
        let mut teller = Teller::new(clock.clone(), total, progress);
        let mut verified =
            Verification { findings: self.own_findings().to_vec(), ..Verification::default() };
        self.verify_files(&mut verified.findings)?;
        let mut pass = |numbered, severity, log: &crate::log::LogView| {
            log.verify(Pass {
                numbered,
                severity,
                forgets: false,
                sealed_only: false,
                progress: &mut |bytes| teller.add(bytes),
            })
        };
        verified.events = pass(true, Severity::Loss, &self.events)?;
        if !verified.events.stopped {
            verified.snapshots = pass(false, self.snapshot_severity(), &self.snapshots)?;
        }
        verified.stopped = verified.events.stopped || verified.snapshots.stopped;
        self.name_streams(&mut verified.events.findings)?;
        verified.took = clock.monotonic().saturating_sub(began);
        trace::Verified {
            path: &self.path,
            frames: verified.events.frames + verified.snapshots.frames,
            findings: verified.all().count() as u64,
            damaged: verified.is_damaged(),
            took_us: trace::micros(verified.took),
        }
        .tell();
        Ok(verified)
    }

    /// Whose streams they are.
    fn name_streams(&self, findings: &mut [Finding]) -> Result<(), Error> {
        let mut known: BTreeMap<u128, Option<(String, String)>> = BTreeMap::new();
        let affected = findings.iter_mut().filter_map(|finding| finding.streams.as_mut()).flatten();
        for affected in affected.take(NAMES_MAX) {
            let key = affected.stream.get();
            let name = if let Some(name) = known.get(&key) {
                name.clone()
            } else {
                let actor = self.name_of_stream(StreamId::from_u128(key))?;
                actor.map(|actor| (actor.kind, actor.name))
            };
            known.insert(key, name.clone());
            affected.name = name;
        }
        Ok(())
    }

    /// The files beside the logs.
    fn verify_files(&self, findings: &mut Vec<Finding>) -> Result<(), Error> {
        let entries = self.disk.list(&self.path).map_err(DiskError::at("listing", &self.path))?;
        let begun = !self.events.segments().is_empty();
        for entry in &entries {
            let path = self.path.join(&entry.name);
            let what = match entry.name.as_str() {
                "LOCK" | "identity" | "mark" | "ring" => continue,
                "ckpt.tmp" => (Severity::Note, What::Leftover),
                name if name.starts_with("ckpt-") => {
                    if checkpoint_is_valid(&*self.disk, &path, self.id) {
                        continue;
                    }
                    (Severity::Derived, What::Checkpoint)
                }
                _ => (Severity::Note, What::Stray),
            };
            findings.push(Finding::file(path, what.0, what.1));
        }
        let mark = self.path.join("mark");
        match slots::read(&*self.disk, &mark, mark::MAGIC) {
            Ok(found) => {
                let bad = found.bad.first();
                let what = if found.exists && !found.valid.is_empty() {
                    bad.map(|_| What::Slot)
                } else {
                    ((begun && !found.exists) || bad.is_some()).then_some(What::Mark)
                };
                if let Some(what) = what {
                    let finding = Finding::file(&mark, Severity::Derived, what);
                    findings.push(Finding { offset: bad.copied().unwrap_or(0), ..finding });
                }
            }
            Err(error) => {
                let what = What::Unreadable(error.source.to_string());
                findings.push(Finding::file(&mark, Severity::Derived, what));
            }
        }
        self.verify_ring(begun, findings);
        Ok(())
    }

    /// The ring of a life that was not closed may hold what nothing else does.
    fn verify_ring(&self, begun: bool, findings: &mut Vec<Finding>) {
        let path = self.path.join("ring");
        let bytes = match self.disk.open(&path, Access::Read) {
            Ok(file) => file.len().map_err(|error| error.to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.to_string()),
        };
        let what = match bytes {
            Ok(bytes) if bytes > 0 && bytes.is_multiple_of(crate::disk::PAGE_U64) => return,
            Ok(_) if begun => What::Ring,
            Ok(_) => return,
            Err(error) => What::Unreadable(error),
        };
        // It is never synced, so a power cut may leave one of no bytes.
        findings.push(Finding::file(path, Severity::Derived, what));
    }
}
