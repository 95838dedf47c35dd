//! Notes as whoever looks at a log from outside sees them: who owes what, and what became of it.

use std::time::Duration;

use super::cursor;
use super::stream::Position;
use crate::actor::{Ended, Missed, Note, Oid, Packed, StepPolicy};
use crate::log::frame::{Record, RecordKind};
use crate::types::HybridTime;

/// What a [note](RecordKind::Note) says. Numbers are of the actor in whose frame it stands: with
/// its stream they make the [`Oid`] of what is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Noted<'a> {
    /// A message was sent for good.
    Sent {
        /// Its number.
        number: u64,
        /// Kind and name of the receiver.
        to: (&'a str, &'a str),
        /// The command.
        command: Stored<'a>,
    },
    /// A message was handled by this actor, or given up.
    Handled {
        /// Who had sent it, and its number there.
        oid: Oid,
        /// Its handler had failed too often.
        given_up: bool,
    },
    /// A timer was armed.
    Armed {
        /// Its number.
        number: u64,
        /// Its key.
        key: &'a str,
        /// When it is due.
        due: HybridTime,
        /// How long after that again; zero: never.
        every: Duration,
        /// What becomes of periods that nobody was there for.
        missed: Missed,
        /// The command.
        command: Stored<'a>,
    },
    /// A timer was disarmed.
    Disarmed {
        /// Its number.
        number: u64,
    },
    /// A timer has fired, was given up or passed over.
    Fired {
        /// Its number.
        number: u64,
        /// When it is due next; `None`: it is over.
        next: Option<HybridTime>,
    },
    /// A step was begun.
    Began {
        /// Its number.
        number: u64,
        /// When it is committed.
        policy: StepPolicy,
        /// Its key.
        key: &'a str,
        /// The step.
        step: Stored<'a>,
    },
    /// A step has come back.
    Ended {
        /// Its number.
        number: u64,
        /// How.
        how: StepEnd,
    },
    /// A command with an id was answered.
    Answered {
        /// The command's id.
        id: u128,
        /// When.
        at: HybridTime,
    },
    /// The actor's policy of appending was changed.
    Policy,
    /// A message was left for the outside.
    Outside {
        /// Its number.
        number: u64,
        /// The topic that it is fetched by.
        topic: &'a str,
        /// The message.
        message: Stored<'a>,
    },
    /// After a crash all of these were taken up.
    Tried {
        /// What is owed.
        oids: Vec<Oid>,
    },
    /// What had been set aside was released.
    Freed {
        /// What is owed.
        oid: Oid,
    },
    /// A cursor has this name.
    CursorNamed {
        /// The name.
        name: &'a str,
    },
    /// A cursor was set.
    CursorSet {
        /// To this position.
        position: Position,
    },
    /// A cursor was deleted.
    CursorDeleted,
}

/// An archived value of a durable type.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The type's name.
    pub name: &'a str,
    /// Version of the type.
    pub version: u16,
    /// The archive.
    pub bytes: &'a [u8],
}

/// How a step has come back.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// With what it was to bring.
    Done,
    /// By a panic.
    Panicked,
    /// Nobody knows how far it has come, and its actor was told so.
    InDoubt,
}

impl<'a> From<Packed<'a>> for Stored<'a> {
    fn from(packed: Packed<'a>) -> Self {
        let Packed { name, version, archive } = packed;
        Self { name, version, bytes: archive }
    }
}

impl<'a> Noted<'a> {
    /// What the record says, in a stream of that kind; `None` where it is no note, or none that
    /// this build knows.
    pub fn read(kind: &str, record: &Record<'a>) -> Option<Self> {
        if record.kind != RecordKind::Note {
            return None;
        }
        if let Some(noted) = cursor::noted(kind, record) {
            return Some(noted);
        }
        let at = HybridTime::from_millis;
        Some(match Note::decode(record.version, record.payload)? {
            Note::Sent { number, kind, name, command } => {
                Self::Sent { number, to: (kind, name), command: command.into() }
            }
            Note::Handled { oid, given_up } => Self::Handled { oid, given_up },
            Note::Armed { number, key, rhythm, command } => Self::Armed {
                number,
                key,
                due: at(rhythm.due),
                every: Duration::from_millis(rhythm.every),
                missed: rhythm.missed,
                command: command.into(),
            },
            Note::Disarmed { number } => Self::Disarmed { number },
            Note::Fired { number, due } => {
                Self::Fired { number, next: (due > 0).then_some(at(due)) }
            }
            Note::Began { number, policy, key, step } => {
                Self::Began { number, policy, key, step: step.into() }
            }
            Note::Ended { number, how } => {
                let how = match how {
                    Ended::Done => StepEnd::Done,
                    Ended::Panicked => StepEnd::Panicked,
                    Ended::InDoubt => StepEnd::InDoubt,
                };
                Self::Ended { number, how }
            }
            Note::Answered { id, at: millis, .. } => Self::Answered { id, at: at(millis) },
            Note::Policy { .. } => Self::Policy,
            Note::Outside { number, topic, message } => {
                Self::Outside { number, topic, message: message.into() }
            }
            Note::Tried { oids } => Self::Tried { oids: oids.iter().collect() },
            Note::Freed { oid } => Self::Freed { oid },
        })
    }
}
