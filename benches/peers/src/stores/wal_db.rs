//! wal-db: one file of records, appended without a lock.

use std::path::Path;

use wal_db::Wal;

use crate::store::{Answer, Ask, Event, Level, Peer, Seen, Store, Writer};

pub(crate) const PEER: Peer = Peer {
    name: "wal-db",
    package: "wal-db",
    kind: "log",
    durable: "`append_and_sync`: `fdatasync`, in groups",
    unsynced: "`append`: `pwrite`; no flush of its own",
    in_flight: "1,024 appends, then `sync`",
    checks: "CRC-32C of each record",
    cannot: &[(Ask::Replay, "no streams: the whole log would be read")],
    less: &[],
    open,
};

struct WalDb {
    wal: Wal,
    level: Level,
}

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    Ok(Box::new(WalDb { wal: Wal::open(dir.join("log"))?, level }))
}

impl Store for WalDb {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        for record in self.wal.iter()? {
            seen.see(record?.data());
        }
        Ok(())
    }

    fn replay(&self, _: u64, _: &mut Seen) -> Answer<()> {
        Err("no streams".into())
    }

    fn settle(&self) -> Answer<()> {
        Ok(self.wal.sync()?)
    }
}

impl Writer for &WalDb {
    fn append(&mut self, event: &Event) -> Answer<()> {
        let appended = match self.level {
            Level::Process => self.wal.append(&event.payload),
            Level::Power => self.wal.append_and_sync(&event.payload),
        };
        Ok(appended.map(|_position| ())?)
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        for event in events {
            self.wal.append(&event.payload).map(|_position| ())?;
        }
        if self.level == Level::Power {
            self.wal.sync()?;
        }
        Ok(())
    }
}
