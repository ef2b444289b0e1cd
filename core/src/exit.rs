//! How a node ends, and how that is told.

use crate::shared::{Once, Shared};
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

/// Held by the task of a node: tells how it has ended, also if it ends without a word.
#[derive(Debug)]
pub struct Ending(Shared<Once<Exit>>);

impl Ending {
    /// Tells those who wait for `exit`.
    pub fn of(exit: Shared<Once<Exit>>) -> Self {
        Self(exit)
    }

    /// It has ended like this.
    pub fn end(self, exit: Exit) {
        self.0.with(|told| told.set(exit));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // What was told before stays.
        self.0.with(|told| told.set(Exit::Failed));
    }
}
