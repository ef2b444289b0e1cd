//! What smol supplies to the core's tasks. All that they see of time passes through here.

use slipstream_core::client::ConnectError;
use slipstream_core::config::Limits;
use slipstream_core::io::Protocol;
use slipstream_core::runtime::Runtime;
use slipstream_core::shared::{Shared, StreamSource, Wakes};
use slipstream_core::socket::Opened;
use slipstream_core::time::{Instant, Now};
use slipstream_shell::{Stream, TcpSocket, Tracing, clocks};

/// The runtime that the handles of this crate work with.
#[derive(Debug, Clone, Copy)]
pub struct Smol;

impl Runtime for Smol {
    type Stream<S: StreamSource + Unpin> = Stream<S>;
    type Socket = TcpSocket<Self>;
    type Timer = smol::Timer;
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
        smol::Timer::at(clocks::deadline(at))
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(task).detach();
    }

    async fn unblock<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        smol::unblock(work).fallible().await.ok_or_else(|| String::from("it panicked"))
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
