//! The thread that speaks to the server.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectOptions, Event};
use crossbeam_channel::Sender;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::timeout;

use super::NatsOptions;
use super::chain::{Chain, Flight, Lost, Newest};
use super::record;
use crate::edge::fault::{Fault, Why};
use crate::edge::pos::Pos;
use crate::edge::recall::{About, Record};
use crate::edge::sink::Level;

/// Before the second try to connect; doubled each time, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What both threads see.
pub(super) struct Shared {
    /// Of the sink. See [`level_to_bits`].
    pub(super) level: AtomicU8,
    /// Records that are not stored yet.
    pub(super) waiting: AtomicUsize,
    /// Bytes of a record that the server takes.
    pub(super) payload_max: AtomicUsize,
}

/// What the worker says.
pub(super) enum Told {
    /// It has read what the server has.
    Synced(Option<About>),
    Settled(Pos),
    Failed(Fault),
}

pub(super) const fn level_to_bits(level: Level) -> u8 {
    match level {
        Level::Sent => 0,
        Level::Acked => 1,
        Level::Process => 2,
        Level::Power => 3,
    }
}

pub(super) const fn level_from_bits(bits: u8) -> Level {
    match bits {
        0 => Level::Sent,
        1 => Level::Acked,
        2 => Level::Process,
        _ => Level::Power,
    }
}

type Answer = Result<PublishAck, PublishError>;
type Waits = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Publishes what it is sent, over one connection after the other.
pub(super) struct Worker {
    options: NatsOptions,
    shared: Arc<Shared>,
    inbox: UnboundedReceiver<Flight<Record>>,
    outbox: Sender<Told>,
    chain: Chain<Record>,
    /// What the answers are still to come of, oldest first.
    answers: VecDeque<Waits>,
    settled: Option<Pos>,
    /// Failures in a row.
    failures: u32,
}

/// Why a connection has ended.
enum End {
    /// Nobody will send anything more.
    Closed,
    Failed(Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

/// What happens next on a connection.
enum Next {
    Flight(Flight<Record>),
    Answer(Answer),
    Closed,
    Down,
}

fn retry(doing: &str, error: impl std::fmt::Display) -> Fault {
    Fault::retry(format!("{doing}: {error}"))
}

impl Worker {
    pub(super) fn new(
        options: NatsOptions,
        shared: Arc<Shared>,
        inbox: UnboundedReceiver<Flight<Record>>,
        outbox: Sender<Told>,
    ) -> Self {
        let chain = Chain::new(options.window);
        let answers = VecDeque::new();
        Self { options, shared, inbox, outbox, chain, answers, settled: None, failures: 0 }
    }

    pub(super) fn run(mut self) {
        loop {
            let end = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let end = runtime.block_on(self.connection());
                    self.answers.clear();
                    end
                }
                Err(error) => End::Failed(Fault::fatal(error)),
            };
            self.chain.cut();
            let fault = match end {
                End::Closed => return,
                End::Failed(fault) => fault,
            };
            let fatal = matches!(fault, Fault::Fatal(_));
            if self.outbox.send(Told::Failed(fault)).is_err() || fatal {
                return;
            }
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// One connection, from its beginning to its end.
    async fn connection(&mut self) -> End {
        match self.live().await {
            Ok(()) => End::Closed,
            Err(end) => end,
        }
    }

    async fn live(&mut self) -> Result<(), End> {
        self.pause().await?;
        let (down, mut downs) = mpsc::unbounded_channel();
        let stream = timeout(self.options.timeout, self.connect(down)).await;
        let stream = stream.map_err(|_elapsed| Fault::retry("connecting takes too long"))??;
        self.resync(&stream.1).await?;
        let (context, stream) = stream;
        loop {
            self.publish(&context).await?;
            match self.next(&mut downs).await {
                Next::Flight(flight) => self.chain.push(flight),
                Next::Answer(Ok(_)) => {
                    self.failures = 0;
                    self.chain.answered(true);
                }
                Next::Answer(Err(error)) => self.refused(&error)?,
                Next::Closed => return Ok(()),
                Next::Down => return Err(Fault::retry("the connection is lost").into()),
            }
            self.tell()?;
            if self.chain.wants_newest() {
                self.resync(&stream).await?;
            }
        }
    }

    /// The longer it goes wrong, the longer it waits.
    async fn pause(&mut self) -> Result<(), End> {
        if self.failures == 0 {
            return Ok(());
        }
        let pause = PAUSE.saturating_mul(1 << (self.failures - 1).min(16)).min(PAUSE_MAX);
        let until = tokio::time::Instant::now() + pause;
        loop {
            match tokio::time::timeout_at(until, self.inbox.recv()).await {
                Ok(Some(flight)) => self.chain.push(flight),
                Ok(None) => return Err(End::Closed),
                Err(_) => return Ok(()),
            }
        }
    }

    async fn connect(&self, down: mpsc::UnboundedSender<()>) -> Result<(Context, Stream), Fault> {
        let options = &self.options;
        let connect = ConnectOptions::new()
            .name(format!("annals {}", options.id))
            .connection_timeout(options.timeout)
            .max_reconnects(1)
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected | Event::Closed) && down.send(()).is_err() {
                    // That connection has ended already.
                }
                std::future::ready(())
            });
        let client = connect.connect(&*options.servers).await;
        let client = client.map_err(|error| retry("connecting", error))?;
        let payload_max = client.server_info().max_payload;
        if payload_max > 0 {
            // Headers count, too, and are well below this.
            let headers = 1_024 + options.id.len().saturating_mul(3);
            self.shared.payload_max.store(payload_max.saturating_sub(headers), Ordering::Relaxed);
        }
        let mut context = jetstream::new(client);
        context.set_timeout(options.timeout);
        let stream = if options.create {
            let config = Config {
                name: options.stream.clone(),
                subjects: vec![options.subject.clone()],
                max_age: options.age_max,
                ..Config::default()
            };
            context.get_or_create_stream(config).await.map_err(|error| retry("the stream", error))
        } else {
            context.get_stream(&options.stream).await.map_err(|error| retry("the stream", error))
        }?;
        let config = &stream.cached_info().config;
        let level = match config.storage {
            StorageType::File if options.synced => Level::Power,
            StorageType::File if config.num_replicas <= 1 => Level::Process,
            StorageType::File | StorageType::Memory => Level::Acked,
        };
        self.shared.level.store(level_to_bits(level), Ordering::Relaxed);
        Ok((context, stream))
    }

    /// Reads what the server has, and goes on behind it.
    async fn resync(&mut self, stream: &Stream) -> Result<(), End> {
        let options = &self.options;
        let read = stream.get_last_raw_message_by_subject(&options.subject);
        let newest = match timeout(options.timeout, read).await {
            Ok(Ok(message)) => {
                let about = record::read(&message.headers, &options.id);
                let words = || {
                    let subject = &options.subject;
                    format!("the newest message of `{subject}` is not one of `{}`", options.id)
                };
                let about = about.ok_or_else(|| Fault::fatal(words()))?;
                Some((Newest { sequence: message.sequence, key: about.key }, about))
            }
            Ok(Err(error)) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
            Ok(Err(error)) => return Err(retry("reading the newest message", error).into()),
            Err(_) => return Err(Fault::retry("the newest message takes too long").into()),
        };
        let (newest, about) = newest.unzip();
        // What a life before has stored is not foreign: it is where this one begins.
        if self.chain.is_new() {
            self.chain.begin(newest);
        } else {
            self.chain.resync(newest).map_err(|lost| Fault::fatal(lost_in_words(lost)))?;
        }
        self.say(Told::Synced(about))?;
        self.tell()
    }

    async fn publish(&mut self, context: &Context) -> Result<(), End> {
        while let Some((flight, condition)) = self.chain.next() {
            let Some(record) = &flight.record else { continue };
            let headers = record::headers(&record.about, &self.options.id, condition);
            let (subject, payload) = (self.options.subject.clone(), record.payload.clone());
            let sent = context.publish_with_headers(subject, headers, payload).await;
            let answer = sent.map_err(|error| retry("publishing", error))?;
            self.answers.push_back(answer.into_future());
        }
        Ok(())
    }

    /// Waits for whatever comes first.
    async fn next(&mut self, downs: &mut UnboundedReceiver<()>) -> Next {
        poll_fn(|context| {
            if let Some(oldest) = self.answers.front_mut()
                && let Poll::Ready(answer) = oldest.as_mut().poll(context)
            {
                self.answers.pop_front();
                return Poll::Ready(Next::Answer(answer));
            }
            if let Poll::Ready(flight) = self.inbox.poll_recv(context) {
                return Poll::Ready(flight.map_or(Next::Closed, Next::Flight));
            }
            downs.poll_recv(context).map(|_| Next::Down)
        })
        .await
    }

    fn refused(&mut self, error: &PublishError) -> Result<(), End> {
        match error.kind() {
            // Something got in between, or one before it was refused.
            PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => {
                self.chain.answered(false);
                Ok(())
            }
            _ => Err(retry("publishing", error).into()),
        }
    }

    /// Says what has been settled since.
    fn tell(&mut self) -> Result<(), End> {
        // Relaxed: a figure that says how much more may come. What is on its way here is counted
        // there, and is taken off when it is stored.
        let settled = self.chain.settled();
        let landed = self.chain.take_landed();
        if landed > 0 {
            self.shared.waiting.fetch_sub(landed, Ordering::Relaxed);
        }
        if let Some(pos) = settled.filter(|pos| Some(*pos) > self.settled) {
            self.settled = settled;
            self.say(Told::Settled(pos))?;
        }
        Ok(())
    }

    fn say(&self, told: Told) -> Result<(), End> {
        self.outbox.send(told).map_err(|_unsent| End::Closed)
    }
}

fn lost_in_words(lost: Lost) -> Why {
    match lost {
        Lost::Acknowledged { acked: (acked, _), newest: (newest, _) } => {
            format!("the server had acknowledged {acked}, and its newest record is {newest}").into()
        }
        Lost::Foreign { newest: (newest, _) } => {
            format!("another pipeline has published {newest} with this id").into()
        }
    }
}
