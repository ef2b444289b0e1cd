//! P9: one session and `messageId` gives one message, and publishing again gives its receipt.

use hashbrown::HashMap;

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::{Answer, Item};
use crate::simulator::ledger::MessageNo;
use crate::simulator::wrong_clock::is_untimely;

/// The message that each (application, `messageId`) stands for.
#[derive(Debug, Default)]
pub struct Rule {
    messages: HashMap<(usize, String), MessageNo>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::SetBack { site } => {
                self.messages.retain(|(app, _), _| view.apps[*app].site != *site);
                Ok(())
            }
            Fact::Durable { batch, .. } => {
                for row in batch.rows.iter().filter(|row| row.publisher.is_some()) {
                    let Ok(number) = view.ledger.find(&row.message) else { continue };
                    let publish = view.ledger.messages[number].publish;
                    let Some(publish) = publish.map(|publish| &view.ledger.publishes[publish])
                    else {
                        continue;
                    };
                    if view.apps[publish.app].client.is_none() {
                        continue;
                    }
                    let key = (publish.app, publish.id.clone());
                    if let Some(before) = self.messages.get(&key)
                        && is_untimely(&view.ledger.messages[*before].message)
                    {
                        // By an operator's order it is published once more; its receipt stays.
                        continue;
                    }
                    if let Some(before) = self.messages.insert(key, number) {
                        let before = view.ledger.messages[before].name();
                        let id = &*publish.id;
                        let what = format!("{id} is {before}, and {} too", row.message.version());
                        return Err(Broken::new(what, &[id]));
                    }
                }
                Ok(())
            }
            Fact::Transmitted { to: Party::App(app), item, .. } => self.receipt(*app, item, view),
            _ => Ok(()),
        }
    }
}

impl Rule {
    fn receipt(&self, app: usize, item: &Item, view: &View<'_>) -> Verdict {
        let Item::Answer(Answer::Receipt { id, version, .. }) = item else { return Ok(()) };
        if view.apps[app].client.is_none() {
            return Ok(());
        }
        // After a store was set back only what its copy held is known.
        let number = self.messages.get(&(app, id.clone())).copied();
        let number = number.or_else(|| view.ledger.by_version(version, id));
        let fits = |number: MessageNo| {
            let known = &view.ledger.messages[number];
            known.version == *version && known.message.id() == id
        };
        if number.is_some_and(fits) {
            return Ok(());
        }
        let what = format!("the receipt for {id} names {version}, not the message that it is");
        Err(Broken::new(what, &[id]))
    }
}
