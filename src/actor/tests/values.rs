//! Archives: whatever their alignment, and wherever they stand.

use std::fmt::Debug;

use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::*;
use crate::actor::Value;

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum Happened {
    Nothing,
    Wide(u128),
    /// 16-aligned within an archive that is not.
    Wides(Vec<u128>),
    Text(String, Option<Box<Happened2>>),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Happened2 {
    numbers: Vec<u16>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Wides {
    numbers: Vec<u128>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Unit;

/// Written behind any prefix that the alignment allows, and read from any address.
fn goes_round<T: Value + Clone + Debug + PartialEq>(value: &T) {
    for prefix in (0..64).step_by(T::ALIGN) {
        let mut bytes = AlignedVec::<16>::new();
        bytes.resize(prefix, 0xff);
        value.encode(&mut bytes).unwrap();
        for offset in 0..16 {
            let mut moved = AlignedVec::<16>::new();
            moved.resize(offset, 0xff);
            moved.extend_from_slice(&bytes[prefix..]);
            assert_eq!(&T::decode(&moved[offset..]).unwrap(), value, "{prefix} {offset}");
        }
    }
}

#[test]
fn an_archive_goes_round_wherever_it_is_written_and_read() {
    goes_round(&Happened::Nothing);
    goes_round(&Happened::Wide(7));
    goes_round(&Happened::Wides(vec![1, 2, 3]));
    let inner = Some(Box::new(Happened2 { numbers: vec![1, 2] }));
    goes_round(&Happened::Text("text".repeat(10), inner));
    goes_round(&Wides { numbers: vec![4, 5] });
    goes_round(&Unit);
    goes_round(&7_u8);
}

#[test]
fn no_cut_and_no_flipped_bit_does_more_than_fail() {
    let mut bytes = AlignedVec::<16>::new();
    Happened::Wides(vec![1, 2, 3]).encode(&mut bytes).unwrap();
    for length in 0..bytes.len() {
        drop(Happened::decode(&bytes[..length]));
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        drop(Happened::decode(&flipped));
    }
}

macro_rules! keeps {
    ($test:ident, $event:ty, $kind:literal, $values:expr) => {
        #[test]
        fn $test() {
            #[derive(Default)]
            struct Keeps(Vec<$event>);
            impl Actor for Keeps {
                type Event = $event;
                const KIND: &'static str = $kind;
                fn apply(&mut self, event: &$event) {
                    self.0.push(event.clone());
                }
            }
            impl Handle<Vec<$event>> for Keeps {
                type Reply = ();
                fn handle(events: Vec<$event>, turn: &mut Turn<'_, Self>) {
                    for event in events {
                        turn.emit(event);
                    }
                }
            }
            let values: Vec<$event> = $values;
            let memory = Memory::new();
            let runtime = runtime(&memory);
            let keeps = runtime.actor::<Keeps>("a").unwrap();
            // In the first frame with the name, alone in a frame, and many in one.
            keeps.ask(values.clone()).unwrap();
            for value in &values {
                keeps.ask(vec![value.clone()]).unwrap();
            }
            keeps.ask(values.clone()).unwrap();
            let live = keeps.peek(|keeps| keeps.0.clone()).unwrap().value;
            keeps.passivate().unwrap();
            assert_eq!(keeps.peek(|keeps| keeps.0.clone()).unwrap().value, live);
            assert_eq!(live, [&values[..], &values[..], &values[..]].concat());
        }
    };
}

keeps!(wide_events_are_read_as_they_were_written, Happened, "wide", {
    vec![Happened::Wide(1), Happened::Nothing, Happened::Wides(vec![2, 3])]
});
keeps!(events_with_wide_parts_are_read_as_they_were_written, Wides, "wides", {
    vec![Wides { numbers: vec![1] }, Wides { numbers: vec![] }, Wides { numbers: vec![2, 3] }]
});
keeps!(events_without_bytes_are_read_as_they_were_written, Unit, "unit", vec![Unit, Unit, Unit]);
keeps!(small_events_are_read_as_they_were_written, u8, "small", vec![1, 2, 3]);
