//! The peers that this node dials, and when it tries again.

use alloc::string::String;
use core::time::Duration;

use crate::config::Reconnect;
use crate::types::ids::{DialId, LinkId, NodeId};
use crate::types::rate::{Random, backoff};
use crate::types::time::Instant;

/// A configured peer.
#[derive(Debug)]
pub struct Dialer {
    /// Where it is.
    pub url: String,
    /// What is being done about it.
    pub state: DialState,
    /// Failures in a row.
    pub failures: u32,
    /// The node that answered there last.
    pub node: Option<NodeId>,
    /// Whether this node itself answered there last.
    pub is_self: bool,
    /// A later start of that node has taken the place of its link: whether the earlier one is
    /// still there is looked at once.
    pub looks_again: bool,
    /// Why the last attempt or connection ended.
    pub last_error: Option<String>,
}

/// What is being done about a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialState {
    /// Waiting for this time.
    Waiting(Instant),
    /// The shell is at it.
    Dialing(DialId),
    /// There is a connection.
    Linked(LinkId),
    /// The node that is there is linked another way.
    Covered(NodeId),
    /// Given up, or this node itself: until the configuration is loaded again.
    Stopped,
}

impl Dialer {
    /// A peer to be dialled at once.
    pub fn new(url: String, now: Instant) -> Self {
        let state = DialState::Waiting(now);
        let (failures, node, last_error) = (0, None, None);
        Self { url, state, failures, node, is_self: false, looks_again: false, last_error }
    }

    /// Begins again after a reload. That this node itself answered is still known.
    pub fn restart(&mut self, now: Instant) {
        self.state = DialState::Waiting(now);
        (self.failures, self.last_error) = (0, None);
    }

    /// Takes note that this node itself has answered. Answers whether that is news.
    pub fn met_itself(&mut self) -> bool {
        self.state = DialState::Stopped;
        (self.failures, self.node, self.last_error) = (0, None, None);
        !core::mem::replace(&mut self.is_self, true)
    }

    /// Takes note of the node that has answered.
    pub fn met(&mut self, node: NodeId) {
        (self.node, self.is_self) = (Some(node), false);
    }

    /// Takes note of a failure. Answers how long to wait; `None`: given up.
    pub fn fail(
        &mut self,
        reason: &str,
        slowest: bool,
        reconnect: &Reconnect,
        random: &mut Random,
        now: Instant,
    ) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(reason.into());
        self.is_self = false;
        if reconnect.max_attempts != 0 && self.failures >= reconnect.max_attempts {
            self.state = DialState::Stopped;
            return None;
        }
        let limit = if slowest {
            reconnect.max
        } else {
            backoff(reconnect.initial, reconnect.max, self.failures)
        };
        let wait = random.below(limit);
        self.state = DialState::Waiting(now + wait);
        Some(wait)
    }

    /// Whether it waits for its time.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, DialState::Waiting(_))
    }

    /// The link has been of use: the next failure is a first one.
    pub fn succeed(&mut self) {
        self.failures = 0;
        self.last_error = None;
    }
}
