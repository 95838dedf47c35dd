//! raft-engine: one log for the entries of many raft groups. A group is a stream here.

use std::path::Path;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::store::{Answer, Event, Level, Peer, Seen, Store, Writer};

pub(crate) const PEER: Peer = Peer {
    name: "raft-engine",
    package: "raft-engine",
    kind: "log of many streams",
    durable: "`write` with `sync`: `fdatasync`, in groups, on files made before",
    unsynced: "`write` without: `pwrite`; no flush of its own",
    in_flight: "1,024 writes, then `sync`",
    checks: "CRC-32 of the batch that an entry is in",
    cannot: &[],
    less: &[],
    open,
};

struct Groups {
    engine: Engine,
    level: Level,
}

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let config = Config {
        dir: dir.to_str().ok_or("a folder with a plain name")?.to_owned(),
        // What the events are does not compress.
        batch_compression_threshold: ReadableSize::kb(0),
        target_file_size: ReadableSize::mb(32),
        prefill_for_recycle: level == Level::Power,
        prefill_limit: (level == Level::Power).then(|| ReadableSize::mb(128)),
        ..Config::default()
    };
    Ok(Box::new(Groups { engine: Engine::open(config)?, level }))
}

/// Entries whose payload says their number.
struct Numbered;

impl MessageExt for Numbered {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let number = entry.get_value().get(8..16).and_then(|bytes| bytes.first_chunk());
        number.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

impl Groups {
    fn write(&self, event: &Event, sync: bool) -> Answer<()> {
        let mut entry = BytesValue::new();
        entry.set_value(event.payload.to_vec());
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Numbered>(event.stream + 1, &[entry])?;
        self.engine.write(&mut batch, sync)?;
        Ok(())
    }

    fn read(&self, group: u64, entries: &mut Vec<BytesValue>, seen: &mut Seen) -> Answer<()> {
        let first = self.engine.first_index(group).ok_or("a group without a first entry")?;
        let last = self.engine.last_index(group).ok_or("a group without a last entry")?;
        entries.clear();
        self.engine.fetch_entries_to::<Numbered>(group, first, last + 1, None, entries)?;
        for entry in entries.iter() {
            seen.see(entry.get_value());
        }
        Ok(())
    }
}

impl Store for Groups {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        let mut entries = Vec::new();
        for group in self.engine.raft_groups() {
            self.read(group, &mut entries, seen)?;
        }
        Ok(())
    }

    fn replay(&self, stream: u64, seen: &mut Seen) -> Answer<()> {
        self.read(stream + 1, &mut Vec::new(), seen)
    }

    fn settle(&self) -> Answer<()> {
        Ok(self.engine.sync()?)
    }
}

impl Writer for &Groups {
    fn append(&mut self, event: &Event) -> Answer<()> {
        self.write(event, self.level == Level::Power)
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        for event in events {
            self.write(event, false)?;
        }
        if self.level == Level::Power {
            self.engine.sync()?;
        }
        Ok(())
    }
}
