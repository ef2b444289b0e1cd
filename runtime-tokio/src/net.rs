//! What tokio supplies of the network.

use std::io;
use std::net::SocketAddr;

use async_tungstenite::tokio::TokioAdapter;
use slipstream_shell::Net;
use socket2::SockRef;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::runtime::Tokio;

impl Net for Tokio {
    type Tcp = TokioAdapter<TcpStream>;
    type Read = TokioAdapter<OwnedReadHalf>;
    type Write = TokioAdapter<OwnedWriteHalf>;
    type Listener = TcpListener;

    async fn connect(address: SocketAddr) -> io::Result<Self::Tcp> {
        TcpStream::connect(address).await.map(TokioAdapter::new)
    }

    fn listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        TcpListener::from_std(listener)
    }

    async fn accept(listener: &TcpListener) -> io::Result<(Self::Tcp, SocketAddr)> {
        let (stream, remote) = listener.accept().await?;
        Ok((TokioAdapter::new(stream), remote))
    }

    fn socket(tcp: &Self::Tcp) -> SockRef<'_> {
        SockRef::from(tcp.get_ref())
    }

    fn split(tcp: Self::Tcp) -> (Self::Read, Self::Write) {
        let (read, write) = tcp.into_inner().into_split();
        (TokioAdapter::new(read), TokioAdapter::new(write))
    }
}
