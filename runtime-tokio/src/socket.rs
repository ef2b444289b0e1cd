//! A WebSocket connection over TCP whose handshake is done.

use async_tungstenite::tungstenite::protocol::Role;
use slipstream_core::io::Protocol;
use slipstream_core::socket;
use tokio::net::TcpStream;

use crate::halves::{Reader, Writer};

/// What the system takes before it can send it: pings wait behind it, and nobody sees it move.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// What was read behind the handshake.
    rest: Vec<u8>,
    /// Which end of it this is.
    role: Role,
    /// Largest frame.
    largest: usize,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, rest: Vec<u8>, role: Role, largest: usize) -> Self {
        // Without this, small frames wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        Self { stream, rest, role, largest }
    }
}

impl socket::Socket for Socket {
    type Reader = Reader;
    type Writer = Writer;

    async fn split(self, protocol: Protocol) -> (Reader, Writer) {
        let Self { stream, rest, role, largest } = self;
        let (read, write) = stream.into_split();
        (
            Reader::new(read, rest, role, largest, protocol).await,
            Writer::new(write, role, largest).await,
        )
    }
}
