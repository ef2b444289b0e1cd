//! Refusals of what an application sent: one stable code each (P12).

use alloc::string::String;
use core::time::Duration;

/// Stable code of a refusal. The names are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The frame is not JSON, or its envelope has a field twice.
    InvalidJson,
    /// The frame is JSON, but no object.
    NotAnObject,
    /// No such type.
    UnknownType,
    /// A field that the type needs is not there.
    MissingField,
    /// A field has a wrong type or an impossible value.
    InvalidField,
    /// The value or key is above its limit.
    TooLarge,
    /// The value is nested too deeply.
    TooDeep,
    /// A binary frame on a JSON connection.
    BinaryFrame,
    /// The `messageId` was used for other content (P9).
    IdReused,
    /// A read of another kind than is there.
    WrongKind,
    /// The application may not do this (P11).
    Forbidden,
    /// Nobody is known by that token or certificate (P11).
    Unauthorized,
    /// Too many messages a second.
    RateLimited,
    /// The store has no room (P8).
    StoreFull,
    /// The node's clock cannot be trusted (P6).
    Clock,
    /// A delivery that was never handed out.
    UnknownDelivery,
    /// The node is ending.
    ShuttingDown,
    /// A fault of the node.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 18] = [
        Self::InvalidJson,
        Self::NotAnObject,
        Self::UnknownType,
        Self::MissingField,
        Self::InvalidField,
        Self::TooLarge,
        Self::TooDeep,
        Self::BinaryFrame,
        Self::IdReused,
        Self::WrongKind,
        Self::Forbidden,
        Self::Unauthorized,
        Self::RateLimited,
        Self::StoreFull,
        Self::Clock,
        Self::UnknownDelivery,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// The name in answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "INVALID_JSON",
            Self::NotAnObject => "NOT_AN_OBJECT",
            Self::UnknownType => "UNKNOWN_TYPE",
            Self::MissingField => "MISSING_FIELD",
            Self::InvalidField => "INVALID_FIELD",
            Self::TooLarge => "TOO_LARGE",
            Self::TooDeep => "TOO_DEEP",
            Self::BinaryFrame => "BINARY_FRAME",
            Self::IdReused => "ID_REUSED",
            Self::WrongKind => "WRONG_KIND",
            Self::Forbidden => "FORBIDDEN",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::RateLimited => "RATE_LIMITED",
            Self::StoreFull => "STORE_FULL",
            Self::Clock => "CLOCK",
            Self::UnknownDelivery => "UNKNOWN_DELIVERY",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Internal => "INTERNAL",
        }
    }

    /// Whether the same frame may be accepted later.
    pub const fn retryable(self) -> bool {
        match self {
            Self::RateLimited
            | Self::StoreFull
            | Self::Clock
            | Self::ShuttingDown
            | Self::Internal => true,
            Self::InvalidJson
            | Self::NotAnObject
            | Self::UnknownType
            | Self::MissingField
            | Self::InvalidField
            | Self::TooLarge
            | Self::TooDeep
            | Self::BinaryFrame
            | Self::IdReused
            | Self::WrongKind
            | Self::Forbidden
            | Self::Unauthorized
            | Self::UnknownDelivery => false,
        }
    }
}

/// Why a frame was refused, and what the application is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Refusal {
    /// Stable code.
    pub code: Code,
    /// `messageId` of the frame, where one could be read.
    pub re: Option<String>,
    /// What is wrong and what to do. Never holds a value.
    pub message: String,
    /// JSONPath of the offending part.
    pub path: Option<String>,
    /// When to try again, where known.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without the optional parts.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, re: None, message: message.into(), path: None, retry_after: None }
    }
}
