//! Values that nodes send each other: the same everywhere, in whatever order they come.

use proptest::prelude::*;

use super::*;
use crate::sync::cache::{Answer, Cache, Keep};

type Texts = Cache<String, String>;

fn node(merged: bool) -> (Manager, Texts) {
    let manager = Manager::local_with(clock());
    let mut builder = manager.cache("texts").values(Keep::All, 64);
    if merged {
        builder = builder.merge(|one: &String, two: &String| format!("{one}+{two}"));
    }
    let cache = builder.build().unwrap();
    (manager, cache)
}

fn put_body(key: &str, value: &str) -> Vec<u8> {
    let mut body = u32::try_from(key.len()).unwrap().to_le_bytes().to_vec();
    body.extend_from_slice(key.as_bytes());
    body.extend_from_slice(value.as_bytes());
    body
}

#[derive(Clone, Debug)]
struct Said {
    origin: u64,
    seq: u64,
    millis: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Put(u8),
    Key(u8),
    Prefix,
    All,
}

fn apply(manager: &Manager, said: &Said) {
    let key = |key: u8| format!("key/{key}");
    let (kind, body) = match said.what {
        What::Put(at) => {
            let value = format!("{}.{}", said.origin, said.seq);
            (TokenKind::Put, put_body(&key(at), &value))
        }
        What::Key(at) => (TokenKind::Key, key(at).into_bytes()),
        What::Prefix => (TokenKind::Prefix, b"key/".to_vec()),
        What::All => (TokenKind::All, Vec::new()),
    };
    let time = HybridTime::from_millis(said.millis);
    let token = Token { time, ..token(said.seq, "texts", (kind, &body)) };
    manager.apply(&log(said.origin), &token);
}

fn said() -> impl Strategy<Value = Said> {
    let what = prop_oneof![
        6 => (0_u8..3).prop_map(What::Put),
        2 => (0_u8..3).prop_map(What::Key),
        1 => Just(What::Prefix),
        1 => Just(What::All),
    ];
    (1_u64..4, 1_u64..30, what).prop_map(|(origin, millis, what)| {
        // A number of its own for each: no two operations have one version.
        Said { origin, seq: 0, millis, what }
    })
}

fn state(cache: &Texts) -> Vec<Option<String>> {
    (0..3).map(|key| cache.get(&format!("key/{key}")).fresh()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nodes_that_have_heard_the_same_remember_the_same(
        mut all in prop::collection::vec(said(), 1..25),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        seed in any::<u64>(),
    ) {
        for (seq, said) in (1..).zip(&mut all) {
            said.seq = seq;
        }
        let mut other = all.clone();
        other.extend(again.iter().map(|index| all[index.index(all.len())].clone()));
        let mut random = seed;
        for at in (1..other.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            other.swap(at, usize::try_from(random >> 33).unwrap() % (at + 1));
        }
        for merged in [false, true] {
            let ((one, ones), (two, twos)) = (node(merged), node(merged));
            for manager in [&one, &two] {
                (1..4).for_each(|origin| manager.visible(&log(origin), u64::MAX));
            }
            for said in &all {
                apply(&one, said);
            }
            for said in &other {
                apply(&two, said);
            }
            for (one, two) in state(&ones).into_iter().zip(state(&twos)) {
                // Merged values that a clear came between are loaded again rather than undone.
                if merged {
                    prop_assert!(one == two || one.is_none() || two.is_none(), "{one:?} {two:?}");
                } else {
                    prop_assert_eq!(one, two);
                }
            }
        }
    }
}

#[test]
fn what_one_sets_all_have_and_what_is_too_long_all_forget() {
    let nodes = [node(false), node(false)];
    let managers = nodes.each_ref().map(|(manager, _)| manager.clone());
    Loopback::connect(&managers, false);
    let [(_, one), (_, two)] = &nodes;
    one.set("key/0", "short".to_owned()).unwrap();
    for cache in [one, two] {
        assert_eq!(cache.get("key/0"), Answer::Fresh("short".to_owned()));
    }
    one.set("key/0", "x".repeat(65)).unwrap();
    assert!(one.get("key/0").fresh().is_some());
    assert!(two.get("key/0").is_miss());
}

#[test]
fn who_does_not_have_the_key_takes_a_value_as_an_invalidation() {
    let manager = Manager::local_with(clock());
    manager.visible(&log(1), u64::MAX);
    let cache: Texts = manager.cache("texts").values(Keep::Held, 64).build().unwrap();
    let put = |seq, value: &str| {
        let body = put_body("a", value);
        manager.apply(&log(1), &token(seq, "texts", (TokenKind::Put, &body)));
    };
    put(5, "first");
    assert!(cache.get("a").is_miss());
    let answer = cache.get_or_load_with("a", |_, _| Ok(Some("loaded".to_owned())));
    assert!(answer.is_ok());
    put(6, "second");
    assert_eq!(cache.get("a"), Answer::Fresh("second".to_owned()));
    put(4, "old");
    assert_eq!(cache.get("a"), Answer::Fresh("second".to_owned()));
    cache.remove("a").unwrap();
    put(6, "second");
    assert!(cache.get("a").is_miss());
}

#[test]
fn a_value_that_came_while_its_key_was_loaded_voids_the_load() {
    let (manager, cache) = node(false);
    manager.visible(&log(1), u64::MAX);
    let answer = cache.get_or_load_with("a", |_, _| {
        let body = put_body("a", "sent");
        manager.apply(&log(1), &token(1, "texts", (TokenKind::Put, &body)));
        Ok(Some("loaded".to_owned()))
    });
    assert_eq!(answer.unwrap(), Answer::Fresh("loaded".to_owned()), "who came before it");
    assert_eq!(cache.get("a"), Answer::Fresh("sent".to_owned()));
}

#[test]
fn a_value_that_may_be_taken_back_is_an_invalidation_until_it_is_visible() {
    let (manager, cache) = node(false);
    cache.set("a", "own".to_owned()).unwrap();
    let put = |seq| {
        let body = put_body("a", "sent");
        manager.apply(&log(1), &token(seq, "texts", (TokenKind::Put, &body)));
    };
    put(1);
    assert!(cache.get("a").is_miss());
    cache.set("a", "own".to_owned()).unwrap();
    assert!(cache.get("a").is_miss(), "it is held");
    manager.visible(&log(1), 2);
    put(2);
    assert_eq!(cache.get("a"), Answer::Fresh("sent".to_owned()));
}
