//! The crank: takes what has come, turns the node, carries out what it asks.
//!
//! One task owns the node, so nothing is locked. A turn takes a bounded number of inputs, then all
//! outputs; frames are gathered per link and handed over once a turn. The task waits for nothing
//! but its inputs: writers, store and dials are given work and report back. So every channel
//! towards this task may make its sender wait, and nothing can wait in a circle.
//!
//! Nothing is decided here about messages, peers or time: that is the node's.

use slipstream_core::channel::Receiver;
use slipstream_core::config::Limits;
use slipstream_core::connection::{self, Connection};
use slipstream_core::driver::{Action, Driver};
use slipstream_core::exit::Exit;
use slipstream_core::runtime::{Alarm, Runtime, Task};
use slipstream_core::store::StoreFailure;
use slipstream_store_sqlite::{Stopped, Store};

use crate::report;
use crate::runtime::{Incoming, Inputs, Smol};

/// Things that may wait for the loop.
pub(crate) const INPUTS: usize = 128;
/// Inputs that one turn takes before it looks at the outputs.
const INPUTS_PER_TURN: usize = 512;

/// A running node.
pub(crate) struct Turn {
    pub(crate) driver: Driver<Box<Connection<Smol>>>,
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    /// For the tasks of links and dials.
    pub(crate) inputs: Inputs,
    /// What accepts connections.
    pub(crate) listening: Task,
}

impl Turn {
    /// Turns the node until it has stopped or must not go on.
    pub(crate) async fn run(mut self, mut inputs: Receiver<Incoming>) -> Exit {
        let mut alarm = Alarm::<Smol>::default();
        let exit = loop {
            if let Err(exit) = self.carry_out() {
                break exit;
            }
            let mut next = alarm.before(self.driver.poll_timeout(), inputs.next()).await;
            let (now, mut taken) = (Smol::now(), 0);
            while let Some(incoming) = next {
                taken += self.driver.take(incoming, now);
                next = (taken < INPUTS_PER_TURN).then(|| inputs.try_next()).flatten();
            }
            self.driver.tick(Smol::now());
        };
        // The links end by this, and what the store reports is not heard.
        drop((inputs, self.driver));
        // Whoever starts another node may do so on the same port.
        self.listening.stop();
        self.listening.ended().await;
        let store = self.store;
        let closed = Smol::unblock(move || store.close()).await;
        let closed = closed.unwrap_or_else(|error| Err(StoreFailure::Unknown(error)));
        if let Err(error) = &closed {
            tracing::error!(target: "slipstream", %error, "closing the store");
        }
        exit.after_closing(closed)
    }

    /// Carries out all that is asked. An error is how the node has ended.
    fn carry_out(&mut self) -> Result<(), Exit> {
        let halted = |gone: Stopped| Exit::Halted(StoreFailure::Unknown(gone.to_string()));
        while let Some(task) = self.driver.poll() {
            match task {
                Action::Attach(mut opened) => {
                    opened.up.link = self.driver.next_link();
                    let up = opened.up.clone();
                    let link = connection::open::<Smol>(*opened, self.inputs.clone());
                    self.driver.opened(up, link, Smol::now());
                }
                Action::Deafen => self.listening.stop(),
                // Without a store nothing is kept, and that tells enough.
                Action::Ping(alive) => {
                    let _ = self.store.ping(Box::new(move || alive.keep(Ok(()))));
                }
                Action::Commit(batch) => self.store.commit(batch).map_err(halted)?,
                Action::Fetch(fetch, query) => self.store.fetch(fetch, query).map_err(halted)?,
                Action::Dial(dial, url) => {
                    let (limits, inputs) = (self.limits.clone(), self.inputs.clone());
                    Smol::spawn(connection::dial::<Smol>(dial, url, None, limits, inputs));
                }
                Action::Log(event) => report::event(&event),
                Action::Observe(observation) => report::observe(&observation),
                Action::End(exit) => return Err(exit),
            }
        }
        Ok(())
    }
}
