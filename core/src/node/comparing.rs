//! Digests are compared with those of neighbours; what differs is offered again (P6).
//!
//! All of it happens once a second at most: claims that came in wait for that, and the store is
//! asked only if something was written since it was asked last. What stays true: the digests that
//! are claimed or compared are those of everything that is durable at that moment.

use alloc::boxed::Box;
use alloc::format;

use bytes::Bytes;

use crate::admin::event::Event;
use crate::admin::{AdminAnswer, DigestsHere};
use crate::io::{Close, Frame, Output};
use crate::mesh::convergence::{Claim, Convergence};
use crate::session::Session;
use crate::session::link::Link;
use crate::store::Query;
use crate::store::digest::{self, DigestQuery, Digests, Print, Roots};
use crate::types::ids::{NodeId, SessionId, Ticket};
use crate::types::tags::{self, TagSet};
use crate::wire::{BatchKind, DigestsHead, FrameWriter, TagSetDigest, digests};

use super::connect::protocol;
use super::handlers::{Claims, DigestComparison, Operator, PeerFrames, Records, lend};
use super::identity::Phase;
use super::queries::Purpose;
use super::queries::Search;

impl PeerFrames<'_> {
    /// A peer claims its digests.
    pub(super) fn peer_claims(&mut self, link: &mut Link, batch: &Bytes) -> Result<(), Close> {
        let (head, claimed) = digests(batch).map_err(|error| protocol(&format!("{error}")))?;
        if claimed.len() > digest::MAX_TAG_SETS {
            return Err(protocol("digests of more tag sets than a claim holds"));
        }
        if let Some(peer) = link.peer()
            && let Some(convergence) = self.mesh.comparing.peers.get_mut(&peer.node)
        {
            convergence.hear(link.id, Claim::new(head.whole, claimed));
        }
        Ok(())
    }
}

impl DigestComparison<'_> {
    /// Sees how far the peers are, and whether it is time to claim or to compare digests.
    pub(super) fn compare_with_peers(&mut self) {
        if self.id.phase != Phase::Running {
            return;
        }
        let (head, now) = (self.log.tail.durable(), self.time.now.instant);
        let mut wanted = false;
        for link in self.links.by_id.values() {
            let Some(peer) = link.peer() else { continue };
            let Some(session) = self.sessions.table.get(&peer.session) else { continue };
            let convergence = self
                .mesh
                .comparing
                .peers
                .entry(peer.node.clone())
                .or_insert_with(|| Convergence::new(head, now));
            convergence.look(link.id, session.cursor(), head, now);
            let claims = peer.terms.compares && convergence.may_claim(session.cursor(), now);
            wanted |= claims || convergence.has_heard();
        }
        let by_name = &self.sessions.by_name;
        let is_known = |peer: &NodeId| by_name.contains_key(&format!("peer:{peer}"));
        self.mesh.comparing.peers.retain(|peer, _| is_known(peer));
        if !wanted || self.mesh.comparing.asked {
            return;
        }
        if self.mesh.comparing.own.as_ref().is_some_and(|(at, _)| *at == head) {
            self.compare_now();
        } else {
            self.mesh.comparing.asked = true;
            let query = Query::Digests(DigestQuery::TagSets { after: None });
            self.queries.ask(self.out, Purpose::Compare, query);
        }
    }

    /// The store has told the digests of this node: of everything that is durable, because it was
    /// asked behind the commits that are known, and before the others.
    pub(super) fn own_digests(&mut self, found: Digests) {
        self.mesh.comparing.asked = false;
        match found {
            Digests::TagSets(roots) => {
                self.mesh.comparing.own = Some((self.log.tail.durable(), roots));
                self.compare_now();
            }
            // It goes on looking when it is asked again.
            Digests::Behind | Digests::Buckets(_) | Digests::Entries { .. } => {}
        }
    }

    fn compare_now(&mut self) {
        let Some((head, own)) = self.mesh.comparing.own.take() else { return };
        let mut claims = lend!(self, Claims);
        self.links.by_id.values_mut().for_each(|link| claims.compare_with(link, &own));
        self.mesh.comparing.own = Some((head, own));
    }
}

impl Claims<'_> {
    pub(super) fn compare_with(&mut self, link: &mut Link, own: &Roots) {
        let Some(peer) = link.peer() else { return };
        let (node, id, compares) = (peer.node.clone(), peer.session, peer.terms.compares);
        let limit = peer.terms.max_frame_bytes;
        let (head, now) = (self.log.tail.durable(), self.time.now.instant);
        let Some(cursor) = self.sessions.table.get(&id).map(Session::cursor) else { return };
        let Some(theirs) = self.mesh.topology.record(&node).map(|record| tag_set(&record.tags))
        else {
            return;
        };
        // As the peer knows them.
        let Some(ours) = self.mesh.topology.mine().within(limit) else { return };
        let ours = tag_set(&ours.tags);
        let Some(convergence) = self.mesh.comparing.peers.get_mut(&node) else { return };
        let is_shared =
            |tags: &TagSet| ours.matches(tags.as_str()) && theirs.matches(tags.as_str());
        let differing = convergence.compare(own, is_shared, cursor, head, now);
        let claims = compares && convergence.may_claim(cursor, now) && link.has_credit();
        if claims {
            convergence.claimed(head, now);
        }
        let rewinds = differing.is_some() && convergence.may_rewind(now);
        if claims {
            self.claim(link, own, is_shared);
        }
        if let Some(tag_sets) = differing.filter(|_| rewinds) {
            self.offer_again(id, node, tag_sets);
        }
    }

    /// Claims the digests of the tag sets that are for both.
    fn claim(&mut self, link: &mut Link, own: &Roots, is_shared: impl Fn(&TagSet) -> bool) {
        let limit = link.peer().map_or(0, |peer| peer.terms.max_frame_bytes);
        let mut writer = FrameWriter::new(BatchKind::Digests);
        let all = own.digests.iter().filter(|(tags, _)| is_shared(tags));
        // A peer with tiny frames is told of as many as fit.
        let fit = limit.saturating_sub(64) / TagSetDigest::MAX_BYTES;
        let fits = all.clone().count() <= fit;
        writer.push(&DigestsHead { whole: own.upto.is_none() && fits });
        for (tags, print) in all.take(fit) {
            let tags = Print::of_tags(tags.as_str());
            writer.push(&TagSetDigest { tags, print: *print });
        }
        self.out.transmit(link, Frame::Binary(writer.finish()));
    }

    /// The peer holds something else than this node: doubt means rewind.
    fn offer_again(&mut self, id: SessionId, peer: NodeId, tag_sets: usize) {
        let (head, now) = (self.log.tail.durable(), self.time.now.instant);
        if self.sessions.table.get_mut(&id).is_some_and(|session| session.lose(head, now)) {
            self.out.metrics.rewound("digests_differ");
            self.out.event(Event::DigestsDiffer { peer, tag_sets });
            lend!(self, Records).arrange_write(id);
            self.sessions.ready.insert(id);
        }
    }
}

impl Operator<'_> {
    /// The store has found what an operator asked for.
    pub(super) fn digests_found(&mut self, ticket: Ticket, query: DigestQuery, found: Digests) {
        if found == Digests::Behind {
            let again = Query::Digests(query.clone());
            return self.search(ticket, Search::Digests(query), again);
        }
        let here = DigestsHere {
            node: self.config.id.clone(),
            tags: tag_set(&self.mesh.topology.mine().tags),
            head: self.log.tail.durable(),
            digests: found,
        };
        let answer = AdminAnswer::Digests(Box::new(here));
        self.out.push(Output::Admin { ticket, answer });
    }
}

fn tag_set(canonical: &str) -> TagSet {
    TagSet::new(tags::list(canonical)).unwrap_or_else(|_| TagSet::empty())
}
