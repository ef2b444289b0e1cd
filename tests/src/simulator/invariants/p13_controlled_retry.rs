//! P13: on a link that stays up a delivery comes again only after its wait, at most as often as
//! configured, and under a rate; a node that cannot reach a peer dials calmly.

use hashbrown::HashMap;
use std::collections::VecDeque;

use std::time::Duration;

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::Item;
use crate::simulator::network::ConnId;
use crate::simulator::plan::{Micros, SECOND};

/// Dials of one peer within ten seconds that are still calm.
const CALM_DIALS: usize = 100;

/// Hand-overs per connection, and dials per peer.
#[derive(Debug, Default)]
pub struct Rule {
    handed: HashMap<(ConnId, u64), (Micros, u32)>,
    repeats: HashMap<ConnId, VecDeque<Micros>>,
    dials: HashMap<(usize, String), VecDeque<Micros>>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::Transmitted {
                conn, to: Party::App(app), item: Item::Delivery(delivery), ..
            } => self.handed(*app, *conn, delivery.delivery, &delivery.id, view),
            Fact::Dialed { site, url } => self.dialed(*site, url, view),
            _ => Ok(()),
        }
    }
}

impl Rule {
    fn handed(
        &mut self,
        app: usize,
        conn: ConnId,
        delivery: u64,
        id: &str,
        view: &View<'_>,
    ) -> Verdict {
        let entry = self.handed.entry((conn, delivery)).or_insert((view.now, 0));
        let (last, times) = *entry;
        *entry = (view.now, times + 1);
        if times == 0 {
            return Ok(());
        }
        let (settings, name) = (&view.plan.settings, view.apps[app].name());
        let waited = Duration::from_micros(view.now - last);
        if waited < settings.ack_timeout / 2 {
            let what = format!("{name} is handed {id} again after only {waited:?}");
            return Err(Broken::new(what, &[id, &name]));
        }
        if times + 1 > settings.max_attempts {
            let what = format!("{name} is handed {id} for the {}th time", times + 1);
            return Err(Broken::new(what, &[id, &name]));
        }
        let repeats = self.repeats.entry(conn).or_default();
        keep_last(repeats, view.now, SECOND);
        // A second's worth at once, another one during the second, and a third that a slow store
        // has held back.
        if repeats.len() > 3 * settings.max_rate as usize + 1 {
            let what = format!("{name} is handed {} repeats in a second", repeats.len());
            return Err(Broken::new(what, &[&name]));
        }
        Ok(())
    }

    fn dialed(&mut self, site: usize, url: &str, view: &View<'_>) -> Verdict {
        let dials = self.dials.entry((site, url.into())).or_default();
        keep_last(dials, view.now, 10 * SECOND);
        if dials.len() <= CALM_DIALS {
            return Ok(());
        }
        let node = &view.names[site];
        let what = format!("{node} has dialled {url} {} times in 10 s", dials.len());
        Err(Broken::new(what, &[node]))
    }
}

fn keep_last(times: &mut VecDeque<Micros>, now: Micros, window: Micros) {
    times.push_back(now);
    while times.front().is_some_and(|first| first + window < now) {
        times.pop_front();
    }
}
