//! P4: a message is never sent unasked to a node on its path.

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::Item;

/// A message says enough itself.
#[derive(Debug, Default)]
pub struct Rule;

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        let Fact::Transmitted { site, to: Party::Node(to), item: Item::Message(message), .. } =
            fact
        else {
            return Ok(());
        };
        let (from, to) = (&view.names[*site], &view.names[*to]);
        if !message.path().split(',').any(|visited| visited == to) {
            return Ok(());
        }
        let what = format!("{from} sends {} back to {to}: {}", message.id(), message.path());
        Err(Broken::new(what, &[message.id()]))
    }
}
