//! The least that the machine must do for what actors are asked: see the limits of the stores.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

use super::memory::BOUND;
use super::sleep::{COLD, EVENTS, bytes_read, forget, read_from_disk};
use super::work::{Job, Route, Work, same};
use crate::limit::{least_open, sum};
use crate::store::Answer;
use crate::support::FRAME_BYTES;
use crate::support::flush::Flush;
use crate::support::histogram::Histogram;
use crate::work::{Figures, Scale, lap, step, timed};

pub(crate) fn run(job: &Job<'_>) -> Answer<Figures> {
    let (dir, scale) = (job.dir, job.scale);
    match job.work {
        Work::Idle => Ok(vec![("bytes", super::STATE_BYTES as f64)]),
        Work::Passivated => Ok(Vec::new()),
        Work::Create => create(scale),
        Work::Tell(route) => tell(route, scale),
        Work::Ask => ask(scale),
        Work::PingPong => ping_pong(scale),
        Work::Command(commands) => crate::limit::durable(dir, commands, scale),
        Work::Beside => beside(dir, scale),
        Work::Recover => recover(scale),
        Work::Cold if job.prepare => fill(dir, scale),
        Work::Cold => cold(dir, scale),
        Work::Open if job.prepare => {
            Ok(fs::write(dir.join("log"), vec![0x5a_u8; 1 << 20])?).map(|()| Vec::new())
        }
        Work::Open => {
            let began = Instant::now();
            least_open(dir, &dir.join("log"))?;
            Ok(vec![("open", began.elapsed().as_secs_f64())])
        }
    }
}

/// A boxed state in a list.
fn create(scale: Scale) -> Answer<Figures> {
    let actors = scale.batch();
    let make = || -> Vec<Box<[u64; 6]>> { (0..actors).map(|it| Box::new([it; 6])).collect() };
    drop(std::hint::black_box(make()));
    let began = Instant::now();
    let made = std::hint::black_box(make());
    let each = began.elapsed().as_secs_f64() * 1e9 / actors as f64;
    same("made", made.len() as u64, actors)?;
    Ok(vec![("call", each), ("turn", each)])
}

/// A channel between bare threads, whoever it is for.
fn tell(route: Route, scale: Scale) -> Answer<Figures> {
    let senders = route.ends().0;
    let each = scale.batch() / senders;
    let mut round = || {
        let ends = if route == Route::Bounded { bounded(BOUND) } else { unbounded() };
        same("told and handled", channel(ends, senders, each)?, senders * each)
    };
    lap(scale.warm, (1, u64::MAX), &mut round)?;
    let lap = lap(scale.measure, (1, u64::MAX), &mut round)?;
    Ok(vec![("rate", lap.per_second() * (senders * each) as f64)])
}

fn channel(
    (sender, receiver): (Sender<u64>, Receiver<u64>),
    senders: u64,
    each: u64,
) -> Answer<u64> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..senders)
            .map(|_| {
                let sender = sender.clone();
                scope.spawn(move || (0..each).try_for_each(|_| sender.send(1)))
            })
            .collect();
        drop(sender);
        let sum = receiver.iter().sum();
        for thread in threads {
            thread.join().map_err(|_| "a sender panicked")??;
        }
        Ok(sum)
    })
}

/// A lock taken and a number read.
fn ask(scale: Scale) -> Answer<Figures> {
    let state = Mutex::new(7_u64);
    let mut read = || same("answered", *std::hint::black_box(&state).lock(), 7);
    let (_, times) = timed(scale.measure, &mut read)?;
    Ok(vec![("p50", times.per_mille(500)), ("p99", times.per_mille(990))])
}

/// Each message into a channel and out of it, on one thread.
fn ping_pong(scale: Scale) -> Answer<Figures> {
    let (sender, receiver) = unbounded();
    let trips = scale.batch();
    let mut round = || {
        for number in 0..2 * trips {
            sender.send(number)?;
            same("the ball", receiver.recv()?, number)?;
        }
        Ok(())
    };
    lap(scale.warm, (1, u64::MAX), &mut round)?;
    let lap = lap(scale.measure, (1, u64::MAX), &mut round)?;
    Ok(vec![("rate", lap.per_second() * trips as f64)])
}

/// A number under a lock, while two threads write and flush files of their own.
fn beside(dir: &Path, scale: Scale) -> Answer<Figures> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..2 {
            let mut flush = Flush::new(&dir.join(format!("flush-{number}")), 1);
            let over = &over;
            scope.spawn(move || {
                // Relaxed: a hint to stop, and nothing is read because of it.
                while !over.load(Ordering::Relaxed) {
                    flush.flush();
                }
            });
        }
        let figures = ask(scale);
        over.store(true, Ordering::Relaxed);
        figures
    })
}

/// Checksums of 100 frames that lie as far apart as those of one actor, or of one.
fn recover(scale: Scale) -> Answer<Figures> {
    let actors = usize::try_from(scale.streams)?;
    let frames = vec![0x5a_u8; actors * usize::try_from(EVENTS)? * FRAME_BYTES];
    let mut next = 0;
    let mut from = |events: usize| -> Answer<f64> {
        let mut times = Histogram::new();
        lap(scale.measure, (1, u64::MAX), &mut || {
            next = step(next, scale.streams);
            let mine = frames.chunks_exact(FRAME_BYTES).skip(usize::try_from(next)?);
            let began = Instant::now();
            mine.step_by(actors).take(events).for_each(sum);
            times.record(began.elapsed());
            Ok(())
        })?;
        Ok(times.per_mille(500))
    };
    Ok(vec![("events", from(usize::try_from(EVENTS)?)?), ("snapshot", from(1)?)])
}

fn fill(dir: &Path, scale: Scale) -> Answer<Figures> {
    let bytes = usize::try_from(scale.streams * EVENTS)? * FRAME_BYTES;
    fs::write(dir.join("frames"), vec![0x5a_u8; bytes])?;
    Ok(Vec::new())
}

/// One `pread` of 100 frames that lie side by side, each summed.
fn cold(dir: &Path, scale: Scale) -> Answer<Figures> {
    forget(dir)?;
    let before = bytes_read()?;
    let file = fs::File::open(dir.join("frames"))?;
    let mut bytes = vec![0; usize::try_from(EVENTS)? * FRAME_BYTES];
    let mut times = Histogram::new();
    for number in 0..COLD.min(scale.streams) {
        let place = number * (scale.streams / COLD).max(1) * bytes.len() as u64;
        let began = Instant::now();
        file.read_exact_at(&mut bytes, place)?;
        bytes.chunks_exact(FRAME_BYTES).for_each(sum);
        times.record(began.elapsed());
    }
    read_from_disk(dir, before)?;
    Ok(vec![("p50", times.per_mille(500))])
}
