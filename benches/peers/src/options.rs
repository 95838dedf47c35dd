//! What the command line says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::run::{Case, Plan};
use crate::stores::PEERS;
use crate::work::Scale;

pub(crate) const USAGE: &str = "\
Annals and other stores at the same work, in one run. Tables in Markdown go to the output.

  --quick            everything once and small: that it works, not how fast
  --rounds N         rounds of each case; the median of them is shown (3)
  --only A,B         only these stores; the limits are measured in any case
  --case NAME        only this case, which may be said again
  --large            besides, how long Annals takes to open 1 and 5 GB of log after a kill
  --huge             the same, and 20 GB
  --write DOCS       writes the tables into DOCS/compare.md and the chart to DOCS/compare.svg
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
                    let case = Case::ALL.into_iter().find(|case| case.name() == name);
                    let known = || Case::ALL.map(Case::name).join(", ");
                    let case = case.ok_or_else(|| format!("cases are {}", known()))?;
                    this.plan.cases.push(case);
                }
                Long("large") => this.large = vec![1, 5],
                Long("huge") => this.large = vec![1, 5, 20],
                Long("write") => this.write = Some(parser.value()?.into()),
                Short('h') | Long("help") => return Ok(None),
                _ => return Err(argument.unexpected()),
            }
        }
        for name in &this.plan.only {
            if !PEERS.iter().any(|peer| peer.name == name) {
                let known: Vec<_> = PEERS.iter().map(|peer| peer.name).collect();
                return Err(format!("stores are {}", known.join(", ")).into());
            }
        }
        if this.quick {
            (this.plan.scale, this.plan.rounds) = (QUICK, 1);
        }
        if let Some(rounds) = rounds {
            this.plan.rounds = rounds;
        }
        if this.plan.cases.is_empty() {
            this.plan.cases = Case::ALL.to_vec();
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
        assert_eq!(options.plan.cases, Case::ALL);
        assert_eq!(options.plan.peers().count(), PEERS.len());
        assert_eq!(options.plan.scale.events(), 2_000_000);
        let options = parse("--case kill --only annals,lmdb --rounds 5").unwrap().unwrap();
        assert_eq!(options.plan.cases, [Case::Kill]);
        let names: Vec<_> = options.plan.peers().map(|peer| peer.name).collect();
        assert_eq!((names, options.plan.rounds), (vec!["annals", "lmdb"], 5));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parse("--case none").is_err());
        assert!(parse("--only nobody").is_err());
        assert!(parse("--fast").is_err());
        assert!(parse("--help").unwrap().is_none());
    }
}
