//! P6: an application never sees a key go back, whatever the tag set, and in the end every node
//! agrees on the newest value of each key and tag set, and every application that is handed
//! everything has the newest of those that match it.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use slipstream_core::admin::Status;
use slipstream_core::ids::Hash128;

use super::{Broken, Invariant, Verdict};
use crate::simulator::application::{App, Consumer};
use crate::simulator::facts::{Fact, View};
use crate::simulator::frames::{Answer, Item};
use crate::simulator::ledger::{MessageNo, Place};
use crate::simulator::wrong_clock::{self, is_untimely};

/// The value of each key that each application has applied.
#[derive(Debug, Default)]
pub struct Rule {
    applied: HashMap<usize, HashMap<String, MessageNo>>,
    /// Applications that still hear what their node sent before its store was set back.
    set_back: HashSet<usize>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        let (app, version, id) = match fact {
            Fact::AppConnected { app } => {
                self.set_back.remove(app);
                if view.apps[*app].client.is_none() {
                    self.applied.remove(app);
                }
                return Ok(());
            }
            Fact::SetBack { site } => {
                self.applied.retain(|app, _| view.apps[*app].site != *site);
                let here = view.apps.iter().filter(|app| app.site == *site);
                self.set_back.extend(here.map(|app| app.index));
                return Ok(());
            }
            Fact::AppHeard { app, item: Item::Delivery(delivery) } => {
                (*app, &delivery.version, &delivery.id)
            }
            Fact::AppHeard {
                app,
                item: Item::Answer(Answer::Receipt { version, id, duplicate: false }),
            } => (*app, version, id),
            _ => return Ok(()),
        };
        let Some(number) = view.ledger.by_version(version, id) else { return Ok(()) };
        if self.set_back.contains(&app) {
            return Ok(());
        }
        let known = &view.ledger.messages[number];
        let (tags, key) = (known.message.tags(), known.message.key());
        // What it publishes for others only is none of its own values.
        if known.key.is_none() || !view.is_for(app, tags, key) {
            return Ok(());
        }
        let applied = self.applied.entry(app).or_default();
        if let Some(before) = applied.insert(key.into(), number) {
            let before = &view.ledger.messages[before];
            // A node whose clock is wrong, and that does not know it, goes by its own.
            let (before_it, it) = (&before.message, &known.message);
            // What a wrong clock stamped comes back in doubt, and what it gave way to may be gone.
            let comes_back = is_untimely(before_it) && is_untimely(it);
            if !comes_back && wrong_clock::is_newer(before_it, it) && before_it.is_newer_than(it) {
                let (name, key) = (view.apps[app].name(), known.message.key());
                let what = format!("{name} sees {key} go back: {} after {}", known.name(), {
                    before.name()
                });
                return Err(Broken::new(what, &[known.message.id(), before.message.id(), &name]));
            }
        }
        Ok(())
    }

    fn settled(&self, view: &View<'_>, _: &BTreeMap<usize, Status>) -> Verdict {
        let sites: Vec<usize> = (0..view.names.len()).filter(|site| !view.removed[*site]).collect();
        let mut newest: BTreeMap<[u8; 16], MessageNo> = BTreeMap::new();
        for site in &sites {
            for (key, number) in &view.ledger.places[*site].newest {
                let best = newest.entry(key.0).or_insert(*number);
                if is_newer(*number, *best, view) {
                    *best = *number;
                }
            }
        }
        for (key, number) in &newest {
            let tags = view.ledger.messages[*number].message.tags();
            for site in sites.iter().filter(|site| view.is_destination(**site, tags)) {
                let there = view.ledger.places[*site].newest.get(&Hash128(*key));
                if there != Some(number) && !view.ledger.is_forgiven(*number) {
                    let (name, node) = (view.ledger.messages[*number].name(), &view.names[*site]);
                    let what = format!("{node} has not {name}, the newest of its key");
                    return Err(Broken::new(what, &[view.ledger.messages[*number].message.id()]));
                }
            }
        }
        for app in view.apps.iter().filter(|app| is_brought_up_to_date(app)) {
            self.agrees(app, view)?;
        }
        Ok(())
    }
}

fn is_newer(a: MessageNo, b: MessageNo, view: &View<'_>) -> bool {
    wrong_clock::is_newer(&view.ledger.messages[a].message, &view.ledger.messages[b].message)
}

fn is_brought_up_to_date(app: &App) -> bool {
    app.client.is_some() && !app.gone && !app.only_new && app.consumer != Consumer::Mute
}

/// The copies of a message that came before it to a node and that it repeats: no newer value of the
/// key came between. An application is owed one of them all (P10), so they end together.
fn copies_before(number: MessageNo, place: &Place, view: &View<'_>) -> Vec<MessageNo> {
    let rows = || place.rows.iter().filter(|(_, (_, row))| row.only.is_none());
    let key = view.ledger.messages[number].message.key();
    let mut copies = Vec::new();
    for (_, (other, row)) in rows().take_while(|(_, (other, _))| *other != number) {
        if view.ledger.are_one(*other, number) {
            copies.push(*other);
        } else if row.key_hash.is_some() && row.message.key() == key {
            copies.retain(|copy| !is_newer(*other, *copy, view));
        }
    }
    copies
}

impl Rule {
    fn agrees(&self, app: &App, view: &View<'_>) -> Verdict {
        let none = HashMap::new();
        let applied = self.applied.get(&app.index).unwrap_or(&none);
        let place = &view.ledger.places[app.site];
        let session = format!("app:{}", app.client.as_deref().unwrap_or_default());
        for number in place.newest.values() {
            let known = &view.ledger.messages[*number];
            let key = known.message.key();
            let for_it = view.is_for(app.index, known.message.tags(), key);
            let has = applied.get(key).is_some_and(|has| view.ledger.are_one(*has, *number));
            if has || !for_it {
                continue;
            }
            let own = view.is_own(app.index, *number);
            // A copy of what it gave up, or had before the store was set back, is as good.
            let is_over =
                |number: MessageNo| place.is_dead(&session, number) || view.ledger.is_old(number);
            let over =
                is_over(*number) || copies_before(*number, place, view).into_iter().any(is_over);
            let outdone = view.is_outdone(app.index, *number);
            let excused = own || over || outdone || !app.manual;
            if !excused {
                let (name, value) = (app.name(), known.name());
                let what = format!("{name} has not {value}, the newest of its key");
                return Err(Broken::new(what, &[known.message.id(), &name]));
            }
        }
        Ok(())
    }
}
