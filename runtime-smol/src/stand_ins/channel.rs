//! Channels whose one receiver lets go of what is in them when it is dropped.
//!
//! The receivers of smol's can be cloned, and what is queued lives as long as anybody could send
//! more: whoever waits for an answer to it would wait for ever. This is all that is added to them.

use std::future::pending;
use std::ops::Deref;
use std::pin::Pin;

use smol::channel;
pub(crate) use smol::channel::Sender;

/// A channel for at most `capacity`, whose memory it takes at once.
pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel::bounded(capacity);
    (sender, Receiver(Box::pin(receiver)))
}

/// The one end that receives.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Pin<Box<channel::Receiver<T>>>);

impl<T> Receiver<T> {
    /// The next one; `None` when nobody is left who could send. Can be given up without loss.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        self.0.recv().await.ok()
    }

    /// The next one; nothing ever when nobody is left who could send.
    pub(crate) async fn recv_some(&mut self) -> T {
        match self.recv().await {
            Some(next) => next,
            None => pending().await,
        }
    }

    /// What is there already.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

impl<T> Deref for Receiver<T> {
    type Target = channel::Receiver<T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
        while self.try_recv().is_some() {}
    }
}
