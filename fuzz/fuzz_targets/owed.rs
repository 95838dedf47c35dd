//! See `annals_fuzz::owed`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| annals_fuzz::owed::run(data));

#[cfg(not(fuzzing))]
fn main() {
    println!("run this with `cargo +nightly fuzz run owed`");
}
