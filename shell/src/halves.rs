//! The two halves of a connection: what reads frames from it, and what writes them.
//!
//! Here is all that this crate knows of the WebSocket library: its limits, all of them explicit,
//! and its errors, each with the end of the connection that follows from it. The library would drop
//! the connection without a close frame.

use std::fmt::Display;
use std::task::{Context, Poll};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use async_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use bytes::Bytes;
use futures_util::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Empty, Sink, empty, sink,
};
use futures_util::{SinkExt as _, StreamExt as _};
use slipstream_core::io::{End, Frame, Protocol};
use slipstream_core::socket::{self, Frames, Motion};

use crate::join::Join;

/// Bytes that are gathered before the socket is given them.
const WRITE_BUFFER: usize = 64 * 1024;
/// A binary frame above this is sent in pieces of it (RFC 6455 section 5.4), so that pings and
/// pongs need not wait for the whole. Text is not: clients that anybody may write take it for
/// granted that a frame is one object.
const PIECE: usize = 64 * 1024;
/// One read from the socket, and memory that every connection has. Measured with frames from 256
/// bytes to 240 KiB, 64 KiB is no faster than 16 KiB; applications with JSON, of which there may
/// be many, do with less.
const READ_BUFFER_BINARY: usize = 16 * 1024;
const READ_BUFFER_JSON: usize = 8 * 1024;

/// The half that writes. Its codec never reads.
#[derive(Debug)]
pub struct WriteHalf<W> {
    socket: WebSocketStream<Join<Empty, W>>,
    motion: Motion,
    role: Role,
    largest: usize,
}

impl<W: AsyncWrite + Unpin> WriteHalf<W> {
    pub(crate) async fn new(write: W, role: Role, largest: usize) -> Self {
        // Room for what is gathered and for a frame on top, twice, as masks and headers take some.
        let room = WRITE_BUFFER + largest.max(PIECE).saturating_mul(2).saturating_add(1024);
        let config = WebSocketConfig::default()
            .read_buffer_size(0)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(room);
        let motion = Motion::default();
        let half = Join::new(empty(), write, motion.clone());
        let socket = WebSocketStream::from_raw_socket(half, role, Some(config)).await;
        Self { socket, motion, role, largest }
    }
}

impl<W: AsyncWrite + Unpin> WriteHalf<W> {
    async fn feed(&mut self, message: Message) -> Result<(), End> {
        self.socket.feed(message).await.map_err(lost)
    }

    async fn feed_pieces(&mut self, mut rest: Bytes, frames: &mut impl Frames) -> Result<(), End> {
        let mut code = Data::Binary;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE));
            let piece = RawFrame::message(piece, OpCode::Data(code), rest.is_empty());
            self.feed(Message::Frame(piece)).await?;
            code = Data::Continue;
            while let Some(control) = frames.next_control() {
                self.feed(message(control)).await?;
            }
        }
        Ok(())
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> socket::Writer for WriteHalf<W> {
    async fn send(&mut self, mut frames: impl Frames) -> Result<(), End> {
        while let Some(frame) = frames.next() {
            match frame {
                Frame::Binary(bytes) if bytes.len() > PIECE => {
                    self.feed_pieces(bytes, &mut frames).await?;
                }
                frame => self.feed(message(frame)).await?,
            }
        }
        self.socket.flush().await.map_err(lost)
    }

    fn motion(&self) -> Motion {
        self.motion.clone()
    }

    async fn farewell(&mut self, end: &End) -> Result<(), End> {
        if let Some((code, reason)) = end.close_frame() {
            let close = CloseFrame { code: code.into(), reason: reason.into() };
            self.socket.close(Some(close)).await.map_err(lost)?;
        }
        self.socket.get_mut().close().await.map_err(lost)
    }

    async fn renewed(self) -> Self {
        Self::new(self.socket.into_inner().write, self.role, self.largest).await
    }
}

fn lost(error: impl Display) -> End {
    End::silent(format!("cannot send: {error}"))
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
pub struct ReadHalf<R> {
    socket: WebSocketStream<Join<R, Sink>>,
    motion: Motion,
}

impl<R: AsyncRead + Unpin> ReadHalf<R> {
    /// `rest` is what was read behind the handshake.
    pub(crate) async fn new(
        read: R,
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
        let motion = Motion::default();
        let half = Join::new(read, sink(), motion.clone());
        let socket = WebSocketStream::from_partially_read(half, rest, role, Some(config)).await;
        Self { socket, motion }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> socket::Reader for ReadHalf<R> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        self.socket.poll_next_unpin(cx).map(|next| match next {
            Some(Ok(message)) => frame(message),
            Some(Err(error)) => Err(unreadable(&error)),
            None => Err(End::lost("the connection was closed")),
        })
    }

    fn motion(&self) -> Motion {
        self.motion.clone()
    }

    async fn discard(&mut self) -> bool {
        matches!(self.socket.get_mut().read(&mut [0; 4096]).await, Ok(1..))
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
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::cut(),
        Error::Protocol(error) => End::malformed(error),
        other => End::lost(other),
    }
}
