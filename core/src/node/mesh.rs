//! What a node knows of the mesh and is about to say of it, and the peers that it dials.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::time::Duration;

use crate::config::Config;
use crate::mesh::convergence::Comparing;
use crate::mesh::dial::Dialer;
use crate::mesh::topology::{NodeRecord, Topology};
use crate::mesh::unmet::Unmet;
use crate::session::offer::Wants;
use crate::types::ids::{DialId, Incarnation, LinkId, NodeId, StoreId};
use crate::types::time::Instant;
use crate::types::timers::Timer;

use super::time::Time;

/// The record of a node changes at most this often.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Records of the mesh, what was asked of peers, and the dialling of configured ones.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) topology: Topology,
    /// When the mesh was told last what has changed here.
    pub(super) own_record_sent_at: Option<Instant>,
    /// Another process tells of itself under this id: the mesh is to be told again.
    pub(super) own_record_contested: bool,
    /// Nodes whose records are to be told to the peers, but not to the one that told.
    pub(super) records_to_flood: BTreeMap<NodeId, Option<LinkId>>,
    /// Messages that peers were asked for.
    pub(super) wants: Wants,
    pub(super) comparing: Comparing,
    pub(super) dialers: Dialers,
}

/// The peers of the configuration.
#[derive(Debug, Default)]
pub(super) struct Dialers {
    pub(super) by_index: BTreeMap<usize, Dialer>,
    pub(super) last: DialId,
    /// Those that were never reached: they are owed events all the same.
    pub(super) unmet: Unmet,
}

impl Mesh {
    /// A mesh of which only this node is known, in this start of it.
    pub(super) fn new(config: &Config, store: StoreId, start: Incarnation, now: Instant) -> Self {
        let record = NodeRecord {
            node: config.id.as_str().into(),
            store,
            incarnation: start,
            revision: start.get(),
            tags: config.tags.as_str().into(),
            links: String::new(),
        };
        let topology = Topology::new(config.id.clone(), config.limits.max_nodes, record, now);
        Self {
            topology,
            own_record_sent_at: None,
            own_record_contested: false,
            records_to_flood: BTreeMap::new(),
            wants: Wants::default(),
            comparing: Comparing::default(),
            dialers: Dialers::default(),
        }
    }

    /// Links or tags of this node have changed: the mesh is told, now or soon.
    pub(super) fn on_change(&self, time: &mut Time) {
        let now = time.now.instant;
        let at = self.own_record_sent_at.map_or(now, |sent| sent + TELL_INTERVAL);
        time.timers.set_earlier(Timer::Topology, at.max(now));
    }
}

impl Dialers {
    /// Whether an entry of the configuration has led to this node.
    pub(super) fn is_configured(&self, node: &NodeId) -> bool {
        self.by_index.values().any(|dialer| dialer.node.as_ref() == Some(node))
    }
}
