//! The event stream: nothing is missed, nothing comes twice, wherever a subscription begins and
//! whatever happens meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::disk::sim::{Failure, Fault, Op, Random, SimDisk};
use annals::error::StreamError;
use annals::log::frame::{Batch, RecordKind};
use annals::log::name;
use annals::{
    Begin, Durability, Fact, Filter, Position, Retain, Seq, Store, StoreOptions, StreamId,
    Subscription,
};

use crate::noted::{self, Left, Notes};
use crate::support::{Replay, disk, seeds};

pub(crate) const NOW: Duration = Duration::ZERO;

/// What a subscriber keeps of what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub position: Position,
    kind: String,
    name: String,
    pub seq: u64,
    fact: Fact,
    bytes: Vec<u8>,
    tags: Vec<String>,
}

pub(crate) fn seen(found: &annals::Happening<'_>) -> Seen {
    Seen {
        position: found.position,
        kind: found.kind.to_owned(),
        name: found.name.to_owned(),
        seq: found.seq.get(),
        fact: found.fact,
        bytes: found.bytes.to_vec(),
        tags: found.tags().map(str::to_owned).collect(),
    }
}

pub(crate) fn next(stream: &mut Subscription) -> Option<Seen> {
    stream.next(NOW).unwrap().as_ref().map(seen)
}

/// All that there is.
pub(crate) fn rest(stream: &mut Subscription) -> Vec<Seen> {
    std::iter::from_fn(|| next(stream)).collect()
}

pub(crate) fn read(store: &Store, filter: &Filter, begin: impl Into<Begin>) -> Vec<Seen> {
    rest(&mut store.subscribe_written(filter.clone(), begin).unwrap())
}

/// Appends turns of made-up actors, as the runtime would.
#[derive(Default)]
pub(crate) struct Writer {
    last: BTreeMap<(String, String), u64>,
    /// What every subscriber to everything is to see.
    pub all: Vec<Seen>,
}

impl Writer {
    /// What is left of `before` in a store that was opened after a crash.
    pub(crate) fn found(store: &Store, mut before: Self) -> Self {
        before.all = read(store, &Filter::all(), Begin::First);
        for ((kind, name), last) in &mut before.last {
            *last = store.log().last_seq(StreamId::of(kind, name)).unwrap().get();
        }
        before
    }

    /// One turn of `kind`/`name`: `events` events with `tags`; none is a turn that left a note.
    pub(crate) fn turn(
        &mut self,
        store: &Store,
        (kind, name): (&str, &str),
        events: u32,
        tags: &[&str],
    ) {
        let last = self.last.entry((kind.to_owned(), name.to_owned())).or_default();
        let mut batch = Batch::new();
        let mut index = 0;
        let mut push = |kind, payload: &[u8]| {
            batch.push(kind, 1, payload).unwrap();
            index += 1;
            index - 1
        };
        if *last == 0 {
            push(RecordKind::Name, &name::encode(kind, name).unwrap());
        }
        let mut found = Vec::new();
        for number in 0..u64::from(events) {
            let bytes = (*last + 1 + number).to_le_bytes().repeat(1 + (*last % 40) as usize);
            let index = push(RecordKind::Event, &bytes);
            found.push((index, *last + 1 + number, bytes));
        }
        if events == 0 {
            push(RecordKind::Turn, &[]);
            push(RecordKind::Note, b"owes something");
        }
        for tag in tags {
            push(RecordKind::Tag, tag.as_bytes());
        }
        let first = Seq::new(*last + 1).unwrap();
        let stream = StreamId::of(kind, name);
        let appended = store.log().append(&mut batch, stream, first).unwrap();
        *last += u64::from(events.max(1));
        self.all.extend(found.into_iter().map(|(index, seq, bytes)| Seen {
            position: Position::new(appended.lsn.get(), index),
            kind: kind.to_owned(),
            name: name.to_owned(),
            seq,
            fact: Fact::Event,
            bytes,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }));
    }

    /// A turn that some random numbers have made up.
    pub(crate) fn random(&mut self, store: &Store, random: &mut Random) {
        let kind = ["mouse", "elephant", "ant"][random.below(3)];
        let name = ["a", "b", "c", "d"][random.below(4)];
        let tags: &[&str] = [&[][..], &["red"], &["blue", "red"], &["redder"]][random.below(4)];
        self.turn(store, (kind, name), u32::try_from(random.below(4)).unwrap(), tags);
    }
}

type By = fn(&Seen) -> bool;

fn filters() -> Vec<(Filter, By)> {
    vec![
        (Filter::all(), |_| true),
        (Filter::kind("mouse"), |it| it.kind == "mouse"),
        (Filter::kind("nobody"), |_| false),
        (Filter::actor("ant", "c"), |it| (&*it.kind, &*it.name) == ("ant", "c")),
        (Filter::actor("ant", "nobody"), |_| false),
        (Filter::tag("red"), |it| it.tags.iter().any(|tag| tag == "red")),
    ]
}

fn of(all: &[Seen], by: fn(&Seen) -> bool) -> Vec<Seen> {
    all.iter().filter(|it| by(it)).cloned().collect()
}

pub(crate) fn options(disk: &SimDisk) -> StoreOptions {
    noted::options(disk).catalogue(false)
}

/// Case 153. Each event of any actor comes once, with its actor, number, time and tags.
///
/// Wherever a subscription begins, between any two records of the log, it delivers what is behind,
/// and goes on with what comes; and so does one that begins where that one stopped.
#[test]
fn from_every_position_on_each_filter_delivers_exactly_what_is_behind() {
    for seed in seeds(3) {
        let _replay = Replay(seed);
        let mut random = Random::new(seed);
        let mut disk = disk(seed);
        let mut writer = Writer::default();
        for life in 0..4 {
            let store = options(&disk).open("/store").unwrap();
            for _ in 0..30 {
                writer.random(&store, &mut random);
            }
            store.sync().unwrap();
            if life < 3 && random.once_in(2) {
                let _closed = store.close(Duration::from_secs(9)).unwrap();
                disk = disk.kill();
            } else {
                disk = disk.kill();
                drop(store);
            }
        }
        let store = options(&disk).open("/store").unwrap();
        let before = writer.all.clone();
        let mut begins = vec![Position::BEGINNING];
        begins.extend(before.iter().flat_map(|it| [it.position, it.position.next()]));
        for (filter, by) in filters() {
            assert_eq!(read(&store, &filter, Begin::First), of(&before, by), "{filter:?}");
            for begin in &begins {
                let behind: Vec<Seen> =
                    before.iter().filter(|it| it.position >= *begin).cloned().collect();
                let mut stream = store.subscribe(filter.clone(), *begin).unwrap();
                assert_eq!(rest(&mut stream), of(&behind, by), "{filter:?} from {begin}");
                let again = stream.position();
                assert_eq!(read(&store, &filter, again), [], "{filter:?} from {again}");
            }
        }
        // And on, from the end of each.
        let mut live: Vec<_> = filters()
            .into_iter()
            .flat_map(|(filter, by)| {
                begins.iter().rev().take(3).map(move |begin| (filter.clone(), by, *begin))
            })
            .map(|(filter, by, begin)| (store.subscribe(filter, begin).unwrap(), by))
            .collect();
        for (stream, _) in &mut live {
            rest(stream);
        }
        for _ in 0..20 {
            let had = writer.all.len();
            writer.random(&store, &mut random);
            for (stream, _) in &mut live {
                assert_eq!(next(stream), None, "what is not durable is not delivered");
            }
            store.sync().unwrap();
            for (stream, by) in &mut live {
                assert_eq!(rest(stream), of(&writer.all[had..], *by));
            }
        }
    }
}

/// Case 154. A tag finds exactly its events, in the order of the log, across actors.
#[test]
fn a_tag_finds_exactly_its_events_in_order_across_actors() {
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    let mut writer = Writer::default();
    for number in 0..12_u32 {
        let name = ["a", "b", "c"][number as usize % 3];
        let tags: &[&str] = [&["odd", "any"][..], &["any"], &["odd "], &[]][number as usize % 4];
        writer.turn(&store, ("tagged", name), 1 + number % 2, tags);
    }
    let found = read(&store, &Filter::tag("odd"), Begin::First);
    assert_eq!(found.len(), 3);
    assert_eq!(found, of(&writer.all, |it| it.tags.contains(&"odd".to_owned())));
    assert!(found.is_sorted_by_key(|it| it.position));
    let any = read(&store, &Filter::tag("any"), Begin::First);
    assert_eq!(any, of(&writer.all, |it| it.tags.contains(&"any".to_owned())));
    assert_eq!(read(&store, &Filter::tag("od"), Begin::First), []);
}

/// Metadata, and that an actor went back, come with the rest.
#[test]
fn metadata_and_rewinds_come_with_the_events() {
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    let mut batch = Batch::new();
    batch.push(RecordKind::Name, 1, &name::encode("kind", "a").unwrap()).unwrap();
    batch.push(RecordKind::Event, 1, b"one").unwrap();
    batch.push(RecordKind::Meta, 1, &[&3_u16.to_le_bytes()[..], b"whobob"].concat()).unwrap();
    let stream = StreamId::of("kind", "a");
    store.log().append(&mut batch, stream, Seq::new(1).unwrap()).unwrap();
    batch.clear();
    batch.push(RecordKind::Rewind, 1, &0_u64.to_le_bytes()).unwrap();
    store.log().append(&mut batch, stream, Seq::new(2).unwrap()).unwrap();
    let mut events = store.subscribe_written(Filter::all(), Begin::First).unwrap();
    {
        let found = events.next(NOW).unwrap().unwrap();
        assert_eq!(found.meta().collect::<Vec<_>>(), [("who", "bob")]);
        assert_eq!(found.bytes, b"one");
    }
    let found = events.next(NOW).unwrap().unwrap();
    assert_eq!((found.fact, found.seq.get()), (Fact::Rewound { to: Seq::ZERO }, 2));
    assert_eq!(found.meta().count(), 0);
}

/// Cases 130, 132 and 133: an actor's events from any number on, as many as one likes, and none of
/// who never wrote.
#[test]
fn an_actors_events_come_from_any_number_on_and_as_many_as_are_asked_for() {
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    let mut writer = Writer::default();
    for _ in 0..5 {
        writer.turn(&store, ("journal", "a"), 1, &[]);
        writer.turn(&store, ("journal", "b"), 2, &[]);
    }
    let actor = Filter::actor("journal", "a");
    let numbers = |found: &[Seen]| found.iter().map(|it| it.seq).collect::<Vec<_>>();
    let all = read(&store, &actor, Begin::First);
    assert_eq!(numbers(&all), [1, 2, 3, 4, 5]);
    assert_eq!(store.log().last_seq(StreamId::of("journal", "a")).unwrap().get(), 5);
    for first in 0..5 {
        for count in 0..=5 - first {
            let mut stream = store.subscribe_written(actor.clone(), all[first].position).unwrap();
            let some: Vec<Seen> = std::iter::from_fn(|| next(&mut stream)).take(count).collect();
            assert_eq!(some, all[first..first + count]);
        }
    }
    assert_eq!(read(&store, &Filter::actor("journal", "nobody"), Begin::First), []);
    assert_eq!(store.log().last_seq(StreamId::of("journal", "nobody")).unwrap(), Seq::ZERO);
}

/// Subscriptions of all kinds begin at any moment while four threads write, at the beginning, at
/// the end, or where another one is, and each sees all of its events once and in order.
#[test]
fn whenever_a_subscription_begins_among_writers_it_misses_nothing_and_repeats_nothing() {
    const WRITERS: u64 = 4;
    const TURNS: u64 = 1_500;
    let home = tempfile::tempdir().unwrap();
    let store = Store::options()
        .durability(Durability::Process)
        .ring_bytes(64 << 10)
        .segment_bytes(32 << 10, 64 << 10)
        .frame_bytes_max(8 << 10)
        .flush_interval(Duration::from_millis(2))
        .compaction(true)
        .catalogue(false)
        .open(home.path())
        .unwrap();
    let kinds = ["mouse", "elephant", "ant", "bee"];
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = kinds
            .into_iter()
            .map(|kind| {
                let store = &store;
                scope.spawn(move || {
                    let mut writer = Writer::default();
                    for turn in 0..TURNS {
                        let name = format!("{}", turn % 10);
                        let tags: &[&str] = if turn % 7 == 0 { &["seventh"] } else { &[] };
                        writer.turn(store, (kind, &name), 1 + u32::from(turn % 5 == 0), tags);
                    }
                    writer.all
                })
            })
            .collect();
        let subscriber = |number: usize| {
            let (store, written) = (&store, &written);
            scope.spawn(move || {
                let (filter, begin) = match number % 6 {
                    0 => (Filter::all(), Begin::First),
                    1 => (Filter::kind("mouse"), Begin::First),
                    2 => (Filter::actor("ant", "3"), Begin::First),
                    3 => (Filter::tag("seventh"), Begin::First),
                    4 => (Filter::all(), Begin::Now),
                    _ => (Filter::actor("ant", "3"), Begin::Now),
                };
                let open = |begin: Begin| match number % 2 {
                    0 => store.subscribe(filter.clone(), begin).unwrap(),
                    _ => store.subscribe_written(filter.clone(), begin).unwrap(),
                };
                let mut stream = open(begin);
                let begun = stream.position();
                let mut all = Vec::new();
                loop {
                    // Relaxed would do for the flag; what is written before it is looked at after.
                    let ended = written.load(Ordering::Acquire);
                    match stream.next(Duration::from_millis(20)).unwrap() {
                        Some(found) => all.push(seen(&found)),
                        None if ended => break,
                        None => {}
                    }
                    if all.len() % 97 == 0 {
                        // Somebody else goes on there.
                        let position = stream.position();
                        stream = open(Begin::At(position));
                    }
                }
                (number, begun, all)
            })
        };
        let mut subscribers = Vec::new();
        for number in 0..24 {
            subscribers.push(subscriber(number));
            // So that they begin at different moments: each once more is written.
            let mark = store.log().written() + 3_000;
            while store.log().written() < mark
                && !writers.iter().all(std::thread::ScopedJoinHandle::is_finished)
            {
                std::thread::yield_now();
            }
        }
        let mut all: Vec<Seen> =
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        store.sync().unwrap();
        written.store(true, Ordering::Release);
        all.sort_by_key(|it| it.position);
        assert_eq!(all.len() as u64, WRITERS * (TURNS + TURNS / 5));
        for subscriber in subscribers {
            let (number, begun, found) = subscriber.join().unwrap();
            let by: fn(&Seen) -> bool = match number % 6 {
                1 => |it| it.kind == "mouse",
                2 | 5 => |it| it.kind == "ant" && it.name == "3",
                3 => |it| !it.tags.is_empty(),
                _ => |_| true,
            };
            let behind: Vec<Seen> =
                all.iter().filter(|it| it.position >= begun && by(it)).cloned().collect();
            let first = found.iter().zip(&behind).position(|(found, it)| found != it);
            let told = first.map(|at| (&found[at], &behind[at]));
            assert_eq!(told, None, "subscriber {number} from {begun}");
            assert_eq!(found.len(), behind.len(), "subscriber {number} from {begun}");
        }
    });
    assert!(store.stats().log.seals > 3, "over several segments");
}

/// A store of four lives with snapshots, some of whose events may go.
pub(crate) fn aged(retain: Retain) -> (SimDisk, StoreOptions) {
    let (disk, _, _) = noted::filled(Left::Closed);
    let options = noted::options(&disk).retain(retain).compaction(true).run_bytes_max(200 << 10);
    (disk, options)
}

/// Asks for everything until there is nothing more; what is said to be gone is noted with how many
/// came before.
fn until_end(stream: &mut Subscription) -> (Vec<Seen>, Vec<(usize, u64)>) {
    let (mut found, mut gone) = (Vec::new(), Vec::new());
    loop {
        match stream.next(NOW) {
            Ok(Some(happening)) => found.push(seen(&happening)),
            Ok(None) => return (found, gone),
            Err(StreamError::Dropped { upto }) => gone.push((found.len(), upto)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn compacted_history_comes_in_the_order_of_the_log_from_every_position_on() {
    let (_disk, options) = aged(Retain::All);
    let store = options.open("/store").unwrap();
    // So that the runs hold more than one kind.
    let before = read(&store, &Filter::all(), Begin::First);
    assert_eq!(before.len(), 48);
    let begins: Vec<Position> = before.iter().map(|it| it.position).collect();
    // In the midst of old segments, and stay there; and some that come later.
    let mut streams: Vec<(usize, Subscription)> = Vec::new();
    for number in 0..before.len() {
        let mut stream = store.subscribe(Filter::all(), Begin::First).unwrap();
        for _ in 0..number {
            assert!(next(&mut stream).is_some());
        }
        streams.push((number, stream));
    }
    store.compact().unwrap();
    assert!(store.stats().log.runs > 0, "there are runs");
    for (number, mut stream) in streams {
        assert_eq!(rest(&mut stream), before[number..], "with {number} behind when it came");
    }
    for name in noted::NAMES {
        for (number, begin) in begins.iter().enumerate() {
            let of = |it: &&Seen| it.name == name;
            let behind: Vec<Seen> = before[number..].iter().filter(of).cloned().collect();
            let found = read(&store, &Filter::actor("notes", name), *begin);
            assert_eq!(found, behind, "{name} from {begin}");
        }
    }
    for (number, begin) in begins.iter().enumerate() {
        for filter in [Filter::all(), Filter::kind("notes")] {
            assert_eq!(read(&store, &filter, *begin), before[number..], "{filter:?} from {begin}");
        }
        assert_eq!(read(&store, &Filter::tag("none"), *begin), []);
    }
}

/// Cases 134 and 136: of dropped events those that are left come, and it is said that others are
/// gone: before any that is behind them, and only to who would have come by them.
#[test]
fn what_retention_has_dropped_is_reported_and_only_to_who_would_have_come_by_it() {
    let mut told = 0;
    for (number, began_before) in (0..=48).flat_map(|number| [(number, true), (number, false)]) {
        let (_disk, options) = aged(Retain::UntilSnapshot);
        let store = options.open("/store").unwrap();
        let before = read(&store, &Filter::all(), Begin::First);
        let begin = before.get(number).map_or(Begin::Now, |it| Begin::At(it.position));
        let filters = || {
            let actors =
                noted::NAMES.iter().map(|name| (Some(*name), Filter::actor("notes", name)));
            std::iter::once((None, Filter::all())).chain(actors)
        };
        // One that has read up to there, and one that begins there.
        let open = |filter| {
            if !began_before {
                return store.subscribe(filter, begin).unwrap();
            }
            let upto = before.get(number).map_or(0, |it| it.position.lsn());
            let mut stream = store.subscribe(filter, Begin::First).unwrap();
            while stream.position().lsn() < upto && next(&mut stream).is_some() {}
            stream
        };
        let mut streams: Vec<_> = Vec::new();
        if began_before {
            streams.extend(filters().map(|(name, filter)| (name, open(filter))));
        }
        // So that its kind is known, and its snapshots can be read.
        store.actor::<Notes>("a").unwrap();
        let done = store.compact().unwrap();
        assert!(done.events_dropped > 0, "something went");
        if !began_before {
            streams.extend(filters().map(|(name, filter)| (name, open(filter))));
        }
        let kept: Vec<Position> = {
            let mut all = store.subscribe(Filter::all(), Begin::First).unwrap();
            until_end(&mut all).0.iter().map(|it| it.position).collect()
        };
        for (name, mut stream) in streams {
            let begun = stream.position();
            let of = |it: &&Seen| it.position >= begun && name.is_none_or(|name| it.name == name);
            let behind: Vec<Seen> = before.iter().filter(of).cloned().collect();
            let (found, gone) = until_end(&mut stream);
            told += gone.len();
            let upto = gone.iter().map(|(_, upto)| *upto).max().unwrap_or(0);
            let mut missing = 0;
            for it in &behind {
                let Some(place) = found.iter().position(|other| other == it) else {
                    assert!(!kept.contains(&it.position), "{it:?} is there, and did not come");
                    assert!(it.position.lsn() < upto, "nobody said that {it:?} is gone: {gone:?}");
                    missing += 1;
                    continue;
                };
                // What was missing before it was said before it.
                let said = gone.iter().filter(|(before, _)| *before <= place).count();
                assert!(missing == 0 || said > 0, "{it:?} came before that was said");
            }
            assert_eq!(found.len() + missing, behind.len(), "nothing else came");
            assert!(found.is_sorted_by_key(|it| it.position));
            // Nobody knows where exactly the dropped events of one actor stood: who begins among
            // those of others may be told too much.
            if name.is_none() || began_before {
                assert_eq!(gone.is_empty(), missing == 0, "{name:?} from {begun}: {gone:?}");
            }
        }
    }
    assert!(told > 50, "{told}");
}

/// Of a poisoned log comes what is durable, and then the reason, each time.
#[test]
fn of_a_poisoned_log_what_is_durable_comes_and_then_why() {
    for written in [false, true] {
        let disk = disk(1);
        let store = options(&disk).open("/store").unwrap();
        let mut writer = Writer::default();
        let mut random = Random::new(7);
        for _ in 0..10 {
            writer.random(&store, &mut random);
        }
        store.sync().unwrap();
        let durable = writer.all.clone();
        let mut streams: Vec<_> = filters()
            .into_iter()
            .map(|(filter, by)| {
                let stream = if written {
                    store.subscribe_written(filter, Begin::First)
                } else {
                    store.subscribe(filter, Begin::First)
                };
                (stream.unwrap(), by)
            })
            .collect();
        for (number, (stream, by)) in streams.iter_mut().enumerate() {
            for it in of(&durable, *by).iter().take(number) {
                assert_eq!(next(stream).as_ref(), Some(it));
            }
        }
        for _ in 0..10 {
            writer.random(&store, &mut random);
        }
        disk.fail(Fault::new(Failure::Io).on(Op::SyncData));
        store.sync().unwrap_err();
        for (number, (stream, by)) in streams.iter_mut().enumerate() {
            for it in of(&durable, *by).iter().skip(number) {
                assert_eq!(next(stream).as_ref(), Some(it));
            }
            for _ in 0..2 {
                let error = stream.next(Duration::from_mins(1)).map(drop).unwrap_err();
                assert!(matches!(error, StreamError::Poisoned(_)), "{error}");
            }
        }
    }
}

/// A closed store delivers the rest, and says so.
#[test]
fn of_a_closed_store_the_rest_comes_and_then_that_it_is_closed() {
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    let mut writer = Writer::default();
    let mut random = Random::new(7);
    for _ in 0..20 {
        writer.random(&store, &mut random);
    }
    let mut streams: Vec<_> = filters()
        .into_iter()
        .map(|(filter, by)| (store.subscribe(filter, Begin::First).unwrap(), by))
        .collect();
    let _closed = store.close(Duration::from_secs(9)).unwrap();
    for (stream, by) in &mut streams {
        for it in of(&writer.all, *by) {
            assert_eq!(next(stream), Some(it));
        }
        let error = stream.next(Duration::from_mins(1)).map(drop).unwrap_err();
        assert!(matches!(error, StreamError::Closed), "{error}");
    }
}

/// Far behind, an actor's events are found by the indexes; near, by reading on. Both agree, and
/// so does every place to begin at; in a log that is much longer than what is read through.
#[test]
fn one_actor_among_many_is_followed_from_anywhere_in_a_long_log() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::options()
        .durability(Durability::Process)
        .ring_bytes(256 << 10)
        .segment_bytes(256 << 10, 512 << 10)
        .frame_bytes_max(64 << 10)
        .catalogue(false)
        .open(home.path())
        .unwrap();
    let mut writer = Writer::default();
    for turn in 0..12_000_u32 {
        let name =
            if turn.is_multiple_of(40) { "rare".to_owned() } else { format!("{}", turn % 99) };
        writer.turn(&store, ("kind", &name), 1 + turn % 2, &[]);
        if turn.is_multiple_of(1_500) {
            writer.turn(&store, ("oddity", &turn.to_string()), 1, &["odd"]);
        }
    }
    // A turn that is larger than what is copied at a time, and many of one actor in a row.
    writer.turn(&store, ("kind", "rare"), 100, &[]);
    for _ in 0..3_000 {
        writer.turn(&store, ("kind", "rare"), 2, &[]);
    }
    store.sync().unwrap();
    let all = of(&writer.all, |it| it.name == "rare");
    let filter = Filter::actor("kind", "rare");
    assert!(store.log().written() > 3 << 20, "a long log");
    assert_eq!(read(&store, &filter, Begin::First), all);
    // What is there is looked through, also where nothing is waited for.
    let odd = of(&writer.all, |it| it.kind == "oddity");
    assert_eq!(read(&store, &Filter::kind("oddity"), Begin::First), odd);
    assert_eq!(read(&store, &Filter::tag("odd"), Begin::First), odd);
    for number in (0..all.len()).step_by(97) {
        assert_eq!(read(&store, &filter, all[number].position), all[number..], "from {number}");
        let other = writer.all[writer.all.len() * number / all.len()].position;
        let behind: Vec<Seen> = all.iter().filter(|it| it.position >= other).cloned().collect();
        assert_eq!(read(&store, &filter, other), behind, "from {other}");
    }
}
