//! Own tokens: from the window and from the log, visible marks, and what cannot be appended.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::log::{LogOptions, Opening};
use crate::sync::origin::{Incarnation, Lane, Origin};
use crate::types::Life;

fn tokens(life: u64) -> TokenLog {
    TokenLog {
        origin: Origin::from_u64(7),
        incarnation: Incarnation { counter: life, nonce: life * 31 },
        lane: Lane::Tokens,
    }
}

fn open(disk: &SimDisk, life: u64) -> Arc<Log> {
    let options = LogOptions {
        ring: Some("ring".into()),
        mark: Some("mark".into()),
        threads: false,
        segment_bytes_first: 256 << 10,
        segment_bytes_max: 512 << 10,
        frame_bytes_max: 128 << 10,
        ring_bytes: 512 << 10,
        ..LogOptions::new(Path::new("log"))
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let opening = Opening::new(&disk, options, 5, 0).unwrap();
    Arc::new(opening.start(Life { number: life, bits: life * 99 }).unwrap().0)
}

fn key(body: &[u8]) -> Said<'_> {
    Said { kind: TokenKind::Key, domain: DomainId::of("users"), body }
}

/// Everything from number `from` on, read in pieces of at most `bytes_max`; the running hash must
/// come out as the one of the head.
fn read_all(own: &Arc<Own>, from: Cursor, bytes_max: usize) -> BTreeMap<u64, Vec<u8>> {
    let (mut found, mut hash, mut next) = (BTreeMap::new(), from.hash, from.seq + 1);
    let mut reader = own.reader();
    let mut out = Vec::new();
    loop {
        out.clear();
        let Some(last) = reader.read(next, bytes_max, &mut out).unwrap() else { break };
        let mut rest = &*out;
        while !rest.is_empty() {
            let (token, after) = Token::decode(rest, &own.tokens()).unwrap();
            hash = chain(hash, &rest[..rest.len() - after.len()]);
            assert_eq!(token.seq, next, "without a hole");
            found.insert(token.seq, token.body.to_vec());
            next += 1;
            rest = after;
        }
        assert_eq!(last, next - 1);
    }
    assert_eq!((next - 1, hash), (own.head().seq, own.head().hash));
    found
}

/// Lone tokens, groups and tokens in frames of actors, more than the window holds; read from many
/// places in many sizes.
#[test]
fn what_was_published_is_read_from_the_window_and_from_the_log_alike() {
    let disk = SimDisk::new(1);
    let log = open(&disk, 1);
    let own = Arc::new(Own::new(Arc::clone(&log), tokens(1), Clock::System));
    let mut model = BTreeMap::new();
    let mut seq = 0;
    for round in 0..1_600_u64 {
        let bodies: Vec<_> = (0..round % 5)
            .map(|number| {
                vec![u8::try_from(round % 251).unwrap(); usize::try_from(round + number).unwrap()]
            })
            .collect();
        let said = bodies.iter().map(|body| key(body));
        let published = if round % 3 == 0 {
            let mut batch = Batch::new();
            batch.push(RecordKind::Turn, 1, &[]).unwrap();
            let first = Seq::new(round / 3 + 1).unwrap();
            own.publish_in(&mut batch, (StreamId::of("account", "alice"), first), said)
        } else {
            own.publish(said)
        };
        for body in &bodies {
            seq += 1;
            model.insert(seq, body.clone());
        }
        assert_eq!(published.unwrap().last, seq);
    }
    let start = Cursor::start(own.tokens());
    for bytes_max in [1, 700, 65_536, 1 << 20] {
        assert_eq!(read_all(&own, start, bytes_max), model, "in pieces of {bytes_max}");
    }
    let mut hashes = vec![0];
    let mut reader = own.reader();
    for number in 1..=seq {
        let mut out = Vec::new();
        reader.read(number, 1, &mut out).unwrap();
        hashes.push(chain(hashes[hashes.len() - 1], &out));
    }
    drop(reader);
    // From every place between, that many steps behind the head.
    for behind in (0..seq).step_by(97) {
        assert_eq!(own.hash_at(seq - behind), Some(hashes[usize::try_from(seq - behind).unwrap()]));
        let mut out = Vec::new();
        let last = own.reader().read(seq - behind, 1, &mut out).unwrap();
        assert_eq!(last, Some(seq - behind));
        let (token, rest) = Token::decode(&out, &own.tokens()).unwrap();
        assert_eq!(token.body, model[&(seq - behind)]);
        assert!(rest.is_empty(), "one is enough");
    }
    assert_eq!(own.reader().read(seq + 1, 100, &mut Vec::new()).unwrap(), None);

    // What is released is gone, and the hash at the floor is that of what follows.
    own.release(seq, 1);
    assert_eq!(own.floor().seq, 0, "the first is held");
    own.release(seq / 2, u64::MAX);
    let floor = own.floor();
    assert!(floor.seq <= seq / 2 && floor.seq + 2 * INDEXED > seq / 2, "{}", floor.seq);
    assert!(matches!(own.reader().read(floor.seq, 1, &mut Vec::new()), Err(Unread::Gone)));
    assert_eq!(read_all(&own, floor, 4_000).len() as u64, seq - floor.seq);

    // The next life finds what this one has published last.
    let head = own.head();
    let from = own.pinned().unwrap();
    log.sync().unwrap();
    drop((own, log));
    let log = open(&disk, 2);
    assert_eq!(Own::last_of(&log, (from, u64::MAX), floor).unwrap(), head);
}

#[test]
fn a_token_is_visible_once_its_frame_is_durable_and_not_before() {
    let disk = SimDisk::new(1);
    let log = open(&disk, 1);
    let own = Own::new(Arc::clone(&log), tokens(1), Clock::System);
    assert_eq!(own.pending(), None);
    for round in 1..200_u64 {
        own.publish([key(b"one"), key(b"two")].into_iter()).unwrap();
        if round % 7 == 0 {
            assert!(own.durable() < 2 * round);
            log.sync().unwrap();
            assert_eq!(own.durable(), 2 * round);
            assert_eq!(own.pending(), None);
        }
    }
}

#[test]
fn what_cannot_be_appended_takes_no_number() {
    let disk = SimDisk::new(1);
    let own = Own::new(open(&disk, 1), tokens(1), Clock::System);
    own.publish(std::iter::once(key(b"one"))).unwrap();
    let head = own.head();
    let large = vec![0; 200 << 10];
    let refused = own.publish([key(b"two"), key(&large)].into_iter());
    assert!(matches!(refused, Err(AppendError::GroupTooLarge { .. })), "{refused:?}");
    assert_eq!(own.head(), head);
    assert_eq!(own.publish(std::iter::once(key(b"two"))).unwrap().last, 2);
    let own = Arc::new(own);
    assert_eq!(read_all(&own, Cursor::start(own.tokens()), 100).len(), 2);
}
