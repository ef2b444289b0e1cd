//! The peers of the configuration: dialled, covered by another link, given up.

use alloc::string::String;
use alloc::vec::Vec;

use crate::admin::event::Event;
use crate::io::{Close, CloseCode, Output};
use crate::log::unclaimed::NODE;
use crate::mesh::dial::{DialState, Dialer};
use crate::session::link::Link;
use crate::session::{Dirty, Stretch};
use crate::types::ids::{DialId, Incarnation, LinkId, NodeId};
use crate::types::timers::Timer;

use super::handlers::{Connections, Dialing, Records, lend};

impl Dialing<'_> {
    pub(super) fn add_dialer(&mut self, url: String) {
        let index = self.mesh.dialers.by_index.last_key_value().map_or(0, |(last, _)| last + 1);
        self.mesh.dialers.by_index.insert(index, Dialer::new(url, self.time.now.instant));
        self.time.timers.set(Timer::Dial(index), self.time.now.instant);
    }

    pub(super) fn dialer_of(&self, dial: DialId) -> Option<usize> {
        let found =
            self.mesh.dialers.by_index.iter().find(|(_, d)| d.state == DialState::Dialing(dial));
        found.map(|(index, _)| *index)
    }

    /// The time to dial has come.
    pub(super) fn dial(&mut self, index: usize) {
        let Some(dialer) = self.mesh.dialers.by_index.get(&index) else { return };
        if !dialer.is_waiting() || !self.id.has_begun {
            return;
        }
        let linked = dialer.node.clone().filter(|node| self.is_linked(node));
        if let Some(node) = linked.filter(|_| !dialer.looks_again) {
            self.cover_dialer(index, node);
            return;
        }
        let Some(dialer) = self.mesh.dialers.by_index.get_mut(&index) else { return };
        self.mesh.dialers.last = self.mesh.dialers.last.next();
        let dial = self.mesh.dialers.last;
        (dialer.state, dialer.looks_again) = (DialState::Dialing(dial), false);
        self.out.push(Output::Dial { dial, url: dialer.url.clone() });
    }

    pub(super) fn dial_failed(&mut self, dial: DialId, reason: &str) {
        match self.dialer_of(dial) {
            Some(index) => self.dial_again(index, reason, false),
            None => self.out.metrics.stale += 1,
        }
    }

    fn dial_again(&mut self, index: usize, reason: &str, slowest: bool) {
        let Some(dialer) = self.mesh.dialers.by_index.get_mut(&index) else { return };
        let (reconnect, random) = (&self.config.reconnect, &mut self.time.random);
        let retry_in = dialer.fail(reason, slowest, reconnect, random, self.time.now.instant);
        if let Some(wait) = retry_in {
            self.time.timers.set(Timer::Dial(index), self.time.now.instant + wait);
        }
        let url = dialer.url.clone();
        self.out.event(Event::DialFailed { url, reason: reason.into(), retry_in });
    }

    /// The link of a dialler is gone.
    pub(super) fn dialer_lost(&mut self, index: usize, link: LinkId, reason: &str, slowest: bool) {
        let Some(dialer) = self.mesh.dialers.by_index.get(&index) else { return };
        if dialer.state != DialState::Linked(link) {
            return;
        }
        let covered = dialer.node.clone().filter(|node| self.is_linked(node));
        match covered {
            Some(node) => self.cover_dialer(index, node),
            None => self.dial_again(index, reason, slowest),
        }
    }

    /// The node behind a dialler has another link: it is not dialled while that lasts.
    fn cover_dialer(&mut self, index: usize, node: NodeId) {
        let Some(dialer) = self.mesh.dialers.by_index.get_mut(&index) else { return };
        dialer.succeed();
        dialer.state = DialState::Covered(node.clone());
        let url = dialer.url.clone();
        self.out.event(Event::DialCovered { url, peer: node });
    }

    /// The link of a dialler gives way to another one to the same node, or to a later start of it:
    /// then the earlier one may still be there, and nobody else would tell.
    pub(super) fn dialer_replaced(&mut self, link: &Link, node: &NodeId, start: Incarnation) {
        let Some(index) = link.dialer else { return };
        let Some(dialer) = self.mesh.dialers.by_index.get_mut(&index) else { return };
        dialer.state = DialState::Covered(node.clone());
        if link.peer().is_some_and(|before| before.incarnation < start) {
            let at = self.time.now.instant + self.time.random.below(self.config.reconnect.initial);
            (dialer.state, dialer.looks_again) = (DialState::Waiting(at), true);
            self.time.timers.set(Timer::Dial(index), at);
        }
    }

    /// The link of a node is gone: whoever relied on it dials again.
    pub(super) fn uncover_dialers(&mut self, node: &NodeId) {
        if self.is_linked(node) {
            return;
        }
        let initial = self.config.reconnect.initial;
        for (index, dialer) in &mut self.mesh.dialers.by_index {
            if dialer.state == DialState::Covered(node.clone()) {
                let at = self.time.now.instant + self.time.random.below(initial);
                dialer.state = DialState::Waiting(at);
                self.time.timers.set(Timer::Dial(*index), at);
            }
        }
    }

    /// The link of a dialler has been of use: the next failure is a first one.
    pub(super) fn dialer_succeeded(&mut self, link: &Link) {
        if link.peer().is_some()
            && let Some(dialer) =
                link.dialer.and_then(|index| self.mesh.dialers.by_index.get_mut(&index))
        {
            dialer.succeed();
        }
    }

    fn is_linked(&self, node: &NodeId) -> bool {
        let session = self.sessions.by_name.get(&alloc::format!("peer:{node}"));
        session
            .and_then(|id| self.sessions.table.get(id))
            .is_some_and(|session| session.link.is_some())
    }

    /// Who was never reached is waited for from now on, as long as it has an entry.
    pub(super) fn wait_for_peers(&mut self) {
        let now = self.time.clock.estimate();
        let ends = self.time.kept_until(self.config);
        let longer = self.log.unclaimed.ending_after(ends);
        let longer = longer.map(|(first, ends)| Stretch { first, ends }).collect();
        self.mesh.dialers.unmet.configure(&self.config.peers, now, (ends, longer));
        lend!(self, Records).touch(NODE, Dirty::Now);
    }

    /// The entry of a link has led to a node.
    pub(super) fn meet(&mut self, link: &Link) {
        let dialer = link.dialer.and_then(|index| self.mesh.dialers.by_index.get(&index));
        if dialer.is_some_and(|dialer| self.mesh.dialers.unmet.met(&dialer.url)) {
            lend!(self, Records).touch(NODE, Dirty::Now);
        }
    }

    /// Whether there is an entry for a peer has changed. Its session goes on without one: the peer
    /// may have moved, or dial in (P2).
    pub(super) fn note_entry(&mut self, node: &NodeId, is_there: bool) {
        let Some(id) = self.sessions.by_name.get(&alloc::format!("peer:{node}")).copied() else {
            return;
        };
        if let Some(session) = self.sessions.table.get_mut(&id)
            && session.peering.has_lost_entry == is_there
        {
            session.peering.has_lost_entry = !is_there;
            lend!(self, Records).touch(id, Dirty::Soon);
        }
    }
}

impl Connections<'_> {
    /// The operator has changed the peers: the links of those that are gone end, new ones are
    /// dialled.
    pub(super) fn change_peers(&mut self, peers: &[String]) {
        let dialers = &mut self.mesh.dialers.by_index;
        let removed = dialers.iter().filter(|(_, dialer)| !peers.contains(&dialer.url));
        let removed: Vec<usize> = removed.map(|(index, _)| *index).collect();
        for index in removed {
            self.remove_dialer(index);
        }
        let now = self.time.now.instant;
        for url in peers {
            let dialers = &mut self.mesh.dialers.by_index;
            let mut same = dialers.iter_mut().filter(|(_, dialer)| dialer.url == *url).peekable();
            if same.peek().is_none() {
                lend!(self, Dialing).add_dialer(url.clone());
                continue;
            }
            let stopped = same.find(|(_, dialer)| dialer.state == DialState::Stopped);
            if let Some((index, dialer)) = stopped {
                dialer.restart(now);
                self.time.timers.set(Timer::Dial(*index), now);
            }
        }
    }

    fn remove_dialer(&mut self, index: usize) {
        let Some(dialer) = self.mesh.dialers.by_index.remove(&index) else { return };
        self.time.timers.clear(Timer::Dial(index));
        if let DialState::Linked(link) = dialer.state
            && let Some(mut link) = self.links.by_id.remove(&link)
        {
            link.dialer = None;
            let reason = "removed from the configuration".into();
            self.finish(link, Some(Close { code: CloseCode::GoingAway, reason }), "");
        }
        if let Some(node) = dialer.node
            && !self.mesh.dialers.is_configured(&node)
        {
            lend!(self, Dialing).note_entry(&node, false);
        }
    }

    /// Sessions without tags of their own have those of the node, which have changed: they begin
    /// again.
    pub(super) fn begin_again_for_tags(&mut self) {
        let (head, time) = (self.log.tail.durable(), self.time.over_upto());
        let mut rewound = Vec::new();
        for session in self.sessions.table.values_mut() {
            if session.follows_node_tags() {
                session.rewind(head);
                session.walk.beginning.time = time;
                rewound.push(session.id);
            }
        }
        for id in rewound {
            self.out.metrics.rewound("tags_changed");
            lend!(self, Records).arrange_write(id);
            self.sessions.ready.insert(id);
            if self.sessions.interests.knows(id) {
                self.enter_interests(id);
            }
        }
    }
}
