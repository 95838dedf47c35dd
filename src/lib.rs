//! Annals
#![warn(missing_docs, clippy::missing_errors_doc)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::string_slice))]

pub mod actor;
pub mod disk;
pub mod error;
pub mod log;
pub mod time;
pub mod types;

pub use rkyv;
