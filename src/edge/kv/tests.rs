//! The stages, one behind the other, against a model that has only the set of what is held.

#![expect(clippy::print_stdout, reason = "a failure is to say its seed")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::edge::fault;
use crate::edge::pos::{Gap, Pos};
use crate::edge::stage::{Emit, Stage as _};

/// Takes what a stage lets go.
#[derive(Default)]
struct Out<T> {
    now: Duration,
    items: Vec<(Pos, T)>,
    skipped: Vec<(Pos, &'static str)>,
}

impl<T> Emit<T> for Out<T> {
    fn emit(&mut self, pos: Pos, item: T) {
        self.items.push((pos, item));
    }

    fn skip(&mut self, pos: Pos, reason: &'static str) {
        self.skipped.push((pos, reason));
    }

    fn poison(&mut self, pos: Pos, why: fault::Why) {
        panic!("{pos}: {why}");
    }

    fn now(&self) -> Duration {
        self.now
    }
}

fn out<T>() -> Out<T> {
    Out { now: Duration::ZERO, items: Vec::new(), skipped: Vec::new() }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    fn hash(&mut self) -> BlockHash {
        BlockHash(self.below(12))
    }
}

fn stored(rank: u32, parent: Option<u64>, hashes: &[u64]) -> KvEvent {
    let blocks =
        hashes.iter().map(|hash| Block { hash: BlockHash(*hash), tokens: *hash }).collect();
    let change = Change::Stored { parent: parent.map(BlockHash), blocks };
    KvEvent { change, ..KvEvent::cleared(rank) }
}

fn removed(rank: u32, hashes: &[u64]) -> KvEvent {
    let hashes = hashes.iter().copied().map(BlockHash).collect();
    KvEvent { change: Change::Removed(hashes), ..KvEvent::cleared(rank) }
}

/// Where a block is held: rank, medium, group, hash.
type Place = (u32, Medium, u32, u64);

fn places(event: &KvEvent) -> Vec<Place> {
    let place = |hash: &BlockHash| (event.rank, event.medium, event.group, hash.0);
    match &event.change {
        Change::Stored { blocks, .. } => blocks.iter().map(|block| place(&block.hash)).collect(),
        Change::Removed(hashes) => hashes.iter().map(place).collect(),
        Change::Cleared => Vec::new(),
    }
}

/// What an engine really holds: how many copies of each block.
#[derive(Clone, Default)]
struct Engine(BTreeMap<Place, u32>);

impl Engine {
    fn random(&mut self, random: &mut Random) -> KvEvent {
        let rank = u32::try_from(random.below(2)).unwrap();
        let medium = [Medium::Device, Medium::Host][usize::try_from(random.below(2)).unwrap()];
        let group = u32::try_from(random.below(2)).unwrap();
        let base = KvEvent { medium, group, ..KvEvent::cleared(rank) };
        if random.below(60) == 0 {
            self.0.retain(|(of, ..), _| *of != rank);
            return base;
        }
        let hashes: BTreeSet<BlockHash> = (0..=random.below(4)).map(|_| random.hash()).collect();
        if random.below(2) == 0 {
            // An engine removes what it has, each copy once.
            let held = |hash: &BlockHash| self.0.contains_key(&(rank, medium, group, hash.0));
            let change = Change::Removed(hashes.into_iter().filter(held).collect());
            let event = KvEvent { change, ..base };
            for place in places(&event) {
                let copies = self.0.get_mut(&place).unwrap();
                *copies -= 1;
                if *copies == 0 {
                    self.0.remove(&place);
                }
            }
            event
        } else {
            let hashes: Vec<u64> = hashes.iter().map(|hash| hash.0).collect();
            let event = KvEvent { change: stored(rank, Some(99), &hashes).change, ..base };
            for place in places(&event) {
                *self.0.entry(place).or_default() += 1;
            }
            event
        }
    }

    fn held(&self) -> BTreeSet<Place> {
        self.0.keys().copied().collect()
    }
}

/// Who reads what goes out, and takes nothing that changes nothing.
#[derive(Clone, Default)]
struct Reader(BTreeSet<Place>);

impl Reader {
    fn take(&mut self, event: &KvEvent) {
        match event.change {
            Change::Stored { .. } => {
                assert!(!places(event).is_empty(), "an event of no blocks");
                for place in places(event) {
                    assert!(self.0.insert(place), "{place:?} was there");
                }
            }
            Change::Removed(_) => {
                assert!(!places(event).is_empty(), "an event of no blocks");
                for place in places(event) {
                    assert!(self.0.remove(&place), "{place:?} was not there");
                }
            }
            Change::Cleared => self.0.retain(|(rank, ..)| *rank != event.rank),
        }
    }
}

/// A checkpoint: the state, who had read what then, and what has come since.
type Saved = (Vec<u8>, Reader, Vec<(Pos, KvEvent)>);
/// Makes the past unknown.
type Lose = fn(&mut Holders);

/// Thousands of events, saved and restored at any of them: what has gone on is what is held, and
/// nothing is said that changes nothing.
#[test]
fn what_has_gone_on_is_what_is_held_also_across_restarts() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (mut engine, mut reader) = (Engine::default(), Reader::default());
        let mut holders = Holders::new(1_000);
        // The last checkpoint, and what has come since, which comes again.
        let mut saved: Option<Saved> = None;
        for seq in 0..300 {
            // Several events of one input.
            let events: Vec<_> = (0..=random.below(2))
                .map(|_| (Pos::new(1, seq), engine.random(&mut random)))
                .collect();
            for (pos, event) in events {
                let mut out = out();
                holders.step(pos, event.clone(), &mut out).unwrap();
                assert_ne!(out.items.is_empty(), out.skipped.is_empty());
                out.items.iter().for_each(|(_, event)| reader.take(event));
                if let Some((.., since)) = &mut saved {
                    since.push((pos, event));
                }
            }
            assert_eq!(reader.0, engine.held());
            assert_eq!(holders.len(), engine.held().len());
            match random.below(30) {
                0 => {
                    let mut state = Vec::new();
                    assert!(holders.save(&mut state));
                    saved = Some((state, reader.clone(), Vec::new()));
                }
                1 => {
                    let Some((state, at, since)) = &saved else { continue };
                    holders = Holders::new(1_000);
                    holders.restore(Some(state)).unwrap();
                    reader = at.clone();
                    for (pos, event) in since {
                        let mut out = out();
                        holders.step(*pos, event.clone(), &mut out).unwrap();
                        out.items.iter().for_each(|(_, event)| reader.take(event));
                    }
                    assert_eq!(reader.0, engine.held(), "after a restart");
                }
                _ => {}
            }
        }
    }
}

/// An event that comes again adds no copy: the set has it already.
#[test]
fn a_block_stored_again_from_the_same_position_is_one_copy() {
    let mut holders = Holders::new(10);
    let (first, second) = (Pos::new(1, 1), Pos::new(1, 2));
    let step = |holders: &mut Holders, pos, event| {
        let mut out = out();
        holders.step(pos, event, &mut out).unwrap();
        out.items.len()
    };
    assert_eq!(step(&mut holders, first, stored(0, None, &[1])), 1);
    assert_eq!(step(&mut holders, second, removed(0, &[7])), 0);
    assert_eq!(step(&mut holders, first, stored(0, None, &[1])), 0);
    assert_eq!(step(&mut holders, second, removed(0, &[1])), 1, "there was one copy");
}

#[test]
fn where_the_past_is_lost_each_rank_is_cleared_before_anything_is_said_of_it() {
    let lose: [(&str, Lose); 4] = [
        ("a gap", |holders| holders.gap(&Gap { after: None, before: None, lost: None })),
        ("poison", |holders| holders.poisoned(Pos::new(1, 2))),
        ("no state", |holders| holders.restore(None).unwrap()),
        ("bad state", |holders| assert!(holders.restore(Some(&[1])).is_err())),
    ];
    for (what, lose) in lose {
        let mut holders = Holders::new(10);
        let mut before = out();
        holders.step(Pos::new(1, 1), stored(0, None, &[1, 2]), &mut before).unwrap();
        assert_eq!(before.items.len(), 1);
        lose(&mut holders);
        assert!(holders.is_empty(), "{what}");
        let mut out = out();
        for (seq, event) in [
            (2, stored(0, None, &[1])),
            (3, stored(1, None, &[1])),
            (4, stored(0, None, &[2])),
            (5, KvEvent::cleared(2)),
        ] {
            holders.step(Pos::new(1, seq), event, &mut out).unwrap();
        }
        let said: Vec<_> = out.items.into_iter().map(|(pos, event)| (pos.seq, event)).collect();
        let expected = [
            (2, KvEvent::cleared(0)),
            (2, stored(0, None, &[1])),
            (3, KvEvent::cleared(1)),
            (3, stored(1, None, &[1])),
            (4, stored(0, None, &[2])),
            (5, KvEvent::cleared(2)),
        ];
        assert_eq!(said, expected, "{what}");
    }
}

/// Memory has a bound: whoever passes it loses what was known, and says so.
#[test]
fn more_blocks_than_may_be_kept_are_cleared() {
    let mut holders = Holders::new(100);
    let mut out = out();
    for hash in 0..1_000 {
        holders.step(Pos::new(1, hash), stored(0, None, &[hash]), &mut out).unwrap();
        assert!(holders.len() <= 100);
    }
    let cleared = |event: &KvEvent| event.change == Change::Cleared;
    assert_eq!(out.items.iter().filter(|(_, event)| cleared(event)).count(), 9);
}

#[test]
fn a_known_block_in_a_chain_parts_it_and_each_part_has_its_parent() {
    let mut holders = Holders::new(100);
    let mut first = out();
    holders.step(Pos::new(1, 1), stored(0, Some(1), &[2, 3]), &mut first).unwrap();
    let mut out = out();
    holders.step(Pos::new(1, 2), stored(0, None, &[1, 2, 4, 5, 3, 6]), &mut out).unwrap();
    let said: Vec<_> = out.items.into_iter().map(|(_, event)| event).collect();
    let expected = [stored(0, None, &[1]), stored(0, Some(2), &[4, 5]), stored(0, Some(3), &[6])];
    assert_eq!(said, expected);
}

/// The rules of letting go, one by one.
#[test]
fn events_are_put_together_only_where_they_say_the_same_of_more_blocks() {
    let host = |event: KvEvent| KvEvent { medium: Medium::Host, ..event };
    let group = |event: KvEvent| KvEvent { group: 1, ..event };
    for (what, first, second, together) in [
        ("removed", removed(0, &[1]), removed(0, &[2]), Some(removed(0, &[1, 2]))),
        (
            "a chain",
            stored(0, None, &[1]),
            stored(0, Some(1), &[2]),
            Some(stored(0, None, &[1, 2])),
        ),
        ("no chain", stored(0, None, &[1]), stored(0, Some(7), &[2]), None),
        ("two roots", stored(0, None, &[1]), stored(0, None, &[2]), None),
        ("kind", stored(0, None, &[1]), removed(0, &[1]), None),
        ("rank", removed(0, &[1]), removed(1, &[1]), None),
        ("medium", removed(0, &[1]), host(removed(0, &[1])), None),
        ("group", removed(0, &[1]), group(removed(0, &[1])), None),
        ("cleared", removed(0, &[1]), KvEvent::cleared(0), None),
        ("too many", removed(0, &[1, 2]), removed(0, &[3, 4]), None),
    ] {
        let mut gather = Gather::new(3, Duration::from_secs(1));
        let (one, two) = (Pos::new(1, 1), Pos::new(1, 2));
        let mut out = out();
        gather.step(one, first.clone(), &mut out).unwrap();
        assert_eq!(gather.held(), Some(one), "{what}");
        gather.step(two, second.clone(), &mut out).unwrap();
        gather.flush(true, &mut out).unwrap();
        assert_eq!(gather.held(), None, "{what}");
        let expected = match together {
            Some(event) => vec![(two, event)],
            None => vec![(one, first), (two, second)],
        };
        assert_eq!(out.items, expected, "{what}");
    }
}

#[test]
fn an_event_is_held_back_no_longer_than_was_asked_for() {
    let mut gather = Gather::new(128, Duration::from_mins(1));
    let mut out = out();
    gather.step(Pos::new(1, 1), removed(0, &[1]), &mut out).unwrap();
    assert_eq!(gather.due(), Some(Duration::from_secs(15)), "nor longer than that");
    out.now = Duration::from_secs(14);
    gather.flush(false, &mut out).unwrap();
    assert!(out.items.is_empty());
    out.now = Duration::from_secs(15);
    gather.flush(false, &mut out).unwrap();
    assert_eq!(out.items.len(), 1);
}

#[test]
fn numbers_go_on_where_they_were_saved() {
    let mut number = Number::default();
    let ids = |number: &mut Number, count: u64| {
        let mut out = out();
        for seq in 0..count {
            number.step(Pos::new(1, seq), KvEvent::cleared(0), &mut out).unwrap();
        }
        out.items.iter().map(|(_, event)| event.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&mut number, 2), [1, 2]);
    let mut state = Vec::new();
    assert!(number.save(&mut state));
    assert_eq!(ids(&mut number, 2), [3, 4]);
    let mut number = Number::default();
    number.restore(Some(&state)).unwrap();
    assert_eq!(ids(&mut number, 2), [3, 4], "the same again");
    assert!(number.restore(Some(&[1])).is_err());
}

fn batch(events: Vec<EngineEvent>, rank: Option<u32>) -> Told {
    Told::Batch(Batch { ts: 1.0, rank, events, unknown: 0 }.encode(Schema::Maps))
}

#[test]
fn a_cut_and_a_batch_that_cannot_be_read_clear_every_rank_that_was_seen() {
    let mut normalise = Normalise::new(5);
    let mut out = out();
    let removed =
        EngineEvent::Removed { hashes: vec![BlockHash(1)], medium: Medium::Device, group: 0 };
    normalise.step(Pos::new(1, 1), batch(vec![removed], Some(2)), &mut out).unwrap();
    let mut state = Vec::new();
    assert!(normalise.save(&mut state));
    let mut normalise = Normalise::new(5);
    normalise.restore(Some(&state)).unwrap();
    out.items.clear();
    let cut = Told::Cut(Cut { why: Why::Restarted, lost: None });
    normalise.step(Pos::new(2, 0), cut, &mut out).unwrap();
    let bad = normalise.step(Pos::new(2, 1), Told::Batch(vec![0xc1]), &mut out);
    assert!(matches!(bad, Err(fault::Fault::Poison { pos, .. }) if pos == Pos::new(2, 1)));
    let said: Vec<_> = out.items.iter().map(|(pos, event)| (pos.seq, event.rank)).collect();
    assert_eq!(said, [(0, 2), (0, 5), (1, 2), (1, 5)]);
    assert!(out.items.iter().all(|(_, event)| event.change == Change::Cleared));
}

/// XXH3-64 with seed 1337 over the tokens as u32 LE, as Dynamo's Python and Rust compute it.
#[test]
fn a_block_s_tokens_have_the_hash_that_dynamo_gives_them() {
    let stored = |tokens: Vec<u32>, block_size| {
        let hashes = vec![BlockHash(1), BlockHash(2)];
        let stored = EngineStored { hashes, tokens, block_size, ..EngineStored::default() };
        batch(vec![EngineEvent::Stored(stored)], None)
    };
    let mut out = out();
    let mut normalise = Normalise::new(0);
    normalise.step(Pos::new(1, 1), stored(vec![1, 2, 3, 4, 5, 6, 7, 8], 4), &mut out).unwrap();
    let Change::Stored { blocks, .. } = &out.items[0].1.change else { panic!("{:?}", out.items) };
    assert_eq!(blocks.iter().map(|block| block.tokens).collect::<Vec<_>>(), TOKENS);
    // Tokens are missing: the first block is whole, and is all that is said; then none is.
    out.items.clear();
    normalise.step(Pos::new(1, 2), stored(vec![1, 2, 3, 4, 5], 4), &mut out).unwrap();
    assert_eq!(out.items[0].1.blocks(), 1);
    for (tokens, block_size) in [(vec![1, 2, 3, 4], 0), (vec![1], 4)] {
        normalise.step(Pos::new(1, 3), stored(tokens, block_size), &mut out).unwrap();
    }
    assert_eq!(out.items.len(), 1);
    assert_eq!(out.skipped.len(), 2);
}

/// By Python's xxhash: `xxh3_64_intdigest(struct.pack("<4I", 1, 2, 3, 4), seed=1337)` and 5 to 8.
const TOKENS: [u64; 2] = [14_643_705_804_678_351_452, 16_777_012_769_546_811_212];
