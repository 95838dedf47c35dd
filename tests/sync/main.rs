//! Tests of nodes: stores that tell each other what has changed. A binary of its own, because its
//! tests wait for each other's threads, and are best not held up by those of `it`.
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

mod crash;
mod nodes;
mod tcp;
mod world;
