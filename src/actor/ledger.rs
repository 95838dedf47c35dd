//! The ledger: the book, kept exact while turns are appended, and the clock that it runs by.
//!
//! A turn that has notes is appended under the ledger's lock and goes into the book before that is
//! released. So at any moment at which the lock is free, the book is what the log says up to its
//! end, and no more: that is what makes a message be delivered once, and what a checkpoint may say.
//!
//! After an open the book is read in the background. What is appended meanwhile waits and is taken
//! in behind it.
//!
//! Lock order: a body, then this, then the log's. No user code is called under it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::book::{Book, Change, Counted, Open, What};
use super::counts::OwedStats;
use super::desk::Desk;
use super::note::{Note, Oid};
use super::provider::{Appended, EventStore, Pins, Testimony, Witness};
use super::ticket::Deadline;
use super::worker::Resident;
use crate::error::AppendError;
use crate::time::Clock;
use crate::types::{Lsn, Seq, StreamId};

/// The clock is looked at so often while something is due: it may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Alarms that ring at a time.
const RING_MAX: usize = 256;

/// See the [module](self).
pub(crate) struct Ledger {
    content: Mutex<Content>,
    /// Something is due earlier than before, or time has been moved, or it is over.
    changed: Condvar,
    events: Weak<dyn EventStore>,
    /// Below this is what earlier lives have left.
    before: u64,
}

#[derive(Default)]
struct Content {
    book: Book,
    reading: Reading,
    /// When what is open is to be seen to: timers when they are due, the rest when it is tried
    /// again. Milliseconds of the wall clock.
    alarms: BTreeSet<(u64, Oid)>,
    alarm_of: HashMap<Oid, u64>,
    /// Actors that gather turns, by the monotonic time at which those are to be appended.
    flushes: BTreeSet<(Duration, u64)>,
    flush_of: HashMap<u64, Weak<dyn Resident>>,
    flushes_made: u64,
    /// How often what is open was offered in vain in this life.
    failures: HashMap<Oid, u32>,
    /// What belongs to kinds that are not known yet.
    parked: HashMap<String, Vec<Oid>>,
    /// What has become of it in this life.
    stats: OwedStats,
    stopped: bool,
}

/// How far the book has been read.
enum Reading {
    /// What was appended meanwhile.
    Behind(Vec<Behind>),
    Read,
    /// The log could not be read: the book holds what this life has opened, and no more.
    Failed,
}

impl Default for Reading {
    fn default() -> Self {
        Self::Behind(Vec::new())
    }
}

struct Behind {
    stream: StreamId,
    lsn: Lsn,
    seq: Seq,
    notes: Vec<(u16, Vec<u8>)>,
    settles: bool,
}

/// What is to be done now.
pub(crate) enum Due {
    Alarms(Vec<(Oid, Open)>),
    Flushes(Vec<Arc<dyn Resident>>),
    Stopped,
}

impl Ledger {
    /// Of that log, to which nothing is appended yet.
    pub(crate) fn new(events: &Arc<dyn EventStore>) -> Arc<Self> {
        Arc::new(Self {
            content: Mutex::default(),
            changed: Condvar::new(),
            before: events.written(),
            events: Arc::downgrade(events),
        })
    }

    /// Below this is what earlier lives have left.
    pub(crate) fn before(&self) -> u64 {
        self.before
    }

    /// Appends a frame with notes.
    pub(crate) fn append(
        &self,
        events: &dyn EventStore,
        desk: &mut Desk,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        let mut content = self.content.lock();
        let appended = desk.append(events, stream, first)?;
        let earliest = content.alarms.first().copied();
        for note in desk.notes(None) {
            content.take_in((stream, appended.lsn, first), &note, desk.settles);
        }
        if content.alarms.first().copied() != earliest {
            self.changed.notify_all();
        }
        Ok(appended)
    }

    /// The book as the log says, but for what was appended since that was read. Answers what is
    /// open by now of what was open then; timers only as far as they are due by `now`.
    pub(crate) fn install(&self, book: Book, now: u64) -> Vec<(Oid, Open)> {
        let mut content = self.content.lock();
        let before: Vec<_> = book.iter().collect();
        let reading = std::mem::replace(&mut content.reading, Reading::Read);
        content.book = book;
        for (oid, open) in &before {
            if let What::Timer { due } = open.what
                && due > now
            {
                content.set_alarm(*oid, due);
            }
        }
        if let Reading::Behind(behind) = reading {
            for frame in behind {
                for (version, bytes) in &frame.notes {
                    if let Some(note) = Note::decode(*version, bytes) {
                        let at = (frame.stream, frame.lsn, frame.seq);
                        content.take_in(at, &note, frame.settles);
                    }
                }
            }
        }
        self.changed.notify_all();
        let is_due = |open: &Open| !matches!(open.what, What::Timer { due } if due > now);
        before
            .into_iter()
            .filter(|(oid, open)| content.book.get(*oid) == Some(*open) && is_due(open))
            .collect()
    }

    /// The log cannot be read: what this life opens is seen to all the same.
    pub(crate) fn give_up_reading(&self) {
        let mut content = self.content.lock();
        let reading = std::mem::replace(&mut content.reading, Reading::Failed);
        if let Reading::Behind(behind) = reading {
            for frame in behind {
                for (version, bytes) in &frame.notes {
                    if let Some(note) = Note::decode(*version, bytes) {
                        let at = (frame.stream, frame.lsn, frame.seq);
                        content.take_in(at, &note, frame.settles);
                    }
                }
            }
        }
        self.changed.notify_all();
    }

    /// Waits until something is due.
    pub(crate) fn wait(&self, clock: &Clock) -> Due {
        let mut content = self.content.lock();
        loop {
            if content.stopped {
                return Due::Stopped;
            }
            let flushes = content.due_flushes(clock.monotonic());
            if !flushes.is_empty() {
                return Due::Flushes(flushes);
            }
            let alarms = content.due_alarms(clock.wall_ms());
            if !alarms.is_empty() {
                return Due::Alarms(alarms);
            }
            let alarm = content.next_alarm().map(|at| {
                Duration::from_millis(at.saturating_sub(clock.wall_ms())).min(LOOK_AGAIN)
            });
            let flush = content.flushes.first().map(|(at, _)| at.saturating_sub(clock.monotonic()));
            match [alarm, flush].into_iter().flatten().min() {
                None => self.changed.wait(&mut content),
                Some(wait) => {
                    // At least a little: the wall clock counts in ticks of some milliseconds.
                    let wait = wait.max(Duration::from_millis(1));
                    self.changed.wait_for(&mut content, wait);
                }
            }
        }
    }

    /// Time may have been moved.
    pub(crate) fn look(&self) {
        let _content = self.content.lock();
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.content.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(crate) fn get(&self, oid: Oid) -> Option<Open> {
        self.content.lock().book.get(oid)
    }

    pub(crate) fn tries(&self, oid: Oid) -> u32 {
        self.content.lock().book.tries(oid)
    }

    /// What is open now, and what has become of it in this life.
    pub(crate) fn stats(&self) -> OwedStats {
        let content = self.content.lock();
        let Counted { messages, timers, steps } = content.book.counted();
        let unclaimed = content.parked.values().map(|oids| oids.len() as u64).sum();
        OwedStats { messages, timers, steps, unclaimed, ..content.stats }
    }

    /// What is open for longest.
    pub(crate) fn oldest(&self, max: usize) -> Vec<(Oid, Open, u32)> {
        self.content.lock().book.oldest(max)
    }

    /// How many of these are open.
    pub(crate) fn open_of(&self, oids: &HashSet<Oid>) -> u64 {
        let content = self.content.lock();
        oids.iter().filter(|oid| content.book.get(**oid).is_some()).count() as u64
    }

    /// How many things are open.
    pub(crate) fn open(&self) -> usize {
        self.content.lock().book.len()
    }

    /// It is to be seen to at that time.
    pub(crate) fn again(&self, oid: Oid, at: u64) {
        let mut content = self.content.lock();
        // Before the book is read nobody knows what is in it, and no alarm rings.
        if content.is_behind() || content.book.get(oid).is_some() {
            content.set_alarm(oid, at);
            self.changed.notify_all();
        }
    }

    /// It was offered in vain; how often by now.
    pub(crate) fn failed(&self, oid: Oid) -> u32 {
        let mut content = self.content.lock();
        let count = content.failures.entry(oid).or_default();
        *count += 1;
        *count
    }

    /// Its kind is not known yet. Answers whether it is the first of that.
    pub(crate) fn park(&self, kind: &str, oid: Oid) -> bool {
        let mut content = self.content.lock();
        if let Some(parked) = content.parked.get_mut(kind) {
            parked.push(oid);
            return false;
        }
        content.parked.insert(kind.to_owned(), vec![oid]);
        true
    }

    /// What waits for kinds that nobody has asked for.
    pub(crate) fn parked(&self) -> Vec<(String, usize)> {
        let content = self.content.lock();
        content.parked.iter().map(|(kind, oids)| (kind.clone(), oids.len())).collect()
    }

    /// The kind is known now: what is its rings at once.
    pub(crate) fn unpark(&self, kind: &str, now: u64) {
        let mut content = self.content.lock();
        for oid in content.parked.remove(kind).unwrap_or_default() {
            content.set_alarm(oid, now);
        }
        self.changed.notify_all();
    }

    /// Has the actor's turns appended after that time, if nobody did before.
    pub(crate) fn flush_after(&self, time: Duration, actor: &Arc<dyn Resident>, clock: &Clock) {
        let mut content = self.content.lock();
        content.flushes_made += 1;
        let number = content.flushes_made;
        content.flushes.insert((clock.monotonic().saturating_add(time), number));
        content.flush_of.insert(number, Arc::downgrade(actor));
        self.changed.notify_all();
    }

    /// The first number of `stream` that must stay in the log.
    pub(crate) fn owed_from(&self, stream: StreamId) -> Option<Seq> {
        let content = self.content.lock();
        match content.reading {
            Reading::Read => content.book.owed_from(stream),
            // Nobody knows: all of it.
            Reading::Behind(_) | Reading::Failed => Seq::ZERO.checked_add(1),
        }
    }
}

impl Content {
    fn take_in(
        &mut self,
        (stream, lsn, seq): (StreamId, Lsn, Seq),
        note: &Note<'_>,
        settles: bool,
    ) {
        if let Reading::Behind(behind) = &mut self.reading {
            let mut bytes = Vec::new();
            if note.encode(&mut bytes) {
                let notes = vec![(note.version(), bytes)];
                behind.push(Behind { stream, lsn, seq, notes, settles });
            }
            return;
        }
        self.stats.count(note, settles);
        match self.book.apply(stream, lsn, seq, note) {
            Change::None => {}
            Change::Due(oid, due) => {
                self.failures.remove(&oid);
                self.set_alarm(oid, due);
            }
            Change::Closed(oid) => {
                self.failures.remove(&oid);
                self.drop_alarm(oid);
            }
        }
    }

    fn set_alarm(&mut self, oid: Oid, at: u64) {
        self.drop_alarm(oid);
        self.alarms.insert((at, oid));
        self.alarm_of.insert(oid, at);
    }

    fn drop_alarm(&mut self, oid: Oid) {
        if let Some(at) = self.alarm_of.remove(&oid) {
            self.alarms.remove(&(at, oid));
        }
    }

    fn is_behind(&self) -> bool {
        matches!(self.reading, Reading::Behind(_))
    }

    /// The time of the next alarm.
    fn next_alarm(&self) -> Option<u64> {
        let first = self.alarms.first().filter(|_| !self.is_behind());
        first.map(|(at, _)| *at)
    }

    fn due_alarms(&mut self, now: u64) -> Vec<(Oid, Open)> {
        let mut due = Vec::new();
        if self.is_behind() {
            return due;
        }
        while due.len() < RING_MAX
            && let Some((at, oid)) = self.alarms.first().copied()
            && at <= now
        {
            self.drop_alarm(oid);
            due.extend(self.book.get(oid).map(|open| (oid, open)));
        }
        due
    }

    fn due_flushes(&mut self, now: Duration) -> Vec<Arc<dyn Resident>> {
        let mut due = Vec::new();
        while let Some((at, number)) = self.flushes.first().copied()
            && at <= now
        {
            self.flushes.remove(&(at, number));
            due.extend(self.flush_of.remove(&number).and_then(|actor| actor.upgrade()));
        }
        due
    }
}

impl Witness for Ledger {
    fn testify(&self) -> Option<Testimony> {
        let content = self.content.lock();
        let events = self.events.upgrade()?;
        match content.reading {
            Reading::Read => {
                Some(Testimony { position: events.written(), bytes: content.book.encode() })
            }
            Reading::Behind(_) | Reading::Failed => None,
        }
    }
}

impl Pins for Ledger {
    fn owed_from(&self, stream: StreamId) -> Option<Seq> {
        Self::owed_from(self, stream)
    }

    /// Of what was taken up only the newest counts, of what is open still. To know less is to take
    /// up once more what has ended the process.
    fn is_superseding(&self, stream: StreamId) -> bool {
        stream == super::resume::attempts()
    }

    fn wait_known(&self, limit: Duration) {
        let deadline = Deadline::after(limit);
        let mut content = self.content.lock();
        while matches!(content.reading, Reading::Behind(_))
            && !content.stopped
            && !deadline.is_over()
        {
            self.changed.wait_for(&mut content, deadline.left());
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("open", &self.open()).finish_non_exhaustive()
    }
}
