//! One open connection: a task that reads and a task that writes, and what the loop holds of them.
//!
//! The two never wait for each other. Each has half of the socket and a WebSocket codec of its
//! own; what they and the loop have in common is a [`Line`], which says what is sent and when a
//! connection ends. What was queued before that is still sent, then the close frame, within
//! [`CLOSE_DEADLINE`]; then the sending side is shut and what still arrives is thrown away for at
//! most [`LINGER`], because a socket that is closed with unread bytes resets the connection, and
//! the close frame with it. [`Input::LinkDown`] is the last thing that is heard of a link.
//!
//! Nothing is decided here but what a WebSocket endpoint must answer by itself: see `halves`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_tungstenite::tungstenite::protocol::Role;
use piper::pipe;
use slipstream_core::io::{Input, LinkUp, Protocol};
use slipstream_core::line::Line;
use slipstream_core::links::Link;
use slipstream_core::shared::{Lock, Shared, Wakes};
use smol::io::{AsyncRead, AsyncWrite};
use smol::lock::SemaphoreGuardArc;
use smol::net::TcpStream;

use crate::halves::{Reader, Writer};
use crate::stand_ins::{Sender, select, sleep, spawn, timeout};

/// For what was queued and the close frame to leave.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// How long the other side may take to close after us.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes under way in one direction of a connection within the process.
const PIPE: usize = 64 * 1024;

/// What a connection is read from.
pub(crate) trait Read: AsyncRead + Send + Sync + Unpin {}
impl<T: AsyncRead + Send + Sync + Unpin> Read for T {}

/// What a connection is written to.
pub(crate) trait Write: AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncWrite + Send + Sync + Unpin> Write for T {}

impl fmt::Debug for dyn Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Read")
    }
}

impl fmt::Debug for dyn Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Write")
    }
}

/// What reaches a loop.
pub(crate) type Incoming = slipstream_core::incoming::Incoming<Box<Opened>>;
/// The way to a loop. Whoever finds no room waits, and so does its peer.
pub(crate) type Inputs = Sender<Incoming>;

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The two directions.
    pub(crate) read: Box<dyn Read>,
    pub(crate) write: Box<dyn Write>,
    /// What was read behind the handshake.
    pub(crate) rest: Vec<u8>,
    /// Which end of it this is.
    pub(crate) role: Role,
    /// Largest frame.
    pub(crate) largest: usize,
    /// What the core is told of it.
    pub(crate) up: LinkUp,
    /// Its place among the connections that may be open.
    pub(crate) slot: Option<SemaphoreGuardArc>,
}

impl Opened {
    /// Over TCP, as it was agreed on.
    pub(crate) fn tcp(
        stream: TcpStream,
        rest: Vec<u8>,
        role: Role,
        largest: usize,
        protocol: Protocol,
    ) -> Self {
        // Without this, small frames wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        Self { rest, ..Self::new(stream.clone(), stream, role, largest, protocol) }
    }

    /// Both ends of one within the process, the client's first. Its frames are carried as over TCP,
    /// so that every rule for applications holds for those that embed their node.
    pub(crate) fn pair(largest: usize) -> (Self, Self) {
        let ((from_server, to_client), (from_client, to_server)) = (pipe(PIPE), pipe(PIPE));
        (
            Self::new(from_server, to_server, Role::Client, largest, Protocol::Postcard),
            Self::new(from_client, to_client, Role::Server, largest, Protocol::Postcard),
        )
    }

    fn new(
        read: impl Read + 'static,
        write: impl Write + 'static,
        role: Role,
        largest: usize,
        protocol: Protocol,
    ) -> Self {
        let (read, write, up) = (Box::new(read), Box::new(write), LinkUp::of(protocol));
        Self { read, write, rest: Vec::new(), role, largest, up, slot: None }
    }

    /// To this, which asks for that.
    pub(crate) fn up(mut self, remote: String, query: String) -> Self {
        (self.up.remote, self.up.query) = (remote, query);
        self
    }

    /// The two halves, each with its codec.
    async fn split(self) -> (Reader, Writer) {
        (
            Reader::new(self.read, self.rest, self.role, self.largest, self.up.protocol).await,
            Writer::new(self.write, self.role, self.largest).await,
        )
    }
}

/// A lock of this runtime's threads, held only for a moment and never while waiting.
struct Locked<T>(Mutex<T>);

impl<T: Send> Lock<T> for Locked<T> {
    fn with(&self, run: &mut dyn FnMut(&mut T)) {
        // Every change is made at one stroke, so a panic leaves nothing half done.
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Something for several tasks to hold on to.
pub(crate) fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T> {
    Shared::new(Arc::new(Locked(Mutex::new(what))))
}

/// Starts the tasks of a connection.
pub(crate) fn open(opened: Opened, inputs: Inputs) -> Link {
    let line = share(Line::default());
    spawn(run(opened, inputs, line.clone()));
    Link::new(line)
}

async fn run(mut opened: Opened, inputs: Inputs, line: Shared<Line>) {
    let (id, slot) = (opened.up.link, opened.slot.take());
    let (reader, writer) = opened.split().await;
    let reading = smol::spawn(reader.run(id, inputs.clone(), line.clone()));
    let overdue = async {
        line.wait(Line::poll_end).await;
        sleep(CLOSE_DEADLINE).await;
    };
    select! {
        done = writer.run(id, &inputs, &line) => {
            if let Err(end) = done {
                line.with(|line| line.end(end));
            }
        },
        () = overdue => {}
    }
    // A reader that is given up ends with its task.
    timeout(LINGER, reading.fallible()).await;
    let end = line.with(|line| line.ended());
    let down = Input::LinkDown { link: id, code: end.code_of_peer(), reason: end.reason };
    // A loop that is gone needs to know nothing.
    let _ = inputs.send(Incoming::Input(down)).await;
    drop(slot);
}
