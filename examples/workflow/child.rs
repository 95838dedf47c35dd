//! One life: opens the store, carries on where the last life was cut off, and may be killed at
//! any point of it.
//!
//! Each feeder thread owns a share of the cases and feeds their rows in order of time, hundreds
//! of commands in flight, copy after copy. Its answers come back in that order, so one number
//! says what was acknowledged to it: it tells the parent over a pipe, which a kill does not take
//! back. The next life is told this number, and **a case that has consumed less than was
//! acknowledged ends the run**: it would have lost something.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use annals::actor::MAILBOX_COMMANDS;
use annals::log::Start;
use annals::{Durability, Store, Ticket};
use crossbeam_channel::{RecvTimeoutError, bounded};
use rustix::process::{Signal, getpid, kill_process};

use crate::case::{Answer, Case, Consumed, Observe};
use crate::csv::{self, Pathway};

/// Threads that feed.
pub(crate) const FEEDERS: usize = 4;
/// Commands that each of them has in flight: less than a mailbox holds, so none is refused.
const IN_FLIGHT: usize = 256;
const _: () = assert!(IN_FLIGHT < MAILBOX_COMMANDS as usize);
/// A feeder speaks after so many answers.
const ANSWERS_PER_LINE: u64 = 64;
/// The store's counters are told this often.
const TICK: Duration = Duration::from_millis(2);

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// What this life is to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    pub(crate) data: PathBuf,
    /// How often every case is fed, under new names.
    pub(crate) scale: u64,
    pub(crate) durability: Durability,
    /// Die right after this command of this life was posted.
    pub(crate) kill_at: Option<u64>,
    /// Somebody is about to kill it: do not end before that.
    pub(crate) linger: bool,
    /// Rows that earlier lives acknowledged to each feeder.
    pub(crate) acked: [u64; FEEDERS],
}

/// Opens the store as every life does.
pub(crate) fn open(dir: &Path, durability: Durability) -> Result<Store, annals::Error> {
    Store::options().durability(durability).open(dir)
}

/// Closes it, which leaves nothing undone.
pub(crate) fn close(store: Store) -> Result<(), Failure> {
    let report = store.close(Duration::from_mins(1))?;
    if report.dead_letters > 0 || report.threads_left > 0 {
        return Err(format!("not closed cleanly: {report:?}").into());
    }
    Ok(())
}

/// A case's name in the store.
pub(crate) fn name_of(pathway: &Pathway, copy: u64) -> String {
    if copy == 0 { pathway.name.clone() } else { format!("{}#{copy}", pathway.name) }
}

/// The store's counters, since it was opened.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Since feeding began.
    pub(crate) micros: u64,
    pub(crate) events: u64,
    pub(crate) commits: u64,
    pub(crate) bytes: u64,
    pub(crate) snapshots: u64,
}

/// What a life tells its parent, one line each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    /// Everything else is ready: the store is opened now.
    Opening,
    /// The store is open.
    Opened { micros: u64, rescued: u64, how: String },
    /// Rows of its share that a feeder found consumed.
    Found { feeder: usize, rows: u64 },
    /// Rows of its share that were acknowledged to a feeder, in all lives.
    Acked { feeder: usize, rows: u64 },
    /// See [`Told`].
    Stats(Told),
    /// Everything is done, and the store is closed.
    Done,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => f.write_str("opening"),
            Self::Opened { micros, rescued, how } => write!(f, "opened {micros} {rescued} {how}"),
            Self::Found { feeder, rows } => write!(f, "found {feeder} {rows}"),
            Self::Acked { feeder, rows } => write!(f, "acked {feeder} {rows}"),
            Self::Stats(Told { micros, events, commits, bytes, snapshots }) => {
                write!(f, "stats {micros} {events} {commits} {bytes} {snapshots}")
            }
            Self::Done => f.write_str("done"),
        }
    }
}

impl FromStr for Line {
    type Err = String;

    /// A kill may cut a line short anywhere: such a line is an error and says nothing. (A number
    /// that lost its last digits is only taken for one if a line's end follows it.)
    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().map_err(|error| format!("{line}: {error}"));
        let feeder = |word: &str| match word.parse() {
            Ok(feeder) if feeder < FEEDERS => Ok(feeder),
            _ => Err(format!("{line}: no such feeder")),
        };
        Ok(match words.as_slice() {
            ["opening"] => Self::Opening,
            ["opened", micros, rescued, how] => Self::Opened {
                micros: number(micros)?,
                rescued: number(rescued)?,
                how: (*how).to_owned(),
            },
            ["found", who, rows] => Self::Found { feeder: feeder(who)?, rows: number(rows)? },
            ["acked", who, rows] => Self::Acked { feeder: feeder(who)?, rows: number(rows)? },
            ["stats", micros, events, commits, bytes, snapshots] => Self::Stats(Told {
                micros: number(micros)?,
                events: number(events)?,
                commits: number(commits)?,
                bytes: number(bytes)?,
                snapshots: number(snapshots)?,
            }),
            ["done"] => Self::Done,
            _ => return Err(format!("{line}: no line of this protocol")),
        })
    }
}

/// One write per line, so that lines of several threads never mix.
fn say(line: &Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// Lives until everything is fed. Does not return if it is to be killed.
pub(crate) fn live(plan: &Plan) -> Result<(), Failure> {
    let pathways = csv::read(&plan.data)?;
    say(&Line::Opening)?;
    let before = Instant::now();
    let store = open(&plan.dir, plan.durability)?;
    say(&opened(&store, before.elapsed()))?;

    let posted = AtomicU64::new(0);
    let (start, since) = (Barrier::new(FEEDERS), OnceLock::new());
    let (alive, ended) = bounded::<()>(0);
    thread::scope(|scope| {
        let feeders: Vec<_> = (0..FEEDERS)
            .map(|number| {
                let feeder = Feeder {
                    number,
                    store: &store,
                    plan,
                    posted: &posted,
                    start: &start,
                    since: &since,
                };
                let (pathways, alive) = (&pathways, alive.clone());
                scope.spawn(move || {
                    let result = feeder.feed(pathways);
                    drop(alive);
                    result
                })
            })
            .collect();
        drop(alive);
        while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            say(&stats(&store, since.get()))?;
        }
        for feeder in feeders {
            feeder.join().map_err(|_panic| "a feeder panicked")??;
        }
        Ok::<_, Failure>(())
    })?;
    say(&stats(&store, since.get()))?;
    if plan.kill_at.is_some() {
        // Less was left to feed than the parent could know.
        die();
    }
    if plan.linger {
        loop {
            thread::park();
        }
    }
    close(store)?;
    say(&Line::Done)?;
    Ok(())
}

fn stats(store: &Store, since: Option<&Instant>) -> Line {
    let stats = store.stats();
    Line::Stats(Told {
        micros: since.map_or(0, |since| micros(since.elapsed())),
        events: stats.log.events,
        commits: stats.log.commits,
        bytes: stats.log.bytes,
        snapshots: stats.snapshots.saved,
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// How the store came up, in one word.
fn opened(store: &Store, took: Duration) -> Line {
    let recovery = &store.report().events;
    let how = match recovery.start {
        Start::Fresh => "fresh",
        Start::Continued => "clean",
        Start::Recovered => "recovered",
        Start::SetAside => "set-aside",
    };
    Line::Opened { micros: micros(took), rescued: recovery.rescued, how: how.to_owned() }
}

/// Feeds its share: every fourth case of every copy.
struct Feeder<'a> {
    number: usize,
    store: &'a Store,
    plan: &'a Plan,
    posted: &'a AtomicU64,
    start: &'a Barrier,
    since: &'a OnceLock<Instant>,
}

/// One copy of a feeder's share.
struct Copy<'a> {
    share: &'a [&'a Pathway],
    order: &'a [Turn],
    number: u64,
    /// Rows of the copies before it.
    base: u64,
}

/// A row in the order of feeding.
#[derive(Copy, Clone, Debug)]
struct Turn {
    /// Index of the case in the share.
    case: usize,
    row: u32,
}

impl Feeder<'_> {
    fn feed(&self, pathways: &[Pathway]) -> Result<(), Failure> {
        let share: Vec<&Pathway> = pathways.iter().skip(self.number).step_by(FEEDERS).collect();
        let order = by_time(&share)?;
        let per_copy = u64::try_from(order.len())?;
        let acked = self.plan.acked[self.number];
        // What earlier copies hold was acknowledged to the last row: the proof at the end looks
        // at it, this life need not.
        let first = acked.checked_div(per_copy).unwrap_or(self.plan.scale);
        if first == self.plan.scale {
            let nothing = Copy { share: &share, order: &order, number: first, base: acked };
            self.report(&nothing, &[])?;
        }
        for copy in first..self.plan.scale {
            let promised = acked.saturating_sub(copy * per_copy);
            let copy = Copy { share: &share, order: &order, number: copy, base: copy * per_copy };
            let consumed = self.survey(&copy, promised);
            if copy.number == first {
                self.report(&copy, consumed.as_deref().unwrap_or_default())?;
            }
            self.feed_copy(&copy, &consumed?)?;
        }
        let rows = per_copy * self.plan.scale;
        say(&Line::Acked { feeder: self.number, rows })?;
        Ok(())
    }

    /// How many rows each case of a copy has consumed, which is no less than what earlier lives
    /// acknowledged: the first `promised` of the order.
    fn survey(&self, copy: &Copy<'_>, promised: u64) -> Result<Vec<u32>, Failure> {
        let mut consumed = Vec::with_capacity(copy.share.len());
        for pathway in copy.share {
            let case = self.store.actor::<Case>(&name_of(pathway, copy.number))?;
            consumed.push(case.ask(Consumed)?);
        }
        for turn in copy.order.iter().take(usize::try_from(promised)?) {
            if turn.row >= consumed[turn.case] {
                let name = name_of(copy.share[turn.case], copy.number);
                return Err(format!("{name}: row {} was acknowledged and is lost", turn.row).into());
            }
        }
        Ok(consumed)
    }

    /// Says what it found, then waits for the others: all have said so before anybody feeds.
    fn report(&self, copy: &Copy<'_>, consumed: &[u32]) -> io::Result<()> {
        let rows: u64 = consumed.iter().copied().map(u64::from).sum();
        let said = say(&Line::Found { feeder: self.number, rows: copy.base + rows });
        self.start.wait();
        self.since.get_or_init(Instant::now);
        said
    }

    fn feed_copy(&self, copy: &Copy<'_>, consumed: &[u32]) -> Result<(), Failure> {
        let &Copy { share, order, base, .. } = copy;
        let cases = share
            .iter()
            .map(|pathway| self.store.actor::<Case>(&name_of(pathway, copy.number)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut flight: VecDeque<(u64, Ticket<Answer>)> = VecDeque::with_capacity(IN_FLIGHT);
        for (position, turn) in (base + 1..).zip(order) {
            if turn.row < consumed[turn.case] {
                continue;
            }
            if flight.len() == IN_FLIGHT {
                self.land(&mut flight)?;
            }
            let row = share[turn.case].rows[turn.row as usize];
            let command =
                Observe { row: turn.row, at: row.at, activity: row.activity, value: row.value };
            let ticket = cases[turn.case].post(command).map_err(|refused| refused.why)?;
            flight.push_back((position, ticket));
            self.count();
        }
        while !flight.is_empty() {
            self.land(&mut flight)?;
        }
        Ok(())
    }

    /// Waits for the oldest answer.
    fn land(&self, flight: &mut VecDeque<(u64, Ticket<Answer>)>) -> Result<(), Failure> {
        let Some((position, ticket)) = flight.pop_front() else { return Ok(()) };
        match ticket.wait()? {
            Answer::Accepted | Answer::Refused(_) => {}
            answer @ (Answer::Known | Answer::OutOfOrder { .. }) => {
                return Err(format!("position {position}: the case says {answer:?}").into());
            }
        }
        // Everything before it in the order is consumed too: answered earlier, or skipped.
        if position.is_multiple_of(ANSWERS_PER_LINE) {
            say(&Line::Acked { feeder: self.number, rows: position })?;
        }
        Ok(())
    }

    /// Counts a posted command, and dies if it was the one.
    fn count(&self) {
        // Relaxed: a counter, nothing else is read by it.
        let posted = self.posted.fetch_add(1, Ordering::Relaxed) + 1;
        if Some(posted) == self.plan.kill_at {
            die();
        }
    }
}

fn die() {
    kill_process(getpid(), Signal::KILL).unwrap_or_else(|error| panic!("kill: {error}"));
}

/// All rows of the share, as they happened.
fn by_time(share: &[&Pathway]) -> Result<Vec<Turn>, Failure> {
    let mut order = Vec::new();
    for (case, pathway) in share.iter().enumerate() {
        for (row, fact) in pathway.rows.iter().enumerate() {
            order.push((fact.at, fact.line, Turn { case, row: u32::try_from(row)? }));
        }
    }
    order.sort_by_key(|(at, line, _)| (*at, *line));
    Ok(order.into_iter().map(|(_, _, turn)| turn).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_as_it_was_said_and_a_cut_one_does_not_come_back() {
        for line in [
            Line::Opening,
            Line::Opened { micros: 1200, rescued: 31, how: "recovered".to_owned() },
            Line::Found { feeder: 1, rows: 17 },
            Line::Acked { feeder: 3, rows: 64 },
            Line::Stats(Told { micros: 1, events: 2, commits: 3, bytes: 4, snapshots: 5 }),
            Line::Done,
        ] {
            assert_eq!(line.to_string().parse(), Ok(line.clone()));
        }
        for cut in ["", "opened", "acked 1", "acked 9 3", "stats 1 2 3 4", "don"] {
            assert!(cut.parse::<Line>().is_err(), "{cut}");
        }
    }
}
