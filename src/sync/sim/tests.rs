//! Random schedules: with all rules none may fail.

use crate::sync::replica::Rules;
use crate::sync::sim::chaos::schedule;

/// How many, where nobody says.
const SCHEDULES: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|it| it.parse().ok())
}

#[test]
fn no_schedule_of_faults_leaves_anything_stale_or_breaks_the_lease() {
    let only = number("ANNALS_SEED");
    let from = only.or(number("ANNALS_SYNC_FROM")).unwrap_or(1);
    let count =
        if only.is_some() { 1 } else { number("ANNALS_SYNC_SCHEDULES").unwrap_or(SCHEDULES) };
    let mut wrong = Vec::new();
    for seed in from..from.saturating_add(count) {
        if let Err(world) = schedule(seed, Rules::default()) {
            wrong.push(format!("ANNALS_SEED={seed}: {}", world.wrong.unwrap_or_default()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

#[test]
fn survey() {
    use crate::sync::sim::check::RULES;
    let most = number("ANNALS_SYNC_SCHEDULES").unwrap_or(100);
    for rule in RULES {
        let mut wrong = Vec::new();
        for seed in 1..=most {
            if let Err(world) = schedule(seed, Rules::without(rule)) {
                wrong.push((seed, world.wrong.unwrap_or_default()));
            }
        }
        eprintln!("{rule:?} {} of {most}, first {:?}", wrong.len(), wrong.first());
    }
}
