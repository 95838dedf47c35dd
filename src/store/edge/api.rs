//! This process as a source: what it pushes is durable when the call returns.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{INBOX, Lease, wait_safe};
use crate::error::{Error, ReadError};
use crate::log::frame::{Batch, RecordKind};
use crate::log::{Log, name as name_record};
use crate::types::{Durability, Lsn, Seq, StreamId};

const VERSION: u16 = 1;

/// Puts records of this process into an inbox. See [`Store::api`](crate::Store::api). Clones are
/// the same owner of its name.
#[derive(Clone, Debug)]
pub struct Api(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Arc<Log>,
    id: Box<str>,
    durability: Durability,
    state: Mutex<State>,
    _lease: Lease,
}

/// Locked over the append, so that numbers follow each other; not over the wait for the disk.
#[derive(Debug)]
struct State {
    seq: Seq,
    batch: Batch,
}

impl Api {
    pub(super) fn open(
        log: &Arc<Log>,
        id: &str,
        durability: Durability,
        lease: Lease,
    ) -> Result<Self, ReadError> {
        let seq = log.last_seq(StreamId::of(INBOX, id))?;
        Ok(Self(Arc::new(Shared {
            log: Arc::clone(log),
            id: id.into(),
            durability,
            state: Mutex::new(State { seq, batch: Batch::new() }),
            _lease: lease,
        })))
    }

    /// Stores a record, and returns when it is as durable as was asked for: from then on a pipeline
    /// from an [outbox](crate::Store::outbox) with [`Filter::inbox`](crate::Filter::inbox) gets
    /// it, now or in a later life. Pushes of several threads share one sync.
    ///
    /// ```
    /// use annals::{Durability, Filter, Store, edge};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = Store::open(dir.path())?;
    /// store.api("orders", Durability::Power)?.push(b"one coffee")?; // it is on disk
    /// drop(store);
    ///
    /// let store = Store::open(dir.path())?;
    /// let (sink, orders) = edge::channel::bounded(8);
    /// let outbox = store.outbox("kitchen", Filter::inbox("orders"))?;
    /// let pipeline = edge::from(outbox).map(|order| order.bytes).into(sink).spawn("kitchen")?;
    /// assert_eq!(orders.recv()?.1, b"one coffee");
    /// # drop(pipeline);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::error::AppendError`]: it is not stored. [`crate::error::SyncError::InDoubt`]:
    /// after the next open it is there or not.
    pub fn push(&self, record: &[u8]) -> Result<Lsn, Error> {
        let shared = &*self.0;
        let end = {
            let mut state = shared.state.lock();
            let State { seq, batch } = &mut *state;
            batch.clear();
            if *seq == Seq::ZERO {
                let name = name_record::encode(INBOX, &shared.id).unwrap_or_default();
                push(batch, RecordKind::Name, &name)?;
            }
            push(batch, RecordKind::Event, record)?;
            let next = seq.checked_add(1).ok_or(crate::error::AppendError::Closed)?;
            let end = shared.log.append(batch, StreamId::of(INBOX, &shared.id), next)?.end;
            *seq = next;
            end
        };
        wait_safe(&shared.log, end, shared.durability, None)?;
        Ok(end)
    }
}

fn push(batch: &mut Batch, kind: RecordKind, bytes: &[u8]) -> Result<(), Error> {
    batch.push(kind, VERSION, bytes).map_err(|_too_large| {
        let (bytes, max) = (bytes.len(), u32::MAX as usize);
        crate::error::AppendError::GroupTooLarge { bytes, max }.into()
    })
}
