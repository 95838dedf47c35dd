//! The event stream: what has happened, to whoever wants to know, from any point on.
//!
//! A [`Subscription`] reads the log from where it begins up to its end, and then waits for more:
//! one call does both, and what lies between is one reader's position, so that nothing is missed
//! or comes twice where old becomes new. Each subscription reads for itself, from the segments'
//! maps, at its own pace: a slow one holds nobody up, and nothing is queued for it.
//!
//! Events come in the order of the log, in compacted files too: there they stand clustered by
//! actor, and are read by the table that has them by position.
//!
//! Unless asked otherwise a subscription ends at what is durable: what a subscriber has learned,
//! no crash takes back.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::Store;
use super::cursor::Cursor;
use super::providers::home;
use crate::actor::provider::EventStore as _;
use crate::actor::{
    Actor, ActorError, Durable, Old, StopReason, Stopped, Value as _, outside_message,
};
use crate::error::{Error, ReadError, StreamError};
use crate::log::frame::{Frame, FrameKind};
use crate::log::{Advanced, Follow, Limit, Log, Tail};
use crate::trace;
use crate::types::{HybridTime, Lsn, Seq};

mod facts;
mod feed;
mod names;
mod reader;
#[cfg(test)]
mod tests;

pub use facts::{Begin, Fact, Filter, Position};
use facts::{By, Leaf, Select};
pub use feed::{Change, Feed, Told};
use names::{Known, Name, Names};
use reader::Reader;
pub(super) use reader::Readers;
pub use reader::SubscriptionStats;

/// Frames that are passed between two looks at the time.
const PATIENCE: u32 = 256;
/// An acknowledgement that comes sooner after the last one waits for the next, or for a call
/// that finds nothing new.
const ACK_EVERY: Duration = Duration::from_millis(10);
/// And where nothing was delivered, a position is only saved if it is this much further.
const ACK_BYTES: u64 = 1 << 20;
/// Who had seen everything and is so far behind now has fallen behind.
const FAR_BEHIND: u64 = 16 << 20;

/// One thing that has happened, borrowed from the log.
#[derive(Debug)]
#[non_exhaustive]
pub struct Happening<'a> {
    /// Where it stands. What to go on from once it is handled is [`end`](Self::end).
    pub position: Position,
    /// Its number among the actor's events.
    pub seq: Seq,
    /// When its turn was appended; increases along the log.
    pub time: HybridTime,
    /// The actor's kind.
    pub kind: &'a str,
    /// The actor's name.
    pub name: &'a str,
    /// What it is.
    pub fact: Fact,
    /// Version of what is in `bytes`: [`Actor::VERSION`] of when the event was stored.
    pub version: u16,
    /// The event's archive.
    pub bytes: &'a [u8],
    frame: Frame<'a>,
    leaf: &'a Leaf,
    store: u64,
}

impl<'a> Happening<'a> {
    /// The position behind it.
    pub fn end(&self) -> Position {
        self.position.next()
    }

    /// The frame that it is in. What happened in one turn shares it.
    pub fn lsn(&self) -> Lsn {
        self.frame.lsn()
    }

    /// What its turn was tagged with.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> {
        payloads(self.frame, &self.leaf.tags).filter_map(|tag| str::from_utf8(tag).ok())
    }

    /// What else its turn says about itself: keys and values.
    pub fn meta(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        payloads(self.frame, &self.leaf.meta).filter_map(facts::meta)
    }

    /// Names this one thing among everything that ever happens anywhere, and is the same each
    /// time that it is delivered: for whoever must not do it twice.
    pub fn delivery(&self) -> Delivery {
        Delivery { store: self.store, position: self.position }
    }

    /// The message to the outside, if it is one of type `M`. Of what is none there is none, nor of
    /// one of another type, or of a version that `M` cannot read.
    pub fn message<M: Durable>(&self) -> Option<M> {
        let message = outside_message(self.version, self.bytes)?;
        (self.fact == Fact::Note && message.name == M::NAME).then_some(())?;
        if self.version == M::VERSION {
            M::decode(message.archive).ok()
        } else {
            M::upcast(self.version, message.archive)
        }
    }

    /// The event, as `A` has it now: an old one may have become several, or none. Of what is no
    /// event there is none.
    ///
    /// # Errors
    /// [`StreamError::Kind`] where it is of another kind; [`ActorError::Stopped`] where it
    /// cannot be read, as its actor would say.
    pub fn decode<A: Actor>(&self) -> Result<Vec<A::Event>, Error> {
        if self.kind != A::KIND {
            let found = self.kind.into();
            return Err(StreamError::Kind { expected: A::KIND, found }.into());
        }
        if self.fact != Fact::Event {
            return Ok(Vec::new());
        }
        let stopped = |why| {
            let (kind, name, lsn) = (A::KIND, self.name.into(), Some(self.lsn()));
            let stopped = Stopped { kind, name, seq: self.seq, lsn, why };
            Error::Actor(ActorError::Stopped(Arc::new(stopped)))
        };
        if self.version == A::VERSION {
            let event = A::Event::decode(self.bytes)
                .map_err(|error| stopped(StopReason::NotArchive(error.to_string().into())))?;
            return Ok(vec![event]);
        }
        let mut events = Vec::new();
        let old = Old::new(self.version, self.seq, self.bytes);
        A::upcast(old, &mut events)
            .map_err(|_unreadable| stopped(StopReason::Unreadable { version: self.version }))?;
        Ok(events)
    }
}

fn payloads<'a>(frame: Frame<'a>, at: &'a [Range<usize>]) -> impl Iterator<Item = &'a [u8]> {
    at.iter().filter_map(move |at| frame.bytes().get(at.clone()))
}

/// Names one thing that happened: in which store, and where in its log.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delivery {
    /// The store's random id.
    pub store: u64,
    /// Where it stands.
    pub position: Position,
}

impl std::fmt::Display for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}.{}", self.store, self.position)
    }
}

/// Where the frames come from.
#[derive(Debug)]
enum Source {
    All(Tail),
    One(Follow),
}

impl Source {
    fn open(log: &Arc<Log>, filter: &Filter, from: u64, limit: Limit) -> Result<Self, ReadError> {
        Ok(match &filter.0 {
            By::Actor(stream) => Self::One(log.follow(*stream, from, limit)?),
            By::All | By::Kind(_) | By::Tag(_) | By::Outside(_) => {
                Self::All(log.tail(from, limit)?)
            }
        })
    }

    fn advance(&mut self, limit: Duration) -> Result<Advanced, ReadError> {
        match self {
            Self::All(tail) => tail.advance(limit),
            Self::One(follow) => follow.advance(limit),
        }
    }

    fn current(&self) -> Result<Option<Frame<'_>>, ReadError> {
        match self {
            Self::All(tail) => tail.current(),
            Self::One(follow) => follow.current(),
        }
    }

    fn position(&self) -> u64 {
        match self {
            Self::All(tail) => tail.position(),
            Self::One(follow) => follow.position(),
        }
    }

    fn gone(&self) -> u64 {
        match self {
            Self::All(tail) => tail.gone(),
            Self::One(follow) => follow.gone(),
        }
    }
}

/// Where it is within what its source has stepped to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Within {
    /// Behind the frame, or before the first.
    Nothing,
    /// At a frame that was not looked into yet.
    Frame,
    /// Before this one of the frame's items.
    Items(usize),
}

/// The cursor that acknowledgements go to.
#[derive(Debug)]
struct Acks {
    cursor: Cursor,
    /// What is there, as far as this subscription knows.
    saved: Position,
    /// What is to be saved; `saved` if nothing is.
    wanted: Position,
    /// When it was last saved.
    at: Duration,
    /// Something was delivered since.
    delivered: bool,
}

/// Delivers what has happened, and then what happens. See [`Store::subscribe`].
///
/// Dropping it saves what was acknowledged.
#[derive(Debug)]
pub struct Subscription {
    log: Arc<Log>,
    filter: Filter,
    limit: Limit,
    source: Source,
    names: Names,
    /// What the frame that it is at holds.
    leaf: Leaf,
    within: Within,
    /// Whose that frame is.
    name: Option<Arc<Name>>,
    /// Records before this are behind, where it began in the midst of a frame.
    begun: Position,
    /// Everything before is delivered, or not asked for.
    behind: Position,
    /// Up to here it was said that something has been dropped.
    told: u64,
    select: Option<Select>,
    acks: Option<Acks>,
    readers: Arc<Readers>,
    reader: Arc<Reader>,
    /// Up to there it had seen everything, and was not far behind since.
    caught_up: Option<u64>,
}

impl Subscription {
    pub(super) fn open(
        (log, readers): (&Arc<Log>, &Arc<Readers>),
        filter: Filter,
        begin: Begin,
        limit: Limit,
    ) -> Result<Self, StreamError> {
        let begun = match begin {
            Begin::First => Position::BEGINNING,
            Begin::Now => Position::new(log.written(), 0),
            Begin::At(position) => position,
        };
        let source = Source::open(log, &filter, begun.lsn(), limit)?;
        Ok(Self {
            log: Arc::clone(log),
            filter,
            limit,
            source,
            names: Names::default(),
            leaf: Leaf::default(),
            within: Within::Nothing,
            name: None,
            begun,
            behind: begun,
            told: 0,
            select: None,
            acks: None,
            readers: Arc::clone(readers),
            reader: readers.begin(begun.lsn(), limit),
            caught_up: None,
        })
    }

    /// From here on [`ack`](Self::ack) saves to `cursor`.
    #[must_use]
    pub fn keep(mut self, cursor: &Cursor) -> Self {
        let saved = cursor.position().unwrap_or_default();
        let at = Duration::ZERO;
        let cursor = cursor.clone();
        self.acks = Some(Acks { cursor, saved, wanted: saved, at, delivered: false });
        self
    }

    /// Delivers notes too that `select` asks for.
    #[must_use]
    #[cfg_attr(not(test), expect(dead_code, reason = "messages to the outside are to come"))]
    pub(crate) fn selecting(mut self, select: Select) -> Self {
        self.select = Some(select);
        self
    }

    /// What comes next. What is there when this is called is looked through, whatever `limit` is;
    /// then it is waited for at most that long, and `None` says that it is over.
    ///
    /// # Errors
    /// See [`StreamError`]. `Dropped` is said once for what it is about. After `Poisoned` and
    /// `Closed` nothing will come.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Happening<'_>>, StreamError> {
        let Some(number) = self.step(limit)? else { return Ok(None) };
        let frame = self.source.current()?;
        let found = frame.zip(self.leaf.items.get(number)).zip(self.name.as_ref());
        Ok(found.map(|((frame, item), name)| Happening {
            position: Position::new(frame.lsn().get(), item.index),
            seq: item.seq,
            time: frame.header().time,
            kind: &name.kind,
            name: &name.name,
            fact: item.fact,
            version: item.version,
            bytes: frame.bytes().get(item.payload.clone()).unwrap_or_default(),
            frame,
            leaf: &self.leaf,
            store: self.log.id(),
        }))
    }

    /// Everything before was delivered, or is not asked for: where another subscription goes on
    /// once all that this one has delivered is handled.
    pub fn position(&self) -> Position {
        self.behind
    }

    /// All that was delivered is handled: the cursor may be set to [`position`](Self::position).
    ///
    /// It is saved with the next frames of the log, and not waited for: after a crash what was
    /// acknowledged last may come again. Those that come within some milliseconds are saved as
    /// one, with the next of them, before [`next`](Self::next) waits, or when this is dropped.
    ///
    /// # Errors
    /// [`StreamError::NoCursor`]; [`StreamError::Append`]: what was to be saved is saved with the
    /// next one.
    pub fn ack(&mut self) -> Result<(), StreamError> {
        self.ack_at(self.behind)
    }

    /// As [`ack_at`](Self::ack_at), for something that was delivered before the last one was saved.
    pub(super) fn ack_delivered(&mut self, position: Position) -> Result<(), StreamError> {
        if let Some(acks) = &mut self.acks {
            acks.delivered = true;
        }
        self.ack_at(position)
    }

    pub(super) fn ack_at(&mut self, position: Position) -> Result<(), StreamError> {
        let Some(acks) = &mut self.acks else { return Err(StreamError::NoCursor) };
        acks.wanted = position;
        let now = self.log.clock().monotonic();
        if acks.at == Duration::ZERO || now.saturating_sub(acks.at) >= ACK_EVERY {
            self.save_acks()?;
        }
        Ok(())
    }

    /// Saves what was acknowledged, if that is worth a frame.
    fn save_acks(&mut self) -> Result<(), StreamError> {
        let Some(acks) = &mut self.acks else { return Ok(()) };
        let further = acks.wanted.lsn().saturating_sub(acks.saved.lsn()) >= ACK_BYTES;
        if acks.wanted == acks.saved || !(acks.delivered || further) {
            return Ok(());
        }
        acks.cursor.save(acks.wanted)?;
        acks.saved = acks.wanted;
        acks.at = self.log.clock().monotonic();
        acks.delivered = false;
        Ok(())
    }

    /// Steps to the next item; answers its number in the leaf.
    fn step(&mut self, limit: Duration) -> Result<Option<usize>, StreamError> {
        let began = self.log.clock().monotonic();
        // What is there now is looked at, however long that takes; only then it is waited.
        let end = match self.limit {
            Limit::Written => self.log.written(),
            Limit::Durable => self.log.durable(),
        };
        if let Some(seen) = self.caught_up
            && end.saturating_sub(seen.max(self.behind.lsn())) > FAR_BEHIND
        {
            self.tell_behind(end);
        }
        let mut left = limit;
        let mut passed = 0_u32;
        loop {
            match self.within {
                Within::Items(number) => {
                    if let (Some(item), Some(frame)) =
                        (self.leaf.items.get(number), self.source.current()?)
                    {
                        self.behind = Position::new(frame.lsn().get(), item.index).next();
                        self.within = Within::Items(number + 1);
                        if let Some(acks) = &mut self.acks {
                            acks.delivered = true;
                        }
                        return Ok(Some(number));
                    }
                    self.passed();
                }
                Within::Frame => {
                    self.tell_gone()?;
                    self.look()?;
                    passed += 1;
                    if passed.is_multiple_of(PATIENCE) && self.within == Within::Nothing {
                        let spent = self.log.clock().monotonic().saturating_sub(began);
                        left = limit.saturating_sub(spent);
                        if left.is_zero() && self.behind.lsn() >= end {
                            return Ok(None);
                        }
                    }
                }
                Within::Nothing => match self.advance(left)? {
                    Advanced::Frame => self.within = Within::Frame,
                    Advanced::Over => {
                        self.has_seen(end);
                        self.tell_gone()?;
                        return Ok(None);
                    }
                    Advanced::Ended => {
                        self.tell_gone()?;
                        return Err(match self.log.poisoned() {
                            Some(error) => StreamError::Poisoned(error),
                            None => StreamError::Closed,
                        });
                    }
                },
            }
        }
    }

    /// The next frame. Before it waits for one, what was acknowledged is saved.
    fn advance(&mut self, limit: Duration) -> Result<Advanced, StreamError> {
        let advanced = self.source.advance(Duration::ZERO)?;
        if advanced != Advanced::Over {
            return Ok(advanced);
        }
        self.save_acks()?;
        if limit.is_zero() {
            return Ok(advanced);
        }
        self.reader.is_waiting();
        let advanced = self.source.advance(limit);
        let frame = if let Ok(Advanced::Frame) = advanced { self.source.current()? } else { None };
        let seen = frame.map_or_else(|| self.log.durable(), |frame| frame.lsn().get());
        self.has_seen(seen);
        Ok(advanced?)
    }

    /// There is nothing of it up to there, though the last of it may be far below.
    fn has_seen(&mut self, upto: u64) {
        let seen = self.caught_up.unwrap_or(0).max(upto);
        self.caught_up = Some(seen);
        self.reader.stands_at(self.behind.lsn().max(seen));
    }

    /// The name of its cursor, if it has one.
    fn cursor(&self) -> &str {
        self.acks.as_ref().map_or("", |acks| acks.cursor.name())
    }

    #[cold]
    fn tell_behind(&mut self, lsn_end: u64) {
        self.caught_up = None;
        let (path, filter, cursor) = (home(&self.log), &self.filter, self.cursor());
        let lsn = self.behind.lsn();
        trace::SubscriptionBehind { path, filter, cursor, lsn, lsn_end }.tell();
    }

    /// Says once what has been dropped, before anything behind it.
    fn tell_gone(&mut self) -> Result<(), StreamError> {
        let upto = self.source.gone();
        if upto > self.told {
            let (path, filter, cursor) = (home(&self.log), &self.filter, self.cursor());
            let lsn = self.begun.lsn().max(self.told);
            trace::SubscriptionCut { path, filter, cursor, lsn, lsn_end: upto }.tell();
            self.told = upto;
            return Err(StreamError::Dropped { upto });
        }
        Ok(())
    }

    /// The frame is behind.
    fn passed(&mut self) {
        self.within = Within::Nothing;
        self.behind = Position::new(self.source.position(), 0);
        self.reader.stands_at(self.behind.lsn());
    }

    /// Looks into the frame: at its items if any of them is asked for, else behind it.
    fn look(&mut self) -> Result<(), StreamError> {
        match self.wants() {
            Ok(true) => self.within = Within::Items(0),
            Ok(false) => self.passed(),
            // It is asked for again.
            Err(error @ StreamError::Read(_)) => return Err(error),
            Err(error) => {
                self.passed();
                return Err(error);
            }
        }
        Ok(())
    }

    fn wants(&mut self) -> Result<bool, StreamError> {
        let Some(frame) = self.source.current()? else { return Ok(false) };
        if !facts::is_of_users(&frame) {
            return Ok(false);
        }
        let (stream, lsn) = (frame.stream(), frame.lsn());
        let known = match &self.filter.0 {
            By::Tag(_) | By::Outside(_) if frame.header().kind == FrameKind::Single => {
                return Ok(false);
            }
            By::Tag(_) | By::Outside(_) => None,
            By::All | By::Kind(_) | By::Actor(_) => self.names.get(stream),
        };
        if matches!(known, Some(Known::Other)) {
            return Ok(false);
        }
        let from = if lsn.get() == self.begun.lsn() { self.begun.index() } else { 0 };
        let leaf = &mut self.leaf;
        let select = match &self.filter.0 {
            By::Outside(_) => Some(facts::is_outside as Select),
            By::All | By::Kind(_) | By::Actor(_) | By::Tag(_) => self.select,
        };
        leaf.read(&frame, from, select).map_err(|reject| StreamError::Frame { lsn, reject })?;
        let asked = match &self.filter.0 {
            By::Outside(topic) => {
                leaf.keep_topic(&frame, topic);
                true
            }
            By::Tag(tag) => leaf.has_tag(&frame, tag),
            By::All | By::Kind(_) | By::Actor(_) => true,
        };
        // A name that is here need not be read later.
        if !asked || (leaf.items.is_empty() && leaf.name.is_none()) {
            return Ok(false);
        }
        let known = known.or_else(|| self.names.get(stream));
        let Known::Wanted(name) = known.map_or_else(
            || {
                let known = find(&self.log, &self.filter, leaf, &frame)?;
                self.names.put(stream, known.clone());
                Ok(known)
            },
            Ok::<_, StreamError>,
        )?
        else {
            return Ok(false);
        };
        self.name = Some(name);
        Ok(!self.leaf.items.is_empty())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Whoever wants to know calls `ack` and `Cursor::save`; after a crash it comes again.
        drop(self.save_acks());
        self.readers.end(&self.reader);
    }
}

/// What is worth knowing of the stream of `frame`, which may say itself whose it is.
fn find(log: &Log, filter: &Filter, leaf: &Leaf, frame: &Frame<'_>) -> Result<Known, StreamError> {
    if let Some((kind, name)) = leaf.named(frame) {
        return Ok(learn(filter, kind, name));
    }
    let (lsn, stream) = (frame.lsn(), frame.stream());
    let found = log.name_of(stream)?;
    let (kind, name) = found.ok_or(StreamError::Unnamed { lsn, stream })?;
    Ok(learn(filter, &kind, &name))
}

/// What is worth knowing of a stream with this kind and name.
fn learn(filter: &Filter, kind: &str, name: &str) -> Known {
    let wanted = match &filter.0 {
        By::All | By::Tag(_) | By::Outside(_) => !kind.starts_with(facts::OWN),
        By::Kind(asked) => **asked == *kind,
        By::Actor(_) => true,
    };
    if wanted {
        Known::Wanted(Arc::new(Name { kind: kind.into(), name: name.into() }))
    } else {
        Known::Other
    }
}

impl Store {
    /// Delivers the events that `filter` asks for: from `begin` on those that are there, then each
    /// as it comes, in the order in which they were appended, each once.
    ///
    /// What is delivered is durable: no crash takes back what a subscriber has learned. Where
    /// nobody waits for durability, an event becomes durable within
    /// [`flush_interval`](super::StoreOptions::flush_interval).
    ///
    /// A subscription is a reader of its own: it belongs to one thread, and nobody waits for it.
    /// It remembers names of actors in up to 25 MB. Kinds that begin with `annals.` are
    /// the store's own, and are not delivered.
    ///
    /// ```
    /// # use annals::{Actor, Handle, Store, Turn, rkyv::{Archive, Deserialize, Serialize}};
    /// # #[derive(Default)]
    /// # struct Counter(u64);
    /// # #[derive(Archive, Serialize, Deserialize)]
    /// # #[rkyv(crate = annals::rkyv)]
    /// # struct Added(u64);
    /// # impl Actor for Counter {
    /// #     type Event = Added;
    /// #     const KIND: &'static str = "counter";
    /// #     fn apply(&mut self, event: &Added) {
    /// #         self.0 += event.0;
    /// #     }
    /// # }
    /// # struct Add(u64);
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u64;
    /// #     fn handle(command: Add, turn: &mut Turn<'_, Self>) -> u64 {
    /// #         turn.emit(Added(command.0));
    /// #         turn.0
    /// #     }
    /// # }
    /// use annals::{Begin, Filter};
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Store::open(dir.path())?;
    /// let mut events = store.subscribe(Filter::kind("counter"), Begin::First)?;
    /// store.actor::<Counter>("visits")?.ask(Add(2))?;
    /// let happening = events.next(Duration::from_secs(1))?.ok_or("nothing came")?;
    /// assert_eq!((happening.name, happening.seq.get()), ("visits", 1));
    /// assert_eq!(happening.decode::<Counter>()?.first().map(|added| added.0), Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StreamError::Read`], where a position is none of this store's log, or was lost.
    pub fn subscribe(
        &self,
        filter: Filter,
        begin: impl Into<Begin>,
    ) -> Result<Subscription, Error> {
        Ok(Subscription::open((&self.events, &self.readers), filter, begin.into(), Limit::Durable)?)
    }

    /// As [`subscribe`](Self::subscribe), up to what is appended: sooner, but a power cut can
    /// take back what was delivered last.
    ///
    /// # Errors
    /// As for [`subscribe`](Self::subscribe).
    pub fn subscribe_written(
        &self,
        filter: Filter,
        begin: impl Into<Begin>,
    ) -> Result<Subscription, Error> {
        Ok(Subscription::open((&self.events, &self.readers), filter, begin.into(), Limit::Written)?)
    }

    /// Goes on where `cursor` was saved last, or begins with the first event;
    /// [`Subscription::ack`] saves it. After a crash everything comes again that was not saved,
    /// and nothing that was saved and is durable.
    ///
    /// # Errors
    /// As for [`subscribe`](Self::subscribe).
    pub fn resume(&self, filter: Filter, cursor: &Cursor) -> Result<Subscription, Error> {
        let begin = cursor.position().map_or(Begin::First, Begin::At);
        Ok(self.subscribe(filter, begin)?.keep(cursor))
    }
}
