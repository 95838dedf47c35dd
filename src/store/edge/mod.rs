//! Edges of the store: the log as the end of a pipeline.
//!
//! - The [`Inbox`] is a sink: it appends records to a stream of their source, each frame with the
//!   source's position, so that the two are there together or not at all.
//! - The [`Outbox`] is a source: events from a durable cursor on, which moves when what was
//!   delivered is settled at the other end.
//! - [`Api`] is how this process itself puts records into an inbox: what was pushed is durable.
//! - [`Keeper`] keeps how far a pipeline is, where neither of its ends does.
//!
//! Each has a name, and one owner at a time ([`Leases`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Store;
use crate::edge::{Fault, Why};
use crate::error::{AppendError, Error, StreamError, SyncError};
use crate::log::Log;
use crate::log::name as name_record;
use crate::types::Durability;

mod api;
mod inbox;
mod keeper;
mod outbox;

pub use api::Api;
pub use inbox::Inbox;
pub(super) use keeper::KIND as KEEPER;
pub use keeper::Keeper;
pub use outbox::{Occurrence, Outbox};

/// The kind of the streams of inboxes.
pub(super) const INBOX: &str = "annals.inbox";

/// Names that are in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases(Arc<Mutex<BTreeSet<Box<str>>>>);

/// Keeps a name from others, until it is dropped.
#[derive(Debug)]
struct Lease {
    leases: Leases,
    name: Box<str>,
}

impl Leases {
    fn take(&self, what: &str, name: &str) -> Result<Lease, StreamError> {
        if !(1..=name_record::NAME_BYTES_MAX).contains(&name.len()) {
            return Err(StreamError::BadName);
        }
        let leased: Box<str> = format!("{what} {name}").into();
        if !self.0.lock().insert(leased.clone()) {
            return Err(StreamError::Leased(leased));
        }
        Ok(Lease { leases: self.clone(), name: leased })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.0.lock().remove(&self.name);
    }
}

/// What an append's failure means for a pipeline.
fn append_fault(error: AppendError) -> Fault {
    match error {
        AppendError::DiskFull(_) | AppendError::Disk(_) => Fault::retry(Why::error(error)),
        AppendError::GroupTooLarge { .. }
        | AppendError::Conflict { .. }
        | AppendError::Poisoned(_)
        | AppendError::Closed
        // A pipeline publishes nothing.
        | AppendError::NoNode
        | AppendError::Fenced
        | AppendError::Domain(_)
        | AppendError::Read(_) => Fault::fatal(Why::error(error)),
    }
}

/// Waits until `end` is as safe as asked, at most `limit`; `false`: not yet.
fn wait_safe(
    log: &Log,
    end: crate::types::Lsn,
    durability: Durability,
    limit: Option<std::time::Duration>,
) -> Result<bool, SyncError> {
    if durability == Durability::Process || log.durable() >= end.get() {
        return Ok(true);
    }
    match log.wait_durable(end, limit) {
        Ok(()) => Ok(true),
        Err(SyncError::Timeout) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Store {
    /// A sink that appends what it is given to this store's log, in a stream of its own, with the
    /// position of each record in its source: exactly once, whatever crashes, if the source can
    /// go back to a position. [`Filter::inbox`](super::Filter::inbox) subscribes to it.
    ///
    /// `durability` says when a record is settled. A source that forgets what is settled needs
    /// [`Durability::Power`], or a power cut can take what neither has then.
    ///
    /// ```
    /// use annals::{Begin, Durability, Filter, Store, edge};
    /// use std::time::Duration;
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = Store::open(dir.path())?;
    /// for _life in 0..2 {
    ///     let inbox = store.inbox("numbers", Durability::Power)?;
    ///     edge::from(edge::iter(["one", "two"])).into(inbox).spawn("in")?.join()?;
    /// }
    /// let mut events = store.subscribe(Filter::inbox("numbers"), Begin::First)?;
    /// for expected in ["one", "two"] {
    ///     let event = events.next(Duration::from_secs(9))?.ok_or("nothing came")?;
    ///     assert_eq!(event.bytes, expected.as_bytes());
    /// }
    /// assert!(events.next(Duration::ZERO)?.is_none(), "each once");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StreamError::Leased`] while there is another of this id; [`StreamError::BadName`];
    /// [`StreamError::Read`].
    pub fn inbox<T: AsRef<[u8]>>(
        &self,
        source: &str,
        durability: Durability,
    ) -> Result<Inbox<T>, Error> {
        let lease = self.leases.take("inbox", source)?;
        Ok(Inbox::open(&self.events, source, (durability, self.options.frame_bytes_max), lease)?)
    }

    /// A source that delivers the events that `filter` asks for, from where the cursor `name` is
    /// on, which moves when they are settled at the pipeline's other end. So each is settled
    /// there, once or, after a crash, again.
    ///
    /// # Errors
    /// [`StreamError::Leased`] while there is another of this name; [`StreamError::BadName`];
    /// [`StreamError::Read`].
    pub fn outbox(&self, name: &str, filter: super::Filter) -> Result<Outbox, Error> {
        let lease = self.leases.take("outbox", name)?;
        Ok(Outbox::new((&self.events, &self.readers), self.cursor(name)?, filter, lease))
    }

    /// Puts records of this process into an inbox. See [`Api::push`].
    ///
    /// # Errors
    /// As for [`inbox`](Self::inbox), of which it is another owner.
    pub fn api(&self, source: &str, durability: Durability) -> Result<Api, Error> {
        let lease = self.leases.take("inbox", source)?;
        Ok(Api::open(&self.events, source, durability, lease)?)
    }

    /// Keeps how far a pipeline is, and what its stages know, for
    /// [`Pipeline::keep`](crate::edge::Pipeline::keep): where its sink does not remember, or its
    /// stages do.
    ///
    /// # Errors
    /// [`StreamError::Leased`] while there is another of this name; [`StreamError::BadName`];
    /// [`StreamError::Read`].
    pub fn keeper(&self, pipeline: &str) -> Result<Keeper, Error> {
        let lease = self.leases.take("pipeline", pipeline)?;
        Ok(Keeper::open(&self.events, pipeline, lease)?)
    }
}
