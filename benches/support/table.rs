//! The table at the end: work | ours | limit | ratio.

use super::histogram::Histogram;
use super::scale::Scale;

/// What a figure is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds, to be shown as things done in a second.
    PerSecond,
    /// Nanoseconds.
    Time,
    Bytes,
}

/// A line of the table.
pub(crate) struct Row {
    work: String,
    unit: Unit,
    ours: f64,
    limit: Option<f64>,
}

impl Row {
    pub(crate) fn measured(
        work: impl Into<String>,
        unit: Unit,
        (ours, limit): (f64, Option<f64>),
    ) -> Self {
        Self { work: work.into(), unit, ours, limit }
    }
}

/// All lines of a bench.
pub(crate) struct Table {
    bench: &'static str,
    scale: Scale,
    rows: Vec<Row>,
    distributions: Vec<(String, Histogram)>,
}

impl Table {
    pub(crate) fn new(bench: &'static str, scale: Scale) -> Self {
        Self { bench, scale, rows: Vec::new(), distributions: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Shown whole in a table of its own.
    pub(crate) fn distribution(&mut self, work: impl Into<String>, times: Histogram) {
        if !times.is_empty() {
            self.distributions.push((work.into(), times));
        }
    }

    pub(crate) fn print(&self) {
        let (scale, bench) = (self.scale.pick("quick", "quick", "full"), self.bench);
        if !self.distributions.is_empty() {
            println!("\n| time of one | p50 | p99 | p99.9 | max |\n|---|---:|---:|---:|---:|");
            for (work, times) in &self.distributions {
                let [p50, p99, p999] = [500, 990, 999].map(|parts| time(times.per_mille(parts)));
                println!("| {work} | {p50} | {p99} | {p999} | {} |", time(times.max()));
            }
        }
        if self.rows.is_empty() {
            return;
        }
        println!("\n| work | ours | limit | ratio |\n|---|---:|---:|---:|");
        for Row { work, unit, ours, limit } in &self.rows {
            let show = |figure: f64| match unit {
                Unit::PerSecond => rate(1e9 / figure),
                Unit::Time => time(figure),
                Unit::Bytes => size(figure),
            };
            let ratio = limit.map_or_else(
                || "-".to_owned(),
                |limit| match unit {
                    Unit::PerSecond => format!("{:.2}", limit / ours),
                    Unit::Time | Unit::Bytes => format!("{:.2}", ours / limit),
                },
            );
            let limit = limit.map_or_else(|| "-".to_owned(), show);
            println!("| {work} | {} | {limit} | {ratio} |", show(*ours));
        }
        match self.scale {
            Scale::Once => println!("\nEach ran once: these figures mean nothing."),
            Scale::Quick | Scale::Full => {
                println!("\n`ANNALS_BENCH={scale} cargo bench --bench {bench}`");
            }
        }
    }
}

/// The one in the middle.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn scaled(figure: f64, units: &[(f64, &str)]) -> String {
    let found = units.iter().find(|(least, _)| figure.abs() >= *least);
    let (least, unit) = found.or(units.last()).copied().unwrap_or((1.0, ""));
    let shown = figure / least;
    let decimals = if shown >= 100.0 {
        0
    } else if shown >= 10.0 {
        1
    } else {
        2
    };
    format!("{shown:.decimals$} {unit}")
}

fn time(nanos: f64) -> String {
    scaled(nanos, &[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")])
}

fn rate(per_second: f64) -> String {
    scaled(per_second, &[(1e6, "M/s"), (1e3, "K/s"), (1.0, "/s")])
}

fn size(bytes: f64) -> String {
    scaled(bytes, &[(1_024.0, "KiB"), (1.0, "B")])
}
