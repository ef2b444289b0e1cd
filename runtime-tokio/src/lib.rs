//! Slipstream on tokio: sockets, clocks and a store thread around the pure core.
//!
//! [`Node::start`] runs a node within this process, and [`Client::connect`] speaks to one that
//! runs elsewhere. Both publish, read and subscribe in the same way, as a node is a [`Client`] of
//! itself:
//!
//! ```no_run
//! use slipstream_tokio::client::{Filter, Publication};
//! use slipstream_tokio::core::{config::Config, ids::NodeId};
//! use slipstream_tokio::{Node, Options};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new(NodeId::new("aws-eu-1")?);
//! let node = Node::start(Options::new(config, "data")).await?;
//! // With a client, this is the line that differs:
//! // let node = Client::connect("ws://127.0.0.1:7400/", ClientOptions::default()).await?;
//!
//! let receipt = node.publish(Publication::set("order:1", r#"{"amount": 1.10}"#)).await?;
//! println!("{} is on disk", receipt.id);
//!
//! let mut orders = node.subscribe(Filter::named("ledger").keys(["order:"])).await?;
//! while let Some(order) = orders.next().await {
//!     let order = order?;
//!     println!("{} = {}", order.key(), order.value());
//!     order.ack();
//! }
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - A receipt means that the message is on disk at the node, and will reach every destination
//!   (P1, P2). Without a receipt, [`PublishError`](client::PublishError) says what is known: the
//!   message is not there, or may be.
//! - A message is handed to a named subscription until it is settled, and within one program
//!   never twice while it is in the program's hands or after it was settled (P3). After a crash it
//!   may come again, marked as a [`redelivery`](core::client::Delivery::redelivery): what must
//!   not happen twice keeps the message's version in the transaction of its effect, as the example
//!   `durable_consumer` does.
//! - A key never goes back to an older value (P6).
//! - Whoever publishes faster than the node can store waits; whoever receives slowly has about two
//!   `limits.delivery_window` of messages in memory at most (P8).
//! - Handles and futures may be dropped at any time.
//!
//! Values are JSON texts and stay as they were written. Times are durations, sizes are bytes, and
//! limits are those of [`core::config`].
//!
//! Measurements go to the `metrics` facade: an embedder installs the exporter of its choice. What
//! happens is logged through `tracing`, target `slipstream`, in a span `node` with its id, and told
//! by [`Handle::events`].
//!
//! # Inside
//!
//! What the protocol decides is decided in [`slipstream_core`]; what is the same on every runtime
//! lies in `slipstream_shell`. This crate supplies its runtime to both.
//!
//! | module | owns |
//! | --- | --- |
//! | `client` | applications of this program, at a node here or behind a URL |
//! | `runtime` | what tasks need: clocks, timers, tasks, threads for what blocks |
//! | `net` | TCP: listening, connecting, and a connection taken apart |
#![forbid(unsafe_code)]

pub mod client;
#[cfg(feature = "daemon")]
pub mod daemon;
mod net;
mod runtime;
#[cfg(feature = "tools")]
mod tools;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use runtime::Tokio;
pub use slipstream_core as core;
pub use slipstream_core::client::ConnectError;
pub use slipstream_core::exit::{Exit, ExitReason, NodeGone};
pub use slipstream_core::handle::Handle;
pub use slipstream_shell::{Events, NodeOptions as Options, StartError, Stream, check_url};

/// A running node: all that can be done with it are methods of its [`Handle`], and of its
/// [`Client`]. Clones are for the same node; it goes on when all are dropped.
pub type Node = slipstream_shell::RunningNode<Tokio>;
