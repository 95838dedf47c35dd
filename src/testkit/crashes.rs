//! A scenario, with a crash in every operation of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::machine::Machine;
use crate::disk::sim::Random;

/// How a life ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The process is killed, the machine goes on: what was written is there.
    Kill,
    /// The power goes. What was synced is there, and of the rest what the seed decides, sector by
    /// sector.
    PowerCut,
    /// The power goes, and all of what was not synced with it.
    PowerCutLosingAll,
}

impl End {
    /// All of them, for loops over cases.
    pub const ALL: [Self; 3] = [Self::Kill, Self::PowerCut, Self::PowerCutLosingAll];

    /// Is what was acknowledged at [`Durability::Process`](crate::Durability::Process) still
    /// there?
    pub const fn keeps_process(self) -> bool {
        matches!(self, Self::Kill)
    }
}

/// What [`every_crash`] has tried.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Crashes {
    /// Operations at which the process died.
    pub points: u64,
    /// Machines that were checked: for each point each end, with and without a second crash in
    /// the recovery.
    pub checked: u64,
}

/// Runs `run` on a new machine again and again, with a crash in each operation on its disk in
/// turn; ends each life in each way; and lets `check` look at the machine that is left.
///
/// `run` opens the store, works, and writes down in its notes what it heard
/// ([`Machine::heard`]): that was promised. It returns when the machine has crashed, which it
/// notices by answers that are errors. `check` opens the store again, and asserts that what was
/// noted is there, and nothing that cannot be. Both are called some hundred times, so both should
/// be short.
///
/// A failure says its seed and operation; `ANNALS_SEED` and `ANNALS_CRASH` replay it alone.
///
/// ```
/// use annals::testkit::{Machine, every_crash};
/// # use annals::{Actor, Handle, Turn};
/// # #[derive(Default)]
/// # struct Counter(u64);
/// # impl Actor for Counter {
/// #     type Event = u64;
/// #     const KIND: &'static str = "counter";
/// #     fn apply(&mut self, event: &u64) { self.0 += event; }
/// # }
/// # struct Add(u64);
/// # impl Handle<Add> for Counter {
/// #     type Reply = u64;
/// #     fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
/// #         turn.emit(number);
/// #         turn.0
/// #     }
/// # }
///
/// let crashes = every_crash(
///     1,
///     |machine, promised: &mut u64| {
///         let Ok(store) = machine.open() else { return };
///         let counter = store.actor::<Counter>("a").unwrap();
///         for _ in 0..3 {
///             let Some(count) = machine.heard(counter.ask(Add(1))) else { return };
///             *promised = count;
///         }
///     },
///     |machine, _, promised| {
///         let store = machine.open().unwrap();
///         let count = store.actor::<Counter>("a").unwrap().peek(|counter| counter.0).unwrap();
///         assert!(count.value >= *promised && count.value <= promised + 1);
///     },
/// );
/// assert!(crashes.points > 10);
/// ```
///
/// # Panics
/// With what `run` or `check` panicked with, and where.
pub fn every_crash<T: Default>(
    seed: u64,
    run: impl Fn(&Machine, &mut T),
    check: impl Fn(&Machine, End, &T),
) -> Crashes {
    let seed = number("ANNALS_SEED").unwrap_or(seed);
    let only = number("ANNALS_CRASH");
    let mut crashes = Crashes::default();
    for operation in only.unwrap_or(0).. {
        let machine = Machine::new(seed);
        let mut notes = T::default();
        machine.crash_at(operation);
        let place = Place { seed, operation };
        place.at("while it runs", || run(&machine, &mut notes));
        // Past its last operation there is nothing to crash in; the end of the run is one more.
        let last = !machine.has_crashed();
        if last {
            machine.crash();
        }
        machine.heal();
        crashes.points += 1;
        for end in End::ALL {
            let next = machine.if_it_ended(end);
            let recovering = next.if_it_ended(End::Kill);
            place.at(&format!("after {end:?}"), || check(&next, end, &notes));
            // Again, with a crash in the recovery.
            let upto = next.operations().max(1);
            let second = Random::new(seed ^ operation).bits() % upto;
            recovering.crash_at(second);
            drop(recovering.open());
            let after = recovering.after(end);
            let what = format!("after {end:?}, twice, the second in operation {second}");
            place.at(&what, || check(&after, end, &notes));
            crashes.checked += 2;
        }
        if last || only.is_some() {
            break;
        }
    }
    crashes
}

/// Which crash it is.
struct Place {
    seed: u64,
    operation: u64,
}

impl Place {
    fn at(&self, when: &str, act: impl FnOnce()) {
        // What it panicked with has been printed already.
        if catch_unwind(AssertUnwindSafe(act)).is_err() {
            let Self { seed, operation } = self;
            panic!(
                "crash in operation {operation}, {when}; run it alone with ANNALS_SEED={seed} \
                 ANNALS_CRASH={operation}"
            );
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{variable}={text}: {error}"),
    }
}
