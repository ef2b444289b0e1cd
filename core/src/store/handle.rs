//! The handle of a store: by it the loop of a node asks, without waiting for what comes of it.

use alloc::boxed::Box;

use crate::store::{Batch, Query, StoreFailure};
use crate::types::ids::FetchId;

/// A store at work. It does what it is asked in order, and reports it as inputs of the node.
pub trait Store: Send + 'static {
    /// Makes a batch durable. [`Committed`](crate::store::Committed) or
    /// [`CommitFailed`](crate::store::CommitFailed) follows.
    ///
    /// # Errors
    /// [`Stopped`]: nothing can be acknowledged any more.
    fn commit(&self, batch: Box<Batch>) -> Result<(), Stopped>;

    /// Looks something up. Exactly one answer follows.
    ///
    /// # Errors
    /// [`Stopped`]: there will be no answer.
    fn fetch(&self, fetch: FetchId, query: Query) -> Result<(), Stopped>;

    /// Calls `pong` where the store works, when everything that was asked before is done: a sign
    /// that the store lives. Never waits.
    ///
    /// # Errors
    /// [`Stopped`] if the store does not live, or has too much to do.
    fn ping(&self, pong: Box<dyn FnOnce() + Send>) -> Result<(), Stopped>;

    /// Does what was asked before, and ends. Takes its thread a while.
    ///
    /// # Errors
    /// Why the store did not end well. What was reported as committed is durable all the same.
    fn close(self) -> Result<(), StoreFailure>;
}

/// The store is gone, and with it everything that it had not reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store has stopped")]
pub struct Stopped;
