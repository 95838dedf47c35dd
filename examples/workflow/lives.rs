//! The parent: gives birth to one life after another, kills them at random moments, and listens.
//!
//! Most lives die by their own hand right after a random command, while other threads are in the
//! middle of theirs; some are killed from outside a random time after they began to open the
//! store, which may hit the recovery. The last one is left to finish.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use indicatif::ProgressBar;

use crate::child::{FEEDERS, Failure, Line, Plan, Told};

/// How long opening takes, until one life has shown it.
const OPENING_MICROS: u64 = 2_000;

/// Random numbers that come back with their seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number in `1..=most`.
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % most.max(1) + 1
    }
}

/// When a life is to end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By its own hand, after a command.
    Command(u64),
    /// From outside, a time after it began to open the store.
    After(Duration),
    /// When its work is done.
    Done,
}

/// What became of one life.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) end: End,
    /// It was killed, rather than done.
    pub(crate) killed: bool,
    /// How the store came up, and how long that took. `None` if the kill came first.
    pub(crate) opened: Option<(String, Duration)>,
    /// Frames that recovery took from the ring.
    pub(crate) rescued: u64,
    /// Rows that it found consumed. `None` if the kill came first.
    pub(crate) found: Option<u64>,
    /// The store's counters, as last told.
    pub(crate) told: Told,
}

impl Life {
    fn expecting(end: End) -> Self {
        Self { end, killed: false, opened: None, rescued: 0, found: None, told: Told::default() }
    }
}

/// Runs lives until one finishes; `kills` of them are to be killed. `rows` is the work in all.
pub(crate) fn run(
    mut plan: Plan,
    kills: u32,
    random: &mut Random,
    bar: &ProgressBar,
    rows: u64,
) -> Result<Vec<Life>, Failure> {
    let mut lives = Vec::new();
    let mut opening = OPENING_MICROS;
    for left in (0..=kills).rev() {
        let end = match left {
            0 => End::Done,
            // Mostly while it opens, a little also after.
            _ if random.up_to(4) == 1 => {
                End::After(Duration::from_micros(random.up_to(opening * 3 / 2)))
            }
            // On average the kills divide the work into equal parts; a quarter less, because more
            // may have been done than was told.
            _ => {
                let done: u64 = plan.acked.iter().sum();
                End::Command(random.up_to((rows - done) * 3 / 2 / u64::from(left + 1)))
            }
        };
        plan.kill_at = match end {
            End::Command(number) => Some(number),
            End::After(_) | End::Done => None,
        };
        plan.linger = matches!(end, End::After(_));
        bar.set_message(format!("life {}", lives.len() + 1));
        let life = one(&mut plan, end, bar)?;
        let finished = !life.killed;
        if let Some((_, time)) = &life.opened {
            opening = u64::try_from(time.as_micros())?;
        }
        lives.push(life);
        if finished {
            break;
        }
    }
    Ok(lives)
}

/// One life; `plan.acked` is raised by what it acknowledges.
fn one(plan: &mut Plan, end: End, bar: &ProgressBar) -> Result<Life, Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(crate::child_arguments(plan))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = listen(&mut child)?;
    let mut deadline = None;
    let mut life = Life::expecting(end);
    let mut found = [None; FEEDERS];
    let mut finished = false;
    loop {
        let heard = match deadline {
            Some(deadline) => lines.recv_deadline(deadline),
            None => lines.recv().map_err(|_ended| RecvTimeoutError::Disconnected),
        };
        match heard {
            Ok(Line::Opening) => {
                if let End::After(time) = end {
                    deadline = Some(Instant::now() + time);
                }
            }
            Ok(Line::Opened { micros, rescued, how }) => {
                life.opened = Some((how, Duration::from_micros(micros)));
                life.rescued = rescued;
            }
            Ok(Line::Found { feeder, rows }) => {
                found[feeder] = Some(rows);
                life.found = found.iter().copied().sum();
            }
            Ok(Line::Acked { feeder, rows }) => {
                plan.acked[feeder] = plan.acked[feeder].max(rows);
                bar.set_position(plan.acked.iter().sum());
            }
            Ok(Line::Stats(told)) => life.told = told,
            Ok(Line::Done) => finished = true,
            Err(RecvTimeoutError::Timeout) => {
                // What it has said is still in the pipe, so the loop goes on to the pipe's end.
                child.kill()?;
                deadline = None;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    life.killed = was_killed(child.wait()?, finished)?;
    Ok(life)
}

/// The lines that a life says, until it ends. A line without its end does not count.
fn listen(child: &mut Child) -> Result<Receiver<Line>, Failure> {
    let out = child.stdout.take().ok_or("the child has no output")?;
    let (sender, lines) = unbounded();
    thread::Builder::new().name("listen".to_owned()).spawn(move || {
        let mut out = BufReader::new(out);
        let mut text = String::new();
        while out.read_line(&mut text).is_ok_and(|bytes| bytes > 0) {
            let Some(line) = text.strip_suffix('\n') else { break };
            let Ok(line) = line.parse() else { break };
            if sender.send(line).is_err() {
                break;
            }
            text.clear();
        }
    })?;
    Ok(lines)
}

/// A life ends by `SIGKILL` or with its work done; anything else is an error.
fn was_killed(status: ExitStatus, finished: bool) -> Result<bool, Failure> {
    use std::os::unix::process::ExitStatusExt as _;
    match status.signal() {
        Some(9) => Ok(true),
        None if status.success() && finished => Ok(false),
        _ => Err(format!("a life ended with {status}").into()),
    }
}
