//! A visit to one session: answers and deliveries leave in the order of the log.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::io::{Close, Frame, Observation, Output, Protocol};
use crate::session::link::{APPLICATION_CREDIT, AppAnswer, Link, PeerLink, PendingAnswer};
use crate::session::{Dirty, Used};
use crate::store::{Query, StoredRow};
use crate::types::ids::{FetchId, LinkId, Position, SessionId};
use crate::types::time::Instant;
use crate::types::timers::Timer;
use crate::wire::json;
use crate::wire::message::Message;
use crate::wire::read::ReadRequest;
use crate::wire::{Ack, BatchKind, OutcomeRecord, ReadResult, ReadValue, Wire};

use super::handlers::{
    Acknowledging, Backpressure, Burial, Connections, Fetches, Handover, Records, lend,
};
use super::handover::{RowSender, SessionWalk};

/// Flights that are handed over again at once.
const REPEATS: usize = 256;

impl Handover<'_> {
    /// Brings session and link together, and takes care of what comes of it.
    pub(super) fn with_session<T>(
        &mut self,
        id: SessionId,
        work: impl FnOnce(&mut SessionWalk<'_>, Position, crate::types::ids::BatchId) -> T,
    ) -> Option<T> {
        let lifetimes = self.time.moment();
        let session = self.sessions.table.get_mut(&id)?;
        let link = self.links.by_id.get_mut(&session.link?)?;
        let (durable, committed) = (self.log.tail.durable(), self.log.tail.committed_id());
        if link.peer().is_some_and(|peer| peer.rows_in.told_position < durable) {
            // Whoever has a row knows how far the log went before it, and so notices an older copy,
            // though it may be killed behind the row (P2).
            lend!(self, Acknowledging).acknowledge(link, durable);
        }
        let before = session.cursor();
        let carrier = RowSender {
            config: self.config,
            out: self.out,
            seen: &mut self.log.seen,
            topology: &mut self.mesh.topology,
            now: self.time.now,
            clock: (&self.time.clock, lifetimes),
            past: (self.log.epochs.lost_life(), &self.log.group_copies),
            deaths: Vec::new(),
            first: 0,
            again: 0,
            pulled: 0,
            conflated: 0,
        };
        let mut desk = SessionWalk { session, link, log: &mut self.log.tail, carrier };
        let result = work(&mut desk, durable, committed);
        desk.offer_due();
        let SessionWalk { session, link, mut carrier, .. } = desk;
        carrier.send_filled(link);
        carrier.count(session, link);
        if carrier.first > 0 {
            session.note_use(Used::Handed);
        }
        let deaths = carrier.deaths;
        if session.cursor() != before {
            session.touch(Dirty::Soon);
        }
        self.log.trim_wanted = true;
        self.links.work.backpressure_dirty.insert(link.id);
        match session.next_wake(self.time.now.instant) {
            Some(at) => self.time.timers.set(Timer::Session(id), at),
            None => self.time.timers.clear(Timer::Session(id)),
        }
        lend!(self, Records).arrange_write(id);
        lend!(self, Burial).note_delivered(id);
        lend!(self, Burial).dead_letter(id, deaths);
        Some(result)
    }

    /// Whether this answer is the one that the session waits for; it waits no longer.
    fn is_awaited(&mut self, id: SessionId, fetch: FetchId) -> bool {
        let Some(session) = self.sessions.table.get_mut(&id) else { return false };
        let awaited = session.fetch == Some(fetch);
        if awaited {
            session.fetch = None;
            self.sessions.ready.insert(id);
        }
        awaited
    }

    pub(super) fn rows_fetched(
        &mut self,
        id: SessionId,
        fetch: FetchId,
        (after, judged): (Position, Position),
        (rows, superseded): (Vec<StoredRow>, u64),
        upto: Position,
    ) {
        // A question that waited while the session was set back is asked again.
        let fits = self.sessions.table.get(&id).is_some_and(|session| after < session.next);
        if self.is_awaited(id, fetch) && fits {
            let conflated = self.with_session(id, |desk, _, _| {
                desk.rows(&rows, upto, judged);
                desk.carrier.conflated
            });
            // What is counted as conflated is not counted as superseded, too.
            self.out.metrics.superseded += superseded.saturating_sub(conflated.unwrap_or(0));
        }
    }

    pub(super) fn repeats_fetched(
        &mut self,
        id: SessionId,
        fetch: FetchId,
        asked: &[Position],
        rows: Vec<StoredRow>,
    ) {
        if self.is_awaited(id, fetch) {
            self.with_session(id, |desk, _, _| desk.repeats(asked, &rows));
            lend!(self, Records).touch(id, Dirty::Soon);
        }
    }

    pub(super) fn say_synced(&mut self, id: SessionId) {
        let Some(session) = self.sessions.table.get_mut(&id) else { return };
        let Some(link) = session.link.and_then(|link| self.links.by_id.get_mut(&link)) else {
            return;
        };
        let (greeted, protocol) = (link.is_greeted(), link.protocol);
        let Some(application) = link.application_mut() else { return };
        let Some(at) = application.synced_at else { return };
        if !greeted || session.next <= at || session.notes.has_unsent {
            return;
        }
        application.synced_at = None;
        let frame = match protocol {
            Protocol::Json => {
                json::write::synced(&mut self.out.buffer);
                Frame::Text(self.out.buffer.split().freeze())
            }
            Protocol::Postcard => Frame::Binary(Wire::Synced.encode()),
        };
        self.out.transmit(link, frame);
    }
}

impl Fetches<'_> {
    /// Asks the store for the flights whose time has come.
    pub(super) fn repeat_due(&mut self, id: SessionId) {
        let now = self.time.now.instant;
        let Some(session) = self.sessions.table.get_mut(&id) else { return };
        let greeted = session.link.and_then(|link| self.links.by_id.get(&link));
        let may = greeted.is_some_and(|link| link.is_greeted() && link.has_credit());
        let held = session.is_held(now, self.config.store.session_max_bytes);
        if held || session.fetch.is_some() || !session.has_due(now) || !may {
            return;
        }
        let due = session.take_due(now, REPEATS, self.config.retry.max_attempts);
        if session.notes.has_dying {
            self.sessions.to_bury.insert(id);
        }
        let tags = session.tags(&self.config.tags).cloned();
        if let Some(at) = session.next_wake(now) {
            self.time.timers.set(Timer::Session(id), at);
        }
        if !due.is_empty() {
            let timely = self.time.clock.timely();
            self.fetch_for(id, Query::RowsAt { positions: due, tags, timely });
        }
    }
}

impl Acknowledging<'_> {
    /// Tells a peer what is durable, if that is news.
    pub(super) fn flush(&mut self, link: &mut Link) {
        let durable = self.log.tail.durable();
        let news = |peer: &PeerLink| {
            peer.rows_in.settled != peer.rows_in.told || peer.rows_in.told_position < durable
        };
        if link.peer().is_some_and(news) {
            self.acknowledge(link, durable);
        }
    }

    /// Tells a peer what is durable, where the log ends, and what the wall clock says.
    pub(super) fn acknowledge(&mut self, link: &mut Link, position: Position) {
        let wall = self.time.now.wall;
        if self.id.unsaid.contains_key(&link.id) {
            return;
        }
        let Some(peer) = link.peer_mut() else { return };
        peer.rows_in.told = peer.rows_in.settled;
        peer.rows_in.told_position = position;
        let ack = Wire::Ack(Ack { upto: peer.rows_in.told, position, wall });
        self.out.transmit(link, Frame::Binary(ack.encode()));
    }
}

impl Connections<'_> {
    pub(super) fn close_if_ending(&mut self, id: SessionId) {
        let Some(link) = self.sessions.table.get(&id).and_then(|session| session.link) else {
            return;
        };
        let Some(application) = self.links.by_id.get(&link).and_then(|link| link.application())
        else {
            return;
        };
        let Some((_, until)) = application.ending else { return };
        if !application.answers.is_empty() {
            self.time.timers.set(Timer::Link(link), until);
        } else {
            self.close_as_told(link);
        }
    }

    /// Closes a link when what its application sent before is answered.
    pub(super) fn close_when_answered(&mut self, id: LinkId, close: Close) {
        let application = self.links.application(id);
        match application.filter(|application| !application.answers.is_empty()) {
            Some(application) => {
                application.end(close, self.time.now.instant);
                self.sessions.ready.insert(application.session);
            }
            None => self.close(id, close),
        }
    }

    /// Closes an application's link as was decided before its last answers left.
    pub(super) fn close_as_told(&mut self, id: LinkId) {
        let Some(mut link) = self.links.by_id.remove(&id) else { return };
        let ending = link.application_mut().and_then(|application| application.ending.take());
        self.finish(link, ending.map(|(close, _)| close), "");
    }

    /// An unnamed application that lags too far is closed: what it missed is counted (P8). What
    /// it asked to be replayed, or to have conflated, is no lag.
    pub(super) fn close_if_lagging(&mut self, id: SessionId) {
        let Some(session) = self.sessions.table.get(&id).filter(|session| !session.is_durable())
        else {
            return;
        };
        let Some(application) = session.application().filter(|app| !app.conflate) else { return };
        let lag = self.log.backlog.from(session.next.max(application.replay.next()));
        if lag <= self.config.store.session_max_bytes {
            return;
        }
        let missed = self.log.tail.durable().get() - session.next.before().get();
        let Some(link) = session.link.filter(|link| self.links.by_id.contains_key(link)) else {
            return;
        };
        self.out.metrics.missed += missed;
        let reason = alloc::format!("lagging {lag} bytes behind: too slow for what it receives");
        let code = crate::io::CloseCode::Limit;
        self.close(link, Close { code, reason });
    }
}

/// A socket that has taken nothing for so long has stalled.
const STALLED: Duration = Duration::from_secs(1);

impl Backpressure<'_> {
    /// Reads on, or not, from links that have taken or given something.
    pub(super) fn pause_or_resume(&mut self) {
        let full = self.log.tail.undurable_bytes() > crate::log::tail::UNDURABLE_MAX_BYTES;
        if full != self.links.reading_paused {
            self.links.reading_paused = full;
            self.links.work.backpressure_dirty.extend(self.links.by_id.keys());
        }
        for id in core::mem::take(&mut self.links.work.backpressure_dirty) {
            let Some(link) = self.links.by_id.get_mut(&id) else { continue };
            if link.application().is_some() {
                if link.traffic.counted == 0 {
                    link.liveness.taken_at = self.time.now.instant;
                }
                self.links.unsent =
                    self.links.unsent - link.traffic.counted + link.traffic.cost_in_flight;
                link.traffic.counted = link.traffic.cost_in_flight;
            }
            let pause = full || link.is_congested();
            if pause != link.paused {
                link.paused = pause;
                let output = if pause { Output::Pause(link.id) } else { Output::Resume(link.id) };
                self.out.push(output);
            }
        }
    }
}

impl Connections<'_> {
    /// Closes the applications that hold most of what sockets do not take, stalled ones first,
    /// until that is within its bound (P8). What a named one was owed is read again from the store
    /// when it comes back.
    pub(super) fn close_stalled(&mut self) {
        let limits = &self.config.limits;
        // One connection must always be able to take the largest delivery.
        let max = limits.connections_max_bytes.max(limits.max_frame_bytes() + APPLICATION_CREDIT);
        while self.links.unsent > max {
            let now = self.time.now.instant;
            let applications =
                self.links.by_id.values().filter(|link| link.application().is_some());
            let stalled = |link: &Link| {
                link.traffic.cost_in_flight > 0 && now.since(link.liveness.taken_at) >= STALLED
            };
            let largest =
                applications.max_by_key(|link| (stalled(link), link.traffic.cost_in_flight));
            let largest = largest.map(|link| link.id);
            let Some(mut link) = largest.and_then(|id| self.links.by_id.remove(&id)) else {
                return;
            };
            if let Some(application) = link.application_mut() {
                // The node's want of memory is no attempt that has failed (P13).
                application.settled = true;
            }
            let session = link.session().and_then(|id| self.sessions.table.get_mut(&id));
            if let Some(session) = session.filter(|session| !session.is_durable()) {
                self.out.metrics.missed +=
                    self.log.tail.durable().get() - session.next.before().get();
            }
            let reason = alloc::format!(
                "{} bytes wait for it to read, and memory is short (limits.connections_max_bytes)",
                link.traffic.cost_in_flight
            );
            let code = crate::io::CloseCode::Limit;
            self.finish(link, Some(crate::io::Close { code, reason }), "");
        }
    }
}

impl SessionWalk<'_> {
    /// Lets answers leave whose batch is durable, each behind the deliveries of its place. Where
    /// those cannot leave now, the answer overtakes them, and they are handed over only while
    /// they are the newest: the application never sees a key go back behind its own write (P6).
    pub(super) fn answer(&mut self, durable: Position, committed: crate::types::ids::BatchId) {
        let mut receipts: Option<(Instant, usize)> = None;
        while let Some(application) = self.link.application() {
            let Some(pending) = application.answers.front() else { break };
            let PendingAnswer { place, batch, .. } = pending;
            let place = *place;
            let is_read = matches!(pending.answer, AppAnswer::Read { .. });
            if *batch > committed || is_read || !self.link.has_credit() {
                break;
            }
            if self.link.is_greeted() && place > self.session.next {
                self.walk(place.before().min(durable));
                if !self.link.has_credit() {
                    break;
                }
                if self.session.next < place {
                    self.session.walk.receipt_overtook =
                        self.session.walk.receipt_overtook.max(place);
                }
            }
            let Some(application) = self.link.application_mut() else { break };
            let Some(pending) = application.answers.pop_front() else { break };
            if matches!(pending.answer, AppAnswer::Receipt { .. }) {
                match &mut receipts {
                    Some((received, count)) if *received == pending.received => *count += 1,
                    Some(_) | None => {
                        self.observe(receipts.take());
                        receipts = Some((pending.received, 1));
                    }
                }
            }
            self.say(pending.answer);
        }
        self.observe(receipts);
    }

    fn observe(&mut self, receipts: Option<(Instant, usize)>) {
        if let Some((received, count)) = receipts {
            let took = self.carrier.now.instant.since(received);
            let observation = Observation::PublishAck { took, count };
            self.carrier.out.push(Output::Observe(observation));
        }
    }

    pub(super) fn say(&mut self, answer: AppAnswer) {
        match self.link.protocol {
            Protocol::Json => self.say_in_json(&answer),
            Protocol::Postcard => self.say_in_binary(&answer),
        }
    }

    fn say_in_json(&mut self, answer: &AppAnswer) {
        let RowSender { config, out, .. } = &mut self.carrier;
        let buffer = &mut out.buffer;
        let frame = match answer {
            AppAnswer::Welcome(frame) => frame.clone(),
            AppAnswer::Receipt { id, version, duplicate, .. } => {
                let level = config.store.durability;
                let node = config.id.as_str();
                json::write::receipt(text(id), node, *version, *duplicate, level, buffer);
                buffer.split().freeze()
            }
            AppAnswer::Result { read, newest } => {
                json::write::result(read.id.as_deref(), &read.key, newest.as_ref(), buffer);
                buffer.split().freeze()
            }
            AppAnswer::Error { refusal, frame } => {
                json::write::error(refusal, *frame, buffer);
                buffer.split().freeze()
            }
            AppAnswer::Read { .. } => return,
        };
        self.greet_with(answer);
        self.carrier.out.transmit(self.link, Frame::Text(frame));
    }

    fn say_in_binary(&mut self, answer: &AppAnswer) {
        let outcome = match answer {
            AppAnswer::Welcome(frame) => {
                self.greet_with(answer);
                self.carrier.out.transmit(self.link, Frame::Binary(frame.clone()));
                return;
            }
            AppAnswer::Receipt { id, version, duplicate, .. } => OutcomeRecord::Receipt {
                id: text(id),
                version: *version,
                duplicate: *duplicate,
                level: self.carrier.config.store.durability,
            },
            AppAnswer::Result { read, newest } => return self.say_result(read, newest.as_ref()),
            AppAnswer::Read { .. } => return,
            AppAnswer::Error { refusal, frame } => OutcomeRecord::Error {
                id: refusal.re.as_deref(),
                frame: *frame,
                code: refusal.code.as_str(),
                retryable: refusal.code.retryable(),
                retry_after_ms: refusal.retry_after.map_or(0, |after| after.as_millis() as u64),
                message: &refusal.message,
            },
        };
        let limit = 64 << 10;
        self.carrier.make_room(self.link, BatchKind::Outcomes, 256, limit).push(&outcome);
    }

    fn say_result(&mut self, read: &ReadRequest<'_>, newest: Option<&Message>) {
        let value = newest.map(|message| ReadValue {
            kind: message.kind(),
            version: message.version(),
            origin: message.origin(),
            body: message.body(),
        });
        let id = read.id.as_deref().unwrap_or_default();
        let result = ReadResult { id, key: &read.key, value };
        let length = newest.map_or(0, |message| message.encoded().len()) + read.key.len() + 256;
        let (kind, limit) = (BatchKind::Results, 64 << 10);
        self.carrier.make_room(self.link, kind, length, limit).push(&result);
    }

    fn greet_with(&mut self, answer: &AppAnswer) {
        if let AppAnswer::Welcome(_) = answer
            && let Some(application) = self.link.application_mut()
        {
            application.greeted = true;
        }
    }
}

fn text(id: &Bytes) -> &str {
    core::str::from_utf8(id).unwrap_or_default()
}
