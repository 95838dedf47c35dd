//! What handlers use besides their state.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::actor::{Durable, Outcome, Step, StepContext, Stepped, Ticket};

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

/// Asks for the price outside of turns.
#[derive(Default)]
struct Buyer(Vec<u64>);

impl Actor for Buyer {
    type Event = u64;
    const KIND: &'static str = "buyer";
    fn apply(&mut self, price: &u64) {
        self.0.push(*price);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().step::<AskPrice>()
    }
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct AskPrice;

impl Durable for AskPrice {
    const NAME: &'static str = "ask price";
}

impl Step for AskPrice {
    type Output = Option<u64>;
    fn run(&self, context: &StepContext) -> Option<u64> {
        assert!(context.service::<u8>().is_none(), "nobody gave one");
        Some(context.service::<Fixed>()?.price())
    }
}

impl Handle<Stepped<AskPrice>> for Buyer {
    type Reply = ();
    fn handle(stepped: Stepped<AskPrice>, turn: &mut Turn<'_, Self>) {
        let Outcome::Done(Some(price)) = stepped.outcome else { panic!("{:?}", stepped.outcome) };
        turn.emit(price);
        turn.reply("price", price);
    }
}

struct Buy;

impl Handle<Buy> for Buyer {
    type Reply = Ticket<u64>;
    fn handle(_: Buy, turn: &mut Turn<'_, Self>) -> Ticket<u64> {
        turn.step("price", AskPrice);
        turn.later("price")
    }
}

#[test]
fn a_step_finds_a_service_by_its_type() {
    let memory = Memory::new();
    let runtime = runtime_with(&memory, RuntimeOptions::default().service(Fixed(7)));
    let mut price = runtime.actor::<Buyer>("a").unwrap().ask(Buy).unwrap();
    assert_eq!(price.wait_for(LONG).unwrap(), 7);
}
