//! The crank: takes what has come, turns the node, carries out what it asks.
//!
//! One task owns the node, so nothing is locked. A turn takes a bounded number of inputs, then all
//! outputs; frames are gathered per link and handed over once a turn. The task waits for nothing
//! but its inputs: writers, store and dials are given work and report back. So every channel
//! towards this task may make its sender wait, and nothing can wait in a circle.
//!
//! Nothing is decided here about messages, peers or time: that is the node's.

use std::pin::pin;

use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::config::Limits;
use slipstream_core::driver::{Action, Driver};
use slipstream_core::exit::Exit;
use slipstream_core::feed::Feed;
use slipstream_core::ids::LinkId;
use slipstream_core::io::{End, Frame, Input};
use slipstream_core::shared::Shared;
use slipstream_core::store::StoreFailure;
use slipstream_store_sqlite::{Completion, Stopped, Store};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::clock::Clock;
use crate::dial;
use crate::link::{self, Opened};
use crate::report;

/// Things that may wait for the loop. A reader that finds no room waits, and so does its peer.
pub(crate) const INPUTS: usize = 128;
/// Inputs that one turn takes before it looks at the outputs.
const INPUTS_PER_TURN: usize = 512;

/// What reaches the loop.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// For the node as it is.
    Input(Input),
    /// Frames of one link, as many as were there, and how it ends if these are the last.
    Received(LinkId, Vec<Frame>, Option<End>),
    /// A connection whose handshake is done.
    Opened(Box<Opened>),
    /// Somebody who wants to know what happens.
    Watched(Shared<Feed>),
    /// A question or order of the operator.
    Admin(AdminRequest, oneshot::Sender<AdminAnswer>),
    /// To be answered by the store's thread.
    Alive(oneshot::Sender<()>),
}

/// A running node.
pub(crate) struct Turn {
    pub(crate) driver: Driver<oneshot::Sender<AdminAnswer>>,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    /// For the tasks of links and dials.
    pub(crate) inputs: mpsc::Sender<Incoming>,
    /// Ends the accepting of connections.
    pub(crate) listener: AbortHandle,
}

impl Turn {
    /// Turns the node until it has stopped or must not go on.
    pub(crate) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Incoming>,
        mut completions: mpsc::Receiver<Completion>,
    ) -> Exit {
        let mut timer = pin!(sleep_until(Instant::now()));
        let exit = loop {
            if let Err(exit) = self.carry_out() {
                break exit;
            }
            let wake = self.driver.poll_timeout().map(|at| self.clock.deadline(at));
            if let Some(at) = wake.filter(|at| *at != timer.deadline()) {
                timer.as_mut().reset(at);
            }
            tokio::select! {
                biased;
                Some(completion) = completions.recv() => self.completed(completion),
                Some(incoming) = inputs.recv() => {
                    let mut taken = self.take(incoming);
                    while taken < INPUTS_PER_TURN {
                        let Ok(incoming) = inputs.try_recv() else { break };
                        taken += self.take(incoming);
                    }
                }
                () = timer.as_mut(), if wake.is_some() => {}
            }
            self.driver.tick(self.clock.now());
        };
        self.listener.abort();
        // The links end by this, and a store that reports to nobody does not wait.
        drop((inputs, completions, self.driver));
        match tokio::task::spawn_blocking(move || self.store.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(target: "slipstream", %error, "closing the store"),
            Err(error) => tracing::error!(target: "slipstream", %error, "closing the store"),
        }
        exit
    }

    /// Gives the node one thing that came. Returns for how many inputs it counts.
    fn take(&mut self, incoming: Incoming) -> usize {
        let now = self.clock.now();
        match incoming {
            Incoming::Input(input) => {
                if matches!(input, Input::ShutDown) {
                    self.listener.abort();
                }
                self.driver.handle(input, now);
            }
            Incoming::Received(link, frames, end) => {
                let count = frames.len();
                self.driver.received(link, frames, end, now);
                return count;
            }
            Incoming::Opened(mut opened) => {
                opened.up.link = self.driver.next_link();
                let up = opened.up.clone();
                self.driver.opened(up, link::open(*opened, self.inputs.clone()), now);
            }
            Incoming::Watched(feed) => self.driver.watch(feed),
            Incoming::Admin(request, answer) => self.driver.ask(request, answer, now),
            Incoming::Alive(answer) => {
                // Without a store the answer is dropped, and that tells enough.
                let _ = self.store.ping(Box::new(move || {
                    // Whoever asked may have given up.
                    let _ = answer.send(());
                }));
            }
        }
        1
    }

    fn completed(&mut self, completion: Completion) {
        match completion.into_input() {
            Ok(input) => self.driver.handle(input, self.clock.now()),
            Err(damaged) => tracing::error!(target: "slipstream", "{damaged}"),
        }
    }

    /// Carries out all that is asked. An error is how the node has ended.
    fn carry_out(&mut self) -> Result<(), Exit> {
        let halted = |gone: Stopped| Exit::Halted(StoreFailure::Unknown(gone.to_string()));
        while let Some(task) = self.driver.poll() {
            match task {
                Action::Commit(batch) => self.store.commit(batch).map_err(halted)?,
                Action::Fetch(fetch, query) => self.store.fetch(fetch, query).map_err(halted)?,
                Action::Dial(dial, url) => {
                    let inputs = self.inputs.clone();
                    tokio::spawn(dial::run(dial, url, self.limits.clone(), inputs));
                }
                // Whoever asked may have given up.
                Action::Answer(asked, answer) => drop(asked.send(answer)),
                Action::Log(event) => report::event(&event),
                Action::Observe(observation) => report::observe(&observation),
                Action::End(exit) => return Err(exit),
            }
        }
        Ok(())
    }
}
