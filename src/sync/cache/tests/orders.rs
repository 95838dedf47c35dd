//! Every order of the steps of a few loads, writes and tokens, over the code itself; and each rule
//! switched off, which must be noticed.
//!
//! A step is what happens under one lock: a caller joins a flight, the source is read, the value
//! is compared and put, a token is applied. After each step what the cache answers is looked at.

use std::sync::Arc;

use super::*;
use crate::sync::cache::events::Why;
use crate::sync::cache::fill::{Boarding, Leading};
use crate::sync::cache::flight::{Flight, Ticket};
use crate::sync::cache::hold::What;
use crate::sync::cache::load::Load;
use crate::sync::cache::marks::TagHash;
use crate::sync::cache::table::{Probe, Rules};
use crate::sync::cache::{Answer, Cache};

const KEY: u64 = 7;
const KEY_BYTES: [u8; 8] = KEY.to_le_bytes();
const DOMAIN: &str = "numbers";

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Caller `n` asks, and misses.
    Join(usize),
    /// If it leads: the source is read.
    Read(usize),
    /// And what was read is put, if it may be.
    Fill(usize),
    /// The source has a newer value.
    Write,
    /// A token is applied, whose change can be read.
    Token,
    /// A token is applied, whose change cannot be read yet.
    Early,
    /// Its change can be read.
    Visible,
    /// The same, but for the generation that rises with it.
    VisibleAlone,
    /// The two halves of a token of a key, each by itself.
    Raise,
    Remove,
    /// An own write takes its ticket; it writes and says so.
    OwnTicket,
    OwnWrite,
    /// A change outside is announced; it is done.
    Intent,
    Done,
}

struct Caller {
    flight: Arc<Flight<u64>>,
    leads: bool,
    read: Option<u64>,
    /// The oldest value that it may be given.
    floor: u64,
}

struct World {
    cache: Cache<u64, u64>,
    manager: Manager,
    kind: TokenKind,
    source: u64,
    /// What can be read now and was told of: nothing older may be found.
    floor: u64,
    /// A change is on its way: nothing at all may be found.
    hidden: bool,
    seq: u64,
    callers: [Option<Caller>; 3],
    own: Option<Ticket>,
}

impl World {
    fn new(rules: Rules, kind: TokenKind) -> Self {
        let manager = Manager::local_with(clock());
        let cache = manager.cache(DOMAIN).entries(8).rules(rules).build().unwrap();
        let callers = [const { None }; 3];
        Self {
            cache,
            manager,
            kind,
            source: 1,
            floor: 1,
            hidden: false,
            seq: 0,
            callers,
            own: None,
        }
    }

    fn body(&self) -> &'static [u8] {
        match self.kind {
            TokenKind::Key => &KEY_BYTES,
            TokenKind::Tag => b"red",
            TokenKind::Prefix => &KEY_BYTES[..1],
            _ => &[],
        }
    }

    fn token(&mut self) {
        self.seq += 1;
        self.manager.apply(&log(1), &token(self.seq, DOMAIN, (self.kind, self.body())));
    }

    fn step(&mut self, step: Step) {
        let inner = Arc::clone(&self.cache.0);
        let bytes = KEY.to_le_bytes();
        let probe = inner.table.probe(&bytes);
        match step {
            Step::Join(n) => {
                let Boarding::Joined(joined) = inner.join(&probe, &|| KEY, false) else { return };
                let (flight, leads) = (joined.flight, joined.leads);
                let floor = self.floor;
                self.callers[n] = Some(Caller { flight, leads, read: None, floor });
            }
            Step::Read(n) => {
                let source = self.source;
                if let Some(caller) = self.callers[n].as_mut().filter(|caller| caller.leads) {
                    caller.read = Some(source);
                }
            }
            Step::Fill(n) => {
                let caller = self.callers[n].as_ref();
                let Some((caller, read)) = caller.and_then(|it| Some((it, it.read?))) else {
                    return;
                };
                self.fill(&probe, &caller.flight, read);
            }
            Step::Write => self.source += 1,
            Step::Token => {
                self.manager.visible(&log(1), self.seq + 1);
                self.token();
                self.floor = self.source;
            }
            Step::Early => {
                self.token();
                self.hidden = true;
            }
            Step::Visible => {
                self.manager.visible(&log(1), self.seq);
                (self.hidden, self.floor) = (false, self.source);
            }
            Step::VisibleAlone => {
                inner.scope.holds.release(&log(1), self.seq);
                (self.hidden, self.floor) = (false, self.source);
            }
            Step::Raise => inner.table.write(probe.hash).unwrap().raise(probe.hash),
            Step::Remove => {
                drop(inner.table.write(probe.hash).unwrap().remove(&probe, None));
            }
            Step::OwnTicket => self.own = Some(inner.ticket(&probe)),
            Step::OwnWrite => {
                self.source += 1;
                let own = self.own.unwrap();
                let mut said = Load::default();
                said.tag("red");
                self.cache.0.set(&probe, KEY, (Some(self.source), own, said)).unwrap();
                self.floor = self.source;
            }
            Step::Intent => {
                let mut body = 5_u64.to_le_bytes().to_vec();
                body.extend_from_slice(&8_u32.to_le_bytes());
                body.extend_from_slice(&bytes);
                self.seq += 1;
                self.manager.visible(&log(1), self.seq);
                let token = token(self.seq, DOMAIN, (TokenKind::Intent, &body));
                self.manager.apply(&log(1), &token);
                self.hidden = true;
            }
            Step::Done => {
                self.seq += 1;
                self.manager.visible(&log(1), self.seq);
                let id = 5_u64.to_le_bytes();
                self.manager.apply(&log(1), &token(self.seq, DOMAIN, (TokenKind::Done, &id)));
                (self.hidden, self.floor) = (false, self.source);
            }
        }
    }

    /// As the end of `Leading::load`.
    fn fill(&self, probe: &Probe<'_>, flight: &Arc<Flight<u64>>, read: u64) {
        let inner = &self.cache.0;
        let mut said = Load::default();
        said.tag("red");
        let fill = inner.fill(probe.bytes, Some(&read), (inner.clock.nanos(), said));
        inner.admit(probe, KEY, (Some(read), &flight.ticket, fill, Arc::from([])));
        inner.table.write(probe.hash).unwrap().leave(flight);
        flight.land(Ok(Some(read)));
    }

    /// What is wrong now.
    fn wrong(&self) -> Option<String> {
        match self.cache.get(&KEY) {
            Answer::Fresh(value) if value < self.floor => {
                Some(format!("{value} is found, {} was told of", self.floor))
            }
            Answer::Fresh(value) if self.hidden => {
                Some(format!("{value} is found while a change is on its way"))
            }
            _ => None,
        }
    }

    /// What somebody was given who came after a token.
    fn given(&self) -> Option<String> {
        self.callers.iter().flatten().find_map(|caller| {
            let landed = caller.flight.wait(Some(Duration::ZERO))?;
            let value = landed.unwrap().unwrap();
            let floor = caller.floor;
            (value < floor).then(|| format!("a caller was given {value}, {floor} was told of"))
        })
    }
}

/// Runs every order of the programs' steps; answers how many there were and the first that ended
/// wrong.
fn all_orders(rules: Rules, kind: TokenKind, programs: &[&[Step]]) -> (usize, Option<String>) {
    fn next(
        programs: &[&[Step]],
        at: &mut [usize],
        order: &mut Vec<Step>,
        run: &mut dyn FnMut(&[Step]),
    ) {
        let mut ended = true;
        for index in 0..programs.len() {
            if let Some(step) = programs[index].get(at[index]) {
                ended = false;
                at[index] += 1;
                order.push(*step);
                next(programs, at, order, run);
                order.pop();
                at[index] -= 1;
            }
        }
        if ended {
            run(order);
        }
    }
    let (mut count, mut wrong) = (0, None);
    let mut run = |order: &[Step]| {
        count += 1;
        if wrong.is_some() {
            return;
        }
        let mut world = World::new(rules, kind);
        for step in order {
            world.step(*step);
            if let Some(what) = world.wrong() {
                wrong = Some(format!("{what}, after {step:?} of {order:?}"));
                return;
            }
        }
        wrong = world.given().map(|what| format!("{what} in {order:?}"));
    };
    next(programs, &mut vec![0; programs.len()], &mut Vec::new(), &mut run);
    (count, wrong)
}

const fn load(n: usize) -> [Step; 3] {
    [Step::Join(n), Step::Read(n), Step::Fill(n)]
}

const KINDS: [TokenKind; 4] = [TokenKind::Key, TokenKind::Tag, TokenKind::Prefix, TokenKind::All];
const OFF: [(&str, Rules); 3] = [
    ("tickets", Rules { tickets: false, ..Rules::ALL }),
    ("holds", Rules { holds: false, ..Rules::ALL }),
    ("waiters", Rules { waiters: false, ..Rules::ALL }),
];

fn sound(kind: TokenKind, programs: &[&[Step]], orders: usize) {
    let (count, wrong) = all_orders(Rules::ALL, kind, programs);
    assert_eq!(wrong, None, "{kind:?}");
    assert_eq!(count, orders);
}

#[track_caller]
fn noticed(off: usize, kind: TokenKind, programs: &[&[Step]]) {
    let (name, rules) = OFF[off];
    let (_, wrong) = all_orders(rules, kind, programs);
    assert!(wrong.is_some(), "without {name} nothing is wrong with {kind:?}");
}

#[test]
fn no_order_of_two_loads_and_a_write_leaves_what_was_before_the_write() {
    let programs: [&[Step]; 3] = [&load(0), &load(1), &[Step::Write, Step::Token]];
    for kind in KINDS {
        sound(kind, &programs, 560);
        noticed(0, kind, &programs);
        noticed(2, kind, &programs);
    }
}

#[test]
fn no_order_of_two_loads_and_two_writes_leaves_what_was_before_either() {
    let write: &[Step] = &[Step::Write, Step::Token];
    for kind in [TokenKind::Key, TokenKind::All] {
        sound(kind, &[&load(0), &load(1), write, write], 25_200);
    }
}

#[test]
fn no_order_of_loads_and_a_change_that_is_told_of_early_leaves_what_was_before_it() {
    let change: &[Step] = &[Step::Early, Step::Write, Step::Visible];
    let programs: [&[Step]; 3] = [&load(0), &load(1), change];
    for kind in KINDS {
        sound(kind, &programs, 1_680);
        noticed(0, kind, &programs);
        noticed(1, kind, &programs);
        noticed(2, kind, &programs);
        let alone: &[Step] = &[Step::Early, Step::Write, Step::VisibleAlone];
        let (_, wrong) = all_orders(Rules::ALL, kind, &[&load(0), &load(1), alone]);
        assert!(wrong.is_some(), "{kind:?}: the second raise is not needed");
    }
}

#[test]
fn no_order_of_loads_and_an_announced_change_leaves_what_was_before_it() {
    let change: &[Step] = &[Step::Intent, Step::Write, Step::Done];
    let programs: [&[Step]; 3] = [&load(0), &load(1), change];
    sound(TokenKind::Key, &programs, 1_680);
    noticed(1, TokenKind::Key, &programs);
}

#[test]
fn no_order_of_an_own_write_a_load_and_anothers_write_leaves_what_was_before() {
    let own: &[Step] = &[Step::OwnTicket, Step::OwnWrite];
    let programs: [&[Step]; 3] = [&load(0), own, &[Step::Write, Step::Token]];
    for kind in KINDS {
        sound(kind, &programs, 210);
        noticed(0, kind, &programs);
    }
}

#[test]
fn a_generation_rises_before_its_entry_is_removed_and_not_after() {
    // The floor counts from the end of both halves.
    let told = |halves: [Step; 2]| [Step::Write, halves[0], halves[1]];
    let check = |halves: [Step; 2]| {
        let mut wrong = 0;
        let write = told(halves);
        let mut run = |order: &[Step]| {
            let mut world = World::new(Rules::ALL, TokenKind::Key);
            let mut halves = 0;
            for step in order {
                world.step(*step);
                halves += u32::from(matches!(step, Step::Raise | Step::Remove));
                if halves == 2 {
                    world.floor = world.source;
                }
                wrong += u32::from(world.wrong().is_some());
            }
        };
        for place in [[0, 1, 2], [0, 1, 3], [0, 1, 4], [0, 1, 5], [0, 2, 3], [0, 2, 4], [0, 2, 5]]
            .into_iter()
            .chain([[0, 3, 4], [0, 3, 5], [0, 4, 5], [1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 3, 4]])
            .chain([[1, 3, 5], [1, 4, 5], [2, 3, 4], [2, 3, 5], [2, 4, 5], [3, 4, 5]])
        {
            let (mut reads, mut writes) = (load(0).into_iter(), write.into_iter());
            let order: Vec<Step> = (0..6)
                .map(|at| if place.contains(&at) { reads.next() } else { writes.next() }.unwrap())
                .collect();
            run(&order);
        }
        wrong
    };
    assert_eq!(check([Step::Raise, Step::Remove]), 0);
    assert!(check([Step::Remove, Step::Raise]) > 0);
}

#[test]
fn what_is_held_and_what_is_raised_is_what_the_token_says() {
    let world = World::new(Rules::ALL, TokenKind::Key);
    let inner = &world.cache.0;
    for what in [
        What::Key(KEY.to_le_bytes().into()),
        What::Tag(TagHash::of(b"red")),
        What::Prefix(KEY_BYTES[..1].into()),
        What::All,
    ] {
        world
            .cache
            .set_with(&KEY, 1, |load| {
                load.tag("red");
            })
            .unwrap();
        assert_eq!(world.cache.get(&KEY), Answer::Fresh(1));
        let before = inner.ticket(&inner.table.probe(&KEY.to_le_bytes()));
        inner.scope.raise(&what);
        assert_ne!(before, inner.ticket(&inner.table.probe(&KEY.to_le_bytes())), "{what:?}");
        inner.scope.invalidate(&what, None, Why::Key);
        assert!(world.cache.get(&KEY).is_miss(), "{what:?}");
    }
}

#[test]
fn a_leader_that_goes_without_a_word_frees_its_key() {
    let world = World::new(Rules::ALL, TokenKind::Key);
    let inner = &world.cache.0;
    let bytes = KEY.to_le_bytes();
    let probe = inner.table.probe(&bytes);
    let Boarding::Joined(first) = inner.join(&probe, &|| KEY, false) else { panic!("nothing") };
    let flight = Arc::clone(&first.flight);
    let leading: Leading<u64, u64> = first.into_leading(inner);
    drop(leading);
    assert!(flight.wait(None).unwrap().is_err());
    let Boarding::Joined(second) = inner.join(&probe, &|| KEY, false) else { panic!("nothing") };
    assert!(second.leads);
}
