//! Frames of peers that name messages: what they have, ask for, have too, and have no more.

use super::handlers::{Dialing, Ingest, PeerFrames, Records, lend};
use super::links::ActiveLink;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::io::Close;
use crate::log::seen::Id;
use crate::log::seen::SeenVerdict;
use crate::mesh::topology::Route;
use crate::session::link::{Link, PEER_WINDOW};
use crate::session::offer;
use crate::session::{Dirty, Session};
use crate::store::Row;
use crate::types::ids::BatchId;
use crate::types::time::Instant;
use crate::wire::BatchKind;

use super::connect::protocol;
use super::handover::{RowSender, SessionWalk};

impl PeerFrames<'_> {
    /// A peer has these durable: what this node owes it of them is settled, what this node has
    /// not is asked for.
    pub(super) fn peer_has(
        &mut self,
        link: &mut ActiveLink<'_>,
        batch: &Bytes,
    ) -> Result<(), Close> {
        let ids = self.named(batch)?;
        lend!(self, Dialing).dialer_succeeded(link);
        let told = lend!(self, Records).settle_named(link, &ids);
        let (mut seen, mut wanted) = (Vec::new(), Vec::new());
        for id in ids {
            if told.contains(&id) {
                // Both have offered it to each other: each offer answers the other one.
                continue;
            }
            if self.log.seen.check(id.0, id.1) != SeenVerdict::Seen {
                if self.mesh.wants.ask(id, link.id, self.time.now.instant) {
                    wanted.push(id);
                }
                continue;
            }
            match lend!(self, Ingest).batch_of(id) {
                None => seen.push(id),
                Some(batch) => self.say_seen_with(link, batch, id),
            }
        }
        self.out.name(link, BatchKind::Seen, seen, &self.log.seen);
        self.out.name(link, BatchKind::Want, wanted, &self.log.seen);
        Ok(())
    }

    fn named(&mut self, batch: &Bytes) -> Result<Vec<Id>, Close> {
        offer::ids(batch, &mut self.log.seen).map_err(|error| protocol(&format!("{error}")))
    }

    fn say_seen_with(&mut self, link: &mut ActiveLink<'_>, batch: BatchId, id: Id) {
        let Some(peer) = link.peer_mut() else { return };
        // What finds no room is offered again.
        if peer.rows_in.seen_later.len() < PEER_WINDOW {
            peer.rows_in.seen_later.push_back((batch, id));
            link.work.awaiting_commit.insert(link.id);
        }
    }

    /// A peer asks for some of what it was offered.
    pub(super) fn peer_wants(
        &mut self,
        link: &mut ActiveLink<'_>,
        batch: &Bytes,
    ) -> Result<(), Close> {
        let ids = self.named(batch)?;
        let Some(id) = link.session() else { return Ok(()) };
        let Some(session) = self.sessions.table.get_mut(&id) else { return Ok(()) };
        let gone = ids.into_iter().filter(|id| !session.want(*id)).collect();
        self.out.name(link, BatchKind::Gone, gone, &self.log.seen);
        self.sessions.ready.insert(id);
        Ok(())
    }

    /// A peer has what it was offered.
    pub(super) fn peer_has_seen(
        &mut self,
        link: &mut ActiveLink<'_>,
        batch: &Bytes,
    ) -> Result<(), Close> {
        let ids = self.named(batch)?;
        lend!(self, Records).settle_named(link, &ids);
        Ok(())
    }

    /// A peer has no more what it had offered.
    pub(super) fn peer_misses(
        &mut self,
        link: &mut ActiveLink<'_>,
        batch: &Bytes,
    ) -> Result<(), Close> {
        for id in self.named(batch)? {
            self.mesh.wants.gone(id, link.id);
        }
        Ok(())
    }
}

impl Ingest<'_> {
    /// The batch that makes a message durable that was processed; `None`: it is.
    pub(super) fn batch_of(&self, id: Id) -> Option<BatchId> {
        // What was superseded on arrival has no place: it waits for whatever is under way.
        match self.log.tail.locate(id.0, id.1) {
            Some(position) => self.log.tail.batch_of(position),
            None => self.log.tail.undurable(),
        }
    }
}

impl Records<'_> {
    /// What a peer has durable is owed to it no more. Answers what of it the peer was offered on
    /// this link.
    pub(super) fn settle_named(&mut self, link: &Link, ids: &[Id]) -> BTreeSet<Id> {
        let mut told = BTreeSet::new();
        let Some(session) = link.session() else { return told };
        let Some(found) = self.sessions.table.get_mut(&session) else { return told };
        let mut moved = false;
        for id in ids {
            if let Some(closed) = found.settle_offer(*id) {
                moved = true;
                if closed.said {
                    told.insert(*id);
                }
            } else if let Some(position) = self.log.tail.locate(id.0, id.1) {
                moved |= position < found.next;
                found.note_known(position);
            }
        }
        if moved {
            self.touch(session, Dirty::Soon);
        }
        self.sessions.ready.insert(session);
        told
    }
}

impl SessionWalk<'_> {
    /// Offers what is to be offered now, and with it what came within half of the delay behind it:
    /// so a frame names many, however evenly they come.
    pub(super) fn offer_due(&mut self) {
        let now = self.carrier.now.instant;
        if self.session.peering.offers.next().is_none_or(|at| at > now) {
            return;
        }
        if self.is_held() || !self.link.has_credit() {
            return;
        }
        let ahead = self.carrier.config.routing.offer_delay / 2;
        let ids = self.session.take_offers(now, ahead);
        self.carrier.out.metrics.offered(&self.session.name, ids.len() as u64);
        self.carrier.name(self.link, BatchKind::Have, ids);
    }
}

impl RowSender<'_> {
    /// Where a message leads by way of a peer. An application is the end of its way.
    pub(super) fn route(&mut self, link: &Link, row: &Row) -> Route {
        match link.peer() {
            Some(peer) => self.topology.route(&row.message, &peer.node),
            None => Route::Now,
        }
    }

    /// Whether a peer is offered this row, and when, instead of being sent it: it may have what was
    /// there before its link came up, and what has its name on the path; the rest it will probably
    /// get from its parent in the tree.
    pub(super) fn offered(
        &mut self,
        session: &Session,
        link: &Link,
        row: &Row,
        route: Route,
    ) -> Option<(Id, Instant)> {
        let peer = link.peer()?;
        let message = &row.message;
        let old = row.position <= peer.rows_out.began.max(session.peering.lost_upto)
            || row.position < session.peering.rewalk_upto
            || message.visited(&peer.node);
        let at = match route {
            Route::Now if !old => return None,
            Route::Later if !old => self.now.instant + self.config.routing.offer_delay,
            Route::Now | Route::Later | Route::Soon | Route::Nowhere => self.now.instant,
        };
        Some(((self.seen.source_of(message), message.sequence()), at))
    }

    /// Names messages to a peer.
    pub(super) fn name(&mut self, link: &mut Link, kind: BatchKind, ids: Vec<Id>) {
        self.send_filled(link);
        self.out.name(link, kind, ids, self.seen);
    }
}
