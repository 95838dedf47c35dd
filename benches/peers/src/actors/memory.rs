//! What happens in memory: making actors, telling, asking, two in conversation.

use std::fs;
use std::time::Instant;

use super::work::{Job, Route, Work, same};
use crate::store::Answer;
use crate::work::{Figures, Scale, lap, timed};

/// How much an actor lets wait.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mailbox {
    /// As its documentation begins.
    Default,
    /// No bound that matters.
    Unbounded,
    /// [`BOUND`] messages.
    Bounded,
}

pub(crate) const BOUND: usize = 1_024;

/// `each` messages by each of so many senders.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Telling {
    pub(crate) senders: u64,
    pub(crate) each: u64,
    pub(crate) mailbox: Mailbox,
}

/// A way to have actors, started. Each has a state of 48 bytes, adds the numbers that it is told,
/// and answers with the sum.
pub(crate) trait Rig {
    type Addr;

    fn make(&self, actors: u64, mailbox: Mailbox) -> Answer<Vec<Self::Addr>>;

    /// Tells them 1, in turn. Nobody waits until it is handled, but where the mailbox is bounded
    /// a sender waits for room.
    fn tell(&self, to: &[Self::Addr], telling: Telling) -> Answer<()>;

    /// Asks each of them, all at once if that is faster, and adds up the answers.
    fn sums(&self, of: &[Self::Addr]) -> Answer<u64>;

    /// Asks one, and waits on this thread, which is one of the system.
    fn ask(&self, of: &Self::Addr) -> Answer<u64>;

    /// Two actors send a message to and fro so often; how many the first of them has had.
    fn ping_pong(&self, trips: u64) -> Answer<u64>;
}

/// The work, by whoever does it.
pub(crate) fn run<R: Rig>(rig: &R, job: &Job<'_>) -> Answer<Figures> {
    let scale = job.scale;
    match job.work {
        Work::Idle => idle(rig, scale),
        Work::Create => create(rig, scale),
        Work::Tell(route) => tell(rig, route, scale),
        Work::Ask => ask(rig, scale),
        Work::PingPong => ping_pong(rig, scale),
        _ => Err("this is no work in memory".into()),
    }
}

fn tell<R: Rig>(rig: &R, route: Route, scale: Scale) -> Answer<Figures> {
    let (senders, actors) = route.ends();
    let mailbox = if route == Route::Bounded { Mailbox::Bounded } else { Mailbox::Unbounded };
    let to = rig.make(actors, mailbox)?;
    let telling = Telling { senders, each: scale.batch() / senders, mailbox };
    let mut told = 0;
    let mut round = || {
        rig.tell(&to, telling)?;
        told += telling.senders * telling.each;
        same("told and handled", rig.sums(&to)?, told)
    };
    lap(scale.warm, (1, u64::MAX), &mut round)?;
    let lap = lap(scale.measure, (1, u64::MAX), &mut round)?;
    Ok(vec![("rate", lap.per_second() * (telling.senders * telling.each) as f64)])
}

fn ask<R: Rig>(rig: &R, scale: Scale) -> Answer<Figures> {
    let one = rig.make(1, Mailbox::Default)?;
    let told = 7;
    rig.tell(&one, Telling { senders: 1, each: told, mailbox: Mailbox::Default })?;
    // Handled after what was told.
    same("told and handled", rig.ask(&one[0])?, told)?;
    let mut round = || same("answered", rig.ask(&one[0])?, told);
    lap(scale.warm, (16, u64::MAX), &mut round)?;
    let (_, times) = timed(scale.measure, &mut round)?;
    Ok(vec![("p50", times.per_mille(500)), ("p99", times.per_mille(990))])
}

fn ping_pong<R: Rig>(rig: &R, scale: Scale) -> Answer<Figures> {
    let trips = scale.batch();
    let mut round = || same("round trips", rig.ping_pong(trips)?, trips);
    lap(scale.warm, (1, u64::MAX), &mut round)?;
    let lap = lap(scale.measure, (1, u64::MAX), &mut round)?;
    Ok(vec![("rate", lap.per_second() * trips as f64)])
}

/// Time until the call has returned that makes an actor, and until its first turn has ended.
fn create<R: Rig>(rig: &R, scale: Scale) -> Answer<Figures> {
    let actors = scale.batch();
    drop(turned(rig, actors / 10)?);
    let began = Instant::now();
    let made = rig.make(actors, Mailbox::Default)?;
    let called = began.elapsed();
    same("sums of the new", rig.sums(&made)?, 0)?;
    let each = |took: std::time::Duration| took.as_secs_f64() * 1e9 / actors as f64;
    let turned = began.elapsed();
    same("made", made.len() as u64, actors)?;
    Ok(vec![("call", each(called)), ("turn", each(turned))])
}

/// Actors that have had a turn each.
fn turned<R: Rig>(rig: &R, actors: u64) -> Answer<Vec<R::Addr>> {
    let made = rig.make(actors, Mailbox::Default)?;
    rig.tell(&made, Telling { senders: 1, each: actors, mailbox: Mailbox::Default })?;
    same("first messages", rig.sums(&made)?, actors)?;
    Ok(made)
}

/// Made and asked at once: what that takes besides is used again by the next.
const SLICE: u64 = 1_000;
/// Left for everybody else; who needs more is measured with fewer actors.
const ROOM: u64 = 2 << 30;

fn idle<R: Rig>(rig: &R, scale: Scale) -> Answer<Figures> {
    let wanted = scale.sleepers();
    let mut all = Vec::new();
    // What the first actors cost beside themselves is not theirs.
    for _ in 0..(wanted / SLICE / 100).max(1) {
        all.extend(turned(rig, SLICE)?);
    }
    let beside = all.capacity() * size_of::<R::Addr>();
    let before = anonymous()?;
    let mut made = 0;
    while made < wanted && (made == 0 || available()? > ROOM) {
        all.extend(turned(rig, SLICE)?);
        made += SLICE;
    }
    // The list of addresses is this bench's own.
    let list = (all.capacity() * size_of::<R::Addr>() - beside) as f64;
    Ok(vec![("bytes", (anonymous()? - before - list) / made as f64), ("actors", made as f64)])
}

/// Bytes of this process' own memory that are present: no files, no maps of them.
pub(crate) fn anonymous() -> Answer<f64> {
    Ok(kib(&fs::read_to_string("/proc/self/status")?, "RssAnon:")? as f64 * 1024.0)
}

/// Bytes that are there for whoever wants them.
fn available() -> Answer<u64> {
    Ok(kib(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:")? * 1024)
}

fn kib(text: &str, name: &'static str) -> Answer<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or(name)?;
    Ok(line.split_whitespace().next().ok_or(name)?.parse()?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    /// Counts what it is told, but for one in so many.
    struct Forgetful {
        one_in: u64,
        sum: Cell<u64>,
    }

    impl Rig for Forgetful {
        type Addr = ();

        fn make(&self, actors: u64, _: Mailbox) -> Answer<Vec<()>> {
            self.sum.set(0);
            Ok(vec![(); usize::try_from(actors)?])
        }

        fn tell(&self, _: &[()], telling: Telling) -> Answer<()> {
            let told = telling.senders * telling.each;
            self.sum.set(self.sum.get() + told - told.checked_div(self.one_in).unwrap_or(0));
            Ok(())
        }

        fn sums(&self, _: &[()]) -> Answer<u64> {
            Ok(self.sum.get())
        }

        fn ask(&self, (): &()) -> Answer<u64> {
            Ok(self.sum.get())
        }

        fn ping_pong(&self, trips: u64) -> Answer<u64> {
            Ok(trips - trips.checked_div(self.one_in).unwrap_or(0))
        }
    }

    #[test]
    fn who_drops_messages_gets_no_figure() {
        let scale = Scale {
            warm: Duration::ZERO,
            measure: Duration::from_millis(1),
            streams: 10,
            per_stream: 1,
        };
        for work in [Work::Tell(Route::OneToOne), Work::Tell(Route::Bounded), Work::PingPong] {
            let job = Job { work, prepare: false, dir: Path::new("/"), scale };
            let honest = Forgetful { one_in: 0, sum: Cell::new(0) };
            assert_eq!(run(&honest, &job).unwrap()[0].0, "rate");
            let forgetful = Forgetful { one_in: 50, sum: Cell::new(0) };
            assert!(run(&forgetful, &job).is_err(), "{work:?}");
        }
    }

    #[test]
    fn the_kernel_says_what_memory_there_is() {
        assert!(anonymous().unwrap() > 0.0);
        assert!(available().unwrap() > 0);
        assert_eq!(kib("A: 1 kB\nB:\t 22 kB\n", "B:").unwrap(), 22);
        assert!(kib("A: 1 kB\n", "B:").is_err());
    }
}
