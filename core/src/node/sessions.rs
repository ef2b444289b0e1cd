//! The sessions of a node, with what is to be done for which of them.
//!
//! What stays true: a number is given to one session for ever, and whoever is in a set of work is
//! looked at with the next outputs or the next batch.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};

use crate::admin::{AdminAnswer, AdminRefusal};
use crate::log::unclaimed::{NODE, NODE_NAME};
use crate::session::UNNAMED;
use crate::session::interests::Interests;
use crate::store::Recovered;
use crate::types::ids::{DeadLetterId, Position, SessionId};

use super::session_table::SessionTable;

/// All sessions, by number and name, and work that waits for them.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) table: SessionTable,
    pub(super) by_name: BTreeMap<String, SessionId>,
    pub(super) last_id: SessionId,
    pub(super) last_unnamed: SessionId,
    pub(super) last_dead_letter: DeadLetterId,
    /// Dead letters that are being replayed or purged.
    pub(super) dead_letters_in_flight: BTreeMap<DeadLetterId, Option<(SessionId, Position)>>,
    /// To hand over to.
    pub(super) ready: BTreeSet<SessionId>,
    /// Which connected applications new rows may be for.
    pub(super) interests: Interests,
    /// With flights that are to be dead letters.
    pub(super) to_bury: BTreeSet<SessionId>,
    /// Whose records are to be written with the next batch.
    pub(super) dirty_now: BTreeSet<SessionId>,
    /// Whose records are to be written with some batch soon.
    pub(super) dirty_soon: BTreeSet<SessionId>,
}

impl Sessions {
    /// No sessions yet, with the numbers that the store has seen.
    pub(super) fn recover(recovered: &Recovered) -> Self {
        Self {
            table: SessionTable::new(recovered.head),
            by_name: BTreeMap::new(),
            last_id: recovered.last_session,
            last_unnamed: SessionId::new(UNNAMED),
            last_dead_letter: recovered.last_dead_letter,
            dead_letters_in_flight: BTreeMap::new(),
            ready: BTreeSet::new(),
            interests: Interests::default(),
            to_bury: BTreeSet::new(),
            dirty_now: BTreeSet::new(),
            dirty_soon: BTreeSet::new(),
        }
    }

    /// Dead letters have left the store with a batch.
    pub(super) fn end_purges(&mut self, letters: &[DeadLetterId]) {
        for letter in letters {
            if let Some((session, position)) = self.dead_letters_in_flight.remove(letter).flatten()
                && let Some(session) = self.table.get_mut(&session)
            {
                session.dead.letters.end_purge(position);
            }
        }
    }

    /// The session that an operator names, if it may be ended; or else what to answer.
    pub(super) fn to_forget(&self, name: &str) -> Result<SessionId, AdminAnswer> {
        let candidates = [name.to_string(), format!("app:{name}"), format!("peer:{name}")];
        let id = candidates.iter().find_map(|name| self.by_name.get(name)).copied();
        let Some(session) = id.and_then(|id| self.table.get(&id)) else {
            return Err(AdminAnswer::NotFound);
        };
        if session.link.is_some() {
            return Err(AdminAnswer::Refused(AdminRefusal::Connected(session.name.clone())));
        }
        Ok(session.id)
    }

    /// The name of a session; that of the node, where dead letters are its own.
    pub(super) fn name_of(&self, owner: SessionId) -> String {
        if owner == NODE {
            return NODE_NAME.into();
        }
        self.table.get(&owner).map(|session| session.name.clone()).unwrap_or_default()
    }
}
