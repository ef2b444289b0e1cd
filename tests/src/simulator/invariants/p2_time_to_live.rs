//! P2: no application is handed an event after its time to live, whatever the clocks of the nodes
//! on its way say, unless an operator has it handed over again. That none is given up before is
//! what `p2_undelivered`, `p2_custody` and `p2_nothing_lost` see to.
//!
//! On each link its time stands still for as long as the fastest frame is on its way: nobody can
//! tell that from a clock that is behind.

use super::{Broken, Invariant, Verdict};
use crate::simulator::counts::Fault;
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::Item;
use crate::simulator::plan::{Micros, Plan};

/// What nodes that do as they are told may take longer than they say: a frame is on its way while
/// its node does other things.
const TURN: Micros = 100_000;

/// Nothing to remember.
#[derive(Debug, Default)]
pub struct Rule;

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        let Fact::Transmitted { site, to: Party::App(app), item: Item::Delivery(delivery), .. } =
            fact
        else {
            return Ok(());
        };
        if view.plan.has_wrong_clocks() || view.plan.mean(Fault::Lie).is_some() {
            return Ok(());
        }
        let row = view.ledger.places[*site].rows.get(&delivery.delivery);
        let Some((number, row)) = row else { return Ok(()) };
        let again = row.only.is_some() || view.ledger.offered_again.contains(number);
        if again || !view.ledger.is_surely_over(*number, slack(view.plan, row.message.path())) {
            return Ok(());
        }
        let (id, node, name) = (&delivery.id, &view.names[*site], view.apps[*app].name());
        let what = format!("{node} hands {id} to {name} after its time is over");
        Err(Broken::new(what, &[id, node, &name]))
    }
}

/// How much later than its time an event may be handed over that took this path. A node that has
/// lost what it published cuts the path of what comes back: it may have been at every other node.
fn slack(plan: &Plan, path: &str) -> Micros {
    let cut = [Fault::Wipe, Fault::Restore].into_iter().any(|fault| plan.mean(fault).is_some());
    let hops = path.split(',').count() as u64 - 1 + if cut { plan.nodes as u64 } else { 0 };
    let stalls = [Fault::Stall, Fault::Clog, Fault::Freeze];
    let stalls = stalls.into_iter().any(|fault| plan.mean(fault).is_some());
    // A way that is stalled may be stalled anew before anything moves on it.
    let stalled = if stalls { 3 * plan.fault_length } else { 0 };
    TURN + hops * (plan.latency.1 + stalled + TURN)
}
