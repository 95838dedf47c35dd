//! What lies below memory is believed only as far as it proves itself.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::*;
use crate::sync::apply::{Gone, History};
use crate::sync::cache::{Answer, Cache, SledTier, SledTierOptions, SledTierState, Tier};
use crate::sync::origin::Cursor;

type Texts = Cache<String, String>;

/// A tier that forgets nothing: what is removed from it stays.
#[derive(Debug, Default)]
struct Stubborn {
    records: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

impl Tier for Stubborn {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.records.lock().get(key).cloned()
    }

    fn put(&self, key: &[u8], record: &[u8]) {
        self.records.lock().insert(key.to_vec(), record.to_vec());
    }

    fn remove(&self, _key: &[u8]) {}

    fn clear(&self) {}
}

#[derive(Clone, Debug)]
struct Said {
    domain: DomainId,
    kind: TokenKind,
    body: Vec<u8>,
}

/// Logs of tokens, as a node keeps them.
#[derive(Debug, Default)]
struct Logs {
    logs: Mutex<HashMap<TokenLog, (u64, Vec<Said>)>>,
}

fn hash(log: &TokenLog, seq: u64) -> u64 {
    if seq == 0 { 0 } else { log.origin.get() * 1_000 + seq }
}

fn cursor(log: TokenLog, seq: u64) -> Cursor {
    Cursor { log, seq, hash: hash(&log, seq) }
}

impl Logs {
    fn say(&self, log: TokenLog, kind: TokenKind, body: &[u8]) -> u64 {
        let mut logs = self.logs.lock();
        let (floor, said) = logs.entry(log).or_default();
        said.push(Said { domain: DomainId::of("texts"), kind, body: body.to_vec() });
        *floor + said.len() as u64
    }

    /// Drops the tokens up to `floor`.
    fn drop_to(&self, log: TokenLog, floor: u64) {
        let mut logs = self.logs.lock();
        let (before, said) = logs.get_mut(&log).unwrap();
        let dropped = usize::try_from(floor - *before).unwrap();
        drop(said.drain(..dropped));
        *before = floor;
    }

    /// Loses the newest, as a crash may.
    fn lose(&self, log: TokenLog, count: usize) {
        let mut logs = self.logs.lock();
        let said = &mut logs.get_mut(&log).unwrap().1;
        said.truncate(said.len() - count);
    }
}

impl History for Logs {
    fn marks(&self) -> Arc<[Cursor]> {
        let logs = self.logs.lock();
        logs.iter().map(|(log, (floor, said))| cursor(*log, floor + said.len() as u64)).collect()
    }

    fn stands(&self, at: &Cursor) -> bool {
        let logs = self.logs.lock();
        let Some((floor, said)) = logs.get(&at.log) else { return false };
        (*floor..=*floor + said.len() as u64).contains(&at.seq) && hash(&at.log, at.seq) == at.hash
    }

    fn floors(&self) -> Vec<Cursor> {
        self.logs.lock().iter().map(|(log, (floor, _))| cursor(*log, *floor)).collect()
    }

    fn after(&self, from: &Cursor, each: &mut dyn FnMut(&Token<'_>)) -> Result<(), Gone> {
        let logs = self.logs.lock();
        let (floor, said) = logs.get(&from.log).ok_or(Gone)?;
        for (seq, said) in (floor + 1..).zip(said) {
            let (time, body) = (HybridTime::from_millis(seq), &*said.body);
            each(&Token { seq, time, domain: said.domain, kind: said.kind, flags: 0, body });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Nobody;

impl Publisher for Nobody {
    fn publish(
        &self,
        _domain: DomainId,
        _kind: TokenKind,
        _body: &[u8],
    ) -> Result<Published, PublishError> {
        Err(PublishError::Closed)
    }
}

/// The next life of a node over the same logs and the same tier.
fn life(logs: &Arc<Logs>, tier: &Arc<Stubborn>) -> (Manager, Texts) {
    let manager = Manager::local_with(clock());
    let history: Arc<dyn History> = Arc::clone(logs) as _;
    manager.connect(Arc::new(Nobody), Some(history));
    manager.visible(&log(1), u64::MAX);
    let tier: Arc<dyn Tier> = Arc::clone(tier) as _;
    let cache = manager.cache("texts").tier(tier, None).build().unwrap();
    (manager, cache)
}

/// Fills a key with a tag, with what a load would.
fn fill(cache: &Texts, key: &str, value: &str) {
    let answer = cache.get_or_load_with(key, |_, load| {
        load.tag("red");
        Ok(Some(value.to_owned()))
    });
    assert_eq!(answer.unwrap(), Answer::Fresh(value.to_owned()));
}

fn intent(key: &str) -> Vec<u8> {
    let mut body = 5_u64.to_le_bytes().to_vec();
    body.extend_from_slice(&u32::try_from(key.len()).unwrap().to_le_bytes());
    body.extend_from_slice(key.as_bytes());
    body
}

#[test]
fn an_entry_of_an_earlier_life_is_found_unless_a_token_after_its_stamp_speaks_of_it() {
    let done = 5_u64.to_le_bytes();
    let put = [&3_u32.to_le_bytes()[..], b"key", b"value"].concat();
    let (own, other) = (intent("key"), intent("other"));
    let cases: [(TokenKind, &[u8], bool); 15] = [
        (TokenKind::Key, b"key", true),
        (TokenKind::Key, b"other", false),
        (TokenKind::Tag, b"red", true),
        (TokenKind::Tag, b"blue", false),
        (TokenKind::Prefix, b"ke", true),
        (TokenKind::Prefix, b"ex", false),
        (TokenKind::All, b"", true),
        (TokenKind::Unknown(77), b"", true),
        (TokenKind::Put, &put, true),
        (TokenKind::Put, b"bad", true),
        (TokenKind::Intent, &own, true),
        (TokenKind::Intent, &other, false),
        (TokenKind::Done, &done, true),
        (TokenKind::Birth, b"key", false),
        (TokenKind::Probe, b"key", false),
    ];
    for (kind, body, speaks) in cases {
        for before in [true, false] {
            let (logs, tier) = (Arc::new(Logs::default()), Arc::new(Stubborn::default()));
            logs.say(log(1), TokenKind::Probe, b"");
            if before {
                logs.say(log(1), kind, body);
            }
            let (_, first) = life(&logs, &tier);
            fill(&first, "key", "kept");
            drop(first);
            if !before {
                logs.say(log(1), kind, body);
            }
            let (_, second) = life(&logs, &tier);
            let found = second.get("key").fresh().is_some();
            assert_eq!(found, before || !speaks, "{kind:?} {body:?}, before: {before}");
            let stats = second.stats();
            assert_eq!((stats.tier_hits, stats.tier_refused), if found { (1, 0) } else { (0, 1) });
        }
    }
}

/// What happened between two lives, and whether the stamp stands then.
type End = (&'static str, &'static dyn Fn(&Logs), bool);

#[test]
fn a_stamp_that_does_not_stand_on_the_logs_proves_nothing() {
    let ends: [End; 5] = [
        ("nothing happened", &|_| {}, true),
        ("the crash took tokens that it had seen", &|logs| logs.lose(log(1), 1), false),
        (
            "others are in their place",
            &|logs| {
                logs.lose(log(1), 2);
                logs.say(log(1), TokenKind::Probe, b"");
            },
            false,
        ),
        (
            "what came after it is not kept",
            &|logs| {
                logs.say(log(1), TokenKind::Key, b"key");
                logs.say(log(1), TokenKind::Probe, b"");
                logs.drop_to(log(1), 5);
            },
            false,
        ),
        ("the log is gone", &|logs| drop(logs.logs.lock().remove(&log(1))), false),
    ];
    for (what, end, stands) in ends {
        let (logs, tier) = (Arc::new(Logs::default()), Arc::new(Stubborn::default()));
        for _ in 0..4 {
            logs.say(log(1), TokenKind::Probe, b"");
        }
        let (_, first) = life(&logs, &tier);
        fill(&first, "key", "kept");
        drop(first);
        end(&logs);
        let (_, second) = life(&logs, &tier);
        assert_eq!(second.get("key").fresh().is_some(), stands, "{what}");
    }
}

#[test]
fn a_log_that_began_after_the_fill_counts_from_its_beginning_or_not_at_all() {
    for cut in [false, true] {
        let (logs, tier) = (Arc::new(Logs::default()), Arc::new(Stubborn::default()));
        logs.say(log(1), TokenKind::Probe, b"");
        let (_, first) = life(&logs, &tier);
        fill(&first, "key", "kept");
        fill(&first, "other", "kept");
        drop(first);
        logs.say(log(2), TokenKind::Key, b"key");
        logs.say(log(2), TokenKind::Probe, b"");
        if cut {
            logs.drop_to(log(2), 1);
        }
        let (_, second) = life(&logs, &tier);
        assert!(second.get("key").is_miss());
        assert_eq!(second.get("other").fresh().is_some(), !cut);
    }
}

#[test]
fn in_its_own_life_a_record_that_comes_back_is_no_hit() {
    let (logs, tier) = (Arc::new(Logs::default()), Arc::new(Stubborn::default()));
    let (manager, cache) = life(&logs, &tier);
    let of = [
        (TokenKind::Key, &b"key"[..]),
        (TokenKind::Tag, b"red"),
        (TokenKind::Prefix, b"k"),
        (TokenKind::All, b""),
    ];
    for (seq, (kind, body)) in (1..).zip(of) {
        fill(&cache, "key", "kept");
        logs.say(log(1), kind, body);
        manager.apply(&log(1), &token(seq, "texts", (kind, body)));
        assert!(tier.get(b"key").is_some(), "it was not deleted");
        assert!(cache.get("key").is_miss(), "{kind:?}");
    }
    assert_eq!(cache.stats().tier_hits, 0);
}

#[test]
fn what_fell_out_of_memory_is_found_below_and_comes_back() {
    let tier = Arc::new(Stubborn::default());
    let below: Arc<dyn Tier> = Arc::clone(&tier) as _;
    let cache: Cache<u64, u64> = Manager::local_with(clock())
        .cache("numbers")
        .entries(10)
        .tier(below, None)
        .build()
        .unwrap();
    for key in 0..100_u64 {
        cache.set(&key, key).unwrap();
    }
    assert!(cache.stats().evicted >= 85);
    // Keys of one stripe share a generation: a set of one voids what the tier has of the other.
    let answers = (0..100_u64).map(|key| (key, cache.get(&key)));
    let missed = answers.filter(|(key, answer)| {
        assert!(answer.is_miss() || *answer == Answer::Fresh(*key), "{answer:?}");
        answer.is_miss()
    });
    let missed = missed.count();
    assert!(missed <= 8, "{missed} of 100 keys are in a stripe with another");
    assert!(cache.stats().tier_hits >= 77);
    cache.remove(&5).unwrap();
    assert!(cache.get(&5).is_miss());
}

#[test]
fn without_logs_what_an_earlier_life_kept_is_not_believed() {
    let tier = Arc::new(Stubborn::default());
    for _life in 0..2 {
        let below: Arc<dyn Tier> = Arc::clone(&tier) as _;
        let cache: Texts =
            Manager::local_with(clock()).cache("texts").tier(below, None).build().unwrap();
        assert!(cache.get("key").is_miss());
        fill(&cache, "key", "kept");
    }
}

#[test]
fn a_record_with_any_bit_flipped_is_a_miss() {
    let (logs, tier) = (Arc::new(Logs::default()), Arc::new(Stubborn::default()));
    let (_, cache) = life(&logs, &tier);
    fill(&cache, "key", "kept");
    let record = tier.get(b"key").unwrap();
    for bit in 0..record.len() * 8 {
        let mut damaged = record.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        tier.put(b"key", &damaged);
        drop(
            cache
                .0
                .table
                .write(cache.0.table.probe(b"key").hash)
                .unwrap()
                .remove(&cache.0.table.probe(b"key"), None),
        );
        assert!(cache.get("key").is_miss(), "bit {bit}");
    }
}

#[test]
fn sled_keeps_over_a_reopen_is_bounded_and_is_dropped_when_damaged_or_late() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tier");
    let options = SledTierOptions { bytes_max: 1 << 20, open_limit: Duration::from_mins(1) };
    let tier = SledTier::open(&path, options);
    assert_eq!(tier.state(), SledTierState::New);
    tier.put(b"key", b"record");
    assert_eq!(tier.get(b"key").as_deref(), Some(&b"record"[..]));
    tier.flush();
    drop(tier);

    let tier = SledTier::open(&path, options);
    assert_eq!(tier.state(), SledTierState::Kept);
    assert_eq!(tier.get(b"key").as_deref(), Some(&b"record"[..]));
    for number in 0..4_000_u64 {
        tier.put(&number.to_le_bytes(), &[7; 1_000]);
    }
    let left = (0..4_000_u64).filter(|number| tier.get(&number.to_le_bytes()).is_some()).count();
    assert!((500..=1_050).contains(&left), "{left}");
    assert!(tier.get(&3_999_u64.to_le_bytes()).is_some());
    tier.remove(&3_999_u64.to_le_bytes());
    assert!(tier.get(&3_999_u64.to_le_bytes()).is_none());
    tier.clear();
    assert!(tier.get(&3_998_u64.to_le_bytes()).is_none());
    drop(tier);

    std::fs::copy(path.join("db"), path.join("conf")).unwrap();
    let tier = SledTier::open(&path, options);
    assert!(matches!(tier.state(), SledTierState::Dropped(_)), "{:?}", tier.state());
    tier.put(b"key", b"new");
    assert_eq!(tier.get(b"key").as_deref(), Some(&b"new"[..]));
    drop(tier);

    let late = SledTierOptions { open_limit: Duration::ZERO, ..options };
    let tier = SledTier::open(&path, late);
    assert!(matches!(tier.state(), SledTierState::Absent(_)), "{:?}", tier.state());
    tier.put(b"key", b"lost");
    assert_eq!(tier.get(b"key"), None);
}
