//! xtra, on tokio.

use tokio::sync::oneshot::{Sender, channel};
use xtra::{Actor, Address, Context, Handler, Mailbox as Box};

use super::memory::{BOUND, Mailbox, run};
use super::tokio::{Mail, OnTokio};
use super::{IN_MEMORY, Peer};
use crate::store::Answer;

pub(crate) const PEER: Peer = Peer {
    name: "xtra",
    package: "xtra",
    runs: "tokio, a task for each actor",
    tells: "`send().detach().await`, by a task",
    bounded: "a sender waits for room",
    keeps: "nothing; and messages of one sender may overtake each other",
    upkeep: "0.6.0 of July 2024; quiet since",
    does: IN_MEMORY,
    cannot: &[],
    run: |job| run(&OnTokio::<Address<Counter>>::new()?, job),
};

#[derive(Default)]
struct Counter {
    sum: u64,
    _rest: [u64; 5],
}

impl Actor for Counter {
    type Stop = ();

    async fn stopped(self) {}
}

struct Add(u64);
struct Sum;

impl Handler<Add> for Counter {
    type Return = ();

    async fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) {
        self.sum += number;
    }
}

impl Handler<Sum> for Counter {
    type Return = u64;

    async fn handle(&mut self, _: Sum, _: &mut Context<Self>) -> u64 {
        self.sum
    }
}

impl Mail for Address<Counter> {
    async fn spawn(mailbox: Mailbox) -> Answer<Self> {
        let mailbox = match mailbox {
            Mailbox::Default | Mailbox::Unbounded => Box::unbounded(),
            Mailbox::Bounded => Box::bounded(BOUND),
        };
        Ok(xtra::spawn_tokio(Counter::default(), mailbox))
    }

    async fn tell(&self, number: u64) -> Answer<()> {
        // Before any `Sum`: messages of one priority are handled in any order.
        drop(self.send(Add(number)).priority(1).detach().await?);
        Ok(())
    }

    async fn sum(&self) -> Answer<u64> {
        Ok(self.send(Sum).await?)
    }

    async fn ping_pong(trips: u64) -> Answer<u64> {
        let (done, ended) = channel();
        let spawn = |done| {
            let player = Player { other: None, done, hits: 0 };
            xtra::spawn_tokio(player, Box::unbounded())
        };
        let (first, second) = (spawn(Some(done)), spawn(None));
        second.send(Meet(first.clone())).await?;
        first.send(Meet(second)).await?;
        drop(first.send(Ball(2 * trips)).detach().await?);
        Ok(ended.await?)
    }
}

struct Player {
    other: Option<Address<Self>>,
    done: Option<Sender<u64>>,
    hits: u64,
}

impl Actor for Player {
    type Stop = ();

    async fn stopped(self) {}
}

struct Meet(Address<Player>);
struct Ball(u64);

impl Handler<Meet> for Player {
    type Return = ();

    async fn handle(&mut self, Meet(other): Meet, _: &mut Context<Self>) {
        self.other = Some(other);
    }
}

impl Handler<Ball> for Player {
    type Return = ();

    async fn handle(&mut self, Ball(left): Ball, _: &mut Context<Self>) {
        if left == 0 {
            self.other = None;
            self.done.take().map(|done| done.send(self.hits));
            return;
        }
        self.hits += 1;
        if let Some(other) = &self.other {
            // Who has stopped has done so at the end.
            drop(other.send(Ball(left - 1)).detach().await);
        }
    }
}

const _: () = assert!(size_of::<Counter>() == super::STATE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Answer;

    #[derive(Default)]
    struct Order(Vec<u64>);

    impl Actor for Order {
        type Stop = ();

        async fn stopped(self) {}
    }

    impl Handler<u64> for Order {
        type Return = ();

        async fn handle(&mut self, number: u64, _: &mut Context<Self>) {
            self.0.push(number);
        }
    }

    impl Handler<Sum> for Order {
        type Return = Vec<u64>;

        async fn handle(&mut self, _: Sum, _: &mut Context<Self>) -> Vec<u64> {
            self.0.clone()
        }
    }

    /// If this fails, the priority in `tell` can go, and so can the words in the table.
    #[test]
    fn messages_of_one_sender_are_not_handled_in_their_order() -> Answer<()> {
        let (address, mailbox) = Box::unbounded();
        futures::executor::block_on(async {
            for number in 0..1_000 {
                drop(address.send(number).priority(1).detach().await?);
            }
            let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
            runtime.spawn(xtra::run(mailbox, Order::default()));
            let seen = address.send(Sum).await?;
            assert_eq!(seen.len(), 1_000);
            assert_ne!(seen, (0..1_000).collect::<Vec<_>>());
            Ok(())
        })
    }
}
