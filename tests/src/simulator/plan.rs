//! What a seed has drawn: the mesh, its traffic, and the faults with their rates (swarm testing:
//! each seed has its own subset, so that no fault hides behind another one).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use slipstream_core::config::Config;
use slipstream_core::ids::NodeId;
use slipstream_core::tags::TagSet;

use super::counts::Fault;
use super::random::Random;
use super::twins::Cloning;
use super::widening::{MAX_TAGS, Widening};
use super::wrong_clock::WrongClock;

/// Microseconds of virtual time.
pub type Micros = u64;

/// What groups are drawn from besides the seed, for the same reason.
const GROUP: u64 = 0x0067_726f_7570_0000;

/// And clocks near the limit, with events that live shortly.
const NEAR_LIMIT: u64 = 0x006e_6561_7200_0000;

/// What slow links are drawn from besides the seed, for the same reason.
const SLOW: u64 = 0x736c_6f77_0000_0000;
/// Bytes a second of a slow link: a large value takes longer than its heartbeat waits.
const SLOW_RATE: u64 = 25_000;

/// One second.
pub const SECOND: Micros = 1_000_000;

/// What outboxes are drawn from besides the seed, so that the rest of a run stays what it was.
const CONFLATION: u64 = 0x636f_6e66_6c61_7465;

/// Shape of the mesh at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Shape {
    Line,
    Ring,
    Star,
    Full,
    Random,
}

/// From and to, both included.
pub type Range = (Micros, Micros);

/// Everything that a seed decides before the first event.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Shape of the mesh.
    pub shape: Shape,
    /// Who dials whom.
    pub edges: Vec<(usize, usize)>,
    /// Tags of each node, those that may be added later included.
    pub tags: Vec<Vec<&'static str>>,
    /// Length of the first phase.
    pub chaos: Micros,
    /// How long a frame travels.
    pub latency: Range,
    /// How long a commit takes.
    pub commit: Range,
    /// Inputs that a node takes at most before it is drained.
    pub inputs_a_turn: u64,
    /// Bytes that a connection takes before its sender must wait.
    pub pipe_bytes: usize,
    /// Bytes a second that a connection between nodes carries; none: as many as there are.
    pub rate: Option<u64>,
    /// Keys that are written.
    pub keys: u64,
    /// Whether each key is always written for the same tags.
    pub fixed_tags: bool,
    /// Publishers per node, of a thousand.
    pub publishers: u64,
    /// Mean time between two messages of a publisher.
    pub publish_every: Micros,
    /// Bytes of padding in a value.
    pub padding: Range,
    /// Events, of a thousand messages.
    pub events: u64,
    /// Time to live of events, milliseconds; none: the node's.
    pub ttl_ms: Option<u64>,
    /// Consumers per node.
    pub consumers: u64,
    /// Of a thousand publishes, so many are repeated, reuse an id, or are no proper frame.
    pub odd_frames: u64,
    /// Mean time between two of each fault; a fault that is not here does not happen.
    pub faults: BTreeMap<Fault, Micros>,
    /// Longest time that a fault lasts.
    pub fault_length: Micros,
    /// Of a thousand publishes of state, so many are deletes.
    pub deletes: u64,
    /// Of a thousand publishes, so many are followed by a read.
    pub reads: u64,
    /// Whether clocks are so far apart as they may be, and events live shortly.
    pub is_near_limit: bool,
    /// Whether the first two nodes are of one cluster group, and a program publishes through both.
    pub group: bool,
    /// What it draws besides.
    pub widening: Widening,
    /// When a node is cloned, if one is.
    pub cloning: Option<Cloning>,
    /// Whose clock is far ahead at the beginning.
    pub wrong_clock: Option<WrongClock>,
    /// What every node is told.
    pub settings: Settings,
}

/// The part of the configuration that is drawn.
#[derive(Debug, Clone)]
pub struct Settings {
    heartbeat: Duration,
    max_backoff: Duration,
    /// How long the first hand-over may stay unacknowledged.
    pub ack_timeout: Duration,
    /// Hand-overs before a dead letter.
    pub max_attempts: u32,
    /// Repeats a second.
    pub max_rate: u32,
    /// Deliveries that may be unacknowledged.
    pub window: usize,
    /// Bound of the history: none, or so small that it is reached.
    pub history: Option<u64>,
    /// Bound of the store: none, or so small that it is reached.
    pub max_bytes: Option<u64>,
    /// Bound of an outbox: none, or so small that it is reached.
    pub session_max: Option<u64>,
}

impl Plan {
    /// What this seed draws.
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let nodes = random.pick(&[2, 2, 3, 3, 3, 4, 4, 5, 6, 7, 8, 9]);
        let shape =
            random.pick(&[Shape::Line, Shape::Ring, Shape::Star, Shape::Full, Shape::Random]);
        let faults = draw_faults(&mut random);
        let padding = random.pick(&[(0, 40), (0, 40), (0, 40), (0, 400), (0, 4_000), (0, 60_000)]);
        // Large values, to fill credit and pipes, come more slowly.
        let slower = if padding.1 > 10_000 { 4 } else { 1 };
        let chaos = random.between(8, 40) * SECOND;
        let publishers = random.pick(&[300, 600, 1000]);
        let settings = Settings::draw(&mut random, seed, nodes, padding.1);
        let mut plan = Self {
            seed,
            nodes,
            shape,
            edges: edges(shape, nodes, &mut random),
            tags: (0..nodes + 3).map(|_| tags(&mut random)).collect(),
            chaos,
            latency: random.pick(&[(50, 300), (200, 2_000), (5_000, 50_000), (100, 150_000)]),
            commit: random.pick(&[(100, 400), (100, 400), (300, 5_000), (1_000, 60_000)]),
            inputs_a_turn: random.pick(&[1, 4, 64]),
            pipe_bytes: random.pick(&[2 << 10, 64 << 10, 512 << 10]),
            rate: None,
            keys: random.pick(&[1, 3, 10, 40]),
            fixed_tags: random.chance(700),
            publishers,
            publish_every: random.pick(&[200_000, 600_000, 2_000_000])
                * (nodes as u64).div_ceil(3)
                * slower,
            padding,
            events: random.pick(&[0, 200, 500, 1000]),
            ttl_ms: random.pick(&[None, None, Some(500), Some(5_000), Some(60_000)]),
            consumers: random.between(1, 2),
            odd_frames: random.pick(&[0, 50, 200]),
            faults,
            fault_length: random.pick(&[1, 4, 15]) * SECOND,
            deletes: random.pick(&[0, 50, 300]),
            reads: random.pick(&[0, 100, 400]),
            is_near_limit: false,
            group: Random::new(seed ^ GROUP).chance(300),
            widening: Widening::draw(seed, nodes),
            cloning: Cloning::draw(seed, chaos),
            wrong_clock: None,
            settings,
        };
        let mut blurs = DESTRUCTIVE.iter().chain(&[Fault::NodeRemoved, Fault::Lie]);
        if plan.cloning.is_none() && !blurs.any(|fault| plan.faults.contains_key(fault)) {
            // What a node with a wrong clock holds alone must not be lost for another reason.
            plan.wrong_clock = WrongClock::draw(seed, nodes);
        }
        let mut random = Random::new(seed ^ NEAR_LIMIT);
        if random.chance(250) {
            plan.is_near_limit = true;
            plan.events = plan.events.max(500);
            plan.ttl_ms = Some(random.pick(&[2_000, 8_000, 20_000]));
        }
        // So much that a second carries a quarter of a megabyte: no deadline can be kept on less.
        let in_a_round_trip = plan.latency.1 as usize / 2;
        plan.pipe_bytes = plan.pipe_bytes.max(in_a_round_trip);
        if plan.padding.1 > 10_000 && Random::new(seed ^ SLOW).chance(500) {
            plan.slow_down();
        }
        if plan.widening.crossings.is_some() {
            let back: Vec<_> = plan.edges.iter().map(|(a, b)| (*b, *a)).collect();
            plan.edges.extend(back);
            plan.edges.sort_unstable();
            plan.edges.dedup();
        }
        plan
    }

    /// Links on which a large value takes long, with little in front of it.
    fn slow_down(&mut self) {
        self.rate = Some(SLOW_RATE);
        self.latency = (200, 2_000);
        self.pipe_bytes = 2 << 10;
        self.publish_every *= 4;
        self.settings.heartbeat = Duration::from_millis(500);
    }

    /// The configuration of a node.
    pub fn config(&self, site: usize, peers: Vec<String>) -> Config {
        let name = node_name(self.seed, site);
        let mut config = Config::new(NodeId::new(&name).expect("the simulator's names are good"));
        config.tags = TagSet::new(self.tags[site].iter().copied()).expect("good tags");
        config.peers = peers;
        if self.widening.tags.is_some() {
            config.limits.max_tags = MAX_TAGS;
        }
        config.cluster_group = (self.group && site < 2).then(|| "g".into());
        self.settings.apply(&mut config);
        config
    }

    /// How far the clock of a node is off where clocks are near the limit, milliseconds.
    pub fn skew_near_limit(&self, site: usize) -> Option<i64> {
        let mut random = Random::new(self.seed ^ NEAR_LIMIT ^ ((site as u64 + 1) << 32));
        let skew = 29_900 - random.below(5_000) as i64;
        self.is_near_limit.then(|| if random.chance(500) { skew } else { -skew })
    }

    /// Whether clocks jump or stand still: what ends by them may end at any time.
    pub fn has_wrong_clocks(&self) -> bool {
        let faults = [Fault::Jump, Fault::ClockStop];
        self.wrong_clock.is_some() || faults.into_iter().any(|fault| self.mean(fault).is_some())
    }

    /// Whether an application asks for `conflate=true`.
    pub fn conflates(&self, app: usize) -> bool {
        Random::new(self.seed ^ CONFLATION ^ ((app as u64 + 1) << 32)).chance(150)
    }

    /// How often a fault happens, if it does.
    pub fn mean(&self, fault: Fault) -> Option<Micros> {
        self.faults.get(&fault).copied()
    }
}

/// The name of a node. Their order is not the order of their numbers, for it decides which of two
/// links stays.
pub fn node_name(seed: u64, site: usize) -> String {
    let letter = b'a' + ((site as u64 * 7 + seed % 13) % 26) as u8;
    format!("{}{site}", char::from(letter))
}

impl Settings {
    fn draw(random: &mut Random, seed: u64, nodes: usize, padding: u64) -> Self {
        let largest = padding + 500;
        let history = random.chance(250).then(|| random.between(4, 60) * largest);
        // Each node must be able to hold the state of the whole mesh, and be full all the same.
        let room = 200 * largest * (nodes as u64);
        let max_bytes = random.chance(150).then_some(room);
        let session_max = {
            let mut random = Random::new(seed ^ CONFLATION);
            random.chance(350).then(|| random.between(3, 40) * largest)
        };
        Self {
            heartbeat: Duration::from_millis(random.pick(&[500, 2_000, 10_000])),
            ack_timeout: Duration::from_millis(random.pick(&[300, 1_000, 5_000])),
            max_backoff: Duration::from_secs(random.pick(&[2, 8, 20])),
            max_attempts: random.pick(&[2, 4, 10]),
            max_rate: random.pick(&[3, 50, 1000]),
            window: random.pick(&[1, 4, 32, 256]),
            history,
            max_bytes,
            session_max,
        }
    }

    fn apply(&self, config: &mut Config) {
        config.heartbeat.interval = self.heartbeat;
        config.heartbeat.timeout = self.heartbeat * 3;
        config.reconnect.initial = Duration::from_millis(200);
        config.reconnect.max = Duration::from_secs(4);
        config.retry.ack_timeout = self.ack_timeout;
        config.retry.max_backoff = self.max_backoff;
        config.retry.max_attempts = self.max_attempts;
        config.retry.max_rate = self.max_rate;
        config.limits.delivery_window = self.window;
        config.store.history_max_bytes = self.history.unwrap_or(config.store.history_max_bytes);
        config.store.max_bytes = self.max_bytes.unwrap_or(config.store.max_bytes);
        let session_max = self.session_max.unwrap_or(config.store.session_max_bytes);
        config.store.session_max_bytes = session_max;
    }
}

fn tags(random: &mut Random) -> Vec<&'static str> {
    ["aws", "gcp", "eu"].into_iter().filter(|_| random.chance(500)).collect()
}

/// Faults that make what they hit forget: at most a few a run.
const DESTRUCTIVE: [Fault; 2] = [Fault::Restore, Fault::Wipe];

fn draw_faults(random: &mut Random) -> BTreeMap<Fault, Micros> {
    let mut faults = BTreeMap::new();
    if random.chance(40) {
        // A calm run says whether the rules hold without any fault.
        return faults;
    }
    for fault in Fault::ALL.iter().copied() {
        let (chance, low, high) = match fault {
            Fault::KillInRecovery | Fault::KillBetweenOutputs => (300, 4, 30),
            Fault::Restore | Fault::Wipe => (80, 4, 25),
            Fault::NodeAdded | Fault::NodeRemoved => (120, 8, 40),
            Fault::LinkAdded | Fault::LinkRemoved => (150, 8, 40),
            Fault::Jump | Fault::ClockStop => (150, 5, 40),
            Fault::Lie => (150, 1, 3),
            Fault::Vanish => (200, 10, 40),
            Fault::SlowCommit | Fault::Skew => (300, 2, 20),
            Fault::FailedSync | Fault::DiskFull => (200, 5, 40),
            Fault::Kill | Fault::Cut | Fault::Stall => (400, 1, 20),
            Fault::SilentCut
            | Fault::LifeLimit
            | Fault::Partition
            | Fault::Clog
            | Fault::Corrupt
            | Fault::PowerLoss
            | Fault::Stop
            | Fault::Freeze => (250, 2, 30),
        };
        let mean = random.between(low, high) * SECOND;
        if random.chance(chance) {
            faults.insert(fault, mean);
        }
    }
    if DESTRUCTIVE.iter().any(|fault| faults.contains_key(fault)) {
        // Removing a node on top of a loss would only blur what is owed.
        faults.remove(&Fault::NodeRemoved);
    }
    faults
}

fn edges(shape: Shape, nodes: usize, random: &mut Random) -> Vec<(usize, usize)> {
    let mut pairs: Vec<(usize, usize)> = match shape {
        Shape::Line => (1..nodes).map(|site| (site - 1, site)).collect(),
        Shape::Ring => (0..nodes).map(|site| (site, (site + 1) % nodes)).collect(),
        Shape::Star => (1..nodes).map(|site| (0, site)).collect(),
        Shape::Full => (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).collect(),
        Shape::Random => {
            let tree = (1..nodes).map(|site| (random.index(site), site)).collect::<Vec<_>>();
            let more = (0..nodes).map(|_| (random.index(nodes), random.index(nodes)));
            tree.into_iter().chain(more.collect::<Vec<_>>()).collect()
        }
    };
    pairs.retain(|(a, b)| a != b);
    let mut edges = Vec::new();
    for (a, b) in pairs {
        let edge = if random.chance(500) { (a, b) } else { (b, a) };
        let twice = random.chance(150);
        for edge in [Some(edge), twice.then_some((edge.1, edge.0))].into_iter().flatten() {
            if !edges.contains(&edge) {
                edges.push(edge);
            }
        }
    }
    edges
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, nodes, shape, edges, tags, chaos, latency, commit, .. } = self;
        writeln!(f, "seed {seed}: {nodes} nodes, {shape:?}, dialling {edges:?}")?;
        writeln!(f, "  names {:?}", (0..*nodes).map(|n| node_name(*seed, n)).collect::<Vec<_>>())?;
        writeln!(f, "  tags {:?}", &tags[..*nodes])?;
        writeln!(f, "  chaos for {} s, faults last up to {} s", chaos / SECOND, {
            self.fault_length / SECOND
        })?;
        writeln!(f, "  latency {latency:?} us, commit {commit:?} us, {} inputs a turn", {
            self.inputs_a_turn
        })?;
        writeln!(
            f,
            "  {} keys{}, publishers {}/1000 every {} ms, padding {:?}, events {}/1000, ttl {:?} \
             ms, odd frames {}/1000, deletes {}/1000, reads {}/1000, consumers {} a node, pipes of \
             {} bytes, {:?} bytes a second",
            self.keys,
            if self.fixed_tags { " of fixed tags" } else { "" },
            self.publishers,
            self.publish_every / 1000,
            self.padding,
            self.events,
            self.ttl_ms,
            self.odd_frames,
            self.deletes,
            self.reads,
            self.consumers,
            self.pipe_bytes,
            self.rate,
        )?;
        if self.group {
            writeln!(f, "  the first two are a cluster group")?;
        }
        write!(f, "{}", self.widening)?;
        if let Some(cloning) = &self.cloning {
            writeln!(f, "  {cloning:?}")?;
        }
        if let Some(wrong) = &self.wrong_clock {
            writeln!(f, "  {wrong:?}")?;
        }
        writeln!(f, "  {:?}", self.settings)?;
        for (fault, mean) in &self.faults {
            writeln!(f, "  fault: {}, every {} s", fault.text(), mean / SECOND)?;
        }
        Ok(())
    }
}
