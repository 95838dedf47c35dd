//! Actors.
pub mod provider;

/// Placeholder while the layer is built.
#[derive(Clone, Debug, thiserror::Error)]
#[error("actor")]
pub struct ActorError;
