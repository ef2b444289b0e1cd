//! What a shell's loop keeps beside its [`Node`], so that it has nothing left to decide.
//!
//! The loop gives what has come ([`Driver::take`]), then carries out what [`Driver::poll`] asks
//! until there is nothing more, then waits: for something to come, for what it carries out, or
//! until [`Driver::poll_timeout`]. What is for connections is not asked of it: that goes to their
//! [`Link`]s, gathered, once a turn.

use core::time::Duration;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::admin::AdminAnswer;
use crate::admin::event::Event;
use crate::host::connection::links::{Link, Links};
use crate::host::exit::{Exit, NodeGone};
use crate::host::feed::Watchers;
use crate::host::incoming::{Incoming, Request};
use crate::host::shared::Promise;
use crate::io::{End, Input, LinkUp, Observation, Output};
use crate::node::Node;
use crate::session::link::ANSWER_PATIENCE;
use crate::store::{Batch, Query};
use crate::types::ids::{DialId, FetchId, LinkId, Ticket};
use crate::types::time::{Instant, Now};

/// How long shutting down may take.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// What a loop is asked to do. `O` is a connection as the shell opens it.
#[derive(Debug)]
pub enum Action<O> {
    /// Start the tasks of this connection, with [`Driver::next_link`] as its number, and give its
    /// link to [`Driver::opened`].
    Attach(O),
    /// Accept no more connections.
    Deafen,
    /// As [`Output::Commit`].
    Commit(Box<Batch>),
    /// As [`Output::Fetch`].
    Fetch(FetchId, Query),
    /// As [`Output::Dial`].
    Dial(DialId, String),
    /// Let the store's thread keep this, when it has done what it was asked before.
    Ping(Promise<Result<(), NodeGone>>),
    /// Write this to the log.
    Log(Event),
    /// Enter this in its histograms.
    Observe(Observation),
    /// The node has ended: go on with nothing, close the store.
    End(Exit),
}

/// See the module.
#[derive(Debug)]
pub struct Driver<O> {
    node: Node,
    links: Links,
    watchers: Watchers,
    todo: VecDeque<Action<O>>,
    asked: HashMap<Ticket, Promise<Result<AdminAnswer, NodeGone>>>,
    last_ticket: Ticket,
    /// Connections on which nothing more can be read, and when they end, answered or not.
    broken: Vec<(LinkId, End, Instant)>,
    now: Instant,
    /// When shutting down is over, done or not.
    stop_at: Option<Instant>,
    overdue: bool,
    stopped: bool,
}

impl<O> Driver<O> {
    /// Of this node.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            links: Links::default(),
            watchers: Watchers::default(),
            todo: VecDeque::new(),
            asked: HashMap::new(),
            last_ticket: Ticket::default(),
            broken: Vec::new(),
            now: Instant::default(),
            stop_at: None,
            overdue: false,
            stopped: false,
        }
    }

    /// Takes what has come. Answers for how many inputs it counts.
    pub fn take(&mut self, incoming: Incoming<O>, now: Now) -> usize {
        match incoming {
            Incoming::Opened(opened) => self.todo.push_back(Action::Attach(opened)),
            Incoming::NotOpened(dial, error) => {
                self.handle(Input::DialFailed { dial, reason: error.to_string() }, now);
            }
            Incoming::Received(link, frames, end) => {
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
            Incoming::Input(input) | Incoming::Asked(Request::Input(input)) => {
                self.handle(input, now);
            }
            Incoming::Asked(Request::Admin(request, asked)) => {
                self.last_ticket = self.last_ticket.next();
                self.asked.insert(self.last_ticket, asked);
                self.node.handle(Input::Admin { ticket: self.last_ticket, request }, now);
            }
            Incoming::Asked(Request::Alive(asked)) => self.todo.push_back(Action::Ping(asked)),
            Incoming::Asked(Request::Watch(feed)) => self.watchers.add(feed),
        }
        1
    }

    /// Takes an input for the node as it is.
    pub fn handle(&mut self, input: Input, now: Now) {
        if let Input::LinkDown { link, .. } = &input {
            self.links.remove(*link);
        }
        if matches!(input, Input::ShutDown) {
            self.stop_at.get_or_insert(now.instant + STOP_DEADLINE);
            self.todo.push_back(Action::Deafen);
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

    /// Looks whether a time has come.
    pub fn tick(&mut self, now: Now) {
        self.now = now.instant;
        if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.node.handle(Input::Timer, now);
        }
        self.overdue = self.stop_at.is_some_and(|at| at <= now.instant);
    }

    /// What to do next. `None`: wait.
    pub fn poll(&mut self) -> Option<Action<O>> {
        if let Some(action) = self.todo.pop_front() {
            return Some(action);
        }
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Transmit { link, frame } => self.links.transmit(link, frame),
                Output::Pause(link) => self.links.pause(link, true),
                Output::Resume(link) => self.links.pause(link, false),
                Output::Admit(link) => self.links.admit(link),
                Output::Close { link, close } => self.links.close(link, close),
                Output::Commit(batch) => return Some(Action::Commit(batch)),
                Output::Fetch { fetch, query } => return Some(Action::Fetch(fetch, query)),
                Output::Dial { dial, url } => return Some(Action::Dial(dial, url)),
                Output::Admin { ticket, answer } => {
                    if let Some(asked) = self.asked.remove(&ticket) {
                        asked.keep(Ok(answer));
                    }
                }
                Output::Event(event) => return Some(self.log(event)),
                Output::Observe(observation) => return Some(Action::Observe(observation)),
                Output::Stopped => self.stopped = true,
                // What was not sent is not sent.
                Output::Halt(failure) => return Some(Action::End(Exit::Halted(failure))),
            }
        }
        self.end_what_is_answered();
        self.links.flush();
        if self.stopped && self.links.is_empty() {
            return Some(Action::End(Exit::Stopped));
        }
        if self.overdue && self.stop_at.take().is_some() {
            return Some(self.log(Event::NotAllTold));
        }
        self.overdue.then_some(Action::End(Exit::Stopped))
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

    fn log(&mut self, event: Event) -> Action<O> {
        self.watchers.tell(&event);
        Action::Log(event)
    }

    /// When to poll again, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ends = self.broken.iter().map(|(_, _, until)| *until);
        ends.chain(self.node.poll_timeout()).chain(self.stop_at).min()
    }
}

#[cfg(test)]
mod tests {
    use core::task::{Context, Poll, Waker};

    use super::*;
    use crate::admin::AdminRequest;
    use crate::config::Config;
    use crate::host::connection::line::{Flow, Line};
    use crate::host::feed::{Feed, Watcher};
    use crate::host::shared::{Once, Shared, Source, share};
    use crate::io::{Frame, Protocol};
    use crate::store::{Committed, Recovered, Usage};
    use crate::types::ids::NodeId;
    use crate::types::time::WallMs;

    fn at(seconds: u64) -> Now {
        let instant = Instant::from_micros(seconds * 1_000_000);
        Now { instant, wall: WallMs(1_790_000_000_000 + seconds * 1_000) }
    }

    fn driver() -> Driver<Shared<Line>> {
        let config = Config::new(NodeId::new("aws").expect("a name"));
        Driver::new(Node::new(config, Recovered::empty(), 42, at(0)))
    }

    /// Does what is asked, with a store that works or does not; answers with what was logged, and
    /// how the node ended.
    fn turn(
        driver: &mut Driver<Shared<Line>>,
        stores: bool,
        now: Now,
    ) -> (Vec<Event>, Option<Exit>) {
        let mut events = Vec::new();
        driver.tick(now);
        while let Some(task) = driver.poll() {
            match task {
                Action::Attach(line) => {
                    let link = driver.next_link();
                    let up = LinkUp { link, ..LinkUp::of(Protocol::Json) };
                    driver.opened(up, Link::new(line), now);
                }
                Action::Commit(batch) if stores => {
                    let committed =
                        Committed { batch, usage: Usage::default(), took: Duration::ZERO };
                    driver.handle(Input::Committed(committed), now);
                }
                Action::Ping(alive) if stores => alive.keep(Ok(())),
                Action::Ping(_) | Action::Deafen | Action::Dial(..) => {}
                Action::Commit(_) | Action::Fetch(..) | Action::Observe(_) => {}
                Action::Log(event) => events.push(event),
                Action::End(exit) => return (events, Some(exit)),
            }
        }
        (events, None)
    }

    /// The first connection.
    fn connect(driver: &mut Driver<Shared<Line>>) -> (LinkId, Shared<Line>) {
        let line = share(Line::default());
        driver.take(Incoming::Opened(line.clone()), at(0));
        (LinkId::new(1), line)
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    // keeps: end-of-connection
    #[test]
    fn shutting_down_ends_when_everyone_was_told_or_its_time_is_over() {
        for (stores, told) in [(true, true), (true, false), (false, false)] {
            let mut driver = driver();
            let (link, line) = connect(&mut driver);
            turn(&mut driver, stores, at(0));
            driver.handle(Input::ShutDown, at(1));
            let (_, exit) = turn(&mut driver, stores, at(1));
            assert_eq!(exit, None, "a connection is open");
            if told {
                assert_eq!(line.with(|line| line.flow()), Flow::Over);
                let down = Input::LinkDown { link, code: None, reason: String::new() };
                driver.handle(down, at(2));
                assert_eq!(turn(&mut driver, stores, at(2)).1, Some(Exit::Stopped));
                continue;
            }
            assert_eq!(turn(&mut driver, stores, at(5)).1, None);
            assert!(driver.poll_timeout().is_some_and(|at| at <= self::at(6).instant));
            let (events, exit) = turn(&mut driver, stores, at(6));
            assert_eq!(exit, Some(Exit::Stopped));
            assert!(matches!(events.last(), Some(Event::NotAllTold)), "{events:?}");
        }
    }

    #[test]
    fn who_asks_is_answered_and_who_watches_is_told_until_the_end() {
        let mut driver = driver();
        turn(&mut driver, true, at(0));
        let feed = share(Feed::default());
        let mut watcher = Watcher::of(feed.clone());
        driver.take(Incoming::Asked(Request::Watch(feed)), at(0));
        let status = share(Once::default());
        let asked = Promise::of(status.clone(), Err(NodeGone));
        driver.take(Incoming::Asked(Request::Admin(AdminRequest::Status, asked)), at(1));
        let alive = [true, false].map(|stores| {
            let alive = share(Once::default());
            let asked = Promise::of(alive.clone(), Err(NodeGone));
            driver.take(Incoming::Asked(Request::Alive(asked)), at(1));
            turn(&mut driver, stores, at(1));
            alive.with(|alive| alive.poll(&mut cx()))
        });
        assert_eq!(alive, [Poll::Ready(Ok(())), Poll::Ready(Err(NodeGone))]);
        let status = status.with(|status| status.poll(&mut cx()));
        assert!(matches!(status, Poll::Ready(Ok(AdminAnswer::Status(_)))), "{status:?}");

        driver.take(Incoming::Asked(Request::Input(Input::ShutDown)), at(2));
        assert!(matches!(driver.poll(), Some(Action::Deafen)));
        assert_eq!(turn(&mut driver, true, at(2)).1, Some(Exit::Stopped));
        let never = share(Once::default());
        let asked = Promise::of(never.clone(), Err(NodeGone));
        driver.take(Incoming::Asked(Request::Admin(AdminRequest::Status, asked)), at(3));
        drop(driver);
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
        let mut driver = driver();
        turn(&mut driver, true, at(0));
        let (link, line) = connect(&mut driver);
        turn(&mut driver, true, at(0));
        let mut frames = Vec::new();
        let _ = line.with(|line| line.poll_outgoing(&mut cx(), &mut frames));
        frames.clear();
        let bad = Frame::Text(bytes::Bytes::from_static(b"[]"));
        let end = Some(End::here(1000, String::new()));
        driver.take(Incoming::Received(link, alloc::vec![bad], end), at(1));
        turn(&mut driver, true, at(1));
        let sent = line.with(|line| line.poll_outgoing(&mut cx(), &mut frames));
        assert!(matches!(sent, Poll::Ready(Some((1, _)))), "{sent:?}");
        assert_eq!(line.with(|line| line.ended()), End::here(1000, String::new()));
    }
    // keeps: answers-before-close
    #[test]
    fn receipts_leave_before_the_close_for_what_cannot_be_read() {
        for stores in [true, false] {
            let mut driver = driver();
            turn(&mut driver, true, at(0));
            let (link, line) = connect(&mut driver);
            turn(&mut driver, true, at(0));
            let mut frames = Vec::new();
            let _ = line.with(|line| line.poll_outgoing(&mut cx(), &mut frames));
            frames.clear();
            let good = r#"{"type":"SK","messageId":"m-1","key":"k","value":1}"#;
            let good = Frame::Text(bytes::Bytes::from_static(good.as_bytes()));
            let received = Incoming::Received(link, alloc::vec![good], Some(End::not_utf8()));
            driver.take(received, at(1));
            // The store has not answered at the end of this turn.
            let mut batch = None;
            while let Some(action) = driver.poll() {
                if let Action::Commit(commit) = action {
                    batch = Some(commit);
                }
            }
            assert_eq!(line.with(|line| line.flow()), Flow::Read, "nothing is owed yet");
            let now = if stores {
                let committed = Committed {
                    batch: batch.expect("it is committed"),
                    usage: Usage::default(),
                    took: Duration::ZERO,
                };
                driver.handle(Input::Committed(committed), at(2));
                at(2)
            } else {
                // Nobody waits for ever.
                assert!(driver.poll_timeout().is_some_and(|until| until <= at(6).instant));
                at(6)
            };
            turn(&mut driver, stores, now);
            let _ = line.with(|line| line.poll_outgoing(&mut cx(), &mut frames));
            assert_eq!(frames.len(), usize::from(stores), "{frames:?}");
            assert_eq!(line.with(|line| line.ended()), End::not_utf8());
        }
    }
}
