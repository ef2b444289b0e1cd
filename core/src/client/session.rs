//! What an application keeps between two connections, and what it says on the next one.
//!
//! What stays true:
//!
//! - Answers are matched to questions; each question is answered once.
//! - A publisher with a name asks again, with the same ids and in the same order, and the node
//!   knows them (P9). One without a name cannot ask again without publishing twice: what it has
//!   sent and not heard of is answered [`PublishError::Unanswered`]. What a node refused because it
//!   is ending is asked again in either case.
//! - Deliveries are handed over and settled as `hands` says.
//! - After the close codes that mean "do not come again" nothing is tried again.
//!
//! [`Settings`] say whether a session has a name and whether it goes on after a lost connection.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::beat::{Beat, Pulse};
use super::frames::{self, Delivery, Outcome, Refused, Text, Version, batches};
use super::hands::{Hands, Mark, Step};
use super::{CodecError, Ended, Publication, Received, Value};
use crate::clock::Hlc;
use crate::config::{Durability, Heartbeat, Reconnect};
use crate::ids::Position;
use crate::io::Frame;
use crate::message::Kind;
use crate::rate::{Random, backoff};
use crate::refusal::Code;
use crate::time::Instant;
use crate::wire::{BatchKind, Read, Settle, Welcome};

/// What an application says of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done with it.
    Ack,
    /// Hand it over again, later, for this reason.
    Retry(String),
    /// Make it a dead letter, for this reason.
    Reject(String),
}

/// A message is in the node's store (P1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// `messageId`.
    pub id: Text,
    /// Clock part of its version.
    pub version: Hlc,
    /// Whether this is the receipt of an earlier publish (P9).
    pub duplicate: bool,
    /// What it stands for: synced to disk, or only written.
    pub level: Durability,
}

/// Why there is no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The node refused it; it is not there.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// The connection ended before the answer, and nobody will ask again: it may be there or not.
    /// It can be published again with the same id under the same name.
    #[error("no answer: {0}; the message may be there or not (a publisher with a name asks again)")]
    Unanswered(Ended),
    /// It was not sent; it is not there.
    #[error("not sent: {0}")]
    NotSent(Ended),
}

/// Why there is no answer to a read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The node refused it.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// The session is over.
    #[error("no answer: {0}")]
    Ended(Ended),
}

/// What became known. `P` and `R` are the tickets of publications and reads.
#[derive(Debug)]
pub enum Heard<P, R> {
    /// What became of a publication.
    Published(P, Result<Receipt, PublishError>),
    /// What a key holds.
    Read(R, Result<Value, ReadError>),
    /// A message, to be settled by [`Session::settle`].
    Delivered(Delivery),
    /// All that was there at the greeting has been handed over.
    Synced,
}

#[derive(Debug)]
enum Asked<P, R> {
    Publish(Publication, P),
    Read { id: String, key: String, kind: Option<Kind>, ticket: R },
}

/// How a session behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether it has a name.
    pub named: bool,
    /// Whether it goes on after a lost connection. An unnamed session that receives cannot: what
    /// is published meanwhile would be missing, and nobody would know.
    pub reconnects: bool,
    /// Questions that may be unanswered, at least 1.
    pub window: usize,
    /// When the node is given up.
    pub heartbeat: Heartbeat,
    /// When it is tried again.
    pub reconnect: Reconnect,
}

/// See the module.
#[derive(Debug)]
pub struct Session<P, R> {
    pub(super) settings: Settings,
    random: Random,
    /// Of ids made up here.
    prefix: u64,
    last_id: u64,
    /// Unanswered, in order; the first `sent` were said on this connection.
    asked: VecDeque<Asked<P, R>>,
    sent: usize,
    /// Refused because the node is ending: to be asked on the next connection, before the others.
    postponed: Vec<Asked<P, R>>,
    hands: Hands,
    verdicts: Vec<(Position, Verdict)>,
    pongs: Vec<Bytes>,
    /// What the node said of itself; `None` while there is no connection.
    limits: Option<NodeLimits>,
    pulse: Pulse,
    failures: u32,
    conflated: u64,
}

#[derive(Debug, Clone, Copy)]
struct NodeLimits {
    window: usize,
    frame_bytes: u64,
}

impl<P, R> Session<P, R> {
    /// A session that is not connected. `seed` is random: message ids are made of it.
    pub fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        let mut random = Random::new(seed);
        Self {
            prefix: random.next(),
            random,
            last_id: 0,
            asked: VecDeque::new(),
            sent: 0,
            postponed: Vec::new(),
            hands: Hands::default(),
            verdicts: Vec::new(),
            pongs: Vec::new(),
            limits: None,
            pulse: Pulse::new(settings.heartbeat.clone(), now),
            failures: 0,
            conflated: 0,
            settings,
        }
    }

    /// How many questions may be asked now.
    pub fn room(&self) -> usize {
        let unanswered = self.asked.len() + self.postponed.len();
        self.settings.window.max(1).saturating_sub(unanswered)
    }

    /// Whether nothing is unanswered and nothing is left to be said.
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.postponed.is_empty() && self.verdicts.is_empty()
    }

    /// Publishes. Answers at once if the connection would not survive the message.
    pub fn publish(&mut self, mut publication: Publication, ticket: P) -> Option<Heard<P, R>> {
        if publication.id.is_empty() {
            publication.id = self.make_id();
        }
        let bytes = publication.bytes();
        if let Some(limits) = self.limits.filter(|limits| bytes as u64 > limits.frame_bytes) {
            let refused = Refused {
                id: Some(publication.id.into()),
                frame: 0,
                code: Text::from(String::from(Code::TooLarge.as_str())),
                retryable: false,
                retry_after: None,
                message: Text::from(format!(
                    "the message is {bytes} bytes, the node takes {} at most",
                    limits.frame_bytes
                )),
                path: None,
            };
            return Some(Heard::Published(ticket, Err(PublishError::Refused(Box::new(refused)))));
        }
        self.asked.push_back(Asked::Publish(publication, ticket));
        None
    }

    /// Asks for the value of a key, of this kind or of any.
    pub fn read(&mut self, key: String, kind: Option<Kind>, ticket: R) {
        let id = self.make_id();
        self.asked.push_back(Asked::Read { id, key, kind, ticket });
    }

    /// Takes what the application says of a delivery; `None`: it let go of it without a word, and
    /// wants it again when the node repeats it.
    pub fn settle(&mut self, settlement: Settlement) {
        let Settlement { id, mark, verdict } = settlement;
        let window = self.limits.map_or(1, |limits| limits.window);
        if self.hands.settled(id, mark, verdict.clone(), window) {
            self.verdicts.extend(verdict.map(|verdict| (id, verdict)));
        }
    }

    /// A connection is open and this is its greeting.
    pub fn connected(&mut self, welcome: &Welcome, now: Instant) {
        self.limits = Some(NodeLimits {
            window: welcome.window as usize,
            frame_bytes: welcome.max_message_bytes.saturating_mul(4),
        });
        self.hands.connected();
        self.verdicts.clear();
        self.pulse.heard(now);
    }

    /// What is to be sent now.
    pub fn frames(&mut self) -> Vec<Frame> {
        if self.limits.is_none() {
            return Vec::new();
        }
        let mut frames: Vec<_> = self.pongs.drain(..).map(Frame::Pong).collect();
        let settles = self.verdicts.iter().map(|(delivery, verdict)| match verdict {
            Verdict::Ack => Settle::Ack(*delivery),
            Verdict::Retry(reason) => Settle::Retry { delivery: *delivery, reason },
            Verdict::Reject(reason) => Settle::Reject { delivery: *delivery, reason },
        });
        let settles: Vec<_> = settles.collect();
        if !settles.is_empty() {
            frames.append(&mut batches(BatchKind::Settle, &settles));
        }
        self.verdicts.clear();
        let mut records = Vec::new();
        for asked in self.asked.range(self.sent..) {
            match asked {
                Asked::Publish(publication, _) => records.push(publication.record()),
                Asked::Read { id, key, kind, .. } => {
                    // Answers come in the order of the frames.
                    frames.append(&mut batches(BatchKind::Publish, &records));
                    records.clear();
                    let read = Read { kind: *kind, id, key };
                    frames.append(&mut batches(BatchKind::Reads, &[read]));
                }
            }
        }
        frames.append(&mut batches(BatchKind::Publish, &records));
        self.sent = self.asked.len();
        frames
    }

    /// Takes a frame of the node.
    ///
    /// # Errors
    /// [`CodecError`]: the connection is of no more use.
    pub fn received(
        &mut self,
        frame: &Frame,
        now: Instant,
        heard: &mut Vec<Heard<P, R>>,
    ) -> Result<(), CodecError> {
        self.pulse.heard(now);
        self.failures = 0;
        if let Frame::Ping(payload) = frame {
            self.pongs.push(payload.clone());
        }
        match frames::received(frame, &mut self.conflated)? {
            None => {}
            Some(Received::Outcomes(outcomes)) => {
                for outcome in outcomes.into_iter().filter(Outcome::answers_publish) {
                    heard.extend(self.answered(outcome)?);
                }
            }
            Some(Received::Results(results)) => {
                for value in results {
                    let ticket = self.take_read(&value.id)?;
                    heard.push(Heard::Read(ticket, Ok(value)));
                }
            }
            Some(Received::Deliveries(deliveries)) => {
                for delivery in deliveries {
                    match self.hands.delivered(delivery.id, delivery.mark()) {
                        Step::Hand => heard.push(Heard::Delivered(delivery)),
                        Step::Held => {}
                        Step::Settled(verdict) => self.verdicts.push((delivery.id, verdict)),
                    }
                }
            }
            Some(Received::Synced) => heard.push(Heard::Synced),
        }
        Ok(())
    }

    /// What the silence of the connection calls for.
    pub fn beat(&mut self, now: Instant) -> Beat {
        self.pulse.beat(now)
    }

    /// The connection has ended, or could not be opened. Answers how long to wait before the next
    /// attempt; `None`: the session is over, and every question is answered.
    pub fn lost(&mut self, why: &Ended, heard: &mut Vec<Heard<P, R>>) -> Option<Duration> {
        self.limits = None;
        self.pongs.clear();
        self.verdicts.clear();
        self.failures = self.failures.saturating_add(1);
        let reconnect = &self.settings.reconnect;
        let gave_up = reconnect.max_attempts != 0 && self.failures >= reconnect.max_attempts;
        let over = !why.may_pass() || gave_up || !self.settings.reconnects;
        let sent = core::mem::take(&mut self.sent) + self.postponed.len();
        let refused = self.postponed.len();
        let mut kept = VecDeque::new();
        for (index, asked) in self.postponed.drain(..).chain(self.asked.drain(..)).enumerate() {
            let is_sent = (refused..sent).contains(&index);
            match asked {
                Asked::Publish(_, ticket) if is_sent && (over || !self.settings.named) => {
                    let error = PublishError::Unanswered(why.clone());
                    heard.push(Heard::Published(ticket, Err(error)));
                }
                Asked::Publish(_, ticket) if over => {
                    let error = PublishError::NotSent(why.clone());
                    heard.push(Heard::Published(ticket, Err(error)));
                }
                Asked::Read { ticket, .. } if over => {
                    heard.push(Heard::Read(ticket, Err(ReadError::Ended(why.clone()))));
                }
                waiting @ (Asked::Publish(..) | Asked::Read { .. }) => kept.push_back(waiting),
            }
        }
        self.asked = kept;
        let wait = backoff(reconnect.initial, reconnect.max, self.failures);
        (!over).then(|| self.random.below(wait))
    }

    fn make_id(&mut self) -> String {
        self.last_id += 1;
        format!("{:016x}-{}", self.prefix, self.last_id)
    }

    fn answered(&mut self, outcome: Outcome) -> Result<Option<Heard<P, R>>, CodecError> {
        let id = match &outcome {
            Outcome::Receipt { id, .. } => Some(id.clone()),
            Outcome::Refused(refused) => refused.id.clone(),
        };
        let receipt = matches!(outcome, Outcome::Receipt { .. });
        let at =
            self.find(id.as_deref(), |asked| matches!(asked, Asked::Publish(..)) || !receipt)?;
        let asked = self.take(at);
        Ok(Some(match (asked, outcome) {
            // It is not there, and this connection is about to be closed.
            (asked, Outcome::Refused(refused))
                if &*refused.code == Code::ShuttingDown.as_str() && self.settings.reconnects =>
            {
                self.postponed.push(asked);
                return Ok(None);
            }
            (Asked::Publish(_, ticket), Outcome::Receipt { id, version, duplicate, level }) => {
                let version = match version {
                    Version::Clock(version) => version,
                    Version::Text(_) => Hlc::default(),
                };
                Heard::Published(ticket, Ok(Receipt { id, version, duplicate, level }))
            }
            (Asked::Publish(_, ticket), Outcome::Refused(refused)) => {
                Heard::Published(ticket, Err(PublishError::Refused(Box::new(refused))))
            }
            (Asked::Read { ticket, .. }, Outcome::Refused(refused)) => {
                Heard::Read(ticket, Err(ReadError::Refused(Box::new(refused))))
            }
            (Asked::Read { .. }, Outcome::Receipt { id, .. }) => {
                return Err(CodecError::Protocol(format!("a receipt for the read {id}")));
            }
        }))
    }

    fn take_read(&mut self, id: &str) -> Result<R, CodecError> {
        let at = self.find(Some(id), |asked| matches!(asked, Asked::Read { .. }))?;
        match self.take(at) {
            Asked::Read { ticket, .. } => Ok(ticket),
            Asked::Publish(..) => Err(CodecError::Protocol(format!("a result for {id}"))),
        }
    }

    /// The oldest question on this connection that this answers; without an id, the oldest.
    fn find(
        &self,
        id: Option<&str>,
        fits: impl Fn(&Asked<P, R>) -> bool,
    ) -> Result<usize, CodecError> {
        let of = |asked: &Asked<P, R>| match asked {
            Asked::Publish(publication, _) => id.is_none_or(|id| publication.id == id),
            Asked::Read { id: own, .. } => id.is_none_or(|id| own == id),
        };
        let found = self.asked.iter().take(self.sent).position(|asked| of(asked) && fits(asked));
        found.ok_or_else(|| {
            CodecError::Protocol(format!("an answer to {}, which was not asked", id.unwrap_or("?")))
        })
    }

    fn take(&mut self, at: usize) -> Asked<P, R> {
        self.sent -= 1;
        self.asked.remove(at).expect("it was found there")
    }
}

/// What an application says of one delivery, to be given to its [`Session`].
#[derive(Debug)]
pub struct Settlement {
    id: Position,
    mark: Mark,
    verdict: Option<Verdict>,
}

impl Settlement {
    /// About `delivery`; `None`: it is let go of without a word.
    pub fn of(delivery: &Delivery, verdict: Option<Verdict>) -> Self {
        Self { id: delivery.id, mark: delivery.mark(), verdict }
    }
}
