//! What a program that uses a node needs of its runtime: a shell implements it.

use alloc::string::String;
use core::fmt;
use core::future::Future;

use crate::client::service::Service;
use crate::exit::NodeGone;
use crate::incoming::Request;
use crate::shared::{Shared, Source, Wakes};

/// Where a node is, within this process or behind a URL, and how this runtime gets there. Clones
/// are the same place.
pub trait Host: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// What comes one by one, as the users of this runtime know it.
    type Stream<S: Source + Unpin>: From<S>;

    /// Behind this URL. Its query string is not kept: it may hold a token.
    fn remote(url: &str) -> Self;

    /// Something for several tasks to hold on to, behind a lock of this runtime's threads.
    fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T>;

    /// A number that nobody can guess.
    ///
    /// # Errors
    /// What the system said.
    fn random() -> Result<u64, String>;

    /// Starts a task for an application of this node.
    fn serve(&self, service: Service);

    /// Gives this to the loop of the node, if it is within this process.
    fn give(&self, request: Request) -> impl Future<Output = Result<(), NodeGone>> + Send;
}
