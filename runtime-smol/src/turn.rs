//! The crank: takes what has come, turns the node, carries out what it asks.
//!
//! One task owns the node, so nothing is locked. A turn takes a bounded number of inputs, then all
//! outputs; frames are gathered per link and handed over once a turn. The task waits for nothing
//! but its inputs: writers, store and dials are given work and report back. So every channel
//! towards this task may make its sender wait, and nothing can wait in a circle.
//!
//! Nothing is decided here about messages, peers or time: that is the node's.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use slipstream_core::Node;
use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::config::Limits;
use slipstream_core::event::Event;
use slipstream_core::ids::{LinkId, Ticket};
use slipstream_core::io::{End, Frame, Input, LinkUp, Output, Protocol};
use slipstream_core::store::StoreFailure;
use slipstream_store_sqlite::{Completion, Store};
use smol::Task;

use crate::clock::Clock;
use crate::dial;
use crate::events::Watchers;
use crate::link::{Link, Opened};
use crate::node::Exit;
use crate::pipe::Pipe;
use crate::report;
use crate::stand_ins::{Alarm, Receiver, Sender, select, spawn};

/// Things that may wait for the loop. A reader that finds no room waits, and so does its peer.
pub(crate) const INPUTS: usize = 128;
/// Inputs that one turn takes before it looks at the outputs.
const INPUTS_PER_TURN: usize = 512;
/// How long shutting down may take.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// What reaches the loop.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// For the node as it is.
    Input(Input),
    /// Frames of one link, as many as were there, and how it ends if these are the last.
    Received(LinkId, Vec<Frame>, Option<End>),
    /// A connection whose handshake is done.
    Opened(Box<Opened>),
    /// An application within this process that asks for what this query string says.
    Joined(String, oneshot::Sender<Pipe>),
    /// Somebody who wants to know what happens.
    Watched(Sender<Event>),
    /// A question or order of the operator.
    Admin(AdminRequest, oneshot::Sender<AdminAnswer>),
    /// To be answered by the store's thread.
    Alive(oneshot::Sender<()>),
}

/// A running node.
pub(crate) struct Turn {
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    /// For the tasks of links and dials.
    pub(crate) inputs: Sender<Incoming>,
    /// Accepts connections until it is dropped.
    pub(crate) listener: Option<Task<()>>,
    /// Those who want to know what happens.
    pub(crate) watchers: Watchers,
    pub(crate) links: HashMap<LinkId, Link>,
    /// Links that have frames to flush.
    pub(crate) touched: Vec<LinkId>,
    /// Links that end once what they brought is answered.
    pub(crate) ending: Vec<(LinkId, End)>,
    pub(crate) last_link: LinkId,
    pub(crate) tickets: HashMap<Ticket, oneshot::Sender<AdminAnswer>>,
    pub(crate) last_ticket: Ticket,
    /// When shutting down is over, done or not.
    pub(crate) stop_at: Option<Instant>,
    pub(crate) stopped: bool,
}

impl Turn {
    /// Turns the node until it has stopped or must not go on.
    pub(crate) async fn run(
        mut self,
        mut inputs: Receiver<Incoming>,
        mut completions: Receiver<Completion>,
    ) -> Exit {
        let mut alarm = Alarm::new();
        let exit = loop {
            if let Some(failure) = self.carry_out() {
                break Exit::Halted(failure);
            }
            if self.stopped && self.links.is_empty() {
                break Exit::Stopped;
            }
            let due = self.node.poll_timeout().map(|at| self.clock.deadline(at));
            let wake = [due, self.stop_at].into_iter().flatten().min();
            select! {
                completion = completions.recv_some() => self.completed(completion),
                incoming = inputs.recv_some() => {
                    let mut taken = self.take(incoming);
                    while taken < INPUTS_PER_TURN {
                        let Some(incoming) = inputs.try_recv() else { break };
                        taken += self.take(incoming);
                    }
                },
                () = alarm.until(wake) => {}
            }
            let now = self.clock.now();
            if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
                self.node.handle(Input::Timer, now);
            }
            if self.stop_at.is_some_and(|at| at <= Instant::now()) {
                tracing::warn!(target: "slipstream", "not everyone could be told in time");
                break Exit::Stopped;
            }
        };
        drop(self.listener.take());
        // The links end by this, and a store that reports to nobody does not wait.
        drop((inputs, completions));
        let Self { store, links, .. } = self;
        drop(links);
        match smol::unblock(move || store.close()).fallible().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(target: "slipstream", %error, "closing the store"),
            None => tracing::error!(target: "slipstream", "closing the store panicked"),
        }
        exit
    }

    /// Gives the node one thing that came. Returns for how many inputs it counts.
    fn take(&mut self, incoming: Incoming) -> usize {
        let now = self.clock.now();
        match incoming {
            Incoming::Input(input) => {
                match &input {
                    Input::LinkDown { link, .. } => drop(self.links.remove(link)),
                    Input::ShutDown => {
                        drop(self.listener.take());
                        self.stop_at.get_or_insert(Instant::now() + STOP_DEADLINE);
                    }
                    _ => {}
                }
                self.node.handle(input, now);
                1
            }
            Incoming::Received(link, frames, end) => {
                let count = frames.len();
                self.ending.extend(end.map(|end| (link, end)));
                for frame in frames {
                    self.node.handle(Input::Received { link, frame }, now);
                }
                count
            }
            Incoming::Opened(mut opened) => {
                let id = self.last_link.next();
                self.last_link = id;
                let up = opened.up(id);
                self.links.insert(id, Link::open(id, *opened, self.inputs.clone()));
                self.node.handle(Input::LinkUp(up), now);
                1
            }
            Incoming::Joined(query, answer) => {
                let id = self.last_link.next();
                self.last_link = id;
                let (link, pipe) = Pipe::open(id, self.inputs.clone());
                // Whoever has given up meanwhile leaves no link.
                if answer.send(pipe).is_ok() {
                    self.links.insert(id, link);
                    let (protocol, remote) = (Protocol::Postcard, "this process".into());
                    let up = LinkUp { link: id, dial: None, protocol, remote, query };
                    self.node.handle(Input::LinkUp(up), now);
                }
                1
            }
            Incoming::Watched(watcher) => self.watchers.add(watcher),
            Incoming::Admin(request, answer) => {
                let ticket = self.last_ticket.next();
                self.last_ticket = ticket;
                self.tickets.insert(ticket, answer);
                self.node.handle(Input::Admin { ticket, request }, now);
                1
            }
            Incoming::Alive(answer) => {
                // Without a store the answer is dropped, and that tells enough.
                let _ = self.store.ping(Box::new(move || {
                    // Whoever asked may have given up.
                    let _ = answer.send(());
                }));
                1
            }
        }
    }

    fn completed(&mut self, completion: Completion) {
        match completion.into_input() {
            Ok(input) => self.node.handle(input, self.clock.now()),
            Err(damaged) => tracing::error!(target: "slipstream", "{damaged}"),
        }
    }

    /// Carries out all outputs. Returns why nothing may go on, if that is so; then what was not
    /// sent is not sent.
    fn carry_out(&mut self) -> Option<StoreFailure> {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Transmit { link, frame } => {
                    if self.links.get_mut(&link).is_some_and(|to| to.transmit(frame)) {
                        self.touched.push(link);
                    }
                }
                Output::Commit(batch) => {
                    if let Err(stopped) = self.store.commit(batch) {
                        return Some(StoreFailure::Unknown(stopped.to_string()));
                    }
                }
                Output::Fetch { fetch, query } => {
                    if let Err(stopped) = self.store.fetch(fetch, query) {
                        return Some(StoreFailure::Unknown(stopped.to_string()));
                    }
                }
                Output::Pause(link) => self.with(link, |link| link.pause()),
                Output::Resume(link) => self.with(link, |link| link.resume()),
                Output::Close { link, close } => self.with(link, |link| link.close(close)),
                Output::Dial { dial, url } => {
                    let inputs = self.inputs.clone();
                    spawn(dial::run(dial, url, self.limits.clone(), inputs));
                }
                Output::Admin { ticket, answer } => {
                    if let Some(asked) = self.tickets.remove(&ticket) {
                        // Whoever asked may have given up.
                        let _ = asked.send(answer);
                    }
                }
                Output::Event(event) => {
                    report::event(&event);
                    self.watchers.tell(&event);
                }
                Output::Observe(observation) => report::observe(&observation),
                Output::Stopped => self.stopped = true,
                Output::Halt(failure) => return Some(failure),
            }
        }
        for link in self.touched.drain(..) {
            if let Some(link) = self.links.get_mut(&link) {
                link.flush();
            }
        }
        for (link, end) in std::mem::take(&mut self.ending) {
            self.with(link, |link| link.end(end));
        }
        None
    }

    fn with(&mut self, link: LinkId, order: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(&link) {
            order(link);
        }
    }
}
