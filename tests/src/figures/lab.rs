//! Nodes of the core on virtual time, with links that are all alike and fail only as they are told.
//!
//! Everything takes the same time each time, and nothing is drawn: a run follows from its shape,
//! its traffic and what is done to it. Each node has a store in memory whose commits take as long
//! as a sync of a good disk, and one application that publishes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use slipstream_core::Node;
use slipstream_core::admin::{AdminAnswer, AdminRequest, Status};
use slipstream_core::config::Config;
use slipstream_core::ids::{FetchId, LinkId, NodeId, Ticket};
use slipstream_core::io::{Frame, Input, LinkUp, Output, Protocol};
use slipstream_core::store::{Batch, Committed, Query, Usage};
use slipstream_core::tags::TagSet;
use slipstream_core::time::{Instant, Now, WallMs};

use super::cables::{Cable, Conn};
use super::counts::{Arrival, Crossings, Letter};
use super::shape::Shape;
use super::traffic::Traffic;
use crate::simulator::{Micros, SECOND};
use crate::world::MemoryStore;

/// How long a frame travels from a node to another one.
pub const HOP: Micros = 5_000;
/// How long a commit takes.
pub const COMMIT: Micros = 2_000;
/// How long an answer of the store takes.
const FETCH: Micros = 200;
/// How long a node gathers inputs before it takes them.
const TURN: Micros = 50;
/// How long a mesh may take to know itself.
const SETTLE: Micros = 30 * SECOND;

/// Wall clock at the beginning.
const BEGINNING: WallMs = WallMs(1_790_000_000_000);

/// Work for a store.
#[derive(Debug)]
enum Job {
    Commit(Box<Batch>),
    Fetch(FetchId, Query),
}

/// What the other end of a link is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Far {
    /// Another node: the connection, and the side of it that this node has.
    Node(usize, usize),
    /// The application that publishes.
    Till,
}

/// A node and what is around it.
#[derive(Debug)]
pub(super) struct Site {
    /// `None`: it was killed, or has its turn.
    node: Option<Node>,
    is_living: bool,
    store: MemoryStore,
    inbox: VecDeque<Input>,
    turn: bool,
    timer: Option<Micros>,
    jobs: VecDeque<Job>,
    pub(super) links: BTreeMap<LinkId, Far>,
    pub(super) last_link: u64,
    till: LinkId,
    status: Option<Box<Status>>,
}

/// Something that is arranged.
#[derive(Debug)]
pub(super) enum Event {
    /// A node takes what waits for it.
    Turn(usize),
    /// The timer of a node.
    Timer(usize),
    /// The store of a node has done its job.
    Done(usize),
    /// A frame arrives, sent by this side of a connection.
    Arrival { conn: usize, side: usize, frame: Frame },
    /// A connection is open for this side of it.
    Up { conn: usize, side: usize },
    /// This side of a connection notices that it is gone.
    Down { conn: usize, side: usize },
    /// A message is published.
    Publish(usize),
}

/// A mesh.
#[derive(Debug)]
pub struct Lab {
    /// The time.
    pub now: Micros,
    /// What has crossed links between nodes.
    pub crossings: Crossings,
    /// What was published, in order.
    pub letters: Vec<Letter>,
    /// When an end of a link noticed last that it is gone.
    pub noticed: Micros,
    pub(super) sites: Vec<Site>,
    pub(super) cables: Vec<Cable>,
    pub(super) conns: Vec<Conn>,
    pub(super) traffic: Option<Traffic>,
    queue: BTreeMap<(Micros, u64), Event>,
    order: u64,
}

impl Lab {
    /// A mesh of this shape, whose nodes know each other.
    ///
    /// # Panics
    /// If they never do.
    pub fn new(shape: &Shape) -> Self {
        let cables = shape.links.iter().map(|(from, to)| Cable::new(*from, *to)).collect();
        let mut lab = Self {
            now: 0,
            crossings: Crossings::default(),
            letters: Vec::new(),
            noticed: 0,
            sites: Vec::new(),
            cables,
            conns: Vec::new(),
            traffic: None,
            queue: BTreeMap::new(),
            order: 0,
        };
        for node in 0..shape.nodes {
            let peers = shape.links.iter().filter(|(from, _)| *from == node);
            let site = Site::new(node, peers.map(|(_, to)| url(*to)).collect());
            lab.sites.push(site);
            lab.give_till(node);
        }
        lab.settle();
        lab
    }

    fn give_till(&mut self, node: usize) {
        let site = &mut self.sites[node];
        let link = site.new_link(Far::Till);
        site.till = link;
        let (remote, query) = ("127.0.0.1:1".into(), "client=till&keys=".into());
        let up = LinkUp { link, dial: None, protocol: Protocol::Json, remote, query };
        self.give(node, Input::LinkUp(up));
    }

    /// Lets time pass until every living node knows a way to every other one, and nobody has had
    /// anything to tell for two seconds.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn settle(&mut self) {
        let end = self.now + SETTLE;
        loop {
            self.run(2 * SECOND);
            if self.knows_itself() {
                return self.run(2 * SECOND);
            }
            assert!(self.now < end, "the mesh never knows itself");
        }
    }

    fn knows_itself(&mut self) -> bool {
        let living: Vec<usize> = self.living().collect();
        living.iter().all(|node| {
            let topology = self.status(*node).topology;
            topology.iter().filter(|node| node.reachable).count() == living.len()
        })
    }

    /// The nodes that were not killed.
    pub fn living(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.sites.len()).filter(|node| self.is_living(*node))
    }

    /// Whether the node was not killed.
    pub fn is_living(&self, node: usize) -> bool {
        self.sites[node].is_living
    }

    /// How often sessions were set back, over all living nodes.
    pub fn rewinds(&mut self) -> u64 {
        let living: Vec<usize> = self.living().collect();
        let of = |node: usize| self.status(node).counters.rewinds.values().sum::<u64>();
        living.into_iter().map(of).sum()
    }

    /// The state of a living node.
    fn status(&mut self, node: usize) -> Status {
        self.give(node, Input::Admin { ticket: Ticket::new(1), request: AdminRequest::Status });
        self.run(2 * TURN);
        *self.sites[node].status.take().expect("a living node answers at once")
    }

    /// Lets so much time pass.
    pub fn run(&mut self, time: Micros) {
        let end = self.now + time;
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    /// Arranges an event so long from now.
    pub(super) fn at(&mut self, after: Micros, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + after, self.order), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(node) => self.turn(node),
            Event::Timer(node) => {
                if self.sites[node].timer == Some(self.now) {
                    self.sites[node].timer = None;
                    self.give(node, Input::Timer);
                }
            }
            Event::Done(node) => self.done(node),
            Event::Arrival { conn, side, frame } => self.arrive(conn, side, frame),
            Event::Up { conn, side } => self.up(conn, side),
            Event::Down { conn, side } => self.down(conn, side),
            Event::Publish(number) => self.publish(number),
        }
    }

    /// Puts an input before a node, and arranges a turn.
    pub(super) fn give(&mut self, node: usize, input: Input) {
        let site = &mut self.sites[node];
        if !site.is_living {
            return;
        }
        site.inbox.push_back(input);
        if !site.turn {
            site.turn = true;
            self.at(TURN, Event::Turn(node));
        }
    }

    /// Puts a text frame of its application before a node.
    pub(super) fn say(&mut self, node: usize, text: String) {
        let link = self.sites[node].till;
        self.give(node, Input::Received { link, frame: Frame::Text(Bytes::from(text)) });
    }

    fn turn(&mut self, number: usize) {
        let now = reading(self.now);
        let site = &mut self.sites[number];
        site.turn = false;
        let Some(mut node) = site.node.take() else { return };
        for input in std::mem::take(&mut site.inbox) {
            node.handle(input, now);
        }
        while let Some(output) = node.poll_output() {
            self.carry_out(number, &mut node, output);
        }
        let timer = node.poll_timeout().map(|at| at.as_micros().max(self.now));
        let site = &mut self.sites[number];
        site.node = Some(node);
        if site.timer != timer {
            site.timer = timer;
            timer.into_iter().for_each(|at| self.at(at - self.now, Event::Timer(number)));
        }
    }

    fn carry_out(&mut self, number: usize, node: &mut Node, output: Output) {
        match output {
            Output::Commit(batch) => self.ask(number, Job::Commit(batch)),
            Output::Fetch { fetch, query } => self.ask(number, Job::Fetch(fetch, query)),
            Output::Transmit { link, frame } => {
                let cost = frame.cost();
                if !frame.is_control() {
                    node.handle(Input::Sent { link, frames: 1, cost }, reading(self.now));
                }
                self.transmit(number, link, frame);
            }
            Output::Close { link, close } => {
                panic!("{} closes {link:?}: {close:?}", node_name(number));
            }
            Output::Dial { dial, url } => self.dial(number, dial, &url),
            Output::Admin { answer: AdminAnswer::Status(status), .. } => {
                self.sites[number].status = Some(status);
            }
            Output::Halt(failure) => panic!("{} halts: {failure}", node_name(number)),
            Output::Admin { .. }
            | Output::Admit(_)
            | Output::Pause(_)
            | Output::Resume(_)
            | Output::Event(_)
            | Output::Observe(_)
            | Output::Stopped => {}
        }
    }

    fn ask(&mut self, number: usize, job: Job) {
        self.sites[number].jobs.push_back(job);
        if self.sites[number].jobs.len() == 1 {
            self.begin_job(number);
        }
    }

    fn begin_job(&mut self, number: usize) {
        let took = match self.sites[number].jobs.front() {
            Some(Job::Commit(_)) => COMMIT,
            Some(Job::Fetch(..)) => FETCH,
            None => return,
        };
        self.at(took, Event::Done(number));
    }

    fn done(&mut self, number: usize) {
        let site = &mut self.sites[number];
        let Some(job) = site.jobs.pop_front() else { return };
        let input = match job {
            Job::Commit(batch) => {
                site.store.commit(&batch);
                for row in &batch.rows {
                    let letter: usize = row.message.id().parse().expect("the lab's own id");
                    let links = row.message.path().split(',').count() as u64 - 1;
                    let arrival = Arrival { at: self.now, links };
                    self.letters[letter].durable[number].get_or_insert(arrival);
                }
                let (usage, took) = (Usage::default(), Duration::from_micros(COMMIT));
                Input::Committed(Committed { batch, usage, took })
            }
            Job::Fetch(fetch, query) => {
                Input::Fetched { fetch, answer: Ok(site.store.answer(query)) }
            }
        };
        self.give(number, input);
        self.begin_job(number);
    }

    /// Ends a node as `kill -9` does; its neighbours notice a hop later.
    pub fn kill(&mut self, number: usize) {
        let site = &mut self.sites[number];
        site.is_living = false;
        (site.node, site.timer) = (None, None);
        site.inbox.clear();
        site.jobs.clear();
        for far in std::mem::take(&mut site.links).into_values() {
            if let Far::Node(conn, side) = far {
                self.end(conn, &[1 - side]);
            }
        }
    }
}

impl Site {
    fn new(number: usize, peers: Vec<String>) -> Self {
        let name = node_name(number);
        let mut config = Config::new(NodeId::new(&name).expect("the lab's names are good"));
        config.tags = TagSet::new([name.as_str()]).expect("the lab's tags are good");
        config.peers = peers;
        let mut store = MemoryStore::new(1 + number as u128);
        store.keeps_everything = true;
        let node = Node::new(config, store.recovered(), 1 + number as u64, reading(0));
        Self {
            node: Some(node),
            is_living: true,
            store,
            inbox: VecDeque::new(),
            turn: false,
            timer: None,
            jobs: VecDeque::new(),
            links: BTreeMap::new(),
            last_link: 0,
            till: LinkId::new(0),
            status: None,
        }
    }

    /// The number of a new link to this end.
    pub(super) fn new_link(&mut self, far: Far) -> LinkId {
        self.last_link += 1;
        let link = LinkId::new(self.last_link);
        self.links.insert(link, far);
        link
    }
}

/// The name of a node, and its only tag.
pub(super) fn node_name(number: usize) -> String {
    format!("cloud-{number:02}")
}

fn url(number: usize) -> String {
    format!("ws://{}:7400/", node_name(number))
}

/// The node that a URL leads to.
pub(super) fn node_of(url: &str) -> Option<usize> {
    url.strip_prefix("ws://cloud-")?.split(':').next()?.parse().ok()
}

fn reading(now: Micros) -> Now {
    let wall = BEGINNING.plus(Duration::from_micros(now));
    Now { instant: Instant::from_micros(now), wall }
}
