//! A session: what outlives links, the record of what a peer or application has been handed.
//!
//! A session walks the log. Everything before [`Session::next`] is settled, except the
//! [`Flight`]s: handed over, and not acknowledged. So the cursor, up to which everything is
//! settled, needs no bookkeeping of its own. What stays true: `next` never passes a row that is
//! owed without making it a flight, and a flight ends only by an acknowledgement, as superseded,
//! or as a dead letter (P2). A session does no I/O and knows no link but by number.

mod conflation;
mod due;
mod flight;
mod group_copies;
pub mod interests;
mod letters;
pub mod link;
pub mod offer;
mod peer_link;
mod peering;
mod record;
mod settling;
mod skipped;
mod state;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use crate::session::interests::begins_with_any;
use crate::store::Row;
use crate::types::ids::{FetchId, Incarnation, LinkId, NodeId, Position, SessionId, StoreId};
use crate::types::rate::{Random, RateLimit, backoff};
use crate::types::tags::TagSet;
use crate::types::time::{Instant, WallMs};
use crate::wire::application::{AckMode, Replay};

pub use self::flight::{Flight, Offer, Word};
pub use self::record::Used;
use self::settling::EndedDeliveries;
pub use self::settling::{Settled, Unheard};
pub use self::skipped::{Skipped, Stretch};
pub use self::state::{Dead, FlightNotes, HandOvers, Keeping, Peering, Walk};

/// Unnamed applications' sessions have numbers from here on; they are never stored.
pub const UNNAMED: u64 = 1 << 62;

pub use self::conflation::Conflation;
pub use self::group_copies::{Beginning, Delivered};

/// Rows ahead of a session that its peer is remembered to have.
const MAX_KNOWN: usize = 65_536;

/// Whose session it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Another node.
    Peer(Peer),
    /// An application.
    Application(AppRole),
}

/// What is known of a peer across links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// Its database, from its last Hello.
    pub store: StoreId,
    /// Its start when it reported that.
    pub incarnation: Incarnation,
    /// The end of its log, from its last acknowledgement.
    pub reported: Position,
}

/// What an application receives, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRole {
    /// Name; `None` ends the session with its link.
    pub client: Option<String>,
    /// Its tags; `None`: the node's.
    pub tags: Option<TagSet>,
    /// Key prefixes; `None`: all keys.
    pub keys: Option<Vec<String>>,
    /// Who says that a delivery is done.
    pub ack: AckMode,
    /// Whether it asked to be handed only the newest value while it lags.
    pub conflate: bool,
    /// Rows before this one are none of its business: `replay=new`. 0 with `replay=all`.
    pub from: Position,
    /// The first replay ends here: rows up to here are handed over while they are the newest,
    /// its own included.
    pub replay: Position,
}

/// How soon the record of a session must be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dirty {
    /// It is as stored.
    Clean,
    /// With some batch before long.
    Soon,
    /// With the next batch.
    Now,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Number.
    pub id: SessionId,
    /// `peer:NAME`, `app:NAME`, or `link:N` without a name.
    pub name: String,
    /// Whose.
    pub role: Role,
    /// The next row to look at.
    pub next: Position,
    /// How the rows before and behind that are to be taken.
    pub walk: Walk,
    /// What concerns peers alone.
    pub peering: Peering,
    /// Handed over and not acknowledged.
    pub flights: BTreeMap<Position, Flight>,
    /// What is known of the flights together.
    pub notes: FlightNotes,
    /// Rows ahead of `next` that the peer is known to have, or the application: replayed letters
    /// that it has acknowledged meanwhile.
    pub known: BTreeSet<Position>,
    /// The link that serves it.
    pub link: Option<LinkId>,
    /// Rows are on their way from the store.
    pub fetch: Option<FetchId>,
    /// Its dead letters.
    pub dead: Dead,
    /// How it is kept in the store.
    pub keeping: Keeping,
    /// Hand-overs since the start.
    pub counts: HandOvers,
}

impl Session {
    /// A session that begins to look at the row `next`.
    pub fn new(id: SessionId, role: Role, next: Position, repeats: RateLimit) -> Self {
        let name = match &role {
            Role::Peer(peer) => alloc::format!("peer:{}", peer.node),
            Role::Application(AppRole { client: Some(client), .. }) => {
                alloc::format!("app:{client}")
            }
            Role::Application(_) => alloc::format!("link:{}", id.get() - UNNAMED),
        };
        let notes = FlightNotes {
            copies: 0,
            send_seq: 0,
            has_unsent: false,
            has_dying: false,
            is_burying: false,
            wake: None,
            repeats,
            ended: EndedDeliveries::default(),
            answered: Vec::new(),
        };
        Self {
            id,
            name,
            role,
            next,
            walk: Walk::default(),
            peering: Peering::default(),
            flights: BTreeMap::new(),
            notes,
            known: BTreeSet::new(),
            link: None,
            fetch: None,
            dead: Dead::default(),
            keeping: Keeping { away_since: None, used: Used::Answered, dirty: Dirty::Clean },
            counts: HandOvers::default(),
        }
    }

    /// Whether it is kept in the store.
    pub fn is_durable(&self) -> bool {
        self.id.get() < UNNAMED
    }

    /// Everything at or below is settled.
    pub fn cursor(&self) -> Position {
        match self.flights.first_key_value() {
            Some((first, _)) => (*first).min(self.next).before(),
            None => self.next.before(),
        }
    }

    /// Whether it receives by the tags of the node.
    pub fn follows_node_tags(&self) -> bool {
        self.application().is_some_and(|application| application.tags.is_none())
    }

    /// Whether it may ever be handed anything: a publisher with `keys=` is not.
    pub fn receives(&self) -> bool {
        match &self.role {
            Role::Peer(_) => true,
            Role::Application(application) => {
                application.keys.as_ref().is_none_or(|keys| !keys.is_empty())
            }
        }
    }

    /// Whether the row may have been handed over before, also by a lost life of the store.
    pub fn may_have_had(&self, row: &Row, lost: crate::log::epochs::LostLife<'_>) -> bool {
        let by_lost = || self.is_durable() && lost.may_have_handed(&row.message);
        let is_application = self.application().is_some();
        row.position <= self.walk.redelivery_upto
            || row.only.is_some()
            || (is_application && by_lost())
    }

    /// Rows at or below this need the store's word that they are the newest of their key.
    pub fn check_upto(&self) -> Position {
        let replay = match &self.role {
            Role::Peer(_) => Position::default(),
            Role::Application(application) => application.replay,
        };
        self.walk
            .redelivery_upto
            .max(self.walk.receipt_overtook)
            .max(replay)
            .max(self.walk.conflation.upto)
    }

    /// Whether the session is handed the row only while the store says that it is the newest of its
    /// key.
    pub fn is_checked(&self, row: &Row) -> bool {
        let late = row.late && self.application().is_some();
        row.position <= self.check_upto() || row.only == Some(self.id) || late
    }

    /// Whether the row is for this session at all: by who handed it to this node for a peer; by
    /// tags, keys and publisher for an application. A path names nodes and not their databases: a
    /// peer further back on it may have lost the row since, and is offered it by name (P2).
    pub fn is_owed(&self, row: &Row, node_tags: &TagSet) -> bool {
        if let Some(only) = row.only {
            return only == self.id;
        }
        match &self.role {
            Role::Peer(peer) => {
                let handed = || row.message.sender() == Some(peer.node.as_str());
                row.position <= self.peering.lost_upto || !handed()
            }
            Role::Application(application) => {
                application.wants(&row.message, node_tags)
                    && (row.publisher != Some(self.id) || row.position <= application.replay)
            }
        }
    }

    /// Goes past new rows of which none is owed to it, as far as it had come to them and needs
    /// nobody's word. Answers whether it did. `event` is the first event among them.
    pub fn skip(&mut self, rows: RangeInclusive<Position>, event: Option<Position>) -> bool {
        let is_at_them = self.next == *rows.start() && self.fetch.is_none();
        let skips = is_at_them && self.check_upto() < *rows.start();
        if skips {
            event.into_iter().for_each(|event| self.came_to_event(event));
            self.next = rows.end().next();
        }
        skips
    }

    /// Makes the record due; answers whether it was clean before.
    pub fn touch(&mut self, dirty: Dirty) -> bool {
        let was_clean = self.keeping.dirty == Dirty::Clean;
        if self.is_durable() {
            self.keeping.dirty = self.keeping.dirty.max(dirty);
        }
        was_clean && self.keeping.dirty != Dirty::Clean
    }

    /// Ends the obligation for a row in flight. Answers whether there was one.
    pub fn settle(&mut self, position: Position) -> bool {
        let Some(flight) = self.end_flight(position) else { return false };
        if let Offer::Open(id) = flight.offer {
            self.peering.offers.close(id);
        }
        true
    }

    /// The peer has this row, in flight or not looked at yet. More than [`MAX_KNOWN`] ahead are
    /// not remembered, at the price of a copy each.
    pub fn note_known(&mut self, position: Position) {
        if position < self.next {
            self.settle(position);
        } else if self.known.len() < MAX_KNOWN {
            self.known.insert(position);
        }
    }

    /// Begins again at the first row: everything may have been handed over before.
    pub fn rewind(&mut self, head: Position) {
        self.walk.redelivery_upto = head;
        self.walk.conflation.upto = Position::default();
        self.next = match &self.role {
            Role::Peer(_) => Position::new(1),
            Role::Application(application) => application.from.max(Position::new(1)),
        };
        self.walk.beginning = Beginning::at(head, WallMs(u64::MAX));
        self.flights.clear();
        self.known.clear();
        self.peering.offers.clear();
        self.walk.checked.clear();
        self.dead.letters.disconnected();
        (self.peering.skipped, self.peering.rewalk_upto, self.peering.back_at) =
            (Skipped::default(), Position::default(), None);
        (self.notes.copies, self.fetch) = (0, None);
        self.touch(Dirty::Now);
    }

    /// The link is gone: what it carried will be handed over again.
    pub fn disconnected(&mut self, wall: WallMs) {
        self.link = None;
        self.fetch = None;
        self.peering.hold_until = None;
        self.notes.wake = None;
        self.keeping.away_since.get_or_insert(wall);
        self.dead.letters.disconnected();
        match &self.role {
            Role::Peer(_) => {
                self.next = self.cursor().next();
                // What was in flight is owed again, targeted or not.
                self.peering.rewalk_upto = self.peering.rewalk_upto.min(self.next);
                self.flights.clear();
                self.known.clear();
                self.peering.offers.clear();
                self.peering.back_at = None;
            }
            Role::Application(_) => {
                for flight in self.flights.values_mut() {
                    flight.on_link = false;
                    flight.due = None;
                }
                self.notes.has_unsent = !self.flights.is_empty();
            }
        }
    }
    /// Makes the flight of this row due at this time.
    pub fn schedule_at(&mut self, position: Position, at: Instant) {
        if let Some(flight) = self.flights.get_mut(&position) {
            flight.due = Some(at);
            self.wake_at(at);
        }
    }

    /// Wants to be looked at by this time.
    pub fn wake_at(&mut self, at: Instant) {
        self.notes.wake = Some(self.notes.wake.map_or(at, |wake| wake.min(at)));
    }

    /// When the session has something to do by itself. What is due already waits for something
    /// else: the socket, the store, or the operator.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let hold = self.peering.hold_until.filter(|until| *until > now);
        let wake = self.notes.wake.filter(|at| *at > now && self.fetch.is_none());
        let offers = self.peering.offers.next().filter(|at| *at > now);
        let back = self.peering.back_at.filter(|at| *at > now);
        let wake = wake.into_iter().chain(offers).chain(back).min();
        hold.or(wake)
    }

    /// Whether it is to be handed nothing: refused by the peer for now, or with more dead letters
    /// than its bound (P8).
    pub fn is_held(&self, now: Instant, max_dead_bytes: u64) -> bool {
        self.peering.hold_until.is_some_and(|until| until > now)
            || self.dead_bytes() > max_dead_bytes
    }

    /// The peer, if it is one's session.
    pub fn peer(&self) -> Option<&Peer> {
        match &self.role {
            Role::Peer(peer) => Some(peer),
            Role::Application(_) => None,
        }
    }

    /// The peer, if it is one's session.
    pub fn peer_mut(&mut self) -> Option<&mut Peer> {
        match &mut self.role {
            Role::Peer(peer) => Some(peer),
            Role::Application(_) => None,
        }
    }

    /// The application, if it is one's session.
    pub fn application(&self) -> Option<&AppRole> {
        match &self.role {
            Role::Peer(_) => None,
            Role::Application(application) => Some(application),
        }
    }

    /// By which tags it receives, if it is an application's.
    pub fn tags<'a>(&'a self, node_tags: &'a TagSet) -> Option<&'a TagSet> {
        self.application().map(|application| application.tags.as_ref().unwrap_or(node_tags))
    }

    /// How many dead letters it has.
    pub fn dead_count(&self) -> u64 {
        self.dead.counts.values().map(|(count, _)| count).sum()
    }

    /// Bytes of dead letters.
    pub fn dead_bytes(&self) -> u64 {
        self.dead.counts.values().map(|(_, bytes)| bytes).sum()
    }
}

impl AppRole {
    /// Where its session began.
    pub fn replay(&self) -> Replay {
        let all = self.from == Position::default() || self.replay > Position::default();
        if all { Replay::All } else { Replay::New }
    }

    /// Whether a message is for this application, by tags and keys (P5).
    pub fn wants(&self, message: &crate::wire::message::Message, node_tags: &TagSet) -> bool {
        self.tags.as_ref().unwrap_or(node_tags).matches(message.tags())
            && self.keys.as_ref().is_none_or(|keys| begins_with_any(keys, message.key()))
    }
}

/// When what was handed over `handed` times is handed over again: the time-out, doubled each time
/// up to the bound, with jitter in its upper half (P13).
pub fn retry_wait(retry: &crate::config::Retry, handed: u32, random: &mut Random) -> Duration {
    let limit = backoff(retry.ack_timeout, retry.max_backoff.max(retry.ack_timeout), handed);
    if handed <= 1 { limit } else { random.upper_half(limit) }
}

#[cfg(test)]
mod tests;
