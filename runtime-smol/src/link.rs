//! One open connection: a task that reads and a task that writes, and what the loop holds of them.
//!
//! The two never wait for each other. Each has half of the socket and a WebSocket codec of its
//! own, so there is no lock between them; what the reader wants sent (a pong, an ending) goes the
//! same way as what the node wants sent. Both end by one order, of which the first counts. What
//! was queued before it is still sent, then the close frame, within [`CLOSE_DEADLINE`]; then the
//! sending side is shut and what still arrives is thrown away for at most [`LINGER`], because a
//! socket that is closed with unread bytes resets the connection, and the close frame with it.
//! [`Input::LinkDown`] is the last thing that is heard of a link.
//!
//! Nothing is decided here but what a WebSocket endpoint must answer by itself: see `halves`.

use std::time::Duration;

use async_tungstenite::tungstenite::protocol::Role;
use bytes::Bytes;
use slipstream_core::ids::{DialId, LinkId};
use slipstream_core::io::{Close, CloseCode, End, Frame, Input, LinkUp, Protocol};
use smol::lock::SemaphoreGuardArc;
use smol::net::TcpStream;

use crate::halves::{Reader, Writer};
use crate::stand_ins::{Receiver, Sender, Watch, select, sleep, spawn, timeout, unbounded};
use crate::turn::Incoming;

/// For what was queued and the close frame to leave.
pub(crate) const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// How long the other side may take to close after us.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// Batches that a writer may be behind. The core's send credit counts at least 64 bytes for a
/// frame, so that this is never reached; the channel takes memory only as it fills.
pub(crate) const QUEUE: usize = 16 * 1024;

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The connection.
    pub(crate) stream: TcpStream,
    /// What was read behind the handshake.
    pub(crate) rest: Vec<u8>,
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
    pub(crate) slot: Option<SemaphoreGuardArc>,
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

    /// The two halves, each with its codec.
    pub(crate) async fn split(self) -> (Reader, Writer) {
        // Without this, small frames wait for the acknowledgement of the one before.
        let _ = self.stream.set_nodelay(true);
        (
            Reader::new(self.stream.clone(), self.rest, self.role, self.largest, self.protocol)
                .await,
            Writer::new(self.stream, self.role, self.largest).await,
        )
    }
}

/// What the two tasks of a link are to do.
#[derive(Debug)]
pub(crate) enum Flow {
    Read,
    Pause,
    End(End),
}

/// What a writer is given.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// From the node.
    Frames(Vec<Frame>),
    /// From the reader. The node knows nothing of it, so it is not reported as sent.
    Pong(Bytes),
}

/// The loop's hold on a link. Dropping it ends the link without a close frame.
#[derive(Debug)]
pub(crate) struct Link {
    pending: Vec<Frame>,
    queue: Sender<Outgoing>,
    flow: Watch<Flow>,
}

impl Link {
    /// Starts the tasks of a connection.
    pub(crate) fn open(id: LinkId, opened: Opened, inputs: Sender<Incoming>) -> Self {
        let (queue, queued) = unbounded();
        let flow = Watch::new(Flow::Read);
        let tasks = Tasks { id, inputs, queue: queue.clone(), flow: flow.clone() };
        spawn(tasks.run(opened, queued));
        Self::new(queue, flow)
    }

    /// A link whose frames go to `queue`.
    pub(crate) fn new(queue: Sender<Outgoing>, flow: Watch<Flow>) -> Self {
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
        if self.queue.len() < QUEUE {
            // A writer that has ended says why by itself.
            let _ = self.queue.try_send(batch);
        } else {
            let reason = "the connection does not take what it is sent";
            order_end(&self.flow, End::here(CloseCode::Limit.number(), reason.into()));
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
        self.end(End::here(close.code.number(), close.reason));
    }

    /// Ends the link behind what is queued, unless its end was ordered before.
    pub(crate) fn end(&self, end: End) {
        order_end(&self.flow, end);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        order_end(&self.flow, End::silent("the node has ended".into()));
    }
}

/// Orders the end of a link, unless it was ordered before.
pub(crate) fn order_end(flow: &Watch<Flow>, end: End) {
    flow.send_if_modified(|flow| {
        let first = !matches!(flow, Flow::End(_));
        if first {
            *flow = Flow::End(end);
        }
        first
    });
}

/// What both tasks of a link need.
struct Tasks {
    id: LinkId,
    inputs: Sender<Incoming>,
    queue: Sender<Outgoing>,
    flow: Watch<Flow>,
}

impl Tasks {
    async fn run(self, mut opened: Opened, queued: Receiver<Outgoing>) {
        let slot = opened.slot.take();
        let (reader, writer) = opened.split().await;
        let pongs = self.queue;
        let reading = reader.run(self.id, self.inputs.clone(), pongs, self.flow.clone());
        let reading = smol::spawn(reading);
        let overdue = async {
            ended(&self.flow).await;
            sleep(CLOSE_DEADLINE).await;
        };
        select! {
            done = writer.run(self.id, queued, self.inputs.clone(), &self.flow) => {
                if let Err(error) = done {
                    order_end(&self.flow, End::silent(format!("cannot send: {error}")));
                }
            },
            () = overdue => {}
        }
        // A reader that is given up ends with its task.
        timeout(LINGER, reading.fallible()).await;
        let (code, reason) = match &*self.flow.borrow() {
            Flow::End(end) => (end.code_of_peer(), end.reason.clone()),
            Flow::Read | Flow::Pause => (None, "the connection was lost".into()),
        };
        let down = Incoming::Input(Input::LinkDown { link: self.id, code, reason });
        // A loop that is gone needs to know nothing.
        let _ = self.inputs.send(down).await;
        drop(slot);
    }
}

/// Returns when the end of a link was ordered.
pub(crate) async fn ended(flow: &Watch<Flow>) {
    flow.wait_for(|flow| matches!(flow, Flow::End(_))).await;
}
