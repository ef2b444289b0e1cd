//! The crank: takes what has come, turns the node, carries out what it asks.
//!
//! One task owns the node, so nothing is locked. A turn takes a bounded number of inputs, then all
//! outputs; frames are gathered per link and handed over once a turn. The task waits for nothing
//! but its inputs: writers, store and dials are given work and report back. So every channel
//! towards this task may make its sender wait, and nothing can wait in a circle.
//!
//! Nothing is decided here about messages, peers or time: that is the node's.

use std::pin::pin;

use slipstream_core::config::Limits;
use slipstream_core::driver::{Action, Driver};
use slipstream_core::exit::Exit;
use slipstream_core::store::StoreFailure;
use slipstream_store_sqlite::{Completion, Stopped, Store};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::clock::Clock;
use crate::dial;
use crate::link::{self, Incoming, Inputs, Opened};
use crate::report;

/// Things that may wait for the loop.
pub(crate) const INPUTS: usize = 128;
/// Inputs that one turn takes before it looks at the outputs.
const INPUTS_PER_TURN: usize = 512;

/// A running node.
pub(crate) struct Turn {
    pub(crate) driver: Driver<Box<Opened>>,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    /// For the tasks of links and dials.
    pub(crate) inputs: Inputs,
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
                    let now = self.clock.now();
                    let mut taken = self.driver.take(incoming, now);
                    while taken < INPUTS_PER_TURN {
                        let Ok(incoming) = inputs.try_recv() else { break };
                        taken += self.driver.take(incoming, now);
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
                Action::Attach(mut opened) => {
                    opened.up.link = self.driver.next_link();
                    let up = opened.up.clone();
                    let link = link::open(*opened, self.inputs.clone());
                    self.driver.opened(up, link, self.clock.now());
                }
                Action::Deafen => self.listener.abort(),
                // Without a store nothing is kept, and that tells enough.
                Action::Ping(alive) => {
                    let _ = self.store.ping(Box::new(move || alive.keep(Ok(()))));
                }
                Action::Commit(batch) => self.store.commit(batch).map_err(halted)?,
                Action::Fetch(fetch, query) => self.store.fetch(fetch, query).map_err(halted)?,
                Action::Dial(dial, url) => {
                    let inputs = self.inputs.clone();
                    tokio::spawn(dial::run(dial, url, None, self.limits.clone(), inputs));
                }
                Action::Log(event) => report::event(&event),
                Action::Observe(observation) => report::observe(&observation),
                Action::End(exit) => return Err(exit),
            }
        }
        Ok(())
    }
}
