//! What applications say of deliveries, and what comes of it.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};

use crate::session::link::Link;
use crate::session::{Dirty, Unheard, Used, Word, retry_wait};
use crate::types::ids::{DeadLetterId, SessionId};
use crate::types::refusal::{Code, Refusal};
use crate::wire::json::{SettleRequest, SettleTarget};

use super::handlers::{Burial, Connections, Records, Settling, lend};
use super::identity::Phase;

impl Settling<'_> {
    pub(super) fn settle_on(&mut self, link: &mut Link, settle: &SettleRequest<'_>, frame: u64) {
        let Some(application) = link.application_mut() else { return };
        let id = application.session;
        let heard = self.settle(id, settle);
        self.sessions.ready.insert(id);
        lend!(self, Burial).note_delivered(id);
        if let (Ok(true), Some(application)) = (&heard, link.application_mut()) {
            application.settled = true;
        }
        if let Err(unheard) = heard {
            let re = named(settle).map(String::from);
            let refusal = Refusal::new(Code::UnknownDelivery, unheard.to_string());
            self.reject(link, Refusal { re, ..refusal }, frame);
            return;
        }
        if let Some(application) = link.application_mut() {
            application.went_well();
        }
        if let Some(session) = self.sessions.table.get_mut(&id) {
            session.note_use(Used::Answered);
        }
        lend!(self, Records).arrange_write(id);
    }

    /// Takes a word about deliveries. Answers whether it has settled any.
    fn settle(&mut self, id: SessionId, settle: &SettleRequest<'_>) -> Result<bool, Unheard> {
        let Some(session) = self.sessions.table.get_mut(&id) else { return Ok(false) };
        match settle {
            SettleRequest::Ack(delivery) => {
                session.acknowledge(*delivery).map(|heard| lend!(self, Burial).take_back(id, heard))
            }
            SettleRequest::AckUpTo(delivery) => session
                .acknowledge_upto(*delivery)
                .map(|heard| lend!(self, Burial).take_back(id, heard)),
            SettleRequest::AckId(message) => session
                .acknowledge_id(message)
                .map(|heard| lend!(self, Burial).take_back(id, heard)),
            SettleRequest::Retry { target, reason } => {
                self.retry(id, target, said(reason, "NACK retry")).map(|()| false)
            }
            SettleRequest::Reject { target, reason } => {
                self.refuse(id, target, said(reason, "NACK reject"))
            }
        }
    }

    fn retry(
        &mut self,
        id: SessionId,
        target: &SettleTarget<'_>,
        why: &str,
    ) -> Result<(), Unheard> {
        let Some(session) = self.sessions.table.get_mut(&id) else { return Ok(()) };
        let Some(position) = session.refusable(target, true)? else { return Ok(()) };
        let Some(flight) = session.flights.get_mut(&position) else { return Ok(()) };
        if flight.word == Word::Retry {
            return Ok(());
        }
        flight.fail(why, true, self.config.retry.max_attempts);
        if flight.word.is_final() {
            flight.due = None;
            session.notes.has_dying = true;
            self.sessions.to_bury.insert(id);
        } else {
            let wait = retry_wait(&self.config.retry, flight.handed, &mut self.time.random);
            session.schedule_at(position, self.time.now.instant + wait);
        }
        session.touch(Dirty::Soon);
        Ok(())
    }

    /// What an application wants none of is final at once: the next batch says so, whatever becomes
    /// of the connection, and the message itself follows when the store has found it.
    fn refuse(
        &mut self,
        id: SessionId,
        target: &SettleTarget<'_>,
        why: &str,
    ) -> Result<bool, Unheard> {
        let Some(session) = self.sessions.table.get_mut(&id) else { return Ok(false) };
        let Some(position) = session.refusable(target, false)? else { return Ok(false) };
        let Some(flight) = session.flights.get_mut(&position) else { return Ok(false) };
        let letter = if session.id.get() < crate::session::UNNAMED {
            self.sessions.last_dead_letter = self.sessions.last_dead_letter.next();
            self.sessions.last_dead_letter
        } else {
            DeadLetterId::default()
        };
        flight.reject(why, letter);
        session.end_kin(position);
        session.notes.has_dying = true;
        session.touch(Dirty::Now);
        self.sessions.to_bury.insert(id);
        Ok(true)
    }
}

impl Connections<'_> {
    /// A connection is lost, unless one of its two ends has said goodbye: an application that has
    /// settled nothing on it may have died of what it was handed (P13).
    pub(super) fn note_lost(&mut self, link: &Link, is_lost: bool) {
        let Some(application) = link.application() else { return };
        if !is_lost || application.settled || self.id.phase != Phase::Running {
            return;
        }
        if let Some(session) = self.sessions.table.get_mut(&application.session)
            && session.link == Some(link.id)
        {
            session.lost_unsettled(link.traffic.frames_taken, self.config.retry.max_attempts);
            if session.notes.has_dying {
                self.sessions.to_bury.insert(session.id);
            }
        }
    }
}

/// The `messageId` that a frame names.
fn named<'a>(settle: &'a SettleRequest<'_>) -> Option<&'a str> {
    match settle {
        SettleRequest::Ack(_) | SettleRequest::AckUpTo(_) => None,
        SettleRequest::AckId(id) => Some(id),
        SettleRequest::Retry { target, .. } | SettleRequest::Reject { target, .. } => {
            match target {
                SettleTarget::Delivery(_) => None,
                SettleTarget::Id(id) => Some(id),
            }
        }
    }
}

fn said<'a>(reason: &'a Cow<'a, str>, otherwise: &'a str) -> &'a str {
    if reason.is_empty() { otherwise } else { reason }
}
