//! Records into a Redis stream: in order, each once.
//!
//! Each pipeline has a stream (a key) of its own. An entry says who wrote it, its position and its
//! place among the records of its input, so **the stream's newest entry is the sink's memory**: it
//! is read at a start and after each failure. Entries are appended by a script, many at a time,
//! which appends nothing unless the newest entry is still the one that we know. A script runs
//! alone: so either all of them are appended, once, or none, and two writers are noticed.
//!
//! **What settled means** is what the server says of itself: with `appendonly yes` and
//! `appendfsync always` it is [`Level::Power`]; with `appendfsync no` it is [`Level::Process`].
//! With the usual `everysec` it is [`Level::Acked`] only: while a sync takes long, Redis answers
//! before it has written. A server that may not be asked (`CONFIG GET`) is believed to be no
//! better than that. One that comes back with less than it had acknowledged is found out: the
//! pipeline ends with a `Fatal`, and at its next start goes on from what the server still has.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use redis::streams::StreamRangeReply;
use redis::{Client, Connection, RedisError, Value};

use super::fault::{Fault, Why};
use super::pos::{Mark, Pos};
use super::recall::{About, Key, Put, Recall, Record, mark_from_text, mark_to_text};
use super::sink::{Last, Level, Sink};

/// Appends the entries behind `ARGV[3]`, five fields each, if the newest entry is `ARGV[1]`.
/// Answers whether it did, and the id of the entry that is the newest then.
const APPEND: &str = "
local key, newest = KEYS[1], redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local id = newest[1] and newest[1][1] or ''
if id ~= ARGV[1] then return {0, id} end
local at = 4
while at <= #ARGV do
    local fields = {'source', ARGV[2], 'pos', ARGV[at], 'part', ARGV[at + 1], 'last', ARGV[at + 2],
        'hash', ARGV[at + 3], 'before', ARGV[at + 4], 'sum', ARGV[at + 5], 'data', ARGV[at + 6]}
    if ARGV[3] == '0' then
        id = redis.call('XADD', key, '*', unpack(fields))
    else
        id = redis.call('XADD', key, 'MAXLEN', '~', ARGV[3], '*', unpack(fields))
    end
    at = at + 7
end
return {1, id}";

/// Where records go, and how.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// The server: `redis://host:6379/0`.
    pub server: String,
    /// The stream, which must be this pipeline's alone.
    pub key: String,
    /// Who writes. A stream whose newest entry is somebody else's is not written to.
    pub id: String,
    /// Records that are appended at once.
    pub window: usize,
    /// Bytes of these at most, of one that is longer by itself that one.
    pub window_bytes: usize,
    /// How long an answer may take. So long a pipeline may stand still where the server does.
    pub timeout: Duration,
    /// Entries that the stream keeps, more or less; 0: all.
    pub keep: u64,
}

impl RedisOptions {
    /// To a server, into a stream.
    pub fn new(server: impl Into<String>, key: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            key: key.into(),
            id: id.into(),
            window: 256,
            window_bytes: 8 << 20,
            timeout: Duration::from_secs(5),
            keep: 0,
        }
    }
}

/// A sink into a Redis stream. See the [module](self).
pub struct RedisSink {
    options: RedisOptions,
    connection: Option<Connection>,
    level: Level,
    recall: Recall,
    /// It was read what the server has.
    begun: bool,
    /// Id of the newest entry, as we know it; empty: there is none.
    newest: String,
    /// What is not known to be stored.
    waiting: VecDeque<Record>,
    /// The last that is.
    stored: Option<Key>,
    settled: Option<Pos>,
    bytes: u64,
}

impl fmt::Debug for RedisSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, settled, waiting, .. } = self;
        let mut debug = f.debug_struct("RedisSink");
        debug.field("key", &options.key).field("settled", settled);
        debug.field("waiting", &waiting.len()).finish_non_exhaustive()
    }
}

impl RedisSink {
    /// A sink into that stream. Nothing is connected yet.
    pub fn new(options: RedisOptions) -> Self {
        Self {
            options,
            connection: None,
            level: Level::Acked,
            recall: Recall::default(),
            begun: false,
            newest: String::new(),
            waiting: VecDeque::new(),
            stored: None,
            settled: None,
            bytes: 0,
        }
    }

    /// Connects if it is not connected, and reads what the server has.
    fn connect(&mut self) -> Result<(), Fault> {
        if self.connection.is_some() {
            return Ok(());
        }
        let timeout = self.options.timeout;
        let client = Client::open(&*self.options.server).map_err(|error| match error.kind() {
            redis::ErrorKind::InvalidClientConfig => Fault::fatal(Why::error(error)),
            _ => Fault::retry(Why::error(error)),
        })?;
        let mut connection = client.get_connection_with_timeout(timeout).map_err(retry)?;
        connection.set_read_timeout(Some(timeout)).map_err(retry)?;
        connection.set_write_timeout(Some(timeout)).map_err(retry)?;
        self.level = level(&mut connection);
        self.resync(&mut connection)?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Reads the newest entry. What it shows to be stored is settled.
    fn resync(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        let mut read = redis::cmd("XREVRANGE");
        read.arg(&self.options.key).arg("+").arg("-").arg("COUNT").arg(1);
        let mut reply: StreamRangeReply = read.query(connection).map_err(retry)?;
        let Some(entry) = reply.ids.pop() else {
            self.newest.clear();
            self.begun = true;
            // Nothing may be left of what was acknowledged, by age or by hand.
            return Ok(());
        };
        let about = read_entry(&entry.map, &self.options.id).ok_or_else(|| {
            let RedisOptions { key, id, .. } = &self.options;
            Fault::fatal(format!("the newest entry of `{key}` is not one of `{id}`"))
        })?;
        self.newest = entry.id;
        if !std::mem::replace(&mut self.begun, true) {
            self.stored = Some(about.key);
            self.recall.begin(Some(about));
            return Ok(());
        }
        if self.stored.is_some_and(|stored| about.key < stored) {
            let words = "the server has less than it had acknowledged";
            return Err(Fault::fatal(format!("{words}: its newest record is {}", about.key.0)));
        }
        let ours = self.waiting.back().map(|record| record.about.key).max(self.stored);
        if ours.is_none_or(|ours| ours < about.key) {
            let words = "another pipeline has written with this id";
            return Err(Fault::fatal(format!("{words}: {}", about.key.0)));
        }
        while self.waiting.front().is_some_and(|record| record.about.key <= about.key) {
            self.land();
        }
        Ok(())
    }

    /// The oldest that waits is stored.
    fn land(&mut self) {
        let Some(record) = self.waiting.pop_front() else { return };
        let About { key, last, .. } = record.about;
        self.stored = Some(key);
        if last {
            self.settled = self.settled.max(Some(key.0));
        }
    }

    /// Appends what waits, as much as goes at once.
    fn append(&mut self) -> Result<(), Fault> {
        self.connect()?;
        let Some(mut connection) = self.connection.take() else { return Ok(()) };
        let mut append = redis::cmd("EVAL");
        append.arg(APPEND).arg(1).arg(&self.options.key);
        append.arg(&self.newest).arg(&self.options.id).arg(self.options.keep);
        let (mut count, mut bytes) = (0, 0_usize);
        for record in &self.waiting {
            let about = &record.about;
            bytes = bytes.saturating_add(record.payload.len());
            if count == self.options.window.max(1)
                || (count > 0 && bytes > self.options.window_bytes)
            {
                break;
            }
            count += 1;
            append.arg(about.key.0.to_string()).arg(about.key.1).arg(u8::from(about.last));
            append.arg(about.hash.map(|hash| format!("{hash:x}")).unwrap_or_default());
            append.arg(about.before.map(mark_to_text).unwrap_or_default());
            append.arg(format!("{:x}", about.sum)).arg(&*record.payload);
        }
        if count == 0 {
            self.connection = Some(connection);
            return Ok(());
        }
        let (appended, newest): (u8, String) = append.query(&mut connection).map_err(retry)?;
        if appended == 1 {
            self.newest = newest;
            (0..count).for_each(|_| self.land());
        } else {
            // An answer was lost, or there is another writer.
            self.resync(&mut connection)?;
        }
        self.connection = Some(connection);
        Ok(())
    }
}

fn retry(error: RedisError) -> Fault {
    Fault::retry(Why::error(error))
}

/// What the server says of how it keeps what it has.
fn level(connection: &mut Connection) -> Level {
    let mut get = |name: &str| {
        let config = redis::cmd("CONFIG").arg("GET").arg(name).query(connection);
        let [_, value] = <[String; 2]>::try_from(config.unwrap_or_else(|_| Vec::new())).ok()?;
        Some(value)
    };
    if get("appendonly").as_deref() != Some("yes") {
        return Level::Acked;
    }
    match get("appendfsync").as_deref() {
        Some("always") if get("no-appendfsync-on-rewrite").as_deref() == Some("no") => Level::Power,
        Some("always" | "no") => Level::Process,
        _ => Level::Acked,
    }
}

/// What an entry says; `None` where it is none of `source`.
fn read_entry(fields: &std::collections::HashMap<String, Value>, source: &str) -> Option<About> {
    let text = |name| match fields.get(name) {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok(),
        _ => None,
    };
    if text("source")? != source {
        return None;
    }
    let hash = match text("hash")? {
        "" => None,
        hash => Some(u64::from_str_radix(hash, 16).ok()?),
    };
    let before: Option<Mark> = match text("before")? {
        "" => None,
        before => Some(mark_from_text(before)?),
    };
    let last = match text("last")? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    let key = (text("pos")?.parse().ok()?, text("part")?.parse().ok()?);
    let sum = u64::from_str_radix(text("sum")?, 16).ok()?;
    Some(About { key, last, hash, before, sum })
}

impl Sink for RedisSink {
    type Item = Vec<u8>;

    fn put(&mut self, pos: Pos, item: Vec<u8>, last: bool) -> Result<(), Fault> {
        self.bytes += item.len() as u64;
        let Put { send, known } = self.recall.put(pos, item.into(), last);
        self.waiting.extend(send);
        self.settled = self.settled.max(known);
        Ok(())
    }

    /// # Errors
    /// `Retry` where the server is not there or refuses; `Fatal` where it has less than it had
    /// acknowledged, or what somebody else has written.
    fn settle(&mut self, _limit: Duration) -> Result<Option<Pos>, Fault> {
        if !self.waiting.is_empty() {
            self.append()?;
        }
        Ok(self.settled)
    }

    fn room(&self) -> usize {
        self.options.window.saturating_mul(2).saturating_sub(self.waiting.len())
    }

    fn last(&mut self) -> Result<Last, Fault> {
        self.connect()?;
        Ok(self.recall.last())
    }

    fn level(&self) -> Level {
        self.level
    }

    fn hashed(&mut self, mark: Mark) {
        self.recall.hashed(mark);
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
