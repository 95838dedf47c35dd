//! The tables of what is counted.

use ::metrics::Unit;

use crate::actor::Recovery;
use crate::log::{Log, LogStats};
use crate::store::StoreStats;

/// A number that only rises, or one that goes up and down.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Counter,
    Gauge,
}

use Shape::{Counter, Gauge};

/// One number: name, shape, unit, meaning, and where it comes from.
pub(super) type Row<T> = (&'static str, Shape, Unit, &'static str, fn(&T) -> u64);

/// What is known of one log.
#[derive(Copy, Clone, Debug)]
pub(super) struct LogNow {
    stats: LogStats,
    written: u64,
    stored: u64,
    durable: u64,
    poisoned: bool,
}

impl LogNow {
    pub(super) fn of(log: &Log) -> Self {
        // The durable mark first: marks rise meanwhile, and none shall seem to be negative.
        let (durable, stored) = (log.durable(), log.stored());
        let poisoned = log.poisoned().is_some();
        Self { stats: log.stats(), written: log.written(), stored, durable, poisoned }
    }
}

/// How far the taking up of what was interrupted has come.
#[derive(Copy, Clone, Debug)]
pub(super) struct RecoveryNow {
    pub frames: u64,
    pub bytes: u64,
    pub bytes_total: u64,
    pub interrupted: u64,
    pub actors: u64,
    pub remaining: u64,
    pub quarantined: u64,
    pub in_doubt: u64,
    pub unknown: u64,
}

impl From<&Recovery> for RecoveryNow {
    fn from(recovery: &Recovery) -> Self {
        Self {
            frames: recovery.frames,
            bytes: recovery.bytes,
            bytes_total: recovery.bytes_total,
            interrupted: recovery.interrupted,
            actors: recovery.actors,
            remaining: recovery.remaining,
            quarantined: recovery.quarantined.len() as u64,
            in_doubt: recovery.in_doubt.len() as u64,
            unknown: recovery.unknown,
        }
    }
}

/// What is known of the rest.
#[derive(Copy, Clone, Debug)]
pub(super) struct StoreNow {
    pub stats: StoreStats,
    pub names: usize,
    pub ready: usize,
    pub lost: u64,
    pub recovery: RecoveryNow,
}

pub(super) const LOG: &[Row<LogNow>] = &[
    (
        "annals_log_frames_total",
        Counter,
        Unit::Count,
        "frames appended, system frames included",
        |it| it.stats.frames,
    ),
    ("annals_log_events_total", Counter, Unit::Count, "events appended", |it| it.stats.events),
    ("annals_log_bytes_total", Counter, Unit::Bytes, "bytes that the frames take", |it| {
        it.stats.bytes
    }),
    (
        "annals_log_commits_total",
        Counter,
        Unit::Count,
        "commits that made something durable",
        |it| it.stats.commits,
    ),
    ("annals_log_drains_total", Counter, Unit::Count, "writes from the ring into segments", |it| {
        it.stats.drains
    }),
    (
        "annals_log_drained_bytes_total",
        Counter,
        Unit::Bytes,
        "bytes of those writes, whole pages",
        |it| it.stats.drained_bytes,
    ),
    (
        "annals_log_ring_full_total",
        Counter,
        Unit::Count,
        "appends that found the ring full and stored it",
        |it| it.stats.ring_full,
    ),
    (
        "annals_log_lag_waits_total",
        Counter,
        Unit::Count,
        "appends that found too much not durable and synced it",
        |it| it.stats.lag_waits,
    ),
    (
        "annals_log_segment_waits_total",
        Counter,
        Unit::Count,
        "appends that waited for a segment to be made",
        |it| it.stats.segment_waits,
    ),
    (
        "annals_log_segments_recycled_total",
        Counter,
        Unit::Count,
        "segments made of files that had been others",
        |it| it.stats.segments_recycled,
    ),
    ("annals_log_seals_total", Counter, Unit::Count, "segments sealed", |it| it.stats.seals),
    ("annals_log_segments", Gauge, Unit::Count, "segments that hold frames", |it| {
        it.stats.segments
    }),
    (
        "annals_log_mark_failures_total",
        Counter,
        Unit::Count,
        "mark files that could not be written",
        |it| it.stats.mark_failures,
    ),
    ("annals_log_checkpoints_total", Counter, Unit::Count, "checkpoints written", |it| {
        it.stats.checkpoints
    }),
    (
        "annals_log_checkpoint_failures_total",
        Counter,
        Unit::Count,
        "checkpoints that could not be written",
        |it| it.stats.checkpoint_failures,
    ),
    (
        "annals_log_index_failures_total",
        Counter,
        Unit::Count,
        "index files that could not be written",
        |it| it.stats.index_failures,
    ),
    ("annals_log_runs", Gauge, Unit::Count, "runs that the log begins with", |it| it.stats.runs),
    ("annals_log_compactions_total", Counter, Unit::Count, "runs made", |it| it.stats.compactions),
    (
        "annals_log_dropped_frames_total",
        Counter,
        Unit::Count,
        "frames that retention has dropped",
        |it| it.stats.dropped,
    ),
    (
        "annals_log_reclaimed_bytes_total",
        Counter,
        Unit::Bytes,
        "bytes by which compaction made the files smaller",
        |it| it.stats.reclaimed_bytes,
    ),
    ("annals_log_end_bytes", Gauge, Unit::Bytes, "the position at which the log ends", |it| {
        it.written
    }),
    (
        "annals_log_unstored_bytes",
        Gauge,
        Unit::Bytes,
        "bytes that are in the ring and in no segment",
        |it| it.written.saturating_sub(it.stored),
    ),
    (
        "annals_log_unsynced_bytes",
        Gauge,
        Unit::Bytes,
        "bytes that power loss would take: the lag",
        |it| it.written.saturating_sub(it.durable),
    ),
    (
        "annals_log_poisoned",
        Gauge,
        Unit::Count,
        "1 once a sync has failed and nothing is accepted",
        |it| u64::from(it.poisoned),
    ),
];

pub(super) const STORE: &[Row<StoreNow>] = &[
    ("annals_snapshots_total", Counter, Unit::Count, "snapshots stored", |it| {
        it.stats.snapshots.saved
    }),
    ("annals_snapshots_bytes_total", Counter, Unit::Bytes, "bytes of their states", |it| {
        it.stats.snapshots.bytes
    }),
    (
        "annals_snapshots_refused_total",
        Counter,
        Unit::Count,
        "snapshots not taken: too many under way, or too large",
        |it| it.stats.snapshots.refused,
    ),
    (
        "annals_snapshots_failed_total",
        Counter,
        Unit::Count,
        "snapshots taken that could not be stored",
        |it| it.stats.snapshots.failed,
    ),
    (
        "annals_snapshots_skipped_total",
        Counter,
        Unit::Count,
        "snapshots found on loading that could not be used",
        |it| it.stats.snapshots.skipped,
    ),
    ("annals_actors_resident", Gauge, Unit::Count, "states in memory", |it| {
        it.stats.residents as u64
    }),
    (
        "annals_actors_named",
        Gauge,
        Unit::Count,
        "names that somebody holds, or whose state is in memory",
        |it| it.names as u64,
    ),
    (
        "annals_actors_ready",
        Gauge,
        Unit::Count,
        "visits and snapshots that wait for a worker",
        |it| it.ready as u64,
    ),
    (
        "annals_dead_letters_total",
        Counter,
        Unit::Count,
        "commands that were accepted and had no effect",
        |it| it.stats.dead_letters,
    ),
    ("annals_retention_compactions_total", Counter, Unit::Count, "runs made, of both logs", |it| {
        it.stats.retention.compactions
    }),
    (
        "annals_retention_events_dropped_total",
        Counter,
        Unit::Count,
        "frames of events dropped",
        |it| it.stats.retention.events_dropped,
    ),
    ("annals_retention_snapshots_dropped_total", Counter, Unit::Count, "snapshots dropped", |it| {
        it.stats.retention.snapshots_dropped
    }),
    (
        "annals_retention_reclaimed_bytes_total",
        Counter,
        Unit::Bytes,
        "bytes by which the files of both logs became smaller",
        |it| it.stats.retention.reclaimed_bytes,
    ),
    (
        "annals_retention_laggards_total",
        Counter,
        Unit::Count,
        "actors that were asked for a snapshot",
        |it| it.stats.retention.laggards_asked,
    ),
    ("annals_retention_failures_total", Counter, Unit::Count, "passes that failed", |it| {
        it.stats.retention.failures
    }),
    (
        "annals_scrub_passes_total",
        Counter,
        Unit::Count,
        "passes over all sealed segments that ended",
        |it| it.stats.scrub.passes,
    ),
    ("annals_scrub_bytes_total", Counter, Unit::Bytes, "bytes read", |it| it.stats.scrub.bytes),
    ("annals_scrub_findings", Gauge, Unit::Count, "places found wrong", |it| {
        it.stats.scrub.findings
    }),
    (
        "annals_node_published",
        Gauge,
        Unit::Count,
        "tokens that this node has published in this life",
        |it| it.stats.node.published,
    ),
    (
        "annals_node_applied_total",
        Counter,
        Unit::Count,
        "tokens of other nodes that were applied",
        |it| it.stats.node.applied,
    ),
    ("annals_node_shipped_total", Counter, Unit::Count, "tokens given to connections", |it| {
        it.stats.node.shipped
    }),
    ("annals_node_shipped_bytes_total", Counter, Unit::Bytes, "bytes of those", |it| {
        it.stats.node.shipped_bytes
    }),
    (
        "annals_node_flushes_total",
        Counter,
        Unit::Count,
        "times that everything of some domain was cleared",
        |it| it.stats.node.flushes,
    ),
    (
        "annals_node_gaps_total",
        Counter,
        Unit::Count,
        "times that tokens of a node were passed over",
        |it| it.stats.node.cleared,
    ),
    (
        "annals_node_times_lost_total",
        Counter,
        Unit::Count,
        "times that all leases were dropped because time was lost",
        |it| it.stats.node.times_lost,
    ),
    ("annals_node_peers", Gauge, Unit::Count, "peers with a connection", |it| it.stats.node.peers),
    (
        "annals_node_lag_max",
        Gauge,
        Unit::Count,
        "tokens that the peer farthest behind has not applied",
        |it| it.stats.node.lag_max,
    ),
    (
        "annals_node_stale_domains",
        Gauge,
        Unit::Count,
        "domains whose answers are not fresh",
        |it| it.stats.node.stale_domains,
    ),
    (
        "annals_node_intents",
        Gauge,
        Unit::Count,
        "changes that were announced and not settled",
        |it| it.stats.node.intents,
    ),
    ("annals_node_fenced", Gauge, Unit::Count, "1 while the node may not publish", |it| {
        it.stats.node.fenced
    }),
    (
        "annals_scrub_failures_total",
        Counter,
        Unit::Count,
        "passes that could not be made or ended",
        |it| it.stats.scrub.failures,
    ),
    (
        "annals_owed_messages",
        Gauge,
        Unit::Count,
        "messages that were sent for good and are not handled",
        |it| it.stats.owed.messages,
    ),
    ("annals_owed_timers", Gauge, Unit::Count, "timers that are armed", |it| it.stats.owed.timers),
    (
        "annals_owed_steps",
        Gauge,
        Unit::Count,
        "steps that were begun and whose end is not stored",
        |it| it.stats.owed.steps,
    ),
    (
        "annals_owed_set_aside",
        Gauge,
        Unit::Count,
        "of these, what is not taken up by itself: quarantined, or in doubt",
        |it| it.stats.owed.set_aside,
    ),
    (
        "annals_owed_unclaimed",
        Gauge,
        Unit::Count,
        "of these, what waits for a kind that this process does not know",
        |it| it.stats.owed.unclaimed,
    ),
    ("annals_messages_sent_total", Counter, Unit::Count, "messages sent for good", |it| {
        it.stats.owed.sent
    }),
    ("annals_messages_handled_total", Counter, Unit::Count, "messages handled, each once", |it| {
        it.stats.owed.handled
    }),
    (
        "annals_outside_messages_total",
        Counter,
        Unit::Count,
        "messages left for the outside",
        |it| it.stats.owed.outside,
    ),
    (
        "annals_timers_armed_total",
        Counter,
        Unit::Count,
        "timers armed, those that took the place of others among them",
        |it| it.stats.owed.armed,
    ),
    ("annals_timers_fired_total", Counter, Unit::Count, "firings handled", |it| {
        it.stats.owed.fired
    }),
    (
        "annals_timers_passed_over_total",
        Counter,
        Unit::Count,
        "firings left out, because nobody was there in time",
        |it| it.stats.owed.passed_over,
    ),
    ("annals_steps_begun_total", Counter, Unit::Count, "steps begun", |it| it.stats.owed.begun),
    (
        "annals_steps_done_total",
        Counter,
        Unit::Count,
        "steps that have come back, and whose actor has handled that",
        |it| it.stats.owed.done,
    ),
    (
        "annals_steps_panicked_total",
        Counter,
        Unit::Count,
        "steps that have come back by a panic, likewise",
        |it| it.stats.owed.panicked,
    ),
    (
        "annals_steps_in_doubt_total",
        Counter,
        Unit::Count,
        "steps that have come back in doubt, likewise",
        |it| it.stats.owed.in_doubt,
    ),
    (
        "annals_owed_retried_total",
        Counter,
        Unit::Count,
        "handlers that have failed with something that is owed, and get it again",
        |it| it.stats.owed.retried,
    ),
    (
        "annals_owed_given_up_total",
        Counter,
        Unit::Count,
        "messages, timers and steps given up, because handlers have failed too often",
        |it| it.stats.owed.given_up,
    ),
    (
        "annals_answered_again_total",
        Counter,
        Unit::Count,
        "commands with an id that had been handled, and were answered as before",
        |it| it.stats.actors.answered_again,
    ),
    (
        "annals_deferred_turns_total",
        Counter,
        Unit::Count,
        "turns that were left for later and are appended by now",
        |it| it.stats.actors.gathered_turns,
    ),
    ("annals_deferred_frames_total", Counter, Unit::Count, "frames that those have become", |it| {
        it.stats.actors.gathered_frames
    }),
    (
        "annals_deferred_turns_lost_total",
        Counter,
        Unit::Count,
        "turns that were left for later and that the disk did not take",
        |it| it.stats.actors.lost_turns,
    ),
    (
        "annals_commands_stashed",
        Gauge,
        Unit::Count,
        "commands that are put aside until it is time for them",
        |it| it.stats.actors.stashed,
    ),
    ("annals_subscriptions", Gauge, Unit::Count, "subscriptions that are open", |it| {
        it.stats.subscriptions.open
    }),
    (
        "annals_subscription_lag_bytes",
        Gauge,
        Unit::Bytes,
        "bytes of the log that are before the last subscription, as far as it may read",
        |it| it.stats.subscriptions.lag_bytes,
    ),
    ("annals_cursors", Gauge, Unit::Count, "cursors that are set", |it| it.stats.cursors.set),
    (
        "annals_cursors_saved_total",
        Counter,
        Unit::Count,
        "positions that cursors were set to",
        |it| it.stats.cursors.saved,
    ),
    ("annals_cursors_deleted_total", Counter, Unit::Count, "cursors deleted", |it| {
        it.stats.cursors.deleted
    }),
    (
        "annals_recovery_frames",
        Gauge,
        Unit::Count,
        "frames that the recovery has read behind the newest checkpoint",
        |it| it.recovery.frames,
    ),
    ("annals_recovery_bytes", Gauge, Unit::Bytes, "bytes of the log that it has read", |it| {
        it.recovery.bytes
    }),
    (
        "annals_recovery_bytes_of",
        Gauge,
        Unit::Bytes,
        "bytes of the log that it has to read in all",
        |it| it.recovery.bytes_total,
    ),
    (
        "annals_recovery_interrupted",
        Gauge,
        Unit::Count,
        "what was open when the process before ended",
        |it| it.recovery.interrupted,
    ),
    ("annals_recovery_actors", Gauge, Unit::Count, "actors that this belongs to", |it| {
        it.recovery.actors
    }),
    (
        "annals_recovery_remaining",
        Gauge,
        Unit::Count,
        "of this, what is still to be taken up",
        |it| it.recovery.remaining,
    ),
    (
        "annals_recovery_quarantined",
        Gauge,
        Unit::Count,
        "of this, what was set aside, since it has ended the process too often",
        |it| it.recovery.quarantined,
    ),
    (
        "annals_recovery_in_doubt",
        Gauge,
        Unit::Count,
        "of this, messages of which nobody knows whether they were handled",
        |it| it.recovery.in_doubt,
    ),
    (
        "annals_recovery_unknown",
        Gauge,
        Unit::Count,
        "of this, what waits for a kind that was not known at its end",
        |it| it.recovery.unknown,
    ),
    (
        "annals_samples_lost_total",
        Counter,
        Unit::Count,
        "values of the histograms that came too fast to be kept",
        |it| it.lost,
    ),
];
