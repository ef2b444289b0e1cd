//! What a program that publishes and receives works with, wherever its node is.
//!
//! A [`Client`] speaks to a node behind a URL, or to one within this process: then it is got from
//! [`Node`](crate::Node). All else is the same, so that a service moves from one to the other by
//! the line that makes the client. Each [`Publisher`] and [`Subscription`] is an application of its
//! own, with one task and one connection, which is opened again when it is lost.
//!
//! Handles and futures may be dropped at any time: what was acknowledged stays acknowledged, and
//! what a named subscription has not settled is handed over again.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use slipstream_core::client::{self, Session, Settings, Settlement};
pub use slipstream_core::client::{
    ConnectError, Ended, Filter, Publication, PublishError, ReadError, Receipt, Refused, Value,
    Verdict,
};
use slipstream_core::config::{Heartbeat, Limits, Reconnect};
use slipstream_core::message::Kind;
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::clock::Clock;
use crate::dial::check_url;
use crate::pump::{Command, Item, Pump, Target};

/// Commands that may wait for the task of an application.
const COMMANDS: usize = 1024;

/// How applications connect.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Bearer token.
    pub token: Option<String>,
    /// For connecting, up to and with the node's greeting. Default 5 s.
    pub timeout: Duration,
    /// Messages and reads of one application that may be unanswered. Default 8192; above that,
    /// publishing waits.
    pub window: usize,
    /// Largest frame that is taken. Default 64 MiB.
    pub max_frame_bytes: usize,
    /// When a silent node is given up.
    pub heartbeat: Heartbeat,
    /// When a lost connection is opened again.
    pub reconnect: Reconnect,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            token: None,
            timeout: Duration::from_secs(5),
            window: 8192,
            max_frame_bytes: 64 << 20,
            heartbeat: Heartbeat::default(),
            reconnect: Reconnect::default(),
        }
    }
}

impl ClientOptions {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            handshake_timeout: self.timeout,
            max_message_bytes: self.max_frame_bytes / 4,
            ..Limits::default()
        }
    }
}

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
    publisher: OnceCell<Publisher>,
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
        let client = Self::of(Target::Remote(url.into()), options);
        client.unnamed().await?;
        Ok(client)
    }

    /// Of a node that is there.
    pub(crate) fn of(target: Target, options: ClientOptions) -> Self {
        let publisher = OnceCell::new();
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

    /// A publisher with a name, 1 to 64 of `A-Za-z0-9._-`. What is unanswered when its connection
    /// is lost it publishes again, under the same ids, and so never twice (P9).
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn publisher(&self, name: &str) -> Result<Publisher, ConnectError> {
        let nothing = Filter::named(name).keys::<String>([]);
        Ok(self.open(nothing, true).await?.publisher.clone())
    }

    /// Receives what `filter` asks for. A named subscription goes on after a lost connection where
    /// it was; one without a name ends, as it could not tell what it has missed.
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn subscribe(&self, filter: Filter) -> Result<Subscription, ConnectError> {
        let goes_on = filter.name().is_some();
        self.open(filter, goes_on).await
    }

    async fn unnamed(&self) -> Result<&Publisher, ConnectError> {
        let open = || async { Ok(self.open(Filter::none(), true).await?.publisher.clone()) };
        self.shared.publisher.get_or_try_init(open).await
    }

    async fn open(&self, filter: Filter, goes_on: bool) -> Result<Subscription, ConnectError> {
        let Shared { target, options, .. } = &*self.shared;
        let opened = target.open(&filter, options).await?;
        let seed = getrandom::u64().map_err(|error| Ended::Lost(error.to_string()))?;
        let clock = Clock::start();
        let settings = Settings {
            named: filter.name().is_some(),
            reconnects: goes_on,
            window: options.window,
            heartbeat: options.heartbeat.clone(),
            reconnect: options.reconnect.clone(),
        };
        let (commands, asked) = mpsc::channel(COMMANDS);
        let (settlements, settled) = mpsc::unbounded_channel();
        let (items, delivered) = mpsc::unbounded_channel();
        let settles_when_taken = filter.settles_when_taken();
        let pump = Pump {
            session: Session::new(settings, seed, clock.now().instant),
            target: target.clone(),
            filter,
            options: options.clone(),
            clock,
            commands: asked,
            settlements: settled,
            items,
            heard: Vec::new(),
            closing: Vec::new(),
            quiet: (false, false),
        };
        tokio::spawn(pump.run(opened));
        let publisher = Publisher { commands };
        Ok(Subscription { publisher, items: delivered, settlements, settles_when_taken })
    }
}

/// Publishes and reads as one application. Clones are the same application, which is gone when
/// all are dropped and what was asked is answered.
#[derive(Debug, Clone)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
}

impl Publisher {
    /// Publishes, and waits until the message is durable at the node (P1). Dropping the future
    /// takes nothing back.
    ///
    /// # Errors
    /// [`PublishError`]: the node's refusal, or what is known of the message without an answer.
    pub async fn publish(&self, message: Publication) -> Result<Receipt, PublishError> {
        self.send(message).await?.await
    }

    /// Publishes, and waits only while too many messages are unanswered. Messages are published
    /// in the order in which this returns.
    ///
    /// # Errors
    /// [`PublishError::NotSent`] if the session is over; all else is told by the [`Pending`].
    pub async fn send(&self, message: Publication) -> Result<Pending, PublishError> {
        let (ticket, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Publish(message, ticket)).await;
        sent.map_err(|_| PublishError::NotSent(Ended::Here))?;
        Ok(Pending { answer })
    }

    /// The converged value of a key for this application, at least as new as all that it has
    /// published before (P6).
    ///
    /// # Errors
    /// [`ReadError`] says why there is no answer.
    pub async fn get(&self, key: &str) -> Result<Value, ReadError> {
        self.read(key, None).await
    }

    /// [`Publisher::get`] of a key that is expected to hold this kind.
    ///
    /// # Errors
    /// As of [`Publisher::get`]; another kind is refused as `WRONG_KIND`.
    pub async fn get_kind(&self, key: &str, kind: Kind) -> Result<Value, ReadError> {
        self.read(key, Some(kind)).await
    }

    async fn read(&self, key: &str, kind: Option<Kind>) -> Result<Value, ReadError> {
        let gone = || ReadError::Ended(Ended::Here);
        let (ticket, answer) = oneshot::channel();
        let asked = self.commands.send(Command::Read(key.into(), kind, ticket)).await;
        asked.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Ends the application once all that was asked is answered and all that was settled is said.
    /// Its other handles are of no more use.
    pub async fn close(self) {
        let (closed, done) = oneshot::channel();
        if self.commands.send(Command::Close(closed)).await.is_ok() {
            // Either way it has ended.
            let _ = done.await;
        }
    }
}

/// The receipt of a message that was sent.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Result<Receipt, PublishError>>,
}

impl Future for Pending {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready(answer.unwrap_or(Err(PublishError::Unanswered(Ended::Here))))
    }
}

/// A stream of deliveries, in the order of the node's log. After an error there is nothing more.
#[derive(Debug)]
pub struct Subscription {
    publisher: Publisher,
    items: mpsc::UnboundedReceiver<Item>,
    settlements: mpsc::UnboundedSender<Settlement>,
    settles_when_taken: bool,
}

/// What a subscription is handed.
#[derive(Debug)]
pub enum Event {
    /// A message.
    Delivery(Delivery),
    /// All that was in the log when it connected has been handed over; once per connection.
    Synced,
}

impl Subscription {
    /// The next delivery; `None` after the end. Can be given up and called again without loss.
    pub async fn next(&mut self) -> Option<Result<Delivery, Ended>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The next delivery, or the word that all that was there has been handed over.
    pub async fn event(&mut self) -> Option<Result<Event, Ended>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Publishes as the same application, which is not handed its own messages.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Ends it once all that was settled is said.
    pub async fn close(self) {
        self.publisher.close().await;
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, Ended>>> {
        Poll::Ready(match ready!(self.items.poll_recv(cx)) {
            Some(Item::Delivery(message)) => {
                let mut delivery =
                    Delivery { message, settlements: Some(self.settlements.clone()) };
                if self.settles_when_taken {
                    delivery.settle(Some(Verdict::Ack));
                }
                Some(Ok(Event::Delivery(delivery)))
            }
            Some(Item::Synced) => Some(Ok(Event::Synced)),
            Some(Item::Ended(why)) => Some(Err(why)),
            None => None,
        })
    }
}

impl Stream for Subscription {
    type Item = Result<Delivery, Ended>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(self.poll_event(cx)) {
                Some(Ok(Event::Delivery(delivery))) => Some(Ok(delivery)),
                Some(Ok(Event::Synced)) => continue,
                Some(Err(why)) => Some(Err(why)),
                None => None,
            });
        }
    }
}

/// A message that was handed over. One that is dropped without a word is handed over again.
#[derive(Debug)]
pub struct Delivery {
    message: client::Delivery,
    /// `None` once it is settled.
    settlements: Option<mpsc::UnboundedSender<Settlement>>,
}

impl Delivery {
    /// Done with it: it is never handed over again.
    pub fn ack(mut self) {
        self.settle(Some(Verdict::Ack));
    }

    /// To be handed over again, after a wait that doubles each time (P13).
    pub fn retry(mut self, reason: impl Into<String>) {
        self.settle(Some(Verdict::Retry(reason.into())));
    }

    /// To be kept as a dead letter, for an operator to look at.
    pub fn reject(mut self, reason: impl Into<String>) {
        self.settle(Some(Verdict::Reject(reason.into())));
    }

    fn settle(&mut self, verdict: Option<Verdict>) {
        if let Some(settlements) = self.settlements.take() {
            // If the session is over, the node hands it over again.
            let _ = settlements.send(Settlement::of(&self.message, verdict));
        }
    }
}

impl Deref for Delivery {
    type Target = client::Delivery;

    fn deref(&self) -> &client::Delivery {
        &self.message
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.settle(None);
    }
}
