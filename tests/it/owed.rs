//! What actors owe survives whatever ends a life: messages, timers, steps, answers, and turns that
//! are left for later, under every policy.
//!
//! Actors write each thing that they do into their own events: who reads them sees who promised
//! what, and whether it was kept. The oracle (`crate::owing`) stands outside: it knows what was
//! answered, what ran after a turn, and the policies; and it reads the events of the store that a
//! crash has left before that is opened, and after everything was taken up.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::actor::{
    CommandId, Decision, Durable, Missed, Outcome, Persistence, RecoveryPhase, Step, StepContext,
    StepPolicy, Stepped,
};
use annals::disk::sim::{Random, SimDisk};
use annals::rkyv::{self, Archive, Deserialize, Serialize};
use annals::time::{Clock, ManualClock};
use annals::types::HybridTime;
use annals::{
    Actor, ActorOptions, Addr, Durability, Handle, Retain, RuntimeOptions, SnapshotPolicy, Store,
    StoreOptions, Turn,
};
use parking_lot::Mutex;

mod acts;

use crate::owing::{
    Lines, Policy, alive, behind, check_lines, check_order, check_survived, kept_of, unsettled,
};
use crate::support::{Replay, disk, seeds};

const LONG: Duration = Duration::from_secs(30);
const BEGINNING_MS: u64 = 1_700_000_000_000;
/// Actors, and when their turns are appended.
pub(crate) const CLERKS: [(&str, Policy); 6] = [
    ("a", Policy::EachTurn),
    ("b", Policy::EachTurn),
    ("c", Policy::EachTurn),
    ("every", Policy::Every(3)),
    ("interval", Policy::Interval),
    ("deferred", Policy::Deferred),
];
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes down what it does.
#[derive(Archive, Serialize, Deserialize, Default, Debug)]
#[rkyv(crate = annals::rkyv)]
struct Clerk(Vec<String>);

impl Actor for Clerk {
    type Event = String;
    const KIND: &'static str = "clerk";

    fn apply(&mut self, event: &String) {
        self.0.push(event.clone());
    }

    fn options() -> ActorOptions<Self> {
        ActorOptions::new()
            .command::<Letter>()
            .command::<Tick>()
            .step::<Around>()
            .step::<Before>()
            .step::<After>()
            .snapshots(1, SnapshotPolicy::every(6))
            .commit_when(|_, event: &String| match event.split(' ').next() {
                Some("now") => Decision::Commit,
                Some("later") => Decision::Defer,
                _ => Decision::Inherit,
            })
    }
}

/// A durable message; it is passed on so often.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Letter {
    id: String,
    hops: u8,
}
impl Durable for Letter {
    const NAME: &'static str = "letter";
}
impl Handle<Letter> for Clerk {
    type Reply = ();
    fn handle(Letter { id, hops }: Letter, turn: &mut Turn<'_, Self>) {
        turn.emit(format!("got {id}"));
        if hops > 0 {
            let to = CLERKS[id.len() % 4].0;
            send(turn, to, format!("{id}+"), hops - 1);
        }
    }
}

fn send(turn: &mut Turn<'_, Clerk>, to: &str, id: String, hops: u8) {
    let addr = turn.actor::<Clerk>(to).unwrap();
    turn.emit(format!("sent {id} {to}"));
    assert!(turn.send(&addr, Letter { id, hops }).is_ok(), "there is room");
}

/// A timer's command.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Tick {
    key: String,
    generation: u64,
    every: u64,
}
impl Durable for Tick {
    const NAME: &'static str = "tick";
}
impl Handle<Tick> for Clerk {
    type Reply = ();
    fn handle(Tick { key, generation, every }: Tick, turn: &mut Turn<'_, Self>) {
        let due = turn.timer(&key).map_or(0, HybridTime::millis);
        let now = turn.now().millis();
        turn.emit(format!("tick {key} {generation} {due} {now} {every}"));
    }
}

/// What must be there if the life ended at that moment.
struct Probe {
    disk: SimDisk,
    power: bool,
    name: &'static str,
    line: String,
}

/// Where steps and what runs after turns leave a trace outside of the store.
#[derive(Default)]
struct Outside {
    disk: Option<SimDisk>,
    probes: Vec<Probe>,
}

static OUTSIDE: Mutex<BTreeMap<u64, Outside>> = Mutex::new(BTreeMap::new());

/// The world is as it is now: would this line survive?
fn probe(lab: u64, power: bool, name: &'static str, line: String) {
    let mut all = OUTSIDE.lock();
    let Some(outside) = all.get_mut(&lab) else { return };
    let Some(disk) = &outside.disk else { return };
    let disk = disk.fork();
    outside.probes.push(Probe { disk, power, name, line });
}

macro_rules! step {
    ($name:ident, $key:literal) => {
        #[derive(Archive, Serialize, Deserialize)]
        #[rkyv(crate = annals::rkyv)]
        struct $name {
            lab: u64,
            id: u64,
            power: bool,
            clerk: u8,
        }
        impl Durable for $name {
            const NAME: &'static str = $key;
        }
        impl Step for $name {
            type Output = u64;
            const POLICY: StepPolicy = StepPolicy::$name;
            fn run(&self, context: &StepContext) -> u64 {
                assert_eq!(context.key(), self.id.to_string());
                if Self::POLICY != StepPolicy::After {
                    let name = CLERKS[usize::from(self.clerk)].0;
                    probe(self.lab, self.power, name, format!("began {}", self.id));
                }
                self.id
            }
        }
        impl Handle<Stepped<$name>> for Clerk {
            type Reply = ();
            fn handle(stepped: Stepped<$name>, turn: &mut Turn<'_, Self>) {
                let id = stepped.step.id;
                let how = match stepped.outcome {
                    Outcome::Done(output) if output == id => "done",
                    Outcome::InDoubt => "doubt",
                    _ => "wrong",
                };
                turn.emit(format!("stepped {id} {how} {}", $key));
            }
        }
    };
}
step!(Around, "around");
step!(Before, "before");
step!(After, "after");

/// Told, and answered to nobody.
struct Told(String);
impl Handle<Told> for Clerk {
    type Reply = ();
    fn handle(Told(line): Told, turn: &mut Turn<'_, Self>) {
        turn.emit(line);
    }
}

/// With an id.
#[derive(Clone)]
struct Once(u64);
impl Handle<Once> for Clerk {
    type Reply = u64;
    fn handle(Once(id): Once, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(format!("once {id}"));
        turn.0.len() as u64
    }
}

struct Do<F>(F);
impl<F, R> Handle<Do<F>> for Clerk
where
    F: FnOnce(&mut Turn<'_, Self>) -> R + Send + 'static,
    R: Send + 'static,
{
    type Reply = R;
    fn handle(Do(act): Do<F>, turn: &mut Turn<'_, Self>) -> R {
        act(turn)
    }
}

/// What is done to the old files besides.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Files {
    Kept,
    /// Checkpoints are gone at each open after a crash.
    NoCheckpoints,
    Compacted,
    /// Events that snapshots cover go.
    Dropped,
}

/// One store over its lives, with what is known of it outside.
struct World {
    seed: u64,
    files: Files,
    disk: SimDisk,
    random: Random,
    clock: Arc<ManualClock>,
    store: Option<Store>,
    lines: Lines,
    /// Of each actor's lines, what survives the process, and what survives power loss.
    process: Kept,
    power: Kept,
    /// So many lines each had when this life began to work.
    began: Kept,
    /// The first answers to commands with an id, by whom; and whether power loss takes them.
    answers: BTreeMap<u64, (&'static str, u64)>,
    next: u64,
    seen: Seen,
}

/// What was found over all crashes.
#[derive(Copy, Clone, Debug, Default)]
struct Seen {
    states: u64,
    interrupted: u64,
    lost: u64,
    doubts: u64,
    probes: u64,
}

fn options(disk: &SimDisk, clock: &Arc<ManualClock>, files: Files) -> StoreOptions {
    let runtime = RuntimeOptions {
        workers: NonZeroUsize::MIN,
        durability: Durability::Process,
        ..RuntimeOptions::default()
    };
    let options = Store::options()
        .disk(disk.handle())
        .clock(Clock::Manual(Arc::clone(clock)))
        .threads(false)
        .catalogue(false)
        .ring_bytes(16 << 10)
        .segment_bytes(8 << 10, 16 << 10)
        .frame_bytes_max(4 << 10)
        .snapshot_bytes_max(4 << 10)
        .run_bytes_max(200 << 10)
        .runtime(runtime.actor::<Clerk>());
    match files {
        Files::Kept | Files::NoCheckpoints => options,
        Files::Compacted => options.compaction(true),
        Files::Dropped => options.retain(Retain::UntilSnapshot),
    }
}

fn clerk(store: &Store, name: &str) -> Addr<Clerk> {
    store.actor::<Clerk>(name).unwrap()
}

fn now(clock: &Arc<ManualClock>) -> u64 {
    Clock::Manual(Arc::clone(clock)).wall_ms()
}

/// What everybody has done, deferred or not.
fn lines_of(store: &Store) -> Lines {
    let lines = |name| clerk(store, name).peek(|clerk| clerk.0.clone()).unwrap().value;
    CLERKS.into_iter().map(|(name, _)| (name, lines(name))).collect()
}

/// Waits until nothing is open any more that could be closed.
#[expect(clippy::disallowed_methods, reason = "a bound on a wait, in real time")]
fn settle(store: &Store, clock: &Arc<ManualClock>, what: &str) -> Lines {
    let began = Instant::now();
    loop {
        let lines = lines_of(store);
        let Some(open) = unsettled(&lines, now(clock)) else { return lines };
        assert!(began.elapsed() < LONG, "{what}: {open} in {lines:#?}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Waits until `owed` is what the lines say, and everybody's turns are appended.
#[expect(clippy::disallowed_methods, reason = "a bound on a wait, in real time")]
fn settle_all(store: &Store, clock: &Arc<ManualClock>, what: &str) -> Lines {
    let began = Instant::now();
    loop {
        for (name, _) in CLERKS {
            // Whoever is answered has everything appended; and a skipped time is behind it.
            clerk(store, name).ask(Do(|_: &mut Turn<'_, Clerk>| ())).unwrap();
        }
        let lines = settle(store, clock, what);
        let (timers, owed) = (alive(&lines), store.runtime().owed());
        if timers == owed && lines == lines_of(store) {
            return lines;
        }
        assert!(began.elapsed() < LONG, "{what}: {owed} owed, {timers} timers, {lines:#?}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// The events on a disk, that is to say in the log; of whom any were dropped, `None`.
fn read(disk: &SimDisk, clock: &Arc<ManualClock>, files: Files) -> Option<Lines> {
    if files == Files::Dropped {
        return None;
    }
    let view = options(disk, clock, files).read_only("/store").ok()?;
    let mut all = Lines::new();
    for (name, _) in CLERKS {
        let lines = all.entry(name).or_default();
        let mut visit = |event: annals::RawEvent<'_>| {
            let mut aligned = rkyv::util::AlignedVec::<16>::new();
            aligned.extend_from_slice(event.bytes);
            let line = rkyv::access::<rkyv::string::ArchivedString, rkyv::rancor::Error>(&aligned);
            lines.push(line.unwrap().as_str().to_owned());
            std::ops::ControlFlow::Continue(())
        };
        let bad = view.history(Clerk::KIND, name, annals::Seq::ZERO, &mut visit).unwrap();
        assert!(bad.is_empty(), "{bad:?}");
    }
    Some(all)
}

impl World {
    fn new(seed: u64, files: Files) -> Self {
        OUTSIDE.lock().insert(seed, Outside::default());
        Self {
            seed,
            files,
            disk: disk(seed),
            random: Random::new(seed ^ 0x0b1e),
            clock: ManualClock::at_millis(BEGINNING_MS),
            store: None,
            lines: CLERKS.into_iter().map(|(name, _)| (name, Vec::new())).collect(),
            process: BTreeMap::new(),
            power: BTreeMap::new(),
            began: Kept::new(),
            answers: BTreeMap::new(),
            next: 0,
            seen: Seen::default(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn any(&mut self) -> (u8, &'static str) {
        let at = self.random.below(CLERKS.len());
        (u8::try_from(at).unwrap(), CLERKS[at].0)
    }

    /// Begins a life, and looks at all crashes in it.
    fn open(&mut self) {
        self.tamper();
        let survived = read(&self.disk, &self.clock, self.files);
        if let Some(survived) = &survived {
            check_survived(survived, &self.lines, &self.process).unwrap();
            self.process = survived.iter().map(|(name, lines)| (*name, lines.len())).collect();
        }
        let before = (self.process.clone(), self.power.clone());
        self.disk.watch();
        OUTSIDE.lock().get_mut(&self.seed).unwrap().disk = Some(self.disk.clone());
        let store = options(&self.disk, &self.clock, self.files).open("/store").unwrap();
        let recovery = store.runtime().wait_recovered(LONG);
        assert_eq!(recovery.phase, RecoveryPhase::Done, "{recovery:?}");
        self.lines = settle_all(&store, &self.clock, "open");
        check_lines(&self.lines).unwrap();
        self.store = Some(store);
        let lines = &self.lines;
        self.answers.retain(|id, (name, at)| line_at(lines, name, *at) == format!("once {id}"));
        self.look(&before, "open");
        // A recovery makes durable what it found.
        self.power = before.0;
        self.process = self.lines.iter().map(|(name, lines)| (*name, lines.len())).collect();
        self.began = self.process.clone();
        for (name, policy) in CLERKS {
            let policy = match policy {
                Policy::EachTurn => continue,
                Policy::Every(events) => Persistence::Every(u32::try_from(events).unwrap()),
                Policy::Interval => Persistence::Interval(INTERVAL),
                Policy::Deferred => Persistence::Deferred,
            };
            clerk(self.store(), name)
                .ask(Do(move |turn: &mut Turn<'_, Clerk>| turn.persistence(policy)))
                .unwrap();
        }
        drop(self.disk.take_crashes());
    }

    fn tamper(&self) {
        if self.files == Files::NoCheckpoints {
            for (path, _) in self.disk.list_all() {
                if path.to_string_lossy().contains("ckpt-") {
                    self.disk.delete(&path).unwrap();
                }
            }
        }
    }

    /// Does something; then looks at all crashes in it.
    fn act(&mut self, number: usize) {
        let before = (self.process.clone(), self.power.clone());
        let what = self.do_something();
        let what = format!("act {number}, {what}");
        self.lines = settle(self.store(), &self.clock, &what);
        let in_order = check_order(&behind(&self.lines, &self.began), &self.lines);
        let checked = check_lines(&self.lines).and(in_order);
        checked.unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        for (name, policy) in CLERKS {
            let kept = self.process.entry(name).or_default();
            *kept = kept_of(policy, &self.lines[name], *kept);
        }
        self.look(&before, &what);
    }

    /// A reply: whose, and how many lines they had then.
    fn answered(&mut self, name: &'static str, lines: usize, power: bool) {
        let kept = self.process.entry(name).or_default();
        *kept = (*kept).max(lines);
        if power {
            self.power = self.process.clone();
        }
    }

    fn ask(
        &mut self,
        name: &'static str,
        power: bool,
        act: impl FnOnce(&mut Turn<'_, Clerk>) + Send + 'static,
    ) {
        let lines = clerk(self.store(), name).ask(Do(move |turn: &mut Turn<'_, Clerk>| {
            turn.durability(if power { Durability::Power } else { Durability::Process });
            act(turn);
            turn.0.len()
        }));
        self.answered(name, lines.unwrap(), power);
    }

    /// Looks at what every crash since the last look would have left.
    fn look(&mut self, before: &(Kept, Kept), what: &str) {
        let mut known = BTreeSet::new();
        for (at, crash) in self.disk.take_crashes().into_iter().enumerate() {
            let cut = self.random.bits();
            let ends = [
                ("killed", crash.fork().kill(), &before.0),
                ("cut", crash.fork().power_cut(cut), &before.1),
                ("losing all", crash.fork().power_cut_losing_all(), &before.1),
            ];
            for (end, left, promised) in ends {
                if known.insert(left.fingerprint()) {
                    let what = format!("{what}, crash at {at}, {end}");
                    self.check(left, promised, None, &what);
                }
            }
        }
        let probes = std::mem::take(&mut OUTSIDE.lock().get_mut(&self.seed).unwrap().probes);
        for Probe { disk, power, name, line } in probes {
            self.seen.probes += 1;
            let left = if power { disk.power_cut_losing_all() } else { disk.kill() };
            let promised = if power { &before.1 } else { &before.0 };
            self.check(left, promised, Some((name, &line)), &format!("{what}, outside: {line}"));
        }
    }

    /// Opens what a crash has left, in another world, and looks at everything.
    fn check(
        &mut self,
        left: SimDisk,
        promised: &Kept,
        must: Option<(&'static str, &str)>,
        what: &str,
    ) {
        let mut other = Self {
            disk: left,
            random: Random::new(self.random.bits()),
            clock: ManualClock::at_millis(now(&self.clock)),
            lines: Lines::new(),
            process: BTreeMap::new(),
            power: BTreeMap::new(),
            began: Kept::new(),
            answers: self.answers.clone(),
            store: None,
            ..*self
        };
        let wrong = |wrong: String| -> ! { panic!("{what}: {wrong}") };
        other.tamper();
        let survived = read(&other.disk, &other.clock, self.files);
        if let Some(survived) = &survived {
            check_survived(survived, &self.lines, promised).unwrap_or_else(|it| wrong(it));
            check_lines(survived).unwrap_or_else(|it| wrong(it));
            let all = |lines: &Lines| lines.values().map(Vec::len).sum::<usize>() as u64;
            self.seen.lost += all(&self.lines) - all(survived);
        }
        let late = [0, 0, 8_000, 40_000][other.random.below(4)];
        other.clock.advance(Duration::from_millis(late));
        let opened = options(&other.disk, &other.clock, self.files).open("/store");
        let store = opened.unwrap_or_else(|error| wrong(error.to_string()));
        let recovery = store.runtime().wait_recovered(LONG);
        let whole = recovery.phase == RecoveryPhase::Done
            && recovery.quarantined.is_empty()
            && recovery.in_doubt.is_empty()
            && recovery.unknown == 0;
        assert!(whole, "{what}: {recovery:?}");
        let found = settle_all(&store, &other.clock, what);
        check_lines(&found).unwrap_or_else(|it| wrong(it));
        if let Some(survived) = &survived {
            let counts = survived.iter().map(|(name, lines)| (*name, lines.len())).collect();
            check_order(survived, &behind(&found, &counts)).unwrap_or_else(|it| wrong(it));
        }
        for (name, found) in &found {
            let done = &self.lines[name];
            let promised = promised.get(name).copied().unwrap_or(0);
            let survived = survived.as_ref().map_or(&done[..promised], |it| &it[name]);
            assert!(found.starts_with(survived), "{what}: {name}: {found:#?} not {survived:#?}");
            // A step whose end did not survive is in doubt, whatever it has done.
            for line in found.iter().skip(survived.len()) {
                let stepped = line.starts_with("stepped");
                let known = self.files != Files::Dropped;
                assert!(!stepped || line.contains("doubt") || !known, "{what}: {line}");
                self.seen.doubts += u64::from(stepped);
            }
        }
        if let Some((name, line)) = must {
            assert!(found[name].iter().any(|it| it == line), "{what}: gone, and it was seen");
        }
        // Whoever asks again gets the first answer.
        for (id, (name, answer)) in &other.answers {
            if line_at(&found, name, *answer) == format!("once {id}") {
                let once = CommandId(u128::from(*id));
                let again = clerk(&store, name).ask_once(once, Once(*id)).unwrap();
                assert_eq!(again, *answer, "{what}: the first answer to {id}");
            }
        }
        assert_eq!(lines_of(&store), found, "{what}: nothing is done twice");
        self.seen.states += 1;
        self.seen.interrupted += recovery.interrupted;
        if other.random.once_in(16) {
            let _report = store.close(LONG).unwrap();
            let store = options(&other.disk, &other.clock, self.files).open("/store").unwrap();
            assert_eq!(store.runtime().wait_recovered(LONG).interrupted, 0, "{what}: again");
            assert_eq!(settle_all(&store, &other.clock, what), found, "{what}: again");
            other.disk.crash();
        } else {
            other.disk.crash();
            drop(store);
        }
    }

    /// Ends the life.
    fn end(&mut self) {
        OUTSIDE.lock().get_mut(&self.seed).unwrap().disk = None;
        let next = match self.random.below(3) {
            0 => self.disk.kill(),
            1 => {
                self.process = self.power.clone();
                self.disk.power_cut(self.random.bits())
            }
            _ => {
                self.process = self.power.clone();
                self.disk.power_cut_losing_all()
            }
        };
        self.disk = next;
        drop(self.store.take());
        self.clock.advance(Duration::from_secs(self.random.below(30) as u64));
    }
}

type Kept = BTreeMap<&'static str, usize>;

/// The line that was an actor's last when it had so many.
fn line_at<'a>(lines: &'a Lines, name: &str, count: u64) -> &'a str {
    let at = usize::try_from(count).unwrap().checked_sub(1);
    at.and_then(|at| lines[name].get(at)).map_or("", String::as_str)
}

#[expect(clippy::disallowed_methods, reason = "a bound on a wait, in real time")]
fn wait(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "it does not come true");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn crash_everywhere(files: Files, count: u64, acts: usize) {
    let mut all = Seen::default();
    for seed in seeds(count) {
        let _replay = Replay(seed);
        let seed = seed << 2 | files as u64;
        let mut world = World::new(seed, files);
        for _life in 0..3 {
            world.open();
            for number in 0..acts {
                world.act(number);
            }
            world.end();
        }
        OUTSIDE.lock().remove(&seed);
        let Seen { states, interrupted, lost, doubts, probes } = world.seen;
        all.states += states;
        all.interrupted += interrupted;
        all.lost += lost;
        all.doubts += doubts;
        all.probes += probes;
    }
    println!("{files:?}: {all:?}");
    assert!(all.states > 100 && all.interrupted > 10 && all.probes > 0, "{all:?}");
}

#[test]
fn whatever_ends_a_life_what_actors_owe_is_done_exactly_once() {
    crash_everywhere(Files::Kept, 4, 14);
}

#[test]
fn without_checkpoints_what_actors_owe_is_found_in_the_log() {
    crash_everywhere(Files::NoCheckpoints, 2, 14);
}

#[test]
fn what_actors_owe_survives_compaction() {
    crash_everywhere(Files::Compacted, 2, 14);
}

#[test]
fn what_actors_owe_survives_that_old_events_go() {
    crash_everywhere(Files::Dropped, 2, 14);
}
