//! The upgrade of a connection to WebSocket, as far as it is decided here (RFC 6455 section 4): who
//! may connect, and who is taken for a node.
//!
//! Shells read and write the HTTP, by their library; headers come as they look them up.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::application::{negotiate, origin_allowed};
use crate::client::ConnectError;
use crate::config::Limits;
use crate::io::Protocol;

/// What connections are accepted by.
#[derive(Debug)]
pub struct Rules {
    /// Origins of web pages that may connect.
    pub allowed_origins: Vec<String>,
    /// Whether the listener is on loopback.
    pub loopback: bool,
    /// Limits of the node.
    pub limits: Limits,
}

/// Why a request is not upgraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the response: number and name.
    pub status: &'static str,
    /// For people.
    pub reason: String,
}

impl Refusal {
    /// What came is no HTTP, or too much of it.
    pub fn bad(reason: String) -> Self {
        Self { status: "400 Bad Request", reason }
    }

    /// What came is no upgrade to WebSocket, for this reason. `asked`: it is meant to be one.
    pub fn no_websocket(asked: bool, reason: &str) -> Self {
        let status = if asked { "400 Bad Request" } else { "426 Upgrade Required" };
        let reason = format!("{reason}; this is the WebSocket endpoint of a Slipstream node");
        Self { status, reason }
    }

    /// The whole response.
    pub fn response(&self) -> String {
        let Self { status, reason } = self;
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nUpgrade: websocket\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{reason}\n",
            reason.len() + 1
        )
    }
}

impl Rules {
    /// Whether a request may be upgraded: the protocol agreed on, and the subprotocol to confirm.
    /// `headers` are all values of a header, `None` for one that is not text.
    ///
    /// # Errors
    /// [`Refusal`] if the page's origin is unknown, or no subprotocol is known.
    pub fn judge<'a>(
        &self,
        headers: impl Fn(&'static str) -> Vec<Option<&'a str>>,
    ) -> Result<(Protocol, Option<&'static str>), Refusal> {
        let known = |origin: Option<&str>| {
            origin.is_some_and(|it| origin_allowed(it, self.loopback, &self.allowed_origins))
        };
        if !headers("Origin").into_iter().all(known) {
            let reason = "pages of this origin may not connect; add it to listen.allowed_origins";
            return Err(Refusal { status: "403 Forbidden", reason: reason.into() });
        }
        let offered: Option<Vec<_>> = headers("Sec-WebSocket-Protocol").into_iter().collect();
        let offered =
            offered.ok_or_else(|| Refusal::bad("Sec-WebSocket-Protocol is not text".into()))?;
        negotiate(Some(&offered.join(","))).map_err(|unknown| Refusal::bad(unknown.to_string()))
    }
}

/// Whether a response is that of a node which speaks `protocol`. `header` is the value of a header,
/// `accept` what `Sec-WebSocket-Accept` must be, `body` as much of it as has come.
///
/// # Errors
/// [`ConnectError::Refused`] or [`ConnectError::NotANode`].
pub fn check<'a>(
    status: u16,
    header: impl Fn(&'static str) -> Option<&'a str>,
    accept: &str,
    protocol: Protocol,
    body: &[u8],
) -> Result<(), ConnectError> {
    let says = |name: &'static str, value: &str| {
        header(name).is_some_and(|header| header.eq_ignore_ascii_case(value))
    };
    let not_a_node = |reason: String| Err(ConnectError::NotANode(reason));
    if status != 101 {
        let reason = String::from_utf8_lossy(&body[..body.len().min(500)]).trim().to_owned();
        Err(ConnectError::Refused { status, reason })
    } else if !says("Upgrade", "websocket")
        || !says("Connection", "Upgrade")
        || !says("Sec-WebSocket-Accept", accept)
    {
        not_a_node("the answer is no WebSocket upgrade".into())
    } else if !says("Sec-WebSocket-Protocol", protocol.name()) {
        not_a_node(format!("it does not speak {}", protocol.name()))
    } else {
        Ok(())
    }
}
