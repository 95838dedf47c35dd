//! A kind of actor within a runtime: its options, and the registry of its names.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::cell::{Cell, drop_quietly};
use super::mailbox::{Envelope, Wake};
use super::provider::SnapshotRef;
use super::resume::{self, Owed};
use super::runtime::Shared;
use super::ticket::Deadline;
use super::turn::Depth;
use super::{Actor, ActorError, ActorOptions, Addr, SnapshotPolicy};
use crate::types::{StreamHasher, StreamId};

/// Shards of a registry: few enough to be small when empty, enough that a sweep of one is short.
const SHARDS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

pub(crate) struct Kind<A: Actor> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: ActorOptions<A>,
    /// Does the snapshot policy look at events?
    sees_events: bool,
    /// Does it look at the clock?
    pub(crate) sees_time: bool,
    /// Waited on for room in a mailbox of this kind. A full one is rare, and a condition variable
    /// in each cell would cost its 8 bytes a million times.
    pub(crate) room: Room,
    shards: Box<[Shard<A>]>,
}

/// Cells by stream. The lock guards which names have a cell.
type Shard<A> = Mutex<HashSet<Registered<A>, BuildHasherDefault<StreamHasher>>>;

/// A cell, found by its stream. The stream is not stored twice: with its alignment that would
/// be a fifth of all that an idle actor takes.
struct Registered<A: Actor>(Arc<Cell<A>>);

impl<A: Actor> Borrow<StreamId> for Registered<A> {
    fn borrow(&self) -> &StreamId {
        &self.0.stream
    }
}

impl<A: Actor> Hash for Registered<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.stream.hash(state);
    }
}

impl<A: Actor> PartialEq for Registered<A> {
    fn eq(&self, other: &Self) -> bool {
        self.0.stream == other.0.stream
    }
}

impl<A: Actor> Eq for Registered<A> {}

/// Where threads wait until a mailbox has room again.
#[derive(Default)]
pub(crate) struct Room {
    /// Guards nothing but the moment between letting go of a mailbox and waiting.
    lock: Mutex<()>,
    changed: Condvar,
}

impl Room {
    /// Waits for a `notify` that comes after `mailbox` was unlocked, or for the deadline.
    pub(crate) fn wait_unlocking<T>(
        &self,
        mailbox: MutexGuard<'_, T>,
        deadline: Option<&Deadline>,
    ) {
        // Before the mailbox is unlocked: who makes room there notifies under this lock.
        let mut lock = self.lock.lock();
        drop(mailbox);
        match deadline {
            None => self.changed.wait(&mut lock),
            Some(deadline) => {
                self.changed.wait_for(&mut lock, deadline.left());
            }
        }
    }

    /// Wakes all, since they wait for different mailboxes.
    pub(crate) fn notify(&self) {
        let _lock = self.lock.lock();
        self.changed.notify_all();
    }
}

/// A kind, whatever its type.
pub(crate) trait AnyKind: Send + Sync {
    /// Lets states go that were not used after `tick`, while `more` says so; then forgets names
    /// that nobody holds.
    fn sweep(&self, tick: u32, more: &dyn Fn() -> bool);
    /// The kind's own idle time, in milliseconds.
    fn idle_ms(&self) -> Option<u64>;
    /// When the states in memory were last used, and what they weigh.
    fn used(&self, into: &mut Vec<(u32, u64)>);
    /// Nobody runs, and nothing is queued.
    fn is_idle(&self) -> bool;
    /// Lets everybody see the gate.
    fn wake(&self);
    /// Settles what is queued and forgets all names.
    fn close(&self);
    /// Names in the registry.
    fn names(&self) -> usize;
    /// Can a state of this kind be made of it?
    fn reads(&self, snapshot: &SnapshotRef<'_>) -> bool;
    /// Snapshots that are kept of each actor.
    fn keeps(&self) -> usize;
    /// Brings an actor what is owed.
    fn deliver(self: Arc<Self>, name: &str, owed: Owed<'_>);
    /// Stores the state of an actor, which is loaded for it if need be. `false` if it was not
    /// taken, or there is nothing to store that was not stored before.
    fn store_state(self: Arc<Self>, name: &str) -> bool;
}

impl<A: Actor> Kind<A> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let shards = (0..SHARDS.get()).map(|_| Mutex::default()).collect();
        let options = A::options();
        let policy = options.snapshots.as_ref().map(|it| &it.policy);
        let sees_events = policy.is_some_and(SnapshotPolicy::needs_events);
        let sees_time = policy.is_some_and(SnapshotPolicy::needs_time);
        Self { shared, options, sees_events, sees_time, room: Room::default(), shards }
    }

    /// Which predicates of the snapshot policy this event meets.
    pub(crate) fn seen_in(&self, state: &A, event: &A::Event) -> u64 {
        match &self.options.snapshots {
            Some(snapshots) if self.sees_events => snapshots.policy.see(state, event),
            Some(_) | None => 0,
        }
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
        if let Some(Registered(cell)) = cells.get(&stream) {
            if &*cell.name != name {
                return Err(ActorError::collision((A::KIND, name), (A::KIND, &cell.name)));
            }
            return Ok(Addr::new(Arc::clone(cell)));
        }
        // Under the lock: a close looks at every shard after it has shut the gate.
        self.shared.gate().here()?;
        let cell = Cell::new(self, name.into(), stream);
        cells.insert(Registered(Arc::clone(&cell)));
        Ok(Addr::new(cell))
    }

    /// Does `each` for every cell, under its shard's lock.
    fn each(&self, mut each: impl FnMut(&Arc<Cell<A>>)) {
        for shard in &self.shards {
            shard.lock().iter().for_each(|Registered(cell)| each(cell));
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
                .iter()
                .filter(|Registered(cell)| (1..=tick).contains(&cell.used()))
                .map(|Registered(cell)| Arc::clone(cell))
                .collect();
            // Not under the shard's lock: storing a state takes time.
            for cell in unused {
                if more() {
                    cell.passivate_unused_since(tick);
                }
            }
            let mut cells = shard.lock();
            // Only through this lock can a cell of which the registry is the only owner come to
            // have another: so nobody holds what is removed, and the next lookup makes a new
            // cell. What the last owner did happened before that: by the locks that `is_vacant`
            // takes, and by the drop of the last `Arc`, here.
            cells.retain(|Registered(cell)| Arc::strong_count(cell) > 1 || !cell.is_vacant());
            if cells.len() < cells.capacity() / 4 {
                cells.shrink_to_fit();
            }
        }
    }

    fn idle_ms(&self) -> Option<u64> {
        self.options.idle.map(|idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX))
    }

    fn used(&self, into: &mut Vec<(u32, u64)>) {
        self.each(|cell| into.push((cell.used(), cell.weight())));
    }

    fn is_idle(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().iter().all(|it| it.0.is_idle()))
    }

    fn wake(&self) {
        self.each(|cell| cell.wake());
    }

    #[expect(clippy::mutable_key_type, reason = "the stream, which is the key, never changes")]
    fn close(&self) {
        for shard in &self.shards {
            let cells = std::mem::take(&mut *shard.lock());
            for cell in &cells {
                cell.0.close();
            }
        }
    }

    fn names(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn reads(&self, snapshot: &SnapshotRef<'_>) -> bool {
        let options = &self.options;
        if snapshot.kind != A::KIND {
            return false;
        }
        let _depth = Depth::enter();
        let read = || options.read_state(snapshot.version, snapshot.state);
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Some(state)) => {
                drop_quietly(state);
                true
            }
            Ok(None) => false,
            Err(payload) => {
                drop_quietly(payload);
                false
            }
        }
    }

    fn keeps(&self) -> usize {
        self.options.kept
    }

    fn deliver(self: Arc<Self>, name: &str, owed: Owed<'_>) {
        // Refused: the runtime is closed, and it is owed still.
        let Ok(addr) = self.addr(name) else { return };
        let cell = addr.cell();
        let envelope: Box<dyn Envelope<A>> = match owed {
            Owed::Timer { number, permit } | Owed::Step { number, permit } => {
                Box::new(Wake { number, permit })
            }
            Owed::Message { command, archive, of } => {
                let opened = self.options.durables.open_command(command, archive, of);
                let Some(envelope) = opened else {
                    resume::unreadable(cell, command.0);
                    return;
                };
                envelope
            }
        };
        cell.push_due(envelope).unwrap_or_default();
    }

    fn store_state(self: Arc<Self>, name: &str) -> bool {
        self.options.snapshots.is_some()
            && self.addr(name).is_ok_and(|addr| addr.cell().store_state())
    }
}
