//! The figures that are shown: where they come from, what they are, in which table they are.

use crate::run::Case;
use crate::stats::Unit;
use crate::store::Ask;

/// One column of a table, and a panel of the chart.
#[derive(Copy, Clone)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// By itself, as the chart and the list of losses say it.
    pub(crate) long: &'static str,
    /// As in `Results`.
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) case: Case,
    pub(crate) ask: Option<Ask>,
    pub(crate) in_chart: bool,
}

/// A table and what is said before it.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) intro: &'static str,
    pub(crate) columns: &'static [Column],
}

const fn column(
    (title, long): (&'static str, &'static str),
    what: &'static str,
    unit: Unit,
    (case, ask): (Case, Option<Ask>),
) -> Column {
    Column { title, long, what, unit, case, ask, in_chart: true }
}

const fn beside(column: Column) -> Column {
    Column { in_chart: false, ..column }
}

const DURABLE: Option<Ask> = Some(Ask::Durable);
const APPEND: Option<Ask> = Some(Ask::Append);

pub(crate) const SECTIONS: &[Section] = &[
    Section {
        title: "Durable appends",
        intro: "Each thread appends to a stream of its own and waits until its event survives \
                power loss. \"1,024 in flight\": that many are on their way before anybody waits; \
                stores that take one at a time get them gathered by hand (see *What each call \
                does*). The limit writes as many frames at once as there are threads, and wakes \
                nobody. \"Device\" is what the block device was told to write for each append of \
                one thread, by whomever.",
        columns: &[
            column(
                ("1 thread", "durable appends, 1 thread"),
                "durable-1 rate",
                Unit::Rate,
                (Case::Durable(1), DURABLE),
            ),
            beside(column(
                ("p50", "p50 of a durable append, 1 thread"),
                "durable-1 p50",
                Unit::Nanos,
                (Case::Durable(1), DURABLE),
            )),
            beside(column(
                ("p99", "p99 of a durable append, 1 thread"),
                "durable-1 p99",
                Unit::Nanos,
                (Case::Durable(1), DURABLE),
            )),
            column(
                ("8 threads", "durable appends, 8 threads"),
                "durable-8 rate",
                Unit::Rate,
                (Case::Durable(8), DURABLE),
            ),
            column(
                ("64 threads", "durable appends, 64 threads"),
                "durable-64 rate",
                Unit::Rate,
                (Case::Durable(64), DURABLE),
            ),
            column(
                ("1,024 in flight", "durable appends, 1,024 in flight"),
                "in-flight rate",
                Unit::Rate,
                (Case::InFlight, Some(Ask::InFlight)),
            ),
            beside(column(
                ("device", "written to the device for a lone commit"),
                "durable-1 device",
                Unit::Bytes,
                (Case::Durable(1), DURABLE),
            )),
        ],
    },
    Section {
        title: "Appends that survive `kill -9`",
        intro: "Nobody waits for the disk. What a store does in the background goes on meanwhile \
                and is paid for. Time for an append by one thread, first without a clock, then \
                with one reading of it for each; and of four threads, each with a stream of its \
                own, all together. The limit is both checksums and a copy into a resident map; \
                of four threads, the copy under one lock.",
        columns: &[
            column(
                ("1 thread", "append that survives a kill, 1 thread"),
                "append-1 nanos",
                Unit::Nanos,
                (Case::Append(1), APPEND),
            ),
            beside(column(
                ("p99.9", "p99.9 of such an append"),
                "append-1 p999",
                Unit::Nanos,
                (Case::Append(1), APPEND),
            )),
            column(
                ("4 threads", "appends that survive a kill, 4 threads"),
                "append-4 rate",
                Unit::Rate,
                (Case::Append(4), APPEND),
            ),
            beside(column(
                ("p99.9 of 4", "p99.9 of an append by one of 4 threads"),
                "append-4 p999",
                Unit::Nanos,
                (Case::Append(4), APPEND),
            )),
        ],
    },
    Section {
        title: "Reading",
        intro: "The data is that of an event store: streams of 200 events, appended in turn, so \
                that those of one stream lie far apart; then the process was killed. It is read \
                warm. A scan sees every event, in the order that is the store's own. A replay \
                sees all events of one stream in their order, one stream after another. The limit \
                is both checksums of each frame, in a map, at known places.",
        columns: &[
            column(
                ("scan, events", "scan of everything, events"),
                "data scan",
                Unit::Rate,
                (Case::Data, Some(Ask::Scan)),
            ),
            column(
                ("replay, streams", "replay of one stream of 200, streams"),
                "data replay",
                Unit::Rate,
                (Case::Data, Some(Ask::Replay)),
            ),
        ],
    },
    Section {
        title: "Opening after a kill, and space",
        intro: "The same data, as the kill has left it: everything was made durable but for the \
                last 4,000 events, which were appended one by one. Opening is until the store \
                takes appends and answers reads. The limit reads a MiB and makes one segment. \
                Bytes are blocks on the disk over events of 128 bytes: as the kill left them, and \
                after it was opened, read and closed.",
        columns: &[
            column(("open", "open after a kill"), "data open", Unit::Seconds, (Case::Data, None)),
            beside(column(
                ("after the kill", "bytes on disk for an event, after a kill"),
                "data killed",
                Unit::Bytes,
                (Case::Data, None),
            )),
            column(
                ("closed", "bytes on disk for an event, closed"),
                "data closed",
                Unit::Bytes,
                (Case::Data, None),
            ),
        ],
    },
];
