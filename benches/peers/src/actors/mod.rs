//! Actors: Annals' beside those of other crates, which live in memory, and beside those of two of
//! them whose commands are rows of `SQLite`, which is what one writes by hand who needs both.

mod actix;
mod annals;
pub(crate) mod columns;
mod durable;
mod kameo;
mod limit;
mod memory;
mod ractor;
mod sleep;
mod sqlite;
mod tokio;
pub(crate) mod work;
mod xtra;

use crate::child::LIMIT;
use crate::store::Answer;
use crate::work::Figures;
use work::{Job, Route, Work};

/// Of each actor, everywhere.
const STATE_BYTES: usize = 48;

/// All of them, ours first.
pub(crate) const PEERS: &[Peer] = &[
    annals::PEER,
    actix::PEER,
    kameo::PEER,
    ractor::PEER,
    xtra::PEER,
    actix::WITH_SQLITE,
    kameo::WITH_SQLITE,
    sqlite::PEER,
];

/// What actors do that live in memory alone.
const IN_MEMORY: &[Work] = &[
    Work::Tell(Route::OneToOne),
    Work::Tell(Route::FourToOne),
    Work::Tell(Route::OneToThousand),
    Work::Tell(Route::Bounded),
    Work::Ask,
    Work::PingPong,
    Work::Idle,
    Work::Create,
];

/// What those do whose commands are on disk.
const KEEPING: &[Work] = &[Work::Command(1), Work::Command(64), Work::Command(1_000), Work::Beside];

/// And what can be done with their rows.
const KEEPING_ALL: &[Work] = &[
    Work::Command(1),
    Work::Command(64),
    Work::Command(1_000),
    Work::Beside,
    Work::Recover,
    Work::Cold,
    Work::Open,
];

/// What there is to know of a way to have actors besides its figures.
pub(crate) struct Peer {
    /// As the tables say it, and `--only`.
    pub(crate) name: &'static str,
    /// Its crate; its version is read from `Cargo.lock`.
    pub(crate) package: &'static str,
    /// On which threads.
    pub(crate) runs: &'static str,
    /// How it was told.
    pub(crate) tells: &'static str,
    /// What a sender does whose receiver has no room.
    pub(crate) bounded: &'static str,
    /// What is still there after a crash.
    pub(crate) keeps: &'static str,
    pub(crate) upkeep: &'static str,
    /// The work that it is measured at.
    pub(crate) does: &'static [Work],
    /// What it should do and cannot, and why.
    pub(crate) cannot: &'static [(Work, &'static str)],
    pub(crate) run: fn(&Job<'_>) -> Answer<Figures>,
}

impl Peer {
    pub(crate) fn cannot(&self, work: Work) -> Option<&'static str> {
        self.cannot.iter().find(|(it, _)| *it == work).map(|(_, why)| *why)
    }
}

/// In a child: one job by one of them.
pub(crate) fn figures(name: &str, job: &Job<'_>) -> Answer<Figures> {
    if name == LIMIT {
        return limit::run(job);
    }
    let peer = PEERS.iter().find(|it| it.name == name).ok_or("there are no such actors")?;
    (peer.run)(job)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::support::home::Home;
    use crate::work::Scale;

    /// Everybody at everything, once and small: each checks itself what came of it.
    #[test]
    fn whoever_does_a_work_has_all_its_figures() {
        let home = Home::new("peers-actors-test");
        let scale = Scale {
            warm: Duration::from_millis(2),
            measure: Duration::from_millis(5),
            streams: 10,
            per_stream: 1,
        };
        let columns: Vec<_> = columns::SECTIONS.iter().flat_map(|it| it.columns).collect();
        for peer in PEERS {
            for work in peer.does.iter().filter(|work| peer.cannot(**work).is_none()) {
                let dir = home.fresh(&format!("{}-{}", peer.name, work.name()));
                fs::create_dir_all(&dir).unwrap();
                let job = Job { work: *work, prepare: false, dir: &dir, scale };
                let run = |job: &Job<'_>| {
                    (peer.run)(job)
                        .unwrap_or_else(|error| panic!("{}, {job:?}: {error}", peer.name))
                };
                if work.is_prepared() {
                    assert!(run(&Job { prepare: true, ..job }).is_empty());
                }
                let figures = run(&job);
                let found: BTreeSet<_> =
                    figures.iter().map(|(what, _)| format!("{} {what}", work.name())).collect();
                for column in &columns {
                    let ours = column.what.starts_with(&format!("{} ", work.name()));
                    assert!(!ours || found.contains(column.what), "{}: {found:?}", peer.name);
                }
                // Memory of a few actors may be found anywhere.
                if *work != Work::Idle {
                    assert!(figures.iter().all(|(_, figure)| *figure >= 0.0), "{figures:?}");
                }
            }
        }
    }
}
