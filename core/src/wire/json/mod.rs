//! The JSON protocol of applications: frames in, frames out.
//!
//! [`parse()`] takes a text frame apart without copying what it need not, [`mod@write`] appends the
//! frames of a node to a buffer. What stays true: a value passes through byte for byte, nothing
//! here recurses, and nothing that an application sends makes it panic or allocate more than a
//! few times the frame (P11). It knows no sessions and decides nothing: what a request leads to is
//! the node's affair.

mod field;
pub(crate) mod number;
mod parse;
mod settle;
pub mod write;

pub use parse::{JsonRequest, parse};
pub use settle::{MAX_REASON_BYTES, SettleRequest, SettleTarget};

#[cfg(test)]
mod tests;
