//! The deliveries in an application's hands, and those that it has settled.
//!
//! A node hands a message over again when it did not hear what became of it: after a lost
//! connection, or when its time for an answer has passed. What is still in the application's
//! hands is not handed to it twice, and what it has settled is settled again in its name. So,
//! within one program, nothing happens twice (P3), whatever happens to connections.
//!
//! What stays true: a settlement is only said on a connection that has delivered what it settles.
//! A number of an earlier connection may stand for another message by now, if the node's database
//! was set back meanwhile; the node repeats what is unsettled, and then it is known.

use alloc::collections::{BTreeMap, VecDeque};

use super::answer::Verdict;
use super::delivery::Mark;
use crate::types::ids::Position;

/// Windows of settled deliveries that are remembered. The node repeats at most one window of
/// them; the others are room for those whose repeat is late.
const REMEMBERED_WINDOWS: usize = 4;

#[derive(Debug)]
enum DeliveryState {
    Held,
    Settled(Verdict),
}

#[derive(Debug)]
struct Entry {
    mark: Mark,
    /// Connection that delivered it last.
    connection: u64,
    state: DeliveryState,
}

/// What is to be done with a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeliveryStep {
    /// Hand it over.
    Hand,
    /// It is in the application's hands.
    Held,
    /// The application has settled it: say so again.
    Settled(Verdict),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OpenDeliveries {
    entries: BTreeMap<Position, Entry>,
    /// Settled, oldest first; some may be gone from the entries.
    settled: VecDeque<Position>,
    /// How many the application has not settled.
    held: usize,
    connection: u64,
}

impl OpenDeliveries {
    /// A new connection: nothing was delivered on it.
    pub(super) fn connected(&mut self) {
        self.connection += 1;
    }

    /// How many the application has not settled.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes note of a delivery.
    pub(super) fn delivered(&mut self, id: Position, mark: Mark) -> DeliveryStep {
        let connection = self.connection;
        match self.entries.get_mut(&id).filter(|entry| entry.mark == mark) {
            Some(entry) => {
                entry.connection = connection;
                match &entry.state {
                    DeliveryState::Held => DeliveryStep::Held,
                    DeliveryState::Settled(verdict) => DeliveryStep::Settled(verdict.clone()),
                }
            }
            None => {
                let entry = Entry { mark, connection, state: DeliveryState::Held };
                let before = self.entries.insert(id, entry);
                let was_held =
                    before.is_some_and(|entry| matches!(entry.state, DeliveryState::Held));
                self.held += usize::from(!was_held);
                DeliveryStep::Hand
            }
        }
    }

    /// Takes note of what the application says of a delivery; `None`: it let go of it without a
    /// word. Answers whether the node is to be told now.
    pub(super) fn settled(
        &mut self,
        id: Position,
        mark: Mark,
        verdict: Option<Verdict>,
        window: usize,
    ) -> bool {
        let held =
            |entry: &&mut Entry| entry.mark == mark && matches!(entry.state, DeliveryState::Held);
        let Some(entry) = self.entries.get_mut(&id).filter(held) else { return false };
        self.held -= 1;
        let told = entry.connection == self.connection && verdict.is_some();
        match verdict {
            Some(verdict @ (Verdict::Ack | Verdict::Reject(_))) => {
                entry.state = DeliveryState::Settled(verdict);
                self.settled.push_back(id);
            }
            // Its repeat is to be handed over.
            Some(Verdict::Retry(_)) | None => drop(self.entries.remove(&id)),
        }
        while self.settled.len() > window.saturating_mul(REMEMBERED_WINDOWS) {
            let Some(oldest) = self.settled.pop_front() else { break };
            let is_settled = |entry: &Entry| matches!(entry.state, DeliveryState::Settled(_));
            if self.entries.get(&oldest).is_some_and(is_settled) {
                self.entries.remove(&oldest);
            }
        }
        told
    }
}
