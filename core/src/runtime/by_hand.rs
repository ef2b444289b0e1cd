//! A runtime for tests: one thread, a clock that is set by hand, and connections in memory. A task
//! is polled when it was woken, so what nobody wakes stands still.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::pin::Pin;
use core::task::Waker;
use std::sync::Mutex;

use super::*;
use crate::connection::{Reader, Writer};
use crate::io::{End, Frame};
use crate::shared::{keep, share};
use crate::time::WallMs;

/// A task, and its one waker: states tell tasks apart by their wakers.
type Work = (Pin<Box<dyn Future<Output = ()> + Send>>, Waker);

#[derive(Default)]
struct World {
    now: Duration,
    tasks: Vec<Option<Work>>,
    timers: Vec<(Instant, Waker)>,
    /// What dials lead to; without any they take for ever.
    dials: VecDeque<Opened<Paper>>,
    lost: Vec<Ended>,
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
pub(crate) fn answer_dial(opened: Opened<Paper>) {
    world(|world| world.dials.push_back(opened));
}

/// What was told of lost connections.
pub(crate) fn lost() -> Vec<Ended> {
    world(|world| core::mem::take(&mut world.lost))
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
    type Stream<S: Source + Unpin> = Row<S>;
    type Socket = Paper;
    type Timer = Timer;

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

    async fn dial(
        _: &str,
        _: Protocol,
        _: Option<&str>,
        _: &Limits,
    ) -> Result<Opened<Paper>, ConnectError> {
        match world(|world| world.dials.pop_front()) {
            Some(opened) => Ok(opened),
            None => core::future::pending().await,
        }
    }

    fn pair(_: usize) -> (Paper, Paper) {
        Paper::pair()
    }

    fn lost(why: &Ended) {
        world(|world| world.lost.push(why.clone()));
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    frames: VecDeque<Result<Frame, End>>,
    /// The other side does not read.
    is_full: bool,
    is_shut: bool,
    reader: Option<Waker>,
    woken: Vec<Waker>,
}

impl Wakes for Sheet {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

impl Sheet {
    fn push(&mut self, next: Result<Frame, End>) {
        self.frames.push_back(next);
        self.woken.extend(self.reader.take());
    }

    fn shut(&mut self) {
        self.is_shut = true;
        self.woken.extend(self.reader.take());
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        match self.frames.pop_front() {
            Some(next) => Poll::Ready(next),
            None if self.is_shut => Poll::Ready(Err(End::lost("it was shut"))),
            None => {
                keep(&mut self.reader, cx.waker(), &mut self.woken);
                Poll::Pending
            }
        }
    }
}

/// A connection in memory.
#[derive(Debug, Clone)]
pub(crate) struct Paper {
    comes: Shared<Sheet>,
    goes: Shared<Sheet>,
}

impl Paper {
    /// Both ends of one.
    pub(crate) fn pair() -> (Self, Self) {
        let (there, back) = (share(Sheet::default()), share(Sheet::default()));
        (Self { comes: back.clone(), goes: there.clone() }, Self { comes: there, goes: back })
    }

    /// Sends a frame, or how the connection ends for the other side.
    pub(crate) fn send(&self, next: Result<Frame, End>) {
        self.goes.with(|sheet| sheet.push(next));
    }

    /// Closes the connection.
    pub(crate) fn shut(&self) {
        self.goes.with(Sheet::shut);
    }

    /// Reads no more, until the end.
    pub(crate) fn stall(&self) {
        self.comes.with(|sheet| sheet.is_full = true);
    }

    /// What has come.
    pub(crate) fn received(&self) -> Vec<Result<Frame, End>> {
        self.comes.with(|sheet| sheet.frames.drain(..).collect())
    }

    /// Whether the other side has shut its direction.
    pub(crate) fn is_shut(&self) -> bool {
        self.comes.with(|sheet| sheet.is_shut)
    }
}

impl Socket for Paper {
    type Reader = Self;
    type Writer = Self;

    async fn split(self, _: Protocol) -> (Self, Self) {
        (self.clone(), self)
    }
}

impl Reader for Paper {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        self.comes.with(|sheet| sheet.poll_next(cx))
    }

    async fn discard(self) {
        let gone = |sheet: &mut Sheet, cx: &mut Context<'_>| match sheet.poll_next(cx) {
            Poll::Ready(_) => Poll::Ready(sheet.is_shut && sheet.frames.is_empty()),
            Poll::Pending => Poll::Pending,
        };
        while !self.comes.wait(gone).await {}
    }
}

impl Writer for Paper {
    async fn send(&mut self, frames: impl Iterator<Item = Frame> + Send) -> Result<(), End> {
        if self.goes.with(|sheet| sheet.is_full) {
            core::future::pending::<()>().await;
        }
        self.goes.with(|sheet| frames.for_each(|frame| sheet.push(Ok(frame))));
        Ok(())
    }

    async fn farewell(&mut self, end: &End) -> Result<(), End> {
        if let Some((code, reason)) = end.close_frame() {
            self.goes.with(|sheet| sheet.push(Err(End::by_peer(code, reason.into()))));
        }
        self.goes.with(Sheet::shut);
        Ok(())
    }

    async fn renewed(self) -> Self {
        self
    }
}
