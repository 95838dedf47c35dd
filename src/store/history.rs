//! The past of an actor, read without loading it.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::actor::{Actor, ActorError, Old, StopReason, Stopped, Value as _};
use crate::error::Error;
use crate::log::frame::{Frame, RecordKind};
use crate::log::{Log, name as name_record};
use crate::types::{HybridTime, Lsn, Seq, StreamId};

/// One event of an actor's past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past<E> {
    /// Its number.
    pub seq: Seq,
    /// When its turn was appended.
    pub time: HybridTime,
    /// The frame that it is in; events of one turn share it.
    pub lsn: Lsn,
    /// The event. An old one that was upcast to several has several entries with one number, and
    /// one that was upcast to none has none.
    pub event: E,
}

/// Reads the events of `A`/`name` after `after`.
pub(super) fn read<A: Actor>(
    log: &Log,
    name: &str,
    after: Seq,
) -> Result<Vec<Past<A::Event>>, Error> {
    let mut history = Vec::new();
    let mut failure = None;
    let stream = StreamId::of(A::KIND, name);
    log.stream(stream, after, &mut |frame| match frame_events::<A>(
        &frame,
        name,
        after,
        &mut history,
    ) {
        Ok(()) => ControlFlow::Continue(()),
        Err(why) => {
            failure = Some(why);
            ControlFlow::Break(())
        }
    })?;
    match failure {
        Some(error) => Err(error),
        None => Ok(history),
    }
}

fn frame_events<A: Actor>(
    frame: &Frame<'_>,
    name: &str,
    after: Seq,
    history: &mut Vec<Past<A::Event>>,
) -> Result<(), Error> {
    let (lsn, time) = (frame.lsn(), frame.header().time);
    let mut seq = frame.header().seq;
    let stopped = |seq, why| {
        let (kind, name) = (A::KIND, name.into());
        let stopped = Stopped { kind, name, seq, lsn: Some(lsn), why };
        Error::Actor(ActorError::Stopped(Arc::new(stopped)))
    };
    for record in frame.records() {
        let record = record.map_err(|_reject| stopped(seq, StopReason::Frame))?;
        if record.kind == RecordKind::Name {
            check_name::<A>(name, record.payload)?;
        }
        if !record.kind.is_numbered() {
            continue;
        }
        if seq > after && record.kind == RecordKind::Event {
            if record.version == A::VERSION {
                let event = A::Event::decode(record.payload).map_err(|error| {
                    stopped(seq, StopReason::NotArchive(error.to_string().into()))
                })?;
                history.push(Past { seq, time, lsn, event });
            } else {
                let mut events = Vec::new();
                let old = Old::new(record.version, seq, record.payload);
                A::upcast(old, &mut events).map_err(|_unreadable| {
                    stopped(seq, StopReason::Unreadable { version: record.version })
                })?;
                history.extend(events.into_iter().map(|event| Past { seq, time, lsn, event }));
            }
        }
        seq = seq.checked_add(1).unwrap_or(Seq::MAX);
    }
    Ok(())
}

/// Two names may have one hash.
fn check_name<A: Actor>(name: &str, payload: &[u8]) -> Result<(), Error> {
    match name_record::decode(payload) {
        Some(found) if found != (A::KIND, name) => {
            Err(ActorError::collision((A::KIND, name), found).into())
        }
        Some(_) | None => Ok(()),
    }
}
