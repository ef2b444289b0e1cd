//! What happens at a node, for the programs that watch it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use crate::admin::event::Event;
use crate::host::shared::{Shared, StreamSource, Wakes, keep};

/// Events that a watcher may be behind.
const BEHIND: usize = 1024;

/// The events that one watcher has not taken.
#[derive(Debug, Default)]
pub struct Feed {
    events: VecDeque<Event>,
    /// Whether nothing more comes.
    over: bool,
    /// Whether nobody takes anything any more.
    left: bool,
    watcher: Option<Waker>,
    woken: Vec<Waker>,
}

impl Wakes for Feed {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

/// What a watcher holds.
#[derive(Debug)]
pub struct Watcher(Shared<Feed>);

impl Watcher {
    /// Of a feed that somebody fills; there is one.
    pub fn of(feed: Shared<Feed>) -> Self {
        Self(feed)
    }

    /// The next event; `None` when the node has ended. Can be given up without loss.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_item(cx)).await
    }
}

impl StreamSource for Watcher {
    type Item = Event;

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.with(|feed| {
            let event = feed.events.pop_front();
            if event.is_some() || feed.over {
                return Poll::Ready(event);
            }
            keep(&mut feed.watcher, cx.waker(), &mut feed.woken);
            Poll::Pending
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.with(|feed| {
            feed.left = true;
            feed.events.clear();
        });
    }
}

/// Those who watch a node. When it is dropped, their feeds end.
#[derive(Debug, Default)]
pub struct Watchers(Vec<Shared<Feed>>);

impl Watchers {
    /// Adds one.
    pub fn add(&mut self, feed: Shared<Feed>) {
        self.0.push(feed);
    }

    /// Tells all of them. Whoever does not keep up misses some.
    pub fn tell(&mut self, event: &Event) {
        self.0.retain(|feed| {
            feed.with(|feed| {
                if !feed.left && feed.events.len() < BEHIND {
                    feed.events.push_back(event.clone());
                    feed.woken.extend(feed.watcher.take());
                }
                !feed.left
            })
        });
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for feed in &self.0 {
            feed.with(|feed| {
                feed.over = true;
                feed.woken.extend(feed.watcher.take());
            });
        }
    }
}
