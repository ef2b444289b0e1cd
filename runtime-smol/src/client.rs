//! What a program that publishes and receives works with, wherever its node is.
//!
//! A [`Client`] speaks to a node behind a URL, or to one within this process: then it is got from
//! [`Node`](crate::Node). All else is the same, so that a service moves from one to the other by
//! the line that makes the client. Each [`Publisher`] and [`Subscription`] is an application of its
//! own, with one task and one connection, which is opened again when it is lost.
//!
//! Handles and futures may be dropped at any time: what was acknowledged stays acknowledged, and
//! what a named subscription has not settled is handed over again.

pub use slipstream_core::application::{AckMode, InForce, Replay};
pub use slipstream_core::client::handles::{
    Delivery, Pending, Publisher, Receipts, Receiver, SubscriptionEvent,
};
pub use slipstream_core::client::{
    ClientOptions, ConnectError, Ended, Filter, OnLost, Publication, PublishError, ReadError,
    Receipt, Refused, Value, Verdict, Welcome,
};
pub use slipstream_core::config::{Durability, Heartbeat, Reconnect};
pub use slipstream_core::io::Protocol;
pub use slipstream_core::message::Kind;

use slipstream_shell::Stream;

use crate::runtime::Smol;

/// Publishes, reads and subscribes at one node. Clones are the same client.
///
/// ```no_run
/// use slipstream_smol::client::{Client, ClientOptions, Filter, Publication};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Client::connect("ws://127.0.0.1:7400/", ClientOptions::default()).await?;
/// let receipt = node.publish(Publication::set("order:1", r#"{"paid": true}"#)).await?;
/// println!("{} is durable", receipt.id);
///
/// let mut orders = node.subscribe(Filter::named("ledger").keys(["order:"])).await?;
/// while let Some(delivery) = orders.next().await {
///     let delivery = delivery?;
///     println!("{} = {}", delivery.key(), delivery.value());
///     delivery.ack();
/// }
/// # Ok(())
/// # }
/// ```
pub type Client = slipstream_core::client::Client<Smol>;

/// A stream of deliveries, with the methods of a [`Receiver`].
pub type Subscription = Stream<Receiver>;
