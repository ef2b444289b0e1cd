//! The links of a node, with what is to be done for which of them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};

use crate::session::link::Link;
use crate::types::ids::LinkId;

/// All links, and work that waits for them.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Boxed: a link is taken out and put back with each frame.
    pub(super) by_id: BTreeMap<LinkId, Box<Link>>,
    /// How many of them are applications.
    pub(super) applications: usize,
    /// Bytes that applications have been sent and their sockets have not taken.
    pub(super) unsent: usize,
    /// Links whose rival is being pinged, by the rival.
    pub(super) candidates: BTreeMap<LinkId, LinkId>,
    /// Whether nothing is read from any link, as too much is not durable yet.
    pub(super) reading_paused: bool,
    /// Links that wait for a batch.
    pub(super) awaiting_commit: BTreeSet<LinkId>,
    /// Links with answers or acknowledgements to send.
    pub(super) unflushed: BTreeSet<LinkId>,
    /// Links that have taken or given something: whether to read on is decided anew.
    pub(super) backpressure_dirty: BTreeSet<LinkId>,
}
