//! P2: accepted = handed on + pending + superseded + dead + expired + forgotten, for every named
//! session, across restarts: each row that a session was ever owed is in exactly one of these.

use std::collections::{BTreeMap, HashMap, HashSet};

use slipstream_core::admin::Status;

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::Item;

/// Positions that each application was handed, and where its session began.
#[derive(Debug, Default)]
pub struct Rule {
    handed: HashMap<usize, HashSet<u64>>,
    began: HashMap<usize, u64>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::Transmitted { to: Party::App(app), item: Item::Delivery(delivery), .. } => {
                self.handed.entry(*app).or_default().insert(delivery.delivery);
            }
            Fact::Transmitted { site, to: Party::App(app), item: Item::Welcome, .. } => {
                let head = view.ledger.places[*site].rows.last_key_value();
                self.began.entry(*app).or_insert(head.map_or(0, |(position, _)| *position));
            }
            Fact::SetBack { site } => {
                self.handed.retain(|app, _| view.apps[*app].site != *site);
                self.began.retain(|app, _| view.apps[*app].site != *site);
            }
            _ => {}
        }
        Ok(())
    }

    fn settled(&self, view: &View<'_>, statuses: &BTreeMap<usize, Status>) -> Verdict {
        let none = HashSet::new();
        for app in view.apps.iter().filter(|app| !app.gone) {
            let Some(client) = &app.client else { continue };
            let session = format!("app:{client}");
            let Some(status) = statuses.get(&app.site) else { continue };
            let found = status.sessions.iter().find(|found| found.name == session);
            let pending = found.map_or(0, |found| found.in_flight as u64 + found.behind);
            let handed = self.handed.get(&app.index).unwrap_or(&none);
            let began = self.began.get(&app.index).copied().unwrap_or(u64::MAX);
            let place = &view.ledger.places[app.site];
            let mut unaccounted = Vec::new();
            for (position, (number, row)) in place.rows.range(began.saturating_add(1)..) {
                let wanted = view.is_for(app.index, row.message.tags(), row.message.key());
                let own = view.ledger.messages[*number]
                    .publish
                    .is_some_and(|publish| view.ledger.publishes[publish].app == app.index);
                let ended = handed.contains(position)
                    || place.dead.contains_key(&(session.clone(), *number))
                    || view.ledger.is_superseded(app.site, *number)
                    || view.ledger.is_old(*number);
                if row.only.is_none() && wanted && !own && !ended {
                    unaccounted.push(row.message.id());
                }
            }
            if unaccounted.len() as u64 > pending {
                let what = format!(
                    "{session} at {} has {pending} pending, and of {unaccounted:?} nobody knows",
                    view.names[app.site]
                );
                return Err(Broken::new(what, &[unaccounted[0], &session]));
            }
        }
        Ok(())
    }
}
