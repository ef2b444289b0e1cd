//! The links of a node, with what is to be done for which of them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::session::link::{AppLink, Link};
use crate::types::ids::LinkId;
use crate::types::time::Now;

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

impl Links {
    /// The application of a link, if there is one.
    pub(super) fn application(&mut self, link: LinkId) -> Option<&mut AppLink> {
        self.by_id.get_mut(&link)?.application_mut()
    }

    /// How far the clock of each peer is ahead, in milliseconds.
    pub(super) fn clock_offsets_ms(&self, now: Now) -> Vec<i64> {
        let peers = self.by_id.values().filter_map(|link| link.peer());
        peers.map(|peer| peer.clock_offset_ms(now)).collect()
    }

    /// Whether an application is owed answers to what it has sent on this link.
    pub(super) fn owes_answers(&self, link: LinkId) -> bool {
        let application = self.by_id.get(&link).and_then(|link| link.application());
        application.is_some_and(|application| !application.answers.is_empty())
    }
}
