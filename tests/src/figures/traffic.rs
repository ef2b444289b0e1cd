//! What is published: by several nodes in turn, at an even rate, states and commands.

use super::counts::Letter;
use super::lab::{Event, Lab, node_name};
use crate::simulator::{Micros, SECOND};

/// Traffic that goes on until it is told to stop.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// The nodes that publish, in turn.
    pub origins: Vec<usize>,
    /// Messages a second, all together.
    pub rate: u64,
    /// Whether every second message is for one node only.
    pub targeted: bool,
}

impl Traffic {
    /// Untargeted messages published at so many nodes, which are spread over the mesh.
    pub fn of(nodes: usize, origins: usize, rate: u64) -> Self {
        let count = origins.min(nodes);
        let origins = (0..count).map(|number| number * nodes / count).collect();
        Self { origins, rate, targeted: false }
    }

    fn every(&self) -> Micros {
        SECOND / self.rate
    }
}

impl Lab {
    /// Messages are published from now on.
    pub fn begin(&mut self, traffic: Traffic) {
        self.traffic = Some(traffic);
        self.at(0, Event::Publish(self.letters.len()));
    }

    /// Nothing more is published.
    pub fn stop(&mut self) {
        self.traffic = None;
    }

    /// Lets time pass until all that was published is where it belongs, at most so long; then two
    /// seconds more, in which everything has its answer. Answers whether it is.
    pub fn finish(&mut self, patience: Micros) -> bool {
        let end = self.now + patience;
        let mut arrived = self.is_all_there();
        while !arrived && self.now < end {
            self.run(SECOND / 10);
            arrived = self.is_all_there();
        }
        self.run(2 * SECOND);
        arrived
    }

    fn is_all_there(&self) -> bool {
        self.letters.iter().all(|letter| {
            let there = |node: usize| !letter.is_for(node) || letter.durable[node].is_some();
            // What only a killed node has must wait for its return.
            let stuck = letter.accepted().is_none() || !self.is_living(letter.origin);
            stuck || self.living().all(there)
        })
    }

    pub(super) fn publish(&mut self, number: usize) {
        let Some(traffic) = &self.traffic else { return };
        let origin = traffic.origins[number % traffic.origins.len()];
        let (every, nodes) = (traffic.every(), self.sites.len());
        // Steps that have no divisor in common with the number of origins reach every node.
        let target = (traffic.targeted && number % 2 == 1).then_some(number * 7 / 2 % nodes);
        self.at(every, Event::Publish(number + 1));
        if !self.is_living(origin) {
            // The number is taken all the same: numbers are places among the letters.
            self.letters.push(Letter { origin, target, durable: vec![None; nodes] });
            return;
        }
        let kind = if number % 5 == 4 { "CMD" } else { "SK" };
        let tags = target.map(|target| format!(r#","targetedTags":["{}"]"#, node_name(target)));
        let tags = tags.unwrap_or_default();
        let value = "x".repeat(120);
        let head = format!(r#"{{"type":"{kind}","messageId":"{number}","key":"order/{number}""#);
        let text = format!(r#"{head},"value":"{value}"{tags}}}"#);
        self.letters.push(Letter { origin, target, durable: vec![None; nodes] });
        self.say(origin, text);
    }
}
