//! The actor: one case, that is one patient's way through the hospital.
//!
//! A command says what somebody did; the case accepts it or refuses it by what it knows. Both are
//! events, and an event names the row of the file that it came from. So a case knows how many
//! rows it has consumed, in the very frame that says what came of them: **a row that is fed again
//! after a crash is recognised, and none is counted twice.**

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{Actor, ActorOptions, Handle, SnapshotPolicy, Turn};

/// A snapshot after so many events of a case.
const SNAPSHOT_EVERY: u64 = 16;

/// What can be done.
#[derive(Archive, Serialize, Deserialize, Copy, Clone, Debug, PartialEq, Eq)]
#[rkyv(crate = annals::rkyv)]
pub(crate) enum Activity {
    ErRegistration,
    ErTriage,
    ErSepsisTriage,
    Leucocytes,
    Crp,
    LacticAcid,
    IvLiquid,
    IvAntibiotics,
    AdmissionNc,
    AdmissionIc,
    ReleaseA,
    ReleaseB,
    ReleaseC,
    ReleaseD,
    ReleaseE,
    ReturnEr,
}

/// Every activity and its name in the file; the place here is the place in [`Case::counts`].
pub(crate) const ACTIVITIES: [(Activity, &str); 16] = [
    (Activity::ErRegistration, "ER Registration"),
    (Activity::ErTriage, "ER Triage"),
    (Activity::ErSepsisTriage, "ER Sepsis Triage"),
    (Activity::Leucocytes, "Leucocytes"),
    (Activity::Crp, "CRP"),
    (Activity::LacticAcid, "LacticAcid"),
    (Activity::IvLiquid, "IV Liquid"),
    (Activity::IvAntibiotics, "IV Antibiotics"),
    (Activity::AdmissionNc, "Admission NC"),
    (Activity::AdmissionIc, "Admission IC"),
    (Activity::ReleaseA, "Release A"),
    (Activity::ReleaseB, "Release B"),
    (Activity::ReleaseC, "Release C"),
    (Activity::ReleaseD, "Release D"),
    (Activity::ReleaseE, "Release E"),
    (Activity::ReturnEr, "Return ER"),
];

impl Activity {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        ACTIVITIES.iter().find(|(_, other)| *other == name).map(|(activity, _)| *activity)
    }

    pub(crate) fn name(self) -> &'static str {
        ACTIVITIES[self as usize].1
    }
}

/// Why something is refused.
#[derive(Archive, Serialize, Deserialize, Copy, Clone, Debug, PartialEq, Eq)]
#[rkyv(crate = annals::rkyv)]
pub(crate) enum Refusal {
    /// The patient is not registered.
    NotRegistered,
    /// It is done once only, and was.
    Repeated,
    /// Triage comes before sepsis triage, that before treatment, admission before release.
    TooEarly,
    /// After a release only a return is possible.
    Released,
    /// Nobody returns who was not released.
    NotReleased,
    /// A laboratory's result without a value.
    NoValue,
}

/// Every reason and what to call it; the place here is the place in [`Case::refused`].
pub(crate) const REFUSALS: [(Refusal, &str); 6] = [
    (Refusal::NotRegistered, "not registered"),
    (Refusal::Repeated, "done before"),
    (Refusal::TooEarly, "too early"),
    (Refusal::Released, "after release"),
    (Refusal::NotReleased, "not released"),
    (Refusal::NoValue, "no value"),
];

impl Refusal {
    pub(crate) fn name(self) -> &'static str {
        REFUSALS[self as usize].1
    }
}

/// How far a case has come; a later stage implies all before it.
#[derive(
    Archive, Serialize, Deserialize, Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
#[rkyv(crate = annals::rkyv)]
pub(crate) enum Stage {
    #[default]
    Unknown,
    Registered,
    Triaged,
    SepsisTriaged,
    Admitted,
    Released,
    Returned,
}

/// What is kept of a case for ever.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
#[rkyv(crate = annals::rkyv)]
pub(crate) enum Event {
    /// It was done.
    Accepted { row: u32, at: i64, activity: Activity, value: Option<f32> },
    /// It was against the rules. It changes nothing but the count.
    Refused { row: u32, at: i64, activity: Activity, why: Refusal },
}

impl Event {
    /// The row of the case, from 0, that this came from.
    pub(crate) fn row(&self) -> u32 {
        match self {
            Self::Accepted { row, .. } | Self::Refused { row, .. } => *row,
        }
    }
}

/// What is known of a case.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[rkyv(crate = annals::rkyv)]
pub(crate) struct Case {
    /// Rows of the file that this case has consumed: the next is number `rows`.
    pub(crate) rows: u32,
    pub(crate) stage: Stage,
    /// How often each activity was accepted, in the order of [`ACTIVITIES`].
    pub(crate) counts: [u32; ACTIVITIES.len()],
    /// How often each reason was given, in the order of [`REFUSALS`].
    pub(crate) refused: [u32; REFUSALS.len()],
    pub(crate) last: Option<Activity>,
    /// Times of the first and the last accepted activity.
    pub(crate) first_at: Option<i64>,
    pub(crate) last_at: Option<i64>,
    /// The last result of each laboratory test.
    pub(crate) leucocytes: Option<f32>,
    pub(crate) crp: Option<f32>,
    pub(crate) lactic_acid: Option<f32>,
}

impl Actor for Case {
    type Event = Event;
    const KIND: &'static str = "case";

    fn apply(&mut self, event: &Event) {
        self.rows = event.row() + 1;
        match *event {
            Event::Refused { why, .. } => self.refused[why as usize] += 1,
            Event::Accepted { at, activity, value, .. } => {
                self.counts[activity as usize] += 1;
                self.last = Some(activity);
                self.first_at = self.first_at.or(Some(at));
                self.last_at = Some(at);
                self.stage = self.stage.max(reached_by(activity));
                match activity {
                    Activity::Leucocytes => self.leucocytes = value,
                    Activity::Crp => self.crp = value,
                    Activity::LacticAcid => self.lactic_acid = value,
                    _ => {}
                }
            }
        }
    }

    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(SNAPSHOT_EVERY))
    }
}

/// The stage that an accepted activity leads to.
fn reached_by(activity: Activity) -> Stage {
    use Activity as A;
    match activity {
        A::ErRegistration => Stage::Registered,
        A::ErTriage => Stage::Triaged,
        A::ErSepsisTriage => Stage::SepsisTriaged,
        A::AdmissionNc | A::AdmissionIc => Stage::Admitted,
        A::ReleaseA | A::ReleaseB | A::ReleaseC | A::ReleaseD | A::ReleaseE => Stage::Released,
        A::ReturnEr => Stage::Returned,
        A::Leucocytes | A::Crp | A::LacticAcid | A::IvLiquid | A::IvAntibiotics => Stage::Unknown,
    }
}

/// The rules.
fn judge(stage: Stage, activity: Activity, value: Option<f32>) -> Result<(), Refusal> {
    use Activity as A;
    let from = |first: Stage| if stage < first { Err(Refusal::TooEarly) } else { Ok(()) };
    let once_from = |first: Stage| {
        if stage >= reached_by(activity) { Err(Refusal::Repeated) } else { from(first) }
    };
    if stage == Stage::Unknown && activity != A::ErRegistration {
        return Err(Refusal::NotRegistered);
    }
    if activity == A::ReturnEr {
        return match stage {
            Stage::Returned => Err(Refusal::Repeated),
            Stage::Released => Ok(()),
            _ => Err(Refusal::NotReleased),
        };
    }
    if stage >= Stage::Released {
        return Err(Refusal::Released);
    }
    match activity {
        A::ErRegistration => once_from(Stage::Unknown),
        A::ErTriage => once_from(Stage::Registered),
        A::ErSepsisTriage => once_from(Stage::Triaged),
        A::Leucocytes | A::Crp | A::LacticAcid => value.map(drop).ok_or(Refusal::NoValue),
        A::IvLiquid | A::IvAntibiotics | A::AdmissionNc | A::AdmissionIc => {
            from(Stage::SepsisTriaged)
        }
        A::ReleaseA | A::ReleaseB | A::ReleaseC | A::ReleaseD | A::ReleaseE => {
            from(Stage::Admitted)
        }
        A::ReturnEr => Ok(()),
    }
}

/// Somebody did something: row number `row` of the case.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Observe {
    pub(crate) row: u32,
    pub(crate) at: i64,
    pub(crate) activity: Activity,
    pub(crate) value: Option<f32>,
}

/// What the case says to it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    Refused(Refusal),
    /// This row was consumed before: nothing has changed.
    Known,
    /// A row before this one is missing: nothing has changed.
    OutOfOrder {
        expected: u32,
    },
}

impl Handle<Observe> for Case {
    type Reply = Answer;

    fn handle(command: Observe, turn: &mut Turn<'_, Self>) -> Answer {
        let Observe { row, at, activity, value } = command;
        if row < turn.rows {
            return Answer::Known;
        }
        if row > turn.rows {
            return Answer::OutOfOrder { expected: turn.rows };
        }
        match judge(turn.stage, activity, value) {
            Ok(()) => {
                turn.emit(Event::Accepted { row, at, activity, value });
                Answer::Accepted
            }
            Err(why) => {
                turn.emit(Event::Refused { row, at, activity, why });
                Answer::Refused(why)
            }
        }
    }
}

/// How many rows have you consumed?
#[derive(Copy, Clone, Debug)]
pub(crate) struct Consumed;

impl Handle<Consumed> for Case {
    type Reply = u32;

    fn handle(_: Consumed, turn: &mut Turn<'_, Self>) -> u32 {
        turn.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_the_places_of_their_activities() {
        for (index, (activity, name)) in ACTIVITIES.into_iter().enumerate() {
            assert_eq!(activity as usize, index);
            assert_eq!(Activity::from_name(name), Some(activity));
        }
        for (index, (refusal, _)) in REFUSALS.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }
}
