//! The limits: the least that the machine must do for the same promise, in plain code, with
//! nobody to wake and nothing to look up. They are run as one more store among the others.

use std::fs;
use std::path::Path;
use std::time::Instant;

use annals::disk::{Access, Disk as _, Fill, RealDisk};
use crc32fast::Hasher;
use memmap2::Mmap;
use parking_lot::Mutex;

use crate::machine::bytes_written;
use crate::store::Answer;
use crate::support::flush::Flush;
use crate::support::histogram::Histogram;
use crate::support::home::Home;
use crate::support::{FRAME_BYTES, PAYLOAD_BYTES};
use crate::work::{Figures, IN_FLIGHT, Scale, lap, step, together};
use crate::writer::{PlainRing, plain_frame};

const HEADER: usize = FRAME_BYTES - PAYLOAD_BYTES;
const MIB: u64 = 1 << 20;
/// The segment that a life after a crash begins with.
const SEGMENT_BYTES: u64 = 1 << 20;

/// One `pwrite` of as many frames as there are threads, and `fdatasync`, on a file of zeros.
pub(crate) fn durable(dir: &Path, frames: u64, scale: Scale) -> Answer<Figures> {
    let mut flush = Flush::new(&dir.join("flush"), usize::try_from(frames)?);
    let mut run = |limit, times: &mut Histogram| {
        lap(limit, (1, u64::MAX), &mut || {
            flush.run(1, times);
            Ok(())
        })
    };
    run(scale.warm, &mut Histogram::new())?;
    let before = bytes_written(dir);
    let mut times = Histogram::new();
    let lap = run(scale.measure, &mut times)?;
    let mut figures = vec![
        ("rate", lap.per_second() * frames as f64),
        ("p50", times.per_mille(500)),
        ("p99", times.per_mille(990)),
    ];
    if let (Some(before), Some(after)) = (before, bytes_written(dir)) {
        figures.push(("device", (after - before) as f64 / lap.done as f64));
    }
    Ok(figures)
}

pub(crate) fn in_flight(dir: &Path, scale: Scale) -> Answer<Figures> {
    durable(dir, IN_FLIGHT, scale)
}

/// Checksums and a copy into a mapped ring that is resident; the copy under a lock where there
/// are several threads.
pub(crate) fn append(dir: &Path, threads: u64, scale: Scale) -> Answer<Figures> {
    let home = Home { dir: dir.to_owned() };
    let ring = Mutex::new(PlainRing::new(&home));
    let each = |_| {
        let mut frame = plain_frame();
        let ring = &ring;
        Ok(move || {
            let body = PlainRing::body(&frame);
            ring.lock().put(&mut frame, body);
            Ok(())
        })
    };
    together(threads, scale.warm, None, &each)?;
    let lap = together(threads, scale.measure, None, &each)?;
    let times = Mutex::new(Histogram::new());
    together(threads, scale.measure, Some(&times), &each)?;
    let times = times.into_inner();
    Ok(vec![
        ("rate", lap.per_second()),
        ("nanos", lap.nanos_each()),
        ("p999", times.per_mille(999)),
    ])
}

/// Both checksums of each frame in a map of a file, at known places; and what no open after a
/// crash can do without.
pub(crate) fn read(dir: &Path, scale: Scale) -> Answer<Figures> {
    let events = usize::try_from(scale.events())?;
    let path = dir.join("frames");
    fs::write(&path, vec![0x5a; events * FRAME_BYTES])?;
    let file = fs::File::open(&path)?;
    #[expect(unsafe_code, reason = "the limit is a plain map of the file")]
    // SAFETY: The file is this process' own; nobody writes it or cuts it while the map is there.
    let map = unsafe { Mmap::map(&file) }?;
    map.chunks_exact(FRAME_BYTES).for_each(sum);
    let began = Instant::now();
    map.chunks_exact(FRAME_BYTES).for_each(sum);
    let scan = scale.events() as f64 / began.elapsed().as_secs_f64();

    let streams = usize::try_from(scale.streams)?;
    let mut next = 0;
    let mut one = || {
        next = step(next, scale.streams);
        let skipped = usize::try_from(next)?;
        map.chunks_exact(FRAME_BYTES).skip(skipped).step_by(streams).for_each(sum);
        Ok(())
    };
    let replay = lap(scale.measure, (16, 20 * scale.streams), &mut one)?.per_second();
    drop(map);

    let began = Instant::now();
    least_open(dir, &path)?;
    let open = began.elapsed().as_secs_f64();
    Ok(vec![("open", open), ("scan", scan), ("replay", replay)])
}

/// What every reader must do with a frame: body, then the header's block of 64.
pub(crate) fn sum(frame: &[u8]) {
    let mut body = Hasher::new();
    body.update(&frame[HEADER..]);
    let mut header = [0; 64];
    header[..HEADER].copy_from_slice(&frame[..HEADER]);
    body.update(&header);
    std::hint::black_box(body.finalize());
}

/// Reads the last MiB and makes one segment.
pub(crate) fn least_open(dir: &Path, log: &Path) -> Answer<()> {
    let file = RealDisk.open(log, Access::Read)?;
    let bytes = fs::metadata(log)?.len();
    let from = bytes.saturating_sub(MIB);
    let mut last = vec![0; usize::try_from(bytes - from)?];
    annals::disk::read_full(&*file, &mut last, from)?;
    std::hint::black_box(crc32fast::hash(&last));
    let (temporary, path) = (dir.join("least.tmp"), dir.join("least"));
    let made = RealDisk.open(&temporary, Access::Create)?;
    made.allocate(SEGMENT_BYTES, Fill::Zero)?;
    made.sync_data()?;
    RealDisk.rename(&temporary, &path)?;
    RealDisk.sync_dir(dir)?;
    Ok(())
}
