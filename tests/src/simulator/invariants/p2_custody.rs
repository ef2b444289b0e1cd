//! P2: a node forgets an obligation only after it is over: the peer has the message durable, the
//! application has acknowledged it, or it ended as one of the stated ends.
//!
//! What a node has forgotten is what lies at or below the cursor that it made durable.

use hashbrown::{HashMap, HashSet};
use slipstream_core::store::{Row, SessionRecord};

use super::{Broken, Invariant, Verdict};
use crate::simulator::application::{App, Said};
use crate::simulator::counts::Fault;
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::Item;
use crate::simulator::ledger::MessageNo;

/// How far each session has got, and what each application has done with its deliveries.
#[derive(Debug, Default)]
pub struct Rule {
    cursors: HashMap<(usize, String), u64>,
    apps: HashMap<usize, Deliveries>,
}

#[derive(Debug, Default)]
struct Deliveries {
    handed: HashSet<u64>,
    acknowledged: HashSet<u64>,
    /// Refused, and not handed over again since: no cumulative ACK speaks of them. What it says
    /// while the next hand-over is on its way a node cannot tell from what it says of that one.
    refused: HashSet<u64>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::SetBack { site } => {
                self.cursors.retain(|(of, _), _| of != site);
                self.apps.retain(|app, _| view.apps[*app].site != *site);
            }
            Fact::Cloned { site, twin } => {
                let copied = self.cursors.iter().filter(|((of, _), _)| of == site);
                let copied = copied.map(|((_, name), at)| ((*twin, name.clone()), *at));
                let copied: Vec<_> = copied.collect();
                self.cursors.extend(copied);
            }
            Fact::Transmitted { to: Party::App(app), item: Item::Delivery(delivery), .. } => {
                let deliveries = self.apps.entry(*app).or_default();
                deliveries.handed.insert(delivery.delivery);
                deliveries.refused.remove(&delivery.delivery);
            }
            Fact::HeardFromApp { app, said: Said::Ack { delivery, upto } }
            | Fact::MayHaveHeardFromApp { app, said: Said::Ack { delivery, upto } } => {
                let deliveries = self.apps.entry(*app).or_default();
                if *upto {
                    let Deliveries { handed, refused, .. } = deliveries;
                    let below = handed.iter().filter(|handed| *handed <= delivery);
                    deliveries.acknowledged.extend(below.filter(|it| !refused.contains(*it)));
                } else {
                    deliveries.acknowledged.insert(*delivery);
                }
            }
            Fact::HeardFromApp { app, said: Said::Nack { delivery, .. } } => {
                self.apps.entry(*app).or_default().refused.insert(*delivery);
            }
            Fact::Durable { site, batch } => {
                for record in &batch.sessions {
                    self.moved(*site, record, view)?;
                }
                for ended in &batch.sessions_ended {
                    if let Some(name) = view.ledger.places[*site].sessions.get(&ended.get()) {
                        self.cursors.remove(&(*site, name.clone()));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Rule {
    fn moved(&mut self, site: usize, record: &SessionRecord, view: &View<'_>) -> Verdict {
        let place = (site, record.name.clone());
        let app = owner(site, &record.name, view);
        let fresh = if app.is_some_and(|app| app.only_new) { record.cursor.get() } else { 0 };
        let before = self.cursors.insert(place, record.cursor.get()).unwrap_or(fresh);
        let rows = &view.ledger.places[site].rows;
        for (position, (number, row)) in rows.range(before + 1..) {
            if *position > record.cursor.get() {
                break;
            }
            let over = match app {
                Some(app) => self.is_over_for(app, record, *position, *number, row, view),
                None => is_over_for_peer(site, &record.name, *number, row, view),
            };
            if !over {
                let (id, node) = (row.message.id(), &view.names[site]);
                let what = format!("{node} forgets that {} is owed {id}", record.name);
                return Err(Broken::new(what, &[id, &record.name]));
            }
        }
        Ok(())
    }

    fn is_over_for(
        &self,
        app: &App,
        record: &SessionRecord,
        position: u64,
        number: MessageNo,
        row: &Row,
        view: &View<'_>,
    ) -> bool {
        let wanted = match row.only {
            Some(only) => only == record.id,
            None => {
                let message = &row.message;
                view.is_for(app.index, message.tags(), message.key())
                    && row.publisher != Some(record.id)
            }
        };
        let place = &view.ledger.places[app.site];
        let deliveries = self.apps.get(&app.index);
        let done = deliveries.is_some_and(|deliveries| {
            deliveries.acknowledged.contains(&position)
                || (!app.manual && deliveries.handed.contains(&position))
        });
        !wanted
            || done
            || place.is_dead(&record.name, number)
            || place.forgotten.contains_key(&number)
            || view.is_outdone(app.index, number)
            || view.ledger.is_old(number)
            || self.is_over_as_copy(app, record, row, view)
    }

    /// Whether the message was over for the application as another row, of which this is a copy.
    fn is_over_as_copy(
        &self,
        app: &App,
        record: &SessionRecord,
        row: &Row,
        view: &View<'_>,
    ) -> bool {
        let Some(first) = row.copy.and_then(|copy| copy.of) else { return false };
        let rows = &view.ledger.places[app.site].rows;
        rows.get(&first.get()).is_none_or(|(number, row)| {
            self.is_over_for(app, record, first.get(), *number, row, view)
        })
    }
}

/// The application whose session has this name.
pub fn owner<'a>(site: usize, session: &str, view: &View<'a>) -> Option<&'a App> {
    let client = session.strip_prefix("app:")?;
    view.apps.iter().find(|app| app.site == site && app.client.as_deref() == Some(client))
}

fn is_over_for_peer(
    site: usize,
    session: &str,
    number: MessageNo,
    row: &Row,
    view: &View<'_>,
) -> bool {
    let peer = session.strip_prefix("peer:").unwrap_or_default();
    let Some(there) = view.names.iter().position(|name| name == peer) else {
        // A liar says that it has whatever it likes.
        return true;
    };
    // Who is no destination may be on somebody's way, or not; an application's tags may not be
    // known yet. After a lie about its tags a node may have been passed over, which is remembered.
    let lies = view.plan.mean(Fault::Lie).is_some();
    row.only.is_some()
        || view.removed[there]
        || !view.is_tagged(there, row.message.tags())
        || (lies && !row.message.tags().is_empty())
        || row.message.path().split(',').any(|visited| visited == peer)
        || view.ledger.holds(there, number)
        // Of two processes under one id a peer knows which it has told what when they end.
        || view.twin_holds(there, number)
        // A newer value has taken its place, and with it the obligation; or its time was over.
        || view.ledger.is_superseded(site, number)
        || view.ledger.is_expired(site, number)
        || view.ledger.places[site].forgotten.contains_key(&number)
        || view.ledger.is_old(number)
}
