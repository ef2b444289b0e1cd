//! How a node ends.

use crate::store::StoreFailure;

pub use self::ExitReason as Exit;

/// How a node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// As it was asked to; what was accepted is durable.
    Stopped,
    /// Its store can no longer be trusted: a process ends with code 3.
    Halted(StoreFailure),
    /// Its task failed, by a fault of the program: what was not answered may be there or not.
    Failed,
}

impl ExitReason {
    /// How it ended once its store was closed, too. What was accepted is durable also where only
    /// the last checkpoint found no room.
    #[must_use]
    pub fn after_closing(self, closed: Result<(), StoreFailure>) -> Self {
        match (self, closed) {
            (Self::Stopped, Err(failure @ StoreFailure::Unknown(_))) => Self::Halted(failure),
            (exit, _) => exit,
        }
    }
}

/// The node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has ended")]
pub struct NodeGone;
