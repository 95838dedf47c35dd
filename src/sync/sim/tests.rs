//! Random schedules: with all rules none may fail.

use crate::sync::replica::{Rule, Rules};
use crate::sync::sim::chaos::schedule;

/// How many, where nobody says.
const SCHEDULES: u64 = 1_000;

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

/// Rules that random schedules miss soon, and how soon at the latest. The others are too seldom
/// needed by chance: each of those has a schedule of its own, as these have too.
const MISSED_WITHIN: [(Rule, u64); 8] = [
    (Rule::Retain, 20),
    (Rule::Report, 20),
    (Rule::Stamp, 300),
    (Rule::Writers, 200),
    (Rule::NewLife, 500),
    (Rule::Ticket, 500),
    (Rule::Age, 500),
    (Rule::Life, 500),
];

#[test]
fn random_schedules_miss_the_rules_that_they_need() {
    for (rule, within) in MISSED_WITHIN {
        let found = (1..=within).find(|seed| schedule(*seed, Rules::without(rule)).is_err());
        assert!(found.is_some(), "{rule:?} is not missed within {within} schedules");
    }
}

/// All of them.
const RULES: [Rule; 31] = [
    Rule::Dense,
    Rule::Hash,
    Rule::Gap,
    Rule::Floor,
    Rule::Offer,
    Rule::Life,
    Rule::NewLife,
    Rule::Unclean,
    Rule::Ticket,
    Rule::Order,
    Rule::Provisional,
    Rule::Echo,
    Rule::Age,
    Rule::Applied,
    Rule::Writers,
    Rule::Drift,
    Rule::Jump,
    Rule::JoinWait,
    Rule::JoinMajority,
    Rule::Sponsor,
    Rule::Removed,
    Rule::Union,
    Rule::Members,
    Rule::Left,
    Rule::Retain,
    Rule::Report,
    Rule::Reborn,
    Rule::Fenced,
    Rule::Intent,
    Rule::Stamp,
    Rule::Schema,
];

#[test]
#[ignore = "takes minutes; says how often each rule is missed by chance"]
#[expect(clippy::print_stderr, reason = "a table is asked for")]
fn how_often_each_rule_is_missed() {
    let most = number("ANNALS_SYNC_SCHEDULES").unwrap_or(SCHEDULES);
    for rule in RULES {
        let missed = |seed: &u64| schedule(*seed, Rules::without(rule)).is_err();
        let seeds: Vec<_> = (1..=most).filter(missed).collect();
        eprintln!("{rule:?}: {} of {most}, first {:?}", seeds.len(), seeds.first());
    }
}
