//! How a node ends a link: close codes and reasons.

use alloc::format;
use alloc::string::{String, ToString};

/// Why a link is closed: a WebSocket close code (RFC 6455 section 7.4) and a reason of at most 123
/// bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: CloseCode,
    /// For people; never holds a value or token.
    pub reason: String,
}

/// Close codes of the protocol. Numbers are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseCode {
    /// 1001: shutting down.
    GoingAway,
    /// 4400: a frame or parameter that breaks the protocol.
    Protocol,
    /// 4401: unauthorized.
    Unauthorized,
    /// 4403: forbidden.
    Forbidden,
    /// 4408: heartbeat or handshake time-out.
    Timeout,
    /// 4409: session taken over, duplicate link or node id.
    Duplicate,
    /// 4413: frame too large.
    TooLarge,
    /// 4429: error budget spent, too many connections, or lagging too far.
    Limit,
}

impl CloseCode {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::Protocol => 4400,
            Self::Unauthorized => 4401,
            Self::Forbidden => 4403,
            Self::Timeout => 4408,
            Self::Duplicate => 4409,
            Self::TooLarge => 4413,
            Self::Limit => 4429,
        }
    }

    /// Whether an application whose connection was closed with this number should come back by
    /// itself (`docs/src/protocol.md`, close codes).
    pub fn may_come_back(number: u16) -> bool {
        let last =
            [Self::Protocol, Self::Unauthorized, Self::Forbidden, Self::Duplicate, Self::TooLarge];
        last.iter().all(|code| code.number() != number)
    }
}

/// 1002: what was read is no WebSocket frame (RFC 6455 section 7.4).
const MALFORMED: u16 = 1002;
/// 1007: a text that is not UTF-8.
const NOT_UTF8: u16 = 1007;
/// Longest reason in a close frame (RFC 6455 section 5.5).
pub(crate) const MAX_REASON: usize = 123;

/// How a link ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The close frame to send, if the connection is still good for one.
    pub close: Option<(u16, String)>,
    /// Whether the other side began it.
    pub by_peer: bool,
    /// For the log.
    pub reason: String,
}

impl End {
    /// With a close frame from here.
    pub fn here(code: u16, text: String) -> Self {
        let reason = format!("closed here: {code} {text}");
        Self { close: Some((code, text)), by_peer: false, reason }
    }

    /// The other side has closed the connection.
    pub fn by_peer(code: u16, text: String) -> Self {
        let reason = format!("closed by the other side: {code} {text}");
        Self { close: Some((code, text)), by_peer: true, reason }
    }

    /// The other side is gone, without a word.
    pub fn lost(reason: impl ToString) -> Self {
        Self { close: None, by_peer: true, reason: reason.to_string() }
    }

    /// The connection was closed, without a close frame.
    pub fn cut() -> Self {
        Self::lost("the connection was closed without a close frame")
    }

    /// What was read is no frame of a WebSocket.
    pub fn malformed(reason: impl ToString) -> Self {
        Self::here(MALFORMED, reason.to_string())
    }

    /// A text that was read is not UTF-8.
    pub fn not_utf8() -> Self {
        Self::here(NOT_UTF8, "text that is not UTF-8".into())
    }

    /// What was read is longer than this node takes.
    pub fn too_large(bytes: usize, limit: usize) -> Self {
        let reason = format!("a frame of {bytes} bytes is above the limit of {limit}");
        Self::here(CloseCode::TooLarge.number(), reason)
    }

    /// The close frame to send, its reason as long as it may be.
    pub fn close_frame(&self) -> Option<(u16, &str)> {
        let (code, reason) = self.close.as_ref()?;
        Some((*code, &reason[..reason.floor_char_boundary(MAX_REASON)]))
    }

    /// Whether this side ends the connection, and says why.
    pub fn is_from_here(&self) -> bool {
        self.close.is_some() && !self.by_peer
    }

    /// The close code that the other side sent, if it did.
    pub fn code_of_peer(&self) -> Option<u16> {
        self.close.as_ref().filter(|_| self.by_peer).map(|(code, _)| *code)
    }

    /// Without a close frame: there is nobody to send it, or nobody to receive it.
    pub fn silent(reason: String) -> Self {
        Self { close: None, by_peer: false, reason }
    }
}
