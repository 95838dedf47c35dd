//! Walrus: topics of blocks of 10 MiB, read once by a consumer.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use crate::store::{Answer, Ask, Event, Level, Peer, Seen, Store, Writer};

pub(crate) const PEER: Peer = Peer {
    name: "walrus",
    package: "walrus-rust",
    kind: "log of topics",
    durable: "`SyncEach`: `pwrite` to an `O_SYNC` file, then `fsync`",
    unsynced: "`append_for_topic`: `pwrite`; flushed every second",
    in_flight: "`batch_append_for_topic` of 1,024, gathered by hand",
    checks: "FNV-1a of each entry",
    cannot: &[(Ask::Replay, "a topic takes 10 MiB at least: 10,000 are 100 GB")],
    less: &[],
    open,
};

struct Topics {
    walrus: Walrus,
    writers: AtomicU64,
}

/// Its folder comes from the environment, as it wants: see `WALRUS_DATA_DIR` in `child.rs`.
fn open(_: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let schedule = match level {
        Level::Process => FsyncSchedule::Milliseconds(1_000),
        Level::Power => FsyncSchedule::SyncEach,
    };
    let reads = ReadConsistency::AtLeastOnce { persist_every: 1_000_000 };
    let walrus = Walrus::with_consistency_and_schedule(reads, schedule)?;
    Ok(Box::new(Topics { walrus, writers: AtomicU64::new(0) }))
}

fn topic(number: u64) -> String {
    format!("events-{number}")
}

impl Store for Topics {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        // Relaxed: only that each number is given out once.
        let number = self.writers.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(TopicWriter { walrus: &self.walrus, topic: topic(number) }))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        loop {
            let entries = self.walrus.batch_read_for_topic(&topic(0), 1 << 20, true)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in &entries {
                seen.see(&entry.data);
            }
        }
    }

    fn replay(&self, _: u64, _: &mut Seen) -> Answer<()> {
        Err("no streams".into())
    }
}

struct TopicWriter<'a> {
    walrus: &'a Walrus,
    topic: String,
}

impl Writer for TopicWriter<'_> {
    fn append(&mut self, event: &Event) -> Answer<()> {
        Ok(self.walrus.append_for_topic(&self.topic, &event.payload)?)
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        // It takes 2,000 at most.
        for events in events.chunks(1_024) {
            let entries: Vec<_> = events.iter().map(|event| &event.payload[..]).collect();
            self.walrus.batch_append_for_topic(&self.topic, &entries)?;
        }
        Ok(())
    }
}
