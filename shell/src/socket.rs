//! A WebSocket connection over TCP whose handshake is done.

use async_tungstenite::tungstenite::protocol::Role;
use slipstream_core::io::Protocol;
use slipstream_core::runtime::Runtime;
use slipstream_core::socket;

use crate::halves::{ReadHalf, WriteHalf};
use crate::net::Net;

/// What the system takes before it can send it: pings wait behind it, and nobody sees it move.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 * 1024;

/// A runtime whose connections are [`TcpSocket`]s on its own TCP streams: what a shell supplies.
pub trait Shell: Net + Runtime<Socket = TcpSocket<Self>> {}

impl<N: Net + Runtime<Socket = TcpSocket<N>>> Shell for N {}

/// A connection on the TCP streams of a runtime.
#[derive(Debug)]
pub struct TcpSocket<N: Net> {
    stream: N::Tcp,
    /// What was read behind the handshake.
    rest: Vec<u8>,
    /// Which end of it this is.
    role: Role,
    /// Largest frame.
    largest: usize,
}

impl<N: Net> TcpSocket<N> {
    pub(crate) fn new(stream: N::Tcp, rest: Vec<u8>, role: Role, largest: usize) -> Self {
        let options = N::socket(&stream);
        // Without this, small frames wait for the acknowledgement of the one before.
        let _ = options.set_tcp_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = options.set_tcp_notsent_lowat(UNSENT);
        Self { stream, rest, role, largest }
    }
}

impl<N: Net> socket::Socket for TcpSocket<N> {
    type Reader = ReadHalf<N::Read>;
    type Writer = WriteHalf<N::Write>;

    async fn split(self, protocol: Protocol) -> (Self::Reader, Self::Writer) {
        let Self { stream, rest, role, largest } = self;
        let (read, write) = N::split(stream);
        (
            ReadHalf::new(read, rest, role, largest, protocol).await,
            WriteHalf::new(write, role, largest).await,
        )
    }
}
