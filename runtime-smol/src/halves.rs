//! The two halves of a connection: what reads frames from it, and what writes them.
//!
//! Here is all that this crate knows of the WebSocket library: its limits, all of them explicit,
//! and its errors. What a WebSocket endpoint must answer by itself is answered here: pings, closes,
//! and the close codes 1002, 1007 and 4413 for what cannot be read at all. The library would drop
//! the connection without them.

use std::future::poll_fn;
use std::task::{Context, Poll};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use async_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use slipstream_core::ids::LinkId;
use slipstream_core::io::{End, Frame, Input, Protocol};
use slipstream_core::line::{Flow, Gathered, Line};
use slipstream_core::shared::Shared;
use smol::io::{AsyncReadExt, AsyncWriteExt, Empty, Sink, empty, sink};

use crate::link::{Incoming, Inputs, Read, Write};
use crate::stand_ins::{Join, select};

/// A writer that sent more than this at once gives the memory back: the buffer that held it would
/// keep its size for the life of the connection.
const LARGE: usize = 1024 * 1024;
/// Bytes that are gathered before the socket is given them.
const WRITE_BUFFER: usize = 64 * 1024;
/// One read from the socket, and memory that every connection has. Measured with frames from 256
/// bytes to 240 KiB, 64 KiB is no faster than 16 KiB; applications with JSON, of which there may
/// be many, do with less.
const READ_BUFFER_BINARY: usize = 16 * 1024;
const READ_BUFFER_JSON: usize = 8 * 1024;

/// The half that writes. Its codec never reads.
#[derive(Debug)]
pub(crate) struct Writer {
    socket: WebSocketStream<Join<Empty, Box<dyn Write>>>,
    role: Role,
    largest: usize,
}

impl Writer {
    pub(crate) async fn new(write: Box<dyn Write>, role: Role, largest: usize) -> Self {
        // Room for what is gathered and for a frame on top, twice, as masks and headers take some.
        let room = WRITE_BUFFER + largest.saturating_mul(2).saturating_add(1024);
        let config = WebSocketConfig::default()
            .read_buffer_size(0)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(room);
        let half = Join { read: empty(), write };
        let socket = WebSocketStream::from_raw_socket(half, role, Some(config)).await;
        Self { socket, role, largest }
    }

    /// Sends frames.
    pub(crate) async fn send(
        &mut self,
        frames: impl IntoIterator<Item = Frame>,
    ) -> Result<(), End> {
        let lost = |error: Error| End::silent(format!("cannot send: {error}"));
        for frame in frames {
            self.socket.feed(message(frame)).await.map_err(lost)?;
        }
        self.socket.flush().await.map_err(lost)
    }

    /// Sends what is queued until the end is ordered, then the close frame.
    pub(crate) async fn run(
        mut self,
        id: LinkId,
        inputs: &Inputs,
        line: &Shared<Line>,
    ) -> Result<(), End> {
        let mut batch = Vec::new();
        while let Some((frames, cost)) = line.wait(|it, cx| it.poll_outgoing(cx, &mut batch)).await
        {
            self.send(batch.drain(..)).await?;
            let sent = Input::Sent { link: id, frames, cost };
            if frames > 0 && inputs.send(Incoming::Input(sent)).await.is_err() {
                break;
            }
            if cost > LARGE {
                let half = self.socket.into_inner();
                self = Self::new(half.write, self.role, self.largest).await;
            }
        }
        // The other side may have gone first.
        let _ = self.farewell(&line.with(|line| line.ended())).await;
        Ok(())
    }

    /// Sends the close frame, if there is one, and shuts the sending side.
    pub(crate) async fn farewell(&mut self, end: &End) -> Result<(), Error> {
        if let Some((code, reason)) = end.close_frame() {
            let close = CloseFrame { code: code.into(), reason: reason.into() };
            self.socket.close(Some(close)).await?;
        }
        Ok(self.socket.get_mut().close().await?)
    }
}

/// A frame as the library takes it. Text goes in as a raw frame: it is known to be UTF-8.
fn message(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => {
            Message::Frame(RawFrame::message(text, OpCode::Data(Data::Text), true))
        }
        Frame::Binary(bytes) => Message::Binary(bytes),
        Frame::Ping(payload) => Message::Ping(payload),
        Frame::Pong(payload) => Message::Pong(payload),
    }
}

/// The half that reads. What its codec writes by itself goes nowhere.
#[derive(Debug)]
pub(crate) struct Reader {
    socket: WebSocketStream<Join<Box<dyn Read>, Sink>>,
}

impl Reader {
    /// `rest` is what was read behind the handshake.
    pub(crate) async fn new(
        read: Box<dyn Read>,
        rest: Vec<u8>,
        role: Role,
        largest: usize,
        protocol: Protocol,
    ) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(largest))
            .max_frame_size(Some(largest))
            .read_buffer_size(match protocol {
                Protocol::Json => READ_BUFFER_JSON,
                Protocol::Postcard => READ_BUFFER_BINARY,
            })
            .write_buffer_size(0)
            .max_write_buffer_size(1024);
        let half = Join { read, write: sink() };
        let socket = WebSocketStream::from_partially_read(half, rest, role, Some(config)).await;
        Self { socket }
    }

    /// The next frame, or how the link ends.
    pub(crate) async fn next(&mut self) -> Result<Frame, End> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        self.socket.poll_next_unpin(cx).map(|next| match next {
            Some(Ok(message)) => frame(message),
            Some(Err(error)) => Err(unreadable(&error)),
            None => Err(End::lost("the connection was closed")),
        })
    }

    /// Hands on what arrives, as much at a time as is there, until the end. The end is for the
    /// loop to order: what came before it is answered before the close frame.
    pub(crate) async fn run(mut self, id: LinkId, inputs: Inputs, line: Shared<Line>) {
        let mut flow = line.with(|line| line.flow());
        while flow != Flow::Over {
            let first = select! {
                now = line.wait(|line, cx| line.poll_flow(flow, cx)) => {
                    flow = now;
                    continue;
                },
                first = self.next(), if flow == Flow::Read => first,
            };
            let (mut gathered, mut next) = (Gathered::default(), Poll::Ready(first));
            while let Poll::Ready(read) = next
                && gathered.take(read, &line)
            {
                next = poll_fn(|cx| Poll::Ready(self.poll_next(cx))).await;
            }
            let is_last = gathered.is_last();
            if inputs.send(gathered.into_incoming(id)).await.is_err() || is_last {
                break;
            }
        }
        self.discard().await;
    }

    /// Reads and throws away until the other side closes.
    async fn discard(self) {
        let mut half = self.socket.into_inner();
        let mut buffer = [0; 4096];
        while matches!(half.read(&mut buffer).await, Ok(1..)) {}
    }
}

/// What the node is told of a message; an error ends the link.
fn frame(message: Message) -> Result<Frame, End> {
    Ok(match message {
        Message::Text(text) => Frame::Text(text.into()),
        // What the node keeps of a small frame must not keep the whole read buffer alive.
        Message::Binary(bytes) if bytes.len() < READ_BUFFER_BINARY => {
            Frame::Binary(Bytes::copy_from_slice(&bytes))
        }
        Message::Binary(bytes) => Frame::Binary(bytes),
        Message::Ping(payload) => Frame::Ping(payload),
        Message::Pong(payload) => Frame::Pong(payload),
        Message::Close(Some(CloseFrame { code, reason })) => {
            return Err(End::by_peer(code.into(), reason.as_str().into()));
        }
        Message::Close(None) => return Err(End::by_peer(1000, String::new())),
        Message::Frame(_) => return Err(End::lost("a raw frame was read")),
    })
}

/// The end that follows from what cannot be read.
fn unreadable(error: &Error) -> End {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            End::too_large(*size, *max_size)
        }
        Error::Utf8(_) => End::not_utf8(),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            End::lost("the connection was closed without a close frame")
        }
        Error::Protocol(error) => End::malformed(error),
        other => End::lost(other),
    }
}
