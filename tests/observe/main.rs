//! Annals seen from outside: what a subscriber and a recorder are told, against the tables of
//! `docs/observe.md`.
//!
//! ```text
//! cargo test --features metrics,tracing --test observe
//! ```
#![allow(clippy::tests_outside_test_module, reason = "all of it is tests")]

mod actors;
mod counts;
mod edges;
mod events;
mod guests;
mod hear;
mod numbers;
mod owed;
mod scenes;
mod table;
