//! The upgrade to WebSocket, over any stream: the request of who connects, and the answer of who
//! listens.
//!
//! Every head has a bound. What a request or response must hold is judged by the core. What fails
//! is told in words that name the cause. A query string is handed on and never logged.

use std::io;

use async_tungstenite::tungstenite::client::{ClientRequestBuilder, IntoClientRequest as _};
use async_tungstenite::tungstenite::error::Error;
use async_tungstenite::tungstenite::handshake::client::{self, Response, generate_request};
use async_tungstenite::tungstenite::handshake::machine::TryParse;
use async_tungstenite::tungstenite::handshake::{derive_accept_key, server};
use async_tungstenite::tungstenite::http::Uri;
use futures_util::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use slipstream_core::client::ConnectError;
use slipstream_core::io::Protocol;
use slipstream_core::runtime;
use slipstream_core::upgrade::{Rules, UpgradeRefusal, check, is_interim};

/// Longest request or response of an upgrade: room for a token of 8 KiB, percent-encoded.
const MAX_HEAD: usize = 64 * 1024;

/// Where a node is to be asked, from a URL.
#[derive(Debug)]
pub(crate) struct HttpTarget {
    uri: Uri,
    /// The URL without its query, which may hold a token.
    shown: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl HttpTarget {
    /// Of a URL that a node could be behind.
    pub(crate) fn parse(url: &str) -> Result<Self, ConnectError> {
        let shown = url.split('?').next().unwrap_or_default().to_owned();
        let bad = || ConnectError::BadUrl(shown.clone());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let default_port = match uri.scheme_str() {
            Some("ws") => 80,
            Some("wss") => return Err(ConnectError::NoTls),
            _ => return Err(bad()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?.to_owned();
        let port = uri.port_u16().unwrap_or(default_port);
        Ok(Self { uri, shown, host, port })
    }

    /// The query string; empty without one.
    pub(crate) fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// The request for a connection that speaks `protocol`, and its key.
    pub(crate) fn request(
        &self,
        protocol: Protocol,
        token: Option<&str>,
    ) -> Result<HttpRequest, ConnectError> {
        let uri = self.uri.clone();
        let mut request = ClientRequestBuilder::new(uri).with_sub_protocol(protocol.name());
        if let Some(token) = token {
            request = request.with_header("Authorization", format!("Bearer {token}"));
        }
        let bad = |_| ConnectError::BadUrl(self.shown.clone());
        let request: client::Request = request.into_client_request().map_err(bad)?;
        let (bytes, key) = generate_request(request).map_err(not_a_node)?;
        Ok(HttpRequest { bytes, key, protocol })
    }
}

/// Whether a node could dial this URL.
///
/// # Errors
/// [`ConnectError::BadUrl`] or [`ConnectError::NoTls`].
pub fn check_url(url: &str) -> Result<(), ConnectError> {
    HttpTarget::parse(url).map(|_| ())
}

/// A request, as bytes.
#[derive(Debug)]
pub(crate) struct HttpRequest {
    bytes: Vec<u8>,
    /// What the answer must prove to have read.
    key: String,
    protocol: Protocol,
}

impl HttpRequest {
    /// Asks for the upgrade. Returns what was read behind the answer.
    pub(crate) async fn send(
        self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<Vec<u8>, ConnectError> {
        stream.write_all(&self.bytes).await.map_err(unreachable)?;
        let mut rest = Vec::new();
        let response = loop {
            let response;
            (response, rest) = read_head::<Response>(stream, rest).await?;
            if !is_interim(response.status().as_u16()) {
                break response;
            }
        };
        let headers = response.headers();
        let values = |name| headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
        let accept = derive_accept_key(self.key.as_bytes());
        check(response.status().as_u16(), values, &accept, self.protocol, &rest)?;
        Ok(rest)
    }
}

pub(crate) fn unreachable(error: io::Error) -> ConnectError {
    ConnectError::Unreachable(error.to_string())
}

fn not_a_node(error: Error) -> ConnectError {
    ConnectError::NotANode(error.to_string())
}

/// What was agreed on with whoever asked for an upgrade.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) protocol: Protocol,
    /// What was asked for.
    pub(crate) query: String,
    /// What was read behind the request.
    pub(crate) rest: Vec<u8>,
}

/// Reads the request and answers it; `None` if it was refused or the connection was lost.
pub(crate) async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    rules: &Rules,
) -> Option<Upgraded> {
    let (request, rest) = match read_head::<server::Request>(stream, Vec::new()).await {
        Ok(head) => head,
        Err(HeadError::Bad(reason)) => return refuse(stream, &UpgradeRefusal::bad(reason)).await,
        Err(HeadError::Lost(_)) => return None,
    };
    let headers = request.headers();
    let values = |name| headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
    let agreed = match rules.judge(values) {
        Ok(agreed) => agreed,
        Err(refusal) => return refuse(stream, &refusal).await,
    };
    let response = agreed.response(&derive_accept_key(agreed.key.as_bytes()));
    stream.write_all(response.as_bytes()).await.ok()?;
    let query = request.uri().query().unwrap_or_default().to_owned();
    Some(Upgraded { protocol: agreed.protocol, query, rest })
}

/// Answers a request that is not upgraded, and closes.
async fn refuse(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    refusal: &UpgradeRefusal,
) -> Option<Upgraded> {
    let UpgradeRefusal { status, reason } = refusal;
    tracing::debug!(target: "slipstream", status, reason, "refused a connection");
    let response = refusal.response();
    if stream.write_all(response.as_bytes()).await.is_ok() && stream.close().await.is_ok() {
        // Closing with unread bytes would reset the connection, and the response with it. The
        // deadline of the handshake stands over this too.
        let mut rest = [0; 4096];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {
            runtime::yield_now().await;
        }
    }
    None
}

/// Why there is no request or response.
enum HeadError {
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
async fn read_head<T: TryParse>(
    stream: &mut (impl AsyncRead + Unpin),
    mut read: Vec<u8>,
) -> Result<(T, Vec<u8>), HeadError> {
    let mut chunk = [0; 1024];
    while read.len() < MAX_HEAD {
        match T::try_parse(&read) {
            Ok(Some((size, head))) => return Ok((head, read.split_off(size))),
            Ok(None) => {}
            Err(error) => return Err(HeadError::Bad(error.to_string())),
        }
        match stream.read(&mut chunk).await.map_err(HeadError::Lost)? {
            0 => return Err(HeadError::Lost(io::ErrorKind::UnexpectedEof.into())),
            size => read.extend_from_slice(&chunk[..size]),
        }
    }
    Err(HeadError::Bad(format!("more than {MAX_HEAD} bytes of HTTP headers")))
}
