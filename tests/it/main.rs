//! Tests of the log and the store on a simulated disk.
//!
//! `ANNALS_SEED` replays one seed, as a failure prints it; `ANNALS_STATES` multiplies how many
//! states are looked at (default 1).
mod ablations;
mod backup;
mod compact;
mod crash;
mod damage;
mod disk_full;
mod exhaustive;
mod faults;
mod noted;
mod repair;
mod retain;
mod store;
mod support;
mod swap;
mod threads;
mod verify;
mod view;
