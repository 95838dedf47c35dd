//! fjall: an LSM tree with a journal.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::CACHE_BYTES;
use crate::store::{Answer, Event, Level, Peer, Seen, Store, Writer, key};

pub(crate) const PEER: Peer = Peer {
    name: "fjall",
    package: "fjall",
    kind: "keys, LSM tree",
    durable: "`insert`, then `persist(SyncData)`: `fdatasync` of the journal",
    unsynced: "`insert`: `write` to the journal; no flush of its own",
    in_flight: "1,024 inserts, then `persist(SyncData)`",
    checks: "XXH3 of each block from disk; not again from its cache",
    cannot: &[],
    less: &[],
    open,
};

struct Lsm {
    database: Database,
    events: Keyspace,
    level: Level,
}

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let database = Database::builder(dir.join("db")).cache_size(CACHE_BYTES).open()?;
    let events = database.keyspace("events", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Lsm { database, events, level }))
}

impl Lsm {
    fn persist(&self) -> Answer<()> {
        if self.level == Level::Power {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Store for Lsm {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        for entry in self.events.iter() {
            seen.see(&entry.into_inner()?.1);
        }
        Ok(())
    }

    fn replay(&self, stream: u64, seen: &mut Seen) -> Answer<()> {
        for entry in self.events.range(key(stream, 0)..=key(stream, u64::MAX)) {
            seen.see(&entry.into_inner()?.1);
        }
        Ok(())
    }

    fn settle(&self) -> Answer<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

impl Writer for &Lsm {
    fn append(&mut self, event: &Event) -> Answer<()> {
        self.events.insert(event.key(), event.payload)?;
        self.persist()
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        for event in events {
            self.events.insert(event.key(), event.payload)?;
        }
        self.persist()
    }
}
