//! What only the crate itself can ask for: notes. All else is in `tests/it`.

use std::time::Duration;

use crate::log::frame::{Batch, RecordKind};
use crate::log::name;
use crate::store::Store;
use crate::store::stream::{Begin, Fact, Filter, Limit, Position, Subscription};
use crate::types::{Durability, Seq, StreamId};

/// Messages to the outside are notes of their turn; each has an id that stays the same.
#[test]
fn notes_that_are_asked_for_come_between_the_events_with_an_id_of_their_own() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Process).open(home.path()).unwrap();
    let stream = StreamId::of("box", "a");
    let mut lsns = Vec::new();
    for turn in 0..3_u64 {
        let mut batch = Batch::new();
        if turn == 0 {
            let name = name::encode("box", "a").unwrap();
            batch.push(RecordKind::Name, 1, &name).unwrap();
        }
        batch.push(RecordKind::Event, 1, b"event").unwrap();
        batch.push(RecordKind::Note, 7, b"out").unwrap();
        batch.push(RecordKind::Note, 8, b"inside").unwrap();
        batch.push(RecordKind::Event, 1, b"event").unwrap();
        let first = Seq::new(2 * turn + 1).unwrap();
        lsns.push(store.log().append(&mut batch, stream, first).unwrap().lsn.get());
    }
    let open = |begin| {
        let filter = Filter::kind("box");
        let opened =
            Subscription::open((store.log(), &store.readers), filter, begin, Limit::Written)
                .unwrap();
        opened.selecting(|note| note.version == 7)
    };
    let mut expected = Vec::new();
    for (turn, lsn) in lsns.iter().enumerate() {
        let first = 2 * turn as u64 + 1;
        let name = u32::from(turn == 0);
        expected.push((*lsn, name, Fact::Event, first));
        expected.push((*lsn, name + 1, Fact::Note, first));
        expected.push((*lsn, name + 3, Fact::Event, first + 1));
    }
    for begun in 0..expected.len() {
        let (lsn, index, ..) = expected[begun];
        let mut stream = open(Begin::At(Position::new(lsn, index)));
        for (lsn, index, fact, seq) in &expected[begun..] {
            let found = stream.next(Duration::ZERO).unwrap().unwrap();
            let position = Position::new(*lsn, *index);
            assert_eq!((found.position, found.fact, found.seq.get()), (position, *fact, *seq));
            assert_eq!(found.delivery().position, position);
            assert_eq!(found.delivery().store, store.report().store);
        }
        assert!(stream.next(Duration::ZERO).unwrap().is_none());
    }
}
