//! A cluster in one thread: the real core, and around it disks that lose their tails, caches with
//! loads that race, connections that stall and break, clocks that drift and jump, and people who
//! add and remove nodes. Everything comes from a seed.
//!
//! `ANNALS_SYNC_SCHEDULES` says how many schedules; `ANNALS_SEED` runs one.

mod app;
mod chaos;
mod check;
mod directed;
mod directed_members;
mod disk;
mod net;
mod node;
mod rim;
mod scale;
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::sync::domain::DomainId;
use crate::sync::message::Hello;
use crate::sync::origin::{Origin, TokenLog};
use crate::sync::replica::{Action, Link, Order, Rule, Rules};
use crate::sync::sim::app::Truth;
use crate::sync::sim::net::{Conn, Parcel};
use crate::sync::sim::node::Node;

/// Microseconds of true time.
type Time = u64;
const MS: Time = 1_000;
/// L.
const LEASE: Time = 1_000 * MS;
const LATENCY_MAX: Time = 20 * MS;
/// The wall clock at the beginning.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// Random numbers, all from the seed.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What happens by itself.
#[derive(Clone, Copy, Debug)]
enum Due {
    Deliver {
        conn: usize,
        side: usize,
    },
    Tick {
        node: usize,
        life: u64,
    },
    Fsync {
        node: usize,
        life: u64,
    },
    Read {
        node: usize,
        life: u64,
        load: u64,
    },
    Insert {
        node: usize,
        life: u64,
        load: u64,
    },
    /// A change outside lands.
    Commit {
        node: usize,
        life: u64,
        id: u64,
        key: u8,
    },
    /// Its token is published, by the life that made it.
    Tell {
        node: usize,
        life: u64,
        key: u8,
    },
    /// Was it made, or will it be? A later life asks.
    Resolve {
        node: usize,
        id: u64,
    },
    Connect {
        a: usize,
        b: usize,
    },
    Down {
        conn: usize,
        side: usize,
    },
    Start {
        node: usize,
    },
    Resume {
        node: usize,
    },
}

/// What a node's core is to be told, after the step that caused it.
#[derive(Debug)]
enum Todo {
    Published { ticket: u64, seq: u64 },
    Shipped { link: Link, log: TokenLog, seq: u64 },
    Behind { link: Link, origin: Origin },
    Order(Order),
    Up { link: Link, hello: Box<Hello> },
    Down { link: Link },
    Parcel { link: Link, parcel: Box<Parcel> },
    Stored { log: TokenLog, seq: u64 },
    Tick,
}

/// What kind of world a schedule has.
#[derive(Clone, Copy, Debug)]
struct Plan {
    nodes: usize,
    rules: Rules,
    /// Everybody connects to everybody; else in a line.
    mesh: bool,
    /// Nobody connects but by hand.
    manual: bool,
    /// Between two pings, as a part of the lease.
    beats: u64,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches of tests, each by itself")]
struct World {
    now: Time,
    dice: Dice,
    plan: Plan,
    nodes: Vec<Node>,
    conns: Vec<Conn>,
    /// Of two nodes: the first cannot be heard by the second.
    cut: BTreeSet<(usize, usize)>,
    due: BinaryHeap<Reverse<(Time, u64, Keyed)>>,
    order: u64,
    truth: Truth,
    /// Intents whose commit is on its way, also without the node that sent it.
    flying: BTreeSet<u64>,
    ids: u64,
    /// The hash of every record by its log and number.
    records: BTreeMap<(TokenLog, u64), u64>,
    out: Vec<Action>,
    todo: VecDeque<(usize, Todo)>,
    /// Time that some node lost without its boot clock, which the lease does not bound.
    slack: Time,
    /// How old a fresh hit may be: the lease by the slowest clock.
    bound: Time,
    /// Connections take no time.
    swift: bool,
    /// Disks sync by themselves, now and then.
    syncs: bool,
    /// Some node was copied: two live ones have one name.
    copied: bool,
    wrong: Option<String>,
    /// Clears by why, for those who ask.
    flushes: usize,
    tokens: usize,
    steps: usize,
    messages: [usize; 2],
    log: bool,
}

/// A due thing does not take part in the order of the heap.
#[derive(Debug)]
struct Keyed(Due);

impl PartialEq for Keyed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Keyed {}
impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Keyed {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut world = Self {
            now: 1_000 * MS,
            dice: Dice(seed),
            plan,
            nodes: Vec::new(),
            conns: Vec::new(),
            cut: BTreeSet::new(),
            due: BinaryHeap::new(),
            order: 0,
            truth: Truth::new(),
            flying: BTreeSet::new(),
            ids: 0,
            records: BTreeMap::new(),
            out: Vec::new(),
            todo: VecDeque::new(),
            slack: 0,
            bound: LEASE + LEASE / 500,
            swift: false,
            syncs: true,
            copied: false,
            wrong: None,
            flushes: 0,
            tokens: 0,
            steps: 0,
            messages: [0; 2],
            log: std::env::var_os("ANNALS_SYNC_TRACE").is_some(),
        };
        let origins: Vec<_> = (0..plan.nodes).map(origin).collect();
        for at in 0..plan.nodes {
            world.found(at, &origins);
        }
        for at in 0..plan.nodes {
            world.start(at);
        }
        if !plan.manual {
            for (a, b) in world.pairs() {
                world.after(0, Due::Connect { a, b });
            }
        }
        world
    }

    fn rule(&self, rule: Rule) -> bool {
        self.plan.rules.on(rule)
    }

    /// Who connects to whom by itself.
    fn pairs(&self) -> Vec<(usize, usize)> {
        let here: Vec<_> = (0..self.nodes.len()).filter(|at| !self.nodes[*at].gone).collect();
        let n = here.len();
        let all = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
        all.filter(|(a, b)| self.plan.mesh || b - a == 1).map(|(a, b)| (here[a], here[b])).collect()
    }

    fn after(&mut self, delay: Time, due: Due) {
        self.order += 1;
        self.due.push(Reverse((self.now + delay, self.order, Keyed(due))));
    }

    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.log {
            #[expect(clippy::print_stderr, reason = "asked for with ANNALS_SYNC_TRACE")]
            {
                eprintln!("{:>9} {}", self.now / MS, what());
            }
        }
    }

    fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            let what = what();
            self.note(|| format!("WRONG: {what}"));
            self.wrong = Some(what);
        }
    }

    /// Lets time pass, and everything that is due in it happen.
    fn run(&mut self, time: Time) {
        let end = self.now + time;
        while self.wrong.is_none() {
            match self.due.peek() {
                Some(Reverse((at, ..))) if *at <= end => {}
                _ => break,
            }
            let Some(Reverse((at, _, Keyed(due)))) = self.due.pop() else { break };
            self.now = self.now.max(at);
            self.happen(due);
            self.check_reads();
        }
        self.now = end;
        self.check_reads();
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Deliver { conn, side } => self.deliver(conn, side),
            Due::Tick { node, life } => {
                if self.is_life(node, life) {
                    self.timer(node);
                }
            }
            Due::Fsync { node, life } => self.fsync_due(node, life),
            Due::Read { node, life, load } => self.read_source(node, life, load),
            Due::Insert { node, life, load } => self.insert(node, life, load),
            Due::Commit { node, life, id, key } => self.commit(node, life, id, key),
            Due::Tell { node, life, key } => self.tell_change(node, life, key),
            Due::Resolve { node, id } => self.resolve(node, id),
            Due::Connect { a, b } => self.connect_due(a, b),
            Due::Down { conn, side } => self.down(conn, side),
            Due::Start { node } => self.start(node),
            Due::Resume { node } => self.resume(node),
        }
        self.settle();
    }

    fn tell(&mut self, node: usize, what: Todo) {
        self.todo.push_back((node, what));
    }

    /// Does what is to be done, and what follows from it.
    fn settle(&mut self) {
        while let Some((node, todo)) = self.todo.pop_front() {
            if self.wrong.is_none() {
                self.step(node, todo);
            }
        }
    }
}

fn origin(at: usize) -> Origin {
    Origin::from_u64(at as u64 + 1)
}

fn all_domains() -> Vec<DomainId> {
    (0..3).map(app::domain).collect()
}
