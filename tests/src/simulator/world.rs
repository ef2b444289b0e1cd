//! The world of one run: what there is, what happens next, and who is told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use slipstream_core::admin::Status;

use super::application::App;
use super::counts::{Counts, Fault};
use super::facts::{Fact, View};
use super::invariants::Invariants;
use super::ledger::Ledger;
use super::liar::Liar;
use super::network::{ConnId, Network};
use super::plan::{Micros, Plan, SECOND, node_name};
use super::random::Random;
use super::site::Site;
use super::trace::Trace;
use super::twins::Twins;
use super::widening::Widened;
use super::{Depth, Failure};

/// Events at one moment above which nothing moves on: a livelock of the world itself.
const EVENTS_AT_ONCE: u32 = 200_000;

/// Something that is arranged.
#[derive(Debug)]
pub enum Event {
    /// A node takes what waits for it.
    Turn { site: usize, life: u64 },
    /// The timer of a node.
    Timer { site: usize, life: u64 },
    /// The disk of a node has done its job.
    JobDone { site: usize, life: u64 },
    /// A node is told what its disk has done.
    Told { site: usize, life: u64, input: Box<slipstream_core::io::Input> },
    /// Something arrives on a connection, sent by this side.
    Arrival { conn: ConnId, side: usize },
    /// A frame that this side has sent is still on its way, and has come a little further.
    Moving { conn: ConnId, side: usize },
    /// An end notices that its connection is gone.
    Gone { conn: ConnId, side: usize, code: Option<u16>, reason: &'static str },
    /// What came of a dial.
    DialDone { site: usize, life: u64, dial: slipstream_core::ids::DialId, target: Option<usize> },
    /// A node is started.
    Start { site: usize },
    /// A node is killed, if it is still in this life.
    Kill { site: usize, life: u64 },
    /// An application connects.
    Connect { app: usize },
    /// An application publishes.
    Publish { app: usize },
    /// An application settles a delivery.
    Settle { app: usize, conn: ConnId, said: super::application::Said },
    /// An application reads again.
    ReadAgain { app: usize, conn: ConnId },
    /// A fault is due.
    Fault(Fault),
    /// A fault that lasted is over.
    Over(Over),
    /// The address of a peer changes.
    MovePeer,
    /// So far that nothing more is to be done about it.
    Moved((usize, usize)),
    /// Two nodes that dial each other lose their links.
    LoseBoth,
    /// A node is cloned.
    Clone,
    /// Its twin stops.
    TwinEnds,
    /// A second has passed.
    Second,
    /// The liar says something.
    Lie,
}

/// The end of something that lasted.
#[derive(Debug)]
pub enum Over {
    /// The disk is as it was.
    Disk(usize),
    /// The clock is right again.
    Clock(usize),
    /// The clock that was ahead from the beginning is right.
    WrongClock(usize),
    /// An operator says so.
    Doubt(usize),
    /// A node that was told to go may be drained now.
    Removal { site: usize, tries: u32 },
}

/// An event, and when it happens: those of one moment in the order in which they were arranged.
/// Boxed, because entries of the queue move.
#[derive(Debug)]
struct Arranged {
    at: Micros,
    order: u64,
    event: Box<Event>,
}

impl Arranged {
    fn key(&self) -> (Micros, u64) {
        (self.at, self.order)
    }
}

impl Ord for Arranged {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Arranged {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Arranged {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Arranged {}

/// Everything.
#[derive(Debug)]
pub struct World {
    /// What the seed has drawn.
    pub plan: Plan,
    /// How thorough the run is.
    pub depth: Depth,
    /// The time.
    pub now: Micros,
    /// Chance.
    pub random: Random,
    /// The nodes.
    pub sites: Vec<Site>,
    /// Their names.
    pub names: Vec<String>,
    /// Which were removed for good.
    pub removed: Vec<bool>,
    /// Who dials whom now.
    pub edges: Vec<(usize, usize)>,
    /// The connections.
    pub network: Network,
    /// The applications.
    pub apps: Vec<App>,
    /// The peer that lies.
    pub liar: Option<Liar>,
    /// What is durable where.
    pub ledger: Ledger,
    /// What has been seen.
    pub counts: Counts,
    /// What happened.
    pub trace: Trace,
    /// The first rule that was broken.
    pub failure: Option<Failure>,
    /// Everything has healed.
    pub healed: bool,
    /// The node that was cloned.
    pub twins: Option<Twins>,
    /// What has become of what the seed draws besides.
    pub widened: Widened,
    /// What each node last said of itself.
    pub statuses: BTreeMap<usize, Status>,
    /// When the last fault of each kind was injected.
    pub last_faults: BTreeMap<Fault, Micros>,
    invariants: Invariants,
    /// What is arranged, the next on top.
    queue: BinaryHeap<Reverse<Arranged>>,
    order: u64,
    events_now: (Micros, u32),
}

impl World {
    /// The world of this plan, at its beginning.
    pub fn new(plan: Plan, depth: Depth, in_words: bool) -> Self {
        let mut world = Self {
            depth,
            now: 0,
            random: Random::new(plan.seed ^ 0x0005_1195_74ea_0000),
            sites: Vec::new(),
            names: Vec::new(),
            removed: Vec::new(),
            edges: plan.edges.clone(),
            network: Network::default(),
            apps: Vec::new(),
            liar: None,
            ledger: Ledger::new(&plan),
            counts: Counts::default(),
            trace: Trace::new(in_words),
            failure: None,
            healed: false,
            twins: None,
            widened: Widened::new(plan.seed),
            statuses: BTreeMap::new(),
            last_faults: BTreeMap::new(),
            invariants: Invariants::default(),
            queue: BinaryHeap::new(),
            order: 0,
            events_now: (0, 0),
            plan,
        };
        for site in 0..world.plan.nodes {
            world.add_site(site);
        }
        world.at(SECOND, Event::Second);
        world
    }

    /// The first phase: traffic and faults.
    pub fn chaos(&mut self) {
        self.arrange_faults();
        self.arrange_widening();
        if let Some(cloning) = self.plan.cloning {
            self.at(cloning.at, Event::Clone);
        }
        let end = self.plan.chaos;
        self.run_until(end);
    }

    /// Arranges an event so long from now.
    pub fn at(&mut self, after: Micros, event: Event) {
        self.order += 1;
        let (at, order, event) = (self.now + after, self.order, Box::new(event));
        self.queue.push(Reverse(Arranged { at, order, event }));
    }

    /// Lets everything happen up to a time, or to the first failure.
    pub fn run_until(&mut self, end: Micros) {
        while self.failure.is_none()
            && self.queue.peek().is_some_and(|next| next.0.at <= end)
            && let Some(Reverse(Arranged { at, event, .. })) = self.queue.pop()
        {
            self.now = at;
            if self.events_now.0 != at {
                self.events_now = (at, 0);
            }
            self.events_now.1 += 1;
            if self.events_now.1 > EVENTS_AT_ONCE {
                self.fail("no livelock", "the time stands still".into(), Vec::new());
                return;
            }
            self.happen(*event);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn { site, life } => self.turn(site, life),
            Event::Timer { site, life } => self.timer(site, life),
            Event::JobDone { site, life } => self.job_done(site, life),
            Event::Told { site, life, input } => self.told(site, life, *input),
            Event::Arrival { conn, side } => self.arrival(conn, side),
            Event::Moving { conn, side } => self.moving(conn, side),
            Event::Gone { conn, side, code, reason } => self.gone(conn, side, code, reason),
            Event::DialDone { site, life, dial, target } => {
                self.dial_done(site, life, dial, target);
            }
            Event::Start { site } => self.start(site),
            Event::Kill { site, life } => self.kill_life(site, life),
            Event::Connect { app } => self.connect(app),
            Event::Publish { app } => self.publish(app),
            Event::Settle { app, conn, said } => self.settle(app, conn, said),
            Event::ReadAgain { app, conn } => self.read_again(app, conn),
            Event::Fault(fault) => self.fault(fault),
            Event::Over(over) => self.over(over),
            Event::Second => {
                self.tell(&Fact::Second);
                self.look_after_dead_letters();
                self.at(SECOND, Event::Second);
            }
            Event::MovePeer => self.move_peer(),
            Event::Moved(edge) => self.moved(edge),
            Event::LoseBoth => self.lose_both(),
            Event::Clone => self.clone_node(),
            Event::TwinEnds => self.end_twin(),
            Event::Lie => self.lie(),
        }
    }

    /// Tells every invariant a fact.
    pub fn tell(&mut self, fact: &Fact<'_>) {
        if self.failure.is_some() {
            return;
        }
        self.ledger.now = self.now;
        let view = View {
            now: self.now,
            plan: &self.plan,
            ledger: &self.ledger,
            apps: &self.apps,
            names: &self.names,
            removed: &self.removed,
            twins: self.twins,
            digests: &[],
        };
        if let Err((name, broken)) = self.invariants.see(fact, &view) {
            self.fail(name, broken.what, broken.subjects);
        }
    }

    /// Asks every invariant to look at everything, after healing.
    pub fn judge(&mut self) {
        let stores = self.sites.iter().map(|site| &site.disk.durable);
        let digests: Vec<_> = stores.map(|store| store.roots().into_iter().collect()).collect();
        let view = View {
            now: self.now,
            plan: &self.plan,
            ledger: &self.ledger,
            apps: &self.apps,
            names: &self.names,
            removed: &self.removed,
            twins: self.twins,
            digests: &digests,
        };
        if let Err((name, broken)) = self.invariants.settled(&view, &self.statuses) {
            self.fail(name, broken.what, broken.subjects);
        }
    }

    /// A rule is broken: the run ends. Only the first one counts.
    pub fn fail(&mut self, invariant: &'static str, what: String, subjects: Vec<String>) {
        let (at, tail) = (self.now, Vec::new());
        self.failure.get_or_insert(Failure { invariant, at, what, subjects, tail });
    }

    /// Adds a line to the trace.
    pub fn say(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.in_words() {
            let line = line(self);
            self.trace.say(self.now, || line);
        }
    }

    /// The name of a new site.
    pub fn name_for(&self, site: usize) -> String {
        node_name(self.plan.seed, site)
    }
}
