//! Operators: questions about the node, and orders.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::admin::{
    AdminAnswer, AdminRefusal, AdminRequest, COVERED, LinkStatus, SELF, SessionFate, SessionStatus,
    Status, StoreStatus, Whereabouts,
};
use crate::io::{Output, Protocol};
use crate::log::dead_letter::Leaving;
use crate::log::receipts::RECEIPT_BYTES;
use crate::log::unclaimed::NODE;
use crate::mesh::dial::{DialState, Dialer};
use crate::session::link::{Link, State};
use crate::session::{Dirty, Role, Session, UNNAMED};
use crate::store::{Answer, DeadLetter, DeadReason, Query, Row, StoredRow};
use crate::types::ids::{DeadLetterId, FetchId, Position, Ticket};
use crate::types::tags;
use crate::wire::json::write::version_text;

use super::queries::{Finding, Order, Purpose, Search};
use super::{Node, Phase};

/// Dead letters of one message that are looked at, at most.
const MAX_DEAD_OF_ID: usize = 4096;

/// Fates that one answer tells, about: of so many sessions times messages.
const MAX_FATES: usize = 16 * 1024;

impl Node {
    pub(super) fn operate(&mut self, ticket: Ticket, request: AdminRequest) {
        if self.id.phase != Phase::Running && request != AdminRequest::Status {
            let answer = AdminAnswer::Refused(AdminRefusal::ShuttingDown);
            self.out.push(Output::Admin { ticket, answer });
            return;
        }
        let one = |id: DeadLetterId| Query::DeadLetters { after: id.before(), limit: 1 };
        match request {
            AdminRequest::Status => {
                let answer = AdminAnswer::Status(Box::new(self.status()));
                self.out.push(Output::Admin { ticket, answer });
            }
            AdminRequest::Where { id, after } => {
                let query = Query::Find { id: id.clone(), after };
                let finding = Finding { id, rows: Vec::new(), dead: Vec::new(), next: None };
                self.search(ticket, Search::Where(finding), query);
            }
            AdminRequest::DeadLetterList { after, limit } => {
                let query = Query::DeadLetterList { after, limit, id: None };
                self.search(ticket, Search::DeadLetterList, query);
            }
            AdminRequest::DeadLetters { after, limit } => {
                self.search(ticket, Search::DeadLetters, Query::DeadLetters { after, limit });
            }
            AdminRequest::ReplayDeadLetter(id) => {
                self.search(ticket, Search::Replay(id), one(id));
            }
            AdminRequest::PurgeDeadLetter(id) => self.search(ticket, Search::Purge(id), one(id)),
            AdminRequest::ForgetSession(name) => self.forget(ticket, &name),
            AdminRequest::ResetClock => self.reset_clock(ticket),
            AdminRequest::Digests(query) => {
                self.search(ticket, Search::Digests(query.clone()), Query::Digests(query));
            }
        }
    }

    pub(super) fn search(&mut self, ticket: Ticket, search: Search, query: Query) {
        let fetch = self.queries.ask(&mut self.out, Purpose::Operator(ticket), query);
        self.queries.searches.insert(fetch, search);
    }

    pub(super) fn operator_fetched(&mut self, fetch: FetchId, ticket: Ticket, answer: Answer) {
        let Some(search) = self.queries.searches.remove(&fetch) else { return };
        match (search, answer) {
            (Search::Where(finding), answer) => self.search_on(ticket, finding, answer),
            (Search::DeadLetterList, Answer::DeadLetterList { listed, next }) => {
                let listed = listed.into_iter();
                let named = listed.map(|listed| (self.name_of(listed.letter.session), listed));
                let answer = AdminAnswer::DeadLetterList(named.collect(), next);
                self.out.push(Output::Admin { ticket, answer });
            }
            (Search::DeadLetters, Answer::DeadLetters(letters)) => {
                let letters = letters.into_iter();
                let named = letters.map(|letter| (self.name_of(letter.session), letter));
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
        let is_over = self.lifetimes().is_over(row);
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
            session: self.name_of(letter.session),
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
        let kept = self.sessions.table.get_mut(&session).and_then(|it| it.letters.remove(id));
        let mut again = None;
        if replay && session == NODE {
            self.append_again(&letter.message);
        } else if replay {
            let at = self.append_only_for(session, letter.message);
            if let (Some(session), Some((was, kept))) =
                (self.sessions.table.get_mut(&session), &kept)
            {
                session.letters.replayed(*was, kept, at);
            }
            again = Some(at);
        } else if let (Some(session), Some((position, letter))) =
            (self.sessions.table.get_mut(&session), &kept)
        {
            session.letters.purge(*position, letter.clone());
        }
        self.touch(session, Dirty::Now);
        let (replay, stands) = (again, false);
        self.leave(Leaving { id, session, reason, bytes, kept, replay, stands });
        self.order(ticket, false);
    }

    /// Answers when the growing batch is durable.
    fn order(&mut self, ticket: Ticket, stands: bool) {
        self.log.commit_wanted = true;
        self.queries.orders.push(Order { batch: self.log.tail.growing_id(), ticket, stands });
    }

    fn forget(&mut self, ticket: Ticket, name: &str) {
        let candidates =
            [name.to_string(), alloc::format!("app:{name}"), alloc::format!("peer:{name}")];
        let id = candidates.iter().find_map(|name| self.sessions.by_name.get(name)).copied();
        let Some(session) = id.and_then(|id| self.sessions.table.get(&id)) else {
            let answer = AdminAnswer::NotFound;
            self.out.push(Output::Admin { ticket, answer });
            return;
        };
        if session.link.is_some() {
            let refusal = AdminRefusal::Connected(session.name.clone());
            let answer = AdminAnswer::Refused(refusal);
            self.out.push(Output::Admin { ticket, answer });
            return;
        }
        let id = session.id;
        self.end_session_by_id(id, "forgotten by the operator");
        self.order(ticket, true);
    }

    fn status(&mut self) -> Status {
        self.sessions.table.wake_all();
        let refusing = match (&self.time.fault, self.id.phase) {
            (_, Phase::ShuttingDown) => Some("shutting down".into()),
            (Some(fault), _) => Some(fault.to_string()),
            (None, _) => self.capacity.full_reason(self.load()),
        };
        let mut counters = self.out.metrics.counters();
        for link in self.links.by_id.values() {
            if let Some(peer) = link.peer() {
                let bytes = counters.peer_bytes.entry(peer.node.as_str().into()).or_default();
                bytes.0 += link.bytes.0;
                bytes.1 += link.bytes.1;
            }
        }
        Status {
            node: self.config.id.clone(),
            version: self.config.version,
            tags: self.config.tags.clone(),
            cluster_group: self.config.cluster_group.clone(),
            incarnation: self.id.incarnation.get(),
            uptime_ms: self.time.now.instant.since(self.time.started).as_millis() as u64,
            durability: self.config.store.durability,
            refusing,
            shutting_down: self.id.phase != Phase::Running,
            links: self.link_statuses(),
            sessions: self
                .sessions
                .table
                .values()
                .map(|session| self.session_status(session))
                .collect(),
            dead_letters: by_reason(&self.log.unclaimed.dead),
            topology: self.mesh.topology.statuses(),
            store: StoreStatus {
                store_id: self.id.store,
                head: self.log.tail.durable(),
                usage: self.capacity.usage,
                max_bytes: self.config.store.max_bytes,
                seen_bytes: self.log.seen.bytes(),
                idempotency_ids: self.log.receipts.len(),
                idempotency_bytes: self.log.receipts.len() * RECEIPT_BYTES,
            },
            counters,
        }
    }

    fn link_statuses(&self) -> Vec<LinkStatus> {
        let mut statuses: Vec<LinkStatus> =
            self.links.by_id.values().map(|link| self.link_status(link)).collect();
        for dialer in self.mesh.dialers.by_index.values() {
            let state = match dialer.state {
                DialState::Linked(_) => continue,
                // Until something else answers there, also while it is dialled after a reload.
                DialState::Waiting(_) | DialState::Dialing(_) | DialState::Stopped
                    if dialer.is_self =>
                {
                    SELF
                }
                DialState::Waiting(_) => "waiting",
                DialState::Dialing(_) => "dialing",
                DialState::Stopped => "stopped",
                DialState::Covered(_) => COVERED,
            };
            statuses.push(LinkStatus {
                link: None,
                role: "peer",
                name: self.node_behind(dialer),
                remote: dialer.url.clone(),
                state,
                dialed: true,
                protocol: "postcard",
                rtt_ms: None,
                clock_offset_ms: None,
                received_bytes: 0,
                sent_bytes: 0,
                up_ms: None,
                last_error: dialer.last_error.clone(),
                durability: None,
            });
        }
        statuses
    }

    /// The node that answered a dialler last.
    fn node_behind(&self, dialer: &Dialer) -> Option<String> {
        let node = if dialer.is_self { Some(&self.config.id) } else { dialer.node.as_ref() };
        node.map(|node| node.as_str().into())
    }

    fn link_status(&self, link: &Link) -> LinkStatus {
        let dialer = link.dialer.and_then(|index| self.mesh.dialers.by_index.get(&index));
        let (role, state) = match &link.state {
            State::Handshake | State::Candidate { .. } => match dialer {
                Some(dialer) if dialer.is_self => ("peer", SELF),
                Some(_) | None => ("peer", "handshake"),
            },
            State::Peer(_) => ("peer", "up"),
            State::Application(_) => ("app", "up"),
        };
        let peer = link.peer();
        let client = link.application().and_then(|application| application.client.clone());
        LinkStatus {
            link: Some(link.id.get()),
            role,
            name: peer
                .map(|peer| peer.node.as_str().into())
                .or(client)
                .or_else(|| dialer.and_then(|dialer| self.node_behind(dialer))),
            remote: link.remote.clone(),
            state,
            dialed: link.dialer.is_some(),
            protocol: match link.protocol {
                Protocol::Json => "json",
                Protocol::Postcard => "postcard",
            },
            rtt_ms: link.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            clock_offset_ms: peer.map(|peer| peer.clock_offset_ms(self.time.now)),
            received_bytes: link.bytes.0,
            sent_bytes: link.bytes.1,
            up_ms: Some(self.time.now.instant.since(link.opened).as_millis() as u64),
            last_error: None,
            durability: peer.map(|peer| peer.durability),
        }
    }

    /// Whether the configuration has, or had, an entry for a peer.
    fn configuration_of(&self, session: &Session) -> Option<&'static str> {
        let peer = session.peer()?;
        if self.is_configured(&peer.node) {
            return Some("configured");
        }
        session.has_lost_entry.then_some("no longer configured")
    }

    fn session_status(&self, session: &Session) -> SessionStatus {
        let head = self.log.tail.durable().get();
        let oldest = session.flights.values().map(|flight| flight.first_at).min();
        let (lag_ms, digests) = self.convergence_of(session);
        let (behind, behind_bytes) = if session.receives() {
            let behind = head.saturating_sub(session.next.before().get());
            (behind, self.log.backlog.from(session.next))
        } else {
            (0, 0)
        };
        SessionStatus {
            id: if session.id.get() < UNNAMED { session.id.get() } else { 0 },
            name: session.name.clone(),
            role: if session.peer().is_some() { "peer" } else { "app" },
            connected: session.link.is_some(),
            configuration: self.configuration_of(session),
            tags: session.application().and_then(|application| application.tags.clone()),
            cursor: session.cursor().get().min(head),
            in_flight: session.flights.len(),
            // What was conflated is gone: there is no more than the store holds.
            behind: behind.min(self.capacity.usage.rows),
            behind_bytes: behind_bytes.min(self.capacity.usage.used_bytes),
            oldest_ms: oldest.map_or(0, |at| self.time.now.wall.0.saturating_sub(at.0)),
            delivered_total: session.delivered,
            retransmits_total: session.retransmits,
            conflated_total: session.conflation.total,
            conflating: session.is_conflating(),
            dead_letters: by_reason(&session.dead),
            away_ms: session.away_since.map_or(0, |at| self.time.now.wall.0.saturating_sub(at.0)),
            lag_ms,
            digests,
        }
    }
}

/// How many dead letters there are for each reason.
fn by_reason(dead: &BTreeMap<DeadReason, (u64, u64)>) -> BTreeMap<&'static str, u64> {
    dead.iter().map(|(reason, (count, _))| (reason.as_str(), *count)).collect()
}

fn is_same(row: &Row, letter: &DeadLetter) -> bool {
    let (a, b) = (&row.message, &letter.message);
    a.origin() == b.origin() && a.incarnation() == b.incarnation() && a.sequence() == b.sequence()
}
