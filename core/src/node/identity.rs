//! Who a node is: its start, which nobody is told of before it is durable; and other processes that
//! go by the same id, on the same database, a copy of it, or another one.
//!
//! What stays true: whoever was told something by another copy of a store offers it everything
//! again (P2), and a second process is an ERROR in the log and counted.

use alloc::collections::BTreeMap;
use alloc::format;
use core::time::Duration;

use crate::event::Event;
use crate::ids::{Incarnation, LinkId, NodeId, Position, SessionId};
use crate::io::Close;
use crate::link::Link;
use crate::starts::Told;
use crate::time::Instant;
use crate::timers::Timer;
use crate::topology::Record;
use crate::wire::Hello;

use super::Node;
use super::connect::duplicate;

/// It is said at most this often that a node is there twice.
const SAY_INTERVAL: Duration = Duration::from_secs(60);

/// What a node does about its own start, and about others of its id.
#[derive(Debug, Default)]
pub(super) struct Identity {
    /// Whether this start is durable, or could not be made so: nobody is told anything before.
    pub(super) has_begun: bool,
    /// Peers that said Hello before that.
    pub(super) early: BTreeMap<LinkId, Hello>,
    /// Another process tells of itself under this id: the mesh is to be told again.
    pub(super) is_outdone: bool,
    /// Nodes that are there twice, and when that was said last.
    conflicts: BTreeMap<NodeId, Instant>,
}

impl Node {
    /// This start is durable, so that a later one will know of it: peers may be told of it now. So
    /// they may where there is no room for it; at worst everything is offered once more then.
    pub(super) fn begin_to_talk(&mut self) {
        if core::mem::replace(&mut self.identity.has_begun, true) {
            return;
        }
        for (index, _) in self.dialers.iter().filter(|(_, dialer)| dialer.is_waiting()) {
            self.timers.set(Timer::Dial(*index), self.now.instant);
        }
        for (id, hello) in core::mem::take(&mut self.identity.early) {
            if let Some(link) = self.links.remove(&id) {
                self.with_link(link, |node, link| node.hello(link, hello));
            }
        }
    }

    pub(super) fn met_itself(&mut self, link: &mut Link, hello: &Hello) -> Close {
        if hello.store == self.store_id {
            if link.dialer.is_none() {
                // The dialling end learns from this that it has met itself.
                self.send_hello(link, None);
            }
            if let Some(dialer) = link.dialer.and_then(|index| self.dialers.get_mut(&index))
                && dialer.met_itself()
            {
                let url = dialer.url.clone();
                self.event(Event::SelfDial { url });
            }
        } else {
            let heard = format!("{} calls itself so, with another database", link.remote);
            self.met_another(self.config.id.clone(), &heard);
        }
        duplicate("this node has the same id")
    }

    /// Tells the peer where the log ends, from which it sees whether this store went back. A store
    /// of which more had been told than a later start found there is an older copy: it says what
    /// that found, and one of which another copy had told says that it holds nothing; on each link
    /// until the peer has heard it, and the peer offers everything again (P2).
    pub(super) fn say_where_the_log_ends(&mut self, link: &mut Link, peer: &NodeId, hello: &Hello) {
        let (told, by) = (hello.reported, hello.reported_incarnation);
        match self.starts.judge(told, by) {
            Told::Known => self.acknowledge(link, self.log.durable()),
            Told::More(holds) => {
                self.acknowledge(link, holds);
                self.note_lost_life();
                let peer = peer.clone();
                self.event(Event::StoreWentBack { peer, told, holds });
            }
            Told::ByAnother => {
                // Whatever its length: what that one was sent this one has not got.
                self.acknowledge(link, Position::default());
                self.note_lost_life();
                let me = self.config.id.clone();
                let heard = format!("{peer} was told of a log up to {told} by its start {by}");
                self.met_another(me, &format!("{heard}, which this database knows nothing of"));
            }
        }
    }

    /// What comes again was made before this start, and may have been handed over (P3). The clock
    /// of whoever made it may be ahead.
    fn note_lost_life(&mut self) {
        let upto = self.began_at.plus(self.config.limits.max_clock_drift);
        self.starts.note_loss(upto);
    }

    /// A node that has started again does not know whom it will find at an address: its first
    /// Hello there reminds nobody of what was reported. A peer that has started again, too, may
    /// hold an older copy and cannot tell: doubt means rewind (P2).
    pub(super) fn doubt_its_store(&mut self, link: &Link, id: SessionId, hello: &Hello) {
        let head = self.log.durable();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(known) = session.peer() else { return };
        let has_reported = known.reported > Position::default();
        if has_reported && hello.incarnation < known.incarnation {
            // A later start has spoken before, and this one goes on: there are two.
            let (node, later) = (known.node.clone(), known.incarnation);
            session.rewind_for_lost(head);
            if let Some(peer) = session.peer_mut() {
                (peer.reported, peer.incarnation) = (Position::default(), hello.incarnation);
            }
            self.tally.rewound("identity_conflict");
            self.arrange_write(id);
            self.met_older_start(node, hello.incarnation, later);
            return;
        }
        let reminded = link.reminded.as_ref() == Some(&known.node);
        if has_reported && !reminded && known.incarnation != hello.incarnation {
            session.rewind_for_lost(head);
            self.tally.rewound("store_in_doubt");
            self.arrange_write(id);
        }
    }

    /// Whether a record of this node is one of another process, which runs or has run on a copy of
    /// its database, or under its id.
    pub(super) fn is_of_another(&self, record: &Record) -> bool {
        let is_copy = record.store == self.store_id && !self.starts.knows(record.incarnation);
        is_copy || record.incarnation > self.incarnation
    }

    /// An earlier start of a node speaks after a later one.
    pub(super) fn met_older_start(&mut self, node: NodeId, start: Incarnation, later: Incarnation) {
        let heard = format!("its start {start} speaks, and so did its later start {later}");
        self.met_another(node, &heard);
    }

    /// Two processes run, or have run, under one id: said once a minute, counted each time.
    pub(super) fn met_another(&mut self, node: NodeId, heard: &str) {
        self.tally.identity_conflicts += 1;
        let (said, now) = (self.identity.conflicts.get(&node), self.now.instant);
        if said.is_some_and(|said| now.since(*said) < SAY_INTERVAL) {
            return;
        }
        if self.identity.conflicts.len() >= self.config.limits.max_nodes {
            self.identity.conflicts.clear();
        }
        self.identity.conflicts.insert(node.clone(), now);
        self.event(Event::IdentityConflict { node, heard: heard.into() });
    }
}
