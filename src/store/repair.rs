//! Repair: by explicit choice, of a store that nobody has open. First a plan, which changes
//! nothing and says what is lost and what is kept; then, if somebody says so, the deed. What is
//! replaced or passed over is kept in `aside-<time>/` in the store's folder, and nothing is
//! dropped without being listed.
//!
//! What a disk has lost is lost. A repair makes the rest usable: header pages are written again
//! from checkpoints or neighbours; where segments or their ends are gone, the next header records
//! the lost range; a hole among good frames stays, an open begins to look behind it, and streams
//! that have events in it stop with an error that names it; a log that is shorter than it was
//! goes on behind the lost range, and no position is given out twice.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use super::identity::{Identity, IdentityFile};
use super::{Progress, Store, StoreOptions, Verification, View, random, take};
use crate::disk::LockGuard;
use crate::error::{DiskError, Error};
use crate::log::finding::{Affected, Finding, Severity, Substitute, What};
use crate::log::{Evidence, LogOptions, Opening, mend};
use crate::trace::{self, Work};
use crate::types::Life;

/// One thing that a repair does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairStep {
    /// Writes a segment's header page again.
    Header {
        /// The segment.
        file: PathBuf,
        /// Where the header comes from.
        from: Substitute,
    },
    /// Makes a file as long as its header says, with zeros.
    Lengthen {
        /// The segment.
        file: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Moves a segment aside that has no header and no frame that is known.
    SetAside {
        /// The segment.
        file: PathBuf,
    },
    /// Records in a segment's header that what stood before it is lost.
    Gap {
        /// The segment.
        file: PathBuf,
        /// What is lost.
        lost: Range<u64>,
    },
    /// Leaves a hole where it is, and makes what stands behind it count.
    Hole {
        /// The segment.
        file: PathBuf,
        /// What is lost.
        lost: Range<u64>,
    },
    /// Lets the log end where its last good frame does.
    End {
        /// What is lost.
        lost: Range<u64>,
    },
    /// Makes an identity from what the segments say, with a new node id.
    Identity {
        /// The store's id, as the segments have it.
        store: u64,
    },
    /// Drops a derived file, or lets the next open write it again.
    Remake {
        /// The file.
        file: PathBuf,
    },
}

impl fmt::Display for RepairStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { file, from } => {
                write!(f, "write the header page of {} again: {from}", file.display())
            }
            Self::Lengthen { file, bytes } => {
                write!(f, "make {} {bytes} bytes long again, with zeros", file.display())
            }
            Self::SetAside { file } => write!(f, "move {} aside", file.display()),
            Self::Gap { file, lost } => write!(
                f,
                "record in {} that positions {} to {} are lost",
                file.display(),
                lost.start,
                lost.end
            ),
            Self::Hole { file, lost } => write!(
                f,
                "leave the hole at positions {} to {} in {}, and keep what is behind it",
                lost.start,
                lost.end,
                file.display()
            ),
            Self::End { lost } => {
                write!(f, "let the log end at {} and go on behind {}", lost.start, lost.end)
            }
            Self::Identity { store } => {
                write!(f, "make an identity again for the store {store:016x}")
            }
            Self::Remake { file } => write!(f, "make {} again", file.display()),
        }
    }
}

/// What a repair would do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Plan {
    /// What is done, in order. Empty: there is nothing to repair.
    pub steps: Vec<RepairStep>,
    /// Positions whose frames are lost, in order.
    pub lost: Vec<Range<u64>>,
    /// Streams that are known to have events there.
    pub streams: Vec<Affected>,
    /// In some of the lost ranges there may be last events of streams that nobody can name: such
    /// a stream looks whole, and is shorter than it was.
    pub unknown_streams: bool,
    /// Frames that are good, and kept.
    pub kept_frames: u64,
    /// Events in them.
    pub kept_events: u64,
}

/// A repair that is planned. It holds the store's lock.
#[derive(Debug)]
pub struct Repair {
    view: View,
    plan: Plan,
    verification: Verification,
    options: StoreOptions,
    _lock: Box<dyn LockGuard>,
}

/// A repair that was carried out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Repaired {
    /// What was done.
    pub plan: Plan,
    /// Where what was replaced is; `None` if nothing was done.
    pub aside: Option<PathBuf>,
    /// What is there now. Holes that were kept are still found.
    pub verification: Verification,
}

impl Repair {
    pub(super) fn plan_for(path: &Path, options: &StoreOptions) -> Result<Self, Error> {
        let _span = trace::within(Work::Repair, path);
        // A folder without a store gets no lock file.
        drop(View::open(path, options)?);
        let lock = take(&*options.disk, path)?;
        let view = View::open(path, options)?;
        let verification = view.verify(&mut |_| ControlFlow::Continue(()))?;
        let plan = plan(&view, &verification)?;
        let (steps, lost) = (plan.steps.len() as u64, plan.lost.len() as u64);
        trace::RepairPlanned { path, steps, lost }.tell();
        let options = options.clone();
        Ok(Self { view, plan, verification, options, _lock: lock })
    }

    /// What it would do.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the plan goes by.
    pub fn verification(&self) -> &Verification {
        &self.verification
    }

    /// Does it. A crash on the way leaves a store that is damaged still or repaired; then plan
    /// again.
    ///
    /// # Errors
    /// The file system's.
    pub fn carry_out(
        self,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Repaired, Error> {
        let Self { view, plan, options, .. } = &self;
        let _span = trace::within(Work::Repair, &view.path);
        if plan.steps.is_empty() {
            let (plan, verification) = (self.plan, self.verification);
            return Ok(Repaired { plan, aside: None, verification });
        }
        let disk = &*view.disk;
        let aside = view.path.join(format!("aside-{}", options.clock.wall_ms()));
        disk.create_dir(&aside).map_err(DiskError::at("creating", &aside))?;
        self.write_report(&aside)?;
        for step in &plan.steps {
            trace::RepairStep { path: &view.path, step }.tell();
            match step {
                RepairStep::Lengthen { file, bytes } => mend::lengthen(disk, file, *bytes)?,
                RepairStep::SetAside { file } | RepairStep::Remake { file } => {
                    self.move_aside(file, &aside)?;
                }
                RepairStep::Identity { .. } => self.make_identity()?,
                // Headers, all at once, below.
                RepairStep::Header { .. }
                | RepairStep::Gap { .. }
                | RepairStep::Hole { .. }
                | RepairStep::End { .. } => {}
            }
        }
        self.write_headers(&aside)?;
        self.go_on(&aside)?;
        self.sync_all(&aside)?;
        let after = View::open(&view.path, options)?;
        let verification = after.verify(progress)?;
        let damaged = verification.is_damaged();
        trace::Repaired { path: &view.path, aside: &aside, damaged }.tell();
        Ok(Repaired { plan: self.plan, aside: Some(aside), verification })
    }

    /// What is about to be done, for whoever finds the folder.
    fn write_report(&self, aside: &Path) -> Result<(), Error> {
        use fmt::Write as _;
        let mut text = String::from("What `repair` found, and what it did about it.\n\n");
        let mut write = || -> fmt::Result {
            for finding in self.verification.all() {
                writeln!(text, "{finding}")?;
            }
            writeln!(text)?;
            for step in &self.plan.steps {
                writeln!(text, "{step}")?;
            }
            Ok(())
        };
        // A string takes what is written to it.
        write().unwrap_or_default();
        let path = aside.join("REPORT");
        let disk = &*self.view.disk;
        let file = disk
            .open(&path, crate::disk::Access::Create)
            .map_err(DiskError::at("creating", &path))?;
        crate::disk::write_full(&*file, text.as_bytes(), 0)
            .map_err(DiskError::at("writing", &path))?;
        file.sync_data().map_err(DiskError::at("syncing", &path))?;
        Ok(())
    }

    fn move_aside(&self, file: &Path, aside: &Path) -> Result<(), Error> {
        let disk = &*self.view.disk;
        let slots = ["mark", "identity", "ring"].iter().any(|name| file.ends_with(name));
        if disk.open(file, crate::disk::Access::Read).is_err() {
            return Ok(());
        }
        mend::keep_aside(disk, file, aside)?;
        if !slots {
            disk.sync_dir(aside).map_err(DiskError::at("syncing", aside))?;
            disk.remove(file).map_err(DiskError::at("removing", file))?;
        }
        Ok(())
    }

    fn make_identity(&self) -> Result<(), Error> {
        let view = &self.view;
        let life = view.events.newest_life();
        let identity = Identity { store: view.id, node: random()?, life, durable: 0, boot: 0 };
        let file = IdentityFile::read(&*view.disk, &view.path.join("identity"), false)?;
        Ok(file.write(&*view.disk, &view.path, &identity)?)
    }

    fn write_headers(&self, aside: &Path) -> Result<(), Error> {
        let view = &self.view;
        let disk = &*view.disk;
        let findings = &self.verification.events.findings;
        let mut headers = view.events.headers_to_mend();
        for (path, header) in findings.iter().filter_map(|it| view.events.header_behind(it)) {
            headers.retain(|(other, _)| *other != path);
            headers.push((path, header));
        }
        let gaps = self.plan.steps.iter().any(|step| matches!(step, RepairStep::Gap { .. }));
        if gaps {
            // Their copies of headers go before what the pages say.
            for entry in disk.list(&view.path).map_err(DiskError::at("listing", &view.path))? {
                if entry.name.starts_with("ckpt-") {
                    self.move_aside(&view.path.join(entry.name), aside)?;
                }
            }
        }
        for (path, header) in &headers {
            if disk.open(path, crate::disk::Access::Read).is_ok() {
                mend::write_header(disk, (path, header), aside)?;
            }
        }
        self.sync_all(aside)
    }

    /// Holes are passed over, and a new life begins behind everything.
    fn go_on(&self, aside: &Path) -> Result<(), Error> {
        let holes = self.plan.steps.iter().any(|step| matches!(step, RepairStep::Hole { .. }));
        let ends = self.plan.steps.iter().any(|step| matches!(step, RepairStep::End { .. }));
        let view = View::open(&self.view.path, &self.options)?;
        let end = view.events.last_good()?;
        if holes && let Some(behind) = view.events.mend_holes(end)? {
            view.events.start_behind(behind, view.durable())?;
        }
        if ends {
            for path in view.events.unused() {
                mend::keep_aside(&*view.disk, &path, aside)?;
            }
            for name in ["ring", "mark", "identity"] {
                let path = view.path.join(name);
                if view.disk.open(&path, crate::disk::Access::Read).is_ok() {
                    mend::keep_copy(&*view.disk, &path, aside)?;
                }
            }
        }
        self.sync_all(aside)?;
        let known = view.identity.map_or(0, |identity| identity.durable);
        let options = LogOptions { rebuildable: ends, ..view.options.0.clone() };
        // What the killed life had written and is gone was planned for.
        let mut opening = Opening::new(&view.disk, options, view.id, Evidence::from(known))?;
        if holes || ends {
            opening.leave_segment();
        }
        let file = IdentityFile::read(&*view.disk, &view.path.join("identity"), true)?;
        let Some(before) = file.identity else { return Ok(()) };
        let life = Life { number: before.life.number + 1, bits: random()? };
        let durable = opening.report().end;
        file.write(
            &*view.disk,
            &view.path,
            &Identity { life, durable, boot: view.disk.boot(), ..before },
        )?;
        let (log, _) = opening.start(life)?;
        log.close()?;
        Ok(())
    }

    fn sync_all(&self, aside: &Path) -> Result<(), Error> {
        let disk = &*self.view.disk;
        let dirs = [aside.to_owned(), self.view.path.join("log"), self.view.path.clone()];
        for dir in dirs {
            disk.sync_dir(&dir).map_err(DiskError::at("syncing", &dir))?;
        }
        Ok(())
    }
}

/// What is to be done about what was found.
fn plan(view: &View, verification: &Verification) -> Result<Plan, Error> {
    let mut plan = Plan {
        kept_frames: verification.events.frames,
        kept_events: verification.events.events,
        ..Plan::default()
    };
    let mut ends = false;
    for finding in &verification.findings {
        let file = finding.file.clone();
        match finding.what {
            What::Identity => plan.steps.push(RepairStep::Identity { store: view.id }),
            What::Slot | What::Mark | What::Ring | What::Checkpoint => {
                plan.steps.push(RepairStep::Remake { file });
            }
            _ => {}
        }
    }
    for finding in &verification.events.findings {
        let file = finding.file.clone();
        let lost = finding.lsns.clone();
        match &finding.what {
            What::Header { substitute: Substitute::Nothing, .. } => {
                plan.steps.push(RepairStep::SetAside { file });
            }
            What::Header { substitute, .. } => {
                plan.steps.push(RepairStep::Header { file, from: *substitute });
            }
            What::Cut { bytes } => plan.steps.push(RepairStep::Lengthen { file, bytes: *bytes }),
            What::Index | What::IndexDiffers => plan.steps.push(RepairStep::Remake { file }),
            What::Missing if view.events.mends_gap_at(lost.end) => {
                let file = view.events.file_at(lost.end).unwrap_or(file);
                plan.lose(finding);
                plan.steps.push(RepairStep::Gap { file, lost });
            }
            What::Unsealed(_) if view.events.goes_on_behind(finding) => {
                let behind = view.events.header_behind(finding);
                let (file, end) =
                    behind.map_or((file, lost.end), |(path, header)| (path, header.base));
                plan.lose(finding);
                plan.steps.push(RepairStep::Gap { file, lost: lost.start..end });
            }
            What::Frame(_) if finding.lsns.end != view.durable() || lost_inside(view, finding) => {
                plan.lose(finding);
                plan.steps.push(RepairStep::Hole { file, lost });
            }
            What::Frame(_) | What::Short { .. } | What::Missing | What::Unsealed(_) => ends = true,
            _ => {}
        }
    }
    if ends || view.events.is_short() {
        let last = view.events.last_good()?;
        let lost = last..view.durable().max(last);
        if !lost.is_empty() {
            plan.lost.push(lost.clone());
            plan.unknown_streams = true;
            plan.steps.push(RepairStep::End { lost });
        }
    }
    Ok(plan)
}

/// Is there a good frame behind it in the same segment?
fn lost_inside(view: &View, finding: &Finding) -> bool {
    view.events.segments().iter().any(|segment| {
        segment.path == finding.file && finding.lsns.end < segment.base + segment.bytes
    })
}

impl Plan {
    fn lose(&mut self, finding: &Finding) {
        debug_assert!(finding.severity >= Severity::Derived, "a loss");
        self.lost.push(finding.lsns.clone());
        match &finding.streams {
            Some(streams) => self.streams.extend(streams.iter().cloned()),
            None => self.unknown_streams = true,
        }
    }
}

/// See [`Store::rebuild`].
pub(super) fn rebuild(path: &Path, options: StoreOptions) -> Result<(), Error> {
    drop(View::open(path, &options)?);
    let disk = std::sync::Arc::clone(&options.disk);
    {
        let _lock = take(&*disk, path)?;
        for dir in [path.to_owned(), path.join("log"), path.join("snapshots")] {
            let entries = match disk.list(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(DiskError::at("listing", &dir)(error).into()),
            };
            for entry in entries {
                if entry.name.contains(".idx") || entry.name.starts_with("ckpt-") {
                    let file = dir.join(entry.name);
                    disk.remove(&file).map_err(DiskError::at("removing", &file))?;
                }
            }
            disk.sync_dir(&dir).map_err(DiskError::at("syncing", &dir))?;
        }
        if options.catalogue {
            crate::catalogue::remove(&path.join("catalogue"))?;
        }
    }
    let deadline = options.runtime.close_deadline;
    let store: Store = options.open(path)?;
    store.log().keep();
    // A frame, so that the close writes a checkpoint.
    store.totals()?;
    store.catalogue_ready()?;
    store.close(deadline)?;
    Ok(())
}
