//! kameo, on tokio.

use std::time::Duration;

use futures::future::join_all;
use kameo::Actor;
use kameo::actor::{ActorRef, Spawn as _};
use kameo::error::Infallible;
use kameo::mailbox::{bounded, unbounded};
use kameo::message::{Context, Message};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot::{Sender, channel};

use super::durable::{Clients, Driven, Keeper, keep_asking};
use super::memory::{BOUND, Mailbox, run};
use super::sqlite::{GroupCommit, Queue, stored};
use super::tokio::{Mail, OnTokio};
use super::{IN_MEMORY, KEEPING, Peer, durable};
use crate::store::{Answer, Event};

pub(crate) const PEER: Peer = Peer {
    name: "kameo",
    package: "kameo",
    runs: "tokio, a task for each actor",
    tells: "`tell().await`, by a task",
    bounded: "a sender waits for room",
    keeps: "nothing",
    upkeep: "0.22.2 of July 2026; in active development",
    does: IN_MEMORY,
    cannot: &[],
    run: |job| run(&OnTokio::<ActorRef<Counter>>::new()?, job),
};

pub(crate) const WITH_SQLITE: Peer = Peer {
    name: "kameo-sqlite",
    package: "kameo",
    runs: "kameo as above, and a thread that writes",
    tells: "",
    bounded: "",
    keeps: "rows of SQLite, if the handlers are written so; group commit by hand",
    upkeep: "the hand-written part is yours",
    does: KEEPING,
    cannot: &[],
    run: |job| durable::run(Kameo::open, stored, job),
};

#[derive(Default)]
struct Counter {
    sum: u64,
    _rest: [u64; 5],
}

impl Actor for Counter {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}

struct Add(u64);
struct Sum;

impl Message<Add> for Counter {
    type Reply = ();

    async fn handle(&mut self, Add(number): Add, _: &mut Context<Self, ()>) {
        self.sum += number;
    }
}

impl Message<Sum> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: Sum, _: &mut Context<Self, u64>) -> u64 {
        self.sum
    }
}

impl Mail for ActorRef<Counter> {
    async fn spawn(mailbox: Mailbox) -> Answer<Self> {
        Ok(match mailbox {
            Mailbox::Default => Counter::spawn(()),
            Mailbox::Unbounded => Counter::spawn_with_mailbox((), unbounded()),
            Mailbox::Bounded => Counter::spawn_with_mailbox((), bounded(BOUND)),
        })
    }

    async fn tell(&self, number: u64) -> Answer<()> {
        Ok(ActorRef::tell(self, Add(number)).await.map_err(|error| error.to_string())?)
    }

    async fn sum(&self) -> Answer<u64> {
        Ok(self.ask(Sum).await.map_err(|error| error.to_string())?)
    }

    async fn ping_pong(trips: u64) -> Answer<u64> {
        let (first, second) = (Player::spawn(()), Player::spawn(()));
        let (done, ended) = channel();
        let text = |error: kameo::error::SendError<Meet>| error.to_string();
        second.tell(Meet(first.clone(), None)).await.map_err(text)?;
        first.tell(Meet(second.clone(), Some(done))).await.map_err(text)?;
        first.tell(Ball(2 * trips)).await.map_err(|error| error.to_string())?;
        Ok(ended.await?)
    }
}

#[derive(Default)]
struct Player {
    other: Option<ActorRef<Self>>,
    done: Option<Sender<u64>>,
    hits: u64,
}

impl Actor for Player {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}

struct Meet(ActorRef<Player>, Option<Sender<u64>>);
struct Ball(u64);

impl Message<Meet> for Player {
    type Reply = ();

    async fn handle(&mut self, Meet(other, done): Meet, _: &mut Context<Self, ()>) {
        (self.other, self.done) = (Some(other), done);
    }
}

impl Message<Ball> for Player {
    type Reply = ();

    async fn handle(&mut self, Ball(left): Ball, _: &mut Context<Self, ()>) {
        if left == 0 {
            self.other = None;
            self.done.take().map(|done| done.send(self.hits));
            return;
        }
        self.hits += 1;
        if let Some(other) = &self.other {
            // Who has stopped has done so at the end.
            other.tell(Ball(left - 1)).await.unwrap_or_default();
        }
    }
}

/// Actors whose commands are rows.
struct Kameo {
    runtime: Runtime,
    writer: GroupCommit,
}

struct Account {
    deposits: u64,
    next: Event,
    queue: Queue,
}

impl Actor for Account {
    type Args = (u64, Queue);
    type Error = Infallible;

    async fn on_start((number, queue): Self::Args, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self { deposits: 0, next: Event::new(number, 1), queue })
    }
}

struct Deposit;
struct Get;

impl Message<Deposit> for Account {
    type Reply = Result<u64, String>;

    async fn handle(
        &mut self,
        _: Deposit,
        _: &mut Context<Self, Self::Reply>,
    ) -> Result<u64, String> {
        self.queue.store(self.next).await?;
        self.next.step();
        self.deposits += 1;
        Ok(self.deposits)
    }
}

impl Message<Get> for Account {
    type Reply = u64;

    async fn handle(&mut self, _: Get, _: &mut Context<Self, u64>) -> u64 {
        self.deposits
    }
}

async fn deposit(to: ActorRef<Account>) -> Answer<u64> {
    Ok(to.ask(Deposit).await.map_err(|error| error.to_string())?)
}

impl Kameo {
    fn open(dir: &std::path::Path) -> Answer<Self> {
        let runtime = Builder::new_multi_thread().build()?;
        Ok(Self { runtime, writer: GroupCommit::start(dir)? })
    }
}

impl Keeper for Kameo {
    type Addr = ActorRef<Account>;

    fn make(&self, actors: u64) -> Answer<Vec<Self::Addr>> {
        let _inside = self.runtime.enter();
        Ok((0..actors).map(|number| Account::spawn((number, self.writer.queue()))).collect())
    }

    fn command(&self, to: &Self::Addr) -> Answer<u64> {
        futures::executor::block_on(deposit(to.clone()))
    }

    fn read(&self, of: &Self::Addr) -> Answer<u64> {
        let answer = futures::executor::block_on(async { of.ask(Get).await });
        Ok(answer.map_err(|error| error.to_string())?)
    }

    fn drive(&self, to: &[Self::Addr], limit: Duration) -> Answer<Driven> {
        let clients = Clients::new();
        let tasks = to.iter().cloned().map(|one| {
            let over = clients.over();
            self.runtime.spawn(keep_asking(over, move || deposit(one.clone())))
        });
        let tasks: Vec<_> = tasks.collect();
        clients.let_run(limit);
        let all = self.runtime.block_on(join_all(tasks));
        Clients::times(all.into_iter().map(|times| times?))
    }
}

const _: () = assert!(size_of::<Counter>() == super::STATE_BYTES);
