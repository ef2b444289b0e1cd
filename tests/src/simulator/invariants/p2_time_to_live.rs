//! P2: no application is handed an event after its time to live, whatever the clocks of the nodes
//! on its way say, unless an operator has it handed over again. That none is given up before is
//! what `p2_undelivered`, `p2_custody` and `p2_nothing_lost` see to.
//!
//! On each link its time stands still for as long as the fastest frame so far was on its way:
//! nobody can tell that from a clock that is behind. So it is measured here, way by way. The path
//! does not tell it: an origin that has lost its store gets its own event back, and is the whole
//! path of that; and a link may be stuck from its first frame on, for any time.

use std::collections::VecDeque;

use hashbrown::HashMap;
use slipstream_core::ids::Identity;
use slipstream_core::message::Message;

use super::{Broken, Invariant, Verdict};
use crate::simulator::counts::Fault;
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::{Delivery, Item};
use crate::simulator::network::ConnId;
use crate::simulator::plan::Micros;

/// What nodes that do as they are told may take longer than they say: a frame is on its way while
/// its node does other things.
const TURN: Micros = 100_000;

/// A node forgives one part in so many of the time that passes: two clocks run apart by less.
const FORGIVEN_PART: Micros = 1000;

/// For how long the time of each event has stood still.
#[derive(Debug, Default)]
pub struct Rule {
    /// By connection and receiver.
    ways: HashMap<(ConnId, usize), Way>,
    /// Of what came from a peer to a node, on the worst of its ways.
    stood_still: HashMap<(usize, Identity), Micros>,
}

/// One direction of a connection between nodes.
#[derive(Debug, Default)]
struct Way {
    /// What is on it, in order.
    flying: VecDeque<Flying>,
    /// How long the fastest message took, and when that came.
    fastest: Option<(Micros, Micros)>,
}

#[derive(Debug)]
struct Flying {
    identity: Identity,
    sent_at: Micros,
    /// For how long the time of the message had stood still before.
    before: Micros,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        if view.plan.has_wrong_clocks() || view.plan.mean(Fault::Lie).is_some() {
            return Ok(());
        }
        match fact {
            Fact::Transmitted { site, conn, to: Party::Node(to), item: Item::Message(message) } => {
                let identity = message.identity();
                let before = self.stood_still(*site, identity.clone());
                let way = self.ways.entry((*conn, *to)).or_default();
                way.flying.push_back(Flying { identity, sent_at: view.now, before });
            }
            Fact::HeardFromPeer { site, conn, items } => {
                for item in *items {
                    if let Item::Message(message) = item {
                        self.came(*site, *conn, message, view.now);
                    }
                }
            }
            Fact::Transmitted { site, to: Party::App(app), item: Item::Delivery(it), .. } => {
                return self.handed_over(*site, *app, it, view);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Rule {
    fn stood_still(&self, site: usize, identity: Identity) -> Micros {
        self.stood_still.get(&(site, identity)).copied().unwrap_or_default()
    }

    fn came(&mut self, site: usize, conn: ConnId, message: &Message, now: Micros) {
        let (way, identity) = (self.ways.entry((conn, site)).or_default(), message.identity());
        // A frame that was altered on its way is not heard.
        let Some(place) = way.flying.iter().position(|it| it.identity == identity) else { return };
        let Some(Flying { sent_at, before, .. }) = way.flying.drain(..=place).next_back() else {
            return;
        };
        let took = now - sent_at;
        let fastest = way.fastest.filter(|(fastest, _)| *fastest < took).unwrap_or((took, now));
        way.fastest = Some(fastest);
        let still = before + fastest.0 + (now - fastest.1) / FORGIVEN_PART + TURN;
        let worst = self.stood_still.entry((site, identity)).or_default();
        *worst = still.max(*worst);
    }

    fn handed_over(&self, site: usize, app: usize, it: &Delivery, view: &View<'_>) -> Verdict {
        let row = view.ledger.places[site].rows.get(&it.delivery);
        let Some((number, row)) = row else { return Ok(()) };
        let again = row.only.is_some() || view.ledger.offered_again.contains(number);
        let slack = self.stood_still(site, row.message.identity()) + TURN;
        if again || !view.ledger.is_surely_over(*number, slack) {
            return Ok(());
        }
        let (id, node, name) = (&it.id, &view.names[site], view.apps[app].name());
        let what = format!("{node} hands {id} to {name} after its time is over");
        Err(Broken::new(what, &[id, node, &name]))
    }
}
