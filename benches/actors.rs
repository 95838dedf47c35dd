//! Actors: messages, commands on disk, memory, recovery, each beside the least it must cost.
//!
//! `benches/README.md` says what each row means.
#![expect(clippy::disallowed_methods, reason = "benches measure real time on a real disk")]
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

#[path = "actors/account.rs"]
mod account;
#[path = "actors/durable.rs"]
mod durable;
#[path = "actors/memory.rs"]
mod memory;
#[path = "actors/messages.rs"]
mod messages;
#[path = "actors/owed.rs"]
mod owed;
#[path = "actors/recovery.rs"]
mod recovery;
mod support;

use support::Bench;

fn main() {
    if memory::is_child() {
        return;
    }
    let mut bench = Bench::new("actors");
    messages::tell(&mut bench);
    messages::ask(&mut bench);
    messages::ping_pong(&mut bench);
    memory::create(&mut bench);
    memory::resident(&mut bench);
    durable::lone(&mut bench);
    durable::pipelined(&mut bench);
    durable::reads_beside_commits(&mut bench);
    owed::send(&mut bench);
    owed::timers(&mut bench);
    owed::once(&mut bench);
    owed::deferred(&mut bench);
    owed::resume(&mut bench);
    recovery::recover(&mut bench);
    recovery::open_many(&mut bench);
    bench.table.print();
}
