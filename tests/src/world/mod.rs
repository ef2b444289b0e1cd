//! One node on virtual time, its store in memory, every step in the hands of the test.
//!
//! Commits and questions wait until the test lets them through, sockets take frames at once, and
//! nothing happens by itself. Two worlds are joined by carrying frames from one to the other.

mod store;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use slipstream_core::Node;
use slipstream_core::admin::{AdminAnswer, AdminRequest, Status};
use slipstream_core::config::{Config, Durability};
use slipstream_core::event::Event;
use slipstream_core::ids::{
    DialId, FetchId, Incarnation, LinkId, NodeId, Position, StoreId, Ticket,
};
use slipstream_core::io::{Close, Frame, Input, LinkUp, Output, Protocol};
use slipstream_core::store::{Batch, CommitFailed, Committed, Query, StoreFailure};
use slipstream_core::time::{Instant, Now, WallMs};
use slipstream_core::wire::{Hello, Wire as PeerFrame};

pub use store::MemoryStore;

/// Wall clock at the beginning of every test.
const BEGINNING: WallMs = WallMs(1_790_000_000_000);

/// Work for the store.
#[derive(Debug)]
enum Job {
    Commit(Box<Batch>),
    Fetch(FetchId, Query),
}

/// One node and everything around it.
#[derive(Debug)]
pub struct World {
    /// The node.
    pub node: Node,
    /// What is durable.
    pub store: MemoryStore,
    /// What the clocks say.
    pub now: Now,
    /// Closes that the node has ordered.
    pub closed: BTreeMap<LinkId, Close>,
    /// Links that the node counts among its applications and peers.
    pub admitted: BTreeSet<LinkId>,
    /// Dials that the node has ordered.
    pub dials: Vec<(DialId, String)>,
    /// What the node had to say.
    pub events: Vec<Event>,
    /// Everything that came out, in words: equal runs give equal traces.
    pub trace: Vec<String>,
    /// Set when the node has halted.
    pub halted: Option<StoreFailure>,
    /// Set when the node has stopped.
    pub stopped: bool,
    /// Whether pings are answered at once, as a WebSocket library does.
    pub answers_pings: bool,
    /// Whether sockets take frames at once; else [`World::take_frames`] does.
    pub takes_frames: bool,
    /// What the node is started with.
    pub config: Config,
    untaken: Vec<(LinkId, usize)>,
    jobs: VecDeque<Job>,
    frames: BTreeMap<LinkId, VecDeque<Frame>>,
    answers: BTreeMap<Ticket, AdminAnswer>,
    last_link: u64,
    last_ticket: u64,
    starts: u64,
}

impl World {
    /// A node with this id and an empty store.
    pub fn new(id: &str) -> Self {
        Self::with(Config::new(NodeId::new(id).expect("tests use good names")))
    }

    /// A node with this configuration and an empty store.
    pub fn with(config: Config) -> Self {
        let now = Now { instant: Instant::from_micros(0), wall: BEGINNING };
        let id = config.id.as_str().bytes().map(u128::from).sum();
        let store = MemoryStore::new(id);
        let node = Node::new(config.clone(), store.recovered(), 1, now);
        let mut world = Self {
            node,
            store,
            now,
            closed: BTreeMap::new(),
            admitted: BTreeSet::new(),
            dials: Vec::new(),
            events: Vec::new(),
            trace: Vec::new(),
            halted: None,
            stopped: false,
            answers_pings: true,
            takes_frames: true,
            untaken: Vec::new(),
            config,
            jobs: VecDeque::new(),
            frames: BTreeMap::new(),
            answers: BTreeMap::new(),
            last_link: 0,
            last_ticket: 0,
            starts: 1,
        };
        world.settle();
        world
    }

    /// Ends the node as `kill -9` does and starts it on what is durable.
    pub fn crash(&mut self) {
        self.restart();
        self.settle();
    }

    /// The same; the store has yet to do what the new start asks.
    pub fn restart(&mut self) {
        self.starts += 1;
        self.jobs.clear();
        self.frames.clear();
        let recovered = self.store.recovered();
        self.node = Node::new(self.config.clone(), recovered, self.starts, self.now);
        self.drain();
    }

    /// Gives the node an input and takes what comes out.
    pub fn give(&mut self, input: Input) {
        self.node.handle(input, self.now);
        self.drain();
    }

    /// Connects an application that speaks JSON.
    pub fn connect(&mut self, query: &str) -> LinkId {
        self.link(Protocol::Json, None, query)
    }

    /// Opens a link, dialled by the node or accepted.
    pub fn link(&mut self, protocol: Protocol, dial: Option<DialId>, query: &str) -> LinkId {
        self.last_link += 1;
        let link = LinkId::new(self.last_link);
        let (remote, query) = ("127.0.0.1:1".into(), query.into());
        self.give(Input::LinkUp(LinkUp { link, dial, protocol, remote, query }));
        link
    }

    /// The Hello of a node that exists only in frames: without tags, group and features.
    pub fn hello(&self, node: &str) -> Hello {
        Hello {
            protocol: 1,
            node: node.into(),
            store: StoreId(77),
            incarnation: Incarnation::new(1),
            group: String::new(),
            tags: String::new(),
            wall: self.now.wall,
            durability: Durability::Full,
            features: 0,
            max_message_bytes: 1 << 20,
            max_frame_bytes: 4 << 20,
            reported: Position::default(),
            reported_incarnation: Incarnation::default(),
        }
    }

    /// A link from such a node, which has said this Hello.
    pub fn greet(&mut self, hello: Hello) -> LinkId {
        let link = self.link(Protocol::Postcard, None, "");
        self.binary(link, PeerFrame::Hello(hello).encode());
        self.settle();
        link
    }

    /// Sends a binary frame.
    pub fn binary(&mut self, link: LinkId, frame: Bytes) {
        self.give(Input::Received { link, frame: Frame::Binary(frame) });
    }

    /// Sends a text frame.
    pub fn text(&mut self, link: LinkId, text: &str) {
        let frame = Frame::Text(Bytes::copy_from_slice(text.as_bytes()));
        self.give(Input::Received { link, frame });
    }

    /// Publishes `value` under `key`; `id` is the `messageId`.
    pub fn publish(&mut self, link: LinkId, id: &str, key: &str, value: &str) {
        let frame = format!(r#"{{"type":"SK","messageId":"{id}","key":"{key}","value":{value}}}"#);
        self.text(link, &frame);
    }

    /// The link is lost.
    pub fn lose(&mut self, link: LinkId) {
        self.give(Input::LinkDown { link, code: None, reason: "lost".into() });
    }

    /// Takes the JSON frames that were sent on a link.
    pub fn said(&mut self, link: LinkId) -> Vec<Value> {
        let frames = self.frames.remove(&link).unwrap_or_default();
        let texts = frames.into_iter().filter_map(|frame| match frame {
            Frame::Text(text) => Some(serde_json::from_slice(&text).expect("the node sends JSON")),
            Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_) => None,
        });
        texts.collect()
    }

    /// Puts JSON frames back that were taken and not looked at.
    pub fn put_back(&mut self, link: LinkId, frames: &[Value]) {
        let queue = self.frames.entry(link).or_default();
        for frame in frames.iter().rev() {
            queue.push_front(Frame::Text(frame.to_string().into()));
        }
    }

    /// Takes all frames that were sent on a link.
    pub fn frames(&mut self, link: LinkId) -> Vec<Frame> {
        self.frames.remove(&link).unwrap_or_default().into()
    }

    /// Bytes that open links have been sent and their sockets have not taken.
    pub fn untaken_bytes(&self) -> usize {
        let open = self.untaken.iter().filter(|(link, _)| !self.closed.contains_key(link));
        open.map(|(_, cost)| cost).sum()
    }

    /// The sockets take everything, now and from now on.
    pub fn take_frames(&mut self) {
        self.takes_frames = true;
        for (link, cost) in std::mem::take(&mut self.untaken) {
            self.give(Input::Sent { link, frames: 1, cost });
        }
    }

    /// Whether the store has something to do.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Lets the store do all it is asked, until nothing is left.
    pub fn settle(&mut self) {
        self.drain();
        while let Some(job) = self.jobs.pop_front() {
            self.work(job);
        }
    }

    /// Lets the store do the next thing.
    pub fn step(&mut self) {
        if let Some(job) = self.jobs.pop_front() {
            self.work(job);
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Commit(batch) => {
                self.store.commit(&batch);
                let (usage, took) = (self.store.usage(), Duration::from_micros(200));
                self.give(Input::Committed(Committed { batch, usage, took }));
            }
            Job::Fetch(fetch, query) => {
                let answer = Ok(self.store.answer(query));
                self.give(Input::Fetched { fetch, answer });
            }
        }
    }

    /// The next thing for the store must be a commit: it fails.
    pub fn fail_commit(&mut self, failure: StoreFailure) {
        match self.jobs.pop_front() {
            Some(Job::Commit(batch)) => {
                self.give(Input::CommitFailed(CommitFailed { batch, failure }));
            }
            other => panic!("a commit was to fail, there is {other:?}"),
        }
    }

    /// If the next thing for the store is a commit, it fails. Answers whether it was one.
    pub fn fail_if_commit(&mut self, failure: StoreFailure) -> bool {
        let is_commit = matches!(self.jobs.front(), Some(Job::Commit(_)));
        if is_commit {
            self.fail_commit(failure);
        }
        is_commit
    }

    /// Lets time pass; every timer fires when it is due, and the store works.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        let mut turns = 0;
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= end) {
            turns += 1;
            assert!(turns < 100_000, "a timer is always due");
            self.advance_to(at.max(self.now.instant));
            self.give(Input::Timer);
            self.settle();
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, instant: Instant) {
        self.now.wall = self.now.wall.plus(instant.since(self.now.instant));
        self.now.instant = instant;
    }

    /// Asks the node something, and lets the store work until it has answered.
    pub fn ask(&mut self, request: AdminRequest) -> AdminAnswer {
        self.last_ticket += 1;
        let ticket = Ticket::new(self.last_ticket);
        self.give(Input::Admin { ticket, request });
        self.settle();
        self.answers.remove(&ticket).expect("every request is answered")
    }

    /// The state of the node.
    pub fn status(&mut self) -> Status {
        match self.ask(AdminRequest::Status) {
            AdminAnswer::Status(status) => *status,
            other => panic!("not a status: {other:?}"),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            self.trace.push(format!("{:?} {output:?}", self.now));
            match output {
                Output::Commit(batch) => self.jobs.push_back(Job::Commit(batch)),
                Output::Fetch { fetch, query } => self.jobs.push_back(Job::Fetch(fetch, query)),
                Output::Transmit { link, frame } => {
                    let cost = frame.cost();
                    let ping = match &frame {
                        Frame::Ping(payload) if self.answers_pings => Some(payload.clone()),
                        _ => None,
                    };
                    let is_control = frame.is_control();
                    self.frames.entry(link).or_default().push_back(frame);
                    if is_control {
                        // Nobody says when it is sent.
                    } else if self.takes_frames {
                        self.node.handle(Input::Sent { link, frames: 1, cost }, self.now);
                    } else {
                        self.untaken.push((link, cost));
                    }
                    if let Some(payload) = ping {
                        let frame = Frame::Pong(payload);
                        self.node.handle(Input::Received { link, frame }, self.now);
                    }
                }
                Output::Close { link, close } => drop(self.closed.insert(link, close)),
                Output::Dial { dial, url } => self.dials.push((dial, url)),
                Output::Admin { ticket, answer } => drop(self.answers.insert(ticket, answer)),
                Output::Event(event) => self.events.push(event),
                Output::Stopped => self.stopped = true,
                Output::Halt(failure) => self.halted = Some(failure),
                Output::Admit(link) => drop(self.admitted.insert(link)),
                Output::Observe(_) | Output::Pause(_) | Output::Resume(_) => {}
            }
        }
    }
}

/// A link between two worlds: its number on either side.
#[derive(Debug, Clone, Copy)]
pub struct Wire(pub LinkId, pub LinkId);

/// `a` dials `b`. Nothing is carried yet.
pub fn join(a: &mut World, b: &mut World) -> Wire {
    let (dial, _) = a.dials.pop().expect("the first has a peer to dial");
    let there = b.link(Protocol::Postcard, None, "");
    let here = a.link(Protocol::Postcard, Some(dial), "");
    Wire(here, there)
}

/// Carries frames both ways, and lets both stores work, until everything is quiet.
pub fn carry(a: &mut World, b: &mut World, wire: Wire) {
    for _ in 0..1_000 {
        a.settle();
        b.settle();
        let (to_b, to_a) = (a.frames(wire.0), b.frames(wire.1));
        let is_ping = |frame: &Frame| matches!(frame, Frame::Ping(_));
        if to_a.iter().chain(&to_b).all(is_ping) {
            return;
        }
        for frame in to_b {
            b.give(Input::Received { link: wire.1, frame });
        }
        for frame in to_a {
            a.give(Input::Received { link: wire.0, frame });
        }
    }
    panic!("two nodes never become quiet");
}
