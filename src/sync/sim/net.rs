//! Connections: in order, until they stall or break.

use std::collections::VecDeque;

use crate::sync::message::{Hello, Message, Tokens};
use crate::sync::origin::TokenLog;
use crate::sync::replica::Link;
use crate::sync::sim::{Due, LATENCY_MAX, LEASE, MS, Time, Todo, World};

/// What travels.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Hello(Box<Hello>),
    Message(Message),
    Tokens { log: TokenLog, first: u64, before: u64, visible: u64, bytes: Vec<u8> },
}

impl Parcel {
    pub(super) fn tokens(&self) -> Option<Tokens<'_>> {
        match self {
            Self::Tokens { log, first, before, visible, bytes } => {
                let (log, first, before, visible) = (*log, *first, *before, *visible);
                Some(Tokens { log, first, before, visible, bytes })
            }
            _ => None,
        }
    }
}

/// A connection between two lives of two nodes.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) ends: [(usize, u64); 2],
    /// What is on its way to each end, and when it arrives.
    pub(super) to: [VecDeque<(Time, Parcel)>; 2],
    /// Each end believes that it stands.
    pub(super) open: [bool; 2],
    /// It has got the other's hello.
    pub(super) greeted: [bool; 2],
    /// Nothing gets through any more, though an end may believe in it yet.
    pub(super) broken: bool,
    latency: Time,
}

impl World {
    pub(super) fn connected(&self, a: usize, b: usize) -> bool {
        self.conns.iter().any(|conn| {
            let ends = [conn.ends[0].0, conn.ends[1].0];
            (ends == [a, b] || ends == [b, a]) && conn.open[0] && conn.open[1] && !conn.broken
        })
    }

    /// A pair that connects by itself, now or later.
    pub(super) fn connect_due(&mut self, a: usize, b: usize) {
        let cut = self.cut.contains(&(a, b)) || self.cut.contains(&(b, a));
        if !self.pairs().contains(&(a, b)) {
            return;
        }
        if !cut && !self.connected(a, b) {
            self.connect(a, b);
        }
        if !self.plan.manual {
            let delay = 100 * MS + self.dice.below(100 * MS);
            self.after(delay, Due::Connect { a, b });
        }
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) -> Option<usize> {
        let hellos = [self.hello(a)?, self.hello(b)?];
        let lives = [self.nodes[a].life, self.nodes[b].life];
        let latency = if self.swift { 1 } else { 200 + self.dice.below(LATENCY_MAX) };
        self.conns.push(Conn {
            ends: [(a, lives[0]), (b, lives[1])],
            to: [VecDeque::new(), VecDeque::new()],
            open: [true; 2],
            greeted: [false; 2],
            broken: false,
            latency,
        });
        let conn = self.conns.len() - 1;
        self.note(|| format!("connect {a}-{b} as {conn}"));
        let [of_a, of_b] = hellos;
        self.put(conn, 1, Parcel::Hello(Box::new(of_a)));
        self.put(conn, 0, Parcel::Hello(Box::new(of_b)));
        Some(conn)
    }

    /// Puts it on its way to one end.
    pub(super) fn put(&mut self, conn: usize, side: usize, parcel: Parcel) {
        let jitter = if self.swift { 1 } else { self.dice.below(2 * MS) };
        let Some(it) = self.conns.get_mut(conn) else { return };
        if it.broken || !it.open[0] || !it.open[1] {
            return;
        }
        let last = it.to[side].back().map_or(0, |it| it.0);
        let at = last.max(self.now + it.latency + jitter);
        it.to[side].push_back((at, parcel));
        self.messages[0] += 1;
        self.after(at - self.now, Due::Deliver { conn, side });
    }

    /// Which side of it a node is, as the other's messages reach it.
    pub(super) fn side(&self, link: Link, node: usize) -> Option<(usize, usize)> {
        let conn = usize::try_from(link.0).ok()?;
        let it = self.conns.get(conn)?;
        let side = it.ends.iter().position(|it| *it == (node, self.nodes[node].life))?;
        Some((conn, side))
    }

    /// The first of what has arrived is taken in.
    pub(super) fn deliver(&mut self, conn: usize, side: usize) {
        let it = &mut self.conns[conn];
        let (node, life) = it.ends[side];
        let from = it.ends[1 - side].0;
        if !it.open[side] || self.cut.contains(&(from, node)) {
            return; // Stalled: it is delivered when the cut heals, or never.
        }
        if self.nodes[node].frozen.is_some() {
            return;
        }
        let Some((at, _)) = it.to[side].front() else { return };
        if *at > self.now {
            return;
        }
        let Some((_, parcel)) = it.to[side].pop_front() else { return };
        if !self.is_life(node, life) {
            return;
        }
        let link = Link(conn as u64);
        match parcel {
            Parcel::Hello(hello) => {
                self.conns[conn].greeted[side] = true;
                self.tell(node, Todo::Up { link, hello });
            }
            parcel => self.tell(node, Todo::Parcel { link, parcel: Box::new(parcel) }),
        }
        // There is room for more.
        self.pump_later(from);
    }

    pub(super) fn pump_later(&mut self, node: usize) {
        if let Some(live) = &mut self.nodes[node].live {
            live.pump = true;
            self.pump(node);
        }
    }

    /// All that was stalled comes, late.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.redeliver();
    }

    pub(super) fn redeliver(&mut self) {
        for conn in 0..self.conns.len() {
            for side in 0..2 {
                for _ in 0..self.conns[conn].to[side].len() {
                    let at = self.conns[conn].to[side].back().map_or(0, |it| it.0);
                    let delay = at.saturating_sub(self.now);
                    self.after(delay, Due::Deliver { conn, side });
                }
            }
        }
    }

    /// Both ends hear of it, soon or late.
    pub(super) fn break_conn(&mut self, conn: usize) {
        self.note(|| format!("break {conn}"));
        for side in 0..2 {
            let delay =
                if self.dice.one_in(3) { self.dice.below(2 * LEASE) } else { self.dice.below(MS) };
            self.conns[conn].to[side].clear();
            if self.conns[conn].open[side] {
                self.after(delay, Due::Down { conn, side });
            }
        }
        self.conns[conn].broken = true;
    }

    /// One end hears that it is gone.
    pub(super) fn down(&mut self, conn: usize, side: usize) {
        let (node, life) = self.conns[conn].ends[side];
        if self.nodes[node].frozen.is_some() && self.nodes[node].life == life {
            // It hears of it when it runs again.
            self.after(50 * MS, Due::Down { conn, side });
            return;
        }
        if !std::mem::replace(&mut self.conns[conn].open[side], false) {
            return;
        }
        if self.is_life(node, life) && self.conns[conn].greeted[side] {
            self.tell(node, Todo::Down { link: Link(conn as u64) });
        }
        if self.conns[conn].open[1 - side] {
            let delay = self.dice.below(5 * MS);
            self.after(delay, Due::Down { conn, side: 1 - side });
        }
    }
}
