//! The upgrade of a connection to WebSocket, as far as it is decided here (RFC 6455 section 4): who
//! may connect, and who is taken for a node.
//!
//! Shells read and write the HTTP, by their library; headers come as they look them up. How many
//! connections may be open is counted here, too ([`Slots`]).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::task::Waker;

use crate::application::{negotiate, origin_allowed};
use crate::client::ConnectError;
use crate::config::Limits;
use crate::io::Protocol;
use crate::shared::{Shared, Wakes};

/// Connections beyond the limit that are upgraded, so that they can be told about it.
const TURNED_AWAY_AT_ONCE: usize = 64;

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

/// Places for connections: `max_connections`, and a few more for those that are told that there is
/// none.
#[derive(Debug)]
pub struct Slots {
    kept: usize,
    turned_away: usize,
    woken: Vec<Waker>,
}

impl Wakes for Slots {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

impl Slots {
    /// All of them free.
    pub fn new(limits: &Limits) -> Self {
        let (kept, turned_away) = (limits.max_connections, TURNED_AWAY_AT_ONCE);
        Self { kept, turned_away, woken: Vec::new() }
    }

    fn free(&mut self, is_kept: bool) -> &mut usize {
        if is_kept { &mut self.kept } else { &mut self.turned_away }
    }
}

/// A place for a connection, free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Shared<Slots>,
    is_kept: bool,
}

impl Slot {
    /// The next one; `None` if a connection cannot even be told that there is no room.
    pub fn take(slots: &Shared<Slots>) -> Option<Self> {
        let taken = slots.with(|free| {
            let is_kept = free.kept > 0;
            let left = free.free(is_kept).checked_sub(1)?;
            *free.free(is_kept) = left;
            Some(is_kept)
        });
        taken.map(|is_kept| Self { slots: slots.clone(), is_kept })
    }

    /// Whether the connection may stay.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.with(|free| *free.free(self.is_kept) += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::share;

    #[test]
    fn who_finds_no_room_is_told_so_as_long_as_there_is_room_for_that() {
        let limits = Limits { max_connections: 2, ..Limits::default() };
        let slots = share(Slots::new(&limits));
        let mut taken: Vec<_> =
            core::iter::from_fn(|| Slot::take(&slots)).map(|slot| (slot.is_kept(), slot)).collect();
        assert_eq!(taken.len(), 2 + TURNED_AWAY_AT_ONCE);
        assert_eq!(taken.iter().filter(|(is_kept, _)| *is_kept).count(), 2);
        taken.pop();
        assert!(Slot::take(&slots).is_some_and(|slot| !slot.is_kept()));
        taken.remove(0);
        assert!(Slot::take(&slots).is_some_and(|slot| slot.is_kept()));
    }
}
