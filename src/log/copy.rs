//! Copying a log up to a mark, as files that open like a log which ended there.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::finding::Finding;
use super::frame::FrameKind;
use super::links::Link;
use super::run::run_path;
use super::run_file::{Run, read_run_header};
use super::segment::{FIRST_FRAME, file_path, read_header};
use super::view::{LogView, Seen};
use crate::disk::{Access, File, Fill, PAGE_U64, read_full, write_full};
use crate::error::{DiskError, OpenError};
use crate::types::to_usize;

/// How much is copied at a time.
const STEP: u64 = 1 << 20;

/// What is to be copied, and where to.
pub(crate) struct CopyRequest<'a> {
    /// An empty folder.
    pub dir: &'a Path,
    /// Everything below.
    pub mark: u64,
    /// A second name does where a file is not written any more.
    pub links: bool,
    /// Told of bytes copied; `Break` ends it.
    pub progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
}

/// What was copied.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    pub files: u64,
    pub linked: u64,
    pub bytes: u64,
    /// Where the last frame of the copy ends; 0 if it has none.
    pub end: u64,
    /// What stood in the way.
    pub bad: Option<Finding>,
}

impl LogView {
    /// About how many bytes a copy has to touch.
    pub(crate) fn copy_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.bytes).sum()
    }

    /// Copies what is below a mark. Everything but names is durable when it returns.
    ///
    /// # Errors
    /// The file system's; `NotFound` where a segment of this log went in the meantime.
    pub(crate) fn copy_to(&self, request: CopyRequest<'_>) -> Result<Copied, OpenError> {
        let CopyRequest { dir, mark, links, progress } = request;
        let mut copied = Copied::default();
        let below = self.look.chain.iter().take(self.look.survey.place.number + 1);
        let chain: Vec<&Link> = below.filter(|link| link.header.base < mark).collect();
        if mark == 0 {
            return Ok(copied);
        }
        let mut tell = |bytes: u64| match progress(bytes) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(DiskError::at("copying", dir)(ErrorKind::Interrupted.into()))
            }
        };
        for run in &self.runs {
            self.run(run, (dir, links), &mut copied)?;
            tell(run.header.bytes)?;
        }
        let Some((last, whole)) = chain.split_last() else { return Ok(copied) };
        for link in whole {
            self.whole(link, (dir, links), &mut copied)?;
            tell(link.header.bytes)?;
        }
        self.part(last, (dir, mark), &mut copied)?;
        tell(last.header.bytes)?;
        Ok(copied)
    }

    /// A run, which is never written again.
    fn run(
        &self,
        run: &Run,
        (dir, links): (&Path, bool),
        copied: &mut Copied,
    ) -> Result<(), OpenError> {
        let to = run_path(dir, &run.header.range(), "run");
        let bytes = run.header.bytes;
        if links && self.link_file(&run.path, &to)? {
            copied.linked += 1;
        } else {
            self.copy_file((&run.path, &to), (bytes, bytes), None)?;
            copied.files += 1;
            copied.bytes += bytes;
        }
        match read_run_header(&*self.disk, &to)? {
            Ok(header) if header == run.header => Ok(()),
            Ok(_) | Err(_) => {
                Err(DiskError::at("copying", &run.path)(ErrorKind::NotFound.into()).into())
            }
        }
    }

    /// A segment that takes no more frames, and its index.
    fn whole(
        &self,
        link: &Link,
        (dir, links): (&Path, bool),
        copied: &mut Copied,
    ) -> Result<(), OpenError> {
        let to = file_path(dir, link.header.base, "seg");
        let patched = self.look.patches.iter().any(|patch| patch.path == link.path);
        if links && !patched && self.link_file(&link.path, &to)? {
            copied.linked += 1;
        } else {
            let end = link.end.map_or(link.header.bytes, |end| end - link.header.base);
            self.copy_file((&link.path, &to), (end, link.header.bytes), patched.then_some(link))?;
            copied.files += 1;
            copied.bytes += end;
        }
        // It may have been taken away, and its file used again, while it was copied.
        match read_header(&*self.disk, &to)? {
            Ok(header) if header == link.header => {}
            Ok(_) | Err(_) => {
                return Err(DiskError::at("copying", &link.path)(ErrorKind::NotFound.into()).into());
            }
        }
        let index = file_path(&self.options.dir, link.header.base, "idx");
        let to = file_path(dir, link.header.base, "idx");
        let Ok(file) = self.disk.open(&index, Access::Read) else { return Ok(()) };
        let bytes = file.len().map_err(DiskError::at("reading", &index))?;
        drop(file);
        // Derived: without it the copy makes its own.
        if !(links && self.link_file(&index, &to)?) && bytes > 0 {
            match self.copy_file((&index, &to), (bytes, bytes), None) {
                Ok(()) => copied.bytes += bytes,
                Err(error) if error.source.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// `false` where only a copy will do.
    fn link_file(&self, from: &Path, to: &Path) -> Result<bool, DiskError> {
        match self.disk.link(from, to) {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Unsupported
                        | ErrorKind::CrossesDevices
                        | ErrorKind::PermissionDenied
                        | ErrorKind::TooManyLinks
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(DiskError::at("linking", from)(error)),
        }
    }

    /// The first `used` of `bytes` bytes; with the header of `link`, where the page is damaged.
    fn copy_file(
        &self,
        (from, to): (&Path, &Path),
        (used, bytes): (u64, u64),
        link: Option<&Link>,
    ) -> Result<(), DiskError> {
        let source = self.disk.open(from, Access::Read).map_err(DiskError::at("opening", from))?;
        let target = self.disk.open(to, Access::Create).map_err(DiskError::at("creating", to))?;
        target.allocate(bytes, Fill::Reserve).map_err(DiskError::at("allocating", to))?;
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < used {
            buffer.resize(to_usize(STEP.min(used - at)), 0);
            let read =
                read_full(&*source, &mut buffer, at).map_err(DiskError::at("reading", from))?;
            if read == 0 {
                break;
            }
            write_full(&*target, buffer.get(..read).unwrap_or_default(), at)
                .map_err(DiskError::at("writing", to))?;
            at += read as u64;
        }
        if let Some(link) = link {
            write_full(&*target, &link.header.encode(), 0).map_err(DiskError::at("writing", to))?;
        }
        target.sync_data().map_err(DiskError::at("syncing", to))
    }

    /// The segment that the mark is in, frame by frame: from the ring where they are not in it.
    fn part(
        &self,
        link: &Link,
        (dir, mark): (&Path, u64),
        copied: &mut Copied,
    ) -> Result<(), OpenError> {
        let (file, path) = self.empty(link, dir)?;
        let mut cursor = self.frames(link.header.base);
        cursor.stop_at(mark.min(link.header.limit()));
        let mut pending: (u64, Vec<u8>) = (FIRST_FRAME, Vec::new());
        let mut sealed = false;
        while let Some(seen) = cursor.next()? {
            let frame = match seen {
                Seen::Frame(frame) => frame,
                Seen::Bad(finding) => {
                    copied.bad = Some(finding);
                    break;
                }
            };
            let offset = frame.lsn().get().saturating_sub(link.header.base);
            if frame.lsn().get() < link.header.base || frame.end() > link.header.limit() {
                break;
            }
            if pending.0 + pending.1.len() as u64 != offset || pending.1.len() as u64 >= STEP {
                write_full(&*file, &pending.1, pending.0)
                    .map_err(DiskError::at("writing", &path))?;
                pending = (offset, Vec::new());
            }
            pending.1.extend_from_slice(frame.bytes());
            copied.end = frame.end();
            sealed = frame.header().kind == FrameKind::Seal;
        }
        write_full(&*file, &pending.1, pending.0).map_err(DiskError::at("writing", &path))?;
        file.sync_data().map_err(DiskError::at("syncing", &path))?;
        copied.files += 1;
        copied.bytes += copied.end.saturating_sub(link.header.base);
        // A seal says that there is a next segment.
        let next = self.look.chain.iter().find(|next| next.header.base > link.header.base);
        if let (true, Some(next)) = (sealed, next) {
            let (file, path) = self.empty(next, dir)?;
            file.sync_data().map_err(DiskError::at("syncing", &path))?;
            copied.files += 1;
        }
        if copied.end == 0 {
            // Nothing but headers: the end is that of what lies before.
            let before = self.look.chain.iter().rev().find(|it| it.header.base < link.header.base);
            copied.end = before.map_or(0, |before| before.end.unwrap_or(before.header.base));
        }
        Ok(())
    }

    /// A segment's file with its header and no frame.
    fn empty(
        &self,
        link: &Link,
        dir: &Path,
    ) -> Result<(std::sync::Arc<dyn File>, PathBuf), DiskError> {
        let path = file_path(dir, link.header.base, "seg");
        let file =
            self.disk.open(&path, Access::Create).map_err(DiskError::at("creating", &path))?;
        file.allocate(link.header.bytes, Fill::Reserve)
            .map_err(DiskError::at("allocating", &path))?;
        debug_assert!(link.header.bytes >= PAGE_U64, "a header page");
        write_full(&*file, &link.header.encode(), 0).map_err(DiskError::at("writing", &path))?;
        Ok((file, path))
    }

    /// The newest checkpoint that lies below `end`, if there is one, with the newest testimony that
    /// was given below it: what the copy does not have, it must not be told of.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn copy_checkpoint(&self, to: &Path, end: u64) -> Result<bool, DiskError> {
        let Some(dir) = &self.options.checkpoints else { return Ok(false) };
        let all = Checkpoint::read_all(&*self.disk, dir, self.id);
        let mut told = all.iter().filter(|it| it.told().is_some_and(|told| told <= end));
        let testimony = told.find_map(|it| it.testimony(&*self.disk));
        match all.into_iter().find(|checkpoint| checkpoint.position <= end) {
            Some(checkpoint) => {
                checkpoint.write(&*self.disk, to, self.id, testimony.as_ref())?;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}
