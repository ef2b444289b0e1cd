//! Records of sessions: when they are written.

use crate::log::unclaimed::NODE;
use crate::mesh::unmet::Unmet;
use crate::session::Dirty;
use crate::types::ids::SessionId;
use crate::types::timers::Timer;

use super::CURSOR_DELAY;
use super::handlers::Records;
impl Records<'_> {
    /// Notes that the record of a session must be written, and arranges for it.
    pub(super) fn touch(&mut self, id: SessionId, dirty: Dirty) {
        if id == NODE {
            self.log.unclaimed.touch();
            self.log.commit_wanted = true;
        }
        let Some(session) = self.sessions.table.get_mut(&id) else { return };
        session.touch(dirty);
        self.arrange_write(id);
    }

    pub(super) fn arrange_write(&mut self, id: SessionId) {
        match self.sessions.table.get(&id).map(|session| session.keeping.dirty) {
            Some(Dirty::Now) => {
                self.sessions.dirty_now.insert(id);
                self.log.commit_wanted = true;
            }
            Some(Dirty::Soon) => {
                self.sessions.dirty_soon.insert(id);
                self.time.timers.set_earlier(Timer::Cursors, self.time.now.instant + CURSOR_DELAY);
            }
            Some(Dirty::Clean) | None => {}
        }
    }

    /// Counts every absence from now on: the clock by which it was dated may have been wrong. All
    /// records are written: once the node is killed, those of sessions with a link count as well.
    pub(super) fn reset_away_timers(&mut self, unmet: &mut Unmet) {
        let wall = self.time.clock.estimate();
        unmet.begin_anew(wall);
        for session in self.sessions.table.values_mut().filter(|session| session.is_durable()) {
            session.keeping.away_since = session.keeping.away_since.map(|_| wall);
            session.touch(Dirty::Now);
            self.sessions.dirty_now.insert(session.id);
            self.log.commit_wanted = true;
        }
    }
}
