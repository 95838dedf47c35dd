//! Filling: how a value comes from a tier or the source into memory, and when it does not.

use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::sync::cache::Inner;
use crate::sync::cache::counters::Count;
use crate::sync::cache::entry::{Entry, Fill, Look, Times};
use crate::sync::cache::events::EventKind;
use crate::sync::cache::flight::{Flight, LoadError, Ticket};
use crate::sync::cache::key::Key;
use crate::sync::cache::load::Load;
use crate::sync::cache::marks::TagHash;
use crate::sync::cache::options::BoxError;
use crate::sync::cache::table::{Evicted, Probe, Put, Slot};
use crate::sync::cache::tier::Kept;
use crate::sync::freshness::nanos;
use crate::sync::origin::Cursor;

/// A refresh that has begun is not begun again for this long, nanoseconds.
const REFRESH_EACH: u64 = 1_000_000_000;

/// 64 random bits.
pub(super) fn random_life() -> std::io::Result<u64> {
    let mut bits = [0; 8];
    getrandom(&mut bits, GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bits))
}

/// What a caller without a value comes to.
pub(super) enum Boarding<V> {
    /// Another one's load has just ended.
    There(Option<V>),
    Joined(Joined<V>),
}

/// What a tier had: a value, or that there is none.
pub(super) struct Had<V>(pub(super) Option<V>);

/// A flight, and whether this caller leads it.
pub(super) struct Joined<V> {
    pub(super) flight: Arc<Flight<V>>,
    pub(super) leads: bool,
}

impl<V> Joined<V> {
    pub(super) fn into_leading<K>(self, inner: &Arc<Inner<K, V>>) -> Leading<K, V>
    where
        K: Key + Clone,
        V: Clone + Send + Sync + 'static,
    {
        Leading { inner: Arc::clone(inner), flight: self.flight, otherwise: LoadError::Busy }
    }
}

/// Who leads a flight. However it ends, those who wait are told.
pub(super) struct Leading<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    inner: Arc<Inner<K, V>>,
    flight: Arc<Flight<V>>,
    /// What is said if it does not come to an end: it was not begun, or it panicked.
    otherwise: LoadError,
}

impl<K, V> Drop for Leading<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        if let Some(mut shard) = self.inner.table.write(self.flight.ticket.hash) {
            shard.leave(&self.flight);
        }
        // Nothing happens if it has landed.
        self.flight.land(Err(self.otherwise.clone()));
    }
}

impl<K, V> Leading<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    /// From the tiers, or the source. What it finds is remembered, if its ticket says so.
    pub(super) fn load(
        mut self,
        key: &K,
        from_tiers: bool,
        load: impl FnOnce(&K, &mut Load) -> Result<Option<V>, BoxError>,
    ) -> Result<Option<V>, LoadError> {
        self.otherwise = LoadError::Panicked;
        let inner = &self.inner;
        let result = key.with_bytes(|bytes| {
            let probe = Probe { hash: self.flight.ticket.hash, bytes };
            if from_tiers
                && let Some(Had(value)) = inner.ask_tiers(&probe, key, &self.flight.ticket)
            {
                return Ok(value);
            }
            inner.ask_source(&probe, key, (&self.flight.ticket, load))
        });
        if let Some(mut shard) = inner.table.write(self.flight.ticket.hash) {
            shard.leave(&self.flight);
        }
        self.flight.land(result.clone());
        result
    }
}

impl<K, V> Inner<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the flight for a key, or leads one; unless its value has come meanwhile.
    pub(super) fn join(
        &self,
        probe: &Probe<'_>,
        key: &dyn Fn() -> K,
        revalidate: bool,
    ) -> Boarding<V> {
        let now = self.clock.nanos();
        let marks = &self.scope.marks;
        let lease = nanos(self.freshness.lease());
        let since = if revalidate { now.saturating_sub(lease) } else { 0 };
        let Some(mut shard) = self.table.write(probe.hash) else {
            unreachable!("every hash has a shard")
        };
        if !revalidate && let Look::Hit(value) = shard.look(probe, now, marks) {
            return Boarding::There(value);
        }
        let (flight, leads) = shard.join(probe, key, (marks, self.table.rules, now, since));
        Boarding::Joined(Joined { flight, leads })
    }

    /// Has a key loaded in the background, if nobody does already.
    pub(super) fn refresh(self: &Arc<Self>, probe: &Probe<'_>, key: K) {
        let (Some(loader), Some(pool)) = (&self.options.loader, &self.pool) else { return };
        let now = self.clock.nanos();
        let joined = {
            let Some(mut shard) = self.table.write(probe.hash) else { return };
            shard.asked_until(probe, now.saturating_add(REFRESH_EACH));
            let marks = &self.scope.marks;
            let (flight, leads) =
                shard.join(probe, || key.clone(), (marks, self.table.rules, now, 0));
            Joined { flight, leads }
        };
        if !joined.leads {
            return;
        }
        let loader = Arc::clone(loader);
        let leading = joined.into_leading(self);
        let job = move || {
            leading.inner.count(Count::Refresh);
            key.with_bytes(|bytes| leading.inner.tell(bytes, EventKind::Refreshed));
            // Who asked has its answer; the entry is there until its time is over.
            drop(leading.load(&key, false, |key, load| loader(key, load)));
        };
        // Where the queue is full, the flight ends unflown, and a later hit begins another.
        let _queued = pool.run(job);
    }

    /// Asks the source. Its value is remembered if no token came since the ticket.
    fn ask_source(
        &self,
        probe: &Probe<'_>,
        key: &K,
        (ticket, load): (&Ticket, impl FnOnce(&K, &mut Load) -> Result<Option<V>, BoxError>),
    ) -> Result<Option<V>, LoadError> {
        let _pass = self.gate.enter();
        let stamp = self.stamp();
        let filled = self.clock.nanos();
        let mut said = Load::default();
        self.count(Count::Load);
        let value = match load(key, &mut said) {
            Ok(value) => value,
            Err(error) => {
                self.count(Count::LoadFailed);
                self.tell(probe.bytes, EventKind::LoadFailed);
                return Err(LoadError::Source(error.into()));
            }
        };
        let negative = value.is_none() && self.options.negative_ttl.is_none() && said.ttl.is_none();
        if said.forget || negative {
            self.tell(probe.bytes, EventKind::Loaded);
            return Ok(value);
        }
        let fill = self.fill(probe.bytes, value.as_ref(), (filled, said));
        let admitted = self.admit(probe, key.clone(), (value.clone(), ticket, fill, stamp));
        if admitted {
            self.tell(probe.bytes, EventKind::Loaded);
        } else {
            self.count(Count::LoadVoid);
            self.tell(probe.bytes, EventKind::LoadVoid);
        }
        Ok(value)
    }

    /// How far the logs are; empty where nothing is kept that would need to know.
    pub(super) fn stamp(&self) -> Arc<[Cursor]> {
        match self.manager.history() {
            Some(history) if !self.options.tiers.is_empty() => history.marks(),
            Some(_) | None => Arc::from([]),
        }
    }

    /// What an entry is besides its value.
    pub(super) fn fill(
        &self,
        bytes: &[u8],
        value: Option<&V>,
        (filled, said): (u64, Load),
    ) -> Fill {
        let options = &self.options;
        let ttl = if value.is_none() { options.negative_ttl } else { options.ttl };
        let ttl = said.ttl.or(ttl).map(|ttl| self.jitter.shorten(nanos(ttl)));
        let refresh = match (ttl, options.refresh_ahead) {
            (Some(ttl), Some(share)) => {
                let after = std::time::Duration::from_nanos(ttl).mul_f64(share);
                filled.saturating_add(nanos(after))
            }
            _ => u64::MAX,
        };
        let weigh = || options.weigher.as_ref().map_or(1, |weigh| weigh(bytes, value));
        let mut tags = said.tags;
        tags.sort_unstable();
        tags.dedup();
        Fill {
            times: Times {
                filled,
                expires: ttl.map_or(u64::MAX, |ttl| filled.saturating_add(ttl)),
                refresh,
                idle: said.idle.or(options.idle).map_or(0, nanos),
            },
            tags: tags.into(),
            weight: said.weight.unwrap_or_else(weigh),
            plain: options.stale_max.is_zero()
                && !options.serve_invalidated
                && options.values.is_none(),
        }
    }

    /// Compare and put; then the tiers below.
    pub(super) fn admit(
        &self,
        probe: &Probe<'_>,
        key: K,
        (value, ticket, fill, stamp): (Option<V>, &Ticket, Fill, Arc<[Cursor]>),
    ) -> bool {
        if !self.put(probe, key, (value.clone(), ticket, fill.clone())) {
            return false;
        }
        self.keep(probe.bytes, value.as_ref(), (ticket, &fill, stamp));
        true
    }

    /// Compare and put, in memory.
    pub(super) fn put(
        &self,
        probe: &Probe<'_>,
        key: K,
        (value, ticket, fill): (Option<V>, &Ticket, Fill),
    ) -> bool {
        let entry = Entry::new(value, ticket, fill);
        let slot = Slot(key);
        let checks = (&self.scope.marks, &self.scope.holds, self.table.rules);
        let Some(mut shard) = self.table.write(probe.hash) else { return false };
        let put = shard.put(slot, (entry, ticket), checks);
        drop(shard);
        match put {
            Put::Done(evicted) => {
                self.evicted(&evicted);
                true
            }
            Put::Void | Put::Held => false,
        }
    }

    /// Counts and tells of what had to go. Outside of all locks.
    pub(super) fn evicted(&self, evicted: &Evicted<K, V>) {
        for (slot, _entry) in &evicted.0 {
            self.count(Count::Evicted);
            slot.0.with_bytes(|bytes| self.tell(bytes, EventKind::Evicted));
        }
    }

    // --- tiers ---

    /// Writes to the tiers what was put in memory.
    fn keep(&self, bytes: &[u8], value: Option<&V>, of: (&Ticket, &Fill, Arc<[Cursor]>)) {
        let (ticket, fill, stamp) = of;
        for persist in &self.options.tiers {
            let left = match fill.times.expires {
                u64::MAX => None,
                expires => Some(expires.saturating_sub(fill.times.filled)),
            };
            let left = persist.ttl.map(nanos).or(left);
            let expires = left.map_or(u64::MAX, |left| self.wall.wall_ms() + left / 1_000_000);
            let kept = Kept {
                absent: value.is_none(),
                life: self.life,
                stripe: ticket.stripe,
                number: ticket.number,
                expires,
                tags: fill.tags.clone(),
                stamp: Arc::clone(&stamp),
            };
            let write = |out: &mut Vec<u8>| {
                if let Some(value) = value {
                    (persist.write)(value, out);
                }
            };
            if let Some(record) = kept.encode((self.domain, bytes), write) {
                persist.tier.put(bytes, &record);
            }
        }
    }

    /// What a tier has of a key and can prove, put in memory under `ticket`.
    fn ask_tiers(&self, probe: &Probe<'_>, key: &K, ticket: &Ticket) -> Option<Had<V>> {
        for persist in &self.options.tiers {
            let Some(record) = persist.tier.get(probe.bytes) else { continue };
            let of = (self.domain, probe.bytes);
            let Some((kept, value)) = Kept::decode(&record, of) else {
                persist.tier.remove(probe.bytes);
                continue;
            };
            let now_ms = self.wall.wall_ms();
            let proven = now_ms < kept.expires && self.proven(&kept, probe.bytes, ticket);
            let value = if kept.absent { Some(None) } else { (persist.read)(value).map(Some) };
            let Some(value) = value.filter(|_| proven) else {
                self.count(Count::TierRefused);
                persist.tier.remove(probe.bytes);
                continue;
            };
            let filled = self.clock.nanos();
            let left = kept.expires.saturating_sub(now_ms).saturating_mul(1_000_000);
            let mut fill = self.fill(probe.bytes, value.as_ref(), (filled, Load::default()));
            fill.times.expires = filled.saturating_add(left);
            fill.times.refresh = fill.times.refresh.min(fill.times.expires);
            fill.tags.clone_from(&kept.tags);
            // What a token came for meanwhile answers who came before it.
            let _admitted = self.put(probe, key.clone(), (value.clone(), ticket, fill));
            self.count(Count::TierHit);
            self.tell(probe.bytes, EventKind::TierHit);
            return Some(Had(value));
        }
        None
    }

    /// Has no token spoken of a record, for all that is known under `ticket`?
    fn proven(&self, kept: &Kept, bytes: &[u8], ticket: &Ticket) -> bool {
        let (stripe, number) = if kept.life == self.life {
            (kept.stripe, kept.number)
        } else {
            let Some(proof) = &self.proof else { return false };
            if !proof.holds(&kept.stamp, bytes, &kept.tags) {
                return false;
            }
            // What was applied in this life is counted from the beginning.
            (0, 0)
        };
        let marks: &[TagHash] = &kept.tags;
        stripe == ticket.stripe && self.scope.marks.spare(number, bytes, marks)
    }

    /// A key from a tier, for those who do not want the source to be asked.
    pub(super) fn promote(&self, probe: &Probe<'_>, key: impl FnOnce() -> K) -> Option<Had<V>> {
        if self.options.tiers.is_empty() {
            return None;
        }
        let ticket = self.table.read(probe.hash)?.ticket(probe.hash, &self.scope.marks);
        self.ask_tiers(probe, &key(), &ticket)
    }
}
