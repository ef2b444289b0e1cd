//! Slipstream on tokio: sockets, clocks and a store thread around the pure core.
//!
//! [`Node::start`] runs a node within this process. What the protocol decides is decided in
//! [`slipstream_core`]; this crate supplies what the core has not and carries out what it asks.
//!
//! ```no_run
//! use slipstream_core::config::Config;
//! use slipstream_core::ids::NodeId;
//! use slipstream_tokio::{Node, Options};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::start(Options {
//!     config: Config::new(NodeId::new("aws-eu-1")?),
//!     data_dir: "data".into(),
//!     listen: "127.0.0.1:7400".parse()?,
//!     allowed_origins: Vec::new(),
//! })
//! .await?;
//! println!("{:?}", node.shutdown().await);
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
//! | `client`, `pump`, `pipe` | applications of this program, at a node here or behind a URL |
//! | `events` | what happens at a node |
//! | `clock`, `report` | reading the clocks; logs and histograms |
#![forbid(unsafe_code)]

pub mod client;
mod clock;
#[cfg(feature = "daemon")]
pub mod daemon;
mod dial;
mod events;
mod halves;
mod link;
mod listen;
mod node;
mod pipe;
mod pump;
mod report;
mod turn;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use dial::check_url;
pub use events::Events;
pub use node::{Exit, Node, NodeGone, Options, StartError};
pub use slipstream_core as core;
pub use slipstream_core::client::ConnectError;
