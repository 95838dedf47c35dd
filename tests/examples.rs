//! Runs the examples, briefly: each checks itself, and fails if something is not as it says.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

/// Runs an example to its end, and answers what it has said.
fn run(example: &str, arguments: &[&str]) -> String {
    let exe = std::env::current_exe().unwrap();
    // <target>/<profile>/deps/examples-<hash>
    let built = exe.parent().and_then(Path::parent).unwrap();
    let profile = match built.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => "dev",
        other => other,
    };
    // It was built just now, or years ago, or not at all: cargo knows.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--profile", profile, "--example", example]);
    cargo.arg("--target-dir").arg(built.parent().unwrap());
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().unwrap().success(), "{example} could not be built");
    let output = Command::new(built.join("examples").join(example)).args(arguments).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example} {arguments:?}:\n{said}\n{complained}");
    said
}

#[test]
fn each_order_is_paid_once_and_shipped_or_undone_whenever_the_process_is_killed() {
    let said = run("order_saga", &["--orders", "80", "--kill", "8"]);
    assert!(said.contains("kills"), "{said}");
    assert!(said.contains("steps in doubt after a kill"), "{said}");
}

#[test]
fn a_patients_past_is_read_gone_back_in_and_gone_forth() {
    let said = run("time_travel", &[]);
    assert!(said.contains("All 1050 patients are what the file says."), "{said}");
}

#[test]
fn sleepers_cost_nothing_and_wake_by_timer_and_by_message() {
    let said = run("sleepers", &["--count", "20000"]);
    assert!(said.contains("20 woke by a message"), "{said}");
    assert!(said.contains("20 woke by their alarms"), "{said}");
}

#[test]
fn projections_are_exact_whenever_the_process_is_killed() {
    let said = run("projection", &["--kill", "4"]);
    assert!(said.contains("agree"), "{said}");
}

#[test]
fn three_caches_agree_with_their_source_though_a_link_was_cut_meanwhile() {
    let said = run("cache_node", &["--all", "--seconds", "5"]);
    assert!(said.contains("link cut") && said.contains("stale"), "{said}");
    assert!(said.contains("All three caches say what the table does."), "{said}");
}

#[test]
fn no_page_of_three_nodes_is_called_fresh_and_older_than_the_lease_though_one_is_cut_off() {
    let said = run("web_cache", &["--seconds", "6"]);
    assert!(said.contains("node three is cut off") && said.contains("stale, "), "{said}");
    assert!(said.contains("All three say what the database says."), "{said}");
}

#[test]
fn lines_go_through_a_store_into_a_file_each_once_whenever_the_process_is_killed() {
    let said = run("edges", &["--lines", "6000", "--kill", "4"]);
    assert!(said.contains("5400 numbers after 4 kills: 0 lost, 0 twice"), "{said}");
}
