//! redb: a copy-on-write B-tree in one file.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::CACHE_BYTES;
use crate::store::{Answer, Ask, Event, Level, Peer, Seen, Store, Writer};

pub(crate) const PEER: Peer = Peer {
    name: "redb",
    package: "redb",
    kind: "keys, B-tree",
    durable: "a transaction with `Durability::Immediate`: `fdatasync`",
    unsynced: "a transaction with `Durability::None`: in memory until a durable one",
    in_flight: "one transaction of 1,024, gathered by hand",
    checks: "XXH3 of pages when it repairs; not on reading",
    cannot: &[],
    less: &[(Ask::Append, "does not survive `kill -9`")],
    open,
};

const EVENTS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("events");

struct Tree {
    database: Database,
    durability: Durability,
}

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let cache = usize::try_from(CACHE_BYTES)?;
    let database = Database::builder().set_cache_size(cache).create(dir.join("events.redb"))?;
    let durability = match level {
        Level::Process => Durability::None,
        Level::Power => Durability::Immediate,
    };
    let tree = Tree { database, durability };
    // The table is there.
    tree.put(&[], Durability::Immediate)?;
    Ok(Box::new(tree))
}

impl Tree {
    fn put(&self, events: &[Event], durability: Durability) -> Answer<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(EVENTS)?;
            for event in events {
                table.insert((event.stream, event.seq), &event.payload[..])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Store for Tree {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        for entry in self.database.begin_read()?.open_table(EVENTS)?.iter()? {
            seen.see(entry?.1.value());
        }
        Ok(())
    }

    fn replay(&self, stream: u64, seen: &mut Seen) -> Answer<()> {
        let table = self.database.begin_read()?.open_table(EVENTS)?;
        for entry in table.range((stream, 0)..=(stream, u64::MAX))? {
            seen.see(entry?.1.value());
        }
        Ok(())
    }

    fn settle(&self) -> Answer<()> {
        self.put(&[], Durability::Immediate)
    }
}

impl Writer for &Tree {
    fn append(&mut self, event: &Event) -> Answer<()> {
        self.put(std::slice::from_ref(event), self.durability)
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        self.put(events, self.durability)
    }
}
