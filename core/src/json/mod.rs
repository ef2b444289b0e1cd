//! The JSON protocol of applications: frames in, frames out.
//!
//! [`parse()`] takes a text frame apart without copying what it need not, [`mod@write`] appends the
//! frames of a node to a buffer. What stays true: a value passes through byte for byte, nothing
//! here recurses, and nothing that an application sends makes it panic or allocate more than a
//! few times the frame (P11). It knows no sessions and decides nothing: what a request leads to is
//! the node's affair.

mod parse;
pub(crate) mod scan;
pub mod write;

pub use parse::{MAX_REASON_BYTES, Request, Settle, Target, parse};

/// Whether `text` is exactly one JSON value, perhaps with white space around it. Takes any depth:
/// `serde_json` skips values without recursion.
///
/// # Errors
/// [`BadValue`] if it is not.
pub fn check_value(text: &str) -> Result<(), BadValue> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|_| BadValue)
}

/// A text that is not exactly one JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not exactly one JSON value")]
pub struct BadValue;

#[cfg(test)]
mod tests;
