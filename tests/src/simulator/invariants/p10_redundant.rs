//! P10: of a message that was published through two nodes of one cluster group, every application
//! is handed one copy; a state value once more only if another write of its key came between.

use hashbrown::HashMap;
use slipstream_core::ids::Hash128;

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::{Delivery, Item};
use crate::simulator::ledger::{Known, MessageNo};
use crate::simulator::wrong_clock::{is_newer, is_untimely};

/// Which copies each application was handed, the first hand-over of each.
#[derive(Debug, Default)]
pub struct Rule {
    handed: HashMap<usize, HashMap<Hash128, Vec<MessageNo>>>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::AppConnected { app } if view.apps[*app].client.is_none() => {
                self.handed.remove(app);
                Ok(())
            }
            Fact::SetBack { site } => {
                self.handed.retain(|app, _| view.apps[*app].site != *site);
                Ok(())
            }
            Fact::Transmitted {
                conn, to: Party::App(app), item: Item::Delivery(delivery), ..
            } if view.apps[*app].link == Some(*conn) && delivery.redelivery == 0 => {
                self.handed(*app, delivery, view)
            }
            _ => Ok(()),
        }
    }
}

impl Rule {
    fn handed(&mut self, app: usize, delivery: &Delivery, view: &View<'_>) -> Verdict {
        let Some(number) = view.ledger.handed(view.apps[app].site, delivery) else { return Ok(()) };
        let Some(content) = view.ledger.messages[number].content else { return Ok(()) };
        let copies = self.handed.entry(app).or_default().entry(content).or_default();
        copies.push(number);
        let [.., before, _] = copies[..] else { return Ok(()) };
        if before == number || is_another_write_between(before, number, view) {
            return Ok(());
        }
        let (name, copy) = (view.apps[app].name(), view.ledger.messages[before].name());
        let what =
            format!("{name} is handed {}, and had {copy}", { view.ledger.messages[number].name() });
        Err(Broken::new(what, &[&delivery.id, &name]))
    }
}

/// Whether the key was written in between. (What was written to another tag set may be older and
/// have come in between all the same.)
fn is_another_write_between(a: MessageNo, b: MessageNo, view: &View<'_>) -> bool {
    let messages = &view.ledger.messages;
    let (first, last) = (&messages[a].message, &messages[b].message);
    let is_between = |known: &Known| {
        is_newer(&known.message, first) && is_newer(last, &known.message)
            || known.key != messages[a].key
    };
    // What gave way counts as replaced by whatever came since.
    let gave_way = is_untimely(first) && !is_untimely(last);
    let of_key = |known: &&Known| known.key.is_some() && known.message.key() == first.key();
    messages[a].key.is_some() && (gave_way || messages.iter().filter(of_key).any(is_between))
}
