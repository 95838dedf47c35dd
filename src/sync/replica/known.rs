//! What is known of another origin: how far this node is with it, and as of when.

use std::time::Duration;

use crate::sync::fact::Birth;
use crate::sync::message::{Gap, Marks, Place};
use crate::sync::origin::Incarnation;
use crate::sync::replica::event::{Kept, Link};

/// That its logs ended at `head` when this node's clock stood at `as_of`, or later.
#[derive(Copy, Clone, Debug)]
pub(super) struct Proof {
    pub(super) incarnation: Incarnation,
    pub(super) head: Marks,
    pub(super) as_of: Duration,
}

/// Another origin.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Received and applied up to here; `None` if nothing of it is.
    pub(super) place: Option<Place>,
    /// Its changes up to here may be read.
    pub(super) visible: u64,
    /// On this node's disk, of the place's life.
    pub(super) durable: [u64; 2],
    pub(super) birth: Option<Birth>,
    /// Everything of it up to this time is applied.
    pub(super) as_of: Option<Duration>,
    /// Proofs that wait until what they speak of is applied: the first that came and the last, so
    /// that a stream which never ends is proved all the same.
    pending: [Option<Proof>; 2],
    /// A relay's gap, and since when it is there.
    pub(super) offer: Option<(Gap, Link, Duration)>,
    /// The relay that was asked last, and when: the next is asked after it.
    pub(super) asked: Option<(Link, Duration)>,
}

impl Known {
    pub(super) fn kept(kept: Kept) -> Self {
        let marks = kept.place.marks;
        Self {
            place: Some(kept.place),
            visible: kept.visible,
            durable: [marks.tokens.seq, marks.values.seq],
            birth: kept.birth,
            ..Self::default()
        }
    }

    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.place.map(|it| it.incarnation)
    }

    /// From here on.
    pub(super) fn move_to(&mut self, place: Place, visible: u64, birth: Option<Birth>) {
        self.place = Some(place);
        self.visible = visible;
        // It is adopted durably, in one step.
        self.durable = [place.marks.tokens.seq, place.marks.values.seq];
        if birth.is_some() {
            self.birth = birth;
        }
        self.pending = [None; 2];
        self.offer = None;
    }

    /// Its own word that its logs ended at `head` at that time.
    pub(super) fn prove(&mut self, proof: Proof, needs_applied: bool) {
        if self.incarnation() != Some(proof.incarnation) {
            return;
        }
        let [first, last] = &mut self.pending;
        *(if first.is_some() { last } else { first }) = Some(proof);
        self.settle(needs_applied);
    }

    /// Counts the proofs of which everything is applied.
    pub(super) fn settle(&mut self, needs_applied: bool) {
        let Some(place) = self.place else { return };
        while let [Some(first), last] = self.pending {
            if needs_applied && !place.marks.covers(&first.head) {
                return;
            }
            self.pending = [last, None];
            self.as_of_at_least(first.as_of);
        }
    }

    pub(super) fn as_of_at_least(&mut self, time: Duration) {
        if self.place.is_some_and(|it| !it.diverged) {
            self.as_of = Some(self.as_of.map_or(time, |it| it.max(time)));
        }
    }

    pub(super) fn forget_proof(&mut self) {
        self.as_of = None;
        self.pending = [None; 2];
    }
}
