//! What tokio supplies to the core's tasks. All that they see of time passes through here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use slipstream_core::client::ConnectError;
use slipstream_core::config::Limits;
use slipstream_core::connection;
use slipstream_core::io::Protocol;
use slipstream_core::runtime::Runtime;
use slipstream_core::shared::{Lock, Shared, Source, Wakes};
use slipstream_core::socket::Opened;
use slipstream_core::time::{Instant, Now};
use tokio::time::Sleep;

use crate::dial;
use crate::report::Tracing;
use crate::socket::Socket;
use crate::stream::Stream;

/// What reaches a loop.
pub(crate) type Incoming = connection::Incoming<Tokio>;
/// The way to a loop.
pub(crate) type Inputs = connection::Inputs<Tokio>;

/// The runtime that the handles of this crate work with.
#[derive(Debug, Clone, Copy)]
pub struct Tokio;

/// A lock of this runtime's threads, held only for a moment and never while waiting.
struct Locked<T>(Mutex<T>);

impl<T: Send> Lock<T> for Locked<T> {
    fn with(&self, run: &mut dyn FnMut(&mut T)) {
        // Every change is made at one stroke, so a panic leaves nothing half done.
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Runtime for Tokio {
    type Stream<S: Source + Unpin> = Stream<S>;
    type Socket = Socket;
    type Timer = Pin<Box<Sleep>>;
    type Log = Tracing;

    fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T> {
        Shared::new(Arc::new(Locked(Mutex::new(what))))
    }

    fn random() -> Result<u64, String> {
        getrandom::u64().map_err(|error| error.to_string())
    }

    fn now() -> Now {
        slipstream_clocks::now()
    }

    fn timer(at: Instant) -> Self::Timer {
        Box::pin(tokio::time::sleep_until(slipstream_clocks::deadline(at).into()))
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    async fn unblock<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
    }

    async fn dial(
        url: &str,
        protocol: Protocol,
        token: Option<&str>,
        limits: &Limits,
    ) -> Result<Opened<Socket>, ConnectError> {
        dial::open::<Self>(url, protocol, token, limits).await
    }
}
