//! The figures of actors that are shown.

use super::work::{Route, Work};
use crate::columns::{Column, Section};
use crate::run::Case;
use crate::stats::Unit;

const fn column(
    (title, long): (&'static str, &'static str),
    what: &'static str,
    unit: Unit,
    work: Work,
) -> Column {
    Column { title, long, what, unit, case: Case::Actors(work), ask: None, in_chart: true }
}

const fn beside(column: Column) -> Column {
    Column { in_chart: false, ..column }
}

const fn tell(title: (&'static str, &'static str), what: &'static str, route: Route) -> Column {
    column(title, what, Unit::Rate, Work::Tell(route))
}

pub(crate) const SECTIONS: &[Section] = &[
    Section {
        title: "Messages in memory",
        intro: "Nothing is stored. A message is a number that the receiver adds to its state; \
                until all have been handled, and the sum is right. Without a bound that matters, \
                but for one column, where the mailbox holds 1,024. The limit is a channel of \
                crossbeam between bare threads. An ask is that of an idle actor by a thread that \
                belongs to no runtime, one after another; its limit is a lock taken and a number \
                read. In ping-pong two actors send one message to and fro; its limit takes each \
                message through a channel and out again on one thread.",
        columns: &[
            tell(("tell, 1 to 1", "tells, 1 to 1"), "tell-1-1 rate", Route::OneToOne),
            tell(("4 to 1", "tells, 4 to 1"), "tell-4-1 rate", Route::FourToOne),
            tell(("1 to 1,000", "tells, 1 to 1,000"), "tell-1-1000 rate", Route::OneToThousand),
            tell(
                ("mailbox of 1,024", "tells, 1 to 1, mailbox of 1,024"),
                "tell-bounded rate",
                Route::Bounded,
            ),
            column(("ask, p50", "ask of an idle actor, p50"), "ask p50", Unit::Nanos, Work::Ask),
            beside(column(("p99", "ask of an idle actor, p99"), "ask p99", Unit::Nanos, Work::Ask)),
            column(
                ("ping-pong, round trips", "ping-pong, round trips"),
                "ping-pong rate",
                Unit::Rate,
                Work::PingPong,
            ),
        ],
    },
    Section {
        title: "Making and keeping actors",
        intro: "Time for each of many actors that are made in a row: until the call returns, and \
                with a first turn of each. (In Annals the call makes an address of a name; there \
                is an actor when it is first addressed.) Memory of the process, without mapped \
                files, for each actor that has had a turn and waits for the next; the address \
                that is held of each is not counted. Passivated is an actor with one event \
                that has left memory, whose address nobody holds: what is still known of it. The \
                limit is a boxed state in a list.",
        columns: &[
            column(
                ("idle", "memory of an idle actor"),
                "actor-idle bytes",
                Unit::Bytes,
                Work::Idle,
            ),
            beside(column(
                ("passivated", "memory of a passivated actor"),
                "actor-passivated bytes",
                Unit::Bytes,
                Work::Passivated,
            )),
            beside(column(
                ("create", "creating an actor, the call"),
                "actor-create call",
                Unit::Nanos,
                Work::Create,
            )),
            column(
                ("with a first turn", "creating an actor, with its first turn"),
                "actor-create turn",
                Unit::Nanos,
                Work::Create,
            ),
        ],
    },
    Section {
        title: "Commands on disk",
        intro: "A command makes an event of 128 bytes, and its reply leaves when that survives \
                power loss. One in flight is asked by a thread of the system. In the others so \
                many actors have one command each on its way all the time; p50 is from sending it \
                to having its reply. The limit writes as many frames at once as are in flight, \
                syncs, and wakes nobody. The last two columns are asks of an actor with nothing to \
                commit, which make no event, while two threads command two others without a \
                pause; their limit is a lock and a number, while two threads write and sync files. \
                Afterwards everything is closed and counted again: who is short of an event has \
                no figure.",
        columns: &[
            column(
                ("1 in flight", "durable commands, 1 in flight"),
                "command-1 rate",
                Unit::Rate,
                Work::Command(1),
            ),
            beside(column(
                ("p50", "p50 of a durable command, 1 in flight"),
                "command-1 p50",
                Unit::Nanos,
                Work::Command(1),
            )),
            column(
                ("64 in flight", "durable commands, 64 actors"),
                "command-64 rate",
                Unit::Rate,
                Work::Command(64),
            ),
            beside(column(
                ("p50 of 64", "p50 of a durable command, 64 actors"),
                "command-64 p50",
                Unit::Nanos,
                Work::Command(64),
            )),
            column(
                ("1,000 in flight", "durable commands, 1,000 actors"),
                "command-1000 rate",
                Unit::Rate,
                Work::Command(1_000),
            ),
            beside(column(
                ("p50 of 1,000", "p50 of a durable command, 1,000 actors"),
                "command-1000 p50",
                Unit::Nanos,
                Work::Command(1_000),
            )),
            beside(column(
                ("read beside, p50", "ask of a clean actor while others commit, p50"),
                "read-beside p50",
                Unit::Nanos,
                Work::Beside,
            )),
            column(
                ("p99", "ask of a clean actor while others commit, p99"),
                "read-beside p99",
                Unit::Nanos,
                Work::Beside,
            ),
        ],
    },
    Section {
        title: "Coming back",
        intro: "Actors of 100 events that lie among those of all others, one after another, p50: \
                in Annals the first ask of one that is not in memory, in SQLite a select and a \
                fold, without an actor. From a snapshot: the same with one that covers all 100. \
                The limit is the checksums of 100 frames, or of one, at known places. Cold: after \
                a compaction (in SQLite a `VACUUM`) the page cache is told to forget the files \
                (`posix_fadvise`); then the store is opened and the first actor recovered, and \
                then 63 more that lie far apart. The limit is one read of 100 frames that lie \
                side by side. The last column opens a store that was closed, in which many actors \
                sleep and none was interrupted; its limit reads a MiB and makes one segment.",
        columns: &[
            column(
                ("100 events", "recovering an actor of 100 events"),
                "recover events",
                Unit::Nanos,
                Work::Recover,
            ),
            column(
                ("a snapshot", "recovering an actor from a snapshot"),
                "recover snapshot",
                Unit::Nanos,
                Work::Recover,
            ),
            beside(column(
                ("cold, with the open", "opening and recovering one actor, cold"),
                "recover-cold open",
                Unit::Seconds,
                Work::Cold,
            )),
            column(
                ("cold, p50 of the next", "recovering an actor, cold"),
                "recover-cold p50",
                Unit::Nanos,
                Work::Cold,
            ),
            column(
                ("open, all asleep", "opening, with many actors asleep"),
                "open-sleepers open",
                Unit::Seconds,
                Work::Open,
            ),
        ],
    },
];
