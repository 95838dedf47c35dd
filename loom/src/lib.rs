//! The library's smallest concurrent parts, under loom: every order in which their threads can
//! run, up to a number of preemptions, and every value that a load may legally see.
//!
//! The sources are the library's own, taken by `build.rs`. Each test has ablations: the same
//! source with one line broken, which loom must notice, or the test would prove nothing.
#![cfg(test)]
#![allow(dead_code, unused_imports, reason = "the sources offer more than is tried here")]

mod primitives;

mod commit;
mod published;
mod ready;

/// Runs the ignored test `name`, which must fail and say `complaint`.
fn fails(name: &str, complaint: &str) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{name} passed");
    assert!(said.contains(complaint), "{name} failed, and said: {said}");
}
