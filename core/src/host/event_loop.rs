//! The loop of a node: takes what has come, turns the node, carries out what the node asks.
//!
//! One task owns the node, so nothing is locked. A turn takes a bounded number of inputs, then all
//! outputs; frames are gathered per link and handed over once a turn. The task waits for nothing
//! but its inputs: writers, store and dials are given work and report back. So every channel
//! towards this task may make its sender wait, and nothing can wait in a circle.
//!
//! Nothing is decided here about messages, peers or time: that is the node's.

use core::fmt;
use core::time::Duration;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::admin::AdminAnswer;
use crate::admin::event::Event;
use crate::config::Limits;
use crate::host::channel::ChannelReceiver;
use crate::host::connection::links::ConnectionHandles;
use crate::host::connection::{self, Connection, Incoming, Inputs};
use crate::host::event_stream::Watchers;
use crate::host::exit::{ExitReason, NodeGone};
use crate::host::incoming::NodeRequest;
use crate::host::runtime::{Alarm, LogSink, Runtime, Task};
use crate::host::shared::OneShotSender;
use crate::io::{End, Input, Output};
use crate::node::Node;
use crate::session::link::ANSWER_PATIENCE;
use crate::store::{Stopped, Store, StoreFailure};
use crate::types::ids::{LinkId, Ticket};
use crate::types::time::{Instant, Now};

/// Things that may wait for the loop.
pub const INPUTS: usize = 128;
/// Inputs that one turn takes before it looks at the outputs.
const INPUTS_PER_TURN: usize = 512;
/// How long shutting down may take.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A running node with its store and its connections.
pub struct EventLoop<R: Runtime, S> {
    node: Node,
    store: S,
    /// What accepts connections.
    listening: Task,
    /// For the tasks of links and dials.
    inputs: Inputs<R>,
    /// Limits of what is dialled.
    limits: Limits,
    links: ConnectionHandles,
    /// Connections whose tasks are started once the inputs of a turn are taken.
    opened: VecDeque<Box<Connection<R>>>,
    watchers: Watchers,
    asked: HashMap<Ticket, OneShotSender<Result<AdminAnswer, NodeGone>>>,
    last_ticket: Ticket,
    /// Connections on which nothing more can be read, and when they end, answered or not.
    broken: Vec<(LinkId, End, Instant)>,
    /// The end of the last turn.
    now: Instant,
    /// When shutting down is over, done or not.
    stop_at: Option<Instant>,
    /// The node has nothing left to do.
    is_stopped: bool,
}

impl<R: Runtime, S> fmt::Debug for EventLoop<R, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").finish_non_exhaustive()
    }
}

impl<R: Runtime, S: Store> EventLoop<R, S> {
    /// Of this node and its store. `inputs` lead here, also for those who are dialled, within
    /// `limits`; `listening` accepts connections.
    pub fn new(node: Node, store: S, limits: Limits, inputs: Inputs<R>, listening: Task) -> Self {
        Self {
            node,
            store,
            listening,
            inputs,
            limits,
            links: ConnectionHandles::default(),
            opened: VecDeque::new(),
            watchers: Watchers::default(),
            asked: HashMap::new(),
            last_ticket: Ticket::default(),
            broken: Vec::new(),
            now: Instant::default(),
            stop_at: None,
            is_stopped: false,
        }
    }

    /// Turns the node until it has stopped or must not go on, and closes the store.
    pub async fn run(mut self, mut received: ChannelReceiver<Incoming<R>>) -> ExitReason {
        let mut alarm = Alarm::<R>::default();
        let exit = loop {
            if let Err(exit) = self.carry_out() {
                break exit;
            }
            let mut next = alarm.before(self.poll_timeout(), received.next()).await;
            let (now, mut taken) = (R::now(), 0);
            while let Some(incoming) = next {
                taken += self.take(incoming, now);
                next = (taken < INPUTS_PER_TURN).then(|| received.try_next()).flatten();
            }
            self.tick(R::now());
        };
        // What the store reports is not heard from here on.
        drop(received);
        let (store, mut listening) = self.let_go();
        // Whoever starts another node may do so on the same port.
        listening.stop();
        listening.ended().await;
        let closed = R::unblock(move || store.close()).await;
        let closed = closed.unwrap_or_else(|error| Err(StoreFailure::Unknown(error)));
        if let Err(failure) = &closed {
            R::Log::not_closed(failure);
        }
        exit.after_closing(closed)
    }

    /// Ends the links, and answers those who still wait that the node is gone.
    fn let_go(self) -> (S, Task) {
        (self.store, self.listening)
    }

    /// Takes what has come. Answers for how many inputs it counts.
    fn take(&mut self, incoming: Incoming<R>, now: Now) -> usize {
        match incoming {
            Incoming::<R>::Opened(opened) => self.opened.push_back(opened),
            Incoming::<R>::NotOpened(dial, error) => {
                self.handle(Input::DialFailed { dial, reason: error.to_string() }, now);
            }
            Incoming::<R>::Received(link, frames, end) => {
                let count = frames.len();
                for frame in frames {
                    self.node.handle(Input::Received { link, frame }, now);
                }
                match end {
                    // It still reads, and may be owed receipts that wait for the store.
                    Some(end) if end.is_from_here() => {
                        self.broken.push((link, end, now.instant + ANSWER_PATIENCE));
                    }
                    Some(end) => self.links.end_after_turn(link, end),
                    None => {}
                }
                return count;
            }
            Incoming::<R>::Input(input) | Incoming::<R>::Asked(NodeRequest::Input(input)) => {
                self.handle(input, now);
            }
            Incoming::<R>::Asked(NodeRequest::Admin(request, asked)) => {
                self.last_ticket = self.last_ticket.next();
                self.asked.insert(self.last_ticket, asked);
                self.node.handle(Input::Admin { ticket: self.last_ticket, request }, now);
            }
            // Without a store nothing is kept, and that tells enough.
            Incoming::<R>::Asked(NodeRequest::Alive(asked)) => {
                let _ = self.store.ping(Box::new(move || asked.keep(Ok(()))));
            }
            Incoming::<R>::Asked(NodeRequest::Watch(feed)) => self.watchers.add(feed),
        }
        1
    }

    /// Takes an input for the node as it is.
    fn handle(&mut self, input: Input, now: Now) {
        if let Input::LinkDown { link, .. } = &input {
            self.links.remove(*link);
        }
        if matches!(input, Input::ShutDown) {
            self.stop_at.get_or_insert(now.instant + STOP_DEADLINE);
            self.listening.stop();
        }
        self.node.handle(input, now);
    }

    /// Looks whether a time has come.
    fn tick(&mut self, now: Now) {
        self.now = now.instant;
        if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.node.handle(Input::Timer, now);
        }
    }

    /// Carries out all that is asked. An error is how the node has ended.
    fn carry_out(&mut self) -> Result<(), ExitReason> {
        while let Some(opened) = self.opened.pop_front() {
            self.attach(*opened);
        }
        while let Some(output) = self.node.poll_output() {
            self.carry_out_one(output)?;
        }
        self.end_what_is_answered();
        self.links.flush();
        if self.is_stopped && self.links.is_empty() {
            return Err(ExitReason::Stopped);
        }
        if self.stop_at.is_some_and(|at| at <= self.now) {
            self.log(&Event::NotAllTold);
            return Err(ExitReason::Stopped);
        }
        Ok(())
    }

    /// Starts the tasks of a connection.
    fn attach(&mut self, mut opened: Connection<R>) {
        opened.up.link = self.links.next_id();
        let up = opened.up.clone();
        let link = connection::open::<R>(opened, self.inputs.clone());
        self.links.insert(up.link, link);
        self.node.handle(Input::LinkUp(up), R::now());
    }

    fn carry_out_one(&mut self, output: Output) -> Result<(), ExitReason> {
        let halted = |gone: Stopped| ExitReason::Halted(StoreFailure::Unknown(gone.to_string()));
        match output {
            Output::Transmit { link, frame } => self.links.transmit(link, frame),
            Output::Pause(link) => self.links.pause(link, true),
            Output::Resume(link) => self.links.pause(link, false),
            Output::Admit(link) => self.links.admit(link),
            Output::Close { link, close } => self.links.close(link, close),
            Output::Commit(batch) => self.store.commit(batch).map_err(halted)?,
            Output::Fetch { fetch, query } => self.store.fetch(fetch, query).map_err(halted)?,
            Output::Dial { dial, url } => {
                let (limits, inputs) = (self.limits.clone(), self.inputs.clone());
                R::spawn(connection::dial::<R>(dial, url, None, limits, inputs));
            }
            Output::Admin { ticket, answer } => {
                if let Some(asked) = self.asked.remove(&ticket) {
                    asked.keep(Ok(answer));
                }
            }
            Output::Event(event) => self.log(&event),
            Output::Observe(observation) => R::Log::observe(&observation),
            Output::Stopped => self.is_stopped = true,
            // What was not sent is not sent.
            Output::Halt(failure) => return Err(ExitReason::Halted(failure)),
        }
        Ok(())
    }

    fn end_what_is_answered(&mut self) {
        let (node, now) = (&self.node, self.now);
        let done = |(link, _, until): &mut (LinkId, End, Instant)| {
            *until <= now || !node.owes_answers(*link)
        };
        for (link, end, _) in self.broken.extract_if(.., done) {
            self.links.end_after_turn(link, end);
        }
    }

    fn log(&mut self, event: &Event) {
        self.watchers.tell(event);
        R::Log::report(event);
    }

    /// When to turn again, if nothing comes before.
    fn poll_timeout(&self) -> Option<Instant> {
        let ends = self.broken.iter().map(|(_, _, until)| *until);
        ends.chain(self.node.poll_timeout()).chain(self.stop_at).min()
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::sync::Arc;
    use core::future::pending;
    use core::task::{Context, Poll, Waker};
    use std::sync::Mutex;

    use super::*;
    use crate::admin::AdminRequest;
    use crate::config::Config;
    use crate::host::channel;
    use crate::host::connection::Transport;
    use crate::host::event_stream::{Feed, Watcher};
    use crate::host::runtime::by_hand::{ByHand, Far, not_closed, reported, settle, start, taken};
    use crate::host::shared::{OneShot, StreamSource, share};
    use crate::host::socket::Opened;
    use crate::io::{Frame, Protocol};
    use crate::store::{Batch, Committed, Query, Recovered, Usage};
    use crate::types::ids::{FetchId, NodeId};
    use crate::types::time::WallMs;

    fn at(seconds: u64) -> Now {
        let instant = Instant::from_micros(seconds * 1_000_000);
        Now { instant, wall: WallMs(1_790_000_000_000 + seconds * 1_000) }
    }

    /// What a store was given, and how it does.
    #[derive(Debug, Default)]
    struct Given {
        batches: Vec<Batch>,
        is_gone: bool,
        is_closed: bool,
    }

    /// A store that keeps batches until the test commits them.
    #[derive(Debug, Clone, Default)]
    struct Keeping(Arc<Mutex<Given>>);

    impl Keeping {
        fn with<T>(&self, run: impl FnOnce(&mut Given) -> T) -> T {
            run(&mut self.0.lock().expect("nobody panics with it"))
        }
    }

    impl Store for Keeping {
        fn commit(&self, batch: Box<Batch>) -> Result<(), Stopped> {
            self.with(|given| {
                given.batches.push(*batch);
                if given.is_gone { Err(Stopped) } else { Ok(()) }
            })
        }

        fn fetch(&self, _: FetchId, _: Query) -> Result<(), Stopped> {
            Ok(())
        }

        fn ping(&self, pong: Box<dyn FnOnce() + Send>) -> Result<(), Stopped> {
            if self.with(|given| given.is_gone) {
                return Err(Stopped);
            }
            pong();
            Ok(())
        }

        fn close(self) -> Result<(), StoreFailure> {
            self.with(|given| given.is_closed = true);
            Err(StoreFailure::Full("the last checkpoint".into()))
        }
    }

    /// A node on a store that is committed to by hand, turned by hand.
    struct Turned {
        event_loop: EventLoop<ByHand, Keeping>,
        store: Keeping,
        received: ChannelReceiver<Incoming<ByHand>>,
        /// Of what accepts connections.
        accepts: Arc<()>,
    }

    impl Turned {
        fn new() -> Self {
            let config = Config::new(NodeId::new("aws").expect("a name"));
            let limits = config.limits.clone();
            let node = Node::new(config, Recovered::empty(), 42, at(0));
            let (inputs, received) = channel::bounded::<ByHand, _>(INPUTS);
            let (store, accepts) = (Keeping::default(), Arc::new(()));
            let had = accepts.clone();
            let listening = Task::spawn::<ByHand>(async move {
                let _had = had;
                pending::<()>().await;
            });
            let event_loop = EventLoop::new(node, store.clone(), limits, inputs, listening);
            Self { event_loop, store, received, accepts }
        }

        /// One that has committed what a start commits.
        fn started() -> Self {
            let mut turned = Self::new();
            turned.turn(at(0));
            turned
        }

        fn take(&mut self, incoming: Incoming<ByHand>, now: Now) {
            self.event_loop.take(incoming, now);
        }

        /// Carries out what is asked; the store does not answer.
        fn turn_unanswered(&mut self, now: Now) -> Option<ExitReason> {
            self.event_loop.tick(now);
            let ended = self.event_loop.carry_out().err();
            settle();
            ended
        }

        /// Carries out what is asked, with a store that answers.
        fn turn(&mut self, now: Now) -> Option<ExitReason> {
            loop {
                let ended = self.turn_unanswered(now);
                let batches = self.store.with(|given| core::mem::take(&mut given.batches));
                if ended.is_some() || batches.is_empty() {
                    return ended;
                }
                for batch in batches.into_iter().map(Box::new) {
                    let (usage, took) = (Usage::default(), Duration::ZERO);
                    let committed = Input::Committed(Committed { batch, usage, took });
                    self.take(Incoming::<ByHand>::Input(committed), now);
                }
            }
        }

        /// The first connection, as the other side holds it.
        fn connect(&mut self) -> (LinkId, Far) {
            let (near, far) = Far::pair();
            let transport = Transport::Memory(near);
            let opened = Opened::new(transport, Protocol::Json, "far".into(), String::new());
            self.take(Incoming::<ByHand>::Opened(Box::new(opened)), at(0));
            (LinkId::new(1), far)
        }

        /// What the tasks of connections have reported goes to the node.
        fn hear(&mut self, now: Now) {
            while let Some(incoming) = self.received.try_next() {
                self.event_loop.take(incoming, now);
            }
        }
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn text(text: &'static str) -> Frame {
        Frame::Text(bytes::Bytes::from_static(text.as_bytes()))
    }

    // keeps: end-of-connection
    #[test]
    fn shutdown_ends_when_all_were_told_or_its_time_is_over() {
        for (stores, is_told) in [(true, true), (true, false), (false, false)] {
            let mut turned = Turned::new();
            let turn = |turned: &mut Turned, now| match stores {
                true => turned.turn(now),
                false => turned.turn_unanswered(now),
            };
            let (link, mut far) = turned.connect();
            assert_eq!(turn(&mut turned, at(0)), None);
            turned.take(Incoming::<ByHand>::Input(Input::ShutDown), at(1));
            assert_eq!(turn(&mut turned, at(1)), None, "a connection is open");
            if is_told {
                assert!(far.received().1.is_some_and(|end| end.code_of_peer() == Some(1001)));
                let down = Input::LinkDown { link, code: None, reason: String::new() };
                turned.take(Incoming::<ByHand>::Input(down), at(2));
                assert_eq!(turn(&mut turned, at(2)), Some(ExitReason::Stopped));
                continue;
            }
            assert_eq!(turn(&mut turned, at(5)), None);
            let until = turned.event_loop.poll_timeout();
            assert!(until.is_some_and(|until| until <= at(6).instant));
            assert_eq!(turn(&mut turned, at(6)), Some(ExitReason::Stopped));
            let events = reported();
            assert!(matches!(events.last(), Some(Event::NotAllTold)), "{events:?}");
        }
    }

    #[test]
    fn who_asks_is_answered_and_who_watches_is_told_until_the_end() {
        let mut turned = Turned::started();
        let feed = share(Feed::default());
        let mut watcher = Watcher::of(feed.clone());
        turned.take(Incoming::<ByHand>::Asked(NodeRequest::Watch(feed)), at(0));
        let status = share(OneShot::default());
        let asked = OneShotSender::of(status.clone(), Err(NodeGone));
        turned.take(
            Incoming::<ByHand>::Asked(NodeRequest::Admin(AdminRequest::Status, asked)),
            at(1),
        );
        let alive = [false, true].map(|is_gone| {
            turned.store.with(|given| given.is_gone = is_gone);
            let alive = share(OneShot::default());
            let asked = OneShotSender::of(alive.clone(), Err(NodeGone));
            turned.take(Incoming::<ByHand>::Asked(NodeRequest::Alive(asked)), at(1));
            alive.with(|alive| alive.poll(&mut cx()))
        });
        assert_eq!(alive, [Poll::Ready(Ok(())), Poll::Ready(Err(NodeGone))]);
        turned.store.with(|given| given.is_gone = false);
        assert_eq!(turned.turn(at(1)), None);
        let status = status.with(|status| status.poll(&mut cx()));
        assert!(matches!(status, Poll::Ready(Ok(AdminAnswer::Status(_)))), "{status:?}");

        assert_eq!(Arc::strong_count(&turned.accepts), 2);
        turned.take(Incoming::<ByHand>::Asked(NodeRequest::Input(Input::ShutDown)), at(2));
        settle();
        assert_eq!(Arc::strong_count(&turned.accepts), 1, "nothing more is accepted");
        assert_eq!(turned.turn(at(2)), Some(ExitReason::Stopped));
        let never = share(OneShot::default());
        let asked = OneShotSender::of(never.clone(), Err(NodeGone));
        turned.take(
            Incoming::<ByHand>::Asked(NodeRequest::Admin(AdminRequest::Status, asked)),
            at(3),
        );
        drop(turned);
        let never = never.with(|never| never.poll(&mut cx()));
        assert!(matches!(never, Poll::Ready(Err(NodeGone))), "{never:?}");
        let mut heard = Vec::new();
        while let Poll::Ready(Some(event)) = watcher.poll_item(&mut cx()) {
            heard.push(event);
        }
        assert!(heard.iter().any(|event| matches!(event, Event::ShuttingDown)), "{heard:?}");
        assert!(matches!(watcher.poll_item(&mut cx()), Poll::Ready(None)), "it has ended");
    }

    // keeps: end-of-connection
    #[test]
    fn what_a_connection_brought_is_answered_before_its_end() {
        let mut turned = Turned::started();
        let (link, mut far) = turned.connect();
        turned.turn(at(0));
        far.received();
        let end = Some(End::here(1000, String::new()));
        turned.take(Incoming::<ByHand>::Received(link, alloc::vec![text("[]")], end), at(1));
        turned.turn(at(1));
        let (frames, end) = far.received();
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!(end, Some(End::by_peer(1000, String::new())));
    }

    // keeps: answers-before-close
    #[test]
    fn receipts_leave_before_the_close_for_what_cannot_be_read() {
        for stores in [true, false] {
            let mut turned = Turned::started();
            let (link, mut far) = turned.connect();
            turned.turn(at(0));
            turned.hear(at(0));
            far.received();
            let good = text(r#"{"type":"SK","messageId":"m-1","key":"k","value":1}"#);
            let end = Some(End::not_utf8());
            turned.take(Incoming::<ByHand>::Received(link, alloc::vec![good], end), at(1));
            // The store has not answered at the end of this turn.
            turned.turn_unanswered(at(1));
            assert_eq!(far.received(), (Vec::new(), None), "nothing is owed yet");
            if stores {
                turned.turn(at(2));
            } else {
                // Nobody waits for ever.
                let until = turned.event_loop.poll_timeout();
                assert!(until.is_some_and(|until| until <= at(6).instant));
                turned.turn_unanswered(at(6));
            }
            let (frames, end) = far.received();
            assert_eq!(frames.len(), usize::from(stores), "{frames:?}");
            assert_eq!(end.and_then(|end| end.code_of_peer()), Some(1007));
        }
    }

    #[test]
    fn the_end_of_a_node_closes_its_store() {
        for is_gone in [false, true] {
            let Turned { event_loop, store, received, accepts } = Turned::new();
            store.with(|given| given.is_gone = is_gone);
            let inputs = event_loop.inputs.clone();
            let exit = start(event_loop.run(received));
            inputs.push(Incoming::<ByHand>::Input(Input::ShutDown));
            settle();
            while !is_gone && let Some(batch) = store.with(|given| given.batches.pop()) {
                let (usage, took) = (Usage::default(), Duration::ZERO);
                let committed = Input::Committed(Committed { batch: batch.into(), usage, took });
                inputs.push(Incoming::<ByHand>::Input(committed));
                settle();
            }
            let gone = ExitReason::Halted(StoreFailure::Unknown("the store has stopped".into()));
            assert_eq!(taken(&exit), Some(if is_gone { gone } else { ExitReason::Stopped }));
            assert!(store.with(|given| given.is_closed));
            assert_eq!(not_closed(), [StoreFailure::Full("the last checkpoint".into())]);
            assert_eq!(Arc::strong_count(&accepts), 1, "another may listen there");
        }
    }
}
