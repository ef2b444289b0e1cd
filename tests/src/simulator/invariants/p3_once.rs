//! P3: an application is handed each message once; again only while its ACK is not durable, and
//! then marked. What it has acknowledged, and that is durable, never comes again.

use hashbrown::{HashMap, HashSet};

use super::{Broken, Invariant, Verdict};
use crate::simulator::application::Said;
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::{Delivery, Item};
use crate::simulator::ledger::MessageNo;

/// What each application was handed, and how far its acknowledgements have got.
#[derive(Debug, Default)]
pub struct Rule {
    apps: HashMap<usize, Handed>,
}

#[derive(Debug, Default)]
struct Handed {
    /// How often each message, and as which delivery.
    messages: HashMap<MessageNo, u32>,
    deliveries: HashMap<u64, MessageNo>,
    /// Refused since they were handed over last: no cumulative ACK speaks of them.
    refused: HashSet<u64>,
    /// Refused in the turn that is told now: it may speak of the hand-over that the turn brings.
    refused_now: HashSet<u64>,
    /// Acknowledged, and not in a batch yet.
    acknowledged: Vec<MessageNo>,
    /// In the batch that is on its way.
    sealed: Vec<MessageNo>,
    /// Settled for good.
    settled: HashSet<MessageNo>,
    /// Dead letters that an operator had handed over again: an ACK of the first delivery says
    /// nothing of the second.
    replayed: HashSet<MessageNo>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::AppConnected { app } if view.apps[*app].client.is_none() => {
                self.apps.remove(app);
            }
            Fact::SetBack { site } => self.apps.retain(|app, _| view.apps[*app].site != *site),
            Fact::Transmitted {
                conn, to: Party::App(app), item: Item::Delivery(delivery), ..
            } if view.apps[*app].link == Some(*conn) => {
                return self.handed(*app, delivery, view);
            }
            // A cumulative ACK is sure to speak of the delivery that it names, unless that has had
            // a word of its own.
            Fact::HeardFromApp { app, said: Said::Ack { delivery, upto } } => {
                let handed = self.apps.entry(*app).or_default();
                if !upto || !handed.refused.contains(delivery) {
                    handed.acknowledged.extend(handed.deliveries.get(delivery));
                }
            }
            Fact::HeardFromApp { app, said: Said::Nack { delivery, .. } } => {
                let handed = self.apps.entry(*app).or_default();
                handed.refused.insert(*delivery);
                handed.refused_now.insert(*delivery);
            }
            Fact::Turned { site } => {
                self.at(*site, view).for_each(|(_, handed)| handed.refused_now.clear());
            }
            Fact::Sealed { site, batch } => {
                for (app, handed) in self.at(*site, view) {
                    if handed.acknowledged.is_empty() {
                        continue;
                    }
                    let client = view.apps[app].client.as_deref();
                    let is_its =
                        |name: &str| client.is_some() && name.strip_prefix("app:") == client;
                    if batch.sessions.iter().any(|record| is_its(&record.name)) {
                        handed.sealed.append(&mut handed.acknowledged);
                    }
                }
            }
            Fact::Durable { site, .. } => {
                for (_, handed) in self.at(*site, view) {
                    handed.settled.extend(handed.sealed.drain(..));
                }
            }
            Fact::RolledBack { site } => {
                for (_, handed) in self.at(*site, view) {
                    handed.acknowledged.append(&mut handed.sealed);
                }
            }
            Fact::Ended { site } => {
                for (_, handed) in self.at(*site, view) {
                    handed.acknowledged.clear();
                    handed.sealed.clear();
                }
            }
            Fact::Replayed { site, session, message } => {
                let number = view.ledger.find(message).ok();
                for (app, handed) in self.at(*site, view) {
                    let name = view.apps[app].client.as_ref().map(|name| format!("app:{name}"));
                    if name.as_deref() == Some(*session)
                        && let Some(number) = number
                    {
                        handed.replayed.insert(number);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Rule {
    fn at<'a>(
        &'a mut self,
        site: usize,
        view: &'a View<'_>,
    ) -> impl Iterator<Item = (usize, &'a mut Handed)> {
        let here = move |(app, _): &(&usize, &mut Handed)| view.apps[**app].site == site;
        self.apps.iter_mut().filter(here).map(|(app, handed)| (*app, handed))
    }

    fn handed(&mut self, app: usize, delivery: &Delivery, view: &View<'_>) -> Verdict {
        let Some(number) = view.ledger.handed(view.apps[app].site, delivery) else { return Ok(()) };
        let handed = self.apps.entry(app).or_default();
        let times = handed.messages.entry(number).or_default();
        *times += 1;
        handed.deliveries.insert(delivery.delivery, number);
        if !handed.refused_now.contains(&delivery.delivery) {
            handed.refused.remove(&delivery.delivery);
        }
        if handed.replayed.contains(&number) {
            return Ok(());
        }
        if *times > 1 && delivery.redelivery == 0 {
            let name = view.apps[app].name();
            let what = format!("{name} is handed {} again, unmarked", delivery.id);
            return Err(Broken::new(what, &[&delivery.id, &name]));
        }
        if handed.settled.contains(&number) {
            let name = view.apps[app].name();
            let what = format!("{name} is handed {} again after its durable ACK", delivery.id);
            return Err(Broken::new(what, &[&delivery.id, &name]));
        }
        Ok(())
    }
}
