//! States that come back from the disk, warm and cold, and opening with many that do not.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use super::work::{Job, Work, same};
use crate::store::Answer;
use crate::support::histogram::Histogram;
use crate::work::{Figures, Scale, lap, step};

/// Of each actor that is recovered.
pub(crate) const EVENTS: u64 = 100;
/// Actors that are recovered from a cold cache, in one life.
pub(crate) const COLD: u64 = 64;

/// A way to have actors that are not in memory. All numbers are of their events, counted by going
/// through them: the state that they make.
pub(crate) trait Sleepers: Sized {
    fn open(dir: &Path) -> Answer<Self>;

    /// So many actors of 100 events, in turn, so that those of one lie far apart; and as many
    /// that have a snapshot of all of them.
    fn fill(dir: &Path, actors: u64) -> Answer<Self>;

    /// The state of one, and how long it took to have it.
    fn recover(&self, actor: u64) -> Answer<(u64, Duration)>;

    fn recover_snapshot(&self, actor: u64) -> Answer<(u64, Duration)>;

    /// So many actors of 100 events, in the form that old data takes; closed.
    fn fill_and_compact(dir: &Path, actors: u64) -> Answer<()>;

    /// So many actors of one event; closed.
    fn fill_sleepers(dir: &Path, actors: u64) -> Answer<()>;
}

pub(crate) fn run<S: Sleepers>(job: &Job<'_>) -> Answer<Figures> {
    let (dir, scale) = (job.dir, job.scale);
    match (job.work, job.prepare) {
        (Work::Recover, _) => recover::<S>(dir, scale),
        (Work::Cold, true) => S::fill_and_compact(dir, scale.streams).map(|()| Vec::new()),
        (Work::Cold, false) => cold::<S>(dir, scale),
        (Work::Open, true) => S::fill_sleepers(dir, scale.sleepers()).map(|()| Vec::new()),
        (Work::Open, false) => open::<S>(dir, scale),
        _ => Err("nobody sleeps in this".into()),
    }
}

fn recover<S: Sleepers>(dir: &Path, scale: Scale) -> Answer<Figures> {
    let sleepers = S::fill(dir, scale.streams)?;
    let from = |one: &dyn Fn(u64) -> Answer<(u64, Duration)>| -> Answer<f64> {
        let mut next = 0;
        let mut times_of = |limit, most| -> Answer<Histogram> {
            let mut times = Histogram::new();
            lap(limit, (1, most), &mut || {
                next = step(next, scale.streams);
                let (events, took) = one(next)?;
                times.record(took);
                same("events of an actor", events, EVENTS)
            })?;
            Ok(times)
        };
        // Everything once: then it is warm, and whatever is made at the first reading is made.
        times_of(Duration::MAX, scale.streams)?;
        Ok(times_of(scale.measure, u64::MAX)?.per_mille(500))
    };
    Ok(vec![
        ("events", from(&|actor| sleepers.recover(actor))?),
        ("snapshot", from(&|actor| sleepers.recover_snapshot(actor))?),
    ])
}

fn cold<S: Sleepers>(dir: &Path, scale: Scale) -> Answer<Figures> {
    forget(dir)?;
    let before = bytes_read()?;
    let began = Instant::now();
    let sleepers = S::open(dir)?;
    let first = sleepers.recover(0)?.0;
    let opened = began.elapsed();
    same("events of an actor", first, EVENTS)?;
    let mut times = Histogram::new();
    let (apart, most) = ((scale.streams / COLD).max(1), COLD.min(scale.streams));
    for number in 1..most {
        let (events, took) = sleepers.recover(number * apart)?;
        same("events of an actor", events, EVENTS)?;
        times.record(took);
    }
    read_from_disk(dir, before)?;
    Ok(vec![("open", opened.as_secs_f64()), ("p50", times.per_mille(500))])
}

/// An error if the cache had it all. Where files are memory they are never cold, and where the
/// kernel does not count nobody can know.
pub(crate) fn read_from_disk(dir: &Path, before: Option<u64>) -> Answer<()> {
    let is_memory = rustix::fs::statfs(dir)?.f_type == libc::TMPFS_MAGIC;
    match (before, bytes_read()?) {
        (Some(before), Some(after)) if after - before < 4_096 && !is_memory => {
            Err("the cache was not cold".into())
        }
        _ => Ok(()),
    }
}

fn open<S: Sleepers>(dir: &Path, scale: Scale) -> Answer<Figures> {
    let began = Instant::now();
    let sleepers = S::open(dir)?;
    let took = began.elapsed();
    // One of them is there; that all are was seen when they were made.
    same("events of an actor", sleepers.recover(scale.sleepers() / 2)?.0, 1)?;
    Ok(vec![("open", took.as_secs_f64())])
}

/// Drops what the page cache has of the files in a folder. Anybody may do that to his own files,
/// as long as they are on the disk and nobody has them mapped.
pub(crate) fn forget(dir: &Path) -> Answer<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            let file = fs::File::open(path)?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Bytes that this process has had to fetch from a disk so far, if the kernel counts them.
pub(crate) fn bytes_read() -> Answer<Option<u64>> {
    let Ok(text) = fs::read_to_string("/proc/self/io") else { return Ok(None) };
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(line.map(|number| number.trim().parse()).transpose()?)
}
