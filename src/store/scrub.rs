//! Reading sealed segments again and again, slowly: damage that is known early has a backup that
//! is older than it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::{StoreOptions, View};
use crate::error::{DiskError, Error, OpenError};
use crate::log::finding::{Finding, Severity};
use crate::log::verify::Pass;
use crate::trace;

/// How long it rests between two passes.
const REST: Duration = Duration::from_hours(1);
/// The most that is kept of what was found.
const FINDINGS_MAX: usize = 10_000;

/// Numbers of the scrub since the store was opened.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubStats {
    /// Passes over all sealed segments that have ended.
    pub passes: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Places found wrong.
    pub findings: u64,
    /// Passes that could not be made or finished.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Shared {
    findings: Mutex<Vec<Finding>>,
    passes: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

/// The thread that does it.
#[derive(Debug)]
pub(super) struct Scrub {
    shared: Arc<Shared>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Reads `rate` bytes a second.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(super) fn start(
        path: PathBuf,
        options: StoreOptions,
        rate: u64,
    ) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = bounded(0);
        let task = Task { shared: Arc::clone(&shared), path, options, rate, stopped };
        let thread = std::thread::Builder::new()
            .name("annals-scrub".to_owned())
            .spawn(move || task.run())
            .map_err(DiskError::at("starting a thread for", "the scrub".as_ref()))?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        self.shared.findings.lock().clone()
    }

    pub(super) fn stats(&self) -> ScrubStats {
        self.shared.stats()
    }

    /// The numbers alone.
    #[cfg(feature = "metrics")]
    pub(super) fn counted(&self) -> Counted {
        Counted(Arc::clone(&self.shared))
    }
}

/// What was done, for who publishes it.
#[cfg(feature = "metrics")]
#[derive(Debug)]
pub(super) struct Counted(Arc<Shared>);

#[cfg(feature = "metrics")]
impl Counted {
    pub(super) fn stats(&self) -> ScrubStats {
        self.0.stats()
    }
}

impl Shared {
    fn stats(&self) -> ScrubStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ScrubStats {
            passes: of(&self.passes),
            bytes: of(&self.bytes),
            findings: self.findings.lock().len() as u64,
            failures: of(&self.failures),
        }
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Task {
    shared: Arc<Shared>,
    path: PathBuf,
    options: StoreOptions,
    rate: u64,
    /// Nothing is ever sent: the other end goes.
    stopped: Receiver<()>,
}

impl Task {
    fn run(self) {
        loop {
            let counter = match self.pass() {
                Ok(true) => return,
                Ok(false) => {
                    let bytes = self.shared.bytes.load(Ordering::Relaxed);
                    trace::Scrubbed { path: &self.path, bytes }.tell();
                    &self.shared.passes
                }
                Err(error) => {
                    trace::ScrubFailed { path: &self.path, error: &error }.tell();
                    &self.shared.failures
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
            if self.waits(REST).is_break() {
                return;
            }
        }
    }

    /// `Break` when the store is closing.
    fn waits(&self, time: Duration) -> ControlFlow<()> {
        match self.stopped.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
        }
    }

    /// Keeps a finding; `false` if it is known, or not worth a word.
    fn keep(&self, finding: &Finding) -> bool {
        let mut findings = self.shared.findings.lock();
        let worth = finding.severity > Severity::Note;
        let new = worth && findings.len() < FINDINGS_MAX && !findings.contains(finding);
        if new {
            findings.push(finding.clone());
        }
        new
    }

    /// Reads all once; `true` if it was told to stop.
    fn pass(&self) -> Result<bool, Error> {
        let view = View::open(&self.path, &self.options)?;
        let mut stopped = false;
        for (log, numbered, severity) in [
            (&view.events, true, Severity::Loss),
            (&view.snapshots, false, view.snapshot_severity()),
        ] {
            let mut pace = |bytes: u64| {
                self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
                let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.max(1));
                self.waits(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
            };
            let verified = log.verify(Pass {
                numbered,
                severity,
                forgets: true,
                sealed_only: true,
                progress: &mut pace,
            })?;
            for finding in verified.findings {
                if self.keep(&finding) {
                    trace::ScrubFound {
                        file: &finding.file,
                        offset: finding.offset,
                        lsn: finding.lsns.start,
                        lsn_end: finding.lsns.end,
                        severity: &finding.severity,
                        error: &finding.what,
                    }
                    .tell();
                }
            }
            stopped = stopped || verified.stopped;
            if stopped {
                break;
            }
        }
        Ok(stopped)
    }
}
