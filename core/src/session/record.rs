//! The record of a session in the store.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::letters::{Letters, LettersRecord};
use super::skipped::{Skipped, SkippedRecord};
use super::{AppRole, Beginning, Conflation, Dirty, Flight, Peer, Role, Session, Word};
use crate::store::SessionRecord;
use crate::types::ids::{DeadLetterId, Incarnation, NodeId, Position, StoreId, is_name};
use crate::types::rate::RateLimit;
use crate::types::tags::TagSet;
use crate::types::time::WallMs;
use crate::wire::application::AckMode;

#[derive(Serialize, Deserialize)]
struct StoredState {
    role: RoleRecord,
    next: Position,
    open: Vec<OpenRecord>,
    away_since: WallMs,
    /// The node's tags, by which an application receives that has none of its own.
    node_tags: String,
}

/// Follows the record of a session that is conflated, has left out what was not the newest, came
/// when events had been forgotten, or has lost its entry in the configuration. (Records grow at
/// their end: what is not there has its default.)
#[derive(Serialize, Deserialize)]
struct ConflationRecord {
    from: Position,
}

/// In a [`ConflationRecord`]: the session is not conflated.
const NOT_CONFLATED: Position = Position::new(u64::MAX);

#[derive(Serialize, Deserialize)]
enum RoleRecord {
    Peer {
        store: StoreId,
        incarnation: Incarnation,
        reported: Position,
        passed: SkippedRecord,
        lost: Position,
    },
    Application {
        tags: Option<String>,
        keys: Option<Vec<String>>,
        auto: bool,
        conflate: bool,
        from: Position,
        replay: Position,
    },
}

impl RoleRecord {
    /// Whose session of this name it is, and what a peer has skipped and lost. `None` if the record
    /// cannot be read.
    fn recover(self, name: &str, head: Position) -> Option<(Role, Skipped, Position)> {
        let (kind, name) = name.split_once(':')?;
        match self {
            Self::Peer { store, incarnation, reported, passed, lost } => {
                let node = NodeId::new(name).ok()?;
                let role = Role::Peer(Peer { node, store, incarnation, reported });
                Some((role, Skipped::recover(passed), lost))
            }
            Self::Application { tags, keys, auto, conflate, from, replay } => {
                let tags = tags.map(|tags| TagSet::new(crate::types::tags::list(&tags)));
                if kind != "app" || !is_name(name) {
                    return None;
                }
                let role = Role::Application(AppRole {
                    client: Some(name.into()),
                    tags: tags.transpose().ok()?,
                    keys,
                    ack: if auto { AckMode::Auto } else { AckMode::Manual },
                    conflate,
                    from: from.min(head.next()),
                    replay: replay.min(head),
                });
                Some((role, Skipped::default(), Position::default()))
            }
        }
    }
}

/// Follows all that where the application has refused something, or has dead letters.
#[derive(Default, Serialize, Deserialize)]
struct SettlingRecord {
    /// What is not a dead letter yet: where it lies, and why.
    rejected: Vec<(Position, String)>,
    /// Replayed letters ahead that it has acknowledged meanwhile.
    acknowledged: Vec<Position>,
    letters: Option<LettersRecord>,
}

impl SettlingRecord {
    fn is_empty(&self) -> bool {
        self.rejected.is_empty() && self.acknowledged.is_empty() && self.letters.is_none()
    }
}

#[derive(Serialize, Deserialize)]
struct OpenRecord {
    position: Position,
    handed: u32,
    failed: u32,
    first_at: WallMs,
}

/// What an application has done with its session. Where room is needed, the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Used {
    /// It was never handed anything.
    Never,
    /// It was handed something, and has said nothing.
    Handed,
    /// It has published or settled something.
    Answered,
}

impl Session {
    /// Takes note of what its application has done.
    pub fn note_use(&mut self, used: Used) {
        if self.keeping.used < used {
            self.keeping.used = used;
            self.touch(Dirty::Soon);
        }
    }

    /// The session of this record, in a node that has these tags now. Everything up to `head` may
    /// have been handed over before. `None` if the record cannot be read.
    pub fn recover(
        record: &SessionRecord,
        head: Position,
        node_tags: &TagSet,
        repeats: RateLimit,
    ) -> Option<Self> {
        let (StoredState { role, next, open, away_since, node_tags: before }, rest) =
            postcard::take_from_bytes(&record.state).ok()?;
        let (role, skipped, lost_upto) = role.recover(&record.name, head)?;
        // Nothing lies behind the end of the log, and no flight ahead of the next row: a record
        // that says so is damaged, and would pass over what is still to come.
        let impossible = next > head.next() || open.iter().any(|flight| flight.position >= next);
        let mut session = Self::new(record.id, role, next, repeats);
        session.walk.redelivery_upto = head;
        session.peering.skipped = skipped;
        session.peering.lost_upto = lost_upto.min(head);
        session.walk.handed_upto = head;
        session.keeping.away_since = Some(away_since);
        for OpenRecord { position, handed, failed, first_at } in open {
            session.flights.insert(position, Flight { handed, failed, ..Flight::new(first_at) });
        }
        if !rest.is_empty() {
            // How far it had come since is not written down each time.
            let (ConflationRecord { from }, rest) = postcard::take_from_bytes(rest).ok()?;
            if from != NOT_CONFLATED {
                session.walk.conflation = Conflation { from, upto: head, ..Conflation::default() };
            }
            if !rest.is_empty() {
                let (checked, rest) = postcard::take_from_bytes(rest).ok()?;
                session.walk.checked.recover(checked);
                if !rest.is_empty() {
                    let (first_event, rest) = postcard::take_from_bytes(rest).ok()?;
                    session.walk.beginning.first_event = first_event;
                    if !rest.is_empty() {
                        let (settling, rest) = postcard::take_from_bytes(rest).ok()?;
                        session.recover_settling(settling);
                        if !rest.is_empty() && session.application().is_some() {
                            let (used, rest) = postcard::take_from_bytes(rest).ok()?;
                            session.keeping.used = used;
                            if !rest.is_empty() {
                                let (head, time) = postcard::from_bytes(rest).ok()?;
                                session.walk.beginning =
                                    Beginning { head, time, ..session.walk.beginning };
                            }
                        } else {
                            session.peering.has_lost_entry = !rest.is_empty();
                        }
                    }
                }
            }
        }
        session.disconnected(away_since);
        session.keeping.dirty = Dirty::Clean;
        if impossible || (before != node_tags.as_str() && session.follows_node_tags()) {
            session.rewind(head);
        }
        Some(session)
    }

    /// The record for the store; `None` for a session that is not stored.
    pub fn record(&self, wall: WallMs, node_tags: &TagSet) -> Option<SessionRecord> {
        let role = match &self.role {
            Role::Peer(peer) => RoleRecord::Peer {
                store: peer.store,
                incarnation: peer.incarnation,
                reported: peer.reported,
                passed: self.peering.skipped.record(),
                lost: self.peering.lost_upto,
            },
            Role::Application(application) => {
                application.client.as_ref()?;
                RoleRecord::Application {
                    tags: application.tags.as_ref().map(|tags| tags.as_str().into()),
                    keys: application.keys.clone(),
                    auto: application.ack == AckMode::Auto,
                    conflate: application.conflate,
                    from: application.from,
                    replay: application.replay,
                }
            }
        };
        // A peer acknowledges in order: what it has not is sent again from the cursor on.
        let (next, open) = match &self.role {
            Role::Peer(_) => (self.cursor().next(), Vec::new()),
            Role::Application(_) => (self.next, self.open_records()),
        };
        let away_since = self.keeping.away_since.unwrap_or(wall);
        let node_tags = node_tags.as_str().into();
        let encoded = "a record can be encoded";
        let mut state =
            postcard::to_allocvec(&StoredState { role, next, open, away_since, node_tags })
                .expect(encoded);
        let checked = self.walk.checked.record();
        let settling = self.settling_record();
        let Beginning { first_event, head, time } = self.walk.beginning;
        let has_head = self.application().is_some() && head > Position::default();
        let has_used =
            self.application().is_some() && (self.keeping.used != Used::Answered || has_head);
        let has_settling = !settling.is_empty() || self.peering.has_lost_entry || has_used;
        let came = self.application().is_some() && first_event != Position::default();
        let has_first = came || has_settling;
        let has_checked = has_first || !checked.is_empty();
        if self.is_conflating() || has_checked {
            let from = if self.is_conflating() { self.walk.conflation.from } else { NOT_CONFLATED };
            state = postcard::to_extend(&ConflationRecord { from }, state).expect(encoded);
        }
        if has_checked {
            state = postcard::to_extend(&checked, state).expect(encoded);
        }
        if has_first {
            state = postcard::to_extend(&first_event, state).expect(encoded);
        }
        if has_settling {
            state = postcard::to_extend(&settling, state).expect(encoded);
        }
        if self.peering.has_lost_entry {
            state = postcard::to_extend(&true, state).expect(encoded);
        } else if has_used {
            state = postcard::to_extend(&self.keeping.used, state).expect(encoded);
        }
        if has_head {
            state = postcard::to_extend(&(head, time), state).expect(encoded);
        }
        Some(SessionRecord {
            id: self.id,
            name: self.name.clone(),
            cursor: self.cursor(),
            state: state.into(),
        })
    }

    fn settling_record(&self) -> SettlingRecord {
        let rejected = self.flights.iter().filter_map(|(position, flight)| match flight.word {
            Word::Reject(_) => {
                let error = flight.errors.as_ref().map(|(_, last)| last.clone());
                Some((*position, error.unwrap_or_default()))
            }
            Word::None | Word::Missed | Word::Retry | Word::Exhausted { .. } => None,
        });
        if self.application().is_none() {
            return SettlingRecord::default();
        }
        let acknowledged = self.known.range(self.next..).copied().collect();
        let letters = self.dead.letters.record();
        SettlingRecord { rejected: rejected.collect(), acknowledged, letters }
    }

    fn recover_settling(&mut self, record: SettlingRecord) {
        let SettlingRecord { rejected, acknowledged, letters } = record;
        self.known.extend(acknowledged);
        self.dead.letters = letters.map(Letters::recover).unwrap_or_default();
        for (position, error) in rejected {
            if let Some(flight) = self.flights.get_mut(&position) {
                // It gets its number when the node starts.
                flight.reject(&error, DeadLetterId::default());
            }
        }
    }

    fn open_records(&self) -> Vec<OpenRecord> {
        self.flights
            .iter()
            .map(|(position, flight)| OpenRecord {
                position: *position,
                handed: flight.handed,
                failed: flight.failed,
                first_at: flight.first_at,
            })
            .collect()
    }
}
