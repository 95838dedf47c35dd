//! One schedule for each rule, made for it: it holds with the rule, and does not without.

use crate::sync::fact::Members;
use crate::sync::origin::Lane;
use crate::sync::replica::{Fence, Rule, Rules};
use crate::sync::sim::net::Parcel;
use crate::sync::sim::{Due, LEASE, MS, Plan, World, origin};

/// Runs it with and without the rule, in worlds of some seeds. Without, one of them must go wrong.
#[track_caller]
pub(super) fn needs(rule: Rule, nodes: usize, schedule: fn(&mut World)) {
    needs_beside(Rules::default(), rule, nodes, schedule);
}

/// The same where another rule that hides it is off both times.
#[track_caller]
pub(super) fn needs_beside(base: Rules, rule: Rule, nodes: usize, schedule: fn(&mut World)) {
    let run = |seed, rules| {
        let mut world = World::new(seed, Plan { nodes, rules, mesh: true, manual: true, beats: 4 });
        schedule(&mut world);
        world.wrong
    };
    for seed in 1..=8 {
        let wrong = run(seed, base);
        assert!(wrong.is_none(), "with {rule:?}, seed {seed}: {}", wrong.unwrap_or_default());
    }
    let wrong = (1..=8).find_map(|seed| run(seed, base.nor(rule)));
    assert!(wrong.is_some(), "{rule:?} is not missed");
}

impl World {
    /// Reads the source and remembers it, in one go.
    pub(super) fn fill(&mut self, at: usize, key: u8) {
        let id = self.begin_fill(at, key);
        self.end_fill(at, id);
    }

    fn begin_fill(&mut self, at: usize, key: u8) -> u64 {
        let (id, version) = (self.id(), self.truth.current(key));
        let it = &mut self.nodes[at];
        let app = &mut it.live.as_mut().unwrap().app;
        app.begin(id, key, it.disk.stamp());
        app.loads.last_mut().unwrap().read = Some(version);
        id
    }

    fn end_fill(&mut self, at: usize, load: u64) {
        let life = self.nodes[at].life;
        self.insert(at, life, load);
    }

    /// Written, and on the disk: the change may be read.
    pub(super) fn write(&mut self, at: usize, key: u8) {
        self.write_own(at, key);
        self.fsync(at);
        self.settle();
    }

    /// Everybody to everybody, and all is quiet.
    pub(super) fn connect_all(&mut self) {
        for b in 0..self.nodes.len() {
            for a in 0..b {
                self.connect(a, b);
            }
        }
        self.run(600 * MS);
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        for conn in 0..self.conns.len() {
            let ends = self.conns[conn].ends.map(|it| it.0);
            if ends.contains(&a) && ends.contains(&b) {
                for side in 0..2 {
                    self.down(conn, side);
                }
                self.conns[conn].broken = true;
            }
        }
        self.settle();
    }

    /// From now on connections come by themselves; then everything must come right.
    pub(super) fn quiet(&mut self) {
        self.plan.manual = false;
        for (a, b) in self.pairs() {
            self.after(0, Due::Connect { a, b });
        }
        self.check_quiet();
    }

    fn must(&mut self, holds: bool, what: &str) {
        if !holds {
            self.fail(|| what.to_owned());
        }
    }

    fn knows(&self, at: usize, of: usize) -> u64 {
        let live = self.nodes[at].live.as_ref().unwrap();
        live.replica.place(origin(of)).map_or(0, |it| it.marks.tokens.seq)
    }
}

#[test]
fn a_batch_that_is_left_out_inside_a_stream_ends_the_connection() {
    needs(Rule::Dense, 2, |world| {
        world.connect_all();
        world.fill(1, 0);
        world.write(0, 0);
        world.write(0, 1);
        world.fsync(0);
        // The first batch is lost between the two, as no transport should lose it.
        let tokens = |it: &(u64, Parcel)| matches!(it.1, Parcel::Tokens { .. });
        let to = &mut world.conns[0].to[1];
        let at = to.iter().position(tokens).unwrap();
        to.remove(at);
        world.quiet();
    });
}

#[test]
fn two_logs_with_one_name_are_noticed_where_they_meet() {
    // Only a node that gives numbers twice can make them.
    needs_beside(Rules::without(Rule::Life), Rule::Hash, 2, |world| {
        world.copied = true;
        world.connect_all();
        world.syncs = false;
        for _ in 0..8 {
            world.write_own(0, 1);
        }
        world.run(100 * MS);
        world.fill(1, 0);
        world.kill(0, true);
        world.nodes[0].disk.own_mut()[0].cut(1);
        world.start(0);
        // The same numbers, other tokens, and soon as many of them.
        world.write(0, 0);
        for _ in 0..8 {
            world.write(0, 1);
        }
        world.syncs = true;
        world.quiet();
    });
}

#[test]
fn what_cannot_be_had_any_more_clears() {
    needs(Rule::Gap, 2, |world| {
        world.connect_all();
        world.fill(1, 0);
        world.disconnect(0, 1);
        world.write(0, 0);
        world.drop_own(0, Lane::Tokens, u64::MAX);
        world.quiet();
    });
}

#[test]
fn nobody_is_put_above_what_is_visible() {
    needs(Rule::Floor, 2, |world| {
        world.connect_all();
        world.disconnect(0, 1);
        world.syncs = false;
        world.write(0, 1);
        world.drop_own(0, Lane::Tokens, u64::MAX);
        world.write_own(0, 0);
        world.connect(0, 1);
        world.run(200 * MS);
        // What is filled now is what was there before the change.
        world.fill(1, 0);
        world.fsync(0);
        world.settle();
        world.syncs = true;
        world.quiet();
    });
}

#[test]
fn nobody_is_put_behind_an_open_intent() {
    needs(Rule::Floor, 2, |world| {
        world.connect_all();
        world.disconnect(0, 1);
        let id = world.id();
        world.publish_intent(0, id, 4, false);
        world.write(0, 0);
        world.write(0, 1);
        // The log is bounded, and an intent that it would lose is published again before.
        world.drop_own(0, Lane::Tokens, 2);
        world.connect(0, 1);
        world.run(300 * MS);
        let blocked = world.nodes[1].live.as_ref().unwrap().app.blocked(4);
        // This node did not need to clear; another that knows nothing is put where it hears of it.
        world.must(blocked, "an open intent was passed over");
        let new = world.add_node(origin(2), Members::default(), 0);
        world.start(new);
        world.connect(0, new);
        for key in 0..200 {
            world.write(0, key % 4);
        }
        world.run(300 * MS);
        let blocked = world.nodes[new].live.as_ref().unwrap().app.blocked(4);
        world.must(blocked, "an open intent was passed over");
        world.close_intent(0, id, crate::sync::token::TokenKind::Resolved);
        world.nodes[new].left = true;
        world.quiet();
    });
}

#[test]
fn a_relays_gap_clears_nothing_while_somebody_else_has_the_tokens() {
    needs(Rule::Offer, 3, |world| {
        world.connect_all();
        world.disconnect(2, 0);
        world.disconnect(2, 1);
        world.write(0, 0);
        world.write(0, 1);
        world.run(200 * MS);
        let foreign = world.nodes[1].disk.foreign.get_mut(&origin(0)).unwrap();
        foreign.lanes[0].drop_to(3);
        let before = world.flushes;
        world.connect(1, 2);
        world.run(300 * MS);
        world.connect(0, 2);
        world.run(2 * LEASE);
        let caught_up = world.knows(2, 0) == 3;
        world.must(caught_up, "it did not catch up");
        world.must(world.flushes == before, "it cleared what it need not");
        world.quiet();
    });
}

#[test]
fn a_relays_gap_is_taken_where_nobody_else_has_the_tokens() {
    let rules = Rules::default();
    let mut world = World::new(1, Plan { nodes: 3, rules, mesh: true, manual: true, beats: 4 });
    world.connect_all();
    world.disconnect(2, 0);
    world.disconnect(2, 1);
    world.write(0, 0);
    world.run(200 * MS);
    world.nodes[1].disk.foreign.get_mut(&origin(0)).unwrap().lanes[0].drop_to(2);
    world.connect(1, 2);
    world.run(LEASE / 2);
    assert_eq!(world.knows(2, 0), 1, "it waits for somebody who has them");
    world.run(2 * LEASE);
    assert_eq!(world.knows(2, 0), 2, "and then goes on");
    assert_eq!(world.wrong, None);
}

#[test]
fn a_relay_that_is_behind_does_not_keep_others_from_a_gap() {
    // Found by the simulator: an answer of somebody who was behind itself put the offer off for
    // ever. 3 goes, and comes back as a new life that only 2 has heard of, past its log's floor.
    let rules = Rules::default();
    let mut world = World::new(3, Plan { nodes: 4, rules, mesh: true, manual: true, beats: 4 });
    world.connect_all();
    for other in 0..3 {
        world.disconnect(3, other);
    }
    world.disconnect(2, 0);
    world.disconnect(2, 1);
    world.stop(3);
    world.start(3);
    world.fsync(3);
    world.drop_own(3, Lane::Tokens, u64::MAX);
    world.connect(2, 3);
    world.run(LEASE);
    world.connect(1, 2);
    world.run(5 * LEASE);
    let place = |at: usize| world.nodes[at].live.as_ref().unwrap().replica.place(origin(3));
    assert_eq!(place(1), Some(world.nodes[3].disk.own_place()));
    assert_eq!(place(0), place(1));
}

#[test]
fn two_neighbours_that_ask_each_other_still_come_to_know() {
    // Found by the simulator: 1 took the gap of 2 while it still asked 0 as well, and 0, which has
    // nobody but 1, did not ask 1 because it served it.
    let rules = Rules::default();
    let mut world = World::new(3, Plan { nodes: 4, rules, mesh: true, manual: true, beats: 4 });
    world.connect_all();
    for (a, b) in [(3, 0), (3, 1), (3, 2), (2, 1)] {
        world.disconnect(a, b);
    }
    // 1 asks 0, which asks 2.
    world.run(2 * LEASE);
    world.disconnect(2, 0);
    world.connect(2, 3);
    world.write(3, 0);
    world.write(3, 1);
    world.run(LEASE / 4);
    world.nodes[2].disk.foreign.get_mut(&origin(3)).unwrap().lanes[0].drop_to(3);
    world.connect(1, 2);
    world.run(8 * LEASE);
    assert_eq!((world.knows(1, 3), world.knows(0, 3)), (3, 3));
    assert!(super::check::every_domain_is_fresh(&world, 0));
    assert_eq!(world.wrong, None);
}

#[test]
fn no_number_of_a_life_is_given_twice() {
    needs(Rule::Life, 2, |world| {
        world.connect_all();
        world.syncs = false;
        world.write_own(0, 1);
        world.run(100 * MS);
        world.kill(0, true);
        world.nodes[0].disk.own_mut()[0].cut(1);
        world.start(0);
        world.write(0, 0);
        world.syncs = true;
        world.quiet();
    });
}

#[test]
fn a_new_life_clears_for_those_who_were_not_at_the_end_of_the_one_before() {
    needs(Rule::NewLife, 2, |world| {
        world.connect_all();
        world.fill(1, 0);
        world.disconnect(0, 1);
        world.write(0, 0);
        world.kill(0, false);
        world.start(0);
        world.quiet();
    });
}

#[test]
fn a_clean_stop_costs_nobody_a_clear() {
    let plan = Plan { nodes: 2, rules: Rules::default(), mesh: true, manual: true, beats: 4 };
    let mut world = World::new(1, plan);
    world.connect_all();
    world.write(0, 0);
    world.run(200 * MS);
    world.fill(1, 0);
    world.stop(0);
    let before = world.flushes;
    world.start(0);
    world.connect(0, 1);
    world.run(LEASE);
    assert_eq!((world.flushes, world.knows(1, 0)), (before, 1));
    assert!(world.nodes[1].live.as_ref().unwrap().app.entries[0].is_some());
    world.quiet();
    assert_eq!(world.wrong, None);
}

#[test]
fn a_change_outside_that_nobody_was_told_of_is_cleared_at_the_next_start() {
    needs(Rule::Unclean, 1, |world| {
        world.run(100 * MS);
        world.fill(0, 6);
        world.write_outside(0, 6);
        world.kill(0, false);
        world.start(0);
        world.quiet();
    });
}

#[test]
fn a_value_that_was_read_before_a_token_is_not_admitted_after_it() {
    needs(Rule::Ticket, 2, |world| {
        world.connect_all();
        let load = world.begin_fill(1, 0);
        world.write(0, 0);
        world.run(100 * MS);
        world.end_fill(1, load);
        world.quiet();
    });
}

#[test]
fn the_generation_goes_up_before_the_entry_is_removed() {
    needs(Rule::Order, 2, |world| {
        world.connect_all();
        world.disconnect(0, 1);
        world.begin_fill(1, 0);
        world.write(0, 0);
        // It arrives as visible, and the load ends between the two.
        world.connect(0, 1);
        world.run(200 * MS);
        world.quiet();
    });
}

#[test]
fn what_is_not_visible_yet_is_not_admitted() {
    needs(Rule::Provisional, 2, |world| {
        world.connect_all();
        world.syncs = false;
        world.write_own(0, 0);
        world.run(100 * MS);
        world.fill(1, 0);
        world.fsync(0);
        world.syncs = true;
        world.quiet();
    });
}

#[test]
fn a_beat_that_was_on_its_way_for_long_proves_what_was_when_its_ping_was_sent() {
    needs(Rule::Echo, 2, |world| {
        world.connect_all();
        world.fill(1, 0);
        let beat = |it: &(u64, Parcel)| {
            matches!(&it.1, Parcel::Message(crate::sync::message::Message::Beat(_)))
        };
        for _ in 0..2_000 {
            if world.conns[0].to[1].front().is_some_and(beat) {
                break;
            }
            world.run(MS / 4);
        }
        world.must(world.conns[0].to[1].front().is_some_and(beat), "no beat was on its way");
        world.cut.insert((0, 1));
        world.run(LEASE);
        world.write(0, 0);
        world.run(2 * LEASE);
        // This one comes through, and nothing behind it.
        world.cut.clear();
        world.deliver(0, 1);
        world.cut.insert((0, 1));
        world.settle();
        world.check_reads();
        world.quiet();
    });
}

#[test]
fn a_relay_says_how_old_its_own_proof_is() {
    needs(Rule::Age, 3, |world| {
        world.connect(0, 1);
        world.connect(1, 2);
        world.run(LEASE);
        world.fill(2, 0);
        world.cut.insert((0, 1));
        world.write(0, 0);
        world.run(3 * LEASE);
        world.quiet();
    });
}

#[test]
fn ages_are_rounded_up_for_a_relay_whose_clock_is_slow() {
    needs(Rule::Drift, 3, |world| {
        world.swift = true;
        for (at, rate) in [(0, 0), (1, -500), (2, 0)] {
            world.nodes[at].rate = rate;
        }
        world.connect(0, 1);
        world.connect(1, 2);
        world.run(LEASE);
        world.fill(2, 0);
        // The reader's clock is right, so the lease is exact; 100 us are for the hops.
        world.bound = LEASE + 100;
        // At once after a proof was made.
        let proved =
            |world: &World| world.nodes[1].live.as_ref().and_then(|it| it.replica.as_of(origin(0)));
        let before = proved(world);
        while proved(world) == before {
            world.run(10);
        }
        world.disconnect(0, 1);
        world.write(0, 0);
        for _ in 0..30_000 {
            world.run(50);
        }
        world.bound = 2 * LEASE;
        world.quiet();
    });
}

#[test]
fn a_proof_counts_once_everything_it_speaks_of_is_applied() {
    needs(Rule::Applied, 2, |world| {
        world.connect_all();
        world.fill(1, 0);
        world.disconnect(0, 1);
        for _ in 0..8_000 {
            world.write_own(0, 1);
        }
        world.write(0, 0);
        world.connect(0, 1);
        world.run(3 * LEASE);
        world.quiet();
    });
}

#[test]
fn a_writer_that_is_away_counts() {
    needs(Rule::Writers, 2, |world| {
        world.connect_all();
        world.fill(1, 0);
        world.disconnect(0, 1);
        world.write(0, 0);
        world.run(2 * LEASE);
        world.quiet();
    });
}

#[test]
fn time_that_was_lost_ends_the_leases() {
    needs(Rule::Jump, 2, |world| {
        world.connect_all();
        world.fill(1, 0);
        world.freeze(1, 3 * LEASE, true);
        world.write(0, 0);
        world.run(4 * LEASE);
        world.quiet();
    });
}

#[test]
fn only_what_members_have_on_their_disks_may_go() {
    needs(Rule::Retain, 2, |world| {
        world.connect_all();
        world.syncs = false;
        world.write_own(0, 0);
        world.run(LEASE);
        world.syncs = true;
        world.quiet();
    });
}

#[test]
fn whatever_is_passed_over_is_told() {
    needs(Rule::Report, 2, |world| {
        world.connect_all();
        world.disconnect(0, 1);
        world.write(0, 0);
        world.drop_own(0, Lane::Tokens, u64::MAX);
        world.quiet();
    });
}

#[test]
fn a_node_from_a_backup_takes_a_new_life_above_all_that_it_had() {
    needs(Rule::Reborn, 2, |world| {
        world.connect_all();
        world.nodes[0].backup = Some(Box::new(world.nodes[0].disk.clone()));
        for _ in 0..3 {
            world.kill(0, false);
            world.start(0);
            world.connect(0, 1);
            world.run(300 * MS);
        }
        world.write(0, 0);
        world.run(100 * MS);
        world.fill(1, 0);
        world.restore(0);
        world.quiet();
    });
}

#[test]
fn who_is_taken_back_twice_within_an_hour_is_fenced() {
    let plan = Plan { nodes: 2, rules: Rules::default(), mesh: true, manual: false, beats: 4 };
    let mut world = World::new(1, plan);
    world.run(LEASE);
    let backup = world.nodes[0].disk.clone();
    for _ in 0..2 {
        for _ in 0..2 {
            world.kill(0, false);
            world.start(0);
            world.run(LEASE);
        }
        world.nodes[0].backup = Some(Box::new(backup.clone()));
        world.restore(0);
        world.run(3 * LEASE);
    }
    let fence = world.nodes[0].live.as_ref().and_then(|it| it.replica.fence());
    assert_eq!(fence, Some(Fence::Copied));
    // That is what it must be: an operator is to look at it, and all else comes right.
    world.check_quiet();
    assert_eq!(world.wrong, None);
}

#[test]
fn of_two_lives_of_one_node_the_lower_is_fenced() {
    needs(Rule::Fenced, 1, |world| {
        world.copied = true;
        let disk = world.nodes[0].disk.clone();
        world.kill(0, false);
        let copy = world.add_node(origin(0), Members::default(), 0);
        world.nodes[copy].disk = disk;
        world.start(copy);
        world.kill(copy, false);
        world.start(copy);
        world.start(0);
        world.connect(0, copy);
        world.run(LEASE);
        let fenced = |at: usize| world.nodes[at].live.as_ref().is_some_and(|it| it.fenced);
        let holds = fenced(0) && !fenced(copy);
        world.must(holds, "both may write, or neither");
    });
}

#[test]
fn an_intent_outlives_the_life_that_opened_it() {
    needs(Rule::Intent, 2, |world| {
        world.connect_all();
        world.write_intent(0, 4);
        world.fsync(0);
        world.settle();
        let id = world.ids;
        world.kill(0, false);
        // What was sent lands, a while after the next life has begun.
        world.flying.insert(id);
        world.due.retain(|it| !matches!(it.0.2.0, Due::Commit { .. }));
        let life = world.nodes[0].life;
        world.after(LEASE, Due::Commit { node: 0, life, id, key: 4 });
        world.start(0);
        world.connect(0, 1);
        world.run(LEASE / 2);
        world.fill(1, 4);
        world.run(LEASE);
        world.quiet();
    });
}

#[test]
fn an_entry_that_was_kept_over_a_restart_proves_itself() {
    needs(Rule::Stamp, 2, |world| {
        world.connect_all();
        world.fill(1, 0);
        world.write(0, 0);
        world.run(200 * MS);
        // The deletion of the entry did not reach the disk; the token did.
        world.kill(1, false);
        world.start(1);
        world.quiet();
    });
}

#[test]
fn a_domain_with_another_schema_is_refused() {
    needs(Rule::Schema, 2, |world| {
        world.kill(1, false);
        world.nodes[1].schema = 2;
        world.start(1);
        world.connect_all();
        world.write(0, 0);
        world.run(LEASE);
        let met = world.knows(1, 0) != 0;
        world.must(!met, "two schemas of one domain met");
        let fresh = super::check::every_domain_is_fresh(world, 1);
        world.must(!fresh, "fresh without the other writer");
    });
}

#[test]
fn a_direct_connection_that_is_cut_changes_nothing_but_the_way() {
    let plan = Plan { nodes: 3, rules: Rules::default(), mesh: true, manual: true, beats: 4 };
    let mut world = World::new(1, plan);
    world.connect_all();
    world.fill(2, 0);
    world.disconnect(0, 2);
    world.write(0, 0);
    world.run(LEASE);
    assert_eq!(world.nodes[2].live.as_ref().unwrap().app.entries[0], None);
    assert!(super::check::every_domain_is_fresh(&world, 2));
    // The same where it does not break but goes dumb in one direction.
    world.connect(0, 2);
    world.run(LEASE);
    world.fill(2, 1);
    world.cut.insert((0, 2));
    world.write(0, 1);
    world.run(2 * LEASE);
    assert_eq!(world.nodes[2].live.as_ref().unwrap().app.entries[1], None);
    assert!(super::check::every_domain_is_fresh(&world, 2));
    world.quiet();
    assert_eq!(world.wrong, None);
}
