//! The topology of the mesh: this node tells what has changed here, and passes on what it hears.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::admin::event::Event;
use crate::io::{Close, Frame};
use crate::mesh::topology::{News, NodeRecord};
use crate::session::link::Link;
use crate::types::ids::{LinkId, NodeId, SessionId};
use crate::types::tags::{self, Reach, TagSet};
use crate::wire::message::{MAX_PATH, MAX_TAGS};
use crate::wire::{BatchKind, FRAME_TARGET, FrameWriter, records};

use super::connect::protocol;
use super::handlers::{Conflicts, Gossip, PeerFrames, Records, Telling, lend};

impl Gossip<'_> {
    /// Brings the record of this node up to date, and has it told if it is another one.
    pub(super) fn update_own_record(&mut self) {
        let peers = self.links.by_id.values().filter_map(|link| link.peer());
        let mut links: BTreeSet<&str> = peers.map(|peer| peer.node.as_str()).collect();
        let mut is_cut = false;
        while links.len() >= MAX_PATH {
            is_cut |= links.pop_last().is_some();
        }
        let (tags, are_all) = self.all_tags();
        if is_cut || !are_all {
            // See `NodeRecord::links`.
            links.insert(self.config.id.as_str());
        }
        let links = tags::join(links.into_iter());
        let is_outdone = core::mem::take(&mut self.mesh.own_record_contested);
        if self.mesh.topology.set_mine(&tags, &links) || is_outdone {
            self.mesh.own_record_sent_at = Some(self.time.now.instant);
            self.mesh.records_to_flood.insert(self.config.id.clone(), None);
        }
    }

    /// Tags of the node and of its applications, as many as a record takes, and whether these are
    /// all. Those of the node come first, then those of the oldest sessions.
    fn all_tags(&self) -> (String, bool) {
        let applications = self.sessions.table.values().filter(|session| session.receives());
        let of_applications = applications
            .filter_map(|session| session.application())
            .filter_map(|application| application.tags.as_ref());
        let all = self.config.tags.iter().chain(of_applications.flat_map(TagSet::iter));
        let (mut tags, mut are_all) = (BTreeSet::new(), true);
        for tag in all {
            if tags.len() < MAX_TAGS {
                tags.insert(tag);
            } else if !tags.contains(tag) {
                are_all = false;
                break;
            }
        }
        (tags::join(tags.into_iter()), are_all)
    }

    /// Passes on what is new, to all peers but the one that told it.
    pub(super) fn flood_records(&mut self) {
        if self.mesh.records_to_flood.is_empty() {
            return;
        }
        let news: BTreeMap<NodeId, Option<LinkId>> =
            core::mem::take(&mut self.mesh.records_to_flood);
        let (reached, lost) = self.mesh.topology.changes();
        reached.into_iter().for_each(|node| self.out.event(Event::NodeReached { node }));
        lost.into_iter().for_each(|node| self.out.event(Event::NodeLost { node }));
        let mut telling = lend!(self, Telling);
        for link in self.links.by_id.values_mut() {
            let others = news.iter().filter(|(_, from)| **from != Some(link.id));
            let nodes: Vec<NodeId> = others.map(|(node, _)| node.clone()).collect();
            telling.tell(link, &nodes);
            telling.reconsider(link);
        }
    }

    /// A session goes back to what it passed over, if it is time.
    pub(super) fn go_back_if_due(&mut self, id: SessionId) {
        let now = self.time.now.instant;
        let due = self.sessions.table.get_mut(&id).filter(|session| session.may_go_back(now));
        let Some(session) = due else { return };
        let behind = session.peer().and_then(|peer| self.mesh.topology.behind(&peer.node));
        let nobody = Reach::nobody();
        if session.go_back(behind.unwrap_or(&nobody), now) {
            self.out.metrics.rewound("destination");
            lend!(self, Records).arrange_write(id);
        }
    }
}

impl PeerFrames<'_> {
    /// A peer tells what it knows of the mesh.
    pub(super) fn peer_topology(&mut self, link: &mut Link, batch: &Bytes) -> Result<(), Close> {
        let records =
            records::<NodeRecord>(batch).map_err(|error| protocol(&format!("{error}")))?;
        for record in records {
            let node = record.id().ok_or_else(|| protocol("an impossible topology record"))?;
            let start = record.incarnation;
            let another = node == self.config.id && self.is_of_another(&record);
            let known = self.mesh.topology.record(&node).map(|known| known.incarnation);
            match self.mesh.topology.learn(&node, record, self.time.now.instant) {
                News::Fresh => {
                    if let Some(later) = known.filter(|known| *known > start) {
                        lend!(self, Conflicts).on_older_start(node.clone(), start, later);
                    }
                    self.mesh.records_to_flood.insert(node, Some(link.id));
                }
                News::OfMyself if another => {
                    // It will go above this one, too: each a second after the other.
                    self.mesh.own_record_contested = true;
                    self.mesh.on_change(self.time);
                    let here = self.id.incarnation;
                    let heard = format!(
                        "its start {start} tells the mesh of itself, and this one is {here}"
                    );
                    lend!(self, Conflicts).on_second_process(node, &heard);
                }
                News::OfMyself => drop(self.mesh.records_to_flood.insert(node, None)),
                News::Known | News::TooMany => {}
            }
        }
        Ok(())
    }

    /// Whether a record of this node is one of another process, which runs or has run on a copy of
    /// its database, or under its id.
    fn is_of_another(&self, record: &NodeRecord) -> bool {
        let is_copy = record.store == self.id.store && !self.log.epochs.knows(record.incarnation);
        is_copy || record.incarnation > self.id.incarnation
    }
}

impl Telling<'_> {
    /// Tells a new peer all that is known of the mesh.
    pub(super) fn send_topology(&mut self, link: &mut Link) {
        self.mesh.on_change(self.time);
        // A link that is back before its loss was told is no news to anybody.
        self.reconsider(link);
        let nodes: Vec<NodeId> =
            self.mesh.topology.records().map(|(node, _)| node.clone()).collect();
        self.tell(link, &nodes);
    }

    fn tell(&mut self, link: &mut Link, nodes: &[NodeId]) {
        let Some(peer) = link.peer() else { return };
        let largest = peer.terms.max_frame_bytes;
        let limit = largest.min(FRAME_TARGET);
        let mut writer = FrameWriter::new(BatchKind::Topology);
        let records = nodes.iter().filter_map(|node| self.mesh.topology.record(node));
        for record in records.filter_map(|record| record.within(largest)) {
            let length = record.frame_bytes();
            if !writer.is_empty() && writer.len() + length > limit {
                let full = core::mem::replace(&mut writer, FrameWriter::new(BatchKind::Topology));
                self.out.transmit(link, Frame::Binary(full.finish()));
            }
            writer.push(&*record);
        }
        if !writer.is_empty() {
            self.out.transmit(link, Frame::Binary(writer.finish()));
        }
    }

    /// Somebody may lie behind a peer who did not before: what its session went past is looked at
    /// again (P5).
    fn reconsider(&mut self, link: &Link) {
        let Some(peer) = link.peer() else { return };
        let behind = self.mesh.topology.behind(&peer.node);
        if let Some(behind) = behind
            && let Some(session) = self.sessions.table.get_mut(&peer.session)
        {
            session.reconsider(behind, self.time.now.instant);
            self.sessions.ready.insert(peer.session);
        }
    }
}
