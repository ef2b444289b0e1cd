//! P2: an event that a node has done with was handed on, or arrived, or is a dead letter: that of
//! an application, or of the node itself if its time was over, or history had no room for it, and
//! it was handed on to nobody. No event is a dead letter of a node twice, unless it was offered
//! again. Without one it may go only where the room for dead letters is bounded (P8).
//!
//! What a node has done with is what lies at or below the cursor that it made durable for itself.

use hashbrown::{HashMap, HashSet};
use slipstream_core::store::{Batch, DeadReason, Row};

use super::{Broken, Invariant, Verdict};
use crate::simulator::counts::Fault;
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::Item;
use crate::simulator::ledger::MessageNo;
use crate::simulator::liar;

/// The owner of the node's own dead letters.
const NODE: u64 = 0;

/// How far each node has got, and what it has handed to applications or given up.
#[derive(Debug, Default)]
pub struct Rule {
    cursors: HashMap<usize, u64>,
    /// The highest floor of each node since its start: by that one it chooses what goes.
    floors: HashMap<usize, u64>,
    handed: HashSet<(usize, u64)>,
    dead: HashSet<(usize, MessageNo)>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::SetBack { site } => {
                self.cursors.remove(site);
                self.handed.retain(|(of, _)| of != site);
                self.dead.retain(|(of, _)| of != site);
            }
            Fact::Cloned { site, twin } => {
                let cursor = self.cursors.get(site).copied().unwrap_or_default();
                self.cursors.insert(*twin, cursor);
                let here = |(of, _): &&(usize, u64)| of == site;
                let handed: Vec<_> = self.handed.iter().filter(here).map(|(_, at)| *at).collect();
                self.handed.extend(handed.into_iter().map(|at| (*twin, at)));
                let here = |(of, _): &&(usize, MessageNo)| of == site;
                let dead: Vec<_> = self.dead.iter().filter(here).map(|(_, no)| *no).collect();
                self.dead.extend(dead.into_iter().map(|number| (*twin, number)));
            }
            Fact::Transmitted {
                site, to: Party::App(_), item: Item::Delivery(delivery), ..
            } => {
                self.handed.insert((*site, delivery.delivery));
            }
            Fact::Replayed { site, session: "node", message } => {
                let number = view.ledger.find(message).ok();
                number.map(|number| self.dead.remove(&(*site, number)));
            }
            Fact::Ended { site } => _ = self.floors.remove(site),
            Fact::Durable { site, batch } => {
                self.died(*site, batch, view)?;
                for record in batch.sessions.iter().filter(|record| record.id.get() == NODE) {
                    self.moved(*site, record.cursor.get(), view)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Rule {
    fn died(&mut self, site: usize, batch: &Batch, view: &View<'_>) -> Verdict {
        let floor = self.floors.entry(site).or_default();
        *floor = batch.floor.get().max(*floor);
        for letter in batch.dead_letters.iter().filter(|letter| letter.session.get() == NODE) {
            let (id, node) = (letter.message.id(), &view.names[site]);
            let Ok(number) = view.ledger.find(&letter.message) else { continue };
            let rows = &view.ledger.places[site].rows;
            let settings = &view.plan.settings;
            let is_bounded = settings.history.is_some() || settings.max_bytes.is_some();
            let is_history = is_bounded && rows.range(..=*floor).any(|(_, (of, _))| *of == number);
            let is_forgotten = letter.reason == DeadReason::Forgotten;
            // A liar may say that it has nothing left.
            let is_from_liar = letter.message.path().split(',').any(|node| node == liar::NAME);
            let is_expired = view.ledger.is_expired(site, number) || is_from_liar;
            let may_die = if is_forgotten { is_history } else { is_expired };
            if !may_die {
                let reason = letter.reason.as_str();
                let what = format!("{id} is a dead letter {reason} of {node} too early");
                return Err(Broken::new(what, &[id, node]));
            }
            if !self.dead.insert((site, number)) {
                let what = format!("{id} is a dead letter of {node} twice");
                return Err(Broken::new(what, &[id, node]));
            }
        }
        Ok(())
    }

    fn moved(&mut self, site: usize, cursor: u64, view: &View<'_>) -> Verdict {
        let before = self.cursors.insert(site, cursor).unwrap_or_default();
        let rows = &view.ledger.places[site].rows;
        for (position, (number, row)) in rows.range(before.saturating_add(1)..) {
            if *position > cursor {
                break;
            }
            if !self.is_over(site, *position, *number, row, view) {
                let (id, node) = (row.message.id(), &view.names[site]);
                let what = format!("{node} has done with {id}, and nobody has it");
                return Err(Broken::new(what, &[id, node]));
            }
        }
        Ok(())
    }

    fn is_over(
        &self,
        site: usize,
        position: u64,
        number: MessageNo,
        row: &Row,
        view: &View<'_>,
    ) -> bool {
        let (message, ledger) = (&row.message, view.ledger);
        let place = &ledger.places[site];
        if message.kind().is_state() || row.only.is_some() || ledger.is_old(number) {
            return true;
        }
        let elsewhere = |other: &usize| {
            let visited = message.path().split(',').any(|node| node == view.names[*other]);
            (!visited || view.is_twin(*other)) && ledger.places[*other].durable.contains(&number)
        };
        let is_owed = view.apps.iter().any(|app| {
            let wants = view.is_for(app.index, message.tags(), message.key());
            app.site == view.home(site) && app.client.is_some() && wants
        });
        let has_arrived = message.path().contains(',') && view.is_tagged(site, message.tags());
        self.handed.contains(&(site, position))
            || place.dead.contains_key(&number)
            || (place.forgotten.contains_key(&number) && is_short_of_letters(view))
            || (0..view.names.len()).any(|other| elsewhere(&other))
            // Of two processes under one id the other one may have got it from here.
            || (0..view.names.len()).any(|other| view.twin_holds(other, number))
            || is_owed
            || has_arrived
            // Whoever was handed the message of which it is a copy has had it.
            || row.copy.is_some_and(|copy| copy.of.is_some())
            // Who lies says that it has whatever it likes.
            || view.plan.mean(Fault::Lie).is_some()
    }
}

/// Whether nodes may be out of room for dead letters of their own.
fn is_short_of_letters(view: &View<'_>) -> bool {
    let settings = &view.plan.settings;
    settings.max_bytes.is_some()
        || settings.session_max.is_some()
        || view.plan.mean(Fault::DiskFull).is_some()
}
