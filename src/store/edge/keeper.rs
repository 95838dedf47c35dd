//! Keeps how far a pipeline is, in the log.
//!
//! The stream `annals.edge`/name: each save is a frame with a note, `0 | kept` (see
//! [`Kept::to_bytes`]), which takes the place of the one before.

use std::sync::Arc;

use super::super::cursor::{note, notes};
use super::{Lease, append_fault, wait_safe};
use crate::edge::{Fault, Keep, Kept, Why};
use crate::error::ReadError;
use crate::log::Log;
use crate::types::{Durability, Seq, StreamId};

/// The kind of the streams.
pub(in crate::store) const KIND: &str = "annals.edge";

/// Keeps how far a pipeline is. See [`Store::keeper`](crate::Store::keeper).
#[derive(Debug)]
pub struct Keeper {
    log: Arc<Log>,
    name: Box<str>,
    seq: Seq,
    kept: Option<Kept>,
    /// What was found cannot be read.
    unreadable: bool,
    _lease: Lease,
}

impl Keeper {
    pub(super) fn open(log: &Arc<Log>, name: &str, lease: Lease) -> Result<Self, ReadError> {
        let stream = StreamId::of(KIND, name);
        let last = log.last_seq(stream)?;
        let before = Seq::new(last.get().saturating_sub(1)).unwrap_or_default();
        let (mut kept, mut unreadable) = (None, false);
        let seq = notes(log, stream, before, &mut |payload| {
            kept = payload.split_first().and_then(|(_zero, kept)| Kept::from_bytes(kept));
            unreadable = kept.is_none();
        })?;
        Ok(Self { log: Arc::clone(log), name: name.into(), seq, kept, unreadable, _lease: lease })
    }
}

impl Keep for Keeper {
    fn load(&mut self) -> Result<Option<Kept>, Fault> {
        if self.unreadable {
            return Err(Fault::fatal("what is kept is of another version"));
        }
        Ok(self.kept.clone())
    }

    fn save(&mut self, kept: &Kept) -> Result<(), Fault> {
        let payload = [&[0][..], &kept.to_bytes()].concat();
        let appended = note(&self.log, (KIND, &self.name), &mut self.seq, &payload);
        let end = appended.map_err(append_fault)?.end;
        let safe = wait_safe(&self.log, end, Durability::Power, None);
        safe.map_err(|error| Fault::fatal(Why::error(error)))?;
        self.kept = Some(kept.clone());
        Ok(())
    }
}
