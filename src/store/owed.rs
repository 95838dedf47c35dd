//! What is owed, listed: of a store that is open, and of one that is only looked at.

use std::collections::HashMap;
use std::time::Duration;

use super::Store;
use super::noted::Noted;
use super::view::{ActorName, View, name_of};
use crate::actor::provider::EventStore as _;
use crate::actor::{Book, Oid, Open, Owing};
use crate::error::{Error, ReadError};
use crate::log::Seen;
use crate::log::frame::Frame;
use crate::types::{HybridTime, Lsn, StreamId};

/// Something that an actor owes: a message that was not handled, a timer that is armed, a step
/// whose end is not stored. See [`Store::owed`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owed {
    /// Its name in the whole store.
    pub oid: Oid,
    /// Who owes it; `None` where the actor's first frame cannot be read.
    pub actor: Option<ActorName>,
    /// What it is.
    pub what: Debt,
    /// The frame that says so.
    pub lsn: Lsn,
    /// When that was appended; `None` where the frame cannot be read.
    pub since: Option<HybridTime>,
    /// How long that is ago, by the clock.
    pub age: Duration,
    /// How often it was taken up after a crash, without an end.
    pub tries: u32,
}

/// What is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Debt {
    /// A message that its receiver has not handled.
    Message {
        /// The receiver.
        to: ActorName,
        /// Name of the command's type.
        command: String,
    },
    /// A timer.
    Timer {
        /// Its key.
        key: String,
        /// When it is due.
        due: HybridTime,
        /// How long after that again; zero: never.
        every: Duration,
        /// Name of the command's type.
        command: String,
    },
    /// A step that has not come back.
    Step {
        /// Its key.
        key: String,
        /// Name of the step's type.
        step: String,
    },
    /// Its frame cannot be read.
    Unreadable,
}

impl Debt {
    /// When it is due, if it is a timer.
    pub fn due(&self) -> Option<HybridTime> {
        match self {
            Self::Timer { due, .. } => Some(*due),
            Self::Message { .. } | Self::Step { .. } | Self::Unreadable => None,
        }
    }

    /// Of what `frame` says about the number; the book knows when a timer is due next.
    fn read(frame: &Frame<'_>, oid: Oid, open: &Open) -> Option<Self> {
        frame.records().flatten().find_map(|record| {
            Some(match Noted::read("", &record)? {
                Noted::Sent { number, to: (kind, name), command } if number == oid.number => {
                    let to = ActorName { kind: kind.into(), name: name.into() };
                    Self::Message { to, command: command.name.into() }
                }
                Noted::Armed { number, key, due, every, command, .. } if number == oid.number => {
                    let due = match open.what {
                        Owing::Timer { due } => HybridTime::from_millis(due),
                        Owing::Message { .. } | Owing::Step => due,
                    };
                    Self::Timer { key: key.into(), due, every, command: command.name.into() }
                }
                Noted::Began { number, key, step, .. } if number == oid.number => {
                    Self::Step { key: key.into(), step: step.name.into() }
                }
                _ => return None,
            })
        })
    }
}

/// An entry of the book, to be filled in.
fn entry((oid, open, tries): (Oid, Open, u32)) -> Owed {
    let (actor, since, age) = (None, None, Duration::ZERO);
    Owed { oid, actor, what: Debt::Unreadable, lsn: open.lsn, since, age, tries }
}

impl Owed {
    fn fill(&mut self, frame: &Frame<'_>, open: &Open, now: u64) {
        let time = frame.header().time;
        self.since = Some(time);
        self.age = Duration::from_millis(now.saturating_sub(time.millis()));
        self.what = Debt::read(frame, self.oid, open).unwrap_or(Debt::Unreadable);
    }
}

/// Names of actors that have come by.
#[derive(Default)]
struct Names(HashMap<StreamId, Option<ActorName>>);

impl Names {
    fn get<E>(
        &mut self,
        stream: StreamId,
        find: impl FnOnce() -> Result<Option<ActorName>, E>,
    ) -> Result<Option<ActorName>, E> {
        if let Some(known) = self.0.get(&stream) {
            return Ok(known.clone());
        }
        let found = find()?;
        self.0.insert(stream, found.clone());
        Ok(found)
    }
}

impl Store {
    /// Lists what actors owe, oldest first, at most `max` of it: messages that were not handled,
    /// timers that are armed, steps that have not ended. How much there is in all says
    /// [`StoreStats::owed`](crate::StoreStats::owed).
    ///
    /// It is for people and for tools, not for every second: it looks at all that is owed while
    /// nobody can owe anything new, some ten milliseconds for a million, and then reads as many
    /// frames as it lists. As long as the [recovery](Self::recovery) reads, it knows nothing.
    ///
    /// ```
    /// # use annals::actor::Durable;
    /// # use annals::{Actor, ActorOptions, Handle, Store, Turn};
    /// # use annals::rkyv::{self, Archive, Deserialize, Serialize};
    /// # #[derive(Default)]
    /// # struct Clock(u64);
    /// # #[derive(Archive, Serialize, Deserialize)]
    /// # struct Strike;
    /// # impl Durable for Strike { const NAME: &'static str = "strike"; }
    /// # impl Actor for Clock {
    /// #     type Event = u64;
    /// #     const KIND: &'static str = "clock";
    /// #     fn apply(&mut self, event: &u64) { self.0 += event; }
    /// #     fn options() -> ActorOptions<Self> { ActorOptions::new().command::<Strike>() }
    /// # }
    /// # impl Handle<Strike> for Clock {
    /// #     type Reply = ();
    /// #     fn handle(_: Strike, _: &mut Turn<'_, Self>) {}
    /// # }
    /// # struct Wind;
    /// # impl Handle<Wind> for Clock {
    /// #     type Reply = ();
    /// #     fn handle(_: Wind, turn: &mut Turn<'_, Self>) {
    /// #         turn.wake_after("noon", std::time::Duration::from_secs(3600), &Strike);
    /// #     }
    /// # }
    /// # let dir = tempfile::tempdir()?;
    /// let store = Store::options().actor::<Clock>().open(dir.path())?;
    /// store.actor::<Clock>("tower")?.ask(Wind)?; // arms a timer
    /// store.wait_recovered(std::time::Duration::from_secs(10));
    /// let owed = store.owed(10)?;
    /// assert_eq!(owed[0].actor.as_ref().map(|actor| &*actor.name), Some("tower"));
    /// assert!(owed[0].what.due() > owed[0].since);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn owed(&self, max: usize) -> Result<Vec<Owed>, Error> {
        let (mut names, now) = (Names::default(), self.options.clock.wall_ms());
        let mut listed = Vec::new();
        for found in self.runtime.oldest_owed(max) {
            let (oid, open, _) = found;
            let mut owed = entry(found);
            match self.events.frame(open.lsn, &mut |frame| owed.fill(&frame, &open, now)) {
                // It was settled meanwhile, and retention has been there.
                Err(ReadError::PositionLost { .. }) => continue,
                read => read?,
            }
            owed.actor = names.get(oid.stream, || {
                let found = self.events.name_of(oid.stream)?;
                Ok::<_, ReadError>(found.map(|(kind, name)| ActorName { kind, name }))
            })?;
            listed.push(owed);
        }
        Ok(listed)
    }
}

impl View {
    /// As [`Store::owed`], from outside: up to the end as this view found it, whoever has the
    /// store open. It begins with what the newest checkpoint says, and reads the log from there;
    /// without a checkpoint all of it.
    ///
    /// Where there is none and retention has dropped what said that a message was handled, the
    /// message is listed, though nobody can say whether it still is owed.
    ///
    /// # Errors
    /// The file system's. What is damaged is passed over: see [`verify`](Self::verify).
    pub fn owed(&self, max: usize) -> Result<Vec<Owed>, Error> {
        let told = self.events.testimony();
        let told = told.and_then(|it| Some((Book::decode(&it.bytes)?, it.position)));
        let (mut book, from) = told.unwrap_or_default();
        let mut cursor = self.events.frames(from);
        cursor.stop_at(self.written());
        while let Some(seen) = cursor.next()? {
            if let Seen::Frame(frame) = seen {
                book.read(&frame);
            }
        }
        let now = self.options.0.clock.wall_ms();
        let found = book.oldest(max);
        let bases: Vec<u64> = self.segments().iter().map(|segment| segment.base).collect();
        let piece = |lsn: Lsn| bases.partition_point(|base| *base <= lsn.get());
        let (mut names, mut listed) = (Names::default(), Vec::new());
        // Oldest first: what is in one file is found by reading on.
        let mut reader: Option<(usize, crate::log::Cursor)> = None;
        let mut found = found.into_iter().peekable();
        while let Some(first) = found.next() {
            let lsn = first.1.lsn;
            let mut here = vec![first];
            while let Some(next) = found.next_if(|next| next.1.lsn == lsn) {
                here.push(next);
            }
            let mut entries: Vec<Owed> = here.iter().copied().map(entry).collect();
            if reader.as_ref().is_none_or(|(at, _)| *at != piece(lsn)) {
                reader = Some((piece(lsn), self.events.frames(lsn.get())));
            }
            while let Some((_, cursor)) = &mut reader
                && let Some(seen) = cursor.next()?
            {
                let Seen::Frame(frame) = seen else { continue };
                if frame.lsn() == lsn {
                    for (owed, (_, open, _)) in entries.iter_mut().zip(&here) {
                        owed.fill(&frame, open, now);
                    }
                    if let Some(name) = name_of(&frame) {
                        names.0.insert(frame.stream(), Some(name));
                    }
                }
                if frame.lsn() >= lsn {
                    break;
                }
            }
            listed.append(&mut entries);
        }
        for owed in &mut listed {
            let stream = owed.oid.stream;
            owed.actor = names.get(stream, || self.name_of_stream(stream))?;
        }
        Ok(listed)
    }
}
