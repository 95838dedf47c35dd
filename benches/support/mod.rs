//! What the benches share: how much they do, where, and how they say what came of it.
//!
//! Every row is measured beside its *limit*: the least that the machine must do for the same
//! promise, in plain code, in the same run and sample by sample, because absolute figures drift.

pub(crate) mod flush;
pub(crate) mod histogram;
pub(crate) mod home;
pub(crate) mod scale;
pub(crate) mod table;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};

use home::Home;
use scale::{Arguments, Scale};
use table::{Row, Table, Unit, median};

/// Bytes of an event's payload, everywhere.
pub(crate) const PAYLOAD_BYTES: usize = 128;
/// Bytes that a frame of one such event takes.
pub(crate) const FRAME_BYTES: usize = 176;

/// What a number of repetitions took, and their limit's.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) ours: Duration,
    pub(crate) limit: Duration,
}

/// A bench program under way.
pub(crate) struct Bench {
    pub(crate) scale: Scale,
    pub(crate) home: Home,
    pub(crate) table: Table,
    criterion: Criterion,
    arguments: Arguments,
}

impl Bench {
    pub(crate) fn new(name: &'static str) -> Self {
        let arguments = Arguments::of_process();
        let scale = arguments.scale();
        let criterion = Criterion::default()
            .without_plots()
            .warm_up_time(Duration::from_millis(scale.pick(1, 200, 1_000)))
            .measurement_time(Duration::from_millis(scale.pick(1, 1_000, 3_000)))
            .sample_size(scale.pick(10, 10, 20))
            .configure_from_args();
        let home = Home::new(name);
        Self { scale, table: Table::new(name, scale), home, criterion, arguments }
    }

    /// Was this group asked for on the command line?
    pub(crate) fn wants(&self, group: &str) -> bool {
        self.arguments.wants(group)
    }

    /// A benchmark of criterion's and a row of the table. `run` does the work as often as it is
    /// told, and its limit as often; each time is `elements` things done.
    pub(crate) fn compare(
        &mut self,
        (group, name): (&str, &str),
        unit: Unit,
        elements: u64,
        run: &mut dyn FnMut(u64) -> Pair,
    ) {
        let mut ours = Vec::new();
        let mut limits = Vec::new();
        let mut criterion_group = self.criterion.benchmark_group(group);
        criterion_group.throughput(Throughput::Elements(elements));
        criterion_group.sampling_mode(SamplingMode::Flat);
        criterion_group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let pair = run(times);
                let done = (times * elements) as f64;
                ours.push(pair.ours.as_nanos() as f64 / done);
                limits.push(pair.limit.as_nanos() as f64 / done);
                pair.ours
            });
        });
        criterion_group.finish();
        // The first ones were the warm-up's.
        let from = ours.len().saturating_sub(self.scale.pick(10, 10, 20));
        if let (Some(ours), Some(limit)) = (median(&ours[from..]), median(&limits[from..])) {
            self.table.add(Row::measured(format!("{group}: {name}"), unit, (ours, Some(limit))));
        }
    }
}
