//! Frames of applications: who they are, what they publish, what they say of deliveries.

use super::handlers::{AppFrames, Connections, Ingest, Records, Settling, lend};
use super::links::ActiveLink;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;

use bytes::Bytes;

use crate::admin::event::Event;
use crate::io::{Close, CloseCode, Output, Protocol};
use crate::session::link::{AppAnswer, AppLink, ErrorStreak, Link, LinkState, PendingAnswer};
use crate::session::{AppRole, Beginning, Dirty, Role, Session, Used};
use crate::types::ids::{BatchId, LinkId, Position, SessionId};
use crate::types::rate::RateLimit;
use crate::types::refusal::{Code, Refusal};
use crate::wire::application::{ConnectParams, InForce, Replay};
use crate::wire::draft::Draft;
use crate::wire::json::{self, JsonRequest, SettleRequest};
use crate::wire::{self, APPLICATION_PROTOCOL_VERSION, Welcome, Wire, records};

use super::connect::{NO_PLACE, protocol};

/// How long an application that was handed something and has said nothing may be away, in
/// milliseconds, before its session makes room for another one.
const SILENT_MS: u64 = 60 * 60 * 1000;

impl Connections<'_> {
    /// Greets an application that speaks up to this version: finds or makes its session.
    pub(super) fn welcome(&mut self, id: LinkId, protocol: u16) -> Result<(), Close> {
        let Some(link) = self.links.by_id.get(&id) else { return Ok(()) };
        let wishes = ConnectParams::parse(&link.query, &self.config.limits)
            .map_err(|reason| Close { code: CloseCode::Protocol, reason })?;
        self.check_room(&wishes)?;
        let (session, resumed) = self.application_session(id, &wishes)?;
        let Some(link) = self.links.by_id.get_mut(&id) else { return Ok(()) };
        let tags = wishes.tags.as_ref().unwrap_or(&self.config.tags);
        let began = self.sessions.table.get(&session).and_then(Session::application);
        let in_force = InForce {
            keys: wishes.keys.clone(),
            replay: began.map_or(wishes.replay(), AppRole::replay),
            ack: wishes.ack(),
            conflate: wishes.conflate,
        };
        let protocol = protocol.min(APPLICATION_PROTOCOL_VERSION);
        let welcome = Welcome {
            protocol,
            instance: self.config.id.as_str().into(),
            client: wishes.client.clone().unwrap_or_default(),
            resumed,
            tags: tags.as_str().into(),
            window: self.config.limits.delivery_window as u32,
            max_message_bytes: self.config.limits.max_message_bytes as u64,
            version: self.config.version.into(),
            in_force: (protocol >= 2).then_some(in_force),
        };
        let frame = match link.protocol {
            Protocol::Json => {
                json::write::welcome(&welcome, &mut self.out.buffer);
                self.out.buffer.split().freeze()
            }
            Protocol::Postcard => Wire::Welcome(welcome).encode(),
        };
        // A session that is new is there once its record is durable.
        let batch = if resumed || wishes.client.is_none() {
            BatchId::default()
        } else {
            self.log.tail.growing_id()
        };
        let greeting = PendingAnswer {
            place: Position::default(),
            batch,
            received: self.time.now.instant,
            answer: AppAnswer::Welcome(frame),
        };
        link.state = LinkState::Application(AppLink {
            session,
            client: wishes.client.clone(),
            answers: VecDeque::from([greeting]),
            reading: None,
            errors: ErrorStreak::default(),
            synced_at: Some(self.log.tail.durable()),
            publish_rate: RateLimit::new(self.config.limits.publish_rate, self.time.now.instant),
            unsent: VecDeque::new(),
            greeted: false,
            settled: false,
            ending: None,
        });
        self.links.applications += 1;
        self.out.push(Output::Admit(id));
        self.links.work.awaiting_commit.insert(id);
        self.sessions.ready.insert(session);
        self.time.timers.set(crate::types::timers::Timer::Link(id), link.liveness.ping_at);
        let (client, remote) = (wishes.client, link.remote.clone());
        self.out.event(Event::ApplicationUp { link: id, client, remote });
        Ok(())
    }

    /// Whether one more application is taken. Who takes the place of a connection of the same name
    /// needs none.
    fn check_room(&self, wishes: &ConnectParams) -> Result<(), Close> {
        let max = self.config.limits.max_connections;
        let takes_over = wishes.client.as_ref().is_some_and(|client| {
            let known = self.sessions.by_name.get(&format!("app:{client}"));
            known
                .and_then(|id| self.sessions.table.get(id))
                .is_some_and(|known| known.link.is_some())
        });
        if self.links.applications < max || takes_over {
            return Ok(());
        }
        let reason = format!("{max} applications are connected (limits.max_connections)");
        Err(Close { code: CloseCode::Limit, reason })
    }

    fn application_session(
        &mut self,
        link: LinkId,
        wishes: &ConnectParams,
    ) -> Result<(SessionId, bool), Close> {
        let known = wishes
            .client
            .as_ref()
            .and_then(|client| self.sessions.by_name.get(&format!("app:{client}")).copied());
        let id = match known {
            Some(id) => {
                self.resume(id, wishes);
                id
            }
            None => self.begin_session(wishes)?,
        };
        let durable = self.log.tail.durable();
        if let Some(session) = self.sessions.table.get_mut(&id) {
            session.link = Some(link);
            session.keeping.away_since = None;
            if wishes.conflate {
                // While it was away it lagged.
                session.conflate(durable);
            }
        }
        self.enter_interests(id);
        lend!(self, Records).touch(id, Dirty::Soon);
        Ok((id, known.is_some()))
    }

    /// Enters what a connected application receives into the index of interests.
    pub(super) fn enter_interests(&mut self, id: SessionId) {
        let Some(session) = self.sessions.table.get(&id) else { return };
        if let Some(application) = session.application() {
            let tags = application.tags.as_ref().unwrap_or(&self.config.tags);
            self.sessions.interests.enter(id, application.keys.as_deref(), tags);
        }
    }

    fn begin_session(&mut self, wishes: &ConnectParams) -> Result<SessionId, Close> {
        let is_full = wishes.client.is_some() && self.sessions_are_full();
        if is_full && !self.end_least_used_session() {
            let max = self.config.limits.max_sessions;
            let reason = format!(
                "there are {max} sessions (limits.max_sessions); slipstream sessions forget ends \
                 one"
            );
            return Err(Close { code: CloseCode::Limit, reason });
        }
        let (durable, time) = (self.log.tail.durable(), self.time.over_upto());
        let (from, replay) = match wishes.replay() {
            Replay::All => (Position::default(), durable),
            Replay::New => (durable.next(), Position::default()),
        };
        let application = AppRole {
            client: wishes.client.clone(),
            tags: wishes.tags.clone(),
            keys: wishes.keys.clone(),
            ack: wishes.ack(),
            conflate: wishes.conflate,
            from,
            replay,
        };
        let id = self.new_session(Role::Application(application), from.max(Position::new(1)));
        if let Some(session) = self.sessions.table.get_mut(&id) {
            // Of what lies before, `replay=new` wants nothing.
            session.walk.beginning = Beginning::at(replay, time);
            session.keeping.used = Used::Never;
        }
        Ok(id)
    }

    /// Whether there are as many named applications as may be. Peers have places of their own.
    fn sessions_are_full(&self) -> bool {
        let stored = self.sessions.table.values().filter(|session| session.is_durable());
        let named = stored.filter(|session| session.application().is_some()).count();
        named >= self.config.limits.max_sessions
    }

    /// Makes room for another session: invented names that never come back keep nobody out. Of the
    /// applications that are away, one goes that was never handed anything and has said nothing,
    /// else one that has said nothing for an hour; first one that nothing is kept for, then the one
    /// that is away for longest. Answers whether there was one.
    fn end_least_used_session(&mut self) -> bool {
        let now = self.time.clock.trusted_for_ages();
        let may_go = |session: &&Session| match (session.keeping.used, session.keeping.away_since) {
            (Used::Never, Some(_)) => true,
            (Used::Handed, Some(since)) => {
                now.is_some_and(|now| now.0.saturating_sub(since.0) >= SILENT_MS)
            }
            (Used::Answered, _) | (_, None) => false,
        };
        let stored = self.sessions.table.values().filter(|session| session.is_durable());
        let applications = stored.filter(|session| session.application().is_some());
        let least = applications
            .filter(|session| session.link.is_none())
            .filter(may_go)
            .min_by_key(|session| {
                (session.keeping.used, self.is_owed_any(session), session.keeping.away_since)
            })
            .map(|session| session.id);
        if let Some(id) = least {
            let reason = "its application has never said anything, and room was needed";
            self.end_session_by_id(id, reason);
        }
        least.is_some()
    }

    /// Whether something is lost with a session that ends.
    fn is_owed_any(&self, session: &Session) -> bool {
        self.owed_to(session) + session.dead_count() > 0
    }

    /// A named session goes on. Other tags or keys than before: it begins again.
    fn resume(&mut self, id: SessionId, wishes: &ConnectParams) {
        let before = self.sessions.table.get(&id).and_then(|session| session.link);
        if let Some(before) = before {
            let reason = "taken over by another connection of the same client name".into();
            self.close(before, Close { code: CloseCode::Duplicate, reason });
        }
        let (durable, time) = (self.log.tail.durable(), self.time.over_upto());
        let Some(session) = self.sessions.table.get_mut(&id) else { return };
        let Role::Application(application) = &mut session.role else { return };
        let changed = application.tags != wishes.tags || application.keys != wishes.keys;
        application.tags = wishes.tags.clone();
        application.keys = wishes.keys.clone();
        application.ack = wishes.ack();
        application.conflate = wishes.conflate;
        if changed {
            session.rewind(durable);
            session.walk.beginning.time = time;
            self.out.metrics.rewound("filter_changed");
            lend!(self, Records).arrange_write(id);
        }
    }
}

impl AppFrames<'_> {
    pub(super) fn text(&mut self, link: &mut ActiveLink<'_>, text: &Bytes) -> Result<(), Close> {
        link.traffic.frames_in += 1;
        if link.protocol == Protocol::Postcard {
            return Err(protocol("a text frame on a binary connection"));
        }
        let Ok(frame) = core::str::from_utf8(text) else {
            return Err(protocol("text that is not UTF-8"));
        };
        let ordinal = link.traffic.frames_in;
        match json::parse(frame, &self.config.limits) {
            Ok(JsonRequest::Publish(draft)) => self.publish_on(link, &draft, ordinal),
            Ok(JsonRequest::Settle(settle)) => {
                lend!(self, Settling).settle_on(link, &settle, ordinal)
            }
            Ok(JsonRequest::Read(read)) => self.read_on(link, &read, ordinal),
            Err(refusal) => lend!(self, Settling).reject(link, refusal, ordinal),
        }
        Ok(())
    }

    pub(super) fn unexpected_binary(&mut self, link: &mut ActiveLink<'_>) {
        let refusal = Refusal::new(
            Code::BinaryFrame,
            "this connection speaks JSON in text frames; binary frames need the subprotocol \
             slipstream.postcard.v1",
        );
        let ordinal = link.traffic.frames_in;
        lend!(self, Settling).reject(link, refusal, ordinal);
    }

    /// Takes a binary frame of an application.
    pub(super) fn frame(&mut self, link: &mut ActiveLink<'_>, frame: Wire) -> Result<(), Close> {
        match frame {
            Wire::Publish(batch) => self.application_publish(link, &batch),
            Wire::Settle(batch) => self.application_settle(link, &batch),
            Wire::Reads(batch) => self.application_reads(link, &batch),
            _ => Err(protocol(NO_PLACE)),
        }
    }

    pub(super) fn application_publish(
        &mut self,
        link: &mut ActiveLink<'_>,
        batch: &Bytes,
    ) -> Result<(), Close> {
        let publishes =
            records::<wire::Publish<'_>>(batch).map_err(|error| protocol(&format!("{error}")))?;
        let ordinal = link.traffic.frames_in;
        for publish in &publishes {
            if link.is_ending() {
                break;
            }
            match Draft::from_wire(publish, &self.config.limits) {
                Ok(draft) => self.publish_on(link, &draft, ordinal),
                Err(refusal) => lend!(self, Settling).reject(link, refusal, ordinal),
            }
        }
        Ok(())
    }

    pub(super) fn application_settle(
        &mut self,
        link: &mut ActiveLink<'_>,
        batch: &Bytes,
    ) -> Result<(), Close> {
        let settles =
            records::<wire::Settle<'_>>(batch).map_err(|error| protocol(&format!("{error}")))?;
        let ordinal = link.traffic.frames_in;
        for settle in &settles {
            if link.is_ending() {
                break;
            }
            match SettleRequest::from_wire(settle) {
                Ok(settle) => lend!(self, Settling).settle_on(link, &settle, ordinal),
                Err(refusal) => lend!(self, Settling).reject(link, refusal, ordinal),
            }
        }
        Ok(())
    }

    fn publish_on(&mut self, link: &mut ActiveLink<'_>, draft: &Draft<'_>, frame: u64) {
        let Some(application) = link.application_mut() else { return };
        let session = application.session;
        let published = match application.publish_rate.take(self.time.now.instant) {
            Ok(()) => lend!(self, Ingest).publish(session, draft, frame),
            Err(wait) => {
                let message = format!(
                    "more than {} messages a second (limits.publish_rate)",
                    self.config.limits.publish_rate
                );
                let retry_after = Some(wait);
                Err(Refusal { retry_after, ..Refusal::new(Code::RateLimited, message) })
            }
        };
        match published {
            Ok((batch, answer)) => {
                let Some(application) = link.application_mut() else { return };
                application.went_well();
                if let Some(session) = self.sessions.table.get_mut(&session) {
                    session.note_use(Used::Answered);
                }
                lend!(self, Records).arrange_write(session);
                let duplicate = matches!(answer, AppAnswer::Receipt { duplicate: true, .. });
                let place = if duplicate { Position::default() } else { self.log.tail.head() };
                let received = self.time.now.instant;
                application.answers.push_back(PendingAnswer { place, batch, received, answer });
                link.work.awaiting_commit.insert(link.id);
                if batch <= self.log.tail.committed_id() {
                    self.sessions.ready.insert(session);
                }
            }
            Err(refusal) => {
                let re = draft.id.as_deref().map(String::from);
                lend!(self, Settling).reject(link, Refusal { re, ..refusal }, frame);
            }
        }
    }
}

impl Settling<'_> {
    /// Answers a frame with an error. A client that errs too often in a row is closed.
    pub(super) fn reject(&mut self, link: &mut Link, refusal: Refusal, frame: u64) {
        self.out.metrics.rejected(refusal.code);
        let code = refusal.code.as_str();
        self.out.push(crate::io::Output::Event(Event::Rejected { link: link.id, code }));
        let Some(application) = link.application_mut() else { return };
        application.erred(refusal.code, self.time.now.instant);
        // It leaves with the answer before it, and must not hide what that waits for.
        let batch = application.answers.back().map_or(BatchId::default(), |last| last.batch);
        application.answers.push_back(PendingAnswer {
            place: Position::default(),
            batch,
            received: self.time.now.instant,
            answer: AppAnswer::Error { refusal, frame },
        });
        self.sessions.ready.insert(application.session);
    }
}
