//! Foreign tokens: over lives, over crashes in every call, over damage.

use std::collections::BTreeMap;

use super::*;
use crate::disk::sim::SimDisk;
use crate::sync::domain::DomainId;
use crate::sync::fact::{Birth, Born, Clean};
use crate::sync::message::Marks;
use crate::sync::origin::{Incarnation, Origin};
use crate::sync::token::{Token, TokenKind};

fn log(origin: u64, life: u64) -> TokenLog {
    TokenLog {
        origin: Origin::from_u64(origin),
        incarnation: Incarnation { counter: life, nonce: origin * 1000 + life },
        lane: Lane::Tokens,
    }
}

fn open(disk: &SimDisk, life: u64) -> Result<Foreign, OpenError> {
    let options = ForeignOptions {
        dir: "foreign".into(),
        sync_interval: Duration::from_secs(1),
        bytes_max: 1 << 30,
        age_max: Duration::MAX,
        threads: false,
        clock: Clock::System,
    };
    Foreign::open(&disk.handle(), 7, Life { number: life, bits: life * 77 }, options)
}

/// What an origin has published: the records, and the running hash behind each.
struct Published {
    log: TokenLog,
    records: Vec<Vec<u8>>,
    hashes: Vec<u64>,
}

impl Published {
    fn new(log: TokenLog, count: u64) -> Self {
        let mut published = Self { log, records: Vec::new(), hashes: vec![0] };
        for seq in 1..=count {
            let domain = DomainId::of("users");
            let birth = Birth {
                previous: None,
                clean: Clean::Not,
                domains: vec![Born { domain, outside: false }],
            };
            let (kind, body) = match seq {
                1 => (TokenKind::Birth, birth.encode()),
                _ if seq % 10 == 3 => (TokenKind::Intent, seq.to_le_bytes().to_vec()),
                _ if seq % 10 == 8 => (TokenKind::Done, (seq - 5).to_le_bytes().to_vec()),
                _ => (TokenKind::Key, format!("key {seq} of {log}").into_bytes()),
            };
            let time = HybridTime::from_millis(seq);
            let mut record = Vec::new();
            Token { seq, time, domain, kind, flags: 0, body: &body }
                .encode(&log, &mut record)
                .unwrap();
            let last = published.hashes[published.hashes.len() - 1];
            published.hashes.push(chain(last, &record));
            published.records.push(record);
        }
        published
    }

    fn mark(&self, seq: u64) -> Mark {
        Mark { seq, hash: self.hashes[usize::try_from(seq).unwrap()] }
    }

    fn bytes(&self, first: u64, last: u64) -> Vec<u8> {
        let at = |seq: u64| usize::try_from(seq).unwrap();
        self.records[at(first - 1)..at(last)].concat()
    }

    fn keep(&self, foreign: &Foreign, first: u64, last: u64) {
        let before = self.mark(first - 1).hash;
        foreign.keep(self.log, first, before, &self.bytes(first, last));
    }

    fn open_intent(upto: u64) -> Option<u64> {
        // The last that was begun and not done by then.
        (1..=upto).find(|seq| seq % 10 == 3 && seq + 5 > upto)
    }

    /// Everything that `foreign` says of it fits what was published.
    fn check(&self, foreign: &Foreign) -> Option<(Mark, Mark)> {
        let (floor, head) = (foreign.floor(&self.log)?, foreign.head(&self.log)?);
        assert_eq!((floor, head), (self.mark(floor.seq), self.mark(head.seq)));
        for bytes_max in [1, 1 << 20] {
            let mut next = floor.seq + 1;
            let mut out = Vec::new();
            while let Some(last) = foreign.read(&self.log, next, bytes_max, &mut out).unwrap() {
                assert_eq!(out, self.bytes(next, last), "from {next}");
                out.clear();
                next = last + 1;
            }
            assert_eq!(next, head.seq + 1, "all of it can be read");
        }
        for seq in floor.seq..=head.seq {
            assert_eq!(foreign.hash_at(&self.log, seq), Some(self.mark(seq).hash), "at {seq}");
        }
        assert_eq!(foreign.hash_at(&self.log, head.seq + 1), None);
        if floor.seq > 0 {
            assert!(foreign.read(&self.log, floor.seq, 1, &mut Vec::new()).is_err());
            assert_eq!(foreign.hash_at(&self.log, floor.seq - 1), None);
        } else {
            assert_eq!(foreign.oldest_intent(&self.log), Self::open_intent(head.seq));
        }
        Some((floor, head))
    }
}

#[test]
fn what_was_kept_is_read_again_in_this_life_and_in_the_next() {
    let disk = SimDisk::new(1);
    let ours = Published::new(log(1, 1), 300);
    let theirs = Published::new(log(2, 9), 300);
    let foreign = open(&disk, 1).unwrap();
    for at in 0..30 {
        ours.keep(&foreign, at * 10 + 1, at * 10 + 10);
        theirs.keep(&foreign, at * 5 + 1, at * 5 + 5);
    }
    // What does not follow is not kept.
    ours.keep(&foreign, 5, 10);
    theirs.keep(&foreign, 170, 180);
    foreign.visible(ours.log, 295);
    assert_eq!(ours.check(&foreign), Some((Mark::ZERO, ours.mark(300))));
    assert_eq!(theirs.check(&foreign), Some((Mark::ZERO, theirs.mark(150))));
    foreign.persist(vec![1, 2, 3]).unwrap();
    foreign.close().unwrap();
    drop(foreign);

    let foreign = open(&disk.kill(), 2).unwrap();
    assert_eq!(ours.check(&foreign), Some((Mark::ZERO, ours.mark(300))));
    assert_eq!(theirs.check(&foreign), Some((Mark::ZERO, theirs.mark(150))));
    assert_eq!(foreign.members(), [1, 2, 3]);
    let found = foreign.found();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].visible, 295);
    assert_eq!(found[0].birth.as_ref().unwrap().domains[0].domain, DomainId::of("users"));
    // Another life of the same node takes the place of the one before.
    let next = Published::new(log(1, 2), 20);
    let to = Place {
        origin: next.log.origin,
        incarnation: next.log.incarnation,
        marks: Marks::ZERO,
        diverged: false,
    };
    foreign.adopt(to, 0, None);
    next.keep(&foreign, 1, 20);
    assert_eq!(foreign.head(&ours.log), None);
    assert_eq!(next.check(&foreign), Some((Mark::ZERO, next.mark(20))));
}

/// What a life has promised: for each log how far it was said to be durable, and who is a member.
#[derive(Clone, Default)]
struct Promised {
    durable: BTreeMap<TokenLog, u64>,
    members: Vec<u8>,
}

/// One life: tokens of three nodes, an adoption, a new life of one of them.
fn work(foreign: &Foreign, promised: &Arc<Mutex<Promised>>, all: &[Published]) {
    let told = Arc::clone(promised);
    foreign.on_stored(Some(Box::new(move |stored| {
        told.lock().durable.extend(stored.iter().copied());
    })));
    let place = |published: &Published, seq| Place {
        origin: published.log.origin,
        incarnation: published.log.incarnation,
        marks: Marks { tokens: published.mark(seq), values: Mark::ZERO },
        diverged: false,
    };
    let [first, second, gapped, reborn] = all else { panic!("four") };
    first.keep(foreign, 1, 7);
    second.keep(foreign, 1, 2);
    if foreign.sync().is_err() {
        return;
    }
    first.keep(foreign, 8, 9);
    gapped.keep(foreign, 1, 5);
    gapped.keep(foreign, 6, 6);
    foreign.adopt(place(gapped, 12), 12, None);
    gapped.keep(foreign, 13, 20);
    if foreign.persist(vec![4; 40]).is_err() {
        return;
    }
    promised.lock().members = vec![4; 40];
    second.keep(foreign, 3, 40);
    foreign.adopt(place(reborn, 0), 0, None);
    reborn.keep(foreign, 1, 4);
    if foreign.sync().is_ok() {
        first.keep(foreign, 10, 11);
    }
    foreign.close().unwrap_or_default();
}

#[test]
fn a_crash_in_any_call_leaves_a_shorter_log_or_a_gap_and_never_a_hole() {
    let all = [
        Published::new(log(1, 1), 40),
        Published::new(log(2, 1), 40),
        Published::new(log(3, 1), 40),
        // The first one's next life.
        Published::new(log(1, 2), 40),
    ];
    let mut points = 0;
    for mutation in 0.. {
        let disk = SimDisk::new(mutation);
        disk.crash_at(mutation);
        let promised = Arc::new(Mutex::new(Promised::default()));
        if let Ok(foreign) = open(&disk, 1) {
            work(&foreign, &promised, &all);
        }
        let last = !disk.has_crashed();
        let promised = promised.lock().clone();
        let ends =
            [disk.fork().kill(), disk.fork().power_cut(mutation), disk.power_cut_losing_all()];
        for (kind, after) in ends.into_iter().enumerate() {
            let foreign = open(&after, 2).unwrap();
            for published in &all {
                let checked = published.check(&foreign);
                if let Some(durable) = promised.durable.get(&published.log) {
                    // Of the first one's old life nothing need be there once the new one is.
                    let gone = published.log == all[0].log && all[3].check(&foreign).is_some();
                    let head = checked.map_or(0, |(_, head)| head.seq);
                    assert!(
                        gone || head >= *durable,
                        "{}: {head} of {durable} after {mutation}, end {kind}",
                        published.log
                    );
                }
            }
            if !promised.members.is_empty() {
                assert_eq!(foreign.members(), promised.members, "{mutation}, end {kind}");
            }
            // And it goes on from there.
            let on = &all[1];
            let head = foreign.head(&on.log).map_or(0, |head| head.seq);
            if head < 40 {
                on.keep(&foreign, head + 1, 40);
            }
            foreign.close().unwrap();
            drop(foreign);
            let foreign = open(&after.kill(), 3).unwrap();
            assert_eq!(on.check(&foreign).map(|(_, head)| head), Some(on.mark(40)));
        }
        points += 1;
        if last {
            break;
        }
    }
    assert!(points > 20, "{points}");
}

#[test]
fn damage_anywhere_is_a_shorter_log_or_a_gap_and_never_other_tokens() {
    let disk = SimDisk::new(3);
    let ours = Published::new(log(1, 1), 200);
    let theirs = Published::new(log(2, 1), 200);
    let foreign = open(&disk, 1).unwrap();
    for at in 0..20 {
        ours.keep(&foreign, at * 10 + 1, at * 10 + 10);
        theirs.keep(&foreign, at * 10 + 1, at * 10 + 10);
        if at % 6 == 5 {
            foreign.persist(vec![u8::try_from(at).unwrap()]).unwrap();
        }
    }
    foreign.close().unwrap();
    drop(foreign);
    let disk = disk.kill();
    let dir = std::path::Path::new("foreign");
    let files: Vec<_> = disk.handle().list(dir).unwrap();
    let mut shorter = 0;
    for file in files.iter().filter(|file| file.name.contains(".seg")) {
        for offset in (0..40_000).step_by(331) {
            let fork = disk.fork();
            let path = dir.join(&file.name);
            let opened = fork.handle().open(&path, crate::disk::Access::Write).unwrap();
            let mut byte = [0];
            if opened.read_at(&mut byte, offset).unwrap() == 0 {
                break;
            }
            opened.write_at(&[byte[0] ^ 0x10], offset).unwrap();
            opened.sync_data().unwrap();
            drop(opened);
            let foreign = match open(&fork, 2) {
                Ok(foreign) => foreign,
                Err(error) => panic!("offset {offset}: {error}"),
            };
            for published in [&ours, &theirs] {
                let Some(floor) = foreign.floor(&published.log) else {
                    shorter += 1;
                    continue;
                };
                let head = foreign.head(&published.log).unwrap();
                assert_eq!(floor, published.mark(floor.seq));
                assert_eq!(head, published.mark(head.seq));
                // What cannot be read becomes a gap when it is asked for.
                let mut next = floor.seq + 1;
                let mut out = Vec::new();
                loop {
                    out.clear();
                    match foreign.read(&published.log, next, 1 << 20, &mut out) {
                        Ok(Some(last)) => {
                            assert_eq!(out, published.bytes(next, last), "offset {offset}");
                            next = last + 1;
                        }
                        Ok(None) => break,
                        Err(Unread::Gone | Unread::Read(_)) => {
                            shorter += 1;
                            assert_eq!(foreign.floor(&published.log), Some(head));
                            break;
                        }
                    }
                }
                shorter += u64::from(head.seq < 200);
            }
        }
    }
    assert!(shorter > 20, "{shorter}");
}
