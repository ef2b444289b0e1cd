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
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures_channel::oneshot;
use futures_util::Stream;
pub use slipstream_core::application::{AckMode, Replay};
use slipstream_core::client::{self, Session, Settlement};
pub use slipstream_core::client::{
    ClientOptions, ConnectError, Ended, Filter, Publication, PublishError, ReadError, Receipt,
    Refused, Value, Verdict,
};
pub use slipstream_core::config::{Durability, Heartbeat, Reconnect};
pub use slipstream_core::message::Kind;
use smol::lock::Mutex;

use crate::clock::Clock;
use crate::dial::check_url;
use crate::pump::{Command, Item, Pump, Said, Target};
use crate::stand_ins::{Receiver, Sender, bounded, spawn, unbounded};

/// Commands that may wait for the task of an application.
const COMMANDS: usize = 1024;

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
        let client = Self::of(Target::Remote(url.into()), options);
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
        Ok(self.open(nothing, false, true).await?.publisher)
    }

    /// Receives what `filter` asks for. A named subscription goes on after a lost connection where
    /// it was; one without a name ends, as it could not tell what it has missed.
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn subscribe(&self, filter: Filter) -> Result<Subscription, ConnectError> {
        let (goes_on, settles_when_taken) = (filter.name().is_some(), filter.settles_when_taken());
        let Parts { publisher, items, says } = self.open(filter, true, goes_on).await?;
        Ok(Subscription { publisher, items, says, settles_when_taken })
    }

    async fn unnamed(&self) -> Result<Publisher, ConnectError> {
        let mut publisher = self.shared.publisher.lock().await;
        match &*publisher {
            Some(known) if !known.commands.is_closed() => Ok(known.clone()),
            Some(_) | None => {
                let parts = self.open(Filter::none(), false, true).await?;
                Ok(publisher.insert(parts.publisher).clone())
            }
        }
    }

    /// Opens the connection of an application and starts its task.
    async fn open(
        &self,
        filter: Filter,
        receives: bool,
        goes_on: bool,
    ) -> Result<Parts, ConnectError> {
        let Shared { target, options, .. } = &*self.shared;
        let opened = target.open(&filter, options).await?;
        let seed = getrandom::u64().map_err(|error| Ended::Lost(error.to_string()))?;
        let clock = Clock::start();
        let settings = options.settings(&filter, goes_on);
        let (commands, asked) = bounded(COMMANDS);
        let (says, said) = unbounded();
        let (items, delivered) = unbounded();
        let ended = Arc::new(OnceLock::new());
        let pump = Pump {
            session: Session::new(settings, seed, clock.now().instant),
            target: target.clone(),
            filter,
            receives,
            options: options.clone(),
            clock,
            commands: asked,
            said,
            items,
            heard: Vec::new(),
            closing: Vec::new(),
            quiet: (false, false),
            ended: ended.clone(),
        };
        spawn(pump.run(opened));
        Ok(Parts { publisher: Publisher { commands, ended }, items: delivered, says })
    }
}

/// The ends of the channels to the task of an application.
struct Parts {
    publisher: Publisher,
    items: Receiver<Item>,
    says: Sender<Said>,
}

/// Publishes and reads as one application. Clones are the same application, which is gone when
/// all are dropped and what was asked is answered.
#[derive(Debug, Clone)]
pub struct Publisher {
    commands: Sender<Command>,
    /// Why the session is over, if it is.
    ended: Arc<OnceLock<Ended>>,
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
        sent.map_err(|_| PublishError::NotSent(self.why()))?;
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

    /// [`Publisher::get`] of a key that is expected to hold this kind; another one is refused as
    /// `WRONG_KIND`.
    ///
    /// # Errors
    /// As of [`Publisher::get`].
    pub async fn read(&self, key: &str, kind: Option<Kind>) -> Result<Value, ReadError> {
        let (ticket, answer) = oneshot::channel();
        let asked = self.commands.send(Command::Read(key.into(), kind, ticket)).await;
        asked.map_err(|_| ReadError::Ended(self.why()))?;
        answer.await.map_err(|_| ReadError::Ended(self.why()))?
    }

    /// Why nobody listens any more.
    fn why(&self) -> Ended {
        self.ended.get().cloned().unwrap_or(Ended::Here)
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

/// A stream of deliveries, in the order of the node's log. After an error there is nothing more; it
/// ends without one when it is closed here, or the node of this process is shut down.
///
/// At most `limits.delivery_window` deliveries are unsettled, those among them that were not taken
/// yet. Each has `retry.ack_timeout` from when the node sent it: what waits here longer counts as
/// handed over in vain, and after `retry.max_attempts` of these becomes a dead letter (P13).
///
/// Dropping it ends the session's connection once what was settled is said. What is settled later
/// is handed over again, to the next subscription of that name.
#[derive(Debug)]
pub struct Subscription {
    publisher: Publisher,
    items: Receiver<Item>,
    says: Sender<Said>,
    settles_when_taken: bool,
}

/// What a subscription is handed.
#[derive(Debug)]
pub enum SubscriptionEvent {
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
    pub async fn next_event(&mut self) -> Option<Result<SubscriptionEvent, Ended>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Publishes as the same application, which is not handed its own messages.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Ends it once all that was settled is said.
    pub async fn close(self) {
        self.publisher.clone().close().await;
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<SubscriptionEvent, Ended>>> {
        Poll::Ready(match ready!(self.items.poll_recv(cx)) {
            Some(Item::Delivery(message)) => {
                let mut delivery = Delivery { message, says: Some(self.says.clone()) };
                if self.settles_when_taken {
                    delivery.settle(Some(Verdict::Ack));
                }
                Some(Ok(SubscriptionEvent::Delivery(delivery)))
            }
            Some(Item::Synced) => Some(Ok(SubscriptionEvent::Synced)),
            Some(Item::Ended(why)) => Some(Err(why)),
            None => None,
        })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // A session that is over needs to know nothing.
        let _ = self.says.try_send(Said::Left);
    }
}

impl Stream for Subscription {
    type Item = Result<Delivery, Ended>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(self.poll_event(cx)) {
                Some(Ok(SubscriptionEvent::Delivery(delivery))) => Some(Ok(delivery)),
                Some(Ok(SubscriptionEvent::Synced)) => continue,
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
    says: Option<Sender<Said>>,
}

impl Delivery {
    /// Done with it: this session is not handed it again. Where taking settles, this and the others
    /// say nothing more.
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
        if let Some(says) = self.says.take() {
            // If the session is over, the node hands it over again.
            let _ = says.try_send(Said::Settled(Settlement::of(&self.message, verdict)));
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
