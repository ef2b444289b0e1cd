//! What smol supplies of the network.

use std::io;
use std::net::SocketAddr;

use slipstream_shell::Net;
use smol::net::{TcpListener, TcpStream};
use socket2::SockRef;

use crate::runtime::Smol;

impl Net for Smol {
    type Tcp = TcpStream;
    type Read = TcpStream;
    type Write = TcpStream;
    type Listener = TcpListener;

    async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    fn listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        listener.try_into()
    }

    async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        listener.accept().await
    }

    fn socket(tcp: &TcpStream) -> SockRef<'_> {
        SockRef::from(tcp)
    }

    fn split(tcp: TcpStream) -> (TcpStream, TcpStream) {
        (tcp.clone(), tcp)
    }
}
