//! One open connection: a task that reads and a task that writes, and what the loop holds of them.
//!
//! The two never wait for each other. Each has half of the socket and a WebSocket codec of its
//! own, so there is no lock between them; what the reader wants sent (a pong, an ending) goes the
//! same way as what the node wants sent. Both end by one order, [`Flow::End`], of which the first
//! counts. What was queued before it is still sent, then the close frame, within
//! [`CLOSE_DEADLINE`]; then the sending side is shut and what still arrives is thrown away for at
//! most [`LINGER`], because a socket that is closed with unread bytes resets the connection, and
//! the close frame with it. [`Input::LinkDown`] is the last thing that is heard of a link.
//!
//! Nothing is decided here but what a WebSocket endpoint must answer by itself: pongs, and the
//! close codes 1002, 1007 and 4413 for what cannot be read at all.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tokio::TokioAdapter;
use async_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use async_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use slipstream_core::config::Limits;
use slipstream_core::ids::{DialId, LinkId};
use slipstream_core::io::{Close, CloseCode, Frame, Input, LinkUp, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::turn::Incoming;

/// For what was queued and the close frame to leave.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// How long the other side may take to close after us.
const LINGER: Duration = Duration::from_secs(1);
/// Batches that a writer may be behind. The core's send credit counts at least 64 bytes for a
/// frame, so that this is never reached; the channel takes memory only as it fills.
const QUEUE: usize = 16 * 1024;
/// Frames and bytes that one wake-up of a reader hands to the loop at most.
const BATCH_FRAMES: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;
/// Bytes that a writer takes from its queue before it reports them as sent.
const FLUSH_BYTES: usize = 256 * 1024;
/// A writer that sent more than this at once gives the memory back.
const LARGE: usize = 1024 * 1024;
/// Bytes that are gathered before the socket is given them.
const WRITE_BUFFER: usize = 64 * 1024;
/// One read from the socket. Binary links carry batches; a system call per 8 KiB would cost more
/// than the memory, which applications with JSON, of which there may be many, do without.
const READ_BUFFER_BINARY: usize = 64 * 1024;
const READ_BUFFER_JSON: usize = 8 * 1024;
/// Longest reason in a close frame (RFC 6455 section 5.5).
const MAX_REASON: usize = 123;

const BROKEN_FRAMING: u16 = 1002;
const NOT_UTF8: u16 = 1007;

/// A WebSocket over one half of a connection.
pub(crate) type WebSocket = WebSocketStream<TokioAdapter<Socket>>;

/// A TCP connection, whole or one half of it. Without a writing half it swallows what is written:
/// the codec that only reads answers pings and closes into nothing.
#[derive(Debug)]
pub(crate) struct Socket {
    read: Option<OwnedReadHalf>,
    write: Option<OwnedWriteHalf>,
}

impl Socket {
    /// The whole connection. Small frames are not held back for acknowledgements.
    pub(crate) fn new(stream: TcpStream) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(target: "slipstream", %error, "TCP_NODELAY was refused");
        }
        let (read, write) = stream.into_split();
        Self { read: Some(read), write: Some(write) }
    }

    /// Takes the writing half out.
    pub(crate) fn split_off_write(&mut self) -> Self {
        Self { read: None, write: self.write.take() }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.read {
            Some(read) => Pin::new(read).poll_read(cx, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.write {
            Some(write) => Pin::new(write).poll_write(cx, bytes),
            None => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.write {
            Some(write) => Pin::new(write).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if let Some(write) = &mut self.write {
            ready!(Pin::new(write).poll_shutdown(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// How a WebSocket that reads is set up: every limit is explicit.
pub(crate) fn reading(limits: &Limits, protocol: Protocol) -> WebSocketConfig {
    let largest = limits.max_frame_bytes();
    WebSocketConfig::default()
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest))
        .read_buffer_size(match protocol {
            Protocol::Json => READ_BUFFER_JSON,
            Protocol::Postcard => READ_BUFFER_BINARY,
        })
        .write_buffer_size(0)
        .max_write_buffer_size(1024)
}

/// How a WebSocket that writes is set up: room for what is gathered and for a frame on top.
fn writing(largest: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(0)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER + largest.saturating_mul(2).saturating_add(1024))
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The WebSocket; its socket is whole.
    pub(crate) socket: WebSocket,
    /// Which end of it this is.
    pub(crate) role: Role,
    /// Largest frame.
    pub(crate) largest: usize,
    /// The dial that it came from.
    pub(crate) dial: Option<DialId>,
    /// What was agreed on.
    pub(crate) protocol: Protocol,
    /// The other end.
    pub(crate) remote: String,
    /// Query string of the upgrade request.
    pub(crate) query: String,
    /// Its place among the connections that may be open.
    pub(crate) slot: Option<OwnedSemaphorePermit>,
}

impl Opened {
    /// What the core is told of it.
    pub(crate) fn up(&mut self, link: LinkId) -> LinkUp {
        LinkUp {
            link,
            dial: self.dial,
            protocol: self.protocol,
            remote: std::mem::take(&mut self.remote),
            query: std::mem::take(&mut self.query),
        }
    }

    /// Closes it at once, politely.
    pub(crate) async fn turn_away(mut self, code: CloseCode, reason: &str) {
        let write = self.socket.get_mut().get_mut().split_off_write();
        let mut writer = Writer::new(write, self.role, self.largest).await;
        let farewell = writer.farewell(Some((code.number(), reason.into())));
        if timeout(CLOSE_DEADLINE, farewell).await.is_ok_and(|sent| sent.is_ok()) {
            let _ = timeout(LINGER, discard(self.socket)).await;
        }
    }
}

/// What the two tasks of a link are to do.
#[derive(Debug)]
enum Flow {
    Read,
    Pause,
    End(End),
}

/// How a link ends.
#[derive(Debug)]
struct End {
    /// The close frame to send, if the connection is still good for one.
    close: Option<(u16, String)>,
    /// For the log.
    reason: String,
}

/// What a writer is given.
#[derive(Debug)]
enum Outgoing {
    /// From the node.
    Frames(Vec<Frame>),
    /// From the reader. The node knows nothing of it, so it is not reported as sent.
    Pong(Bytes),
}

/// The loop's hold on a link. Dropping it ends the link without a close frame.
#[derive(Debug)]
pub(crate) struct Link {
    pending: Vec<Frame>,
    queue: mpsc::Sender<Outgoing>,
    flow: watch::Sender<Flow>,
}

impl Link {
    /// Starts the tasks of a connection.
    pub(crate) fn open(id: LinkId, opened: Opened, inputs: mpsc::Sender<Incoming>) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE);
        let flow = watch::Sender::new(Flow::Read);
        let tasks = Tasks { id, inputs, queue: queue.clone(), flow: flow.clone() };
        tokio::spawn(tasks.run(opened, queued));
        Self { pending: Vec::new(), queue, flow }
    }

    /// Adds a frame to what [`Link::flush`] sends. Returns whether it is the first.
    pub(crate) fn transmit(&mut self, frame: Frame) -> bool {
        self.pending.push(frame);
        self.pending.len() == 1
    }

    /// Hands what was gathered to the writer.
    pub(crate) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let batch = Outgoing::Frames(std::mem::take(&mut self.pending));
        if self.queue.try_send(batch).is_err() {
            let reason = "the connection does not take what it is sent";
            end(&self.flow, Some((CloseCode::Limit.number(), reason.into())), reason);
        }
    }

    /// Stops reading.
    pub(crate) fn pause(&self) {
        self.flow.send_if_modified(|flow| {
            matches!(flow, Flow::Read).then(|| *flow = Flow::Pause).is_some()
        });
    }

    /// Reads on.
    pub(crate) fn resume(&self) {
        self.flow.send_if_modified(|flow| {
            matches!(flow, Flow::Pause).then(|| *flow = Flow::Read).is_some()
        });
    }

    /// Sends what was gathered and queued, then the close frame.
    pub(crate) fn close(&mut self, close: Close) {
        self.flush();
        let reason = format!("closed here: {} {}", close.code.number(), close.reason);
        end(&self.flow, Some((close.code.number(), close.reason)), reason);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        end(&self.flow, None, "the node has ended");
    }
}

/// Orders the end of a link, unless it was ordered before.
fn end(flow: &watch::Sender<Flow>, close: Option<(u16, String)>, reason: impl Into<String>) {
    flow.send_if_modified(|flow| {
        let first = !matches!(flow, Flow::End(_));
        if first {
            *flow = Flow::End(End { close, reason: reason.into() });
        }
        first
    });
}

/// What both tasks of a link need.
struct Tasks {
    id: LinkId,
    inputs: mpsc::Sender<Incoming>,
    queue: mpsc::Sender<Outgoing>,
    flow: watch::Sender<Flow>,
}

impl Tasks {
    async fn run(self, mut opened: Opened, queued: mpsc::Receiver<Outgoing>) {
        let write = opened.socket.get_mut().get_mut().split_off_write();
        let mut writer = Writer::new(write, opened.role, opened.largest).await;
        let reader = Reader {
            id: self.id,
            socket: opened.socket,
            inputs: self.inputs.clone(),
            queue: self.queue,
            flow: self.flow.clone(),
        };
        let mut reader = tokio::spawn(reader.run());
        let overdue = async {
            ended(&mut self.flow.subscribe()).await;
            sleep(CLOSE_DEADLINE).await;
        };
        tokio::select! {
            done = writer.run(self.id, queued, &self.inputs, &self.flow) => {
                if let Err(error) = done {
                    end(&self.flow, None, format!("cannot send: {error}"));
                }
            }
            () = overdue => {}
        }
        drop(writer);
        if timeout(LINGER, &mut reader).await.is_err() {
            reader.abort();
        }
        let reason = match &*self.flow.borrow() {
            Flow::End(end) => end.reason.clone(),
            Flow::Read | Flow::Pause => "the connection was lost".into(),
        };
        let down = Incoming::Input(Input::LinkDown { link: self.id, reason });
        // A loop that is gone needs to know nothing.
        let _ = self.inputs.send(down).await;
        drop(opened.slot);
    }
}

/// Returns when the end of a link was ordered.
async fn ended(flow: &mut watch::Receiver<Flow>) {
    // An error means that nobody can order anything any more.
    let _ = flow.wait_for(|flow| matches!(flow, Flow::End(_))).await;
}

struct Writer {
    socket: WebSocket,
    role: Role,
    largest: usize,
}

impl Writer {
    async fn new(socket: Socket, role: Role, largest: usize) -> Self {
        let (socket, config) = (TokioAdapter::new(socket), writing(largest));
        let socket = WebSocketStream::from_raw_socket(socket, role, Some(config)).await;
        Self { socket, role, largest }
    }

    /// Sends what is queued until the end is ordered, then the close frame.
    async fn run(
        &mut self,
        id: LinkId,
        mut queued: mpsc::Receiver<Outgoing>,
        inputs: &mpsc::Sender<Incoming>,
        flow: &watch::Sender<Flow>,
    ) -> Result<(), Error> {
        let mut orders = flow.subscribe();
        loop {
            // The queue comes first: what was queued before the end is sent before it.
            let first = tokio::select! {
                biased;
                outgoing = queued.recv() => outgoing,
                () = ended(&mut orders) => None,
            };
            let Some(first) = first else { break };
            let (frames, cost) = self.send(first, &mut queued).await?;
            if frames > 0 {
                let sent = Input::Sent { link: id, frames, cost };
                if inputs.send(Incoming::Input(sent)).await.is_err() {
                    break;
                }
            }
        }
        let close = match &*flow.borrow() {
            Flow::End(end) => end.close.clone(),
            Flow::Read | Flow::Pause => None,
        };
        self.farewell(close).await
    }

    /// Sends this and what else is queued, and flushes once. Returns frames and cost.
    async fn send(
        &mut self,
        first: Outgoing,
        queued: &mut mpsc::Receiver<Outgoing>,
    ) -> Result<(usize, usize), Error> {
        let (mut count, mut cost) = (0, 0);
        let mut next = Some(first);
        while let Some(outgoing) = next {
            match outgoing {
                Outgoing::Pong(payload) => self.socket.feed(Message::Pong(payload)).await?,
                Outgoing::Frames(frames) => {
                    for frame in frames {
                        count += 1;
                        cost += frame.cost();
                        self.socket.feed(message(frame)).await?;
                    }
                }
            }
            next = if cost < FLUSH_BYTES { queued.try_recv().ok() } else { None };
        }
        self.socket.flush().await?;
        if cost > LARGE {
            // The buffer that held it would keep its size for the life of the connection.
            let write = self.socket.get_mut().get_mut().split_off_write();
            *self = Self::new(write, self.role, self.largest).await;
        }
        Ok((count, cost))
    }

    /// Sends the close frame, if there is one, and shuts the sending side.
    async fn farewell(&mut self, close: Option<(u16, String)>) -> Result<(), Error> {
        if let Some((code, mut reason)) = close {
            reason.truncate(reason.floor_char_boundary(MAX_REASON));
            let close = CloseFrame { code: code.into(), reason: reason.into() };
            self.socket.close(Some(close)).await?;
        }
        Ok(self.socket.get_mut().get_mut().shutdown().await?)
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

struct Reader {
    id: LinkId,
    socket: WebSocket,
    inputs: mpsc::Sender<Incoming>,
    queue: mpsc::Sender<Outgoing>,
    flow: watch::Sender<Flow>,
}

impl Reader {
    /// Hands on what arrives, as much at a time as is there, until the end.
    async fn run(mut self) {
        let mut orders = self.flow.subscribe();
        loop {
            let paused = match &*orders.borrow_and_update() {
                Flow::Read => false,
                Flow::Pause => true,
                Flow::End(_) => break,
            };
            let first = tokio::select! {
                biased;
                _ = orders.changed() => continue,
                first = self.socket.next(), if !paused => first,
            };
            let mut frames = Vec::new();
            let mut bytes = 0;
            let mut next = Poll::Ready(first);
            while let Poll::Ready(item) = next {
                let frame = match item {
                    Some(Ok(message)) => self.frame(message),
                    Some(Err(error)) => Err(unreadable(&error)),
                    None => Err(lost("the connection was closed")),
                };
                match frame {
                    Ok(frame) => {
                        bytes += frame.cost();
                        frames.push(frame);
                    }
                    Err(End { close, reason }) => {
                        end(&self.flow, close, reason);
                        break;
                    }
                }
                if frames.len() >= BATCH_FRAMES || bytes >= BATCH_BYTES {
                    break;
                }
                next = poll_fn(|cx| Poll::Ready(self.socket.poll_next_unpin(cx))).await;
            }
            if frames.is_empty() {
                continue;
            }
            let received = Incoming::Received(self.id, frames);
            if self.inputs.send(received).await.is_err() {
                end(&self.flow, None, "the node has ended");
            }
        }
        discard(self.socket).await;
    }

    /// What the node is told of a message; an error ends the link. Answers pings.
    fn frame(&self, message: Message) -> Result<Frame, End> {
        Ok(match message {
            Message::Text(text) => Frame::Text(text.into()),
            // What the node keeps of a small frame must not keep the whole read buffer alive.
            Message::Binary(bytes) if bytes.len() < READ_BUFFER_BINARY => {
                Frame::Binary(Bytes::copy_from_slice(&bytes))
            }
            Message::Binary(bytes) => Frame::Binary(bytes),
            Message::Ping(payload) => {
                // Whoever sends pings faster than it reads the answers gets fewer answers.
                if self.queue.capacity() > QUEUE / 2 {
                    let _ = self.queue.try_send(Outgoing::Pong(payload.clone()));
                }
                Frame::Ping(payload)
            }
            Message::Pong(payload) => Frame::Pong(payload),
            Message::Close(None) => {
                let reason = "closed by the other side without a reason".into();
                return Err(End { close: Some((1000, String::new())), reason });
            }
            Message::Close(Some(CloseFrame { code, reason })) => {
                let code = u16::from(code);
                let text = format!("closed by the other side: {code} {reason}");
                return Err(End { close: Some((code, reason.to_string())), reason: text });
            }
            Message::Frame(_) => return Err(lost("a raw frame was read")),
        })
    }
}

fn lost(reason: impl Into<String>) -> End {
    End { close: None, reason: reason.into() }
}

/// The end that follows from what cannot be read.
fn unreadable(error: &Error) -> End {
    let (code, reason) = match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => (
            CloseCode::TooLarge.number(),
            format!("a frame of {size} bytes is above the limit of {max_size}"),
        ),
        Error::Utf8(_) => (NOT_UTF8, "text that is not UTF-8".into()),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            return lost("the connection was closed without a close frame");
        }
        Error::Protocol(error) => (BROKEN_FRAMING, error.to_string()),
        other => return lost(other.to_string()),
    };
    End { close: Some((code, reason.clone())), reason: format!("closed here: {code} {reason}") }
}

/// Reads and throws away until the other side closes.
async fn discard(socket: WebSocket) {
    let mut socket = socket.into_inner().into_inner();
    let mut buffer = [0; 4096];
    while matches!(socket.read(&mut buffer).await, Ok(1..)) {}
}
