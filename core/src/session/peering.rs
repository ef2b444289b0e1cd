//! What only sessions of peers do: offering instead of sending, and going back.
//!
//! What stays true: an offer is open as long as its flight is, of rows with one identity only the
//! last is on offer, and going back passes no row that is still owed (P2, P5).

use alloc::vec::Vec;
use core::time::Duration;

use super::{Dirty, Flight, Offer, Session};
use crate::log::seen::Id;
use crate::session::offer::ClosedOffer;
use crate::store::Row;
use crate::types::ids::Position;
use crate::types::tags::Reach;
use crate::types::time::Instant;

/// Shortest time between two returns to what was passed over.
const BACK_INTERVAL: Duration = Duration::from_secs(1);

impl Session {
    /// Offers a row to the peer at this time, instead of handing it over.
    pub fn hold(&mut self, position: Position, flight: Flight, id: Id, at: Instant) {
        self.flights.insert(position, Flight { offer: Offer::Open(id), ..flight });
        if let Some(before) = self.peering.offers.open(id, position, at) {
            // A dead letter of the node that was replayed: who has the one row has the other.
            self.flights.remove(&before);
        }
    }

    /// The identities to offer now, with those whose time is no more than `ahead`. What is not
    /// answered is due again later.
    pub fn take_offers(&mut self, now: Instant, ahead: Duration) -> Vec<Id> {
        let mut ids = Vec::new();
        for position in self.peering.offers.take_due(now + ahead) {
            let flight = self.flights.get(&position);
            if let Some(Flight { offer: Offer::Open(id), .. }) = flight {
                ids.push(*id);
                self.peering.offers.say(*id, now);
            }
        }
        ids
    }

    /// The peer has asked for what it was offered. Answers whether it is still on offer.
    pub fn want(&mut self, id: Id) -> bool {
        let closed = self.peering.offers.close(id);
        let Some(flight) = closed.and_then(|closed| self.flights.get_mut(&closed.position)) else {
            return false;
        };
        flight.offer = Offer::Wanted(id);
        self.notes.has_unsent = true;
        true
    }

    /// The peer has what it was, or would have been, offered. Answers how that offer ended if it
    /// was still open.
    pub fn settle_offer(&mut self, id: Id) -> Option<ClosedOffer> {
        let closed = self.peering.offers.close(id)?;
        self.flights.remove(&closed.position).map(|_| closed)
    }

    /// Offers a peer also what came over it up to `head`: it may have lost that, for a path names a
    /// node, and not its store.
    pub fn offering_all(mut self, head: Position) -> Self {
        self.peering.lost_upto = head;
        self
    }

    /// Begins again at the first row, because the peer's store has lost what it had.
    pub fn rewind_for_lost(&mut self, head: Position) {
        self.rewind(head);
        self.peering.lost_upto = head;
    }

    /// Who lies behind the peer now may want what was passed over: arranges to go back to that,
    /// once a second at most.
    pub fn reconsider(&mut self, behind: &Reach, now: Instant) {
        if self.peering.back_at.is_none() && self.peering.skipped.concerns(behind) {
            let earliest = self.peering.back_last.map_or(now, |last| last + BACK_INTERVAL);
            self.peering.back_at = Some(earliest.max(now));
        }
    }

    /// Begins again at the first row, because the peer lacks what it had: once a second at most.
    /// Answers whether it does.
    pub fn lose(&mut self, head: Position, now: Instant) -> bool {
        let may = self.peering.back_last.is_none_or(|last| last + BACK_INTERVAL <= now);
        if may {
            self.rewind_for_lost(head);
            self.peering.back_last = Some(now);
        }
        may
    }

    /// Whether it is time to go back to what was passed over.
    pub fn may_go_back(&self, now: Instant) -> bool {
        self.peering.back_at.is_some_and(|at| at <= now)
    }

    /// Goes back to what was passed over and may be for who lies behind the peer now. Answers
    /// whether there is any.
    pub fn go_back(&mut self, behind: &Reach, now: Instant) -> bool {
        self.peering.back_at = None;
        let Some(first) = self.peering.skipped.take(behind) else { return false };
        self.peering.back_last = Some(now);
        self.peering.rewalk_upto = self.peering.rewalk_upto.max(self.next);
        self.next = self.next.min(first);
        self.fetch = None;
        self.touch(Dirty::Now);
        true
    }

    /// Whether the row was looked at before, and is not to be looked at again.
    pub fn is_over(&self, row: &Row) -> bool {
        row.position < self.peering.rewalk_upto
            && (row.message.tags().is_empty() || self.flights.contains_key(&row.position))
    }
}
