//! Links between nodes: one duplex TCP connection for each pair, proven at both ends.
pub mod backoff;
pub mod frame;
pub mod gate;
pub mod handshake;
