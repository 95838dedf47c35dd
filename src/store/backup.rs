//! A copy of a store at one moment, made while somebody writes it.
//!
//! The moment is a mark: everything below is copied, nothing above. The copy opens like a store
//! whose process was killed when the log ended there. It has the same store id, because its
//! frames carry it; a node id of its own, so that the two can be told apart where both are open;
//! and it goes on with lives of its own, whose random bits are in the checksums of their frames:
//! no frame that one of the two appends from here on validates in the other.
//!
//! Everything is made in `<to>.partial`, which is no store until its identity is there, is synced
//! and then gets its name.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::identity::{Identity, IdentityFile};
use super::verify::Teller;
use super::view::View;
use super::{Progress, Store, StoreOptions, random};
use crate::disk::{Access, Disk, PAGE};
use crate::error::{Damage, DamageReason, DiskError, Error, OpenError};
use crate::log::finding::{Finding, Severity, What};
use crate::log::mark::{self, Mark};
use crate::log::slots::Slots;
use crate::log::{Copied, CopyRequest, LogView, Seen};
use crate::snapshot::SnapshotRef;
use crate::trace::{self, Work};
use crate::types::Life;

/// How often a copy begins anew because a file went while it was made.
const TRIES: usize = 5;

/// How a backup is made.
#[derive(Copy, Clone, Debug, Default)]
#[must_use = "options do nothing until they are used"]
pub struct BackupOptions {
    links: bool,
}

impl BackupOptions {
    /// Files that are not written any more get a second name instead of a copy, where the target
    /// is on the same file system. That takes no time and no room; but there is still only one
    /// copy of those bytes, so it helps against mistakes and not against the disk. Default: no.
    pub fn links(mut self, links: bool) -> Self {
        self.links = links;
        self
    }
}

/// A backup that was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backup {
    /// Everything below this position is in it, and nothing above.
    pub mark: u64,
    /// The node id that it was given.
    pub node: u64,
    /// Files that were copied.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were linked.
    pub linked: u64,
    /// How long it took.
    pub took: Duration,
}

impl Store {
    /// Copies the store to the new folder `to` as it is now, while it goes on: everything that
    /// was acknowledged before the call is in the copy. `progress` may answer `Break` to end it.
    ///
    /// # Errors
    /// As for [`View::backup`]; [`crate::error::SyncError`].
    pub fn backup(
        &self,
        to: impl AsRef<Path>,
        options: &BackupOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Backup, Error> {
        self.sync()?;
        let mark = self.events.durable();
        let view = View::open(&self.path, &self.options)?;
        run(view, (to.as_ref(), options), Some(mark), (&self.options, progress))
    }
}

impl View {
    /// Copies the store to the new folder `to`: up to what was durable when this view was opened,
    /// if somebody has the store open, else all of it. `progress` may answer `Break` to end it.
    ///
    /// # Errors
    /// [`OpenError::Exists`] where `to` is there; `Damage` where this view has found any; the
    /// file system's, `Interrupted` where `progress` has ended it. What was made so far is in
    /// `<to>.partial`, and the next backup to the same place removes it.
    pub fn backup(
        self,
        to: impl AsRef<Path>,
        options: &BackupOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Backup, Error> {
        let again =
            StoreOptions { disk: std::sync::Arc::clone(&self.disk), ..StoreOptions::default() };
        run(self, (to.as_ref(), options), None, (&again, progress))
    }
}

fn run(
    view: View,
    (to, options): (&Path, &BackupOptions),
    mark: Option<u64>,
    again: (&StoreOptions, &mut dyn FnMut(Progress) -> ControlFlow<()>),
) -> Result<Backup, Error> {
    let _span = trace::within(Work::Backup, to);
    let made = run_in(view, (to, options), mark, again);
    match &made {
        Ok(Backup { mark, copied, linked, bytes, took, .. }) => trace::BackupMade {
            path: to,
            lsn: *mark,
            copied: *copied,
            linked: *linked,
            bytes: *bytes,
            took_us: trace::micros(*took),
        }
        .tell(),
        Err(error) => trace::BackupFailed { path: to, error }.tell(),
    }
    made
}

fn run_in(
    mut view: View,
    (to, options): (&Path, &BackupOptions),
    mark: Option<u64>,
    (again, progress): (&StoreOptions, &mut dyn FnMut(Progress) -> ControlFlow<()>),
) -> Result<Backup, Error> {
    match view.disk.list(to) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Ok(_) => return Err(OpenError::Exists { path: to.to_owned() }.into()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(OpenError::Exists { path: to.to_owned() }.into());
        }
        Err(error) => return Err(DiskError::at("listing", to)(error).into()),
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let made = Making::new(&view, to, *options, progress)?.make(mark);
        match made {
            // A file of the source is gone: it was retired. What replaced it has another name.
            Err(Error::Open(OpenError::Disk(error)))
                if tries < TRIES
                    && error.source.kind() == ErrorKind::NotFound
                    && error.path.starts_with(&view.path) =>
            {
                view = View::open(&view.path.clone(), again)?;
            }
            made => return made,
        }
    }
}

/// A backup in the making.
struct Making<'a> {
    view: &'a View,
    disk: &'a dyn Disk,
    to: &'a Path,
    partial: PathBuf,
    options: BackupOptions,
    teller: Teller<'a>,
    began: Duration,
}

impl<'a> Making<'a> {
    fn new(
        view: &'a View,
        to: &'a Path,
        options: BackupOptions,
        progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, Error> {
        if let Some(finding) = view.findings().into_iter().find(|it| it.severity == Severity::Loss)
        {
            return Err(OpenError::Damage(damage_of(&finding)).into());
        }
        let clock = view.options.0.clock.clone();
        let began = clock.monotonic();
        let total = view.events.copy_bytes() + view.snapshots.copy_bytes();
        let teller = Teller::new(clock, total, progress);
        let mut name = to.as_os_str().to_owned();
        name.push(".partial");
        let disk = &*view.disk;
        Ok(Self { view, disk, to, partial: name.into(), options, teller, began })
    }

    fn make(mut self, mark: Option<u64>) -> Result<Backup, Error> {
        let view = self.view;
        let mark = mark.unwrap_or_else(|| match view.owner() {
            Some(_) => view.durable().min(view.written()),
            // What the ring alone has survives the next open too.
            None => view.written(),
        });
        self.clear()?;
        let events = self.copy(&view.events, "log", mark)?;
        let cut = snapshots_below(&view.snapshots, mark)?;
        if view.events.has_dropped() && cut < view.snapshots.written() {
            // What retention has dropped is in snapshots alone, perhaps in one behind that.
            let busy = std::io::Error::from(ErrorKind::ResourceBusy);
            let doing = "copying snapshots that cover more than is durable of";
            return Err(DiskError::at(doing, &view.path)(busy).into());
        }
        let snapshots = self.copy(&view.snapshots, "snapshots", cut)?;
        let checkpoint = view.events.copy_checkpoint(&self.partial, events.end)?;
        self.small_files(events.end)?;
        let node = random()?;
        let life = view.identity.map_or(view.events.life(), |identity| identity.life);
        self.identity(Identity { store: view.id, node, life, durable: events.end, boot: 0 })?;
        self.sync(&self.partial)?;
        self.disk
            .rename(&self.partial, self.to)
            .map_err(DiskError::at("renaming", &self.partial))?;
        self.sync(parent(self.to))?;
        let clock = &view.options.0.clock;
        Ok(Backup {
            mark,
            node,
            copied: events.files + snapshots.files + u64::from(checkpoint),
            bytes: events.bytes + snapshots.bytes,
            linked: events.linked + snapshots.linked,
            took: clock.monotonic().saturating_sub(self.began),
        })
    }

    /// An empty folder, whatever an earlier try has left.
    fn clear(&self) -> Result<(), Error> {
        for dir in [self.partial.clone(), self.partial.join("log"), self.partial.join("snapshots")]
        {
            self.disk.create_dir(&dir).map_err(DiskError::at("creating", &dir))?;
            for entry in self.disk.list(&dir).map_err(DiskError::at("listing", &dir))? {
                let path = dir.join(entry.name);
                self.disk.remove(&path).map_err(DiskError::at("removing", &path))?;
            }
        }
        self.sync(&self.partial)?;
        self.sync(parent(self.to))
    }

    fn copy(&mut self, log: &LogView, folder: &str, mark: u64) -> Result<Copied, Error> {
        let dir = self.partial.join(folder);
        let teller = &mut self.teller;
        let copied = log.copy_to(CopyRequest {
            dir: &dir,
            mark,
            links: self.options.links,
            progress: &mut |bytes| teller.add(bytes),
        })?;
        if let Some(bad) = &copied.bad {
            return Err(OpenError::Damage(damage_of(bad)).into());
        }
        self.sync(&dir)?;
        Ok(copied)
    }

    /// Mark file and ring.
    fn small_files(&self, end: u64) -> Result<(), Error> {
        let path = self.partial.join("mark");
        let mut slots =
            Slots::open(self.disk, &path, mark::MAGIC, &crate::log::slots::Found::default())?;
        let mark =
            Mark { durable: end, boundary: 0, life: Life { number: 0, bits: 0 }, poisoned: false };
        slots.write(&mark.fields(self.view.id))?;
        slots.sync()?;
        // Without frames: whoever looks for the ring shall not think that it was taken away.
        let path = self.partial.join("ring");
        let ring =
            self.disk.open(&path, Access::Create).map_err(DiskError::at("creating", &path))?;
        crate::disk::write_full(&*ring, &[0; PAGE], 0).map_err(DiskError::at("writing", &path))?;
        ring.sync_data().map_err(DiskError::at("syncing", &path))?;
        Ok(())
    }

    /// Last: without it the folder is no store.
    fn identity(&self, identity: Identity) -> Result<(), Error> {
        let path = self.partial.join("identity");
        let file = IdentityFile::read(self.disk, &path, false)?;
        Ok(file.write(self.disk, &self.partial, &identity)?)
    }

    fn sync(&self, dir: &Path) -> Result<(), Error> {
        Ok(self.disk.sync_dir(dir).map_err(DiskError::at("syncing", dir))?)
    }
}

/// Where the snapshot log begins to know what the events below `mark` do not: a snapshot that
/// covers more would be taken for one of the copy's own future.
fn snapshots_below(snapshots: &LogView, mark: u64) -> Result<u64, Error> {
    let mut cursor = snapshots.frames(0);
    cursor.stop_at(snapshots.written());
    while let Some(seen) = cursor.next()? {
        match seen {
            Seen::Bad(finding) => return Ok(finding.lsns.start),
            Seen::Frame(frame) => {
                let snapshot = SnapshotRef::of(&frame);
                if snapshot.is_some_and(|snapshot| snapshot.covers.get() >= mark) {
                    return Ok(frame.lsn().get());
                }
            }
        }
    }
    Ok(snapshots.written())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// As an open would say it.
pub(super) fn damage_of(finding: &Finding) -> Damage {
    let reason = match &finding.what {
        What::Frame(reject) | What::Unsealed(reject) => DamageReason::Frame(*reject),
        What::Short { durable } => DamageReason::Short { durable: *durable },
        What::Header { why, .. } => DamageReason::Header(why),
        What::Cut { .. } => DamageReason::Header("the file is cut short"),
        What::Identity => DamageReason::Identity,
        _ => DamageReason::Missing,
    };
    let Finding { file, offset, lsns, .. } = finding.clone();
    Damage { file, offset, lsns, reason }
}
