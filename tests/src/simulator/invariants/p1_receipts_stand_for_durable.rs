//! P1: a node acknowledges a message, to an application or to a peer, only after it is durable
//! there, or no longer needed there.

use hashbrown::HashMap;

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::{Answer, Item};
use crate::simulator::ledger::MessageNo;
use crate::simulator::network::ConnId;
use slipstream_core::message::Message;

/// What each node was sent on each connection, and how far it has answered.
#[derive(Debug, Default)]
pub struct Rule {
    received: HashMap<(ConnId, usize), Received>,
}

#[derive(Debug, Default)]
struct Received {
    messages: Vec<(Option<MessageNo>, Message)>,
    refused: Vec<(u64, u64)>,
    answered: u64,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::HeardFromPeer { site, conn, items } => {
                let received = self.received.entry((*conn, *site)).or_default();
                for item in *items {
                    if let Item::Message(message) = item {
                        let number = view.ledger.find(message).ok();
                        received.messages.push((number, message.clone()));
                    }
                }
                Ok(())
            }
            Fact::Transmitted { site, conn, to: Party::Node(_), item } => {
                self.answered(*site, *conn, item, view)
            }
            Fact::Transmitted {
                site,
                to: Party::App(app),
                item: Item::Answer(Answer::Receipt { version, id, .. }),
                ..
            } => {
                let number = view.ledger.by_version(version, id);
                let durable = &view.ledger.places[*site].durable;
                if number.is_some_and(|number| durable.contains(&number)) {
                    return Ok(());
                }
                let (node, app) = (&view.names[*site], view.apps[*app].name());
                let what = format!("{node} gives {app} a receipt for {id}, not durable there");
                Err(Broken::new(what, &[id, node]))
            }
            _ => Ok(()),
        }
    }
}

impl Rule {
    fn answered(&mut self, site: usize, conn: ConnId, item: &Item, view: &View<'_>) -> Verdict {
        let received = self.received.entry((conn, site)).or_default();
        match item {
            Item::NotNow(not_now) => received.refused.push((not_now.first, not_now.last)),
            Item::Ack(ack) => {
                let from = std::mem::replace(&mut received.answered, ack.upto);
                for number in from + 1..=ack.upto {
                    received.check(number, site, view)?;
                }
                let head = view.ledger.places[site].rows.last_key_value();
                let (position, _) = ack.log_end();
                if position.get() > head.map_or(0, |(position, _)| *position) {
                    let node = &view.names[site];
                    let what = format!("{node} reports position {position}, beyond its log");
                    return Err(Broken::new(what, &[node]));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Received {
    fn check(&self, number: u64, site: usize, view: &View<'_>) -> Verdict {
        let refused = |(first, last): &(u64, u64)| (*first..=*last).contains(&number);
        if self.refused.iter().any(refused) {
            return Ok(());
        }
        let node = &view.names[site];
        let Some((message, copy)) = self.messages.get(number as usize - 1) else {
            let what = format!("{node} acknowledges number {number}, which it was not sent");
            return Err(Broken::new(what, &[node]));
        };
        let looped = copy.path().split(',').any(|visited| visited == node);
        if looped || message.is_some_and(|message| view.ledger.holds(site, message)) {
            return Ok(());
        }
        let name = crate::simulator::ledger::name_of(copy);
        let what = format!("{node} acknowledges {name}, which is not durable there");
        Err(Broken::new(what, &[copy.id(), node]))
    }
}
