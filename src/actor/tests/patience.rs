//! Durable messages to actors that are not ready for them: put aside, or at rest.

use std::thread;

use super::*;
use crate::actor::{Durable, Supervision};

/// Takes parcels while it is open, and drops everything when it stumbles.
#[derive(Default)]
struct Depot {
    open: bool,
    parcels: Vec<u64>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Parcel(u64);
impl Durable for Parcel {
    const NAME: &'static str = "parcel";
}

impl Actor for Depot {
    type Event = u64;
    const KIND: &'static str = "depot";
    fn apply(&mut self, event: &u64) {
        match event {
            0 => self.open = true,
            parcel => self.parcels.push(*parcel),
        }
    }
    fn options() -> ActorOptions<Self> {
        let short = Duration::from_millis(20);
        let supervision =
            Supervision { backoff_min: short, backoff_max: short, ..Supervision::default() };
        ActorOptions::new().command::<Parcel>().supervise(supervision)
    }
}
impl Handle<Parcel> for Depot {
    type Reply = ();
    fn handle(Parcel(number): Parcel, turn: &mut Turn<'_, Self>) {
        turn.emit(number);
    }
    fn admits(_: &Parcel, depot: &Self) -> bool {
        depot.open
    }
}
struct Open;
impl Handle<Open> for Depot {
    type Reply = ();
    fn handle(_: Open, turn: &mut Turn<'_, Self>) {
        turn.emit(0);
        turn.unstash();
    }
}
struct Stumble;
impl Handle<Stumble> for Depot {
    type Reply = ();
    fn handle(_: Stumble, _: &mut Turn<'_, Self>) {
        panic!("over its own feet");
    }
}
impl Handle<Get> for Depot {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.parcels.clone()
    }
}

fn depot(runtime: &Runtime) -> Addr<Depot> {
    runtime.actor("a").unwrap()
}

fn send(runtime: &Runtime, number: u64) {
    let to = depot(runtime);
    let sent = list(runtime, "sender")
        .ask(Do(move |turn: &mut Turn<'_, List>| turn.send(&to, Parcel(number)).is_ok()));
    assert!(sent.unwrap());
}

fn await_stashed(runtime: &Runtime, count: usize) {
    while depot(runtime).cell().aside(|aside| aside.stash.len()) != count {
        thread::yield_now();
    }
}

fn await_parcels(runtime: &Runtime, expected: &[u64]) {
    loop {
        match depot(runtime).ask(Get) {
            Ok(parcels) if parcels == expected => return,
            Ok(parcels) => assert!(expected.starts_with(&parcels), "{parcels:?}"),
            Err(ActorError::Resting { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        thread::yield_now();
    }
}

/// What is put aside is still owed: the next life puts it aside anew, and none is lost or doubled.
/// Nobody who takes up what was interrupted waits for it meanwhile.
#[test]
fn a_durable_message_that_was_put_aside_outlives_the_process() {
    let memory = Memory::new();
    {
        let runtime = runtime(&memory);
        send(&runtime, 1);
        send(&runtime, 2);
        await_stashed(&runtime, 2);
    }
    {
        let runtime = runtime(&memory);
        await_stashed(&runtime, 2);
        send(&runtime, 3);
        await_stashed(&runtime, 3);
        depot(&runtime).ask(Open).unwrap();
        await_parcels(&runtime, &[1, 2, 3]);
    }
    let runtime = runtime(&memory);
    await_parcels(&runtime, &[1, 2, 3]);
    assert_eq!(runtime.dead_letters(), 0);
}

#[test]
fn a_durable_message_to_an_actor_at_rest_comes_again_after_it() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    depot(&runtime).ask(Open).unwrap();
    for number in 1..4 {
        let stumbled = depot(&runtime).ask(Stumble);
        assert!(matches!(stumbled, Err(ActorError::Panicked { .. })), "{stumbled:?}");
        send(&runtime, number);
        await_parcels(&runtime, &[1, 2, 3][..usize::try_from(number).unwrap()]);
    }
    assert_eq!(runtime.dead_letters(), 0);
}
