//! Checkpoints are written, and what they tell is read: who is asked, and what is believed.

use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use super::Shared;
use super::chain::Piece;
use super::checkpoint::{Checkpoint, TESTIMONY_MAX, Testimony, Totals};
use super::rule::{Rule, holds};
use crate::error::ReadError;

impl Shared {
    /// Writes the checkpoint that is due, once all below it is durable.
    pub(super) fn checkpoint(&self) {
        let (Some(dir), Some((position, counted))) =
            (&self.options.checkpoints, self.due.lock().take())
        else {
            return;
        };
        // Before any of our locks is taken: it takes one under which others append.
        let testimony = self.ask_witness();
        // An older checkpoint does, or none: the next open reads more.
        self.write_checkpoint(dir, (position, counted), testimony).unwrap_or_default();
    }

    /// Writes checkpoints now, so that all that are kept tell of what is there now.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn testify_now(&self) -> Result<(), ReadError> {
        let (Some(dir), Some(testimony)) = (&self.options.checkpoints, self.ask_witness()) else {
            return Ok(());
        };
        let appender = self.append.lock();
        let counted = appender.counts.totals();
        let (begun, position) = (appender.begun, self.written.load(Ordering::Acquire));
        drop(appender);
        if !begun {
            return Ok(());
        }
        self.write_checkpoint(dir, (position, counted), Some(testimony.clone()))?;
        let _one = self.checkpointing.lock();
        for older in Checkpoint::read_all(&*self.disk, dir, self.id) {
            if older.told().is_none_or(|told| told < testimony.position) {
                older.write(&*self.disk, dir, self.id, Some(&testimony))?;
            }
        }
        Ok(())
    }

    fn write_checkpoint(
        &self,
        dir: &Path,
        (position, counted): (u64, Totals),
        testimony: Option<Testimony>,
    ) -> Result<(), ReadError> {
        let write = || -> Result<(), ReadError> {
            let testimony = testimony.or_else(|| self.testimony());
            let told = testimony.as_ref().map_or(0, |testimony| testimony.position);
            // Else a power cut could leave a checkpoint that tells of what is lost.
            if holds(Rule::CheckpointDurable)
                && self.durable.load(Ordering::Acquire) < position.max(told)
            {
                self.sync_written(self.syncing.lock())?;
            }
            let totals = self.totals_before()?.plus(counted);
            let segments = self.chain.read().segments().to_vec();
            let checkpoint = Checkpoint::new(position, totals, &segments);
            let _one = self.checkpointing.lock();
            checkpoint.write(&*self.disk, dir, self.id, testimony.as_ref())?;
            Ok(())
        };
        let written = write();
        let counter = match written {
            Ok(()) => &self.counts.checkpoints,
            Err(_) => &self.counts.checkpoint_failures,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.watch.checkpointed(position, written.clone());
        written
    }

    /// What the witness says, if there is one and it says what can be kept.
    fn ask_witness(&self) -> Option<Testimony> {
        let witness = self.witness.lock().as_ref().and_then(Weak::upgrade)?;
        // Who has the witness's lock may be waiting for a segment, which this thread would make.
        let testimony = self.preparer.away(|| witness.testify())?;
        let sound = testimony.position <= self.written.load(Ordering::Acquire)
            && testimony.bytes.len() as u64 <= TESTIMONY_MAX;
        sound.then_some(testimony)
    }

    /// The newest testimony that is of this past.
    pub(super) fn testimony(&self) -> Option<Testimony> {
        let dir = self.options.checkpoints.as_ref()?;
        let checkpoints = Checkpoint::read_all(&*self.disk, dir, self.id);
        let believed = |it: &&Checkpoint| it.told().is_some_and(|told| self.is_past(told));
        checkpoints.iter().filter(believed).find_map(|it| it.testimony(&*self.disk))
    }

    /// What any checkpoint tells that an open may have to do with: of what is below, each tells.
    /// 0 where there is none.
    pub(super) fn told_by_all(&self) -> u64 {
        let Some(dir) = &self.options.checkpoints else { return 0 };
        let checkpoints = Checkpoint::read_all(&*self.disk, dir, self.id);
        let told = checkpoints.iter().filter_map(Checkpoint::told);
        told.filter(|told| self.is_past(*told)).min().unwrap_or(0)
    }

    /// Is everything below `position` of this past? Not if a crash took back what was there.
    fn is_past(&self, position: u64) -> bool {
        if position >= self.written.load(Ordering::Acquire) {
            return position == self.written.load(Ordering::Acquire);
        }
        match self.locate(position) {
            Ok(Piece::Segment(_)) => true,
            Ok(Piece::Run(run)) => match run.lost_at(position) {
                Ok(lost) => lost.is_none_or(|lost| lost.start == position),
                Err(_) => false,
            },
            // What begins there is lost, and what ends there is not.
            Err(ReadError::PositionLost { lost, .. }) => lost.start == position,
            Err(_) => false,
        }
    }
}
