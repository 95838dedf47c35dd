//! A kind of actor within a runtime: its options, and the registry of its names.

use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;

use super::cell::Cell;
use super::runtime::Shared;
use super::{Actor, ActorError, ActorOptions, Addr};
use crate::types::{StreamId, StreamMap};

/// Shards of a registry: few enough to be small when empty, enough that a sweep of one is short.
const SHARDS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

pub(crate) struct Kind<A: Actor> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: ActorOptions<A>,
    shards: Box<[Mutex<StreamMap<Arc<Cell<A>>>>]>,
}

/// A kind, whatever its type.
pub(crate) trait AnyKind: Send + Sync {
    /// Lets states go that were not used after `tick`, while `more` says so; then forgets names
    /// that nobody holds.
    fn sweep(&self, tick: u32, more: &dyn Fn() -> bool);
    /// The kind's own idle time, in milliseconds.
    fn idle_ms(&self) -> Option<u64>;
    /// When the states in memory were last used.
    fn used(&self, into: &mut Vec<u32>);
    /// Nobody runs, and nothing is queued.
    fn is_idle(&self) -> bool;
    /// Lets everybody see the gate.
    fn wake(&self);
    /// Settles what is queued and forgets all names.
    fn close(&self);
    /// Names in the registry.
    fn names(&self) -> usize;
}

impl<A: Actor> Kind<A> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let shards = (0..SHARDS.get()).map(|_| Mutex::default()).collect();
        Self { shared, options: A::options(), shards }
    }

    /// The one cell of a name, made if there is none.
    pub(crate) fn addr(self: &Arc<Self>, name: &str) -> Result<Addr<A>, ActorError> {
        if name.is_empty() || u16::try_from(name.len()).is_err() {
            return Err(ActorError::BadName);
        }
        let stream = StreamId::of(A::KIND, name);
        let Some(shard) = self.shards.get(shard_of(stream)) else {
            return Err(ActorError::Lost);
        };
        let mut cells = shard.lock();
        if let Some(cell) = cells.get(&stream) {
            if &*cell.name != name {
                return Err(ActorError::collision((A::KIND, name), (A::KIND, &cell.name)));
            }
            return Ok(Addr::new(Arc::clone(cell)));
        }
        // Under the lock: a close looks at every shard after it has shut the gate.
        self.shared.gate().here()?;
        let cell = Cell::new(self, name.into(), stream);
        cells.insert(stream, Arc::clone(&cell));
        Ok(Addr::new(cell))
    }

    /// Does `each` for every cell, under its shard's lock.
    fn each(&self, mut each: impl FnMut(&Arc<Cell<A>>)) {
        for shard in &self.shards {
            shard.lock().values().for_each(&mut each);
        }
    }
}

/// Bits that are spread within a shard too, by the other half of the hash.
fn shard_of(stream: StreamId) -> usize {
    usize::try_from(stream.get() >> 96).unwrap_or(0) % SHARDS
}

impl<A: Actor> AnyKind for Kind<A> {
    fn sweep(&self, tick: u32, more: &dyn Fn() -> bool) {
        for shard in &self.shards {
            let unused: Vec<_> = shard
                .lock()
                .values()
                .filter(|cell| (1..=tick).contains(&cell.used()))
                .map(Arc::clone)
                .collect();
            // Not under the shard's lock: storing a state takes time.
            for cell in unused {
                if more() {
                    cell.passivate_unused_since(tick);
                }
            }
            let mut cells = shard.lock();
            // `get_mut` succeeds for the only owner, and only through this lock can there come
            // another: so nobody holds what is removed, and the next lookup makes a new cell.
            cells.retain(|_, cell| Arc::get_mut(cell).is_none_or(|cell| !cell.is_vacant()));
            if cells.len() < cells.capacity() / 4 {
                cells.shrink_to_fit();
            }
        }
    }

    fn idle_ms(&self) -> Option<u64> {
        self.options.idle.map(|idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX))
    }

    fn used(&self, into: &mut Vec<u32>) {
        self.each(|cell| into.push(cell.used()));
    }

    fn is_idle(&self) -> bool {
        let mut idle = true;
        self.each(|cell| idle &= cell.is_idle());
        idle
    }

    fn wake(&self) {
        self.each(|cell| cell.wake());
    }

    fn close(&self) {
        for shard in &self.shards {
            let cells = std::mem::take(&mut *shard.lock());
            cells.values().for_each(|cell| cell.close());
        }
    }

    fn names(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}
