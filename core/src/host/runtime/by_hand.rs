//! A runtime for tests: one thread, a clock that is set by hand, connections in memory. A task
//! is polled when it was woken, so what nobody wakes stands still.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::task::Waker;
use std::sync::Mutex;

use super::*;
use crate::host::connection::memory::{Memory, MemoryReader, MemoryWriter};
use crate::host::shared::share;
use crate::host::socket::{Reader, Writer};
use crate::io::{End, Frame};
use crate::types::time::WallMs;

/// A task, and its one waker: states tell tasks apart by their wakers.
type Work = (Pin<Box<dyn Future<Output = ()> + Send>>, Waker);

#[derive(Default)]
struct World {
    now: Duration,
    tasks: Vec<Option<Work>>,
    timers: Vec<(Instant, Waker)>,
    /// What dials lead to; without any they take for ever.
    dials: VecDeque<Opened<Memory>>,
    dialled: Vec<String>,
    lost: Vec<DisconnectReason>,
    reported: Vec<Event>,
    not_closed: Vec<StoreFailure>,
}

std::thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
    /// Tasks to be polled.
    static WOKEN: Arc<Mutex<Vec<usize>>> = Arc::default();
}

fn world<T>(run: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with(|world| run(&mut world.borrow_mut()))
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct ByHand;

struct WakeTask(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for WakeTask {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("nobody panics with it").push(self.0);
    }
}

/// Polls tasks until all wait.
pub(crate) fn settle() {
    let woken = WOKEN.with(Clone::clone);
    let next = || woken.lock().expect("nobody panics with it").pop();
    while let Some(index) = next() {
        let Some((mut task, waker)) = world(|world| world.tasks[index].take()) else { continue };
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            world(|world| world.tasks[index] = Some((task, waker)));
        }
    }
}

/// Keeps the thread busy for so long.
pub(crate) fn work(time: Duration) {
    world(|world| world.now += time);
}

/// Lets time pass, timer by timer.
pub(crate) fn pass(time: Duration) {
    settle();
    let until = world(|world| world.now) + time;
    loop {
        let next = world(|world| world.timers.iter().map(|(at, _)| *at).min());
        let next = next.map(|at| Duration::from_micros(at.as_micros()));
        let now = next.filter(|at| *at <= until).unwrap_or(until);
        let due: Vec<_> = world(|world| {
            world.now = world.now.max(now);
            let at = ByHand::at(world.now);
            world.timers.extract_if(.., |timer| timer.0 <= at).collect()
        });
        if due.is_empty() {
            return;
        }
        due.into_iter().for_each(|(_, waker)| waker.wake());
        settle();
    }
}

/// The next dial leads to this.
pub(crate) fn answer_dial(opened: Opened<Memory>) {
    world(|world| world.dials.push_back(opened));
}

/// Tasks that have not ended.
pub(crate) fn tasks() -> usize {
    world(|world| world.tasks.iter().flatten().count())
}

/// What was dialled.
pub(crate) fn dialled() -> Vec<String> {
    world(|world| core::mem::take(&mut world.dialled))
}

/// What was told of lost connections.
pub(crate) fn lost() -> Vec<DisconnectReason> {
    world(|world| core::mem::take(&mut world.lost))
}

/// What nodes have told their operators.
pub(crate) fn reported() -> Vec<Event> {
    world(|world| core::mem::take(&mut world.reported))
}

/// What was told of stores that were not closed well.
pub(crate) fn not_closed() -> Vec<StoreFailure> {
    world(|world| core::mem::take(&mut world.not_closed))
}

/// What comes of a future that runs as a task of its own, for [`taken`].
pub(crate) fn start<T: Send + 'static>(
    what: impl Future<Output = T> + Send + 'static,
) -> Arc<Mutex<Option<T>>> {
    let result = Arc::new(Mutex::new(None));
    let told = result.clone();
    ByHand::spawn(async move {
        let value = what.await;
        *told.lock().expect("nobody panics with it") = Some(value);
    });
    settle();
    result
}

/// What came of it, if that is known.
pub(crate) fn taken<T>(result: &Mutex<Option<T>>) -> Option<T> {
    result.lock().expect("nobody panics with it").take()
}

/// One after another.
pub(crate) struct Row<S>(pub(crate) S);

impl<S> From<S> for Row<S> {
    fn from(source: S) -> Self {
        Self(source)
    }
}

/// Ready at this time.
#[derive(Debug)]
pub(crate) struct Timer(Instant);

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if ByHand::now().instant >= self.0 {
            return Poll::Ready(());
        }
        world(|world| world.timers.push((self.0, cx.waker().clone())));
        Poll::Pending
    }
}

impl ByHand {
    fn at(time: Duration) -> Instant {
        Instant::from_micros(time.as_micros().try_into().expect("tests are short"))
    }
}

impl Runtime for ByHand {
    type Stream<S: StreamSource + Unpin> = Row<S>;
    type Socket = Memory;
    type Timer = Timer;
    type Log = Kept;

    fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T> {
        share(what)
    }

    fn random() -> Result<u64, String> {
        Ok(42)
    }

    fn now() -> Now {
        Now { instant: Self::at(world(|world| world.now)), wall: WallMs(1_790_000_000_000) }
    }

    fn timer(at: Instant) -> Timer {
        Timer(at)
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        let woken = WOKEN.with(Clone::clone);
        let index = world(|world| world.tasks.len());
        let waker = Waker::from(Arc::new(WakeTask(index, woken)));
        waker.wake_by_ref();
        world(|world| world.tasks.push(Some((Box::pin(task), waker))));
    }

    async fn unblock<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        Ok(work())
    }

    async fn dial(
        url: &str,
        _: Protocol,
        _: Option<&str>,
        _: &Limits,
    ) -> Result<Opened<Memory>, ConnectError> {
        world(|world| world.dialled.push(url.into()));
        match world(|world| world.dials.pop_front()) {
            Some(opened) => Ok(opened),
            None => core::future::pending().await,
        }
    }
}

/// What was told is kept for [`reported`], [`lost`] and [`not_closed`].
#[derive(Debug)]
pub(crate) struct Kept;

impl LogSink for Kept {
    fn report(event: &Event) {
        world(|world| world.reported.push(event.clone()));
    }

    fn observe(_: &Observation) {}

    fn lost(why: &DisconnectReason) {
        world(|world| world.lost.push(why.clone()));
    }

    fn not_closed(failure: &StoreFailure) {
        world(|world| world.not_closed.push(failure.clone()));
    }
}

/// The far end of a connection, as a test holds it.
pub(crate) struct Far {
    reader: MemoryReader,
    writer: Option<MemoryWriter>,
}

impl Far {
    /// One end, and the other as a test holds it.
    pub(crate) fn pair() -> (Memory, Self) {
        let (near, far) = Memory::pair::<ByHand>(1 << 20);
        let splitting = start(far.split(Protocol::Postcard));
        let (reader, writer) = taken(&splitting).expect("it waits for nothing");
        (near, Self { reader, writer: Some(writer) })
    }

    /// Sends frames, for which there must be room.
    pub(crate) fn send(&mut self, frames: &[Frame]) {
        let writer = self.writer.as_mut().expect("it is not closed");
        let mut sending = pin!(writer.send(frames.iter().cloned()));
        let sent = sending.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(sent, Poll::Ready(Ok(())));
    }

    /// Closes, with a close frame if there is one.
    pub(crate) fn close(&mut self, end: &End) {
        let mut writer = self.writer.take().expect("it is not closed");
        let mut closing = pin!(writer.farewell(end));
        let closed = closing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(closed, Poll::Ready(Ok(())));
    }

    /// What has come, and how the connection has ended, if it has.
    pub(crate) fn received(&mut self) -> (Vec<Frame>, Option<End>) {
        let (mut frames, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        loop {
            match self.reader.poll_next(&mut cx) {
                Poll::Ready(Ok(frame)) => frames.push(frame),
                Poll::Ready(Err(end)) => return (frames, Some(end)),
                Poll::Pending => return (frames, None),
            }
        }
    }
}
