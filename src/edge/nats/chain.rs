//! In which order records are published, and what is done where that goes wrong: no I/O.
//!
//! Many are under way at once, so their order must not rest on luck. **Each is published on a
//! condition**: the first after a pause, that the subject's newest message is the one that we know
//! (`Nats-Expected-Last-Subject-Sequence`); each further one, that the stream's newest message is
//! the one before it (`Nats-Expected-Last-Msg-Id`). So if the server refuses or loses one, it
//! refuses all behind it, and a copy that arrives late is refused, too. (To foresee the sequence
//! of the one before would not do: where another subject of the stream gets in between, a later
//! record finds the number that it was given, and a hole before it.)
//!
//! After the first failure nothing is published until all answers are there; then the subject's
//! newest message says what is stored, and the rest is published again. Where other subjects of
//! the stream are busy that happens often: the pipeline should have a stream of its own.

use std::collections::VecDeque;

use crate::edge::pos::Pos;
use crate::edge::recall::Key;

/// A record on its way.
#[derive(Debug)]
pub(super) struct Flight<T> {
    pub(super) key: Key,
    /// It is the last of its input.
    pub(super) last: bool,
    /// `None` where it is not to be published after all.
    pub(super) record: Option<T>,
}

/// What must be so for a record to be stored.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The subject's newest message has this sequence; 0: there is none.
    Sequence(u64),
    /// The stream's newest message is this record.
    Behind(Key),
}

/// The newest message of our subject.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) sequence: u64,
    pub(super) key: Key,
}

/// The server has not what it had said that it has.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its newest message is older than what it has acknowledged.
    Acknowledged { acked: Key, newest: Key },
    /// Its newest message was never published here.
    Foreign { newest: Key },
}

/// Parts of the rules, that tests leave out.
#[derive(Copy, Clone, Debug)]
struct Rules {
    /// Each is published on condition: the server's part of it.
    #[cfg(test)]
    chained: bool,
    /// The newest message is read after a failure.
    resync: bool,
    /// All answers are waited for after a failure.
    await_all: bool,
}

impl Rules {
    const ALL: Self = Self {
        #[cfg(test)]
        chained: true,
        resync: true,
        await_all: true,
    };
}

/// Records on their way, oldest first: those that are published, then those that wait.
#[derive(Debug)]
pub(super) struct Chain<T> {
    flights: VecDeque<Flight<T>>,
    window: usize,
    /// How many of `flights` are published or passed over.
    sent: usize,
    /// The last that was published since the newest message was read.
    behind: Option<Key>,
    /// Sequence of the subject's newest message, as it was read; 0: none.
    base: u64,
    /// Answers that are still to come.
    answers: usize,
    stopped: bool,
    acked: Option<Key>,
    settled: Option<Pos>,
    /// Records that are done, and were not asked after yet.
    landed: usize,
    /// What the server has was never read.
    new: bool,
    rules: Rules,
}

impl<T> Chain<T> {
    /// Publishes up to `window` at once.
    pub(super) fn new(window: usize) -> Self {
        Self::with(window, Rules::ALL)
    }

    fn with(window: usize, rules: Rules) -> Self {
        Self {
            flights: VecDeque::new(),
            window: window.max(1),
            sent: 0,
            behind: None,
            base: 0,
            answers: 0,
            // What the server has comes first.
            stopped: true,
            acked: None,
            settled: None,
            landed: 0,
            new: true,
            rules,
        }
    }

    pub(super) fn push(&mut self, flight: Flight<T>) {
        debug_assert!(self.flights.back().is_none_or(|last| last.key < flight.key), "out of order");
        self.flights.push_back(flight);
        self.pass_over();
    }

    /// The next to publish, and on which condition.
    pub(super) fn next(&mut self) -> Option<(&Flight<T>, Condition)> {
        if self.stopped || self.answers >= self.window {
            return None;
        }
        while self.flights.get(self.sent).is_some_and(|flight| flight.record.is_none()) {
            self.sent += 1;
        }
        let flight = self.flights.get(self.sent)?;
        let condition = self.behind.map_or(Condition::Sequence(self.base), Condition::Behind);
        self.sent += 1;
        self.answers += 1;
        self.behind = Some(flight.key);
        Some((flight, condition))
    }

    /// The answer to the oldest that has none: was it stored?
    pub(super) fn answered(&mut self, stored: bool) {
        self.answers = self.answers.saturating_sub(1);
        // Whatever was stored behind a failure, the newest message tells.
        if self.stopped {
            return;
        }
        self.stopped = !stored;
        if stored {
            self.pass_over();
            self.land();
            self.pass_over();
        }
    }

    /// The connection is gone: there will be no answers.
    pub(super) fn cut(&mut self) {
        self.answers = 0;
        self.stopped = true;
    }

    /// Is it to be asked what the server has?
    pub(super) fn wants_newest(&self) -> bool {
        self.stopped && (self.answers == 0 || !self.rules.await_all)
    }

    /// Has it never been read what the server has?
    pub(super) fn is_new(&self) -> bool {
        self.new
    }

    /// What a life before has left. Nothing of it is to be published here.
    pub(super) fn begin(&mut self, newest: Option<Newest>) {
        self.new = false;
        self.stopped = false;
        self.base = newest.map_or(0, |newest| newest.sequence);
        self.acked = newest.map(|newest| newest.key);
    }

    /// Records that are done since this was asked last.
    pub(super) fn take_landed(&mut self) -> usize {
        std::mem::take(&mut self.landed)
    }

    /// The server's newest message of the subject. What it shows to be stored is settled, and the
    /// rest is published, again where it was.
    pub(super) fn resync(&mut self, newest: Option<Newest>) -> Result<(), Lost> {
        self.new = false;
        self.stopped = false;
        self.sent = 0;
        self.behind = None;
        if !self.rules.resync {
            return Ok(());
        }
        // Nothing may be left of what was acknowledged, by age; that is no loss.
        self.base = newest.map_or(0, |newest| newest.sequence);
        let Some(Newest { key, .. }) = newest else { return Ok(()) };
        if let Some(acked) = self.acked.filter(|acked| key < *acked) {
            return Err(Lost::Acknowledged { acked, newest: key });
        }
        let known = self.flights.back().map(|flight| flight.key).max(self.acked);
        if known.is_some_and(|known| known < key) {
            return Err(Lost::Foreign { newest: key });
        }
        while self.flights.front().is_some_and(|flight| flight.key <= key) {
            self.land();
        }
        self.acked = self.acked.max(Some(key));
        self.pass_over();
        Ok(())
    }

    /// Everything up to here is stored.
    pub(super) fn settled(&self) -> Option<Pos> {
        self.settled
    }

    /// Records that are not stored yet.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.flights.len()
    }

    /// The oldest is stored, or was passed over.
    fn land(&mut self) {
        let Some(flight) = self.flights.pop_front() else { return };
        self.landed += 1;
        self.sent = self.sent.saturating_sub(1);
        self.acked = self.acked.max(flight.record.is_some().then_some(flight.key));
        if flight.last {
            self.settled = Some(flight.key.0);
        }
    }

    /// What is not to be published is done as soon as all before it is.
    fn pass_over(&mut self) {
        while self.flights.front().is_some_and(|flight| flight.record.is_none()) {
            self.land();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::print_stdout, reason = "a failure is to say its seed")]

    use super::*;

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((bits ^ (bits >> 31)) % end as u64).unwrap()
        }

        fn one_in(&mut self, times: usize) -> bool {
            self.below(times) == 0
        }
    }

    /// A message on its way to the server, with its condition.
    type Message = (Key, Condition);

    /// A server with a stream, a connection to it that breaks, and what got stuck in old ones.
    struct World {
        random: Random,
        chain: Chain<()>,
        chained: bool,
        sequence: u64,
        /// What the stream's newest message is called, if it is ours.
        newest: Option<Key>,
        /// Our subject: sequence and key.
        stored: Vec<(u64, Key)>,
        to_server: VecDeque<Message>,
        answers: VecDeque<bool>,
        /// Copies that arrive after all.
        late: Vec<Message>,
        put: u32,
        up: bool,
    }

    impl World {
        fn new(seed: u64, rules: Rules) -> Self {
            Self {
                random: Random(seed),
                chain: Chain::with(6, rules),
                chained: rules.chained,
                sequence: 0,
                newest: None,
                stored: Vec::new(),
                to_server: VecDeque::new(),
                answers: VecDeque::new(),
                late: Vec::new(),
                put: 0,
                up: false,
            }
        }

        fn server(&mut self, (key, condition): Message) -> bool {
            let newest = self.stored.last().map_or(0, |(sequence, _)| *sequence);
            let holds = match condition {
                Condition::Sequence(sequence) => newest == sequence,
                Condition::Behind(key) => self.newest == Some(key),
            };
            if self.chained && !holds {
                return false;
            }
            self.sequence += 1;
            self.newest = Some(key);
            self.stored.push((self.sequence, key));
            true
        }

        fn step(&mut self, trouble: bool) {
            match self.random.below(if trouble { 12 } else { 8 }) {
                0 => {
                    self.put += 1;
                    let key = (Pos::new(1, u64::from(self.put / 3)), self.put % 3);
                    let record = (!self.random.one_in(10)).then_some(());
                    self.chain.push(Flight { key, last: self.put % 3 == 2, record });
                }
                1 | 2 => {
                    if self.up
                        && let Some((flight, condition)) = self.chain.next()
                    {
                        let message = (flight.key, condition);
                        self.to_server.push_back(message);
                    }
                }
                3 | 4 => {
                    let Some(message) = self.to_server.pop_front() else { return };
                    // It has no room at the moment, for this one.
                    let refused = trouble && self.random.one_in(20);
                    let answer = !refused && self.server(message);
                    self.answers.push_back(answer);
                }
                5 | 6 => {
                    if let Some(answer) = self.answers.pop_front() {
                        self.chain.answered(answer);
                    }
                }
                7 => {
                    self.up = true;
                    if self.chain.wants_newest() {
                        let newest = self.stored.last();
                        let newest =
                            newest.map(|(sequence, key)| Newest { sequence: *sequence, key: *key });
                        self.chain.resync(newest).unwrap();
                    }
                }
                // Somebody else publishes to another subject of the stream.
                8 if self.random.one_in(4) => {
                    self.sequence += 1;
                    self.newest = None;
                }
                9 if self.random.one_in(4) => {
                    self.up = false;
                    self.late.extend(self.to_server.drain(..));
                    self.answers.clear();
                    self.chain.cut();
                }
                10 if !self.late.is_empty() => {
                    let at = self.random.below(self.late.len());
                    let message = self.late.remove(at);
                    self.server(message);
                }
                _ => {}
            }
            self.check();
        }

        /// What is stored is a beginning of what was put, each once; what is settled is stored.
        fn check(&self) {
            let keys: Vec<Key> = self.stored.iter().map(|(_, key)| *key).collect();
            assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
            let waiting = self.chain.flights.iter().filter(|flight| flight.record.is_some());
            let mut waiting = waiting.map(|flight| flight.key);
            let newest = keys.last().copied();
            if let Some(first) = waiting.next() {
                let missing = keys.iter().filter(|key| **key < first).count();
                assert!(missing == keys.len() || keys.contains(&first), "a hole");
            }
            if let Some(settled) = self.chain.settled() {
                assert!(self.chain.flights.iter().all(|flight| flight.key.0 > settled));
            }
            if let (Some(acked), true) = (self.chain.acked, newest.is_some()) {
                assert!(keys.contains(&acked), "{acked:?} is not there");
            }
        }

        fn run(seed: u64, rules: Rules) -> (usize, usize) {
            let mut world = Self::new(seed, rules);
            for _ in 0..400 {
                world.step(true);
            }
            let refused = world.late.len();
            world.late.clear();
            for _ in 0..4_000 {
                if world.put < 90 || world.put % 3 != 2 || world.chain.len() > 0 {
                    world.step(false);
                }
            }
            assert_eq!(world.chain.len(), 0, "it comes to an end");
            assert_eq!(world.chain.settled(), Some(Pos::new(1, u64::from(world.put / 3))));
            (world.stored.len(), refused)
        }
    }

    const ALL: Rules = Rules::ALL;

    #[test]
    fn whatever_the_server_refuses_or_loses_records_are_stored_in_order_and_once() {
        let mut stored = 0;
        for seed in 0..2_000 {
            println!("seed {seed}");
            stored += World::run(seed, ALL).0;
        }
        assert!(stored > 100_000, "{stored}");
    }

    #[test]
    fn each_rule_of_publishing_left_out_breaks_order_or_doubles() {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let broken = [
            ("chained", Rules { chained: false, ..ALL }),
            ("resync", Rules { resync: false, ..ALL }),
            ("await all", Rules { await_all: false, ..ALL }),
        ]
        .map(|(name, rules)| {
            let failed =
                |seed: &u64| std::panic::catch_unwind(|| World::run(*seed, rules)).is_err();
            (name, (0..300).filter(failed).count())
        });
        std::panic::set_hook(quiet);
        println!("{broken:?}");
        assert!(broken.iter().all(|(_, count)| *count > 0), "{broken:?}");
    }

    #[test]
    fn a_server_that_has_less_than_it_acknowledged_or_what_is_not_ours_is_found_out() {
        let mut chain = Chain::new(4);
        let key = |seq| (Pos::new(1, seq), 0);
        chain.resync(None).unwrap();
        for seq in 1..=2 {
            chain.push(Flight { key: key(seq), last: true, record: Some(()) });
            assert!(chain.next().is_some());
            chain.answered(true);
        }
        chain.cut();
        let lost = Lost::Acknowledged { acked: key(2), newest: key(1) };
        assert_eq!(chain.resync(Some(Newest { sequence: 1, key: key(1) })), Err(lost));
        let foreign = Lost::Foreign { newest: key(3) };
        assert_eq!(chain.resync(Some(Newest { sequence: 3, key: key(3) })), Err(foreign));
        // All of it has aged out.
        assert_eq!(chain.resync(None), Ok(()));
    }
}
