//! Annals, by its log. What actors cost on top is in `benches/actors.rs`.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use annals::disk::{Disk, RealDisk};
use annals::log::frame::{Batch, RecordKind};
use annals::log::{Appended, Limit, Log, LogOptions, Opening};
use annals::types::{Life, Seq, StreamId};

use crate::store::{Answer, Event, Level, Peer, Seen, Store, Writer};

pub(crate) const PEER: Peer = Peer {
    name: "annals",
    package: "annals",
    kind: "log of many streams",
    durable: "`fdatasync` of the segment, in groups",
    unsynced: "a copy into a mapped file; flushed within a second",
    in_flight: "1,024 appends, then a wait for the last",
    checks: "CRC-32 of each frame, each time",
    cannot: &[],
    less: &[],
    open,
};

struct Annals {
    log: Log,
    level: Level,
}

fn open(dir: &Path, level: Level) -> Answer<Box<dyn Store>> {
    let number = next_life(dir)?;
    let options = LogOptions {
        ring: Some(dir.join("ring")),
        mark: Some(dir.join("mark")),
        checkpoints: Some(dir.to_owned()),
        ..LogOptions::new(dir.join("log"))
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let opening = Opening::new(&disk, options, 42, 0)?;
    let life = Life { number, bits: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    Ok(Box::new(Annals { log: opening.start(life)?.0, level }))
}

/// The number of this life is on the disk before the life begins, as a store sees to it.
fn next_life(dir: &Path) -> Answer<u64> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(dir.join("identity"))?;
    let mut bytes = [0; 8];
    let known = file.read_exact(&mut bytes).map_or(0, |()| u64::from_le_bytes(bytes));
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&(known + 1).to_le_bytes())?;
    file.sync_data()?;
    Ok(known + 1)
}

/// Spread over 128 bits, as the hashes of names are.
fn id_of(stream: u64) -> StreamId {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    StreamId::from_u128((u128::from(stream) + 1).wrapping_mul(ODD))
}

struct AnnalsWriter<'a> {
    annals: &'a Annals,
    batch: Batch,
    stream: (u64, StreamId),
}

impl AnnalsWriter<'_> {
    fn push(&mut self, event: &Event) -> Answer<Appended> {
        if self.stream.0 != event.stream {
            self.stream = (event.stream, id_of(event.stream));
        }
        self.batch.clear();
        self.batch.push(RecordKind::Event, 1, &event.payload)?;
        let seq = Seq::new(event.seq).ok_or("a number of 48 bits")?;
        Ok(self.annals.log.append(&mut self.batch, self.stream.1, seq)?)
    }
}

impl Store for Annals {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>> {
        let stream = (0, id_of(0));
        Ok(Box::new(AnnalsWriter { annals: self, batch: Batch::new(), stream }))
    }

    fn scan(&self, seen: &mut Seen) -> Answer<()> {
        let mut frames = self.log.frames(0, Limit::Written)?;
        while let Some(frame) = frames.next()? {
            if frame.header().seq > Seq::ZERO {
                seen.see(frame.body());
            }
        }
        Ok(())
    }

    fn replay(&self, stream: u64, seen: &mut Seen) -> Answer<()> {
        self.log.stream(id_of(stream), Seq::ZERO, &mut |frame| {
            seen.see(frame.body());
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn settle(&self) -> Answer<()> {
        Ok(self.log.sync()?)
    }
}

impl Writer for AnnalsWriter<'_> {
    fn append(&mut self, event: &Event) -> Answer<()> {
        let appended = self.push(event)?;
        if self.annals.level == Level::Power {
            self.annals.log.wait_durable(appended.end, None)?;
        }
        Ok(())
    }

    fn append_all(&mut self, events: &[Event]) -> Answer<()> {
        let mut last = None;
        for event in events {
            last = Some(self.push(event)?);
        }
        match last {
            Some(last) if self.annals.level == Level::Power => {
                Ok(self.annals.log.wait_durable(last.end, None)?)
            }
            _ => Ok(()),
        }
    }
}
