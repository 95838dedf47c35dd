//! okaywal: a log in front of another store, which it hands its entries to and then forgets them.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use okaywal::{
    Configuration, Entry, EntryId, LogManager, ReadChunkResult, SegmentReader, WriteAheadLog,
};
use parking_lot::Mutex;

use crate::store::{Answer, Ask, Event, Level, PAYLOAD_BYTES, Peer, Seen, Store, Writer};

pub(crate) const PEER: Peer = Peer {
    name: "okaywal",
    package: "okaywal",
    kind: "log before a store",
    durable: "`commit`: `fdatasync`, in groups; its files are used again",
    unsynced: "none: every commit is durable",
    in_flight: "one entry of 1,024 chunks, gathered by hand",
    checks: "CRC-32C of each chunk, if the reader asks",
    cannot: &[
        (Ask::Append, "every append is durable"),
        (Ask::Scan, "reads its entries while it opens: see there"),
        (Ask::Replay, "no streams, and reads only while it opens"),
    ],
    less: &[],
    open,
};

struct OkayWal {
    log: WriteAheadLog,
    recovered: Arc<Mutex<Seen>>,
}

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let recovered = Arc::new(Mutex::new(Seen::default()));
    let mut configuration = Configuration::default_for(dir);
    if level == Level::Process {
        // Nothing is to be handed on and forgotten: what is read back are its own files.
        configuration = configuration.preallocate_bytes(64 << 20).checkpoint_after_bytes(1 << 40);
    }
    let log = configuration.open(Keep(Arc::clone(&recovered)))?;
    Ok(Box::new(OkayWal { log, recovered }))
}

/// Counts what is recovered, and needs nothing of what is handed on.
#[derive(Debug)]
struct Keep(Arc<Mutex<Seen>>);

impl LogManager for Keep {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut seen = self.0.lock();
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            let mut payload = [0; PAYLOAD_BYTES];
            chunk.read_exact(&mut payload)?;
            if chunk.check_crc()? {
                seen.see(&payload);
            }
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _: EntryId,
        _: &mut SegmentReader,
        _: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

impl Store for OkayWal {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        *seen = *self.recovered.lock();
        Ok(())
    }

    fn replay(&self, _: u64, _: &mut Seen) -> Answer<()> {
        Err("no streams".into())
    }
}

impl Writer for &OkayWal {
    fn append(&mut self, event: &Event) -> Answer<()> {
        let mut entry = self.log.begin_entry()?;
        entry.write_chunk(&event.payload)?;
        entry.commit()?;
        Ok(())
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        let mut entry = self.log.begin_entry()?;
        for event in events {
            entry.write_chunk(&event.payload)?;
        }
        entry.commit()?;
        Ok(())
    }
}
