//! What peers are told of this start, which nobody is told of before it is durable; and other
//! starts under the same id, on the same database, a copy of it, or another one.
//!
//! What stays true: whoever was told something by another copy of a store offers it everything
//! again (P2), and a second process is an ERROR in the log and counted.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::admin::event::Event;
use crate::io::{Close, Frame};
use crate::log::epochs::EpochVerdict;
use crate::log::unclaimed::NODE;
use crate::mesh::topology::NodeRecord;
use crate::session::link::Link;
use crate::session::{Dirty, Session};
use crate::types::ids::{BatchId, Incarnation, LinkId, NodeId, Position, SessionId};
use crate::types::time::WallMs;
use crate::types::timers::Timer;
use crate::wire::{BatchKind, FrameWriter, Hello};

use super::connect::duplicate;
use super::handlers::{Acknowledging, Conflicts, Connections, Greeting, Records, Telling, lend};

/// Why a link to a node of this id is closed.
const SAME_ID: &str = "this node has the same id";

/// It is said at most this often that a node is there twice.
const SAY_INTERVAL: Duration = Duration::from_secs(60);

impl Connections<'_> {
    /// This start is durable, so that a later one will know of it: peers may be told of it now. So
    /// they may where there is no room for it, but not where the log ends: a later start that knows
    /// nothing of this one would take it for one of another copy.
    pub(super) fn begin_to_talk(&mut self) {
        if core::mem::replace(&mut self.id.has_begun, true) {
            return;
        }
        for (index, _) in
            self.mesh.dialers.by_index.iter().filter(|(_, dialer)| dialer.is_waiting())
        {
            self.time.timers.set(Timer::Dial(*index), self.time.now.instant);
        }
        for (id, hello) in core::mem::take(&mut self.id.early) {
            if self.links.by_id.contains_key(&id) {
                let done = self.hello(id, hello);
                self.after_frame(id, done);
            }
        }
    }

    pub(super) fn met_itself(&mut self, id: LinkId, hello: &Hello) -> Close {
        let Some(link) = self.links.by_id.get_mut(&id) else { return duplicate(SAME_ID) };
        if hello.store == self.id.store {
            if link.dialer.is_none() {
                // The dialling end learns from this that it has met itself.
                lend!(self, Greeting).send_hello(link, None);
            }
            if let Some(dialer) =
                link.dialer.and_then(|index| self.mesh.dialers.by_index.get_mut(&index))
                && dialer.met_itself()
            {
                let url = dialer.url.clone();
                self.out.event(Event::SelfDial { url });
            }
        } else {
            let heard = format!("{} calls itself so, with another database", link.remote);
            lend!(self, Conflicts).on_second_process(self.config.id.clone(), &heard);
        }
        duplicate(SAME_ID)
    }

    /// Tells the peer where the log ends, from which it sees whether this store went back. A store
    /// of which more had been told than a later start found there is an older copy: it says what
    /// that found, and one of which another copy had told says so; on each link until the peer has
    /// heard it, and the peer offers everything again (P2). What this start must not forget of that
    /// is durable before.
    pub(super) fn report_log_end(&mut self, link: LinkId, peer: &NodeId, hello: &Hello) {
        let (told, by) = (hello.reported, hello.reported_incarnation);
        match self.log.epochs.judge(told, by) {
            EpochVerdict::Known => {}
            EpochVerdict::More(holds, first) => {
                self.note_lost_life(first, hello.wall);
                let peer = peer.clone();
                self.out.event(Event::StoreWentBack { peer, told, holds });
            }
            EpochVerdict::ByAnother => {
                // Whatever its length: what that one was sent this one has not got.
                self.note_lost_life(self.id.incarnation, hello.wall);
                let me = self.config.id.clone();
                let heard = format!("{peer} was told of a log up to {told} by its start {by}");
                lend!(self, Conflicts).on_second_process(
                    me,
                    &format!("{heard}, which this database knows nothing of"),
                );
            }
        }
        if self.id.is_durable {
            if let Some(link) = self.links.by_id.get_mut(&link) {
                lend!(self, Acknowledging).say_as_judged(link, told, by);
            }
        } else {
            self.id.unsaid.insert(link, (told, by));
        }
    }

    /// A batch is durable: what waited for it is said to the peers.
    pub(super) fn report_durable(&mut self, batch: BatchId) {
        if self.id.is_durable || batch < self.id.durable_with {
            return;
        }
        self.id.is_durable = true;
        for (id, (told, by)) in core::mem::take(&mut self.id.unsaid) {
            if let Some(link) = self.links.by_id.get_mut(&id) {
                lend!(self, Acknowledging).say_as_judged(link, told, by);
            }
        }
    }

    /// What comes again was made before this start, and may have been handed over (P3). The clock
    /// of whoever made it may be ahead, and that of this node may have been set back with the
    /// store: what the clock of the peer said then counts, too.
    fn note_lost_life(&mut self, since: Incarnation, peers: WallMs) {
        let began_at =
            self.id.began_at.max(peers.minus(self.time.now.instant.since(self.time.started)));
        let upto = began_at.plus(self.config.limits.max_clock_drift);
        if self.log.epochs.note_loss(since, upto) {
            lend!(self, Records).touch(NODE, Dirty::Now);
            (self.id.is_durable, self.id.durable_with) = (false, self.log.tail.growing_id());
        }
    }

    /// A node that has started again does not know whom it will find at an address: its first
    /// Hello there reminds nobody of what was reported. A peer that has started again, too, may
    /// hold an older copy and cannot tell: doubt means rewind (P2).
    pub(super) fn check_rollback(&mut self, link: LinkId, id: SessionId, hello: &Hello) {
        let head = self.log.tail.durable();
        let Some(session) = self.sessions.table.get_mut(&id) else { return };
        let Some(known) = session.peer() else { return };
        let has_reported = known.reported > Position::default();
        if has_reported && hello.incarnation < known.incarnation {
            // A later start has spoken before, and this one goes on: there are two.
            let (node, later) = (known.node.clone(), known.incarnation);
            session.rewind_for_lost(head);
            if let Some(peer) = session.peer_mut() {
                (peer.reported, peer.incarnation) = (Position::default(), hello.incarnation);
            }
            self.out.metrics.rewound("identity_conflict");
            lend!(self, Records).arrange_write(id);
            lend!(self, Conflicts).on_older_start(node, hello.incarnation, later);
            return;
        }
        let reminded = self.links.by_id.get(&link).and_then(|link| link.reminded.as_ref());
        let reminded = reminded == Some(&known.node);
        if has_reported && !reminded && known.incarnation != hello.incarnation {
            session.rewind_for_lost(head);
            self.out.metrics.rewound("store_in_doubt");
            lend!(self, Records).arrange_write(id);
        }
    }

    /// A start of a node speaks where another one has a link. Where it is the earlier one there are
    /// two; where it is the later one the other may be gone. Each is told of the other one.
    pub(super) fn on_another_start(
        &mut self,
        id: LinkId,
        rival: LinkId,
        node: &NodeId,
        (start, linked): (Incarnation, Incarnation),
    ) {
        if start < linked {
            lend!(self, Conflicts).on_older_start(node.clone(), start, linked);
            if let Some(link) = self.links.by_id.get_mut(&id) {
                if link.dialer.is_none() {
                    // It learns from this that another one was told something.
                    lend!(self, Greeting).send_hello(link, Some(node));
                }
                lend!(self, Telling).tell_of_start(link, node, linked);
            }
        }
        if let Some(rival) = self.links.by_id.get_mut(&rival) {
            lend!(self, Telling).tell_of_start(rival, node, start);
        }
    }
}

impl Telling<'_> {
    /// Tells a peer of another start of its own, which speaks or has spoken on another link: where
    /// neither was told anything by the other one's start, nothing else says so. It goes above its
    /// own record, as that of another process.
    pub(super) fn tell_of_start(&mut self, link: &mut Link, node: &NodeId, start: Incarnation) {
        let session = self
            .sessions
            .by_name
            .get(&format!("peer:{node}"))
            .and_then(|id| self.sessions.table.get(id));
        let Some(store) = session.and_then(Session::peer).map(|peer| peer.store) else { return };
        let known = self.mesh.topology.record(node).map_or(0, |known| known.revision);
        let record = NodeRecord {
            node: node.as_str().into(),
            store,
            incarnation: start,
            revision: known.max(start.get()).saturating_add(1).min(u64::MAX - 1),
            tags: String::new(),
            links: String::new(),
        };
        let mut writer = FrameWriter::new(BatchKind::Topology);
        writer.push(&record);
        self.out.transmit(link, Frame::Binary(writer.finish()));
    }
}

impl Acknowledging<'_> {
    pub(super) fn say_as_judged(&mut self, link: &mut Link, told: Position, by: Incarnation) {
        let position = self.log.epochs.judge(told, by).said(self.log.tail.durable());
        self.acknowledge(link, position);
    }
}

impl Conflicts<'_> {
    /// An earlier start of a node speaks after a later one.
    pub(super) fn on_older_start(&mut self, node: NodeId, start: Incarnation, later: Incarnation) {
        let heard = format!("its start {start} speaks, and so did its later start {later}");
        self.on_second_process(node, &heard);
    }

    /// Two processes run, or have run, under one id: said once a minute, counted each time.
    pub(super) fn on_second_process(&mut self, node: NodeId, heard: &str) {
        self.out.metrics.identity_conflicts += 1;
        let (said, now) = (self.id.conflicts.get(&node), self.time.now.instant);
        if said.is_some_and(|said| now.since(*said) < SAY_INTERVAL) {
            return;
        }
        if self.id.conflicts.len() >= self.config.limits.max_nodes {
            self.id.conflicts.clear();
        }
        self.id.conflicts.insert(node.clone(), now);
        self.out.event(Event::IdentityConflict { node, heard: heard.into() });
    }
}
