//! An end: the last batch, and a word to everybody.

use alloc::vec::Vec;

use crate::admin::AdminRefusal;
use crate::admin::event::Event;
use crate::io::{Close, CloseCode, Output};
use crate::session::Dirty;

use super::handlers::{Ending, Records, lend};
use super::identity::Phase;

impl Ending<'_> {
    pub(super) fn shut_down(&mut self) {
        if self.id.phase != Phase::Running {
            return;
        }
        self.out.event(Event::ShuttingDown);
        self.queries.refuse_reset(self.out, &AdminRefusal::ShuttingDown);
        self.id.phase = Phase::ShuttingDown;
        self.log.capacity.rest_until = None;
        let stored = self.sessions.table.values_mut().filter(|session| session.is_durable());
        let touched: Vec<_> =
            stored.map(|session| (session.touch(Dirty::Now), session.id)).collect();
        touched.into_iter().for_each(|(_, id)| lend!(self, Records).arrange_write(id));
        self.log.unclaimed.touch();
        self.log.commit_wanted = true;
    }

    /// The last batch is durable and every answer has left: says 1001 to everyone.
    pub(super) fn stop_if_done(&mut self) {
        if self.log.tail.is_committing() || self.log.commit_wanted || self.queries.open_reads() > 0
        {
            return;
        }
        for (_, link) in core::mem::take(&mut self.links.by_id) {
            let reason = "this node is shutting down".into();
            let close = Close { code: CloseCode::GoingAway, reason };
            self.out.push(Output::Close { link: link.id, close });
        }
        self.id.phase = Phase::Stopped;
        self.out.push(Output::Stopped);
    }
}
