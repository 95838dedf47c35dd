//! What a child process does with one store, and the figures that it answers with.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::machine::bytes_written;
use crate::store::{Answer, Ask, Event, Level, Peer, Seen, Store, Writer};
use crate::support::histogram::Histogram;

/// Events that are on their way together.
pub(crate) const IN_FLIGHT: u64 = 1_024;
/// Loaded one by one after everything else was made durable: what a kill interrupts.
pub(crate) const TAIL_EVENTS: u64 = 4_000;
/// Events that are loaded at once: several of each stream, so that trees write fewer pages.
const LOADED: u64 = 32_768;
/// So that neither the disk nor the page cache fills up.
const APPENDS_MAX: u64 = 4_000_000;

/// How much is done.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) warm: Duration,
    pub(crate) measure: Duration,
    pub(crate) streams: u64,
    pub(crate) per_stream: u64,
}

impl Scale {
    pub(crate) fn events(self) -> u64 {
        self.streams * self.per_stream
    }

    /// Messages, or actors, between two looks at the clock.
    pub(crate) fn batch(self) -> u64 {
        self.streams * 10
    }

    /// Actors of whom nothing is asked.
    pub(crate) fn sleepers(self) -> u64 {
        self.streams * 100
    }
}

/// Figures by name, in the order of their measurement.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// A loop of operations that ends in time.
pub(crate) struct Lap {
    pub(crate) done: u64,
    pub(crate) took: Duration,
}

impl Lap {
    pub(crate) fn per_second(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn nanos_each(&self) -> f64 {
        self.took.as_secs_f64() * 1e9 / self.done as f64
    }
}

/// Runs `work` again and again until the time is over, or it was done so often. The clock is
/// looked at after every `stride`.
pub(crate) fn lap(
    limit: Duration,
    (stride, max): (u64, u64),
    work: &mut dyn FnMut() -> Answer<()>,
) -> Answer<Lap> {
    let began = Instant::now();
    let mut done = 0;
    loop {
        for _ in 0..stride {
            work()?;
        }
        done += stride;
        let took = began.elapsed();
        if took >= limit || done >= max {
            return Ok(Lap { done, took });
        }
    }
}

/// [`lap`], and how long each took. The clock is read once for each: where one ends the next
/// begins.
pub(crate) fn timed(
    limit: Duration,
    work: &mut dyn FnMut() -> Answer<()>,
) -> Answer<(Lap, Histogram)> {
    let mut times = Histogram::new();
    let mut last = Instant::now();
    let lap = lap(limit, (16, u64::MAX), &mut || {
        work()?;
        let now = Instant::now();
        times.record(now - last);
        last = now;
        Ok(())
    })?;
    Ok((lap, times))
}

/// The same as [`lap`] on so many threads at once, until the time is over for all; from when all
/// stand ready to when the last has ended. `each` makes what a thread does; that notes its times,
/// if it is told to.
pub(crate) fn together<W>(
    threads: u64,
    limit: Duration,
    timed: Option<&Mutex<Histogram>>,
    each: &(dyn Fn(u64) -> Answer<W> + Sync),
) -> Answer<Lap>
where
    W: FnMut() -> Answer<()>,
{
    let ready = Barrier::new(usize::try_from(threads)? + 1);
    let over = AtomicBool::new(false);
    let most = APPENDS_MAX / threads;
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (ready, over) = (&ready, &over);
                scope.spawn(move || -> Answer<u64> {
                    let made = each(thread);
                    ready.wait();
                    let mut work = made?;
                    let mut mine = Histogram::new();
                    let mut done = 0;
                    let mut last = Instant::now();
                    // Relaxed: a hint to stop, and nothing is read because of it.
                    while !over.load(Ordering::Relaxed) && done < most {
                        work()?;
                        done += 1;
                        if timed.is_some() {
                            let now = Instant::now();
                            mine.record(now - last);
                            last = now;
                        }
                    }
                    if let Some(timed) = timed {
                        timed.lock().merge(&mine);
                    }
                    Ok(done)
                })
            })
            .collect();
        ready.wait();
        let began = Instant::now();
        while began.elapsed() < limit && !handles.iter().all(ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
        over.store(true, Ordering::Relaxed);
        let mut done = 0;
        for handle in handles {
            done += handle.join().map_err(|_| "a thread panicked")??;
        }
        Ok(Lap { done, took: began.elapsed() })
    })
}

/// One thread's stream. What it leaves off with, the next one goes on with.
struct Appender<'a> {
    writer: Box<dyn Writer + 'a>,
    event: Event,
    seqs: &'a Mutex<Vec<u64>>,
}

impl Appender<'_> {
    fn append(&mut self) -> Answer<()> {
        self.writer.append(&self.event)?;
        self.event.step();
        Ok(())
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        let slot = usize::try_from(self.event.stream).expect("the number of a thread");
        self.seqs.lock()[slot] = self.event.seq;
    }
}

fn appender<'a>(
    store: &'a dyn Store,
    stream: u64,
    seqs: &'a Mutex<Vec<u64>>,
) -> Answer<impl FnMut() -> Answer<()> + use<'a>> {
    let seq = seqs.lock()[usize::try_from(stream)?];
    let event = Event::new(stream, seq);
    let mut appender = Appender { writer: store.writer()?, event, seqs };
    Ok(move || appender.append())
}

/// Each thread appends to a stream of its own and waits until the event is durable.
pub(crate) fn durable(peer: &Peer, dir: &Path, threads: u64, scale: Scale) -> Answer<Figures> {
    let store = (peer.open)(dir, Level::Power)?;
    let seqs = Mutex::new(vec![1; usize::try_from(threads)?]);
    let each = |stream| appender(&*store, stream, &seqs);
    together(threads, scale.warm, None, &each)?;
    let times = Mutex::new(Histogram::new());
    let before = bytes_written(dir);
    let lap = together(threads, scale.measure, Some(&times), &each)?;
    let times = times.into_inner();
    let mut figures = vec![
        ("rate", lap.per_second()),
        ("p50", times.per_mille(500)),
        ("p99", times.per_mille(990)),
    ];
    if let (Some(before), Some(after)) = (before, bytes_written(dir)) {
        figures.push(("device", (after - before) as f64 / lap.done as f64));
    }
    Ok(figures)
}

/// 1,024 events, all of them durable before the next 1,024.
pub(crate) fn in_flight(peer: &Peer, dir: &Path, scale: Scale) -> Answer<Figures> {
    let store = (peer.open)(dir, Level::Power)?;
    let mut writer = store.writer()?;
    let mut events: Vec<_> = (1..=IN_FLIGHT).map(|seq| Event::new(0, seq)).collect();
    let mut round = || {
        writer.append_all(&events)?;
        let first = events[0].seq + IN_FLIGHT;
        for (event, seq) in events.iter_mut().zip(first..) {
            *event = Event::new(0, seq);
        }
        Ok(())
    };
    let most = (1, APPENDS_MAX / IN_FLIGHT);
    lap(scale.warm, most, &mut round)?;
    let lap = lap(scale.measure, most, &mut round)?;
    Ok(vec![("rate", lap.per_second() * IN_FLIGHT as f64)])
}

/// Each thread appends to a stream of its own; nobody waits for the disk. First without a clock,
/// then with one reading of it for each.
pub(crate) fn append(peer: &Peer, dir: &Path, threads: u64, scale: Scale) -> Answer<Figures> {
    let store = (peer.open)(dir, Level::Process)?;
    let seqs = Mutex::new(vec![1; usize::try_from(threads)?]);
    let each = |stream| appender(&*store, stream, &seqs);
    together(threads, scale.warm, None, &each)?;
    let lap = together(threads, scale.measure, None, &each)?;
    let times = Mutex::new(Histogram::new());
    together(threads, scale.measure, Some(&times), &each)?;
    let times = times.into_inner();
    Ok(vec![
        ("rate", lap.per_second()),
        ("nanos", lap.nanos_each()),
        ("p999", times.per_mille(999)),
    ])
}

/// Appends events of all streams in turn: in bulk, made durable, and the last ones one by one.
pub(crate) fn load(store: &dyn Store, scale: Scale) -> Answer<()> {
    let mut writer = store.writer()?;
    let event_at = |at| Event::new(at % scale.streams, at / scale.streams + 1);
    let single_from = scale.events() - TAIL_EVENTS.min(scale.events() / 2);
    let mut at = 0;
    let mut batches = 0;
    while at < single_from {
        let end = (at + LOADED).min(single_from);
        let events: Vec<_> = (at..end).map(event_at).collect();
        writer.append_all(&events)?;
        at = end;
        batches += 1;
        if batches % 8 == 0 {
            store.settle()?;
        }
    }
    store.settle()?;
    for at in single_from..scale.events() {
        writer.append(&event_at(at))?;
    }
    Ok(())
}

/// Opens what a killed process has left, and reads it in every way.
pub(crate) fn read(peer: &Peer, dir: &Path, scale: Scale) -> Answer<Figures> {
    let began = Instant::now();
    let store = (peer.open)(dir, Level::Process)?;
    let mut figures = vec![("open", began.elapsed().as_secs_f64())];
    let scan = || -> Answer<_> {
        let began = Instant::now();
        let mut seen = Seen::default();
        store.scan(&mut seen)?;
        Ok((seen, began.elapsed().as_secs_f64()))
    };
    let (first, mut took) = scan()?;
    figures.push(("found", first.events as f64));
    if peer.cannot(Ask::Scan).is_none() {
        let (second, warm) = scan()?;
        // What is consumed by reading it is there only once.
        if second.events == first.events {
            took = warm;
        }
        figures.push(("scan", first.events as f64 / took));
    }
    if peer.cannot(Ask::Replay).is_none() {
        figures.push(("replay", replays(&*store, scale)?));
    }
    drop(store);
    Ok(figures)
}

/// Streams read in a second, one after another, no two neighbours in a row.
fn replays(store: &dyn Store, scale: Scale) -> Answer<f64> {
    let mut next = 0;
    // The last events may have gone with the process.
    let least = scale.per_stream - TAIL_EVENTS.div_ceil(scale.streams);
    let mut one = || {
        next = step(next, scale.streams);
        let mut seen = Seen::default();
        store.replay(next, &mut seen)?;
        if seen.is_prefix() && seen.events >= least {
            Ok(())
        } else {
            Err(format!("stream {next} has {seen:?}").into())
        }
    };
    lap(scale.warm, (1, scale.streams), &mut one)?;
    Ok(lap(scale.measure, (16, 20 * scale.streams), &mut one)?.per_second())
}

/// The stream to read after this one; 7,919 is prime.
pub(crate) fn step(stream: u64, streams: u64) -> u64 {
    (stream + 7_919) % streams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_has_its_turn() {
        let streams = 10_000;
        let mut seen = vec![false; 10_000];
        let mut next = 0;
        for _ in 0..streams {
            next = step(next, streams);
            seen[usize::try_from(next).unwrap()] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }

    #[test]
    fn a_lap_ends_when_it_was_done_often_enough() {
        let mut done = 0;
        let lap = lap(Duration::from_hours(1), (10, 35), &mut || {
            done += 1;
            Ok(())
        });
        assert_eq!((lap.unwrap().done, done), (40, 40));
    }
}
