//! A WebSocket connection whose handshake is done, over TCP or within the process.

use std::fmt;

use async_tungstenite::tungstenite::protocol::Role;
use piper::pipe;
use slipstream_core::connection;
use slipstream_core::io::Protocol;
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;

use crate::halves::{Reader, Writer};

/// Bytes under way in one direction of a connection within the process.
const PIPE: usize = 64 * 1024;

/// What a connection is read from.
pub(crate) trait Read: AsyncRead + Send + Sync + Unpin {}
impl<T: AsyncRead + Send + Sync + Unpin> Read for T {}

/// What a connection is written to.
pub(crate) trait Write: AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncWrite + Send + Sync + Unpin> Write for T {}

impl fmt::Debug for dyn Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Read")
    }
}

impl fmt::Debug for dyn Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Write")
    }
}

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
        Self { rest, ..Self::new(stream.clone(), stream, role, largest) }
    }

    /// Both ends of one within the process, the client's first.
    pub(crate) fn pair(largest: usize) -> (Self, Self) {
        let ((from_server, to_client), (from_client, to_server)) = (pipe(PIPE), pipe(PIPE));
        let end = |read, write, role| Self::new(read, write, role, largest);
        (end(from_server, to_server, Role::Client), end(from_client, to_client, Role::Server))
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
