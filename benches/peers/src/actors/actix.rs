//! actix, on a system of its own in a thread of its own.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix::prelude::{Actor, Addr, Context, Handler, Message, ResponseFuture, SendError, System};
use crossbeam_channel::bounded;
use futures::executor::block_on;
use futures::future::{join_all, ready, try_join_all};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot::{Sender, channel};
use tokio::task::spawn_local;

use super::durable::{Clients, Driven, Keeper, keep_asking};
use super::memory::{BOUND, Mailbox, Rig, Telling, run};
use super::sqlite::{GroupCommit, Queue, Table, connect, insert, stored};
use super::{IN_MEMORY, KEEPING, Peer, durable};
use crate::store::{Answer, Event};

pub(crate) const PEER: Peer = Peer {
    name: "actix",
    package: "actix",
    runs: "its own system: all actors on one thread",
    tells: "`do_send`, by threads",
    bounded: "`try_send`, and a yield where there is no room",
    keeps: "nothing",
    upkeep: "0.13.5 of June 2024; dependencies are kept current",
    does: IN_MEMORY,
    cannot: &[],
    run: |job| run(&Actix::start()?, job),
};

pub(crate) const WITH_SQLITE: Peer = Peer {
    name: "actix-sqlite",
    package: "actix",
    runs: "actix as above, and a thread that writes",
    tells: "",
    bounded: "",
    keeps: "rows of SQLite, if the handlers are written so; group commit by hand",
    upkeep: "the hand-written part is yours",
    does: KEEPING,
    cannot: &[],
    run: |job| durable::run(Kept::grouped, stored, job),
};

pub(super) fn one_by_one(job: &super::Job<'_>) -> Answer<crate::work::Figures> {
    durable::run(Kept::one_by_one, stored, job)
}

/// A system that runs until this is dropped.
struct Actix {
    system: System,
    thread: Option<JoinHandle<()>>,
}

impl Actix {
    fn start() -> Answer<Self> {
        let (sender, receiver) = bounded(1);
        let thread = std::thread::spawn(move || {
            let runner = System::new();
            if sender.send(System::current()).is_ok()
                && let Err(error) = runner.run()
            {
                eprintln!("{error}");
            }
        });
        Ok(Self { system: receiver.recv()?, thread: Some(thread) })
    }

    /// On the system's thread.
    fn run<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (sender, receiver) = bounded(1);
        let spawned = self.system.arbiter().spawn_fn(move || {
            let work = work();
            drop(spawn_local(async move { sender.send(work.await) }));
        });
        if spawned { Ok(receiver.recv()?) } else { Err("the system has ended".into()) }
    }
}

impl Drop for Actix {
    fn drop(&mut self) {
        self.system.stop();
        self.thread.take().map(JoinHandle::join);
    }
}

#[derive(Default)]
struct Counter {
    sum: u64,
    _rest: [u64; 5],
}

impl Actor for Counter {
    type Context = Context<Self>;
}

struct Add(u64);
struct Sum;

impl Message for Add {
    type Result = ();
}

impl Message for Sum {
    type Result = u64;
}

impl Handler<Add> for Counter {
    type Result = ();

    fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) {
        self.sum += number;
    }
}

impl Handler<Sum> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Sum, _: &mut Context<Self>) -> u64 {
        self.sum
    }
}

impl Rig for Actix {
    type Addr = Addr<Counter>;

    fn make(&self, actors: u64, mailbox: Mailbox) -> Answer<Vec<Self::Addr>> {
        self.run(move || {
            let made = (0..actors).map(|_| match mailbox {
                // What is told by `do_send` knows no bound.
                Mailbox::Default | Mailbox::Unbounded => Counter::default().start(),
                Mailbox::Bounded => Counter::create(|context| {
                    context.set_mailbox_capacity(BOUND);
                    Counter::default()
                }),
            });
            ready(made.collect::<Vec<_>>())
        })
    }

    fn tell(&self, to: &[Self::Addr], telling: Telling) -> Answer<()> {
        let tell = || {
            let mut receivers = to.iter().cycle();
            for _ in 0..telling.each {
                let receiver = receivers.next().ok_or("nobody to tell")?;
                if telling.mailbox != Mailbox::Bounded {
                    receiver.do_send(Add(1));
                    continue;
                }
                while let Err(error) = receiver.try_send(Add(1)) {
                    match error {
                        SendError::Full(_) => std::thread::yield_now(),
                        SendError::Closed(_) => return Err("the actor has ended".into()),
                    }
                }
            }
            Answer::Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..telling.senders).map(|_| scope.spawn(tell)).collect();
            tell()?;
            others
                .into_iter()
                .try_for_each(|other| other.join().map_err(|_| "a sender panicked")?)
        })
    }

    fn sums(&self, of: &[Self::Addr]) -> Answer<u64> {
        let mut sum = 0;
        for some in of.chunks(1_000) {
            let answers = try_join_all(some.iter().map(|one| one.send(Sum)));
            sum += block_on(answers)?.iter().sum::<u64>();
        }
        Ok(sum)
    }

    fn ask(&self, of: &Self::Addr) -> Answer<u64> {
        Ok(block_on(of.send(Sum))?)
    }

    fn ping_pong(&self, trips: u64) -> Answer<u64> {
        let (done, ended) = channel();
        self.run(move || {
            let first = Player { other: None, done: Some(done), hits: 0 }.start();
            let second = Player { other: Some(first.clone()), done: None, hits: 0 }.start();
            first.do_send(Meet(second));
            first.do_send(Ball(2 * trips));
            ready(())
        })?;
        Ok(block_on(ended)?)
    }
}

struct Player {
    other: Option<Addr<Self>>,
    done: Option<Sender<u64>>,
    hits: u64,
}

impl Actor for Player {
    type Context = Context<Self>;
}

struct Meet(Addr<Player>);
struct Ball(u64);

impl Message for Meet {
    type Result = ();
}

impl Message for Ball {
    type Result = ();
}

impl Handler<Meet> for Player {
    type Result = ();

    fn handle(&mut self, Meet(other): Meet, _: &mut Context<Self>) {
        self.other = Some(other);
    }
}

impl Handler<Ball> for Player {
    type Result = ();

    fn handle(&mut self, Ball(left): Ball, _: &mut Context<Self>) {
        if left == 0 {
            self.other = None;
            self.done.take().map(|done| done.send(self.hits));
            return;
        }
        self.hits += 1;
        if let Some(other) = &self.other {
            other.do_send(Ball(left - 1));
        }
    }
}

/// Actors whose commands are rows.
struct Kept {
    actix: Actix,
    how: How,
}

enum How {
    Grouped(GroupCommit),
    /// A transaction for each, in the handler.
    OneByOne(Arc<Mutex<Connection>>),
}

impl Kept {
    fn grouped(dir: &Path) -> Answer<Self> {
        Ok(Self { actix: Actix::start()?, how: How::Grouped(GroupCommit::start(dir)?) })
    }

    fn one_by_one(dir: &Path) -> Answer<Self> {
        let connection = Arc::new(Mutex::new(connect(dir, Table::InOrder)?));
        Ok(Self { actix: Actix::start()?, how: How::OneByOne(connection) })
    }
}

#[derive(Clone)]
enum Way {
    Queue(Queue),
    Connection(Arc<Mutex<Connection>>),
}

struct Account {
    deposits: u64,
    next: Event,
    way: Way,
}

impl Actor for Account {
    type Context = Context<Self>;
}

struct Deposit;
struct Get;

impl Message for Deposit {
    type Result = Result<u64, String>;
}

impl Message for Get {
    type Result = u64;
}

impl Handler<Deposit> for Account {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, _: Deposit, _: &mut Context<Self>) -> Self::Result {
        let event = self.next;
        self.next.step();
        self.deposits += 1;
        let deposits = self.deposits;
        match &self.way {
            Way::Queue(queue) => {
                let stored = queue.store(event);
                Box::pin(async move { stored.await.map(|()| deposits) })
            }
            Way::Connection(connection) => {
                let stored = insert(&connection.lock(), &event);
                Box::pin(ready(stored.map(|()| deposits).map_err(|error| error.to_string())))
            }
        }
    }
}

impl Handler<Get> for Account {
    type Result = u64;

    fn handle(&mut self, _: Get, _: &mut Context<Self>) -> u64 {
        self.deposits
    }
}

impl Keeper for Kept {
    type Addr = Addr<Account>;

    fn make(&self, actors: u64) -> Answer<Vec<Self::Addr>> {
        let way = match &self.how {
            How::Grouped(writer) => Way::Queue(writer.queue()),
            How::OneByOne(connection) => Way::Connection(Arc::clone(connection)),
        };
        self.actix.run(move || {
            let made = (0..actors).map(|number| {
                Account { deposits: 0, next: Event::new(number, 1), way: way.clone() }.start()
            });
            ready(made.collect::<Vec<_>>())
        })
    }

    fn command(&self, to: &Self::Addr) -> Answer<u64> {
        Ok(block_on(to.send(Deposit))??)
    }

    fn read(&self, of: &Self::Addr) -> Answer<u64> {
        Ok(block_on(of.send(Get))?)
    }

    fn drive(&self, to: &[Self::Addr], limit: Duration) -> Answer<Driven> {
        let clients = Clients::new();
        let (over, to) = (clients.over(), to.to_vec());
        let (sender, ended) = channel();
        self.actix.run(move || {
            let each = move |one: Addr<Account>| {
                let over = Arc::clone(&over);
                let ask = move || {
                    let request = one.send(Deposit);
                    async move { Ok(request.await??) }
                };
                spawn_local(keep_asking(over, ask))
            };
            let all = join_all(to.into_iter().map(each).collect::<Vec<_>>());
            drop(spawn_local(async move { sender.send(all.await) }));
            ready(())
        })?;
        clients.let_run(limit);
        Clients::times(block_on(ended)?.into_iter().map(|times| times?))
    }
}

const _: () = assert!(size_of::<Counter>() == super::STATE_BYTES);
