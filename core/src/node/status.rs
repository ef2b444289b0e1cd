//! What a node says of itself when an operator asks.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::admin::{COVERED, LinkStatus, SELF, SessionStatus, Status, StoreStatus};
use crate::io::Protocol;
use crate::log::receipts::RECEIPT_BYTES;
use crate::mesh::dial::{DialState, Dialer};
use crate::session::link::{Link, LinkState};
use crate::session::{Session, UNNAMED};
use crate::store::DeadReason;

use super::handlers::StatusReport;
use super::identity::Phase;

impl StatusReport<'_> {
    pub(super) fn status(&mut self) -> Status {
        let refusing = match (&self.time.fault, self.id.phase) {
            (_, Phase::ShuttingDown) => Some("shutting down".into()),
            (Some(fault), _) => Some(fault.to_string()),
            (None, _) => self.log.capacity.full_reason(self.log.load(self.time.now.instant)),
        };
        let mut counters = self.out.metrics.counters();
        for link in self.links.by_id.values() {
            if let Some(peer) = link.peer() {
                let bytes = counters.peer_bytes.entry(peer.node.as_str().into()).or_default();
                bytes.0 += link.traffic.bytes.0;
                bytes.1 += link.traffic.bytes.1;
            }
        }
        Status {
            node: self.config.id.clone(),
            version: self.config.version,
            tags: self.config.tags.clone(),
            cluster_group: self.config.cluster_group.clone(),
            incarnation: self.id.incarnation.get(),
            uptime_ms: self.time.now.instant.since(self.time.started).as_millis() as u64,
            durability: self.config.store.durability,
            refusing,
            shutting_down: self.id.phase != Phase::Running,
            links: self.link_statuses(),
            sessions: self
                .sessions
                .table
                .values()
                .map(|session| self.session_status(session))
                .collect(),
            dead_letters: by_reason(&self.log.unclaimed.dead),
            topology: self.mesh.topology.statuses(),
            store: StoreStatus {
                store_id: self.id.store,
                head: self.log.tail.durable(),
                usage: self.log.capacity.usage,
                max_bytes: self.config.store.max_bytes,
                seen_bytes: self.log.seen.bytes(),
                idempotency_ids: self.log.receipts.len(),
                idempotency_bytes: self.log.receipts.len() * RECEIPT_BYTES,
            },
            counters,
        }
    }

    fn link_statuses(&self) -> Vec<LinkStatus> {
        let mut statuses: Vec<LinkStatus> =
            self.links.by_id.values().map(|link| self.link_status(link)).collect();
        for dialer in self.mesh.dialers.by_index.values() {
            let state = match dialer.state {
                DialState::Linked(_) => continue,
                // Until something else answers there, also while it is dialled after a reload.
                DialState::Waiting(_) | DialState::Dialing(_) | DialState::Stopped
                    if dialer.is_self =>
                {
                    SELF
                }
                DialState::Waiting(_) => "waiting",
                DialState::Dialing(_) => "dialing",
                DialState::Stopped => "stopped",
                DialState::Covered(_) => COVERED,
            };
            statuses.push(LinkStatus {
                link: None,
                role: "peer",
                name: self.node_behind(dialer),
                remote: dialer.url.clone(),
                state,
                dialed: true,
                protocol: "postcard",
                rtt_ms: None,
                clock_offset_ms: None,
                received_bytes: 0,
                sent_bytes: 0,
                up_ms: None,
                last_error: dialer.last_error.clone(),
                durability: None,
            });
        }
        statuses
    }

    /// The node that answered a dialler last.
    fn node_behind(&self, dialer: &Dialer) -> Option<String> {
        let node = if dialer.is_self { Some(&self.config.id) } else { dialer.node.as_ref() };
        node.map(|node| node.as_str().into())
    }

    fn link_status(&self, link: &Link) -> LinkStatus {
        let dialer = link.dialer.and_then(|index| self.mesh.dialers.by_index.get(&index));
        let (role, state) = match &link.state {
            LinkState::Handshake | LinkState::Candidate { .. } => match dialer {
                Some(dialer) if dialer.is_self => ("peer", SELF),
                Some(_) | None => ("peer", "handshake"),
            },
            LinkState::Peer(_) => ("peer", "up"),
            LinkState::Application(_) => ("app", "up"),
        };
        let peer = link.peer();
        let client = link.application().and_then(|application| application.client.clone());
        LinkStatus {
            link: Some(link.id.get()),
            role,
            name: peer
                .map(|peer| peer.node.as_str().into())
                .or(client)
                .or_else(|| dialer.and_then(|dialer| self.node_behind(dialer))),
            remote: link.remote.clone(),
            state,
            dialed: link.dialer.is_some(),
            protocol: match link.protocol {
                Protocol::Json => "json",
                Protocol::Postcard => "postcard",
            },
            rtt_ms: link.liveness.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            clock_offset_ms: peer.map(|peer| peer.clock_offset_ms(self.time.now)),
            received_bytes: link.traffic.bytes.0,
            sent_bytes: link.traffic.bytes.1,
            up_ms: Some(self.time.now.instant.since(link.opened).as_millis() as u64),
            last_error: None,
            durability: peer.map(|peer| peer.terms.durability),
        }
    }

    /// Whether the configuration has, or had, an entry for a peer.
    fn configuration_of(&self, session: &Session) -> Option<&'static str> {
        let peer = session.peer()?;
        if self.mesh.dialers.is_configured(&peer.node) {
            return Some("configured");
        }
        session.peering.has_lost_entry.then_some("no longer configured")
    }

    fn session_status(&self, session: &Session) -> SessionStatus {
        let head = self.log.tail.durable().get();
        let oldest = session.flights.values().map(|flight| flight.first_at).min();
        let (lag_ms, digests) = self.convergence_of(session);
        let (behind, behind_bytes) = if session.receives() {
            let behind = head.saturating_sub(session.next.before().get());
            (behind, self.log.backlog.from(session.next))
        } else {
            (0, 0)
        };
        SessionStatus {
            id: if session.id.get() < UNNAMED { session.id.get() } else { 0 },
            name: session.name.clone(),
            role: if session.peer().is_some() { "peer" } else { "app" },
            connected: session.link.is_some(),
            configuration: self.configuration_of(session),
            tags: session.application().and_then(|application| application.tags.clone()),
            cursor: session.cursor().get().min(head),
            in_flight: session.flights.len(),
            // What was conflated is gone: there is no more than the store holds.
            behind: behind.min(self.log.capacity.usage.rows),
            behind_bytes: behind_bytes.min(self.log.capacity.usage.used_bytes),
            oldest_ms: oldest.map_or(0, |at| self.time.now.wall.0.saturating_sub(at.0)),
            delivered_total: session.counts.delivered,
            retransmits_total: session.counts.retransmits,
            conflated_total: session.walk.conflation.total,
            conflating: session.is_conflating(),
            dead_letters: by_reason(&session.dead.counts),
            away_ms: session
                .keeping
                .away_since
                .map_or(0, |at| self.time.now.wall.0.saturating_sub(at.0)),
            lag_ms,
            digests,
        }
    }

    /// How long it is since a peer held what this node holds, in milliseconds, and what came of
    /// comparing digests.
    pub(super) fn convergence_of(&self, session: &Session) -> (Option<u64>, Option<&'static str>) {
        let Some(peer) = session.peer() else { return (None, None) };
        let (head, now) = (self.log.tail.durable(), self.time.now.instant);
        let settled = session.link.is_some() && session.cursor() >= head;
        let (lag, verdict) = match self.mesh.comparing.peers.get(&peer.node) {
            Some(known) if session.link.is_some() => (known.lag(settled, now), known.verdict(head)),
            Some(known) => (known.lag(false, now), "unknown"),
            // Not looked at since the start.
            None if settled => (core::time::Duration::ZERO, "unknown"),
            None => (now.since(self.time.started), "unknown"),
        };
        (Some(lag.as_millis() as u64), Some(verdict))
    }
}

/// How many dead letters there are for each reason.
fn by_reason(dead: &BTreeMap<DeadReason, (u64, u64)>) -> BTreeMap<&'static str, u64> {
    dead.iter().map(|(reason, (count, _))| (reason.as_str(), *count)).collect()
}
