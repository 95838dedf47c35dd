//! Schedules made for the rules of membership, as `directed` has them for the others.

use crate::sync::fact::Members;
use crate::sync::origin::Lane;
use crate::sync::replica::{Order, Rule, Rules};
use crate::sync::sim::app::domain;
use crate::sync::sim::directed::{needs, needs_beside};
use crate::sync::sim::{LEASE, MS, Plan, World, all_domains, origin};

#[test]
fn who_joins_writes_once_a_majority_knows_of_it() {
    needs(Rule::JoinMajority, 3, |world| {
        world.connect_all();
        world.fill(0, 4);
        for other in [0, 2] {
            world.disconnect(1, other);
        }
        let new = world.add_node(origin(3), Members::default(), 0);
        world.start(new);
        world.connect(1, new);
        world.run(100 * MS);
        world.join(new);
        world.run(3 * LEASE);
        // The sponsor is lost, and removed by those who never heard of what it did.
        world.kill(1, false);
        world.nodes[1].gone = true;
        world.order(0, Order::Remove { origin: origin(1) });
        world.run(LEASE);
        world.fill(0, 4);
        world.write_intent(new, 4);
        world.fsync(new);
        world.settle();
        world.run(3 * LEASE);
        world.quiet();
    });
}

#[test]
fn who_does_not_write_a_domain_lets_nobody_into_it() {
    needs(Rule::Sponsor, 3, |world| {
        // Each writes one domain of its own.
        let members: Vec<_> = (0..3)
            .map(|at| Members::founded(&[origin(at)], &[domain(usize::from(at != 2))]))
            .collect();
        only_members(world, &members);
        world.connect_all();
        world.fill(2, 0);
        for other in [0, 1] {
            world.disconnect(2, other);
        }
        let new = world.add_node(origin(3), Members::default(), 0);
        world.start(new);
        world.connect(0, new);
        world.run(200 * MS);
        world.join(new);
        world.run(3 * LEASE);
        world.write(new, 0);
        world.run(3 * LEASE);
    });
}

#[test]
fn a_domain_that_nobody_writes_needs_the_proof_of_all() {
    needs(Rule::Sponsor, 3, |world| {
        let all: Vec<_> = (0..3).map(origin).collect();
        only_members(world, &[Members::founded(&all, &[domain(1)])]);
        world.connect_all();
        world.fill(2, 0);
        for other in [0, 1] {
            world.disconnect(2, other);
        }
        let new = world.add_node(origin(3), Members::default(), 0);
        world.start(new);
        world.connect(0, new);
        world.connect(1, new);
        world.run(200 * MS);
        world.join(new);
        world.run(3 * LEASE);
        world.write(new, 0);
        world.run(3 * LEASE);
    });
}

/// Starts all again with that membership.
fn only_members(world: &mut World, parts: &[Members]) {
    let mut members = Members::default();
    for part in parts {
        members.merge(part);
    }
    for at in 0..world.nodes.len() {
        world.kill(at, true);
        world.nodes[at].disk.members = members.clone();
        world.start(at);
    }
}

#[test]
fn who_was_removed_is_cleared() {
    needs(Rule::Removed, 3, |world| {
        world.connect_all();
        world.fill(0, 0);
        world.fill(2, 0);
        for other in [0, 2] {
            world.disconnect(1, other);
        }
        world.write(1, 0);
        world.kill(1, false);
        world.nodes[1].gone = true;
        world.order(0, Order::Remove { origin: origin(1) });
        world.quiet();
    });
}

#[test]
fn a_removal_carries_what_a_majority_knew() {
    // What nodes tell each other of members besides would hide it.
    needs_beside(Rules::without(Rule::Members), Rule::Union, 3, |world| {
        world.connect_all();
        world.fill(2, 4);
        for other in [0, 1] {
            world.disconnect(2, other);
        }
        let new = world.add_node(origin(3), Members::default(), 0);
        world.start(new);
        world.connect(0, new);
        world.connect(1, new);
        world.run(100 * MS);
        world.join(new);
        world.run(3 * LEASE);
        // Its sponsor is lost; who never heard of it removes the sponsor.
        world.kill(0, false);
        world.nodes[0].gone = true;
        world.disconnect(1, new);
        let foreign = world.nodes[1].disk.foreign.get_mut(&origin(0)).unwrap();
        foreign.lanes[1].drop_to(1);
        world.connect(1, 2);
        world.run(100 * MS);
        world.order(2, Order::Remove { origin: origin(0) });
        world.run(LEASE);
        world.fill(2, 4);
        world.write_intent(new, 4);
        world.fsync(new);
        world.settle();
        world.run(3 * LEASE);
    });
}

#[test]
fn a_join_that_was_passed_over_is_known_before_anything_is_proved() {
    needs(Rule::Members, 3, |world| {
        world.connect_all();
        world.fill(2, 4);
        for other in [0, 1] {
            world.disconnect(2, other);
        }
        let new = world.add_node(origin(3), Members::default(), 0);
        world.start(new);
        world.connect(0, new);
        world.connect(1, new);
        world.run(100 * MS);
        world.join(new);
        world.run(3 * LEASE);
        // All who know of it begin new lives: the record of the join is in no log any more.
        for at in [0, 1] {
            world.kill(at, false);
            world.start(at);
        }
        world.connect(0, 2);
        world.connect(1, 2);
        world.run(200 * MS);
        world.fill(2, 4);
        world.write_intent(new, 4);
        world.fsync(new);
        world.settle();
        world.run(3 * LEASE);
    });
}

#[test]
fn a_leave_counts_once_all_before_it_is_applied() {
    needs(Rule::Left, 3, |world| {
        world.connect_all();
        world.fill(1, 0);
        world.disconnect(0, 1);
        world.disconnect(1, 2);
        for _ in 0..8_000 {
            world.write_own(0, 1);
        }
        world.write(0, 0);
        world.nodes[0].left = true;
        world.order(0, Order::Leave);
        world.connect(1, 2);
        world.connect(0, 1);
        world.run(3 * LEASE);
        world.quiet();
    });
}

#[test]
fn a_member_that_has_left_is_missed_by_nobody() {
    let plan = Plan { nodes: 3, rules: Rules::default(), mesh: true, manual: true, beats: 4 };
    let mut world = World::new(1, plan);
    world.connect_all();
    world.write(0, 0);
    world.nodes[0].left = true;
    let before = world.flushes;
    world.order(0, Order::Leave);
    world.run(LEASE);
    world.kill(0, false);
    world.run(3 * LEASE);
    assert!(super::check::every_domain_is_fresh(&world, 1), "its lease needs who has left");
    assert_eq!(world.flushes, before, "everything before the leave was applied");
    assert_eq!(all_domains().len(), 3);
}

#[test]
fn a_majority_says_what_it_has_stored_whichever_way_it_came() {
    for seed in 1..=8 {
        let plan = Plan { nodes: 2, rules: Rules::default(), mesh: true, manual: true, beats: 4 };
        let mut world = World::new(seed, plan);
        world.connect_all();
        // Nothing of 0 arrives at 1 any more; what it writes is on its way, and gone from its log.
        world.cut.insert((0, 1));
        world.write(0, 0);
        world.drop_own(0, Lane::Tokens, u64::MAX);
        let relay = world.add_node(origin(2), Members::default(), 0);
        world.start(relay);
        world.connect(0, relay);
        let new = world.add_node(origin(3), Members::default(), 0);
        world.start(new);
        world.connect(0, new);
        world.run(100 * MS);
        world.join(new);
        world.run(100 * MS);
        // So 1 has the record of the join by a relay's gap, and later once more from 0 itself.
        world.connect(1, relay);
        world.run(3 * LEASE);
        let place = |at: usize, of: usize| {
            world.nodes[at].live.as_ref().and_then(|it| it.replica.place(origin(of)))
        };
        assert_eq!(place(1, 0).map(|it| it.marks.values.seq), Some(1), "seed {seed}");
        world.heal();
        world.run(4 * LEASE);
        let fence = world.nodes[new].live.as_ref().map(|it| it.replica.fence());
        assert_eq!(fence, Some(None), "seed {seed}: nobody lets it in");
        assert_eq!(world.wrong, None, "seed {seed}");
    }
}
