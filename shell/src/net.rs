//! What a shell supplies of the network: TCP streams of its runtime.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;

use futures_util::io::{AsyncRead, AsyncWrite};
use socket2::SockRef;

/// The TCP streams of a runtime.
pub trait Net: Debug + Send + Sync + Sized + 'static {
    /// A connection.
    type Tcp: AsyncRead + AsyncWrite + Debug + Unpin + Send + 'static;
    /// The half that reads.
    type Read: AsyncRead + Unpin + Send + 'static;
    /// The half that writes.
    type Write: AsyncWrite + Unpin + Send + 'static;
    /// What accepts connections.
    type Listener: Send + Sync + 'static;

    /// Connects to an address, however long it takes.
    ///
    /// # Errors
    /// What the system said.
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self::Tcp>> + Send;

    /// Takes a listener, which does not block.
    ///
    /// # Errors
    /// What the system said.
    fn listener(listener: std::net::TcpListener) -> io::Result<Self::Listener>;

    /// The next connection, and where it comes from.
    ///
    /// # Errors
    /// What the system said.
    fn accept(
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Tcp, SocketAddr)>> + Send;

    /// The connection as the system knows it, for its options.
    fn socket(tcp: &Self::Tcp) -> SockRef<'_>;

    /// Takes a connection apart, for two tasks.
    fn split(tcp: Self::Tcp) -> (Self::Read, Self::Write);
}
