//! An open connection as its three tasks see it: the loop that owns the node, what reads from the
//! connection, and what writes to it.
//!
//! What stays true:
//!
//! - What was queued before the end was ordered is sent before the close frame.
//! - The first end counts. After it nothing is read, and nothing new is queued.
//! - Pings and pongs go past what is queued, and past the rest of a large frame: they are not
//!   counted, and the node does not hear when they are sent.
//! - What is queued is bounded. The core's send credit counts at least 64 bytes for a frame, so the
//!   bound is never reached by a node that keeps to it.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::host::incoming::Incoming;
use crate::host::shared::{Shared, Wakes, keep};
use crate::io::{CloseCode, End, Frame};
use crate::types::ids::LinkId;

pub use self::ConnectionState as Line;

/// Frames that a writer may be behind.
const MAX_FRAMES: usize = 128 * 1024;
/// Pings and pongs that a writer may be behind. Whoever sends pings faster than it reads the
/// answers gets fewer.
const MAX_CONTROLS: usize = 1024;
/// What a writer takes at once, by [`Frame::cost`], before it reports that as sent.
const BATCH_COST: usize = 256 * 1024;
/// An empty queue keeps room for as many frames.
const KEPT_FRAMES: usize = 1024;

/// What a reader takes at once, frames and their cost, before it hands that to the loop.
const READ_FRAMES: usize = 256;
const READ_COST: usize = 256 * 1024;

/// What was read and is to be handed to the loop.
#[derive(Debug, Default)]
pub struct Gathered {
    frames: Vec<Frame>,
    cost: usize,
    end: Option<End>,
}

impl Gathered {
    /// Takes the next frame, or the end; a ping is answered on the same connection. Answers whether
    /// more may be taken, if it is there already.
    pub fn take(&mut self, next: Result<Frame, End>, state: &Shared<ConnectionState>) -> bool {
        match next {
            Ok(frame) => {
                self.cost += frame.cost();
                if let Frame::Ping(payload) = &frame {
                    state.with(|state| state.pong(payload.clone()));
                }
                self.frames.push(frame);
                self.frames.len() < READ_FRAMES && self.cost < READ_COST
            }
            Err(end) => {
                self.end = Some(end);
                false
            }
        }
    }

    /// Whether nothing was there.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.end.is_none()
    }

    /// Whether nothing comes any more.
    pub fn is_last(&self) -> bool {
        self.end.is_some()
    }

    /// What the loop is given.
    pub fn into_incoming<O>(self, link: LinkId) -> Incoming<O> {
        Incoming::Received(link, self.frames, self.end)
    }
}

/// Whether a connection is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It is.
    Read,
    /// Not now.
    Pause,
    /// Not any more.
    Over,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ConnectionState {
    queue: VecDeque<Frame>,
    /// Pings and pongs.
    controls: VecDeque<Frame>,
    paused: bool,
    is_admitted: bool,
    end: Option<End>,
    is_shut: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
    closer: Option<Waker>,
    woken: Vec<Waker>,
}

impl Wakes for ConnectionState {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

/// What the loop does.
impl ConnectionState {
    /// Queues frames.
    pub(crate) fn push(&mut self, frames: Vec<Frame>) {
        if self.end.is_some() {
            return;
        }
        for frame in frames {
            if frame.is_control() {
                self.control(frame);
            } else {
                self.queue.push_back(frame);
            }
        }
        self.woken.extend(self.writer.take());
        if self.queue.len() > MAX_FRAMES {
            let reason = "the connection does not take what it is sent";
            self.end(End::here(CloseCode::Limit.number(), reason.into()));
        }
    }

    pub(crate) fn pause(&mut self, paused: bool) {
        if self.paused != paused {
            self.paused = paused;
            self.woken.extend(self.reader.take());
        }
    }

    /// Takes note that the node counts the connection.
    pub(crate) fn admit(&mut self) {
        self.is_admitted = true;
        self.woken.extend(self.closer.take());
    }

    /// Orders the end, unless it was ordered before.
    pub fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.woken.extend(self.writer.take());
        self.woken.extend(self.reader.take());
        self.woken.extend(self.closer.take());
    }
}

/// What the tasks of the connection do.
impl ConnectionState {
    /// The next frames to send, put into `frames`: how many there are, and their cost; none if only
    /// control frames are to be sent. `None` after the last.
    pub fn poll_outgoing(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut impl Extend<Frame>,
    ) -> Poll<Option<(usize, usize)>> {
        if self.controls.is_empty() && self.queue.is_empty() {
            if self.end.is_some() {
                return Poll::Ready(None);
            }
            keep(&mut self.writer, cx.waker(), &mut self.woken);
            return Poll::Pending;
        }
        let (mut count, mut cost) = (0, 0);
        while cost < BATCH_COST
            && let Some(frame) = self.queue.pop_front()
        {
            count += 1;
            cost += frame.cost();
            frames.extend([frame]);
        }
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT_FRAMES);
        }
        Poll::Ready(Some((count, cost)))
    }

    /// Answers a ping.
    pub fn pong(&mut self, payload: Bytes) {
        self.control(Frame::Pong(payload));
    }

    fn control(&mut self, frame: Frame) {
        if self.controls.len() < MAX_CONTROLS {
            self.controls.push_back(frame);
            self.woken.extend(self.writer.take());
        }
    }

    /// The next ping or pong to send.
    pub fn next_control(&mut self) -> Option<Frame> {
        self.controls.pop_front()
    }

    /// Whether it is read from.
    pub fn flow(&self) -> Flow {
        match (&self.end, self.paused) {
            (Some(_), _) => Flow::Over,
            (None, true) => Flow::Pause,
            (None, false) => Flow::Read,
        }
    }

    /// Ready when the flow is another than this.
    pub fn poll_flow(&mut self, was: Flow, cx: &mut Context<'_>) -> Poll<Flow> {
        let flow = self.flow();
        if flow != was {
            return Poll::Ready(flow);
        }
        keep(&mut self.reader, cx.waker(), &mut self.woken);
        Poll::Pending
    }

    /// Ready when the node counts the connection. For whoever asks for the end, too.
    pub(crate) fn poll_admitted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_admitted {
            return Poll::Ready(());
        }
        keep(&mut self.closer, cx.waker(), &mut self.woken);
        Poll::Pending
    }

    /// Ready when the end was ordered.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(end) = &self.end {
            return Poll::Ready(end.clone());
        }
        keep(&mut self.closer, cx.waker(), &mut self.woken);
        Poll::Pending
    }

    /// Nothing is sent any more.
    pub(crate) fn shut(&mut self) {
        self.is_shut = true;
        self.woken.extend(self.reader.take());
    }

    /// Ready when nothing is sent any more. For whoever asked for the flow before.
    pub(crate) fn poll_shut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_shut {
            return Poll::Ready(());
        }
        keep(&mut self.reader, cx.waker(), &mut self.woken);
        Poll::Pending
    }

    /// How it has ended; before that, that it was lost.
    pub fn ended(&self) -> End {
        self.end.clone().unwrap_or_else(|| End::silent(String::from("the connection was lost")))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn frame(text: &'static str) -> Frame {
        Frame::Text(Bytes::from_static(text.as_bytes()))
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// What a writer takes, until it waits or is done; answers whether it is done.
    fn written(state: &mut ConnectionState) -> (Vec<Frame>, bool) {
        let mut frames = Vec::new();
        loop {
            frames.extend(core::iter::from_fn(|| state.next_control()));
            match state.poll_outgoing(&mut cx(), &mut frames) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return (frames, true),
                Poll::Pending => return (frames, false),
            }
        }
    }

    // keeps: end-of-connection
    #[test]
    fn what_was_queued_before_the_end_is_sent_and_nothing_after_it() {
        let mut state = ConnectionState::default();
        state.push(vec![frame("a"), frame("b")]);
        state.end(End::here(1001, "bye".into()));
        state.end(End::here(4400, "too late".into()));
        state.push(vec![frame("c")]);
        assert_eq!(written(&mut state), (vec![frame("a"), frame("b")], true));
        assert_eq!(state.ended(), End::here(1001, "bye".into()));
        assert_eq!(state.flow(), Flow::Over);
    }

    // keeps: signs-of-life
    #[test]
    fn pings_and_pongs_overtake_what_is_queued_and_cost_nothing() {
        let mut state = ConnectionState::default();
        let ping = Frame::Ping(Bytes::from_static(b"i"));
        state.push(vec![frame("a"), ping.clone()]);
        state.pong(Bytes::from_static(b"o"));
        let mut frames = Vec::new();
        let sent = state.poll_outgoing(&mut cx(), &mut frames);
        assert_eq!(sent, Poll::Ready(Some((1, frame("a").cost()))));
        assert_eq!(frames, [frame("a")]);
        let pong = Frame::Pong(Bytes::from_static(b"o"));
        assert_eq!(written(&mut state), (vec![ping, pong], false));
        (0..2 * MAX_CONTROLS).for_each(|_| state.pong(Bytes::new()));
        assert_eq!(written(&mut state).0.len(), MAX_CONTROLS);
    }

    #[test]
    fn a_large_queue_is_taken_in_parts_and_one_without_bound_ends() {
        let mut state = ConnectionState::default();
        let large = Frame::Binary(vec![0; BATCH_COST].into());
        state.push(vec![large.clone(), large]);
        let mut frames = Vec::new();
        assert!(matches!(state.poll_outgoing(&mut cx(), &mut frames), Poll::Ready(Some((1, _)))));
        state.push(vec![frame("a"); MAX_FRAMES]);
        assert_eq!(state.ended().close.map(|(code, _)| code), Some(CloseCode::Limit.number()));
    }

    #[test]
    fn pausing_is_heard_until_the_end() {
        let mut state = ConnectionState::default();
        assert!(state.poll_flow(Flow::Read, &mut cx()).is_pending());
        state.pause(true);
        assert_eq!(state.poll_flow(Flow::Read, &mut cx()), Poll::Ready(Flow::Pause));
        state.pause(false);
        assert_eq!(state.poll_flow(Flow::Pause, &mut cx()), Poll::Ready(Flow::Read));
        assert!(state.poll_end(&mut cx()).is_pending());
        state.end(End::silent("gone".into()));
        state.pause(true);
        assert_eq!(state.poll_flow(Flow::Read, &mut cx()), Poll::Ready(Flow::Over));
        assert_eq!(state.poll_end(&mut cx()), Poll::Ready(End::silent("gone".into())));
    }
}
