//! Records into NATS JetStream: in order, acknowledged, each once.
//!
//! Each pipeline has a subject of its own, and best a stream. A record's message carries who
//! published it, its position and its place among the records of its input, so **the subject's
//! newest message is the sink's memory**: at a start and after each loss of the connection it is
//! read, and what follows it is published (see `chain`). Its id (`Nats-Msg-Id`) is made of the
//! same, for the server's own window of duplicates; nothing rests on that.
//!
//! **What settled means.** JetStream acknowledges when the message is written to its file, and
//! syncs that file every two minutes unless it is told otherwise. So the level is
//! [`Level::Process`] for a stream in files without replicas, [`Level::Acked`] for one in memory or
//! with replicas, which write later. Only who says `synced` (that the server runs with
//! `sync_interval: always`) has [`Level::Power`]. A server that comes back with less than it
//! had acknowledged is found out: the pipeline ends with a `Fatal`, and at its next start goes on
//! from what the server still has.
//!
//! The client is `async-nats`, which needs tokio: it has a runtime of one thread, `annals-nats`, of
//! the sink's own. A new connection is a new runtime, so nothing of the old one lingers.

mod chain;
mod record;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use tokio::sync::mpsc;

use super::fault::Fault;
use super::pos::{Mark, Pos};
use super::recall::{About, Put, Recall, Record};
use super::sink::{Last, Level, Sink};
use chain::Flight;
use worker::{Shared, Told, Worker};

/// Where records go, and how.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Server or servers, `nats://host:4222`, with commas between.
    pub servers: String,
    /// The stream.
    pub stream: String,
    /// The subject, which must be one of the stream's, and this pipeline's alone.
    pub subject: String,
    /// Who publishes. A subject whose newest message is somebody else's is not written to.
    pub id: String,
    /// Records that are under way at once.
    pub window: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Makes the stream where there is none: of this subject alone, in files.
    pub create: bool,
    /// How long messages are kept in a stream that is made here; zero: for ever. The newest is the
    /// sink's memory, so this should be longer than a pipeline may stand still.
    pub age_max: Duration,
    /// The server syncs each message before it acknowledges it (`sync_interval: always`).
    pub synced: bool,
}

impl NatsOptions {
    /// To a server, into a stream and its subject `<stream>.<id>`.
    pub fn new(
        servers: impl Into<String>,
        stream: impl Into<String>,
        id: impl Into<String>,
    ) -> Self {
        let (stream, id) = (stream.into(), id.into());
        Self {
            servers: servers.into(),
            subject: format!("{stream}.{id}"),
            stream,
            id,
            window: 256,
            timeout: Duration::from_secs(5),
            create: false,
            age_max: Duration::ZERO,
            synced: false,
        }
    }
}

/// A sink into JetStream. See the [module](self).
pub struct NatsSink {
    options: NatsOptions,
    shared: Arc<Shared>,
    to_worker: Option<mpsc::UnboundedSender<Flight<Record>>>,
    from_worker: Receiver<Told>,
    worker: Option<JoinHandle<()>>,
    recall: Recall,
    /// It was read what the server has.
    synced: bool,
    failure: Option<Fault>,
    /// What needed no publishing.
    known: Option<Pos>,
    settled: Option<Pos>,
    bytes: u64,
}

impl fmt::Debug for NatsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, settled, .. } = self;
        let mut debug = f.debug_struct("NatsSink");
        debug.field("subject", &options.subject).field("settled", settled);
        debug.finish_non_exhaustive()
    }
}

impl NatsSink {
    /// A sink with that subject. It begins to connect, and waits for nothing.
    ///
    /// # Errors
    /// `Fatal`: its thread cannot be started.
    pub fn new(options: NatsOptions) -> Result<Self, Fault> {
        let (to_worker, inbox) = mpsc::unbounded_channel();
        let (outbox, from_worker) = unbounded();
        let shared = Arc::new(Shared {
            // What the stream is has to be seen first.
            level: AtomicU8::new(worker::level_to_bits(Level::Acked)),
            waiting: AtomicUsize::new(0),
            payload_max: AtomicUsize::new(usize::MAX),
        });
        let worker = Worker::new(options.clone(), Arc::clone(&shared), inbox, outbox);
        let thread = std::thread::Builder::new().name("annals-nats".to_owned());
        let worker = thread.spawn(move || worker.run()).map_err(Fault::fatal)?;
        Ok(Self {
            options,
            shared,
            to_worker: Some(to_worker),
            from_worker,
            worker: Some(worker),
            recall: Recall::default(),
            synced: false,
            failure: None,
            known: None,
            settled: None,
            bytes: 0,
        })
    }

    /// Takes in what the worker says. A failure counts until it is over.
    fn take(&mut self, told: Told) {
        match told {
            Told::Synced(stored) => {
                self.failure = None;
                if !std::mem::replace(&mut self.synced, true) {
                    self.recall.begin(stored);
                }
            }
            Told::Settled(pos) => self.settled = self.settled.max(Some(pos)),
            Told::Failed(fault) => self.failure = Some(fault),
        }
    }

    /// Waits for a word of the worker until `limit`, and takes all that there are.
    fn hear(&mut self, limit: Duration) -> Result<(), Fault> {
        let mut limit = limit;
        loop {
            match self.from_worker.recv_timeout(limit) {
                Ok(told) => self.take(told),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    let gone = Fault::fatal("the thread of this sink is gone");
                    return Err(self.failure.clone().unwrap_or(gone));
                }
            }
            limit = Duration::ZERO;
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn send(&self, flight: Flight<Record>) -> Result<(), Fault> {
        let gone = || Fault::fatal("the thread of this sink is gone");
        let to_worker = self.to_worker.as_ref().ok_or_else(gone)?;
        // Relaxed: a figure that says how much more may come.
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        to_worker.send(flight).map_err(|_unsent| gone())
    }
}

impl Sink for NatsSink {
    type Item = Vec<u8>;

    /// # Errors
    /// `Poison` where the record is longer than the server takes.
    fn put(&mut self, pos: Pos, item: Vec<u8>, last: bool) -> Result<(), Fault> {
        let length = item.len();
        let too_long = length > self.shared.payload_max.load(Ordering::Relaxed);
        self.bytes += length as u64;
        let Put { send, known } = self.recall.put(pos, item.into(), last);
        self.known = self.known.max(known);
        for record in send {
            let About { key, last, .. } = record.about;
            let record = (!too_long).then_some(record);
            self.send(Flight { key, last, record })?;
        }
        if too_long {
            return Err(Fault::poison(pos, format!("{length} bytes are too many")));
        }
        Ok(())
    }

    /// # Errors
    /// `Retry` where the server is not there or refuses; `Fatal` where it has less than it had
    /// acknowledged, or what somebody else has published.
    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        let before = self.settled;
        self.hear(Duration::ZERO)?;
        // Where nothing is under way there is nothing to wait for.
        let waiting = self.shared.waiting.load(Ordering::Relaxed) > 0;
        if waiting && self.settled == before && !limit.is_zero() {
            self.hear(limit)?;
        }
        Ok(self.settled.max(self.known))
    }

    fn room(&self) -> usize {
        // Twice the window: so that the next are there when the first are acknowledged.
        let max = self.options.window.saturating_mul(2);
        max.saturating_sub(self.shared.waiting.load(Ordering::Relaxed))
    }

    fn last(&mut self) -> Result<Last, Fault> {
        let timeout = self.options.timeout.saturating_mul(2);
        if !self.synced {
            self.hear(timeout)?;
        }
        if !self.synced {
            return Err(Fault::retry("the server does not answer"));
        }
        Ok(self.recall.last())
    }

    fn level(&self) -> Level {
        worker::level_from_bits(self.shared.level.load(Ordering::Relaxed))
    }

    fn hashed(&mut self, mark: Mark) {
        self.recall.hashed(mark);
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for NatsSink {
    fn drop(&mut self) {
        // The thread ends when nobody can send to it any more.
        self.to_worker = None;
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            // It has said so where it panicked, and there is nobody to hand that to.
        }
    }
}
