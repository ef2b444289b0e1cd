//! What a node gives out: its outputs in order, what it counts, and the room for what it writes.
//!
//! What stays true: outputs leave in the order in which they were queued, and a frame is charged to
//! its link when it is.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::BytesMut;

use crate::admin::event::Event;
use crate::admin::metrics::NodeMetrics;
use crate::io::{Frame, Output};
use crate::log::seen::{Id, Seen};
use crate::session::link::Link;
use crate::session::offer;
use crate::wire::{BatchKind, FRAME_TARGET};

/// Bytes of the buffer that messages and frames are written into.
const BUFFER_BYTES: usize = 64 << 10;

/// Queue of outputs, counters, and buffers to write with.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Output>,
    pub(super) metrics: NodeMetrics,
    /// Where messages and frames are written; what is written is split off.
    pub(super) buffer: BytesMut,
    /// Where the path of a message is put together.
    pub(super) path: String,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            metrics: NodeMetrics::default(),
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
            path: String::new(),
        }
    }
}

impl Outbox {
    /// Queues an output.
    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    /// Queues outputs.
    pub(super) fn extend(&mut self, outputs: impl IntoIterator<Item = Output>) {
        self.queue.extend(outputs);
    }

    /// Queues a word for the log of the process.
    pub(super) fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    /// Queues a frame and charges it to the link.
    pub(super) fn transmit(&mut self, link: &mut Link, frame: Frame) {
        let cost = frame.cost();
        link.traffic.cost_in_flight += cost;
        link.traffic.frames_out += 1;
        link.traffic.bytes.1 += (cost - 64) as u64;
        self.push(Output::Transmit { link: link.id, frame });
    }

    /// Names messages to a peer, behind what its link is being filled with.
    pub(super) fn name(&mut self, link: &mut Link, kind: BatchKind, ids: Vec<Id>, seen: &Seen) {
        let Some(peer) = link.peer() else { return };
        let limit = peer.terms.max_frame_bytes.min(FRAME_TARGET);
        if ids.is_empty() {
            return;
        }
        for frame in offer::write(kind, ids, seen, limit) {
            self.transmit(link, Frame::Binary(frame));
        }
    }

    /// Takes out the next output.
    pub(super) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    /// Whether nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Forgets what is queued.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}
