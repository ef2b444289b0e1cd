//! The encoding of everything that travels: messages, binary and text frames, query strings.
//!
//! Owns what a frame may say and what is refused of it. Knows nothing of what a node holds: the
//! same bytes mean the same, whoever reads them.

pub mod application;
mod binary;
pub mod draft;
pub mod json;
pub mod message;
pub mod read;
pub(crate) mod scan;
#[cfg(test)]
mod vectors;

pub use binary::*;

/// A binary frame is sent when it has grown to so many bytes.
pub const FRAME_TARGET: usize = 64 << 10;
