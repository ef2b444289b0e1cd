//! Values: one JSON value each, passed on as it was written and never looked into.

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
