//! A link: one live connection, what was agreed on it, and how much it may carry now.
//!
//! A link dies with its socket; what must survive is in the session. What stays true: frames in
//! flight cost at most the send credit (and one frame, or what one question found for reads, more);
//! answers to an application leave in
//! the order of its frames, each only after the batch that it speaks of (P1, P12).

use alloc::collections::VecDeque;
use alloc::string::String;
use core::time::Duration;

use bytes::Bytes;

use crate::io::{Close, CloseCode, Protocol};
use crate::types::clock::Hlc;
use crate::types::ids::{BatchId, FetchId, LinkId, NodeId, Position, SessionId};
use crate::types::rate::RateLimit;
use crate::types::refusal::{Code, Refusal};
use crate::types::time::Instant;
use crate::wire::message::Message;
use crate::wire::read::ReadRequest;
use crate::wire::{FrameWriter, Hello};

pub use super::peer_link::PeerLink;

/// Cost of the frames that an application's link may have in flight.
pub const APPLICATION_CREDIT: usize = 256 << 10;
/// Cost of the frames that a peer's link may have in flight.
pub const PEER_CREDIT: usize = 2 << 20;
/// Messages that a peer may leave unacknowledged on a link.
pub const PEER_WINDOW: usize = 16_384;
/// Answers that may wait on a link; above it the link is not read.
pub const MAX_ANSWERS: usize = 16_384;
/// Messages of a peer that may wait for the store; above it the link is not read.
pub const MAX_PARKED: usize = 4096;
/// Client errors in a row after which an application is closed (4429).
pub const ERROR_BUDGET: u32 = 100;

/// How long answers that are due may hold up the end of an application's link.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// One live connection.
#[derive(Debug)]
pub struct Link {
    /// Its number.
    pub id: LinkId,
    /// The other end, `host:port`.
    pub remote: String,
    /// Number of the configured peer that was dialled; `None` if the link was accepted.
    pub dialer: Option<usize>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Query string of the upgrade.
    pub query: String,
    /// When it came up.
    pub opened: Instant,
    /// How far it has come.
    pub state: LinkState,
    /// What has crossed it.
    pub traffic: Traffic,
    /// When it was heard of.
    pub liveness: Liveness,
    /// Whether the shell was told not to read.
    pub paused: bool,
    /// Binary frame that is being filled.
    pub writer: Option<FrameWriter>,
    /// The peer that this node's Hello has reminded of what it had reported.
    pub reminded: Option<NodeId>,
}

/// What has crossed a link.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Frames received, the one at hand included.
    pub frames_in: u64,
    /// Frames transmitted.
    pub frames_out: u64,
    /// Frames that the socket has taken.
    pub frames_taken: u64,
    /// Cost of frames that the socket has not taken.
    pub cost_in_flight: usize,
    /// What of that the node counts against `limits.connections_max_bytes`.
    pub counted: usize,
    /// Bytes received and sent.
    pub bytes: (u64, u64),
}

/// When a link was heard of.
#[derive(Debug)]
pub struct Liveness {
    /// When bytes came last, or the socket took some after it had no room.
    pub heard: Instant,
    /// When its socket took something last, or was given something after it had taken all.
    pub taken_at: Instant,
    /// When the next ping is due.
    pub ping_at: Instant,
    /// Last round trip.
    pub rtt: Option<Duration>,
}

/// How far a link has come.
#[derive(Debug)]
pub enum LinkState {
    /// Nobody has said who it is.
    Handshake,
    /// A node whose id is in use by another link, the `rival`, which was pinged at `since`: that
    /// one answers, or this one takes its place.
    Candidate { hello: alloc::boxed::Box<Hello>, rival: LinkId, since: Instant },
    /// A node.
    Peer(PeerLink),
    /// An application.
    Application(AppLink),
}

/// A link to an application.
#[derive(Debug)]
pub struct AppLink {
    /// Its session.
    pub session: SessionId,
    /// Name, if it has one.
    pub client: Option<String>,
    /// Answers that have not left, in the order of the frames.
    pub answers: VecDeque<PendingAnswer>,
    /// The question to the store for the reads at the front of the answers.
    pub reading: Option<FetchId>,
    /// Client errors at the end of what came.
    pub errors: ErrorStreak,
    /// SYNCED is due when the session has been handed everything up to here.
    pub synced_at: Option<Position>,
    /// Limit of publishing.
    pub publish_rate: RateLimit,
    /// Rows that the socket has not taken, by the number of the frame that carries them.
    pub unsent: VecDeque<(u64, Position)>,
    /// Whether the greeting has left: nothing leaves before it.
    pub greeted: bool,
    /// Whether the application has settled anything on it.
    pub settled: bool,
    /// To be closed so when all answers have left, or at this time.
    pub ending: Option<(Close, Instant)>,
}

/// Client errors in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorStreak {
    count: u32,
    /// Whether it follows a read whose answer is not known.
    follows_read: bool,
}

/// An answer on its way.
#[derive(Debug)]
pub struct PendingAnswer {
    /// Its place in the log: deliveries before it leave first.
    pub place: Position,
    /// The batch that it waits for; 0: none.
    pub batch: BatchId,
    /// When its frame came.
    pub received: Instant,
    /// What it says.
    pub answer: AppAnswer,
}

/// What an application is told.
#[derive(Debug)]
pub enum AppAnswer {
    /// Greeting, encoded.
    Welcome(Bytes),
    /// Receipt.
    Receipt {
        /// `messageId`.
        id: Bytes,
        /// Version's clock part.
        version: Hlc,
        /// P9 applied.
        duplicate: bool,
        /// Number of the frame.
        frame: u64,
    },
    /// A read whose turn has not come: the store is asked first.
    Read {
        /// What is asked.
        read: ReadRequest<'static>,
        /// Number of the frame.
        frame: u64,
        /// Client errors before it.
        errors: ErrorStreak,
    },
    /// The answer to a read.
    Result {
        /// What was asked.
        read: ReadRequest<'static>,
        /// The newest message of the key, if there is one.
        newest: Option<Message>,
    },
    /// Refusal.
    Error {
        /// Why.
        refusal: Refusal,
        /// Number of the frame.
        frame: u64,
    },
}

impl Link {
    /// Whether another frame may be transmitted.
    pub fn has_credit(&self) -> bool {
        let credit = match self.state {
            LinkState::Peer(_) => PEER_CREDIT,
            LinkState::Handshake | LinkState::Candidate { .. } | LinkState::Application(_) => {
                APPLICATION_CREDIT
            }
        };
        self.traffic.cost_in_flight < credit
    }

    /// Whether too much waits on it to read on.
    pub fn is_congested(&self) -> bool {
        match &self.state {
            LinkState::Handshake | LinkState::Candidate { .. } => false,
            // Acknowledgements and refusals leave whatever the credit says, because they answer
            // what came: who does not read them is not read either.
            LinkState::Peer(peer) => {
                peer.rows_in.parked.len() > MAX_PARKED
                    || self.traffic.cost_in_flight > 2 * PEER_CREDIT
            }
            LinkState::Application(application) => application.answers.len() > MAX_ANSWERS,
        }
    }

    /// Whether deliveries may leave: an application is greeted first.
    pub fn is_greeted(&self) -> bool {
        match &self.state {
            LinkState::Handshake | LinkState::Candidate { .. } => false,
            LinkState::Peer(_) => true,
            LinkState::Application(application) => application.greeted,
        }
    }

    /// Whether nothing more is taken on it: its application has spent its errors, or has broken the
    /// protocol, and is owed answers.
    pub fn is_ending(&self) -> bool {
        self.application().is_some_and(|application| application.ending.is_some())
    }

    /// Rows up to here may be handed over now: what lies behind a receipt that waits for a read
    /// waits too, so that answers and deliveries keep the order of the log.
    pub fn reach(&self) -> Position {
        let answers = self.application().map(|application| &application.answers);
        let waiting = answers.filter(|answers| {
            matches!(answers.front(), Some(PendingAnswer { answer: AppAnswer::Read { .. }, .. }))
        });
        let mut places = waiting.into_iter().flatten().map(|pending| pending.place);
        let first = places.find(|place| *place > Position::default());
        first.map_or(Position::new(u64::MAX), Position::before)
    }

    /// The session that it serves.
    pub fn session(&self) -> Option<SessionId> {
        match &self.state {
            LinkState::Handshake | LinkState::Candidate { .. } => None,
            LinkState::Peer(peer) => Some(peer.session),
            LinkState::Application(application) => Some(application.session),
        }
    }

    /// The peer, if it is one.
    pub fn peer(&self) -> Option<&PeerLink> {
        match &self.state {
            LinkState::Peer(peer) => Some(peer),
            LinkState::Handshake | LinkState::Candidate { .. } | LinkState::Application(_) => None,
        }
    }

    /// The peer, if it is one.
    pub fn peer_mut(&mut self) -> Option<&mut PeerLink> {
        match &mut self.state {
            LinkState::Peer(peer) => Some(peer),
            LinkState::Handshake | LinkState::Candidate { .. } | LinkState::Application(_) => None,
        }
    }

    /// The application, if it is one.
    pub fn application(&self) -> Option<&AppLink> {
        match &self.state {
            LinkState::Application(application) => Some(application),
            LinkState::Handshake | LinkState::Candidate { .. } | LinkState::Peer(_) => None,
        }
    }

    /// The application, if it is one.
    pub fn application_mut(&mut self) -> Option<&mut AppLink> {
        match &mut self.state {
            LinkState::Application(application) => Some(application),
            LinkState::Handshake | LinkState::Candidate { .. } | LinkState::Peer(_) => None,
        }
    }
}

impl AppLink {
    /// A frame was no error.
    pub fn went_well(&mut self) {
        self.errors = ErrorStreak::default();
    }

    /// Counts a refusal. A client that errs too often in a row is to be closed.
    pub fn erred(&mut self, code: Code, now: Instant) {
        if !code.retryable() {
            self.errors.count += 1;
        }
        self.end_if_spent(self.errors.count, code, now);
    }

    /// A read waits for its answer: only that tells whether a row of errors goes on. Answers with
    /// the errors before it.
    pub fn asked(&mut self) -> ErrorStreak {
        core::mem::replace(&mut self.errors, ErrorStreak { count: 0, follows_read: true })
    }

    /// The first of the reads that waited was refused, `before` being the errors before it.
    pub fn asked_in_vain(&mut self, before: ErrorStreak, code: Code, now: Instant) {
        let refused = before.count + u32::from(!code.retryable());
        let mut rows = self.answers.iter_mut().filter_map(|pending| match &mut pending.answer {
            AppAnswer::Read { errors, .. } => Some(errors),
            AppAnswer::Welcome(_) | AppAnswer::Receipt { .. } => None,
            AppAnswer::Result { .. } | AppAnswer::Error { .. } => None,
        });
        let next = rows.next().unwrap_or(&mut self.errors);
        let in_row = if next.follows_read {
            next.count += refused;
            next.count
        } else {
            refused
        };
        self.end_if_spent(in_row, code, now);
    }

    fn end_if_spent(&mut self, errors: u32, code: Code, now: Instant) {
        if errors >= ERROR_BUDGET {
            let last = code.as_str();
            let reason = alloc::format!("{ERROR_BUDGET} errors in a row, the last one {last}");
            self.end(Close { code: CloseCode::Limit, reason }, now);
        }
    }

    /// To be closed so, unless its end has begun.
    pub fn end(&mut self, close: Close, now: Instant) {
        self.ending.get_or_insert((close, now + ANSWER_PATIENCE));
    }
}
