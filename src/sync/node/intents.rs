//! Intents: changes that are made outside (a SQL commit), announced before they are made.
//!
//! While an intent is open nobody remembers anything of its keys. **It is closed by word alone**,
//! that the change was made ([`Intent::done`]) or that it was found out ([`Resolve`]): never by
//! time, by a crash or by a new life, which announces the open ones again.
//!
//! They are in a stream of their own in the event log: each frame has the token, and a note with
//! the number of the stream's frame from which on everything that is open can be found.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::ReadError;
use crate::log::frame::{Batch, RecordKind};
use crate::log::{Log, name};
use crate::sync::domain::DomainId;
use crate::sync::node::Inner;
use crate::sync::node::error::NodeError;
use crate::sync::node::rim::Shared;
use crate::sync::origin::Lane;
use crate::sync::own::{Published, Said};
use crate::sync::token::{Token, TokenKind, split};
use crate::types::{Seq, StreamId};

/// Kind and name of the stream.
const STREAM: (&str, &str) = ("annals.intents", "open");
const VERSION: u16 = 1;

/// What became of a change that was announced.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It is settled: the change was made, or never will be.
    Settled,
    /// Nobody knows yet: ask again.
    Unknown,
}

/// Finds out what became of changes whose maker was interrupted: see
/// [`NodeConfig::resolver`](super::NodeConfig::resolver).
pub trait Resolve: Send + Sync + 'static {
    /// Was the change made, or can it not be made any more? Asked from a thread of the node's,
    /// again after a second while the answer is [`Resolution::Unknown`].
    fn resolve(&self, id: u64, domain: DomainId, keys: &[Vec<u8>]) -> Resolution;
}

impl<F: Fn(u64, DomainId, &[Vec<u8>]) -> Resolution + Send + Sync + 'static> Resolve for F {
    fn resolve(&self, id: u64, domain: DomainId, keys: &[Vec<u8>]) -> Resolution {
        self(id, domain, keys)
    }
}

/// A resolver, as a configuration holds it.
#[derive(Clone)]
pub(crate) struct Resolver(pub Arc<dyn Resolve>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// An intent that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// Names it for ever, in this node.
    pub id: u64,
    /// Of which domain its keys are.
    pub domain: DomainId,
    /// What is about to be changed.
    pub keys: Vec<Vec<u8>>,
    /// Its maker is gone: it waits for somebody to find out.
    pub abandoned: bool,
}

#[derive(Debug)]
struct Cell {
    domain: DomainId,
    body: Vec<u8>,
    /// Its token in this life; 0 before it is announced.
    token: u64,
    frame: Seq,
    abandoned: bool,
}

#[derive(Debug, Default)]
struct Table {
    open: BTreeMap<u64, Cell>,
    last: Seq,
}

/// The open intents of a node.
#[derive(Debug)]
pub(super) struct Intents {
    table: Mutex<Table>,
}

fn stream() -> StreamId {
    StreamId::of(STREAM.0, STREAM.1)
}

fn body_of(id: u64, keys: &[&[u8]]) -> Vec<u8> {
    let mut body = id.to_le_bytes().to_vec();
    for key in keys {
        body.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        body.extend_from_slice(key);
    }
    body
}

fn keys_of(body: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut rest = body.get(8..).unwrap_or_default();
    while let Some((bytes, after)) = rest.split_first_chunk::<4>() {
        let bytes = usize::try_from(u32::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
        let Some((key, after)) = after.split_at_checked(bytes) else { break };
        keys.push(key.to_vec());
        rest = after;
    }
    keys
}

impl Intents {
    /// Reads what earlier lives have left open.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(super) fn read(log: &Log) -> Result<Self, ReadError> {
        let mut table = Table { last: log.last_seq(stream())?, ..Table::default() };
        if table.last > Seq::ZERO {
            let before = |seq: Seq| Seq::new(seq.get().saturating_sub(1)).unwrap_or_default();
            let mut from = Seq::ZERO;
            log.stream(stream(), before(table.last), &mut |frame| {
                let notes = frame.records().flatten().filter(|it| it.kind == RecordKind::Note);
                for note in notes {
                    let base = note.payload.first_chunk().map(|it| u64::from_le_bytes(*it));
                    from = base.and_then(Seq::new).unwrap_or_default();
                }
                ControlFlow::Continue(())
            })?;
            log.stream(stream(), before(from), &mut |frame| {
                for record in frame.records().flatten().filter(|it| it.kind == RecordKind::Token) {
                    let mut rest = record.payload;
                    while let Ok((token, after)) = split(rest) {
                        rest = after;
                        if let Ok(token) = Token::parse(token) {
                            table.take_in(&token, frame.seq());
                        }
                    }
                }
                ControlFlow::Continue(())
            })?;
        }
        for cell in table.open.values_mut() {
            cell.abandoned = true;
        }
        Ok(Self { table: Mutex::new(table) })
    }

    /// Announces all that is open, in a new life.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub(super) fn announce(&self, shared: &Shared) -> Result<(), NodeError> {
        let mut table = self.table.lock();
        for cell in table.open.values_mut() {
            cell.token = 0;
        }
        let open: Vec<_> =
            table.open.iter().map(|(id, cell)| (*id, cell.domain, cell.body.clone())).collect();
        for (id, domain, body) in open {
            let frame = table.append(shared, (TokenKind::Intent, domain, &body))?.0;
            if let Some(cell) = table.open.get_mut(&id) {
                (cell.frame, cell.token) = (frame.0, frame.1);
            }
        }
        table.note_oldest(shared);
        drop(table);
        shared.logs.lane(Lane::Tokens).ring();
        Ok(())
    }

    pub(super) fn open(&self) -> Vec<OpenIntent> {
        let table = self.table.lock();
        let of = |(id, cell): (&u64, &Cell)| OpenIntent {
            id: *id,
            domain: cell.domain,
            keys: keys_of(&cell.body),
            abandoned: cell.abandoned,
        };
        table.open.iter().map(of).collect()
    }

    /// Announces a change; it is durable when this returns.
    ///
    /// # Errors
    /// See [`NodeError`]. After [`NodeError::Sync`] it may be open or not.
    pub(super) fn begin(
        &self,
        shared: &Shared,
        domain: DomainId,
        keys: &[&[u8]],
    ) -> Result<u64, NodeError> {
        let (id, published) = {
            let mut table = self.table.lock();
            let id = table.last.get() + 1;
            let body = body_of(id, keys);
            let ((frame, token), published) =
                table.append(shared, (TokenKind::Intent, domain, &body))?;
            let cell = Cell { domain, body, token, frame, abandoned: false };
            table.open.insert(id, cell);
            table.note_oldest(shared);
            (id, published)
        };
        let own = shared.logs.lane(Lane::Tokens);
        own.ring();
        own.events().wait_durable(published.at.end, None)?;
        Ok(id)
    }

    /// Closes one; `false` if it was not open.
    ///
    /// # Errors
    /// See [`NodeError`]; it is open still.
    pub(super) fn close(
        &self,
        shared: &Shared,
        (id, kind): (u64, TokenKind),
    ) -> Result<bool, NodeError> {
        {
            let mut table = self.table.lock();
            let Some(domain) = table.open.get(&id).map(|cell| cell.domain) else {
                return Ok(false);
            };
            let cell = table.open.remove(&id);
            if let Err(error) = table.append(shared, (kind, domain, &id.to_le_bytes())) {
                table.open.extend(cell.map(|cell| (id, cell)));
                return Err(error);
            }
            table.note_oldest(shared);
        }
        shared.logs.lane(Lane::Tokens).ring();
        Ok(true)
    }

    /// Frames of the stream that nobody needs any more.
    pub(super) fn goes_upto(&self, of: StreamId) -> Option<Seq> {
        if of != stream() {
            return None;
        }
        let table = self.table.lock();
        // The last one stays, and says from where on there is what is open.
        let oldest = table.open.values().map(|cell| cell.frame).min().unwrap_or(table.last);
        Seq::new(oldest.get().saturating_sub(1))
    }

    fn abandon(&self, id: u64) {
        if let Some(cell) = self.table.lock().open.get_mut(&id) {
            cell.abandoned = true;
        }
    }
}

impl Table {
    fn take_in(&mut self, token: &Token<'_>, frame: Seq) {
        let Some(id) = token.body.first_chunk().map(|id| u64::from_le_bytes(*id)) else { return };
        match token.kind {
            TokenKind::Intent => {
                let (domain, body) = (token.domain, token.body.to_vec());
                let cell = Cell { domain, body, token: 0, frame, abandoned: true };
                self.open.insert(id, cell);
            }
            TokenKind::Done | TokenKind::Resolved => {
                self.open.remove(&id);
            }
            _ => {}
        }
    }

    /// Appends a token to the stream. Answers the frame's number and the token's.
    fn append(
        &mut self,
        shared: &Shared,
        (kind, domain, body): (TokenKind, DomainId, &[u8]),
    ) -> Result<((Seq, u64), Published), NodeError> {
        let closed = || NodeError::Append(crate::error::AppendError::Closed);
        let next = self.last.checked_add(1).ok_or_else(closed)?;
        let oldest = self.open.values().map(|cell| cell.frame).min().unwrap_or(next);
        let mut batch = Batch::new();
        let pushed = (|| {
            if self.last == Seq::ZERO {
                let record = name::encode(STREAM.0, STREAM.1).unwrap_or_default();
                batch.push(RecordKind::Name, 1, &record)?;
            }
            batch.push(RecordKind::Turn, 1, &[])?;
            batch.push(RecordKind::Note, VERSION, &oldest.get().to_le_bytes())
        })();
        pushed.map_err(|_reject| closed())?;
        let said = std::iter::once(Said { kind, domain, body });
        let own = shared.logs.lane(Lane::Tokens);
        let published = own.publish_in(&mut batch, (stream(), next), said)?;
        self.last = next;
        Ok(((next, published.last), published))
    }

    fn note_oldest(&self, shared: &Shared) {
        let oldest = self.open.values().map(|cell| cell.token).min().unwrap_or(0);
        shared.logs.oldest_intent.store(oldest, Ordering::Release);
    }
}

/// A change that is about to be made outside. As long as it is open nobody remembers anything of
/// its keys, on any node.
///
/// Dropped without a word it stays open, until the node's
/// [resolver](super::NodeConfig::resolver), or whoever calls
/// [`Node::resolve`](super::Node::resolve), knows what became of the change.
#[derive(Debug)]
#[must_use = "an intent that is dropped stays open until somebody finds out"]
pub struct Intent {
    pub(super) node: Arc<Inner>,
    pub(super) id: u64,
    pub(super) closed: bool,
}

impl Intent {
    /// Names it for ever, in this node.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The change was made, or will not be: the keys are invalidated once more, and may be
    /// remembered from then on.
    ///
    /// # Errors
    /// See [`NodeError`]; it is as if it were dropped.
    pub fn done(mut self) -> Result<(), NodeError> {
        let closed = self.node.intents.close(&self.node.shared, (self.id, TokenKind::Done));
        self.closed = closed.is_ok();
        closed.map(|_was_open| ())
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        if !self.closed {
            self.node.intents.abandon(self.id);
            self.node.resolve_soon();
        }
    }
}

/// How long an unknown answer stands.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Inner {
    /// Has open intents resolved whose makers are gone, if there is somebody who can.
    pub(super) fn resolve_soon(self: &Arc<Self>) {
        let Some(resolver) = self.config.resolver.clone() else { return };
        let mut resolving = self.resolving.lock();
        let running = resolving.as_ref().is_some_and(|thread| !thread.is_finished());
        let abandoned = || self.intents.open().into_iter().any(|it| it.abandoned);
        if running || self.closed.load(Ordering::SeqCst) || !abandoned() {
            return;
        }
        let inner = Arc::downgrade(self);
        let run = move || {
            while let Some(inner) = Weak::upgrade(&inner) {
                let open = inner.intents.open();
                let open: Vec<_> = open.into_iter().filter(|it| it.abandoned).collect();
                if open.is_empty() || inner.closed.load(Ordering::SeqCst) {
                    return;
                }
                let mut unknown = false;
                for intent in open {
                    let OpenIntent { id, domain, keys, .. } = intent;
                    let resolved = resolver.0.resolve(id, domain, &keys) == Resolution::Settled;
                    let close = || inner.intents.close(&inner.shared, (id, TokenKind::Resolved));
                    unknown |= !resolved || close().is_err();
                }
                if unknown {
                    let closed = || inner.closed.load(Ordering::SeqCst);
                    inner.shared.wait_until(ASK_AGAIN, closed);
                }
            }
        };
        let spawned = std::thread::Builder::new().name("annals-resolve".to_owned()).spawn(run);
        // Without a thread they stay open, and the next drop tries again.
        *resolving = spawned.ok();
    }
}
