//! Opens the store once more and compares every case with the reference.
//!
//! Three things must agree for each case: the state that the store answers with (a snapshot and
//! the events after it), the fold of its whole history, and the reference. In the history, event
//! number n must come from row n - 1: nothing is missing, nothing ran twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use annals::types::Seq;
use annals::{Actor as _, Store};
use indicatif::ProgressBar;

use crate::case::{ACTIVITIES, Activity, Case, REFUSALS};
use crate::child::{self, Failure, Plan};
use crate::csv::{self, Pathway};
use crate::reference::{self, Outcome};

/// What the comparison found.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) cases: u64,
    pub(crate) events: u64,
    /// Refused, in the order of [`REFUSALS`].
    pub(crate) refused: [u64; REFUSALS.len()],
    /// Opening the store.
    pub(crate) opening: Duration,
    /// Reading and comparing.
    pub(crate) reading: Duration,
}

/// Why it is not proven.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) case: String,
    pub(crate) what: String,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "case {} differs: {}", self.case, self.what)
    }
}

impl std::error::Error for Mismatch {}

/// Compares all cases of all copies. The first difference is an error.
pub(crate) fn prove(
    plan: &Plan,
    pathways: &[Pathway],
    bar: &ProgressBar,
) -> Result<(Proof, Store), Failure> {
    let expected = reference::outcomes(&plan.data)?;
    let before = Instant::now();
    let store = child::open(&plan.dir, plan.durability)?;
    let opening = before.elapsed();
    let before = Instant::now();
    let mut proof = Proof {
        cases: 0,
        events: 0,
        refused: [0; REFUSALS.len()],
        opening,
        reading: Duration::ZERO,
    };
    for copy in 0..plan.scale {
        for pathway in pathways {
            let case = child::name_of(pathway, copy);
            let state = state_of(&store, &case)?;
            let outcome = &expected[&pathway.name];
            compare(pathway, &state, outcome)
                .map_err(|what| Mismatch { case: case.clone(), what })?;
            let events = replay(&store, &case, &state)?;
            proof.cases += 1;
            proof.events += events;
            for (sum, refused) in proof.refused.iter_mut().zip(state.refused) {
                *sum += u64::from(refused);
            }
            bar.inc(events);
        }
    }
    proof.reading = before.elapsed();
    Ok((proof, store))
}

fn state_of(store: &Store, case: &str) -> Result<Case, Failure> {
    Ok(store.actor::<Case>(case)?.peek(Clone::clone)?.value)
}

/// Folds the history, which must lead to `state`; the answer is its length.
fn replay(store: &Store, case: &str, state: &Case) -> Result<u64, Failure> {
    let wrong = |what| Mismatch { case: case.to_owned(), what };
    let mut folded = Case::default();
    let mut events = 0;
    for past in store.history::<Case>(case, Seq::ZERO)? {
        let seq = past.seq;
        let Some(event) = past.into_event() else { continue };
        if seq.get() != events + 1 || u64::from(event.row()) != events {
            let row = event.row();
            return Err(wrong(format!("event {seq} after {events} comes from row {row}")).into());
        }
        folded.apply(&event);
        events += 1;
    }
    if folded != *state {
        return Err(wrong(format!("its events make {folded:?}, its state is {state:?}")).into());
    }
    Ok(events)
}

/// A state against the reference's outcome: the same facts in other words.
fn compare(pathway: &Pathway, state: &Case, expected: &Outcome) -> Result<(), String> {
    let differs = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
        Err(format!("{what} should be {expected:?}, but is {found:?}"))
    };
    if state.rows as usize != pathway.rows.len() {
        return differs("number of rows", &pathway.rows.len(), &state.rows);
    }
    for ((_, name), count) in ACTIVITIES.iter().zip(state.counts) {
        if expected.count(name) != count as usize {
            return differs(name, &expected.count(name), &count);
        }
    }
    let refused: BTreeMap<&str, u32> = REFUSALS
        .iter()
        .map(|(_, name)| *name)
        .zip(state.refused)
        .filter(|(_, count)| *count > 0)
        .collect();
    if refused != expected.refused {
        return differs("refusals", &expected.refused, &refused);
    }
    let last = state.last.map(Activity::name);
    if last != expected.accepted.last().map(|(name, _)| name.as_str()) {
        return differs("last activity", &expected.accepted.last(), &last);
    }
    let times = [state.first_at, state.last_at].map(|at| at.map(csv::date));
    let expected_times = [expected.accepted.first(), expected.accepted.last()]
        .map(|entry| entry.map(|(_, time)| time[..19].replace('/', "-")));
    if times != expected_times {
        return differs("first and last time", &expected_times, &times);
    }
    for (name, value) in
        [("Leucocytes", state.leucocytes), ("CRP", state.crp), ("LacticAcid", state.lactic_acid)]
    {
        if value != expected.values.get(name).copied() {
            return differs(name, &expected.values.get(name), &value);
        }
    }
    Ok(())
}

/// The data must be there before anything is proven with it.
pub(crate) fn data() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/sepsis.csv")
}
