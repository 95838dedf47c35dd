//! Many threads, one source: nothing is found that was told to be old before it was asked for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::sync::cache::table::Rules;
use crate::sync::cache::{Answer, Cache};

const KEYS: u64 = 16;
const ROUNDS: u64 = 30_000;

/// Readers ask while a writer changes the source and tells of it. Answers how often somebody was
/// given what was older than had been told before he asked.
fn run(rules: Rules, seed: u64) -> u64 {
    let manager = Manager::local_with(clock());
    let cache: Cache<u64, u64> = manager.cache("numbers").entries(64).rules(rules).build().unwrap();
    let source: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(1)).collect();
    let told: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(1)).collect();
    let (done, wrong) = (AtomicBool::new(false), AtomicU64::new(0));
    // Nobody begins before all are there: else the writer may be through before anybody reads.
    let begun = std::sync::Barrier::new(5);
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let (cache, source, told, done, wrong) = (&cache, &source, &told, &done, &wrong);
            let begun = &begun;
            scope.spawn(move || {
                begun.wait();
                let mut state = seed ^ reader;
                while !done.load(Ordering::Relaxed) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let key = (state >> 33) % KEYS;
                    let index = usize::try_from(key).unwrap();
                    let floor = told[index].load(Ordering::SeqCst);
                    let answer = cache.get_or_load_with(&key, |_, load| {
                        load.tag("all");
                        let value = source[index].load(Ordering::SeqCst);
                        if state >> 60 == 0 {
                            std::thread::yield_now();
                        }
                        Ok(Some(value))
                    });
                    let Ok(Answer::Fresh(value)) = answer else { panic!("{answer:?}") };
                    wrong.fetch_add(u64::from(value < floor), Ordering::Relaxed);
                }
            });
        }
        let writer = log(1);
        manager.visible(&writer, u64::MAX);
        let mut state = seed;
        begun.wait();
        for seq in 1..=ROUNDS {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(3);
            let key = (state >> 33) % KEYS;
            let index = usize::try_from(key).unwrap();
            source[index].store(seq + 1, Ordering::SeqCst);
            let bytes = key.to_le_bytes();
            let of = match state >> 61 {
                0 => (TokenKind::Tag, &b"all"[..]),
                1 => (TokenKind::Prefix, &bytes[..1]),
                _ => (TokenKind::Key, &bytes[..]),
            };
            manager.apply(&writer, &token(seq, "numbers", of));
            told[index].store(seq + 1, Ordering::SeqCst);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(cache.stats().hits > 0 && cache.stats().loads > 0, "{}", cache.stats());
    wrong.into_inner()
}

#[test]
fn nobody_is_given_what_was_told_to_be_old_before_he_asked_whatever_threads_do() {
    assert_eq!(run(Rules::ALL, 7), 0);
}

/// The rules are what keeps it so: without tickets the same threads are soon given old values.
#[test]
fn without_tickets_somebody_is_given_an_old_value() {
    let without = Rules { tickets: false, ..Rules::ALL };
    let wrong = (0..20).map(|seed| run(without, seed)).find(|wrong| *wrong > 0);
    assert!(wrong.is_some(), "the threads do not meet");
}

#[test]
fn one_key_is_loaded_once_however_many_ask() {
    let cache: Cache<u64, u64> = Manager::local_with(clock()).cache("numbers").build().unwrap();
    for key in 0..50_u64 {
        let loads = AtomicU64::new(0);
        let begun = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begun.wait();
                    let answer = cache.get_or_load_with(&key, |_, _| {
                        loads.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                        Ok(Some(key))
                    });
                    assert_eq!(answer.unwrap(), Answer::Fresh(key));
                });
            }
        });
        assert_eq!(loads.into_inner(), 1, "key {key}");
    }
}
