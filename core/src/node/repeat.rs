//! Timers: heartbeats, repeats, cursors, upkeep; and what sockets have taken.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::admin::event::Event;
use crate::io::{Close, CloseCode, Frame, Output};
use crate::log::unclaimed::NODE;
use crate::session::link::{Link, LinkState};
use crate::session::{Dirty, Session, Used, retry_wait};
use crate::types::clock::ClockFault;
use crate::types::ids::{LinkId, SessionId};
use crate::types::time::Instant;
use crate::types::timers::Timer;
use crate::wire::application::AckMode;
use crate::wire::draft::MAX_TTL;

use super::UPKEEP_INTERVAL;
use super::handlers::{
    Acknowledging, Burial, Connections, Dialing, LinkHeartbeat, LinkOut, Records, Sockets, Upkeep,
    lend,
};

/// How rarely the records of connected sessions are written at most.
const MAX_PRESENCE_INTERVAL: Duration = Duration::from_secs(60 * 60);

impl Connections<'_> {
    pub(super) fn on_link_timer(&mut self, id: LinkId) {
        let Some(link) = self.links.by_id.get_mut(&id) else { return };
        let timeout = |reason| Close { code: CloseCode::Timeout, reason };
        match &link.state {
            LinkState::Handshake => {
                self.close(id, timeout("no greeting within limits.handshake_timeout".into()));
            }
            LinkState::Candidate { rival, .. } => {
                let rival = *rival;
                self.close(rival, timeout("no answer, and the node has connected again".into()));
            }
            LinkState::Application(application) if application.ending.is_some() => {
                self.close_as_told(id);
            }
            LinkState::Peer(_) | LinkState::Application(_) => {
                if let Some(silent) = lend!(self, LinkHeartbeat).beat(link) {
                    let reason = format!("nothing heard for {} ms", silent.as_millis());
                    self.close(id, timeout(reason));
                }
            }
        }
    }

    /// Bytes have moved on a link, if not a whole frame: it is alive, however slow.
    pub(super) fn moved(&mut self, id: LinkId) {
        match self.links.by_id.get_mut(&id) {
            Some(link) => link.liveness.heard = self.time.now.instant,
            None => self.out.metrics.stale += 1,
        }
        self.on_sign_of_life(id, None);
    }

    /// Ends a session for good.
    pub(super) fn end_session_by_id(&mut self, id: SessionId, reason: &str) {
        lend!(self, Burial).note_delivered(id);
        let Some(session) = self.sessions.table.remove(&id) else { return };
        self.sessions.by_name.remove(&session.name);
        self.log.receipts.end(id);
        self.log.receipts.touched.remove(&id);
        self.sessions.dirty_now.remove(&id);
        self.sessions.dirty_soon.remove(&id);
        self.sessions.ready.remove(&id);
        self.sessions.interests.leave(id);
        self.time.timers.clear(Timer::Session(id));
        if let Some(link) = session.link {
            let reason = format!("session ended: {reason}");
            self.close(link, Close { code: CloseCode::GoingAway, reason });
        }
        self.log.tail.growing.sessions_ended.push(id);
        self.log.commit_wanted = true;
        let owed = self.owed_to(&session) + session.dead_count();
        let (session, reason) = (session.name, reason.into());
        self.out.event(Event::SessionEnded { session, reason, owed });
    }

    /// How much a session has still to be handed, or to settle; letters not counted.
    pub(super) fn owed_to(&self, session: &Session) -> u64 {
        let behind = self.log.tail.durable().get().saturating_sub(session.next.before().get());
        let behind = if session.receives() { behind.min(self.log.capacity.usage.rows) } else { 0 };
        behind + session.flights.len() as u64
    }
}

impl LinkHeartbeat<'_> {
    /// Pings a link if it is time. Answers how long nothing was heard on it, if that is too long.
    pub(super) fn beat(&mut self, link: &mut Link) -> Option<Duration> {
        let now = self.time.now.instant;
        let was_away = now.since(link.liveness.ping_at) > self.config.heartbeat.interval;
        if link.paused || was_away {
            // Nothing is read, so nothing can be heard; nor could it be while this node was
            // stopped, or its machine suspended.
            link.liveness.heard = now;
        }
        let silent = now.since(link.liveness.heard);
        if silent >= self.config.heartbeat.timeout {
            return Some(silent);
        }
        if link.liveness.ping_at <= now {
            lend!(self, LinkOut).ping(link);
            // A peer that is sent nothing must hear all the same when a clock is right again: the
            // last acknowledgement, said once more, tells it.
            let durable = self.log.tail.durable();
            lend!(self, Acknowledging).acknowledge(link, durable);
        }
        let deadline = link.liveness.heard + self.config.heartbeat.timeout;
        self.time.timers.set(Timer::Link(link.id), link.liveness.ping_at.min(deadline));
        None
    }
}

impl Dialing<'_> {
    /// A link has answered the ping that was sent then.
    pub(super) fn pong(&mut self, link: &mut Link, pinged_at: Option<Instant>) {
        if let Some(sent) = pinged_at {
            link.liveness.rtt = Some(self.time.now.instant.since(sent));
            self.dialer_succeeded(link);
        }
    }
}

impl LinkOut<'_> {
    pub(super) fn ping(&mut self, link: &mut Link) {
        let payload = self.time.now.instant.as_micros().to_be_bytes();
        let frame = Frame::Ping(Bytes::copy_from_slice(&payload));
        self.out.push(Output::Transmit { link: link.id, frame });
        link.liveness.ping_at = self.time.now.instant + self.config.heartbeat.interval;
    }
}

impl Sockets<'_> {
    /// The socket has taken frames of a link.
    pub(super) fn sent(&mut self, id: LinkId, frames: usize, cost: usize) {
        let Some(link) = self.links.by_id.get_mut(&id) else {
            self.out.metrics.stale += 1;
            return;
        };
        link.traffic.cost_in_flight = link.traffic.cost_in_flight.saturating_sub(cost);
        link.traffic.frames_taken += frames as u64;
        link.liveness.taken_at = self.time.now.instant;
        let taken = link.traffic.frames_taken;
        let Some(session) = link.session() else { return };
        let mut done = Vec::new();
        if let Some(application) = link.application_mut()
            && let Some(session) = self.sessions.table.get_mut(&session)
        {
            let is_auto = session.application().is_some_and(|it| it.ack == AckMode::Auto);
            while let Some((frame, position)) = application.unsent.front().copied() {
                if frame > taken {
                    break;
                }
                application.unsent.pop_front();
                if is_auto {
                    // Handing it to the socket is enough.
                    done.push(position);
                } else if let Some(handed) = session.awaits_word(position) {
                    // The time for a word begins now: on a slow link, a large value takes long.
                    let wait = retry_wait(&self.config.retry, handed, &mut self.time.random);
                    session.schedule_at(position, self.time.now.instant + wait);
                }
            }
        }
        if !done.is_empty()
            && let Some(settled) = self.sessions.table.get_mut(&session)
        {
            settled.note_use(Used::Answered);
            let heard = settled.end_acknowledged(&done, Dirty::Soon);
            lend!(self, Records).arrange_write(session);
            lend!(self, Burial).note_delivered(session);
            lend!(self, Burial).take_back(session, heard);
        }
        self.sessions.ready.insert(session);
    }
}

impl Upkeep<'_> {
    /// Writes from time to time that connected sessions are there: after a crash the record alone
    /// tells since when they have been away, and nothing else may have changed it for long.
    fn note_presence(&mut self) {
        let period = (self.config.store.session_ttl / 8).min(MAX_PRESENCE_INTERVAL).as_micros();
        let now = u128::from(self.time.now.instant.as_micros());
        if now / period.max(1) == now.saturating_sub(UPKEEP_INTERVAL.as_micros()) / period.max(1) {
            return;
        }
        let here = self.sessions.table.values().filter(|it| it.link.is_some() && it.is_durable());
        let here: Vec<SessionId> = here.map(|session| session.id).collect();
        here.into_iter().for_each(|id| lend!(self, Records).touch(id, Dirty::Soon));
    }

    /// The clock had jumped, and rightly so. Set forward, it changes nothing for events; set back,
    /// what it has written while it was ahead would end too late.
    fn note_set_right(&mut self, fault: Option<ClockFault>) {
        if let Some(ClockFault::Jumped { by_ms }) = fault
            && by_ms < 0
        {
            let by = Duration::from_millis(by_ms.unsigned_abs());
            self.time.lifetimes.set_back(by, self.log.tail.head(), self.time.now);
            self.log.unclaimed.look_beyond(self.time.lifetimes.time(self.time.now).plus(MAX_TTL));
        }
    }

    /// Gives up who was never reached for as long as a session is kept.
    fn give_up_unmet(&mut self) {
        let before = self.time.now.wall.minus(self.config.store.session_ttl);
        for url in self.mesh.dialers.unmet.give_up(&self.config.peers, before) {
            let reason = "never reached for longer than store.session_ttl".into();
            let owed = self.log.tail.durable().get().min(self.log.capacity.usage.rows);
            self.out.event(Event::SessionEnded { session: format!("peer {url}"), reason, owed });
            lend!(self, Records).touch(NODE, Dirty::Now);
        }
    }

    /// Compares the clock with those of peers, which are so many milliseconds ahead each.
    pub(super) fn look_at_the_clock(&mut self, offsets_ms: &[i64]) {
        let fault = self.time.clock.fault();
        if self.time.clock.compare_with_peers(offsets_ms.iter().copied()) {
            lend!(self, Records).reset_away_timers(&mut self.mesh.dialers.unmet);
            self.note_set_right(fault);
        }
        self.time.notice_clock(self.out);
        if self.time.fault.is_none() && self.time.lifetimes.compare(self.time.now) {
            lend!(self, Records).touch(NODE, Dirty::Now);
        }
    }

    /// Writes down who is there, and gives up who was away for too long; answers the sessions that
    /// are to end. Nothing ends by a clock that cannot be trusted.
    pub(super) fn note_and_give_up(&mut self) -> Vec<SessionId> {
        if self.time.fault.is_some() {
            return Vec::new();
        }
        let (ttl, wall) = (self.config.store.session_ttl, self.time.now.wall);
        let is_over = |session: &&Session| {
            session.keeping.away_since.is_some_and(|since| since.plus(ttl) <= wall)
        };
        let ended = self.sessions.table.values().filter(is_over).map(|session| session.id);
        let ended = ended.collect();
        self.give_up_unmet();
        self.note_presence();
        self.log.epochs.forget_loss(wall.minus(ttl));
        ended
    }
}
