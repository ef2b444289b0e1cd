//! The loop's hold on its connections: what a turn says to them, gathered per connection.
//!
//! Frames are handed on once a turn, whatever their number. A connection that is let go of here
//! ends.

use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::host::connection::state::ConnectionState;
use crate::host::shared::Shared;
use crate::io::{Close, End, Frame};
use crate::types::ids::LinkId;

pub use self::{ConnectionHandle as Link, ConnectionHandles as Links};

/// The loop's hold on one connection. Dropping the handle ends the connection without a close
/// frame.
#[derive(Debug)]
pub struct ConnectionHandle {
    pending: Vec<Frame>,
    state: Shared<ConnectionState>,
}

impl ConnectionHandle {
    /// Of a connection that tasks serve.
    pub fn new(state: Shared<ConnectionState>) -> Self {
        Self { pending: Vec::new(), state }
    }

    /// Adds a frame to what [`Link::flush`] sends. Answers whether it is the first.
    pub fn transmit(&mut self, frame: Frame) -> bool {
        self.pending.push(frame);
        self.pending.len() == 1
    }

    /// Hands what was gathered to the writer.
    pub fn flush(&mut self) {
        if !self.pending.is_empty() {
            let frames = core::mem::take(&mut self.pending);
            self.state.with(|state| state.push(frames));
        }
    }

    /// Stops reading, or reads on.
    pub fn pause(&self, paused: bool) {
        self.state.with(|state| state.pause(paused));
    }

    /// The node counts the connection: it holds no other place.
    pub fn admit(&self) {
        self.state.with(|state| state.admit());
    }

    /// Sends what was gathered and queued, then the close frame.
    pub fn close(&mut self, close: Close) {
        self.flush();
        self.end(End::here(close.code.number(), close.reason));
    }

    /// Ends the connection behind what is queued, unless its end was ordered before.
    pub fn end(&self, end: End) {
        self.state.with(|state| state.end(end));
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        self.end(End::silent(String::from("the node has ended")));
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct ConnectionHandles {
    links: HashMap<LinkId, ConnectionHandle>,
    /// Those with frames to flush.
    touched: Vec<LinkId>,
    /// Those that end once what they brought is answered.
    ending: Vec<(LinkId, End)>,
    last: LinkId,
}

impl ConnectionHandles {
    /// A number that no connection has had.
    pub fn next_id(&mut self) -> LinkId {
        self.last = self.last.next();
        self.last
    }

    /// Takes hold of a connection.
    pub fn insert(&mut self, id: LinkId, link: ConnectionHandle) {
        self.links.insert(id, link);
    }

    /// Lets go of a connection.
    pub fn remove(&mut self, id: LinkId) {
        self.links.remove(&id);
    }

    /// Whether all are gone.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Orders an end for when this turn has answered what the connection brought.
    pub fn end_after_turn(&mut self, id: LinkId, end: End) {
        self.ending.push((id, end));
    }

    /// Gathers a frame.
    pub fn transmit(&mut self, id: LinkId, frame: Frame) {
        if self.links.get_mut(&id).is_some_and(|link| link.transmit(frame)) {
            self.touched.push(id);
        }
    }

    /// Stops reading from a connection, or reads on.
    pub fn pause(&mut self, id: LinkId, paused: bool) {
        self.with(id, |link| link.pause(paused));
    }

    /// The node counts this connection.
    pub fn admit(&mut self, id: LinkId) {
        self.with(id, |link| link.admit());
    }

    /// Sends what was gathered and queued, then the close frame.
    pub fn close(&mut self, id: LinkId, close: Close) {
        self.with(id, |link| link.close(close));
    }

    /// Ends a turn: hands on what was gathered, and then orders the ends.
    pub fn flush(&mut self) {
        while let Some(id) = self.touched.pop() {
            self.with(id, ConnectionHandle::flush);
        }
        while let Some((id, end)) = self.ending.pop() {
            self.with(id, |link| link.end(end));
        }
    }

    fn with(&mut self, id: LinkId, order: impl FnOnce(&mut ConnectionHandle)) {
        if let Some(link) = self.links.get_mut(&id) {
            order(link);
        }
    }
}
