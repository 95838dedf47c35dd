//! Real processes in real network namespaces: a bridge, a node on each of its ports, and what
//! networks do to them: links that go down, routes that lead nowhere in one direction, partitions,
//! `kill -9`.
//!
//! The truth is a file that all of them see, with the time of each change; changes are made under
//! an intent. Each node reads through its cache all the time, and each answer that is called fresh
//! is held against the file: **one older than the lease is a late invalidation, one that is wrong
//! when all is quiet is a missed one. There must be none of either.**
//!
//! Needs root and `ip`; says so and passes where there is neither. `ANNALS_NETNS_ROUNDS` is the
//! number of faults (default 4), `ANNALS_SEED` replays their choice. A test binary of its own,
//! because it starts itself as children.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a harness of its own"
)]

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use annals::sync::cache::{Answer, Key as _};
use annals::sync::domain::Domain;
use annals::sync::freshness::boot_time;
use annals::sync::link::LinkOptions;
use annals::sync::node::{Node, Resolution};
use annals::sync::origin::ClusterId;
use annals::{DomainId, Durability, NodeConfig, Store};

const NODES: usize = 4;
/// Keys that each node writes.
const KEYS_EACH: u64 = 8;
/// Versions of a key whose times are kept.
const VERSIONS: u64 = 16_384;
const RECORD_BYTES: u64 = 8 * (1 + VERSIONS);
const LEASE: Duration = Duration::from_secs(1);
const DOMAIN: &str = "prices";
const PORT: u16 = 7_000;
/// Longer than anything takes, on whatever machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

// --- the truth ---

/// What each key is, and since when it was each version.
struct Truth(File);

impl Truth {
    fn open(path: &Path) -> Self {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.expect("the file of the truth");
        file.set_len(RECORD_BYTES * KEYS_EACH * NODES as u64).expect("its length");
        Self(file)
    }

    fn word(&self, at: u64) -> u64 {
        let mut word = [0; 8];
        self.0.read_exact_at(&mut word, at).expect("the truth");
        u64::from_le_bytes(word)
    }

    fn version(&self, key: u64) -> u64 {
        self.word(key * RECORD_BYTES)
    }

    /// When that version could be read at the latest; `None` if it cannot yet, or was not noted.
    fn since(&self, key: u64, version: u64) -> Option<Duration> {
        let nanos = self.word(key * RECORD_BYTES + 8 * (1 + version));
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// The only writer of a key says what it is from now on.
    fn write(&self, key: u64, version: u64) {
        let at = key * RECORD_BYTES;
        self.0.write_all_at(&version.to_le_bytes(), at).expect("the truth");
        let now = u64::try_from(boot_time().as_nanos()).expect("the time");
        self.0.write_all_at(&now.to_le_bytes(), at + 8 * (1 + version)).expect("the truth");
    }
}

// --- a node ---

#[derive(Default)]
struct Counts {
    writes: AtomicU64,
    refused: AtomicU64,
    fresh: AtomicU64,
    stale: AtomicU64,
    /// Of the fresh ones, those for which the source was asked.
    loads: AtomicU64,
    late: AtomicU64,
    /// The worst of them, in milliseconds beyond the lease.
    worst: AtomicU64,
}

struct Here {
    store: Store,
    cache: annals::sync::cache::Cache<u64, u64>,
    truth: Arc<Truth>,
    number: u64,
    writing: AtomicBool,
    idle: AtomicBool,
    over: AtomicBool,
    counts: Arc<Counts>,
}

impl Here {
    fn node(&self) -> &Node {
        self.store.node().expect("a node")
    }
}

fn address(number: usize) -> String {
    format!("10.99.0.{}:{PORT}", number + 1)
}

fn open(dir: &Path, number: usize) -> Here {
    let cluster = ClusterId::from_u128(99);
    let config = if number == 0 { NodeConfig::found(cluster) } else { NodeConfig::join(cluster) };
    let links = LinkOptions {
        handshake_max: Duration::from_secs(1),
        keep_every: Duration::from_millis(200),
        idle_max: Duration::from_millis(1_500),
        stall_max: Duration::from_millis(1_500),
        redial_max: Duration::from_millis(300),
        ..LinkOptions::default()
    };
    let mut config = config
        .domain(Domain { outside: true, ..Domain::new(DOMAIN, 1) })
        .lease(LEASE)
        .secret(*b"sixteen bytes, or more of them..")
        .listen(address(number).parse().expect("an address"))
        .links(links)
        .resolver(|_: u64, _: DomainId, _: &[Vec<u8>]| Resolution::Settled);
    for other in (0..NODES).filter(|other| *other != number) {
        config = config.peer(address(other));
    }
    let folder = dir.join(format!("node-{number}"));
    let options = Store::options().durability(Durability::Process).node(config);
    let store = options.open(&folder).expect("a store");
    let manager = store.node().expect("a node").caches().clone();
    let truth = Arc::new(Truth::open(&dir.join("truth")));
    let (source, counts) = (Arc::clone(&truth), Arc::new(Counts::default()));
    let of_loads = Arc::clone(&counts);
    let cache = manager
        .cache::<u64, u64>(DOMAIN)
        .loader(move |key, _| {
            of_loads.loads.fetch_add(1, Ordering::Relaxed);
            Ok(Some(source.version(*key)))
        })
        .build()
        .expect("a cache");
    Here {
        store,
        cache,
        truth,
        number: number as u64,
        writing: AtomicBool::new(false),
        idle: AtomicBool::new(false),
        over: AtomicBool::new(false),
        counts,
    }
}

/// Changes its own keys, one after another, each under an intent.
fn write(here: &Here) {
    let mut random = Random(here.number << 32 ^ u64::from(std::process::id()));
    let own = here.number * KEYS_EACH;
    // The life before may have been killed between a change and its time.
    for key in own..own + KEYS_EACH {
        let version = here.truth.version(key);
        if version > 0 && here.truth.since(key, version).is_none() {
            here.truth.write(key, version);
        }
    }
    while !here.over.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(2));
        if !here.writing.load(Ordering::SeqCst) {
            here.idle.store(true, Ordering::SeqCst);
            continue;
        }
        here.idle.store(false, Ordering::SeqCst);
        let key = own + random.below(KEYS_EACH);
        let version = here.truth.version(key) + 1;
        if version + 1 >= VERSIONS {
            continue;
        }
        let intent = key.with_bytes(|bytes| here.node().intent(DomainId::of(DOMAIN), &[bytes]));
        let Ok(intent) = intent else {
            here.counts.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        here.truth.write(key, version);
        if intent.done().is_ok() {
            here.counts.writes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads through the cache, and holds each fresh answer against the truth.
fn read(here: &Here) {
    let mut random = Random(here.number << 40 ^ u64::from(std::process::id()));
    while !here.over.load(Ordering::SeqCst) {
        let key = random.below(KEYS_EACH * NODES as u64);
        let before = boot_time();
        if let Ok(Answer::Fresh(version)) = here.cache.get_or_load(&key) {
            here.counts.fresh.fetch_add(1, Ordering::Relaxed);
            let next = here.truth.since(key, version + 1);
            if let Some(late) = next.and_then(|next| before.checked_sub(next + LEASE)) {
                here.counts.late.fetch_add(1, Ordering::Relaxed);
                let millis = u64::try_from(late.as_millis()).expect("a time");
                here.counts.worst.fetch_max(millis, Ordering::Relaxed);
            }
        } else {
            here.counts.stale.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1));
        }
        if random.below(64) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// When nobody writes any more, every fresh answer must be the truth: how many are not, and how
/// many were not fresh.
fn check(here: &Here) -> (u64, u64) {
    // What is fresh then is proved to be as of a moment at which nobody wrote any more.
    thread::sleep(LEASE + Duration::from_millis(50));
    let until = Instant::now() + PATIENCE / 2;
    let (mut missed, mut stale) = (0, 0);
    for key in 0..KEYS_EACH * NODES as u64 {
        loop {
            match here.cache.get_or_load(&key) {
                Ok(Answer::Fresh(version)) => {
                    missed += u64::from(version != here.truth.version(key));
                    break;
                }
                Ok(_) | Err(_) if Instant::now() > until => {
                    stale += 1;
                    break;
                }
                Ok(_) | Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
    (missed, stale)
}

/// One process: opens its node, writes and reads, and does what its standard input says.
fn child(dir: &Path, number: usize) {
    // An observer that is killed takes its nodes with it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .expect("the kernel");
    let here = open(dir, number);
    println!("open");
    here.node().wait_member(PATIENCE).expect("a member");
    println!("member");
    thread::scope(|scope| {
        scope.spawn(|| write(&here));
        scope.spawn(|| read(&here));
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            match line.as_str() {
                "go" => here.writing.store(true, Ordering::SeqCst),
                "quiet" => {
                    here.writing.store(false, Ordering::SeqCst);
                    here.idle.store(false, Ordering::SeqCst);
                    while !here.idle.load(Ordering::SeqCst) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    println!("quiet");
                }
                "check" => {
                    let (missed, stale) = check(&here);
                    if stale > 0 {
                        eprintln!("node {number}: {:#?}", here.node().status());
                        eprintln!("node {number}: {:?}", here.node().link_failures().last());
                    }
                    println!("checked {missed} {stale}");
                }
                "count" => {
                    let Counts { writes, refused, fresh, stale, loads, late, worst } =
                        &*here.counts;
                    let all = [writes, refused, fresh, stale, loads, late, worst];
                    let all = all.map(|count| count.load(Ordering::SeqCst).to_string());
                    println!("counts {}", all.join(" "));
                }
                other => panic!("what is `{other}`?"),
            }
        }
        here.over.store(true, Ordering::SeqCst);
    });
    here.store.close(PATIENCE).expect("a close");
}

// --- the network ---

/// Runs a command of the network's, which must succeed.
fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).output().expect("ip");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {words}: {said}");
}

struct Network {
    prefix: String,
}

impl Network {
    fn new() -> Self {
        let prefix = format!("an{}", std::process::id());
        let this = Self { prefix };
        let hub = this.hub();
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link add name bridge0 type bridge"));
        ip(&format!("-n {hub} link set bridge0 up"));
        for node in 0..NODES {
            let space = this.space(node);
            ip(&format!("netns add {space}"));
            ip(&format!("-n {space} link set lo up"));
            ip(&format!("-n {hub} link add p{node} type veth peer name eth netns {space}"));
            ip(&format!("-n {hub} link set p{node} master bridge0 up"));
            ip(&format!("-n {space} addr add 10.99.0.{}/24 dev eth", node + 1));
            ip(&format!("-n {space} link set eth up"));
        }
        this
    }

    fn hub(&self) -> String {
        format!("{}h", self.prefix)
    }

    fn space(&self, node: usize) -> String {
        format!("{}n{node}", self.prefix)
    }

    /// The port of a node goes down, or comes up.
    fn port(&self, node: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        ip(&format!("-n {} link set p{node} {state}", self.hub()));
    }

    /// What `from` sends to `to` goes nowhere, or arrives again.
    fn lose(&self, from: usize, to: usize, lost: bool) {
        let what = if lost { "add" } else { "del" };
        let space = self.space(from);
        ip(&format!("-n {space} route {what} blackhole 10.99.0.{}/32", to + 1));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for space in (0..NODES).map(|node| self.space(node)).chain([self.hub()]) {
            drop(Command::new("ip").args(["netns", "del", &space]).output());
        }
    }
}

// --- the observer ---

struct Process {
    child: Child,
    input: ChildStdin,
    said: Receiver<String>,
}

impl Process {
    fn start(network: &Network, dir: &Path, node: usize) -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut child = Command::new("ip")
            .args(["netns", "exec", &network.space(node)])
            .arg(own)
            .arg("--node")
            .arg(dir)
            .arg(node.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (tell, said) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                drop(tell.send(line));
            }
        });
        Self { child, input, said }
    }

    fn say(&mut self, what: &str) {
        writeln!(self.input, "{what}").expect("a child that lives");
    }

    /// What comes after `first` in the next line, which must begin so.
    fn hear(&self, first: &str) -> Vec<u64> {
        let line = self.said.recv_timeout(2 * PATIENCE);
        let line = line.unwrap_or_else(|_| panic!("a child never said `{first}`"));
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some(first), "{line}");
        words.map(|word| word.parse().expect("a number")).collect()
    }

    fn kill(mut self) {
        self.child.kill().expect("a child that lives");
        self.child.wait().expect("its end");
    }
}

/// Of all processes, also those that were killed.
#[derive(Debug, Default)]
struct Sums {
    counts: [u64; 7],
    missed: u64,
    never_fresh: u64,
}

struct Observer {
    network: Network,
    dir: PathBuf,
    processes: Vec<Process>,
    sums: Sums,
}

impl Observer {
    fn begin(dir: &Path) -> Self {
        let network = Network::new();
        let mut this =
            Self { network, dir: dir.to_owned(), processes: Vec::new(), sums: Sums::default() };
        for node in 0..NODES {
            let process = Process::start(&this.network, dir, node);
            process.hear("open");
            process.hear("member");
            this.processes.push(process);
        }
        this
    }

    fn count(&mut self, node: usize) {
        self.processes[node].say("count");
        let counts = self.processes[node].hear("counts");
        for (at, (sum, count)) in self.sums.counts.iter_mut().zip(counts).enumerate() {
            *sum = if at == 6 { (*sum).max(count) } else { *sum + count };
        }
    }

    fn kill(&mut self, node: usize, away: Duration) {
        self.count(node);
        let process = self.processes.remove(node);
        process.kill();
        thread::sleep(away);
        let process = Process::start(&self.network, &self.dir, node);
        process.hear("open");
        process.hear("member");
        self.processes.insert(node, process);
        self.processes[node].say("go");
    }

    /// One fault, and the end of it.
    fn fault(&mut self, random: &mut Random, which: u64) {
        let node = usize::try_from(random.below(NODES as u64)).expect("a node");
        let other =
            (node + 1 + usize::try_from(random.below(NODES as u64 - 1)).expect("one")) % NODES;
        let away = LEASE / 2 + Duration::from_millis(random.below(2_000));
        match which % 4 {
            0 => {
                println!("  node {node} is off for {away:?}");
                self.network.port(node, false);
                thread::sleep(away);
                self.network.port(node, true);
            }
            1 => {
                println!("  node {node} is killed, back after {away:?}");
                self.kill(node, away);
            }
            2 => {
                println!("  node {node} does not reach node {other}, for {away:?}");
                self.network.lose(node, other, true);
                thread::sleep(away);
                self.network.lose(node, other, false);
            }
            _ => {
                println!("  nodes {node} and {other} are apart from the rest, for {away:?}");
                let apart = |at: &usize| *at == node || *at == other;
                let (inside, outside): (Vec<_>, Vec<_>) = (0..NODES).partition(apart);
                for lost in [true, false] {
                    for from in &inside {
                        for to in &outside {
                            self.network.lose(*from, *to, lost);
                            self.network.lose(*to, *from, lost);
                        }
                    }
                    if lost {
                        thread::sleep(away);
                    }
                }
            }
        }
    }

    fn go(&mut self) {
        for process in &mut self.processes {
            process.say("go");
        }
    }

    /// Nobody writes: is everything right everywhere?
    fn check(&mut self) {
        for what in ["quiet", "check"] {
            for process in &mut self.processes {
                process.say(what);
            }
            for process in &self.processes {
                if what == "quiet" {
                    process.hear("quiet");
                } else if let [missed, stale] = process.hear("checked")[..] {
                    self.sums.missed += missed;
                    self.sums.never_fresh += stale;
                }
            }
        }
    }
}

fn nothing_is_missed_and_nothing_fresh_is_older_than_the_lease(rounds: u64, seed: u64) -> Sums {
    let dir = tempfile::tempdir().expect("a folder");
    let mut observer = Observer::begin(dir.path());
    let mut random = Random(seed);
    let first = random.below(4);
    for round in 0..rounds {
        println!("round {round}");
        observer.go();
        thread::sleep(Duration::from_millis(300));
        observer.fault(&mut random, first + round);
        observer.check();
    }
    for node in 0..NODES {
        observer.count(node);
    }
    for process in observer.processes {
        drop(process.input);
        let mut child = process.child;
        assert!(child.wait().expect("its end").success(), "a node did not close well");
    }
    observer.sums
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().collect();
    if let [_, flag, dir, number] = &args[..]
        && flag == "--node"
    {
        child(Path::new(dir), number.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let ip_there = Command::new("ip").arg("netns").output().is_ok_and(|it| it.status.success());
    if !rustix::process::geteuid().is_root() || !ip_there {
        eprintln!("SKIPPED: tests in network namespaces need root, and `ip` of iproute2");
        return ExitCode::SUCCESS;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse().ok());
    let rounds = number("ANNALS_NETNS_ROUNDS").unwrap_or(4);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = number("ANNALS_SEED").unwrap_or_else(|| u64::from(since.subsec_nanos()));
    println!("ANNALS_SEED={seed}, {rounds} rounds");
    let sums = nothing_is_missed_and_nothing_fresh_is_older_than_the_lease(rounds, seed);
    let [writes, refused, fresh, stale, loads, late, worst] = sums.counts;
    let Sums { missed, never_fresh, .. } = sums;
    println!("{writes} changes ({refused} refused), {fresh} fresh answers, {stale} others");
    println!("{loads} times the source was asked");
    println!("missed {missed}, late {late} (worst {worst} ms), never fresh again {never_fresh}");
    assert!(writes > 0 && fresh > 2 * loads, "caches that remember nothing prove nothing");
    if missed == 0 && late == 0 && never_fresh == 0 {
        ExitCode::SUCCESS
    } else {
        eprintln!("FAILED: replay with ANNALS_SEED={seed}");
        ExitCode::FAILURE
    }
}
