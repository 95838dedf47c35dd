//! Annals, with the actors of `benches/actors`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::annals::actor::ActorOptions;
use ::annals::{Actor, Addr, Durability, Handle, Store, Turn};
use crossbeam_channel::{Sender, bounded};

use super::durable::{Driven, Keeper};
use super::memory::{Mailbox, Rig, Telling, anonymous};
use super::sleep::{self, EVENTS, Sleepers};
use super::work::{Job, Work, same};
use super::{Peer, durable, memory};
use crate::account::{Account, Deposit, Get, Kept, addresses, options};
use crate::store::Answer;
use crate::support::histogram::Histogram;
use crate::work::Figures;

pub(crate) const PEER: Peer = Peer {
    name: "annals",
    package: "annals",
    runs: "the caller's thread where the actor is idle, else a thread for each processor",
    tells: "`tell`, by threads",
    bounded: "`tell`, and a yield where there is no room",
    keeps: "events, at the level that each turn chooses",
    upkeep: "new, without users yet",
    does: &Work::ALL,
    cannot: &[],
    run,
};

fn run(job: &Job<'_>) -> Answer<Figures> {
    match job.work {
        Work::Passivated => passivated(job),
        Work::Command(_) | Work::Beside => durable::run(OnDisk::open, stored, job),
        Work::Recover | Work::Cold | Work::Open => sleep::run::<Sleeping>(job),
        _ => memory::run(&InMemory::open(job.dir)?, job),
    }
}

/// More than anybody here has waiting for one actor.
const NO_BOUND: u32 = 1 << 20;

/// Adds what it is told, in memory alone: its state is not made of events, so that this is the
/// work that the others do. A turn has the actor to itself, so nothing is lost between the load
/// and the store.
#[derive(Default)]
struct Counter<const BOUNDED: bool> {
    sum: AtomicU64,
    _rest: [u64; 5],
}

impl<const BOUNDED: bool> Actor for Counter<BOUNDED> {
    type Event = u64;
    const KIND: &'static str = if BOUNDED { "bounded-counter" } else { "counter" };

    fn apply(&mut self, _: &u64) {}

    fn options() -> ActorOptions<Self> {
        if BOUNDED { ActorOptions::new() } else { ActorOptions::new().mailbox(NO_BOUND) }
    }
}

struct Add(u64);
struct Sum;

impl<const BOUNDED: bool> Handle<Add> for Counter<BOUNDED> {
    type Reply = ();

    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) {
        let sum = turn.sum.load(Ordering::Relaxed);
        turn.sum.store(sum + number, Ordering::Relaxed);
    }
}

impl<const BOUNDED: bool> Handle<Sum> for Counter<BOUNDED> {
    type Reply = u64;

    fn handle(_: Sum, turn: &mut Turn<'_, Self>) -> u64 {
        turn.sum.load(Ordering::Relaxed)
    }
}

/// Either kind.
enum To {
    Free(Addr<Counter<false>>),
    Bounded(Addr<Counter<true>>),
}

impl To {
    fn tell(&self, number: u64) -> bool {
        match self {
            Self::Free(addr) => addr.tell(Add(number)).is_ok(),
            Self::Bounded(addr) => addr.tell(Add(number)).is_ok(),
        }
    }

    fn sum(&self) -> Answer<u64> {
        Ok(match self {
            Self::Free(addr) => addr.ask(Sum)?,
            Self::Bounded(addr) => addr.ask(Sum)?,
        })
    }
}

/// A store whose actors emit nothing.
struct InMemory {
    store: Store,
    /// Names that were given.
    named: AtomicU64,
}

impl InMemory {
    fn open(dir: &Path) -> Answer<Self> {
        let options = options(Durability::Process).catalogue(false).residents_max(usize::MAX / 2);
        Ok(Self { store: options.open(dir.join("store"))?, named: AtomicU64::new(0) })
    }

    fn next_name(&self, name: &mut String) -> Answer<()> {
        name.clear();
        Ok(write!(name, "{}", self.named.fetch_add(1, Ordering::Relaxed))?)
    }
}

impl Rig for InMemory {
    type Addr = To;

    fn make(&self, actors: u64, mailbox: Mailbox) -> Answer<Vec<To>> {
        let mut name = String::new();
        let mut made = Vec::with_capacity(usize::try_from(actors)?);
        for _ in 0..actors {
            self.next_name(&mut name)?;
            // Its default is a bound of 1,024.
            made.push(match mailbox {
                Mailbox::Default | Mailbox::Bounded => To::Bounded(self.store.actor(&name)?),
                Mailbox::Unbounded => To::Free(self.store.actor(&name)?),
            });
        }
        Ok(made)
    }

    fn tell(&self, to: &[To], telling: Telling) -> Answer<()> {
        let tell = || {
            let mut receivers = to.iter().cycle();
            for _ in 0..telling.each {
                let Some(receiver) = receivers.next() else { return };
                while !receiver.tell(1) {
                    std::thread::yield_now();
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..telling.senders {
                scope.spawn(tell);
            }
            tell();
        });
        Ok(())
    }

    fn sums(&self, of: &[To]) -> Answer<u64> {
        of.iter().map(To::sum).sum()
    }

    fn ask(&self, of: &To) -> Answer<u64> {
        of.sum()
    }

    fn ping_pong(&self, trips: u64) -> Answer<u64> {
        let mut name = String::new();
        let mut player = || -> Answer<Addr<Player>> {
            self.next_name(&mut name)?;
            Ok(self.store.actor(&name)?)
        };
        let (first, second) = (player()?, player()?);
        let (done, ended) = bounded(1);
        second.ask(Meet(first.clone(), None))?;
        first.ask(Meet(second, Some(done)))?;
        first.tell(Ball(2 * trips)).map_err(|refused| refused.why)?;
        Ok(ended.recv()?)
    }
}

/// One of two that talk.
#[derive(Default)]
struct Player {
    met: OnceLock<Meet>,
    hits: AtomicU64,
}

struct Meet(Addr<Player>, Option<Sender<u64>>);
struct Ball(u64);

impl Actor for Player {
    type Event = u64;
    const KIND: &'static str = "player";

    fn apply(&mut self, _: &u64) {}
}

impl Handle<Meet> for Player {
    type Reply = ();

    fn handle(meet: Meet, turn: &mut Turn<'_, Self>) {
        assert!(turn.met.set(meet).is_ok(), "players meet once");
    }
}

impl Handle<Ball> for Player {
    type Reply = ();

    fn handle(Ball(left): Ball, turn: &mut Turn<'_, Self>) {
        let hits = turn.hits.load(Ordering::Relaxed);
        let Some(Meet(other, done)) = turn.met.get() else { return };
        if left == 0 {
            if let Some(done) = done {
                done.send(hits).expect("somebody waits");
            }
            return;
        }
        let other = other.clone();
        turn.hits.store(hits + 1, Ordering::Relaxed);
        assert!(turn.tell(&other, Ball(left - 1)).is_ok(), "there is room for one ball");
    }
}

/// Actors that have emitted one event and left memory; nobody holds their addresses.
fn passivated(job: &Job<'_>) -> Answer<Figures> {
    let rig = InMemory::open(job.dir)?;
    let actors = job.scale.sleepers();
    let mut name = String::new();
    let mut pass = |actors: u64| -> Answer<()> {
        for number in 1..=actors {
            rig.next_name(&mut name)?;
            let address = rig.store.actor::<Account>(&name)?;
            same("deposits", address.ask(Deposit)?, 1)?;
            address.passivate()?;
            drop(address);
            if number % 1_000 == 0 {
                rig.store.runtime().sweep();
            }
        }
        Ok(())
    };
    // What the first actors cost beside themselves is not theirs.
    pass(actors / 100)?;
    let before = anonymous()?;
    pass(actors)?;
    same("actors in memory", rig.store.runtime().residents() as u64, 0)?;
    Ok(vec![("bytes", (anonymous()? - before) / actors as f64)])
}

/// Commands at `Power`.
struct OnDisk(Store);

impl OnDisk {
    fn open(dir: &Path) -> Answer<Self> {
        Ok(Self(options(Durability::Power).open(dir.join("store"))?))
    }
}

fn stored(dir: &Path, actors: u64) -> Answer<u64> {
    let store = OnDisk::open(dir)?;
    store.make(actors)?.iter().map(|one| store.read(one)).sum()
}

impl Keeper for OnDisk {
    type Addr = Addr<Account>;

    fn make(&self, actors: u64) -> Answer<Vec<Self::Addr>> {
        Ok(addresses(&self.0, usize::try_from(actors)?))
    }

    fn command(&self, to: &Self::Addr) -> Answer<u64> {
        Ok(to.ask(Deposit)?)
    }

    fn read(&self, of: &Self::Addr) -> Answer<u64> {
        Ok(of.ask(Get)?)
    }

    /// By one thread, or by two where there are many actors, with half of them each.
    fn drive(&self, to: &[Self::Addr], limit: Duration) -> Answer<Driven> {
        let mut driven = Driven { done: 0, times: Histogram::new() };
        std::thread::scope(|scope| {
            let share = if to.len() > 64 { to.len().div_ceil(2) } else { to.len() };
            let drivers: Vec<_> =
                to.chunks(share).map(|mine| scope.spawn(move || post(mine, limit))).collect();
            for driver in drivers {
                let mine = driver.join().map_err(|_| "a thread panicked")??;
                driven.done += mine.done;
                driven.times.merge(&mine.times);
            }
            Ok(driven)
        })
    }
}

/// Posts to each in turn, and waits for the oldest when all have one on its way.
fn post(to: &[Addr<Account>], limit: Duration) -> Answer<Driven> {
    let mut driven = Driven { done: 0, times: Histogram::new() };
    let mut flying = VecDeque::with_capacity(to.len());
    let began = Instant::now();
    let mut over = false;
    let mut receivers = to.iter().cycle();
    while !over || !flying.is_empty() {
        if !over && flying.len() < to.len() {
            let posted = Instant::now();
            over = posted - began >= limit;
            let receiver = receivers.next().ok_or("nobody to command")?;
            let ticket = receiver.post(Deposit).map_err(|refused| refused.why)?;
            flying.push_back((posted, ticket));
        } else if let Some((posted, ticket)) = flying.pop_front() {
            ticket.wait()?;
            driven.times.record(posted.elapsed());
            driven.done += 1;
        }
    }
    Ok(driven)
}

/// Actors that are not in memory, one of which is asked.
struct Sleeping(Store);

impl Sleeping {
    fn deposit<A: Handle<Deposit, Reply = u64>>(&self, actors: u64, events: u64) -> Answer<()> {
        let addresses = addresses::<A>(&self.0, usize::try_from(actors)?);
        for event in 1..=events {
            for address in &addresses {
                same("deposits", address.ask(Deposit)?, event)?;
            }
        }
        for address in &addresses {
            address.passivate()?;
        }
        Ok(())
    }

    fn first_ask<A: Handle<Get, Reply = u64>>(&self, actor: u64) -> Answer<(u64, Duration)> {
        let address = self.0.actor::<A>(&actor.to_string())?;
        let began = Instant::now();
        let deposits = address.ask(Get)?;
        let took = began.elapsed();
        address.passivate()?;
        Ok((deposits, took))
    }
}

/// Bytes that a filler writes, so that everything before is old enough to be compacted.
const FILLER: u64 = 48 << 20;

impl Sleepers for Sleeping {
    fn open(dir: &Path) -> Answer<Self> {
        Ok(Self(options(Durability::Process).open(dir.join("store"))?))
    }

    fn fill(dir: &Path, actors: u64) -> Answer<Self> {
        let this = Self::open(dir)?;
        this.deposit::<Account>(actors, EVENTS)?;
        this.deposit::<Kept>(actors, EVENTS)?;
        this.0.sync()?;
        Ok(this)
    }

    fn recover(&self, actor: u64) -> Answer<(u64, Duration)> {
        self.first_ask::<Account>(actor)
    }

    fn recover_snapshot(&self, actor: u64) -> Answer<(u64, Duration)> {
        self.first_ask::<Kept>(actor)
    }

    fn fill_and_compact(dir: &Path, actors: u64) -> Answer<()> {
        let options = options(Durability::Process).segment_bytes(1 << 20, 8 << 20);
        let this = Self(options.open(dir.join("store"))?);
        this.deposit::<Account>(actors, EVENTS)?;
        let filler = this.0.actor::<Account>("filler")?;
        for _ in 0..FILLER / crate::support::FRAME_BYTES as u64 {
            filler.ask(Deposit)?;
        }
        this.0.sync()?;
        let done = this.0.compact()?;
        if done.compactions == 0 || done.failures > 0 {
            return Err(format!("nothing was compacted: {done:?}").into());
        }
        this.0.close(Duration::from_mins(1))?;
        Ok(())
    }

    fn fill_sleepers(dir: &Path, actors: u64) -> Answer<()> {
        // So that making them does not need memory for all at once.
        let options = options(Durability::Process).residents_max(50_000);
        let store = options.open(dir.join("store"))?;
        for number in 0..actors {
            let address = store.actor::<Account>(&number.to_string())?;
            same("deposits", address.ask(Deposit)?, 1)?;
            if number % 100_000 == 0 {
                println!("{number} of {actors} actors");
            }
        }
        store.close(Duration::from_mins(1))?;
        Ok(())
    }
}
