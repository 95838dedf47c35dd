//! Actors on tokio: those of kameo, ractor and xtra differ only in the calls of [`Mail`].

use std::marker::PhantomData;
use std::pin::pin;

use futures::future::{join_all, try_join_all};
use tokio::runtime::{Builder, Runtime};

use super::memory::{Mailbox, Rig, Telling};
use crate::store::Answer;

/// An address, and what can be done with it.
pub(crate) trait Mail: Clone + Send + Sync + 'static {
    fn spawn(mailbox: Mailbox) -> impl Future<Output = Answer<Self>> + Send;

    /// Waits for room, and for nothing else.
    fn tell(&self, number: u64) -> impl Future<Output = Answer<()>> + Send;

    fn sum(&self) -> impl Future<Output = Answer<u64>> + Send;

    /// See [`Rig::ping_pong`].
    fn ping_pong(trips: u64) -> impl Future<Output = Answer<u64>> + Send;
}

/// A runtime of tokio with a thread for each processor, as it is by default.
pub(crate) struct OnTokio<M> {
    runtime: Runtime,
    mail: PhantomData<fn() -> M>,
}

impl<M: Mail> OnTokio<M> {
    pub(crate) fn new() -> Answer<Self> {
        Ok(Self { runtime: Builder::new_multi_thread().build()?, mail: PhantomData })
    }

    /// As a task, which is where tokio does its own work best.
    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        self.runtime.block_on(self.runtime.spawn(work))?
    }
}

impl<M: Mail> Rig for OnTokio<M> {
    type Addr = M;

    fn make(&self, actors: u64, mailbox: Mailbox) -> Answer<Vec<M>> {
        self.run(async move {
            let mut made = Vec::with_capacity(usize::try_from(actors)?);
            for _ in 0..actors {
                made.push(M::spawn(mailbox).await?);
            }
            Ok(made)
        })
    }

    fn tell(&self, to: &[M], telling: Telling) -> Answer<()> {
        let senders = (0..telling.senders).map(|_| {
            let to = to.to_vec();
            self.runtime.spawn(async move {
                let mut receivers = to.iter().cycle();
                for _ in 0..telling.each {
                    receivers.next().ok_or("nobody to tell")?.tell(1).await?;
                }
                Answer::Ok(())
            })
        });
        let all = join_all(senders);
        self.runtime.block_on(all).into_iter().try_for_each(|told| told?)
    }

    fn sums(&self, of: &[M]) -> Answer<u64> {
        self.runtime.block_on(async {
            let mut sum = 0;
            for some in of.chunks(1_000) {
                sum += try_join_all(some.iter().map(M::sum)).await?.iter().sum::<u64>();
            }
            Ok(sum)
        })
    }

    fn ask(&self, of: &M) -> Answer<u64> {
        // Parks the thread and nothing else: less than the runtime's own `block_on` does.
        futures::executor::block_on(pin!(of.sum()))
    }

    fn ping_pong(&self, trips: u64) -> Answer<u64> {
        self.run(M::ping_pong(trips))
    }
}
