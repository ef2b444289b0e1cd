//! One connection to a node for each of the two applications, at the least cost.
//!
//! What is measured is the nodes, on a machine that both applications share with them. The client
//! of the library keeps a copy of each message until it is answered, and a ticket for whoever
//! waits: here nothing is repeated, and messages are known by their numbers. So frames are written
//! and read directly, by [`slipstream_core::client`]; all else is as in the library.
//!
//! The sender waits while as many messages are unanswered as its window allows: somebody has to
//! receive. Pings are answered while somebody does.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use slipstream_core::client::{
    self, ClientOptions, ConnectError, Ended, Filter, Outcome, Received,
};
use slipstream_core::connection::connect;
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::runtime::{Runtime, within};
use slipstream_core::socket::{self, Reader as _, Socket as _, Writer as _};
use slipstream_core::wire::{Publish, Settle};
use tokio::sync::{Mutex, Semaphore};

use crate::runtime::Tokio;

type LineSocket = <Tokio as Runtime>::Socket;
type LineReader = <LineSocket as socket::Socket>::Reader;
type LineWriter = <LineSocket as socket::Socket>::Writer;

/// Connects to the node behind `url`, and waits for its greeting.
pub(super) async fn open(
    url: &str,
    filter: &Filter,
    options: &ClientOptions,
) -> Result<(LineSender, LineReceiver), ConnectError> {
    let limit = options.timeout;
    let opened = within::<Tokio, _>(limit, greet(&options.url(url, filter), options)).await;
    opened.unwrap_or(Err(ConnectError::TimedOut(limit)))
}

async fn greet(
    url: &str,
    options: &ClientOptions,
) -> Result<(LineSender, LineReceiver), ConnectError> {
    let (protocol, token) = (options.protocol, options.token.as_deref());
    let opened = connect::<Tokio>(url, protocol, token, &options.limits()).await?;
    let (mut reader, mut writer) = opened.transport.split(protocol).await;
    if protocol == Protocol::Postcard {
        writer.send([client::connect()].into_iter()).await?;
    }
    loop {
        match poll_fn(|cx| reader.poll_next(cx)).await? {
            Frame::Ping(_) | Frame::Pong(_) => {}
            frame @ (Frame::Text(_) | Frame::Binary(_)) => {
                client::welcome(&frame).map_err(Ended::from)?;
                break;
            }
        }
    }
    let window = options.window.clamp(1, Semaphore::MAX_PERMITS);
    let (room, writer) = (Arc::new(Semaphore::new(window)), Arc::new(Mutex::new(writer)));
    let sender = LineSender { writer: writer.clone(), room: room.clone(), window, protocol };
    Ok((sender, LineReceiver { reader, writer, room, conflated: 0 }))
}

/// The half that publishes and settles. Clones share the connection.
#[derive(Debug, Clone)]
pub(super) struct LineSender {
    // Per batch, and only a pong or another clone ever competes for it.
    writer: Arc<Mutex<LineWriter>>,
    room: Arc<Semaphore>,
    window: usize,
    protocol: Protocol,
}

impl LineSender {
    /// Publishes. Returns when the socket has taken the last message; waits while too many are
    /// unanswered.
    pub(super) async fn publish(&self, messages: &[Publish<'_>]) -> Result<(), Ended> {
        for chunk in messages.chunks(self.window) {
            let frames = client::publish(self.protocol, chunk)?;
            let count = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            // The receiver gives the room back, and knows why there is none any more.
            let room = self.room.acquire_many(count).await;
            room.map_err(|error| Ended::Lost(error.to_string()))?.forget();
            self.writer.lock().await.send(frames.into_iter()).await?;
        }
        Ok(())
    }

    /// Says what became of deliveries.
    pub(super) async fn settle(&self, settles: &[Settle<'_>]) -> Result<(), Ended> {
        let frames = client::settle(self.protocol, settles);
        Ok(self.writer.lock().await.send(frames.into_iter()).await?)
    }
}

/// The half that receives.
#[derive(Debug)]
pub(super) struct LineReceiver {
    reader: LineReader,
    writer: Arc<Mutex<LineWriter>>,
    room: Arc<Semaphore>,
    conflated: u64,
}

impl LineReceiver {
    /// What the node says next.
    pub(super) async fn next(&mut self) -> Result<Received, Ended> {
        loop {
            let received = match poll_fn(|cx| self.reader.poll_next(cx)).await? {
                Frame::Pong(_) => None,
                Frame::Ping(payload) => {
                    self.answer(payload).await;
                    None
                }
                frame @ (Frame::Text(_) | Frame::Binary(_)) => {
                    client::received(&frame, &mut self.conflated)?
                }
            };
            let Some(received) = received else { continue };
            if let Received::Outcomes(outcomes) = &received {
                let answers = outcomes.iter().filter(|outcome| Outcome::answers_publish(outcome));
                self.room.add_permits(answers.count());
            }
            return Ok(received);
        }
    }

    /// Answers a ping, unless the sender is at work: waiting for it here could mean that each side
    /// waits for the other to read.
    async fn answer(&self, payload: Bytes) {
        if let Ok(mut writer) = self.writer.try_lock() {
            // A failure shows at the next read.
            let _ = writer.send([Frame::Pong(payload)].into_iter()).await;
        }
    }
}

impl Drop for LineReceiver {
    fn drop(&mut self) {
        // Without a receiver there is no answer to wait for.
        self.room.close();
    }
}
