//! Events that history has no room for before this node has handed them on to anybody.
//!
//! What stays true: while dead letters may be written, such an event leaves the log with the batch
//! that holds its dead letter, or behind it. As many bytes are looked at as are to go, the oldest
//! first. A letter takes the room of its row; so where the store is short of room none is written,
//! and none above the bound of the node's dead letters: then such an event goes as other history
//! does, counted (P8).

use alloc::vec::Vec;

use crate::config::Config;
use crate::log::Log;
use crate::log::unclaimed::NODE;
use crate::session::Flight;
use crate::store::{DeadReason, Row, StoredRow};
use crate::types::ids::Position;
use crate::types::time::Instant;

use super::burial::DeadLetterDraft;
use super::expiring::EventFate;
use super::handlers::{Burial, Expiry, Forgetting, Looks, Retention, lend};
use super::identity::Phase;
use super::queries::Purpose;

/// Bytes of dead letters with which a batch goes before more is looked at.
const LETTERS_BYTES: usize = 4 << 20;

/// Events from here on stay although history has no room for them: the first one that nobody was
/// handed, as far as is known.
pub(super) fn held_from(config: &Config, log: &Log, now: Instant) -> Option<Position> {
    log.unclaimed.first().filter(|_| may_bury_history(config, log, now))
}

/// Whether what history has no room for may become dead letters.
fn may_bury_history(config: &Config, log: &Log, now: Instant) -> bool {
    let most = config.store.session_max_bytes.min(config.store.max_bytes / 4);
    !log.capacity.gives_way(log.load(now)) && log.unclaimed.dead_bytes() <= most
}

impl Expiry<'_> {
    /// Looks at the oldest events above the bound of the history, if they are held.
    pub(super) fn look_for_held(&mut self) {
        let is_known = self.log.tail.committed_id() >= self.log.unclaimed.forgotten_with;
        let is_wanted = is_known
            && self.log.capacity.usage.held_bytes > 0
            && may_bury_history(self.config, self.log, self.time.now.instant);
        if self.id.phase == Phase::Running && is_wanted && !self.log.unclaimed.is_looking {
            lend!(self, Looks).look_further(0);
        }
    }
}

impl Looks<'_> {
    /// Asks the store for those behind which so many bytes of them were looked at.
    pub(super) fn look_further(&mut self, looked: u64) {
        lend!(self, Burial).note_all_delivered();
        let upto = self.log.floor;
        let Some(first) = self.log.unclaimed.first().filter(|first| *first <= upto) else {
            // What was in the way has been handed on meanwhile.
            self.log.commit_wanted |=
                self.log.capacity.has_history_to_spare(self.log.load(self.time.now.instant));
            return;
        };
        self.look_at(Purpose::Held(looked), first, upto);
    }

    /// What becomes of an event, if the row is one.
    pub(super) fn fate_of_held(&mut self, row: &Row) -> Option<EventFate> {
        if row.key_hash.is_some() {
            return None;
        }
        let is_event = row.only.is_none() && row.message.expires().is_some();
        let is_known = is_event && self.log.unclaimed.contains(row.position);
        Some(if is_known { self.fate(row) } else { EventFate::Settled })
    }
}

impl Forgetting<'_> {
    /// The store has found events that it holds: as many bytes of them as are to go are judged.
    pub(super) fn held_fetched(&mut self, looked: u64, rows: Vec<StoredRow>, upto: Position) {
        self.log.unclaimed.is_looking = false;
        lend!(self, Burial).note_all_delivered();
        // Somebody may need again what nobody needed when it was asked for.
        let upto = upto.min(lend!(self, Retention).floors().0);
        let (mut deaths, mut judged, mut looked) = (Vec::new(), upto, looked);
        for StoredRow { row, .. } in rows {
            let is_enough = row.position > upto || looked >= self.log.capacity.usage.held_bytes;
            let fate = if is_enough {
                Some(EventFate::UnderWay)
            } else {
                lend!(self, Looks).fate_of_held(&row)
            };
            match fate {
                Some(EventFate::UnderWay) => {
                    judged = upto.min(row.position.before());
                    break;
                }
                Some(EventFate::Dead) => {
                    if let Some(copy) = row.copy {
                        self.log.group_copies.end(&copy, row.position);
                    }
                    looked += row.size() as u64;
                    let flight = Flight::new(row.message.version().wall());
                    let (message, reason) = (row.message, DeadReason::Forgotten);
                    deaths.push(DeadLetterDraft {
                        position: row.position,
                        message,
                        reason,
                        flight,
                    });
                }
                Some(EventFate::Settled) => looked += row.size() as u64,
                None => {}
            }
        }
        let before = self.log.unclaimed.first();
        self.log.unclaimed.settle_upto(judged);
        lend!(self, Burial).dead_letter(NODE, deaths);
        if self.log.unclaimed.first() == before {
            return;
        }
        self.log.commit_wanted = true;
        self.log.unclaimed.forgotten_with = self.log.tail.growing_id();
        let letters = self.log.tail.growing.dead_letters.iter();
        let letters: usize = letters.map(|letter| letter.message.encoded().len()).sum();
        if judged == upto && looked < self.log.capacity.usage.held_bytes && letters < LETTERS_BYTES
        {
            lend!(self, Looks).look_further(looked);
        }
    }
}
