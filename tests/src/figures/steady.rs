//! What a mesh costs while nothing fails: copies of payloads, and bytes of offers.

use serde::Serialize;

use super::lab::Lab;
use super::shape::Shape;
use super::traffic::Traffic;
use super::{Figure, NEVER};
use crate::simulator::{Micros, SECOND};

/// Payload copies per message over the least possible, one for each node but the origin.
pub const MAX_COPIES: f64 = 1.02;
/// Bytes of offers and answers per message and link beyond those of a tree.
pub const MAX_OFFER_BYTES: f64 = 10.0;

/// How long what was published may take to be everywhere.
const PATIENCE: Micros = 10 * SECOND;

/// What was counted in one mesh.
#[derive(Debug, Clone, Serialize)]
pub struct Steady {
    /// The mesh.
    pub mesh: String,
    /// Its nodes.
    pub nodes: usize,
    /// Its links.
    pub links: usize,
    /// Those beyond a tree.
    pub redundant_links: usize,
    /// Messages published.
    pub messages: usize,
    /// Copies per message over the least possible.
    pub copies: f64,
    /// Bytes of offers and answers per message and redundant link.
    pub offer_bytes: f64,
}

impl Steady {
    /// Publishes for so many seconds in a mesh of this shape, and counts.
    pub fn measure(shape: &Shape, traffic: &Traffic, seconds: u64) -> Self {
        let mut lab = Lab::new(shape);
        let before = lab.crossings;
        lab.begin(traffic.clone());
        lab.run(seconds * SECOND);
        lab.stop();
        let arrived = lab.finish(PATIENCE);
        let crossed = lab.crossings.since(&before);
        let messages = lab.letters.len();
        let per_message = |count: u64, over: usize| match arrived {
            true => count as f64 / messages as f64 / over as f64,
            false => NEVER,
        };
        Self {
            mesh: shape.name.clone(),
            nodes: shape.nodes,
            links: shape.links.len(),
            redundant_links: shape.redundant_links(),
            messages,
            copies: per_message(crossed.copies, shape.nodes - 1),
            offer_bytes: per_message(crossed.offer_bytes, shape.redundant_links()),
        }
    }

    /// Both figures.
    pub fn figures(&self) -> [Figure; 2] {
        let figure = |what, measured, bound| Figure {
            what,
            mesh: self.mesh.clone(),
            measured,
            bound,
            unit: "",
            at: String::new(),
        };
        [
            figure("copies over the least possible", self.copies, MAX_COPIES),
            Figure {
                unit: "bytes",
                ..figure("offers per message and link", self.offer_bytes, MAX_OFFER_BYTES)
            },
        ]
    }
}
