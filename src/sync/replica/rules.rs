//! The rules, each with a switch for the simulator: one that can be off without being missed is
//! either no rule, or not tested. Outside of tests all are on, and asking costs nothing.

/// A rule that can be switched off. The letters are those of `docs/protocol.md`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Rule {
    /// R1: a hole inside a stream ends the connection.
    Dense,
    /// R1: running hashes are compared, where logs meet and where they overlap.
    Hash,
    /// R2: a gap clears.
    Gap,
    /// R2: nobody is put above what is visible, or behind an open intent.
    Floor,
    /// R2: a relay's gap is an offer.
    Offer,
    /// R3: every start is a new life, and no number of a life is given twice.
    Life,
    /// R3: a new life clears.
    NewLife,
    /// R4: after an unclean end the node clears its own.
    Unclean,
    /// R5: a fill needs a ticket that is still good.
    Ticket,
    /// R6: generation up, then remove.
    Order,
    /// R7: what is not visible yet is not admitted.
    Provisional,
    /// R8: a proof counts from the ping that it answers.
    Echo,
    /// R8: ages are added hop by hop.
    Age,
    /// R8: a proof counts once all that it speaks of is applied.
    Applied,
    /// R8: every writer must be proved, those that are away too.
    Writers,
    /// R8: ages are rounded up for clocks that run apart.
    Drift,
    /// R8: leases end where time was lost.
    Jump,
    /// R9: who joins waits before it writes.
    JoinWait,
    /// R9: a majority knows of a join.
    JoinMajority,
    /// R9: only who writes a domain sponsors for it, and where nobody does all are proved.
    Sponsor,
    /// R9: who was removed is cleared.
    Removed,
    /// R9: a removal carries what a majority knew.
    Union,
    /// R9: what is proved counts between those who know the same members, and what is passed over
    /// takes no join with it.
    Members,
    /// R9: a leave counts once all before it is applied.
    Left,
    /// R10: what members have not stored is kept.
    Retain,
    /// R11: what is passed over is told.
    Report,
    /// R13: who is named as it cannot have been takes a new life.
    Reborn,
    /// R13: of two lives of one node the lower is fenced.
    Fenced,
    /// Intents outlive the life that opened them.
    Intent,
    /// R14: what was kept proves itself.
    Stamp,
    /// Domains of one name and two schemas do not meet.
    Schema,
}

/// Which rules hold.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    #[cfg(any(test, feature = "internals"))]
    off: u64,
}

impl Rules {
    /// All but one.
    #[cfg(any(test, feature = "internals"))]
    pub const fn without(rule: Rule) -> Self {
        Self { off: 1 << rule as u8 }
    }

    /// And without another.
    #[cfg(any(test, feature = "internals"))]
    #[must_use]
    pub const fn nor(self, rule: Rule) -> Self {
        Self { off: self.off | 1 << rule as u8 }
    }

    /// Does it hold?
    #[cfg(any(test, feature = "internals"))]
    pub const fn on(self, rule: Rule) -> bool {
        self.off >> rule as u8 & 1 == 0
    }

    /// Does it hold? Always.
    #[cfg(not(any(test, feature = "internals")))]
    pub const fn on(self, _rule: Rule) -> bool {
        true
    }
}
