//! Opens connections: to the peers that the node wants, and for the client.
//!
//! How long that may take, who tries again, and when, is decided elsewhere.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use async_tungstenite::tungstenite::protocol::Role;
use slipstream_core::client::ConnectError;
use slipstream_core::config::Limits;
use slipstream_core::happy_eyeballs::{connect_first, deadline};
use slipstream_core::io::Protocol;
use slipstream_core::socket::Opened;

use crate::http::{HttpTarget, unreachable};
use crate::socket::{Shell, TcpSocket};

/// Opens a connection that speaks `protocol`.
///
/// # Errors
/// [`ConnectError`] says what failed and what to look at.
pub async fn dial<N: Shell>(
    url: &str,
    protocol: Protocol,
    token: Option<&str>,
    limits: &Limits,
) -> Result<Opened<TcpSocket<N>>, ConnectError> {
    let until = deadline::<N>(limits);
    let target = HttpTarget::parse(url)?;
    let request = target.request(protocol, token)?;
    let addresses = resolve::<N>(&target.host, target.port).await.map_err(unreachable)?;
    let mut stream = connect_first::<N, _, _, _>(addresses, until, N::connect)
        .await
        .map_err(ConnectError::Unreachable)?;
    let rest = request.send(&mut stream).await?;
    let socket = TcpSocket::new(stream, rest, Role::Client, limits.max_frame_bytes());
    let remote = format!("{}:{}", target.host, target.port);
    Ok(Opened::new(socket, protocol, remote, target.query().to_owned()))
}

/// The addresses of a name, which the system may look for a while.
async fn resolve<N: Shell>(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    let found = N::unblock(move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    found.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}
