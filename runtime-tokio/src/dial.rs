//! Opens connections: to the peers that the node wants, and for the client.
//!
//! What fails is told in words that name the cause. How long that may take, who tries again, and
//! when, is decided elsewhere.

use std::io;
use std::net::SocketAddr;

use async_tungstenite::tungstenite::client::{ClientRequestBuilder, IntoClientRequest};
use async_tungstenite::tungstenite::error::Error;
use async_tungstenite::tungstenite::handshake::client::{Request, Response, generate_request};
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::handshake::machine::TryParse;
use async_tungstenite::tungstenite::http::Uri;
use async_tungstenite::tungstenite::protocol::Role;
use slipstream_core::client::ConnectError;
use slipstream_core::config::Limits;
use slipstream_core::happy_eyeballs::{connect_first, deadline};
use slipstream_core::io::Protocol;
use slipstream_core::runtime::Runtime;
use slipstream_core::socket::Opened;
use slipstream_core::upgrade::{check, is_interim};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::socket::Socket;

/// Opens a connection that speaks `protocol`.
///
/// # Errors
/// [`ConnectError`] says what failed and what to look at.
pub(crate) async fn open<R: Runtime>(
    url: &str,
    protocol: Protocol,
    token: Option<&str>,
    limits: &Limits,
) -> Result<Opened<Socket>, ConnectError> {
    let until = deadline::<R>(limits);
    let (uri, host, port) = parse(url)?;
    let query = uri.query().unwrap_or_default().to_owned();
    let request = request(uri, protocol, token).map_err(|_| bad(url))?;
    let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
    let addresses = tokio::net::lookup_host(address).await.map_err(unreachable)?;
    let mut stream =
        connect_first::<R, _, _, _>(addresses, until, TcpStream::connect::<SocketAddr>)
            .await
            .map_err(ConnectError::Unreachable)?;
    let (request, key) = generate_request(request).map_err(not_a_node)?;
    stream.write_all(&request).await.map_err(unreachable)?;
    let mut rest = Vec::new();
    let response = loop {
        let response;
        (response, rest) = read_head::<Response>(&mut stream, rest).await?;
        if !is_interim(response.status().as_u16()) {
            break response;
        }
    };
    let headers = response.headers();
    let values = |name| headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
    let accept = derive_accept_key(key.as_bytes());
    check(response.status().as_u16(), values, &accept, protocol, &rest)?;
    let socket = Socket::new(stream, rest, Role::Client, limits.max_frame_bytes());
    Ok(Opened::new(socket, protocol, format!("{host}:{port}"), query))
}

fn unreachable(error: io::Error) -> ConnectError {
    ConnectError::Unreachable(error.to_string())
}

fn not_a_node(error: Error) -> ConnectError {
    ConnectError::NotANode(error.to_string())
}

/// Longest request or response of an upgrade: room for a token of 8 KiB, percent-encoded.
const MAX_HEAD: usize = 64 * 1024;

/// Why there is no request or response.
pub(crate) enum HeadError {
    /// The connection ended.
    Lost(io::Error),
    /// It is none, or too long.
    Bad(String),
}

impl From<HeadError> for ConnectError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Lost(error) => unreachable(error),
            HeadError::Bad(reason) => Self::NotANode(reason),
        }
    }
}

/// Reads an HTTP request or response up to its body, `read` being what has come of it. Returns what
/// was read behind it, too.
pub(crate) async fn read_head<T: TryParse>(
    stream: &mut TcpStream,
    mut read: Vec<u8>,
) -> Result<(T, Vec<u8>), HeadError> {
    while read.len() < MAX_HEAD {
        match T::try_parse(&read) {
            Ok(Some((size, head))) => return Ok((head, read.split_off(size))),
            Ok(None) => {}
            Err(error) => return Err(HeadError::Bad(error.to_string())),
        }
        read.reserve(1024);
        if stream.read_buf(&mut read).await.map_err(HeadError::Lost)? == 0 {
            return Err(HeadError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Err(HeadError::Bad(format!("more than {MAX_HEAD} bytes of HTTP headers")))
}

/// Whether a node could dial this URL.
///
/// # Errors
/// [`ConnectError::BadUrl`] or [`ConnectError::NoTls`].
pub fn check_url(url: &str) -> Result<(), ConnectError> {
    parse(url).map(|_| ())
}

fn bad(url: &str) -> ConnectError {
    // The query may hold a token.
    ConnectError::BadUrl(url.split('?').next().unwrap_or_default().into())
}

fn parse(url: &str) -> Result<(Uri, String, u16), ConnectError> {
    let uri: Uri = url.parse().map_err(|_| bad(url))?;
    let default_port = match uri.scheme_str() {
        Some("ws") => 80,
        Some("wss") => return Err(ConnectError::NoTls),
        _ => return Err(bad(url)),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad(url))?.to_owned();
    let port = uri.port_u16().unwrap_or(default_port);
    Ok((uri, host, port))
}

fn request(uri: Uri, protocol: Protocol, token: Option<&str>) -> Result<Request, Error> {
    let mut request = ClientRequestBuilder::new(uri).with_sub_protocol(protocol.name());
    if let Some(token) = token {
        request = request.with_header("Authorization", format!("Bearer {token}"));
    }
    request.into_client_request()
}
