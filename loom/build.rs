//! Takes the sources that are tried from the library, as they are and each with one line broken.

use std::path::Path;
use std::{env, fs};

/// Name of the variant, what is in the source, and what stands there instead.
type Break = (&'static str, &'static str, &'static str);

const COMMIT: [Break; 7] = [
    ("commit", "", ""),
    // Whoever sleeps until the commit has ended sleeps on.
    ("commit_wakes_nobody", "        word.wake_all();\n", ""),
    // The committer is not told that the next commit is its own.
    ("commit_hands_over_in_silence", "if hand_over {", "if hand_over && begun.generation == 0 {"),
    // The mark that a future looks at, and the future that the commit looks for, pass each other.
    ("commit_without_a_fence", "        fence(Ordering::SeqCst);\n", ""),
    // Two commits at a time.
    (
        "commit_twice_at_once",
        "        self.running = true;\n        self.handed_over",
        "        self.handed_over",
    ),
    // The committer stops although the next commit is its own and somebody sleeps for it.
    (
        "commit_stops_at_once",
        "if state.handed_over || (state.wanted && !state.running) {",
        "if !state.stop && (state.handed_over || (state.wanted && !state.running)) {",
    ),
    // It stops while another thread commits, and who sleeps for the commit after that sleeps on.
    (
        "commit_stops_beside_another",
        "if state.stop && !(state.running && state.wanted) {",
        "if state.stop {",
    ),
];

const PUBLISHED: [Break; 3] = [
    ("published", "", ""),
    ("published_relaxed", "fetch_max(end, Ordering::Release)", "fetch_max(end, Ordering::Relaxed)"),
    ("published_read_relaxed", "load(Ordering::Acquire)", "load(Ordering::Relaxed)"),
];

// Not that a fence is left out: to loom a load and an exchange that are `SeqCst`, of which there is
// one beside each fence, are fences themselves.
const READY: [Break; 4] = [
    ("ready", "", ""),
    // Who ends its search does not look into the queue once more.
    (
        "ready_sleeps_without_a_look",
        "if !self.jobs.is_empty() && self.get_up(|_| true)",
        "if false",
    ),
    // The last searcher finds one job of two, and the other waits for it.
    ("ready_wakes_no_second", "if searchers(before) == 1 {", "if false {"),
    // A sleeper counts as up, and sleeps.
    ("ready_calls_nobody", "            self.call.notify_one();\n", ""),
];

/// What the ready queue takes from elsewhere, and where it is found here.
const FOUND: [(&str, &str); 6] = [
    ("use std::sync::atomic::{AtomicU64,", "use loom::sync::atomic::{AtomicU64,"),
    ("use crossbeam_channel::", "use super::channel::"),
    ("crossbeam_channel::unbounded()", "super::channel::unbounded()"),
    ("use parking_lot::", "use crate::primitives::"),
    // A search is one look: each more is but another order of the same.
    ("const SPINS: u32 = 6;", "const SPINS: u32 = 0;"),
    ("const YIELDS: u32 = 6;", "const YIELDS: u32 = 1;"),
];

fn main() {
    for (source, variants) in [
        ("../src/log/commit.rs", &COMMIT[..]),
        ("../src/disk/published.rs", &PUBLISHED[..]),
        ("../src/actor/ready.rs", &READY[..]),
    ] {
        println!("cargo::rerun-if-changed={source}");
        let text = fs::read_to_string(source).expect("the library's source beside this package");
        // An included file cannot have a doc comment of its own.
        let text: String =
            text.lines().filter(|line| !line.starts_with("//!")).flat_map(|l| [l, "\n"]).collect();
        // The disk's mark names std's atomic, because nothing else is to be had there.
        let text = text.replace(
            "use std::sync::atomic::{AtomicUsize, Ordering};",
            "use super::primitives::AtomicUsize;\nuse std::sync::atomic::Ordering;",
        );
        let text = if source.ends_with("ready.rs") { FOUND.iter().fold(text, found) } else { text };
        for (name, sound, broken) in variants {
            assert!(sound.is_empty() || text.contains(sound), "{source} has no more: {sound}");
            let text = if sound.is_empty() { text.clone() } else { text.replace(sound, broken) };
            let out = env::var("OUT_DIR").expect("cargo sets it");
            fs::write(Path::new(&out).join(format!("{name}.rs")), text).expect("a file");
        }
    }
}

fn found(text: String, (there, here): &(&str, &str)) -> String {
    assert!(text.contains(there), "the ready queue has no more: {there}");
    let text = text.replace(there, here);
    text.replace("std::thread::yield_now()", "loom::thread::yield_now()")
}
