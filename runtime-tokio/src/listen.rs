//! Accepts connections and upgrades them to WebSocket.
//!
//! Every connection has one deadline for TCP and upgrade, a bound for its request, and a place
//! among `max_connections`; a few more are let in to be told that there is none (4429), beyond
//! those the socket is closed at once. A refusal is an HTTP response that says why. Origin and
//! subprotocol are judged by the core. The query string is handed on and never logged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tungstenite::error::Error;
use async_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use async_tungstenite::tungstenite::http::HeaderValue;
use async_tungstenite::tungstenite::protocol::Role;
use slipstream_core::io::{Close, CloseCode, Protocol};
use slipstream_core::upgrade::{Refusal, Rules};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::dial::{HeadError, read_head};
use crate::link::{self, Incoming, Inputs, Opened};

/// Connections beyond the limit that are upgraded, so that they can be told about it.
const TURNED_AWAY_AT_ONCE: usize = 64;
/// How long accepting rests when the system refuses, for want of descriptors for example.
const REST: Duration = Duration::from_millis(200);

/// Accepts for ever; ends with its task.
pub(crate) async fn run(listener: TcpListener, rules: Rules, inputs: Inputs) {
    let slots = Arc::new(Semaphore::new(rules.limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let spare = Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE));
    let rules = Arc::new(rules);
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let slot = match slots.clone().try_acquire_owned() {
                    Ok(slot) => (slot, true),
                    Err(_) => match spare.clone().try_acquire_owned() {
                        Ok(spare) => (spare, false),
                        Err(_) => continue,
                    },
                };
                let (rules, inputs) = (rules.clone(), inputs.clone());
                tokio::spawn(async move { welcome(stream, remote, slot, &rules, inputs).await });
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

/// Upgrades a connection in time, and hands it to the loop, or closes it if there is no room.
async fn welcome(
    stream: TcpStream,
    remote: SocketAddr,
    (slot, kept): (OwnedSemaphorePermit, bool),
    rules: &Rules,
    inputs: Inputs,
) {
    let remote = remote.to_string();
    let upgrading = upgrade(stream, &remote, rules);
    let Ok(upgraded) = timeout(rules.limits.handshake_timeout, upgrading).await else {
        tracing::debug!(target: "slipstream", remote, "no upgrade request in time");
        return;
    };
    let Some(opened) = upgraded.map(|opened| Opened { slot: Some(slot), ..opened }) else { return };
    if kept {
        // A loop that is gone needs to know nothing.
        let _ = inputs.send(Incoming::Opened(Box::new(opened))).await;
    } else {
        let reason = "too many connections (limits.max_connections)".into();
        let (nobody, _) = mpsc::channel(1);
        link::open(opened, nobody).close(Close { code: CloseCode::Limit, reason });
    }
}

/// Reads the request and answers it; `None` if it was refused or the connection was lost.
async fn upgrade(mut stream: TcpStream, remote: &str, rules: &Rules) -> Option<Opened> {
    let (request, rest) = match read_head::<Request>(&mut stream).await {
        Ok(head) => head,
        Err(HeadError::Bad(reason)) => return refuse(stream, &Refusal::bad(reason)).await,
        Err(HeadError::Lost(_)) => return None,
    };
    let (protocol, response) = match judge(&request, rules) {
        Ok(agreed) => agreed,
        Err(refusal) => return refuse(stream, &refusal).await,
    };
    stream.write_all(&response).await.ok()?;
    let largest = rules.limits.max_frame_bytes();
    let opened = Opened::tcp(stream, rest, Role::Server, largest, protocol);
    Some(opened.up(remote.into(), request.uri().query().unwrap_or_default().into()))
}

/// Whether a request may be upgraded: the protocol agreed on and the response.
fn judge(request: &Request, rules: &Rules) -> Result<(Protocol, Vec<u8>), Refusal> {
    let headers = request.headers();
    let values = |name| headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
    let (protocol, confirmed) = rules.judge(values)?;
    let refused =
        |error: Error| Refusal::no_websocket(headers.contains_key("Upgrade"), &error.to_string());
    let mut response = create_response(request).map_err(refused)?;
    if let Some(name) = confirmed {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(name));
    }
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, &response).map_err(refused)?;
    Ok((protocol, bytes))
}

/// Answers a request that is not upgraded, and closes.
async fn refuse(mut stream: TcpStream, refusal: &Refusal) -> Option<Opened> {
    let Refusal { status, reason } = refusal;
    tracing::debug!(target: "slipstream", status, reason, "refused a connection");
    let response = refusal.response();
    if stream.write_all(response.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        // Closing with unread bytes would reset the connection, and the response with it. The
        // deadline of the handshake stands over this too.
        let mut rest = [0; 4096];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    }
    None
}
