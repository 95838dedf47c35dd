//! Bytes taken for what an engine has sent: a batch of KV events, and what is put into a log of it.
//!
//! The decoder must not panic, and must not hand out more than a small multiple of what came in.
//! What it reads and writes again, in each generation of the format, it must read as the same. The
//! stages behind it must take whatever it hands out, and say only what changes something.

use std::collections::BTreeSet;
use std::time::Duration;

use annals::edge::kv::{
    Batch, Change, EngineEvent, Gather, Holders, KvEvent, Normalise, Number, Schema, Told,
};
use annals::edge::{Emit, Pos, Stage, Why};

/// One input.
pub fn run(data: &[u8]) {
    if let Some(told) = Told::from_bytes(data) {
        assert_eq!(told.to_bytes(), data, "another form of the same");
    }
    if let Ok(batch) = Batch::decode(data) {
        let inside: usize = batch.events.iter().map(size).sum();
        assert!(batch.events.len() + inside <= data.len(), "more than came in");
        for schema in [Schema::Arrays, Schema::Maps, Schema::AllMaps] {
            let again = Batch::decode(&batch.encode(schema)).expect("what was written");
            // A time may be no number, which is not the same as itself.
            assert_eq!((&again.events, again.rank), (&batch.events, batch.rank));
        }
    }
    pipeline(data);
}

/// Hashes and tokens.
fn size(event: &EngineEvent) -> usize {
    match event {
        EngineEvent::Stored(stored) => stored.hashes.len() + stored.tokens.len(),
        EngineEvent::Removed { hashes, .. } => hashes.len(),
        EngineEvent::Cleared => 0,
    }
}

/// Takes what a stage lets go.
struct Out<T>(Vec<(Pos, T)>);

impl<T> Emit<T> for Out<T> {
    fn emit(&mut self, pos: Pos, item: T) {
        self.0.push((pos, item));
    }

    fn skip(&mut self, _pos: Pos, _reason: &'static str) {}

    fn poison(&mut self, _pos: Pos, _why: Why) {}

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

fn through<S: Stage>(stage: &mut S, items: Vec<(Pos, S::In)>) -> Vec<(Pos, S::Out)> {
    let mut out = Out(Vec::new());
    for (pos, item) in items {
        // Poison is an answer.
        let _poison = stage.step(pos, item, &mut out);
    }
    let flushed = stage.flush(true, &mut out);
    assert!(flushed.is_ok() && stage.held().is_none());
    assert!(out.0.is_sorted_by_key(|(pos, _)| *pos), "out of order");
    out.0
}

/// The bytes as several batches, one behind the other, as long as the first byte of each says.
fn pipeline(data: &[u8]) {
    let mut batches = Vec::new();
    let mut rest = data;
    while let Some((length, after)) = rest.split_first() {
        let (batch, after) = after.split_at(after.len().min(usize::from(*length)));
        batches.push((Pos::new(1, batches.len() as u64), Told::Batch(batch.to_vec())));
        rest = after;
    }
    batches.push((Pos::new(1, batches.len() as u64), Told::Batch(data.to_vec())));
    let mut holders = Holders::new(64);
    let events = through(&mut Normalise::new(0), batches);
    let changes = through(&mut holders, events);
    let gathered = through(&mut Gather::new(8, Duration::ZERO), changes);
    let numbered = through(&mut Number::default(), gathered);
    let mut held = BTreeSet::new();
    for (index, (_, event)) in numbered.iter().enumerate() {
        assert_eq!(event.id, index as u64 + 1);
        read(event, &mut held);
        assert!(event.to_json(1).is_ascii());
    }
    assert_eq!(held.len(), holders.len(), "what went out is not what is held");
    let mut state = Vec::new();
    assert!(holders.save(&mut state));
    let mut again = Holders::new(64);
    assert!(again.restore(Some(&state)).is_ok());
    assert_eq!(again.len(), holders.len());
    // Whatever the state is: it is taken or refused.
    let _refused = again.restore(Some(data));
}

/// Who believes it all.
fn read(event: &KvEvent, held: &mut BTreeSet<(u32, u8, u32, u64)>) {
    let place = |hash: u64| (event.rank, event.medium as u8, event.group, hash);
    match &event.change {
        Change::Stored { blocks, .. } => {
            for block in blocks {
                assert!(held.insert(place(block.hash.0)), "stored twice");
            }
        }
        Change::Removed(hashes) => {
            for hash in hashes {
                assert!(held.remove(&place(hash.0)), "removed, and was not there");
            }
        }
        Change::Cleared => held.retain(|(rank, ..)| *rank != event.rank),
    }
}
