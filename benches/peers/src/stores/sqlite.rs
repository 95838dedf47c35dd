//! `SQLite`, by rusqlite: one table, one connection, a write-ahead log.

use std::path::Path;

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::CACHE_BYTES;
use crate::store::{Answer, Event, Level, Peer, Seen, Store, Writer};

pub(crate) const PEER: Peer = Peer {
    name: "sqlite",
    package: "rusqlite",
    kind: "SQL, B-tree",
    durable: "a transaction, `journal_mode=WAL`, `synchronous=FULL`: `fsync` of its WAL",
    unsynced: "the same with `synchronous=NORMAL`: `pwrite`; flushed at checkpoints",
    in_flight: "one transaction of 1,024, gathered by hand",
    checks: "its WAL when it opens; pages not on reading",
    cannot: &[],
    less: &[],
    open,
};

/// Threads share one connection: several would only wait for each other's transactions.
struct Sqlite(Mutex<Connection>);

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let connection = Connection::open(dir.join("events.sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match level {
        Level::Process => "NORMAL",
        Level::Power => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -i64::try_from(CACHE_BYTES / 1024)?)?;
    connection.pragma_update(None, "mmap_size", 4_i64 << 30)?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS events (stream INTEGER, seq INTEGER, payload BLOB NOT NULL, \
         PRIMARY KEY (stream, seq)) WITHOUT ROWID",
    )?;
    Ok(Box::new(Sqlite(Mutex::new(connection))))
}

const INSERT: &str = "INSERT INTO events (stream, seq, payload) VALUES (?1, ?2, ?3)";

fn insert(connection: &Connection, event: &Event) -> Answer<()> {
    let (stream, seq) = (i64::try_from(event.stream)?, i64::try_from(event.seq)?);
    connection.prepare_cached(INSERT)?.execute(params![stream, seq, &event.payload[..]])?;
    Ok(())
}

impl Store for Sqlite {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        let connection = self.0.lock();
        let mut all = connection.prepare_cached("SELECT payload FROM events")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            seen.see(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    }

    fn replay(&self, stream: u64, seen: &mut Seen) -> Answer<()> {
        let connection = self.0.lock();
        let mut one = connection
            .prepare_cached("SELECT payload FROM events WHERE stream = ?1 ORDER BY seq")?;
        let mut rows = one.query([i64::try_from(stream)?])?;
        while let Some(row) = rows.next()? {
            seen.see(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    }
}

impl Writer for &Sqlite {
    fn append(&mut self, event: &Event) -> Answer<()> {
        insert(&self.0.lock(), event)
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        let mut connection = self.0.lock();
        let transaction = connection.transaction()?;
        for event in events {
            insert(&transaction, event)?;
        }
        Ok(transaction.commit()?)
    }
}
