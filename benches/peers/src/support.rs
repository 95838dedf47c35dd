//! What is shared with `benches/log.rs`, so that both measure alike.

#[path = "../../support/flush.rs"]
pub(crate) mod flush;
#[path = "../../support/histogram.rs"]
#[expect(dead_code, reason = "not all of it is needed here")]
pub(crate) mod histogram;
#[path = "../../support/home.rs"]
pub(crate) mod home;

pub(crate) use crate::store::PAYLOAD_BYTES;

/// Bytes that an event takes in the limits: what a frame of Annals takes.
pub(crate) const FRAME_BYTES: usize = 176;
