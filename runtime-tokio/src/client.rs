//! What a program that publishes and receives works with, wherever its node is.
//!
//! A [`Client`] speaks to a node behind a URL, or to one within this process: then it is got from
//! [`Node`](crate::Node). All else is the same, so that a service moves from one to the other by
//! the line that makes the client. Each [`Publisher`] and [`Subscription`] is an application of its
//! own, with one task and one connection, which is opened again when it is lost.
//!
//! Handles and futures may be dropped at any time: what was acknowledged stays acknowledged, and
//! what a named subscription has not settled is handed over again.

use std::sync::Arc;

pub use slipstream_core::application::{AckMode, Replay};
use slipstream_core::client::Application;
pub use slipstream_core::client::handles::{
    Delivery, Pending, Publisher, Receiver, SubscriptionEvent,
};
pub use slipstream_core::client::{
    ClientOptions, ConnectError, Ended, Filter, Publication, PublishError, ReadError, Receipt,
    Refused, Value, Verdict,
};
pub use slipstream_core::config::{Durability, Heartbeat, Reconnect};
pub use slipstream_core::message::Kind;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::dial::check_url;
use crate::link::share;
use crate::pump::{Pump, Target};
use crate::stream::Stream;

/// Publishes, reads and subscribes at one node. Clones are the same client.
///
/// ```no_run
/// use slipstream_tokio::client::{Client, ClientOptions, Filter, Publication};
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
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Target,
    options: ClientOptions,
    /// The application that publishes for those who want none of their own.
    publisher: Mutex<Option<Publisher>>,
}

impl Client {
    /// Connects for the first time. A node that cannot be reached now is an error; later it is
    /// waited for. What is to be received stands in a [`Filter`], not in the query string of
    /// `url`.
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn connect(url: &str, options: ClientOptions) -> Result<Self, ConnectError> {
        check_url(url)?;
        let client = Self::of(Target::remote(url), options);
        client.unnamed().await?;
        Ok(client)
    }

    /// Of a node that is there.
    pub(crate) fn of(target: Target, options: ClientOptions) -> Self {
        let publisher = Mutex::new(None);
        Self { shared: Arc::new(Shared { target, options, publisher }) }
    }

    /// Publishes, without a name: what is unanswered when the connection is lost may be there or
    /// not. See [`Publisher::publish`].
    ///
    /// # Errors
    /// As of [`Publisher::publish`].
    pub async fn publish(&self, message: Publication) -> Result<Receipt, PublishError> {
        self.send(message).await?.await
    }

    /// [`Client::publish`] that waits only until there is room. See [`Publisher::send`].
    ///
    /// # Errors
    /// As of [`Publisher::send`].
    pub async fn send(&self, message: Publication) -> Result<Pending, PublishError> {
        match self.unnamed().await {
            Ok(publisher) => publisher.send(message).await,
            Err(error) => Err(PublishError::NotSent(error.into())),
        }
    }

    /// What a key holds for an application with the node's tags. See [`Publisher::get`].
    ///
    /// # Errors
    /// As of [`Publisher::get`].
    pub async fn get(&self, key: &str) -> Result<Value, ReadError> {
        match self.unnamed().await {
            Ok(publisher) => publisher.get(key).await,
            Err(error) => Err(ReadError::Ended(error.into())),
        }
    }

    /// A publisher with a name, 1 to 64 of `A-Za-z0-9._-`, that no subscription has. What is
    /// unanswered when its connection is lost it publishes again, under the same ids, and so not
    /// twice; what it could not for nearly a day is [`PublishError::Unanswered`] (P9).
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn publisher(&self, name: &str) -> Result<Publisher, ConnectError> {
        let nothing = Filter::named(name).keys::<String>([]);
        self.open(nothing, false, true).await
    }

    /// Receives what `filter` asks for. A named subscription goes on after a lost connection where
    /// it was; one without a name ends, as it could not tell what it has missed.
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn subscribe(&self, filter: Filter) -> Result<Subscription, ConnectError> {
        let (goes_on, settles_when_taken) = (filter.name().is_some(), filter.settles_when_taken());
        let publisher = self.open(filter, true, goes_on).await?;
        Ok(Stream(Receiver::of(publisher, settles_when_taken)))
    }

    async fn unnamed(&self) -> Result<Publisher, ConnectError> {
        let mut publisher = self.shared.publisher.lock().await;
        if let Some(known) = publisher.as_ref().filter(|known| !known.is_over()) {
            return Ok(known.clone());
        }
        Ok(publisher.insert(self.open(Filter::none(), false, true).await?).clone())
    }

    /// Opens the connection of an application and starts its task.
    async fn open(
        &self,
        filter: Filter,
        receives: bool,
        goes_on: bool,
    ) -> Result<Publisher, ConnectError> {
        let Shared { target, options, .. } = &*self.shared;
        let opened = target.open(&filter, options).await?;
        let seed = getrandom::u64().map_err(|error| Ended::Lost(error.to_string()))?;
        let (clock, settings) = (Clock::start(), options.settings(&filter, goes_on));
        let application = Application::new(settings, receives, seed, clock.now().instant);
        let application = share(application);
        let publisher = Publisher::of(application.clone());
        let (target, options) = (target.clone(), options.clone());
        tokio::spawn(Pump { application, target, filter, options, clock }.run(opened));
        Ok(publisher)
    }
}

/// A stream of deliveries, with the methods of a [`Receiver`].
pub type Subscription = Stream<Receiver>;
