//! Nodes: from a publish here to a cache over there, each beside the raw socket.
//!
//! `benches/README.md` says what each row means.
#![expect(clippy::disallowed_methods, reason = "benches measure real time on a real disk")]
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

#[path = "sync/nodes.rs"]
mod nodes;
#[path = "sync/raw.rs"]
mod raw;
#[path = "sync/ship.rs"]
mod ship;
#[expect(dead_code, reason = "some of it is for the other benches")]
mod support;

use support::Bench;

fn main() {
    let mut bench = Bench::new("sync");
    ship::publish(&mut bench);
    ship::one_way(&mut bench);
    ship::stream(&mut bench);
    ship::catch_up(&mut bench);
    bench.table.print();
}
