//! The task behind an application: it carries frames between its [`Application`] and a connection,
//! and opens another when that is lost.
//!
//! What is said, and to whom it is told, is decided there. The node is read while frames are sent
//! to it, or each side could wait for the other to read.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slipstream_core::client::{self, Application, ConnectError, Ended, Filter, Turn};
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::shared::{Lock, Shared, Wakes};
use slipstream_core::wire::Welcome;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until, timeout};

use crate::client::ClientOptions;
use crate::clock::Clock;
use crate::dial;
use crate::halves::{Reader, Writer};
use crate::link::{CLOSE_DEADLINE, LINGER};
use crate::pipe::{Pipe, PipeInlet, PipeOutlet};
use crate::turn::Incoming;

/// A lock of this runtime's threads, held only for a moment and never while waiting.
struct Locked<T>(Mutex<T>);

impl<T: Send> Lock<T> for Locked<T> {
    fn with(&self, run: &mut dyn FnMut(&mut T)) {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Something for several tasks to hold on to.
pub(crate) fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T> {
    Shared::new(Arc::new(Locked(Mutex::new(what))))
}

/// Where the node is.
#[derive(Clone)]
pub(crate) enum Target {
    /// In this process.
    Here(mpsc::Sender<Incoming>),
    /// At this URL.
    Remote(String),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "this process",
            // The query string may hold a token.
            Self::Remote(url) => url.split('?').next().unwrap_or_default(),
        })
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    inlet: Inlet,
    outlet: Outlet,
    welcome: Welcome,
}

#[derive(Debug)]
enum Inlet {
    Socket(Box<Reader>),
    Pipe(PipeInlet),
}

#[derive(Debug)]
enum Outlet {
    Socket(Box<Writer>),
    Pipe(PipeOutlet),
}

impl Inlet {
    async fn next(&mut self) -> Result<Frame, Ended> {
        match self {
            Self::Socket(reader) => Ok(reader.next().await?),
            Self::Pipe(pipe) => Ok(pipe.next().await?),
        }
    }

    /// Reads and throws away until the other side closes: a socket that is closed with unread bytes
    /// resets the connection, and what was said last with it.
    async fn discard(self) {
        match self {
            Self::Socket(reader) => reader.discard().await,
            Self::Pipe(_) => {}
        }
    }
}

impl Outlet {
    async fn send(&mut self, frames: Vec<Frame>) -> Result<(), Ended> {
        let lost = |error: &dyn fmt::Display| Ended::Lost(error.to_string());
        match self {
            Self::Socket(writer) => {
                for frame in frames {
                    writer.feed(frame).await.map_err(|error| lost(&error))?;
                }
                writer.flush().await.map_err(|error| lost(&error))
            }
            Self::Pipe(pipe) => Ok(pipe.send(frames).await?),
        }
    }

    async fn close(self) {
        match self {
            Self::Socket(mut writer) => {
                // The connection ends in any case.
                let _ = writer.farewell(Some((1000, String::new()))).await;
            }
            Self::Pipe(pipe) => pipe.close().await,
        }
    }
}

impl Target {
    /// Opens a connection for an application that asks for `filter`.
    pub(crate) async fn open(
        &self,
        filter: &Filter,
        options: &ClientOptions,
    ) -> Result<Connection, ConnectError> {
        let limit = options.timeout;
        match timeout(limit, self.greet(filter, options)).await {
            Ok(opened) => opened,
            Err(_) => Err(ConnectError::TimedOut(limit)),
        }
    }

    async fn greet(
        &self,
        filter: &Filter,
        options: &ClientOptions,
    ) -> Result<Connection, ConnectError> {
        let (mut inlet, mut outlet) = match self {
            Self::Here(inputs) => {
                let (answer, answered) = oneshot::channel();
                let joining = Incoming::Joined(filter.query(), answer);
                inputs.send(joining).await.map_err(|_| Ended::Here)?;
                let Pipe { inlet, outlet } = answered.await.map_err(|_| Ended::Here)?;
                (Inlet::Pipe(inlet), Outlet::Pipe(outlet))
            }
            Self::Remote(url) => {
                let url = dial::with_query(url, &filter.query());
                let limits = options.limits();
                let token = options.token.as_deref();
                let opened = dial::connect(&url, Protocol::Postcard, token, &limits).await?;
                let (reader, writer) = opened.split().await;
                (Inlet::Socket(Box::new(reader)), Outlet::Socket(Box::new(writer)))
            }
        };
        outlet.send(vec![client::connect()]).await?;
        let welcome = loop {
            match inlet.next().await? {
                Frame::Ping(_) | Frame::Pong(_) => {}
                frame @ (Frame::Text(_) | Frame::Binary(_)) => {
                    break client::welcome(&frame).map_err(Ended::from)?;
                }
            }
        };
        Ok(Connection { inlet, outlet, welcome })
    }
}

/// See the module.
pub(crate) struct Pump {
    pub(crate) application: Shared<Application>,
    pub(crate) target: Target,
    pub(crate) filter: Filter,
    pub(crate) options: ClientOptions,
    pub(crate) clock: Clock,
}

impl Pump {
    /// Serves the application until it is done, or its session is over.
    pub(crate) async fn run(self, opened: Connection) {
        let mut next: Result<_, ConnectError> = Ok(opened);
        loop {
            let why = match next {
                Ok(connection) => self.serve(connection).await,
                Err(error) => error.into(),
            };
            let Some(wait) = self.application.with(|it| it.lost(&why)) else { break };
            tracing::debug!(target: "slipstream", %why, ?wait, "connecting again");
            if self.rest(wait).await {
                break;
            }
            next = self.target.open(&self.filter, &self.options).await;
        }
    }

    /// Waits for the time to connect again. Answers whether there is nothing left to connect for.
    async fn rest(&self, wait: Duration) -> bool {
        let mut rest = pin!(sleep(wait));
        while !self.application.with(|it| it.is_done()) {
            tokio::select! {
                () = rest.as_mut() => return false,
                () = self.changed() => {}
            }
        }
        true
    }

    /// Serves it on one connection. Answers why that has ended.
    async fn serve(&self, connection: Connection) -> Ended {
        let Connection { mut inlet, mut outlet, welcome } = connection;
        let now = self.clock.now().instant;
        self.application.with(|it| it.connected(&welcome, now));
        let served = self.exchange(&mut inlet, &mut outlet).await;
        // The other side may take nothing any more.
        let _ = timeout(CLOSE_DEADLINE, outlet.close()).await;
        let _ = timeout(LINGER, inlet.discard()).await;
        served.err().unwrap_or(Ended::Here)
    }

    async fn exchange(&self, inlet: &mut Inlet, outlet: &mut Outlet) -> Result<(), Ended> {
        loop {
            let now = self.clock.now().instant;
            match self.application.with(|it| it.turn(now))? {
                Turn::Send(frames) => self.send(frames, inlet, outlet).await?,
                Turn::Wait { reads, until } => {
                    tokio::select! {
                        biased;
                        frame = inlet.next(), if reads => self.received(&frame?)?,
                        () = self.changed() => {}
                        () = sleep_until(self.clock.deadline(until)) => {}
                    }
                }
                Turn::Done => return Ok(()),
            }
        }
    }

    /// Sends frames, and reads meanwhile.
    async fn send(
        &self,
        frames: Vec<Frame>,
        inlet: &mut Inlet,
        outlet: &mut Outlet,
    ) -> Result<(), Ended> {
        let mut sending = pin!(outlet.send(frames));
        loop {
            let now = self.clock.now().instant;
            let until = self.application.with(|it| it.patience(now))?;
            tokio::select! {
                biased;
                sent = &mut sending => return sent,
                frame = inlet.next() => self.received(&frame?)?,
                () = sleep_until(self.clock.deadline(until)) => {}
            }
        }
    }

    fn received(&self, frame: &Frame) -> Result<(), Ended> {
        let now = self.clock.now().instant;
        self.application.with(|it| it.received(frame, now))
    }

    async fn changed(&self) {
        poll_fn(|cx| self.application.with(|it| it.poll_changed(cx))).await;
    }
}

impl Drop for Pump {
    /// Also with a runtime that ends, or by a panic: nobody waits for what cannot come.
    fn drop(&mut self) {
        self.application.with(|it| it.finish(Ended::Here));
    }
}
