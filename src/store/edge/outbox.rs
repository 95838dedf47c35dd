//! The log as a source.

use std::sync::Arc;
use std::time::Duration;

use super::super::cursor::Cursor;

use super::super::stream::{Begin, Fact, Filter, Happening, Position, Readers, Subscription};
use super::Lease;
use crate::actor::provider::EventStore as _;
use crate::edge::{Fault, Flow, Gap, Give, Mark, Pos, Resume, Source, Why};
use crate::error::{ReadError, StreamError};
use crate::log::{Limit, Log};
use crate::types::{HybridTime, Lsn, Seq};

/// One thing that has happened, taken out of the log: a [`Happening`] that is not borrowed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Occurrence {
    /// Where it stands.
    pub position: Position,
    /// Its number among the actor's events.
    pub seq: Seq,
    /// When its turn was appended.
    pub time: HybridTime,
    /// The actor's kind.
    pub kind: Arc<str>,
    /// The actor's name.
    pub name: Arc<str>,
    /// What it is.
    pub fact: Fact,
    /// Version of what is in `bytes`.
    pub version: u16,
    /// The event's archive.
    pub bytes: Vec<u8>,
}

/// A source that is the log. See [`Store::outbox`](crate::Store::outbox).
#[derive(Debug)]
pub struct Outbox {
    log: Arc<Log>,
    readers: Arc<Readers>,
    cursor: Cursor,
    filter: Filter,
    subscription: Option<Subscription>,
    /// The last one that was given, and the last one that is done.
    given: Option<Pos>,
    done: Option<Pos>,
    /// Kind and name of the last one: most have those of the one before.
    last: Option<(Arc<str>, Arc<str>)>,
    _lease: Lease,
}

fn pos(position: Position) -> Pos {
    Pos { epoch: 0, seq: position.lsn(), part: position.index() }
}

fn position(pos: Pos) -> Position {
    Position::new(pos.seq, pos.part)
}

/// Tells a record from any other that could come to stand at its position.
fn hash(store: u64, time: HybridTime, bytes: &[u8]) -> u64 {
    store ^ time.bits() ^ (u64::from(crc32fast::hash(bytes)) << 16)
}

impl Outbox {
    pub(super) fn new(
        (log, readers): (&Arc<Log>, &Arc<Readers>),
        cursor: Cursor,
        filter: Filter,
        lease: Lease,
    ) -> Self {
        Self {
            log: Arc::clone(log),
            readers: Arc::clone(readers),
            cursor,
            filter,
            subscription: None,
            given: None,
            done: None,
            last: None,
            _lease: lease,
        }
    }

    /// Is the record at `mark` the one that it was? What retention has dropped since may have
    /// been.
    fn is_same(&self, mark: Mark) -> Result<bool, Fault> {
        let (Some(expected), Some(lsn)) = (mark.hash, Lsn::new(mark.pos.seq)) else {
            return Ok(mark.hash.is_none());
        };
        let mut found = None;
        let read = self.log.frame(lsn, &mut |frame| {
            let number = usize::try_from(mark.pos.part).unwrap_or(usize::MAX);
            let record = frame.records().nth(number).and_then(Result::ok);
            let of = |payload| hash(self.log.id(), frame.header().time, payload);
            found = record.map(|record| of(record.payload));
        });
        match read {
            Ok(()) => Ok(found == Some(expected)),
            Err(ReadError::PositionLost { .. }) => Ok(self.log.has_dropped()),
            // No frame begins there.
            Err(ReadError::Damage(_)) => Ok(false),
            Err(error) => Err(Fault::fatal(Why::error(error))),
        }
    }

    fn taken(&mut self, happening: &Happening<'_>) -> Occurrence {
        let known = self.last.take();
        let known =
            known.filter(|(kind, name)| **kind == *happening.kind && **name == *happening.name);
        let (kind, name) = known.unwrap_or_else(|| (happening.kind.into(), happening.name.into()));
        self.last = Some((Arc::clone(&kind), Arc::clone(&name)));
        Occurrence {
            position: happening.position,
            seq: happening.seq,
            time: happening.time,
            kind,
            name,
            fact: happening.fact,
            version: happening.version,
            bytes: happening.bytes.to_vec(),
        }
    }
}

impl Source for Outbox {
    type Item = Occurrence;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        if let Some(mark) = at
            && !self.is_same(mark)?
        {
            return Ok(Resume::Diverged);
        }
        let begin = match at {
            Some(mark) => Begin::At(position(mark.pos).next()),
            None => self.cursor.position().map_or(Begin::First, Begin::At),
        };
        let opened = Subscription::open(
            (&self.log, &self.readers),
            self.filter.clone(),
            begin,
            Limit::Durable,
        );
        match opened {
            Ok(subscription) => self.subscription = Some(subscription.keep(&self.cursor)),
            Err(StreamError::Read(ReadError::PositionLost { .. })) => return Ok(Resume::Diverged),
            Err(error) => return Err(Fault::fatal(Why::error(error))),
        }
        (self.given, self.done) = (at.map(|mark| mark.pos), None);
        Ok(Resume::Exact)
    }

    fn pull(
        &mut self,
        max: usize,
        limit: Duration,
        out: &mut dyn Give<Occurrence>,
    ) -> Result<Flow, Fault> {
        let Some(mut subscription) = self.subscription.take() else {
            return Err(Fault::fatal("pulled before a seek"));
        };
        let mut flow = Ok(Flow::More);
        let mut wait = limit;
        for _ in 0..max {
            match subscription.next(wait) {
                Ok(Some(happening)) => {
                    let at = pos(happening.position);
                    let hash = hash(self.log.id(), happening.time, happening.bytes);
                    let taken = self.taken(&happening);
                    self.given = Some(at);
                    out.give_hashed(at, hash, taken);
                }
                Ok(None) => {
                    flow = Ok(Flow::Idle);
                    break;
                }
                Err(StreamError::Dropped { upto }) => {
                    let before = Some(Pos::new(0, upto));
                    flow = Ok(Flow::Gap(Gap { after: self.given, before, lost: None }));
                    break;
                }
                Err(StreamError::Closed) => {
                    flow = Ok(Flow::End);
                    break;
                }
                Err(StreamError::Frame { lsn, reject }) => {
                    self.given = Some(Pos::new(0, lsn.get()));
                    flow = Err(Fault::poison(Pos::new(0, lsn.get()), reject.to_string()));
                    break;
                }
                Err(error) => {
                    flow = Err(Fault::fatal(Why::error(error)));
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        if self.given == self.done && matches!(flow, Ok(Flow::Idle)) {
            // All that was delivered is done, and what lies behind is not asked for.
            subscription.ack().map_err(|error| Fault::fatal(Why::error(error)))?;
        }
        self.subscription = Some(subscription);
        flow
    }

    fn done(&mut self, at: Pos) -> Result<(), Fault> {
        self.done = Some(at);
        let Some(subscription) = &mut self.subscription else { return Ok(()) };
        match subscription.ack_delivered(position(at).next()) {
            // Those that are gone are saved no more; they come again, and are known.
            Ok(()) | Err(StreamError::Closed) => Ok(()),
            Err(StreamError::Append(error)) => match super::append_fault(error) {
                Fault::Fatal(_) => Ok(()),
                retry => Err(retry),
            },
            Err(error) => Err(Fault::fatal(Why::error(error))),
        }
    }
}
