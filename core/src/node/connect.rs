//! Links come, say who they are, and go.

use alloc::format;
use alloc::string::String;

use crate::admin::event::Event;
use crate::io::{Close, CloseCode, Frame, LinkUp, Output, Protocol};
use crate::mesh::dial::DialState;
use crate::session::link::{Link, LinkState, Liveness, PeerLink, Traffic};
use crate::session::{Dirty, Peer, Role, Session};
use crate::types::close::MAX_REASON;
use crate::types::ids::{Incarnation, LinkId, NodeId, Position, SessionId};
use crate::types::rate::RateLimit;
use crate::types::tags;
use crate::types::time::Instant;
use crate::types::timers::Timer;
use crate::wire::message::{MAX_TAGS, MAX_WALL};
use crate::wire::{
    APPLICATION_PROTOCOL_VERSION, FEATURE_DIGESTS, FEATURE_ENDS, Hello, LINK_IS_SURPLUS,
    PROTOCOL_VERSION, Wire,
};

use super::handlers::{Connections, Dialing, Greeting, LinkOut, Records, Telling, lend};
use super::identity::Phase;

impl Connections<'_> {
    pub(super) fn link_up(&mut self, up: LinkUp) {
        let dialer = up.dial.and_then(|dial| lend!(self, Dialing).dialer_of(dial));
        let id = up.link;
        let now = self.time.now.instant;
        let link = Link {
            id,
            remote: up.remote,
            dialer,
            protocol: up.protocol,
            query: up.query,
            opened: now,
            state: LinkState::Handshake,
            traffic: Traffic::default(),
            liveness: Liveness {
                heard: now,
                taken_at: now,
                ping_at: now + self.config.heartbeat.interval,
                rtt: None,
            },
            paused: false,
            writer: None,
            reminded: None,
        };
        self.links.by_id.insert(id, link);
        if let Some(dialer) = dialer.and_then(|index| self.mesh.dialers.by_index.get_mut(&index)) {
            dialer.state = DialState::Linked(id);
        }
        if up.dial.is_some() && dialer.is_none() {
            let reason = "no longer a configured peer".into();
            self.close(id, Close { code: CloseCode::GoingAway, reason });
            return;
        }
        let done = self.greet(id);
        self.after_frame(id, done);
    }

    fn greet(&mut self, id: LinkId) -> Result<(), Close> {
        let Some(link) = self.links.by_id.get_mut(&id) else { return Ok(()) };
        if self.id.phase != Phase::Running {
            let reason = "this node is shutting down".into();
            return Err(Close { code: CloseCode::GoingAway, reason });
        }
        let deadline = self.time.now.instant + self.config.limits.handshake_timeout;
        self.time.timers.set(Timer::Link(id), deadline);
        match (link.protocol, link.dialer) {
            (Protocol::Json, _) => return self.welcome(id, APPLICATION_PROTOCOL_VERSION),
            (Protocol::Postcard, Some(index)) => {
                let dialer = self.mesh.dialers.by_index.get(&index);
                let node = dialer.and_then(|dialer| dialer.node.clone());
                lend!(self, Greeting).send_hello(link, node.as_ref());
            }
            (Protocol::Postcard, None) => {}
        }
        Ok(())
    }

    /// A frame of a link has been handled: it goes on, or is closed.
    pub(super) fn after_frame(&mut self, id: LinkId, done: Result<(), Close>) {
        match done {
            Ok(()) => drop(self.links.work.backpressure_dirty.insert(id)),
            Err(close) => self.close_when_answered(id, close),
        }
    }

    /// Closes a link, if it is there.
    pub(super) fn close(&mut self, id: LinkId, close: Close) {
        if let Some(link) = self.links.by_id.remove(&id) {
            self.finish(link, Some(close), "");
        }
    }

    /// The first frame of a link that has said nothing yet.
    pub(super) fn greeted(&mut self, id: LinkId, frame: Wire) -> Result<(), Close> {
        match frame {
            Wire::Hello(hello) => self.hello(id, hello),
            Wire::Connect(connect) if self.links.is_accepted(id) => {
                if connect.protocol == 0 {
                    return Err(protocol("protocol version 0"));
                }
                self.welcome(id, connect.protocol)
            }
            _ => Err(protocol(NO_PLACE)),
        }
    }

    pub(super) fn hello(&mut self, id: LinkId, hello: Hello) -> Result<(), Close> {
        if !self.id.has_begun {
            let is_second = self.id.early.insert(id, hello).is_some();
            return if is_second { Err(protocol("a second Hello")) } else { Ok(()) };
        }
        let node = NodeId::new(&hello.node).map_err(|error| protocol(&format!("{error}")))?;
        if hello.protocol == 0
            || hello.wall > MAX_WALL
            || !tags::is_canonical(&hello.tags, MAX_TAGS)
        {
            return Err(protocol("a Hello with an impossible field"));
        }
        let Some(link) = self.links.by_id.get_mut(&id) else { return Ok(()) };
        lend!(self, Dialing).meet(link);
        if node == self.config.id {
            return Err(self.met_itself(id, &hello));
        }
        let dialer = link.dialer;
        if let Some(dialer) = dialer.and_then(|index| self.mesh.dialers.by_index.get_mut(&index)) {
            dialer.met(node.clone());
            lend!(self, Dialing).note_entry(&node, true);
        }
        if hello.features & LINK_IS_SURPLUS != 0 && dialer.is_some() {
            return Err(duplicate("the peer has another link to this node"));
        }
        match self.rival_of(&node) {
            None => self.admit(id, node, &hello),
            Some(rival) => self.decide_between(id, rival, node, hello),
        }
    }

    fn rival_of(&self, node: &NodeId) -> Option<LinkId> {
        let session = self.sessions.by_name.get(&format!("peer:{node}"))?;
        self.sessions.table.get(session)?.link.filter(|link| self.links.by_id.contains_key(link))
    }

    pub(super) fn admit(&mut self, id: LinkId, node: NodeId, hello: &Hello) -> Result<(), Close> {
        let session = self.peer_session(&node, hello)?;
        let Some(link) = self.links.by_id.get_mut(&id) else { return Ok(()) };
        if link.dialer.is_none() {
            lend!(self, Greeting).send_hello(link, Some(&node));
        }
        self.check_rollback(id, session, hello);
        let Some(link) = self.links.by_id.get_mut(&id) else { return Ok(()) };
        let mut peer = PeerLink::new(session, node.clone(), hello, self.time.now);
        peer.rows_out.began = self.log.tail.durable();
        link.state = LinkState::Peer(peer);
        if let Some(session) = self.sessions.table.get_mut(&session) {
            session.link = Some(id);
            session.keeping.away_since = None;
        }
        self.out.metrics.peer_known(node.as_str());
        self.out.push(Output::Admit(id));
        self.sessions.ready.insert(session);
        lend!(self, LinkOut).ping(link);
        self.time.timers.set(Timer::Link(id), link.liveness.ping_at);
        lend!(self, LinkOut).tell_clock(link);
        lend!(self, Telling).send_topology(link);
        let remote = link.remote.clone();
        self.report_log_end(id, &node, hello);
        let synced = hello.durability == crate::config::Durability::Full;
        self.out.event(Event::PeerUp { peer: node, link: id, remote, synced });
        Ok(())
    }

    /// The session of a peer that has said Hello. A new one, and one whose peer has lost its
    /// database, begins at the first row: doubt means rewind.
    fn peer_session(&mut self, node: &NodeId, hello: &Hello) -> Result<SessionId, Close> {
        let peer = Peer {
            node: node.clone(),
            store: hello.store,
            incarnation: hello.incarnation,
            reported: Position::default(),
        };
        let name = format!("peer:{node}");
        if let Some(id) = self.sessions.by_name.get(&name).copied()
            && let Some(session) = self.sessions.table.get_mut(&id)
        {
            // What it had reported, and at which start, stays until it says something new.
            let lost = session.peer().is_some_and(|known| known.store != hello.store);
            if lost {
                session.role = Role::Peer(peer);
                session.rewind_for_lost(self.log.tail.durable());
                self.out.metrics.rewound("store_lost");
                self.out.event(Event::PeerLostStore { peer: node.clone() });
            }
            lend!(self, Records).touch(id, Dirty::Now);
            return Ok(id);
        }
        let peers = self.sessions.table.values().filter(|session| session.peer().is_some()).count();
        if peers >= self.config.limits.max_nodes {
            let reason = "this node has as many peers as it takes (limits.max_nodes)".into();
            return Err(Close { code: CloseCode::Limit, reason });
        }
        self.out.metrics.rewound("new_session");
        Ok(self.new_session(Role::Peer(peer), Position::new(1)))
    }

    pub(super) fn new_session(&mut self, role: Role, next: Position) -> SessionId {
        let unnamed = matches!(&role, Role::Application(app) if app.client.is_none());
        let last =
            if unnamed { &mut self.sessions.last_unnamed } else { &mut self.sessions.last_id };
        *last = last.next();
        let id = *last;
        if matches!(&role, Role::Application(application) if application.tags.is_some()) {
            self.mesh.on_change(self.time);
        }
        let repeats = RateLimit::new(self.config.retry.max_rate, self.time.now.instant);
        let session = Session::new(id, role, next, repeats).offering_all(self.log.tail.head());
        self.sessions.by_name.insert(session.name.clone(), id);
        self.sessions.table.insert(session);
        lend!(self, Records).touch(id, Dirty::Now);
        id
    }

    pub(super) fn link_down(&mut self, id: LinkId, code: Option<u16>, reason: &str) {
        let Some(link) = self.links.by_id.remove(&id) else {
            self.out.metrics.stale += 1;
            return;
        };
        let slowest = code.is_some_and(|code| (4400..4500).contains(&code) && code != 4408);
        self.note_lost(&link, !matches!(code, Some(1000 | 1001)));
        self.detach(link, reason, slowest);
    }

    /// Ends a link from this side, or takes note that it has ended.
    pub(super) fn finish(&mut self, link: Link, close: Option<Close>, reason: &str) {
        let said = |close: &Close| format!("{} {}", close.code.number(), close.reason);
        let reason = close.as_ref().map_or(reason.into(), said);
        let slowest = close.as_ref().is_some_and(|close| close.code == CloseCode::Duplicate);
        self.note_lost(&link, close.as_ref().is_none_or(|it| it.code != CloseCode::GoingAway));
        if let Some(close) = close {
            self.out.event(Event::Closing { link: link.id, close: close.clone() });
            self.out.push(Output::Close { link: link.id, close });
        }
        self.detach(link, &reason, slowest);
    }

    fn detach(&mut self, link: Link, reason: &str, slowest: bool) {
        self.links.unsent -= link.traffic.counted;
        self.time.timers.clear(Timer::Link(link.id));
        self.links.work.awaiting_commit.remove(&link.id);
        self.links.work.unflushed.remove(&link.id);
        self.id.early.remove(&link.id);
        self.id.unsaid.remove(&link.id);
        let reason: String = reason.into();
        match &link.state {
            LinkState::Handshake | LinkState::Candidate { .. } => {}
            LinkState::Peer(peer) => {
                self.out.metrics.peer_bytes(peer.node.as_str(), link.traffic.bytes);
                self.out.metrics.reconnect(peer.node.as_str(), reason_label(&reason));
                let peer = peer.node.clone();
                self.out.event(Event::PeerDown { peer, link: link.id, reason: reason.clone() });
                self.mesh.wants.ended(link.id);
                self.mesh.on_change(self.time);
            }
            LinkState::Application(application) => {
                self.links.applications -= 1;
                let (client, reason) = (application.client.clone(), reason.clone());
                self.out.event(Event::ApplicationDown { link: link.id, client, reason });
            }
        }
        if let Some(id) = link.session()
            && let Some(session) = self.sessions.table.get_mut(&id)
            && session.link == Some(link.id)
        {
            session.disconnected(self.time.clock.estimate());
            self.sessions.interests.leave(id);
            self.sessions.ready.remove(&id);
            self.time.timers.clear(Timer::Session(id));
            if session.is_durable() {
                lend!(self, Records).touch(id, Dirty::Soon);
            } else {
                self.forget_unnamed(id);
            }
        }
        if let Some(index) = link.dialer {
            lend!(self, Dialing).dialer_lost(index, link.id, &reason, slowest);
        }
        if let Some(peer) = link.peer() {
            lend!(self, Dialing).uncover_dialers(&peer.node);
        }
        if let Some(candidate) = self.links.candidates.remove(&link.id) {
            self.admit_candidate(candidate);
        }
    }

    fn forget_unnamed(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.table.remove(&id) {
            self.sessions.by_name.remove(&session.name);
        }
        self.log.receipts.end(id);
        self.log.receipts.touched.remove(&id);
    }
}

impl Greeting<'_> {
    pub(super) fn send_hello(&mut self, link: &mut Link, node: Option<&NodeId>) {
        let hello = self.own_hello(node);
        link.reminded = node.cloned();
        self.out.transmit(link, Frame::Binary(Wire::Hello(hello).encode()));
    }

    /// What this node says of itself first; `node` is who hears it, if that is known.
    pub(super) fn own_hello(&self, node: Option<&NodeId>) -> Hello {
        let peer = node
            .and_then(|node| self.sessions.by_name.get(&format!("peer:{node}")))
            .and_then(|id| self.sessions.table.get(id))
            .and_then(|session| session.peer());
        Hello {
            protocol: PROTOCOL_VERSION,
            node: self.config.id.as_str().into(),
            store: self.id.store,
            incarnation: self.id.incarnation,
            group: self.config.cluster_group.clone().unwrap_or_default(),
            tags: Hello::told_tags(&self.config.tags),
            wall: self.time.now.wall,
            durability: self.config.store.durability,
            features: FEATURE_DIGESTS | FEATURE_ENDS,
            max_message_bytes: self.config.limits.max_message_bytes as u64,
            max_frame_bytes: self.config.limits.max_frame_bytes() as u64,
            reported: peer.map_or(Position::default(), |peer| peer.reported),
            reported_incarnation: peer.map_or(Incarnation::default(), |peer| peer.incarnation),
        }
    }
}

fn reason_label(reason: &str) -> &'static str {
    match reason.get(..4) {
        Some("1001") => "going_away",
        Some("4408") => "timeout",
        Some("4409") => "duplicate",
        Some("4400") => "protocol",
        Some(_) | None => "lost",
    }
}

/// When the ping was sent that a pong answers.
pub(super) fn pinged_at(payload: &[u8]) -> Option<Instant> {
    let micros = <[u8; 8]>::try_from(payload).ok()?;
    Some(Instant::from_micros(u64::from_be_bytes(micros)))
}

/// A close for a frame that breaks the protocol.
pub(super) const NO_PLACE: &str = "a frame that has no place here";

pub(super) fn protocol(reason: &str) -> Close {
    let reason = reason[..reason.floor_char_boundary(MAX_REASON)].into();
    Close { code: CloseCode::Protocol, reason }
}

pub(super) fn duplicate(reason: &str) -> Close {
    Close { code: CloseCode::Duplicate, reason: reason.into() }
}
