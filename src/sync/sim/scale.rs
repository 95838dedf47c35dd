//! Large clusters: what a token costs, and how soon all have it.

use crate::sync::origin::Origin;
use crate::sync::replica::Rules;
use crate::sync::sim::{LEASE, MS, Plan, World};

/// A cluster where each connects to all, or to its parent among `fan` children.
fn cluster(nodes: usize, fan: Option<usize>) -> World {
    let beats = if fan.is_some() { 16 } else { 4 };
    let plan = Plan { nodes, rules: Rules::default(), mesh: true, manual: true, beats };
    let mut world = World::new(1, plan);
    world.swift = true;
    for b in 1..nodes {
        let parents = fan.map_or(0..b, |fan| (b - 1) / fan..(b - 1) / fan + 1);
        for a in parents {
            world.connect(a, b);
        }
    }
    world
}

impl World {
    fn all_have(&self, origin: Origin, seq: u64) -> bool {
        self.nodes.iter().filter(|it| it.origin() != origin).all(|it| {
            let place = it.live.as_ref().and_then(|it| it.replica.place(origin));
            place.is_some_and(|it| it.marks.tokens.seq >= seq)
        })
    }

    /// Until everybody has it, in steps of a millisecond; `None` if it takes ten leases.
    fn until_all_have(&mut self, origin: Origin, seq: u64) -> Option<u64> {
        let start = self.now;
        while !self.all_have(origin, seq) {
            if self.now - start > 10 * LEASE {
                return None;
            }
            self.run(MS);
        }
        Some((self.now - start) / MS)
    }

    fn all_are_fresh(&self) -> bool {
        (0..self.nodes.len()).all(|at| super::check::every_domain_is_fresh(self, at))
    }
}

/// What was measured.
struct Figures {
    bytes_per_token: usize,
    messages_per_second: usize,
    spread: Option<u64>,
    again: Option<u64>,
    fresh: bool,
}

fn measure(nodes: usize, fan: Option<usize>) -> Figures {
    let mut world = cluster(nodes, fan);
    world.run(4 * LEASE);
    let fresh = world.all_are_fresh();
    let before = world.messages[0];
    world.run(LEASE);
    let messages = world.messages[0] - before;
    // Of the last, which is a leaf.
    let last = nodes - 1;
    let origin = world.nodes[last].origin();
    let bytes = world.messages[1];
    for key in 0..100 {
        world.write_own(last, key % 4);
    }
    let seq = world.nodes[last].disk.own()[0].head().seq;
    let spread = world.until_all_have(origin, seq);
    let bytes_per_token = (world.messages[1] - bytes) / 100 / (nodes - 1);
    // It is away for a while, and writes meanwhile.
    let conns: Vec<_> = (0..world.conns.len())
        .filter(|it| world.conns[*it].ends.iter().any(|it| it.0 == last))
        .collect();
    for conn in &conns {
        world.break_conn(*conn);
    }
    world.run(3 * LEASE);
    for key in 0..100 {
        world.write_own(last, key % 4);
    }
    let seq = world.nodes[last].disk.own()[0].head().seq;
    let peers: Vec<_> = conns.iter().map(|it| world.conns[*it].ends[0].0).collect();
    for peer in peers {
        world.connect(peer, last);
    }
    let again = world.until_all_have(origin, seq);
    Figures { bytes_per_token, messages_per_second: messages / nodes, spread, again, fresh }
}

#[test]
fn a_tree_brings_every_token_to_everybody_once() {
    let figures = measure(20, Some(3));
    assert!(figures.fresh, "a tree that is not too deep has its leases");
    assert!(figures.spread.is_some() && figures.again.is_some());
    // One copy of each for each node: the record and nothing else.
    let record = crate::sync::token::HEADER + 1;
    assert!(figures.bytes_per_token <= record * 11 / 10, "{}", figures.bytes_per_token);
}

#[test]
#[ignore = "takes minutes; a table for docs/protocol.md"]
#[expect(clippy::print_stderr, reason = "a table is asked for")]
fn how_large_clusters_do() {
    eprintln!("| nodes | shape | bytes per token and node | messages per node and second |");
    eprintln!("| | | ms until all have 100 tokens | ms after a cut | fresh |");
    for (nodes, fan) in [
        (4, None),
        (16, None),
        (32, None),
        (32, Some(8)),
        (100, Some(8)),
        (300, Some(8)),
        (1_000, Some(8)),
    ] {
        let it = measure(nodes, fan);
        let shape = if fan.is_some() { "tree of 8" } else { "mesh" };
        let ms = |it: Option<u64>| it.map_or("never".to_owned(), |it| it.to_string());
        eprintln!(
            "| {nodes} | {shape} | {} | {} | {} | {} | {} |",
            it.bytes_per_token,
            it.messages_per_second,
            ms(it.spread),
            ms(it.again),
            it.fresh
        );
    }
}
