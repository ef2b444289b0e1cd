//! What the store found, on its way to whoever asked.

use alloc::vec::Vec;

use crate::log::newest::Newest;
use crate::store::{Answer, Latest, Query, StoreFailure};
use crate::types::ids::{FetchId, Hash128, LinkId, SessionId};

use super::Node;
use super::queries::Purpose;

impl Node {
    pub(super) fn fetched(&mut self, fetch: FetchId, answer: Result<Answer, StoreFailure>) {
        let Some(purpose) = self.queries.open.remove(&fetch) else { return };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return self.halt(failure),
        };
        match (purpose, answer) {
            (Purpose::Walk(session, asked), Answer::Rows { rows, upto, superseded }) => {
                self.rows_fetched(session, fetch, asked, (rows, superseded), upto);
            }
            (Purpose::Repeat(session, asked), Answer::RowsAt(rows)) => {
                self.repeats_fetched(session, fetch, &asked, rows);
            }
            (Purpose::Lookup(link, keys), Answer::Latest(found)) => {
                self.looked_up(link, keys, found);
            }
            (Purpose::Read(link), Answer::Values(found)) => {
                self.values_fetched(link, fetch, found);
            }
            (Purpose::Bury(session, asked), Answer::RowsAt(rows)) => {
                self.burial_fetched(session, &asked, rows);
            }
            (Purpose::Operator(ticket), answer) => self.operator_fetched(fetch, ticket, answer),
            (Purpose::Compare, Answer::Digests(digests)) => self.own_digests(digests),
            (Purpose::Expired(at), Answer::Rows { rows, upto, .. }) => {
                self.expired_fetched(at, rows, upto);
            }
            (Purpose::Reset, Answer::Rows { rows, upto, .. }) => self.reset_fetched(&rows, upto),
            (Purpose::Held(before), Answer::Rows { rows, upto, .. }) => {
                self.held_fetched(before, rows, upto);
            }
            (purpose, answer) => {
                debug_assert!(false, "{purpose:?} was answered with {answer:?}");
            }
        }
        while self.queries.may_ask_for_session()
            && let Some((session, query)) = self.queries.waiting_sessions.pop_front()
        {
            self.fetch_now(session, query);
        }
        self.ask_waiting_reads();
    }

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
        let fetch = self.queries.ask(&mut self.out, purpose, query);
        if let Some(session) = self.sessions.table.get_mut(&id) {
            session.fetch = Some(fetch);
        }
    }

    /// The newest of the keys of parked messages: remembered, and the messages are taken.
    fn looked_up(&mut self, link: LinkId, keys: Vec<Hash128>, found: Vec<Option<Latest>>) {
        for (key, latest) in keys.into_iter().zip(found) {
            match latest {
                Some(Latest { position, message }) => {
                    let source = self.source_of(&message);
                    let (version, sequence) = (message.version(), message.sequence());
                    self.log.newest.learn(key, Newest { version, source, sequence, position });
                }
                None => self.log.newest.learn_absent(key, self.id.source),
            }
        }
        let Some(mut link) = self.links.by_id.remove(&link) else { return };
        if let Some(peer) = link.peer_mut() {
            peer.lookup = None;
        }
        self.with_link(link, |node, link| node.take_parked(link));
    }
}
