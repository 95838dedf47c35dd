//! `RocksDB`: an LSM tree with a write-ahead log. Behind the feature of its name.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, Direction, IteratorMode, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::CACHE_BYTES;
use crate::store::{Answer, Event, Level, Peer, Seen, Store, Writer, key};

pub(crate) const PEER: Peer = Peer {
    name: "rocksdb",
    package: "rocksdb",
    kind: "keys, LSM tree",
    durable: "`put` with `sync`: `fdatasync` of the log, in groups",
    unsynced: "`put`: `write` to the log; no flush of its own",
    in_flight: "1,024 puts, then `flush_wal(true)`",
    checks: "CRC or XXH3 of each block from disk; not again from its cache",
    cannot: &[],
    less: &[],
    open,
};

struct Rocks {
    db: DB,
    level: Level,
}

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(usize::try_from(CACHE_BYTES)?));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&tables);
    Ok(Box::new(Rocks { db: DB::open(&options, dir.join("db"))?, level }))
}

impl Store for Rocks {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        for entry in self.db.iterator(IteratorMode::Start) {
            seen.see(&entry?.1);
        }
        Ok(())
    }

    fn replay(&self, stream: u64, seen: &mut Seen) -> Answer<()> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(key(stream + 1, 0));
        let from = key(stream, 0);
        let mode = IteratorMode::From(&from, Direction::Forward);
        for entry in self.db.iterator_opt(mode, options) {
            seen.see(&entry?.1);
        }
        Ok(())
    }

    fn settle(&self) -> Answer<()> {
        Ok(self.db.flush_wal(true)?)
    }
}

impl Writer for &Rocks {
    fn append(&mut self, event: &Event) -> Answer<()> {
        let mut options = WriteOptions::default();
        options.set_sync(self.level == Level::Power);
        Ok(self.db.put_opt(event.key(), event.payload, &options)?)
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        if self.level == Level::Process {
            let mut batch = WriteBatch::default();
            for event in events {
                batch.put(event.key(), event.payload);
            }
            return Ok(self.db.write(batch)?);
        }
        for event in events {
            self.db.put(event.key(), event.payload)?;
        }
        Ok(self.db.flush_wal(true)?)
    }
}
