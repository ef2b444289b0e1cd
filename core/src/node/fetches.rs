//! Questions to the store for rows of sessions: asked now, or when another one is answered.

use crate::store::Query;
use crate::types::ids::{FetchId, SessionId};

use super::handlers::Fetches;
use super::queries::Purpose;

impl Fetches<'_> {
    /// Asks the store for rows of a session, now or when another question is answered.
    pub(super) fn fetch_for(&mut self, session: SessionId, query: Query) {
        if self.queries.may_ask_for_session() {
            self.fetch_now(session, query);
        } else if let Some(waiting) = self.sessions.table.get_mut(&session) {
            // Any number that is never given: the session waits.
            waiting.fetch = Some(FetchId::default());
            self.queries.waiting_sessions.push_back((session, query));
        }
    }

    fn fetch_now(&mut self, id: SessionId, query: Query) {
        let waits = |session: &crate::session::Session| session.link.is_some();
        if !self.sessions.table.get(&id).is_some_and(waits) {
            return;
        }
        let purpose = match &query {
            Query::RowsAt { positions, .. } => Purpose::Repeat(id, positions.clone()),
            Query::Rows { after, newest_upto, .. } => Purpose::Walk(id, (*after, *newest_upto)),
            Query::Latest(_)
            | Query::Values { .. }
            | Query::Find { .. }
            | Query::DeadLetters { .. }
            | Query::DeadLetterList { .. }
            | Query::Digests(_) => return,
        };
        let fetch = self.queries.ask(self.out, purpose, query);
        if let Some(session) = self.sessions.table.get_mut(&id) {
            session.fetch = Some(fetch);
        }
    }

    /// Lets sessions ask that wait for a free question.
    pub(super) fn fetch_waiting(&mut self) {
        while self.queries.may_ask_for_session()
            && let Some((session, query)) = self.queries.waiting_sessions.pop_front()
        {
            self.fetch_now(session, query);
        }
    }
}
