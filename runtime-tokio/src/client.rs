//! The other end: an application of a node that may run anywhere.
//!
//! A [`Client`] is one connection. Its [`Sender`] and [`Receiver`] work independently, from two
//! tasks or from one; there is no task, queue or wake-up of their own behind them. The sender
//! waits while as many messages are unanswered as its window allows, so somebody has to receive.
//! Answers come in the order in which messages were published. Pings are answered while somebody
//! receives. Nothing is repeated and nothing reconnects: that is for the caller to decide, who
//! knows the ids of its messages.

mod frames;
mod json;
mod reading;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slipstream_core::config::Limits;
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::wire::{Publish, Read, Settle, Welcome};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::dial::{self, ConnectError};
use crate::halves::{Reader, Writer};
use crate::link::End;
pub use frames::{Delivery, Outcome, Refused, Text, Version};
pub use reading::Value;

/// Messages that [`Sender::publish`] encodes between two flushes.
const CHUNK: usize = 1024;

/// How to connect.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// What to speak. Binary frames carry many messages each.
    pub protocol: Protocol,
    /// Bearer token.
    pub token: Option<String>,
    /// For connecting, up to and with the node's greeting. Default 5 s.
    pub timeout: Duration,
    /// Messages that may be unanswered. Default 8192.
    pub window: usize,
    /// Largest frame that is taken. Default 64 MiB.
    pub max_frame_bytes: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            protocol: Protocol::Postcard,
            token: None,
            timeout: Duration::from_secs(5),
            window: 8192,
            max_frame_bytes: 64 << 20,
        }
    }
}

/// Why a connection cannot be used, or not any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no connection.
    #[error("cannot connect to {url}: {source}")]
    Connect {
        /// Where, without the query string.
        url: String,
        /// Why.
        source: ConnectError,
    },
    /// Closed with a close code: by the node, or here, for a frame that cannot be read.
    #[error("the connection was closed: {code} {reason}")]
    Closed {
        /// The code; those from 4400 on are of the protocol.
        code: u16,
        /// For people.
        reason: String,
        /// Whether it was the node that closed.
        by_node: bool,
    },
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The node sent what is not in the protocol.
    #[error("the node sent a frame that cannot be understood: {0}; are the versions compatible?")]
    Protocol(String),
    /// A value to publish is no JSON.
    #[error("the value of {key} is not one JSON value: {reason}")]
    BadValue {
        /// Key of the message.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<End> for ClientError {
    fn from(End { close, by_peer, reason }: End) -> Self {
        match close {
            Some((code, reason)) => Self::Closed { code, reason, by_node: by_peer },
            None => Self::Lost(reason),
        }
    }
}

/// What a node sends.
#[derive(Debug)]
pub enum Received {
    /// Answers, in the order of what was sent.
    Outcomes(Vec<Outcome>),
    /// Answers to reads, in the order of the reads.
    Results(Vec<Value>),
    /// Deliveries, in the order of the node's log.
    Deliveries(Vec<Delivery>),
    /// All that was in the log at the greeting has been handed over.
    Synced,
}

/// A connection to a node.
#[derive(Debug)]
pub struct Client {
    /// What the node said first.
    pub welcome: Welcome,
    /// The half that publishes and settles.
    pub sender: Sender,
    /// The half that receives.
    pub receiver: Receiver,
    /// Reads so far.
    asked: u64,
}

impl Client {
    /// Connects. What the application asks for stands in the query string of `url`.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if there is no connection, [`ClientError::Closed`] if the node
    /// did not want it.
    pub async fn connect(url: &str, options: &ClientOptions) -> Result<Self, ClientError> {
        match timeout(options.timeout, Self::greet(url, options)).await {
            Ok(client) => client,
            Err(_) => Err(cannot_connect(url, ConnectError::TimedOut(options.timeout))),
        }
    }

    async fn greet(url: &str, options: &ClientOptions) -> Result<Self, ClientError> {
        let limits = Limits {
            handshake_timeout: options.timeout,
            max_message_bytes: options.max_frame_bytes / 4,
            ..Limits::default()
        };
        let protocol = options.protocol;
        let opened = dial::connect(url, protocol, options.token.as_deref(), &limits)
            .await
            .map_err(|source| cannot_connect(url, source))?;
        let (mut reader, mut writer) = opened.split().await;
        if protocol == Protocol::Postcard {
            writer.feed(frames::connect()).await.map_err(lost)?;
            writer.flush().await.map_err(lost)?;
        }
        let welcome = loop {
            match reader.next().await? {
                Frame::Ping(_) | Frame::Pong(_) => {}
                frame @ (Frame::Text(_) | Frame::Binary(_)) => break frames::welcome(&frame)?,
            }
        };
        let window = options.window.clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(window));
        let writer = Arc::new(Mutex::new(writer));
        Ok(Self {
            welcome,
            sender: Sender { writer: writer.clone(), room: room.clone(), window, protocol },
            receiver: Receiver { reader, writer, room, kept: VecDeque::new(), conflated: 0 },
            asked: 0,
        })
    }

    /// Publishes and waits for the answers, one for each message. What else arrives meanwhile is
    /// kept for [`Receiver::next`].
    ///
    /// # Errors
    /// [`ClientError`]; what was published and not answered may be there or not, and can be
    /// published again with the same ids.
    pub async fn publish(&mut self, messages: &[Publish<'_>]) -> Result<Vec<Outcome>, ClientError> {
        let mut outcomes = Vec::with_capacity(messages.len());
        self.publish_into(messages, &mut outcomes).await?;
        Ok(outcomes)
    }

    /// [`Client::publish`] that appends the answers to `outcomes`, so that those which came
    /// before an error are there: they answer the first of `messages`, in their order.
    ///
    /// # Errors
    /// As of [`Client::publish`].
    pub async fn publish_into(
        &mut self,
        messages: &[Publish<'_>],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), ClientError> {
        let whole = outcomes.len() + messages.len();
        let mut kept = VecDeque::new();
        let mut sending = pin!(self.sender.publish(messages));
        let mut sent = false;
        while !sent || outcomes.len() < whole {
            tokio::select! {
                done = &mut sending, if !sent => match done {
                    // Answers may still be there to be read, and the reason behind them.
                    Ok(()) | Err(ClientError::Lost(_)) => sent = true,
                    Err(error) => return Err(error),
                },
                received = self.receiver.receive() => match received? {
                    Received::Outcomes(batch) => {
                        outcomes.extend(batch.into_iter().filter(Outcome::answers_publish));
                    }
                    other => kept.push_back(other),
                }
            }
        }
        self.receiver.kept.append(&mut kept);
        Ok(())
    }
}

fn cannot_connect(url: &str, source: ConnectError) -> ClientError {
    // The query string may hold a token.
    ClientError::Connect { url: url.split('?').next().unwrap_or_default().into(), source }
}

fn lost(error: impl ToString) -> ClientError {
    ClientError::Lost(error.to_string())
}

/// The half of a connection that publishes and settles. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Sender {
    // Per batch, and only a pong or another clone ever competes for it.
    writer: Arc<Mutex<Writer>>,
    room: Arc<Semaphore>,
    window: usize,
    protocol: Protocol,
}

impl Sender {
    /// Publishes. Returns when the socket has taken the last message, not when it is answered;
    /// waits while too many are unanswered.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the connection is gone (the receiver knows why),
    /// [`ClientError::BadValue`] with JSON; then nothing of its chunk is sent.
    pub async fn publish(&self, messages: &[Publish<'_>]) -> Result<(), ClientError> {
        for chunk in messages.chunks(CHUNK.min(self.window)) {
            let frames = frames::publish(self.protocol, chunk)?;
            let count = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            // The receiver gives the room back.
            self.room.acquire_many(count).await.map_err(lost)?.forget();
            self.send(frames).await?;
        }
        Ok(())
    }

    /// Asks for the value of a key; waits while too much is unanswered. See [`Client::get`].
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the connection is gone.
    pub async fn read(&self, read: &Read<'_>) -> Result<(), ClientError> {
        self.room.acquire().await.map_err(lost)?.forget();
        self.send(reading::read(self.protocol, read)).await
    }

    /// Says what became of deliveries.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the connection is gone.
    pub async fn settle(&self, settles: &[Settle<'_>]) -> Result<(), ClientError> {
        self.send(frames::settle(self.protocol, settles)).await
    }

    /// Closes the connection, after all that was sent.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if it is gone already.
    pub async fn close(&self) -> Result<(), ClientError> {
        let close = Some((1000, String::new()));
        self.writer.lock().await.farewell(close).await.map_err(lost)
    }

    async fn send(&self, frames: Vec<Frame>) -> Result<(), ClientError> {
        let mut writer = self.writer.lock().await;
        for frame in frames {
            writer.feed(frame).await.map_err(lost)?;
        }
        writer.flush().await.map_err(lost)
    }
}

/// The half of a connection that receives.
#[derive(Debug)]
pub struct Receiver {
    reader: Reader,
    writer: Arc<Mutex<Writer>>,
    room: Arc<Semaphore>,
    kept: VecDeque<Received>,
    conflated: u64,
}

impl Receiver {
    /// The next frame of the node. Can be given up and called again without loss.
    ///
    /// # Errors
    /// [`ClientError`] once the connection has ended.
    pub async fn next(&mut self) -> Result<Received, ClientError> {
        match self.kept.pop_front() {
            Some(kept) => Ok(kept),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Result<Received, ClientError> {
        loop {
            let received = match self.reader.next().await {
                Ok(Frame::Pong(_)) => continue,
                Ok(Frame::Ping(payload)) => {
                    self.answer(payload).await;
                    continue;
                }
                Ok(frame @ (Frame::Text(_) | Frame::Binary(_))) => {
                    frames::received(&frame, &mut self.conflated)
                }
                Err(end) => {
                    if let Ok(mut writer) = self.writer.try_lock() {
                        // The connection ends in any case.
                        let _ = writer.farewell(end.close.clone()).await;
                    }
                    Err(end.into())
                }
            };
            let received = match received {
                Ok(Some(received)) => received,
                Ok(None) => continue,
                Err(error) => {
                    // Nobody waits for answers that cannot come.
                    self.room.close();
                    return Err(error);
                }
            };
            let answers = match &received {
                Received::Outcomes(outcomes) => {
                    outcomes.iter().filter(|outcome| outcome.answers_publish()).count()
                }
                Received::Results(results) => results.len(),
                Received::Deliveries(_) | Received::Synced => 0,
            };
            self.room.add_permits(answers);
            return Ok(received);
        }
    }

    /// Answers a ping, unless the sender is at work: waiting for it here could mean that each
    /// side waits for the other to read.
    async fn answer(&self, payload: Bytes) {
        if let Ok(mut writer) = self.writer.try_lock() {
            // A failure shows at the next read.
            let _ = writer.feed(Frame::Pong(payload)).await;
            let _ = writer.flush().await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Without a receiver there is no answer to wait for.
        self.room.close();
    }
}
