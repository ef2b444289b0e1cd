//! Events that expire before this node has handed them on to anybody.
//!
//! What stays true: such an event is a dead letter once, written with the record that says so. One
//! that an application was owed is that application's affair, and one that came from elsewhere and
//! was for this node alone has arrived.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::log::unclaimed::NODE;
use crate::session::{Flight, Role, Session, Stretch};
use crate::store::{DeadReason, Query, Row, StoredRow};
use crate::types::ids::{Position, SessionId};
use crate::types::tags::TagSet;
use crate::types::time::WallMs;

use super::burial::DeadLetterDraft;
use super::handlers::{Burial, Expiry, Looks, lend};
use super::identity::Phase;
use super::queries::Purpose;

/// Rows asked of the store at once.
const ROWS: usize = 1024;
/// Bytes asked of the store at once.
const BYTES: usize = 256 << 10;

/// What becomes of an event that is about to go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EventFate {
    /// Somebody has it, or will have it as a dead letter.
    Settled,
    /// A peer may be about to acknowledge it.
    UnderWay,
    /// Nobody was handed it.
    Dead,
}

impl Burial<'_> {
    /// Number and bytes of the dead letters of a session, or of the node.
    pub(super) fn dead_of(
        &mut self,
        owner: SessionId,
    ) -> Option<&mut BTreeMap<DeadReason, (u64, u64)>> {
        if owner == NODE {
            return Some(&mut self.log.unclaimed.dead);
        }
        self.sessions.table.get_mut(&owner).map(|session| &mut session.dead.counts)
    }

    /// What a session has settled with its application or peer is not unclaimed.
    pub(super) fn note_delivered(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.table.get_mut(&id) {
            session.notes.answered.drain(..).for_each(|event| self.log.unclaimed.delivered(event));
        }
    }

    pub(super) fn note_all_delivered(&mut self) {
        let unclaimed = &mut self.log.unclaimed;
        // One that rests has answered none.
        self.sessions.table.each_awake(|session| {
            session.notes.answered.drain(..).for_each(|event| unclaimed.delivered(event));
        });
    }
}

impl Expiry<'_> {
    /// Asks the store for events whose time is over, if the clock can be trusted.
    pub(super) fn look_for_expired(&mut self) {
        if self.id.phase != Phase::Running
            || self.log.unclaimed.is_looking
            || self.log.unclaimed.is_full(self.config.store.session_max_bytes)
        {
            return;
        }
        let Some((at, first, upto)) =
            self.time.moment().trusted().and_then(|now| self.log.unclaimed.due(now))
        else {
            return;
        };
        lend!(self, Looks).look_at(Purpose::Expired(at), first, upto);
    }

    pub(super) fn expired_fetched(&mut self, at: WallMs, rows: Vec<StoredRow>, upto: Position) {
        self.log.unclaimed.is_looking = false;
        // Nothing ends by a clock that came into doubt meanwhile, nor where letters find no room.
        let lifetimes = self.time.moment();
        let Some(now) = lifetimes
            .trusted()
            .filter(|_| !self.log.unclaimed.is_full(self.config.store.session_max_bytes))
        else {
            return;
        };
        lend!(self, Burial).note_all_delivered();
        let (mut deaths, mut later) = (Vec::new(), Vec::new());
        if at == WallMs(0) {
            // They may have come after the last record: only now it is known when they end.
            let ends = |row: &Row| lifetimes.ends(row).filter(|ends| *ends > now);
            let found = rows.iter().map(|stored| &stored.row).filter(|row| row.only.is_none());
            let found = found.filter_map(|row| ends(row).map(|ends| (row.position, ends)));
            self.mesh.dialers.unmet.found(found.map(|(first, ends)| Stretch { first, ends }));
        }
        for StoredRow { row, .. } in rows {
            let ends = lifetimes.ends(&row).filter(|_| row.only.is_none());
            let Some(ends) = ends.filter(|_| self.log.unclaimed.contains(row.position)) else {
                continue;
            };
            if ends > now {
                later.push((row.position, ends));
                continue;
            }
            match lend!(self, Looks).fate(&row) {
                EventFate::UnderWay => {
                    later.push((row.position, ends));
                    continue;
                }
                EventFate::Settled => {}
                EventFate::Dead => {
                    self.out.metrics.expired += 1;
                    if let Some(copy) = row.copy {
                        self.log.group_copies.end(&copy, row.position);
                    }
                    let flight = Flight::new(row.message.version().wall());
                    let (message, reason) = (row.message, DeadReason::Expired);
                    deaths.push(DeadLetterDraft {
                        position: row.position,
                        message,
                        reason,
                        flight,
                    });
                }
            }
            self.log.unclaimed.delivered(row.position);
        }
        self.log.unclaimed.looked(at, upto, &later, now);
        lend!(self, Burial).dead_letter(NODE, deaths);
        self.look_for_expired();
        self.look_for_held();
    }
}

impl Looks<'_> {
    /// Asks the store for a part of the log in which undelivered events lie.
    pub(super) fn look_at(&mut self, purpose: Purpose, first: Position, upto: Position) {
        let (after, newest_upto) = (first.before(), Position::default());
        let (timely, max_rows, max_bytes) = (self.time.clock.timely(), ROWS, BYTES);
        let query =
            Query::Rows { after, upto, newest_upto, tags: None, timely, max_rows, max_bytes };
        self.log.unclaimed.is_looking = true;
        self.queries.ask(self.out, purpose, query);
    }

    /// What becomes of an event that is about to go from here.
    pub(super) fn fate(&mut self, row: &Row) -> EventFate {
        let tags = &self.config.tags;
        let mut owed_to_peer = false;
        // A peer on the path may have lost it since, and is owed it until it says that it has it.
        for session in self.sessions.table.values() {
            let handed = session.flights.get(&row.position).map(|flight| flight.handed);
            let is_handed = handed.is_some_and(|handed| handed > 0);
            let is_owed = handed.is_some() || is_ahead(session, row, tags);
            match &session.role {
                Role::Peer(_) if is_handed => return EventFate::UnderWay,
                Role::Peer(peer) if is_owed => {
                    // Over another way it is not this node that it waits for.
                    owed_to_peer |=
                        session.link.is_some() || !self.mesh.topology.reaches(&peer.node);
                }
                Role::Application(_) if is_handed => return EventFate::Settled,
                // What lies ahead of it, it will be handed; what it has passed, it has settled,
                // or has as its own dead letter, also where a crash has made that unknown here.
                Role::Application(application)
                    if session.is_durable()
                        && session.receives()
                        && row.position >= application.from
                        && session.is_owed(row, tags) =>
                {
                    return EventFate::Settled;
                }
                Role::Peer(_) | Role::Application(_) => {}
            }
        }
        let message = &row.message;
        let is_own = message.origin() == self.config.id.as_str();
        let has_arrived = !is_own && tags.matches(message.tags());
        if has_arrived && !owed_to_peer { EventFate::Settled } else { EventFate::Dead }
    }
}

/// Whether a session has not come to this row, and is owed it.
fn is_ahead(session: &Session, row: &Row, node_tags: &TagSet) -> bool {
    session.receives()
        && row.position >= session.next
        && !session.known.contains(&row.position)
        && session.is_owed(row, node_tags)
}
