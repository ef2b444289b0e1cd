//! A WebSocket connection whose handshake is done, over TCP or within the process.

use std::fmt::Debug;

use async_tungstenite::tungstenite::protocol::Role;
use slipstream_core::connection;
use slipstream_core::io::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, duplex, split};
use tokio::net::TcpStream;

use crate::halves::{Reader, Writer};

/// Bytes under way in one direction of a connection within the process.
const PIPE: usize = 64 * 1024;

/// What a connection is read from.
pub(crate) trait Read: AsyncRead + Debug + Send + Sync + Unpin {}
impl<T: AsyncRead + Debug + Send + Sync + Unpin> Read for T {}

/// What a connection is written to.
pub(crate) trait Write: AsyncWrite + Debug + Send + Sync + Unpin {}
impl<T: AsyncWrite + Debug + Send + Sync + Unpin> Write for T {}

/// See the module.
#[derive(Debug)]
pub struct Socket {
    read: Box<dyn Read>,
    write: Box<dyn Write>,
    /// What was read behind the handshake.
    rest: Vec<u8>,
    /// Which end of it this is.
    role: Role,
    /// Largest frame.
    largest: usize,
}

impl Socket {
    /// Over TCP.
    pub(crate) fn tcp(stream: TcpStream, rest: Vec<u8>, role: Role, largest: usize) -> Self {
        // Without this, small frames wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (read, write) = stream.into_split();
        Self { rest, ..Self::new(read, write, role, largest) }
    }

    /// Both ends of one within the process, the client's first.
    pub(crate) fn pair(largest: usize) -> (Self, Self) {
        let (client, server) = duplex(PIPE);
        let end = |stream, role| {
            let (read, write) = split(stream);
            Self::new(read, write, role, largest)
        };
        (end(client, Role::Client), end(server, Role::Server))
    }

    fn new(
        read: impl Read + 'static,
        write: impl Write + 'static,
        role: Role,
        largest: usize,
    ) -> Self {
        Self { read: Box::new(read), write: Box::new(write), rest: Vec::new(), role, largest }
    }
}

impl connection::Socket for Socket {
    type Reader = Reader;
    type Writer = Writer;

    async fn split(self, protocol: Protocol) -> (Reader, Writer) {
        (
            Reader::new(self.read, self.rest, self.role, self.largest, protocol).await,
            Writer::new(self.write, self.role, self.largest).await,
        )
    }
}
