//! The log.
pub mod frame;
