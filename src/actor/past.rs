//! The past of an actor, read without loading it.
//!
//! What is here reads frames and nothing else: whether the actor is in memory, and what it does
//! meanwhile, makes no difference. Of a turn all is shown or nothing.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::error::{StopReason, Stopped};
use super::load::{Source, rebuild, rewound_to, seq_at};
use super::provider::EventStore;
use super::turn::Depth;
use super::{Actor, ActorError, Old, Value as _};
use crate::log::frame::{Frame, RecordKind};
use crate::log::name as name_record;
use crate::types::{HybridTime, Lsn, Seq, StreamId};

/// What has happened to an actor, once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Past<E> {
    /// Its number.
    pub seq: Seq,
    /// When its turn was appended.
    pub time: HybridTime,
    /// The frame that it is in; events of one turn share it.
    pub lsn: Lsn,
    /// What it was. An old event that was upcast to several has several entries with one number,
    /// and one that was upcast to none has none.
    pub what: Happened<E>,
    /// What its turn has said of it with [`Turn::note`](super::Turn::note): keys and values, in
    /// order.
    pub meta: Arc<[(String, String)]>,
    /// The tags that its turn gave it.
    pub tags: Arc<[String]>,
}

/// What can happen to an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened<E> {
    /// An event of its own.
    Event(E),
    /// It went back: from here on its state is what it was after that event.
    Rewound {
        /// That event.
        to: Seq,
    },
}

impl<E> Past<E> {
    /// The event, if it is one.
    pub fn event(&self) -> Option<&E> {
        match &self.what {
            Happened::Event(event) => Some(event),
            Happened::Rewound { .. } => None,
        }
    }

    /// The event, if it is one.
    pub fn into_event(self) -> Option<E> {
        match self.what {
            Happened::Event(event) => Some(event),
            Happened::Rewound { .. } => None,
        }
    }
}

/// Which part of a past.
///
/// ```
/// use annals::{Seq, Span};
///
/// let third = Seq::new(3).unwrap_or(Seq::MAX);
/// // The ten behind the third.
/// let some = Span::all().after(third).limit(10);
/// // The last one.
/// let last = Span::all().newest_first().limit(1);
/// assert_ne!(some, last);
/// assert_eq!(Span::from(third), Span::all().after(third));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Span {
    after: Seq,
    upto: Seq,
    since: HybridTime,
    before: Option<HybridTime>,
    limit: usize,
    newest_first: bool,
}

impl Span {
    /// All of it, from the first event on.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            after: Seq::ZERO,
            upto: Seq::MAX,
            since: HybridTime::from_bits(0),
            before: None,
            limit: usize::MAX,
            newest_first: false,
        }
    }

    /// What comes behind event `seq`.
    #[must_use]
    pub const fn after(mut self, seq: Seq) -> Self {
        self.after = seq;
        self
    }

    /// What comes up to event `seq`, and that event.
    #[must_use]
    pub const fn upto(mut self, seq: Seq) -> Self {
        self.upto = seq;
        self
    }

    /// Turns of this time or later.
    #[must_use]
    pub const fn since(mut self, time: HybridTime) -> Self {
        self.since = time;
        self
    }

    /// Turns before this time.
    #[must_use]
    pub const fn before(mut self, time: HybridTime) -> Self {
        self.before = Some(time);
        self
    }

    /// At most this many entries: the first ones, or with
    /// [`newest_first`](Self::newest_first) the last ones.
    #[must_use]
    pub const fn limit(mut self, entries: usize) -> Self {
        self.limit = entries;
        self
    }

    /// The newest first. Frames are read forwards all the same, so this holds up to `limit`
    /// entries in memory before it shows any: all of them, if there is no limit.
    #[must_use]
    pub const fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    fn has_time(&self, time: HybridTime) -> bool {
        // Each for itself: a life that begins with the clock set back has earlier times.
        time >= self.since && self.before.is_none_or(|before| time < before)
    }
}

impl Default for Span {
    fn default() -> Self {
        Self::all()
    }
}

/// What comes behind an event.
impl From<Seq> for Span {
    fn from(after: Seq) -> Self {
        Self::all().after(after)
    }
}

/// A moment of an actor's past.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// As its events leave it now.
    Now,
    /// After this event; [`Seq::ZERO`] is before the first.
    Seq(Seq),
    /// Before the first turn that was later than this.
    Time(HybridTime),
}

/// An event as it is stored, or another thing that has a number like one.
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub struct RawEvent<'a> {
    /// Its number.
    pub seq: Seq,
    /// When its turn was appended.
    pub time: HybridTime,
    /// The frame that it is in.
    pub lsn: Lsn,
    /// Version of the event's type.
    pub version: u16,
    /// The archive; empty for a rewind.
    pub bytes: &'a [u8],
    /// It is no event: the actor went back to this one.
    pub rewound: Option<Seq>,
    /// What its turn has said of it.
    pub labels: Labels<'a>,
}

/// What a turn has said of its events.
#[derive(Copy, Clone, Debug)]
pub struct Labels<'a>(Frame<'a>);

impl<'a> Labels<'a> {
    /// Keys and values, in order.
    pub fn meta(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.0.records().flatten().filter_map(|record| match record.kind {
            RecordKind::Meta => name_record::decode(record.payload),
            _ => None,
        })
    }

    /// Tags, in order.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.records().flatten().filter_map(|record| match record.kind {
            RecordKind::Tag => str::from_utf8(record.payload).ok(),
            _ => None,
        })
    }
}

/// Shows what a frame holds of `span`. What has no archive that could be read is passed over.
pub(crate) fn each_raw<'a>(
    frame: &Frame<'a>,
    span: &Span,
    visit: &mut dyn FnMut(RawEvent<'a>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let (lsn, time) = (frame.lsn(), frame.header().time);
    let mut seq = frame.header().seq;
    if !span.has_time(time) {
        return if seq > span.upto { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    }
    for record in frame.records().flatten() {
        if !record.kind.is_numbered() {
            continue;
        }
        if seq > span.upto {
            return ControlFlow::Break(());
        }
        let rewound = match record.kind {
            RecordKind::Rewind => rewound_to(&record, seq),
            _ => None,
        };
        if seq > span.after && (record.kind == RecordKind::Event || rewound.is_some()) {
            let bytes = if rewound.is_some() { &[] } else { record.payload };
            let (version, labels) = (record.version, Labels(*frame));
            visit(RawEvent { seq, time, lsn, version, bytes, rewound, labels })?;
        }
        seq = seq.checked_add(1).unwrap_or(Seq::MAX);
    }
    ControlFlow::Continue(())
}

/// Visits what happened to `A`/`name`, in the order and to the extent that `span` says.
pub(crate) fn visit<A: Actor>(
    events: &dyn EventStore,
    name: &str,
    span: &Span,
    visit: &mut dyn FnMut(Past<A::Event>) -> ControlFlow<()>,
) -> Result<(), ActorError> {
    if span.limit == 0 {
        return Ok(());
    }
    let mut left = span.limit;
    let mut newest = VecDeque::new();
    let mut failure = None;
    let mut take = |past| {
        if span.newest_first {
            if newest.len() == span.limit {
                newest.pop_front();
            }
            newest.push_back(past);
            return ControlFlow::Continue(());
        }
        left -= 1;
        visit(past)?;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stream = StreamId::of(A::KIND, name);
    events.replay(stream, span.after, &mut |frame| {
        frame_past::<A>(&frame, name, span, &mut take).unwrap_or_else(|error| {
            failure = Some(error);
            ControlFlow::Break(())
        })
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    for past in newest.into_iter().rev() {
        if visit(past).is_break() {
            break;
        }
    }
    Ok(())
}

/// Visits what is stored of `kind`/`name`, in order, without knowing its type.
pub(crate) fn visit_raw(
    events: &dyn EventStore,
    (kind, name): (&str, &str),
    span: &Span,
    visit: &mut dyn FnMut(RawEvent<'_>) -> ControlFlow<()>,
) -> Result<(), ActorError> {
    let mut left = span.limit;
    let mut collision = None;
    events.replay(StreamId::of(kind, name), span.after, &mut |frame| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        let named = frame.records().flatten().find(|it| it.kind == RecordKind::Name);
        if let Some(found) = named.and_then(|record| name_record::decode(record.payload))
            && found != (kind, name)
        {
            collision = Some(ActorError::collision((kind, name), found));
            return ControlFlow::Break(());
        }
        each_raw(&frame, span, &mut |event| {
            left -= 1;
            visit(event)?;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    })?;
    collision.map_or(Ok(()), Err)
}

/// The state of an actor as it is or was, and the event after which it was so.
pub(crate) fn state_at<A: Actor>(source: &Source<'_, A>, at: At) -> Result<(A, Seq), ActorError> {
    // `apply` is run, which may not wait for an actor.
    let _depth = Depth::enter();
    let dropped = |error: &ActorError| match error {
        ActorError::Stopped(stopped) => stopped.why == StopReason::Dropped,
        _ => false,
    };
    let try_once = || {
        let upto = match at {
            At::Now => None,
            At::Seq(seq) => Some(seq),
            At::Time(time) => Some(seq_at(source, time)?),
        };
        rebuild(source, upto).map(|rebuilt| (rebuilt.state, rebuilt.seq))
    };
    match try_once() {
        // Retention may have dropped what followed a snapshot after this has chosen it; then there
        // is a newer one.
        Err(error) if dropped(&error) => try_once(),
        done => done,
    }
}

fn frame_past<A: Actor>(
    frame: &Frame<'_>,
    name: &str,
    span: &Span,
    take: &mut dyn FnMut(Past<A::Event>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ActorError> {
    let (lsn, time) = (frame.lsn(), frame.header().time);
    let mut seq = frame.header().seq;
    let stopped = |seq, why| {
        let (kind, name) = (A::KIND, name.into());
        ActorError::Stopped(Arc::new(Stopped { kind, name, seq, lsn: Some(lsn), why }))
    };
    let said = Labels(*frame);
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let meta: Arc<[_]> = said.meta().map(own).collect();
    let tags: Arc<[_]> = said.tags().map(str::to_owned).collect();
    let past = |seq, what| {
        let (meta, tags) = (Arc::clone(&meta), Arc::clone(&tags));
        Past { seq, time, lsn, what, meta, tags }
    };
    let shown = span.has_time(time);
    for record in frame.records() {
        let record = record.map_err(|_reject| stopped(seq, StopReason::Frame))?;
        if record.kind == RecordKind::Name {
            check_name::<A>(name, record.payload)?;
        }
        if !record.kind.is_numbered() {
            continue;
        }
        if seq > span.upto {
            return Ok(ControlFlow::Break(()));
        }
        let mut going_on = ControlFlow::Continue(());
        match record.kind {
            RecordKind::Rewind if shown && seq > span.after => {
                let to = rewound_to(&record, seq).ok_or_else(|| stopped(seq, StopReason::Frame))?;
                going_on = take(past(seq, Happened::Rewound { to }));
            }
            RecordKind::Event if shown && seq > span.after && record.version == A::VERSION => {
                let event = A::Event::decode(record.payload).map_err(|error| {
                    stopped(seq, StopReason::NotArchive(error.to_string().into()))
                })?;
                going_on = take(past(seq, Happened::Event(event)));
            }
            RecordKind::Event if shown && seq > span.after => {
                let mut events = Vec::new();
                let old = Old::new(record.version, seq, record.payload);
                A::upcast(old, &mut events).map_err(|_unreadable| {
                    stopped(seq, StopReason::Unreadable { version: record.version })
                })?;
                let mut events = events.into_iter().map(Happened::Event);
                going_on = events.try_for_each(|what| take(past(seq, what)));
            }
            _ => {}
        }
        if going_on.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        seq = seq.checked_add(1).unwrap_or(Seq::MAX);
    }
    Ok(ControlFlow::Continue(()))
}

/// Two names may have one hash.
fn check_name<A: Actor>(name: &str, payload: &[u8]) -> Result<(), ActorError> {
    match name_record::decode(payload) {
        Some(found) if found != (A::KIND, name) => {
            Err(ActorError::collision((A::KIND, name), found))
        }
        Some(_) | None => Ok(()),
    }
}
