//! An operator says that the wall clock is right: the node forgets the time that never was, and
//! stamps anew what it had stamped then.
//!
//! The log is walked twice. The first walk finds the highest version that is to stay; then the
//! clock's high-water mark goes down to it, and publishers are taken again. The second walk gives
//! each newest value with an untimely version a version of now, by publishing it again, so many at
//! a time as one answer of the store holds, and goes on when those are durable. What stays true:
//! for the store the mark is where it was until the second walk is over, so a node that ends
//! between starts as one whose clock was never reset, and the order is given again.

use alloc::vec::Vec;

use crate::admin::event::Event;
use crate::admin::{AdminAnswer, AdminRefusal};
use crate::io::Output;
use crate::log::newest::NewestOfKey;
use crate::store::{Query, Row, StoreFailure, StoredRow};
use crate::types::clock::{Hlc, Timely};
use crate::types::ids::{Hash128, Position, Ticket};
use crate::types::time::WallMs;
use crate::wire::message::{Fields, Message};

use super::clock_reset::{ClockReset, Stage};
use super::handlers::{Ingest, Records, Resetting, lend};
use super::queries::Purpose;

/// Rows asked of the store at once, ...
const ROWS: usize = 1024;
/// ... and their bytes.
const BYTES: usize = 256 << 10;

impl Resetting<'_> {
    /// An operator says that the wall clock is right.
    pub(super) fn reset_clock(&mut self, ticket: Ticket, offsets_ms: &[i64]) {
        if let Some(resetting) = &mut self.queries.clock_reset {
            resetting.tickets.push(ticket);
            return;
        }
        match self.time.clock.believe_operator(offsets_ms.iter().copied()) {
            Ok(true) => lend!(self, Records).reset_away_timers(&mut self.mesh.dialers.unmet),
            Ok(false) => {}
            Err(off) => {
                let answer = AdminAnswer::Refused(off.into());
                return self.out.push(Output::Admin { ticket, answer });
            }
        }
        self.queries.clock_reset = Some(ClockReset {
            tickets: Vec::from([ticket]),
            stage: Stage::Looking,
            waits_for: self.log.tail.undurable(),
            timely: self.time.clock.timely_by_wall(),
            upto: self.log.tail.head(),
            after: Position::default(),
            first: None,
            highest: Hlc::default(),
            restamped: 0,
            lowered_ms: 0,
        });
        lend!(self, Resetting).reset_on();
    }
}

impl Resetting<'_> {
    /// Goes on with a reset, once what it waits for is durable.
    pub(super) fn reset_on(&mut self) {
        let committed = self.log.tail.committed_id();
        let Some(resetting) = &mut self.queries.clock_reset else { return };
        if resetting.waits_for.is_some_and(|batch| batch > committed) {
            return;
        }
        resetting.waits_for = None;
        let (after, upto) = (resetting.after, resetting.upto);
        match resetting.stage {
            Stage::Looking if after >= upto => self.lower_clock(),
            Stage::Stamping if after >= upto => self.reset_is_done(),
            Stage::Looking | Stage::Stamping => {
                let query = Query::Rows {
                    after,
                    upto,
                    newest_upto: upto,
                    tags: None,
                    timely: Timely::ALL,
                    max_rows: ROWS,
                    max_bytes: BYTES,
                };
                self.queries.ask(self.out, Purpose::Reset, query);
            }
            Stage::Ending => self.end_reset(),
        }
    }

    /// The store has found the next rows that are the newest of their keys.
    pub(super) fn reset_fetched(&mut self, rows: &[StoredRow], upto: Position) {
        let Some(resetting) = &mut self.queries.clock_reset else { return };
        resetting.after = upto;
        let (stage, timely) = (resetting.stage, resetting.timely);
        let newest = rows.iter().filter(|stored| !stored.superseded).map(|stored| &stored.row);
        for row in newest {
            let version = row.message.version();
            let Some(resetting) = &mut self.queries.clock_reset else { return };
            if timely.holds(version) {
                resetting.highest = resetting.highest.max(version);
                continue;
            }
            // Events compete with nobody, whatever their version.
            let Some(key) = row.key_hash else { continue };
            match stage {
                Stage::Looking => {
                    resetting.first.get_or_insert(row.position);
                }
                Stage::Stamping => {
                    if let Err(refusal) = self.restamp(key, row) {
                        return self.queries.refuse_reset(self.out, &refusal);
                    }
                }
                Stage::Ending => {}
            }
        }
        self.reset_on();
    }

    /// What is untimely is known: the clock goes back to what is not.
    fn lower_clock(&mut self) {
        let Some(resetting) = &mut self.queries.clock_reset else { return };
        resetting.lowered_ms = self.time.clock.lower(resetting.highest);
        resetting.stage = Stage::Stamping;
        resetting.after = resetting.first.map_or(resetting.upto, Position::before);
        if resetting.lowered_ms > 0 {
            // Whoever is away was dated by the time that never was.
            lend!(self, Records).reset_away_timers(&mut self.mesh.dialers.unmet);
            self.time.notice_clock(self.out);
        }
        self.reset_on();
    }

    /// Publishes a value again with a version of now, unless something newer has come meanwhile.
    fn restamp(&mut self, key: Hash128, row: &Row) -> Result<(), AdminRefusal> {
        if self.log.newest.newest(&key).is_some_and(|newest| newest.position != row.position) {
            return Ok(());
        }
        let load = self.log.load(self.time.now.instant);
        if self.log.capacity.refuses_peers(load) {
            let full = self.log.capacity.full_reason(load).unwrap_or_default();
            return Err(StoreFailure::Full(full).into());
        }
        let version = self.time.clock.stamp_by_order()?;
        let source = lend!(self, Ingest).source_of(&row.message);
        let (was, sequence) = (row.message.version(), row.message.sequence());
        // So it is known what gives way.
        let newest = NewestOfKey { version: was, source, sequence, position: row.position };
        self.log.newest.learn(key, newest);
        self.id.sequence = self.id.sequence.next();
        let fields = Fields {
            incarnation: self.id.incarnation,
            sequence: self.id.sequence,
            version,
            path: self.config.id.as_str(),
            ..row.message.fields()
        };
        let message = Message::encode(&fields, &mut self.out.buffer);
        let here = self.id.source;
        lend!(self, Ingest).append((message, WallMs(0)), Some(key), here, row.publisher);
        let batch = self.log.tail.growing_id();
        if let Some(resetting) = &mut self.queries.clock_reset {
            resetting.restamped += 1;
            resetting.waits_for = Some(batch);
        }
        Ok(())
    }

    /// Nothing in the store is above the clock's mark any more.
    fn reset_is_done(&mut self) {
        self.time.clock.forget_lowering();
        self.log.newest.lower_horizon(self.time.clock.high_water());
        self.log.commit_wanted = true;
        let batch = self.log.tail.growing_id();
        if let Some(resetting) = &mut self.queries.clock_reset {
            (resetting.stage, resetting.waits_for) = (Stage::Ending, Some(batch));
        }
    }

    fn end_reset(&mut self) {
        let Some(resetting) = self.queries.clock_reset.take() else { return };
        let ClockReset { tickets, restamped, lowered_ms, .. } = resetting;
        self.out.event(Event::ClockReset { restamped, lowered_ms });
        self.time.notice_clock(self.out);
        let fault = self.time.clock.fault();
        for ticket in tickets {
            let answer = AdminAnswer::ClockReset { restamped, lowered_ms, fault };
            self.out.push(Output::Admin { ticket, answer });
        }
    }
}
