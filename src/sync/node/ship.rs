//! Shipping: from the logs to the connections, as far as those take it.

use std::sync::atomic::Ordering;

use crate::sync::message::{Mark, Tokens};
use crate::sync::node::pipe::Pipe;
use crate::sync::node::rim::{Conn, Core, Later, Shared};
use crate::sync::origin::{Lane, TokenLog};
use crate::sync::own::OwnReader;
use crate::sync::replica::Logs as _;
use crate::sync::token::{chain, split};
use crate::types::{Durability, Lsn};

/// What is shipped in one message.
const SHIP_BYTES: usize = 64 << 10;

/// A log that is being shipped on a connection.
pub(super) struct Ship {
    pub last: Mark,
    /// The mark before what comes next is known.
    pub known: bool,
    pub visible: u64,
    pub reader: Option<OwnReader>,
}

impl Shared {
    /// Ships what there is, as far as there is room.
    pub(super) fn pump(&self, core: &mut Core) {
        core.moved = false;
        let Core { links, events, buffer, .. } = core;
        for (link, conn) in links.iter_mut().filter(|(_, conn)| !conn.full) {
            let Conn { pipe, ships, full, .. } = conn;
            ships.retain(|log, ship| {
                if *full {
                    return true;
                }
                let before = ship.last.seq;
                let shipped = self.ship((&**pipe, full), log, ship, buffer);
                if ship.last.seq > before {
                    let seq = ship.last.seq;
                    events.push_back(Later::Shipped { link: *link, log: *log, seq });
                }
                if !shipped {
                    events.push_back(Later::Behind { link: *link, origin: log.origin });
                }
                shipped
            });
        }
        if !core.events.is_empty() {
            self.carry_out(core, None);
        }
        self.watch();
    }

    /// `false` if what comes next is gone.
    fn ship(
        &self,
        (pipe, full): (&dyn Pipe, &mut bool),
        log: &TokenLog,
        ship: &mut Ship,
        buffer: &mut Vec<u8>,
    ) -> bool {
        let own = self.logs.is_own(log);
        loop {
            let head = if own {
                self.logs.head(log.lane)
            } else {
                self.logs.foreign.head(log).unwrap_or_default()
            };
            if head.seq < ship.last.seq {
                // The log does not reach so far yet.
                return true;
            }
            if !ship.known {
                let Some(hash) = self.logs.hash_at(log, ship.last.seq) else { return false };
                (ship.last.hash, ship.known) = (hash, true);
            }
            let visible = match (log.lane, own) {
                (Lane::Values, _) => head.seq,
                (Lane::Tokens, true) => self.logs.visible(),
                (Lane::Tokens, false) => self.logs.foreign.visible_of(log),
            };
            let first = ship.last.seq + 1;
            buffer.clear();
            let read = match &mut ship.reader {
                Some(reader) => reader.read(first, SHIP_BYTES, buffer),
                None => self.logs.foreign.read(log, first, SHIP_BYTES, buffer),
            };
            let last = match read {
                Ok(Some(last)) => last,
                Ok(None) if visible > ship.visible && log.lane == Lane::Tokens => ship.last.seq,
                Ok(None) => return true,
                Err(_gone) => return false,
            };
            let before = ship.last.hash;
            // In the other lane the last one is what is visible.
            let visible_here = if log.lane == Lane::Values { last } else { visible };
            let tokens = Tokens { log: *log, first, before, visible: visible_here, bytes: buffer };
            if !pipe.tokens(&tokens) {
                *full = true;
                return true;
            }
            self.counts.shipped.fetch_add(last + 1 - first, Ordering::Relaxed);
            self.counts.shipped_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            ship.visible = visible;
            let hash = if last == head.seq { head.hash } else { chained(before, buffer) };
            ship.last = Mark { seq: last, hash };
        }
    }

    /// Sees to it that somebody looks again when what was published is durable.
    fn watch(&self) {
        if self.logs.visible_at == Durability::Process || self.links.load(Ordering::SeqCst) == 0 {
            return;
        }
        if self.watching.load(Ordering::SeqCst) || self.logs.lane(Lane::Tokens).pending().is_none()
        {
            return;
        }
        self.timer.wake();
    }

    /// What the node's thread asks: what is to be durable for others to see it all.
    pub(super) fn to_watch(&self) -> Option<Lsn> {
        let none = self.logs.visible_at == Durability::Process
            || self.links.load(Ordering::SeqCst) == 0
            || self.watching.load(Ordering::SeqCst);
        if none { None } else { self.logs.lane(Lane::Tokens).pending() }
    }

    pub(super) fn set_watching(&self, watching: bool) {
        self.watching.store(watching, Ordering::SeqCst);
    }
}

fn chained(before: u64, records: &[u8]) -> u64 {
    let (mut rest, mut hash) = (records, before);
    while let Ok((record, after)) = split(rest) {
        hash = chain(hash, record);
        rest = after;
    }
    hash
}
