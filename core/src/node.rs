//! The node.
use crate::{
    config::Config,
    io::{Input, Output},
    store::Recovered,
    time::{Instant, Now},
};

/// One node.
#[derive(Debug)]
pub struct Node;

impl Node {
    /// A node that goes on where its store says.
    pub fn new(_config: Config, _recovered: Recovered, _seed: u64, _now: Now) -> Self {
        Self
    }
    /// Takes one input. Infallible; any number of calls between drains.
    pub fn handle(&mut self, _input: Input, _now: Now) {}
    /// The next output; `None`: drained.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
    /// When [`Input::Timer`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
