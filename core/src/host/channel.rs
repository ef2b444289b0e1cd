//! A bounded queue between tasks, with one end that receives.
//!
//! What stays true:
//!
//! - Whoever finds no room waits, and room that comes is kept for those who asked first. Whoever
//!   gives up leaves the place to the next one.
//! - What is [pushed](ChannelSender::push) neither waits nor takes room, and is received first. It
//!   is bounded by whoever asked for it.
//! - With the receiving end goes what is queued: whoever waits for an answer to that hears of it.
//! - A [`ChannelReceiver::next`] that never waits lets others run now and then: its thread may be
//!   the only one.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use crate::host::runtime::{Runtime, yield_now};
use crate::host::shared::{Shared, Wakes, keep};

/// What a receiver takes without waiting before it lets others run.
const TAKEN_IN_A_ROW: usize = 64;

/// The receiving end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// The queue.
#[derive(Debug)]
pub struct Channel<T> {
    /// What was pushed.
    pushed: VecDeque<T>,
    queue: VecDeque<T>,
    capacity: usize,
    /// Those who found no room, in the order of asking. As many of the first as there is room may
    /// come in, and have been woken.
    waiting: VecDeque<(u64, Option<Waker>)>,
    last_ticket: u64,
    receiver: Option<Waker>,
    is_closed: bool,
    woken: Vec<Waker>,
}

impl<T> Wakes for Channel<T> {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

impl<T> Channel<T> {
    fn bounded(capacity: usize) -> Self {
        Self {
            pushed: VecDeque::new(),
            queue: VecDeque::with_capacity(capacity),
            capacity,
            waiting: VecDeque::new(),
            last_ticket: 0,
            receiver: None,
            is_closed: false,
            woken: Vec::new(),
        }
    }

    fn room(&self) -> usize {
        self.capacity - self.queue.len()
    }

    fn push(&mut self, item: T) {
        self.pushed.push_back(item);
        self.woken.extend(self.receiver.take());
    }

    /// Takes the item when it may come in. Whoever must wait has a ticket for its place.
    fn poll_send(
        &mut self,
        item: &mut Option<T>,
        ticket: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Closed>> {
        if self.is_closed {
            return Poll::Ready(Err(Closed));
        }
        let place = ticket.map_or(self.waiting.len(), |ticket| self.place(ticket));
        if place < self.room() {
            if ticket.take().is_some() {
                self.remove(place);
            }
            self.queue.extend(item.take());
            self.woken.extend(self.receiver.take());
            return Poll::Ready(Ok(()));
        }
        if ticket.is_none() {
            self.last_ticket += 1;
            *ticket = Some(self.last_ticket);
            self.waiting.push_back((self.last_ticket, None));
        }
        keep(&mut self.waiting[place].1, cx.waker(), &mut self.woken);
        Poll::Pending
    }

    /// Gives a place up.
    fn leave(&mut self, ticket: u64) {
        if !self.is_closed {
            self.remove(self.place(ticket));
            self.let_in();
        }
    }

    fn place(&self, ticket: u64) -> usize {
        self.waiting.partition_point(|(other, _)| *other < ticket)
    }

    fn remove(&mut self, place: usize) {
        // A waker is not dropped here, where something is locked.
        self.woken.extend(self.waiting.remove(place).and_then(|(_, waker)| waker));
    }

    /// Wakes the last of those who may come in: the only one who could not before.
    fn let_in(&mut self) {
        let last = self.room().checked_sub(1);
        if let Some((_, waker)) = last.and_then(|last| self.waiting.get_mut(last)) {
            self.woken.extend(waker.take());
        }
    }

    fn pop(&mut self) -> Option<T> {
        if let Some(item) = self.pushed.pop_front() {
            return Some(item);
        }
        let item = self.queue.pop_front()?;
        self.let_in();
        Some(item)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        match self.pop() {
            Some(item) => Poll::Ready(item),
            None => {
                keep(&mut self.receiver, cx.waker(), &mut self.woken);
                Poll::Pending
            }
        }
    }

    /// Answers with what nobody will receive.
    fn close(&mut self) -> [VecDeque<T>; 2] {
        self.is_closed = true;
        self.woken.extend(self.waiting.drain(..).filter_map(|(_, waker)| waker));
        self.woken.extend(self.receiver.take());
        [&mut self.pushed, &mut self.queue].map(core::mem::take)
    }
}

/// A channel for at most `capacity`, and what is [pushed](ChannelSender::push). It takes its memory
/// at once.
pub fn bounded<R: Runtime, T: Send + 'static>(
    capacity: usize,
) -> (ChannelSender<T>, ChannelReceiver<T>) {
    ends(R::share(Channel::bounded(capacity)))
}

fn ends<T>(channel: Shared<Channel<T>>) -> (ChannelSender<T>, ChannelReceiver<T>) {
    (ChannelSender(channel.clone()), ChannelReceiver { channel, in_a_row: 0 })
}

/// An end that sends. Clones send to the same receiver.
pub struct ChannelSender<T>(Shared<Channel<T>>);

impl<T> Clone for ChannelSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for ChannelSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> ChannelSender<T> {
    /// Sends when there is room. What is given up before is not sent.
    ///
    /// # Errors
    /// [`Closed`] if nobody receives any more.
    pub async fn send(&self, item: T) -> Result<(), Closed> {
        let (mut item, mut place) = (Some(item), WaitingPlace { channel: &self.0, ticket: None });
        poll_fn(|cx| self.0.with(|it| it.poll_send(&mut item, &mut place.ticket, cx))).await
    }

    /// Sends without waiting, past what was sent; nothing, if nobody receives any more. How much
    /// that may be is for the caller to bound.
    pub fn push(&self, item: T) {
        let mut item = Some(item);
        self.0.with(|channel| {
            if !channel.is_closed
                && let Some(item) = item.take()
            {
                channel.push(item);
            }
        });
    }
}

/// A place among those who wait, which is given up with this.
struct WaitingPlace<'a, T> {
    channel: &'a Shared<Channel<T>>,
    ticket: Option<u64>,
}

impl<T> Drop for WaitingPlace<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.channel.with(|channel| channel.leave(ticket));
        }
    }
}

/// The end that receives.
pub struct ChannelReceiver<T> {
    channel: Shared<Channel<T>>,
    /// Taken without waiting.
    in_a_row: usize,
}

impl<T> fmt::Debug for ChannelReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

impl<T> ChannelReceiver<T> {
    /// The next one; nothing ever, when nobody is left who could send. Can be given up without
    /// loss.
    pub async fn next(&mut self) -> T {
        if self.in_a_row == TAKEN_IN_A_ROW {
            self.in_a_row = 0;
            yield_now().await;
        }
        poll_fn(|cx| {
            let next = self.channel.with(|channel| channel.poll_next(cx));
            self.in_a_row = if next.is_ready() { self.in_a_row + 1 } else { 0 };
            next
        })
        .await
    }

    /// What is there already.
    pub fn try_next(&mut self) -> Option<T> {
        self.channel.with(Channel::pop)
    }
}

impl<T> Drop for ChannelReceiver<T> {
    fn drop(&mut self) {
        // Dropped where nothing is locked.
        drop(self.channel.with(Channel::close));
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::pin::Pin;
    use core::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::host::shared::share;

    /// Counts how often its task was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A task that sends one number.
    struct Sending<'a> {
        number: usize,
        count: Arc<Count>,
        future: Pin<Box<dyn Future<Output = Result<(), Closed>> + 'a>>,
    }

    impl<'a> Sending<'a> {
        fn new(sender: &'a ChannelSender<usize>, number: usize) -> Self {
            Self { number, count: Arc::default(), future: Box::pin(sender.send(number)) }
        }

        fn poll(&mut self) -> Poll<Result<(), Closed>> {
            self.count.0.store(0, Ordering::Relaxed);
            let waker = Waker::from(self.count.clone());
            self.future.as_mut().poll(&mut Context::from_waker(&waker))
        }

        fn is_woken(&self) -> bool {
            self.count.0.load(Ordering::Relaxed) > 0
        }
    }

    fn new(capacity: usize) -> (ChannelSender<usize>, ChannelReceiver<usize>) {
        ends(share(Channel::bounded(capacity)))
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send,
        /// Polls those who were woken, the last first if so.
        Run(bool),
        /// One of those who wait gives up.
        GiveUp(prop::sample::Index),
        Push,
        Receive,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Send),
            2 => any::<bool>().prop_map(Step::Run),
            1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
            1 => Just(Step::Push),
            3 => Just(Step::Receive),
        ]
    }

    proptest! {
        // keeps: wakers
        #[test]
        fn nobody_waits_while_there_is_room_and_nothing_is_lost(
            capacity in 1..4_usize,
            steps in prop::collection::vec(step(), 1..80),
        ) {
            let (sender, mut receiver) = new(capacity);
            let mut waiting: Vec<Sending<'_>> = Vec::new();
            let (mut pushed, mut queued, mut last) = (VecDeque::new(), VecDeque::new(), 0);
            for step in steps.into_iter().chain([Step::Run(false)]) {
                match step {
                    Step::Send => {
                        last += 1;
                        let mut sending = Sending::new(&sender, last);
                        match sending.poll() {
                            Poll::Ready(sent) => {
                                prop_assert_eq!(sent, Ok(()));
                                queued.push_back(last);
                            }
                            Poll::Pending => waiting.push(sending),
                        }
                    }
                    Step::Run(backwards) => {
                        let mut rest = Vec::new();
                        if backwards {
                            waiting.reverse();
                        }
                        for mut sending in waiting.drain(..) {
                            if sending.is_woken() && sending.poll().is_ready() {
                                queued.push_back(sending.number);
                            } else {
                                rest.push(sending);
                            }
                        }
                        rest.sort_by_key(|sending| sending.number);
                        waiting = rest;
                    }
                    Step::GiveUp(which) => {
                        if !waiting.is_empty() {
                            drop(waiting.remove(which.index(waiting.len())));
                        }
                    }
                    Step::Push => {
                        last += 1;
                        sender.push(last);
                        pushed.push_back(last);
                    }
                    Step::Receive => {
                        let next = pushed.pop_front().or_else(|| queued.pop_front());
                        prop_assert_eq!(receiver.try_next(), next);
                    }
                }
                prop_assert!(queued.len() <= capacity);
                let room = capacity - queued.len();
                // Those for whom there is room are the first, and know it.
                prop_assert!(waiting.iter().take(room).all(Sending::is_woken));
            }
            prop_assert!(waiting.is_empty() || queued.len() >= capacity, "room that nobody takes");
        }
    }

    // keeps: wakers
    #[test]
    fn with_the_receiver_goes_what_is_queued_and_who_waits_is_told() {
        let (sender, receiver) = ends(share(Channel::bounded(1)));
        let item = Arc::new(());
        sender.push(item.clone());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Box::pin(sender.send(item.clone())).as_mut().poll(&mut cx).is_ready());
        let mut waiting = Box::pin(sender.send(item.clone()));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(receiver);
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(Err(Closed)));
        sender.push(item.clone());
        drop(waiting);
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn a_receiver_that_never_waits_lets_others_run() {
        let (sender, mut receiver) = new(1);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let mut rests = 0;
        for number in 0..10 * TAKEN_IN_A_ROW {
            sender.push(number);
            let mut receiving = Box::pin(receiver.next());
            let mut next = receiving.as_mut().poll(&mut cx);
            if next.is_pending() {
                rests += 1;
                assert_eq!(count.0.load(Ordering::Relaxed), rests, "it goes on by itself");
                next = receiving.as_mut().poll(&mut cx);
            }
            assert_eq!(next, Poll::Ready(number));
        }
        assert_eq!(rests, 9);
    }
}
