//! The peers that this node dials, and when it tries again.

use alloc::string::String;
use core::time::Duration;

use crate::config::Reconnect;
use crate::ids::{DialId, LinkId, NodeId};
use crate::rate::{Random, backoff};
use crate::time::Instant;

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
    /// Given up, or the node itself: until the configuration is loaded again.
    Stopped,
}

impl Dialer {
    /// A peer to be dialled at once.
    pub fn new(url: String, now: Instant) -> Self {
        Self { url, state: DialState::Waiting(now), failures: 0, node: None, last_error: None }
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

    /// The link has been of use: the next failure is a first one.
    pub fn succeed(&mut self) {
        self.failures = 0;
        self.last_error = None;
    }
}
