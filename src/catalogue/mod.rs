//! The catalogue: names and kinds, in sled. Derived, and deletable at any time.
//!
//! What is here only makes a listing fast; nothing is promised by it and no actor is loaded
//! through it. sled loses acknowledged writes at power loss and can lose data to one flipped bit
//! without an error, so the catalogue is believed only as far as its *stamp* is: the position and
//! checksum of the last frame it has taken in. A stamp that is not a frame of this log (ahead,
//! lost, another log's), a catalogue that does not open, or one that is too large: set aside and
//! built again from the log, by a thread of its own. It takes in durable frames only; a listing
//! reads the rest from the log.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::error::{DiskError, OpenError, ReadError};
use crate::log::frame::{Frame, RecordKind};
use crate::log::{Limit, Log, name};
use crate::trace;
use crate::types::{Seq, StreamId};

/// A catalogue may take this long to open, before this life does without.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How large a catalogue may be before it is built again: sled grows.
const BYTES_MAX: u64 = 4 << 30;
pub(crate) const TOO_LONG: &str = "it took too long to open";
/// How much of the log a close takes in.
const CLOSE_BYTES_MAX: u64 = 64 << 20;
/// Frames between two stamps.
const STAMP_EVERY: u64 = 10_000;
const STAMP: &[u8] = b"taken-in";
const NAMES: &[u8] = b"by-kind";

/// What became of the catalogue at open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogueState {
    /// Its stamp is a frame of this log.
    Good,
    /// There was none.
    New,
    /// Set aside, for this reason, and built again.
    Rebuilt(&'static str),
    /// It cannot be kept; listings read the log.
    Absent(String),
}

/// How far the catalogue is, or that it is not.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Stamp {
    log: u64,
    /// Position of the last frame that was taken in; 0: none.
    lsn: u64,
    crc: u32,
    /// Where to go on.
    next: u64,
}

impl Stamp {
    fn bytes(&self) -> [u8; 28] {
        let mut bytes = [0; 28];
        let (numbers, crc) = bytes.split_at_mut(24);
        let words = [self.log, self.lsn, self.next];
        for (target, word) in numbers.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *target = word.to_le_bytes();
        }
        crc.copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (numbers, crc) = bytes.split_at_checked(24)?;
        let mut words = numbers.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let crc = u32::from_le_bytes(*crc.first_chunk::<4>()?);
        Some(Self { log: words.next()?, lsn: words.next()?, next: words.next()?, crc })
    }

    /// Itself, if the frame that it names is a durable one of `log`, with these bytes. Where to
    /// go on is taken from that frame: the stamp has no checksum of its own.
    fn checked(self, log: &Log) -> Option<Self> {
        if self.log != log.id() {
            return None;
        }
        if self.lsn == 0 {
            return (self.next == 0).then_some(self);
        }
        let mut frames = log.frames(self.lsn, Limit::Durable).ok()?;
        let found = frames.next().ok()?.map(|frame| (frame.lsn().get(), frame.crc()));
        (found == Some((self.lsn, self.crc))).then(|| Self { next: frames.position(), ..self })
    }
}

/// Where a catalogue with these bytes for a stamp would go on; `None` where it is built again.
#[cfg(any(test, feature = "internals"))]
pub fn believed(log: &Log, stamp: &[u8]) -> Option<u64> {
    Stamp::of(stamp)?.checked(log).map(|stamp| stamp.next)
}

#[derive(Debug)]
struct Ask {
    kind: String,
    answer: Sender<Result<BTreeSet<String>, ReadError>>,
}

/// The catalogue's owner: a thread, and the door to it.
#[derive(Debug)]
pub struct Catalogue {
    asks: Mutex<Option<Sender<Ask>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    state: Arc<Mutex<Option<CatalogueState>>>,
    log: Arc<Log>,
}

impl Catalogue {
    /// Opens or builds the catalogue in `dir`, in the background.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(dir: PathBuf, log: Arc<Log>) -> Result<Self, OpenError> {
        let (sender, receiver) = bounded(16);
        let state = Arc::new(Mutex::new(None));
        let worker = Worker { dir, log: Arc::clone(&log), state: Arc::clone(&state) };
        let thread = std::thread::Builder::new()
            .name("annals-catalogue".to_owned())
            .spawn(move || worker.run(&receiver))
            .map_err(DiskError::at("starting a thread for", "catalogue".as_ref()))?;
        Ok(Self { asks: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), state, log })
    }

    /// The names of all actors of `kind` that have events, sorted. Waits for the catalogue to
    /// catch up with the log.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn names(&self, kind: &str) -> Result<BTreeSet<String>, ReadError> {
        let (answer, answered) = bounded(1);
        let ask = Ask { kind: kind.to_owned(), answer };
        let asked = match &*self.asks.lock() {
            Some(asks) => asks.send(ask).is_ok(),
            None => false,
        };
        let answer = if asked { answered.recv().ok() } else { None };
        // A thread that is gone has taken nothing with it.
        answer.unwrap_or_else(|| names_from(&self.log, 0, kind))
    }

    /// What became of it at open; `None` while that is not known.
    pub fn state(&self) -> Option<CatalogueState> {
        self.state.lock().clone()
    }

    /// Ends the thread.
    pub fn close(&self) {
        self.asks.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            // sled may panic; listings have read the log since, and nothing else depends on it.
            drop(thread.join());
        }
    }
}

impl Drop for Catalogue {
    fn drop(&mut self) {
        self.close();
    }
}

/// Removes the catalogue in `dir`, which nobody may have open.
///
/// # Errors
/// The file system's.
pub(crate) fn remove(dir: &Path) -> Result<(), DiskError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DiskError::at("removing", dir)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The names of `kind` in the log from `from` on.
///
/// # Errors
/// See [`ReadError`].
pub fn names_from(log: &Log, from: u64, kind: &str) -> Result<BTreeSet<String>, ReadError> {
    let mut names = BTreeSet::new();
    each_name(log, from, Limit::Written, &mut |_, found, name| {
        if found == kind {
            names.insert(name.to_owned());
        }
    })?;
    Ok(names)
}

/// Visits the streams that begin at `from` or later. Answers the last frame read, as a stamp.
fn each_name(
    log: &Log,
    from: u64,
    limit: Limit,
    visit: &mut dyn FnMut(StreamId, &str, &str),
) -> Result<Option<Stamp>, ReadError> {
    let mut frames = log.frames(from, limit)?;
    let mut last = None;
    while let Some(frame) = frames.next()? {
        last = Some((frame.lsn().get(), frame.crc()));
        if let Some((kind, name)) = name_of(&frame) {
            visit(frame.header().stream, kind, name);
        }
    }
    let next = frames.position();
    Ok(last.map(|(lsn, crc)| Stamp { log: log.id(), lsn, crc, next }))
}

/// The name in a stream's first frame.
fn name_of<'a>(frame: &Frame<'a>) -> Option<(&'a str, &'a str)> {
    if Some(frame.header().seq) != Seq::new(1) {
        return None;
    }
    let record = frame.records().next()?.ok()?;
    if record.kind == RecordKind::Name { name::decode(record.payload) } else { None }
}

/// What the keys of all names of `kind` begin with, and no others: its length, and itself.
fn prefix(kind: &str) -> Vec<u8> {
    let mut prefix = u32::try_from(kind.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    prefix.extend_from_slice(kind.as_bytes());
    prefix
}

struct Worker {
    dir: PathBuf,
    log: Arc<Log>,
    state: Arc<Mutex<Option<CatalogueState>>>,
}

impl Worker {
    fn run(self, asks: &Receiver<Ask>) {
        let (tree, mut stamp, state) = self.open();
        let mut tree = tree;
        *self.state.lock() = Some(state.clone());
        self.tell(state);
        if let Some(open) = &tree
            && self.catch_up(open, &mut stamp).is_err()
        {
            self.tell_absent();
            tree = None;
        }
        while let Ok(ask) = asks.recv() {
            let listed = match &tree {
                Some(open) => self.list(open, &mut stamp, &ask.kind),
                None => Err(()),
            };
            let answer = listed.unwrap_or_else(|()| {
                // From here on the log is read.
                if tree.take().is_some() {
                    self.tell_absent();
                }
                names_from(&self.log, 0, &ask.kind)
            });
            // Who asked may have gone.
            drop(ask.answer.send(answer));
        }
        if let Some(open) = tree {
            // What is not taken in or kept is taken in by the next life, in the background; a
            // close does not wait for much of it.
            let behind = self.log.durable().saturating_sub(stamp.next);
            if behind <= CLOSE_BYTES_MAX && self.catch_up(&open, &mut stamp).is_ok() {
                drop(open.flush());
            }
        }
    }

    /// Not here: a subscriber may ask for names, and wait for this thread.
    fn tell(&self, state: CatalogueState) {
        let dir = self.dir.clone();
        self.log.tell_later(move || match state {
            CatalogueState::Good => trace::CatalogueOpened { dir: &dir, new: false }.tell(),
            CatalogueState::New => trace::CatalogueOpened { dir: &dir, new: true }.tell(),
            CatalogueState::Rebuilt(error) => {
                trace::CatalogueRebuilt { dir: &dir, error: &error }.tell();
            }
            CatalogueState::Absent(error) => {
                trace::CatalogueAbsent { dir: &dir, error: &error }.tell();
            }
        });
    }

    fn tell_absent(&self) {
        self.tell(CatalogueState::Absent("it could not be read or kept".to_owned()));
    }

    fn list(
        &self,
        tree: &sled::Db,
        stamp: &mut Stamp,
        kind: &str,
    ) -> Result<Result<BTreeSet<String>, ReadError>, ()> {
        self.catch_up(tree, stamp)?;
        let names = tree.open_tree(NAMES).map_err(drop)?;
        let prefix = prefix(kind);
        let mut found = BTreeSet::new();
        for entry in names.scan_prefix(&prefix) {
            let (key, _stream) = entry.map_err(drop)?;
            let name = key.get(prefix.len()..).unwrap_or_default();
            found.insert(str::from_utf8(name).map_err(drop)?.to_owned());
        }
        Ok(names_from(&self.log, stamp.next, kind).map(|newest| {
            found.extend(newest);
            found
        }))
    }

    /// Takes in what has become durable. The stamp goes with the names, in one batch each.
    fn catch_up(&self, tree: &sled::Db, stamp: &mut Stamp) -> Result<(), ()> {
        let names = tree.open_tree(NAMES).map_err(drop)?;
        let mut frames = self.log.frames(stamp.next, Limit::Durable).map_err(drop)?;
        let mut batch = sled::Batch::default();
        let mut since = 0;
        while let Some(frame) = frames.next().map_err(drop)? {
            if let Some((kind, name)) = name_of(&frame) {
                let mut key = prefix(kind);
                key.extend_from_slice(name.as_bytes());
                batch.insert(key, &frame.header().stream.get().to_le_bytes());
            }
            (stamp.lsn, stamp.crc) = (frame.lsn().get(), frame.crc());
            stamp.next = frames.position();
            since += 1;
            if since == STAMP_EVERY {
                names.apply_batch(std::mem::take(&mut batch)).map_err(drop)?;
                tree.insert(STAMP, &stamp.bytes()).map_err(drop)?;
                since = 0;
            }
        }
        if since > 0 {
            names.apply_batch(batch).map_err(drop)?;
            tree.insert(STAMP, &stamp.bytes()).map_err(drop)?;
        }
        Ok(())
    }

    /// The catalogue, where it stands, and what became of it.
    fn open(&self) -> (Option<sled::Db>, Stamp, CatalogueState) {
        let empty = Stamp { log: self.log.id(), lsn: 0, crc: 0, next: 0 };
        let existed = self.dir.exists();
        let reason = if !existed {
            None
        } else if folder_bytes(&self.dir) > BYTES_MAX {
            Some("too large")
        } else {
            match open_within(&self.dir, OPEN_LIMIT) {
                Ok(tree) => match tree.get(STAMP) {
                    Ok(Some(bytes)) => match Stamp::of(&bytes).and_then(|at| at.checked(&self.log))
                    {
                        Some(stamp) => return (Some(tree), stamp, CatalogueState::Good),
                        None => Some("its stamp is no frame of the log"),
                    },
                    Ok(None) if tree.was_recovered() => Some("it has no stamp"),
                    Ok(None) => return (Some(tree), empty, CatalogueState::New),
                    Err(_unreadable) => Some("it cannot be read"),
                },
                Err(reason) => Some(reason),
            }
        };
        if reason == Some(TOO_LONG) {
            // It may still open, in a thread that nobody waits for: it is left to that one.
            return (None, empty, CatalogueState::Absent(TOO_LONG.to_owned()));
        }
        if reason.is_some()
            && let Err(error) = std::fs::remove_dir_all(&self.dir)
        {
            return (None, empty, CatalogueState::Absent(error.to_string()));
        }
        let state = reason.map_or(CatalogueState::New, CatalogueState::Rebuilt);
        match open_within(&self.dir, OPEN_LIMIT) {
            Ok(tree) => (Some(tree), empty, state),
            Err(reason) => (None, empty, CatalogueState::Absent(reason.to_owned())),
        }
    }
}

/// How often, and for how long each time, a folder's lock is waited for.
const LOCKED_TRIES: u32 = 50;
const LOCKED_WAIT: Duration = Duration::from_millis(20);

/// sled can take minutes to open: then it goes on in a thread that nobody waits for.
pub(crate) fn open_within(dir: &Path, limit: Duration) -> Result<sled::Db, &'static str> {
    let (sender, receiver) = bounded(1);
    let dir = dir.to_owned();
    let spawned = std::thread::Builder::new().name("annals-sled".to_owned()).spawn(move || {
        let open = || {
            sled::Config::new()
                .path(&dir)
                .cache_capacity(16 << 20)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(Some(5_000))
                .open()
        };
        let opened = std::panic::catch_unwind(|| {
            let mut tries = 0;
            loop {
                match open() {
                    // Threads of a sled that was dropped just now may have the lock for a moment.
                    Err(error) if is_locked(&error) && tries < LOCKED_TRIES => {
                        tries += 1;
                        std::thread::park_timeout(LOCKED_WAIT);
                    }
                    opened => return opened,
                }
            }
        });
        // Nobody may be waiting any more.
        drop(sender.send(opened));
    });
    if spawned.is_err() {
        return Err("no thread to open it on");
    }
    match receiver.recv_timeout(limit) {
        Ok(Ok(Ok(tree))) => Ok(tree),
        Ok(Ok(Err(_error))) => Err("it does not open"),
        Ok(Err(_panic)) => Err("opening it panicked"),
        Err(_timeout) => Err(TOO_LONG),
    }
}

/// Does somebody else have the folder? sled says so in words only.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("acquire lock"))
}

/// Bytes of the files in a folder and the folders within.
pub(crate) fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_gone) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zero byte stood between kind and name, and either may hold one: names of one kind were
    /// listed as another's, and two names shared a key.
    #[test]
    fn no_kind_and_name_share_their_key_with_others_whatever_bytes_they_hold() {
        let parts = ["a", "a\0", "\0a", "a\0a", "\0", "aa", "\u{1}", "a\0a\0a"];
        let pairs = || parts.iter().flat_map(|kind| parts.iter().map(move |name| (*kind, *name)));
        let key = |(kind, name): (&str, &str)| [prefix(kind), name.as_bytes().to_vec()].concat();
        let keys: BTreeSet<Vec<u8>> = pairs().map(key).collect();
        assert_eq!(keys.len(), parts.len() * parts.len());
        for pair in pairs() {
            for kind in parts {
                assert_eq!(key(pair).starts_with(&prefix(kind)), pair.0 == kind, "{pair:?} {kind}");
            }
        }
    }
}
