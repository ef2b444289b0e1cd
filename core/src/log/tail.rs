//! The node's log as far as it is in memory: the batch that grows, the one on its way to the
//! store, and the durable tail that sessions still read.
//!
//! What stays true: positions have no gaps within a run; a row is visible to sessions only when it
//! is durable; one batch is in flight while the next grows (the group commit); what a batch marked
//! is written down with it, so that a rolled-back batch can take all its marks with it. The tail
//! is a cache: it is bounded, and what is not in it is read from the store.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::log::dead_letter::Leaving;
use crate::log::newest::Before;
use crate::log::seen::{Id, Source};
use crate::store::{Batch, Row};
use crate::types::ids::{BatchId, Hash128, LinkId, Position, Sequence, SessionId};

/// Most bytes that the durable tail keeps in memory.
pub const TAIL_MAX_BYTES: usize = 8 << 20;
/// Undurable bytes above which links are no longer read.
pub const UNDURABLE_MAX_BYTES: usize = 16 << 20;

/// What a batch has marked outside of itself, to be taken back if it fails.
#[derive(Debug, Default)]
pub struct Marks {
    /// Marks in the seen-set.
    pub seen: Vec<(Source, Sequence)>,
    /// Marks taken out of it.
    pub forgotten: Vec<(Source, Sequence)>,
    /// Keys that have a new newest, with what was there before.
    pub newest: Vec<(Hash128, Before)>,
    /// Copies remembered (P10), with where the one before lies.
    pub copies: Vec<(Hash128, Option<Position>)>,
    /// What links were asked for and have brought, though this node is on its path.
    pub asked: Vec<(Id, LinkId)>,
    /// Receipts remembered (P9), by session and hash of the id.
    pub receipts: Vec<(SessionId, Hash128)>,
    /// Dead letters that leave.
    pub letters: Vec<Leaving>,
}

/// A durable row in memory.
#[derive(Debug)]
pub struct TailRow {
    /// The row.
    pub row: Row,
    /// Its origin and incarnation.
    source: Source,
    /// Its delivery frame up to the delivery's own fields, made when the first application is
    /// handed it.
    pub json: Option<Bytes>,
}

/// The log in memory.
#[derive(Debug)]
pub struct Tail {
    durable: Position,
    head: Position,
    next_batch: BatchId,
    /// What grows now.
    pub growing: Box<Batch>,
    /// What the growing batch has marked.
    pub marks: Marks,
    sources: VecDeque<Source>,
    growing_bytes: usize,
    in_flight: Option<InFlight>,
    tail: VecDeque<TailRow>,
    tail_bytes: usize,
    index: HashMap<(Source, Sequence), Position>,
}

#[derive(Debug)]
struct InFlight {
    id: BatchId,
    last: Position,
    bytes: usize,
    marks: Marks,
}

impl Tail {
    /// The log that ends at `head` in the store.
    pub fn new(head: Position) -> Self {
        Self {
            durable: head,
            head,
            next_batch: BatchId::new(1),
            growing: Box::default(),
            marks: Marks::default(),
            sources: VecDeque::new(),
            growing_bytes: 0,
            in_flight: None,
            tail: VecDeque::new(),
            tail_bytes: 0,
            index: HashMap::new(),
        }
    }

    /// Last durable position.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Last position given.
    pub fn head(&self) -> Position {
        self.head
    }

    /// Number that the growing batch will have.
    pub fn growing_id(&self) -> BatchId {
        self.next_batch
    }

    /// Number of the last batch that is no longer on its way.
    pub fn committed_id(&self) -> BatchId {
        match &self.in_flight {
            Some(in_flight) => in_flight.id.before(),
            None => self.next_batch.before(),
        }
    }

    /// Appends a row, which gets the next position, to the growing batch.
    pub fn append(&mut self, row: Row, source: Source) -> Position {
        self.head = self.head.next();
        if row.only.is_none() {
            self.index.insert((source, row.message.sequence()), self.head);
        }
        let row = Row { position: self.head, ..row };
        self.growing_bytes += row.size();
        self.growing.rows.push(row);
        self.sources.push_back(source);
        self.head
    }

    /// Where a message of which this node knows lies, if that is in memory.
    pub fn locate(&self, source: Source, sequence: Sequence) -> Option<Position> {
        self.index.get(&(source, sequence)).copied()
    }

    /// The batch whose commit makes this position durable; `None` if it is already.
    pub fn batch_of(&self, position: Position) -> Option<BatchId> {
        if position <= self.durable {
            return None;
        }
        match &self.in_flight {
            Some(in_flight) if position <= in_flight.last => Some(in_flight.id),
            Some(_) | None => Some(self.next_batch),
        }
    }

    /// The last batch that has something in it and is not durable yet.
    pub fn undurable(&self) -> Option<BatchId> {
        if self.growing.rows.is_empty() {
            self.in_flight.as_ref().map(|in_flight| in_flight.id)
        } else {
            Some(self.next_batch)
        }
    }

    /// Whether a batch is on its way.
    pub fn is_committing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Bytes that are not durable yet.
    pub fn undurable_bytes(&self) -> usize {
        self.growing_bytes + self.in_flight.as_ref().map_or(0, |in_flight| in_flight.bytes)
    }

    /// Sends the growing batch on its way; the next one begins.
    pub fn seal(&mut self) -> Box<Batch> {
        let mut batch = core::mem::take(&mut self.growing);
        batch.id = self.next_batch;
        let marks = core::mem::take(&mut self.marks);
        // The next one will probably be about as large.
        self.growing.rows.reserve(batch.rows.len());
        self.marks.seen.reserve(marks.seen.len());
        self.marks.newest.reserve(marks.newest.len());
        self.in_flight = Some(InFlight {
            id: batch.id,
            last: self.head,
            bytes: core::mem::take(&mut self.growing_bytes),
            marks,
        });
        self.next_batch = self.next_batch.next();
        batch
    }

    /// Takes the rows of the batch in flight, which is durable now, into the tail. Answers how
    /// many there were.
    pub fn committed(&mut self, rows: Vec<Row>) -> usize {
        let Some(in_flight) = self.in_flight.take() else { return 0 };
        self.durable = in_flight.last;
        let count = rows.len();
        self.tail.reserve(count);
        for row in rows {
            let Some(source) = self.sources.pop_front() else { break };
            self.tail_bytes += row.size();
            self.tail.push_back(TailRow { row, source, json: None });
        }
        count
    }

    /// Drops everything that is not durable, because the batch in flight failed. Answers what it
    /// and the growing batch had marked, in the order in which it must be taken back.
    pub fn failed(&mut self) -> Vec<Marks> {
        let mut taken_back = Vec::new();
        taken_back.push(core::mem::take(&mut self.marks));
        taken_back.extend(self.in_flight.take().map(|in_flight| in_flight.marks));
        self.head = self.durable;
        let durable = self.durable;
        self.index.retain(|_, position| *position <= durable);
        self.growing.rows.clear();
        self.growing.dead_letters_gone.clear();
        self.growing_bytes = 0;
        self.sources.clear();
        taken_back
    }

    /// The durable row at this position, if it is in memory.
    pub fn row(&mut self, position: Position) -> Option<&mut TailRow> {
        let first = self.tail.front()?.row.position;
        let offset = position.get().checked_sub(first.get())?;
        self.tail.get_mut(usize::try_from(offset).ok()?)
    }

    /// The durable rows from `first` up to and with `last`, those of them that are in memory.
    pub fn rows_between(&self, first: Position, last: Position) -> impl Iterator<Item = &Row> {
        let begin = self.tail.front().map_or(Position::default(), |tail| tail.row.position);
        let place = |position: Position| position.get().saturating_sub(begin.get()) as usize;
        let end = place(last.next()).min(self.tail.len());
        self.tail.range(place(first).min(end)..end).map(|tail| &tail.row)
    }

    /// Drops from memory what no connected session needs (all before `keep`), and the oldest
    /// rows beyond the bound.
    pub fn trim(&mut self, keep: Position) {
        while let Some(first) = self.tail.front() {
            if first.row.position >= keep && self.tail_bytes <= TAIL_MAX_BYTES {
                break;
            }
            let Some(row) = self.tail.pop_front() else { break };
            self.tail_bytes -= row.row.size();
            let id = (row.source, row.row.message.sequence());
            // What was replayed lies further on by the same identity, or was there before.
            if let Some(other) = self.index.remove(&id).filter(|at| *at != row.row.position) {
                self.index.insert(id, other);
            }
        }
        if self.tail.is_empty() && self.tail.capacity() > 1024 {
            self.tail.shrink_to(1024);
        }
    }
}
