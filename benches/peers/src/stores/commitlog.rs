//! commitlog: segments of messages and an index of offsets, as Kafka has them.

use std::path::Path;

use commitlog::message::{MessageBuf, MessageSet as _};
use commitlog::{CommitLog, LogOptions, ReadLimit};
use parking_lot::Mutex;

use crate::store::{Answer, Ask, Event, Level, Peer, Seen, Store, Writer};

const NOT_DURABLE: &str = "`flush` syncs the index, and not the messages";

pub(crate) const PEER: Peer = Peer {
    name: "commitlog",
    package: "commitlog",
    kind: "log",
    durable: "none: `flush` is `msync` of the index only",
    unsynced: "`append_msg`: `write`, and an entry in a mapped index",
    in_flight: "",
    checks: "CRC-32C of each message",
    cannot: &[
        (Ask::Durable, NOT_DURABLE),
        (Ask::InFlight, NOT_DURABLE),
        (Ask::Replay, "no streams: the whole log would be read"),
    ],
    less: &[],
    open,
};

/// It has one writer, so threads share it under a lock.
struct Log(Mutex<CommitLog>);

fn open(dir: &Path, _: Level) -> Answer<Box<dyn Store>> {
    Ok(Box::new(Log(Mutex::new(CommitLog::new(LogOptions::new(dir))?))))
}

impl Store for Log {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        let log = self.0.lock();
        let mut next = 0;
        loop {
            let messages = log
                .read(next, ReadLimit::max_bytes(1 << 20))
                .map_err(|error| format!("{error:?}"))?;
            if messages.is_empty() {
                return Ok(());
            }
            for message in messages.iter() {
                seen.see(message.payload());
            }
            next += messages.len() as u64;
        }
    }

    fn replay(&self, _: u64, _: &mut Seen) -> Answer<()> {
        Err("no streams".into())
    }

    fn settle(&self) -> Answer<()> {
        Ok(self.0.lock().flush()?)
    }
}

impl Writer for &Log {
    fn append(&mut self, event: &Event) -> Answer<()> {
        let appended = self.0.lock().append_msg(event.payload);
        appended.map_err(|error| format!("{error:?}"))?;
        Ok(())
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        // A MiB at most.
        for events in events.chunks(4_096) {
            let mut messages = MessageBuf::default();
            for event in events {
                messages.push(event.payload).map_err(|error| format!("{error:?}"))?;
            }
            let appended = self.0.lock().append(&mut messages);
            appended.map_err(|error| format!("{error:?}"))?;
        }
        Ok(())
    }
}
