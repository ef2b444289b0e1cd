//! An application as its handles and its task see it: a [`ClientSession`], and those who wait for
//! it.
//!
//! Handles ask, settle and wait; one task carries frames between the session and a connection. They
//! meet here and nowhere else, so what may be dropped, and when, is a matter of this state alone.
//!
//! What stays true:
//!
//! - Every question is answered, at the latest by the end of the session, and then for ever.
//! - Room goes to those who wait for it in the order in which they came.
//! - A session is done when nobody wants anything of it any more: its subscription is gone, or, if
//!   it has none, all of its publishers, and all that was asked and settled is said and answered.
//! - Whoever waits for a change is woken by it.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use bytes::Bytes;

use super::waiting::{Answers, Queue};
use crate::app::{
    Beat, ClientSession, ClientSettings, DeliveredMessage, DisconnectReason, Heard, Publication,
    PublishError, ReadError, Receipt, Settlement, Value,
};
use crate::host::shared::{Wakes, keep};
use crate::io::Frame;
use crate::types::time::Instant;
use crate::wire::Welcome;
use crate::wire::message::Kind;

/// What a subscription is handed.
#[derive(Debug)]
pub(super) enum InboxItem {
    Delivery(DeliveredMessage),
    Synced,
    Ended(DisconnectReason),
}

/// What the task of an application is to do next on its connection.
#[derive(Debug)]
pub enum Turn {
    /// Send these, and go on reading meanwhile.
    Send(Vec<Frame>),
    /// Wait for a change, for this time, and for a frame if `reads`.
    Wait {
        /// Whether anything is to be read. What an application that receives has not settled is
        /// about two windows at most, then nothing more is read.
        reads: bool,
        /// When to look again.
        until: Instant,
    },
    /// Close: nobody wants anything any more.
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Application {
    session: ClientSession<u64, u64>,
    heard: Vec<Heard<u64, u64>>,
    /// The greeting of the last connection.
    welcome: Option<Welcome>,
    receipts: Answers<Result<Receipt, PublishError>>,
    values: Answers<Result<Value, ReadError>>,
    items: VecDeque<InboxItem>,
    /// Whether it was opened to receive.
    receives: bool,
    subscribed: bool,
    publishers: usize,
    /// Whether it is to end once everything is said and answered.
    closing: bool,
    /// Why the session is over, if it is.
    ended: Option<DisconnectReason>,
    /// Whether the task has not looked since something changed.
    changed: bool,
    task: Option<Waker>,
    receiver: Option<Waker>,
    /// For room, and for the end.
    room: Queue,
    end: Queue,
    woken: Vec<Waker>,
}

impl Wakes for Application {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

/// What its task does.
impl Application {
    /// One that is not connected, and has no handles yet. `seed` is random.
    pub fn new(settings: ClientSettings, receives: bool, seed: u64, now: Instant) -> Self {
        Self {
            session: ClientSession::new(settings, seed, now),
            heard: Vec::new(),
            welcome: None,
            receipts: Answers::default(),
            values: Answers::default(),
            items: VecDeque::new(),
            receives,
            subscribed: receives,
            publishers: 0,
            closing: false,
            ended: None,
            changed: false,
            task: None,
            receiver: None,
            room: Queue::default(),
            end: Queue::default(),
            woken: Vec::new(),
        }
    }

    /// A connection is open and this is its greeting.
    pub fn connected(&mut self, welcome: &Welcome, now: Instant) {
        self.session.connected(welcome, now, &mut self.heard);
        self.welcome = Some(welcome.clone());
        self.tell();
    }

    /// What to do next on the connection.
    ///
    /// # Errors
    /// [`DisconnectReason::Lost`] if the node has been silent for too long.
    pub fn turn(&mut self, now: Instant) -> Result<Turn, DisconnectReason> {
        self.changed = false;
        let frames = self.session.frames(now, &mut self.heard);
        self.tell();
        if !frames.is_empty() {
            return Ok(Turn::Send(frames));
        }
        if self.is_done() {
            return Ok(Turn::Done);
        }
        self.beat(now)
    }

    /// What to do while the connection has not sent what it was given.
    ///
    /// # Errors
    /// [`DisconnectReason::Lost`] if the node has been silent for too long.
    pub fn beat(&mut self, now: Instant) -> Result<Turn, DisconnectReason> {
        Ok(match self.session.beat(now) {
            Beat::Ping => Turn::Send(vec![Frame::Ping(Bytes::new())]),
            Beat::Wait(until) => Turn::Wait { reads: !self.session.is_full(), until },
            Beat::Dead(silent) => return Err(dead(silent)),
        })
    }

    /// Bytes have moved on the connection: it is alive.
    pub fn moved(&mut self, now: Instant) {
        self.session.moved(now);
    }

    /// Takes a frame of the node.
    ///
    /// # Errors
    /// [`DisconnectReason::Codec`]: the connection is of no more use.
    pub fn received(&mut self, frame: &Frame, now: Instant) -> Result<(), DisconnectReason> {
        let understood = self.session.received(frame, now, &mut self.heard);
        self.tell();
        Ok(understood?)
    }

    /// The connection has ended, or could not be opened. Answers how long to wait before the next
    /// attempt; `None`: the session is over, and everybody knows.
    pub fn lost(&mut self, why: &DisconnectReason) -> Option<Duration> {
        let wait = self.session.lost(why, &mut self.heard);
        self.tell();
        if wait.is_none() {
            self.finish(why.clone());
        }
        wait
    }

    /// Ends the session, if it has not ended, and tells everybody. A task that is given up must do
    /// this too.
    pub fn finish(&mut self, why: DisconnectReason) {
        if self.ended.is_some() {
            return;
        }
        self.session.end(&why, &mut self.heard);
        self.tell();
        if why != DisconnectReason::Here {
            self.items.push_back(InboxItem::Ended(why.clone()));
        }
        self.ended = Some(why);
        self.woken.extend(self.receiver.take());
        self.room.wake(usize::MAX, &mut self.woken);
        self.end.wake(usize::MAX, &mut self.woken);
    }

    /// Whether nobody wants anything any more.
    pub fn is_done(&self) -> bool {
        let wanted = if self.receives { self.subscribed } else { self.publishers > 0 };
        self.session.is_idle() && (self.closing || !wanted)
    }

    /// Ready when a handle has changed something since the last [`Application::turn`].
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if core::mem::take(&mut self.changed) {
            return Poll::Ready(());
        }
        keep(&mut self.task, cx.waker(), &mut self.woken);
        Poll::Pending
    }

    /// Hands what was heard to those who wait for it.
    fn tell(&mut self) {
        for heard in self.heard.drain(..) {
            match heard {
                Heard::Published(ticket, receipt) => {
                    self.receipts.give(ticket, receipt, &mut self.woken);
                }
                Heard::Read(ticket, value) => self.values.give(ticket, value, &mut self.woken),
                // Nobody is left to take it: it is handed over again, to the next subscription.
                Heard::Delivered(_) | Heard::Synced if !self.subscribed => {}
                Heard::Delivered(delivery) => self.items.push_back(InboxItem::Delivery(delivery)),
                Heard::Synced => self.items.push_back(InboxItem::Synced),
            }
        }
        if !self.items.is_empty() {
            self.woken.extend(self.receiver.take());
        }
        self.room.wake(self.session.room(), &mut self.woken);
    }

    fn change(&mut self) {
        self.changed = true;
        self.woken.extend(self.task.take());
    }
}

/// What its handles do.
impl Application {
    pub(super) fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    pub(super) fn add_publisher(&mut self) {
        self.publishers += 1;
    }

    pub(super) fn drop_publisher(&mut self) {
        self.publishers -= 1;
        if self.publishers == 0 {
            self.change();
        }
    }

    pub(super) fn drop_subscription(&mut self) {
        self.subscribed = false;
        self.items.clear();
        self.woken.extend(self.receiver.take());
        self.change();
    }

    /// Why nothing can be asked any more.
    pub(super) fn is_over(&self) -> Option<DisconnectReason> {
        self.ended.clone().or(self.closing.then_some(DisconnectReason::Here))
    }

    /// Ready when there is room for a question.
    pub(super) fn poll_room(
        &mut self,
        place: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), DisconnectReason>> {
        let over = self.is_over();
        if over.is_none() && self.session.room() == 0 {
            self.room.wait(place, cx.waker(), &mut self.woken);
            return Poll::Pending;
        }
        self.room.leave(place, &mut self.woken);
        Poll::Ready(over.map_or(Ok(()), Err))
    }

    /// Somebody does not wait for room any more: it is for the next.
    pub(super) fn leave_room(&mut self, place: &mut Option<u64>) {
        self.room.leave(place, &mut self.woken);
        self.room.wake(self.session.room(), &mut self.woken);
    }

    pub(super) fn publish(&mut self, publication: Publication) -> u64 {
        let ticket = self.ask(publication);
        self.tell();
        self.change();
        ticket
    }

    /// Publishes as many of these as there is room for, and gives their tickets.
    pub(super) fn publish_some(
        &mut self,
        publications: &mut impl Iterator<Item = Publication>,
        tickets: &mut impl Extend<u64>,
    ) {
        for publication in publications.take(self.session.room()) {
            tickets.extend([self.ask(publication)]);
        }
        self.tell();
        self.change();
    }

    fn ask(&mut self, publication: Publication) -> u64 {
        let ticket = self.receipts.ticket();
        self.heard.extend(self.session.publish(publication, ticket));
        ticket
    }

    pub(super) fn poll_receipt(
        &mut self,
        ticket: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Receipt, PublishError>> {
        self.receipts.poll(ticket, cx, &mut self.woken)
    }

    pub(super) fn give_up_receipt(&mut self, ticket: u64) {
        self.receipts.give_up(ticket, &mut self.woken);
    }

    pub(super) fn read(&mut self, key: String, kind: Option<Kind>) -> u64 {
        let ticket = self.values.ticket();
        self.session.read(key, kind, ticket);
        self.change();
        ticket
    }

    pub(super) fn poll_value(
        &mut self,
        ticket: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Value, ReadError>> {
        self.values.poll(ticket, cx, &mut self.woken)
    }

    pub(super) fn give_up_value(&mut self, ticket: u64) {
        self.values.give_up(ticket, &mut self.woken);
    }

    /// The next item of the subscription; `None` after the end.
    pub(super) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<InboxItem>> {
        if let Some(item) = self.items.pop_front() {
            return Poll::Ready(Some(item));
        }
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        keep(&mut self.receiver, cx.waker(), &mut self.woken);
        Poll::Pending
    }

    pub(super) fn settle(&mut self, settlement: Settlement) {
        self.session.settle(settlement);
        self.change();
    }

    /// To end once all that was asked is answered and all that was settled is said.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.room.wake(usize::MAX, &mut self.woken);
        self.change();
    }

    /// Ready when the session is over.
    pub(super) fn poll_end(&mut self, place: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.is_some() {
            self.end.leave(place, &mut self.woken);
            return Poll::Ready(());
        }
        self.end.wait(place, cx.waker(), &mut self.woken);
        Poll::Pending
    }

    pub(super) fn leave_end(&mut self, place: &mut Option<u64>) {
        self.end.leave(place, &mut self.woken);
    }
}

fn dead(silent: Duration) -> DisconnectReason {
    DisconnectReason::Lost(format!("nothing came for {silent:?}"))
}
