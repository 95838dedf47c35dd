//! An actor's past, written and read by other code than the runtime's: so that the two can be
//! compared.

use std::ops::ControlFlow;

use crate::actor::provider::EventStore;
use crate::actor::{Actor, Old, Value as _};
use crate::error::{ReadError, Reject};
use crate::log::frame::{Batch, RecordKind};
use crate::log::name as name_record;
use crate::types::{Seq, StreamId};

/// One numbered record.
enum Step {
    Event {
        version: u16,
        bytes: Vec<u8>,
    },
    /// It is no event.
    Other,
    Rewind {
        to: u64,
    },
}

/// Appends the `number`-th event, as a turn of its own.
pub(super) fn append<A: Actor>(
    events: &dyn EventStore,
    name: &str,
    number: u64,
    event: &A::Event,
) -> Result<(), String> {
    let mut batch = Batch::new();
    if number == 1 {
        let named = name_record::encode(A::KIND, name).ok_or("no actor has this name")?;
        batch.push(RecordKind::Name, 1, &named).map_err(|error| error.to_string())?;
    }
    let mut why = None;
    let encode = |bytes: &mut _| {
        event.encode(bytes).map_err(|error| {
            why = Some(error.to_string());
            Reject::Records
        })
    };
    let pushed = batch.push_with(RecordKind::Event, A::VERSION, A::Event::ALIGN, encode);
    if let Err(error) = pushed {
        return Err(why.unwrap_or_else(|| error.to_string()));
    }
    let first = Seq::new(number).ok_or("there are too many")?;
    let appended = events.append(&mut batch, StreamId::of(A::KIND, name), first);
    appended.map(drop).map_err(|error| error.to_string())
}

/// The number of the stream's last event.
pub(super) fn last(events: &dyn EventStore, stream: StreamId) -> Result<Seq, ReadError> {
    Ok(events.replay(stream, Seq::MAX, &mut |_| ControlFlow::Continue(()))?.last)
}

/// What is stored after `after`, rewound or not.
pub(super) fn events<A: Actor>(
    store: &dyn EventStore,
    name: &str,
    after: Seq,
) -> Result<Vec<A::Event>, String> {
    let mut events = Vec::new();
    for (seq, step) in (1..).zip(steps::<A>(store, name)?) {
        if let Step::Event { version, bytes } = step
            && seq > after.get()
        {
            decode::<A>((version, seq), &bytes, &mut events)?;
        }
    }
    Ok(events)
}

/// The state that the events make, and nothing else.
pub(super) fn replay<A: Actor>(store: &dyn EventStore, name: &str) -> Result<A, String> {
    let steps = steps::<A>(store, name)?;
    // For each number the events that count as of it, as a chain: the last of them, and the link
    // before. A rewind goes on from an old link.
    let mut links: Vec<(Option<usize>, usize)> = Vec::new();
    let mut tips: Vec<Option<usize>> = vec![None];
    for (at, step) in steps.iter().enumerate() {
        let tip = tips.last().copied().flatten();
        let next = match step {
            Step::Event { .. } => {
                links.push((tip, at));
                links.len().checked_sub(1)
            }
            Step::Other => tip,
            Step::Rewind { to } => {
                let to = usize::try_from(*to).ok().and_then(|to| tips.get(to));
                *to.ok_or("a rewind to what is still to come")?
            }
        };
        tips.push(next);
    }
    let mut counted = Vec::new();
    let mut tip = tips.last().copied().flatten();
    while let Some((before, at)) = tip.and_then(|tip| links.get(tip)) {
        counted.push(*at);
        tip = *before;
    }
    let mut state = A::default();
    let mut events = Vec::new();
    for at in counted.into_iter().rev() {
        if let Some(Step::Event { version, bytes }) = steps.get(at) {
            decode::<A>((*version, at as u64 + 1), bytes, &mut events)?;
        }
        events.drain(..).for_each(|event| state.apply(&event));
    }
    Ok(state)
}

fn decode<A: Actor>(
    (version, seq): (u16, u64),
    bytes: &[u8],
    out: &mut Vec<A::Event>,
) -> Result<(), String> {
    if version == A::VERSION {
        let event = A::Event::decode(bytes);
        out.push(event.map_err(|error| format!("event {seq}: {error}"))?);
        return Ok(());
    }
    let seq = Seq::new(seq).unwrap_or(Seq::MAX);
    A::upcast(Old::new(version, seq, bytes), out)
        .map_err(|error| format!("event {seq} of version {version}: {error}"))
}

/// All numbered records of an actor, from number 1 on.
fn steps<A: Actor>(store: &dyn EventStore, name: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut failure = None;
    let replayed = store.replay(StreamId::of(A::KIND, name), Seq::ZERO, &mut |frame| {
        if frame.seq().get() != steps.len() as u64 + 1 {
            failure = Some(format!("event {} is missing", steps.len() + 1));
            return ControlFlow::Break(());
        }
        for record in frame.records() {
            let Ok(record) = record else {
                failure = Some(format!("the frame at {} is none of an actor", frame.lsn()));
                return ControlFlow::Break(());
            };
            let (version, bytes) = (record.version, record.payload);
            match record.kind {
                RecordKind::Event => steps.push(Step::Event { version, bytes: bytes.to_vec() }),
                RecordKind::Rewind => {
                    let to = bytes.first_chunk().map_or(0, |to| u64::from_le_bytes(*to));
                    steps.push(Step::Rewind { to });
                }
                kind if kind.is_numbered() => steps.push(Step::Other),
                _ => {}
            }
        }
        ControlFlow::Continue(())
    });
    match (failure, replayed) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(_)) => Ok(steps),
    }
}
