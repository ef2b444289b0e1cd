//! What the store found, on its way to whoever asked.

use alloc::vec::Vec;

use crate::log::newest::Newest;
use crate::store::{Answer, Latest, Query, StoreFailure};
use crate::types::ids::{FetchId, Hash128, LinkId, Position, SessionId, Ticket};
use crate::types::time::WallMs;

use super::Node;

/// Questions to the store for sessions that may be open at once.
pub(super) const MAX_FETCHES: usize = 16;

/// What a question to the store is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// The rows of a session behind the first position, up to the second only the newest.
    Walk(SessionId, (Position, Position)),
    /// Flights of a session to hand over again.
    Repeat(SessionId, Vec<Position>),
    /// What is the newest of the keys of parked messages.
    Lookup(LinkId, Vec<Hash128>),
    /// Reads at the front of the answers of an application's link.
    Read(LinkId),
    /// An operator's question or order.
    Operator(Ticket),
    /// The digests of this node, to compare them with those of peers.
    Compare,
    /// Flights of a session that are to be dead letters.
    Bury(SessionId, Vec<Position>),
    /// Events whose time may be over, known under this time.
    Expired(WallMs),
    /// What is to be stamped anew.
    Reset,
    /// Events that history has no room for; behind so many bytes that were looked at.
    Held(u64),
}

impl Node {
    pub(super) fn fetched(&mut self, fetch: FetchId, answer: Result<Answer, StoreFailure>) {
        let Some(purpose) = self.fetches.remove(&fetch) else { return };
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
        while self.session_fetches() < MAX_FETCHES
            && let Some((session, query)) = self.fetch_queue.pop_front()
        {
            self.fetch_now(session, query);
        }
        self.ask_waiting_reads();
    }

    /// Asks the store for rows of a session, now or when another question is answered.
    pub(super) fn fetch_for(&mut self, session: SessionId, query: Query) {
        if self.session_fetches() < MAX_FETCHES {
            self.fetch_now(session, query);
        } else if let Some(waiting) = self.sessions.get_mut(&session) {
            // Any number that is never given: the session waits.
            waiting.fetch = Some(FetchId::default());
            self.fetch_queue.push_back((session, query));
        }
    }

    pub(super) fn session_fetches(&self) -> usize {
        let of_sessions = |purpose: &&Purpose| match purpose {
            Purpose::Walk(..) | Purpose::Repeat(..) | Purpose::Bury(..) => true,
            Purpose::Lookup(..) | Purpose::Read(_) | Purpose::Operator(_) => false,
            Purpose::Compare | Purpose::Expired(_) | Purpose::Reset | Purpose::Held(_) => false,
        };
        self.fetches.values().filter(of_sessions).count()
    }

    fn fetch_now(&mut self, id: SessionId, query: Query) {
        let waits = |session: &crate::session::Session| session.link.is_some();
        if !self.sessions.get(&id).is_some_and(waits) {
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
        let fetch = self.fetch(purpose, query);
        if let Some(session) = self.sessions.get_mut(&id) {
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
                    self.newest.learn(key, Newest { version, source, sequence, position });
                }
                None => self.newest.learn_absent(key, self.id.source),
            }
        }
        let Some(mut link) = self.links.remove(&link) else { return };
        if let Some(peer) = link.peer_mut() {
            peer.lookup = None;
        }
        self.with_link(link, |node, link| node.take_parked(link));
    }
}
