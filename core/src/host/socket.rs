//! A connection as a shell opens it: what its tasks need of it, and what is known of it.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};

use crate::host::slots::Slot;
use crate::io::{End, Frame, LinkUp, Protocol};

/// A WebSocket connection whose handshake is done.
pub trait Socket: fmt::Debug + Send + 'static {
    /// What reads from it.
    type Reader: Reader;
    /// What writes to it.
    type Writer: Writer;

    /// Its two halves, each with a codec of its own, for a connection that speaks `protocol`.
    fn split(self, protocol: Protocol)
    -> impl Future<Output = (Self::Reader, Self::Writer)> + Send;
}

/// The half that reads. It answers nothing by itself.
pub trait Reader: Send + 'static {
    /// The next frame, or how the connection ends. Can be given up without loss.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>>;

    /// Marked when bytes have come.
    fn motion(&self) -> Motion;

    /// Reads once and throws away what is there; answers whether more may come.
    fn discard(&mut self) -> impl Future<Output = bool> + Send;
}

/// The half that writes.
pub trait Writer: Send + Sized + 'static {
    /// Sends frames: returns when the socket has taken the last one. Between the pieces of a large
    /// one, where the protocol of the connection allows pieces, control frames are sent.
    fn send(&mut self, frames: impl Frames) -> impl Future<Output = Result<(), End>> + Send;

    /// Marked when the socket has taken bytes after it had no room: the other side lives.
    fn motion(&self) -> Motion;

    /// Sends the close frame, if there is one, and shuts the sending side.
    fn farewell(&mut self, end: &End) -> impl Future<Output = Result<(), End>> + Send;

    /// The same, with empty buffers: one that held much would keep its size for the life of the
    /// connection.
    fn renewed(self) -> impl Future<Output = Self> + Send;
}

/// What a writer is to send.
pub trait Frames: Send {
    /// The next frame.
    fn next(&mut self) -> Option<Frame>;

    /// A control frame that need not wait for the rest of the frame at hand.
    fn next_control(&mut self) -> Option<Frame>;
}

/// Nothing goes past these.
impl<I: Iterator<Item = Frame> + Send> Frames for I {
    fn next(&mut self) -> Option<Frame> {
        Iterator::next(self)
    }

    fn next_control(&mut self) -> Option<Frame> {
        None
    }
}

/// Whether bytes have moved since it was asked last.
#[derive(Debug, Clone, Default)]
pub struct Motion(Arc<AtomicBool>);

impl Motion {
    /// They have.
    pub fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether they have; not any more from now on.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// A connection whose handshake is done, and what is known of it.
#[derive(Debug)]
pub struct Opened<S> {
    /// How its frames travel.
    pub transport: S,
    /// What the node is told of it.
    pub up: LinkUp,
    /// Its place, if it was accepted.
    pub slot: Option<Slot>,
}

impl<S> Opened<S> {
    /// To `remote`, which was asked for `query`.
    pub fn new(transport: S, protocol: Protocol, remote: String, query: String) -> Self {
        Self { transport, up: LinkUp { remote, query, ..LinkUp::of(protocol) }, slot: None }
    }
}
