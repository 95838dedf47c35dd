//! Three nodes that cache the same table, and a link that is cut and healed.
//!
//! ```console
//! cargo run --release --example cache_node -- --all
//! ```
//!
//! or each in a terminal of its own; what is typed there is a key that has changed:
//!
//! ```console
//! cargo run --example cache_node -- --dir /tmp/a --listen 127.0.0.1:7001
//! cargo run --example cache_node -- --dir /tmp/b --listen 127.0.0.1:7002 --peer 127.0.0.1:7001
//! cargo run --example cache_node -- --dir /tmp/c --listen 127.0.0.1:7003 --peer 127.0.0.1:7001
//! ```
//!
//! With `--all` there is a table of numbers that the first two nodes write, and a cache of it at
//! all three. The third is reached through a proxy, which is cut for a while: its answers are no
//! longer called fresh then, and it says how old they may be. When the link is healed it catches
//! up with exactly what it missed. At the end all three caches must say what the table does.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]
#![expect(clippy::disallowed_methods, reason = "it shows what happens in real time")]

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::sync::cache::{Cache, Load, WhenStale};
use annals::sync::domain::Domain;
use annals::sync::node::{Answer, Node, NodeStatus};
use annals::sync::origin::ClusterId;
use annals::{DomainId, Durability, NodeConfig, Op, Store};
use lexopt::ValueExt as _;
use parking_lot::Mutex;

const DOMAIN: &str = "prices";
const KEYS: u64 = 64;
const LEASE: Duration = Duration::from_millis(800);
const LONG: Duration = Duration::from_secs(30);

fn open(dir: &Path, listen: SocketAddr, peers: &[String]) -> Result<Store, annals::Error> {
    // In real life random, made once, and told to those who join.
    let cluster = ClusterId::from_u128(0xca_c4e);
    let base =
        if peers.is_empty() { NodeConfig::found(cluster) } else { NodeConfig::join(cluster) };
    let mut config = base
        .domain(Domain::new(DOMAIN, 1))
        .secret(*b"a secret of thirty-two bytes ...")
        .listen(listen)
        .lease(LEASE)
        .when_stale(WhenStale::Serve);
    for peer in peers {
        config = config.peer(peer.clone());
    }
    Store::options().durability(Durability::Process).node(config).open(dir)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = lexopt::Parser::from_env();
    let (mut dir, mut listen, mut peers, mut all) = (None, None, Vec::new(), false);
    let mut seconds = 12;
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("all") => all = true,
            lexopt::Arg::Long("seconds") => seconds = arguments.value()?.string()?.parse()?,
            lexopt::Arg::Long("dir") => dir = Some(PathBuf::from(arguments.value()?)),
            lexopt::Arg::Long("listen") => listen = Some(arguments.value()?.string()?.parse()?),
            lexopt::Arg::Long("peer") => peers.push(arguments.value()?.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if all {
        return together(Duration::from_secs(seconds));
    }
    let dir = dir.ok_or("--dir says where the node's folder is; or take --all")?;
    alone(&dir, listen.unwrap_or((Ipv4Addr::LOCALHOST, 0).into()), &peers)
}

/// One node, in a terminal of its own.
fn alone(dir: &Path, listen: SocketAddr, peers: &[String]) -> Result<(), Box<dyn Error>> {
    let store = open(dir, listen, peers)?;
    let node = Arc::clone(store.node()?);
    println!("{} listens at {:?}; type a key that has changed", node.origin(), node.address());
    let stop = Arc::new(AtomicBool::new(false));
    let (shown, stopped) = (Arc::clone(&node), Arc::clone(&stop));
    let show = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            println!("{}", line("", &shown));
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    for key in std::io::stdin().lock().lines() {
        match node.publish(Op::key(DomainId::of(DOMAIN), key?.as_bytes())) {
            Ok(number) => println!("token {number}"),
            Err(error) => println!("{error}"),
        }
    }
    stop.store(true, Ordering::SeqCst);
    show.join().unwrap();
    store.close(LONG)?;
    Ok(())
}

/// What is cached: a table that both writers change, as a database would be.
#[derive(Default)]
struct Table(Vec<AtomicU64>);

impl Table {
    fn new() -> Arc<Self> {
        Arc::new(Self((0..KEYS).map(|_| AtomicU64::new(0)).collect()))
    }

    fn at(&self, key: u64) -> &AtomicU64 {
        &self.0[usize::try_from(key).unwrap()]
    }
}

fn key_of(key: u64) -> String {
    format!("{key:03}")
}

fn cache_of(node: &Node, table: &Arc<Table>) -> Cache<String, u64> {
    let table = Arc::clone(table);
    node.caches()
        .cache::<String, u64>(DOMAIN)
        .when_stale(WhenStale::Serve)
        .loader(move |key: &String, _: &mut Load| {
            Ok(Some(table.at(key.parse()?).load(Ordering::SeqCst)))
        })
        .build()
        .unwrap()
}

/// All three nodes here, in one process each with a folder of its own.
fn together(time: Duration) -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let one = open(&home.path().join("1"), any, &[])?;
    let address = one.node()?.address().unwrap();
    let two = open(&home.path().join("2"), any, &[address.to_string()])?;
    let proxy = Proxy::new(address)?;
    let three = open(&home.path().join("3"), any, &[proxy.address.to_string()])?;
    let stores = [&one, &two, &three];
    let table = Table::new();
    let mut caches = Vec::new();
    for store in stores {
        let node = store.node()?;
        node.wait_member(LONG)?;
        caches.push(cache_of(node, &table));
    }
    for store in stores {
        assert!(store.node()?.wait_fresh(DomainId::of(DOMAIN), LONG), "not fresh");
    }
    // What is cleared when nodes meet for the first time is no loss.
    let cleared = stores.map(|store| store.node().map_or(0, |node| node.status().cleared));
    let stop = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let writers = [&one, &two].map(|store| Arc::clone(store.node().unwrap()));
        for (seed, node) in (0_u64..).zip(writers) {
            let (stop, table) = (&stop, &table);
            scope.spawn(move || write(&node, table, stop, seed));
        }
        for cache in &caches {
            let (stop, reads) = (&stop, &reads);
            scope.spawn(move || {
                for key in (0..KEYS).cycle() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer = cache.get_or_load(&key_of(key)).unwrap();
                    reads.fetch_add(u64::from(answer.any().is_some()), Ordering::SeqCst);
                    if key == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        let watched = watch(&stores, &proxy, time);
        stop.store(true, Ordering::SeqCst);
        watched
    })?;
    settle(&stores)?;
    for ((store, cache), cleared) in stores.iter().zip(&caches).zip(cleared) {
        for key in 0..KEYS {
            let cached = cache.get_or_load(&key_of(key))?.any();
            assert_eq!(cached, Some(table.at(key).load(Ordering::SeqCst)), "key {key}");
        }
        let status = store.node()?.status();
        assert_eq!(status.cleared, cleared, "nothing was lost, so nothing had to be cleared");
    }
    println!("{} reads. All three caches say what the table does.", reads.into_inner());
    for store in [three, two, one] {
        store.close(LONG)?;
    }
    Ok(())
}

/// Changes the table, and says so.
fn write(node: &Node, table: &Table, stop: &AtomicBool, seed: u64) {
    let mut random = seed * 2 + 1;
    while !stop.load(Ordering::SeqCst) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = (random >> 40) % KEYS;
        table.at(key).fetch_add(1, Ordering::SeqCst);
        node.publish(Op::key(DomainId::of(DOMAIN), key_of(key).as_bytes())).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Shows how it stands, and cuts and heals the link meanwhile.
fn watch(stores: &[&Store; 3], proxy: &Proxy, time: Duration) -> Result<(), Box<dyn Error>> {
    let domain = DomainId::of(DOMAIN);
    let third = stores[2].node()?;
    let quarter = time / 4;
    let began = Instant::now();
    let (mut went_stale, mut came_back, mut shown) = (false, false, Duration::ZERO);
    while began.elapsed() < time || !came_back {
        let now = began.elapsed();
        assert!(now < time + LONG, "it never came back: {:?}", third.status());
        let cut = now > quarter && now < 3 * quarter;
        proxy.cut(cut);
        let fresh = third.answer(domain) == Answer::Fresh;
        went_stale |= cut && !fresh;
        came_back = went_stale && !cut && fresh;
        if now >= shown {
            shown = now + (time / 12).max(Duration::from_millis(100));
            println!("{:>5.1} s  link {}", now.as_secs_f64(), if cut { "cut" } else { "up" });
            for (number, store) in stores.iter().enumerate() {
                println!("  node {} {}", number + 1, line("  ", store.node()?));
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(went_stale, "nobody noticed that the link was cut");
    Ok(())
}

/// Everything that was published is applied everywhere.
fn settle(stores: &[&Store; 3]) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + LONG;
    for store in stores {
        let node = store.node()?;
        let (origin, head) = (node.origin(), node.status().head);
        for other in stores.iter().filter(|other| other.path() != store.path()) {
            let applied = |status: &NodeStatus| {
                let known = status.origins.iter().find(|it| it.origin == origin);
                known.is_some_and(|it| it.applied.tokens.seq >= head)
            };
            while !applied(&other.node()?.status()) {
                assert!(Instant::now() < deadline, "{:?}", other.node()?.status());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    Ok(())
}

/// A line of the table.
fn line(indent: &str, node: &Node) -> String {
    let status = node.status();
    let stale = match node.answer(DomainId::of(DOMAIN)) {
        Answer::Fresh => "fresh".to_owned(),
        Answer::Stale(_, age) if age == Duration::MAX => "stale, nothing is proved".to_owned(),
        Answer::Stale(_, age) => format!("stale for {:.1} s", age.as_secs_f64()),
    };
    let mut line = format!("{indent}published {:>6}, {stale:<26}", status.head);
    for origin in &status.origins {
        let name = origin.origin.to_string();
        let age = origin.age.map_or("-".to_owned(), |age| format!("{} ms", age.as_millis()));
        write!(line, " | {} at {:>6}, {age} ago", &name[..4], origin.applied.tokens.seq).unwrap();
    }
    for peer in &status.peers {
        write!(line, " | {} lags {}", &peer.origin.to_string()[..4], peer.lag).unwrap();
    }
    line
}

/// Forwards what comes to an address, unless it is cut.
struct Proxy {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn new(to: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (cut, open) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (is_cut, opened) = (Arc::clone(&cut), Arc::clone(&open));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(to) else { continue };
                for (from, into) in [(&near, &far), (&far, &near)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    std::thread::spawn(move || forward(from, into));
                }
                opened.lock().extend([near, far]);
            }
        });
        Ok(Self { address, cut, open })
    }

    fn cut(&self, cut: bool) {
        if self.cut.swap(cut, Ordering::SeqCst) == cut || !cut {
            return;
        }
        for stream in self.open.lock().drain(..) {
            // It may be closed already.
            stream.shutdown(std::net::Shutdown::Both).unwrap_or_default();
        }
    }
}

fn forward(mut from: TcpStream, mut into: TcpStream) {
    let mut buffer = [0; 16 << 10];
    into.set_nodelay(true).unwrap_or_default();
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        if into.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    into.shutdown(std::net::Shutdown::Both).unwrap_or_default();
}
