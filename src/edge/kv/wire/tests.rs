//! The decoder, on bytes as other programs write them and on bytes that nobody should.

use super::*;

// Written by Python's msgspec 0.22 with the structures of vLLM: as it was before June 2026, as it
// is since, and with the outer structure as a map, too.
const ARRAYS: &str = "\
    93cb41daa8dbe0351eb8959cab426c6f636b53746f72656492cf8511a30617afa01dcfd7cce23c7785459acf\
    89eb059c5ab743db9801020304050607cc8004c0a3475055c0c0c0c0c09cab426c6f636b53746f72656491cf\
    4b76ea986457d986c094090ace000111700b0403a3435055a46c6f72619291a26d6dc002ae66756c6c5f6174\
    74656e74696f6ec094ac426c6f636b52656d6f76656491cf8511a30617afa01da3475055c094ac426c6f636b\
    52656d6f76656491cfd7cce23c7785459ac00191b0416c6c426c6f636b73436c656172656403";
const MAPS: &str = "\
    93cb41daa8dbe0351eb89588a474797065ab426c6f636b53746f726564ac626c6f636b5f68617368657392cf\
    8511a30617afa01dcfd7cce23c7785459ab1706172656e745f626c6f636b5f68617368cf89eb059c5ab743db\
    a9746f6b656e5f6964739801020304050607cc80aa626c6f636b5f73697a6504a76c6f72615f6964c0a66d65\
    6469756da3475055a96c6f72615f6e616d65c08ba474797065ab426c6f636b53746f726564ac626c6f636b5f\
    68617368657391cf4b76ea986457d986b1706172656e745f626c6f636b5f68617368c0a9746f6b656e5f6964\
    7394090ace000111700baa626c6f636b5f73697a6504a76c6f72615f696403a66d656469756da3435055a96c\
    6f72615f6e616d65a46c6f7261aa65787472615f6b6579739291a26d6dc0a967726f75705f69647802b26b76\
    5f63616368655f737065635f6b696e64ae66756c6c5f617474656e74696f6e83a474797065ac426c6f636b52\
    656d6f766564ac626c6f636b5f68617368657391cf8511a30617afa01da66d656469756da347505584a47479\
    7065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657391cfd7cce23c7785459aa66d65646975\
    6dc0a967726f75705f6964780181a474797065b0416c6c426c6f636b73436c656172656403";
const ALL_MAPS: &str = "\
    83a27473cb41daa8dbe0351eb8a66576656e74739588a474797065ab426c6f636b53746f726564ac626c6f63\
    6b5f68617368657392cf8511a30617afa01dcfd7cce23c7785459ab1706172656e745f626c6f636b5f686173\
    68cf89eb059c5ab743dba9746f6b656e5f6964739801020304050607cc80aa626c6f636b5f73697a6504a76c\
    6f72615f6964c0a66d656469756da3475055a96c6f72615f6e616d65c08ba474797065ab426c6f636b53746f\
    726564ac626c6f636b5f68617368657391cf4b76ea986457d986b1706172656e745f626c6f636b5f68617368\
    c0a9746f6b656e5f69647394090ace000111700baa626c6f636b5f73697a6504a76c6f72615f696403a66d65\
    6469756da3435055a96c6f72615f6e616d65a46c6f7261aa65787472615f6b6579739291a26d6dc0a967726f\
    75705f69647802b26b765f63616368655f737065635f6b696e64ae66756c6c5f617474656e74696f6e83a474\
    797065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657391cf8511a30617afa01da66d656469\
    756da347505584a474797065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657391cfd7cce23c\
    7785459aa66d656469756dc0a967726f75705f6964780181a474797065b0416c6c426c6f636b73436c656172\
    6564b2646174615f706172616c6c656c5f72616e6b03";
const ARRAYS_BYTES: &str = "\
    93cb3ff8000000000000929cab426c6f636b53746f72656492c4206e340b9cffb37a989ca544e6bb780a2c78\
    901d3fb33738768511a30617afa01dc4204bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce2\
    3c7785459ac420e77b9a9ae9e30b0dbdb6f510a264ef9de781501d7b6b92ae89eb059c5ab743db92010201c0\
    c0c0c0c0c0c094ac426c6f636b52656d6f76656491c4206e340b9cffb37a989ca544e6bb780a2c78901d3fb3\
    3738768511a30617afa01dc0c0c0";
const MAPS_BYTES: &str = "\
    93cb3ff80000000000009288a474797065ab426c6f636b53746f726564ac626c6f636b5f68617368657392c4\
    206e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01dc4204bf5122f344554c53b\
    de2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459ab1706172656e745f626c6f636b5f68617368c420e7\
    7b9a9ae9e30b0dbdb6f510a264ef9de781501d7b6b92ae89eb059c5ab743dba9746f6b656e5f696473920102\
    aa626c6f636b5f73697a6501a76c6f72615f6964c0a66d656469756dc0a96c6f72615f6e616d65c083a47479\
    7065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657391c4206e340b9cffb37a989ca544e6bb\
    780a2c78901d3fb33738768511a30617afa01da66d656469756dc0c0";
const ALL_MAPS_BYTES: &str = "\
    82a27473cb3ff8000000000000a66576656e74739288a474797065ab426c6f636b53746f726564ac626c6f63\
    6b5f68617368657392c4206e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01dc4\
    204bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459ab1706172656e745f626c6f\
    636b5f68617368c420e77b9a9ae9e30b0dbdb6f510a264ef9de781501d7b6b92ae89eb059c5ab743dba9746f\
    6b656e5f696473920102aa626c6f636b5f73697a6501a76c6f72615f6964c0a66d656469756dc0a96c6f7261\
    5f6e616d65c083a474797065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657391c4206e340b\
    9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01da66d656469756dc0";

// By Python's msgpack: hashes with a sign, an event that nobody knows, a field more.
const SIGNED: &str = "\
    94019396ab426c6f636b53746f72656493d38511a30617afa01dd3d7cce23c7785459acf4b76ea986457d986\
    c09301020301c092a54e6f76656c81a16192010292ac426c6f636b52656d6f76656491ffc0a46d6f7265";
// And: keys and events that nobody knows, a type behind its fields.
const STRANGE: &str = "\
    83a37a7a7a9201810203a66576656e74739283ac626c6f636b5f6861736865739101a36e657781a17890a474\
    797065ac426c6f636b52656d6f76656482a474797065a54e6f76656cac626c6f636b5f686173686573a47465\
    7874a2747302";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|two| u8::try_from(two[0] * 16 + two[1]).unwrap()).collect()
}

fn all() -> Vec<(&'static str, Vec<u8>)> {
    let all = [
        ("arrays", ARRAYS),
        ("maps", MAPS),
        ("all maps", ALL_MAPS),
        ("arrays, hashes as bytes", ARRAYS_BYTES),
        ("maps, hashes as bytes", MAPS_BYTES),
        ("all maps, hashes as bytes", ALL_MAPS_BYTES),
        ("signed", SIGNED),
        ("strange", STRANGE),
    ];
    all.map(|(name, hex)| (name, bytes(hex))).into()
}

/// The low 64 bits of the SHA-256 of one byte: 0, 1, 2 ...
const HASHES: [BlockHash; 6] = [
    BlockHash(9_588_624_328_211_013_661),
    BlockHash(15_550_052_362_734_618_010),
    BlockHash(5_437_791_540_335_860_102),
    BlockHash(1_276_307_164_796_758_469),
    BlockHash(7_106_852_438_061_653_617),
    BlockHash(9_938_043_171_818_128_347),
];

fn expected() -> Batch {
    Batch {
        ts: 1_789_095_808.83,
        rank: Some(3),
        events: vec![
            EngineEvent::Stored(EngineStored {
                hashes: HASHES[..2].to_vec(),
                parent: Some(HASHES[5]),
                tokens: vec![1, 2, 3, 4, 5, 6, 7, 128],
                block_size: 4,
                medium: Medium::Device,
                group: 0,
            }),
            EngineEvent::Stored(EngineStored {
                hashes: vec![HASHES[2]],
                parent: None,
                tokens: vec![9, 10, 70_000, 11],
                block_size: 4,
                medium: Medium::Host,
                group: 2,
            }),
            EngineEvent::Removed { hashes: vec![HASHES[0]], medium: Medium::Device, group: 0 },
            EngineEvent::Removed { hashes: vec![HASHES[1]], medium: Medium::Device, group: 1 },
            EngineEvent::Cleared,
        ],
        unknown: 0,
    }
}

#[test]
fn both_generations_of_vllm_s_format_say_the_same() {
    for hex in [ARRAYS, MAPS, ALL_MAPS] {
        assert_eq!(Batch::decode(&bytes(hex)).unwrap(), expected());
    }
}

/// The last eight bytes are what would have been sent as a number.
#[test]
fn a_hash_of_32_bytes_and_one_of_64_bits_are_the_same_block() {
    for hex in [ARRAYS_BYTES, MAPS_BYTES, ALL_MAPS_BYTES] {
        let batch = Batch::decode(&bytes(hex)).unwrap();
        let EngineEvent::Stored(stored) = &batch.events[0] else { panic!("{batch:?}") };
        assert_eq!(stored.hashes, &HASHES[..2]);
        assert_eq!(stored.parent, Some(HASHES[5]));
        assert_eq!(batch.rank, None);
    }
}

#[test]
fn signs_unknown_events_and_unknown_fields_do_no_harm() {
    let batch = Batch::decode(&bytes(SIGNED)).unwrap();
    let EngineEvent::Stored(stored) = &batch.events[0] else { panic!("{batch:?}") };
    assert_eq!(stored.hashes, &HASHES[..3]);
    let EngineEvent::Removed { hashes, .. } = &batch.events[1] else { panic!("{batch:?}") };
    assert_eq!(hashes, &[BlockHash(u64::MAX)]);
    assert_eq!((batch.unknown, batch.rank), (1, None));

    let batch = Batch::decode(&bytes(STRANGE)).unwrap();
    let EngineEvent::Removed { hashes, .. } = &batch.events[0] else { panic!("{batch:?}") };
    assert_eq!(hashes, &[BlockHash(1)]);
    assert_eq!((batch.events.len(), batch.unknown), (1, 1));
}

#[test]
fn what_is_written_is_read_as_it_was() {
    for schema in [Schema::Arrays, Schema::Maps, Schema::AllMaps] {
        let bytes = expected().encode(schema);
        assert_eq!(Batch::decode(&bytes).unwrap(), expected(), "{schema:?}");
    }
}

/// Each beginning of a message is refused, and so is each with something behind it.
#[test]
fn a_message_cut_anywhere_is_refused() {
    for (name, bytes) in all() {
        assert!(Batch::decode(&bytes).is_ok(), "{name}");
        for cut in 0..bytes.len() {
            assert!(Batch::decode(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        let longer = [&bytes[..], &[0xc0]].concat();
        let offset = bytes.len();
        assert_eq!(Batch::decode(&longer), Err(Reject::Trailing { offset }), "{name}");
    }
}

/// Every byte of every message takes every value: whatever comes of it is bounded by its length.
#[test]
fn no_byte_can_be_changed_into_a_panic_or_into_memory() {
    let mut accepted = 0;
    for (_, bytes) in all() {
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut changed = bytes.clone();
                changed[at] = value;
                let Ok(batch) = Batch::decode(&changed) else { continue };
                accepted += 1;
                let blocks = batch.events.iter().map(|event| match event {
                    EngineEvent::Stored(stored) => stored.hashes.len() + stored.tokens.len(),
                    EngineEvent::Removed { hashes, .. } => hashes.len(),
                    EngineEvent::Cleared => 0,
                });
                assert!(batch.events.len() + blocks.sum::<usize>() <= changed.len());
            }
        }
    }
    assert!(accepted > 10_000, "{accepted}: most changes are refused for something else");
}

/// What is wrong is said with its place.
#[test]
fn a_refusal_says_what_and_where() {
    let refused = |bytes: &[u8]| Batch::decode(bytes).unwrap_err().to_string();
    assert_eq!(refused(&[]), "it ends at byte 0, within a value");
    assert_eq!(refused(&[0xdd, 255, 255, 255, 255]), "the length at byte 0 is more than there is");
    assert_eq!(refused(&[0x07]), "the batch at byte 0 is not an array or a map");
    assert_eq!(refused(&[0x91, 0x01]), "there is no events in what ends at byte 2");
    assert_eq!(refused(&[0x92, 0x01, 0x91, 0x07]), "an event at byte 3 is not an array or a map");
    assert_eq!(refused(&[0x92, 0x01, 0x91, 0x90]), "there is no type in what ends at byte 4");
}
