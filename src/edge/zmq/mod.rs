//! The KV events of a vLLM engine, over ZeroMQ.
//!
//! ```text
//!  engine PUB ----> live   \
//!                           >  Follow  -->  Told::Batch | Told::Cut
//!  engine ROUTER <-> asked /
//! ```
//!
//! What may be concluded from what is heard is [`Follow`](super::kv::follow)'s affair; here are
//! the sockets. **Each live socket has one connection, ever**: it never reconnects by itself. When
//! its connection is over it is read to its end and closed, and another is made. So a batch is
//! known to have come over the connection at hand, and nothing of an older one comes behind it.
//!
//! Whoever stops pulling stops the live socket: up to `waiting_max` batches wait in it, then the
//! engine drops, and that is a gap, which is asked about. Nothing here grows without bound.

mod socket;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::fault::{Fault, Why};
use super::kv::Told;
use super::kv::follow::{Act, Follow, FollowOptions, Listen, Moment};
use super::pos::{Mark, Pos};
use super::source::{Flow, Give, Resume, Source};
use crate::time::Clock;
use socket::{Answer, Closing, Heard, Live, Replay, State};

/// Before the second try to connect; doubled each time, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A socket is closed within milliseconds.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// How an engine is followed.
#[derive(Clone, Debug)]
pub struct ZmqOptions {
    /// Where the engine publishes: `tcp://host:5557`, `ipc://path`.
    pub endpoint: String,
    /// Where it answers what it has published (vLLM's `replay_endpoint`). Without it each new
    /// connection and each gap is a cut: what was known is cleared.
    pub replay: Option<String>,
    /// What its messages are called. All messages of the socket must have this topic, because
    /// they are numbered together.
    pub topic: String,
    /// Batches that wait, at most, while nobody pulls.
    pub waiting_max: u32,
    /// Bytes of a message at most. A longer one ends the connection.
    pub message_bytes_max: usize,
    /// Silence after which the engine is asked whether it has said more.
    pub idle: Duration,
    /// How long an answer or a connection may take.
    pub answer: Duration,
    /// How often is asked before the engine counts as unable to answer.
    pub tries: u32,
}

impl ZmqOptions {
    /// Of an engine that publishes at `endpoint`.
    pub fn new(endpoint: impl Into<String>) -> Self {
        let follow = FollowOptions::default();
        Self {
            endpoint: endpoint.into(),
            replay: None,
            topic: String::new(),
            waiting_max: 100_000,
            message_bytes_max: 64 << 20,
            idle: follow.idle,
            answer: follow.answer,
            tries: follow.tries,
        }
    }

    /// The same engine's data-parallel rank `rank`: vLLM adds it to the ports.
    ///
    /// # Errors
    /// An endpoint that is not `tcp://host:port`, or a port that would be too high.
    pub fn at_rank(mut self, rank: u16) -> Result<Self, Why> {
        self.endpoint = at_rank(&self.endpoint, rank)?;
        self.replay = self.replay.map(|replay| at_rank(&replay, rank)).transpose()?;
        Ok(self)
    }
}

fn at_rank(endpoint: &str, rank: u16) -> Result<String, Why> {
    let parts = endpoint.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':'));
    let found = parts.and_then(|(host, port)| {
        let port = port.parse::<u16>().ok()?.checked_add(rank)?;
        Some(format!("tcp://{host}:{port}"))
    });
    found.ok_or_else(|| format!("`{endpoint}` has no port that {rank} can be added to").into())
}

/// What a source has done so far.
#[derive(Debug, Default)]
pub struct ZmqCounts {
    connections: AtomicU64,
    questions: AtomicU64,
    malformed: AtomicU64,
}

impl ZmqCounts {
    /// Connections made.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Questions asked.
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }

    /// Messages that were none of an engine's. Where one took the place of a batch, that is a gap.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }
}

/// One more: a figure alone, which nothing is concluded from.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A source of one engine's batches. See the [module](self).
pub struct ZmqSource {
    options: ZmqOptions,
    clock: Clock,
    context: zmq::Context,
    follow: Follow,
    acts: VecDeque<Act>,
    live: Option<Live>,
    replay: Option<Replay>,
    closing: Vec<Closing>,
    /// Connections that came to nothing, one after the other.
    failures: u32,
    /// No new connection before this.
    pause_until: Duration,
    counts: Arc<ZmqCounts>,
    /// A pull finds room for what an act says, mostly.
    buffer: Vec<Act>,
}

impl std::fmt::Debug for ZmqSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { options, follow, .. } = self;
        f.debug_struct("ZmqSource")
            .field("endpoint", &options.endpoint)
            .field("follow", follow)
            .finish_non_exhaustive()
    }
}

impl ZmqSource {
    /// A source of that engine. Nothing is connected before it is pulled.
    pub fn new(options: ZmqOptions) -> Self {
        let follow = Follow::new(FollowOptions {
            asks: options.replay.is_some(),
            idle: options.idle,
            answer: options.answer,
            tries: options.tries,
            recent: options.waiting_max as usize,
        });
        Self {
            options,
            clock: Clock::System,
            context: zmq::Context::new(),
            follow,
            acts: VecDeque::new(),
            live: None,
            replay: None,
            closing: Vec::new(),
            failures: 0,
            pause_until: Duration::ZERO,
            counts: Arc::default(),
            buffer: Vec::new(),
        }
    }

    /// What it has done, to be looked at from other threads.
    pub fn counts(&self) -> Arc<ZmqCounts> {
        Arc::clone(&self.counts)
    }

    fn now(&self) -> Moment {
        Moment { since: self.clock.monotonic(), wall_ms: self.clock.wall_ms() }
    }

    /// Tells what there is to tell, without waiting: was there anything?
    fn advance(&mut self) -> Result<bool, Fault> {
        let now = self.now();
        let mut acts = std::mem::take(&mut self.buffer);
        let any = self.hear(now, &mut acts);
        for act in acts.drain(..) {
            match act {
                Act::Give { .. } | Act::Gap(_) => self.acts.push_back(act),
                Act::Connect => self.disconnect(now),
                Act::Ask { from } => self.ask(from)?,
            }
        }
        self.buffer = acts;
        any
    }

    fn hear(&mut self, now: Moment, acts: &mut Vec<Act>) -> Result<bool, Fault> {
        let state = self.live.as_mut().map(|live| (live.state(), live.look(now.since)));
        match state {
            Some((State::Connecting, State::Up)) => {
                count(&self.counts.connections);
                self.follow.connected(now, acts);
                return Ok(true);
            }
            Some((State::Connecting, State::Over)) => {
                self.disconnect(now);
                return Ok(true);
            }
            Some((State::Up, State::Over)) => {
                self.follow.disconnected(now);
                return Ok(true);
            }
            _ => {}
        }
        match self.follow.listen() {
            Listen::Connection => self.connect(now),
            Listen::Answers => self.hear_answer(now, acts),
            Listen::Live => self.hear_live(now, acts),
        }
    }

    fn hear_live(&mut self, now: Moment, acts: &mut Vec<Act>) -> Result<bool, Fault> {
        let Some(live) = &mut self.live else {
            self.follow.drained(acts);
            return Ok(true);
        };
        self.failures = 0;
        match live.hear().map_err(fatal)? {
            Heard::Batch { seq, payload } => self.follow.live(seq, payload, now, acts),
            Heard::Malformed => count(&self.counts.malformed),
            Heard::Nothing if live.state() == State::Over => self.follow.drained(acts),
            Heard::Nothing => return Ok(self.tick(now, acts)),
        }
        Ok(true)
    }

    fn hear_answer(&mut self, now: Moment, acts: &mut Vec<Act>) -> Result<bool, Fault> {
        let Some(replay) = &mut self.replay else { return Ok(self.tick(now, acts)) };
        match replay.hear().map_err(fatal)? {
            Answer::Batch { seq, payload } => self.follow.answer(seq, payload, now, acts),
            Answer::End => self.follow.answered(now, acts),
            Answer::Malformed => count(&self.counts.malformed),
            Answer::Nothing => return Ok(self.tick(now, acts)),
        }
        Ok(true)
    }

    fn tick(&mut self, now: Moment, acts: &mut Vec<Act>) -> bool {
        self.follow.tick(now, acts);
        !acts.is_empty()
    }

    fn connect(&mut self, now: Moment) -> Result<bool, Fault> {
        if self.live.is_some() || now.since < self.pause_until {
            return Ok(false);
        }
        let options = &self.options;
        let until = now.since.saturating_add(options.answer);
        self.live = Some(Live::connect(&self.context, options, until).map_err(fatal)?);
        Ok(true)
    }

    /// Closes what there is. The longer it goes on like that, the longer it waits.
    fn disconnect(&mut self, now: Moment) {
        self.close();
        let pause = PAUSE.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        // The first time there is no reason to wait.
        let pause = if self.failures == 0 { Duration::ZERO } else { pause };
        self.failures = self.failures.saturating_add(1);
        self.pause_until = now.since.saturating_add(pause);
    }

    fn close(&mut self) {
        self.replay = None;
        self.closing.extend(self.live.take().map(Live::close));
        self.closing.retain(|closing| !closing.is_closed(Duration::ZERO));
    }

    fn ask(&mut self, from: u64) -> Result<(), Fault> {
        let Some(endpoint) = &self.options.replay else { return Ok(()) };
        count(&self.counts.questions);
        // What was answered to the end leaves nothing behind that could be mixed up.
        let old = self.replay.take().filter(Replay::is_at_end);
        let mut replay = match old {
            Some(old) => old,
            None => Replay::connect(&self.context, endpoint, &self.options).map_err(fatal)?,
        };
        replay.ask(from).map_err(fatal)?;
        self.replay = Some(replay);
        Ok(())
    }

    /// Waits until there may be something to hear, or `until`.
    fn wait(&self, until: Duration) -> Result<(), Fault> {
        let now = self.clock.monotonic();
        let mut until = until.min(self.follow.due().unwrap_or(until));
        let mut items = Vec::with_capacity(3);
        match &self.live {
            Some(live) => {
                items.push(live.monitor_item());
                if live.state() == State::Connecting {
                    until = until.min(live.until());
                }
                if self.follow.listen() == Listen::Live {
                    items.push(live.item());
                }
            }
            None => until = until.min(self.pause_until),
        }
        if let (Some(replay), Listen::Answers) = (&self.replay, self.follow.listen()) {
            items.push(replay.item());
        }
        let wait = until.saturating_sub(now);
        // Rounded up, else it would spin through the last millisecond.
        let ms = i64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX);
        match zmq::poll(&mut items, ms) {
            Ok(_) | Err(zmq::Error::EINTR) => Ok(()),
            Err(error) => Err(fatal(error)),
        }
    }
}

/// What the library says of its own sockets: that they are misused, or that there are no more.
fn fatal(error: zmq::Error) -> Fault {
    Fault::fatal(Why::error(error))
}

impl Source for ZmqSource {
    type Item = Told;

    /// Never waits for the engine. What has been lost meanwhile is found when it is connected to,
    /// and told by [`Flow::Gap`] and a [`Told::Cut`] then.
    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        self.close();
        self.failures = 0;
        self.pause_until = Duration::ZERO;
        self.acts.clear();
        self.follow.seek(at);
        Ok(Resume::Exact)
    }

    fn pull(
        &mut self,
        max: usize,
        limit: Duration,
        out: &mut dyn Give<Told>,
    ) -> Result<Flow, Fault> {
        let until = self.clock.monotonic().saturating_add(limit);
        let mut given = 0;
        while given < max {
            match self.acts.pop_front() {
                Some(Act::Give { pos, hash, told }) => {
                    given += 1;
                    match hash {
                        Some(hash) => out.give_hashed(pos, hash, told),
                        None => out.give(pos, told),
                    }
                }
                Some(Act::Gap(gap)) => return Ok(Flow::Gap(gap)),
                Some(Act::Ask { .. } | Act::Connect) | None => {
                    if self.advance()? {
                        continue;
                    }
                    if given > 0 || self.clock.monotonic() >= until {
                        return Ok(Flow::Idle);
                    }
                    self.wait(until)?;
                }
            }
        }
        Ok(Flow::More)
    }

    /// The engine forgets when it likes: it is not told.
    fn done(&mut self, _at: Pos) -> Result<(), Fault> {
        Ok(())
    }
}

impl Drop for ZmqSource {
    fn drop(&mut self) {
        self.close();
        for closing in self.closing.drain(..) {
            closing.is_closed(CLOSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
