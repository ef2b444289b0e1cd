//! Batches: sealed when the store is free, and what is released or taken back after.

use super::handlers::{Batches, Burial, Records, Refusals, Retention, lend};
use super::links::ActiveLink;
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use crate::admin::event::Event;
use crate::io::{Frame, Observation, Output};
use crate::log::epochs::EpochHistory;
use crate::log::lifetime::Lifetimes;
use crate::log::unclaimed::Unclaimed;
use crate::mesh::unmet::Unmet;
use crate::session::link::{AppAnswer, LinkState};
use crate::session::{Dirty, Session};
use crate::store::{Batch, Row, SessionRecord, Usage};
use crate::types::ids::{BatchId, Position};
use crate::types::refusal::{Code, Refusal};
use crate::types::time::{Instant, WallMs};
use crate::types::timers::Timer;
use crate::wire::{BatchKind, NotNow, NotNowReason, Wire};

use super::forgetting::held_from;
use crate::log::capacity::REST_AFTER_FULL;

/// Rows that sessions without an interest may skip before their records are written.
const SKIPPED_UNWRITTEN: u64 = 16_384;

impl Batches<'_> {
    /// Seals the growing batch if it has something to say and none is in flight.
    pub(super) fn seal_if_wanted(&mut self) {
        let wanted = self.log.commit_wanted || !self.log.tail.growing.rows.is_empty();
        if self.log.tail.is_committing() || !wanted || self.log.capacity.rest_until.is_some() {
            return;
        }
        self.log.commit_wanted = false;
        self.conflate_outboxes();
        let time = self.time.lifetimes.time(self.time.now);
        let (floor, state_floor) = lend!(self, Retention).floors();
        self.log.floor = floor;
        let (held_from, history_max_bytes) = (
            held_from(self.config, self.log, self.time.now.instant),
            self.log.capacity.history_bound(self.log.load(self.time.now.instant)),
        );
        let touched = core::mem::take(&mut self.log.receipts.touched).into_iter();
        let given_at = self.log.receipts.time(self.time.now.instant);
        let (blocks, dropped) = self.log.receipts.take_blocks(touched, given_at);
        let (seen, seen_dropped) = self.log.seen.take_changes();
        let mut ids = core::mem::take(&mut self.sessions.dirty_now);
        ids.append(&mut self.sessions.dirty_soon);
        self.time.timers.clear(Timer::Cursors);
        let growing = &mut self.log.tail.growing;
        let away_since = self.time.clock.estimate();
        for id in ids {
            if let Some(session) = self.sessions.table.get_mut(&id) {
                session.keeping.dirty = Dirty::Clean;
                growing.sessions.extend(session.record(away_since, &self.config.tags));
                // What a session has acknowledged, and who has had it, is durable together.
                session
                    .notes
                    .answered
                    .drain(..)
                    .for_each(|event| self.log.unclaimed.delivered(event));
            }
        }
        growing.sessions.extend(own_record(
            &mut self.log.unclaimed,
            &self.log.epochs,
            (&self.mesh.dialers.unmet, &self.time.lifetimes),
            self.time.now.instant,
        ));
        growing.receipts.extend(blocks);
        growing.receipts_dropped.extend(dropped);
        growing.seen = seen;
        growing.seen_dropped = seen_dropped;
        growing.clock = self.time.clock.stored_high_water();
        growing.incarnation = self.id.incarnation;
        growing.floor = floor;
        growing.state_floor = state_floor;
        growing.held_from = held_from;
        growing.history_max_bytes = history_max_bytes;
        growing.wall = time;
        let trusted = self.time.clock.trusted();
        growing.tombstones_before =
            trusted.map_or(WallMs(0), |wall| wall.minus(self.config.store.tombstone_ttl));
        let batch = self.log.tail.seal();
        self.out.push(Output::Commit(batch));
    }

    /// A session whose outbox is above its bound, dead letters included, is handed only the newest
    /// value of each key of it (P8); and so is one whose application asked for that and is away.
    fn conflate_outboxes(&mut self) {
        let durable = self.log.tail.durable();
        let max = self.config.store.session_max_bytes;
        let mut begun = Vec::new();
        let backlog = &self.log.backlog;
        self.sessions.table.wake_away(|next| backlog.from(next) > max);
        self.sessions.table.each_awake(|session| {
            if !session.is_durable() || session.next > durable {
                return;
            }
            let bytes = backlog.from(session.next) + session.dead_bytes();
            let lags = session.link.is_none() && session.wants_conflation();
            if (bytes > max || lags) && session.receives() && session.conflate(durable) {
                begun.push((session.id, session.name.clone(), bytes));
            }
        });
        for (id, session, bytes) in begun {
            lend!(self, Records).touch(id, Dirty::Soon);
            if bytes > max {
                self.out.event(Event::Conflating { session, bytes });
            }
        }
    }

    /// What waited on this link for the batch may leave.
    pub(super) fn release(&mut self, id: crate::types::ids::LinkId, batch: BatchId) {
        let Some(link) = self.links.by_id.get_mut(&id) else { return };
        match &mut link.state {
            LinkState::Handshake | LinkState::Candidate { .. } => {}
            LinkState::Peer(peer) => {
                peer.committed(batch);
                let seen = peer.take_seen(batch);
                if !peer.rows_in.waiting.is_empty() || !peer.rows_in.seen_later.is_empty() {
                    self.links.work.awaiting_commit.insert(id);
                }
                self.links.work.unflushed.insert(id);
                self.out.name(link, BatchKind::Seen, seen, &self.log.seen);
            }
            LinkState::Application(application) => {
                // The last one may be a repeated receipt, which waits for nothing itself.
                if application.answers.iter().rev().any(|answer| answer.batch > batch) {
                    self.links.work.awaiting_commit.insert(id);
                }
                self.sessions.ready.insert(application.session);
            }
        }
    }

    fn observe_commit(&mut self, batch: &Batch, took: core::time::Duration) {
        let messages = batch.rows.len();
        self.out.push(Output::Observe(Observation::Commit { took, messages }));
        let mut run: Option<(&Row, u64, usize)> = None;
        for row in batch.rows.iter().filter(|row| row.publisher.is_none() && row.only.is_none()) {
            let ms = self.time.now.wall.0.saturating_sub(row.message.version().wall().0);
            match &mut run {
                Some((first, took, count))
                    if *took == ms && first.message.origin() == row.message.origin() =>
                {
                    *count += 1;
                }
                Some(_) | None => {
                    self.out.extend(run.take().and_then(propagation));
                    run = Some((row, ms, 1));
                }
            }
        }
        self.out.extend(run.and_then(propagation));
    }

    /// A batch that rolls back takes all its marks with it, and those of the batch that built on
    /// it.
    fn undo(&mut self, batch: &Batch) {
        let mut letters = Vec::new();
        for marks in self.log.tail.failed() {
            for (source, sequence) in marks.forgotten.into_iter().rev() {
                self.log.seen.mark(source, sequence);
            }
            for (source, sequence) in marks.seen.into_iter().rev() {
                self.log.seen.unmark(source, sequence);
                if source == self.id.source {
                    self.id.sequence = self.id.sequence.min(sequence.before());
                }
            }
            for (key, before) in marks.newest.into_iter().rev() {
                self.log.newest.undo(key, before);
            }
            for (content, before) in marks.copies.into_iter().rev() {
                self.log.group_copies.undo(content, before);
            }
            for (id, link) in marks.asked {
                if self.links.by_id.contains_key(&link) {
                    self.mesh.wants.note(id, link, self.time.now.instant);
                }
            }
            for (session, id) in marks.receipts.into_iter().rev() {
                self.log.receipts.undo(session, &id);
            }
            letters.extend(marks.letters);
        }
        lend!(self, Burial).stay(letters);
        self.log.seen.restore_changes(&batch.seen, batch.seen_dropped.clone());
        self.log.receipts.undo_blocks(&batch.receipts);
        let after = self.log.tail.durable().next();
        for session in self.sessions.table.values_mut() {
            drop(session.known.split_off(&after));
        }
    }

    /// A batch is durable: takes note of what it holds.
    pub(super) fn note_commit(&mut self, batch: &Batch, usage: Usage, took: Duration) {
        self.log.capacity.usage = usage;
        self.observe_commit(batch, took);
        if let Some(last) = batch.rows.last() {
            let bytes = batch.rows.iter().map(|row| row.size() as u64).sum();
            self.log.backlog.grow(last.position, bytes);
        }
        self.note_events(&batch.rows);
    }

    /// A batch was rolled back: so is what built on it, and whoever waited for it is told.
    pub(super) fn take_back(&mut self, batch: Box<Batch>) {
        let failed = batch.id;
        self.undo(&batch);
        lend!(self, Records).keep_for_the_next(batch);
        self.links.work.awaiting_commit.clear();
        let mut refusals = lend!(self, Refusals);
        self.links.each_active(|link| refusals.refuse_undurable(link, failed));
    }

    /// Takes note of the events among rows that are durable now.
    fn note_events(&mut self, rows: &[Row]) {
        let now = self.time.lifetimes.time(self.time.now);
        for row in rows.iter().filter(|row| row.only.is_none() && !row.message.kind().is_state()) {
            self.log.unclaimed.note(row.position, row.ends, now);
            self.mesh.dialers.unmet.note(row.position, row.ends);
        }
        if let Some(last) = rows.last() {
            self.log.unclaimed.noted(last.position);
        }
    }
}

impl Refusals<'_> {
    /// Publishers that waited are refused; peers are told to send again later.
    pub(super) fn refuse_undurable(&mut self, link: &mut ActiveLink<'_>, failed: BatchId) {
        match &mut link.state {
            LinkState::Handshake | LinkState::Candidate { .. } => {}
            LinkState::Peer(peer) => {
                if let Some((first, last)) = peer.failed() {
                    let reason = NotNowReason::StoreFull;
                    let not_now = Wire::NotNow(NotNow { first, last, reason });
                    self.out.transmit(link, Frame::Binary(not_now.encode()));
                    link.work.unflushed.insert(link.id);
                }
            }
            LinkState::Application(application) => {
                let mut has_greeting = false;
                for pending in &mut application.answers {
                    if pending.batch < failed {
                        continue;
                    }
                    if let AppAnswer::Welcome(_) = pending.answer {
                        // The record of the new session goes with the next batch.
                        pending.batch = self.log.tail.growing_id();
                        has_greeting = true;
                        continue;
                    }
                    pending.batch = BatchId::default();
                    pending.place = pending.place.min(self.log.tail.durable());
                    if let AppAnswer::Receipt { id, frame, .. } = &pending.answer {
                        let mut refusal = Refusal::new(
                            Code::StoreFull,
                            "the node could not write the message: its disk is full",
                        );
                        refusal.re = core::str::from_utf8(id).ok().map(ToString::to_string);
                        refusal.retry_after = Some(REST_AFTER_FULL);
                        self.out.metrics.rejected(refusal.code);
                        pending.answer = AppAnswer::Error { refusal, frame: *frame };
                    }
                }
                self.sessions.ready.insert(application.session);
                if has_greeting {
                    link.work.awaiting_commit.insert(link.id);
                }
            }
        }
    }
}

impl Retention<'_> {
    /// No session needs anything at or below the first of these positions, nor superseded state
    /// at or below the second.
    pub(super) fn floors(&mut self) -> (Position, Position) {
        let trusted = self.time.moment().trusted();
        let lets_go = self.log.capacity.is_short_of_room() && self.knows_who_is_missing();
        let missing = lets_go.then(|| self.mesh.topology.missing());
        let mut floors = (self.log.tail.durable(), self.log.tail.durable());
        self.sessions.table.each_awake(|session| {
            if !session.receives() {
                return;
            }
            // Events that led nowhere may still find their way.
            let of = missing.as_ref().filter(|_| session.peering.back_at.is_none());
            let kept = session.peering.skipped.kept(trusted, of).map(Position::before);
            floors.0 = floors.0.min(session.cursor()).min(kept.unwrap_or(floors.0));
            floors.1 = floors.1.min(session.state_settled());
        });
        let (cursor, state) = self.sessions.table.resting_floors();
        floors.0 = floors.0.min(cursor.unwrap_or(floors.0));
        floors.1 = floors.1.min(state.unwrap_or(floors.1));
        // And who was never reached is somebody whom they may be for.
        floors.0 =
            floors.0.min(self.mesh.dialers.unmet.kept(trusted).map_or(floors.0, Position::before));
        // What is over is not forgotten before it is known whether it is a dead letter.
        let expired = self.log.unclaimed.expired_from(self.time.lifetimes.time(self.time.now));
        let expired =
            expired.filter(|_| !self.log.unclaimed.is_full(self.config.store.session_max_bytes));
        floors.0 = floors.0.min(expired.map_or(floors.0, Position::before));
        floors
    }

    /// Whether this node knows whoever may still want an event that led nowhere: its peers are all
    /// linked, and have told what they know of the mesh, and whoever was lost with its last start
    /// has had the time to come back.
    fn knows_who_is_missing(&self) -> bool {
        let has_told = |session: &Session| {
            let link = session.link.and_then(|link| self.links.by_id.get(&link));
            // A peer tells of the mesh before it says where its log ends.
            link.and_then(|link| link.peer()).is_some_and(|peer| peer.has_reported)
        };
        let mut peers = self.sessions.table.awake().filter(|session| session.peer().is_some());
        self.mesh.records_to_flood.is_empty()
            && !self.mesh.dialers.unmet.is_waiting()
            && self.time.now.instant.since(self.time.started) >= 2 * self.config.reconnect.max
            && peers.all(has_told)
    }

    /// Lets rows of the tail go that no connected session needs.
    pub(super) fn trim_tail(&mut self) {
        // Those that rest need nothing of it.
        let connected = self.sessions.table.awake().filter(|session| session.link.is_some());
        let keep = connected.map(|session| session.next).min();
        self.log.tail.trim(keep.unwrap_or(self.log.tail.durable().next()));
    }
}

impl Records<'_> {
    /// Wakes the sessions that new rows may be for. Connected applications without an interest in
    /// any of them go past these rows at once, and rest from then on, so that they cost the others
    /// nothing.
    pub(super) fn wake_sessions(&mut self, rows: &[Row]) {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        let (first, last) = (first.position, last.position);
        let is_event = |row: &&Row| row.only.is_none() && !row.message.kind().is_state();
        let event = rows.iter().find(is_event).map(|row| row.position);
        let interested = self.sessions.interests.of(rows);
        // A session that skips rows for long must not be left to walk past all of them again after
        // a restart; one that skips few of them is not worth a write.
        let writes = first.get() / SKIPPED_UNWRITTEN != last.next().get() / SKIPPED_UNWRITTEN;
        if writes {
            self.sessions.table.wake_all();
        }
        interested.iter().for_each(|id| self.sessions.table.wake(id));
        let (mut touched, mut idle) = (Vec::new(), Vec::new());
        self.sessions.table.each_awake(|session| {
            let indifferent =
                self.sessions.interests.knows(session.id) && !interested.contains(&session.id);
            if session.link.is_none() {
                idle.push(session.id);
            } else if indifferent && session.skip(first..=last, event) {
                touched.extend(writes.then_some(session.id));
                idle.push(session.id);
            } else {
                self.sessions.ready.insert(session.id);
            }
        });
        self.sessions.table.go_with(last, event);
        idle.into_iter().for_each(|id| self.sessions.table.rest(id));
        touched.into_iter().for_each(|id| self.touch(id, Dirty::Soon));
        self.log.trim_wanted = true;
    }

    /// What speaks of more than the rolled-back rows is written with the next batch.
    pub(super) fn keep_for_the_next(&mut self, batch: Box<Batch>) {
        for record in &batch.sessions {
            self.touch(record.id, Dirty::Now);
        }
        let growing = &mut self.log.tail.growing;
        growing.sessions_ended.extend(batch.sessions_ended);
        growing.dead_letters.extend(batch.dead_letters);
        growing.receipts_dropped.extend(batch.receipts_dropped);
        self.log.commit_wanted = true;
    }
}

/// What the node stores of itself, if that must be written.
fn own_record(
    unclaimed: &mut Unclaimed,
    epochs: &EpochHistory,
    (unmet, lifetimes): (&Unmet, &Lifetimes),
    now: Instant,
) -> Option<SessionRecord> {
    let record = unclaimed.take_record(now)?;
    let state = unmet.append_to(epochs.append_to(record.state.into()));
    let state = epochs.append_loss_to(lifetimes.append_to(state), lifetimes.has_anew());
    let state = lifetimes.append_anew_to(state);
    Some(SessionRecord { state: state.into(), ..record })
}

fn propagation((row, ms, count): (&Row, u64, usize)) -> Option<Output> {
    let took = core::time::Duration::from_millis(ms);
    let origin = crate::types::ids::NodeId::new(row.message.origin()).ok()?;
    Some(Output::Observe(Observation::Propagation { origin, took, count }))
}
