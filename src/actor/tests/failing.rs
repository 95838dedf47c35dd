//! Turns that cannot be appended, and actors that cannot be rebuilt.

use super::*;
use crate::actor::provider::EventStore as _;
use crate::actor::{Old, StopReason, Unreadable, Value as _, Why};
use crate::error::{AppendError, Damage, DamageReason, DiskError, ReadError};
use crate::log::frame::{Batch, RecordKind};
use crate::types::{Seq, StreamId};

pub(super) fn disk_full() -> AppendError {
    let source = Arc::new(std::io::ErrorKind::StorageFull.into());
    AppendError::DiskFull(DiskError { doing: "preparing", path: "disk".into(), source })
}

/// Appends a frame of `List` events as another build might have.
fn append(memory: &Memory, name: &str, first: u64, events: &[(u16, u64)]) {
    append_named(memory, StreamId::of("list", name), ("list", name), first, events);
}

pub(super) fn append_named(
    memory: &Memory,
    stream: StreamId,
    (kind, name): (&str, &str),
    first: u64,
    events: &[(u16, u64)],
) {
    let mut batch = Batch::new();
    if first == 1 {
        let length = u16::try_from(kind.len()).unwrap().to_le_bytes();
        let payload = [&length, kind.as_bytes(), name.as_bytes()].concat();
        batch.push(RecordKind::Name, 1, &payload).unwrap();
    }
    for (version, event) in events {
        let write = |bytes: &mut _| {
            event.encode(bytes).unwrap();
            Ok(())
        };
        batch.push_with(RecordKind::Event, *version, 8, write).unwrap();
    }
    memory.append(&mut batch, stream, Seq::new(first).unwrap()).unwrap();
}

fn why(reply: Result<Vec<u64>, ActorError>) -> (StopReason, u64) {
    match reply {
        Err(ActorError::Stopped(stopped)) => (stopped.why.clone(), stopped.seq.get()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_turn_that_finds_no_room_fails_whole_and_later_ones_work() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let (list, other) = (list(&runtime, "a"), list(&runtime, "b"));
    list.ask(Add(1)).unwrap();
    memory.fail_appends(Some(disk_full()));
    let target = other.clone();
    let reply = list.ask(Do(move |turn: &mut Turn<'_, List>| {
        turn.emit(2);
        turn.tell(&target, Add(3)).unwrap();
        turn.emit(4);
    }));
    let Err(ActorError::Append(error)) = reply else { panic!("{reply:?}") };
    assert!(matches!(*error, AppendError::DiskFull(_)));
    assert_eq!(list.ask(Get).unwrap(), [1]);
    memory.fail_appends(None);
    clock.advance(Duration::from_millis(100));
    assert_eq!(list.ask(Add(5)).unwrap(), 2);
    assert!(other.ask(Get).unwrap().is_empty());
    assert_eq!(runtime.dead_letters(), 0, "its asker got the error");
}

#[test]
fn a_told_command_whose_turn_fails_is_a_dead_letter() {
    let (tell, told) = crossbeam_channel::unbounded();
    let options = RuntimeOptions {
        on_dead_letter: Some(Arc::new(move |letter| tell.send(letter.clone()).unwrap())),
        ..RuntimeOptions::default()
    };
    let memory = Memory::new();
    let runtime = runtime_with(&memory, options);
    let list = list(&runtime, "a");
    list.tell(Add(BAD)).unwrap();
    let letter = told.recv_timeout(LONG).unwrap();
    assert_eq!((letter.kind, &*letter.name), ("list", "a"));
    assert!(letter.command.ends_with("Add"), "{}", letter.command);
    assert!(matches!(letter.why, ActorError::Panicked { .. }));
    assert_eq!(runtime.dead_letters(), 1);
    assert!(list.ask(Get).unwrap().is_empty());
}

#[test]
fn a_panic_leaves_queued_commands_and_drops_the_turns_messages() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let (list, other) = (list(&runtime, "a"), list(&runtime, "b"));
    let busy = Busy::keep(&list);
    let target = other.clone();
    let failed = list.post(Do(move |turn: &mut Turn<'_, List>| {
        turn.tell(&target, Add(1)).unwrap();
        turn.emit(1);
        panic!("after all");
    }));
    let next = list.post(Add(2)).unwrap();
    drop(busy);
    assert!(matches!(failed.unwrap().wait(), Err(ActorError::Panicked { .. })));
    assert_eq!(next.wait().unwrap(), 1);
    assert!(other.ask(Get).unwrap().is_empty());
    assert!(other.cell().is_idle(), "the room is given back");
}

#[test]
fn a_handler_that_catches_the_panic_of_apply_fails_all_the_same() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let reply = list.ask(Do(|turn: &mut Turn<'_, List>| {
        turn.emit(1);
        let turn = std::panic::AssertUnwindSafe(turn);
        std::panic::catch_unwind(move || { turn }.0.emit(BAD)).unwrap_err();
    }));
    assert!(matches!(reply, Err(ActorError::Panicked { .. })), "{reply:?}");
    assert!(list.ask(Get).unwrap().is_empty());
    assert_eq!(memory.frames(), 0);
}

#[test]
fn an_event_that_cannot_be_applied_again_stops_its_actor_and_no_other() {
    let memory = Memory::new();
    append(&memory, "bad", 1, &[(1, 1), (1, BAD), (1, 3)]);
    let runtime = runtime(&memory);
    let bad = list(&runtime, "bad");
    bad.tell(Add(1)).unwrap();
    let (reason, seq) = why(bad.ask(Get));
    assert!(matches!(reason, StopReason::Panicked(_)));
    assert_eq!(seq, 2);
    let error = bad.ask(Get).unwrap_err().to_string();
    assert!(error.starts_with("actor list/bad has stopped at event 2 in frame 4096: "), "{error}");
    assert_eq!(list(&runtime, "good").ask(Add(1)).unwrap(), 1);
    assert_eq!(runtime.dead_letters(), 1);
}

#[test]
fn a_hole_in_the_numbers_stops_the_actor() {
    let memory = Memory::new();
    append(&memory, "a", 1, &[(1, 1)]);
    let runtime = runtime(&memory);
    // The provider refuses such a frame, so that it has to be tricked into it.
    let mut batch = Batch::new();
    batch.push(RecordKind::State, 1, b"").unwrap();
    let write = |bytes: &mut _| {
        3_u64.encode(bytes).unwrap();
        Ok(())
    };
    batch.push_with(RecordKind::Event, 1, 8, write).unwrap();
    let seq = Seq::new(3).unwrap();
    memory.append_unchecked(&mut batch, StreamId::of("list", "a"), seq).unwrap();
    assert_eq!(why(list(&runtime, "a").ask(Get)), (StopReason::Hole, 2));
}

#[test]
fn an_event_of_an_unknown_version_stops_the_actor() {
    let memory = Memory::new();
    append(&memory, "a", 1, &[(1, 1), (7, 1)]);
    let runtime = runtime(&memory);
    let unreadable = StopReason::Unreadable { version: 7 };
    assert_eq!(why(list(&runtime, "a").ask(Get)), (unreadable, 2));
}

#[test]
fn bytes_that_are_no_archive_stop_the_actor() {
    let memory = Memory::new();
    append(&memory, "a", 1, &[(1, 1)]);
    let mut batch = Batch::new();
    batch.push(RecordKind::Event, 1, b"abc").unwrap();
    memory.append(&mut batch, StreamId::of("list", "a"), Seq::new(2).unwrap()).unwrap();
    let runtime = runtime(&memory);
    let (reason, seq) = why(list(&runtime, "a").ask(Get));
    assert!(matches!(reason, StopReason::NotArchive(_)), "{reason:?}");
    assert_eq!(seq, 2);
}

#[test]
fn another_actors_name_in_the_stream_is_a_collision() {
    let memory = Memory::new();
    append_named(&memory, StreamId::of("list", "a"), ("list", "b"), 1, &[(1, 1)]);
    let runtime = runtime(&memory);
    let Err(ActorError::Collision(collision)) = list(&runtime, "a").ask(Get) else { panic!() };
    assert_eq!((&*collision.wanted, &*collision.found), ("list/a", "list/b"));
    assert!(matches!(list(&runtime, "a").ask(Add(1)), Err(ActorError::Collision(_))));
}

#[test]
fn events_that_cannot_be_read_just_now_are_read_by_the_next_command() {
    let memory = Memory::new();
    append(&memory, "a", 1, &[(1, 1)]);
    let runtime = runtime(&memory);
    memory.fail_reads(Some(ReadError::Damage(Damage {
        file: "memory".into(),
        offset: 0,
        lsns: 0..16,
        reason: DamageReason::Missing,
    })));
    assert!(matches!(list(&runtime, "a").ask(Get), Err(ActorError::Read(_))));
    memory.fail_reads(None);
    assert_eq!(list(&runtime, "a").ask(Get).unwrap(), [1]);
}

/// Two versions on: version 1 had numbers of 32 bits, version 2 dropped the odd ones.
#[derive(Default)]
struct Renewed(Vec<u64>);
impl Actor for Renewed {
    type Event = u64;
    const KIND: &'static str = "list";
    const VERSION: u16 = 3;
    fn apply(&mut self, event: &u64) {
        self.0.push(*event);
    }
    fn upcast(old: Old<'_>, out: &mut Vec<u64>) -> Result<(), Unreadable> {
        match old.version() {
            1 => out.extend([old.read::<u64>()?, old.seq().get()]),
            2 => out.extend(old.read::<u64>().into_iter().filter(|it| it % 2 == 0)),
            _ => return Err(Unreadable),
        }
        Ok(())
    }
}
impl Handle<Get> for Renewed {
    type Reply = (u64, Vec<u64>);
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Self::Reply {
        (turn.seq().get(), turn.0.clone())
    }
}

#[test]
fn old_events_become_any_number_of_current_ones() {
    let memory = Memory::new();
    append(&memory, "a", 1, &[(1, 50), (2, 3), (2, 4), (3, 5)]);
    let runtime = runtime(&memory);
    let renewed = runtime.actor::<Renewed>("a").unwrap();
    assert_eq!(renewed.ask(Get).unwrap(), (4, vec![50, 1, 4, 5]));
    // The same kind by another type: only one of them is known here.
    assert!(matches!(runtime.actor::<List>("a"), Err(ActorError::KindTaken { kind: "list" })));
}

#[test]
fn names_that_no_frame_can_hold_are_refused() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    assert!(matches!(runtime.actor::<List>(""), Err(ActorError::BadName)));
    assert!(matches!(runtime.actor::<List>(&"x".repeat(65_536)), Err(ActorError::BadName)));
    let longest = "x".repeat(65_535);
    assert_eq!(list(&runtime, &longest).ask(Add(1)).unwrap(), 1);
    list(&runtime, &longest).passivate().unwrap();
    assert_eq!(list(&runtime, &longest).ask(Get).unwrap(), [1]);
}

#[test]
fn a_turn_does_not_tell_an_actor_of_another_runtime() {
    let (here, there) = (Memory::new(), Memory::new());
    let (here, there) = (runtime(&here), runtime(&there));
    let foreign = list(&there, "a");
    let refused = list(&here, "a").ask(Do(move |turn: &mut Turn<'_, List>| {
        turn.tell(&foreign, Add(1)).map_err(|refused| refused.why)
    }));
    assert_eq!(refused.unwrap(), Err(Why::Foreign));
}
