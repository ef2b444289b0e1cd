//! Links: cables that can be cut, and the connections on them, which can be lost or stall.

use slipstream_core::ids::{DialId, LinkId};
use slipstream_core::io::{Frame, Input, LinkUp, Protocol};

use super::lab::{Event, Far, HOP, Lab, node_of};

/// What connections between two nodes go over.
#[derive(Debug)]
pub(super) struct Cable {
    from: usize,
    to: usize,
    is_cut: bool,
    stalls: bool,
    /// The connection on it.
    conn: Option<usize>,
}

/// A connection. Side 0 has dialled.
#[derive(Debug)]
pub(super) struct Conn {
    cable: usize,
    sites: [usize; 2],
    dial: DialId,
    /// The link of each side, once it is up there.
    links: [Option<LinkId>; 2],
    alive: bool,
    /// Frames that arrived while it stalled, with the side of their sender.
    held: Vec<(usize, Frame)>,
}

impl Cable {
    pub(super) fn new(from: usize, to: usize) -> Self {
        Self { from, to, is_cut: false, stalls: false, conn: None }
    }
}

impl Lab {
    /// Cuts a link for good: its ends notice a hop later, and dial in vain.
    pub fn cut(&mut self, cable: usize) {
        self.cables[cable].is_cut = true;
        self.lose(cable);
    }

    /// Loses the connection on a link: its ends notice a hop later, and may connect again.
    pub fn lose(&mut self, cable: usize) {
        if let Some(conn) = self.cables[cable].conn {
            self.end(conn, &[0, 1]);
        }
    }

    /// From now on nothing arrives over a link, and nobody is told.
    pub fn stall(&mut self, cable: usize) {
        self.cables[cable].stalls = true;
    }

    /// What has stalled arrives.
    pub fn flow(&mut self, cable: usize) {
        self.cables[cable].stalls = false;
        let Some(conn) = self.cables[cable].conn else { return };
        for (side, frame) in std::mem::take(&mut self.conns[conn].held) {
            self.arrive(conn, side, frame);
        }
    }

    /// Ends a connection; these sides of it notice that a hop later.
    pub(super) fn end(&mut self, conn: usize, sides: &[usize]) {
        let found = &mut self.conns[conn];
        found.alive = false;
        found.held.clear();
        self.cables[found.cable].conn = None;
        for side in sides {
            self.at(HOP, Event::Down { conn, side: *side });
        }
    }

    pub(super) fn dial(&mut self, from: usize, dial: DialId, url: &str) {
        let to = node_of(url).expect("nodes dial only what they were told");
        let cable = self.cables.iter().position(|cable| (cable.from, cable.to) == (from, to));
        let cable = cable.expect("there is a cable to every peer");
        let conn = self.conns.len();
        let alive = !self.cables[cable].is_cut && self.is_living(to);
        let (sites, links) = ([from, to], [None; 2]);
        self.conns.push(Conn { cable, sites, dial, links, alive, held: Vec::new() });
        if alive {
            self.cables[cable].conn = Some(conn);
            self.at(HOP, Event::Up { conn, side: 1 });
        }
        self.at(2 * HOP, Event::Up { conn, side: 0 });
    }

    /// A side learns what came of the dial.
    pub(super) fn up(&mut self, conn: usize, side: usize) {
        let Conn { alive, dial, sites, .. } = self.conns[conn];
        let site = sites[side];
        if !self.is_living(site) {
            return;
        }
        if !alive {
            if side == 0 {
                let reason = "nobody is there".into();
                self.give(site, Input::DialFailed { dial, reason });
            }
            return;
        }
        let link = self.sites[site].new_link(Far::Node(conn, side));
        self.conns[conn].links[side] = Some(link);
        let dial = (side == 0).then_some(dial);
        let (protocol, remote, query) = (Protocol::Postcard, "127.0.0.1:2".into(), String::new());
        self.give(site, Input::LinkUp(LinkUp { link, dial, protocol, remote, query }));
    }

    /// A side notices that the connection is gone.
    pub(super) fn down(&mut self, conn: usize, side: usize) {
        let Some(link) = self.conns[conn].links[side] else { return };
        let site = self.conns[conn].sites[side];
        self.sites[site].links.remove(&link);
        self.noticed = self.now;
        self.give(site, Input::LinkDown { link, code: None, reason: "lost".into() });
    }

    /// A node sends a frame.
    pub(super) fn transmit(&mut self, site: usize, link: LinkId, frame: Frame) {
        match self.sites[site].links.get(&link).copied() {
            Some(Far::Node(conn, side)) => {
                if let Frame::Binary(bytes) = &frame {
                    self.crossings.count(bytes);
                }
                self.at(HOP, Event::Arrival { conn, side, frame });
            }
            Some(Far::Till) => {
                if let Frame::Ping(payload) = frame {
                    self.give(site, Input::Received { link, frame: Frame::Pong(payload) });
                }
            }
            None => {}
        }
    }

    /// A frame arrives at the other side, if nothing keeps it.
    pub(super) fn arrive(&mut self, conn: usize, side: usize, frame: Frame) {
        let found = &mut self.conns[conn];
        if !found.alive {
            return;
        }
        if self.cables[found.cable].stalls {
            found.held.push((side, frame));
            return;
        }
        let (site, link) = (found.sites[1 - side], found.links[1 - side]);
        let Some(link) = link else { return };
        if let Frame::Ping(payload) = &frame {
            // A WebSocket library answers by itself.
            let frame = Frame::Pong(payload.clone());
            self.at(HOP, Event::Arrival { conn, side: 1 - side, frame });
        }
        self.give(site, Input::Received { link, frame });
    }
}
