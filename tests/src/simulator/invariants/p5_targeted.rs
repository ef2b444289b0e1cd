//! P5: an application is handed only what is for it, by tags and by key.

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::Item;

/// A delivery says enough itself.
#[derive(Debug, Default)]
pub struct Rule;

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        let Fact::Transmitted { to: Party::App(app), item: Item::Delivery(delivery), .. } = fact
        else {
            return Ok(());
        };
        if view.is_for(*app, &delivery.tags, &delivery.key) {
            return Ok(());
        }
        let name = view.apps[*app].name();
        let what = format!("{name} is handed {}, which is not for it", delivery.id);
        Err(Broken::new(what, &[&delivery.id, &name]))
    }
}
