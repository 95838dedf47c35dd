//! A log with all its threads, and several that append: killed or without power at any call. What
//! runs beside what is not replayable, so the oracle is one for each stream.

use annals::disk::sim::{Random, SimDisk};
use annals::log::frame::{Batch, RecordKind};
use annals::log::{Log, LogOptions, Opening};
use annals::types::Seq;

use crate::support::{End, Replay, STREAMS, disk, life, payload, read_all, seeds, stream, tiny};

/// What one thread was answered about its stream: so many frames survive.
#[derive(Copy, Clone, Debug, Default)]
struct Promised {
    process: u64,
    power: u64,
}

fn bytes_of(stream: u64, seq: u64) -> usize {
    Random::new(stream << 32 | seq).below(1_500) + 8
}

/// Appends to one stream until the process is dead.
fn write(log: &Log, disk: &SimDisk, number: u64, from: u64) -> Promised {
    let mut promised = Promised { process: from, power: from };
    for seq in from + 1..from + 400 {
        let mut batch = Batch::new();
        let content = payload(number << 32 | seq, bytes_of(number, seq));
        batch.push(RecordKind::Event, 1, &content).unwrap();
        let appended = log.append(&mut batch, stream(number), Seq::new(seq).unwrap());
        // Alive after the answer: so the answer was given.
        let alive = !disk.has_crashed();
        let appended = match appended {
            Ok(appended) if alive => appended,
            Ok(_) => return promised,
            Err(error) => {
                assert!(!alive, "{error}");
                return promised;
            }
        };
        promised.process = seq;
        if (seq + number).is_multiple_of(3) {
            let waited = log.wait_durable(appended.end, None);
            match waited {
                Ok(()) if !disk.has_crashed() => promised.power = seq,
                Ok(()) => return promised,
                Err(error) => {
                    assert!(disk.has_crashed(), "{error}");
                    return promised;
                }
            }
        }
    }
    promised
}

/// Frames of each stream, whose content and numbers are right.
fn counts(log: &Log) -> Vec<u64> {
    let mut counts = vec![0; usize::try_from(STREAMS).unwrap()];
    for entry in read_all(log).unwrap() {
        let count = &mut counts[usize::try_from(entry.stream).unwrap()];
        *count += 1;
        assert_eq!(entry.seq, *count, "no hole, and nothing twice: {entry:?}");
        assert_eq!(entry.number, entry.stream << 32 | entry.seq);
    }
    counts
}

#[test]
fn threads_that_append_find_what_they_were_promised_after_any_crash() {
    let mut states = 0;
    for seed in seeds(60) {
        let _replay = Replay(seed);
        let mut random = Random::new(seed);
        let mut disk = disk(seed);
        let mut promised = vec![Promised::default(); usize::try_from(STREAMS).unwrap()];
        let mut end = End::Kill;
        for lives in 1..=4 {
            let options = LogOptions { threads: true, ..tiny(true) };
            let opening = Opening::new(&disk.handle(), options, 42, 0).unwrap();
            let (log, report) = opening.start(life(lives)).unwrap();
            let found = counts(&log);
            for (number, (found, promised)) in found.iter().zip(&promised).enumerate() {
                let least = if end == End::Kill { promised.process } else { promised.power };
                assert!(*found >= least, "stream {number}: {found} of {promised:?}, {report:?}");
            }
            states += 1;
            disk.crash_at(random.below(400) as u64);
            promised = std::thread::scope(|scope| {
                let (log, disk) = (&log, &disk);
                let threads: Vec<_> = (0..STREAMS)
                    .zip(&found)
                    .map(|(number, from)| scope.spawn(move || write(log, disk, number, *from)))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let next;
            (next, end) = if random.once_in(2) {
                (disk.kill(), End::Kill)
            } else {
                (disk.power_cut(random.bits()), End::PowerCut)
            };
            drop(log);
            disk = next;
        }
    }
    println!("{states} recoveries were looked at");
}
