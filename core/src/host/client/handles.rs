//! What a program holds of an application: it publishes, reads, receives and settles by these.
//!
//! They are the same whatever the runtime, and wherever the node is. Handles and futures may be
//! dropped at any time: what was acknowledged stays acknowledged, and what a named subscription has
//! not settled is handed over again.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::{self, Vec};
use core::future::{Future, poll_fn};
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::application::{Application, InboxItem};
use crate::app::{
    self, DisconnectReason, Publication, PublishError, ReadError, Receipt, Settlement, Value,
    Verdict,
};
use crate::host::shared::{Shared, StreamSource};
use crate::wire::Welcome;
use crate::wire::application::InForce;
use crate::wire::message::Kind;

/// Publishes and reads as one application. Clones are the same application, which is gone when
/// all are dropped and what was asked is answered.
#[derive(Debug)]
pub struct Publisher {
    application: Shared<Application>,
}

impl Clone for Publisher {
    fn clone(&self) -> Self {
        Self::of(self.application.clone())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.application.with(Application::drop_publisher);
    }
}

impl Publisher {
    /// Of an application that a task serves.
    pub fn of(application: Shared<Application>) -> Self {
        application.with(Application::add_publisher);
        Self { application }
    }

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
        let asked = self.ask(|application| application.publish(message)).await;
        let ticket = asked.map_err(PublishError::NotSent)?;
        Ok(Pending { application: self.application.clone(), ticket })
    }

    /// Publishes many, in their order, as there is room, and hands out their receipts. Nothing is
    /// published before the first [`Receipts::next`].
    pub fn publish_all(&self, messages: Vec<Publication>) -> Receipts {
        Receipts {
            application: self.application.clone(),
            messages: messages.into_iter(),
            tickets: VecDeque::new(),
            place: None,
        }
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
        let asked = self.ask(|application| application.read(key.into(), kind)).await;
        let ticket = asked.map_err(ReadError::Ended)?;
        let mut ticket = OnDrop {
            application: &self.application,
            held: ticket,
            drop: |it, ticket| {
                it.give_up_value(*ticket);
            },
        };
        poll_fn(|cx| ticket.with(|it, ticket| it.poll_value(*ticket, cx))).await
    }

    /// What is in force for this application at its node, as its last connection was greeted.
    /// `None`: there was none yet, or the node is of a version that does not say it.
    pub fn in_force(&self) -> Option<InForce> {
        self.application.with(|it| it.welcome().and_then(|welcome| welcome.in_force.clone()))
    }

    /// What its node has said of itself, as its last connection was greeted; `None`: there was none
    /// yet.
    pub fn welcome(&self) -> Option<Welcome> {
        self.application.with(|it| it.welcome().cloned())
    }

    /// Ends the application once all that was asked is answered and all that was settled is said.
    /// Its other handles are of no more use.
    pub async fn close(self) {
        self.application.with(Application::close);
        let mut place =
            OnDrop { application: &self.application, held: None, drop: Application::leave_end };
        poll_fn(|cx| place.with(|it, place| it.poll_end(place, cx))).await;
    }

    /// Whether nothing can be asked any more.
    pub fn is_over(&self) -> bool {
        self.application.with(|it| it.is_over().is_some())
    }

    /// Asks once there is room.
    async fn ask(
        &self,
        ask: impl FnOnce(&mut Application) -> u64,
    ) -> Result<u64, DisconnectReason> {
        let mut ask = Some(ask);
        let mut place =
            OnDrop { application: &self.application, held: None, drop: Application::leave_room };
        poll_fn(|cx| {
            place.with(|it, place| {
                let room = ready!(it.poll_room(place, cx));
                let ask = ask.take().expect("a future that is ready is not polled again");
                Poll::Ready(room.map(|()| ask(it)))
            })
        })
        .await
    }
}

/// A place or a ticket, given up with the future that holds it.
struct OnDrop<'a, T> {
    application: &'a Shared<Application>,
    held: T,
    drop: fn(&mut Application, &mut T),
}

impl<T> OnDrop<'_, T> {
    fn with<R>(&mut self, run: impl FnOnce(&mut Application, &mut T) -> R) -> R {
        self.application.with(|application| run(application, &mut self.held))
    }
}

impl<T> Drop for OnDrop<'_, T> {
    fn drop(&mut self) {
        let drop = self.drop;
        self.with(drop);
    }
}

/// The receipt of a message that was sent.
#[derive(Debug)]
pub struct Pending {
    application: Shared<Application>,
    ticket: u64,
}

impl Future for Pending {
    type Output = Result<Receipt, PublishError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.application.with(|it| it.poll_receipt(self.ticket, cx))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.application.with(|it| it.give_up_receipt(self.ticket));
    }
}

/// The receipts of many messages. Dropping it takes nothing back of what was published.
///
/// Publishes and hands out as much at a time as it can: for many messages that costs one lock and
/// one wake-up, where a [`Pending`] each costs one of both for each.
#[derive(Debug)]
pub struct Receipts {
    application: Shared<Application>,
    /// What was not published yet.
    messages: vec::IntoIter<Publication>,
    /// Of those that were, and whose receipts were not handed out.
    tickets: VecDeque<u64>,
    /// Where it waits for room.
    place: Option<u64>,
}

impl Receipts {
    /// The next receipts, in the order of the messages, at least one; `None` after the last. Can be
    /// given up and called again without loss.
    pub async fn next(&mut self) -> Option<Vec<Result<Receipt, PublishError>>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<Result<Receipt, PublishError>>>> {
        let Self { application, messages, tickets, place } = self;
        application.with(|it| {
            let mut over = None;
            while over.is_none()
                && !messages.as_slice().is_empty()
                && let Poll::Ready(room) = it.poll_room(place, cx)
            {
                match room {
                    Ok(()) => it.publish_some(messages, tickets),
                    Err(why) => over = Some(why),
                }
            }
            let mut answers = Vec::new();
            while let Some(ticket) = tickets.front()
                && let Poll::Ready(answer) = it.poll_receipt(*ticket, cx)
            {
                answers.push(answer);
                tickets.pop_front();
            }
            if let (Some(why), true) = (over, tickets.is_empty()) {
                answers.extend(messages.map(|_| Err(PublishError::NotSent(why.clone()))));
            }
            match answers.is_empty() {
                false => Poll::Ready(Some(answers)),
                true if tickets.is_empty() && messages.as_slice().is_empty() => Poll::Ready(None),
                true => Poll::Pending,
            }
        })
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        let Self { application, tickets, place, .. } = self;
        application.with(|it| {
            tickets.drain(..).for_each(|ticket| it.give_up_receipt(ticket));
            it.leave_room(place);
        });
    }
}

/// Deliveries, in the order of the node's log. After an error there is nothing more; it ends
/// without one when it is closed here, or the node of this process is shut down.
///
/// At most `limits.delivery_window` deliveries are unsettled, those among them that were not taken
/// yet. Each has `retry.ack_timeout` from when the node sent it: what waits here longer counts as
/// handed over in vain, and after `retry.max_attempts` of these becomes a dead letter (P13).
///
/// Dropping it ends the session's connection once what was settled is said. What is settled later
/// is handed over again, to the next subscription of that name.
#[derive(Debug)]
pub struct Receiver {
    publisher: Publisher,
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

impl Receiver {
    /// Of an application that was opened to receive; there is one.
    pub fn of(publisher: Publisher, settles_when_taken: bool) -> Self {
        Self { publisher, settles_when_taken }
    }

    /// The next delivery; `None` after the end. Can be given up and called again without loss.
    pub async fn next(&mut self) -> Option<Result<Delivery, DisconnectReason>> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    /// The next delivery, or the word that all that was there has been handed over.
    pub async fn next_event(&mut self) -> Option<Result<SubscriptionEvent, DisconnectReason>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Ends it once all that was settled is said.
    pub async fn close(&self) {
        self.publisher.clone().close().await;
    }

    /// Publishes as the same application, which is not handed its own messages.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<SubscriptionEvent, DisconnectReason>>> {
        let application = &self.publisher.application;
        Poll::Ready(match ready!(application.with(|it| it.poll_item(cx))) {
            Some(InboxItem::Delivery(message)) => {
                let mut delivery = Delivery { message, unsettled: Some(application.clone()) };
                if self.settles_when_taken {
                    delivery.settle(Some(Verdict::Ack));
                }
                Some(Ok(SubscriptionEvent::Delivery(delivery)))
            }
            Some(InboxItem::Synced) => Some(Ok(SubscriptionEvent::Synced)),
            Some(InboxItem::Ended(why)) => Some(Err(why)),
            None => None,
        })
    }
}

impl StreamSource for Receiver {
    type Item = Result<Delivery, DisconnectReason>;

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
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

impl Drop for Receiver {
    fn drop(&mut self) {
        self.publisher.application.with(Application::drop_subscription);
    }
}

/// A message that was handed over. One that is dropped without a word is handed over again.
#[derive(Debug)]
pub struct Delivery {
    message: app::DeliveredMessage,
    /// `None` once it is settled.
    unsettled: Option<Shared<Application>>,
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
        if let Some(application) = self.unsettled.take() {
            // If the session is over, the node hands it over again.
            application.with(|it| it.settle(Settlement::of(&self.message, verdict)));
        }
    }
}

impl Deref for Delivery {
    type Target = app::DeliveredMessage;

    fn deref(&self) -> &app::DeliveredMessage {
        &self.message
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.settle(None);
    }
}
