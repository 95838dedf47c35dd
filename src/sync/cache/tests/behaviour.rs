//! One call after the other: what each answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::sync::apply::{Flush, FlushReason};
use crate::sync::cache::{
    Answer, BuildError, Cache, EventKind, LoadError, Stale, WhenStale, Why, WriteError,
};
use crate::sync::freshness::Freshness;

type Texts = Cache<String, String>;

fn fresh(value: &str) -> Answer<String> {
    Answer::Fresh(value.to_owned())
}

/// A source that counts, and fails when told to.
#[derive(Clone, Default)]
struct Source {
    asked: Arc<AtomicU64>,
    down: Arc<AtomicBool>,
}

impl Source {
    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn ask(&self) -> Result<Option<String>, crate::sync::cache::BoxError> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if self.down.load(Ordering::Relaxed) {
            Err("down".into())
        } else {
            Ok(Some(number.to_string()))
        }
    }
}

#[test]
fn what_is_set_is_found_until_it_is_removed_by_key_tag_prefix_or_all() {
    let cache: Texts = Manager::local_with(clock()).cache("texts").build().unwrap();
    let fill = || {
        cache
            .set_with("user/1", "one".to_owned(), |load| {
                load.tag("red");
            })
            .unwrap();
        cache.set("user/2", "two".to_owned()).unwrap();
        cache.set_many([("page/1", "three".to_owned()), ("page/2", "four".to_owned())]).unwrap();
    };
    let found = || {
        let keys = ["user/1", "user/2", "page/1", "page/2"];
        cache.get_many(keys).into_iter().map(|answer| answer.fresh().is_some()).collect::<Vec<_>>()
    };
    fill();
    assert_eq!(cache.get("user/1"), fresh("one"));
    assert_eq!(found(), [true; 4]);
    cache.remove("page/1").unwrap();
    assert_eq!(found(), [true, true, false, true]);
    cache.remove_tag("red").unwrap();
    assert_eq!(found(), [false, true, false, true]);
    fill();
    assert_eq!(found(), [true; 4]);
    cache.remove_prefix("user/").unwrap();
    assert_eq!(found(), [false, false, true, true]);
    fill();
    cache.clear().unwrap();
    assert_eq!(found(), [false; 4]);
    fill();
    cache.remove_many(["user/1", "page/2"]).unwrap();
    assert_eq!(found(), [false, true, true, false]);
    assert_eq!(cache.stats().entries, 2, "what was removed by its key takes no room");
    cache.clear().unwrap();
    cache.sweep();
    assert_eq!(cache.stats().entries, 0);
}

#[test]
fn time_ends_an_entry_its_own_before_the_caches() {
    let clock = clock();
    let cache: Texts = Manager::local_with(Arc::clone(&clock))
        .cache("texts")
        .ttl(10 * SECOND)
        .jitter(0.0)
        .build()
        .unwrap();
    cache.set("a", "cache's".to_owned()).unwrap();
    cache
        .set_with("b", "own".to_owned(), |load| {
            load.ttl(3 * SECOND);
        })
        .unwrap();
    cache
        .set_with("c", "idle".to_owned(), |load| {
            load.idle(2 * SECOND);
        })
        .unwrap();
    let found = || ["a", "b", "c"].map(|key| cache.get(key).fresh().is_some());
    for _ in 0..2 {
        pass(&clock, SECOND);
        assert_eq!(found(), [true; 3], "asked for, the idle one stays");
    }
    pass(&clock, SECOND);
    assert_eq!(found(), [true, false, true]);
    pass(&clock, 2 * SECOND);
    assert_eq!(found(), [true, false, false]);
    pass(&clock, 5 * SECOND);
    assert_eq!(found(), [false; 3]);
}

#[test]
fn jitter_ends_entries_at_different_times_none_too_late() {
    let clock = clock();
    let cache: Cache<u64, u64> = Manager::local_with(Arc::clone(&clock))
        .cache("numbers")
        .ttl(100 * SECOND)
        .jitter(0.5)
        .build()
        .unwrap();
    for key in 0..1_000 {
        cache.set(&key, key).unwrap();
    }
    let left = || (0..1_000_u64).filter(|key| cache.get(key).fresh().is_some()).count();
    pass(&clock, 49 * SECOND);
    assert_eq!(left(), 1_000);
    pass(&clock, 26 * SECOND);
    assert!((350..650).contains(&left()), "{}", left());
    pass(&clock, 25 * SECOND);
    assert_eq!(left(), 0);
}

#[test]
fn the_source_is_asked_once_until_a_token_speaks_of_the_key() {
    let source = Source::default();
    let asked = source.clone();
    let manager = Manager::local_with(clock());
    let cache: Texts = manager.cache("texts").loader(move |_, _| asked.ask()).build().unwrap();
    for _ in 0..3 {
        assert_eq!(cache.get_or_load("a").unwrap(), fresh("1"));
    }
    manager.visible(&log(1), 10);
    manager.apply(&log(1), &token(1, "texts", (TokenKind::Key, b"b")));
    assert_eq!(cache.get_or_load("a").unwrap(), fresh("1"));
    manager.apply(&log(1), &token(2, "other", (TokenKind::Key, b"a")));
    assert_eq!(cache.get_or_load("a").unwrap(), fresh("1"));
    for (seq, kind, body) in [
        (3, TokenKind::Key, &b"a"[..]),
        (4, TokenKind::Prefix, b""),
        (5, TokenKind::All, b""),
        (6, TokenKind::Unknown(99), b""),
        (7, TokenKind::Done, b"12345678"),
        (8, TokenKind::Intent, b"short"),
        (9, TokenKind::Put, b"x"),
    ] {
        let before = source.asked();
        manager.apply(&log(1), &token(seq, "texts", (kind, body)));
        assert!(cache.get("a").is_miss(), "{kind:?}");
        assert_eq!(cache.get_or_load("a").unwrap(), fresh(&(before + 1).to_string()), "{kind:?}");
    }
    let flags = Token { flags: 1, ..token(10, "texts", (TokenKind::Probe, b"")) };
    manager.apply(&log(1), &flags);
    assert!(cache.get("a").is_miss(), "a flag that is not known here");
    cache.get_or_load("a").unwrap().any();
    let flush =
        Flush { domains: Vec::new(), reason: FlushReason::Gap, floor: HybridTime::default() };
    manager.flush(&flush);
    assert!(cache.get("a").is_miss());
}

#[test]
fn what_says_nothing_of_values_leaves_them() {
    let manager = Manager::local_with(clock());
    let cache: Texts = manager.cache("texts").build().unwrap();
    cache.set("a", "one".to_owned()).unwrap();
    let kinds = [TokenKind::Birth, TokenKind::Join, TokenKind::Leave, TokenKind::Probe];
    for (seq, kind) in (1..).zip(kinds) {
        manager.apply(&log(1), &token(seq, "texts", (kind, b"a")));
        assert_eq!(cache.get("a"), fresh("one"), "{kind:?}");
    }
}

#[test]
fn that_there_is_nothing_is_not_remembered_unless_asked_for() {
    let asked = AtomicU64::new(0);
    let cache: Texts = Manager::local_with(clock()).cache("texts").build().unwrap();
    for count in 1..4 {
        let none = cache.get_or_load_with("a", |_, _| {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        });
        assert_eq!(none.unwrap(), Answer::Absent);
        assert_eq!(asked.load(Ordering::Relaxed), count);
    }
}

#[test]
fn that_there_is_nothing_ends_with_its_own_time() {
    let (asked, clock) = (Arc::new(AtomicU64::new(0)), clock());
    let count = Arc::clone(&asked);
    let cache: Texts = Manager::local_with(Arc::clone(&clock))
        .cache("texts")
        .jitter(0.0)
        .negative_ttl(5 * SECOND)
        .loader(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        })
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(cache.get_or_load("a").unwrap(), Answer::Absent);
        assert_eq!(cache.get("a"), Answer::Absent);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    pass(&clock, 5 * SECOND);
    assert!(cache.get("a").is_miss());
    assert_eq!(cache.get_or_load("a").unwrap(), Answer::Absent);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn where_the_source_fails_expired_entries_are_served_as_stale_and_invalidated_ones_only_if_asked() {
    for invalidated in [false, true] {
        let (source, clock) = (Source::default(), clock());
        let asked = source.clone();
        let manager = Manager::local_with(Arc::clone(&clock));
        let cache: Texts = manager
            .cache("texts")
            .ttl(10 * SECOND)
            .jitter(0.0)
            .stale_on_error(20 * SECOND, 2 * SECOND)
            .serve_invalidated(invalidated)
            .loader(move |_, _| asked.ask())
            .build()
            .unwrap();
        assert_eq!(cache.get_or_load("a").unwrap(), fresh("1"));
        source.down.store(true, Ordering::Relaxed);
        pass(&clock, 11 * SECOND);
        let stale = |seconds: u32, why| Answer::Stale {
            value: "1".to_owned(),
            since: seconds * SECOND,
            why,
        };
        assert!(cache.get("a").is_miss(), "nobody failed yet");
        assert_eq!(cache.get_or_load("a").unwrap(), stale(1, Stale::Expired));
        assert_eq!(source.asked(), 2);
        assert_eq!(cache.get_or_load("a").unwrap(), stale(1, Stale::Expired));
        assert_eq!(source.asked(), 2, "it is left alone for a while");
        pass(&clock, 2 * SECOND);
        assert_eq!(cache.get_or_load("a").unwrap(), stale(3, Stale::Expired));
        assert_eq!(source.asked(), 3);
        cache.remove("a").unwrap();
        pass(&clock, SECOND);
        let answer = cache.get_or_load("a");
        if invalidated {
            assert_eq!(answer.unwrap(), stale(1, Stale::Invalidated));
            assert!(cache.get("a").is_miss());
        } else {
            assert!(matches!(answer, Err(LoadError::Source(_))), "{answer:?}");
        }
        source.down.store(false, Ordering::Relaxed);
        let number = (source.asked() + 1).to_string();
        assert_eq!(cache.get_or_load("a").unwrap(), fresh(&number));
        source.down.store(true, Ordering::Relaxed);
        pass(&clock, 31 * SECOND);
        let answer = cache.get_or_load("a");
        assert!(matches!(answer, Err(LoadError::Source(_))), "too old: {answer:?}");
    }
}

#[test]
fn a_hit_late_in_an_entrys_time_has_it_loaded_anew_behind_it() {
    let (source, clock) = (Source::default(), clock());
    let asked = source.clone();
    let cache: Texts = Manager::local_with(Arc::clone(&clock))
        .cache("texts")
        .ttl(10 * SECOND)
        .jitter(0.0)
        .refresh_ahead(0.5)
        .loader(move |_, _| asked.ask())
        .build()
        .unwrap();
    assert_eq!(cache.get_or_load("a").unwrap(), fresh("1"));
    pass(&clock, 4 * SECOND);
    assert_eq!(cache.get("a"), fresh("1"));
    assert_eq!(source.asked(), 1);
    pass(&clock, 2 * SECOND);
    assert!(cache.get("a").fresh().is_some());
    while cache.get("a") != fresh("2") {
        std::thread::yield_now();
    }
    pass(&clock, 9 * SECOND);
    assert!(cache.get("a").fresh().is_some(), "its time begins with the load");
    assert!(source.asked() <= 3);
}

#[test]
fn who_loads_too_long_is_not_waited_for_and_is_remembered_all_the_same() {
    let (go, gone) = crossbeam_channel::bounded::<()>(0);
    let cache: Texts = Manager::local_with(clock())
        .cache("texts")
        .deadline(Duration::from_millis(1))
        .loader(move |_, _| {
            gone.recv()?;
            Ok(Some("late".to_owned()))
        })
        .build()
        .unwrap();
    for _ in 0..3 {
        let answer = cache.get_or_load("a");
        assert!(matches!(answer, Err(LoadError::TimedOut(_))), "{answer:?}");
    }
    go.send(()).unwrap();
    while cache.get("a") != fresh("late") {
        std::thread::yield_now();
    }
    assert_eq!(cache.stats().loads, 1);
}

#[test]
fn more_loads_than_the_background_takes_are_refused_by_name() {
    let (go, gone) = crossbeam_channel::unbounded::<()>();
    let cache: Cache<u64, u64> = Manager::local_with(clock())
        .cache("numbers")
        .deadline(Duration::from_micros(1))
        .threads(1)
        .loader(move |key, _| {
            gone.recv()?;
            Ok(Some(*key))
        })
        .build()
        .unwrap();
    let mut busy = 0;
    for key in 0..200_u64 {
        busy += u32::from(matches!(cache.get_or_load(&key), Err(LoadError::Busy)));
    }
    assert!(busy > 100, "{busy}");
    drop(go);
}

#[test]
fn a_loader_that_panics_or_is_missing_is_an_error_and_the_key_is_free_again() {
    let cache: Texts = Manager::local_with(clock()).cache("texts").build().unwrap();
    assert!(matches!(cache.get_or_load("a"), Err(LoadError::NoLoader)));
    std::thread::scope(|scope| {
        let (begun, has_begun) = crossbeam_channel::bounded::<()>(0);
        let cache = &cache;
        let leader = scope.spawn(move || {
            let load = |_: &String, _: &mut _| {
                begun.send(()).unwrap();
                while cache.stats().waited == 0 {
                    std::thread::yield_now();
                }
                std::panic::resume_unwind(Box::new("a load fell"))
            };
            cache.get_or_load_with("a", load).unwrap().any()
        });
        has_begun.recv().unwrap();
        let answer = cache.get_or_load_with("a", |_, _| Ok(Some("second".to_owned())));
        assert!(matches!(answer, Err(LoadError::Panicked)), "{answer:?}");
        assert!(leader.join().is_err());
    });
    let answer = cache.get_or_load_with("a", |_, _| Ok(Some("third".to_owned())));
    assert_eq!(answer.unwrap(), fresh("third"));
}

#[test]
fn without_a_lease_what_is_remembered_is_refused_asked_for_again_or_served_with_its_age() {
    for policy in [WhenStale::Refuse, WhenStale::Revalidate, WhenStale::Serve] {
        let (source, clock) = (Source::default(), clock());
        let freshness = Freshness::new(Arc::clone(&clock), 2 * SECOND);
        let manager = Manager::new(Arc::clone(&clock));
        manager.declare("texts", Arc::clone(&freshness));
        let asked = source.clone();
        let cache: Texts = manager
            .cache("texts")
            .when_stale(policy)
            .loader(move |_, _| asked.ask())
            .build()
            .unwrap();
        freshness.set(Some(clock.now()));
        assert_eq!(cache.get_or_load("a").unwrap(), fresh("1"));
        pass(&clock, 2 * SECOND);
        assert_eq!(cache.get("a"), fresh("1"));
        pass(&clock, SECOND);
        let (got, loaded) = (cache.get("a"), cache.get_or_load("a"));
        let stale = Answer::Stale { value: "1".to_owned(), since: 3 * SECOND, why: Stale::Lease };
        match policy {
            WhenStale::Refuse => {
                assert!(got.is_miss());
                assert!(matches!(loaded, Err(LoadError::Stale(age)) if age == 3 * SECOND));
            }
            WhenStale::Revalidate => {
                assert!(got.is_miss());
                assert_eq!(loaded.unwrap(), fresh("2"));
                assert_eq!(cache.get_or_load("a").unwrap(), fresh("3"));
            }
            WhenStale::Serve => {
                assert_eq!(got, stale);
                assert_eq!(loaded.unwrap(), stale);
                assert_eq!(cache.get_or_load("b").unwrap(), fresh("2"));
            }
        }
        freshness.set(Some(clock.now()));
        assert!(cache.get("a").fresh().is_some());
    }
}

#[test]
fn a_domain_that_no_node_vouches_for_is_never_fresh() {
    let manager = Manager::new(clock());
    let cache: Texts = manager.cache("texts").when_stale(WhenStale::Serve).build().unwrap();
    cache.set("a", "one".to_owned()).unwrap();
    let since = Duration::from_nanos(u64::MAX);
    assert_eq!(cache.get("a"), Answer::Stale { value: "one".to_owned(), since, why: Stale::Lease });
}

#[test]
fn memory_is_bounded_by_weight_and_what_goes_is_told() {
    let gone = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&gone);
    let cache: Cache<u64, String> = Manager::local_with(clock())
        .cache("texts")
        .entries(1_000)
        .weight(50_000, |_, value: Option<&String>| {
            value.map_or(1, |text| u32::try_from(text.len()).unwrap())
        })
        .on_event(move |event| {
            if event.kind == EventKind::Evicted {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()
        .unwrap();
    for key in 0..10_000 {
        cache.set(&key, "x".repeat(100)).unwrap();
        assert!(cache.stats().weight <= 50_100);
    }
    let stats = cache.stats();
    assert!((300..=500).contains(&stats.entries), "{stats}");
    assert_eq!(gone.load(Ordering::Relaxed), stats.evicted);
    assert_eq!(stats.evicted + stats.entries as u64, 10_000);
}

#[test]
fn what_happens_is_told_in_order_and_counted() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let cache: Texts = Manager::local_with(clock())
        .cache("texts")
        .loader(
            |key: &String, _| if key == "bad" { Err("no".into()) } else { Ok(Some(key.clone())) },
        )
        .on_event(move |event| {
            let key = String::from_utf8_lossy(event.key).into_owned();
            tell.lock().push((key, event.kind));
        })
        .build()
        .unwrap();
    cache.get_or_load("a").unwrap().any();
    cache.get("a").any();
    cache.set("b", "two".to_owned()).unwrap();
    cache.remove_prefix("b").unwrap();
    cache.get_or_load("bad").unwrap_err();
    let expected = [
        ("a", EventKind::Miss),
        ("a", EventKind::Loaded),
        ("a", EventKind::Hit),
        ("b", EventKind::Invalidated(Why::Key)),
        ("b", EventKind::Set),
        ("b", EventKind::Invalidated(Why::Prefix)),
        ("bad", EventKind::Miss),
        ("bad", EventKind::LoadFailed),
    ];
    assert_eq!(*told.lock(), expected.map(|(key, kind)| (key.to_owned(), kind)));
    let stats = cache.stats();
    let counts = [stats.hits, stats.misses, stats.loads, stats.loads_failed, stats.invalidated];
    assert_eq!(counts, [1, 2, 2, 1, 2]);
    assert!((stats.hit_rate() - 1.0 / 3.0).abs() < 0.001);
}

#[test]
fn what_one_node_writes_is_forgotten_by_all_and_kept_by_itself() {
    let managers = [Manager::local_with(clock()), Manager::local_with(clock())];
    Loopback::connect(&managers, false);
    let [one, other] =
        managers.each_ref().map(|manager| -> Texts { manager.cache("texts").build().unwrap() });
    other.set("a", "other's".to_owned()).unwrap();
    assert_eq!(other.get("a"), fresh("other's"));
    one.set("a", "one's".to_owned()).unwrap();
    assert_eq!(one.get("a"), fresh("one's"), "its own token spares its own value");
    assert!(other.get("a").is_miss());
    one.write("a", || Ok::<_, ()>(Some("written".to_owned()))).unwrap();
    assert_eq!(one.get("a"), fresh("written"));
    let error = one.write("a", || Err("refused")).unwrap_err();
    assert!(matches!(error, WriteError::Source("refused")));
    assert!(one.get("a").is_miss(), "it may have been written all the same");
    one.write("a", || Ok::<_, ()>(None)).unwrap();
    assert!(one.get("a").is_miss());
}

#[test]
fn what_cannot_be_said_is_forgotten_here() {
    let manager = Manager::local_with(clock());
    let cache: Texts = manager.cache("texts").build().unwrap();
    cache.set("a", "one".to_owned()).unwrap();
    Loopback::connect(&[manager], true);
    assert_eq!(cache.set("a", "two".to_owned()), Err(PublishError::Fenced));
    assert!(cache.get("a").is_miss());
}

#[test]
fn a_write_during_which_a_token_came_is_not_remembered() {
    let manager = Manager::local_with(clock());
    let cache: Texts = manager.cache("texts").build().unwrap();
    manager.visible(&log(9), 100);
    let others = [(TokenKind::Key, &b"a"[..]), (TokenKind::Prefix, b"a"), (TokenKind::All, b"")];
    for (seq, of) in (1..).zip(others) {
        cache
            .write("a", || {
                manager.apply(&log(9), &token(seq, "texts", of));
                Ok::<_, ()>(Some("older".to_owned()))
            })
            .unwrap();
        assert!(cache.get("a").is_miss(), "{of:?}");
    }
}

#[test]
fn while_a_change_is_on_its_way_nothing_of_it_is_remembered() {
    let manager = Manager::local_with(clock());
    let cache: Texts = manager.cache("texts").build().unwrap();
    let load = |key: &str| {
        let loaded = cache.get_or_load_with(key, |_, load| {
            load.tag("red");
            Ok(Some("value".to_owned()))
        });
        assert_eq!(loaded.unwrap(), fresh("value"));
        cache.get(key).fresh().is_some()
    };
    let of = [
        (TokenKind::Key, &b"a"[..]),
        (TokenKind::Tag, b"red"),
        (TokenKind::Prefix, b"a"),
        (TokenKind::All, b""),
    ];
    for (seq, of) in (1..).zip(of) {
        assert!(load("a"), "{of:?}");
        manager.apply(&log(1), &token(seq, "texts", of));
        assert!(!load("a"), "{of:?}");
        assert_eq!(load("b"), matches!(of.0, TokenKind::Key | TokenKind::Prefix), "{of:?}");
        manager.visible(&log(1), seq);
        assert!(load("a"), "{of:?}");
    }
    manager.apply(&log(1), &token(10, "texts", (TokenKind::Key, b"a")));
    assert!(!load("a"));
    manager.ended(&log(1));
    assert!(load("a"), "that life is over");
}

#[test]
fn an_open_intent_keeps_its_keys_out_until_it_is_done() {
    let manager = Manager::local_with(clock());
    manager.visible(&log(1), u64::MAX);
    let mut intent = 7_u64.to_le_bytes().to_vec();
    for key in ["a", "b"] {
        intent.extend_from_slice(&u32::try_from(key.len()).unwrap().to_le_bytes());
        intent.extend_from_slice(key.as_bytes());
    }
    // Before there is a cache of the domain.
    manager.apply(&log(1), &token(1, "texts", (TokenKind::Intent, &intent)));
    let cache: Texts = manager.cache("texts").build().unwrap();
    let load = |key: &str| {
        cache.get_or_load_with(key, |_, _| Ok(Some("value".to_owned()))).unwrap().any();
        cache.get(key).fresh().is_some()
    };
    assert_eq!(["a", "b", "c"].map(load), [false, false, true]);
    // A later life of its node does not end it.
    manager.ended(&log(1));
    assert!(!load("a"));
    manager.apply(&log(1), &token(2, "texts", (TokenKind::Resolved, &7_u64.to_le_bytes())));
    assert!(cache.get("c").fresh().is_some());
    assert_eq!(["a", "b"].map(load), [true, true]);
}

#[test]
fn a_cache_that_cannot_do_what_is_asked_is_not_built() {
    let manager = Manager::local_with(clock());
    let refresh = manager.cache::<String, String>("a").refresh_ahead(0.5).build();
    assert!(matches!(refresh, Err(BuildError::Loader(_))));
    let deadline = manager.cache::<String, String>("a").deadline(SECOND).build();
    assert!(matches!(deadline, Err(BuildError::Loader(_))));
}

#[test]
fn who_is_told_may_call_the_cache_and_build_another() {
    let manager = Manager::local_with(clock());
    let (builder, own) = (manager.cache::<String, String>("texts"), manager.clone());
    let called: Arc<std::sync::OnceLock<Texts>> = Arc::default();
    let (callee, built) = (Arc::clone(&called), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&built);
    let cache = builder
        .on_event(move |event| {
            let Some(cache) = callee.get() else { return };
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            if first && event.kind == EventKind::Invalidated(Why::Key) {
                cache.remove_prefix("b").unwrap();
                cache.get("a").any();
                drop(own.cache::<String, String>("texts").build().unwrap());
            }
        })
        .build()
        .unwrap();
    assert!(called.set(cache.clone()).is_ok());
    cache.remove("a").unwrap();
    assert_eq!(built.load(Ordering::Relaxed), 3, "the key, the prefix, the miss");
    let names: Vec<String> = manager.stats().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["texts"]);
}
