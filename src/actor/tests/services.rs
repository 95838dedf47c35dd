//! What handlers use besides their state.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

trait Gateway: Send + Sync {
    fn price(&self) -> u64;
}

struct Fixed(u64);
impl Gateway for Fixed {
    fn price(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_handler_finds_a_service_by_its_type_and_goes_on_emitting() {
    let memory = Memory::new();
    let gateway: Arc<dyn Gateway> = Arc::new(Fixed(7));
    let options = RuntimeOptions::default().service(AtomicU64::new(0)).service(gateway);
    let runtime = runtime_with(&memory, options);
    for name in ["a", "b"] {
        let before = list(&runtime, name).ask(Do(|turn: &mut Turn<'_, List>| {
            let (count, gateway) =
                (turn.service::<AtomicU64>(), turn.service::<Arc<dyn Gateway>>());
            turn.emit(gateway.price());
            count.fetch_add(1, Ordering::Relaxed)
        }));
        assert_eq!(before.unwrap(), u64::from(name == "b"), "one for all actors");
        assert_eq!(list(&runtime, name).ask(Get).unwrap(), [7]);
    }
}

#[test]
fn a_service_that_is_not_there_fails_the_turn_and_says_which() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let reply = list.ask(Do(|turn: &mut Turn<'_, List>| turn.service::<Fixed>().price()));
    let Err(ActorError::Panicked { message }) = reply else { panic!("{reply:?}") };
    assert!(message.contains("Fixed") && message.contains("StoreOptions::service"), "{message}");
    let found = list.ask(Do(|turn: &mut Turn<'_, List>| turn.try_service::<Fixed>().is_some()));
    assert!(!found.unwrap());
}

#[test]
fn a_second_service_of_a_type_replaces_the_first() {
    let memory = Memory::new();
    let options = RuntimeOptions::default().service(Fixed(1)).service(Fixed(2));
    assert!(format!("{options:?}").contains("Fixed"));
    let runtime = runtime_with(&memory, options);
    let price = |turn: &mut Turn<'_, List>| turn.service::<Fixed>().price();
    assert_eq!(list(&runtime, "a").ask(Do(price)).unwrap(), 2);
}
