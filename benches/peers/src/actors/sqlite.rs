//! Events as rows: what somebody writes who has actors and wants them to survive. One thread has
//! the connection, and commits what has queued meanwhile as one transaction.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::sleep::{self, EVENTS, Sleepers};
use super::work::{Job, Work};
use super::{KEEPING_ALL, Peer, actix};
use crate::store::{Answer, Event};
use crate::work::Figures;

pub(crate) const PEER: Peer = Peer {
    name: "sqlite",
    package: "rusqlite",
    runs: "commands: actix, and a transaction for each, in the handler; the rest: no actors",
    tells: "",
    bounded: "",
    keeps: "rows of SQLite, if the handlers are written so",
    upkeep: "0.41.1 of rusqlite, which is in active development",
    does: KEEPING_ALL,
    cannot: &[],
    run,
};

fn run(job: &Job<'_>) -> Answer<Figures> {
    match job.work {
        Work::Command(_) | Work::Beside => actix::one_by_one(job),
        _ => sleep::run::<Rows>(job),
    }
}

/// More than anybody has in flight: a transaction must end.
const BATCH_MAX: usize = 4_096;

/// No table is good at both, so each work has the one that suits it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Rows in the order in which they come, and an index: a commit writes few pages.
    InOrder,
    /// The rows of an actor side by side: a recovery reads few pages.
    ByActor,
}

impl Table {
    fn make(self) -> &'static str {
        match self {
            Self::InOrder => {
                "CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY, \
                 actor INTEGER NOT NULL, seq INTEGER NOT NULL, payload BLOB NOT NULL); \
                 CREATE UNIQUE INDEX IF NOT EXISTS of_actors ON events (actor, seq)"
            }
            Self::ByActor => {
                "CREATE TABLE IF NOT EXISTS events (actor INTEGER, seq INTEGER, \
                 payload BLOB NOT NULL, PRIMARY KEY (actor, seq)) WITHOUT ROWID; \
                 CREATE TABLE IF NOT EXISTS snapshots (actor INTEGER PRIMARY KEY, \
                 seq INTEGER NOT NULL, state BLOB NOT NULL)"
            }
        }
    }
}

/// A connection with the settings that everybody here uses.
pub(crate) fn connect(dir: &Path, table: Table) -> Answer<Connection> {
    let connection = Connection::open(dir.join("actors.sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -(1 << 20))?;
    connection.execute_batch(table.make())?;
    Ok(connection)
}

const INSERT: &str = "INSERT INTO events (actor, seq, payload) VALUES (?1, ?2, ?3)";

/// In the transaction that is open, or in one of its own.
pub(crate) fn insert(connection: &Connection, event: &Event) -> Answer<()> {
    let (actor, seq) = (i64::try_from(event.stream)?, i64::try_from(event.seq)?);
    connection.prepare_cached(INSERT)?.execute(params![actor, seq, &event.payload[..]])?;
    Ok(())
}

/// How many events a new connection finds.
pub(crate) fn stored(dir: &Path, _: u64) -> Answer<u64> {
    let count: i64 =
        connect(dir, Table::InOrder)?
            .query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
    Ok(u64::try_from(count)?)
}

type Waiting = (Event, oneshot::Sender<Result<(), String>>);

/// The way to the thread that writes.
#[derive(Clone)]
pub(crate) struct Queue(Sender<Waiting>);

impl Queue {
    /// What it answers is ready when the event is durable, or is not going to be.
    pub(crate) fn store(
        &self,
        event: Event,
    ) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        let sent = self.0.send((event, sender)).is_ok();
        async move {
            if !sent {
                return Err("the writer has ended".to_owned());
            }
            receiver.await.map_err(|error| error.to_string())?
        }
    }
}

/// The thread that writes; it ends when this and all queues to it are dropped.
pub(crate) struct GroupCommit {
    queue: Option<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl GroupCommit {
    pub(crate) fn start(dir: &Path) -> Answer<Self> {
        let mut connection = connect(dir, Table::InOrder)?;
        let (sender, receiver) = unbounded();
        let thread = std::thread::spawn(move || {
            while let Ok(first) = receiver.recv() {
                commit(&mut connection, first, &receiver);
            }
        });
        Ok(Self { queue: Some(Queue(sender)), thread: Some(thread) })
    }

    pub(crate) fn queue(&self) -> Queue {
        self.queue.clone().expect("it is there until the drop")
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.queue = None;
        self.thread.take().map(JoinHandle::join);
    }
}

/// One transaction with everything that is queued when it begins, or comes while it fills.
fn commit(connection: &mut Connection, first: Waiting, more: &Receiver<Waiting>) {
    let mut waiting = Vec::new();
    let done = fill(connection, first, more, &mut waiting).map_err(|error| error.to_string());
    for asker in waiting {
        // Who asked may have gone.
        drop(asker.send(done.clone()));
    }
}

fn fill(
    connection: &mut Connection,
    first: Waiting,
    more: &Receiver<Waiting>,
    waiting: &mut Vec<oneshot::Sender<Result<(), String>>>,
) -> Answer<()> {
    let transaction = connection.transaction()?;
    for (event, asker) in std::iter::once(first).chain(more.try_iter()).take(BATCH_MAX) {
        waiting.push(asker);
        insert(&transaction, &event)?;
    }
    Ok(transaction.commit()?)
}

/// Rows that are selected and added up: no actor, and nobody to wake.
pub(crate) struct Rows(Connection);

impl Rows {
    fn fold(&self, actor: u64, after: i64, state: &mut [u64; 6]) -> Answer<()> {
        let mut select = self.0.prepare_cached(
            "SELECT payload FROM events WHERE actor = ?1 AND seq > ?2 ORDER BY seq",
        )?;
        let mut rows = select.query(params![i64::try_from(actor)?, after])?;
        while let Some(row) = rows.next()? {
            let payload = row.get_ref(0)?.as_blob()?;
            let number = payload.get(8..16).and_then(|bytes| bytes.first_chunk());
            let number = u64::from_le_bytes(*number.ok_or("a payload of 128 bytes")?);
            state[0] += 1;
            state[1] = number;
            state[2] ^= number;
        }
        Ok(())
    }

    /// Actors `from` on; `events` of each, in turn.
    fn load(&mut self, actors: std::ops::Range<u64>, events: u64) -> Answer<()> {
        for seq in 1..=events {
            let transaction = self.0.transaction()?;
            for actor in actors.clone() {
                insert(&transaction, &Event::new(actor, seq))?;
            }
            transaction.commit()?;
        }
        Ok(())
    }

    fn close(self) -> Answer<()> {
        self.0.close().map_err(|(_, error)| error.into())
    }
}

impl Sleepers for Rows {
    fn open(dir: &Path) -> Answer<Self> {
        // Not mapped, as it is by default: that reads less ahead when it is cold.
        Ok(Self(connect(dir, Table::ByActor)?))
    }

    fn fill(dir: &Path, actors: u64) -> Answer<Self> {
        let mut this = Self::open(dir)?;
        this.0.pragma_update(None, "mmap_size", 4_i64 << 30)?;
        this.load(0..actors, EVENTS)?;
        let transaction = this.0.transaction()?;
        for actor in 0..actors {
            let mut state = [0_u8; 48];
            state[..8].copy_from_slice(&EVENTS.to_le_bytes());
            let values = params![i64::try_from(actor)?, i64::try_from(EVENTS)?, &state[..]];
            transaction
                .prepare_cached("INSERT INTO snapshots (actor, seq, state) VALUES (?1, ?2, ?3)")?
                .execute(values)?;
        }
        transaction.commit()?;
        Ok(this)
    }

    fn recover(&self, actor: u64) -> Answer<(u64, Duration)> {
        let began = Instant::now();
        let mut state = [0; 6];
        self.fold(actor, 0, &mut state)?;
        Ok((std::hint::black_box(state)[0], began.elapsed()))
    }

    fn recover_snapshot(&self, actor: u64) -> Answer<(u64, Duration)> {
        let began = Instant::now();
        let mut select =
            self.0.prepare_cached("SELECT seq, state FROM snapshots WHERE actor = ?1")?;
        let (seq, first) = select.query_row([i64::try_from(actor)?], |row| {
            let state = row.get_ref(1)?.as_blob()?;
            Ok((row.get(0)?, state.first_chunk().copied().unwrap_or_default()))
        })?;
        let mut state = [u64::from_le_bytes(first), 0, 0, 0, 0, 0];
        self.fold(actor, seq, &mut state)?;
        Ok((std::hint::black_box(state)[0], began.elapsed()))
    }

    fn fill_and_compact(dir: &Path, actors: u64) -> Answer<()> {
        let mut this = Self::open(dir)?;
        this.load(0..actors, EVENTS)?;
        // The pages of one actor side by side.
        this.0.execute_batch("VACUUM")?;
        this.close()
    }

    fn fill_sleepers(dir: &Path, actors: u64) -> Answer<()> {
        let mut this = Self::open(dir)?;
        this.load(0..actors, 1)?;
        this.close()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures::executor::block_on;
    use futures::future::try_join_all;

    use super::*;
    use crate::support::home::Home;

    #[test]
    fn what_is_queued_together_is_stored_together_and_found_by_others() {
        let home = Home::new("peers-sqlite-test");
        let dir = home.fresh("group");
        fs::create_dir_all(&dir).unwrap();
        let writer = GroupCommit::start(&dir).unwrap();
        let queue = writer.queue();
        let all = (1..=1_000).map(|seq| queue.store(Event::new(7, seq)));
        block_on(try_join_all(all.collect::<Vec<_>>())).unwrap();
        // Answered, so it is there, while the writer goes on.
        assert_eq!(stored(&dir, 1).unwrap(), 1_000);
        drop(queue);
        drop(writer);
        assert_eq!(stored(&dir, 1).unwrap(), 1_000);
    }

    #[test]
    fn a_fold_sees_what_a_snapshot_does_not_cover() {
        let home = Home::new("peers-sqlite-rows-test");
        let dir = home.fresh("rows");
        fs::create_dir_all(&dir).unwrap();
        let mut rows = Rows::fill(&dir, 3).unwrap();
        assert_eq!(rows.recover_snapshot(2).unwrap().0, EVENTS);
        let transaction = rows.0.transaction().unwrap();
        insert(&transaction, &Event::new(2, EVENTS + 1)).unwrap();
        transaction.commit().unwrap();
        assert_eq!(rows.recover_snapshot(2).unwrap().0, EVENTS + 1);
        assert_eq!(rows.recover(2).unwrap().0, EVENTS + 1);
        assert_eq!(rows.recover(1).unwrap().0, EVENTS);
    }

    #[test]
    fn an_event_that_cannot_be_stored_is_not_answered_as_stored() {
        let home = Home::new("peers-sqlite-failing-test");
        let dir = home.fresh("group");
        fs::create_dir_all(&dir).unwrap();
        let writer = GroupCommit::start(&dir).unwrap();
        let queue = writer.queue();
        block_on(queue.store(Event::new(1, 1))).unwrap();
        // The same number again: the key is taken.
        assert!(block_on(queue.store(Event::new(1, 1))).is_err());
        block_on(queue.store(Event::new(1, 2))).unwrap();
        assert_eq!(stored(&dir, 1).unwrap(), 2);
    }
}
