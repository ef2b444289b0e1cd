//! A start: what an earlier one has stored is taken up.

use crate::admin::event::Event;
use crate::io::Output;
use crate::log::epochs::EpochHistory;
use crate::log::lifetime::Lifetimes;
use crate::log::unclaimed::{NODE, Unclaimed};
use crate::mesh::unmet::Unmet;
use crate::session::Session;
use crate::store::Recovered;
use crate::types::rate::RateLimit;
use crate::types::time::Now;
use crate::wire::draft::MAX_TTL;

use super::handlers::{Burial, Records, Recovery, lend};

impl Recovery<'_> {
    pub(super) fn recover_sessions(&mut self, recovered: &Recovered, now: Now) {
        let tags = self.config.tags.clone();
        self.recover_own_record(recovered);
        for record in recovered.sessions.iter().filter(|record| record.id != NODE) {
            let repeats = RateLimit::new(self.config.retry.max_rate, now.instant);
            let session = Session::recover(record, recovered.head, &tags, repeats);
            let Some(mut session) = session else {
                let reason = "its record in the store cannot be read".into();
                let (session, owed) = (record.name.clone(), recovered.head.get());
                self.out.push(Output::Event(Event::SessionEnded { session, reason, owed }));
                continue;
            };
            let id = session.id;
            // One that has begun again for other tags has done so now.
            let beginning = &mut session.walk.beginning;
            beginning.time = beginning.time.min(self.time.over_upto());
            session
                .recover_dying(self.config.retry.max_attempts, &mut self.sessions.last_dead_letter);
            self.sessions.to_bury.insert(id);
            self.sessions.by_name.insert(session.name.clone(), id);
            self.sessions.table.insert(session);
            lend!(self, Records).arrange_write(id);
        }
        // Between two starts, time that passed cannot be told from a clock that was set right.
        if recovered.clock.wall().plus(self.config.store.session_ttl) <= now.wall {
            lend!(self, Records).reset_away_timers(&mut self.mesh.dialers.unmet);
        }
        for (id, reason, count, bytes) in &recovered.dead_letters {
            if let Some(dead) = lend!(self, Burial).dead_of(*id) {
                dead.insert(*reason, (*count, *bytes));
            }
        }
        let has_unknown =
            |session: &&mut Session| session.dead_count() > session.dead.letters.count() as u64;
        for session in self.sessions.table.values_mut().filter(has_unknown) {
            session.dead.letters.forget_upto(recovered.head);
        }
    }

    /// What an earlier start has stored of the node itself.
    fn recover_own_record(&mut self, recovered: &Recovered) {
        let head = recovered.head;
        let own = recovered.sessions.iter().find(|record| record.id == NODE);
        self.log.unclaimed = Unclaimed::recover(own, head);
        let (epochs, rest) = EpochHistory::recover(own.map_or(&[], Unclaimed::rest_of));
        let (unmet, rest) = Unmet::recover(rest);
        (self.log.epochs, self.mesh.dialers.unmet) = (epochs, unmet);
        // A wall clock that is behind this node's own past may be right at the next start: what
        // comes now must not seem to be years old then.
        let past = self.time.clock.fault().map(|_| self.time.clock.estimate()).unwrap_or_default();
        let (lifetimes, rest) = Lifetimes::recover(rest, head, self.time.now);
        let rest = self.log.epochs.recover_loss(rest);
        self.time.lifetimes = lifetimes.recover_anew(rest).not_before(past);
        self.log.epochs.begin(self.id.incarnation, head);
        let upto = Unclaimed::noted_upto(own);
        if upto < head {
            // Events that came after the record was written.
            self.mesh.dialers.unmet.note(upto.next(), self.time.kept_until(self.config));
        }
        self.log.unclaimed.look_beyond(self.time.lifetimes.time(self.time.now).plus(MAX_TTL));
    }
}
