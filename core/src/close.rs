//! How a node ends a link: close codes and reasons.

use alloc::string::String;

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
}
