//! A connection within the process: how an application that embeds a node talks to it.
//!
//! For the node it is a link like any other, with credit, pauses and a heartbeat, so that every
//! rule for applications holds for it. What differs is that frames are handed over as they are:
//! there is no socket and no WebSocket framing.

use std::vec::IntoIter;

use slipstream_core::ids::LinkId;
use slipstream_core::io::{End, Frame, Input};

use crate::link::{Flow, Link, Outgoing, ended};
use crate::stand_ins::{Receiver, Sender, Watch, select, unbounded};
use crate::turn::Incoming;

/// The application's end.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) inlet: PipeInlet,
    pub(crate) outlet: PipeOutlet,
}

impl Pipe {
    /// A connection by the number `id`: the node's hold on it, and the application's end.
    pub(crate) fn open(id: LinkId, inputs: Sender<Incoming>) -> (Link, Self) {
        let (queue, queued) = unbounded();
        let flow = Watch::new(Flow::Read);
        let orders = flow.clone();
        let (batch, taken) = (Vec::new().into_iter(), (0, 0));
        let inlet =
            PipeInlet { id, queued, orders: orders.clone(), inputs: inputs.clone(), batch, taken };
        (Link::new(queue, flow), Self { inlet, outlet: PipeOutlet { id, orders, inputs } })
    }
}

/// What the node says.
#[derive(Debug)]
pub(crate) struct PipeInlet {
    id: LinkId,
    queued: Receiver<Outgoing>,
    orders: Watch<Flow>,
    inputs: Sender<Incoming>,
    batch: IntoIter<Frame>,
    /// Frames taken and their cost, not yet reported.
    taken: (usize, usize),
}

impl PipeInlet {
    /// The next frame, or how the connection ends. Can be given up and called again without loss.
    pub(crate) async fn next(&mut self) -> Result<Frame, End> {
        loop {
            if self.taken.0 > 0 {
                let (frames, cost) = self.taken;
                let sent = Incoming::Input(Input::Sent { link: self.id, frames, cost });
                self.inputs.send(sent).await.map_err(|_| gone())?;
                self.taken = (0, 0);
            }
            if let Some(frame) = self.batch.next() {
                return Ok(frame);
            }
            // The queue comes first: what was queued before the end is read before it.
            let queued = select! {
                queued = self.queued.recv() => queued,
                () = ended(&self.orders) => None,
            };
            match queued {
                Some(Outgoing::Frames(frames)) => {
                    self.taken = (frames.len(), frames.iter().map(Frame::cost).sum());
                    self.batch = frames.into_iter();
                }
                Some(Outgoing::Pong(_)) => {}
                None => {
                    return Err(match &*self.orders.borrow() {
                        Flow::End(end) => end.clone(),
                        Flow::Read | Flow::Pause => gone(),
                    });
                }
            }
        }
    }
}

/// What the application says.
#[derive(Debug)]
pub(crate) struct PipeOutlet {
    id: LinkId,
    orders: Watch<Flow>,
    inputs: Sender<Incoming>,
}

impl PipeOutlet {
    /// Hands frames to the node, once it wants to read.
    pub(crate) async fn send(&mut self, frames: Vec<Frame>) -> Result<(), End> {
        self.orders.wait_for(|flow| !matches!(flow, Flow::Pause)).await;
        let received = Incoming::Received(self.id, frames, None);
        self.inputs.send(received).await.map_err(|_| gone())
    }

    /// Tells the node that the application has gone.
    pub(crate) async fn close(self) {
        // A node that is gone needs to know nothing.
        let _ = self.inputs.send(self.down()).await;
    }

    fn down(&self) -> Incoming {
        let reason = "closed by the application".into();
        Incoming::Input(Input::LinkDown { link: self.id, code: Some(1000), reason })
    }
}

impl Drop for PipeOutlet {
    /// A connection that was never used is given up like this. The node hears of it unless its
    /// inputs are full; then it finds the application silent. A second word changes nothing.
    fn drop(&mut self) {
        let _ = self.inputs.try_send(self.down());
    }
}

fn gone() -> End {
    End::silent("the node has ended".into())
}
