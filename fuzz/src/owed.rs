//! What actors owe, of any bytes: notes, the side of a snapshot, the book of a checkpoint.
//!
//! Whatever is read is written again as it was understood, and the second reading finds the same.
//! The book is tried against a list that is searched from its beginning. And a runtime is started
//! on a log whose frames hold such notes, with right checksums: **actors work, or stop with an
//! error; nothing panics, and nothing takes memory by a number that it has read**.

use std::sync::{Mutex, Once};
use std::time::Duration;

use annals::actor::front::{self, Entry, Owed, Thing};
use annals::actor::memory::Memory;
use annals::actor::provider::EventStore;
use annals::actor::{
    Actor, ActorOptions, Durable, Handle, Missed, Oid, Runtime, RuntimeOptions, Step, StepContext,
    Stepped, Turn,
};
use annals::log::frame::{Batch, RecordKind};
use annals::log::name;
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::time::{Clock, ManualClock};
use annals::types::{HybridTime, Lsn, Seq, StreamId};

use crate::damage::Input;

/// The time of all of it, in milliseconds.
const NOW: u64 = 1 << 41;
const STREAMS: usize = 3;
const FRAMES_MAX: usize = 24;

/// One input.
pub fn run(data: &[u8]) {
    let Some((what, rest)) = data.split_first() else { return };
    match what % 4 {
        0 => read(rest),
        1 => model(&mut Input(rest)),
        _ => live(&mut Input(rest)),
    }
}

/// The bytes as each of the three.
fn read(data: &[u8]) {
    let version = data.first().copied().map_or(1, u16::from);
    if let Some((its, bytes)) = front::note(version, data) {
        assert_eq!(bytes, data, "a note is written in one way");
        assert_eq!(front::note(its, &bytes), Some((its, bytes)));
    }
    const ALL: (usize, u64) = (usize::MAX, u64::MAX);
    for kept in [(0, 0), (2, 1_000), ALL] {
        let Some(bytes) = front::side(data, kept) else { continue };
        let again = front::side(&bytes, ALL).expect("what was written is read");
        assert_eq!(again, bytes, "the side is not what was written");
    }
    if let Some(owed) = Owed::decode(data) {
        let bytes = owed.encode();
        assert_eq!(Owed::decode(&bytes), Some(owed));
        assert_eq!(bytes.len(), data.len());
    }
}

/// Notes into the book, and into a list.
fn model(input: &mut Input<'_>) {
    let mut owed = Owed::default();
    let mut naive: Vec<Entry> = Vec::new();
    let mut place = 0_u64;
    while let Some(what) = input.byte() {
        place += 1;
        let stream = stream(input.below(STREAMS));
        let lsn = Lsn::new(4096 + place * 16).expect("a multiple of 16");
        let seq = Seq::new(place).expect("small");
        let mut bytes = Vec::new();
        let told = note(what, input, &mut bytes);
        let taken = owed.apply((stream, lsn, seq), &bytes);
        assert!(taken || told.is_none(), "{bytes:?} is a note");
        if let Some(told) = told {
            told.happens((stream, lsn, seq), &mut naive);
        }
        // A crash, and a checkpoint that was there.
        if what & 0x80 != 0 {
            owed = Owed::decode(&owed.encode()).expect("a book");
        }
        assert_eq!(owed.entries(), naive);
    }
    for number in 0..STREAMS {
        let its = naive.iter().filter(|entry| entry.oid.stream == stream(number));
        assert_eq!(owed.owed_from(stream(number)), its.map(|entry| entry.seq).min());
    }
}

/// What a note does to a list of what is owed.
enum Told {
    Opened(u64, Thing),
    Closed(Option<StreamId>, u64),
    Moved(u64, u64),
    Tried(Vec<Oid>),
    Freed(Oid),
    Nothing,
}

impl Told {
    fn happens(self, (stream, lsn, seq): (StreamId, Lsn, Seq), naive: &mut Vec<Entry>) {
        let at = |oid: Oid, naive: &[Entry]| naive.iter().position(|entry| entry.oid == oid);
        match self {
            Self::Opened(number, what) => {
                let oid = Oid { stream, number };
                let tries = at(oid, naive).map_or(0, |at| naive.remove(at).tries);
                naive.push(Entry { oid, lsn, seq, what, tries });
                naive.sort_by_key(|entry| entry.oid);
            }
            Self::Closed(other, number) => {
                let oid = Oid { stream: other.unwrap_or(stream), number };
                naive.retain(|entry| entry.oid != oid);
            }
            Self::Moved(number, due) => {
                if let Some(at) = at(Oid { stream, number }, naive) {
                    naive[at].what = Thing::Timer(due);
                    naive[at].tries = 0;
                }
            }
            Self::Tried(oids) => {
                for oid in oids {
                    if let Some(at) = at(oid, naive) {
                        naive[at].tries += 1;
                    }
                }
            }
            Self::Freed(oid) => {
                if let Some(at) = at(oid, naive) {
                    naive[at].tries = 0;
                }
            }
            Self::Nothing => {}
        }
    }
}

/// Makes a note up, after the format's description; of some it is known what they do.
fn note(what: u8, input: &mut Input<'_>, bytes: &mut Vec<u8>) -> Option<Told> {
    let tag = what % 16;
    // Few numbers, so that notes meet; now and then an odd one.
    let number = match input.byte().unwrap_or(1) {
        0xff => u64::MAX,
        0xfe => 1 << 63,
        byte => u64::from(byte % 8),
    };
    let sound = (1..8).contains(&number);
    let stream = stream(input.below(STREAMS));
    let oid = [&stream.get().to_le_bytes()[..], &number.to_le_bytes()].concat();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend_from_slice(&u16::try_from(text.len()).expect("short").to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    let packed = |bytes: &mut Vec<u8>, input: &mut Input<'_>, of_step: bool| {
        text(bytes, ["poke", "work", "odd"][if of_step { 1 } else { input.below(3) }]);
        let count = input.below(9);
        bytes.extend_from_slice(input.bytes(count));
    };
    let key = ["a", "b", ""][input.below(3)];
    bytes.push(tag);
    let told = match tag {
        1 => {
            bytes.extend_from_slice(&number.to_le_bytes());
            let (kind, name) = (["hostile", "other"][input.below(2)], input.below(STREAMS));
            text(bytes, kind);
            text(bytes, &name.to_string());
            packed(bytes, input, false);
            Told::Opened(number, Thing::Message(StreamId::of(kind, &name.to_string())))
        }
        2 => {
            bytes.extend_from_slice(&oid);
            bytes.push(what >> 4 & 1);
            Told::Closed(Some(stream), number)
        }
        3 => {
            bytes.extend_from_slice(&number.to_le_bytes());
            let due = [0, 1, NOW - 1_000, NOW, NOW + 1_000, u64::MAX][input.below(6)];
            let every = [0, 1, 7_000, u64::MAX][input.below(4)];
            bytes.extend_from_slice(&due.to_le_bytes());
            bytes.extend_from_slice(&every.to_le_bytes());
            bytes.push(what >> 4 & 1);
            text(bytes, key);
            packed(bytes, input, false);
            Told::Opened(number, Thing::Timer(due))
        }
        4 => {
            bytes.extend_from_slice(&number.to_le_bytes());
            Told::Closed(None, number)
        }
        5 => {
            bytes.extend_from_slice(&number.to_le_bytes());
            let due = [0, NOW, NOW + 1_000, u64::MAX][input.below(4)];
            bytes.extend_from_slice(&due.to_le_bytes());
            if due == 0 { Told::Closed(None, number) } else { Told::Moved(number, due) }
        }
        6 => {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.push(what >> 4 & 1);
            text(bytes, key);
            packed(bytes, input, true);
            Told::Opened(number, Thing::Step)
        }
        7 => {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.push(what >> 4 & 1);
            Told::Closed(None, number)
        }
        8 => {
            bytes.extend_from_slice(&u128::from(number).to_le_bytes());
            bytes.extend_from_slice(&NOW.to_le_bytes());
            packed(bytes, input, false);
            Told::Nothing
        }
        9 => {
            bytes.push(what >> 4);
            bytes.extend_from_slice(&number.to_le_bytes());
            Told::Nothing
        }
        10 => {
            bytes.extend_from_slice(&number.to_le_bytes());
            text(bytes, key);
            packed(bytes, input, false);
            Told::Nothing
        }
        11 => {
            let count = input.below(4);
            bytes.extend_from_slice(&u32::try_from(count).expect("small").to_le_bytes());
            bytes.extend_from_slice(&oid.repeat(count));
            Told::Tried(vec![Oid { stream, number }; count])
        }
        12 => {
            bytes.extend_from_slice(&oid);
            Told::Freed(Oid { stream, number })
        }
        // Anything at all.
        _ => {
            bytes.clear();
            let count = input.below(64);
            bytes.extend_from_slice(input.bytes(count));
            if front::note(1, bytes).is_some() {
                bytes.clear();
            }
            return None;
        }
    };
    sound.then_some(told).or_else(|| {
        // Whether such numbers are taken is the library's business.
        bytes.clear();
        None
    })
}

fn stream(number: usize) -> StreamId {
    StreamId::of(Hostile::KIND, &number.to_string())
}

/// Panics since the process began: the runtime catches them, and here they are all wrong.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.lock().expect("a push does not panic").push(info.to_string());
            before(info);
        }));
    });
}

/// A log of made up frames, and a runtime on it.
fn live(input: &mut Input<'_>) {
    watch_for_panics();
    let clock = ManualClock::at_millis(NOW);
    let memory = Memory::with_clock(Clock::Manual(clock.clone()));
    let mut last = [0_u64; STREAMS];
    let acts = [0; STREAMS].map(|_: u8| input.byte().unwrap_or(0));
    for _ in 0..FRAMES_MAX {
        let Some(what) = input.byte() else { break };
        let of = usize::from(what) % STREAMS;
        let mut batch = Batch::new();
        let put = |batch: &mut Batch, kind, bytes: &[u8]| batch.push(kind, 1, bytes).is_ok();
        if last[of] == 0 {
            let named = name::encode(Hostile::KIND, &of.to_string()).expect("short");
            put(&mut batch, RecordKind::Name, &named);
        }
        if what & 0x10 != 0 {
            put(&mut batch, RecordKind::Event, &[0; 8]);
        } else {
            put(&mut batch, RecordKind::Turn, &[]);
        }
        for _ in 0..=(what >> 5) {
            let Some(what) = input.byte() else { break };
            let mut bytes = Vec::new();
            // Its odd numbers too: what is cleared for the model is made again.
            let mut copy = Input(input.0);
            note(what, input, &mut bytes);
            if bytes.is_empty() {
                bytes = odd(what, &mut copy);
            }
            put(&mut batch, RecordKind::Note, &bytes);
        }
        let first = Seq::new(last[of] + 1).expect("small");
        memory.append(&mut batch, stream(of), first).expect("the next number");
        last[of] += 1;
    }
    let options = RuntimeOptions {
        workers: std::num::NonZeroUsize::MIN,
        ..RuntimeOptions::default().actor::<Hostile>()
    };
    let clock = Clock::Manual(clock);
    let runtime = Runtime::start(memory.clone(), memory, clock, options).expect("threads");
    let limit = Duration::from_secs(20);
    runtime.wait_recovered(limit);
    for (of, act) in acts.into_iter().enumerate() {
        let addr = runtime.actor::<Hostile>(&of.to_string()).expect("a name");
        // Works, or says why not.
        let _said = addr.ask_for(Act(act), limit);
    }
    runtime.close(limit);
    let panics = std::mem::take(&mut *PANICS.lock().expect("a push does not panic"));
    assert!(panics.is_empty(), "{panics:#?}");
}

/// A note with a number that no actor ever counted to.
fn odd(what: u8, input: &mut Input<'_>) -> Vec<u8> {
    let number = [0, u64::MAX - 1, u64::MAX, 1 << 63][input.below(4)];
    let mut bytes = vec![[4, 5, 7, 10, 3, 6][usize::from(what) % 6]];
    bytes.extend_from_slice(&number.to_le_bytes());
    let count = input.below(48);
    bytes.extend_from_slice(input.bytes(count));
    bytes
}

/// Does everything that it is asked for.
#[derive(Default)]
struct Hostile {
    events: u64,
}

impl Actor for Hostile {
    type Event = u64;
    const KIND: &'static str = "hostile";

    fn apply(&mut self, _: &u64) {
        self.events += 1;
    }

    fn options() -> ActorOptions<Self> {
        ActorOptions::new().command::<Poke>().step::<Work>()
    }
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Poke(u32);

impl Durable for Poke {
    const NAME: &'static str = "poke";
}

impl Handle<Poke> for Hostile {
    type Reply = ();
    fn handle(_: Poke, turn: &mut Turn<'_, Self>) {
        turn.emit(1);
    }
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Work(u32);

impl Durable for Work {
    const NAME: &'static str = "work";
}

impl Step for Work {
    type Output = ();
    fn run(&self, _: &StepContext) {}
}

impl Handle<Stepped<Work>> for Hostile {
    type Reply = ();
    fn handle(_: Stepped<Work>, turn: &mut Turn<'_, Self>) {
        turn.emit(2);
    }
}

/// Promises what the bits say.
struct Act(u8);

impl Handle<Act> for Hostile {
    type Reply = u64;
    fn handle(Act(bits): Act, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(3);
        if bits & 1 != 0 {
            let me = turn.me();
            let _refused = turn.send(&me, Poke(1));
        }
        if bits & 2 != 0 {
            turn.wake_at("a", HybridTime::from_millis(NOW + 1), &Poke(2));
        }
        if bits & 4 != 0 {
            let at = (HybridTime::from_millis(NOW), Duration::from_millis(7));
            turn.remind("b", at, Missed::FireEach, &Poke(3));
        }
        if bits & 8 != 0 {
            turn.cancel("a");
        }
        if bits & 16 != 0 {
            turn.step("", Work(4));
        }
        turn.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that is read is no reason to take memory, or time.
    #[test]
    fn a_book_that_says_it_holds_everything_is_refused_at_once() {
        for count in [1, u64::from(u32::MAX), u64::MAX] {
            let bytes = [&1_u16.to_le_bytes()[..], &count.to_le_bytes()].concat();
            assert_eq!(Owed::decode(&bytes), None, "{count}");
        }
    }

    /// Else the numbers that are tried here would be those of no actor.
    #[test]
    fn what_is_made_up_is_read_by_the_library() {
        for tag in 1..=12 {
            let mut bytes = Vec::new();
            let told = note(tag, &mut Input(&[1; 20]), &mut bytes);
            assert!(told.is_some() && front::note(1, &bytes).is_some(), "{tag}: {bytes:?}");
        }
    }
}
