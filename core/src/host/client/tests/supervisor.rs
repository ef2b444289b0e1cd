//! The task of an application and its connections, on a clock that is set by hand.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::future::Future;
use core::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::super::handles::{Pending, Publisher};
use super::super::supervisor::{Supervisor, SupervisorStep};
use crate::app::tests::{NOW, settings, welcome};
use crate::app::*;
use crate::host::client::*;
use crate::host::connection::line::Line;
use crate::host::connection::links::Link;
use crate::host::incoming::Incoming;
use crate::host::shared::{Once, Promise, Shared, share};
use crate::io::{End, Frame, Input};
use crate::types::ids::{DialId, LinkId};
use crate::types::time::Instant;
use crate::wire::Wire;

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Polls a future that is ready or waits for the test.
fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match core::pin::Pin::new(future).poll(&mut cx()) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// A service with a publisher, and the connection that it has.
struct World {
    service: Supervisor,
    publisher: Option<Publisher>,
    first: Shared<Once<Result<(), ConnectError>>>,
    line: Shared<Line>,
    link: LinkId,
}

impl World {
    fn new(named: bool) -> Self {
        let settings = settings(named);
        let application = share(Application::new(settings, false, 42, NOW));
        let first = share(Once::default());
        let publisher = Some(Publisher::of(application.clone()));
        let told = Promise::of(first.clone(), Err(DisconnectReason::Here.into()));
        let options = ClientOptions { timeout: at(5).since(NOW), ..ClientOptions::default() };
        let service = Supervisor::new(application, told, Filter::none(), options, NOW);
        Self { service, publisher, first, line: share(Line::default()), link: LinkId::default() }
    }

    fn first(&self) -> Option<Result<(), ConnectError>> {
        match self.first.with(|first| first.poll(&mut cx())) {
            Poll::Ready(first) => Some(first),
            Poll::Pending => None,
        }
    }

    fn take(&mut self, incoming: Incoming<()>, now: Instant) -> SupervisorStep {
        if self.service.take(incoming, now).is_some() {
            (self.line, self.link) = (share(Line::default()), self.service.next_link());
            self.service.opened(Link::new(self.line.clone()));
        }
        self.service.turn(now)
    }

    /// Opens a connection that greets.
    fn connect(&mut self, now: Instant) {
        self.take(Incoming::Opened(()), now);
        let hello = self.sent();
        assert_eq!(hello, [connect()]);
        let welcome = Frame::Binary(Wire::Welcome(welcome()).encode());
        self.take(Incoming::Received(self.link, vec![welcome], None), now);
    }

    /// What the connection has been given.
    fn sent(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.line.with(|line| {
            frames.extend(core::iter::from_fn(|| line.next_control()));
            let _ = line.poll_outgoing(&mut cx(), &mut frames);
        });
        frames
    }

    /// The connection reports that as sent.
    fn report(&mut self, frames: usize, now: Instant) -> SupervisorStep {
        self.take(Incoming::Input(Input::Sent { link: self.link, frames, cost: 0 }), now)
    }

    fn publish(&self) -> Pending {
        let publisher = self.publisher.as_ref().expect("there is one");
        let mut sending = core::pin::pin!(publisher.send(Publication::set("k", "1")));
        poll(&mut sending).expect("there is room").expect("it goes on")
    }

    fn ended(&self) -> Option<End> {
        match self.line.with(|line| line.poll_end(&mut cx())) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        }
    }
}

#[test]
fn a_first_attempt_that_fails_is_told_and_is_the_last() {
    let refused = ConnectError::Unreachable("nobody".into());
    let mut world = World::new(true);
    let mut pending = world.publish();
    assert_eq!(world.service.turn(NOW), SupervisorStep::Open { lost: None });
    assert_eq!(world.service.turn(NOW), SupervisorStep::Wait(at(5)));
    assert_eq!(world.first(), None);
    let failed = Incoming::NotOpened(DialId::default(), refused.clone());
    assert_eq!(world.take(failed, at(1)), SupervisorStep::Done);
    assert_eq!(world.first(), Some(Err(refused)));
    let answer = poll(&mut pending);
    assert!(
        matches!(answer, Some(Err(PublishError::NotSent(DisconnectReason::Lost(_))))),
        "{answer:?}"
    );

    let mut world = World::new(true);
    world.service.turn(NOW);
    world.take(Incoming::Opened(()), at(1));
    assert_eq!(world.service.turn(at(5)), SupervisorStep::Done);
    assert_eq!(world.first(), Some(Err(ConnectError::TimedOut(at(5).since(NOW)))));
    assert!(world.ended().is_some(), "it never greeted");
}

#[test]
fn messages_gather_while_the_connection_sends() {
    let mut world = World::new(true);
    let mut pending = world.publish();
    world.service.turn(NOW);
    world.connect(NOW);
    assert_eq!(world.first(), Some(Ok(())));
    assert_eq!(world.sent().len(), 1, "what was published before there was a connection");
    let others = [world.publish(), world.publish(), world.publish()];
    assert!(matches!(world.service.turn(at(1)), SupervisorStep::Wait(_)));
    assert_eq!(world.sent(), []);
    world.report(1, at(1));
    assert_eq!(world.sent().len(), 1, "three in one frame");
    assert!(poll(&mut pending).is_none());
    drop(others);
}

// keeps: signs-of-life
#[test]
fn a_node_is_asked_for_life_while_the_connection_sends() {
    let mut world = World::new(true);
    let _pending = world.publish();
    world.service.turn(NOW);
    world.connect(NOW);
    assert_eq!(world.sent().len(), 1, "and that takes long");
    for seconds in (10..200).step_by(10) {
        assert!(matches!(world.service.turn(at(seconds)), SupervisorStep::Wait(_)));
        assert_eq!(world.sent(), [Frame::Ping(Bytes::new())]);
        let moved = Input::Moved { link: world.link };
        assert!(matches!(world.take(Incoming::Input(moved), at(seconds)), SupervisorStep::Wait(_)));
    }
    world.report(1, at(191));
    let _next = world.publish();
    world.service.turn(at(191));
    assert_eq!(world.sent().len(), 1, "pings are not counted");
    world.service.turn(at(230));
    assert!(world.ended().is_some(), "it was silent for too long");
}

#[test]
fn a_lost_connection_is_opened_again_and_not_heard_any_more() {
    let mut world = World::new(true);
    world.service.turn(NOW);
    world.connect(NOW);
    let mut pending = world.publish();
    world.service.turn(NOW);
    assert_eq!(world.sent().len(), 1);
    let (old, end) = (world.link, End::here(1001, "bye".into()));
    let SupervisorStep::Wait(again) =
        world.take(Incoming::Received(old, vec![], Some(end.clone())), at(1))
    else {
        panic!("it comes back")
    };
    assert_eq!(world.ended(), Some(end.clone()), "the close frame is answered");
    assert_eq!(world.service.turn(again), SupervisorStep::Open { lost: Some(end.into()) });
    world.connect(again);
    assert_eq!(world.sent().len(), 1, "it is said again");
    let nonsense = vec![Frame::Binary(Bytes::from_static(b"\xff"))];
    world.take(Incoming::Received(old, nonsense.clone(), None), again);
    let down = Input::LinkDown { link: old, code: None, reason: String::new() };
    world.take(Incoming::Input(down), again);
    assert_eq!(world.ended(), None);
    assert!(poll(&mut pending).is_none());
    let over = world.take(Incoming::Received(world.link, nonsense, None), again);
    assert_eq!(over, SupervisorStep::Done, "another attempt would be of no use");
    let answer = poll(&mut pending);
    assert!(
        matches!(answer, Some(Err(PublishError::Unanswered(DisconnectReason::Codec(_))))),
        "{answer:?}"
    );
}

#[test]
fn a_connection_that_comes_too_late_ends() {
    let mut world = World::new(true);
    world.service.turn(NOW);
    world.connect(NOW);
    let end = Some(End::silent("cut".into()));
    let SupervisorStep::Wait(again) = world.take(Incoming::Received(world.link, vec![], end), NOW)
    else {
        panic!("it comes back")
    };
    assert!(matches!(world.service.turn(again), SupervisorStep::Open { .. }));
    let late = again + at(5).since(NOW);
    assert!(matches!(world.service.turn(late), SupervisorStep::Wait(_)));
    world.take(Incoming::Opened(()), late);
    assert_eq!(world.sent(), []);
    assert!(world.ended().is_some());
}

#[test]
fn who_wants_nothing_any_more_is_sent_and_told_what_was_begun() {
    for reports in [true, false] {
        let mut world = World::new(true);
        world.service.turn(NOW);
        world.connect(NOW);
        world.publisher = None;
        assert_eq!(world.service.turn(at(1)), SupervisorStep::Wait(at(6)));
        assert_eq!(world.ended(), Some(End::here(1000, String::new())));
        let last = if reports {
            let down = Input::LinkDown { link: world.link, code: None, reason: String::new() };
            world.take(Incoming::Input(down), at(2))
        } else {
            world.service.turn(at(6))
        };
        assert_eq!(last, SupervisorStep::Done);
    }
    let mut world = World::new(true);
    world.service.turn(NOW);
    world.publisher = None;
    assert_eq!(world.service.turn(at(1)), SupervisorStep::Done, "before there was a connection");
}

#[test]
fn a_task_that_is_given_up_ends_its_application() {
    let mut world = World::new(true);
    world.service.turn(NOW);
    world.connect(NOW);
    let (mut pending, first) = (world.publish(), World::new(true));
    let World { service, publisher, .. } = world;
    drop(service);
    let answer = poll(&mut pending);
    assert!(
        matches!(answer, Some(Err(PublishError::NotSent(DisconnectReason::Here)))),
        "{answer:?}"
    );
    assert!(publisher.is_some_and(|publisher| publisher.is_over()));
    let World { service, first, .. } = first;
    drop(service);
    let first = first.with(|first| first.poll(&mut cx()));
    assert_eq!(first, Poll::Ready(Err(DisconnectReason::Here.into())));
}
