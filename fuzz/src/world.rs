//! A node on virtual time with its sockets and its store, and what must hold at every step.
//!
//! What stays true, whoever is at the other end of a link: one batch at a time is with the store;
//! nothing that leaves names a message that is not durable (P1); a peer is sent well-formed frames,
//! and no message that has visited it (P4); data in flight keeps to the credit of its link; a node
//! that is done says nothing more; outputs come to an end, and so do timers that are due.

mod leaving;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use slipstream_core::Node;
use slipstream_core::config::{Config, Durability};
use slipstream_core::event::Event;
use slipstream_core::ids::{
    DialId, FetchId, Incarnation, LinkId, NodeId, Position, StoreId, Ticket,
};
use slipstream_core::io::{Frame, Input, LinkUp, Output, Protocol};
use slipstream_core::store::{Batch, CommitFailed, Committed, Query, Recovered, StoreFailure};
use slipstream_core::time::{Instant, Now, WallMs};
use slipstream_core::wire::{self, Hello, Wire};
use slipstream_tests::world::MemoryStore;

use self::leaving::{check_binary, check_text};

/// Wall clock at the beginning.
pub(crate) const BEGINNING: WallMs = WallMs(1_790_000_000_000);

/// Send credit of a link to an application and to a peer, as the core documents it.
const APPLICATION_CREDIT: usize = 256 << 10;
const PEER_CREDIT: usize = 2 << 20;
/// A frame is sent when it has grown to this; larger is one that holds a single large message.
const FRAME_TARGET: usize = 64 << 10;

/// Outputs of one turn: far more than any input of a fuzzer can rightly cause.
const MAX_OUTPUTS: usize = 200_000;
/// Timers that may be due at one instant, one after the other.
const MAX_TIMERS: usize = 100;
/// Jobs of the store until it is quiet.
const MAX_JOBS: usize = 10_000;

/// Work for the store.
enum Job {
    Commit(Box<Batch>),
    Fetch(FetchId, Query),
}

/// The other end of a link, as the shell knows it.
struct Socket {
    protocol: Protocol,
    /// Node id, once a Hello was answered.
    peer: Option<NodeId>,
    untaken: VecDeque<usize>,
    in_flight: usize,
    /// Of it, what tells of durability or asks for life: not held against the credit.
    control: usize,
    frames_in: u64,
    /// Messages given to the node, well-formed or not.
    messages_in: u64,
    /// Whether the node was asked for messages by their identity.
    asked: bool,
}

/// One node and everything around it.
pub(crate) struct World {
    node: Node,
    config: Config,
    store: MemoryStore,
    pub(crate) now: Now,
    sockets: BTreeMap<LinkId, Socket>,
    jobs: VecDeque<Job>,
    dials: VecDeque<DialId>,
    /// `messageId` of every message that ever became durable.
    durable: BTreeSet<String>,
    /// Highest position that ever became durable.
    head: Position,
    tickets: BTreeSet<Ticket>,
    last_link: u64,
    last_ticket: u64,
    starts: u64,
    /// Whether sockets take frames at once.
    pub(crate) takes_frames: bool,
    /// The node has stopped or halted: nothing more may come.
    over: bool,
    may_halt: bool,
}

impl World {
    /// A node with this configuration on an empty store.
    pub(crate) fn new(config: Config) -> Self {
        let store = MemoryStore::new(7);
        let recovered = store.recovered();
        Self::recovered(config, store, recovered)
    }

    /// A node that is told this of its store.
    pub(crate) fn recovered(config: Config, store: MemoryStore, recovered: Recovered) -> Self {
        let now = Now { instant: Instant::from_micros(1_000_000), wall: BEGINNING };
        let head = recovered.head;
        let node = Node::new(config.clone(), recovered, 1, now);
        let mut world = Self {
            node,
            config,
            now,
            sockets: BTreeMap::new(),
            jobs: VecDeque::new(),
            dials: VecDeque::new(),
            durable: store.messages().map(|message| message.id().to_owned()).collect(),
            head,
            tickets: BTreeSet::new(),
            last_link: 0,
            last_ticket: 0,
            starts: 1,
            takes_frames: true,
            over: false,
            may_halt: false,
            store,
        };
        world.drain();
        world
    }

    /// Ends the node as `kill -9` does and starts it on what is durable.
    pub(crate) fn crash(&mut self) {
        self.starts += 1;
        self.jobs.clear();
        self.sockets.clear();
        self.dials.clear();
        self.tickets.clear();
        self.over = false;
        self.may_halt = false;
        let recovered = self.store.recovered();
        self.node = Node::new(self.config.clone(), recovered, self.starts, self.now);
        self.drain();
    }

    /// Whether the node has stopped or halted.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Gives the node an input and takes what comes out.
    pub(crate) fn give(&mut self, input: Input) {
        self.node.handle(input, self.now);
        self.drain();
    }

    /// A connection is accepted.
    pub(crate) fn accept(&mut self, protocol: Protocol, query: &str) -> LinkId {
        self.link(protocol, None, query)
    }

    /// The oldest dial leads to a connection. `None` without one.
    pub(crate) fn dialled(&mut self) -> Option<LinkId> {
        let dial = self.dials.pop_front()?;
        Some(self.link(Protocol::Postcard, Some(dial), ""))
    }

    /// The oldest dial fails.
    pub(crate) fn dial_fails(&mut self) {
        if let Some(dial) = self.dials.pop_front() {
            self.give(Input::DialFailed { dial, reason: "refused".into() });
        }
    }

    fn link(&mut self, protocol: Protocol, dial: Option<DialId>, query: &str) -> LinkId {
        self.last_link += 1;
        let link = LinkId::new(self.last_link);
        let socket = Socket {
            protocol,
            peer: None,
            untaken: VecDeque::new(),
            in_flight: 0,
            control: 0,
            frames_in: 0,
            messages_in: 0,
            asked: false,
        };
        self.sockets.insert(link, socket);
        let (remote, query) = ("127.0.0.1:1".into(), query.into());
        self.give(Input::LinkUp(LinkUp { link, dial, protocol, remote, query }));
        link
    }

    /// The n-th of the open links, or one that is none any more.
    pub(crate) fn nth_link(&self, n: u8) -> LinkId {
        let open = self.sockets.len();
        let nth = self.sockets.keys().nth(usize::from(n) % open.max(1)).copied();
        nth.unwrap_or(LinkId::new(self.last_link))
    }

    /// Whether the link is open.
    pub(crate) fn is_open(&self, link: LinkId) -> bool {
        self.sockets.contains_key(&link)
    }

    /// What is spoken on the link.
    pub(crate) fn protocol(&self, link: LinkId) -> Option<Protocol> {
        self.sockets.get(&link).map(|socket| socket.protocol)
    }

    /// A frame arrives.
    pub(crate) fn receive(&mut self, link: LinkId, frame: Frame) {
        if let Some(socket) = self.sockets.get_mut(&link) {
            if let Frame::Binary(bytes) = &frame
                && let Ok(frame) = Wire::decode(bytes)
            {
                socket.messages_in += match &frame {
                    Wire::Messages(batch) => wire::messages(batch).map_or(0, |all| all.len()),
                    Wire::Timed(batch) => wire::timed(batch).map_or(0, |(_, all)| all.len()),
                    _ => 0,
                } as u64;
            }
            if let Frame::Binary(bytes) = &frame {
                socket.asked |= matches!(Wire::decode(bytes), Ok(Wire::Want(_)));
            }
            if matches!(frame, Frame::Text(_) | Frame::Binary(_)) {
                socket.frames_in += 1;
            }
        }
        self.give(Input::Received { link, frame });
    }

    /// A text frame arrives.
    pub(crate) fn text(&mut self, link: LinkId, text: String) {
        self.receive(link, Frame::Text(text.into()));
    }

    /// A node of this name says Hello.
    pub(crate) fn greet_as(&mut self, node: &str, link: LinkId) {
        let hello = Hello {
            protocol: wire::PROTOCOL_VERSION,
            node: node.into(),
            store: StoreId(9),
            incarnation: Incarnation::new(1),
            group: String::new(),
            tags: String::new(),
            wall: self.now.wall,
            durability: Durability::Full,
            features: wire::FEATURE_DIGESTS,
            max_message_bytes: 1 << 20,
            max_frame_bytes: 4 << 20,
            reported: Position::default(),
            reported_incarnation: Incarnation::default(),
        };
        self.receive(link, Frame::Binary(Wire::Hello(hello).encode()));
    }

    /// The connection is lost.
    pub(crate) fn lose(&mut self, link: LinkId, code: Option<u16>) {
        self.sockets.remove(&link);
        self.give(Input::LinkDown { link, code, reason: "lost".into() });
    }

    /// The sockets take everything.
    pub(crate) fn take_frames(&mut self) {
        let links: Vec<LinkId> = self.sockets.keys().copied().collect();
        for link in links {
            while let Some(socket) = self.sockets.get_mut(&link) {
                let frames = socket.untaken.len();
                if frames == 0 {
                    break;
                }
                let cost = socket.untaken.drain(..).sum();
                socket.in_flight -= cost;
                socket.control = 0;
                self.give(Input::Sent { link, frames, cost });
            }
        }
    }

    /// The store does the next thing that it was asked. Answers whether there was one.
    pub(crate) fn work(&mut self) -> bool {
        match self.jobs.pop_front() {
            None => return false,
            Some(Job::Commit(batch)) => {
                self.commit(&batch);
                let (usage, took) = (self.store.usage(), Duration::from_micros(200));
                self.give(Input::Committed(Committed { batch, usage, took }));
            }
            Some(Job::Fetch(fetch, query)) => {
                let answer = Ok(self.store.answer(query));
                self.give(Input::Fetched { fetch, answer });
            }
        }
        true
    }

    fn commit(&mut self, batch: &Batch) {
        self.store.commit(batch);
        self.durable.extend(batch.rows.iter().map(|row| row.message.id().to_owned()));
        self.head = batch.rows.iter().map(|row| row.position).fold(self.head, Position::max);
    }

    /// The store works until it has nothing to do.
    pub(crate) fn settle(&mut self) {
        let done = (0..MAX_JOBS).any(|_| !self.work());
        assert!(done, "the store is never left alone");
    }

    /// The next job of the store fails. A commit whose durability is not known may have happened.
    pub(crate) fn fail(&mut self, unknown: bool, happened: bool) {
        let failure = if unknown {
            StoreFailure::Unknown("I/O error".into())
        } else {
            StoreFailure::Full("disk full".into())
        };
        match self.jobs.pop_front() {
            None => {}
            Some(Job::Commit(batch)) => {
                if unknown && happened {
                    self.commit(&batch);
                }
                self.may_halt = unknown;
                self.give(Input::CommitFailed(CommitFailed { batch, failure }));
            }
            Some(Job::Fetch(fetch, query)) => {
                let answer = if unknown { Err(failure) } else { Ok(self.store.answer(query)) };
                self.may_halt = unknown;
                self.give(Input::Fetched { fetch, answer });
            }
        }
        assert!(!self.may_halt || self.over, "nothing goes on after an unknown failure");
    }

    /// The store says that it uses so many bytes besides its rows.
    pub(crate) fn set_ballast(&mut self, bytes: u64) {
        self.store.ballast = bytes;
    }

    /// An operator asks.
    pub(crate) fn ask(&mut self, request: slipstream_core::admin::AdminRequest) {
        self.last_ticket += 1;
        let ticket = Ticket::new(self.last_ticket);
        if !self.over {
            self.tickets.insert(ticket);
        }
        self.give(Input::Admin { ticket, request });
    }

    /// Lets time pass; every timer fires when it is due.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        let mut at_once = 0;
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= end && !self.over) {
            at_once = if at > self.now.instant { 0 } else { at_once + 1 };
            assert!(at_once < MAX_TIMERS, "a timer is always due");
            self.advance_to(at.max(self.now.instant));
            self.give(Input::Timer);
        }
        self.advance_to(end);
    }

    /// The machine sleeps: both clocks go on, and no timer fires in time.
    pub(crate) fn sleep(&mut self, time: Duration) {
        self.advance_to(self.now.instant + time);
    }

    fn advance_to(&mut self, instant: Instant) {
        self.now.wall = self.now.wall.plus(instant.since(self.now.instant));
        self.now.instant = instant;
    }

    /// Everything heals, and the node must come to rest.
    pub(crate) fn heal(&mut self) {
        self.takes_frames = true;
        self.set_ballast(0);
        self.take_frames();
        self.settle();
        self.pass(Duration::from_secs(3));
        self.settle();
        if !self.over {
            assert!(self.tickets.is_empty(), "every request is answered: {:?}", self.tickets);
        }
    }

    fn drain(&mut self) {
        for _ in 0..MAX_OUTPUTS {
            let Some(output) = self.node.poll_output() else { return };
            assert!(!self.over, "a node that is done says {output:?}");
            self.take(output);
        }
        panic!("outputs never end");
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Commit(batch) => {
                let busy = self.jobs.iter().any(|job| matches!(job, Job::Commit(_)));
                assert!(!busy, "one batch at a time is with the store");
                self.jobs.push_back(Job::Commit(batch));
            }
            Output::Fetch { fetch, query } => self.jobs.push_back(Job::Fetch(fetch, query)),
            Output::Transmit { link, frame } => self.transmitted(link, frame),
            Output::Admit(link) => assert!(self.sockets.contains_key(&link), "it is open"),
            Output::Close { link, .. } => {
                assert!(self.sockets.remove(&link).is_some(), "a link is closed twice");
            }
            Output::Dial { dial, .. } => self.dials.push_back(dial),
            Output::Admin { ticket, .. } => {
                assert!(self.tickets.remove(&ticket), "one answer for every request");
            }
            Output::Event(Event::PeerUp { peer, link, .. }) => {
                if let Some(socket) = self.sockets.get_mut(&link) {
                    socket.peer = Some(peer);
                }
            }
            Output::Event(event) => drop(event.to_string()),
            Output::Stopped => {
                let busy = self.jobs.iter().any(|job| matches!(job, Job::Commit(_)));
                assert!(!busy, "nothing uncommitted is left behind");
                self.over = true;
            }
            Output::Halt(_) => {
                assert!(self.may_halt, "a node halts when its store cannot be trusted");
                self.over = true;
            }
            Output::Observe(_) | Output::Pause(_) | Output::Resume(_) => {}
        }
    }

    fn transmitted(&mut self, link: LinkId, frame: Frame) {
        let head = self.head;
        let Some(socket) = self.sockets.get_mut(&link) else {
            panic!("a frame for a link that is gone")
        };
        if frame.is_control() {
            return;
        }
        let cost = frame.cost();
        let credit = if socket.peer.is_some() { PEER_CREDIT } else { APPLICATION_CREDIT };
        let data = match &frame {
            Frame::Text(text) => check_text(text, socket, &self.durable, head),
            Frame::Binary(bytes) => check_binary(bytes, socket, &self.durable, head),
            Frame::Ping(_) | Frame::Pong(_) => false,
        };
        if data {
            let largest = FRAME_TARGET.max(cost) + 64;
            let before = socket.in_flight - socket.control;
            assert!(before <= credit + largest, "{before} bytes in flight, and more is sent");
        } else {
            socket.control += cost;
        }
        socket.in_flight += cost;
        socket.untaken.push_back(cost);
        if self.takes_frames {
            socket.untaken.pop_back();
            socket.in_flight -= cost;
            socket.control = socket.control.saturating_sub(if data { 0 } else { cost });
            self.node.handle(Input::Sent { link, frames: 1, cost }, self.now);
        }
    }
}
