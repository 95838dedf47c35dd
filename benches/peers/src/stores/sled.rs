//! sled: a lock-free tree on a log of pages.

use std::path::Path;

use sled::{Batch, Db};

use super::CACHE_BYTES;
use crate::store::{Answer, Ask, Event, Level, Peer, Seen, Store, Writer, key};

const NOT_DURABLE: &str = "not durable: `flush` ends in `sync_file_range`";

pub(crate) const PEER: Peer = Peer {
    name: "sled",
    package: "sled",
    kind: "keys, tree on a log",
    durable: "none: `flush` ends in `sync_file_range`, and leaves the disk's cache alone",
    unsynced: "`insert`: in memory; written by a thread, flushed every second",
    in_flight: "1,024 inserts, then `flush`",
    checks: "CRC-32 of each page from disk; not again from its cache",
    cannot: &[],
    less: &[
        (Ask::Durable, NOT_DURABLE),
        (Ask::InFlight, NOT_DURABLE),
        (Ask::Append, "does not survive `kill -9`"),
    ],
    open,
};

struct Sled {
    db: Db,
    level: Level,
}

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let config = sled::Config::new()
        .path(dir.join("db"))
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(1_000));
    Ok(Box::new(Sled { db: config.open()?, level }))
}

impl Sled {
    fn flush(&self) -> Answer<()> {
        if self.level == Level::Power {
            self.db.flush()?;
        }
        Ok(())
    }
}

impl Store for Sled {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        for entry in self.db.iter() {
            seen.see(&entry?.1);
        }
        Ok(())
    }

    fn replay(&self, stream: u64, seen: &mut Seen) -> Answer<()> {
        for entry in self.db.range(key(stream, 0)..=key(stream, u64::MAX)) {
            seen.see(&entry?.1);
        }
        Ok(())
    }

    fn settle(&self) -> Answer<()> {
        self.db.flush()?;
        Ok(())
    }
}

impl Writer for &Sled {
    fn append(&mut self, event: &Event) -> Answer<()> {
        self.db.insert(event.key(), &event.payload[..])?;
        self.flush()
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        let mut batch = Batch::default();
        for event in events {
            batch.insert(&event.key()[..], &event.payload[..]);
        }
        self.db.apply_batch(batch)?;
        self.flush()
    }
}
