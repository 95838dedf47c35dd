//! Who is compared with whom: stores with stores, actors with actors. What tables need to know of
//! either.

use crate::actors;
use crate::columns::Section;
use crate::run::Case;
use crate::store::{Ask, Peer};
use crate::stores::{LEFT_OUT, PEERS};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Stores,
    Actors,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::Stores, Self::Actors];

    /// As `--family` says it, and the marks in the document.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stores => "stores",
            Self::Actors => "actors",
        }
    }

    /// The file beside the document.
    pub(crate) fn chart(self) -> &'static str {
        match self {
            Self::Stores => "compare.svg",
            Self::Actors => "compare-actors.svg",
        }
    }

    /// Ours first.
    pub(crate) fn entrants(self) -> Vec<Entrant> {
        match self {
            Self::Stores => PEERS.iter().map(Entrant::Store).collect(),
            Self::Actors => actors::PEERS.iter().map(Entrant::Actors).collect(),
        }
    }

    pub(crate) fn sections(self) -> &'static [Section] {
        match self {
            Self::Stores => crate::columns::SECTIONS,
            Self::Actors => actors::columns::SECTIONS,
        }
    }

    /// Those that this program was built without, and why.
    pub(crate) fn left_out(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Stores => LEFT_OUT,
            Self::Actors => &[],
        }
    }
}

/// Whoever takes part.
#[derive(Copy, Clone)]
pub(crate) enum Entrant {
    Store(&'static Peer),
    Actors(&'static actors::Peer),
}

impl Entrant {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Store(peer) => peer.name,
            Self::Actors(peer) => peer.name,
        }
    }

    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Store(peer) => peer.package,
            Self::Actors(peer) => peer.package,
        }
    }

    /// The cells of the last table, as its head has them.
    pub(crate) fn facts(self) -> [&'static str; 5] {
        match self {
            Self::Store(peer) => {
                [peer.kind, peer.durable, peer.unsynced, peer.in_flight, peer.checks]
            }
            Self::Actors(peer) => [peer.runs, peer.tells, peer.bounded, peer.keeps, peer.upkeep],
        }
    }

    /// Is it measured in this case, or is there at least something to say of why it is not?
    pub(crate) fn is_in(self, case: Case) -> bool {
        match (self, case) {
            (Self::Store(_), case) => case.family() == Family::Stores,
            (Self::Actors(peer), Case::Actors(work)) => peer.does.contains(&work),
            (Self::Actors(_), _) => false,
        }
    }

    /// Why it has no figure, where it should have one.
    pub(crate) fn cannot(self, case: Case, ask: Option<Ask>) -> Option<&'static str> {
        match (self, case) {
            (Self::Store(peer), _) => peer.cannot(ask?),
            (Self::Actors(peer), Case::Actors(work)) => peer.cannot(work),
            (Self::Actors(_), _) => None,
        }
    }

    /// What it does with less than was asked.
    pub(crate) fn less(self, ask: Option<Ask>) -> Option<&'static str> {
        match self {
            Self::Store(peer) => peer.less(ask?),
            Self::Actors(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::actors::work::Work;
    use crate::machine::version;

    #[test]
    fn names_are_given_once_in_a_family_and_ours_is_the_first() {
        for family in Family::ALL {
            let entrants = family.entrants();
            let names: BTreeSet<_> = entrants.iter().map(|it| it.name()).collect();
            assert_eq!(names.len(), entrants.len());
            assert_eq!(entrants[0].name(), "annals");
        }
    }

    #[test]
    fn everybody_has_a_version() {
        for entrant in Family::ALL.into_iter().flat_map(Family::entrants) {
            assert!(version(entrant.package()).is_some(), "{}", entrant.name());
        }
    }

    #[test]
    fn every_column_is_of_its_family_and_somebody_beside_ours_or_the_limit_is_in_it() {
        for family in Family::ALL {
            for column in family.sections().iter().flat_map(|section| section.columns) {
                assert_eq!(column.case.family(), family, "{}", column.long);
                let name = column.case.name();
                assert!(column.what.starts_with(&format!("{name} ")), "{}", column.what);
                assert!(family.entrants()[0].is_in(column.case), "{}", column.long);
            }
        }
    }

    #[test]
    fn every_case_is_in_some_table() {
        let columns: Vec<_> = Family::ALL
            .into_iter()
            .flat_map(Family::sections)
            .flat_map(|section| section.columns)
            .collect();
        for case in Case::all() {
            let shown = columns.iter().any(|column| column.case == case);
            assert!(shown || case == Case::Kill, "{}", case.name());
        }
        for work in Work::ALL {
            let others = Family::Actors.entrants();
            let others = others.iter().skip(1).filter(|it| it.is_in(Case::Actors(work)));
            assert!(others.count() > 0 || work == Work::Passivated, "{work:?}");
        }
    }
}
