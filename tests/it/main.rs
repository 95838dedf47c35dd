//! Tests of the log and the store on a simulated disk.
//!
//! `ANNALS_SEED` replays one seed, as a failure prints it; `ANNALS_STATES` says how many crash
//! states are aimed at, all tests together (default 100,000; some of a run's work does not depend
//! on it).
mod ablations;
mod backup;
mod cases;
mod cases_durable;
mod cases_history;
mod cases_recovery;
mod cases_snapshots;
mod cases_turns;
mod compact;
mod crash;
mod cursor;
mod damage;
mod disk_full;
mod edge;
mod exhaustive;
mod faults;
mod feed;
mod kit;
mod listed;
mod noted;
mod outbox;
mod owed;
mod owing;
mod past;
mod repair;
mod retain;
mod run_table;
mod scrub;
mod store;
mod stream;
mod support;
mod swap;
mod testimony;
mod threads;
mod verify;
mod view;
mod world;
