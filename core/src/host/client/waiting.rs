//! Those who wait for an answer, or for room.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};

use hashbrown::HashMap;

use crate::host::shared::{keep, unwoken};

#[derive(Debug)]
enum WaitingAnswer<T> {
    Awaited(Option<Waker>),
    Given(T),
}

/// Answers that were not fetched yet, by ticket. A ticket that was given up is forgotten.
#[derive(Debug)]
pub(super) struct Answers<T> {
    answers: HashMap<u64, WaitingAnswer<T>>,
    last: u64,
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self { answers: HashMap::new(), last: 0 }
    }
}

impl<T> Answers<T> {
    /// A ticket for an answer to come.
    pub(super) fn ticket(&mut self) -> u64 {
        self.last += 1;
        self.answers.insert(self.last, WaitingAnswer::Awaited(None));
        self.last
    }

    /// Keeps the answer for whoever waits.
    pub(super) fn give(&mut self, ticket: u64, given: T, woken: &mut Vec<Waker>) {
        if let Some(answer) = self.answers.get_mut(&ticket)
            && let WaitingAnswer::Awaited(waker) =
                core::mem::replace(answer, WaitingAnswer::Given(given))
        {
            woken.extend(waker);
        }
    }

    /// The answer, once.
    pub(super) fn poll(
        &mut self,
        ticket: u64,
        cx: &mut Context<'_>,
        woken: &mut Vec<Waker>,
    ) -> Poll<T> {
        match self.answers.remove(&ticket) {
            Some(WaitingAnswer::Given(answer)) => Poll::Ready(answer),
            Some(WaitingAnswer::Awaited(mut waker)) => {
                keep(&mut waker, cx.waker(), woken);
                self.answers.insert(ticket, WaitingAnswer::Awaited(waker));
                Poll::Pending
            }
            // Fetched before: there is nothing to be woken for.
            None => Poll::Pending,
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn give_up(&mut self, ticket: u64, woken: &mut Vec<Waker>) {
        if let Some(WaitingAnswer::Awaited(waker)) = self.answers.remove(&ticket) {
            woken.extend(waker);
        }
    }
}

/// Those who wait for the same thing: first come, first served.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By place; without a waker once woken, until the task has come or has given up.
    waiting: BTreeMap<u64, Option<Waker>>,
    last: u64,
}

impl Queue {
    /// Waits at this place, or at the end.
    pub(super) fn wait(&mut self, place: &mut Option<u64>, waker: &Waker, woken: &mut Vec<Waker>) {
        let place = *place.get_or_insert_with(|| {
            self.last += 1;
            self.last
        });
        keep(self.waiting.entry(place).or_default(), waker, woken);
    }

    /// Lets go of a place, if there is one.
    pub(super) fn leave(&mut self, place: &mut Option<u64>, woken: &mut Vec<Waker>) {
        let waker = place.take().and_then(|place| self.waiting.remove(&place)).flatten();
        woken.extend(waker.map(unwoken));
    }

    /// Wakes as many of the first as there is room for.
    pub(super) fn wake(&mut self, room: usize, woken: &mut Vec<Waker>) {
        woken.extend(self.waiting.values_mut().take(room).filter_map(Option::take));
    }
}
