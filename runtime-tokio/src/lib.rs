//! Slipstream on tokio: sockets, clocks and a store thread around the pure core.
//!
//! [`NodeHandle::start`] runs a node within this process. What the protocol decides is decided in
//! [`slipstream_core`]; this crate supplies what the core has not and carries out what it asks.
//!
//! ```no_run
//! use slipstream_core::config::Config;
//! use slipstream_core::ids::NodeId;
//! use slipstream_tokio::{NodeHandle, Options};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let (node, ended) = NodeHandle::start(Options {
//!     config: Config::new(NodeId::new("aws-eu-1")?),
//!     data_dir: "data".into(),
//!     listen: "127.0.0.1:7400".parse()?,
//!     allowed_origins: Vec::new(),
//! })
//! .await?;
//! node.shutdown().await?;
//! println!("{:?}", ended.await?);
//! # Ok(())
//! # }
//! ```
//!
//! | module | owns |
//! | --- | --- |
//! | `node` | starting a node, and the handle to it |
//! | `turn` | the one task that owns the core: inputs in, outputs out |
//! | `link`, `halves` | the two tasks of a connection |
//! | `listen`, `dial` | how connections begin |
//! | `client` | the other end: an application of a remote node |
//! | `clock`, `report` | reading the clocks; logs and histograms |
#![forbid(unsafe_code)]

pub mod client;
mod clock;
#[cfg(feature = "daemon")]
pub mod daemon;
mod dial;
mod halves;
mod link;
mod listen;
mod node;
mod report;
mod turn;

#[cfg(test)]
mod tests;

pub use dial::{ConnectError, check_url};
pub use node::{Exit, NodeGone, NodeHandle, Options, StartError};
pub use slipstream_core as core;
