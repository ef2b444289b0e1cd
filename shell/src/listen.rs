//! Accepts connections and upgrades them to WebSocket.
//!
//! Every connection has one deadline for TCP and upgrade, a bound for its request, and a place
//! among those that are not finished. A refusal is an HTTP response that says why. Who gives way,
//! and what a request asks for, is judged by the core.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tungstenite::protocol::Role;
use slipstream_core::connection::{self, Inputs};
use slipstream_core::runtime::{self, sleep};
use slipstream_core::slots::{Slot, Slots};
use slipstream_core::socket::Opened;
use slipstream_core::upgrade::Rules;

use crate::http;
use crate::net::Net;
use crate::socket::{Shell, TcpSocket};

/// Connections that the system keeps until they are accepted: a fleet may come back at once.
const BACKLOG: i32 = 1024;

/// How long accepting rests when the system refuses, for want of descriptors for example.
const REST: Duration = Duration::from_millis(200);

/// Listens on `address`; answers where that is.
///
/// # Errors
/// What the system said.
pub fn bind<N: Net>(address: SocketAddr) -> io::Result<(N::Listener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((N::listener(listener)?, address))
}

/// Accepts for ever; ends with its task.
pub async fn accept<N: Shell>(listener: N::Listener, rules: Rules, inputs: Inputs<N>) {
    let (slots, rules) = (N::share(Slots::new(rules.unfinished)), Arc::new(rules));
    loop {
        match N::accept(&listener).await {
            Ok((stream, remote)) => {
                let slot = Slot::take(&slots, remote.ip());
                N::spawn(welcome::<N>(stream, remote, slot, rules.clone(), inputs.clone()));
                // Who gives way is to do so before the next one comes.
                runtime::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(
                    target: "slipstream",
                    %error,
                    "cannot accept connections for a moment; is the limit of open files too low?"
                );
                sleep::<N>(REST).await;
            }
        }
    }
}

/// Upgrades a connection in time.
async fn welcome<N: Shell>(
    stream: N::Tcp,
    remote: SocketAddr,
    slot: Slot,
    rules: Arc<Rules>,
    inputs: Inputs<N>,
) {
    let remote = remote.to_string();
    let upgrading = upgrade::<N>(stream, &remote, &rules);
    let accepted = connection::accept::<N>(slot, upgrading, &rules.limits, inputs).await;
    if let Err(reason) = accepted {
        tracing::debug!(target: "slipstream", remote, reason, "closed a connection");
    }
}

/// `None` if it was refused or the connection was lost.
async fn upgrade<N: Net>(
    mut stream: N::Tcp,
    remote: &str,
    rules: &Rules,
) -> Option<Opened<TcpSocket<N>>> {
    let http::Upgraded { protocol, query, rest } = http::answer(&mut stream, rules).await?;
    let socket = TcpSocket::new(stream, rest, Role::Server, rules.limits.max_frame_bytes());
    Some(Opened::new(socket, protocol, remote.into(), query))
}
