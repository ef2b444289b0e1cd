//! The node: the one place that sees links, sessions, log and clock at the same time.
//!
//! [`Node::handle`] takes an input and changes the parts; [`Node::poll_output`] first gives what
//! is ready and then gathers: it seals a batch if none is in flight, hands over to the sessions
//! that can take more, and releases what waited for a commit. So any number of inputs between two
//! drains become one batch and few frames.
//!
//! Its parts own what they know: `identity`, `time`, `sessions`, `links`, `mesh`, `capacity`,
//! `queries` and `outbox` here, [`Log`] in its layer. What a part can tell from its own data it
//! tells by itself, and is tested alone.
//!
//! The other files are chapters of one `impl`: `connect` (links come and go), `rivals` (two links
//! to one node), `dialing`, `accept` (messages come in), `commit` (batches), `handover` and `serve`
//! (messages go out), `gossip` and `offering` (topology, offers), `peer` and `application` (their
//! frames), `read` (reads of applications), `repeat` (timers), `settle` (what applications say of
//! deliveries), `burial` (dead letters), `comparing` (digests), `expiring` and `forgetting` (events
//! that nobody was handed), `fetched` (what the store found), `operate` (operators), `resetting`
//! (their word on the clock).

mod accept;
mod application;
mod burial;
mod capacity;
mod clock_reset;
mod commit;
mod comparing;
mod connect;
mod dialing;
mod expiring;
mod fetched;
mod forgetting;
mod gossip;
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
mod repeat;
mod resetting;
mod rivals;
mod serve;
mod session_table;
mod sessions;
mod settle;
mod time;

use alloc::string::String;
use core::time::Duration;

use crate::admin::event::Event;
use crate::config::{Config, Durability};
use crate::io::{Input, Output};
use crate::log::Log;
use crate::log::unclaimed::NODE;
use crate::mesh::topology::{Record, Topology};
use crate::session::{Dirty, Session};
use crate::store::{Recovered, StoreFailure};
use crate::types::clock::Clock;
use crate::types::ids::{Incarnation, SessionId};
use crate::types::rate::RateLimit;
use crate::types::time::{Instant, Now};
use crate::types::timers::Timer;

use self::capacity::Capacity;
use self::identity::{Identity, Phase};
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

/// One node of the mesh, as a state machine. See the [crate's documentation](crate) for the loop
/// that drives it.
#[derive(Debug)]
pub struct Node {
    config: Config,
    id: Identity,
    time: Time,
    log: Log,
    sessions: Sessions,
    links: Links,
    mesh: Mesh,
    capacity: Capacity,
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
        let mut log = Log::recover(&recovered, &config.limits, now);
        let source = log.seen.source(&config.id, incarnation);
        let record = Record {
            node: config.id.as_str().into(),
            store: recovered.store_id,
            incarnation,
            revision: incarnation.get(),
            tags: config.tags.as_str().into(),
            links: String::new(),
        };
        let topology =
            Topology::new(config.id.clone(), config.limits.max_nodes, record, now.instant);
        let mut node = Self {
            id: Identity::new(recovered.store_id, incarnation, source, now.wall),
            time,
            log,
            sessions: Sessions::recover(&recovered),
            links: Links::default(),
            mesh: Mesh::new(topology),
            capacity: Capacity::new(recovered.usage, &config.store),
            queries: Queries::default(),
            out: Outbox::default(),
            config,
        };
        node.recover_sessions(&recovered, now);
        node.begin();
        node
    }

    fn recover_sessions(&mut self, recovered: &Recovered, now: Now) {
        let tags = self.config.tags.clone();
        self.recover_own_record(recovered);
        for record in recovered.sessions.iter().filter(|record| record.id != NODE) {
            let repeats = RateLimit::new(self.config.retry.max_rate, now.instant);
            let session = Session::recover(record, recovered.head, &tags, repeats);
            let Some(mut session) = session else {
                let reason = "its record in the store cannot be read".into();
                let (session, owed) = (record.name.clone(), recovered.head.get());
                self.out.push(Output::Event(Event::SessionEnded { session, reason, owed }));
                continue;
            };
            let id = session.id;
            // One that has begun again for other tags has done so now.
            let beginning = &mut session.beginning;
            beginning.time = beginning.time.min(self.over_upto());
            session
                .recover_dying(self.config.retry.max_attempts, &mut self.sessions.last_dead_letter);
            self.sessions.to_bury.insert(id);
            self.sessions.by_name.insert(session.name.clone(), id);
            self.sessions.table.insert(session);
            self.arrange_write(id);
        }
        // Between two starts, time that passed cannot be told from a clock that was set right.
        if recovered.clock.wall().plus(self.config.store.session_ttl) <= now.wall {
            self.begin_absences_anew();
        }
        for (id, reason, count, bytes) in &recovered.dead_letters {
            if let Some(dead) = self.dead_of(*id) {
                dead.insert(*reason, (*count, *bytes));
            }
        }
        let has_unknown =
            |session: &&mut Session| session.dead_count() > session.letters.count() as u64;
        for session in self.sessions.table.values_mut().filter(has_unknown) {
            session.letters.forget_upto(recovered.head);
        }
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
        self.look_after_itself();
        self.wait_for_peers();
        for url in self.config.peers.clone() {
            self.add_dialer(url);
        }
    }

    /// Takes one input. Infallible; any number of calls between drains. `now` must not go back.
    pub fn handle(&mut self, input: Input, now: Now) {
        if matches!(self.id.phase, Phase::Halted | Phase::Stopped) {
            return;
        }
        self.time.observe(now);
        match input {
            Input::LinkUp(up) => self.link_up(up),
            Input::LinkDown { link, code, reason } => self.link_down(link, code, &reason),
            Input::DialFailed { dial, reason } => self.dial_failed(dial, &reason),
            Input::Received { link, frame } => self.received(link, frame),
            Input::Sent { link, frames, cost } => self.sent(link, frames, cost),
            Input::Moved { link } => self.moved(link),
            Input::Committed(committed) => self.committed(committed),
            Input::CommitFailed(failed) => self.commit_failed(failed),
            Input::StoreFailed(failure) => self.halt(failure),
            Input::Fetched { fetch, answer } => self.fetched(fetch, answer),
            Input::Timer => self.timers_due(),
            Input::Reconfigure { peers, tags } => self.reconfigure(peers, tags),
            Input::Admin { ticket, request } => self.operate(ticket, request),
            Input::ShutDown => self.shut_down(),
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
        self.seal_if_wanted();
        self.spread_news();
        for session in core::mem::take(&mut self.sessions.ready) {
            self.serve(session);
        }
        // Behind the sessions, which may just have found what has failed too often.
        self.ask_burials();
        for link in core::mem::take(&mut self.links.unflushed) {
            self.flush(link);
        }
        if self.log.unclaimed.is_dirty() {
            self.time.timers.set_earlier(Timer::Cursors, self.time.now.instant + CURSOR_DELAY);
        }
        self.pause_or_resume();
        self.close_stalled();
        if core::mem::take(&mut self.log.trim_wanted) {
            self.trim_tail();
        }
        if self.id.phase == Phase::ShuttingDown && self.out.is_empty() {
            self.stop_if_done();
        }
    }

    fn halt(&mut self, failure: StoreFailure) {
        self.id.phase = Phase::Halted;
        // Nothing may be acknowledged any more, also not what was about to be.
        self.out.clear();
        self.out.push(Output::Halt(failure));
    }

    /// Notes that the record of a session must be written, and arranges for it.
    fn touch(&mut self, id: SessionId, dirty: Dirty) {
        if id == NODE {
            self.log.unclaimed.touch();
            self.log.commit_wanted = true;
        }
        let Some(session) = self.sessions.table.get_mut(&id) else { return };
        session.touch(dirty);
        self.arrange_write(id);
    }

    fn arrange_write(&mut self, id: SessionId) {
        match self.sessions.table.get(&id).map(|session| session.dirty) {
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

    fn trim_tail(&mut self) {
        // Those that rest need nothing of it.
        let connected = self.sessions.table.awake().filter(|session| session.link.is_some());
        let keep = connected.map(|session| session.next).min();
        self.log.tail.trim(keep.unwrap_or(self.log.tail.durable().next()));
    }
}

#[cfg(test)]
mod tests;
