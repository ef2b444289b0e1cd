//! The task behind an application: it owns a [`Session`] and its connection, and opens another
//! when that is lost.
//!
//! The session decides what is said; here frames are carried, and what was heard is handed to
//! those who wait for it. The node is read while frames are sent to it, or each side could wait
//! for the other to read. Nothing waits for the application that receives: what it has not
//! settled is at most a window.

use std::pin::pin;

use slipstream_core::client::{
    self, Beat, ConnectError, Delivery, Ended, Filter, Heard, Publication, PublishError, ReadError,
    Receipt, Session, Settlement, Value,
};
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::message::Kind;
use slipstream_core::wire::Welcome;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until, timeout};

use crate::client::ClientOptions;
use crate::clock::Clock;
use crate::dial;
use crate::halves::{Reader, Writer};
use crate::pipe::{Pipe, PipeInlet, PipeOutlet};
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

/// What an application is handed.
#[derive(Debug)]
pub(crate) enum Item {
    Delivery(Delivery),
    Synced,
    Ended(Ended),
}

/// Where the node is.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// In this process.
    Here(mpsc::Sender<Incoming>),
    /// At this URL.
    Remote(String),
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
}

impl Outlet {
    async fn send(&mut self, frames: Vec<Frame>) -> Result<(), Ended> {
        let lost = |error: &dyn std::fmt::Display| Ended::Lost(error.to_string());
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
    pub(crate) session: Session<PublishTicket, ReadTicket>,
    pub(crate) target: Target,
    pub(crate) filter: Filter,
    pub(crate) options: ClientOptions,
    pub(crate) clock: Clock,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) settlements: mpsc::UnboundedReceiver<Settlement>,
    pub(crate) items: mpsc::UnboundedSender<Item>,
    pub(crate) heard: Vec<Heard<PublishTicket, ReadTicket>>,
    /// Who waits for the end.
    pub(crate) closing: Vec<oneshot::Sender<()>>,
    /// Whether nobody is left who asks, and nobody who settles.
    pub(crate) quiet: (bool, bool),
}

impl Pump {
    /// Serves the application until it is done, or its session is over.
    pub(crate) async fn run(mut self, opened: Connection) {
        let mut next: Result<_, ConnectError> = Ok(opened);
        let why = loop {
            let why = match next {
                Ok(Connection { mut inlet, mut outlet, welcome }) => {
                    self.session.connected(&welcome, self.clock.now().instant);
                    let served = self.serve(&mut inlet, &mut outlet).await;
                    outlet.close().await;
                    served.err().unwrap_or(Ended::Here)
                }
                Err(error) => error.into(),
            };
            let wait = self.session.lost(&why, &mut self.heard);
            self.tell();
            let Some(wait) = wait else { break why };
            tracing::debug!(target: "slipstream", %why, ?wait, "connecting again");
            sleep(wait).await;
            if self.is_abandoned() {
                break Ended::Here;
            }
            next = self.target.open(&self.filter, &self.options).await;
        };
        self.finish(why);
    }

    /// Tells everybody that the session is over. Whoever has let go needs to know nothing.
    fn finish(mut self, why: Ended) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
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
        let _ = self.items.send(Item::Ended(why));
        for closed in self.closing {
            let _ = closed.send(());
        }
    }

    async fn serve(&mut self, inlet: &mut Inlet, outlet: &mut Outlet) -> Result<(), Ended> {
        loop {
            self.tell();
            let frames = self.session.frames();
            if !frames.is_empty() {
                self.send(frames, inlet, outlet).await?;
                continue;
            }
            if self.is_done() {
                return Ok(());
            }
            let wake = match self.session.beat(self.clock.now().instant) {
                Beat::Wait(at) => self.clock.deadline(at),
                Beat::Ping => {
                    let ping = vec![Frame::Ping(bytes::Bytes::new())];
                    self.send(ping, inlet, outlet).await?;
                    continue;
                }
                Beat::Dead(silent) => {
                    return Err(Ended::Lost(format!("nothing came for {silent:?}")));
                }
            };
            let asks = !self.quiet.0 && self.closing.is_empty() && self.session.room() > 0;
            tokio::select! {
                biased;
                frame = inlet.next() => self.received(&frame?)?,
                settlement = self.settlements.recv(), if !self.quiet.1 => self.settle(settlement),
                command = self.commands.recv(), if asks => self.take(command),
                () = sleep_until(wake) => {}
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
        let mut sending = pin!(outlet.send(frames));
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent,
                frame = inlet.next() => self.received(&frame?)?,
            }
            self.tell();
        }
    }

    fn received(&mut self, frame: &Frame) -> Result<(), Ended> {
        let now = self.clock.now().instant;
        Ok(self.session.received(frame, now, &mut self.heard)?)
    }

    /// Takes a settlement, and all that are there behind it.
    fn settle(&mut self, first: Option<Settlement>) {
        self.quiet.1 = first.is_none();
        let mut next = first;
        while let Some(settlement) = next {
            self.session.settle(settlement);
            next = self.settlements.try_recv().ok();
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
                    self.closing.push(closed);
                    break;
                }
            }
            next = if self.session.room() > 0 { self.commands.try_recv().ok() } else { None };
        }
    }

    /// Hands what was heard to those who wait for it. Whoever has let go needs to know nothing.
    fn tell(&mut self) {
        for heard in self.heard.drain(..) {
            match heard {
                Heard::Published(ticket, answer) => drop(ticket.send(answer)),
                Heard::Read(ticket, answer) => drop(ticket.send(answer)),
                Heard::Delivered(delivery) => {
                    if let Err(unwanted) = self.items.send(Item::Delivery(delivery))
                        && let Item::Delivery(delivery) = unwanted.0
                    {
                        self.session.settle(Settlement::of(&delivery, None));
                    }
                }
                Heard::Synced => drop(self.items.send(Item::Synced)),
            }
        }
    }

    /// Whether everybody has let go while there was no connection, and nothing is unanswered.
    fn is_abandoned(&self) -> bool {
        let asks = !self.commands.is_closed() || !self.commands.is_empty();
        !asks && self.settlements.is_closed() && self.session.is_idle()
    }

    /// Whether nobody wants anything any more.
    fn is_done(&self) -> bool {
        let gone = self.quiet.0 && self.quiet.1;
        self.session.is_idle() && (gone || !self.closing.is_empty())
    }
}
