//! How a node ends.

use crate::store::StoreFailure;

/// How a node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// As it was asked to; what was accepted is durable.
    Stopped,
    /// Its store can no longer be trusted: a process ends with code 3.
    Halted(StoreFailure),
    /// Its task failed, by a fault of the program: what was not answered may be there or not.
    Failed,
}

/// The node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has ended")]
pub struct NodeGone;
