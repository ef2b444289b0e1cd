//! What is counted: the frames that nodes send each other, and when each message is where.

use bytes::Bytes;
use slipstream_core::offer;
use slipstream_core::wire::{Wire, messages, timed};

use crate::simulator::Micros;

/// What has crossed links between nodes, as it was transmitted. Bytes are those of frames, as
/// `slipstream_link_bytes_total` counts them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Crossings {
    /// Messages with their payloads, one for each link that they cross.
    pub copies: u64,
    /// Bytes of the frames that carry them.
    pub payload_bytes: u64,
    /// Messages offered.
    pub offers: u64,
    /// Bytes of offers, and of what answers them.
    pub offer_bytes: u64,
    /// Bytes of everything else: acknowledgements, greetings, records of the mesh.
    pub other_bytes: u64,
}

impl Crossings {
    /// Counts a binary frame that a node sends to another one.
    ///
    /// # Panics
    /// If it cannot be read: nodes send only frames that can.
    pub fn count(&mut self, frame: &Bytes) {
        let bytes = frame.len() as u64;
        match Wire::decode(frame).expect("a node sends frames that can be read") {
            Wire::Messages(batch) => {
                let messages = messages(&batch).expect("a node sends messages that can be read");
                self.copies += messages.len() as u64;
                self.payload_bytes += bytes;
            }
            Wire::Timed(batch) => {
                let (_, messages) = timed(&batch).expect("a node sends messages that can be read");
                self.copies += messages.len() as u64;
                match messages.is_empty() {
                    true => self.other_bytes += bytes,
                    false => self.payload_bytes += bytes,
                }
            }
            Wire::Have(batch) => {
                let spans = offer::read(&batch).expect("a node sends offers that can be read");
                let named = spans.iter().map(|span| span.last.get() - span.first.get() + 1);
                self.offers += named.sum::<u64>();
                self.offer_bytes += bytes;
            }
            Wire::Want(_) | Wire::Seen(_) | Wire::Gone(_) => self.offer_bytes += bytes,
            Wire::Hello(_)
            | Wire::Topology(_)
            | Wire::Ack(_)
            | Wire::NotNow(_)
            | Wire::Digests(_) => self.other_bytes += bytes,
            Wire::Connect(_)
            | Wire::Welcome(_)
            | Wire::Publish(_)
            | Wire::Outcomes(_)
            | Wire::Deliveries(_)
            | Wire::Synced
            | Wire::Settle(_)
            | Wire::Conflated(_)
            | Wire::Reads(_)
            | Wire::Results(_) => panic!("a frame of an application between two nodes"),
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.payload_bytes + self.offer_bytes + self.other_bytes
    }

    /// What was counted since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            copies: self.copies - before.copies,
            payload_bytes: self.payload_bytes - before.payload_bytes,
            offers: self.offers - before.offers,
            offer_bytes: self.offer_bytes - before.offer_bytes,
            other_bytes: self.other_bytes - before.other_bytes,
        }
    }
}

/// One published message.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The node that it was published at.
    pub origin: usize,
    /// The only node that it is for; `None`: all.
    pub target: Option<usize>,
    /// Since when it is durable at each node; at its origin: accepted.
    pub durable: Vec<Option<Arrival>>,
}

/// A message has become durable at a node.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// When.
    pub at: Micros,
    /// The links that it came over.
    pub links: u64,
}

impl Letter {
    /// When its origin accepted it.
    pub fn accepted(&self) -> Option<Micros> {
        self.durable[self.origin].map(|arrival| arrival.at)
    }

    /// Whether it is for this node.
    pub fn is_for(&self, node: usize) -> bool {
        node != self.origin && self.target.is_none_or(|target| target == node)
    }
}
