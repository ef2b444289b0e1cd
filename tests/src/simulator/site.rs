//! A place where a node runs: its process, its disk, its clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use slipstream_core::Node;
use slipstream_core::config::Config;
use slipstream_core::ids::{FetchId, LinkId};
use slipstream_core::io::Input;
use slipstream_core::store::{Batch, Query};
use slipstream_core::time::{Instant, Now, WallMs};

use super::application::Said;
use super::frames::Item;
use super::ledger::Place;
use super::network::ConnId;
use super::plan::Micros;
use crate::world::MemoryStore;

/// Wall clock of everybody at the beginning, milliseconds.
pub const BEGINNING: u64 = 1_790_000_000_000;

/// One node's surroundings.
#[derive(Debug)]
pub struct Site {
    /// Its number.
    pub index: usize,
    /// What it is started with.
    pub config: Config,
    /// The running process.
    pub process: Option<Process>,
    /// Its disk.
    pub disk: Disk,
    /// Its wall clock.
    pub clock: WallClock,
    /// Starts so far; what was meant for an earlier one is dropped.
    pub life: u64,
    /// Removed for good.
    pub removed: bool,
    /// It does nothing before this time.
    pub frozen_until: Micros,
}

/// Whose frame an input is.
#[derive(Debug)]
pub enum Heard {
    /// An application's.
    App(usize, Said),
    /// A peer's.
    Peer(ConnId, Rc<Vec<Item>>),
}

/// A running node.
#[derive(Debug)]
pub struct Process {
    /// The node.
    pub node: Node,
    /// When it started.
    pub started: Micros,
    /// What waits to be taken, and who said it.
    pub inbox: VecDeque<(Input, Option<Heard>)>,
    /// Whether a turn is arranged.
    pub turn: bool,
    /// When the timer is set for.
    pub timer: Option<Micros>,
    /// Its connections.
    pub links: BTreeMap<LinkId, ConnId>,
    /// The last link number given.
    pub last_link: u64,
    /// Turns taken in this second, for the livelock check.
    pub turns_now: (Micros, u32),
    /// Batches that are durable, and of which the node has not been told.
    pub untold: u32,
    /// A peer has acknowledged something, and no batch was durable since.
    pub acknowledged: bool,
    /// Links that it has admitted.
    pub admitted: BTreeSet<LinkId>,
    /// Links that it has closed.
    pub closed: BTreeSet<LinkId>,
}

/// A store: what is durable, and what it is asked.
#[derive(Debug)]
pub struct Disk {
    /// What survives.
    pub durable: MemoryStore,
    /// What the node has asked, in order; the first is being done.
    pub jobs: VecDeque<Job>,
    /// Whether the first job is being done.
    pub busy: bool,
    /// No room for anything.
    pub full: bool,
    /// The next commit fails so that nobody knows what is durable.
    pub fails: bool,
    /// Every job takes so much longer.
    pub slow: Micros,
    /// When the last answer reaches the node.
    pub last_told: Micros,
    /// A copy taken earlier, with what the ledger knew then.
    pub backup: Option<(MemoryStore, Place)>,
}

/// What a store is asked.
#[derive(Debug)]
pub enum Job {
    /// Make this durable.
    Commit(Box<Batch>),
    /// Answer this.
    Fetch(FetchId, Query),
}

/// A wall clock that may be wrong.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    /// How far it is ahead while nothing is wrong with it, milliseconds.
    pub skew_ms: i64,
    /// How far it has jumped, milliseconds.
    pub jump_ms: i64,
    /// How far it has been ahead from the beginning, milliseconds.
    pub ahead_ms: i64,
    /// It stands still at this reading.
    pub stopped_at: Option<u64>,
}

impl WallClock {
    /// What it says at this time.
    pub fn read(&self, now: Micros) -> WallMs {
        let right = (BEGINNING + now / 1000).cast_signed() + self.skew_ms;
        let right = right + self.jump_ms + self.ahead_ms;
        WallMs(self.stopped_at.unwrap_or(right.max(0).cast_unsigned()))
    }
}

impl Disk {
    /// An empty store.
    pub fn new(id: u128) -> Self {
        Self {
            durable: MemoryStore::new(id),
            jobs: VecDeque::new(),
            busy: false,
            full: false,
            fails: false,
            slow: 0,
            last_told: 0,
            backup: None,
        }
    }
}

impl Site {
    /// What the clocks of the process say.
    pub fn reading(&self, now: Micros) -> Now {
        let started = self.process.as_ref().map_or(now, |process| process.started);
        Now { instant: Instant::from_micros(now - started), wall: self.clock.read(now) }
    }
}
