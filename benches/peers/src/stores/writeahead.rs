//! writeahead: one writer thread that commits what has queued meanwhile.

use std::path::Path;

use futures::StreamExt as _;
use futures::executor::block_on;
use writeahead::{SimpleFile, WriteAhead, WriteAheadOptions, WriteHandle};

use crate::store::{Answer, Ask, Event, Level, Peer, Seen, Store, Writer};

pub(crate) const PEER: Peer = Peer {
    name: "writeahead",
    package: "writeahead",
    kind: "log",
    durable: "`write`: `fdatasync` by its writer thread, in groups",
    unsynced: "none: every write is durable",
    in_flight: "`write_batch` of 1,024, gathered by hand",
    checks: "Murmur3-128 of each record",
    cannot: &[
        (Ask::Append, "every append is durable"),
        (Ask::Replay, "no streams: the whole log would be read"),
    ],
    less: &[],
    open,
};

struct Ahead {
    log: WriteAhead<SimpleFile>,
}

fn open(dir: &Path, _: Level) -> Answer<Box<dyn Store>> {
    let options = WriteAheadOptions { log_dir: dir.to_owned(), ..Default::default() };
    let mut log = WriteAhead::<SimpleFile>::with_options(options);
    log.start()?;
    Ok(Box::new(Ahead { log }))
}

impl Store for Ahead {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        Ok(Box::new(Handle(self.log.writer()?)))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        let mut records = self.log.create_stream()?;
        block_on(async {
            while let Some(record) = records.next().await {
                seen.see(&record?.1);
            }
            Ok(())
        })
    }

    fn replay(&self, _: u64, _: &mut Seen) -> Answer<()> {
        Err("no streams".into())
    }
}

struct Handle(WriteHandle);

impl Writer for Handle {
    fn append(&mut self, event: &Event) -> Answer<()> {
        block_on(self.0.write(event.payload.to_vec()))?;
        Ok(())
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        // 4 MiB at most.
        for events in events.chunks(16_384) {
            let records = events.iter().map(|event| event.payload.to_vec()).collect();
            block_on(self.0.write_batch(records))?;
        }
        Ok(())
    }
}
