//! What the command line says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::family::{Entrant, Family};
use crate::run::{Case, Plan};
use crate::work::Scale;

pub(crate) const USAGE: &str = "\
Annals and other stores, and Annals and other actors, at the same work, in one run. Tables in
Markdown go to the output.

  --quick            everything once and small: that it works, not how fast
  --rounds N         rounds of each case; the median of them is shown (3)
  --only A,B         only these stores or actors; the limits are measured in any case
  --family NAME      only the cases of stores, or of actors
  --case NAME        only this case, which may be said again
  --large            besides, how long Annals takes to open 1 and 5 GB of log after a kill
  --huge             the same, and 20 GB
  --write DOCS       writes the tables into DOCS/compare.md, and the charts beside it; of each
                     family whose cases were measured
  --help             this

ANNALS_BENCH_DIR says where the data goes: it should be the disk that the figures are about.
";

/// The whole of it.
pub(crate) struct Options {
    pub(crate) plan: Plan,
    pub(crate) quick: bool,
    /// GB of log.
    pub(crate) large: Vec<u64>,
    pub(crate) write: Option<PathBuf>,
    /// As it was given.
    pub(crate) command: String,
}

impl Options {
    /// `None` where help was asked for.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Option<Self>, lexopt::Error> {
        use lexopt::prelude::*;

        let words: Vec<_> = arguments.iter().map(|it| it.to_string_lossy()).collect();
        let mut this = Self {
            plan: Plan { scale: FULL, rounds: 3, cases: Vec::new(), only: Vec::new() },
            quick: false,
            large: Vec::new(),
            write: None,
            command: words.join(" "),
        };
        let mut rounds = None;
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => this.quick = true,
                Long("rounds") => rounds = Some(parser.value()?.parse()?),
                Long("only") => {
                    let names = parser.value()?.string()?;
                    this.plan.only.extend(names.split(',').map(str::to_owned));
                }
                Long("case") => {
                    let name = parser.value()?.string()?;
                    let case = Case::all().into_iter().find(|case| case.name() == name);
                    let known = || Case::all().into_iter().map(Case::name).collect::<Vec<_>>();
                    let case = case.ok_or_else(|| format!("cases are {}", known().join(", ")))?;
                    this.plan.cases.push(case);
                }
                Long("family") => {
                    let name = parser.value()?.string()?;
                    let family = Family::ALL.into_iter().find(|family| family.name() == name);
                    let family = family.ok_or("families are stores and actors")?;
                    let cases = Case::all().into_iter().filter(|case| case.family() == family);
                    this.plan.cases.extend(cases);
                }
                Long("large") => this.large = vec![1, 5],
                Long("huge") => this.large = vec![1, 5, 20],
                Long("write") => this.write = Some(parser.value()?.into()),
                Short('h') | Long("help") => return Ok(None),
                _ => return Err(argument.unexpected()),
            }
        }
        let known = |family: Family| family.entrants().into_iter().map(Entrant::name);
        for name in &this.plan.only {
            if !Family::ALL.into_iter().flat_map(known).any(|known| known == name) {
                let [stores, actors] = Family::ALL.map(|it| known(it).collect::<Vec<_>>());
                let (stores, actors) = (stores.join(", "), actors.join(", "));
                return Err(format!("stores are {stores}; actors are {actors}").into());
            }
        }
        if this.quick {
            (this.plan.scale, this.plan.rounds) = (QUICK, 1);
        }
        if let Some(rounds) = rounds {
            this.plan.rounds = rounds;
        }
        if this.plan.cases.is_empty() {
            this.plan.cases = Case::all();
        }
        Ok(Some(this))
    }
}

/// 2 M events.
const FULL: Scale = Scale {
    warm: Duration::from_millis(400),
    measure: Duration::from_millis(600),
    streams: 10_000,
    per_stream: 200,
};

const QUICK: Scale = Scale {
    warm: Duration::from_millis(10),
    measure: Duration::from_millis(40),
    streams: 100,
    per_stream: 200,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, lexopt::Error> {
        Options::parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn everything_is_measured_unless_something_else_is_said() {
        let options = parse("").unwrap().unwrap();
        assert_eq!(options.plan.cases, Case::all());
        for family in Family::ALL {
            assert_eq!(options.plan.entrants(family).count(), family.entrants().len());
        }
        assert_eq!(options.plan.scale.events(), 2_000_000);
        let options = parse("--case kill --only annals,lmdb --rounds 5").unwrap().unwrap();
        assert_eq!(options.plan.cases, [Case::Kill]);
        let names = |family| options.plan.entrants(family).map(Entrant::name).collect::<Vec<_>>();
        assert_eq!((names(Family::Stores), options.plan.rounds), (vec!["annals", "lmdb"], 5));
        assert_eq!(names(Family::Actors), ["annals"]);
    }

    #[test]
    fn a_family_is_all_its_cases_and_no_other() {
        for family in Family::ALL {
            let options = parse(&format!("--family {}", family.name())).unwrap().unwrap();
            assert!(options.plan.cases.iter().all(|case| case.family() == family));
            assert!(options.plan.has(family));
        }
        let options = parse("--case tell-1-1 --case kill").unwrap().unwrap();
        assert!(Family::ALL.into_iter().all(|family| options.plan.has(family)));
        assert!(!parse("--case kill").unwrap().unwrap().plan.has(Family::Actors));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parse("--case none").is_err());
        assert!(parse("--only nobody").is_err());
        assert!(parse("--family addams").is_err());
        assert!(parse("--fast").is_err());
        assert!(parse("--help").unwrap().is_none());
    }
}
