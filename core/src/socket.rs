//! A connection as a shell opens it: what its tasks need of it, and what is known of it.

use alloc::string::String;
use core::fmt;
use core::future::Future;
use core::task::{Context, Poll};

use crate::io::{End, Frame, LinkUp, Protocol};
use crate::slots::Slot;

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

    /// Reads once and throws away what is there; answers whether more may come.
    fn discard(&mut self) -> impl Future<Output = bool> + Send;
}

/// The half that writes.
pub trait Writer: Send + Sized + 'static {
    /// Sends frames: returns when the socket has taken the last one.
    fn send(
        &mut self,
        frames: impl Iterator<Item = Frame> + Send,
    ) -> impl Future<Output = Result<(), End>> + Send;

    /// Sends the close frame, if there is one, and shuts the sending side.
    fn farewell(&mut self, end: &End) -> impl Future<Output = Result<(), End>> + Send;

    /// The same, with empty buffers: one that held much would keep its size for the life of the
    /// connection.
    fn renewed(self) -> impl Future<Output = Self> + Send;
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
