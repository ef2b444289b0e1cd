//! The task behind an application: it carries frames between its [`Application`] and a connection,
//! and opens another when that is lost.
//!
//! What is said, and to whom it is told, is decided there. The node is read while frames are sent
//! to it, or each side could wait for the other to read.

use std::pin::pin;
use std::time::Duration;

use slipstream_core::client::{Application, ConnectError, Ended, Filter, Turn};
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::shared::Shared;

use crate::client::ClientOptions;
use crate::clock::Clock;
use crate::dial;
use crate::halves::{Reader, Writer};
use crate::link::{CLOSE_DEADLINE, Greeted, LINGER, Opened};
use crate::stand_ins::{Alarm, Sender, select, sleep, timeout};
use crate::turn::Incoming;

/// Where the node is.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// In this process.
    Here(Sender<Incoming>),
    /// At this URL.
    Remote(String),
}

impl Target {
    /// At this URL. Its query string is not kept: it may hold a token.
    pub(crate) fn remote(url: &str) -> Self {
        Self::Remote(url.split('?').next().unwrap_or_default().into())
    }

    /// Opens a connection for an application that asks for `filter`.
    pub(crate) async fn open(
        &self,
        filter: &Filter,
        options: &ClientOptions,
    ) -> Result<Greeted, ConnectError> {
        let limit = options.timeout;
        match timeout(limit, self.greet(filter, options)).await {
            Some(opened) => opened,
            None => Err(ConnectError::TimedOut(limit)),
        }
    }

    async fn greet(
        &self,
        filter: &Filter,
        options: &ClientOptions,
    ) -> Result<Greeted, ConnectError> {
        let limits = options.limits();
        let opened = match self {
            Self::Here(inputs) => {
                let (here, there) = Opened::pair(limits.max_frame_bytes());
                let there = there.up("this process".into(), filter.query());
                inputs.send(Incoming::Opened(Box::new(there))).await.map_err(|_| Ended::Here)?;
                here
            }
            Self::Remote(url) => {
                let url = filter.url(url);
                dial::connect(&url, Protocol::Postcard, options.token.as_deref(), &limits).await?
            }
        };
        Ok(opened.greet::<Ended>().await?)
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
    pub(crate) async fn run(self, opened: Greeted) {
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
            select! {
                () = rest.as_mut() => return false,
                () = self.application.wait(Application::poll_changed) => {}
            }
        }
        true
    }

    /// Serves it on one connection. Answers why that has ended.
    async fn serve(&self, connection: Greeted) -> Ended {
        let Greeted { mut reader, mut writer, welcome } = connection;
        let now = self.clock.now().instant;
        self.application.with(|it| it.connected(&welcome, now));
        let served = self.exchange(&mut reader, &mut writer).await;
        // The other side may take nothing any more. A socket that is closed with unread bytes
        // resets the connection, and what was said last with it.
        let _ = timeout(CLOSE_DEADLINE, writer.farewell(Some((1000, String::new())))).await;
        let _ = timeout(LINGER, reader.discard()).await;
        served.err().unwrap_or(Ended::Here)
    }

    async fn exchange(&self, reader: &mut Reader, writer: &mut Writer) -> Result<(), Ended> {
        let mut alarm = Alarm::new();
        loop {
            let now = self.clock.now().instant;
            match self.application.with(|it| it.turn(now))? {
                Turn::Send(frames) => self.send(frames, reader, writer).await?,
                Turn::Wait { reads, until } => {
                    select! {
                        frame = reader.next(), if reads => self.received(&frame?)?,
                        () = self.application.wait(Application::poll_changed) => {},
                        () = alarm.until(Some(self.clock.deadline(until))) => {}
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
        reader: &mut Reader,
        writer: &mut Writer,
    ) -> Result<(), Ended> {
        let (mut sending, mut alarm) = (pin!(writer.send(frames)), Alarm::new());
        loop {
            let now = self.clock.now().instant;
            let until = self.application.with(|it| it.patience(now))?;
            select! {
                sent = sending.as_mut() => return Ok(sent?),
                frame = reader.next() => self.received(&frame?)?,
                () = alarm.until(Some(self.clock.deadline(until))) => {}
            }
        }
    }

    fn received(&self, frame: &Frame) -> Result<(), Ended> {
        let now = self.clock.now().instant;
        self.application.with(|it| it.received(frame, now))
    }
}

impl Drop for Pump {
    /// Also with a runtime that ends, or by a panic: nobody waits for what cannot come.
    fn drop(&mut self) {
        self.application.with(|it| it.finish(Ended::Here));
    }
}
