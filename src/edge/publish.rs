//! What is counted of a pipeline, handed to the recorder of the crate `metrics` by the pipeline's
//! own thread: once a second, and when it ends. Without the feature nothing is.

#[cfg(not(feature = "metrics"))]
pub(super) use off::Publisher;
#[cfg(feature = "metrics")]
pub(super) use on::Publisher;

#[cfg(not(feature = "metrics"))]
mod off {
    use std::time::Duration;

    use crate::edge::gauge::Gauges;

    /// Nobody publishes.
    #[derive(Debug, Default)]
    pub(in crate::edge) struct Publisher(());

    impl Publisher {
        #[expect(clippy::unused_self, reason = "as where somebody does")]
        pub(in crate::edge) fn publish(
            &mut self,
            _pipeline: &str,
            _gauges: &Gauges,
            _now: Option<Duration>,
        ) {
        }
    }
}

#[cfg(feature = "metrics")]
mod on {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use ::metrics::{Key, Label, Level, Metadata, Recorder, Unit, with_recorder};

    use crate::edge::gauge::{Gauges, Numbers};
    use crate::metrics::float;

    /// How often it is published.
    const PERIOD: Duration = Duration::from_secs(1);

    type Row<T> = (&'static str, Unit, &'static str, fn(&Numbers) -> T);

    const COUNTERS: &[Row<u64>] = &[
        ("annals_edge_pulled_total", Unit::Count, "records that the source gave", |it| it.pulled),
        ("annals_edge_emitted_total", Unit::Count, "records that came out of the stages", |it| {
            it.emitted
        }),
        ("annals_edge_put_total", Unit::Count, "records that the sink was given", |it| it.put),
        (
            "annals_edge_settled_total",
            Unit::Count,
            "records of the source behind which the frontier is",
            |it| it.settled,
        ),
        ("annals_edge_dead_total", Unit::Count, "dead letters", |it| it.dead),
        ("annals_edge_retries_total", Unit::Count, "what was to be tried again", |it| it.retries),
        ("annals_edge_gaps_total", Unit::Count, "gaps", |it| it.gaps),
        ("annals_edge_lost_total", Unit::Count, "records in gaps, where known", |it| it.lost),
        (
            "annals_edge_replayed_total",
            Unit::Count,
            "records that came again though the sink has them",
            |it| it.replayed,
        ),
        (
            "annals_edge_repeated_total",
            Unit::Count,
            "records that were not put, because the sink has them",
            |it| it.repeated,
        ),
        ("annals_edge_bytes_total", Unit::Bytes, "bytes that the sink has written", |it| it.bytes),
    ];

    const GAUGES: &[Row<f64>] = &[
        (
            "annals_edge_inflight",
            Unit::Count,
            "records of the source between the frontier and its head",
            |it| float(it.inflight),
        ),
        (
            "annals_edge_lag_seconds",
            Unit::Seconds,
            "for how long the oldest of them has been so",
            |it| float(it.lag_us) / 1e6,
        ),
        ("annals_edge_frontier", Unit::Count, "number of the frontier's unit", |it| {
            float(it.frontier.seq)
        }),
        ("annals_edge_head", Unit::Count, "number of the unit that was pulled last", |it| {
            float(it.head.seq)
        }),
    ];

    const SKIPPED: (&str, Unit, &str) =
        ("annals_edge_skipped_total", Unit::Count, "records that stages have dropped, by reason");

    static METADATA: Metadata<'static> = Metadata::new("annals", Level::INFO, Some("annals"));

    /// What was published last.
    #[derive(Debug, Default)]
    pub(in crate::edge) struct Publisher {
        at: Option<Duration>,
        before: Numbers,
    }

    impl Publisher {
        /// Publishes, if it is time; without one in any case.
        pub(in crate::edge) fn publish(
            &mut self,
            pipeline: &str,
            gauges: &Gauges,
            now: Option<Duration>,
        ) {
            let due = |now: Duration| self.at.is_none_or(|at| now.saturating_sub(at) >= PERIOD);
            if !now.is_none_or(due) {
                return;
            }
            let first = self.at.is_none();
            self.at = now.or(self.at);
            let numbers = gauges.read();
            let publish = || {
                with_recorder(|recorder| self.publish_to(recorder, (pipeline, first), &numbers));
            };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(publish)) {
                // A recorder's panic is its own business; that of its payload, too.
                let _dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            }
            self.before = numbers;
        }

        fn publish_to(
            &self,
            recorder: &dyn Recorder,
            (pipeline, first): (&str, bool),
            now: &Numbers,
        ) {
            let label = || Label::new("pipeline", pipeline.to_owned());
            for (name, unit, meaning, of) in COUNTERS {
                if first {
                    recorder.describe_counter((*name).into(), Some(*unit), (*meaning).into());
                }
                let counter =
                    recorder.register_counter(&Key::from_parts(*name, vec![label()]), &METADATA);
                counter.increment(of(now).saturating_sub(of(&self.before)));
            }
            for (name, unit, meaning, of) in GAUGES {
                if first {
                    recorder.describe_gauge((*name).into(), Some(*unit), (*meaning).into());
                }
                let key = Key::from_parts(*name, vec![label()]);
                recorder.register_gauge(&key, &METADATA).set(of(now));
            }
            let (name, unit, meaning) = SKIPPED;
            if first {
                recorder.describe_counter(name.into(), Some(unit), meaning.into());
            }
            for (reason, count) in &now.skipped {
                let before = self.before.skipped.get(reason).copied().unwrap_or(0);
                let labels = vec![label(), Label::new("reason", *reason)];
                let counter = recorder.register_counter(&Key::from_parts(name, labels), &METADATA);
                counter.increment(count.saturating_sub(before));
            }
        }
    }
}
