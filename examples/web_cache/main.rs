//! A web service on three nodes, a slow database behind it, and a cache in front of that.
//!
//! ```console
//! cargo run --release --example web_cache -- --seconds 10
//! ```
//!
//! Each node serves pages over HTTP: `GET /page/7` is answered from its cache, `POST /page/7`
//! changes the database and says so to the others, and `GET /` is the table that is printed while
//! it runs. Visitors of the program's own do both, a few pages often and many now and then. In the
//! middle the third node is cut off from the others, and later joined to them again.
//!
//! Every page that was called fresh is compared with the database: it must be what was there no
//! longer ago than the lease. Pages of the node that is cut off say that they are stale, and since
//! when.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]
#![expect(clippy::disallowed_methods, reason = "it shows what happens in real time")]

mod cut;

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use annals::sync::cache::{Answer, Cache, CacheStats, Manager, Stale, WhenStale};
use annals::sync::domain::Domain;
use annals::sync::freshness::Lease;
use annals::sync::origin::ClusterId;
use annals::{Durability, NodeConfig, Store};
use cut::Way;
use parking_lot::Mutex;

const DOMAIN: &str = "pages";
const PAGES: u64 = 400;
const LEASE: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(30);
/// What a question to the database takes.
const SLOW: Duration = Duration::from_millis(3);

/// The database: of each page how often it was written, and when.
struct Database {
    pages: Vec<Mutex<Vec<Instant>>>,
    asked: AtomicU64,
}

impl Database {
    fn new() -> Arc<Self> {
        let pages = (0..PAGES).map(|_| Mutex::default()).collect();
        Arc::new(Self { pages, asked: AtomicU64::new(0) })
    }

    fn page(&self, page: u64) -> &Mutex<Vec<Instant>> {
        &self.pages[usize::try_from(page % PAGES).unwrap()]
    }

    fn read(&self, page: u64) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed);
        sleep(SLOW);
        self.page(page).lock().len() as u64
    }

    fn write(&self, page: u64) -> u64 {
        sleep(SLOW);
        let mut writes = self.page(page).lock();
        writes.push(Instant::now());
        writes.len() as u64
    }

    /// How long a version had not been the newest any more at `then`.
    fn age(&self, page: u64, version: u64, then: Instant) -> Duration {
        let writes = self.page(page).lock();
        let next = writes.get(usize::try_from(version).unwrap());
        next.map_or(Duration::ZERO, |next| then.saturating_duration_since(*next))
    }
}

/// One node's part of the service.
struct Site {
    name: &'static str,
    cache: Cache<u64, u64>,
    database: Arc<Database>,
    address: SocketAddr,
    /// The oldest page that was called fresh, in microseconds, and the oldest that was not.
    fresh_us_max: AtomicU64,
    stale_us_max: AtomicU64,
}

impl Site {
    fn start(
        name: &'static str,
        (manager, database): (&Manager, &Arc<Database>),
        stop: &Arc<AtomicBool>,
    ) -> Result<Arc<Self>, Box<dyn Error>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let source = Arc::clone(database);
        let cache = manager
            .cache(DOMAIN)
            .entries(1_000)
            .when_stale(WhenStale::Serve)
            .loader(move |page: &u64, _load| Ok(Some(source.read(*page))))
            .build()?;
        let (fresh_us_max, stale_us_max) = (AtomicU64::new(0), AtomicU64::new(0));
        let (database, address) = (Arc::clone(database), listener.local_addr()?);
        let site = Self { name, cache, database, address, fresh_us_max, stale_us_max };
        let site = Arc::new(site);
        let (serving, stop) = (Arc::clone(&site), Arc::clone(stop));
        std::thread::spawn(move || {
            for visitor in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (serving, visitor) = (Arc::clone(&serving), visitor.unwrap());
                // A visitor who goes in the middle of a line is no error of ours.
                std::thread::spawn(move || drop(serving.serve(&visitor)));
            }
        });
        Ok(site)
    }

    /// Answers one visitor, request after request.
    fn serve(&self, visitor: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(visitor).lines();
        visitor.set_nodelay(true)?;
        while let Some(request) = lines.next().transpose()? {
            // Headers, up to the empty line.
            while lines.next().transpose()?.is_some_and(|header| !header.is_empty()) {}
            let mut words = request.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let page = path.strip_prefix("/page/").and_then(|page| page.parse().ok());
            let (status, body) = match (method, page) {
                ("GET", Some(page)) => self.page(page),
                ("POST", Some(page)) => self.change(page),
                ("GET", None) if path == "/" => ("200 OK", self.line()),
                _ => ("404 Not Found", String::new()),
            };
            let length = body.len();
            let mut visitor = visitor;
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
            visitor.write_all((head + &body).as_bytes())?;
        }
        Ok(())
    }

    fn page(&self, page: u64) -> (&'static str, String) {
        let asked = Instant::now();
        match self.cache.get_or_load(&(page % PAGES)) {
            Ok(Answer::Fresh(version)) => {
                let age = self.database.age(page, version, asked);
                self.fresh_us_max.fetch_max(micros(age), Ordering::Relaxed);
                ("200 OK", format!("page {page}, version {version}\n"))
            }
            Ok(Answer::Stale { value: version, since, why: Stale::Lease }) => {
                let age = self.database.age(page, version, asked);
                self.stale_us_max.fetch_max(micros(age), Ordering::Relaxed);
                ("200 OK", format!("page {page}, version {version}, as of {since:?} ago\n"))
            }
            Ok(other) => ("404 Not Found", format!("{other:?}\n")),
            Err(error) => ("503 Service Unavailable", format!("{error}\n")),
        }
    }

    fn change(&self, page: u64) -> (&'static str, String) {
        let page = page % PAGES;
        let change = || Ok::<_, std::convert::Infallible>(Some(self.database.write(page)));
        match self.cache.write(&page, change) {
            Ok(()) => ("200 OK", "changed\n".to_owned()),
            Err(error) => ("503 Service Unavailable", format!("{error}\n")),
        }
    }

    /// A row of the table.
    fn line(&self) -> String {
        let stats: CacheStats = self.cache.stats();
        let answered = stats.hits + stats.stale;
        let lease = match self.cache.lease() {
            Lease::Fresh => "fresh".to_owned(),
            Lease::Stale(Duration::MAX) => "unknown".to_owned(),
            Lease::Stale(age) => format!("stale, {} ms", age.as_millis()),
        };
        format!(
            "{:<6} {:>9} {:>7.1} % {:>9} {:>9} {:>9}   {lease}\n",
            self.name,
            answered + stats.misses,
            stats.hit_rate() * 100.0,
            stats.loads,
            answered + stats.waited,
            stats.stale,
        )
    }
}

fn micros(of: Duration) -> u64 {
    u64::try_from(of.as_micros()).unwrap_or(u64::MAX)
}

/// Asks for pages, and now and then changes one, until told to stop.
fn visit(site: &Site, (seed, writes): (u64, bool), stop: &AtomicBool) -> std::io::Result<()> {
    let stream = TcpStream::connect(site.address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(&stream);
    let mut random = seed;
    while !stop.load(Ordering::SeqCst) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
        let (one, other) = (random >> 33, (random >> 13) & 0xffff);
        // A few pages often.
        let page = (one % PAGES).min(other % PAGES);
        let method = if writes && one.is_multiple_of(50) { "POST" } else { "GET" };
        (&stream).write_all(format!("{method} /page/{page} HTTP/1.1\r\n\r\n").as_bytes())?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let mut length = 0;
        while line != "\r\n" {
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
            answers.read_line(&mut line)?;
        }
        answers.consume_exact(length)?;
    }
    Ok(())
}

trait ConsumeExact {
    fn consume_exact(&mut self, count: u64) -> std::io::Result<()>;
}

impl<R: std::io::Read> ConsumeExact for BufReader<R> {
    fn consume_exact(&mut self, count: u64) -> std::io::Result<()> {
        std::io::copy(&mut std::io::Read::take(self, count), &mut std::io::sink()).map(drop)
    }
}

fn open(dir: &Path, peers: &[String]) -> Result<Store, annals::Error> {
    // In real life random, made once, and told to those who join.
    let cluster = ClusterId::from_u128(0x3eb);
    let config =
        if peers.is_empty() { NodeConfig::found(cluster) } else { NodeConfig::join(cluster) };
    let config = config
        .domain(Domain::new(DOMAIN, 1))
        .secret(*b"a secret of thirty-two bytes ...")
        .listen((Ipv4Addr::LOCALHOST, 0).into())
        .lease(LEASE);
    let config = peers.iter().fold(config, |config, peer| config.peer(peer.clone()));
    Store::options().durability(Durability::Process).node(config).open(dir)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = lexopt::Parser::from_env();
    let mut seconds = 8.0;
    while let Some(argument) = arguments.next()? {
        use lexopt::ValueExt as _;
        match argument {
            lexopt::Arg::Long("seconds") => seconds = arguments.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let home = tempfile::tempdir()?;
    let one = open(&home.path().join("1"), &[])?;
    let first = one.node()?.address().ok_or("it listens")?;
    let two = open(&home.path().join("2"), &[first.to_string()])?;
    let second = two.node()?.address().ok_or("it listens")?;
    let ways = [Way::new(first)?, Way::new(second)?];
    let three = open(&home.path().join("3"), &ways.each_ref().map(|way| way.address.to_string()))?;
    let stores = [one, two, three];
    for store in &stores {
        store.node()?.wait_member(LONG)?;
        let fresh = store.node()?.wait_fresh(annals::DomainId::of(DOMAIN), LONG);
        assert!(fresh, "a node is not in touch with the others");
    }

    let database = Database::new();
    let stop = Arc::new(AtomicBool::new(false));
    let site = |store: &Store, name| Site::start(name, (store.node()?.caches(), &database), &stop);
    let sites = [site(&stores[0], "one")?, site(&stores[1], "two")?, site(&stores[2], "three")?];
    let apart = stores[2].node()?;
    let (third, begun) = (Duration::from_secs_f64(seconds / 3.0), Instant::now());
    std::thread::scope(|scope| {
        let (sites, stop) = (&sites, &stop);
        let visitors: Vec<_> = (0..6_u64)
            .map(|seed| {
                // The node that is cut off does not write meanwhile: that the others could not
                // know.
                let site = &sites[usize::try_from(seed % 3).unwrap()];
                scope.spawn(move || visit(site, (seed + 1, seed % 3 < 2), stop))
            })
            .collect();
        println!("  ms node    requests   hits       loads     saved     stale   lease");
        let show = |until: Duration| {
            while begun.elapsed() < until {
                sleep(third / 4);
                for site in sites {
                    print!("{:>4} {}", begun.elapsed().as_millis(), site.line());
                }
            }
        };
        show(third);
        for way in &ways {
            way.cut(true);
        }
        println!("--- node three is cut off");
        show(2 * third);
        for way in &ways {
            way.cut(false);
        }
        println!("--- and joined to the others again");
        assert!(apart.wait_fresh(annals::DomainId::of(DOMAIN), LONG), "it comes back");
        show(3 * third);
        stop.store(true, Ordering::SeqCst);
        visitors.into_iter().try_for_each(|visitor| visitor.join().unwrap())
    })?;
    // Wakes those who wait for visitors.
    for site in &sites {
        drop(TcpStream::connect(site.address)?);
    }
    check(&sites, &database)?;
    drop(sites);
    for store in stores {
        store.close(LONG)?;
    }
    Ok(())
}

/// At the end all caches say what the database does, and nothing fresh was older than its lease.
fn check(sites: &[Arc<Site>; 3], database: &Database) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + LONG;
    for site in sites {
        for page in 0..PAGES {
            let newest = database.page(page).lock().len() as u64;
            while site.cache.get_or_load(&page)? != Answer::Fresh(newest) {
                assert!(Instant::now() < deadline, "{}: page {page} stays old", site.name);
                sleep(Duration::from_millis(1));
            }
        }
        let oldest = |of: &AtomicU64| of.load(Ordering::Relaxed) / 1_000;
        let (fresh, stale) = (oldest(&site.fresh_us_max), oldest(&site.stale_us_max));
        println!("{}: oldest fresh page {fresh} ms, oldest stale page {stale} ms", site.name);
        assert!(u128::from(fresh) <= LEASE.as_millis(), "{}: {fresh} ms", site.name);
    }
    let saved: u64 = sites.iter().map(|site| site.cache.stats().hits).sum();
    let asked = database.asked.load(Ordering::Relaxed);
    println!("The database was asked {asked} times, and {saved} times it was not.");
    println!("All three say what the database says.");
    Ok(())
}
