//! P2: accepted = handed on + pending + superseded + dead + expired + forgotten, for every named
//! session, across restarts: each row that a session was ever owed is in exactly one of these. What
//! an application is told that was conflated, and what it is handed, are never more than there is
//! in the log; and only those are told whose outbox has so small a bound, or that asked for it.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use slipstream_core::admin::Status;

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::Item;

/// Positions that each application was handed, and where its session began.
#[derive(Debug, Default)]
pub struct Rule {
    handed: HashMap<usize, HashSet<u64>>,
    began: HashMap<usize, u64>,
    conflated: HashMap<usize, Conflated>,
}

/// What an application was told, and handed, in this life of its node.
#[derive(Debug, Default)]
struct Conflated {
    told: u64,
    handed: HashSet<u64>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::Transmitted { to: Party::App(app), item: Item::Delivery(delivery), .. } => {
                self.handed.entry(*app).or_default().insert(delivery.delivery);
                let conflated = self.conflated.entry(*app).or_default();
                conflated.handed.insert(delivery.delivery);
            }
            Fact::Transmitted { to: Party::App(app), item: Item::Conflated(values), .. } => {
                return self.told(*app, *values, view);
            }
            Fact::Ended { site } => {
                self.conflated.retain(|app, _| view.apps[*app].site != *site);
            }
            Fact::Transmitted { site, to: Party::App(app), item: Item::Welcome, .. } => {
                let head = view.ledger.places[*site].rows.last_key_value();
                self.began.entry(*app).or_insert(head.map_or(0, |(position, _)| *position));
            }
            Fact::SetBack { site } => {
                self.handed.retain(|app, _| view.apps[*app].site != *site);
                self.began.retain(|app, _| view.apps[*app].site != *site);
                self.conflated.retain(|app, _| view.apps[*app].site != *site);
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
                let own = || view.is_own(app.index, *number);
                let ended = handed.contains(position)
                    || place.is_dead(&session, *number)
                    || view.is_outdone(app.index, *number)
                    || row.copy.is_some_and(|copy| copy.of.is_some())
                    || view.ledger.is_old(*number);
                if row.only.is_none() && wanted && !ended && !own() {
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

impl Rule {
    fn told(&mut self, index: usize, values: u64, view: &View<'_>) -> Verdict {
        let app = &view.apps[index];
        let name = app.name();
        if !app.conflate && view.plan.settings.session_max.is_none() {
            let what = format!("{name} is told of {values} values conflated, and wanted each");
            return Err(Broken::new(what, &[&name]));
        }
        // Each connection of one without a name is another session.
        if app.client.is_none() {
            return Ok(());
        }
        let conflated = self.conflated.entry(index).or_default();
        conflated.told += values;
        let head = view.ledger.places[app.site].rows.last_key_value().map_or(0, |(last, _)| *last);
        let handed = conflated.handed.len() as u64;
        if conflated.told + handed > head {
            let what = format!(
                "{name} was handed {handed} rows, and told of {} left out: there are {head}",
                conflated.told
            );
            return Err(Broken::new(what, &[&name]));
        }
        Ok(())
    }
}
