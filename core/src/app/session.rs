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
//! [`ClientSettings`] say whether a session has a name and whether it goes on after a lost
//! connection.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::answer::{Heard, Outcome, Verdict};
use super::deliveries::{DeliveryStep, OpenDeliveries};
use super::delivery::{DeliveredMessage, Mark};
use super::frames;
use super::heartbeat::{AppHeartbeat, Beat};
use super::requests::OpenRequests;
use super::{CodecError, DisconnectReason, Publication, Received};
use crate::config::{Heartbeat, Reconnect};
use crate::io::{Frame, Protocol};
use crate::types::ids::Position;
use crate::types::rate::{Random, backoff};
use crate::types::time::Instant;
use crate::wire::application::AckMode;
use crate::wire::json::MAX_REASON_BYTES;
use crate::wire::message::Kind;
use crate::wire::{Settle, Welcome};

/// How a session behaves.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// What it speaks.
    pub protocol: Protocol,
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
pub struct ClientSession<P, R> {
    pub(super) settings: ClientSettings,
    random: Random,
    /// Of ids made up here.
    prefix: u64,
    last_id: u64,
    questions: OpenRequests<P, R>,
    hands: OpenDeliveries,
    verdicts: Vec<(Position, Verdict)>,
    /// Largest frame that the node takes; `None` while there is no connection.
    frame_bytes: Option<usize>,
    /// Deliveries that the node leaves unsettled at most.
    window: usize,
    /// Whether the node waits for acknowledgements.
    acknowledges: bool,
    pulse: AppHeartbeat,
    failures: u32,
    conflated: u64,
}

impl<P, R> ClientSession<P, R> {
    /// A session that is not connected. `seed` is random: message ids are made of it.
    pub fn new(settings: ClientSettings, seed: u64, now: Instant) -> Self {
        let mut random = Random::new(seed);
        Self {
            prefix: random.next(),
            random,
            last_id: 0,
            questions: OpenRequests::default(),
            hands: OpenDeliveries::default(),
            verdicts: Vec::new(),
            frame_bytes: None,
            window: 1,
            acknowledges: true,
            pulse: AppHeartbeat::new(settings.heartbeat.clone(), now),
            failures: 0,
            conflated: 0,
            settings,
        }
    }

    /// How many questions may be asked now.
    pub fn room(&self) -> usize {
        self.settings.window.max(1).saturating_sub(self.questions.len())
    }

    /// Whether the application holds more than it should: the node lets go of a value that a newer
    /// one has overtaken, and hands over more. Whoever reads on regardless needs memory for it.
    pub fn is_full(&self) -> bool {
        self.hands.held() > 2 * self.window
    }

    /// Whether nothing is unanswered and nothing is left to be said.
    pub fn is_idle(&self) -> bool {
        self.questions.len() == 0 && self.verdicts.is_empty()
    }

    /// Publishes. Answers at once if the message is refused here, because the connection would not
    /// survive it.
    pub fn publish(&mut self, mut publication: Publication, ticket: P) -> Option<Heard<P, R>> {
        if publication.id.is_empty() {
            publication.id = self.make_id();
        }
        self.questions.publish(publication, ticket, self.frame_bytes.unwrap_or(usize::MAX))
    }

    /// Asks for the value of a key, of this kind or of any.
    pub fn read(&mut self, key: String, kind: Option<Kind>, ticket: R) {
        let id = self.make_id();
        self.questions.read(self.settings.protocol, id, key, kind, ticket);
    }

    /// Takes what the application says of a delivery.
    pub fn settle(&mut self, settlement: Settlement) {
        let Settlement { id, mark, verdict } = settlement;
        if self.hands.settled(id, mark, verdict.clone(), self.window) && self.acknowledges {
            self.verdicts.extend(verdict.map(|verdict| (id, verdict)));
        }
    }

    /// A connection is open and this is its greeting.
    pub fn connected(&mut self, welcome: &Welcome, now: Instant, heard: &mut Vec<Heard<P, R>>) {
        let frame_bytes = welcome.max_message_bytes.saturating_mul(4);
        let frame_bytes = usize::try_from(frame_bytes).unwrap_or(usize::MAX);
        self.frame_bytes = Some(frame_bytes);
        self.window = welcome.window as usize;
        let in_force = welcome.in_force.as_ref();
        self.acknowledges = in_force.is_none_or(|in_force| in_force.ack == AckMode::Manual);
        self.questions.connected(frame_bytes, now, heard);
        self.hands.connected();
        self.verdicts.clear();
        self.pulse.heard(now);
    }

    /// What is to be sent now. What cannot be said is answered.
    pub fn frames(&mut self, now: Instant, heard: &mut Vec<Heard<P, R>>) -> Vec<Frame> {
        let Some(frame_bytes) = self.frame_bytes else { return Vec::new() };
        let protocol = self.settings.protocol;
        let settles = self.verdicts.iter().map(|(delivery, verdict)| match verdict {
            Verdict::Ack => Settle::Ack(*delivery),
            Verdict::Retry(reason) => Settle::Retry { delivery: *delivery, reason },
            Verdict::Reject(reason) => Settle::Reject { delivery: *delivery, reason },
        });
        let settles: Vec<_> = settles.collect();
        let mut frames = frames::settle(protocol, &settles);
        self.verdicts.clear();
        match protocol {
            Protocol::Postcard => self.questions.batches(frame_bytes, now, &mut frames),
            Protocol::Json => self.questions.texts(frame_bytes, now, &mut frames, heard),
        }
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
        let Some(received) = frames::received(frame, &mut self.conflated)? else { return Ok(()) };
        match received {
            Received::Outcomes(outcomes) => {
                self.failures = 0;
                for outcome in outcomes.into_iter().filter(Outcome::answers_publish) {
                    heard.extend(self.questions.answered(outcome, self.settings.reconnects)?);
                }
            }
            Received::Results(results) => {
                self.failures = 0;
                for value in results {
                    heard.push(self.questions.found(value)?);
                }
            }
            Received::Deliveries(deliveries) => {
                self.failures = 0;
                for delivery in deliveries {
                    match self.hands.delivered(delivery.id, delivery.mark()) {
                        DeliveryStep::Hand => heard.push(Heard::Delivered(delivery)),
                        DeliveryStep::Held => self.conflated += delivery.conflated,
                        DeliveryStep::Settled(verdict) => {
                            self.conflated += delivery.conflated;
                            self.verdicts.push((delivery.id, verdict));
                        }
                    }
                }
            }
            Received::Synced => heard.push(Heard::Synced),
        }
        Ok(())
    }

    /// Bytes have moved on the connection: it is alive.
    pub fn moved(&mut self, now: Instant) {
        self.pulse.heard(now);
    }

    /// What the silence of the connection calls for.
    pub fn beat(&mut self, now: Instant) -> Beat {
        self.pulse.beat(now, self.is_full())
    }

    /// The connection has ended, or could not be opened. Answers how long to wait before the next
    /// attempt; `None`: the session is over, and every question is answered.
    pub fn lost(
        &mut self,
        why: &DisconnectReason,
        heard: &mut Vec<Heard<P, R>>,
    ) -> Option<Duration> {
        self.frame_bytes = None;
        self.verdicts.clear();
        self.failures = self.failures.saturating_add(1);
        let reconnect = &self.settings.reconnect;
        // The first failure is the loss itself.
        let gave_up = reconnect.max_attempts != 0 && self.failures > reconnect.max_attempts;
        let over = !why.may_pass() || gave_up || !self.settings.reconnects;
        self.questions.lost(why, over, self.settings.named, heard);
        let wait = backoff(reconnect.initial, reconnect.max, self.failures);
        (!over).then(|| self.random.below(wait))
    }

    /// Ends it: every question is answered.
    pub fn end(&mut self, why: &DisconnectReason, heard: &mut Vec<Heard<P, R>>) {
        self.frame_bytes = None;
        self.verdicts.clear();
        self.questions.lost(why, true, self.settings.named, heard);
    }

    fn make_id(&mut self) -> String {
        self.last_id += 1;
        format!("{:016x}-{}", self.prefix, self.last_id)
    }
}

/// What an application says of one delivery, to be given to its [`ClientSession`].
#[derive(Debug)]
pub struct Settlement {
    id: Position,
    mark: Mark,
    verdict: Option<Verdict>,
}

impl Settlement {
    /// About `delivery`; `None`: it is let go of without a word, and wanted again when the node
    /// repeats it. A reason above the limit is cut.
    pub fn of(delivery: &DeliveredMessage, mut verdict: Option<Verdict>) -> Self {
        if let Some(Verdict::Retry(reason) | Verdict::Reject(reason)) = &mut verdict {
            reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        }
        Self { id: delivery.id, mark: delivery.mark(), verdict }
    }
}
