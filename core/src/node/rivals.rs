//! Two links to one node: which of them stays (P13).
//!
//! What stays true: one of the two stays, and both ends mean the same one. The link that was there
//! may be dead without knowing it; a newer one waits until that has answered, or has not.

use alloc::boxed::Box;
use alloc::format;
use core::time::Duration;

use crate::io::{Close, Frame};
use crate::session::Session;
use crate::session::link::LinkState;
use crate::types::ids::{LinkId, NodeId};
use crate::types::time::Instant;
use crate::types::timers::Timer;
use crate::wire::{Hello, LINK_IS_SURPLUS, Wire};

use super::connect::duplicate;
use super::handlers::{Conflicts, Connections, Dialing, Greeting, LinkOut, lend};

/// How long a link in doubt has to answer a ping.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

impl Connections<'_> {
    /// Two links to the same node id: which one stays.
    pub(super) fn decide_between(
        &mut self,
        id: LinkId,
        rival: LinkId,
        node: NodeId,
        hello: Hello,
    ) -> Result<(), Close> {
        let session = self.sessions.table.get(&self.sessions.by_name[&format!("peer:{node}")]);
        let rival_link = &self.links.by_id[&rival];
        let known = session.and_then(Session::peer).zip(rival_link.peer());
        let known = known.map(|(peer, link)| (peer.store, link.incarnation));
        let rival_dialed = rival_link.dialer.is_some();
        let dialed = !self.links.is_accepted(id);
        let replace = match known {
            Some((store, incarnation)) if store == hello.store => {
                if incarnation == hello.incarnation {
                    // The one that the smaller id dialled stays, if it is alive: whoever accepts
                    // the other one cannot know that before it has asked.
                    let stays = (self.config.id < node) == dialed;
                    (rival_dialed != dialed && (dialed || stays)).then_some(stays)
                } else {
                    self.on_another_start(id, rival, &node, (hello.incarnation, incarnation));
                    Some(hello.incarnation > incarnation)
                }
            }
            Some(_) | None => None,
        };
        match replace {
            Some(true) => {
                if let Some(candidate) = self.links.candidates.remove(&rival) {
                    self.refuse_candidate(candidate);
                }
                if let Some(rival) = self.links.by_id.remove(&rival) {
                    lend!(self, Dialing).dialer_replaced(&rival, &node, hello.incarnation);
                    self.finish(rival, Some(duplicate("another link to the same node")), "");
                }
                self.admit(id, node, &hello)
            }
            Some(false) => Err(duplicate("another link to the same node")),
            None if dialed && rival_dialed => Err(duplicate("another link to the same node")),
            None => {
                self.probe(id, rival, hello);
                Ok(())
            }
        }
    }

    /// The older link may be dead without knowing it: it is pinged, and answers or goes.
    fn probe(&mut self, id: LinkId, rival: LinkId, hello: Hello) {
        if let Some(old) = self.links.by_id.get_mut(&rival) {
            lend!(self, LinkOut).ping(old);
        }
        if let Some(before) = self.links.candidates.insert(rival, id) {
            // It is not greeted: the peer would take that one for its link, and end the new one.
            self.close(before, duplicate("another link to the same node"));
        }
        let since = self.time.now.instant;
        self.time.timers.set(Timer::Link(id), since + PROBE_TIMEOUT);
        if let Some(link) = self.links.by_id.get_mut(&id) {
            link.state = LinkState::Candidate { hello: Box::new(hello), rival, since };
        }
    }

    /// Something has come on a link; `pong` is when the ping was sent that it answers. If the link
    /// was in doubt, it is alive once it has answered. Anything else may have been under way since
    /// before the other end gave the link up, so it only prolongs the wait for the answer, which
    /// may be behind a large frame.
    pub(super) fn on_sign_of_life(&mut self, rival: LinkId, pong: Option<Instant>) {
        let Some(candidate) = self.links.candidates.get(&rival).copied() else { return };
        let is_answer = match self.links.by_id.get(&candidate).map(|link| &link.state) {
            Some(LinkState::Candidate { since, .. }) => pong.is_some_and(|at| at >= *since),
            Some(LinkState::Handshake | LinkState::Peer(_) | LinkState::Application(_)) | None => {
                true
            }
        };
        if is_answer {
            self.links.candidates.remove(&rival);
            self.refuse_candidate(candidate);
        } else {
            let deadline = self.time.now.instant + PROBE_TIMEOUT;
            self.time.timers.set(Timer::Link(candidate), deadline);
        }
    }

    pub(super) fn refuse_candidate(&mut self, candidate: LinkId) {
        let Some(mut link) = self.links.by_id.remove(&candidate) else { return };
        if let LinkState::Candidate { hello, rival, .. } = &link.state
            && let Ok(peer) = NodeId::new(&hello.node)
        {
            let known = self.sessions.by_name.get(&format!("peer:{peer}"));
            let session = known.and_then(|id| self.sessions.table.get(id));
            let rival = self.links.by_id.get(rival).and_then(|link| link.peer());
            if session.and_then(Session::peer).is_some_and(|known| known.store != hello.store) {
                let heard = format!("{} calls itself so, with another database", link.remote);
                lend!(self, Conflicts).on_second_process(peer, &heard);
            } else if rival.is_some_and(|rival| rival.incarnation == hello.incarnation) {
                // The dialling end learns from this who is here, and that it has a link already.
                let mut hello = lend!(self, Greeting).own_hello(None);
                hello.features |= LINK_IS_SURPLUS;
                self.out.transmit(&mut link, Frame::Binary(Wire::Hello(hello).encode()));
            }
        }
        self.finish(link, Some(duplicate("the node with this id is connected")), "");
    }

    /// The link in doubt is gone: the candidate takes its place.
    pub(super) fn admit_candidate(&mut self, id: LinkId) {
        let Some(link) = self.links.by_id.get_mut(&id) else { return };
        let before = core::mem::replace(&mut link.state, LinkState::Handshake);
        let done = if let LinkState::Candidate { hello, .. } = before {
            self.hello(id, *hello)
        } else {
            Ok(())
        };
        self.after_frame(id, done);
    }
}
