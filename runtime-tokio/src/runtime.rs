//! What tokio supplies to the core's tasks. All that they see of time passes through here.

use slipstream_core::client::ConnectError;
use slipstream_core::config::Limits;
use slipstream_core::io::Protocol;
use slipstream_core::runtime::Runtime;
use slipstream_core::shared::{Shared, StreamSource, Wakes};
use slipstream_core::socket::Opened;
use slipstream_core::time::{Instant, Now};
use slipstream_shell::{Stream, TcpSocket, Tracing, clocks};
use std::pin::Pin;
use tokio::time::Sleep;

/// The runtime that the handles of this crate work with.
#[derive(Debug, Clone, Copy)]
pub struct Tokio;

impl Runtime for Tokio {
    type Stream<S: StreamSource + Unpin> = Stream<S>;
    type Socket = TcpSocket<Self>;
    type Timer = Pin<Box<Sleep>>;
    type Log = Tracing;

    fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T> {
        slipstream_shell::share(what)
    }

    fn random() -> Result<u64, String> {
        slipstream_shell::random()
    }

    fn now() -> Now {
        clocks::now()
    }

    fn timer(at: Instant) -> Self::Timer {
        Box::pin(tokio::time::sleep_until(clocks::deadline(at).into()))
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
    ) -> Result<Opened<TcpSocket<Self>>, ConnectError> {
        slipstream_shell::dial(url, protocol, token, limits).await
    }
}
