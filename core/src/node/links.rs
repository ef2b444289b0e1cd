//! The links of a node, with what is to be done for which of them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use crate::session::link::{AppLink, Link};
use crate::types::ids::LinkId;
use crate::types::time::Now;

/// All links, and work that waits for them.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) by_id: BTreeMap<LinkId, Link>,
    /// How many of them are applications.
    pub(super) applications: usize,
    /// Bytes that applications have been sent and their sockets have not taken.
    pub(super) unsent: usize,
    /// Links whose rival is being pinged, by the rival.
    pub(super) candidates: BTreeMap<LinkId, LinkId>,
    /// Whether nothing is read from any link, as too much is not durable yet.
    pub(super) reading_paused: bool,
    pub(super) work: LinkWork,
}

/// What is to be done for which links.
#[derive(Debug, Default)]
pub(super) struct LinkWork {
    /// Links that wait for a batch.
    pub(super) awaiting_commit: BTreeSet<LinkId>,
    /// Links with answers or acknowledgements to send.
    pub(super) unflushed: BTreeSet<LinkId>,
    /// Links whose read-pause state must be recomputed.
    pub(super) backpressure_dirty: BTreeSet<LinkId>,
}

/// A link that a frame is handled on, and the work that it may give.
pub(super) struct ActiveLink<'a> {
    link: &'a mut Link,
    pub(super) work: &'a mut LinkWork,
}

impl Deref for ActiveLink<'_> {
    type Target = Link;

    fn deref(&self) -> &Link {
        self.link
    }
}

impl DerefMut for ActiveLink<'_> {
    fn deref_mut(&mut self) -> &mut Link {
        self.link
    }
}

impl Links {
    /// A link to handle a frame on, if it is there.
    pub(super) fn active(&mut self, id: LinkId) -> Option<ActiveLink<'_>> {
        let link = self.by_id.get_mut(&id)?;
        Some(ActiveLink { link, work: &mut self.work })
    }

    /// Calls this with each link.
    pub(super) fn each_active(&mut self, mut work: impl FnMut(&mut ActiveLink<'_>)) {
        for link in self.by_id.values_mut() {
            work(&mut ActiveLink { link, work: &mut self.work });
        }
    }

    /// The application of a link, if there is one.
    pub(super) fn application(&mut self, link: LinkId) -> Option<&mut AppLink> {
        self.by_id.get_mut(&link)?.application_mut()
    }

    /// Whether the other end has dialled.
    pub(super) fn is_accepted(&self, id: LinkId) -> bool {
        self.by_id.get(&id).is_some_and(|link| link.dialer.is_none())
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
