//! What a node can answer instead of a result.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{AppendError, DiskError, OpenError, SyncError};
use crate::sync::origin::ClusterId;
use crate::sync::replica::Fence;
use crate::types::DomainId;

/// Why a node did not start, or did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The file that says who the node is cannot be read. It refuses to start: to take another
    /// name by itself might make two of one.
    #[error("{} is there, and cannot be read: the node does not know who it is", .0.display())]
    Identity(PathBuf),
    /// The folder is of a node of another cluster.
    #[error("the folder is a node's of cluster {found}, not of {wanted}")]
    Cluster {
        /// Whose it is.
        found: ClusterId,
        /// Who wanted it.
        wanted: ClusterId,
    },
    /// The configuration contradicts itself.
    #[error("node: {0}")]
    Config(&'static str),
    /// The store was opened without [`node`](crate::StoreOptions::node).
    #[error("the store was opened without a node")]
    NoNode,
    /// The node may not publish. Nothing was published.
    #[error("the node may not publish: {}", describe(.0))]
    Fenced(Fence),
    /// Nobody declared the domain.
    #[error("the domain {0:?} was not declared when the node was started")]
    Domain(DomainId),
    /// See [`AppendError`]; nothing was published.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// See [`SyncError`].
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The file system refused something.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The foreign logs could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No connections are taken at this address.
    #[error("listening on {address}: {why}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The operating system's answer.
        why: Arc<std::io::Error>,
    },
    /// A thread could not be started.
    #[error("starting a thread: {0}")]
    Thread(Arc<std::io::Error>),
    /// It did not come to pass within the time given. It may later.
    #[error("it did not come to pass in time")]
    Timeout,
    /// The node is closed.
    #[error("the node is closed")]
    Closed,
}

fn describe(fence: &Fence) -> &'static str {
    match fence {
        Fence::NoMember => "it is no member of the cluster",
        Fence::Removed => "it was removed from the cluster",
        Fence::Joining => "it has joined, and waits until everybody has heard of it",
        Fence::Later(_) => "there is a later life of it",
        Fence::Copied => "it was copied or put back, and needs an operator",
    }
}
