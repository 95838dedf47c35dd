//! ractor, on tokio.

use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot::{Sender, channel};

use super::memory::{Mailbox, run};
use super::tokio::{Mail, OnTokio};
use super::work::{Route, Work};
use super::{IN_MEMORY, Peer};
use crate::store::Answer;

pub(crate) const PEER: Peer = Peer {
    name: "ractor",
    package: "ractor",
    runs: "tokio, a task for each actor",
    tells: "`cast`, by a task",
    bounded: "none: mailboxes have no bound",
    keeps: "nothing",
    upkeep: "0.16.5 of August 2026; in active development",
    does: IN_MEMORY,
    cannot: &[(Work::Tell(Route::Bounded), "a mailbox has no bound")],
    run: |job| run(&OnTokio::<ActorRef<Said>>::new()?, job),
};

struct Counter;

struct State {
    sum: u64,
    _rest: [u64; 5],
}

enum Said {
    Add(u64),
    Sum(RpcReplyPort<u64>),
}

impl Actor for Counter {
    type Msg = Said;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Said>, (): ()) -> Result<State, ActorProcessingErr> {
        Ok(State { sum: 0, _rest: [0; 5] })
    }

    async fn handle(
        &self,
        _: ActorRef<Said>,
        message: Said,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Said::Add(number) => state.sum += number,
            Said::Sum(port) => port.send(state.sum)?,
        }
        Ok(())
    }
}

impl Mail for ActorRef<Said> {
    async fn spawn(_: Mailbox) -> Answer<Self> {
        Ok(Counter::spawn(None, Counter, ()).await?.0)
    }

    async fn tell(&self, number: u64) -> Answer<()> {
        Ok(self.cast(Said::Add(number)).map_err(|error| error.to_string())?)
    }

    async fn sum(&self) -> Answer<u64> {
        match self.call(Said::Sum, None).await.map_err(|error| error.to_string())? {
            CallResult::Success(sum) => Ok(sum),
            CallResult::Timeout | CallResult::SenderError => Err("no answer".into()),
        }
    }

    async fn ping_pong(trips: u64) -> Answer<u64> {
        let (done, ended) = channel();
        let (second, _) = Player::spawn(None, Player, None).await?;
        let (first, _) = Player::spawn(None, Player, Some(done)).await?;
        let text = |error: ractor::MessagingErr<Play>| error.to_string();
        second.cast(Play::Meet(first.clone())).map_err(text)?;
        first.cast(Play::Meet(second)).map_err(text)?;
        first.cast(Play::Ball(2 * trips)).map_err(text)?;
        Ok(ended.await?)
    }
}

struct Player;

struct Hand {
    other: Option<ActorRef<Play>>,
    done: Option<Sender<u64>>,
    hits: u64,
}

enum Play {
    Meet(ActorRef<Play>),
    Ball(u64),
}

impl Actor for Player {
    type Msg = Play;
    type State = Hand;
    type Arguments = Option<Sender<u64>>;

    async fn pre_start(
        &self,
        _: ActorRef<Play>,
        done: Option<Sender<u64>>,
    ) -> Result<Hand, ActorProcessingErr> {
        Ok(Hand { other: None, done, hits: 0 })
    }

    async fn handle(
        &self,
        me: ActorRef<Play>,
        message: Play,
        hand: &mut Hand,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Play::Meet(other) => hand.other = Some(other),
            Play::Ball(0) => {
                hand.done.take().map(|done| done.send(hand.hits));
                // Nobody stops because nobody has its address any more.
                hand.other.take().into_iter().for_each(|other| other.stop(None));
                me.stop(None);
            }
            Play::Ball(left) => {
                hand.hits += 1;
                if let Some(other) = &hand.other {
                    other.cast(Play::Ball(left - 1))?;
                }
            }
        }
        Ok(())
    }
}

const _: () = assert!(size_of::<State>() == super::STATE_BYTES);
