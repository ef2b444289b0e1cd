//! Connections between processes: two pipes each, that keep order, take time, and may stall, be
//! cut, or alter what they carry.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use slipstream_core::ids::LinkId;
use slipstream_core::io::Frame;

use super::application::Said;
use super::frames::Item;
use super::plan::Micros;

/// Number of a connection.
pub type ConnId = u64;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A link of a node's process.
    Node {
        /// Where.
        site: usize,
        /// In which of its lives.
        life: u64,
        /// Which link.
        link: LinkId,
    },
    /// An application.
    App(usize),
    /// A peer that lies.
    Liar,
}

/// A frame on its way.
#[derive(Debug, Clone)]
pub struct Carried {
    /// The frame.
    pub frame: Frame,
    /// What it says, if a node sent it.
    pub items: Rc<Vec<Item>>,
    /// What it says, if an application sent it.
    pub said: Option<Said>,
    /// Whether its sender is told when it is taken: not for what the WebSocket library sends.
    pub counted: bool,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Pipe {
    /// Given by the sender, and not taken.
    pub waiting: VecDeque<Carried>,
    /// Cost of those whose sender is told.
    pub waiting_cost: usize,
    /// On their way, with the time of arrival.
    pub flying: VecDeque<(Micros, Carried)>,
    /// Their bytes.
    pub flying_bytes: usize,
    /// When the last one arrives.
    pub last_arrival: Micros,
    /// When the last one has left, where that takes time.
    pub left: Micros,
    /// Whether it is looked at again because a frame takes long.
    pub moving: bool,
    /// Whether an arrival is arranged.
    pub arranged: bool,
    /// The receiver does not read.
    pub paused: bool,
    /// Nothing arrives before this time.
    pub stalled_until: Micros,
}

/// One connection. Pipe 0 carries from end 0 to end 1.
#[derive(Debug)]
pub struct Conn {
    /// The ends.
    pub ends: [End; 2],
    /// The pipes, by the side of their sender.
    pub pipes: [Pipe; 2],
    /// Which ends still think that it is there.
    pub alive: [bool; 2],
}

/// Every connection, and which ways are blocked.
#[derive(Debug, Default)]
pub struct Network {
    /// The connections.
    pub conns: Conns,
    /// Ways from one site to another on which nothing arrives before a time.
    pub blocked: BTreeMap<(usize, usize), Micros>,
}

/// Connections by their number, which is never given twice.
#[derive(Debug, Default)]
pub struct Conns(Vec<Option<Box<Conn>>>);

impl Conns {
    /// A connection, until both of its ends know that it is gone.
    pub fn get(&self, number: &ConnId) -> Option<&Conn> {
        self.0.get(*number as usize)?.as_deref()
    }

    /// The same.
    pub fn get_mut(&mut self, number: &ConnId) -> Option<&mut Conn> {
        self.0.get_mut(*number as usize)?.as_deref_mut()
    }

    /// Forgets a connection.
    pub fn remove(&mut self, number: &ConnId) {
        if let Some(conn) = self.0.get_mut(*number as usize) {
            *conn = None;
        }
    }

    /// All connections in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        let numbered = self.0.iter().enumerate();
        numbered.filter_map(|(number, conn)| Some((number as ConnId, conn.as_deref()?)))
    }
}

impl Network {
    /// A new connection.
    pub fn open(&mut self, from: End, to: End) -> ConnId {
        // The first is number 1.
        self.conns.0.resize_with(self.conns.0.len().max(1), || None);
        let pipes = [Pipe::default(), Pipe::default()];
        let conn = Conn { ends: [from, to], pipes, alive: [true; 2] };
        self.conns.0.push(Some(Box::new(conn)));
        self.conns.0.len() as ConnId - 1
    }

    /// Until when nothing gets from one site to another.
    pub fn blocked_until(&self, from: usize, to: usize) -> Micros {
        self.blocked.get(&(from, to)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "alive {:?}", self.alive)?;
        for (pipe, end) in self.pipes.iter().zip(&self.ends) {
            let (waiting, flying) = (pipe.waiting.len(), pipe.flying.len());
            let next = pipe.flying.front().map(|(at, _)| *at);
            write!(f, "; from {end:?} {waiting} waiting, {flying} on their way, next {next:?}")?;
            write!(f, ", arranged {}, paused {}", pipe.arranged, pipe.paused)?;
            write!(f, ", stalled until {}", pipe.stalled_until)?;
        }
        Ok(())
    }
}

impl Conn {
    /// The side of this end.
    pub fn side_of(&self, end: impl Fn(&End) -> bool) -> Option<usize> {
        self.ends.iter().position(end)
    }

    /// The sites at both ends, where they are nodes.
    pub fn sites(&self) -> [Option<usize>; 2] {
        self.ends.map(|end| match end {
            End::Node { site, .. } => Some(site),
            End::App(_) | End::Liar => None,
        })
    }

    /// Until when the pipe of this side delivers nothing.
    pub fn held_until(
        &self,
        side: usize,
        network_block: impl Fn(usize, usize) -> Micros,
    ) -> Micros {
        let block = match self.sites() {
            [Some(a), Some(b)] if side == 0 => network_block(a, b),
            [Some(a), Some(b)] => network_block(b, a),
            [_, None] | [None, _] => 0,
        };
        block.max(self.pipes[side].stalled_until)
    }
}
