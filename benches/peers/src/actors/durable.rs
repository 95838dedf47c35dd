//! Commands whose replies leave when they are on disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::work::{Job, Work, same};
use crate::store::Answer;
use crate::support::histogram::Histogram;
use crate::work::{Figures, Lap, Scale, timed};

/// A way to have actors whose commands survive power loss. A command adds an event of 128 bytes,
/// and is answered with the number of those that the actor has had.
pub(crate) trait Keeper: Sync {
    type Addr: Sync;

    /// The actors 0, 1, 2 and so on.
    fn make(&self, actors: u64) -> Answer<Vec<Self::Addr>>;

    /// A command; waits on this thread, which is one of the system.
    fn command(&self, to: &Self::Addr) -> Answer<u64>;

    /// The same number, and no event.
    fn read(&self, of: &Self::Addr) -> Answer<u64>;

    /// Commands to all of them, one on its way to each of them all the time: how long each took
    /// from when it was sent to when its reply was there.
    fn drive(&self, to: &[Self::Addr], limit: Duration) -> Answer<Driven>;
}

/// How often, and how long each took.
pub(crate) struct Driven {
    pub(crate) done: u64,
    pub(crate) times: Histogram,
}

/// What was opened is closed, and then counted by somebody else: `stored` is told how many actors
/// there are.
pub(crate) fn run<K: Keeper>(
    open: fn(&Path) -> Answer<K>,
    stored: fn(&Path, u64) -> Answer<u64>,
    job: &Job<'_>,
) -> Answer<Figures> {
    let keeper = open(job.dir)?;
    let (actors, (figures, done)) = match job.work {
        Work::Command(1) => (1, lone(&keeper, job.scale)?),
        Work::Command(actors) => (actors, many(&keeper, actors, job.scale)?),
        Work::Beside => (3, beside(&keeper, job.scale)?),
        _ => return Err("these are no durable commands".into()),
    };
    drop(keeper);
    same("events found afterwards", stored(job.dir, actors)?, done)?;
    Ok(figures)
}

type Done = (Figures, u64);

fn lone<K: Keeper>(keeper: &K, scale: Scale) -> Answer<Done> {
    let one = keeper.make(1)?;
    let mut done = 0;
    let mut command = || {
        done += 1;
        same("deposits", keeper.command(&one[0])?, done)
    };
    timed(scale.warm, &mut command)?;
    let (lap, times) = timed(scale.measure, &mut command)?;
    Ok((figures(&lap, &times), done))
}

fn many<K: Keeper>(keeper: &K, actors: u64, scale: Scale) -> Answer<Done> {
    let all = keeper.make(actors)?;
    let warmed = keeper.drive(&all, scale.warm)?;
    let began = Instant::now();
    let driven = keeper.drive(&all, scale.measure)?;
    let lap = Lap { done: driven.done, took: began.elapsed() };
    Ok((figures(&lap, &driven.times), warmed.done + lap.done))
}

fn figures(lap: &Lap, times: &Histogram) -> Figures {
    vec![("rate", lap.per_second()), ("p50", times.per_mille(500)), ("p99", times.per_mille(990))]
}

fn beside<K: Keeper>(keeper: &K, scale: Scale) -> Answer<Done> {
    let actors = keeper.make(3)?;
    let [clean, busy @ ..] = &actors[..] else { return Err("three were to be made".into()) };
    keeper.command(clean)?;
    let (over, commits) = (AtomicBool::new(false), AtomicU64::new(0));
    let times = std::thread::scope(|scope| {
        let committers: Vec<_> = busy
            .iter()
            .map(|one| {
                scope.spawn(|| -> Answer<()> {
                    // Relaxed: a hint to stop, and a count that is read after the join.
                    while !over.load(Ordering::Relaxed) {
                        keeper.command(one)?;
                        commits.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let read = read_for(keeper, clean, scale);
        over.store(true, Ordering::Relaxed);
        for committer in committers {
            committer.join().map_err(|_| "a thread panicked")??;
        }
        read
    })?;
    let commits = commits.into_inner();
    if commits == 0 {
        return Err("nobody has committed meanwhile".into());
    }
    let figures = vec![("p50", times.per_mille(500)), ("p99", times.per_mille(990))];
    Ok((figures, commits + 1))
}

fn read_for<K: Keeper>(keeper: &K, clean: &K::Addr, scale: Scale) -> Answer<Histogram> {
    let mut read = || same("deposits of the clean one", keeper.read(clean)?, 1);
    timed(scale.warm, &mut read)?;
    Ok(timed(scale.measure, &mut read)?.1)
}

/// Tasks that ask until they are told to stop, each an actor of its own.
pub(crate) struct Clients {
    over: Arc<AtomicBool>,
}

impl Clients {
    pub(crate) fn new() -> Self {
        Self { over: Arc::new(AtomicBool::new(false)) }
    }

    pub(crate) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    /// Sleeps so long, and tells them.
    pub(crate) fn let_run(&self, limit: Duration) {
        std::thread::sleep(limit);
        // Relaxed: a hint to stop, and nothing is read because of it.
        self.over.store(true, Ordering::Relaxed);
    }

    /// What [`keep_asking`] has answered to each.
    pub(crate) fn times(all: impl Iterator<Item = Answer<Vec<Duration>>>) -> Answer<Driven> {
        let mut driven = Driven { done: 0, times: Histogram::new() };
        for one in all {
            for time in one? {
                driven.done += 1;
                driven.times.record(time);
            }
        }
        Ok(driven)
    }
}

/// One client: a command, its reply, the next, each with its time. The replies count up.
pub(crate) async fn keep_asking<F: Future<Output = Answer<u64>>>(
    over: Arc<AtomicBool>,
    mut ask: impl FnMut() -> F,
) -> Answer<Vec<Duration>> {
    let mut times = Vec::new();
    let mut expected = None;
    while !over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let deposits = ask().await?;
        times.push(sent.elapsed());
        same("deposits", deposits, expected.unwrap_or(deposits))?;
        expected = Some(deposits + 1);
    }
    Ok(times)
}
