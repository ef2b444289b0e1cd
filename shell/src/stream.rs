//! Streams, as the library of this runtime's users knows them.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use slipstream_core::shared::StreamSource;

/// A stream of what comes one by one, with all methods of what it comes from.
#[derive(Debug)]
pub struct Stream<S>(S);

impl<S> From<S> for Stream<S> {
    fn from(source: S) -> Self {
        Self(source)
    }
}

impl<S> Deref for Stream<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

impl<S> DerefMut for Stream<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.0
    }
}

impl<S: StreamSource + Unpin> futures_util::Stream for Stream<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.poll_item(cx)
    }
}
