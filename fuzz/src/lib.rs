//! What the fuzz targets do, as plain functions from bytes.
//!
//! `cargo fuzz` calls them with what it makes up; the test below calls them on stable, with the
//! seeds, what a fuzzer has collected in `corpus/`, and mutations of both.

pub mod catalogue;
mod damage;
pub mod derived;
pub mod frame;
pub mod handshake;
pub mod kv;
pub mod model;
pub mod owed;
pub mod recover;
pub mod snapshot;
/// The oracle, which the library's own tests use too.
#[path = "../../tests/it/support.rs"]
#[allow(dead_code, reason = "the library's tests need more of it")]
mod support;
pub mod wire;

/// What a target does with its input: nothing, or it panics.
pub type Body = fn(&[u8]);

/// Every target: its name, which is also that of its folder of seeds, and its body.
pub const TARGETS: [(&str, Body); 10] = [
    ("catalogue", catalogue::run),
    ("derived", derived::run),
    ("frame", frame::run),
    ("handshake", handshake::run),
    ("kv", kv::run),
    ("model", model::run),
    ("owed", owed::run),
    ("recover", recover::run),
    ("snapshot", snapshot::run),
    ("wire", wire::run),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Inputs tried for each target, at least.
    const INPUTS: usize = 4_000;
    /// The model does many lives in each, and takes long.
    const INPUTS_OF_MODEL: usize = 150;
    /// Half of them start a runtime, with its threads.
    const INPUTS_OF_OWED: usize = 2_000;

    /// Random numbers from a counter (splitmix64): the same in each run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((bits ^ (bits >> 31)) % end.max(1) as u64).expect("64 bits")
        }

        /// Changes a few bytes, cuts, or repeats a part.
        fn mutate(&mut self, input: &[u8]) -> Vec<u8> {
            let mut bytes = input.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(bytes.len());
                match (self.below(6), bytes.get_mut(at)) {
                    (0, _) => bytes.truncate(at),
                    (1, _) => bytes.extend_from_within(at..),
                    (2, Some(byte)) => *byte = [0, 0x7f, 0x80, 0xff][self.below(4)],
                    (_, Some(byte)) => *byte ^= 1 << self.below(8),
                    (_, None) => bytes.push(0),
                }
            }
            bytes
        }
    }

    fn inputs(folder: &Path) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let mut paths: Vec<_> =
            entries.map(|entry| entry.expect("a folder that can be read").path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).expect("a file that can be read")).collect()
    }

    #[test]
    fn every_target_takes_its_seeds_and_what_is_near_them() {
        for (name, run) in TARGETS {
            let seeds = inputs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name));
            assert!(!seeds.is_empty(), "{name} has no seeds");
            let corpus = inputs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name));
            run(&[]);
            let mut random = Random(1);
            corpus.iter().take(200).for_each(|input| run(input));
            let inputs = match name {
                "model" => INPUTS_OF_MODEL,
                "owed" => INPUTS_OF_OWED,
                _ => INPUTS,
            };
            for input in &seeds {
                run(input);
                for _ in 0..inputs / seeds.len() {
                    run(&random.mutate(input));
                }
            }
        }
    }

    #[test]
    fn every_target_is_one_of_cargo_fuzz_and_the_other_way_round() {
        let manifest = include_str!("../Cargo.toml");
        let bins = manifest.matches("[[bin]]").count();
        assert_eq!(bins, TARGETS.len());
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("fuzz_targets/{name}.rs")), "{name}");
        }
    }
}
