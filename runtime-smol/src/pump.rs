//! The task behind an application: it owns a [`Session`] and its connection, and opens another
//! when that is lost.
//!
//! The session decides what is said; here frames are carried, and what was heard is handed to
//! those who wait for it. The node is read while frames are sent to it, or each side could wait
//! for the other to read. What an application that receives has not
//! settled is about two windows at most, then nothing more is read.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_channel::oneshot;
use slipstream_core::client::{
    self, Beat, ConnectError, Delivery, Ended, Filter, Heard, Publication, PublishError, ReadError,
    Receipt, Session, Settlement, Value,
};
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::message::Kind;
use slipstream_core::wire::Welcome;

use crate::client::ClientOptions;
use crate::clock::Clock;
use crate::dial;
use crate::halves::{Reader, Writer};
use crate::link::{CLOSE_DEADLINE, LINGER};
use crate::pipe::{Pipe, PipeInlet, PipeOutlet};
use crate::stand_ins::{Alarm, Receiver, Sender, select, sleep, timeout};
use crate::turn::Incoming;

/// Who waits for a receipt.
pub(crate) type PublishTicket = oneshot::Sender<Result<Receipt, PublishError>>;
/// Who waits for a value.
pub(crate) type ReadTicket = oneshot::Sender<Result<Value, ReadError>>;

/// What an application asks of its task.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(Publication, PublishTicket),
    Read(String, Option<Kind>, ReadTicket),
    /// Answer when all that was asked before is answered and all that was settled is said.
    Close(oneshot::Sender<()>),
}

/// What an application says of deliveries.
#[derive(Debug)]
pub(crate) enum Said {
    Settled(Settlement),
    /// It has let go of its subscription, and of the session with it.
    Left,
}

/// What an application is handed.
#[derive(Debug)]
pub(crate) enum Item {
    Delivery(Delivery),
    Synced,
    Ended(Ended),
}

/// Where the node is.
#[derive(Clone)]
pub(crate) enum Target {
    /// In this process.
    Here(Sender<Incoming>),
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
            Some(opened) => opened,
            None => Err(ConnectError::TimedOut(limit)),
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
    pub(crate) session: Session<PublishTicket, ReadTicket>,
    pub(crate) target: Target,
    pub(crate) filter: Filter,
    /// Whether there is a subscription.
    pub(crate) receives: bool,
    pub(crate) options: ClientOptions,
    pub(crate) clock: Clock,
    pub(crate) commands: Receiver<Command>,
    pub(crate) said: Receiver<Said>,
    pub(crate) items: Sender<Item>,
    pub(crate) heard: Vec<Heard<PublishTicket, ReadTicket>>,
    /// Who waits for the end.
    pub(crate) closing: Vec<oneshot::Sender<()>>,
    /// Whether nobody is left who asks, and whether nobody is left who receives.
    pub(crate) quiet: (bool, bool),
    /// Why the session is over, for those who still hold on to it.
    pub(crate) ended: Arc<OnceLock<Ended>>,
}

impl Pump {
    /// Serves the application until it is done, or its session is over.
    pub(crate) async fn run(mut self, opened: Connection) {
        let mut next: Result<_, ConnectError> = Ok(opened);
        let why = loop {
            let why = match next {
                Ok(Connection { mut inlet, mut outlet, welcome }) => {
                    let now = self.clock.now().instant;
                    self.session.connected(&welcome, now, &mut self.heard);
                    let served = self.serve(&mut inlet, &mut outlet).await;
                    // The other side may take nothing any more.
                    let _ = timeout(CLOSE_DEADLINE, outlet.close()).await;
                    let _ = timeout(LINGER, inlet.discard()).await;
                    served.err().unwrap_or(Ended::Here)
                }
                Err(error) => error.into(),
            };
            let wait = self.session.lost(&why, &mut self.heard);
            self.tell();
            let Some(wait) = wait else { break why };
            tracing::debug!(target: "slipstream", %why, ?wait, "connecting again");
            if self.rest(wait).await {
                break Ended::Here;
            }
            next = self.target.open(&self.filter, &self.options).await;
        };
        self.finish(why);
    }

    /// Tells everybody that the session is over. Whoever has let go needs to know nothing.
    fn finish(mut self, why: Ended) {
        // Before anybody can see that nobody listens.
        let _ = self.ended.set(why.clone());
        self.commands.close();
        while let Some(command) = self.commands.try_recv() {
            match command {
                Command::Publish(_, ticket) => {
                    let _ = ticket.send(Err(PublishError::NotSent(why.clone())));
                }
                Command::Read(_, _, ticket) => {
                    let _ = ticket.send(Err(ReadError::Ended(why.clone())));
                }
                Command::Close(closed) => self.closing.push(closed),
            }
        }
        if why != Ended::Here {
            let _ = self.items.try_send(Item::Ended(why));
        }
        for closed in self.closing {
            let _ = closed.send(());
        }
    }

    /// Waits for the time to connect again. Answers whether there is nothing left to connect for.
    async fn rest(&mut self, wait: Duration) -> bool {
        let mut rest = pin!(sleep(wait));
        while !self.is_done() {
            let asks = self.may_ask();
            select! {
                () = rest.as_mut() => return false,
                said = self.said.recv(), if !self.quiet.1 => self.hear(said),
                command = self.commands.recv(), if asks => self.take(command),
            }
            self.tell();
        }
        true
    }

    async fn serve(&mut self, inlet: &mut Inlet, outlet: &mut Outlet) -> Result<(), Ended> {
        let mut alarm = Alarm::new();
        loop {
            self.tell();
            let frames = self.session.frames(self.clock.now().instant);
            if !frames.is_empty() {
                self.send(frames, inlet, outlet).await?;
                continue;
            }
            if self.is_done() {
                return Ok(());
            }
            let (wake, ping) = self.beat()?;
            if ping {
                self.send(vec![Frame::Ping(Bytes::new())], inlet, outlet).await?;
                continue;
            }
            let (asks, reads) = (self.may_ask(), !self.session.is_full());
            select! {
                frame = inlet.next(), if reads => self.received(&frame?)?,
                said = self.said.recv(), if !self.quiet.1 => self.hear(said),
                command = self.commands.recv(), if asks => self.take(command),
                () = alarm.until(Some(wake)) => {}
            }
        }
    }

    /// Sends frames, and reads meanwhile.
    async fn send(
        &mut self,
        frames: Vec<Frame>,
        inlet: &mut Inlet,
        outlet: &mut Outlet,
    ) -> Result<(), Ended> {
        let (mut sending, mut alarm) = (pin!(outlet.send(frames)), Alarm::new());
        loop {
            // A ping would have to wait as well.
            let (wake, _) = self.beat()?;
            select! {
                sent = sending.as_mut() => return sent,
                frame = inlet.next() => self.received(&frame?)?,
                () = alarm.until(Some(wake)) => {}
            }
            self.tell();
        }
    }

    /// When to look at the connection again, and whether it is to be asked for a sign of life.
    fn beat(&mut self) -> Result<(Instant, bool), Ended> {
        match self.session.beat(self.clock.now().instant) {
            Beat::Wait(at) => Ok((self.clock.deadline(at), false)),
            Beat::Ping => Ok((Instant::now() + self.options.heartbeat.interval, true)),
            Beat::Dead(silent) => Err(Ended::Lost(format!("nothing came for {silent:?}"))),
        }
    }

    fn received(&mut self, frame: &Frame) -> Result<(), Ended> {
        let now = self.clock.now().instant;
        Ok(self.session.received(frame, now, &mut self.heard)?)
    }

    /// Hears what is said of a delivery, and all that is there behind it.
    fn hear(&mut self, first: Option<Said>) {
        self.quiet.1 |= first.is_none();
        let mut next = first;
        while let Some(said) = next {
            match said {
                Said::Settled(settlement) => self.session.settle(settlement),
                Said::Left => self.quiet.1 = true,
            }
            next = self.said.try_recv();
        }
    }

    /// Takes a command, and those that are there behind it while there is room.
    fn take(&mut self, first: Option<Command>) {
        self.quiet.0 = first.is_none();
        let mut next = first;
        while let Some(command) = next {
            match command {
                Command::Publish(publication, ticket) => {
                    self.heard.extend(self.session.publish(publication, ticket));
                }
                Command::Read(key, kind, ticket) => self.session.read(key, kind, ticket),
                Command::Close(closed) => {
                    // Said before this, and perhaps not heard yet.
                    if let Some(said) = self.said.try_recv() {
                        self.hear(Some(said));
                    }
                    self.closing.push(closed);
                    break;
                }
            }
            next = if self.session.room() > 0 { self.commands.try_recv() } else { None };
        }
    }

    /// Hands what was heard to those who wait for it. Whoever has let go needs to know nothing.
    fn tell(&mut self) {
        for heard in self.heard.drain(..) {
            match heard {
                Heard::Published(ticket, answer) => drop(ticket.send(answer)),
                Heard::Read(ticket, answer) => drop(ticket.send(answer)),
                Heard::Delivered(delivery) => drop(self.items.try_send(Item::Delivery(delivery))),
                Heard::Synced => drop(self.items.try_send(Item::Synced)),
            }
        }
    }

    fn may_ask(&self) -> bool {
        !self.quiet.0 && self.closing.is_empty() && self.session.room() > 0
    }

    /// Whether nobody wants anything any more: the subscription ends the session, and so do all
    /// publishers of one that does not receive; then what was asked is still answered.
    fn is_done(&self) -> bool {
        let left = if self.receives { self.quiet.1 } else { self.quiet.0 };
        self.session.is_idle() && (left || !self.closing.is_empty())
    }
}
