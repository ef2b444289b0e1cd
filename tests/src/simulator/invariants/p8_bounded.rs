//! P8: what a link may carry is bounded: bytes that the socket has not taken, and deliveries that
//! the application has not acknowledged.

use hashbrown::{HashMap, HashSet};

use super::{Broken, Invariant, Verdict};
use crate::simulator::application::{Consumer, Said};
use crate::simulator::facts::{APPLICATION_CREDIT, Fact, Party, View};
use crate::simulator::frames::Item;

/// Cost that a peer's link may have in flight.
const PEER_CREDIT: usize = 2 << 20;
/// Answers, acknowledgements and pings need no credit, and a frame may be begun under it.
const SLACK: usize = 192 << 10;

/// Deliveries that each application has open, and how often each was handed over.
#[derive(Debug, Default)]
pub struct Rule {
    open: HashMap<usize, HashMap<u64, u32>>,
    acknowledged: HashMap<usize, HashSet<u64>>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::InFlight { site, to, cost, last } => {
                let credit = match to {
                    Party::App(_) => APPLICATION_CREDIT,
                    Party::Node(_) | Party::Liar => PEER_CREDIT,
                };
                if *cost > credit + last + SLACK {
                    let node = &view.names[*site];
                    let what = format!("{node} has {cost} bytes in flight, to {to:?}");
                    return Err(Broken::new(what, &[node]));
                }
            }
            Fact::AppConnected { app } => {
                self.open.remove(app);
                self.acknowledged.remove(app);
            }
            Fact::AppSaid { app, said } => match said {
                Said::Ack { delivery, upto: false } => {
                    self.open.entry(*app).or_default().remove(delivery);
                    self.acknowledged.entry(*app).or_default().insert(*delivery);
                }
                Said::Ack { delivery, upto: true } => {
                    let open = self.open.entry(*app).or_default();
                    let done = open.keys().filter(|open| *open <= delivery).chain([delivery]);
                    self.acknowledged.entry(*app).or_default().extend(done.copied());
                    open.retain(|open, _| open > delivery);
                }
                Said::Connect
                | Said::Publish(_)
                | Said::Read { .. }
                | Said::Odd(_)
                | Said::Nack { .. } => {}
            },
            Fact::Transmitted {
                conn, to: Party::App(app), item: Item::Delivery(delivery), ..
            } if view.apps[*app].link == Some(*conn) => {
                return self.handed(*app, (delivery.delivery, delivery.redelivery), view);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Rule {
    fn handed(
        &mut self,
        index: usize,
        (delivery, redelivery): (u64, u32),
        view: &View<'_>,
    ) -> Verdict {
        let app = &view.apps[index];
        let steady = matches!(app.consumer, Consumer::Prompt | Consumer::Slow(_));
        // What dies or is superseded leaves the window without a word.
        // So does what an unnamed application may not be handed again.
        if !app.manual || !steady || app.client.is_none() {
            return Ok(());
        }
        // A repeat may cross the ACK on its way.
        if self.acknowledged.get(&index).is_some_and(|done| done.contains(&delivery)) {
            return Ok(());
        }
        let open = self.open.entry(index).or_default();
        // What earlier connections were handed counts, too: a dead letter leaves the window.
        let handed = open.entry(delivery).or_default();
        *handed = (*handed + 1).max(redelivery + 1);
        let window = view.plan.settings.window;
        if open.len() <= window {
            return Ok(());
        }
        let place = &view.ledger.places[app.site];
        if !place.dead.is_empty() {
            return Ok(());
        }
        let attempts = view.plan.settings.max_attempts;
        let holds = |(delivery, handed): &(&u64, &u32)| {
            **handed < attempts
                && place.rows.get(delivery).is_some_and(|(number, row)| {
                    !view.is_outdone(index, *number)
                        && !view.ledger.is_expired(app.site, *number)
                        && row.only.is_none()
                })
        };
        let held = open.iter().filter(holds).count();
        if held <= window {
            return Ok(());
        }
        let name = app.name();
        let what = format!("{name} has {held} deliveries open, its window is {window}");
        Err(Broken::new(what, &[&name]))
    }
}
