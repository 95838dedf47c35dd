//! LMDB, by heed: a mapped copy-on-write B-tree.

use std::path::Path;

use heed::byteorder::BE;
use heed::types::{Bytes, U128};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use crate::store::{Answer, Event, Level, Peer, Seen, Store, Writer};

pub(crate) const PEER: Peer = Peer {
    name: "lmdb",
    package: "heed",
    kind: "keys, B-tree",
    durable: "a transaction: `pwrite` of its pages, `fdatasync`, an `O_DSYNC` write of a meta page",
    unsynced: "a transaction with `WRITEMAP`, `MAPASYNC` and `NOSYNC`: a store into a map",
    in_flight: "one transaction of 1,024, gathered by hand",
    checks: "nobody: it has no checksums",
    cannot: &[],
    less: &[],
    open,
};

/// Of address space; the file has holes where nothing is.
const MAP_BYTES: usize = 16 << 30;

fn key(stream: u64, seq: u64) -> u128 {
    (u128::from(stream) << 64) | u128::from(seq)
}

struct Lmdb {
    env: Env,
    events: Database<'static, U128<BE>, Bytes>,
}

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES);
    if level == Level::Process {
        let flags = EnvFlags::WRITE_MAP | EnvFlags::MAP_ASYNC | EnvFlags::NO_SYNC;
        #[expect(unsafe_code, reason = "heed leaves it to the caller what these flags mean")]
        // SAFETY: Nobody writes into the map but LMDB, and what a crash of the machine would do
        // to the file is not looked at here.
        unsafe {
            options.flags(flags)
        };
    }
    #[expect(unsafe_code, reason = "heed maps a file that others could change")]
    // SAFETY: The file is of this run alone, and only one process has it at a time.
    let env = unsafe { options.open(dir) }?;
    let opened = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
        opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
    });
    let events = opened.map_err(|error: heed::Error| error)?.unwrap_commit();
    Ok(Box::new(Lmdb { env, events }))
}

impl Store for Lmdb {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        let transaction = self.env.read_txn()?;
        for entry in self.events.iter(&transaction)? {
            seen.see(entry?.1);
        }
        Ok(())
    }

    fn replay(&self, stream: u64, seen: &mut Seen) -> Answer<()> {
        let transaction = self.env.read_txn()?;
        for entry in self.events.range(&transaction, &(key(stream, 0)..=key(stream, u64::MAX)))? {
            seen.see(entry?.1);
        }
        Ok(())
    }

    fn settle(&self) -> Answer<()> {
        Ok(self.env.force_sync()?)
    }
}

impl Writer for &Lmdb {
    fn append(&mut self, event: &Event) -> Answer<()> {
        self.append_all(std::slice::from_ref(event))
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        let mut transaction = self.env.write_txn()?;
        for event in events {
            self.events.put(&mut transaction, &key(event.stream, event.seq), &event.payload)?;
        }
        Ok(transaction.commit()?)
    }
}
