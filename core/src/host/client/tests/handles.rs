//! Handles and their futures, on an executor that polls only what was woken: whoever is forgotten
//! waits for ever, and is found. What is dropped half-way is dropped at any point of the way.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Mutex;

use proptest::prelude::*;

use super::super::handles::{Delivery as Handed, Publisher, Receiver};
use crate::app::tests::{NOW, Node, lost, settings, welcome};
use crate::app::*;
use crate::host::client::*;
use crate::host::shared::{Shared, share};

fn application(named: bool, receives: bool, window: usize) -> Shared<Application> {
    let settings = ClientSettings { window, ..settings(named) };
    share(Application::new(settings, receives, 42, NOW))
}

/// A waker that remembers, and looks at the application while it wakes and when it is dropped.
struct Woken {
    flag: AtomicBool,
    application: Shared<Application>,
}

impl Woken {
    fn new(application: &Shared<Application>) -> Arc<Self> {
        let application = application.clone();
        Arc::new(Self { flag: AtomicBool::new(true), application })
    }

    fn take(&self) -> bool {
        self.flag.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.application.with(|_| ());
        self.flag.store(true, Ordering::Relaxed);
    }
}

impl Drop for Woken {
    fn drop(&mut self) {
        self.application.with(|_| ());
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// An application, those who use it, and its node.
struct Mesh {
    application: Shared<Application>,
    publisher: Option<Publisher>,
    tasks: Vec<(Arc<Woken>, Task)>,
    /// What carries frames, and whether it has closed.
    carrier: Arc<Woken>,
    closed: bool,
    node: Node,
    /// What became of publications, and what was handed over.
    answered: Arc<Mutex<Vec<Result<Receipt, PublishError>>>>,
    handed: Arc<Mutex<Vec<Handed>>>,
}

impl Mesh {
    fn new(named: bool, receives: bool, window: usize) -> Self {
        let application = application(named, receives, window);
        let mut mesh = Self {
            carrier: Woken::new(&application),
            publisher: Some(Publisher::of(application.clone())),
            application,
            tasks: Vec::new(),
            closed: false,
            node: Node::default(),
            answered: Arc::default(),
            handed: Arc::default(),
        };
        mesh.connect();
        mesh
    }

    fn connect(&mut self) {
        self.node.cut();
        self.node.told.clear();
        self.application.with(|it| it.connected(&welcome(), NOW));
        self.node.repeat();
        self.carrier.flag.store(true, Ordering::Relaxed);
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.push((Woken::new(&self.application), Box::pin(task)));
        self.run();
    }

    /// Polls whoever was woken, until nobody is.
    fn run(&mut self) {
        let mut woken = true;
        while woken {
            woken = false;
            self.tasks.retain_mut(|(flag, task)| {
                if !flag.take() {
                    return true;
                }
                woken = true;
                let waker = Waker::from(flag.clone());
                task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            });
        }
    }

    fn publish(&mut self) {
        let Some(publisher) = self.publisher.clone() else { return };
        let answered = self.answered.clone();
        self.spawn(async move {
            let receipt = publisher.publish(Publication::set("k", "1")).await;
            answered.lock().expect("one thread").push(receipt);
        });
    }

    /// Publishes so many at once, and keeps the last of their receipts.
    fn publish_all(&mut self, count: usize) {
        let Some(publisher) = self.publisher.clone() else { return };
        let answered = self.answered.clone();
        self.spawn(async move {
            let messages = (0..count).map(|_| Publication::set("k", "1")).collect();
            let (mut receipts, mut all) = (publisher.publish_all(messages), Vec::new());
            while let Some(some) = receipts.next().await {
                assert!(!some.is_empty());
                all.extend(some);
            }
            assert_eq!(all.len(), count);
            answered.lock().expect("one thread").extend(all.pop());
        });
    }

    fn subscribe(&mut self) {
        let publisher = Publisher::of(self.application.clone());
        let (handed, mut receiver) = (self.handed.clone(), Receiver::of(publisher, false));
        self.spawn(async move {
            while let Some(Ok(delivery)) = receiver.next().await {
                handed.lock().expect("one thread").push(delivery);
            }
        });
    }

    /// Carries frames as a shell's task does: only when it was woken, or a frame has come.
    fn carry(&mut self) {
        if let Some(frame) = self.node.to_app.pop_front() {
            let received = self.application.with(|it| it.received(&frame, NOW));
            received.expect("it is understood");
            self.carrier.flag.store(true, Ordering::Relaxed);
        }
        while !self.closed && self.carrier.take() {
            match self.application.with(|it| it.turn(NOW)).expect("it beats") {
                Turn::Send(frames) => {
                    self.node.from_app.extend(frames);
                    self.carrier.flag.store(true, Ordering::Relaxed);
                }
                Turn::Wait { .. } => {
                    let waker = Waker::from(self.carrier.clone());
                    let mut cx = Context::from_waker(&waker);
                    if self.application.with(|it| it.poll_changed(&mut cx)).is_ready() {
                        self.carrier.flag.store(true, Ordering::Relaxed);
                    }
                }
                Turn::Done => {
                    self.closed = true;
                    assert!(self.application.with(|it| it.lost(&DisconnectReason::Here)).is_none());
                }
            }
        }
        self.run();
    }

    fn settle_down(&mut self) {
        for _ in 0..500 {
            self.carry();
            self.node.read();
            let delivery = self.handed.lock().expect("one thread").pop();
            if let Some(delivery) = delivery {
                delivery.ack();
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Publish,
    PublishMany(usize),
    Carry,
    NodeReads,
    NodeDelivers,
    Settle(usize, bool),
    DropTask(usize),
    Cut,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Publish),
        2 => (1_usize..6).prop_map(Act::PublishMany),
        8 => Just(Act::Carry),
        6 => Just(Act::NodeReads),
        3 => Just(Act::NodeDelivers),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, ack)| Act::Settle(which, ack)),
        2 => any::<usize>().prop_map(Act::DropTask),
        1 => Just(Act::Cut),
    ]
}

proptest! {
    /// Whoever still waits when the mesh is quiet was forgotten. A publisher with a name hears of
    /// everything, and the application is done when all have let go.
    // keeps: wakers
    #[test]
    fn whoever_waits_is_woken(
        acts in proptest::collection::vec(act(), 0..120),
        window in 1_usize..4,
        receives: bool,
    ) {
        let mut mesh = Mesh::new(true, receives, window);
        if receives {
            mesh.subscribe();
        }
        let mut asked = 0;
        for act in acts {
            match act {
                Act::Publish => {
                    mesh.publish();
                    asked += 1;
                }
                Act::PublishMany(count) => {
                    mesh.publish_all(count);
                    asked += 1;
                }
                Act::Carry => mesh.carry(),
                Act::NodeReads => mesh.node.read(),
                Act::NodeDelivers if receives => mesh.node.publish(),
                Act::NodeDelivers => {}
                Act::Settle(which, ack) => {
                    let mut handed = mesh.handed.lock().expect("one thread");
                    if !handed.is_empty() {
                        let which = which % handed.len();
                        let delivery = handed.swap_remove(which);
                        drop(handed);
                        if ack { delivery.ack() } else { drop(delivery) }
                    }
                }
                // The first is the subscription, which goes with the session.
                Act::DropTask(which) if mesh.tasks.len() > usize::from(receives) => {
                    let first = usize::from(receives);
                    let which = first + which % (mesh.tasks.len() - first);
                    drop(mesh.tasks.remove(which));
                    asked -= 1;
                    mesh.run();
                }
                Act::DropTask(_) => {}
                Act::Cut => {
                    prop_assert!(mesh.application.with(|it| it.lost(&lost())).is_some());
                    mesh.run();
                    mesh.connect();
                }
            }
        }
        mesh.settle_down();
        prop_assert_eq!(mesh.tasks.len(), usize::from(receives), "somebody waits for ever");
        let answered = mesh.answered.lock().expect("one thread");
        prop_assert_eq!(answered.len(), asked);
        prop_assert!(answered.iter().all(Result::is_ok));
        drop(answered);

        prop_assert!(!mesh.closed);
        mesh.publisher = None;
        mesh.tasks.clear();
        mesh.settle_down();
        prop_assert!(mesh.closed, "nobody wants anything any more");
    }
}

/// What waits for room is served in the order in which it came, and who gives up makes room.
// keeps: wakers
#[test]
fn room_goes_to_those_who_came_first() {
    let mut mesh = Mesh::new(true, false, 1);
    for _ in 0..4 {
        mesh.publish();
    }
    mesh.carry();
    assert_eq!(mesh.node.from_app.len(), 1, "one may be unanswered");
    // The second in the queue has room, and gives up before it has come to use it.
    mesh.node.read();
    let frame = mesh.node.to_app.pop_front().expect("a receipt");
    mesh.application.with(|it| it.received(&frame, NOW)).expect("it is understood");
    let woken: Vec<_> =
        mesh.tasks.iter().map(|(flag, _)| flag.flag.load(Ordering::Relaxed)).collect();
    assert_eq!(woken, [true, true, false, false], "the first is answered, the second has room");
    drop(mesh.tasks.remove(1));
    mesh.run();
    mesh.settle_down();
    assert_eq!(mesh.node.accepted.len(), 3);
    assert!(mesh.tasks.is_empty());
}

/// Receipts come in the order of the messages, through a window that is smaller than they are many,
/// and what was not published when the session ends is known not to be there.
// keeps: client-publish
#[test]
fn many_are_published_in_order_and_each_is_answered() {
    let mut mesh = Mesh::new(true, false, 2);
    let publisher = mesh.publisher.clone().expect("a publisher");
    let message = |number: usize| Publication::set("k", "1").with_id(alloc::format!("m-{number}"));
    let mut receipts = publisher.publish_all((0..5).map(message).collect());
    let answers: Arc<Mutex<Vec<_>>> = Arc::default();
    let given = answers.clone();
    mesh.spawn(async move {
        while let Some(some) = receipts.next().await {
            given.lock().expect("one thread").extend(some);
        }
    });
    while mesh.node.accepted.len() < 4 {
        mesh.carry();
        mesh.node.read();
    }
    assert_eq!(mesh.node.accepted, ["m-0", "m-1", "m-2", "m-3"]);
    mesh.carry();
    mesh.application.with(|it| it.finish(DisconnectReason::Here));
    mesh.run();
    assert!(mesh.tasks.is_empty());
    let answers = answers.lock().expect("one thread");
    let ids = answers.iter().flatten().map(|receipt| receipt.id.as_str());
    assert_eq!(ids.collect::<Vec<_>>(), ["m-0", "m-1", "m-2", "m-3"]);
    let last = answers.last();
    assert_eq!(last, Some(&Err(PublishError::NotSent(DisconnectReason::Here))));
    assert_eq!(answers.len(), 5);
    drop(answers);

    let publisher = mesh.publisher.clone().expect("a publisher");
    let mut late = pin!(async move { publisher.publish_all(vec![message(9)]).next().await });
    let Poll::Ready(late) = late.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it is over")
    };
    assert_eq!(late, Some(vec![Err(PublishError::NotSent(DisconnectReason::Here))]));
}

/// A task that ends without a word, as with its runtime, leaves nobody waiting.
// keeps: wakers
#[test]
fn a_task_that_is_given_up_leaves_nobody_waiting() {
    let mut mesh = Mesh::new(true, true, 1);
    mesh.subscribe();
    mesh.publish();
    mesh.carry();
    mesh.publish();
    let publisher = mesh.publisher.clone().expect("a publisher");
    mesh.spawn(async move { publisher.close().await });
    let publisher = mesh.publisher.clone().expect("a publisher");
    mesh.spawn(async move {
        assert_eq!(publisher.get("k").await, Err(ReadError::Ended(DisconnectReason::Here)));
    });
    mesh.application.with(|it| it.finish(DisconnectReason::Here));
    mesh.run();
    assert!(mesh.tasks.is_empty(), "somebody waits for ever");
    let answered = core::mem::take(&mut *mesh.answered.lock().expect("one thread"));
    let why = DisconnectReason::Here;
    assert_eq!(
        answered,
        [Err(PublishError::NotSent(why.clone())), Err(PublishError::Unanswered(why))]
    );
    mesh.publish();
    let late = mesh.answered.lock().expect("one thread").pop();
    assert_eq!(late, Some(Err(PublishError::NotSent(DisconnectReason::Here))), "and for ever");
}

/// The wakers of one task do not always know each other: whoever waits does not wake itself by
/// asking again.
// keeps: wakers
#[test]
fn whoever_asks_again_is_not_woken_by_it() {
    struct Stranger(Arc<AtomicBool>);

    impl Wake for Stranger {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let mut mesh = Mesh::new(true, true, 1);
    let publisher = mesh.publisher.take().expect("a publisher");
    let ask = |mut what: Pin<&mut dyn Future<Output = ()>>| {
        let woken = Arc::new(AtomicBool::new(false));
        for _ in 0..3 {
            let waker = Waker::from(Arc::new(Stranger(woken.clone())));
            assert!(what.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert!(!woken.load(Ordering::Relaxed));
    };
    let mut receiver = Receiver::of(publisher.clone(), false);
    ask(pin!(async { drop(receiver.next().await) }));
    ask(pin!(mesh.application.wait(Application::poll_changed)));
    let message = || Publication::set("k", "1");
    let pending = publisher.publish(message());
    ask(pin!(async { drop(pending.await) }));
    let mut receipts = publisher.publish_all(vec![message(), message()]);
    ask(pin!(async { drop(receipts.next().await) }));
    ask(pin!(async { drop(publisher.get("k").await) }));
    ask(pin!(publisher.clone().close()));
}

/// Whoever polls a future from another task than before is woken there.
// keeps: wakers
#[test]
fn a_future_may_move_between_tasks() {
    let mesh = &mut Mesh::new(true, false, 1);
    let publisher = mesh.publisher.clone().expect("a publisher");
    let mut publishing = pin!(publisher.publish(Publication::set("k", "1")));
    let second = Woken::new(&mesh.application);
    for flag in [Woken::new(&mesh.application), second.clone()] {
        flag.take();
        let waker = Waker::from(flag);
        assert!(publishing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    mesh.carry();
    mesh.node.read();
    mesh.carry();
    assert!(second.take(), "the one that waits now");
    let waker = Waker::from(second.clone());
    assert!(matches!(
        publishing.as_mut().poll(&mut Context::from_waker(&waker)),
        Poll::Ready(Ok(_))
    ));
    let mut again = pin!(poll_fn(|cx| mesh.application.with(|it| it.poll_changed(cx))));
    assert!(again.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "nothing is new");
}
