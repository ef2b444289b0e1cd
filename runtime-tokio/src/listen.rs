//! Accepts connections and upgrades them to WebSocket.
//!
//! Every connection has one deadline for TCP and upgrade, a bound for its request, and a place
//! among those that are not finished. A refusal is an HTTP response that says why. Who gives way,
//! and what a request asks for, is judged by the core. The query string is handed on and never
//! logged.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::handshake::server::Request;
use async_tungstenite::tungstenite::protocol::Role;
use slipstream_core::connection;
use slipstream_core::runtime::{self, Runtime, sleep};
use slipstream_core::slots::{Slot, Slots};
use slipstream_core::socket::Opened;
use slipstream_core::upgrade::{Refusal, Rules};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::dial::{HeadError, read_head};
use crate::runtime::{Inputs, Tokio};
use crate::socket::Socket;

/// Connections that the system keeps until they are accepted: a fleet may come back at once.
const BACKLOG: i32 = 1024;

/// How long accepting rests when the system refuses, for want of descriptors for example.
const REST: Duration = Duration::from_millis(200);

/// Listens on `address`.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Accepts for ever; ends with its task.
pub(crate) async fn run(listener: TcpListener, rules: Rules, inputs: Inputs) {
    let (slots, rules) = (Tokio::share(Slots::new(rules.unfinished)), Arc::new(rules));
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let slot = Slot::take(&slots, remote.ip());
                Tokio::spawn(welcome(stream, remote, slot, rules.clone(), inputs.clone()));
                // Who gives way is to do so before the next one comes.
                runtime::rest().await;
            }
            Err(error) => {
                tracing::warn!(
                    target: "slipstream",
                    %error,
                    "cannot accept connections for a moment; is the limit of open files too low?"
                );
                sleep::<Tokio>(REST).await;
            }
        }
    }
}

/// Upgrades a connection in time.
async fn welcome(
    stream: TcpStream,
    remote: SocketAddr,
    slot: Slot,
    rules: Arc<Rules>,
    inputs: Inputs,
) {
    let remote = remote.to_string();
    let upgrading = upgrade(stream, &remote, &rules);
    let accepted = connection::accept::<Tokio>(slot, upgrading, &rules.limits, inputs).await;
    if let Err(reason) = accepted {
        tracing::debug!(target: "slipstream", remote, reason, "closed a connection");
    }
}

/// Reads the request and answers it; `None` if it was refused or the connection was lost.
async fn upgrade(mut stream: TcpStream, remote: &str, rules: &Rules) -> Option<Opened<Socket>> {
    let (request, rest) = match read_head::<Request>(&mut stream, Vec::new()).await {
        Ok(head) => head,
        Err(HeadError::Bad(reason)) => return refuse(stream, &Refusal::bad(reason)).await,
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
    let socket = Socket::new(stream, rest, Role::Server, rules.limits.max_frame_bytes());
    let query = request.uri().query().unwrap_or_default();
    Some(Opened::new(socket, agreed.protocol, remote.into(), query.into()))
}

/// Answers a request that is not upgraded, and closes.
async fn refuse(mut stream: TcpStream, refusal: &Refusal) -> Option<Opened<Socket>> {
    let Refusal { status, reason } = refusal;
    tracing::debug!(target: "slipstream", status, reason, "refused a connection");
    let response = refusal.response();
    if stream.write_all(response.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        // Closing with unread bytes would reset the connection, and the response with it. The
        // deadline of the handshake stands over this too.
        let mut rest = [0; 4096];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {
            runtime::rest().await;
        }
    }
    None
}
