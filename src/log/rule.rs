//! The rules of recovery by name, so that a test can switch one off and look whether anything
//! notices: a rule that nothing needs is one too many, or its tests look at something else.
//!
//! In a build for users every rule holds, and asking costs nothing.

/// A rule that can be switched off. See `tests/it/ablations.rs`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What is in the ring alone is rescued.
    RescueRing,
    /// Pages that are not known to be durable are written again before they are synced.
    RewriteUnsure,
    /// What was rescued is synced before the new life begins.
    SyncRescued,
    /// A new segment lies above every file that was found.
    AboveEverything,
    /// Frames behind P say how far the log had been durable.
    EvidenceBehind,
    /// So do the frames before it,
    EvidenceInFrames,
    /// the mark file,
    EvidenceInMark,
    /// the position that was known when the life before began,
    EvidenceInIdentity,
    /// a `Seal` behind which there is no segment,
    EvidenceInSeal,
    /// and headers that a recovery wrote.
    EvidenceInHeaders,
    /// What was written is there, where the machine has been running since.
    EvidenceInWritten,
    /// A segment that a recovery made, and that nothing speaks of, is not built upon.
    StepBack,
    /// Segments above the chain that hold nothing are no damage.
    UnusedAreDead,
    /// What unused files there are is removed only when the new segment is durable.
    RemoveLast,
    /// The directory is synced before the first frame of a segment.
    NameFirst,
    /// The frame that opens a life in a segment of the one before is synced at once.
    LifeFirst,
    /// A poisoned log takes nothing,
    PoisonRefuses,
    /// and serves nothing that is not durable.
    PoisonHides,
    /// What a checkpoint tells of is durable before it has its name.
    CheckpointDurable,
    /// No more is left not durable than a recovery looks for.
    LagBounded,
}

/// Does it hold?
#[cfg(not(any(test, feature = "internals")))]
pub(super) const fn holds(_rule: Rule) -> bool {
    true
}

#[cfg(any(test, feature = "internals"))]
pub use switch::{holds, without};

#[cfg(any(test, feature = "internals"))]
mod switch {
    use super::Rule;
    use std::cell::Cell;

    thread_local! {
        static OFF: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Does it hold, on this thread?
    pub fn holds(rule: Rule) -> bool {
        OFF.get() != Some(rule)
    }

    /// Does something on this thread while a rule does not hold: for logs without threads.
    pub fn without<T>(rule: Rule, act: impl FnOnce() -> T) -> T {
        struct Restore(Option<Rule>);
        impl Drop for Restore {
            fn drop(&mut self) {
                OFF.set(self.0);
            }
        }
        let _restore = Restore(OFF.replace(Some(rule)));
        act()
    }
}
