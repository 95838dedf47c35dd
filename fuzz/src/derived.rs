//! What is kept beside the frames: indexes, checkpoints, the mark, two-slot files.
//!
//! Arbitrary bytes in their place, as they are or with the checksum put right, so that what lies
//! behind it is reached. As they are: the log has everything that it had, because all of that is
//! derived or evidence. Forged, they may lie, and then the log may refuse; **in no case does
//! anything panic, loop, or take memory without bound**.

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use annals::disk::Disk;
use annals::disk::sim::SimDisk;
use annals::error::OpenError;
use annals::log::frame::{Batch, RecordKind};
use annals::log::{Limit, Log, LogOptions, Opening, Testimony, Witness, mark, slots};
use annals::types::{Life, Seq, StreamId};

use crate::damage::Input;

const LOG_ID: u64 = 0x5eed;
const EVENTS: u64 = 120;
const STREAMS: u64 = 3;
const CHANGES_MAX: usize = 8;
const PAGE: usize = 4096;

/// One input.
pub fn run(data: &[u8]) {
    thread_local! {
        static BASE: OnceCell<SimDisk> = const { OnceCell::new() };
    }
    slot(data);
    let disk = BASE.with(|base| base.get_or_init(base_log).fork());
    let mut input = Input(data);
    let mut forged = false;
    for _ in 0..CHANGES_MAX {
        let Some(what) = input.byte() else { break };
        forged |= change(&disk, what, &mut input);
    }
    let log = match open(&disk, 3) {
        Ok(log) => log,
        Err(error) => {
            assert!(forged, "refused for what is derived: {error}");
            return;
        }
    };
    let found = read(&log, forged);
    assert!(forged || found == Some(EVENTS), "{found:?} events");
    if append(&log, found.unwrap_or(EVENTS)).is_ok() && log.close().is_ok() && !forged {
        drop(log);
        let log = open(&disk, 4).expect("a log that was closed");
        assert_eq!(read(&log, forged), Some(EVENTS + 1));
    }
}

/// Bytes as a two-slot file, which are written on.
fn slot(data: &[u8]) {
    let disk = SimDisk::new(1);
    let path = Path::new("/slots");
    let mut file = data.to_vec();
    for at in [0, PAGE] {
        mend_slot(&mut file, at, mark::MAGIC, data.len().is_multiple_of(2));
    }
    disk.put(path, file).expect("an empty disk");
    let found = slots::read(&disk, path, mark::MAGIC).expect("a disk that works");
    let mut open = slots::Slots::open(&disk, path, mark::MAGIC, &found).expect("it is there");
    let fields = [1, 2, 3, 4, 5, 6, 7, 8];
    open.write(&fields).expect("a disk that works");
    let found = slots::read(&disk, path, mark::MAGIC).expect("a disk that works");
    assert_eq!(found.valid.first(), Some(&fields), "what was just written is the newest");
}

/// The slot at `at` gets its magic, if `named`, and its checksum.
fn mend_slot(file: &mut [u8], at: usize, magic: [u8; 8], named: bool) {
    const BODY: usize = 16 + slots::FIELDS * 8;
    let Some(slot) = file.get_mut(at..at + BODY + 4) else { return };
    if named {
        slot[..8].copy_from_slice(&magic);
    }
    let crc = crc32fast::hash(&slot[..BODY]).to_le_bytes();
    slot[BODY..].copy_from_slice(&crc);
}

/// Changes one of the files; was it made to look right?
fn change(disk: &SimDisk, what: u8, input: &mut Input<'_>) -> bool {
    let kind = ["idx", "ckpt", "mark"][usize::from(what & 3) % 3];
    let of_kind = |path: &PathBuf| path.to_string_lossy().contains(kind);
    let files: Vec<PathBuf> =
        disk.list_all().into_iter().map(|(path, _)| path).filter(of_kind).collect();
    let Some(path) = files.get(input.below(files.len())) else { return false };
    let (at, count) = (usize::from(input.word()), input.below(64));
    let new = input.bytes(count);
    let (whole, mend) = (what & 8 != 0, what & 4 != 0);
    let done = disk.damage(path, |file| {
        if whole {
            *file = new.to_vec();
        } else {
            let at = at % (file.len() + 1);
            file.iter_mut().skip(at).zip(new).for_each(|(target, byte)| *target = *byte);
            if what & 16 != 0 {
                file.truncate(at);
            }
        }
        if !mend {
            return;
        }
        match kind {
            "idx" if file.len() >= 60 => {
                file[56..60].fill(0);
                let crc = crc32fast::hash(file).to_le_bytes();
                file[56..60].copy_from_slice(&crc);
            }
            "ckpt" => mend_checkpoint(file),
            "mark" => [0, PAGE].into_iter().for_each(|at| {
                mend_slot(file, at, mark::MAGIC, what & 32 != 0);
            }),
            _ => {}
        }
    });
    done.expect("a file that was listed");
    mend
}

/// The two checksums of a checkpoint, where its number of segments says that they are.
fn mend_checkpoint(file: &mut [u8]) {
    let Some(segments) = file.get(12..16).and_then(<[u8]>::first_chunk) else { return };
    let end = usize::try_from(u32::from_le_bytes(*segments)).expect("64 bits") * 48 + 80;
    let Some((head, testimony)) = file.split_at_mut_checked(end) else { return };
    let crc = crc32fast::hash(testimony);
    head[end - 8..end - 4].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&head[..end - 4]);
    head[end - 4..].copy_from_slice(&crc.to_le_bytes());
}

/// Says how far the log was written, in words that can be checked.
#[derive(Debug)]
struct Told(Mutex<u64>);

impl Witness for Told {
    fn testify(&self) -> Option<Testimony> {
        let position = *self.0.lock().expect("no panic under it");
        Some(Testimony { position, bytes: what_is_told(position) })
    }
}

fn what_is_told(position: u64) -> Vec<u8> {
    position.to_string().repeat(3).into_bytes()
}

fn options() -> LogOptions {
    LogOptions {
        ring: Some(PathBuf::from("/ring")),
        mark: Some(PathBuf::from("/mark")),
        checkpoints: Some(PathBuf::from("/")),
        ring_bytes: 16 << 10,
        segment_bytes_first: 8 << 10,
        segment_bytes_max: 16 << 10,
        frame_bytes_max: 4 << 10,
        threads: false,
        ..LogOptions::new("/log")
    }
}

fn open(disk: &SimDisk, life: u64) -> Result<Log, OpenError> {
    let disk: Arc<dyn Disk> = disk.handle();
    let life = Life { number: life, bits: life.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    Ok(Opening::new(&disk, options(), LOG_ID, 0)?.start(life)?.0)
}

/// A log of two lives with indexes, checkpoints and a mark.
fn base_log() -> SimDisk {
    let disk = SimDisk::new(1);
    for (life, events) in [(1, 0..EVENTS / 2), (2, EVENTS / 2..EVENTS)] {
        let log = open(&disk, life).expect("a sound disk");
        let told = Arc::new(Told(Mutex::new(0)));
        log.heed(Arc::<Told>::clone(&told));
        for number in events {
            append(&log, number).expect("a disk that works");
            *told.0.lock().expect("no panic under it") = log.written();
            if number % 16 == 0 {
                log.sync().expect("a disk that works");
                log.prepare_ahead();
                log.keep();
            }
        }
        log.close().expect("a disk that works");
    }
    disk.kill()
}

fn stream(number: u64) -> StreamId {
    StreamId::of("fuzz", &number.to_string())
}

fn append(log: &Log, number: u64) -> Result<(), annals::error::AppendError> {
    let mut batch = Batch::new();
    let bytes = usize::try_from(number * 131 % 700).expect("small");
    batch.push(RecordKind::Event, 1, &vec![b'x'; bytes]).expect("small");
    let seq = Seq::new(number / STREAMS + 1).expect("small");
    log.append(&mut batch, stream(number % STREAMS), seq)?;
    Ok(())
}

/// Reads everything in every way; answers the events, if all of them can be read.
fn read(log: &Log, forged: bool) -> Option<u64> {
    let totals = log.totals();
    if let Some(testimony) = log.testimony() {
        let told = testimony.bytes == what_is_told(testimony.position);
        assert!(forged || told, "nobody said {testimony:?}");
        assert!(testimony.position <= log.written(), "beyond the log: {testimony:?}");
    }
    let mut events = 0;
    let mut frames = log.frames(0, Limit::Written).ok()?;
    while let Some(frame) = frames.next().ok()? {
        events += u64::from(frame.header().stream != StreamId::SYSTEM);
    }
    let mut of_streams = 0;
    for number in 0..STREAMS {
        for after in [0, 7] {
            let after = Seq::new(after).expect("small");
            let visited = log.stream(stream(number), after, &mut |frame| {
                assert_eq!(frame.header().stream, stream(number), "another stream's");
                of_streams += u64::from(after == Seq::ZERO);
                ControlFlow::Continue(())
            });
            assert!(forged || visited.is_ok(), "{visited:?}");
        }
        log.last_seq(stream(number)).map_or_else(|error| assert!(forged, "{error}"), drop);
    }
    assert!(forged || of_streams == events, "{of_streams} of {events}");
    assert!(forged || totals.is_ok_and(|totals| totals.events == events));
    Some(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else there would be nothing to change.
    /// A forged checkpoint whose checksums are put right is read, and its testimony is anything.
    #[test]
    fn a_forged_testimony_is_found_and_bounded() {
        let ckpts = base_log().list_all().into_iter().map(|(path, _)| path);
        let ckpts =
            ckpts.filter(|path| path.to_string_lossy().contains("ckpt")).collect::<Vec<_>>();
        let mut told = 0;
        for at in 0..110 {
            for byte in [0, 1, 0x7f, 0xff] {
                let disk = base_log();
                for path in &ckpts {
                    let changed = disk.damage(path, |file| {
                        file[at] = byte;
                        mend_checkpoint(file);
                    });
                    changed.expect("a file that was listed");
                }
                let Ok(log) = open(&disk, 3) else { continue };
                told += u64::from(log.testimony().is_some());
                read(&log, true);
            }
        }
        assert!(told > 0, "all were refused");
    }

    #[test]
    fn the_base_log_has_indexes_checkpoints_and_a_mark() {
        let files = base_log().list_all();
        for kind in [".idx", "ckpt-", "mark"] {
            let named = |(path, _): &(PathBuf, u64)| path.to_string_lossy().contains(kind);
            assert!(files.iter().any(named), "{kind}: {files:?}");
        }
        assert!(open(&base_log(), 3).expect("a sound disk").testimony().is_some());
    }
}
