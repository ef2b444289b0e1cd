//! One connection to a node, for the commands: an application that decides by itself what is
//! repeated.
//!
//! A [`Connection`] is never opened again. Its [`Sender`] and [`Receiver`] work independently, from
//! two tasks or from one; there is no task, queue or wake-up of their own behind them. The sender
//! waits while as many messages are unanswered as its window allows, so somebody has to receive.
//! Answers come in the order in which messages were published. Pings are answered while somebody
//! receives. Nothing is repeated and nothing reconnects: that is for the caller to decide, who
//! knows the ids of its messages.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use slipstream_core::client::{
    self, ClientOptions, CodecError, ConnectError, Outcome, Received, Refused, Value,
};
use slipstream_core::connection::connect;
use slipstream_core::io::{End, Frame, Protocol};
use slipstream_core::message::Kind;
use slipstream_core::runtime::Runtime;
use slipstream_core::socket::{self, Reader as _, Socket as _, Writer as _};
use slipstream_core::wire::{Publish, Read, Settle, Welcome};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::runtime::Tokio;

type Socket = <Tokio as Runtime>::Socket;
type Reader = <Socket as socket::Socket>::Reader;
type Writer = <Socket as socket::Socket>::Writer;

/// Messages that [`Sender::publish`] encodes between two flushes.
const CHUNK: usize = 1024;

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// What to speak. Binary frames carry many messages each.
    pub protocol: Protocol,
    /// All else.
    pub client: ClientOptions,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self { protocol: Protocol::Postcard, client: ClientOptions::default() }
    }
}

/// Why a connection cannot be used, or not any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
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
    /// What cannot be understood, or not be said.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<End> for ConnectionError {
    fn from(End { close, by_peer, reason }: End) -> Self {
        match close {
            Some((code, reason)) => Self::Closed { code, reason, by_node: by_peer },
            None => Self::Lost(reason),
        }
    }
}

/// A connection to a node.
#[derive(Debug)]
pub struct Connection {
    /// What the node said first.
    pub welcome: Welcome,
    /// The half that publishes and settles.
    pub sender: Sender,
    /// The half that receives.
    pub receiver: Receiver,
    /// Reads so far.
    asked: u64,
}

impl Connection {
    /// Connects. What the application asks for stands in the query string of `url`.
    ///
    /// # Errors
    /// [`ConnectionError::Connect`] if there is no connection, [`ConnectionError::Closed`] if the
    /// node did not want it.
    pub async fn connect(url: &str, options: &ConnectionOptions) -> Result<Self, ConnectionError> {
        let limit = options.client.timeout;
        match timeout(limit, Self::greet(url, options)).await {
            Ok(client) => client,
            Err(_) => Err(cannot_connect(url, ConnectError::TimedOut(limit))),
        }
    }

    async fn greet(url: &str, options: &ConnectionOptions) -> Result<Self, ConnectionError> {
        let (protocol, of) = (options.protocol, &options.client);
        let opened = connect::<Tokio>(url, protocol, of.token.as_deref(), &of.limits())
            .await
            .map_err(|source| cannot_connect(url, source))?;
        let (mut reader, mut writer) = opened.transport.split(protocol).await;
        if protocol == Protocol::Postcard {
            writer.send([client::connect()].into_iter()).await?;
        }
        let welcome = loop {
            match poll_fn(|cx| reader.poll_next(cx)).await? {
                Frame::Ping(_) | Frame::Pong(_) => {}
                frame @ (Frame::Text(_) | Frame::Binary(_)) => break client::welcome(&frame)?,
            }
        };
        let window = of.window.clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(window));
        let writer = Arc::new(Mutex::new(writer));
        Ok(Self {
            welcome,
            sender: Sender { writer: writer.clone(), room: room.clone(), window, protocol },
            receiver: Receiver { reader, writer, room, kept: VecDeque::new(), conflated: 0 },
            asked: 0,
        })
    }

    /// Publishes and waits for the answers, one for each message, which are appended to
    /// `outcomes`: so those that came before an error are there, and answer the first of
    /// `messages` in their order. What else arrives meanwhile is kept for [`Receiver::next`].
    ///
    /// # Errors
    /// [`ConnectionError`]; what was published and not answered may be there or not, and can be
    /// published again with the same ids.
    pub async fn publish(
        &mut self,
        messages: &[Publish<'_>],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), ConnectionError> {
        let whole = outcomes.len() + messages.len();
        let mut kept = VecDeque::new();
        let mut sending = pin!(self.sender.publish(messages));
        let mut sent = false;
        while !sent || outcomes.len() < whole {
            tokio::select! {
                done = &mut sending, if !sent => match done {
                    // Answers may still be there to be read, and the reason behind them.
                    Ok(()) | Err(ConnectionError::Lost(_)) => sent = true,
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

    /// Asks for the converged value of a key, which is expected to have this kind; `None`:
    /// whichever it has. It is at least as new as all that was received on this connection, and
    /// as all that was published on it. What else arrives meanwhile is kept for
    /// [`Receiver::next`].
    ///
    /// # Errors
    /// [`ConnectionError`] if there is no answer; the inner error is the node's refusal.
    pub async fn get(
        &mut self,
        key: &str,
        kind: Option<Kind>,
    ) -> Result<Result<Value, Refused>, ConnectionError> {
        // In JSON each question names a kind.
        let kinds = match (self.sender.protocol, kind) {
            (Protocol::Json, None) => vec![Some(Kind::Sk), Some(Kind::Sa), Some(Kind::Sw)],
            (Protocol::Json | Protocol::Postcard, kind) => vec![kind],
        };
        let mut answer = self.ask(key, kinds[0]).await?;
        for kind in &kinds[1..] {
            if !matches!(&answer, Err(refused) if refused.code.as_str() == "WRONG_KIND") {
                break;
            }
            answer = self.ask(key, *kind).await?;
        }
        Ok(answer)
    }

    async fn ask(
        &mut self,
        key: &str,
        kind: Option<Kind>,
    ) -> Result<Result<Value, Refused>, ConnectionError> {
        self.asked += 1;
        let id = format!("get-{}", self.asked);
        self.sender.read(&Read { kind, id: &id, key }).await?;
        loop {
            match self.receiver.receive().await? {
                Received::Results(results) => {
                    if let Some(value) = results.into_iter().find(|value| *value.id == *id) {
                        return Ok(Ok(value));
                    }
                }
                Received::Outcomes(mut outcomes) => {
                    let refused = outcomes.iter().position(|outcome| {
                        matches!(outcome, Outcome::Refused(refused)
                            if refused.id.as_deref() == Some(&id))
                    });
                    let refused = refused.map(|at| outcomes.remove(at));
                    if !outcomes.is_empty() {
                        self.receiver.kept.push_back(Received::Outcomes(outcomes));
                    }
                    if let Some(Outcome::Refused(refused)) = refused {
                        return Ok(Err(refused));
                    }
                }
                other => self.receiver.kept.push_back(other),
            }
        }
    }
}

fn cannot_connect(url: &str, source: ConnectError) -> ConnectionError {
    // The query string may hold a token.
    ConnectionError::Connect { url: url.split('?').next().unwrap_or_default().into(), source }
}

fn lost(error: impl ToString) -> ConnectionError {
    ConnectionError::Lost(error.to_string())
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
    /// [`ConnectionError::Lost`] if the connection is gone (the receiver knows why),
    /// [`CodecError::BadValue`] with JSON; then nothing of its chunk is sent.
    pub async fn publish(&self, messages: &[Publish<'_>]) -> Result<(), ConnectionError> {
        for chunk in messages.chunks(CHUNK.min(self.window)) {
            let frames = client::publish(self.protocol, chunk)?;
            let count = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            // The receiver gives the room back.
            self.room.acquire_many(count).await.map_err(lost)?.forget();
            self.send(frames).await?;
        }
        Ok(())
    }

    /// Asks for the value of a key; waits while too much is unanswered. See [`Connection::get`].
    ///
    /// # Errors
    /// [`ConnectionError::Lost`] if the connection is gone.
    pub async fn read(&self, read: &Read<'_>) -> Result<(), ConnectionError> {
        self.room.acquire().await.map_err(lost)?.forget();
        self.send(client::read(self.protocol, read)).await
    }

    /// Says what became of deliveries.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`] if the connection is gone.
    pub async fn settle(&self, settles: &[Settle<'_>]) -> Result<(), ConnectionError> {
        self.send(client::settle(self.protocol, settles)).await
    }

    /// Closes the connection, after all that was sent.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`] if it is gone already.
    pub async fn close(&self) -> Result<(), ConnectionError> {
        let end = End::here(1000, String::new());
        Ok(self.writer.lock().await.farewell(&end).await?)
    }

    async fn send(&self, frames: Vec<Frame>) -> Result<(), ConnectionError> {
        Ok(self.writer.lock().await.send(frames.into_iter()).await?)
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
    /// [`ConnectionError`] once the connection has ended.
    pub async fn next(&mut self) -> Result<Received, ConnectionError> {
        match self.kept.pop_front() {
            Some(kept) => Ok(kept),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Result<Received, ConnectionError> {
        loop {
            let received = match poll_fn(|cx| self.reader.poll_next(cx)).await {
                Ok(Frame::Pong(_)) => continue,
                Ok(Frame::Ping(payload)) => {
                    self.answer(payload).await;
                    continue;
                }
                Ok(frame @ (Frame::Text(_) | Frame::Binary(_))) => {
                    client::received(&frame, &mut self.conflated).map_err(ConnectionError::from)
                }
                Err(end) => {
                    if let Ok(mut writer) = self.writer.try_lock() {
                        // The connection ends in any case.
                        let _ = writer.farewell(&end).await;
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
            let _ = writer.send([Frame::Pong(payload)].into_iter()).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Without a receiver there is no answer to wait for.
        self.room.close();
    }
}
