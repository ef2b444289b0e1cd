//! The tasks of an open connection: one that reads and one that writes.
//!
//! The two never wait for each other. Each has half of the socket and a WebSocket codec of its
//! own; what they and the loop have in common is a [`ConnectionState`], which says what is sent and
//! when a connection ends. What was queued before that is still sent, then the close frame, within
//! two seconds; then the sending side is shut and what still arrives is thrown away for at most one
//! more, because a socket that is closed with unread bytes resets the connection, and the close
//! frame with it. [`Input::LinkDown`] is the last thing that is heard of a link.

pub mod links;
pub mod memory;
pub mod state;

pub use self::state as line;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::{pending, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use crate::app::ConnectError;
use crate::config::Limits;
use crate::host::channel::ChannelSender;
use crate::host::connection::links::ConnectionHandle;
use crate::host::connection::memory::Memory;
use crate::host::connection::state::{ConnectionState, Flow, Gathered};
use crate::host::runtime::{Runtime, Task, first, sleep, within, yield_now};
use crate::host::shared::Shared;
use crate::host::slots::Slot;
use crate::host::socket::{Frames, Motion, Opened, Reader, Socket, Writer};
use crate::io::{End, Frame, Input, LinkUp, Protocol};
use crate::types::ids::{DialId, LinkId};
use crate::types::time::Instant;

/// For what was queued and the close frame to leave.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// How long the other side may take to close after us.
const LINGER: Duration = Duration::from_secs(1);
/// The loop is told no more often that bytes have moved.
const MOVED_INTERVAL: Duration = Duration::from_millis(100);
/// A writer that sent more than this at once gives the memory back.
const LARGE: usize = 1024 * 1024;

/// How frames travel.
#[derive(Debug)]
pub enum Transport<S> {
    /// Through a socket.
    Socket(S),
    /// Within the process.
    Memory(Memory),
}

/// A connection as a loop is given it.
pub type Connection<R> = Opened<Transport<<R as Runtime>::Socket>>;

/// What reaches a loop. Connections are boxed, as they are large and rare.
pub type Incoming<R> = crate::host::incoming::Incoming<Box<Connection<R>>>;

/// The way to a loop. Whoever finds no room waits, and so does its peer.
pub type Inputs<R> = ChannelSender<Incoming<R>>;

/// A connection through a socket, for a loop.
pub fn through_socket<R: Runtime>(opened: Opened<R::Socket>) -> Connection<R> {
    let Opened { transport, up, slot } = opened;
    Opened { transport: Transport::Socket(transport), up, slot }
}

/// Opens a connection that speaks `protocol`, within `limits.handshake_timeout`.
///
/// # Errors
/// [`ConnectError`] says what failed and what to look at.
pub async fn connect<R: Runtime>(
    url: &str,
    protocol: Protocol,
    token: Option<&str>,
    limits: &Limits,
) -> Result<Opened<R::Socket>, ConnectError> {
    let deadline = limits.handshake_timeout;
    within::<R, _>(deadline, R::dial(url, protocol, token, limits))
        .await
        .unwrap_or(Err(ConnectError::TimedOut(deadline)))
}

/// Dials a node and reports what came of it.
pub async fn dial<R: Runtime>(
    dial: DialId,
    url: String,
    token: Option<String>,
    limits: Limits,
    inputs: Inputs<R>,
) {
    let incoming = match connect::<R>(&url, Protocol::Postcard, token.as_deref(), &limits).await {
        Ok(mut opened) => {
            opened.up.dial = Some(dial);
            Incoming::<R>::Opened(Box::new(through_socket::<R>(opened)))
        }
        Err(error) => Incoming::<R>::NotOpened(dial, error),
    };
    // A loop that is gone needs to know nothing.
    let _ = inputs.send(incoming).await;
}

/// Hands a connection to the loop once it is upgraded, within `limits.handshake_timeout`. It gives
/// way if its place is needed. Answers why it was not handed on, if that is for lack of time or
/// room.
pub async fn accept<R: Runtime>(
    slot: Slot,
    upgrade: impl Future<Output = Option<Opened<R::Socket>>>,
    limits: &Limits,
    inputs: Inputs<R>,
) -> Result<(), &'static str> {
    let needed = slot.needed();
    let accepted = async {
        let upgraded = within::<R, _>(limits.handshake_timeout, upgrade).await;
        if let Some(opened) = upgraded.ok_or("no upgrade request in time")? {
            let opened = Opened { slot: Some(slot), ..through_socket::<R>(opened) };
            // A loop that is gone needs to know nothing.
            let _ = inputs.send(Incoming::<R>::Opened(Box::new(opened))).await;
        }
        Ok(())
    };
    let gave_way = async {
        needed.await;
        Err("others needed its place before it was upgraded")
    };
    first(gave_way, accepted).await
}

/// Starts the tasks of a connection.
pub fn open<R: Runtime>(opened: Connection<R>, inputs: Inputs<R>) -> ConnectionHandle {
    let state = R::share(ConnectionState::default());
    let Opened { transport, up, slot } = opened;
    match transport {
        Transport::Socket(socket) => R::spawn(run::<R>(socket, up, slot, inputs, state.clone())),
        Transport::Memory(memory) => R::spawn(run::<R>(memory, up, slot, inputs, state.clone())),
    }
    ConnectionHandle::new(state)
}

async fn run<R: Runtime>(
    socket: impl Socket,
    up: LinkUp,
    slot: Option<Slot>,
    inputs: Inputs<R>,
    state: Shared<ConnectionState>,
) {
    let id = up.link;
    first(give_way(slot, &state), serve::<R>(socket, up, &inputs, &state)).await;
    let end = state.with(|state| state.ended());
    let down = Input::LinkDown { link: id, code: end.code_of_peer(), reason: end.reason };
    // A loop that is gone needs to know nothing.
    let _ = inputs.send(Incoming::<R>::Input(down)).await;
}

/// Returns when the connection has to give way: before it is admitted, or on its way out.
async fn give_way(slot: Option<Slot>, state: &Shared<ConnectionState>) {
    let Some(mut slot) = slot else { return pending().await };
    let needed = async {
        slot.needed().await;
        true
    };
    let admitted = async {
        state.wait(ConnectionState::poll_admitted).await;
        false
    };
    if !first(admitted, needed).await {
        slot.admit();
        state.wait(ConnectionState::poll_end).await;
        slot.leave();
        slot.needed().await;
    }
    state.with(|state| state.end(End::silent("others needed its place".into())));
}

/// Reads and writes until the end.
async fn serve<R: Runtime>(
    socket: impl Socket,
    LinkUp { link: id, protocol, .. }: LinkUp,
    inputs: &Inputs<R>,
    state: &Shared<ConnectionState>,
) {
    let (reader, writer) = socket.split(protocol).await;
    let reading = Task::spawn::<R>(run_reader::<R>(reader, id, inputs.clone(), state.clone()));
    let overdue = async {
        state.wait(ConnectionState::poll_end).await;
        sleep::<R>(CLOSE_DEADLINE).await;
        Ok(())
    };
    let written = first(overdue, write::<R>(writer, id, inputs, state)).await;
    state.with(|state| {
        // Unless one was ordered before: also a loop that is gone ends what is read.
        state.end(written.err().unwrap_or_else(|| state.ended()));
        state.shut();
    });
    reading.ended().await;
}

/// Sends what is queued until the end is ordered, then the close frame.
async fn write<R: Runtime>(
    mut writer: impl Writer,
    id: LinkId,
    inputs: &Inputs<R>,
    state: &Shared<ConnectionState>,
) -> Result<(), End> {
    let mut batch = Vec::new();
    let mut moving = Moving::new(writer.motion());
    while let Some((frames, cost)) = state.wait(|it, cx| it.poll_outgoing(cx, &mut batch)).await {
        let outgoing = Outgoing { frames: batch.drain(..), state };
        moving.tell_during::<R, _>(writer.send(outgoing), id, inputs).await?;
        let sent = Input::Sent { link: id, frames, cost };
        if frames > 0 && inputs.send(Incoming::<R>::Input(sent)).await.is_err() {
            break;
        }
        if cost > LARGE {
            writer = writer.renewed().await;
            moving = Moving::new(writer.motion());
        }
    }
    // The other side may have gone first.
    let _ = writer.farewell(&state.with(|state| state.ended())).await;
    Ok(())
}

/// What a writer is given: pings and pongs go first.
struct Outgoing<'a, I> {
    frames: I,
    state: &'a Shared<ConnectionState>,
}

impl<I: Iterator<Item = Frame> + Send> Frames for Outgoing<'_, I> {
    fn next(&mut self) -> Option<Frame> {
        self.next_control().or_else(|| self.frames.next())
    }

    fn next_control(&mut self) -> Option<Frame> {
        self.state.with(ConnectionState::next_control)
    }
}

/// Whether the loop is to be told that bytes move.
struct Moving {
    motion: Motion,
    told: Option<Instant>,
}

impl Moving {
    fn new(motion: Motion) -> Self {
        Self { motion, told: None }
    }

    /// Waits for what a connection does, and tells the loop meanwhile.
    async fn tell_during<R: Runtime, T>(
        &mut self,
        what: impl Future<Output = T>,
        id: LinkId,
        inputs: &Inputs<R>,
    ) -> T {
        // What moved before says nothing of now.
        self.motion.take();
        let mut what = pin!(what);
        loop {
            let step = poll_fn(|cx| match what.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if self.is_to_be_told::<R>() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match step.await {
                Some(done) => return done,
                // A loop that is gone needs to know nothing.
                None => drop(inputs.send(moved::<R>(id)).await),
            }
        }
    }

    fn is_to_be_told<R: Runtime>(&mut self) -> bool {
        let now = R::now().instant;
        let may = self.told.is_none_or(|told| told + MOVED_INTERVAL <= now);
        let is_to_be_told = may && self.motion.take();
        if is_to_be_told {
            self.told = Some(now);
        }
        is_to_be_told
    }
}

fn moved<R: Runtime>(link: LinkId) -> Incoming<R> {
    Incoming::<R>::Input(Input::Moved { link })
}

/// Reads until the end, then waits for the other side to close, but not for long.
async fn run_reader<R: Runtime>(
    mut reader: impl Reader,
    id: LinkId,
    inputs: Inputs<R>,
    state: Shared<ConnectionState>,
) {
    read::<R>(&mut reader, id, &inputs, &state).await;
    let overdue = async {
        state.wait(ConnectionState::poll_shut).await;
        sleep::<R>(LINGER).await;
    };
    first(overdue, discard(reader)).await;
}

async fn discard(mut reader: impl Reader) {
    while reader.discard().await {
        // Whoever sends without end has no thread for itself.
        yield_now().await;
    }
}

/// Hands on what arrives, as much at a time as is there, until the end. The end is for the loop to
/// order: what came before it is answered before the close frame.
async fn read<R: Runtime>(
    reader: &mut impl Reader,
    id: LinkId,
    inputs: &Inputs<R>,
    state: &Shared<ConnectionState>,
) {
    let mut flow = state.with(|state| state.flow());
    let mut moving = Moving::new(reader.motion());
    while flow != Flow::Over {
        let mut has_moved = false;
        let gathered = poll_fn(|cx| {
            if let Poll::Ready(now) = state.with(|state| state.poll_flow(flow, cx)) {
                flow = now;
                return Poll::Ready(None);
            }
            let mut gathered = Gathered::default();
            while flow == Flow::Read
                && let Poll::Ready(next) = reader.poll_next(cx)
                && gathered.take(next, state)
            {}
            if !gathered.is_empty() {
                moving.motion.take();
                return Poll::Ready(Some(gathered));
            }
            has_moved = moving.is_to_be_told::<R>();
            if has_moved { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        if has_moved && inputs.send(moved::<R>(id)).await.is_err() {
            return;
        }
        if let Some(gathered) = gathered {
            let is_last = gathered.is_last();
            if inputs.send(gathered.into_incoming(id)).await.is_err() || is_last {
                return;
            }
        }
    }
}
