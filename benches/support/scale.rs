//! How much is done, and which of it.

/// How much is done.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Everything once, to see that it works: `--test`.
    Once,
    /// `ANNALS_BENCH=quick`, the default: all benches in less than two minutes.
    Quick,
    /// `ANNALS_BENCH=full`: for figures that are quoted.
    Full,
}

impl Scale {
    pub(crate) fn pick<T>(self, once: T, quick: T, full: T) -> T {
        match self {
            Self::Once => once,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// Criterion's options that have no value behind them.
const ALONE: [&str; 12] = [
    "--quick",
    "--exact",
    "--verbose",
    "-v",
    "--quiet",
    "--noplot",
    "-n",
    "--discard-baseline",
    "--ignored",
    "--include-ignored",
    "--nocapture",
    "--show-output",
];

/// What criterion makes of the command line, as far as what it does not run needs to know.
pub(crate) struct Arguments {
    once: bool,
    list: bool,
    filter: Option<String>,
}

impl Arguments {
    pub(crate) fn of_process() -> Self {
        let mut this = Self { once: false, list: false, filter: None };
        let mut bench = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => bench = true,
                "--test" => this.once = true,
                "--list" => this.list = true,
                option if option.starts_with('-') => {
                    if !ALONE.contains(&option) && !option.contains('=') {
                        arguments.next();
                    }
                }
                filter => this.filter = Some(filter.to_owned()),
            }
        }
        // `cargo test --benches` runs a bench without `--bench`, once.
        this.once |= !bench;
        this
    }

    pub(crate) fn scale(&self) -> Scale {
        let wanted = std::env::var("ANNALS_BENCH").unwrap_or_default();
        match (self.once, wanted.as_str()) {
            (true, _) => Scale::Once,
            (false, "" | "quick") => Scale::Quick,
            (false, "full") => Scale::Full,
            (false, other) => panic!("ANNALS_BENCH is `quick` or `full`, not `{other}`"),
        }
    }

    pub(crate) fn wants(&self, group: &str) -> bool {
        let filter = self.filter.as_deref().unwrap_or_default();
        !self.list && (group.contains(filter) || filter.starts_with(group))
    }
}
