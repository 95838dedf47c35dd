//! What is asked of each store: append, many at once, read all, read one stream.

use std::error::Error;
use std::path::Path;

/// What a store answers. Any failure ends the case for that store, with its words in the table.
pub(crate) type Answer<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of an event's payload, everywhere.
pub(crate) const PAYLOAD_BYTES: usize = 128;

/// What an append survives when it has returned.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The end of the process.
    Process,
    /// Power loss.
    Power,
}

/// One event of one stream.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Event {
    pub(crate) stream: u64,
    /// From 1, without holes in its stream.
    pub(crate) seq: u64,
    /// Begins with the two numbers, for stores that have no key.
    pub(crate) payload: [u8; PAYLOAD_BYTES],
}

impl Event {
    /// Bytes that compress badly and are the same in every run.
    pub(crate) fn new(stream: u64, seq: u64) -> Self {
        let mut state = 1_u8;
        let mut payload = std::array::from_fn(|_| {
            state = state.wrapping_mul(29).wrapping_add(77);
            state
        });
        write_number(&mut payload, 0, stream);
        write_number(&mut payload, 8, seq);
        Self { stream, seq, payload }
    }

    /// Makes it the next one of its stream.
    pub(crate) fn step(&mut self) {
        self.seq += 1;
        write_number(&mut self.payload, 8, self.seq);
    }

    /// The key in stores that order their keys as bytes: stream, then number.
    pub(crate) fn key(&self) -> [u8; 16] {
        key(self.stream, self.seq)
    }
}

/// See [`Event::key`].
pub(crate) fn key(stream: u64, seq: u64) -> [u8; 16] {
    ((u128::from(stream) << 64) | u128::from(seq)).swap_bytes().to_le_bytes()
}

fn write_number(payload: &mut [u8; PAYLOAD_BYTES], at: usize, number: u64) {
    payload[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// What a reader has seen. Each payload is looked at, as little as may be.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) events: u64,
    pub(crate) seq_sum: u128,
    pub(crate) seq_max: u64,
}

impl Seen {
    #[inline]
    pub(crate) fn see(&mut self, payload: &[u8]) {
        if let Some(number) = payload.get(8..16).and_then(|bytes| bytes.first_chunk()) {
            let seq = u64::from_le_bytes(*number);
            self.events += 1;
            self.seq_sum += u128::from(seq);
            self.seq_max = self.seq_max.max(seq);
        }
    }

    /// Are these the events of one stream from its first on, without a hole?
    pub(crate) fn is_prefix(&self) -> bool {
        let max = u128::from(self.seq_max);
        self.events == self.seq_max && self.seq_sum == max * (max + 1) / 2
    }
}

/// An open store. It is shared by threads; each makes a writer of its own.
pub(crate) trait Store: Send + Sync {
    fn writer(&self) -> Answer<Box<dyn Writer + '_>>;

    /// Reads every event.
    fn scan(&self, seen: &mut Seen) -> Answer<()>;

    /// Reads the events of one stream, in order.
    fn replay(&self, stream: u64, seen: &mut Seen) -> Answer<()>;

    /// Everything that was appended becomes durable, where the store has a way.
    fn settle(&self) -> Answer<()> {
        Ok(())
    }
}

/// One thread's way into a store.
pub(crate) trait Writer {
    /// At the level that the store was opened for.
    fn append(&mut self, event: &Event) -> Answer<()>;

    /// All of them, in the way that suits the store best: at that level when it returns.
    fn append_all(&mut self, events: &[Event]) -> Answer<()>;
}

/// Opens a store in a folder that exists, whatever is in it.
pub(crate) type Open = fn(&Path, Level) -> Answer<Box<dyn Store>>;

/// What can be asked, and is a row or a column somewhere.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Durable appends, each waited for.
    Durable,
    /// Many on their way at once, all waited for together.
    InFlight,
    /// Appends that survive the process.
    Append,
    Scan,
    Replay,
}

/// What there is to know of a store besides its figures.
pub(crate) struct Peer {
    /// As the tables say it, and `--only`.
    pub(crate) name: &'static str,
    /// Its crate; its version is read from `Cargo.lock`.
    pub(crate) package: &'static str,
    pub(crate) kind: &'static str,
    /// What the call behind the durable figures does.
    pub(crate) durable: &'static str,
    /// What the call behind the unsynced figures does.
    pub(crate) unsynced: &'static str,
    /// How 1,024 in flight was done.
    pub(crate) in_flight: &'static str,
    /// Who checks what was read.
    pub(crate) checks: &'static str,
    /// What it cannot do, and why: then there is no figure.
    pub(crate) cannot: &'static [(Ask, &'static str)],
    /// What it does with less than was asked: then the figure has a mark.
    pub(crate) less: &'static [(Ask, &'static str)],
    pub(crate) open: Open,
}

impl Peer {
    pub(crate) fn cannot(&self, ask: Ask) -> Option<&'static str> {
        find(self.cannot, ask)
    }

    pub(crate) fn less(&self, ask: Ask) -> Option<&'static str> {
        find(self.less, ask)
    }
}

fn find(list: &[(Ask, &'static str)], ask: Ask) -> Option<&'static str> {
    list.iter().find(|(it, _)| *it == ask).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_stream_and_then_by_number() {
        assert!(key(1, u64::MAX) < key(2, 0));
        assert!(key(256, 1) > key(255, 1));
        assert!(key(7, 256) > key(7, 255));
    }

    #[test]
    fn a_hole_or_a_repetition_is_no_prefix() {
        let see = |seqs: &[u64]| {
            let mut seen = Seen::default();
            for seq in seqs {
                seen.see(&Event::new(0, *seq).payload);
            }
            seen
        };
        assert!(see(&[]).is_prefix());
        assert!(see(&[1, 2, 3]).is_prefix());
        assert!(see(&[3, 1, 2]).is_prefix());
        assert!(!see(&[1, 3]).is_prefix());
        assert!(!see(&[1, 1, 3]).is_prefix());
        assert!(!see(&[2, 3]).is_prefix());
    }

    #[test]
    fn the_next_event_says_so_in_its_payload() {
        let mut event = Event::new(9, 1);
        event.step();
        assert_eq!(event.payload, Event::new(9, 2).payload);
    }
}
