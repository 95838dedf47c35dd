//! What is measured of actors, and by which names.

use std::path::Path;

use crate::store::Answer;
use crate::work::Scale;

/// Who tells whom.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    OneToOne,
    FourToOne,
    OneToThousand,
    /// One to one, whose mailbox holds 1,024.
    Bounded,
}

impl Route {
    /// Threads or tasks that tell, and actors that are told.
    pub(crate) fn ends(self) -> (u64, u64) {
        match self {
            Self::OneToOne | Self::Bounded => (1, 1),
            Self::FourToOne => (4, 1),
            Self::OneToThousand => (1, 1_000),
        }
    }
}

/// One case.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Memory of actors that have had a turn and wait for the next.
    Idle,
    /// Memory of actors that have left it.
    Passivated,
    Create,
    Tell(Route),
    /// Asks of an idle actor by a thread of the system.
    Ask,
    PingPong,
    /// Durable commands, so many on their way at once, each to an actor of its own.
    Command(u64),
    /// Asks of an actor with nothing to commit, while others commit.
    Beside,
    /// The first ask of an actor that is not in memory, warm.
    Recover,
    /// The same, nothing of it in the page cache.
    Cold,
    /// Opening with many actors of whom none is awake.
    Open,
}

impl Work {
    pub(crate) const ALL: [Self; 16] = [
        Self::Tell(Route::OneToOne),
        Self::Tell(Route::FourToOne),
        Self::Tell(Route::OneToThousand),
        Self::Tell(Route::Bounded),
        Self::Ask,
        Self::PingPong,
        Self::Idle,
        Self::Passivated,
        Self::Create,
        Self::Command(1),
        Self::Command(64),
        Self::Command(1_000),
        Self::Beside,
        Self::Recover,
        Self::Cold,
        Self::Open,
    ];

    /// As `--case` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "actor-idle",
            Self::Passivated => "actor-passivated",
            Self::Create => "actor-create",
            Self::Tell(Route::OneToOne) => "tell-1-1",
            Self::Tell(Route::FourToOne) => "tell-4-1",
            Self::Tell(Route::OneToThousand) => "tell-1-1000",
            Self::Tell(Route::Bounded) => "tell-bounded",
            Self::Ask => "ask",
            Self::PingPong => "ping-pong",
            Self::Command(1) => "command-1",
            Self::Command(64) => "command-64",
            Self::Command(_) => "command-1000",
            Self::Beside => "read-beside",
            Self::Recover => "recover",
            Self::Cold => "recover-cold",
            Self::Open => "open-sleepers",
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|work| work.name() == name)
    }

    /// Is something made first, once, that every round then finds?
    pub(crate) fn is_prepared(self) -> bool {
        matches!(self, Self::Cold | Self::Open)
    }
}

/// What a child is told.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) work: Work,
    /// Make what is measured later, and measure nothing.
    pub(crate) prepare: bool,
    pub(crate) dir: &'a Path,
    pub(crate) scale: Scale,
}

/// An error if something was not done, or was done twice: nobody is fast by doing nothing.
pub(crate) fn same(what: &str, found: u64, wanted: u64) -> Answer<()> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what}: {found} instead of {wanted}").into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_work_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Work::ALL.map(Work::name).into();
        assert_eq!(names.len(), Work::ALL.len());
        for work in Work::ALL {
            assert_eq!(Work::by_name(work.name()), Some(work));
        }
        assert_eq!(Work::by_name("work"), None);
    }

    #[test]
    fn what_was_not_done_is_an_error() {
        assert!(same("told", 3, 3).is_ok());
        assert_eq!(same("told", 2, 3).unwrap_err().to_string(), "told: 2 instead of 3");
        assert!(same("told", 4, 3).is_err());
    }
}
