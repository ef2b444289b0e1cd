//! A running node is cloned: a second process on a copy of its database, under the same id. Both
//! run for a while. Then the second one stops for good, or both stop and the original starts
//! again. In the end the original must have everything that it would have without its twin (P2).
//!
//! The twin is a site of its own that counts as removed from the beginning: nobody is owed
//! anything there. It dials whom the original dials, and has no applications.

use super::counts::Sometimes;
use super::facts::Fact;
use super::plan::{Micros, SECOND};
use super::random::Random;
use super::site::{Disk, Site};
use super::world::{Event, World};

const TWINS: u64 = 0x7477_696e_0000_0005;
/// At how many of a thousand seeds a node is cloned.
const SO_MANY: u64 = 80;

/// When a node is cloned, and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub struct Cloning {
    /// When.
    pub at: Micros,
    /// For how long both run.
    pub lasts: Micros,
    /// Whether the original stops, too, and starts again.
    pub both_stop: bool,
    /// Which of the nodes that dial somebody.
    choice: u64,
}

/// A node and its twin.
#[derive(Debug, Clone, Copy)]
pub struct Twins {
    /// Where the node was before.
    pub original: usize,
    /// The other process.
    pub twin: usize,
}

impl Cloning {
    /// What this seed draws.
    pub fn draw(seed: u64, chaos: Micros) -> Option<Self> {
        let mut random = Random::new(seed ^ TWINS);
        random.chance(SO_MANY).then(|| Self {
            at: random.between(2 * SECOND, chaos / 2),
            lasts: random.between(SECOND, 12 * SECOND),
            both_stop: random.chance(500),
            choice: random.next(),
        })
    }
}

impl World {
    /// Clones a node that dials somebody, if one runs.
    pub fn clone_node(&mut self) {
        let Some(cloning) = self.plan.cloning.filter(|_| !self.healed) else { return };
        let may = |site: &&Site| {
            let dials = self.edges.iter().any(|(from, _)| *from == site.index);
            site.process.is_some() && dials && !self.removed[site.index]
        };
        let sites: Vec<usize> = self.sites.iter().filter(may).map(|site| site.index).collect();
        if sites.is_empty() {
            return;
        }
        let original = sites[(cloning.choice % sites.len() as u64) as usize];
        let twin = self.sites.len();
        let Site { config, clock, disk, .. } = &self.sites[original];
        let durable = disk.durable.clone();
        self.sites.push(Site {
            index: twin,
            config: config.clone(),
            process: None,
            disk: Disk { durable, ..Disk::new(0) },
            clock: *clock,
            life: 0,
            removed: false,
            frozen_until: 0,
        });
        self.plan.tags.insert(twin, self.plan.tags[original].clone());
        self.names.push(self.names[original].clone());
        self.removed.push(true);
        self.ledger.places.push(self.ledger.places[original].clone());
        if let Some(walls) = &mut self.ledger.highest_wall {
            walls.push(walls[original]);
        }
        self.ledger.undurable.push(Vec::new());
        self.twins = Some(Twins { original, twin });
        self.tell(&Fact::Cloned { site: original, twin });
        self.say(|world| format!("{} is cloned as site {twin}", world.names[original]));
        self.counts.sometimes(Sometimes::Cloned);
        self.at(1, Event::Start { site: twin });
        self.at(cloning.lasts, Event::TwinEnds);
    }

    /// Whether a site is that of a twin, which has the name of another one.
    pub fn is_twin(&self, site: usize) -> bool {
        self.twins.is_some_and(|twins| twins.twin == site)
    }

    /// The twin stops for good.
    pub fn end_twin(&mut self) {
        let Some(Twins { original, twin }) = self.twins else { return };
        if self.sites[twin].removed {
            return;
        }
        self.say(|world| format!("the twin of {} stops for good", world.names[original]));
        self.sites[twin].removed = true;
        self.end(twin, false);
        if self.plan.cloning.is_some_and(|cloning| cloning.both_stop) {
            self.kill(original, false);
        }
    }
}
