//! What happens at a node, for the program that embeds it.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use slipstream_core::event::Event;
use smol::channel::TrySendError;

use crate::stand_ins::{Receiver, Sender};

/// A stream of what happens at a node; it ends with the node.
#[derive(Debug)]
pub struct Events {
    events: Receiver<Event>,
}

impl Events {
    /// Events that a watcher may be behind.
    pub(crate) const BEHIND: usize = 1024;

    pub(crate) fn of(events: Receiver<Event>) -> Self {
        Self { events }
    }

    /// The next event; `None` when the node has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(cx)
    }
}

/// Those who want to know what happens.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    watchers: Vec<Sender<Event>>,
}

impl Watchers {
    /// Adds one. Returns for how many inputs that counts.
    pub(crate) fn add(&mut self, watcher: Sender<Event>) -> usize {
        self.watchers.push(watcher);
        1
    }

    /// Tells all of them. Whoever does not keep up misses some.
    pub(crate) fn tell(&mut self, event: &Event) {
        self.watchers.retain(|watcher| match watcher.try_send(event.clone()) {
            Ok(()) | Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Closed(_)) => false,
        });
    }
}
