//! Leaving memory: a state is stored now and then, and let go when nobody has used it for long.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::MutexGuard;
use rkyv::util::AlignedVec;

use super::Actor;
use super::cell::{Asked, Body, Cell, Live, drop_quietly};
use super::commit;
use super::provider::NewSnapshot;
use super::saving::{Moment, Since, Snapshots, WallTime};
use super::turn::Depth;
use crate::trace;

impl<A: Actor> Cell<A> {
    /// Is a snapshot to be asked for after a turn? What is asked for is noted.
    #[inline]
    pub(crate) fn is_save_due(&self, live: &mut Live<A>, turn: Asked) -> bool {
        let Some(snapshots) = &self.kind.options.snapshots else { return false };
        self.is_due(snapshots, live, turn)
    }

    fn is_due(&self, snapshots: &Snapshots<A>, live: &mut Live<A>, turn: Asked) -> bool {
        let now_ms = if self.kind.sees_time { self.shared().clock.wall_ms() } else { 0 };
        let since = Since {
            seq: live.seq,
            tried: live.tried,
            elapsed_ms: now_ms.saturating_sub(live.tried_at.ms()),
            seen: turn.seen,
            moment: if turn.suspended { Moment::Suspension } else { Moment::Turn },
        };
        let due = turn.by_hand || snapshots.policy.is_due(&since);
        if due {
            live.tried = live.seq;
            live.tried_at = WallTime::of_ms(now_ms);
        }
        due
    }

    /// Stores the state, if that was asked for.
    pub(crate) fn save_asked(&self) {
        let mut body = self.body();
        let Body::Live(live) = &mut *body else { return };
        if !std::mem::take(&mut live.save_asked) {
            return;
        }
        if commit::flush(self, live).is_err() {
            return;
        }
        let Some(snapshot) = self.snapshot(live) else { return };
        // Not under the lock: the next turn need not wait for the snapshot store.
        MutexGuard::unlock_fair(body);
        let seq = snapshot.seq;
        if self.shared().snapshots.save(snapshot)
            && let Body::Live(live) = &mut *self.body()
        {
            live.saved = live.saved.max(seq);
        }
    }

    /// Stores the state, loading it for that if it is not in memory. `false` if it was not taken,
    /// or is stored already.
    pub(crate) fn store_state(&self) -> bool {
        let mut body = self.body();
        let loaded = matches!(*body, Body::Absent);
        body = match self.loaded(body) {
            Ok(body) => body,
            Err(_cannot_be_rebuilt) => return false,
        };
        let depth = Depth::enter();
        let snapshot = match self.live(&mut body) {
            Ok(live) => {
                let flushed = commit::flush(self, live);
                flushed.ok().and_then(|()| self.snapshot(live))
            }
            Err(_cannot_be_rebuilt) => None,
        };
        if loaded {
            // Nobody else has asked for it.
            self.forget(&mut body);
        }
        drop(depth);
        MutexGuard::unlock_fair(body);
        let Some(snapshot) = snapshot else { return false };
        let seq = snapshot.seq;
        let taken = self.shared().snapshots.save(snapshot);
        if taken && let Body::Live(live) = &mut *self.body() {
            live.saved = live.saved.max(seq);
        }
        taken
    }

    /// The state as a snapshot; `None` if there is nothing to store, or no way.
    fn snapshot(&self, live: &Live<A>) -> Option<NewSnapshot> {
        let options = self.kind.options.snapshots.as_ref()?;
        let covers = live.lsn.filter(|_| live.seq > live.saved)?;
        let _depth = Depth::enter();
        let mut state = AlignedVec::new();
        let encoded = catch_unwind(AssertUnwindSafe(|| (options.encode)(&live.state, &mut state)));
        if !matches!(encoded, Ok(Ok(()))) {
            return None;
        }
        Some(NewSnapshot {
            stream: self.stream,
            kind: A::KIND,
            name: Arc::from(&*self.name),
            seq: live.seq,
            covers,
            version: options.version,
            state,
            side: live.side.as_ref().map(|side| side.encode()).unwrap_or_default(),
        })
    }

    /// Takes the state out of memory, after storing it if the options say so.
    pub(crate) fn retire(&self, mut body: MutexGuard<'_, Body<A>>) {
        let Body::Live(live) = &mut *body else { return };
        live.leave_asked = false;
        if commit::flush(self, live).is_err() {
            // It stays, since there is nowhere else that it is.
            return;
        }
        let (seq, tried) = (live.seq, live.saved);
        let since = Since { seq, tried, elapsed_ms: 0, seen: 0, moment: Moment::Leaving };
        let due = self.kind.options.snapshots.as_ref().is_some_and(|it| it.policy.is_due(&since));
        let snapshot = if due { self.snapshot(live) } else { None };
        let seq = live.seq.get();
        let old = std::mem::replace(&mut *body, Body::Absent);
        self.left_memory();
        drop(body);
        let _depth = Depth::enter();
        trace::ActorPassivated { kind: A::KIND, name: &self.name, seq }.tell();
        drop_quietly(old);
        if let Some(snapshot) = snapshot {
            // One that is not taken costs a longer replay, nothing else.
            let _taken: bool = self.shared().snapshots.save(snapshot);
        }
    }

    /// [`Self::retire`], once the turn that is under way has ended.
    pub(crate) fn passivate(&self) {
        self.retire(self.body());
    }

    /// [`Self::retire`], unless there was a turn after `tick`, or is one now.
    pub(crate) fn passivate_unused_since(&self, tick: u32) {
        if let Some(body) = self.body.try_lock()
            && (1..=tick).contains(&self.used())
        {
            self.retire(body);
        }
    }
}
