//! What a node knows of the mesh and is about to say of it, and the peers that it dials.

use alloc::collections::BTreeMap;

use crate::mesh::convergence::Comparing;
use crate::mesh::dial::Dialer;
use crate::mesh::topology::Topology;
use crate::mesh::unmet::Unmet;
use crate::session::offer::Wants;
use crate::types::ids::{DialId, LinkId, NodeId};
use crate::types::time::Instant;

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
    /// A mesh of which only this node is known.
    pub(super) fn new(topology: Topology) -> Self {
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
}
