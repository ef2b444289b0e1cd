//! P2, P7: after healing every accepted message is at every node, and every named application was
//! handed what it was owed, or it ended as one of the stated ends.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use slipstream_core::admin::Status;

use super::{Broken, Invariant, Verdict};
use crate::simulator::application::{App, Consumer};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::Item;
use crate::simulator::ledger::{MessageNo, Moment};
use crate::simulator::plan::Micros;

/// What each application has received, and where its session began.
#[derive(Debug, Default)]
pub struct Rule {
    received: HashMap<usize, HashSet<MessageNo>>,
    began: HashMap<usize, Began>,
    /// When a session at one node waited for another first: whoever comes later does not get what
    /// was forgotten before, and neither do those behind it.
    joined: HashMap<(usize, usize), Micros>,
}

/// Where the log of its node ended when a session began, and when that was.
#[derive(Debug, Clone, Copy)]
struct Began {
    head: u64,
    at: Moment,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::AppHeard { app, item: Item::Delivery(delivery) } => {
                if let Some(number) = view.ledger.handed(view.apps[*app].site, delivery) {
                    self.received.entry(*app).or_default().insert(number);
                }
            }
            Fact::Transmitted { site, to: Party::App(app), item: Item::Welcome, .. } => {
                let head = view.ledger.places[*site].rows.last_key_value();
                let head = head.map_or(0, |(position, _)| *position);
                let at = view.ledger.moment(*site);
                self.began.entry(*app).or_insert(Began { head, at });
            }
            Fact::Durable { site, batch, .. } => {
                for record in &batch.sessions {
                    let peer = record.name.strip_prefix("peer:");
                    let peer = view.names.iter().position(|name| Some(&**name) == peer);
                    if let Some(peer) = peer {
                        self.joined.entry((*site, peer)).or_insert(view.now);
                    }
                }
            }
            Fact::Cloned { site, twin } => {
                let here = self.joined.iter().filter(|((of, _), _)| of == site);
                let joined: Vec<_> = here.map(|((_, peer), at)| ((*twin, *peer), *at)).collect();
                self.joined.extend(joined);
            }
            Fact::SetBack { site } => {
                self.received.retain(|app, _| view.apps[*app].site != *site);
                self.began.retain(|app, _| view.apps[*app].site != *site);
                // With the disk its sessions went, too.
                self.joined.retain(|(at, _), _| at != site);
            }
            _ => {}
        }
        Ok(())
    }

    fn settled(&self, view: &View<'_>, _: &BTreeMap<usize, Status>) -> Verdict {
        let sites: Vec<usize> = (0..view.names.len()).filter(|site| !view.removed[*site]).collect();
        for number in 0..view.ledger.messages.len() {
            for site in &sites {
                self.is_there(number, *site, &sites, view)?;
            }
        }
        let waits = |app: &&App| app.client.is_some() && !app.gone && app.manual;
        for app in view.apps.iter().filter(waits) {
            self.was_handed_all(app, view)?;
        }
        Ok(())
    }
}

/// Whether a twin had it, whereupon somebody forgot it, as all that it knew had settled it.
fn was_forgotten_for_a_twin(number: MessageNo, view: &View<'_>) -> bool {
    let places = &view.ledger.places;
    view.twins.is_some_and(|twins| places[twins.twin].durable.contains(&number))
        && places.iter().any(|place| place.forgotten.contains_key(&number))
}

impl Rule {
    fn is_there(
        &self,
        number: MessageNo,
        site: usize,
        sites: &[usize],
        view: &View<'_>,
    ) -> Verdict {
        let ledger = view.ledger;
        let known = &ledger.messages[number];
        let is_accepted =
            || sites.iter().any(|site| ledger.places[*site].durable.contains(&number));
        let may_miss = || {
            self.somebody_came_too_late_for(number, view)
                || self.joined_after_it_was_forgotten(site, number, view)
                || was_forgotten_for_a_twin(number, view)
                || ledger.is_expired_anywhere(number)
                || sites.iter().any(|site| ledger.is_superseded_by_forgiven(*site, number))
        };
        if ledger.holds(site, number)
            || !view.is_destination(site, known.message.tags())
            || !is_accepted()
            || ledger.is_forgiven(number)
            || may_miss()
        {
            return Ok(());
        }
        let (name, node) = (known.name(), &view.names[site]);
        Err(Broken::new(format!("{name} never came to {node}"), &[known.message.id()]))
    }

    fn somebody_came_too_late_for(&self, number: MessageNo, view: &View<'_>) -> bool {
        self.joined.iter().any(|((site, _), joined)| {
            view.ledger.places[*site].forgotten.get(&number).is_some_and(|at| at <= joined)
        })
    }

    /// Whether some node had forgotten it before this one joined the mesh, wherever that was: an
    /// event may lead nowhere, and be forgotten, before somebody comes whom it targets.
    fn joined_after_it_was_forgotten(
        &self,
        site: usize,
        number: MessageNo,
        view: &View<'_>,
    ) -> bool {
        let joins = self.joined.iter().filter(|((_, peer), _)| *peer == site);
        let first = joins.map(|(_, joined)| *joined).min();
        let forgotten = view.ledger.places.iter().filter_map(|place| place.forgotten.get(&number));
        first.is_some_and(|first| forgotten.into_iter().any(|at| *at <= first))
    }

    fn was_handed_all(&self, app: &App, view: &View<'_>) -> Verdict {
        let none = HashSet::new();
        let received = self.received.get(&app.index).unwrap_or(&none);
        let never = Began { head: u64::MAX, at: Moment::default() };
        let began = self.began.get(&app.index).copied().unwrap_or(never);
        let session = format!("app:{}", app.client.as_deref().unwrap_or_default());
        let place = &view.ledger.places[app.site];
        for (position, (number, row)) in &place.rows {
            let message = &row.message;
            let before = *position <= began.head;
            let is_owed = || {
                // Whoever comes when its time is over has missed it.
                let forgotten = place.forgotten.contains_key(number)
                    || view.ledger.was_expired(*number, began.at);
                row.only.is_none()
                    && view.is_for(app.index, message.tags(), message.key())
                    && !view.is_own(app.index, *number)
                    && !(before && (app.only_new || forgotten))
                    && app.consumer != Consumer::Mute
            };
            let had_copy = |had: &MessageNo| view.ledger.are_one(*had, *number);
            // It may have been handed the copy before the loss.
            let of_lost = row.copy.and_then(|copy| copy.of).is_some_and(|of| {
                let first = place.rows.get(&of.get());
                first.is_none_or(|(first, _)| view.ledger.is_old(*first))
            });
            let over = of_lost
                || received.contains(number)
                || place.is_dead(&session, *number)
                || view.is_outdone(app.index, *number)
                || view.ledger.is_old(*number)
                || !is_owed()
                || received.iter().any(had_copy)
                || place.dead.keys().any(|dead| had_copy(dead) && place.is_dead(&session, *dead));
            if !over {
                let (id, name) = (message.id(), app.name());
                return Err(Broken::new(format!("{name} was never handed {id}"), &[id, &name]));
            }
        }
        Ok(())
    }
}
