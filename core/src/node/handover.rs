//! Messages go out: one session walks the log and its link carries what is owed.
//!
//! A [`SessionWalk`] holds what that needs, borrowed for one visit. What stays true: rows are
//! looked at in log order, each once; nothing is carried beyond credit and window; what the session
//! is owed becomes a flight before the desk moves on. Dead letters are returned as facts, not
//! written here.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::config::Config;
use crate::io::{Frame, Protocol};
use crate::log::group_copies::GroupCopies;
use crate::log::lifetime::Moment;
use crate::log::seen::Seen;
use crate::log::tail::Tail;
use crate::mesh::topology::{Route, Topology};
use crate::session::link::{Link, LinkState, PEER_WINDOW};
use crate::session::{Delivered, Flight, Offer, Role, Session, Word};
use crate::store::{DeadReason, Query, Row, StoredRow};
use crate::types::clock::Clock;
use crate::types::ids::Position;
use crate::types::time::Now;
use crate::wire::application::AckMode;
use crate::wire::json;
use crate::wire::{BatchKind, DeliveryHead, FRAME_OVERHEAD, FRAME_TARGET, FrameWriter, Left, Wire};

use super::burial::DeadLetterDraft;
use super::outbox::Outbox;

/// Rows asked of the store at once.
const FETCH_ROWS: usize = 1024;
/// Bytes asked of the store at once.
const FETCH_BYTES: usize = 256 << 10;

/// Where a session and its link meet.
pub(super) struct SessionWalk<'a> {
    pub(super) session: &'a mut Session,
    pub(super) link: &'a mut Link,
    pub(super) log: &'a mut Tail,
    pub(super) carrier: RowSender<'a>,
}

/// What carries a row: everything but session, link and log.
pub(super) struct RowSender<'a> {
    pub(super) config: &'a Config,
    pub(super) out: &'a mut Outbox,
    pub(super) seen: &'a mut Seen,
    pub(super) topology: &'a mut Topology,
    pub(super) now: Now,
    /// Which time can be trusted, and what events live by.
    pub(super) clock: (&'a Clock, Moment),
    /// What a lost life of the store may have handed over, and when copies have ended.
    pub(super) past: (crate::log::epochs::LostLife<'a>, &'a GroupCopies),
    pub(super) deaths: Vec<DeadLetterDraft>,
    pub(super) first: u64,
    pub(super) again: u64,
    pub(super) pulled: u64,
    pub(super) conflated: u64,
}

/// Why a session stopped walking.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WalkStop {
    /// Everything up to the bound was looked at.
    Done,
    /// The application or peer must acknowledge first.
    Window,
    /// The socket must take something first.
    Credit,
    /// The store must answer first: this, or what it was asked before.
    Store(Option<Query>),
    /// The session takes nothing now.
    Held,
}

impl SessionWalk<'_> {
    /// Hands over what is owed up to and with `upto`, as far as it goes.
    pub(super) fn walk(&mut self, upto: Position) -> WalkStop {
        if !self.session.receives() {
            self.session.next = self.session.next.max(upto.next());
        }
        let reach = self.link.reach();
        loop {
            if self.session.next > upto.min(reach) {
                return if reach < upto { WalkStop::Held } else { WalkStop::Done };
            }
            if let Some(stop) = self.stop() {
                if matches!(stop, WalkStop::Window | WalkStop::Credit)
                    && self.session.wants_conflation()
                {
                    self.session.conflate(self.log.durable());
                }
                return stop;
            }
            let position = self.session.next;
            let tail = self.log.row(position);
            // Where the newest of the key matters, the store has the word.
            let tail = tail.filter(|tail| !self.session.is_checked(&tail.row));
            let Some(tail) = tail else {
                return WalkStop::Store(Some(self.query()));
            };
            self.carrier.offer(self.session, self.link, &tail.row, Some(&mut tail.json));
            self.session.next = position.next();
        }
    }

    fn stop(&self) -> Option<WalkStop> {
        if self.session.fetch.is_some() {
            Some(WalkStop::Store(None))
        } else if self.is_held() {
            Some(WalkStop::Held)
        } else if !self.link.has_credit() {
            Some(WalkStop::Credit)
        } else {
            (self.window() == 0).then_some(WalkStop::Window)
        }
    }

    pub(super) fn is_held(&self) -> bool {
        let max = self.carrier.config.store.session_max_bytes;
        self.session.is_held(self.carrier.now.instant, max)
    }

    fn window(&self) -> usize {
        let flights = self.session.flights.len();
        match &self.session.role {
            Role::Peer(_) => PEER_WINDOW.saturating_sub(flights),
            Role::Application(application) => match application.ack {
                AckMode::Manual => {
                    self.carrier.config.limits.delivery_window.saturating_sub(flights)
                }
                AckMode::Auto => FETCH_ROWS,
            },
        }
    }

    fn query(&self) -> Query {
        Query::Rows {
            after: self.session.next.before(),
            // Only rows that need the store's word are asked beyond what is in memory.
            upto: self.log.durable().min(self.link.reach()),
            newest_upto: self.session.check_upto(),
            tags: self.session.tags(&self.carrier.config.tags).cloned(),
            timely: self.carrier.clock.0.timely(),
            max_rows: self.window().min(FETCH_ROWS),
            max_bytes: FETCH_BYTES,
        }
    }

    /// Rows that the store found; `upto` is how far it looked, and up to `judged` it left out what
    /// is not the newest of its key.
    pub(super) fn rows(&mut self, rows: &[StoredRow], upto: Position, judged: Position) {
        let (after, head) = (self.session.next.before(), self.log.durable());
        if self.session.application().is_some() {
            self.session.walk.checked.note(after, upto.min(judged), head);
        }
        for StoredRow { row, superseded } in rows {
            if row.position < self.session.next {
                continue;
            }
            if self.stop().is_some() {
                return;
            }
            let before = row.position.before();
            let checked = self.session.is_checked(row);
            if checked && row.position > judged && !row.late && row.only.is_none() {
                // It has come to matter since the store was asked: it is asked again.
                return;
            }
            let is_left_out = *superseded && checked;
            self.pass(if is_left_out && row.only.is_none() { row.position } else { before });
            if !is_left_out {
                self.carrier.offer(self.session, self.link, row, None);
            } else if self.session.is_owed(row, &self.carrier.config.tags) {
                self.carrier.out.metrics.superseded += 1;
                if row.copy.is_some() {
                    self.session.walk.checked.note_row(row.position, None, 0);
                }
            }
            self.session.next = row.position.next();
        }
        self.pass(upto);
    }

    /// Passes over the rows up to and with `upto`. Those of a conflated stretch were left out for
    /// newer values of their keys: they are counted, but for what is known not to be owed. That is
    /// not known of rows that are neither in memory nor in the store any more.
    fn pass(&mut self, upto: Position) {
        let session = &mut *self.session;
        if let Some((first, last)) = session.conflated_upto(upto) {
            let tags = &self.carrier.config.tags;
            let in_memory = self.log.rows_between(first, last);
            let not_owed = in_memory.filter(|row| !session.is_owed(row, tags)).count() as u64;
            let values = last.get() - first.before().get() - not_owed;
            session.leave_out(last, values);
            self.carrier.conflated += values;
        }
        session.next = session.next.max(upto.next());
    }

    /// Flights that were due, and what the store has of them.
    pub(super) fn repeats(&mut self, asked: &[Position], rows: &[StoredRow]) {
        let mut rows = rows.iter().peekable();
        let mut gone = Vec::new();
        for position in asked {
            let found = rows.next_if(|stored| stored.row.position == *position);
            let Some(flight) = self.session.flights.get(position) else { continue };
            let is_limited = flight.due.is_some();
            match found {
                Some(StoredRow { row, superseded: false }) => {
                    if self.is_held() || !self.link.has_credit() {
                        return;
                    }
                    let is_carried = self.carrier.repeat(self.session, self.link, row);
                    if is_limited && !is_carried {
                        self.session.notes.repeats.give_back();
                    }
                }
                // Superseded, or gone for that reason.
                Some(_) | None => {
                    let row = found.map(|stored| &stored.row);
                    let flight = self.session.outdo(*position, row, self.log.durable());
                    if is_limited {
                        self.session.notes.repeats.give_back();
                    }
                    self.carrier.out.metrics.superseded += 1;
                    if let Some(Flight { offer: Offer::Wanted(id), .. }) = flight {
                        gone.push(id);
                    }
                }
            }
        }
        self.carrier.name(self.link, BatchKind::Gone, gone);
    }
}

impl RowSender<'_> {
    /// Hands a row over for the first time on this session, if it is owed.
    fn offer(
        &mut self,
        session: &mut Session,
        link: &mut Link,
        row: &Row,
        json: Option<&mut Option<Bytes>>,
    ) {
        let is_event = !row.message.kind().is_state();
        if is_event && row.only.is_none() {
            session.came_to_event(row.position);
        }
        let known = !session.known.is_empty() && session.known.remove(&row.position);
        if known || !session.is_owed(row, &self.config.tags) || session.is_over(row) {
            return;
        }
        let route = self.route(link, row);
        if route == Route::Nowhere {
            session.peering.skipped.note(row);
            return;
        }
        let mut flight = Flight { is_event, ..Flight::new(self.now.wall) };
        match session.had(row, self.past.1) {
            Delivered::Nothing(handed) => {
                flight.handed = handed;
                if let Some(first) = row.copy.and_then(|copy| copy.of) {
                    session.walk.checked.forget_row(first);
                    // It may have been handed that one in an earlier life.
                    flight.handed = handed.max(u32::from(first <= session.walk.redelivery_upto));
                }
            }
            Delivered::Flight(first) => return session.wait_for(first, row.position, flight),
            Delivered::All => {
                session.notes.answered.extend(is_event.then_some(row.position));
                self.out.metrics.copies += 1;
                return;
            }
        }
        if let Some(reason) = self.refusal(link, row) {
            if reason == DeadReason::Expired {
                session.missed(row);
            }
            self.end(session, row, flight, reason);
            return;
        }
        if let Some((id, at)) = self.offered(session, link, row, route) {
            session.hold(row.position, flight, id, at);
            return;
        }
        if session.may_have_had(row, self.past.0) {
            flight.handed = flight.handed.max(1);
        }
        self.carry(session, link, row, flight, json);
    }

    /// Hands a flight over again, or gives it up. Answers whether it was handed over.
    fn repeat(&mut self, session: &mut Session, link: &mut Link, row: &Row) -> bool {
        let reason = self.refusal(link, row);
        let is_final = |flight: &Flight| flight.word.is_final();
        if session.flights.get(&row.position).is_none_or(is_final) {
            return false;
        }
        let flight = match reason {
            // The time of a copy may not be over.
            Some(DeadReason::Expired) => session.give_up(row.position),
            Some(
                DeadReason::Unacknowledged
                | DeadReason::Rejected
                | DeadReason::TooLarge
                | DeadReason::Forgotten,
            ) => session.end_flight(row.position),
            None => session.flights.remove(&row.position),
        };
        match (flight, reason) {
            (Some(flight), Some(reason)) => self.end(session, row, flight, reason),
            (Some(flight), None) => {
                self.carry(session, link, row, flight, None);
                return true;
            }
            (None, _) => {}
        }
        false
    }

    /// Why the session cannot be handed this message.
    fn refusal(&self, link: &Link, row: &Row) -> Option<DeadReason> {
        // Who replays an expired dead letter wants it handed over all the same.
        if row.only.is_none() && self.clock.1.is_over(row) {
            return Some(DeadReason::Expired);
        }
        let too_large = link.peer().is_some_and(|peer| {
            row.message.body_bytes() > peer.terms.max_message_bytes
                || row.message.encoded().len() + Left::MAX_BYTES + FRAME_OVERHEAD
                    > peer.terms.max_frame_bytes
        });
        too_large.then_some(DeadReason::TooLarge)
    }

    /// The obligation ends without an acknowledgement.
    fn end(&mut self, session: &mut Session, row: &Row, flight: Flight, reason: DeadReason) {
        if reason == DeadReason::Expired {
            self.out.metrics.expired += 1;
        }
        // An event that expires on its way to a node is settled; an unnamed session keeps nothing.
        let settled = reason == DeadReason::Expired && session.peer().is_some();
        let is_kept = session.is_durable() && !settled;
        // An application that was handed an event has it, whether it had time to say so or not: as
        // a dead letter of the node it would come again.
        let was_handed = session.application().is_some() && flight.handed > 0;
        if flight.is_event && (is_kept || was_handed) {
            session.notes.answered.push(row.position);
        }
        if is_kept {
            let message = row.message.clone();
            self.deaths.push(DeadLetterDraft { position: row.position, message, reason, flight });
        }
    }

    fn carry(
        &mut self,
        session: &mut Session,
        link: &mut Link,
        row: &Row,
        mut flight: Flight,
        json: Option<&mut Option<Bytes>>,
    ) {
        let redelivery = flight.handed;
        flight.handed += 1;
        // After a word of its own it comes as something new: what is said of those behind its
        // first hand-over does not speak of this one.
        let is_first = !flight.on_link;
        if is_first || flight.word.is_said() {
            session.notes.send_seq += 1;
            flight.carried = session.notes.send_seq;
        }
        flight.on_link = true;
        flight.word = Word::None;
        flight.due = None;
        if let Offer::Wanted(_) = flight.offer {
            self.pulled += 1;
        } else if redelivery == 0 {
            self.first += 1;
        } else {
            self.again += 1;
        }
        session.walk.handed_upto = session.walk.handed_upto.max(row.position);
        let conflated = core::mem::take(&mut session.walk.conflation.untold);
        match &session.role {
            Role::Peer(_) => self.carry_to_peer(link, row),
            Role::Application(application) => {
                let manual = application.ack == AckMode::Manual;
                self.carry_to_application(link, row, (redelivery, conflated), json);
                let frame = link.traffic.frames_out + u64::from(link.writer.is_some());
                if manual {
                    if is_first {
                        flight.frame = frame;
                    }
                    flight.id.get_or_insert_with(|| row.message.id().into());
                }
                if let Some(application) = link.application_mut() {
                    application.unsent.push_back((frame, row.position));
                }
            }
        }
        session.flights.insert(row.position, flight);
    }

    fn carry_to_application(
        &mut self,
        link: &mut Link,
        row: &Row,
        (redelivery, conflated): (u32, u64),
        json: Option<&mut Option<Bytes>>,
    ) {
        if link.protocol == Protocol::Postcard {
            if conflated > 0 {
                self.send_filled(link);
                let told = Wire::Conflated(conflated).encode();
                self.out.transmit(link, Frame::Binary(told));
            }
            let head = DeliveryHead { delivery: row.position, redelivery };
            let length = row.message.encoded().len() + 16;
            let writer = self.make_room(link, BatchKind::Deliveries, length, FRAME_TARGET);
            writer.push(&head);
            writer.push_message(&row.message);
            return;
        }
        let node = self.config.id.as_str();
        match json {
            Some(cache) => {
                let prefix = cache.get_or_insert_with(|| {
                    json::write::delivery_prefix(&row.message, node, &mut self.out.buffer);
                    self.out.buffer.split().freeze()
                });
                self.out.buffer.extend_from_slice(prefix);
            }
            None => json::write::delivery_prefix(&row.message, node, &mut self.out.buffer),
        }
        json::write::delivery_suffix(row.position, redelivery, conflated, &mut self.out.buffer);
        let frame = Frame::Text(self.out.buffer.split().freeze());
        self.out.transmit(link, frame);
    }

    /// The frame that is being filled, with room for `length` more bytes.
    pub(super) fn make_room<'l>(
        &mut self,
        link: &'l mut Link,
        kind: BatchKind,
        length: usize,
        limit: usize,
    ) -> &'l mut FrameWriter {
        let fits = |writer: &FrameWriter| {
            writer.kind() == kind && (writer.is_empty() || writer.len() + length <= limit)
        };
        if !link.writer.as_ref().is_some_and(fits) {
            self.send_filled(link);
        }
        link.writer.get_or_insert_with(|| FrameWriter::new(kind))
    }

    /// Sends the frame that is being filled.
    pub(super) fn send_filled(&mut self, link: &mut Link) {
        if let Some(writer) = link.writer.take() {
            self.out.transmit(link, Frame::Binary(writer.finish()));
        }
    }

    /// Adds this visit to the counters.
    pub(super) fn count(&mut self, session: &mut Session, link: &Link) {
        session.counts.delivered += self.first;
        session.counts.retransmits += self.again;
        if self.conflated > 0 {
            let unnamed = !session.is_durable();
            let name = if unnamed { "app:other" } else { &session.name };
            self.out.metrics.conflated(name, self.conflated);
        }
        if self.first + self.again + self.pulled == 0 {
            return;
        }
        match &link.state {
            LinkState::Peer(peer) => {
                self.out.metrics.sent(peer.node.as_str(), self.first, self.again, self.pulled);
            }
            LinkState::Application(_) if !session.is_durable() => {
                self.out.metrics.delivered("app:other", self.first, self.again);
            }
            LinkState::Application(_) => {
                self.out.metrics.delivered(&session.name, self.first, self.again);
            }
            LinkState::Handshake | LinkState::Candidate { .. } => {}
        }
    }
}
