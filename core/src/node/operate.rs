//! Operators: questions about the node, and orders.

use alloc::string::String;
use alloc::vec::Vec;

use crate::admin::{AdminAnswer, AdminRequest, SessionFate, Whereabouts};
use crate::io::Output;
use crate::log::dead_letter::Leaving;
use crate::log::unclaimed::NODE;
use crate::session::{Dirty, Role, Session};
use crate::store::{Answer, DeadLetter, Query, Row, StoredRow};
use crate::types::ids::{DeadLetterId, FetchId, Position, Ticket};
use crate::types::tags;
use crate::wire::json::write::version_text;

use super::handlers::{Burial, Ingest, Operator, Records, lend};
use super::queries::{Finding, Order, Purpose, Search};

/// Dead letters of one message that are looked at, at most.
const MAX_DEAD_OF_ID: usize = 4096;

/// Fates that one answer tells, about: of so many sessions times messages.
const MAX_FATES: usize = 16 * 1024;

impl Operator<'_> {
    pub(super) fn search(&mut self, ticket: Ticket, search: Search, query: Query) {
        let fetch = self.queries.ask(self.out, Purpose::Operator(ticket), query);
        self.queries.searches.insert(fetch, search);
    }

    pub(super) fn operator_fetched(&mut self, fetch: FetchId, ticket: Ticket, answer: Answer) {
        let Some(search) = self.queries.searches.remove(&fetch) else { return };
        match (search, answer) {
            (Search::Where(finding), answer) => self.search_on(ticket, finding, answer),
            (Search::DeadLetterList, Answer::DeadLetterList { listed, next }) => {
                let listed = listed.into_iter();
                let named =
                    listed.map(|listed| (self.sessions.name_of(listed.letter.session), listed));
                let answer = AdminAnswer::DeadLetterList(named.collect(), next);
                self.out.push(Output::Admin { ticket, answer });
            }
            (Search::DeadLetters, Answer::DeadLetters(letters)) => {
                let letters = letters.into_iter();
                let named = letters.map(|letter| (self.sessions.name_of(letter.session), letter));
                let answer = AdminAnswer::DeadLetters(named.collect());
                self.out.push(Output::Admin { ticket, answer });
            }
            (Search::Replay(id), Answer::DeadLetters(letters)) => {
                self.end_dead_letter(ticket, id, letters, true);
            }
            (Search::Purge(id), Answer::DeadLetters(letters)) => {
                self.end_dead_letter(ticket, id, letters, false);
            }
            (Search::Digests(query), Answer::Digests(digests)) => {
                self.digests_found(ticket, query, digests);
            }
            (search, answer) => debug_assert!(false, "{search:?} was answered with {answer:?}"),
        }
    }

    /// Goes on looking for a message: the log in stretches, then the dead letters.
    fn search_on(&mut self, ticket: Ticket, mut finding: Finding, answer: Answer) {
        let id = || finding.id.clone();
        let letters =
            |after| Query::DeadLetterList { after, limit: MAX_DEAD_OF_ID, id: Some(id()) };
        let max = (MAX_FATES / (self.sessions.table.len() + 1)).max(1);
        let query = match answer {
            Answer::Find { rows, next } => {
                let query = match next {
                    Some(after) if finding.rows.len() + rows.len() <= max => {
                        Query::Find { id: id(), after }
                    }
                    Some(_) | None => letters(DeadLetterId::default()),
                };
                finding.next = next;
                finding.rows.extend(rows);
                if finding.rows.len() > max {
                    finding.rows.truncate(max);
                    finding.next = finding.rows.last().map(|stored| stored.row.position);
                }
                Some(query)
            }
            Answer::DeadLetterList { listed, next } => {
                let query = next.filter(|_| finding.dead.len() < MAX_DEAD_OF_ID).map(letters);
                finding.dead.extend(listed.into_iter().map(|listed| listed.letter));
                query
            }
            Answer::Rows { .. } | Answer::RowsAt(_) | Answer::Latest(_) => None,
            Answer::Values(_) | Answer::Digests(_) | Answer::DeadLetters(_) => None,
        };
        if let Some(query) = query {
            self.search(ticket, Search::Where(finding), query);
            return;
        }
        let Finding { rows, dead, next, .. } = finding;
        self.sessions.table.wake_all();
        let found = rows.iter().map(|stored| self.whereabouts(stored, &dead)).collect();
        let mut found: Vec<Whereabouts> = found;
        if next.is_none() {
            let of_row =
                |letter: &DeadLetter| rows.iter().any(|stored| is_same(&stored.row, letter));
            let only_dead = dead.iter().filter(|letter| !of_row(letter));
            found.extend(only_dead.map(|letter| self.only_dead(letter)));
        }
        let answer = AdminAnswer::Where { found, next };
        self.out.push(Output::Admin { ticket, answer });
    }

    fn whereabouts(&self, stored: &StoredRow, dead: &[DeadLetter]) -> Whereabouts {
        let StoredRow { row, superseded } = stored;
        let fates = self.sessions.table.values().map(|session| {
            let died =
                dead.iter().any(|letter| letter.session == session.id && is_same(row, letter));
            let flight = session.flights.get(&row.position);
            let fate = if died {
                "dead_letter"
            } else if flight.is_some() {
                "in_flight"
            } else if !session.is_owed(row, &self.config.tags) {
                self.why_not_owed(session, row)
            } else if row.position >= session.next && !session.known.contains(&row.position) {
                "pending"
            } else {
                "settled"
            };
            let attempts = flight.map(|flight| flight.handed);
            SessionFate { session: session.name.clone(), id: session.id, fate, attempts }
        });
        let own = dead.iter().find(|letter| letter.session == NODE && is_same(row, letter));
        let own = own.map(|letter| self.dead_fate(letter));
        let sessions = fates.chain(own).collect();
        let found = self.described(&row.message, row.position, sessions);
        let is_over = self.time.moment().is_over(row);
        Whereabouts { superseded: *superseded, expired: is_over, ..found }
    }

    fn why_not_owed(&self, session: &Session, row: &Row) -> &'static str {
        match &session.role {
            Role::Peer(_) => "on_its_path",
            Role::Application(_) if row.publisher == Some(session.id) => "own",
            Role::Application(_) => "not_for_it",
        }
    }

    fn only_dead(&self, letter: &DeadLetter) -> Whereabouts {
        let fates = Vec::from([self.dead_fate(letter)]);
        let found = self.described(&letter.message, Position::default(), fates);
        Whereabouts { expired: letter.message.is_expired(self.time.now.wall), ..found }
    }

    fn dead_fate(&self, letter: &DeadLetter) -> SessionFate {
        SessionFate {
            session: self.sessions.name_of(letter.session),
            id: letter.session,
            fate: "dead_letter",
            attempts: Some(letter.attempts),
        }
    }

    fn described(
        &self,
        message: &crate::wire::message::Message,
        position: Position,
        sessions: Vec<SessionFate>,
    ) -> Whereabouts {
        Whereabouts {
            message_id: message.id().into(),
            kind: message.kind().as_str(),
            key: message.key().into(),
            origin_instance_id: message.origin().into(),
            message_path: tags::list(message.path()).map(String::from).collect(),
            targeted_tags: tags::list(message.tags()).map(String::from).collect(),
            version: version_text(message.version(), message.origin()),
            position,
            superseded: false,
            expired: false,
            sessions,
        }
    }

    fn end_dead_letter(
        &mut self,
        ticket: Ticket,
        id: DeadLetterId,
        letters: Vec<DeadLetter>,
        replay: bool,
    ) {
        let letter = letters.into_iter().next().filter(|letter| letter.id == id);
        let gone = self.sessions.dead_letters_in_flight.contains_key(&id);
        let Some(letter) = letter.filter(|_| !gone) else {
            let answer = AdminAnswer::NotFound;
            self.out.push(Output::Admin { ticket, answer });
            return;
        };
        let bytes = (letter.message.encoded().len() + 64) as u64;
        let (session, reason) = (letter.session, letter.reason);
        let kept = self.sessions.table.get_mut(&session).and_then(|it| it.dead.letters.remove(id));
        let mut again = None;
        if replay && session == NODE {
            lend!(self, Ingest).append_again(&letter.message);
        } else if replay {
            let at = lend!(self, Ingest).append_only_for(session, letter.message);
            if let (Some(session), Some((was, kept))) =
                (self.sessions.table.get_mut(&session), &kept)
            {
                session.dead.letters.replayed(*was, kept, at);
            }
            again = Some(at);
        } else if let (Some(session), Some((position, letter))) =
            (self.sessions.table.get_mut(&session), &kept)
        {
            session.dead.letters.purge(*position, letter.clone());
        }
        lend!(self, Records).touch(session, Dirty::Now);
        let (replay, stands) = (again, false);
        lend!(self, Burial).leave(Leaving { id, session, reason, bytes, kept, replay, stands });
        self.order(ticket, false);
    }

    /// Answers when the growing batch is durable.
    pub(super) fn order(&mut self, ticket: Ticket, stands: bool) {
        self.log.commit_wanted = true;
        self.queries.orders.push(Order { batch: self.log.tail.growing_id(), ticket, stands });
    }

    /// Asks the store for what an operator wants to know, or to have done.
    pub(super) fn search_for(&mut self, ticket: Ticket, request: AdminRequest) {
        let one = |id: DeadLetterId| Query::DeadLetters { after: id.before(), limit: 1 };
        let (search, query) = match request {
            AdminRequest::Where { id, after } => {
                let query = Query::Find { id: id.clone(), after };
                let finding = Finding { id, rows: Vec::new(), dead: Vec::new(), next: None };
                (Search::Where(finding), query)
            }
            AdminRequest::DeadLetterList { after, limit } => {
                (Search::DeadLetterList, Query::DeadLetterList { after, limit, id: None })
            }
            AdminRequest::DeadLetters { after, limit } => {
                (Search::DeadLetters, Query::DeadLetters { after, limit })
            }
            AdminRequest::ReplayDeadLetter(id) => (Search::Replay(id), one(id)),
            AdminRequest::PurgeDeadLetter(id) => (Search::Purge(id), one(id)),
            AdminRequest::Digests(query) => (Search::Digests(query.clone()), Query::Digests(query)),
            AdminRequest::Status | AdminRequest::ForgetSession(_) | AdminRequest::ResetClock => {
                return;
            }
        };
        self.search(ticket, search, query);
    }
}

fn is_same(row: &Row, letter: &DeadLetter) -> bool {
    let (a, b) = (&row.message, &letter.message);
    a.origin() == b.origin() && a.incarnation() == b.incarnation() && a.sequence() == b.sequence()
}
