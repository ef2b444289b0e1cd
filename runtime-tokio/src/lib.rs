//! Slipstream on tokio: sockets, clocks and the store around the core, and the daemon.
#![forbid(unsafe_code)]

#[cfg(feature = "daemon")]
pub mod daemon;
mod node;

pub use node::{Exit, NodeGone, NodeHandle, Options, StartError};
