//! A store seen without owning it: no lock is taken and nothing is written, whoever has it open,
//! however it ended and whatever is wrong with it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::identity::{Identity, IdentityFile};
use super::{SNAPSHOTS_ID, StoreOptions, log_options};
use crate::actor::past::{RawEvent, Span, each_raw};
use crate::disk::Disk;
use crate::error::{DiskError, Error, OpenError};
use crate::log::finding::{Finding, Severity, What};
use crate::log::frame::{Frame, RecordKind};
use crate::log::name::SYSTEM;
use crate::log::segment::{HeaderReject, SegmentHeader};
use crate::log::{Cursor, Ending, Evidence, LogOptions, LogView, Seen, SegmentInfo, Totals, name};
use crate::snapshot::SnapshotRef;
use crate::types::{HybridTime, Life, Lsn, Seq, StreamId};

/// A store as it is found: closed, open in another process or in this one, crashed and not
/// recovered, or damaged. What is wrong with it is a list of [`Finding`]s.
///
/// ```
/// use annals::Store;
///
/// let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path())?;
/// let view = Store::read_only(dir.path())?; // beside the owner
/// assert_eq!(view.store_id(), store.report().store);
/// assert!(view.findings().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct View {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) identity: Option<Identity>,
    pub(super) id: u64,
    pub(super) events: LogView,
    pub(super) snapshots: LogView,
    pub(super) options: (LogOptions, LogOptions),
    owner: Option<String>,
    findings: Vec<Finding>,
}

/// How the newest life stands, or ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LastLife {
    /// There was none.
    None,
    /// A process has the store open.
    Running,
    /// It was closed; the next open needs no recovery.
    Closed,
    /// It ended in any other way; the next open recovers.
    Crashed,
}

/// An actor's kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorName {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A stored snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Whose.
    pub actor: ActorName,
    /// The last event in it.
    pub seq: Seq,
    /// The position of the frame that holds that event.
    pub covers: Lsn,
    /// Version of the state's type.
    pub version: u16,
    /// Bytes of the archive.
    pub bytes: u64,
    /// When it was taken.
    pub time: HybridTime,
}

impl View {
    pub(crate) fn open(path: &Path, options: &StoreOptions) -> Result<Self, Error> {
        let disk = Arc::clone(&options.disk);
        let none = |why| OpenError::NoStore { path: path.to_owned(), why };
        match disk.list(path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(none("there is no such folder").into());
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(none("it is not a folder").into());
            }
            Err(error) => return Err(DiskError::at("listing", path)(error).into()),
        }
        let owner = disk.owner(&path.join("LOCK")).unwrap_or_default();
        let (mut event_options, mut snapshot_options) = log_options(path, options);
        event_options.threads = false;
        snapshot_options.threads = false;
        let ring = disk.open(&path.join("ring"), crate::disk::Access::Read);
        if let Some(bytes) = ring.ok().and_then(|file| file.len().ok()) {
            // How far marks can lag depends on it.
            let bytes = usize::try_from(bytes).unwrap_or(0);
            event_options.ring_bytes = event_options.ring_bytes.max(bytes);
        }
        let mut findings = Vec::new();
        let file = path.join("identity");
        let identity_file = IdentityFile::read(&*disk, &file, false)?;
        let identity = identity_file.identity;
        let bad = identity_file.bad_slots();
        if let (Some(_), Some(offset)) = (identity, bad.first()) {
            // A kill in the middle of a write leaves the same; the next open writes both.
            let finding = Finding::file(&file, Severity::Derived, What::Slot);
            findings.push(Finding { offset: *offset, ..finding });
        }
        let id = if let Some(identity) = identity {
            identity.store
        } else {
            let id = id_of_segments(&*disk, &event_options.dir)?;
            findings.push(Finding::file(&file, Severity::Loss, What::Identity));
            id.ok_or_else(|| none("no identity, and no segments"))?
        };
        let durable = identity.map_or(0, |identity| identity.durable);
        let lives: Vec<Life> = identity.iter().map(|identity| identity.life).collect();
        // A life that runs goes on writing: what it has written is no evidence against itself.
        let boot = disk.boot();
        let killed = identity
            .filter(|identity| owner.is_none() && boot != 0 && identity.boot == boot)
            .map(|identity| identity.life);
        let evidence = Evidence { durable, killed };
        let events = LogView::open(&disk, &event_options, id, (evidence, &lives))?;
        let snapshots = LogView::open(
            &disk,
            &snapshot_options,
            id ^ SNAPSHOTS_ID,
            (Evidence::default(), &lives),
        )?;
        if owner.is_none() {
            findings.extend(events.in_ring_alone());
        }
        let options = (event_options, snapshot_options);
        let path = path.to_owned();
        Ok(Self { disk, path, identity, id, events, snapshots, options, owner, findings })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's random id, which is the event log's.
    pub fn store_id(&self) -> u64 {
        self.id
    }

    /// What tells this store from its copies; `None` where the identity cannot be read.
    pub fn node_id(&self) -> Option<u64> {
        self.identity.map(|identity| identity.node)
    }

    /// The newest life, as the identity has it; else the newest that has a frame.
    pub fn life(&self) -> Life {
        self.identity.map_or(self.events.life(), |identity| identity.life)
    }

    /// The number of the process that has the store open, as that process wrote it; `None` if
    /// nobody is known to have. A process in another container may not be seen.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// How the newest life stands, or ended.
    pub fn last_life(&self) -> LastLife {
        match (self.owner(), self.events.ending()) {
            (Some(_), _) => LastLife::Running,
            (None, Ending::Empty) => LastLife::None,
            (None, Ending::Closed | Ending::Full) => LastLife::Closed,
            (None, Ending::Torn) => LastLife::Crashed,
        }
    }

    /// The end of what was written when this view was opened.
    pub fn written(&self) -> u64 {
        self.events.written()
    }

    /// How far that is known to be on the disk: an open would take anything less for damage.
    pub fn durable(&self) -> u64 {
        self.events.durable()
    }

    /// What is wrong as far as an open would notice, and what stands in for it.
    /// [`verify`](Self::verify) reads everything.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        findings.extend(self.events.findings());
        let lesser = |finding: Finding| {
            let severity = finding.severity.min(self.snapshot_severity());
            Finding { severity, ..finding }
        };
        findings.extend(self.snapshots.findings().into_iter().map(lesser));
        findings
    }

    /// What damage to a snapshot means: where retention has dropped events, their snapshots are
    /// all there is of them.
    pub(super) fn snapshot_severity(&self) -> Severity {
        if self.events.has_dropped() { Severity::Loss } else { Severity::Derived }
    }

    /// Those of the identity.
    pub(super) fn own_findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The segments of events, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.events.segments()
    }

    /// The segments of snapshots, oldest first.
    pub fn snapshot_segments(&self) -> Vec<SegmentInfo> {
        self.snapshots.segments()
    }

    /// Positions that crashes took back, oldest first.
    pub fn lost(&self) -> Vec<std::ops::Range<u64>> {
        self.events.lost()
    }

    /// What was appended over all lives, up to the end as this view found it. Reads what no
    /// checkpoint covers.
    ///
    /// # Errors
    /// The file system's.
    pub fn totals(&self) -> Result<Totals, Error> {
        Ok(self.events.totals()?)
    }

    /// Reads all frames from the first at or behind `from` on, system frames included. It goes
    /// on to read what is appended later: at the end, ask again.
    pub fn frames(&self, from: u64) -> Cursor {
        self.events.frames(from)
    }

    /// Visits the events of `kind`/`name` after `after`, in order, until `Break`; rewinds too. What
    /// is bad on the way is answered: nobody knows whether events of this actor were in it.
    ///
    /// # Errors
    /// The file system's.
    pub fn history(
        &self,
        kind: &str,
        name: &str,
        after: Seq,
        visit: &mut dyn FnMut(RawEvent<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<Vec<Finding>, Error> {
        let mut bad = Vec::new();
        let mut cursor = self.events.stream(StreamId::of(kind, name));
        cursor.stop_at(self.written());
        while let Some(seen) = cursor.next()? {
            match seen {
                Seen::Bad(finding) => bad.push(finding),
                Seen::Frame(frame) => {
                    if each_raw(&frame, &Span::from(after), visit).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(bad)
    }

    /// The names of all actors of `kind` that have events, or of all kinds of actors: what Annals
    /// itself keeps (kinds that begin with `annals.`) is shown to who asks for it. Reads the whole
    /// log.
    ///
    /// # Errors
    /// The file system's.
    pub fn names(&self, kind: Option<&str>) -> Result<BTreeSet<ActorName>, Error> {
        let mut names = BTreeSet::new();
        let mut cursor = self.events.frames(0);
        cursor.stop_at(self.written());
        while let Some(seen) = cursor.next()? {
            let Seen::Frame(frame) = seen else { continue };
            names.extend(name_of(&frame).filter(|actor| match kind {
                Some(kind) => kind == actor.kind,
                None => !actor.kind.starts_with(SYSTEM),
            }));
        }
        Ok(names)
    }

    /// The name of a stream, where its first frame can be read.
    pub(super) fn name_of_stream(&self, stream: StreamId) -> Result<Option<ActorName>, Error> {
        let mut cursor = self.events.stream(stream);
        cursor.stop_at(self.written());
        while let Some(seen) = cursor.next()? {
            if let Seen::Frame(frame) = seen {
                return Ok(name_of(&frame));
            }
        }
        Ok(None)
    }

    /// Visits all stored snapshots, oldest first.
    ///
    /// # Errors
    /// The file system's.
    pub fn snapshots(&self, visit: &mut dyn FnMut(SnapshotInfo)) -> Result<(), Error> {
        let mut cursor = self.snapshots.frames(0);
        cursor.stop_at(self.snapshots.written());
        while let Some(seen) = cursor.next()? {
            let Seen::Frame(frame) = seen else { continue };
            let Some(snapshot) = SnapshotRef::of(&frame) else { continue };
            visit(SnapshotInfo {
                actor: ActorName { kind: snapshot.kind.into(), name: snapshot.name.into() },
                seq: snapshot.seq,
                covers: snapshot.covers,
                version: snapshot.version,
                bytes: snapshot.state.len() as u64,
                time: frame.header().time,
            });
        }
        Ok(())
    }
}

/// The name that a stream's first frame carries.
pub(super) fn name_of(frame: &Frame<'_>) -> Option<ActorName> {
    let record = frame.records().flatten().find(|record| record.kind == RecordKind::Name)?;
    let (kind, name) = name::decode(record.payload)?;
    Some(ActorName { kind: kind.into(), name: name.into() })
}

/// The log's id as the segments have it: that of most.
fn id_of_segments(disk: &dyn Disk, dir: &Path) -> Result<Option<u64>, OpenError> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::at("listing", dir)(error).into()),
    };
    let mut ids: Vec<u64> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.name.contains(".seg")) {
        let Ok(file) = disk.open(&dir.join(&entry.name), crate::disk::Access::Read) else {
            continue;
        };
        let mut page = vec![0; crate::disk::PAGE];
        if crate::disk::read_full(&*file, &mut page, 0).is_ok() {
            match SegmentHeader::decode(&page) {
                Ok(header) => ids.push(header.log),
                Err(HeaderReject::Bad(_) | HeaderReject::Version(_) | HeaderReject::Layout(_)) => {}
            }
        }
    }
    ids.sort_unstable();
    let most = ids.chunk_by(|a, b| a == b).max_by_key(|same| same.len());
    Ok(most.and_then(|same| same.first().copied()))
}
