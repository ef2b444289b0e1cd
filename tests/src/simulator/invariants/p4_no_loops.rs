//! P4: a message is never sent unasked to a node on its path.

use hashbrown::HashSet;

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::{Item, Naming, identities};
use crate::simulator::network::ConnId;
use slipstream_core::ids::Identity;

/// What nodes were asked for, by connection.
#[derive(Debug, Default)]
pub struct Rule {
    asked: HashSet<(usize, ConnId, Identity)>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::HeardFromPeer { site, conn, items } => {
                for item in *items {
                    if let Item::Named(Naming::Want, spans) = item {
                        let asked = identities(spans).map(|identity| (*site, *conn, identity));
                        self.asked.extend(asked);
                    }
                }
                Ok(())
            }
            Fact::Transmitted { site, conn, to: Party::Node(to), item: Item::Message(message) } => {
                let (from, to) = (&view.names[*site], &view.names[*to]);
                let visited = message.path().split(',').any(|visited| visited == to);
                if !visited || self.asked.contains(&(*site, *conn, message.identity())) {
                    return Ok(());
                }
                let (id, path) = (message.id(), message.path());
                let what = format!("{from} sends {id} back to {to}, unasked: {path}");
                Err(Broken::new(what, &[id]))
            }
            _ => Ok(()),
        }
    }
}
