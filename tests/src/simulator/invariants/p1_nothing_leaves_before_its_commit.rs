//! P1: nothing at all leaves a node before its commit: no forward, no delivery, no offer, and no
//! word that something offered is there already.

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, View};
use crate::simulator::frames::{Item, Naming, identities};

/// The ledger knows enough.
#[derive(Debug, Default)]
pub struct Rule;

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        let Fact::Transmitted { site, item, .. } = fact else { return Ok(()) };
        let (number, id) = match item {
            Item::Delivery(delivery) => (view.ledger.handed(*site, delivery), &*delivery.id),
            Item::Message(message) => (view.ledger.find(message).ok(), message.id()),
            Item::Named(Naming::Have | Naming::Seen, spans) => {
                let numbers = identities(spans).filter_map(|id| view.ledger.by_identity(&id));
                let Some(number) =
                    numbers.into_iter().find(|number| !view.ledger.holds(*site, *number))
                else {
                    return Ok(());
                };
                (None, view.ledger.messages[number].message.id())
            }
            _ => return Ok(()),
        };
        let durable = &view.ledger.places[*site].durable;
        if number.is_some_and(|number| durable.contains(&number)) {
            return Ok(());
        }
        let node = &view.names[*site];
        Err(Broken::new(format!("{id} leaves {node} and is not durable there"), &[id, node]))
    }
}
