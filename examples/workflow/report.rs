//! What a person reads at the end.

use std::time::Duration;

use annals::Store;
use annals::types::Seq;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::case::{Case, Event, REFUSALS};
use crate::child::{FEEDERS, Failure, Plan};
use crate::csv::{self, Pathway};
use crate::lives::{End, Life};
use crate::proof::Proof;

/// A case with more rows than this is too long to show.
const HISTORY_ROWS_MAX: usize = 24;

/// A bar that counts rows.
pub(crate) fn bar(rows: u64) -> ProgressBar {
    let bar = ProgressBar::new(rows);
    if let Ok(style) = ProgressStyle::with_template(
        "{msg:12} [{bar:40}] {human_pos} of {human_len} activities, {per_sec}, {eta} left",
    ) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// The first lines, before anything runs.
pub(crate) fn opening(plan: &Plan, pathways: &[Pathway], rows: u64, seed: u64) {
    println!(
        "Sepsis pathways: {} cases, {} activities; {FEEDERS} feeders, durability {}, seed {seed}",
        HumanCount(pathways.len() as u64 * plan.scale),
        HumanCount(rows),
        plan.durability,
    );
    println!("Store: {}", plan.dir.display());
}

/// A line for each life, then the sums.
pub(crate) fn table(lives: &[Life], proof: &Proof, rows: u64) {
    println!();
    println!(
        "life  opened     ready in  rescued        found    appended   events/s  snapshots  ended"
    );
    for (index, life) in lives.iter().enumerate() {
        let next = lives.get(index + 1..).unwrap_or_default();
        let end = next.iter().find_map(|life| life.found).unwrap_or(rows);
        let appended = life.found.map(|found| end.saturating_sub(found));
        let (how, ready) = match &life.opened {
            Some((how, ready)) => (how.as_str(), millis(*ready)),
            None => ("-", "-".to_owned()),
        };
        println!(
            "{:4}  {how:9} {ready:>9} {:>8} {:>12} {:>11} {:>10} {:>10}  {}",
            index + 1,
            HumanCount(life.rescued).to_string(),
            or_dash(life.found),
            or_dash(appended),
            or_dash(rate(life.told.events, life.told.micros)),
            HumanCount(life.told.snapshots).to_string(),
            ended(life),
        );
    }
    println!();
    sums(lives, proof);
}

fn sums(lives: &[Life], proof: &Proof) {
    let sum = |count: fn(&Life) -> u64| lives.iter().map(count).sum::<u64>();
    let (events, bytes) = (sum(|life| life.told.events), sum(|life| life.told.bytes));
    let commits = sum(|life| life.told.commits);
    let micros = sum(|life| life.told.micros);
    let kills = lives.iter().filter(|life| life.killed).count();
    let row = |name: &str, value: String| println!("{name:<20}{value}");
    row("events", HumanCount(proof.events).to_string());
    row("kills", kills.to_string());
    row("events per second", or_dash(rate(events, micros)));
    row("commits", format!("{} (fdatasync of a group)", HumanCount(commits)));
    row("events per commit", ratio(events, commits));
    row("bytes per event", ratio(bytes, events));
    row("snapshots", HumanCount(sum(|life| life.told.snapshots)).to_string());
    let reasons: Vec<String> = REFUSALS
        .iter()
        .zip(proof.refused)
        .filter(|(_, count)| *count > 0)
        .map(|((_, name), count)| format!("{} {name}", HumanCount(count)))
        .collect();
    let refused = proof.refused.iter().sum();
    row("refused", format!("{} ({})", HumanCount(refused), reasons.join(", ")));
    println!(
        "\nProven: the state and the history of all {} cases equal the reference.\n\
         (opened in {}, all {} events read back in {})",
        HumanCount(proof.cases),
        millis(proof.opening),
        HumanCount(proof.events),
        millis(proof.reading),
    );
}

/// The story of one case: the first that is short, has something refused and a return.
pub(crate) fn history(store: &Store, pathways: &[Pathway]) -> Result<(), Failure> {
    for pathway in pathways.iter().filter(|pathway| pathway.rows.len() <= HISTORY_ROWS_MAX) {
        let state = store.actor::<Case>(&pathway.name)?.peek(Clone::clone)?.value;
        if state.refused.iter().sum::<u32>() < 2 {
            continue;
        }
        println!("\nCase {}, from its events:", pathway.name);
        for past in store.history::<Case>(&pathway.name, Seq::ZERO)? {
            let seq = past.seq;
            let Some(event) = past.into_event() else { continue };
            match event {
                Event::Accepted { at, activity, value, .. } => {
                    let value = value.map(|value| format!(" {value}")).unwrap_or_default();
                    println!("{seq:>4}  {}  {}{value}", csv::date(at), activity.name());
                }
                Event::Refused { at, activity, why, .. } => {
                    let (what, why) = (activity.name(), why.name());
                    println!("{seq:>4}  {}  {what} - refused: {why}", csv::date(at));
                }
            }
        }
        break;
    }
    Ok(())
}

fn ended(life: &Life) -> String {
    match (life.killed, life.end) {
        (true, End::Command(number)) => format!("SIGKILL at its command {}", HumanCount(number)),
        (true, End::After(time)) => format!("SIGKILL {} after opening began", millis(time)),
        (true, End::Done) => "SIGKILL, and nobody knows whose".to_owned(),
        (false, _) => "done".to_owned(),
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn or_dash(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| HumanCount(number).to_string())
}

/// Whole things per second.
fn rate(count: u64, micros: u64) -> Option<u64> {
    u64::try_from((u128::from(count) * 1_000_000).checked_div(u128::from(micros))?).ok()
}

/// With one digit.
fn ratio(count: u64, of: u64) -> String {
    match (count * 10).checked_div(of) {
        Some(tenths) => format!("{}.{}", tenths / 10, tenths % 10),
        None => "-".to_owned(),
    }
}
