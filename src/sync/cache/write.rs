//! Writing: what a cache's own calls say to everybody, and what tokens do to it.
//!
//! A write raises its generation before anything else can be seen of it, so a load that had begun
//! is not remembered over it; and its own value is put only if its token was the only one since
//! its ticket was taken. **A write does not wait for the network.**

use crate::sync::apply::PublishError;
use crate::sync::cache::counters::Count;
use crate::sync::cache::entry::Entry;
use crate::sync::cache::events::{CacheStats, EventKind, Why};
use crate::sync::cache::flight::Ticket;
use crate::sync::cache::hold::What;
use crate::sync::cache::key::Key;
use crate::sync::cache::load::Load;
use crate::sync::cache::marks::TagHash;
use crate::sync::cache::options::{Keep, Values};
use crate::sync::cache::scope::Remembers;
use crate::sync::cache::table::{Probe, Slot};
use crate::sync::cache::version::Version;
use crate::sync::cache::{Cache, Inner};
use crate::sync::token::TokenKind;

/// Why a write has not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The source did not take it. What was remembered is forgotten everywhere, for who knows.
    #[error("the source did not take it")]
    Source(#[source] E),
    /// It was made, and could not be said to the other nodes; here it was heeded.
    #[error(transparent)]
    Say(#[from] PublishError),
}

impl<K, V> Cache<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    /// Remembers a value that the caller knows to be the source's, and says on all nodes that the
    /// key has changed.
    ///
    /// Where others may write the same key at the same time, use [`write`](Self::write): only what
    /// knows when the source was written knows whose value is the later.
    ///
    /// # Errors
    /// Nothing was said to the others; here the key was forgotten.
    pub fn set<Q>(&self, key: &Q, value: V) -> Result<(), PublishError>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized,
    {
        self.set_with(key, value, |_load| {})
    }

    /// Like [`set`](Self::set), with a TTL, tags or a weight.
    ///
    /// # Errors
    /// See [`set`](Self::set).
    pub fn set_with<Q>(
        &self,
        key: &Q,
        value: V,
        say: impl FnOnce(&mut Load),
    ) -> Result<(), PublishError>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized,
    {
        let mut said = Load::default();
        say(&mut said);
        key.with_bytes(|bytes| {
            let probe = self.0.table.probe(bytes);
            let ticket = self.0.ticket(&probe);
            self.0.set(&probe, key.to_owned(), (Some(value), ticket, said))
        })
    }

    /// [`set`](Self::set) for each, in their order. The first error ends it.
    ///
    /// # Errors
    /// See [`set`](Self::set).
    pub fn set_many<'a, Q>(
        &self,
        pairs: impl IntoIterator<Item = (&'a Q, V)>,
    ) -> Result<(), PublishError>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized + 'a,
    {
        pairs.into_iter().try_for_each(|(key, value)| self.set(key, value))
    }

    /// Writes a source, and says so: `change` writes it and answers its value then, `None` if it
    /// has none any more. The value is remembered only if no token of the key came since before
    /// `change` began.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write<Q, E>(
        &self,
        key: &Q,
        change: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<(), WriteError<E>>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized,
    {
        key.with_bytes(|bytes| {
            let probe = self.0.table.probe(bytes);
            let ticket = self.0.ticket(&probe);
            match change() {
                Ok(value) => {
                    let put = (value, ticket, Load::default());
                    Ok(self.0.set(&probe, key.to_owned(), put)?)
                }
                Err(error) => {
                    // It may have been made all the same.
                    self.0.say(&What::Key(bytes.into()), (TokenKind::Key, bytes))?;
                    Err(WriteError::Source(error))
                }
            }
        })
    }

    /// Forgets a key, on all nodes.
    ///
    /// # Errors
    /// Nothing was said to the others; here it was forgotten. So for all below.
    pub fn remove<Q>(&self, key: &Q) -> Result<(), PublishError>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized,
    {
        key.with_bytes(|bytes| self.0.say(&What::Key(bytes.into()), (TokenKind::Key, bytes)))
    }

    /// Forgets keys, on all nodes.
    ///
    /// # Errors
    /// See [`remove`](Self::remove).
    pub fn remove_many<'a, Q>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
    ) -> Result<(), PublishError>
    where
        Q: Key + ToOwned<Owned = K> + ?Sized + 'a,
    {
        keys.into_iter().try_for_each(|key| self.remove(key))
    }

    /// Forgets all that bears a tag, on all nodes, whatever there is of it: O(1).
    ///
    /// # Errors
    /// See [`remove`](Self::remove).
    pub fn remove_tag(&self, tag: impl AsRef<[u8]>) -> Result<(), PublishError> {
        let tag = tag.as_ref();
        self.0.say(&What::Tag(TagHash::of(tag)), (TokenKind::Tag, tag))
    }

    /// Forgets all whose key's bytes begin so, on all nodes: O(1).
    ///
    /// # Errors
    /// See [`remove`](Self::remove).
    pub fn remove_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<(), PublishError> {
        let prefix = prefix.as_ref();
        self.0.say(&What::Prefix(prefix.into()), (TokenKind::Prefix, prefix))
    }

    /// Forgets everything, on all nodes: O(1).
    ///
    /// # Errors
    /// See [`remove`](Self::remove).
    pub fn clear(&self) -> Result<(), PublishError> {
        self.0.say(&What::All, (TokenKind::All, &[]))
    }
}

impl<K, V> Inner<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn ticket(&self, probe: &Probe<'_>) -> Ticket {
        let marks = &self.scope.marks;
        let shard = self.table.read(probe.hash);
        let number = marks.number();
        let none = Ticket { hash: probe.hash, stripe: u64::MAX, number };
        shard.map_or(none, |shard| shard.ticket(probe.hash, marks))
    }

    /// Says it, and so has it applied here; without a node, applies it.
    fn say(&self, what: &What, (kind, body): (TokenKind, &[u8])) -> Result<(), PublishError> {
        let why = match what {
            What::Key(_) => Why::Key,
            What::Tag(_) => Why::Tag,
            What::Prefix(_) => Why::Prefix,
            What::All => Why::All,
        };
        match self.manager.publisher() {
            None => self.scope.invalidate(what, None, why),
            Some(publisher) => {
                if let Err(error) = publisher.publish(self.domain, kind, body) {
                    self.scope.invalidate(what, None, why);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Says that a key has changed, and puts its value if nobody else has said so since `ticket`.
    pub(super) fn set(
        &self,
        probe: &Probe<'_>,
        key: K,
        (value, ticket, said): (Option<V>, Ticket, Load),
    ) -> Result<(), PublishError> {
        if let (Some(values), Some(value), Some(publisher)) =
            (&self.options.values, &value, self.manager.publisher())
            && let Some(body) = values.body(probe.bytes, value)
        {
            // It comes back through the applier, which puts it by its version.
            let said = publisher.publish(self.domain, TokenKind::Put, &body);
            if said.is_ok() {
                self.tell(probe.bytes, EventKind::Set);
            }
            return said.map(drop);
        }
        self.say(&What::Key(probe.bytes.into()), (TokenKind::Key, probe.bytes))?;
        let filled = self.clock.nanos();
        let negative = value.is_none() && self.options.negative_ttl.is_none();
        if !said.forget && !negative {
            let fill = self.fill(probe.bytes, value.as_ref(), (filled, said));
            // Its own token is one more, and any other voids it.
            let own = Ticket { stripe: ticket.stripe.wrapping_add(1), ..ticket };
            let _admitted = self.admit(probe, key, (value, &own, fill, self.stamp()));
        }
        self.tell(probe.bytes, EventKind::Set);
        Ok(())
    }
}

impl<K, V> Values<K, V> {
    /// The body of a token that carries a value; `None` if it is too long to be sent.
    fn body(&self, key: &[u8], value: &V) -> Option<Vec<u8>> {
        let mut body = u32::try_from(key.len()).ok()?.to_le_bytes().to_vec();
        body.extend_from_slice(key);
        let before = body.len();
        (self.write)(value, &mut body);
        (body.len() - before <= self.bytes_max).then_some(body)
    }
}

impl<K, V> Remembers for Inner<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    fn forget(&self, key: &[u8], version: Option<Version>, why: Why) {
        let probe = self.table.probe(key);
        let keep = self.options.serve_invalidated.then(|| self.clock.nanos());
        if let (Some(values), Some(version)) = (&self.options.values, version) {
            self.change_register(&probe, values, (version, None));
        } else {
            let Some(mut shard) = self.table.write(probe.hash) else { return };
            shard.raise(probe.hash);
            let removed = shard.remove(&probe, keep);
            drop(shard);
            drop(removed);
        }
        self.count(Count::Invalidated);
        self.tell(key, EventKind::Invalidated(why));
    }

    fn raise(&self, key: &[u8]) {
        let hash = self.table.probe(key).hash;
        if let Some(mut shard) = self.table.write(hash) {
            shard.raise(hash);
        }
    }

    fn put(&self, key: &[u8], value: &[u8], version: Version) {
        let probe = self.table.probe(key);
        let sent = self.options.values.as_ref();
        let Some((values, value)) = sent.and_then(|it| Some((it, (it.read)(value)?))) else {
            // Values are not taken here, or not such: it says that the key has changed.
            return self.forget(key, Some(version), Why::Put);
        };
        self.change_register(&probe, values, (version, Some(value)));
        self.count(Count::Invalidated);
        self.tell(key, EventKind::Invalidated(Why::Put));
    }

    fn tell(&self, what: &[u8], why: Why) {
        self.count(Count::Invalidated);
        Self::tell(self, what, EventKind::Invalidated(why));
    }

    fn stats(&self) -> (String, CacheStats) {
        (self.name.clone(), Self::stats(self))
    }
}

impl<K, V> Inner<K, V>
where
    K: Key + Clone,
    V: Clone + Send + Sync + 'static,
{
    /// A value that was sent, or an invalidation, by its version: generation up, then what counts
    /// of the key now.
    fn change_register(
        &self,
        probe: &Probe<'_>,
        values: &Values<K, V>,
        (version, value): (Version, Option<V>),
    ) {
        let Some(key) = (values.key)(probe.bytes) else { return };
        let Some(mut shard) = self.table.write(probe.hash) else { return };
        shard.raise(probe.hash);
        let ticket = shard.ticket(probe.hash, &self.scope.marks);
        let (held, mut register) = shard.take_register(probe, self.scope.marks.floor());
        match value {
            Some(value) => {
                register.put(version, value, values.merge.is_some());
            }
            None => register.invalidate(version),
        }
        let wanted = held || values.keep == Keep::All;
        let admitted = wanted && !self.scope.holds.hold(probe.bytes, &[]);
        let counts = register.value(values.merge.as_deref());
        let entry = counts.filter(|_| admitted).map(|value| {
            let now = self.clock.nanos();
            let fill = self.fill(probe.bytes, Some(&value), (now, Load::default()));
            Entry::new(Some(value), &ticket, fill)
        });
        let slot = (probe.hash, Slot(key));
        let evicted = shard.put_register(slot, register, entry);
        drop(shard);
        self.evicted(&evicted);
    }
}
