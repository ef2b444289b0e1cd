//! The node: the one place that sees links, sessions, log and clock at the same time.
//!
//! [`Node::handle`] takes an input and changes the parts; [`Node::poll_output`] first gives what
//! is ready and then gathers: it seals a batch if none is in flight, hands over to the sessions
//! that can take more, and releases what waited for a commit. So any number of inputs between two
//! drains become one batch and few frames.
//!
//! Its parts own what they know: `identity`, `time`, `sessions`, `links`, `mesh`, `queries` and
//! `outbox` here, [`Log`] in its layer. What a part can tell from its own data it tells by itself,
//! and is tested alone.
//!
//! What has to do with several parts is done by handlers, which borrow those that they may touch:
//! `handlers` lists them, and the other files are theirs. [`Node`] itself only says who handles
//! what, in which order.

mod accept;
mod application;
mod burial;
mod clock_reset;
mod commit;
mod comparing;
mod connect;
mod dialing;
mod ending;
mod expiring;
mod fetches;
mod forgetting;
mod gossip;
mod handlers;
mod handover;
mod identity;
mod links;
mod mesh;
mod offering;
mod operate;
mod outbox;
mod peer;
mod queries;
mod read;
mod records;
mod recovery;
mod repeat;
mod resetting;
mod rivals;
mod room;
mod serve;
mod session_table;
mod sessions;
mod settle;
mod starts;
mod status;
mod time;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::admin::event::Event;
use crate::admin::{AdminAnswer, AdminRefusal, AdminRequest};
use crate::config::{Config, Durability};
use crate::io::{Close, Frame, Input, Output, Protocol};
use crate::log::Log;
use crate::session::link::LinkState;
use crate::store::{Answer, CommitFailed, Committed, Latest, Query, Recovered, StoreFailure};
use crate::types::clock::Clock;
use crate::types::ids::{FetchId, Hash128, Incarnation, LinkId, SessionId, Ticket};
use crate::types::tags::TagSet;
use crate::types::time::{Instant, Now};
use crate::types::timers::Timer;
use crate::wire::Wire;

use self::connect::{NO_PLACE, pinged_at, protocol};
use self::handlers::*;
use self::handover::WalkStop;
use self::identity::{NodeIdentity, Phase};
use self::links::Links;
use self::mesh::Mesh;
use self::outbox::Outbox;
use self::queries::{Purpose, Queries};
use self::sessions::Sessions;
use self::time::Time;

/// How long a cursor that moved may wait for a batch.
const CURSOR_DELAY: Duration = Duration::from_millis(250);
/// How often the node looks after itself.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How soon the store is asked again to make room.
const MAKE_ROOM_INTERVAL: Duration = Duration::from_millis(50);

/// One node of the mesh, as a state machine. See the [crate's documentation](crate) for the loop
/// that drives it.
#[derive(Debug)]
pub struct Node {
    config: Config,
    id: NodeIdentity,
    time: Time,
    log: Log,
    sessions: Sessions,
    links: Links,
    mesh: Mesh,
    queries: Queries,
    out: Outbox,
}

impl Node {
    /// A node that goes on where its store says. `seed` is the source of all randomness in it
    /// and must differ from start to start.
    pub fn new(config: Config, recovered: Recovered, seed: u64, now: Now) -> Self {
        let clock = Clock::new(recovered.clock, config.limits.max_clock_drift, now);
        let mut time = Time::new(clock, seed, now);
        // Never one that this store has seen. Where store and clock were set back together it may
        // be lower than that of a life that was lost, and no promise goes by its order: numbers
        // tell messages apart (P3), versions say which is newer (P6), and a peer that was told
        // more by a start that this store does not know offers everything again (P2). What looks
        // older costs a false alarm of two processes, and one revision of the record.
        let fresh = Incarnation::new((now.wall.0 << 16) | (time.random.next() & 0xffff));
        let incarnation = fresh.max(recovered.incarnation.next());
        let mut log = Log::recover(&recovered, &config, now);
        let source = log.seen.source(&config.id, incarnation);
        let mut node = Self {
            id: NodeIdentity::new(recovered.store_id, incarnation, source, now.wall),
            time,
            log,
            sessions: Sessions::recover(&recovered),
            links: Links::default(),
            mesh: Mesh::new(&config, recovered.store_id, incarnation, now.instant),
            queries: Queries::default(),
            out: Outbox::default(),
            config,
        };
        lend!(node, Recovery).recover_sessions(&recovered, now);
        node.begin();
        node
    }

    fn begin(&mut self) {
        self.out.event(Event::Started {
            node: self.config.id.clone(),
            incarnation: self.id.incarnation,
            store: self.id.store,
            head: self.log.tail.durable(),
        });
        if self.config.store.durability == Durability::Normal {
            self.out.event(Event::NotSynced);
        }
        self.on_upkeep_timer();
        let mut dialing = lend!(self, Dialing);
        dialing.wait_for_peers();
        for url in dialing.config.peers.clone() {
            dialing.add_dialer(url);
        }
    }

    /// Takes one input. Infallible; any number of calls between drains. `now` must not go back.
    pub fn handle(&mut self, input: Input, now: Now) {
        if matches!(self.id.phase, Phase::Halted | Phase::Stopped) {
            return;
        }
        self.time.observe(now);
        match input {
            Input::LinkUp(up) => lend!(self, Connections).link_up(up),
            Input::LinkDown { link, code, reason } => {
                lend!(self, Connections).link_down(link, code, &reason);
            }
            Input::DialFailed { dial, reason } => lend!(self, Dialing).dial_failed(dial, &reason),
            Input::Received { link, frame } => self.on_frame(link, frame),
            Input::Sent { link, frames, cost } => lend!(self, Sockets).sent(link, frames, cost),
            Input::Moved { link } => lend!(self, Connections).moved(link),
            Input::Committed(committed) => self.on_commit(committed),
            Input::CommitFailed(failed) => self.on_failed_commit(failed),
            Input::StoreFailed(failure) => self.halt(failure),
            Input::Fetched { fetch, answer: Ok(answer) } => self.on_answer(fetch, answer),
            Input::Fetched { fetch, answer: Err(failure) } => {
                if self.queries.open.remove(&fetch).is_some() {
                    self.halt(failure);
                }
            }
            Input::Timer => self.on_timers(),
            Input::Reconfigure { peers, tags } => self.reconfigure(peers, tags),
            Input::Admin { ticket, request } => self.on_request(ticket, request),
            Input::ShutDown => lend!(self, Ending).shut_down(),
        }
    }

    /// The next output; `None`: drained.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.out.is_empty() && !matches!(self.id.phase, Phase::Halted | Phase::Stopped) {
            self.gather();
        }
        self.out.pop()
    }

    /// When [`Input::Timer`] is due. To be asked only when the outputs are drained.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.time.timers.next()
    }

    /// Turns what has changed into outputs. A commit comes first, so that the store works while
    /// the shell sends.
    fn gather(&mut self) {
        lend!(self, Batches).seal_if_wanted();
        lend!(self, Gossip).flood_records();
        for session in core::mem::take(&mut self.sessions.ready) {
            self.flush_session(session);
        }
        // Behind the sessions, which may just have found what has failed too often.
        lend!(self, Fetches).ask_burials();
        for id in core::mem::take(&mut self.links.work.unflushed) {
            if let Some(link) = self.links.by_id.get_mut(&id) {
                lend!(self, Acknowledging).flush(link);
            }
        }
        if self.log.unclaimed.is_dirty() {
            self.time.timers.set_earlier(Timer::Cursors, self.time.now.instant + CURSOR_DELAY);
        }
        lend!(self, Backpressure).pause_or_resume();
        lend!(self, Connections).close_stalled();
        if core::mem::take(&mut self.log.trim_wanted) {
            lend!(self, Retention).trim_tail();
        }
        if self.id.phase == Phase::ShuttingDown && self.out.is_empty() {
            lend!(self, Ending).stop_if_done();
        }
    }

    /// Hands a session what its link can take now.
    fn flush_session(&mut self, id: SessionId) {
        lend!(self, Gossip).go_back_if_due(id);
        let stop = lend!(self, Handover).with_session(id, |desk, durable, committed| {
            desk.answer(durable, committed);
            if desk.link.is_greeted() { desk.walk(durable) } else { WalkStop::Held }
        });
        let Some(stop) = stop else { return };
        lend!(self, Reads).ask_reads(id);
        lend!(self, Fetches).repeat_due(id);
        let idle = self.sessions.table.get(&id).is_some_and(|session| session.fetch.is_none());
        if let WalkStop::Store(Some(query)) = stop
            && idle
        {
            lend!(self, Fetches).fetch_for(id, query);
        }
        lend!(self, Handover).say_synced(id);
        lend!(self, Connections).close_if_ending(id);
        lend!(self, Connections).close_if_lagging(id);
    }

    fn on_timers(&mut self) {
        while let Some(timer) = self.time.timers.take_due(self.time.now.instant) {
            match timer {
                Timer::Link(link) => lend!(self, Connections).on_link_timer(link),
                Timer::Session(session) => drop(self.sessions.ready.insert(session)),
                Timer::Dial(index) => lend!(self, Dialing).dial(index),
                Timer::Cursors => self.log.commit_wanted = true,
                Timer::Topology => lend!(self, Gossip).update_own_record(),
                Timer::Upkeep => self.on_upkeep_timer(),
            }
        }
    }

    /// Looks at the clock, ends sessions whose time is over, and lets the store make room.
    fn on_upkeep_timer(&mut self) {
        let now = self.time.now.instant;
        self.time.timers.set_earlier(Timer::Upkeep, now + UPKEEP_INTERVAL);
        let offsets_ms = self.links.clock_offsets_ms(self.time.now);
        lend!(self, Upkeep).look_at_the_clock(&offsets_ms);
        lend!(self, Gossip).update_own_record();
        lend!(self, DigestComparison).compare_with_peers();
        self.mesh.topology.forget_lost(now);
        lend!(self, Room).look_for_room();
        let ended = lend!(self, Upkeep).note_and_give_up();
        for id in ended {
            let reason = "away for longer than store.session_ttl";
            lend!(self, Connections).end_session_by_id(id, reason);
        }
        lend!(self, Expiry).look_for_expired();
        // Room is made by commits, also when nothing is published.
        let history = self.log.capacity.has_history_to_spare(self.log.load(now));
        let may_spare = self.log.capacity.is_short_of_room()
            && lend!(self, Retention).floors().0 > self.log.floor;
        if (history || may_spare) && !self.log.tail.is_committing() {
            self.log.commit_wanted = true;
            self.time.timers.set_earlier(Timer::Upkeep, now + MAKE_ROOM_INTERVAL);
        }
    }

    fn on_frame(&mut self, id: LinkId, frame: Frame) {
        let Some(mut link) = self.links.active(id) else {
            self.out.metrics.stale += 1;
            return;
        };
        link.liveness.heard = self.time.now.instant;
        link.traffic.bytes.0 += (frame.cost() - 64) as u64;
        let pong = if let Frame::Pong(payload) = &frame { pinged_at(payload) } else { None };
        let done = match frame {
            Frame::Ping(_) => Ok(()),
            Frame::Text(_) | Frame::Binary(_) if link.is_ending() => Ok(()),
            Frame::Pong(_) => {
                lend!(self, Dialing).pong(&mut link, pong);
                Ok(())
            }
            Frame::Text(text) => lend!(self, AppFrames).text(&mut link, &text),
            Frame::Binary(bytes) => self.on_binary_frame(id, &bytes),
        };
        lend!(self, Connections).after_frame(id, done);
        lend!(self, Connections).on_sign_of_life(id, pong);
    }

    fn on_binary_frame(&mut self, id: LinkId, bytes: &Bytes) -> Result<(), Close> {
        let Some(mut link) = self.links.active(id) else { return Ok(()) };
        link.traffic.frames_in += 1;
        if link.protocol == Protocol::Json {
            lend!(self, AppFrames).unexpected_binary(&mut link);
            return Ok(());
        }
        let frame = Wire::decode(bytes).map_err(|error| protocol(&format!("{error}")))?;
        match &link.state {
            LinkState::Handshake => lend!(self, Connections).greeted(id, frame),
            LinkState::Candidate { .. } => Err(protocol(NO_PLACE)),
            LinkState::Peer(_) => {
                let has_messages = matches!(frame, Wire::Messages(_) | Wire::Timed(_));
                lend!(self, PeerFrames).frame(&mut link, frame)?;
                if has_messages {
                    self.take_parked(id);
                }
                Ok(())
            }
            LinkState::Application(_) => lend!(self, AppFrames).frame(&mut link, frame),
        }
    }

    /// Takes the messages of a link in their order, as far as the newest of their keys is known
    /// without the store; asks for the others.
    fn take_parked(&mut self, id: LinkId) {
        let Some(mut link) = self.links.active(id) else { return };
        let Some((count, keys)) = lend!(self, PeerFrames).judge_parked(&mut link) else { return };
        if !keys.is_empty() {
            let (purpose, query) = (Purpose::Lookup(id, keys.clone()), Query::Latest(keys));
            let lookup = self.queries.ask(&mut self.out, purpose, query);
            link.peer_mut().into_iter().for_each(|peer| peer.rows_in.lookup = Some(lookup));
        }
        lend!(self, PeerFrames).take_parked(&mut link, count);
    }

    /// The newest of the keys of parked messages: remembered, and the messages are taken.
    fn on_looked_up(&mut self, id: LinkId, keys: Vec<Hash128>, found: Vec<Option<Latest>>) {
        self.log.learn_newest(keys.into_iter().zip(found), self.id.source);
        let Some(link) = self.links.by_id.get_mut(&id) else { return };
        link.peer_mut().into_iter().for_each(|peer| peer.rows_in.lookup = None);
        self.take_parked(id);
        lend!(self, Connections).after_frame(id, Ok(()));
    }

    /// The store has answered: what it found goes to whoever asked, and whoever waits asks.
    fn on_answer(&mut self, fetch: FetchId, answer: Answer) {
        let Some(purpose) = self.queries.open.remove(&fetch) else { return };
        match (purpose, answer) {
            (Purpose::Walk(session, asked), Answer::Rows { rows, upto, superseded }) => {
                let found = (rows, superseded);
                lend!(self, Handover).rows_fetched(session, fetch, asked, found, upto);
            }
            (Purpose::Repeat(session, asked), Answer::RowsAt(rows)) => {
                lend!(self, Handover).repeats_fetched(session, fetch, &asked, rows);
            }
            (Purpose::Lookup(link, keys), Answer::Latest(found)) => {
                self.on_looked_up(link, keys, found);
            }
            (Purpose::Read(link), Answer::Values(found)) => {
                lend!(self, Handover).values_fetched(link, fetch, found);
            }
            (Purpose::Bury(session, asked), Answer::RowsAt(rows)) => {
                lend!(self, Burial).burial_fetched(session, &asked, rows);
            }
            (Purpose::Operator(ticket), answer) => {
                lend!(self, Operator).operator_fetched(fetch, ticket, answer);
            }
            (Purpose::Compare, Answer::Digests(digests)) => {
                lend!(self, DigestComparison).own_digests(digests);
            }
            (Purpose::Expired(at), Answer::Rows { rows, upto, .. }) => {
                lend!(self, Expiry).expired_fetched(at, rows, upto);
            }
            (Purpose::Reset, Answer::Rows { rows, upto, .. }) => {
                lend!(self, Resetting).reset_fetched(&rows, upto);
            }
            (Purpose::Held(before), Answer::Rows { rows, upto, .. }) => {
                lend!(self, Forgetting).held_fetched(before, rows, upto);
            }
            (purpose, answer) => {
                debug_assert!(false, "{purpose:?} was answered with {answer:?}");
            }
        }
        lend!(self, Fetches).fetch_waiting();
        lend!(self, Reads).ask_waiting_reads();
    }

    fn on_commit(&mut self, committed: Committed) {
        let Committed { batch, usage, took } = committed;
        let id = batch.id;
        lend!(self, Batches).note_commit(&batch, usage, took);
        lend!(self, Records).wake_sessions(&batch.rows);
        self.log.tail.committed(batch.rows);
        self.log.newest.trim(self.log.tail.durable());
        lend!(self, Expiry).look_for_held();
        for link in core::mem::take(&mut self.links.work.awaiting_commit) {
            lend!(self, Batches).release(link, id);
        }
        for order in self.queries.orders.extract_if(.., |order| order.batch <= id) {
            self.out.push(Output::Admin { ticket: order.ticket, answer: AdminAnswer::Done });
        }
        self.sessions.end_purges(&batch.dead_letters_gone);
        lend!(self, Resetting).reset_on();
        lend!(self, Room).notice_room();
        lend!(self, Connections).begin_to_talk();
        lend!(self, Connections).report_durable(id);
    }

    fn on_failed_commit(&mut self, failed: CommitFailed) {
        let CommitFailed { batch, failure } = failed;
        let reason = match failure {
            StoreFailure::Unknown(_) => return self.halt(failure),
            StoreFailure::Full(reason) => reason,
        };
        lend!(self, Batches).take_back(batch);
        let failure = StoreFailure::Full(reason.clone());
        self.queries.refuse_orders(&mut self.out, &failure, self.log.tail.growing_id());
        self.queries.refuse_reset(&mut self.out, &failure.into());
        self.log.capacity.note_failure(self.time.now.instant, reason);
        lend!(self, Room).notice_room();
        lend!(self, Connections).begin_to_talk();
    }

    /// The operator has changed peers and tags.
    fn reconfigure(&mut self, peers: Vec<String>, tags: TagSet) {
        lend!(self, Connections).change_peers(&peers);
        self.config.peers = peers;
        lend!(self, Dialing).wait_for_peers();
        if tags != self.config.tags {
            self.config.tags = tags;
            lend!(self, Connections).begin_again_for_tags();
        }
    }

    fn on_request(&mut self, ticket: Ticket, request: AdminRequest) {
        if self.id.phase != Phase::Running && request != AdminRequest::Status {
            let answer = AdminAnswer::Refused(AdminRefusal::ShuttingDown);
            self.out.push(Output::Admin { ticket, answer });
            return;
        }
        match request {
            AdminRequest::Status => {
                self.sessions.table.wake_all();
                let answer = AdminAnswer::Status(Box::new(lend!(self, StatusReport).status()));
                self.out.push(Output::Admin { ticket, answer });
            }
            AdminRequest::ForgetSession(name) => match self.sessions.to_forget(&name) {
                Ok(id) => {
                    let reason = "forgotten by the operator";
                    lend!(self, Connections).end_session_by_id(id, reason);
                    lend!(self, Operator).order(ticket, true);
                }
                Err(answer) => self.out.push(Output::Admin { ticket, answer }),
            },
            AdminRequest::ResetClock => {
                let offsets_ms = self.links.clock_offsets_ms(self.time.now);
                lend!(self, Resetting).reset_clock(ticket, &offsets_ms);
            }
            AdminRequest::Where { .. }
            | AdminRequest::DeadLetterList { .. }
            | AdminRequest::DeadLetters { .. }
            | AdminRequest::ReplayDeadLetter(_)
            | AdminRequest::PurgeDeadLetter(_)
            | AdminRequest::Digests(_) => lend!(self, Operator).search_for(ticket, request),
        }
    }

    /// Whether an application is owed answers to what it has sent on this link.
    pub fn owes_answers(&self, link: LinkId) -> bool {
        self.links.owes_answers(link)
    }

    fn halt(&mut self, failure: StoreFailure) {
        self.id.phase = Phase::Halted;
        // Nothing may be acknowledged any more, also not what was about to be.
        self.out.clear();
        self.out.push(Output::Halt(failure));
    }
}

#[cfg(test)]
mod tests;
