//! Why there is no connection: it could not be opened, or it has ended.

use alloc::string::{String, ToString};
use core::time::Duration;

use super::CodecError;
use crate::io::{CloseCode, End};

/// Why a connection has ended, and perhaps the session with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// Closed with a close code.
    #[error("the connection was closed: {code} {reason}")]
    Closed {
        /// The code; those from 4400 on are of the protocol.
        code: u16,
        /// For people.
        reason: String,
    },
    /// It broke, or could not be opened again for now.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// It could not be opened again, and trying once more is of no use.
    #[error("cannot connect again: {0}")]
    NoConnection(String),
    /// The node sent what cannot be understood.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// This program closed it, or shut the node down.
    #[error("it was closed here")]
    Here,
}

impl DisconnectReason {
    /// Whether trying again may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Closed { code, .. } => CloseCode::may_come_back(*code),
            Self::Lost(_) => true,
            Self::NoConnection(_) | Self::Codec(_) | Self::Here => false,
        }
    }
}

impl From<End> for DisconnectReason {
    fn from(End { close, reason, .. }: End) -> Self {
        match close {
            Some((code, reason)) => Self::Closed { code, reason },
            None => Self::Lost(reason),
        }
    }
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not one.
    #[error("{0}: a URL must look like ws://HOST:PORT/")]
    BadUrl(String),
    /// TLS was asked for.
    #[error("wss:// is not supported yet; use ws:// on a network that you trust")]
    NoTls,
    /// The name is unknown, or nobody listens there.
    #[error("{0}; is the node running, and is this its listen.address?")]
    Unreachable(String),
    /// It took too long.
    #[error("no answer within {} ms; is a firewall in between?", .0.as_millis())]
    TimedOut(Duration),
    /// The other side refused the upgrade.
    #[error("refused with HTTP {status}: {reason}")]
    Refused {
        /// Status code of the HTTP response.
        status: u16,
        /// What the response said.
        reason: String,
    },
    /// What answers there is no Slipstream node.
    #[error("{0}; is it a Slipstream node that listens there?")]
    NotANode(String),
    /// The node accepted the connection and ended it before its greeting.
    #[error(transparent)]
    Ended(#[from] DisconnectReason),
}

impl ConnectError {
    /// Whether trying again may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::BadUrl(_) | Self::NoTls | Self::NotANode(_) => false,
            Self::Ended(why) => why.may_pass(),
        }
    }
}

impl From<ConnectError> for DisconnectReason {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Ended(why) => why,
            other if other.may_pass() => Self::Lost(other.to_string()),
            other => Self::NoConnection(other.to_string()),
        }
    }
}

impl From<End> for ConnectError {
    fn from(end: End) -> Self {
        Self::Ended(end.into())
    }
}
