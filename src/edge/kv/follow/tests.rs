//! [`Follow`] against a model: an engine that drops, forgets, restarts and overtakes, a network
//! that breaks, a subscriber that is killed, in random orders. And each rule left out once.

#![expect(clippy::print_stdout, reason = "a failure is to say its seed")]

use std::collections::VecDeque;
use std::ops::Range;

use super::*;

/// Random numbers from a counter (splitmix64): the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    fn one_in(&mut self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }
}

/// How bad the world is: each is "one in so many", and 0 is never.
#[derive(Copy, Clone)]
struct World {
    restart: u64,
    cut_off: u64,
    killed: u64,
    dropped: u64,
    never_buffered: u64,
    lost_answer: u64,
    dropped_answer: u64,
    /// Batches that the engine keeps.
    buffer: usize,
    asks: bool,
}

const BAD: World = World {
    restart: 40,
    cut_off: 60,
    killed: 80,
    dropped: 8,
    never_buffered: 50,
    lost_answer: 30,
    dropped_answer: 30,
    buffer: 12,
    asks: true,
};

type Numbered = (u64, Vec<u8>);

/// A process that publishes.
struct Engine {
    life: u64,
    next: u64,
    /// What it keeps.
    buffer: VecDeque<Numbered>,
}

/// What leads from it to us.
struct Connection {
    life: u64,
    waiting: VecDeque<Numbered>,
    over: bool,
    told: bool,
}

struct Asked {
    from: u64,
    /// Of whom, and what is still to come.
    answers: Option<(u64, VecDeque<Numbered>)>,
}

struct Run {
    random: Random,
    world: World,
    rules: Rules,
    engine: Engine,
    follow: Follow,
    now: Moment,
    connection: Option<Connection>,
    asked: Option<Asked>,
    /// What has been given, as who comes after us has it.
    given: Vec<(Pos, Option<u64>, Told)>,
    /// A gap was told, and its cut has not been given.
    gap: bool,
    gaps: usize,
}

fn options(world: World) -> FollowOptions {
    let second = Duration::from_secs(1);
    FollowOptions { asks: world.asks, idle: second, answer: second, tries: 2, recent: 64 }
}

impl Run {
    fn new(seed: u64, world: World, rules: Rules) -> Self {
        Self {
            random: Random(seed),
            world,
            rules,
            engine: Engine { life: 1, next: 0, buffer: VecDeque::new() },
            follow: Follow::with(options(world), rules),
            now: Moment { since: Duration::from_secs(100), wall_ms: 1_000 },
            connection: None,
            asked: None,
            given: Vec::new(),
            gap: false,
            gaps: 0,
        }
    }

    fn publish(&mut self) {
        let seq = self.engine.next;
        self.engine.next += 1;
        if self.random.one_in(self.world.never_buffered) {
            return;
        }
        let payload = format!("{}:{seq}", self.engine.life).into_bytes();
        self.engine.buffer.push_back((seq, payload.clone()));
        if self.engine.buffer.len() > self.world.buffer {
            self.engine.buffer.pop_front();
        }
        let dropped = self.random.one_in(self.world.dropped);
        let (life, live) = (self.engine.life, self.connection.as_mut());
        if let Some(live) = live.filter(|live| live.life == life && !live.over && !dropped)
            && live.waiting.len() < 16
        {
            live.waiting.push_back((seq, payload));
        }
    }

    fn restart(&mut self) {
        self.engine.life += 1;
        self.engine.next = 0;
        self.engine.buffer.clear();
        if let Some(connection) = &mut self.connection {
            connection.over = true;
        }
        // It may have done much before anybody sees that it is another.
        for _ in 0..self.random.below(20) {
            self.publish();
        }
    }

    /// We are killed: what was given behind some position was in vain.
    fn kill(&mut self) {
        let kept = self.random.below(self.given.len() as u64 + 1);
        self.given.truncate(usize::try_from(kept).unwrap());
        self.gap = false;
        self.begin();
    }

    fn begin(&mut self) {
        self.follow = Follow::with(options(self.world), self.rules);
        let at = self.given.last().map(|(pos, hash, _)| Mark { pos: *pos, hash: *hash });
        self.follow.seek(at);
        self.connection = None;
        self.asked = None;
    }

    fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Give { pos, hash, told } => self.take(pos, hash, told),
                Act::Gap(gap) => {
                    self.gap = true;
                    self.gaps += 1;
                    assert_eq!(gap.after.is_some_and(|pos| pos.seq > 0), self.last().is_some());
                }
                Act::Ask { from } => self.asked = Some(Asked { from, answers: None }),
                Act::Connect => {
                    self.connection = None;
                    self.asked = None;
                }
            }
        }
    }

    /// The batch that was given last, if an epoch's cut does not stand behind it.
    fn last(&self) -> Option<(Pos, &[u8])> {
        match self.given.last() {
            Some((pos, _, Told::Batch(payload))) => Some((*pos, payload)),
            _ => None,
        }
    }

    /// What is promised of every record that is given.
    fn take(&mut self, pos: Pos, hash: Option<u64>, told: Told) {
        if let Some((before, ..)) = self.given.last() {
            assert!(*before < pos, "{pos} behind {before}");
        }
        match &told {
            Told::Cut(cut) => {
                assert_eq!((pos.seq, hash), (0, None));
                assert!(self.gap || cut.why == Why::Begin, "a cut without a word");
                self.gap = false;
            }
            Told::Batch(payload) => {
                let (before, ..) = self.given.last().expect("a cut begins");
                assert_eq!(before.epoch, pos.epoch, "an epoch without a cut");
                if let Some((before, of)) = self.last() {
                    assert_eq!(pos.seq, before.seq + 1, "a hole within an epoch");
                    assert_eq!(life(payload), life(of), "two lives in an epoch");
                }
                self.gap = false;
            }
        }
        self.given.push((pos, hash, told));
    }

    /// One step of whoever drives the state machine: what is there is told.
    fn drive(&mut self) {
        let mut acts = Vec::new();
        if let Some(connection) = &mut self.connection
            && connection.over
            && !connection.told
            && self.random.one_in(3)
        {
            connection.told = true;
            self.follow.disconnected(self.now);
        }
        match self.follow.listen() {
            Listen::Connection => {
                let (life, waiting) = (self.engine.life, VecDeque::new());
                let connection = Connection { life, waiting, over: false, told: false };
                self.connection = Some(connection);
                self.asked = None;
                self.follow.connected(self.now, &mut acts);
            }
            Listen::Answers => {
                let asked = self.asked.as_mut().expect("a question is open");
                let (life, answers) = asked.answers.get_or_insert_with(|| {
                    let kept = self.engine.buffer.iter();
                    let kept = kept.filter(|(seq, _)| *seq >= asked.from).cloned();
                    // What it cannot send fast enough it drops, but not the first few.
                    let dropped =
                        |index| index > 1 && self.random.one_in(self.world.dropped_answer);
                    let mut dropped = dropped;
                    let sent = kept.enumerate().filter(|(index, _)| !dropped(*index));
                    (self.engine.life, sent.map(|(_, answer)| answer).collect())
                });
                // Who has died says nothing more; some answers get lost at any time.
                let lost = *life != self.engine.life || self.random.one_in(self.world.lost_answer);
                match answers.pop_front() {
                    _ if lost => {
                        answers.clear();
                        asked.answers = Some((0, VecDeque::new()));
                    }
                    Some((seq, payload)) => {
                        self.follow.answer(seq, payload, self.now, &mut acts);
                    }
                    None => self.follow.answered(self.now, &mut acts),
                }
            }
            Listen::Live => {
                let connection = self.connection.as_mut().expect("live means connected");
                match connection.waiting.pop_front() {
                    Some((seq, payload)) => {
                        self.follow.live(seq, payload, self.now, &mut acts);
                    }
                    None if connection.told => self.follow.drained(&mut acts),
                    None => {}
                }
            }
        }
        self.act(acts);
    }

    fn pass(&mut self, ms: u64) {
        self.now.since += Duration::from_millis(ms);
        self.now.wall_ms += ms;
        let mut acts = Vec::new();
        self.follow.tick(self.now, &mut acts);
        self.act(acts);
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..4 => self.publish(),
            4..8 => self.drive(),
            _ => {
                let ms = self.random.below(200);
                self.pass(ms);
            }
        }
        if self.random.one_in(self.world.restart) {
            self.restart();
        }
        if self.random.one_in(self.world.cut_off)
            && let Some(connection) = &mut self.connection
        {
            connection.over = true;
        }
        if self.random.one_in(self.world.killed) {
            self.kill();
        }
    }

    /// The world behaves for a while: then everything that the engine still has was given.
    fn end(&mut self) {
        self.world = World {
            restart: 0,
            cut_off: 0,
            killed: 0,
            dropped: 0,
            never_buffered: 0,
            lost_answer: 0,
            dropped_answer: 0,
            ..self.world
        };
        for _ in 0..400 {
            self.drive();
            self.pass(20);
        }
        for (_, payload) in &self.engine.buffer {
            let told = Told::Batch(payload.clone());
            let given = self.given.iter().any(|(.., given)| *given == told);
            let payload = String::from_utf8_lossy(payload);
            assert!(given, "{payload} is there, and was never given");
        }
    }

    fn cuts(&self) -> usize {
        self.given.iter().filter(|(.., told)| matches!(told, Told::Cut(_))).count()
    }
}

fn life(payload: &[u8]) -> &[u8] {
    payload.split(|byte| *byte == b':').next().unwrap()
}

fn run(seed: u64, world: World, rules: Rules) -> Run {
    let mut run = Run::new(seed, world, rules);
    run.begin();
    for _ in 0..300 {
        run.step();
    }
    run.end();
    run
}

/// Of the seeds, those with which a promise is broken.
fn broken(seeds: Range<u64>, world: World, rules: Rules) -> usize {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let count =
        seeds.filter(|seed| std::panic::catch_unwind(|| run(*seed, world, rules)).is_err()).count();
    std::panic::set_hook(quiet);
    count
}

/// Thousands of schedules: no hole and no second life within an epoch, no epoch without its cut
/// and its gap, nothing left behind that the engine still has.
#[test]
fn whatever_engine_network_and_killer_do_an_epoch_has_no_holes_and_one_life() {
    let (mut cuts, mut gaps, mut batches) = (0, 0, 0);
    for seed in 0..4_000 {
        println!("seed {seed}");
        let run = run(seed, BAD, Rules::ALL);
        cuts += run.cuts();
        gaps += run.gaps;
        batches += run.given.len();
    }
    // The schedules do reach what they are for.
    assert!(cuts > 10_000 && gaps > 10_000 && batches > 100_000, "{cuts} {gaps} {batches}");
}

/// What can be had is had: with an engine that lives on and keeps all, there is one epoch, however
/// much is dropped, cut off or killed on the way.
#[test]
fn an_engine_that_keeps_everything_is_never_cut() {
    let world = World { restart: 0, never_buffered: 0, lost_answer: 0, buffer: 10_000, ..BAD };
    for seed in 0..1_000 {
        println!("seed {seed}");
        let run = run(seed, world, Rules::ALL);
        let cuts = run.given.iter().filter_map(|(.., told)| match told {
            Told::Cut(cut) => Some(cut.why),
            Told::Batch(_) => None,
        });
        // Killed right behind a cut, it has nothing that it could compare.
        let doubts = cuts.filter(|why| !matches!(why, Why::Begin | Why::Unproven)).count();
        assert_eq!(doubts, 0);
        let batches = run.given.iter().filter(|(.., told)| matches!(told, Told::Batch(_)));
        assert_eq!(batches.count() as u64, run.engine.next, "each once");
    }
}

#[test]
fn without_a_socket_to_ask_at_each_connection_and_each_gap_begins_an_epoch() {
    let world = World { asks: false, buffer: 0, ..BAD };
    for seed in 0..1_000 {
        println!("seed {seed}");
        run(seed, world, Rules::ALL);
    }
}

/// Each rule is there for something: without it the same schedules break a promise.
#[test]
fn each_rule_left_out_breaks_a_promise() {
    let all = Rules::ALL;
    for (name, rules) in [
        ("inclusive", Rules { inclusive: false, ..all }),
        ("bound", Rules { bound: false, ..all }),
        ("idle", Rules { idle: false, ..all }),
        ("reconnect", Rules { reconnect: false, ..all }),
        ("on_connect", Rules { on_connect: false, bound: false, ..all }),
    ] {
        let broken = broken(0..2_000, BAD, rules);
        println!("without {name}: {broken} of 2000");
        assert!(broken > 0, "nothing is lost without {name}");
    }
}

/// A restarted engine that is as far as the old one was: the next number fits, and it is another.
#[test]
fn an_engine_that_overtook_us_is_not_taken_for_the_one_we_knew() {
    let payload = |life: u8, seq: u64| vec![life, u8::try_from(seq).unwrap()];
    let mut follow = Follow::new(FollowOptions::default());
    let hash = Some(xxh3_64(&payload(1, 4)));
    let now = Moment { since: Duration::ZERO, wall_ms: 9 };
    follow.seek(Some(Mark { pos: Pos::new(7, 5), hash }));
    let mut acts = Vec::new();
    follow.connected(now, &mut acts);
    assert_eq!(acts, [Act::Ask { from: 4 }]);
    acts.clear();
    follow.answer(4, payload(2, 4), now, &mut acts);
    let cut = Told::Cut(Cut { why: Why::Restarted, lost: None });
    let gap = Gap { after: Some(Pos::new(7, 5)), before: None, lost: None };
    let give = Act::Give { pos: Pos::new(9, 0), hash: None, told: cut };
    assert_eq!(acts, [Act::Gap(gap), give, Act::Connect]);
    acts.clear();
    follow.connected(now, &mut acts);
    assert_eq!(acts, [Act::Ask { from: 0 }]);
}

/// It is asked for once, and then gone on: an engine does not buffer what it could not send.
#[test]
fn a_hole_that_the_engine_never_buffered_is_asked_for_once() {
    let mut follow = Follow::new(FollowOptions::default());
    let now = Moment { since: Duration::ZERO, wall_ms: 9 };
    let (old, new) = (vec![4], vec![6]);
    let mark = |seq, payload: &[u8]| Mark { pos: Pos::new(7, seq), hash: Some(xxh3_64(payload)) };
    follow.seek(Some(mark(5, &old)));
    let mut acts = Vec::new();
    follow.connected(now, &mut acts);
    follow.answer(4, old.clone(), now, &mut acts);
    follow.answered(now, &mut acts);
    acts.clear();
    follow.live(6, new.clone(), now, &mut acts);
    assert_eq!(acts, [Act::Ask { from: 4 }]);
    acts.clear();
    follow.answer(4, old, now, &mut acts);
    follow.answer(6, new.clone(), now, &mut acts);
    follow.answered(now, &mut acts);
    let gap = Gap { after: Some(Pos::new(7, 5)), before: Some(Pos::new(9, 7)), lost: Some(1) };
    let cut = Told::Cut(Cut { why: Why::Hole, lost: Some(1) });
    let cut = Act::Give { pos: Pos::new(9, 0), hash: None, told: cut };
    let told = Told::Batch(new.clone());
    let give = Act::Give { pos: Pos::new(9, 7), hash: Some(xxh3_64(&new)), told };
    assert_eq!(acts, [Act::Gap(gap), cut, give]);
    assert_eq!(follow.listen(), Listen::Live);
}
