//! What a node has asked of its store, what waits to be asked, and orders that wait for a batch.
//!
//! What stays true: a bounded number of questions is open, for sessions and for reads each, and
//! whoever waits is asked for in the order of coming.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use crate::admin::{AdminAnswer, AdminRefusal};
use crate::io::Output;
use crate::store::digest::DigestQuery;
use crate::store::{DeadLetter, Query, StoreFailure, StoredRow};
use crate::types::ids::{
    BatchId, DeadLetterId, FetchId, Hash128, LinkId, Position, SessionId, Ticket,
};
use crate::types::time::WallMs;

use super::clock_reset::ClockReset;
use super::outbox::Outbox;

/// Questions to the store for sessions that may be open at once.
const MAX_FETCHES: usize = 16;

/// What a question to the store is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// The rows of a session behind the first position, up to the second only the newest.
    Walk(SessionId, (Position, Position)),
    /// Flights of a session to hand over again.
    Repeat(SessionId, Vec<Position>),
    /// What is the newest of the keys of parked messages.
    Lookup(LinkId, Vec<Hash128>),
    /// Reads at the front of the answers of an application's link.
    Read(LinkId),
    /// An operator's question or order.
    Operator(Ticket),
    /// The digests of this node, to compare them with those of peers.
    Compare,
    /// Flights of a session that are to be dead letters.
    Bury(SessionId, Vec<Position>),
    /// Events whose time may be over, known under this time.
    Expired(WallMs),
    /// What is to be stamped anew.
    Reset,
    /// Events that history has no room for; behind so many bytes that were looked at.
    Held(u64),
}

/// Questions to the store that are open or wait, and orders of operators.
#[derive(Debug, Default)]
pub(super) struct Queries {
    pub(super) open: BTreeMap<FetchId, Purpose>,
    last: FetchId,
    /// Sessions that wait for a free question.
    pub(super) waiting_sessions: VecDeque<(SessionId, Query)>,
    /// Links whose reads wait for a free question.
    pub(super) waiting_reads: VecDeque<LinkId>,
    /// What operators look for.
    pub(super) searches: BTreeMap<FetchId, Search>,
    /// Orders that are answered when their batch is durable.
    pub(super) orders: Vec<Order>,
    /// A reset of the clock that is under way.
    pub(super) clock_reset: Option<ClockReset>,
}

/// An order that is answered when its batch is durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) batch: BatchId,
    pub(super) ticket: Ticket,
    /// Whether it is carried out by a later batch if this one fails; else it is taken back.
    pub(super) stands: bool,
}

/// An operator's request that needs the store.
#[derive(Debug, Clone)]
pub(super) enum Search {
    /// Rows, then dead letters, of a `messageId`.
    Where(Finding),
    /// Dead letters to show.
    DeadLetters,
    /// Dead letters to list.
    DeadLetterList,
    /// A dead letter to hand over again.
    Replay(DeadLetterId),
    /// A dead letter to delete.
    Purge(DeadLetterId),
    /// Digests of the live state.
    Digests(DigestQuery),
}

/// What was found of a message so far; nothing of it has a value.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) id: String,
    pub(super) rows: Vec<StoredRow>,
    pub(super) dead: Vec<DeadLetter>,
    /// Where to look for more rows.
    pub(super) next: Option<Position>,
}

impl Queries {
    /// Asks the store.
    pub(super) fn ask(&mut self, out: &mut Outbox, purpose: Purpose, query: Query) -> FetchId {
        self.last = self.last.next();
        self.open.insert(self.last, purpose);
        out.push(Output::Fetch { fetch: self.last, query });
        self.last
    }

    /// The reset goes no further; the order may be given again.
    pub(super) fn refuse_reset(&mut self, out: &mut Outbox, refusal: &AdminRefusal) {
        let Some(resetting) = self.clock_reset.take() else { return };
        for ticket in resetting.tickets {
            let answer = AdminAnswer::Refused(refusal.clone());
            out.push(Output::Admin { ticket, answer });
        }
    }
    /// A batch was rolled back: orders that it carried are refused, or stand for the next one.
    pub(super) fn refuse_orders(
        &mut self,
        out: &mut Outbox,
        failure: &StoreFailure,
        next: BatchId,
    ) {
        for order in core::mem::take(&mut self.orders) {
            if order.stands {
                self.orders.push(Order { batch: next, ..order });
                continue;
            }
            let answer = AdminAnswer::Refused(AdminRefusal::Store(failure.clone()));
            out.push(Output::Admin { ticket: order.ticket, answer });
        }
    }

    /// Open questions for reads.
    pub(super) fn open_reads(&self) -> usize {
        self.open.values().filter(|purpose| matches!(purpose, Purpose::Read(_))).count()
    }

    /// Whether one more question may be asked for a session.
    pub(super) fn may_ask_for_session(&self) -> bool {
        let of_sessions = |purpose: &&Purpose| match purpose {
            Purpose::Walk(..) | Purpose::Repeat(..) | Purpose::Bury(..) => true,
            Purpose::Lookup(..) | Purpose::Read(_) | Purpose::Operator(_) => false,
            Purpose::Compare | Purpose::Expired(_) | Purpose::Reset | Purpose::Held(_) => false,
        };
        self.open.values().filter(of_sessions).count() < MAX_FETCHES
    }
}
