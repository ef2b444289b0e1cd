//! What a shell's loop keeps beside its [`Node`], so that it has nothing left to decide.
//!
//! The loop gives what has come ([`Driver::handle`] and its like), then carries out what
//! [`Driver::poll`] asks until there is nothing more, then waits: for something to come, for what
//! it carries out, or until [`Driver::poll_timeout`]. What is for connections is not asked of it:
//! that goes to their [`Link`]s, gathered, once a turn.

use core::time::Duration;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::Node;
use crate::admin::{AdminAnswer, AdminRequest};
use crate::event::Event;
use crate::exit::Exit;
use crate::feed::{Feed, Watchers};
use crate::ids::{DialId, FetchId, LinkId, Ticket};
use crate::io::{End, Frame, Input, LinkUp, Observation, Output};
use crate::links::{Link, Links};
use crate::shared::Shared;
use crate::store::{Batch, Query};
use crate::time::{Instant, Now};

/// How long shutting down may take.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// What a loop is asked to do. `A` is what an operator waits with.
#[derive(Debug)]
pub enum Action<A> {
    /// As [`Output::Commit`].
    Commit(Box<Batch>),
    /// As [`Output::Fetch`].
    Fetch(FetchId, Query),
    /// As [`Output::Dial`].
    Dial(DialId, String),
    /// Give an operator this answer. Whoever asked may have given up.
    Answer(A, AdminAnswer),
    /// Write this to the log.
    Log(Event),
    /// Enter this in its histograms.
    Observe(Observation),
    /// The node has ended: go on with nothing, close the store.
    End(Exit),
}

/// See the module.
#[derive(Debug)]
pub struct Driver<A> {
    node: Node,
    links: Links,
    watchers: Watchers,
    asked: HashMap<Ticket, A>,
    last_ticket: Ticket,
    /// When shutting down is over, done or not.
    stop_at: Option<Instant>,
    overdue: bool,
    stopped: bool,
}

impl<A> Driver<A> {
    /// Of this node.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            links: Links::default(),
            watchers: Watchers::default(),
            asked: HashMap::new(),
            last_ticket: Ticket::default(),
            stop_at: None,
            overdue: false,
            stopped: false,
        }
    }

    /// Takes an input for the node as it is.
    pub fn handle(&mut self, input: Input, now: Now) {
        if let Input::LinkDown { link, .. } = &input {
            self.links.remove(*link);
        }
        if matches!(input, Input::ShutDown) {
            self.stop_at.get_or_insert(now.instant + STOP_DEADLINE);
        }
        self.node.handle(input, now);
    }

    /// A number for a connection that is about to be opened.
    pub fn next_link(&mut self) -> LinkId {
        self.links.next_id()
    }

    /// Takes a connection, which this link is for.
    pub fn opened(&mut self, up: LinkUp, link: Link, now: Now) {
        self.links.insert(up.link, link);
        self.node.handle(Input::LinkUp(up), now);
    }

    /// Takes frames of a connection, and how it ends if these are the last: it is ended when they
    /// are answered.
    pub fn received(&mut self, link: LinkId, frames: Vec<Frame>, end: Option<End>, now: Now) {
        for frame in frames {
            self.node.handle(Input::Received { link, frame }, now);
        }
        if let Some(end) = end {
            self.links.end_after_turn(link, end);
        }
    }

    /// Takes what an operator asks.
    pub fn ask(&mut self, request: AdminRequest, asked: A, now: Now) {
        self.last_ticket = self.last_ticket.next();
        self.asked.insert(self.last_ticket, asked);
        self.node.handle(Input::Admin { ticket: self.last_ticket, request }, now);
    }

    /// Tells this feed what happens from now on.
    pub fn watch(&mut self, feed: Shared<Feed>) {
        self.watchers.add(feed);
    }

    /// Looks whether a time has come.
    pub fn tick(&mut self, now: Now) {
        if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.node.handle(Input::Timer, now);
        }
        self.overdue = self.stop_at.is_some_and(|at| at <= now.instant);
    }

    /// What to do next. `None`: wait.
    pub fn poll(&mut self) -> Option<Action<A>> {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Transmit { link, frame } => self.links.transmit(link, frame),
                Output::Pause(link) => self.links.pause(link, true),
                Output::Resume(link) => self.links.pause(link, false),
                Output::Close { link, close } => self.links.close(link, close),
                Output::Commit(batch) => return Some(Action::Commit(batch)),
                Output::Fetch { fetch, query } => return Some(Action::Fetch(fetch, query)),
                Output::Dial { dial, url } => return Some(Action::Dial(dial, url)),
                Output::Admin { ticket, answer } => {
                    if let Some(asked) = self.asked.remove(&ticket) {
                        return Some(Action::Answer(asked, answer));
                    }
                }
                Output::Event(event) => return Some(self.log(event)),
                Output::Observe(observation) => return Some(Action::Observe(observation)),
                Output::Stopped => self.stopped = true,
                // What was not sent is not sent.
                Output::Halt(failure) => return Some(Action::End(Exit::Halted(failure))),
            }
        }
        self.links.flush();
        if self.stopped && self.links.is_empty() {
            return Some(Action::End(Exit::Stopped));
        }
        if self.overdue && self.stop_at.take().is_some() {
            return Some(self.log(Event::NotAllTold));
        }
        self.overdue.then_some(Action::End(Exit::Stopped))
    }

    fn log(&mut self, event: Event) -> Action<A> {
        self.watchers.tell(&event);
        Action::Log(event)
    }

    /// When to poll again, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.node.poll_timeout(), self.stop_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use std::sync::Mutex;

    use super::*;
    use crate::clock::Hlc;
    use crate::config::Config;
    use crate::extent::Extent;
    use crate::ids::{DeadLetterId, Incarnation, NodeId, Position, SessionId, StoreId};
    use crate::io::Protocol;
    use crate::line::{Flow, Line};
    use crate::shared::{Lock, Wakes};
    use crate::store::{Committed, Recovered, Usage};
    use crate::time::WallMs;

    struct Locked<T>(Mutex<T>);

    impl<T: Send> Lock<T> for Locked<T> {
        fn with(&self, run: &mut dyn FnMut(&mut T)) {
            run(&mut self.0.lock().expect("one thread"));
        }
    }

    fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T> {
        Shared::new(Arc::new(Locked(Mutex::new(what))))
    }

    fn at(seconds: u64) -> Now {
        let instant = Instant::from_micros(seconds * 1_000_000);
        Now { instant, wall: WallMs(1_790_000_000_000 + seconds * 1_000) }
    }

    fn driver() -> Driver<u32> {
        let empty = Recovered {
            store_id: StoreId(1),
            head: Position::default(),
            clock: Hlc::default(),
            incarnation: Incarnation::default(),
            last_session: SessionId::default(),
            last_dead_letter: DeadLetterId::default(),
            sessions: Vec::new(),
            seen: Vec::new(),
            receipts: Vec::new(),
            copies: Vec::new(),
            dead_letters: Vec::new(),
            extent: Extent::default(),
            usage: Usage::default(),
        };
        let config = Config::new(NodeId::new("aws").expect("a name"));
        Driver::new(Node::new(config, empty, 42, at(0)))
    }

    /// Does what is asked, with a store that works or does not; answers with what was logged and
    /// answered, and how the node ended.
    fn turn(
        driver: &mut Driver<u32>,
        stores: bool,
        now: Now,
    ) -> (Vec<Event>, Vec<u32>, Option<Exit>) {
        let (mut events, mut answered) = (Vec::new(), Vec::new());
        driver.tick(now);
        while let Some(task) = driver.poll() {
            match task {
                Action::Commit(batch) if stores => {
                    let committed =
                        Committed { batch, usage: Usage::default(), took: Duration::ZERO };
                    driver.handle(Input::Committed(committed), now);
                }
                Action::Commit(_) | Action::Fetch(..) | Action::Dial(..) | Action::Observe(_) => {}
                Action::Answer(asked, _) => answered.push(asked),
                Action::Log(event) => events.push(event),
                Action::End(exit) => return (events, answered, Some(exit)),
            }
        }
        (events, answered, None)
    }

    fn connect(driver: &mut Driver<u32>) -> (LinkId, Shared<Line>) {
        let line = share(Line::default());
        let link = driver.next_link();
        let up = LinkUp { link, ..LinkUp::of(Protocol::Json) };
        driver.opened(up, Link::new(line.clone()), at(0));
        (link, line)
    }

    #[test]
    fn shutting_down_ends_when_everyone_was_told_or_its_time_is_over() {
        for (stores, told) in [(true, true), (true, false), (false, false)] {
            let mut driver = driver();
            let (link, line) = connect(&mut driver);
            turn(&mut driver, stores, at(0));
            driver.handle(Input::ShutDown, at(1));
            let (_, _, exit) = turn(&mut driver, stores, at(1));
            assert_eq!(exit, None, "a connection is open");
            if told {
                assert_eq!(line.with(|line| line.flow()), Flow::Over);
                let down = Input::LinkDown { link, code: None, reason: String::new() };
                driver.handle(down, at(2));
                assert_eq!(turn(&mut driver, stores, at(2)).2, Some(Exit::Stopped));
                continue;
            }
            assert_eq!(turn(&mut driver, stores, at(5)).2, None);
            assert!(driver.poll_timeout().is_some_and(|at| at <= self::at(6).instant));
            let (events, _, exit) = turn(&mut driver, stores, at(6));
            assert_eq!(exit, Some(Exit::Stopped));
            assert!(matches!(events.last(), Some(Event::NotAllTold)), "{events:?}");
        }
    }

    #[test]
    fn who_asks_is_answered_and_who_watches_is_told_until_the_end() {
        let mut driver = driver();
        turn(&mut driver, true, at(0));
        let feed = share(Feed::default());
        let mut watcher = crate::feed::Watcher::of(feed.clone());
        driver.watch(feed);
        for asked in [7, 8] {
            driver.ask(AdminRequest::Status, asked, at(1));
        }
        assert_eq!(turn(&mut driver, true, at(1)).1, [7, 8]);
        driver.handle(Input::ShutDown, at(2));
        assert_eq!(turn(&mut driver, true, at(2)).2, Some(Exit::Stopped));
        drop(driver);
        let mut cx = core::task::Context::from_waker(core::task::Waker::noop());
        let mut heard = Vec::new();
        loop {
            use crate::shared::Source;
            match watcher.poll_item(&mut cx) {
                core::task::Poll::Ready(Some(event)) => heard.push(event),
                core::task::Poll::Ready(None) => break,
                core::task::Poll::Pending => panic!("it has ended"),
            }
        }
        assert!(heard.iter().any(|event| matches!(event, Event::ShuttingDown)), "{heard:?}");
    }

    #[test]
    fn what_a_connection_brought_is_answered_before_its_end() {
        let mut driver = driver();
        turn(&mut driver, true, at(0));
        let (link, line) = connect(&mut driver);
        turn(&mut driver, true, at(0));
        let mut frames = Vec::new();
        let mut cx = core::task::Context::from_waker(core::task::Waker::noop());
        let _ = line.with(|line| line.poll_outgoing(&mut cx, &mut frames));
        frames.clear();
        let bad = Frame::Text(bytes::Bytes::from_static(b"[]"));
        driver.received(link, alloc::vec![bad], Some(End::here(1000, String::new())), at(1));
        turn(&mut driver, true, at(1));
        let sent = line.with(|line| line.poll_outgoing(&mut cx, &mut frames));
        assert!(matches!(sent, core::task::Poll::Ready(Some((1, _)))), "{sent:?}");
        assert_eq!(line.with(|line| line.ended()), End::here(1000, String::new()));
    }
}
