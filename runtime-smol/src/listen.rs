//! Accepts connections and upgrades them to WebSocket.
//!
//! Every connection has one deadline for TCP and upgrade, a bound for its request, and a place
//! among `max_connections`; a few more are let in to be told that there is none (4429), beyond
//! those the socket is closed at once. A refusal is an HTTP response that says why. Origin and
//! subprotocol are judged by the core. The query string is handed on and never logged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use async_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode};
use async_tungstenite::tungstenite::protocol::Role;
use slipstream_core::application::{negotiate, origin_allowed};
use slipstream_core::config::Limits;
use slipstream_core::ids::LinkId;
use slipstream_core::io::{Close, CloseCode, Protocol};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::lock::{Semaphore, SemaphoreGuardArc};
use smol::net::{TcpListener, TcpStream};

use crate::dial::{HeadError, read_head};
use crate::link::{Link, Opened};
use crate::stand_ins::{Sender, bounded, sleep, spawn, timeout};
use crate::turn::Incoming;

/// Connections beyond the limit that are upgraded, so that they can be told about it.
const TURNED_AWAY_AT_ONCE: usize = 64;
/// How long accepting rests when the system refuses, for want of descriptors for example.
const REST: Duration = Duration::from_millis(200);

/// What connections are accepted by.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Origins of web pages that may connect.
    pub(crate) allowed_origins: Vec<String>,
    /// Whether the listener is on loopback.
    pub(crate) loopback: bool,
    /// Limits of the node.
    pub(crate) limits: Limits,
}

/// Accepts for ever; ends with its task.
pub(crate) async fn run(listener: TcpListener, rules: Rules, inputs: Sender<Incoming>) {
    let slots = Arc::new(Semaphore::new(rules.limits.max_connections));
    let spare = Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE));
    let rules = Arc::new(rules);
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let (slot, kept) = match slots.try_acquire_arc() {
                    Some(slot) => (slot, true),
                    None => match spare.try_acquire_arc() {
                        Some(spare) => (spare, false),
                        None => continue,
                    },
                };
                let (rules, inputs) = (rules.clone(), inputs.clone());
                spawn(async move {
                    if let Some(opened) = welcome(stream, remote, slot, &rules).await {
                        introduce(opened, kept, inputs).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(
                    target: "slipstream",
                    %error,
                    "cannot accept connections for a moment; is the limit of open files too low?"
                );
                sleep(REST).await;
            }
        }
    }
}

/// Upgrades a connection in time.
async fn welcome(
    stream: TcpStream,
    remote: SocketAddr,
    slot: SemaphoreGuardArc,
    rules: &Rules,
) -> Option<Opened> {
    let remote = remote.to_string();
    match timeout(rules.limits.handshake_timeout, upgrade(stream, rules)).await {
        Some(opened) => Some(Opened { remote, slot: Some(slot), ..opened? }),
        None => {
            tracing::debug!(target: "slipstream", remote, "no upgrade request in time");
            None
        }
    }
}

/// Hands a connection to the loop, or closes it if there is no room.
async fn introduce(opened: Opened, kept: bool, inputs: Sender<Incoming>) {
    if kept {
        // A loop that is gone needs to know nothing.
        let _ = inputs.send(Incoming::Opened(Box::new(opened))).await;
    } else {
        let (nobody, _) = bounded(1);
        let reason = "too many connections (limits.max_connections)".into();
        Link::open(LinkId::default(), opened, nobody)
            .close(Close { code: CloseCode::Limit, reason });
    }
}

/// Reads the request and answers it; `None` if it was refused or the connection was lost.
async fn upgrade(mut stream: TcpStream, rules: &Rules) -> Option<Opened> {
    let verdict = match read_head::<Request>(&mut stream).await {
        Ok((request, rest)) => judge(&request, rules).map(|agreed| (agreed, request, rest)),
        Err(HeadError::Bad(reason)) => Err((StatusCode::BAD_REQUEST, reason)),
        Err(HeadError::Lost(_)) => return None,
    };
    let ((protocol, response), request, rest) = match verdict {
        Ok(agreed) => agreed,
        Err((status, reason)) => {
            refuse(stream, status, &reason).await;
            return None;
        }
    };
    stream.write_all(&response).await.ok()?;
    Some(Opened {
        stream,
        rest,
        role: Role::Server,
        largest: rules.limits.max_frame_bytes(),
        dial: None,
        protocol,
        remote: String::new(),
        query: request.uri().query().unwrap_or_default().into(),
        slot: None,
    })
}

/// A refusal: the HTTP status, and why.
type Refusal = (StatusCode, String);

/// Whether a request may be upgraded: the protocol agreed on and the response.
fn judge(request: &Request, rules: &Rules) -> Result<(Protocol, Vec<u8>), Refusal> {
    let headers = request.headers();
    for origin in headers.get_all("Origin") {
        let known = origin
            .to_str()
            .is_ok_and(|origin| origin_allowed(origin, rules.loopback, &rules.allowed_origins));
        if !known {
            let reason = "pages of this origin may not connect; add it to listen.allowed_origins";
            return Err((StatusCode::FORBIDDEN, reason.into()));
        }
    }
    let mut response = create_response(request).map_err(|error| {
        let status = if headers.contains_key("Upgrade") {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::UPGRADE_REQUIRED
        };
        (status, format!("{error}; this is the WebSocket endpoint of a Slipstream node"))
    })?;
    let offered = offered(headers)
        .ok_or((StatusCode::BAD_REQUEST, "Sec-WebSocket-Protocol is not text".to_owned()))?;
    let (protocol, confirmed) = negotiate(Some(&offered))
        .map_err(|unknown| (StatusCode::BAD_REQUEST, unknown.to_string()))?;
    if let Some(name) = confirmed {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(name));
    }
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, &response)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok((protocol, bytes))
}

/// The subprotocols offered, those of several headers joined.
fn offered(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all("Sec-WebSocket-Protocol").iter().map(|line| line.to_str().ok());
    Some(lines.collect::<Option<Vec<_>>>()?.join(","))
}

/// Answers a request that is not upgraded, and closes.
async fn refuse(mut stream: TcpStream, status: StatusCode, reason: &str) {
    tracing::debug!(target: "slipstream", %status, reason, "refused a connection");
    let response = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nUpgrade: websocket\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{reason}\n",
        reason.len() + 1
    );
    if stream.write_all(response.as_bytes()).await.is_ok() && stream.close().await.is_ok() {
        // Closing with unread bytes would reset the connection, and the response with it. The
        // deadline of the handshake stands over this too.
        let mut rest = [0; 4096];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    }
}
