//! Who a node is, and in which of its lives; and how the life before ended.
//!
//! Two files of two [slots](crate::log::slots) each. `node`: cluster (two words), origin, the
//! newest incarnation's counter and nonce, the machine, the directory's device and inode.
//! `ended`: the nonce of an incarnation, the store's life in which it was (highest bit: it ended as
//! it should), number and hash of the last token in each lane, a position of the event log from
//! which on there are all later ones, and when the node last had to take a new life.
//!
//! **A number is durable here before anybody hears of it.** A word of a clean end is about one
//! incarnation and one life of the store, so it is void as soon as the next of either is written:
//! nothing must be erased, and a store that was opened without its node ends it too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::Disk;
use crate::error::{DiskError, ReadError};
use crate::log::Log;
use crate::log::slots::{self, Found, Slots};
use crate::sync::fact::Clean;
use crate::sync::message::{Mark, Marks};
use crate::sync::node::error::NodeError;
use crate::sync::origin::{ClusterId, Cursor, Incarnation, Lane, Origin, TokenLog};
use crate::sync::own::Own;
use crate::sync::replica::Previous;
use crate::types::Life;

const NODE: (&str, [u8; 8]) = ("node", *b"ANNALSND");
const ENDED: (&str, [u8; 8]) = ("ended", *b"ANNALSEN");
/// In the word of the store's life: the incarnation ended as it should.
const CLEAN: u64 = 1 << 63;

/// What a store tells of itself to the node in it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Lives {
    /// The store's life that has begun.
    pub life: Life,
    /// The number of the one before.
    pub before: u64,
    /// It was killed at most, and nothing that it had written is gone.
    pub whole: bool,
    /// Where the event log ended.
    pub end: u64,
}

/// Who a node is.
#[derive(Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
    node: Found,
    pub cluster: ClusterId,
    pub origin: Origin,
    pub incarnation: Incarnation,
    machine: u64,
    place: [u64; 2],
    pub previous: Option<Previous>,
    pub reborn: Option<Duration>,
    ended: Found,
    life: u64,
}

impl Identity {
    /// Reads who the node in `dir` is, and takes the next incarnation, durably. `random` gives
    /// random bits.
    ///
    /// # Errors
    /// [`NodeError::Identity`] where a file is there and cannot be read: nothing is made up in its
    /// place. [`NodeError::Cluster`] where it is of another cluster.
    pub(crate) fn begin(
        (disk, dir): (&dyn Disk, &Path),
        cluster: ClusterId,
        (lives, log): (&Lives, &Log),
        random: &mut dyn FnMut() -> Result<u64, DiskError>,
    ) -> Result<Self, NodeError> {
        let path = dir.join(NODE.0);
        let node = slots::read(disk, &path, NODE.1)?;
        let ended = slots::read(disk, &dir.join(ENDED.0), ENDED.1)?;
        let known = node.valid.first().copied();
        // A file that a crash has left before its first word is as if it were not there; but one
        // that has ended a life had words in it.
        if known.is_none() && (!node.bad.is_empty() || !ended.valid.is_empty()) {
            return Err(NodeError::Identity(path));
        }
        let machine = disk.machine();
        let place = disk.place(dir).map_err(DiskError::at("looking at", dir))?;
        let mut previous = None;
        let (mut origin, mut counter) = (None, 0);
        if let Some([low, high, id, number, nonce, its_machine, device, inode]) = known {
            let found = ClusterId::from_u128(u128::from(low) | u128::from(high) << 64);
            if found != cluster {
                return Err(NodeError::Cluster { found, wanted: cluster });
            }
            counter = number;
            if (its_machine, [device, inode]) == (machine, place) {
                let id = Origin::from_u64(id);
                origin = Some(id);
                let incarnation = Incarnation { counter, nonce };
                previous = Some(end_of(&ended, (id, incarnation), lives, log));
            }
        }
        // Elsewhere than where it was: a copy, and the other may be at work.
        let origin = match origin {
            Some(origin) => origin,
            None => Origin::from_u64(random()?.max(1)),
        };
        let reborn = ended.valid.first().and_then(|fields| {
            let [.., at] = *fields;
            (at > 0 && previous.is_some()).then_some(Duration::from_millis(at))
        });
        let mut identity = Self {
            dir: dir.to_owned(),
            node,
            cluster,
            origin,
            incarnation: Incarnation { counter, nonce: 0 },
            machine,
            place,
            previous,
            reborn,
            ended,
            life: lives.life.number,
        };
        identity.next(disk, 0, random)?;
        Ok(identity)
    }

    /// Takes the next incarnation, with a counter above `above`, durably.
    ///
    /// # Errors
    /// The file system's; the one before holds.
    pub(crate) fn next(
        &mut self,
        disk: &dyn Disk,
        above: u64,
        random: &mut dyn FnMut() -> Result<u64, DiskError>,
    ) -> Result<(), NodeError> {
        let counter = self.incarnation.counter.max(above).saturating_add(1);
        let incarnation = Incarnation { counter, nonce: random()? };
        let cluster = self.cluster.get();
        let [low, high] = crate::types::halves(cluster);
        let [device, inode] = self.place;
        let Incarnation { counter, nonce } = incarnation;
        let fields = [low, high, self.origin.get(), counter, nonce, self.machine, device, inode];
        let path = self.dir.join(NODE.0);
        let mut slots = Slots::open(disk, &path, NODE.1, &self.node)?;
        slots.write(&fields)?;
        slots.sync()?;
        disk.sync_dir(&self.dir).map_err(DiskError::at("syncing", &self.dir))?;
        // The other slot too: each of them alone knows the newest.
        slots.write(&fields)?;
        slots.sync()?;
        self.node = slots::read(disk, &path, NODE.1)?;
        self.incarnation = incarnation;
        Ok(())
    }

    /// Writes down how far the node is. `clean`: it ends here, and this is durable when the call
    /// returns; else it helps the next life after a kill, and no more.
    ///
    /// # Errors
    /// The file system's: the next life begins as after a crash.
    pub(crate) fn note(
        &mut self,
        disk: &dyn Disk,
        (heads, lsn): (&Marks, u64),
        clean: bool,
    ) -> Result<(), NodeError> {
        let path = self.dir.join(ENDED.0);
        let life = self.life | if clean { CLEAN } else { 0 };
        let reborn = self.reborn.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        let Marks { tokens, values } = heads;
        let nonce = self.incarnation.nonce;
        let fields = [nonce, life, tokens.seq, tokens.hash, values.seq, values.hash, lsn, reborn];
        let mut slots = Slots::open(disk, &path, ENDED.1, &self.ended)?;
        slots.write(&fields)?;
        if clean || !self.ended.exists {
            slots.sync()?;
            disk.sync_dir(&self.dir).map_err(DiskError::at("syncing", &self.dir))?;
        }
        drop(slots);
        self.ended = slots::read(disk, &path, ENDED.1)?;
        Ok(())
    }
}

/// How an incarnation has ended.
fn end_of(
    ended: &Found,
    (origin, incarnation): (Origin, Incarnation),
    lives: &Lives,
    log: &Log,
) -> Previous {
    let nothing = Previous { incarnation, heads: Marks::ZERO, clean: Clean::Not };
    let Some([nonce, life, t_seq, t_hash, v_seq, v_hash, lsn, _]) = ended.valid.first().copied()
    else {
        return nothing;
    };
    if nonce != incarnation.nonce || life & !CLEAN != lives.before {
        return nothing;
    }
    let heads = Marks {
        tokens: Mark { seq: t_seq, hash: t_hash },
        values: Mark { seq: v_seq, hash: v_hash },
    };
    if life & CLEAN != 0 {
        return Previous { incarnation, heads, clean: Clean::Whole };
    }
    if !lives.whole {
        return nothing;
    }
    // Nothing that was written is gone: what follows is in the log.
    let end = |lane: Lane| -> Result<Mark, ReadError> {
        let log_of = TokenLog { origin, incarnation, lane };
        let Mark { seq, hash } = heads.of(lane);
        let last = Own::last_of(log, (lsn, lives.end), Cursor { log: log_of, seq, hash })?;
        Ok(Mark { seq: last.seq, hash: last.hash })
    };
    match (end(Lane::Tokens), end(Lane::Values)) {
        (Ok(tokens), Ok(values)) => {
            Previous { incarnation, heads: Marks { tokens, values }, clean: Clean::Inside }
        }
        (Err(_), _) | (_, Err(_)) => nothing,
    }
}
