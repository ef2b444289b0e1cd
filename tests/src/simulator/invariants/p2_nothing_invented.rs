//! P2: what is handed over is what somebody published, byte for byte; what was refused for good
//! never appears.

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, View};
use crate::simulator::frames::{Delivery, Item};
use crate::simulator::ledger::Outcome;

/// The ledger knows enough.
#[derive(Debug, Default)]
pub struct Rule;

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::Sealed { site, batch } => {
                for row in batch.rows.iter().filter(|row| row.publisher.is_some()) {
                    let number = view.ledger.find(&row.message);
                    let known = number.ok().and_then(|no| view.ledger.messages[no].publish);
                    let wanted = known.map(|publish| &view.ledger.publishes[publish]);
                    let same = wanted.is_some_and(|wanted| {
                        wanted.kind == row.message.kind()
                            && wanted.key == row.message.key()
                            && wanted.tags == row.message.tags()
                            && view.apps[wanted.app].site == *site
                    });
                    if !same {
                        let (id, node) = (row.message.id(), &view.names[*site]);
                        let what = format!("{node} accepts {id}, which nobody published so");
                        return Err(Broken::new(what, &[id, node]));
                    }
                }
                Ok(())
            }
            Fact::Transmitted { site, item: Item::Delivery(delivery), .. } => {
                check(delivery, *site, view)
            }
            Fact::Transmitted { site, item: Item::Message(message), .. } => {
                let last = message.path().rsplit(',').next();
                match view.ledger.find(message) {
                    Ok(_) if last == Some(&view.names[*site]) => Ok(()),
                    Ok(_) => Err(Broken::new(
                        format!("{} leaves with path {}", message.id(), message.path()),
                        &[message.id()],
                    )),
                    Err(what) => Err(Broken::new(what, &[message.id()])),
                }
            }
            _ => Ok(()),
        }
    }

    fn settled(
        &self,
        view: &View<'_>,
        _: &std::collections::BTreeMap<usize, slipstream_core::admin::Status>,
    ) -> Verdict {
        for known in view.ledger.messages.iter().filter(|known| !known.rolled_back) {
            let Some(publish) = known.publish.map(|number| &view.ledger.publishes[number]) else {
                continue;
            };
            if let Outcome::Refused(code) = &publish.outcome
                && publish.sends == 1
            {
                let what = format!("{} was refused with {code}, and is there", known.name());
                return Err(Broken::new(what, &[&publish.id]));
            }
        }
        Ok(())
    }
}

fn check(delivery: &Delivery, site: usize, view: &View<'_>) -> Verdict {
    let Some(number) = view.ledger.handed(site, delivery) else {
        let what = format!("{} has a version that nobody stamped", delivery.id);
        return Err(Broken::new(what, &[&delivery.id]));
    };
    let message = &view.ledger.messages[number].message;
    let same = message.id() == delivery.id
        && message.kind().as_str() == delivery.kind
        && message.key() == delivery.key
        && message.tags() == delivery.tags
        && message.body() == delivery.body
        && delivery.path.split(',').next() == Some(message.origin())
        && delivery.path.rsplit(',').next() == Some(&*view.names[site]);
    if same {
        return Ok(());
    }
    let what = format!("{} is handed over as {delivery:?}", view.ledger.messages[number].name());
    Err(Broken::new(what, &[&delivery.id]))
}
