//! Everything that goes into a node and everything that comes out of it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::admin::event::Event;
use crate::admin::{AdminAnswer, AdminRequest};
use crate::store::{Answer, Batch, CommitFailed, Committed, Query, StoreFailure};
pub use crate::types::close::{Close, CloseCode, End};
use crate::types::ids::{DialId, FetchId, LinkId, Ticket};
pub use crate::types::protocol::Protocol;
use crate::types::tags::TagSet;

/// What a shell tells the node.
#[derive(Debug)]
pub enum Input {
    /// A connection is open and upgraded.
    LinkUp(LinkUp),
    /// A connection is gone, for whatever reason, or was closed as the node asked.
    LinkDown {
        /// Which.
        link: LinkId,
        /// Close code that the other end sent, if it did.
        code: Option<u16>,
        /// What happened, for the log.
        reason: String,
    },
    /// A dial did not lead to a connection.
    DialFailed {
        /// Which.
        dial: DialId,
        /// What happened, for the log.
        reason: String,
    },
    /// Something came from a connection.
    Received {
        /// From which.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// The socket has taken bytes of frames that the node transmitted.
    Sent {
        /// On which connection.
        link: LinkId,
        /// Frames taken, but [control frames](Frame::is_control).
        frames: usize,
        /// Sum of their [`Frame::cost`].
        cost: usize,
    },
    /// Bytes have moved on a connection: some of a frame have come, or its socket has taken some
    /// after it had no room. Said now and then while it lasts, not for each read.
    Moved {
        /// On which connection.
        link: LinkId,
    },
    /// A batch is durable.
    Committed(Committed),
    /// A batch is not there.
    CommitFailed(CommitFailed),
    /// The store can no longer be trusted, though it had nothing to commit: nothing may be
    /// acknowledged any more (P1).
    StoreFailed(StoreFailure),
    /// The answer to a query, or why there is none.
    Fetched {
        /// Which question.
        fetch: FetchId,
        /// Answers come in the order of the questions.
        answer: Result<Answer, StoreFailure>,
    },
    /// The time that [`crate::Node::poll_timeout`] named has come.
    Timer,
    /// The operator changed what can be changed while running.
    Reconfigure {
        /// Peers to dial from now on.
        peers: Vec<String>,
        /// Tags of this node from now on.
        tags: TagSet,
    },
    /// The operator asks or orders something.
    Admin {
        /// Returned with the answer.
        ticket: Ticket,
        /// What.
        request: AdminRequest,
    },
    /// Stop accepting, commit what is there, tell everyone 1001.
    ShutDown,
}

/// A connection that was opened.
#[derive(Debug, Clone)]
pub struct LinkUp {
    /// Its number.
    pub link: LinkId,
    /// The dial that it came from; `None` if it was accepted.
    pub dial: Option<DialId>,
    /// Subprotocol agreed on.
    pub protocol: Protocol,
    /// The other end, `host:port`.
    pub remote: String,
    /// Query string of the upgrade request, without the question mark; empty without one.
    pub query: String,
}

impl LinkUp {
    /// One that speaks `protocol`; all else is to be filled in.
    pub fn of(protocol: Protocol) -> Self {
        let (remote, query) = (String::new(), String::new());
        Self { link: LinkId::default(), dial: None, protocol, remote, query }
    }
}

/// A WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Text; valid UTF-8.
    Text(Bytes),
    /// Binary.
    Binary(Bytes),
    /// Ping. Those that come are answered by the tasks of the connection.
    Ping(Bytes),
    /// Pong.
    Pong(Bytes),
}

impl Frame {
    /// What a frame in flight counts against the send credit of its link: its bytes and 64 of
    /// overhead.
    pub fn cost(&self) -> usize {
        let (Self::Text(bytes) | Self::Binary(bytes) | Self::Ping(bytes) | Self::Pong(bytes)) =
            self;
        bytes.len() + 64
    }

    /// Whether it goes past others, and is not counted: a ping or pong (RFC 6455 section 5.5).
    pub fn is_control(&self) -> bool {
        match self {
            Self::Ping(_) | Self::Pong(_) => true,
            Self::Text(_) | Self::Binary(_) => false,
        }
    }
}

/// What a node asks its shell to do.
#[derive(Debug)]
pub enum Output {
    /// Make this durable, in one transaction; report [`Input::Committed`] or
    /// [`Input::CommitFailed`].
    Commit(Box<Batch>),
    /// Look this up; report [`Input::Fetched`].
    Fetch {
        /// Number of the question.
        fetch: FetchId,
        /// The question.
        query: Query,
    },
    /// Send this frame; report [`Input::Sent`] when the socket has taken it. A ping goes past what
    /// waits, and is not reported.
    Transmit {
        /// On which connection.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// Stop reading from this connection until [`Output::Resume`].
    Pause(LinkId),
    /// Read on.
    Resume(LinkId),
    /// Connect to this URL; report [`Input::LinkUp`] or [`Input::DialFailed`].
    Dial {
        /// Number of the attempt.
        dial: DialId,
        /// `ws://HOST:PORT/` or `wss://`.
        url: String,
    },
    /// The node counts this connection among its applications or peers: it is not one of the
    /// unfinished ones any more ([`crate::host::slots`]).
    Admit(LinkId),
    /// Send what was transmitted before, then a close frame, and end the connection; report
    /// [`Input::LinkDown`]. Nothing else from this link is looked at.
    Close {
        /// Which connection.
        link: LinkId,
        /// Code and reason.
        close: Close,
    },
    /// The answer to [`Input::Admin`].
    Admin {
        /// Which request.
        ticket: Ticket,
        /// The answer.
        answer: AdminAnswer,
    },
    /// Something worth a log line.
    Event(Event),
    /// Something measured, for a histogram.
    Observe(Observation),
    /// Everything is done after [`Input::ShutDown`]: nothing uncommitted is left, every link has
    /// its close.
    Stopped,
    /// Nothing may be acknowledged any more: end the process with code 3.
    Halt(StoreFailure),
}

/// A measured duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// From the arrival of a publish to its receipt.
    PublishAck {
        /// How long.
        took: Duration,
        /// For how many messages.
        count: usize,
    },
    /// From the origin's stamp to the commit here, by the wall clocks.
    Propagation {
        /// The origin.
        origin: crate::types::ids::NodeId,
        /// How long.
        took: Duration,
        /// For how many messages.
        count: usize,
    },
    /// One commit.
    Commit {
        /// How long.
        took: Duration,
        /// Messages in it.
        messages: usize,
    },
}

impl Observation {
    /// Its entries: name of the histogram, the origin if there is one for each, the value (seconds,
    /// or messages), and how often it was measured.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, Option<&str>, f64, usize)> {
        let seconds = Duration::as_secs_f64;
        let (entry, other) = match self {
            Self::PublishAck { took, count } => {
                (("slipstream_publish_ack_seconds", None, seconds(took), *count), None)
            }
            Self::Propagation { origin, took, count } => {
                let origin = Some(origin.as_str());
                (("slipstream_propagation_seconds", origin, seconds(took), *count), None)
            }
            Self::Commit { took, messages } => (
                ("slipstream_store_commit_seconds", None, seconds(took), 1),
                Some(("slipstream_store_batch_messages", None, *messages as f64, 1)),
            ),
        };
        core::iter::once(entry).chain(other)
    }
}
