//! The log: appends, commits, reads and opens, each beside the least that it must cost.
//!
//! `benches/README.md` says what each row means.
#![expect(clippy::disallowed_methods, reason = "benches measure real time on a real disk")]
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

#[path = "log/append.rs"]
mod append;
#[path = "support/device.rs"]
mod device;
#[path = "log/durable.rs"]
mod durable;
#[path = "log/read.rs"]
mod read;
#[path = "log/reopen.rs"]
mod reopen;
mod support;
#[path = "log/writer.rs"]
mod writer;

use support::Bench;

fn main() {
    let mut bench = Bench::new("log");
    append::rates(&mut bench);
    append::bursts(&mut bench);
    append::recycled(&mut bench);
    append::latency(&mut bench);
    durable::lone(&mut bench);
    durable::threads(&mut bench);
    durable::in_flight(&mut bench);
    durable::device(&mut bench);
    read::scan(&mut bench);
    read::replay(&mut bench);
    reopen::reopen(&mut bench);
    reopen::first_read(&mut bench);
    bench.table.print();
}
