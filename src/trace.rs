//! What happened, told to the crate `tracing` where the feature of that name is on. Without it
//! every call here is empty.
//!
//! All events are in one table below, each a type with its fields, and `docs/observe.md` has the
//! same table for readers: `tests/observe` compares the two, and both with what a subscriber sees.
//! Something new to tell is an entry here, a row there, and one `trace::It { .. }.tell()`.
//!
//! A subscriber is anybody's code. It is called under no lock of the log, of a mailbox or of the
//! registry: what happens under one of those is put on [`News`], and told by a thread that holds
//! none. Its panics are caught, and cost the event.

use std::fmt::{self, Display};
#[cfg(feature = "tracing")]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
#[cfg(feature = "tracing")]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "tracing")]
use parking_lot::Mutex;

/// Is anything told? For what would only be worked out for that.
pub(crate) const ON: bool = cfg!(feature = "tracing");

/// Something that is told at most so often, where it may happen all the time.
#[cfg(feature = "tracing")]
const SELDOM: Duration = Duration::from_secs(10);

/// One kind of event.
#[cfg(all(feature = "tracing", any(test, feature = "internals")))]
#[derive(Copy, Clone, Debug)]
pub struct Event {
    /// Its name.
    pub name: &'static str,
    /// Its level.
    pub level: tracing::Level,
    /// Its target.
    pub target: &'static str,
    /// The names of its fields, but for `message`.
    pub fields: &'static [&'static str],
}

/// The Rust type of a field.
macro_rules! is {
    (number) => { u64 };
    (truth) => { bool };
    (text) => { &'a str };
    (path) => { &'a Path };
    (said) => { &'a dyn Display };
}

/// A field as `tracing` takes it.
#[cfg(feature = "tracing")]
macro_rules! value {
    (path, $field:expr) => {
        tracing::field::display($field.display())
    };
    (said, $field:expr) => {
        tracing::field::display($field)
    };
    ($plain:ident, $field:expr) => {
        $field
    };
}

macro_rules! events {
    ($($(#[$doc:meta])+ $level:ident $target:literal $name:literal $Type:ident {
        $($field:ident: $kind:ident),+ $(,)?
    })+) => {
        $(
            $(#[$doc])+
            #[derive(Copy, Clone)]
            pub(crate) struct $Type<'a> {
                $(pub(crate) $field: is!($kind)),+
            }

            impl $Type<'_> {
                #[inline]
                pub(crate) fn tell(self) {
                    let Self { $($field),+ } = self;
                    #[cfg(feature = "tracing")]
                    quietly(|| tracing::event!(
                        name: $name,
                        target: $target,
                        tracing::Level::$level,
                        { $($field = value!($kind, $field)),+ },
                        $name
                    ));
                    #[cfg(not(feature = "tracing"))]
                    { $(let _ = $field;)+ }
                }
            }
        )+

        /// All of them.
        #[cfg(all(feature = "tracing", any(test, feature = "internals")))]
        pub const EVENTS: &[Event] = &[$(Event {
            name: $name,
            level: tracing::Level::$level,
            target: $target,
            fields: &[$(stringify!($field)),+],
        }),+];
    };
}

events! {
    // --- a store's life ---

    /// A store is open.
    INFO "annals::store" "opened" Opened {
        path: path, store: said, life: number, took_us: number
    }
    /// A store was not opened.
    WARN "annals::store" "open failed" OpenFailed { path: path, error: said }
    /// What an open found of a log, and did about it.
    INFO "annals::store" "recovered" Recovered {
        dir: path, start: text, lsn: number, durable: number, frames: number, bytes: number,
        rescued: number, took_us: number
    }
    /// Positions that are lost for ever: a crash took them back, or they were never written.
    WARN "annals::store" "torn tail" TornTail { dir: path, lsn: number, lsn_end: number }
    /// Durable frames were missing from a segment, and the ring had them.
    WARN "annals::store" "repaired from ring" RingRepaired { dir: path, lsn: number }
    /// A log that can do without was damaged; it goes on behind the damage.
    WARN "annals::store" "set aside" SetAside {
        file: path, offset: number, lsn: number, error: said
    }
    /// A life of a store has begun, and is durable.
    INFO "annals::store" "life begun" LifeBegun { path: path, life: number, lsn: number }
    /// A store is closing: it takes no more commands.
    DEBUG "annals::store" "close begun" CloseBegun { path: path }
    /// It has closed, and all of it is durable.
    INFO "annals::store" "closed" Closed {
        path: path, dead_letters: number, threads_left: number, took_us: number
    }
    /// It has closed in doubt: the next open recovers.
    ERROR "annals::store" "close failed" CloseFailed { path: path, error: said }

    // --- looking after it ---

    /// A backup was made.
    INFO "annals::store" "backup made" BackupMade {
        path: path, lsn: number, copied: number, linked: number, bytes: number, took_us: number
    }
    /// A backup was not made.
    WARN "annals::store" "backup failed" BackupFailed { path: path, error: said }
    /// All of a store was read.
    INFO "annals::store" "verified" Verified {
        path: path, frames: number, findings: number, damaged: truth, took_us: number
    }
    /// It was found out what a repair would do.
    INFO "annals::store" "repair planned" RepairPlanned {
        path: path, steps: number, lost: number
    }
    /// A repair does one thing.
    WARN "annals::store" "repair step" RepairStep { path: path, step: said }
    /// A repair was carried out.
    WARN "annals::store" "repaired" Repaired { path: path, aside: path, damaged: truth }
    /// A scrub has found something wrong.
    WARN "annals::store" "scrub found" ScrubFound {
        file: path, offset: number, lsn: number, lsn_end: number, severity: said, error: said
    }
    /// A scrub has read all sealed segments once.
    DEBUG "annals::store" "scrubbed" Scrubbed { path: path, bytes: number }
    /// A scrub could not.
    WARN "annals::store" "scrub failed" ScrubFailed { path: path, error: said }
    /// A node reports something that somebody should know of: tokens that were passed over, and
    /// what was cleared for it; a peer that was refused; members that come and go.
    WARN "annals::sync" "node reported" NodeReported { path: path, what: text }
    /// A pass over old files has ended, and did something.
    INFO "annals::store" "retention done" RetentionDone {
        dir: path, events_dropped: number, snapshots_dropped: number, reclaimed_bytes: number
    }
    /// A pass over old files has failed; what it was about is as it was.
    WARN "annals::store" "retention failed" RetentionFailed { dir: path, error: said }
    /// Actors were asked for snapshots, so that their events can go.
    DEBUG "annals::store" "laggards asked" LaggardsAsked { dir: path, asked: number }

    // --- the logs ---

    /// A segment was made ahead.
    DEBUG "annals::log" "segment made" SegmentMade {
        file: path, lsn: number, bytes: number, recycled: truth
    }
    /// A segment could not be made, for another reason than room.
    WARN "annals::log" "segment failed" SegmentFailed { dir: path, error: said }
    /// There is no room for a segment: appends are refused.
    WARN "annals::log" "disk full" DiskFull { dir: path, error: said }
    /// There is room for a segment again.
    INFO "annals::log" "disk has room" DiskHasRoom { dir: path }
    /// A segment is full; the next has been entered.
    DEBUG "annals::log" "segment sealed" SegmentSealed { file: path, lsn: number }
    /// A segment is not needed any more, and its file is kept for one to come.
    DEBUG "annals::log" "segment retired" SegmentRetired { file: path, lsn: number }
    /// A checkpoint was written.
    DEBUG "annals::log" "checkpoint written" CheckpointWritten { dir: path, lsn: number }
    /// A checkpoint was not written: the next open reads more.
    WARN "annals::log" "checkpoint failed" CheckpointFailed {
        dir: path, lsn: number, error: said
    }
    /// The index of a segment was not written: it is made again when it is needed.
    WARN "annals::log" "index failed" IndexFailed { file: path, error: said }
    /// Mark files could not be written: less evidence for a recovery.
    WARN "annals::log" "mark failed" MarkFailed { dir: path, failures: number, error: said }
    /// A commit or a write failed. Nothing is accepted until the store is opened again.
    ERROR "annals::log" "poisoned" Poisoned { dir: path, lsn: number, error: said }
    /// Appends had to store or sync what was before them: the disk does not keep up.
    INFO "annals::log" "appends waited" AppendsWaited {
        dir: path, ring_full: number, lag_waits: number
    }
    /// Old pieces are to become one run.
    DEBUG "annals::log" "compaction begun" CompactionBegun {
        dir: path, lsn: number, lsn_end: number, pieces: number
    }
    /// Old pieces have become one run.
    INFO "annals::log" "compacted" Compacted {
        dir: path, lsn: number, lsn_end: number, carried: number, dropped: number,
        bytes_before: number, bytes_after: number, took_us: number
    }
    /// Old pieces have not become a run, and are as they were.
    WARN "annals::log" "compaction failed" CompactionFailed {
        dir: path, lsn: number, lsn_end: number, error: said
    }

    // --- snapshots ---

    /// A snapshot was stored.
    DEBUG "annals::snapshot" "snapshot taken" SnapshotTaken {
        kind: text, name: text, seq: number, lsn: number, bytes: number
    }
    /// A snapshot was not taken: too many are under way, or it cannot be stored.
    DEBUG "annals::snapshot" "snapshot refused" SnapshotRefused {
        kind: text, name: text, seq: number, bytes: number
    }
    /// A snapshot was not taken: it is larger than those that are.
    WARN "annals::snapshot" "snapshot too large" SnapshotTooLarge {
        kind: text, name: text, seq: number, bytes: number
    }
    /// A snapshot could not be stored.
    WARN "annals::snapshot" "snapshot failed" SnapshotFailed {
        kind: text, name: text, seq: number, error: said
    }
    /// A snapshot cannot be used, because of its bytes or because its past was taken back: the
    /// one before is, or the events.
    WARN "annals::snapshot" "snapshot passed over" SnapshotPassedOver {
        dir: path, stream: said, error: said
    }
    /// A snapshot is of another version, or no archive of the type: the one before is used, or
    /// the events.
    INFO "annals::snapshot" "snapshot unreadable" SnapshotUnreadable {
        kind: text, name: text, seq: number, version: number
    }

    // --- the catalogue ---

    /// The catalogue is open.
    DEBUG "annals::catalogue" "catalogue opened" CatalogueOpened { dir: path, new: truth }
    /// The catalogue was set aside, and is built again.
    WARN "annals::catalogue" "catalogue rebuilt" CatalogueRebuilt { dir: path, error: said }
    /// There is no catalogue: listings read the log from now on.
    WARN "annals::catalogue" "catalogue absent" CatalogueAbsent { dir: path, error: said }

    // --- actors ---

    /// A state was read: from a snapshot at `snapshot` (0: none), and the events after it.
    DEBUG "annals::actor" "actor loaded" ActorLoaded {
        kind: text, name: text, seq: number, snapshot: number
    }
    /// Its events do not make a state; the error says which does not.
    WARN "annals::actor" "actor stopped" ActorStopped { kind: text, name: text, error: said }
    /// A handler or `apply` panicked: the turn has not happened. `seq` is the last event.
    WARN "annals::actor" "turn panicked" TurnPanicked {
        kind: text, name: text, seq: number, error: said
    }
    /// A state has left memory.
    TRACE "annals::actor" "actor passivated" ActorPassivated {
        kind: text, name: text, seq: number
    }
    /// A command that was accepted has had no effect, and nobody else was told.
    WARN "annals::actor" "dead letter" DeadLetter {
        kind: text, name: text, command: text, error: said
    }
    /// An actor has failed, and rests: commands are refused meanwhile.
    WARN "annals::actor" "actor resting" ActorResting {
        kind: text, name: text, failures: number, rest_us: number
    }
    /// An actor has failed too often, and stays stopped until it is restarted.
    ERROR "annals::actor" "actor given up" ActorGivenUp {
        kind: text, name: text, failures: number
    }
    /// A state is what it was after event `to`; `seq` is the number of that fact.
    DEBUG "annals::actor" "actor rewound" ActorRewound {
        kind: text, name: text, seq: number, to: number
    }
    /// Turns that were left for later are lost, because the disk did not take them. `seq` is the
    /// number of their first event.
    WARN "annals::actor" "deferred turns lost" TurnsLost {
        kind: text, name: text, seq: number, turns: number, error: said
    }

    // --- what is owed ---

    /// What the last life has left undone is known.
    INFO "annals::owed" "owed read" OwedRead {
        path: path, start: text, frames: number, bytes: number, interrupted: number, actors: number,
        took_us: number
    }
    /// What the last life has left undone was taken up, as far as it can be.
    INFO "annals::owed" "owed resumed" OwedResumed {
        path: path, interrupted: number, resumed: number, unknown: number, unknown_kinds: text,
        quarantined: number, in_doubt: number, took_us: number
    }
    /// What the last life has left undone is not known: the log cannot be read.
    ERROR "annals::owed" "owed not read" OwedNotRead {
        path: path, frames: number, error: said
    }
    /// Something that is owed has ended the process too often, and is not taken up by itself.
    ERROR "annals::owed" "owed quarantined" OwedQuarantined {
        path: path, owed: said, lsn: number, tries: number
    }
    /// Nobody can say whether a message was handled: it is not delivered by itself.
    WARN "annals::owed" "owed in doubt" OwedInDoubt {
        path: path, owed: said, lsn: number
    }
    /// What was set aside is taken up after all.
    INFO "annals::owed" "owed released" OwedReleased {
        path: path, owed: said, lsn: number
    }
    /// What is owed waits for a kind of actor that this process does not know: it is taken up once
    /// the kind is named in the options, or an address of it is asked for.
    WARN "annals::owed" "owed unclaimed" OwedUnclaimed { path: path, kind: text, count: number }
    /// A handler has failed with something that is owed; it is tried again.
    DEBUG "annals::owed" "owed retried" OwedRetried {
        kind: text, name: text, owed: said, failures: number, backoff_ms: number, error: said
    }
    /// A handler has failed with something that is owed as often as it may: it is over.
    WARN "annals::owed" "owed given up" OwedGivenUp {
        kind: text, name: text, owed: said, failures: number, error: said
    }
    /// A timer is handled more than a second after it was due.
    INFO "annals::owed" "timer late" TimerLate {
        kind: text, name: text, owed: said, late_ms: number
    }
    /// A step runs, on a thread of its own.
    DEBUG "annals::owed" "step begun" StepBegun { kind: text, name: text, owed: said, key: text }
    /// It has ended, if by a panic, and comes back to its actor.
    DEBUG "annals::owed" "step ended" StepEnded {
        kind: text, name: text, owed: said, key: text, panicked: truth, took_us: number
    }
    /// The process ended while a step ran: its actor is told that nothing is known.
    WARN "annals::owed" "step in doubt" StepInDoubt {
        kind: text, name: text, owed: said, key: text
    }

    // --- those who follow ---

    /// A cursor was set; power loss may take that back for a moment.
    TRACE "annals::stream" "cursor saved" CursorSaved { path: path, cursor: text, position: said }
    /// A cursor was deleted: it keeps nothing any more.
    INFO "annals::stream" "cursor deleted" CursorDeleted { path: path, cursor: text }
    /// A subscription that had seen everything has since fallen behind by 16 MiB. Told again once
    /// it has caught up in between.
    INFO "annals::stream" "subscription behind" SubscriptionBehind {
        path: path, filter: said, cursor: text, lsn: number, lsn_end: number
    }
    /// Retention has dropped what a subscription had not read: it goes on behind that.
    WARN "annals::stream" "subscription cut" SubscriptionCut {
        path: path, filter: said, cursor: text, lsn: number, lsn_end: number
    }
    // --- edges ---

    /// A pipeline runs.
    INFO "annals::edge" "pipeline begun" PipelineBegun { pipeline: text }
    /// A pipeline has ended as it should.
    INFO "annals::edge" "pipeline ended" PipelineEnded { pipeline: text, how: said }
    /// A pipeline has failed for good: nothing moves in it any more.
    ERROR "annals::edge" "pipeline down" PipelineDown { pipeline: text, error: said }
    /// Something in a pipeline has failed, and is tried again.
    WARN "annals::edge" "pipeline retrying" PipelineRetrying {
        pipeline: text, tries: number, error: said
    }
    /// Records are missing in a source; `lost` is 0 where nobody knows how many.
    WARN "annals::edge" "pipeline gap" PipelineGap { pipeline: text, gap: said, lost: number }
    /// A record cannot be handled: it goes to the dead letters, or is dropped, or ends the
    /// pipeline.
    WARN "annals::edge" "pipeline poison" PipelinePoison {
        pipeline: text, at: said, error: said
    }
    /// A source has other records than those that were handled, and is read from its beginning.
    ERROR "annals::edge" "pipeline diverged" PipelineDiverged { pipeline: text, at: said }
    /// A sink has not what it had: it is given it again, as far as the source has it.
    WARN "annals::edge" "pipeline sink lost" PipelineSinkLost {
        pipeline: text, had: said, has: said
    }
    /// The stages of a pipeline know nothing of what came before.
    WARN "annals::edge" "pipeline state lost" PipelineStateLost { pipeline: text, error: said }
    /// A stage has another in its place; `emptied`: it did not take over the state.
    INFO "annals::edge" "stage swapped" StageSwapped {
        pipeline: text, stage: text, emptied: truth
    }
}

/// What a subscriber throws is its own business.
#[cfg(feature = "tracing")]
fn quietly<T>(tell: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(tell)) {
        Ok(told) => Some(told),
        Err(payload) => {
            let _dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            None
        }
    }
}

/// A duration as a field.
pub(crate) fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// Work that takes long enough to be a span.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Open,
    Close,
    Backup,
    Verify,
    Repair,
}

/// The span that this thread is in.
#[must_use = "it ends when it is dropped"]
pub(crate) struct Within {
    #[cfg(feature = "tracing")]
    span: Option<tracing::span::EnteredSpan>,
}

/// Enters the span of a work on the store, or the log, at `path`.
#[cfg(feature = "tracing")]
pub(crate) fn within(work: Work, path: &Path) -> Within {
    macro_rules! enter {
        ($name:literal) => {
            tracing::info_span!(target: "annals::store", $name, path = %path.display()).entered()
        };
    }
    let span = quietly(|| match work {
        Work::Open => enter!("open"),
        Work::Close => enter!("close"),
        Work::Backup => enter!("backup"),
        Work::Verify => enter!("verify"),
        Work::Repair => enter!("repair"),
    });
    Within { span }
}

/// Nothing is told.
#[cfg(not(feature = "tracing"))]
#[inline]
pub(crate) fn within(_work: Work, _path: &Path) -> Within {
    Within {}
}

#[cfg(feature = "tracing")]
impl Drop for Within {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            quietly(|| drop(span));
        }
    }
}

/// What happened under a lock, until somebody who holds none tells it.
#[derive(Default)]
pub(crate) struct News {
    #[cfg(feature = "tracing")]
    waiting: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    /// Is there anything? So that who asks all the time takes no lock.
    #[cfg(feature = "tracing")]
    some: AtomicBool,
}

#[cfg(feature = "tracing")]
impl News {
    /// The most that waits; a log whose thread is stuck in the disk does not fill the memory.
    const MAX: usize = 1024;

    /// To be told later, on another thread perhaps.
    pub(crate) fn add(&self, tell: impl FnOnce() + Send + 'static) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < Self::MAX {
            waiting.push(Box::new(tell));
        }
        self.some.store(true, Ordering::Relaxed);
    }

    /// Is there anything to tell?
    pub(crate) fn is_some(&self) -> bool {
        self.some.load(Ordering::Relaxed)
    }

    /// Tells all of it. The caller holds no lock that a subscriber might need.
    pub(crate) fn tell(&self) {
        // Relaxed: who has added something tells it himself, or rings for one who does.
        if self.some.load(Ordering::Relaxed) {
            self.some.store(false, Ordering::Relaxed);
            let waiting = std::mem::take(&mut *self.waiting.lock());
            for tell in waiting {
                tell();
            }
        }
    }
}

#[cfg(not(feature = "tracing"))]
#[expect(clippy::unused_self, reason = "as where there is something to tell")]
impl News {
    #[inline]
    pub(crate) fn add(&self, _tell: impl FnOnce() + Send + 'static) {}

    #[inline]
    pub(crate) const fn is_some(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn tell(&self) {}
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("News").finish_non_exhaustive()
    }
}

/// Lets through what happens all the time once in ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// When the last went through, in milliseconds, plus one; 0: none has.
    #[cfg(feature = "tracing")]
    last: AtomicU64,
}

impl Seldom {
    /// May it be told now?
    #[cfg(feature = "tracing")]
    pub(crate) fn lets(&self, now: impl FnOnce() -> Duration) -> bool {
        let now = u64::try_from(now().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let seldom = u64::try_from(SELDOM.as_millis()).unwrap_or(u64::MAX);
        let last = self.last.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= seldom;
        // Relaxed: two who come at once may both be told.
        due && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    #[cfg(not(feature = "tracing"))]
    #[inline]
    #[expect(clippy::unused_self, reason = "as where there is something to tell")]
    pub(crate) fn lets(&self, _now: impl FnOnce() -> Duration) -> bool {
        false
    }
}

#[cfg(all(test, feature = "tracing"))]
mod tests {
    use super::*;

    #[test]
    fn what_happens_all_the_time_is_told_once_in_ten_seconds() {
        let seldom = Seldom::default();
        let told: Vec<u64> =
            (0..30).filter(|second| seldom.lets(|| Duration::from_secs(*second))).collect();
        assert_eq!(told, [0, 10, 20]);
    }

    #[test]
    fn news_are_told_once_and_the_first_of_too_many_stay() {
        let news = News::default();
        let (sender, told) = crossbeam_channel::unbounded();
        for number in 0..2 * News::MAX {
            let sender = sender.clone();
            news.add(move || sender.send(number).unwrap());
        }
        assert!(told.is_empty());
        news.tell();
        news.tell();
        assert_eq!(told.try_iter().collect::<Vec<_>>(), (0..News::MAX).collect::<Vec<_>>());
    }
}
