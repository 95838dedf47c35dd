//! See `annals_fuzz::handshake`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| annals_fuzz::handshake::run(data));

#[cfg(not(fuzzing))]
fn main() {
    println!("run this with `cargo +nightly fuzz run handshake`");
}
