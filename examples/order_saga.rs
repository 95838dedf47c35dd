//! Orders that are paid at most once, whatever crashes: a saga of steps, a timer and messages.
//!
//! ```text
//! cargo run --release --example order_saga -- --kill 20
//! ```
//!
//! Each order is an actor. It reserves stock, waits for its customer to pay, takes the payment,
//! has the warehouse ship, and undoes all of it where something does not work out:
//!
//! - What is asked of the **world outside** (stock, payment) is a *step*: its beginning is stored
//!   before it runs. Its key is the same whenever it is tried again.
//! - The world outside is a bad one: it loses answers, and it takes a payment as often as it is
//!   asked to. So an order that does not know whether a step was done (the answer was lost, or the
//!   process died) **asks by the key** before it does anything again.
//! - An order that is not paid in time is cancelled by a *timer*, also if the time passes while no
//!   process runs.
//! - Order and **warehouse** are two actors that talk by *durable messages*: each is handled once.
//!
//! With `--kill` a child process does that and gets `SIGKILL` at random moments; the parent starts
//! the next. At the end an audit compares what the world outside has written down with the log.
#![expect(clippy::disallowed_methods, reason = "an example has a file of its own, and sleeps")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{
    Actor, ActorOptions, CommandId, Durable, Handle, Happened, Outcome, RuntimeOptions, Seq, Step,
    StepContext, Stepped, Store, Turn,
};
use parking_lot::Mutex;

const HELP: &str = "\
Orders, a warehouse, and a world outside that loses answers.

Usage: order_saga [options]
  --orders N   how many orders there are [200]
  --kill N     how often to kill the process [0]
  --seed S     repeat the random moments of an earlier run
  --dir DIR    where the store and the record go; must be empty or absent [a temporary directory]
  --help";

/// How long an order waits for its customer.
const UNPAID_AFTER: Duration = Duration::from_millis(1_500);
/// And before it tries something again.
const PAUSE: Duration = Duration::from_millis(3);
/// The one warehouse's name.
const WAREHOUSE: &str = "main";

type Failure = Box<dyn std::error::Error + Send + Sync>;

// ---- The world outside -------------------------------------------------------------------------

/// What can be done out there.
#[derive(Archive, Serialize, Deserialize, Copy, Clone, Debug, PartialEq, Eq)]
#[rkyv(crate = annals::rkyv)]
enum What {
    Reserve,
    Charge,
    Refund,
    Release,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Charge => "charge",
            Self::Refund => "refund",
            Self::Release => "release",
        }
    }

    /// The idempotency key: what is done for whom.
    fn key(self, order: &str) -> String {
        format!("{}/{order}", self.name())
    }
}

/// What comes back from there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// It is done.
    Done,
    /// It will not be done: sold out, or no money.
    Refused,
    /// Asked by key: that was never done.
    Never,
    /// The line is dead, and nobody knows what happened at the other end.
    Lost,
}

/// Stock and payments, in this process; what they were asked to do is in a file that outlives it.
struct World {
    inside: Mutex<Inside>,
}

struct Inside {
    record: File,
    /// How often each key was done.
    done: BTreeMap<String, u32>,
    free: u64,
    random: u64,
}

impl World {
    fn open(dir: &Path, stock: u64, seed: u64) -> Result<Self, Failure> {
        let path = dir.join("outside.txt");
        let done = read_record(&path)?;
        let mut record = OpenOptions::new().create(true).append(true).open(&path)?;
        // A kill may have cut a line, which counts for nothing then.
        record.write_all(b"\n")?;
        let count = |what: &str| done.iter().filter(|(key, _)| key.starts_with(what)).count();
        let taken = count("reserve/").saturating_sub(count("release/"));
        let free = stock.saturating_sub(taken as u64);
        Ok(Self { inside: Mutex::new(Inside { record, done, free, random: seed }) })
    }

    /// Does it, as often as it is asked to.
    fn act(&self, what: What, order: &str) -> Result<Answer, std::io::Error> {
        let (before, after) = self.travel();
        if before {
            return Ok(Answer::Lost); // nothing has happened
        }
        {
            let mut inside = self.inside.lock();
            match what {
                What::Reserve if inside.free == 0 => return Ok(Answer::Refused),
                What::Charge if number_of(order) % 11 == 5 => return Ok(Answer::Refused),
                What::Reserve => inside.free -= 1,
                What::Release => inside.free += 1,
                What::Charge | What::Refund => {}
            }
            let key = what.key(order);
            inside.record.write_all(format!("{key} done\n").as_bytes())?;
            *inside.done.entry(key).or_default() += 1;
        }
        // It is done, whether the answer finds its way or not.
        std::thread::sleep(Duration::from_micros(300));
        Ok(if after { Answer::Lost } else { Answer::Done })
    }

    /// Has this been done?
    fn ask(&self, what: What, order: &str) -> Answer {
        let (before, after) = self.travel();
        let known = self.inside.lock().done.contains_key(&what.key(order));
        match known {
            _ if before || after => Answer::Lost,
            true => Answer::Done,
            false => Answer::Never,
        }
    }

    /// The way there takes a while. Is the question lost, or the answer? One in eight each.
    fn travel(&self) -> (bool, bool) {
        let dice = random(&mut self.inside.lock().random);
        std::thread::sleep(Duration::from_micros(dice % 1_000));
        ((dice >> 32).is_multiple_of(8), (dice >> 40).is_multiple_of(8))
    }
}

/// How often each key was done.
fn read_record(path: &Path) -> Result<BTreeMap<String, u32>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let mut done = BTreeMap::new();
    for key in text.lines().filter_map(|line| line.strip_suffix(" done")) {
        *done.entry(key.to_owned()).or_default() += 1;
    }
    Ok(done)
}

/// A call to the world outside, which the order makes outside of its turns.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Call {
    what: What,
    order: String,
    /// Only ask whether it has been done.
    ask: bool,
}

impl Durable for Call {
    const NAME: &'static str = "call";
}

impl Step for Call {
    type Output = Answer;

    fn run(&self, context: &StepContext) -> Answer {
        let Some(world) = context.service::<Arc<World>>() else { return Answer::Lost };
        if self.ask {
            return world.ask(self.what, &self.order);
        }
        world.act(self.what, &self.order).unwrap_or(Answer::Lost)
    }
}

// ---- The order ---------------------------------------------------------------------------------

#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Unknown,
    Reserving,
    /// The customer's turn.
    Unpaid,
    Paying,
    /// The warehouse's turn.
    Shipping,
    Shipped,
    Refunding,
    Releasing,
    Cancelled,
}

impl Stage {
    /// What the order wants of the world outside.
    fn wants(self) -> Option<What> {
        match self {
            Self::Reserving => Some(What::Reserve),
            Self::Paying => Some(What::Charge),
            Self::Refunding => Some(What::Refund),
            Self::Releasing => Some(What::Release),
            _ => None,
        }
    }

    fn is_end(self) -> bool {
        matches!(self, Self::Shipped | Self::Cancelled)
    }
}

/// What can happen to an order.
#[derive(Archive, Serialize, Deserialize, Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[rkyv(crate = annals::rkyv)]
enum Event {
    Placed,
    Reserved,
    SoldOut,
    /// The customer has said how to pay.
    Ordered,
    Paid,
    Declined,
    /// It was not paid in time.
    Expired,
    Shipped {
        parcel: u64,
    },
    /// The warehouse cannot: the last piece is broken.
    Broken,
    Refunded,
    Released,
    /// Nobody knows whether a step was done: the process died.
    DoubtedAfterCrash,
    /// The same: its answer was lost.
    DoubtedAfterSilence,
}

#[derive(Default)]
struct Order {
    stage: Stage,
}

impl Actor for Order {
    type Event = Event;
    const KIND: &'static str = "order";

    fn apply(&mut self, event: &Event) {
        self.stage = match event {
            Event::Placed => Stage::Reserving,
            Event::Reserved => Stage::Unpaid,
            Event::Ordered => Stage::Paying,
            Event::Paid => Stage::Shipping,
            Event::Shipped { .. } => Stage::Shipped,
            Event::Broken => Stage::Refunding,
            Event::Refunded | Event::Declined | Event::Expired => Stage::Releasing,
            Event::SoldOut | Event::Released => Stage::Cancelled,
            Event::DoubtedAfterCrash | Event::DoubtedAfterSilence => self.stage,
        };
    }

    /// Whatever may come back from storage is named here.
    fn options() -> ActorOptions<Self> {
        ActorOptions::new()
            .command::<Again>()
            .command::<Expire>()
            .command::<Picked>()
            .step::<Call>()
    }
}

/// Calls the world outside, for what the order wants in its stage.
fn call(turn: &mut Turn<'_, Order>, ask: bool) {
    if let Some(what) = turn.stage.wants() {
        let order = turn.name().to_owned();
        turn.step(&what.key(&order), Call { what, order, ask });
    }
}

/// The customer orders.
struct Place;

impl Handle<Place> for Order {
    type Reply = bool;

    fn handle(_: Place, turn: &mut Turn<'_, Self>) -> bool {
        turn.emit(Event::Placed);
        call(turn, false);
        true
    }
}

/// The customer says how to pay.
struct Pay;

impl Handle<Pay> for Order {
    type Reply = bool;

    fn handle(_: Pay, turn: &mut Turn<'_, Self>) -> bool {
        if turn.stage != Stage::Unpaid {
            return false; // too late, or said before
        }
        turn.cancel("unpaid");
        turn.emit(Event::Ordered);
        call(turn, false);
        true
    }
}

/// A step has come back, or the process died before it could.
impl Handle<Stepped<Call>> for Order {
    type Reply = ();

    fn handle(stepped: Stepped<Call>, turn: &mut Turn<'_, Self>) {
        let answer = match stepped.outcome {
            Outcome::Done(answer) => answer,
            Outcome::InDoubt | Outcome::Panicked(_) => {
                // It has run, or not, or in part. The one who knows is asked, by the key.
                turn.emit(Event::DoubtedAfterCrash);
                return call(turn, true);
            }
        };
        match answer {
            Answer::Lost => {
                // The same doubt, without a crash. The line needs a moment.
                turn.emit(Event::DoubtedAfterSilence);
                turn.wake_after("again", PAUSE, &Again);
            }
            // Now it is known that it was not done. The key stays the same.
            Answer::Never => call(turn, false),
            Answer::Done => done(stepped.step.what, turn),
            Answer::Refused => match stepped.step.what {
                What::Reserve => turn.emit(Event::SoldOut),
                What::Charge => {
                    turn.emit(Event::Declined);
                    call(turn, false);
                }
                // What was done can be undone; if not now, then later.
                What::Refund | What::Release => turn.wake_after("again", PAUSE, &Again),
            },
        }
    }
}

/// And goes on from there.
fn done(what: What, turn: &mut Turn<'_, Order>) {
    match what {
        What::Reserve => {
            turn.emit(Event::Reserved);
            turn.wake_after("unpaid", UNPAID_AFTER, &Expire);
        }
        What::Charge => {
            turn.emit(Event::Paid);
            let order = turn.name().to_owned();
            let warehouse = turn.actor::<Warehouse>(WAREHOUSE).expect("a good name");
            // All of the turn or nothing: if there is no room the turn fails, `Paid` is not
            // stored, and the step comes back in doubt.
            turn.send(&warehouse, Ship { order }).expect("room at the warehouse");
        }
        What::Refund => {
            turn.emit(Event::Refunded);
            call(turn, false);
        }
        What::Release => turn.emit(Event::Released),
    }
}

/// The timer of an order that lost an answer.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Again;

impl Durable for Again {
    const NAME: &'static str = "again";
}

impl Handle<Again> for Order {
    type Reply = ();

    fn handle(_: Again, turn: &mut Turn<'_, Self>) {
        call(turn, true);
    }
}

/// The timer of an order that is not paid.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Expire;

impl Durable for Expire {
    const NAME: &'static str = "expire";
}

impl Handle<Expire> for Order {
    type Reply = ();

    fn handle(_: Expire, turn: &mut Turn<'_, Self>) {
        if turn.stage == Stage::Unpaid {
            turn.emit(Event::Expired);
            call(turn, false);
        }
    }
}

/// How far are you?
struct Look;

impl Handle<Look> for Order {
    type Reply = Stage;

    fn handle(_: Look, turn: &mut Turn<'_, Self>) -> Stage {
        turn.stage
    }
}

// ---- The warehouse -----------------------------------------------------------------------------

#[derive(Default)]
struct Warehouse {
    parcels: u64,
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Sent {
    order: String,
    /// `None`: the piece was broken.
    parcel: Option<u64>,
}

impl Actor for Warehouse {
    type Event = Sent;
    const KIND: &'static str = "warehouse";

    fn apply(&mut self, event: &Sent) {
        self.parcels += u64::from(event.parcel.is_some());
    }

    fn options() -> ActorOptions<Self> {
        ActorOptions::new().command::<Ship>().mailbox(100_000)
    }
}

/// From an order to the warehouse. It is handled once, so nothing here looks for doubles.
#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = annals::rkyv)]
struct Ship {
    order: String,
}

impl Durable for Ship {
    const NAME: &'static str = "ship";
}

impl Handle<Ship> for Warehouse {
    type Reply = ();

    fn handle(Ship { order }: Ship, turn: &mut Turn<'_, Self>) {
        let broken = number_of(&order) % 7 == 3;
        let parcel = (!broken).then_some(turn.parcels + 1);
        let to = turn.actor::<Order>(&order).expect("a good name");
        turn.emit(Sent { order, parcel });
        turn.send(&to, Picked { parcel }).expect("room at the order");
    }
}

/// And back.
#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = annals::rkyv)]
struct Picked {
    parcel: Option<u64>,
}

impl Durable for Picked {
    const NAME: &'static str = "picked";
}

impl Handle<Picked> for Order {
    type Reply = ();

    fn handle(Picked { parcel }: Picked, turn: &mut Turn<'_, Self>) {
        if let Some(parcel) = parcel {
            turn.emit(Event::Shipped { parcel });
        } else {
            turn.emit(Event::Broken);
            call(turn, false);
        }
    }
}

// ---- One life ----------------------------------------------------------------------------------

fn name_of(number: u64) -> String {
    format!("order-{number:04}")
}

fn number_of(name: &str) -> u64 {
    name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Customers: they order, and all but some pay.
fn live(dir: &Path, orders: u64, seed: u64) -> Result<(), Failure> {
    let world = Arc::new(World::open(dir, orders * 9 / 10, seed)?);
    // The kinds are named here so that what the last life left is taken up at once.
    // Few steps at a time: there are moments in between then, at which to be killed.
    let runtime = RuntimeOptions { steps_max: 4, ..RuntimeOptions::default() };
    let options =
        Store::options().runtime(runtime).actor::<Order>().actor::<Warehouse>().service(world);
    let store = options.open(dir.join("store"))?;
    let mut open = Vec::new();
    for number in 0..orders {
        let name = name_of(number);
        let order = store.actor::<Order>(&name)?;
        // After a crash the customer does not know whether it was placed, and says it again with
        // the same id.
        open.push((order.post_once(CommandId::of(&name), Place)?, order, number));
    }
    let mut waiting = Vec::new();
    for (ticket, order, number) in open {
        ticket.wait()?;
        waiting.push((order, number));
    }
    while !waiting.is_empty() {
        let mut left = Vec::new();
        for (order, number) in waiting {
            let stage = order.ask(Look)?;
            if stage == Stage::Unpaid && number % 6 != 1 {
                order.ask(Pay)?;
            }
            if !stage.is_end() {
                left.push((order, number));
            }
        }
        waiting = left;
        std::thread::sleep(Duration::from_millis(2));
    }
    let _closed = store.close(Duration::from_secs(10))?;
    Ok(())
}

// ---- The audit ---------------------------------------------------------------------------------

/// What became of the orders, by what the log says.
#[derive(Default)]
struct Audit {
    ends: BTreeMap<&'static str, u64>,
    crashes: u64,
    silences: u64,
    wrong: Vec<String>,
}

/// Compares the record of the world outside with the log, order by order.
fn audit(dir: &Path, orders: u64) -> Result<Audit, Failure> {
    let done = read_record(&dir.join("outside.txt"))?;
    let store = Store::options().actor::<Order>().actor::<Warehouse>().open(dir.join("store"))?;
    let mut audit = Audit::default();
    for (key, times) in &done {
        if *times > 1 {
            audit.wrong.push(format!("{key} was done {times} times"));
        }
    }
    let mut parcels = BTreeMap::<String, u64>::new();
    for past in store.history::<Warehouse>(WAREHOUSE, Seq::ZERO)? {
        if let Happened::Event(Sent { order, parcel: Some(_) }) = past.what {
            *parcels.entry(order).or_default() += 1;
        }
    }
    for number in 0..orders {
        let name = name_of(number);
        let history = store.history::<Order>(&name, Seq::ZERO)?;
        let events: Vec<Event> = history.iter().filter_map(|past| past.event().copied()).collect();
        let has = |event: Event| events.contains(&event);
        let did = |what: What| done.contains_key(&what.key(&name));
        let parcels = parcels.get(&name).copied().unwrap_or(0);
        audit.crashes += events.iter().filter(|it| **it == Event::DoubtedAfterCrash).count() as u64;
        audit.silences +=
            events.iter().filter(|it| **it == Event::DoubtedAfterSilence).count() as u64;

        let stage = store.actor::<Order>(&name)?.ask(Look)?;
        let end = match stage {
            Stage::Shipped => "shipped",
            Stage::Cancelled if has(Event::SoldOut) => "sold out",
            Stage::Cancelled if has(Event::Expired) => "not paid in time, released",
            Stage::Cancelled if has(Event::Declined) => "declined, released",
            Stage::Cancelled if has(Event::Broken) => "broken, refunded and released",
            _ => "NOT AT AN END",
        };
        *audit.ends.entry(end).or_default() += 1;

        // Shipped: taken, paid, sent, and kept. Else nothing is left of it, inside or outside.
        let shipped = stage == Stage::Shipped;
        let taken = did(What::Reserve) && !did(What::Release);
        let paid = did(What::Charge) && !did(What::Refund);
        let expected = u64::from(shipped);
        if !stage.is_end() || (taken, paid, parcels) != (shipped, shipped, expected) {
            audit.wrong.push(format!(
                "{name} is {stage:?}: stock taken {taken}, paid {paid}, parcels {parcels}"
            ));
        }
        let told = [
            (Event::Reserved, What::Reserve),
            (Event::Paid, What::Charge),
            (Event::Refunded, What::Refund),
            (Event::Released, What::Release),
        ];
        for (event, what) in told {
            if has(event) != did(what) {
                audit.wrong.push(format!("{name}: log and record differ about {}", what.name()));
            }
        }
    }
    let owed = store.runtime().owed();
    if owed > 0 {
        audit.wrong.push(format!("{owed} promises are not kept yet"));
    }
    Ok(audit)
}

fn report(audit: &Audit, orders: u64, kills: u32) -> Result<(), Failure> {
    println!("\n{:>8}  what became of {orders} orders", "count");
    for (end, count) in &audit.ends {
        println!("{count:>8}  {end}");
    }
    println!("{kills:>8}  kills");
    println!("{:>8}  steps in doubt after a kill, asked by key", audit.crashes);
    println!("{:>8}  answers lost on the way, asked by key", audit.silences);
    for wrong in &audit.wrong {
        println!("   WRONG: {wrong}");
    }
    if !audit.wrong.is_empty() {
        return Err(format!("{} things are wrong", audit.wrong.len()).into());
    }
    println!("Each order was paid at most once, shipped at most once, and shipped or undone.");
    Ok(())
}

// ---- Lives and kills ---------------------------------------------------------------------------

/// Random numbers that come back with their seed (splitmix64).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *seed;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn child(dir: &Path, orders: u64, seed: u64) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--child").arg("--dir").arg(dir);
    command.args(["--orders", &orders.to_string(), "--seed", &seed.to_string()]);
    Ok(command.stdin(Stdio::null()).spawn()?)
}

/// What the world outside has done so far.
fn progress(dir: &Path) -> Result<u64, Failure> {
    Ok(read_record(&dir.join("outside.txt"))?.len() as u64)
}

/// Waits for the moment: most often until the world has done some more, and a little longer; now
/// and then it is early, while the store is opened.
fn wait_for_kill(
    dir: &Path,
    child: &mut Child,
    (orders, left): (u64, u32),
    seed: &mut u64,
) -> Result<(), Failure> {
    let more = Duration::from_micros(random(seed) % 3_000);
    if !random(seed).is_multiple_of(4) {
        // An order is good for some two deeds.
        let has = progress(dir)?;
        let share = (orders * 2).saturating_sub(has) * 3 / 2 / u64::from(left + 1);
        let aim = has + random(seed) % share.max(1);
        while progress(dir)? <= aim && child.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    std::thread::sleep(more);
    Ok(())
}

/// Runs lives and kills them; the last one is left to finish. Answers how many were killed.
fn lives(dir: &Path, orders: u64, kills: u32, mut seed: u64) -> Result<u32, Failure> {
    let mut killed = 0;
    for life in 1_u32.. {
        let began = Instant::now();
        let mut child = child(dir, orders, random(&mut seed))?;
        if killed < kills {
            wait_for_kill(dir, &mut child, (orders, kills - killed), &mut seed)?;
            child.kill()?;
        }
        let status = child.wait()?;
        let (after, deeds) = (began.elapsed().as_millis(), progress(dir)?);
        match status.signal() {
            Some(9) => {
                killed += 1;
                println!("life {life}: killed after {after} ms; {deeds} deeds outside");
            }
            None if status.success() => {
                println!("life {life}: done after {after} ms; {deeds} deeds outside");
                return Ok(killed);
            }
            _ => return Err(format!("a life ended with {status}").into()),
        }
    }
    Ok(killed)
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("order_saga: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    use lexopt::prelude::{Long, Short, ValueExt as _};
    let (mut orders, mut kills, mut seed, mut is_child) = (200, 0, None, false);
    let mut dir = None::<OsString>;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            Long("orders") => orders = parser.value()?.parse()?,
            Long("kill") => kills = parser.value()?.parse()?,
            Long("seed") => seed = Some(parser.value()?.parse()?),
            Long("dir") => dir = Some(parser.value()?),
            Long("child") => is_child = true,
            _ => return Err(argument.unexpected().into()),
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = seed.unwrap_or_else(|| u64::from(now.subsec_nanos()));
    if is_child {
        return live(Path::new(&dir.ok_or("a child needs --dir")?), orders, seed);
    }
    let temporary = tempfile::Builder::new().prefix("annals-saga-").tempdir()?;
    let dir = dir.map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    fs::create_dir_all(&dir)?;
    if dir.read_dir()?.next().is_some() {
        return Err(format!("{} is not empty", dir.display()).into());
    }
    println!("{orders} orders, {kills} kills, seed {seed}, folder {}", dir.display());
    let killed = lives(&dir, orders, kills, seed)?;
    report(&audit(&dir, orders)?, orders, killed)
}
