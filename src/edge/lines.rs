//! A file of JSON lines as a sink: one line for each record, durable by `fdatasync`.
//!
//! ```text
//! {"pos":"0.7.0","hash":"","last":true,"crc":"1c291ca3","record":<what was put>}
//! ```
//!
//! The file itself says how far it is: its last whole line. What a crash has left behind that is
//! overwritten with spaces, which JSON allows before the next line, so nothing is ever cut. Where a
//! torn line may begin is bounded by what may be written and not synced.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::fault::{Fault, Why};
use super::pos::{Mark, Pos};
use super::sink::{Last, Level, Sink};
use crate::disk::{Access, Disk, File, RealDisk, read_full, write_full};
use crate::error::DiskError;

/// What is written and not synced, at most, but for one more input; and the longest line.
const UNSYNCED_MAX: u64 = 1 << 20;
/// It is written when there is so much, or nothing else to do.
const WRITE_BYTES: usize = 64 << 10;
/// Records that are put and not settled, at most.
const OPEN_MAX: usize = 16 << 10;

/// A sink that is a file of JSON lines. See [`json_lines`].
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: Arc<dyn File>,
    last: Last,
    hashed: Option<Mark>,
    /// Not written yet, and where it goes.
    buffer: Vec<u8>,
    at: u64,
    /// The end of what is synced.
    synced: u64,
    /// Whole inputs: the last position, and where it ends in the file.
    open: VecDeque<(Pos, u64)>,
    settled: Option<Pos>,
    /// What a failed sync may have lost is not known: nothing more is written.
    failed: bool,
    began: u64,
}

/// Appends to the file at `path`, or makes it, a line for each record: an object whose `record` is
/// what was put, which has to be JSON without a line break ([`quoted`] makes that of any text).
/// Settled is what is synced: [`Level::Power`].
///
/// It remembers: the pipeline goes on behind the file's last line, so each record is there once,
/// if the source can go back. Nobody else may write to the file, and it belongs to one source.
///
/// # Errors
/// `Fatal`: the file cannot be read or written, or something in it that was synced is no line of
/// this kind. It was not changed then.
pub fn json_lines(path: impl AsRef<Path>) -> Result<JsonLines, Fault> {
    JsonLines::on(&RealDisk, path.as_ref())
}

/// Any text as a JSON string.
pub fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            control if u32::from(control) < 0x20 => {
                // A `String` takes everything.
                write!(json, "\\u{:04x}", u32::from(control)).unwrap_or_default();
            }
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

/// What a line says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Said {
    mark: Mark,
    last: bool,
}

fn line(said: Said, record: &str) -> String {
    let Said { mark, last } = said;
    let hash = mark.hash.map_or_else(String::new, |hash| format!("{hash:016x}"));
    let head = format!("{{\"pos\":\"{}\",\"hash\":\"{hash}\",\"last\":{last},\"crc\":\"", mark.pos);
    let mut crc = crc32fast::Hasher::new();
    crc.update(head.as_bytes());
    crc.update(record.as_bytes());
    format!("{head}{:08x}\",\"record\":{record}}}\n", crc.finalize())
}

/// Reads a line without its line break; `None` where it is none of ours.
fn parse(bytes: &[u8]) -> Option<Said> {
    let text = str::from_utf8(bytes).ok()?.trim_start_matches(' ');
    let rest = text.strip_prefix("{\"pos\":\"")?;
    let (pos, rest) = rest.split_once("\",\"hash\":\"")?;
    let (hash, rest) = rest.split_once("\",\"last\":")?;
    let (last, rest) = rest.split_once(",\"crc\":\"")?;
    let (_crc, record) = rest.split_once("\",\"record\":")?;
    let record = record.strip_suffix('}')?;
    let hash = match hash {
        "" => None,
        hash => Some(u64::from_str_radix(hash, 16).ok()?),
    };
    let mark = Mark { pos: pos.parse().ok()?, hash };
    let said = Said { mark, last: last.parse().ok()? };
    // The checksum is part of what is made again.
    (line(said, record).trim_end_matches('\n') == text).then_some(said)
}

impl JsonLines {
    /// As [`json_lines`], on any disk.
    ///
    /// # Errors
    /// As for [`json_lines`].
    pub fn on(disk: &dyn Disk, path: &Path) -> Result<Self, Fault> {
        Self::open(disk, path).map_err(|error| Fault::fatal(Why::error(error)))
    }

    fn open(disk: &dyn Disk, path: &Path) -> Result<Self, DiskError> {
        let file = match disk.open(path, Access::Write) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                disk.open(path, Access::Create)
            }
            opened => opened,
        };
        let file = file.map_err(DiskError::at("opening", path))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        disk.sync_dir(parent).map_err(DiskError::at("syncing", parent))?;
        let end = file.len().map_err(DiskError::at("reading", path))?;
        let (from, found) = tail(&*file, end).map_err(DiskError::at("reading", path))?;
        let (whole, last) = whole(&found);
        let valid = from + whole as u64;
        if from > 0 && whole == 0 && !found.is_empty() {
            let what = "what was synced is no line of this sink";
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, what);
            return Err(DiskError::at("reading", path)(error));
        }
        let torn = usize::try_from(end - valid).unwrap_or(usize::MAX);
        write_full(&*file, &vec![b' '; torn], valid).map_err(DiskError::at("mending", path))?;
        // Also what was found: a kill may have left it in the cache alone.
        file.sync_data().map_err(DiskError::at("syncing", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            last: last.map_or(Last::Never, Last::At),
            hashed: None,
            buffer: Vec::new(),
            at: end,
            synced: end,
            open: VecDeque::new(),
            settled: None,
            failed: false,
            began: end,
        })
    }

    fn write(&mut self) -> Result<(), Fault> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        // What was written of it before a failure is written again, in the same place.
        write_full(&*self.file, &self.buffer, self.at).map_err(|error| {
            Fault::retry(Why::error(DiskError::at("writing", &self.path)(error)))
        })?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        if self.failed {
            return Err(Fault::fatal("a sync of the file has failed before"));
        }
        if let Err(error) = self.file.sync_data() {
            // A second one could succeed without what this one has lost.
            self.failed = true;
            let error = DiskError::at("syncing", &self.path)(error);
            return Err(Fault::fatal(Why::error(error)));
        }
        self.synced = self.at;
        while let Some((pos, end)) = self.open.front()
            && *end <= self.synced
        {
            self.settled = Some(*pos);
            self.open.pop_front();
        }
        Ok(())
    }
}

/// The end of the file, from behind a line break, with all that may be torn in it.
fn tail(file: &dyn File, end: u64) -> std::io::Result<(u64, Vec<u8>)> {
    let mut from = end.saturating_sub(2 * UNSYNCED_MAX);
    loop {
        let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
        let read = read_full(file, &mut bytes, from)?;
        bytes.truncate(read);
        if from == 0 {
            return Ok((0, bytes));
        }
        // The line that it begins in ends before what may be torn, or it is looked further back.
        let limit = bytes.len().saturating_sub(usize::try_from(UNSYNCED_MAX).unwrap_or(0));
        let breaks = bytes.get(..limit).unwrap_or_default();
        if let Some(at) = breaks.iter().position(|byte| *byte == b'\n') {
            let at = at + 1;
            return Ok((from + at as u64, bytes.split_off(at)));
        }
        from = from.saturating_sub(UNSYNCED_MAX);
    }
}

/// How many bytes are whole lines, up to one that is an input's last; and its position.
fn whole(bytes: &[u8]) -> (usize, Option<Mark>) {
    let (mut whole, mut last, mut at) = (0, None, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(said) = line.strip_suffix(b"\n").and_then(parse) else { break };
        at += line.len();
        if said.last {
            (whole, last) = (at, Some(said.mark));
        }
    }
    (whole, last)
}

impl Sink for JsonLines {
    type Item = String;

    fn put(&mut self, pos: Pos, item: String, last: bool) -> Result<(), Fault> {
        let hashed = self.hashed.take().filter(|mark| last && mark.pos == pos);
        let mark = hashed.unwrap_or(pos.into());
        let line = line(Said { mark, last }, &item);
        if line.len() as u64 > UNSYNCED_MAX {
            return Err(Fault::poison(pos, "the line is longer than 1 MiB"));
        }
        if item.bytes().any(|byte| byte < b' ') {
            return Err(Fault::poison(pos, "it is no JSON in one line"));
        }
        self.buffer.extend_from_slice(line.as_bytes());
        if last {
            self.open.push_back((pos, self.at + self.buffer.len() as u64));
        }
        if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        self.write()?;
        if self.at > self.synced && (!limit.is_zero() || self.room() == 0) {
            self.sync()?;
        }
        Ok(self.settled)
    }

    fn room(&self) -> usize {
        if self.at + self.buffer.len() as u64 - self.synced >= UNSYNCED_MAX / 2 {
            return 0;
        }
        OPEN_MAX.saturating_sub(self.open.len())
    }

    fn last(&mut self) -> Result<Last, Fault> {
        Ok(self.last)
    }

    fn level(&self) -> Level {
        Level::Power
    }

    fn bytes(&self) -> u64 {
        self.at - self.began
    }

    fn hashed(&mut self, mark: Mark) {
        self.hashed = Some(mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    const FILE: &str = "/store/out.jsonl";

    fn disk(seed: u64) -> SimDisk {
        let disk = SimDisk::new(seed);
        disk.record(false);
        disk.create_dir("/store".as_ref()).unwrap();
        disk.sync_dir("/".as_ref()).unwrap();
        disk
    }

    fn content(disk: &SimDisk) -> Vec<u8> {
        let Ok(file) = disk.open(FILE.as_ref(), Access::Read) else { return Vec::new() };
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        assert_eq!(read_full(&*file, &mut bytes, 0).unwrap(), bytes.len());
        bytes
    }

    fn records(disk: &SimDisk) -> Vec<u64> {
        let text = String::from_utf8(content(disk)).unwrap();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| parse(line.as_bytes()).unwrap().mark.pos.seq).collect()
    }

    /// One life: goes on behind the file's last line, up to 30; answers what was settled.
    fn live(disk: &SimDisk) -> Result<u64, Fault> {
        let mut settled = 0;
        let mut sink = JsonLines::on(disk, FILE.as_ref())?;
        let from = match sink.last()? {
            Last::At(mark) => {
                assert_eq!(mark.hash, Some(mark.pos.seq * 7));
                mark.pos.seq
            }
            _ => 0,
        };
        for seq in from + 1..=30 {
            let pos = Pos::new(0, seq);
            // Some inputs have become two records.
            if seq % 3 == 0 {
                sink.put(pos, format!("{{\"half\":{seq}}}"), false)?;
            }
            sink.hashed(Mark { pos, hash: Some(seq * 7) });
            sink.put(pos, format!("[{seq},{}]", quoted(&"x\n\u{1}".repeat(60))), true)?;
            if seq % 4 == 0 {
                let limit = Duration::from_millis(u64::from(seq % 8 == 0));
                settled = sink
                    .settle(limit)
                    .inspect_err(|_| ())
                    .ok()
                    .flatten()
                    .map_or(settled, |at| at.seq);
                if disk.has_crashed() {
                    return Err(Fault::fatal(settled.to_string()));
                }
            }
        }
        sink.settle(Duration::from_millis(1))?;
        Ok(30)
    }

    /// The machine dies at each changing call, in each way; the next life goes on behind the last
    /// line, and at the end each record is there once, in order.
    #[test]
    fn a_file_of_lines_has_each_record_once_whichever_call_was_the_last() {
        let clean = disk(1);
        assert_eq!(live(&clean).ok(), Some(30));
        let calls = clean.mutations();
        assert!(calls > 10, "{calls}");
        for call in 0..calls {
            for (way, seed) in [(0, 1), (1, 2), (1, 3), (1, 4), (2, 1)] {
                let machine = disk(seed);
                machine.crash_at(call);
                let settled = match live(&machine) {
                    Err(Fault::Fatal(Why::Said(said))) => said.parse().unwrap_or(0),
                    _ => 0,
                };
                let machine = match way {
                    0 => machine.kill(),
                    1 => machine.power_cut(seed),
                    _ => machine.power_cut_losing_all(),
                };
                machine.record(false);
                let _opened = JsonLines::on(&machine, FILE.as_ref()).unwrap();
                let before = records(&machine);
                assert!(before.last().copied().unwrap_or(0) >= settled, "{before:?} {settled}");
                assert_eq!(live(&machine).ok(), Some(30), "call {call}");
                let expected: Vec<u64> = (1..=30)
                    .flat_map(|seq| if seq % 3 == 0 { vec![seq; 2] } else { vec![seq] })
                    .collect();
                assert_eq!(records(&machine), expected, "call {call}, way {way}, seed {seed}");
            }
        }
    }

    #[test]
    fn a_line_with_any_byte_changed_or_cut_off_is_no_line() {
        let said = Said { mark: Mark { pos: Pos::new(3, 4), hash: Some(5) }, last: true };
        let good = line(said, "{\"a\":1}");
        let good = good.trim_end().as_bytes();
        assert_eq!(parse(good), Some(said));
        for at in 0..good.len() {
            assert_eq!(parse(&good[..at]), None, "cut at {at}");
            for flip in [1, 2, 4, 8, 16, 32, 64, 128] {
                let mut bad = good.to_vec();
                bad[at] ^= flip;
                assert_eq!(parse(&bad), None, "bit {flip} of byte {at}");
            }
        }
    }

    #[test]
    fn a_file_of_something_else_is_not_written_to() {
        let disk = disk(1);
        let bytes = b"somebody's notes\n".repeat(200_000);
        let file = disk.open(FILE.as_ref(), Access::Create).unwrap();
        write_full(&*file, &bytes, 0).unwrap();
        drop(file);
        assert!(JsonLines::on(&disk, FILE.as_ref()).is_err());
        assert_eq!(content(&disk), bytes);
    }
}
