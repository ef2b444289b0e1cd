//! What a failure costs: how late messages are when a link or node is killed or a link stalls.

use super::counts::Arrival;
use super::lab::{COMMIT, HOP, Lab};
use super::shape::Shape;
use super::traffic::Traffic;
use super::{Figure, NEVER};
use crate::simulator::{Micros, SECOND};

/// Messages a second, published by all nodes in turn: each link is in the tree of some of them.
const RATE: u64 = 400;
/// A round trip of a link.
const ROUND_TRIP: Micros = 2 * HOP;
/// How late a message may be that is accepted after something was killed, counted from when it was
/// accepted or from when the failure was noticed, whichever is later.
const MAX_DELAY: Micros = SECOND / 2 + ROUND_TRIP;
/// How long a message may wait because a link stalls: the offer delay, once.
const MAX_WAIT: Micros = SECOND / 10;
/// What a link of the way costs at most: an offer, the round trip in which the message is asked
/// for, its commit, and some turns.
const STEP: Micros = HOP + ROUND_TRIP + COMMIT + 500;
/// How long what was published may take to be everywhere.
const PATIENCE: Micros = 10 * SECOND;

/// How late messages are when any one of the links that can be spared is killed.
pub fn killed_links(shape: &Shape) -> Figure {
    let runs = shape.spare_links().into_iter().map(|link| {
        let (a, b) = shape.links[link];
        (after_a_kill(shape, |lab| lab.cut(link)), format!("link {a}-{b}"))
    });
    worst("delay after a link is killed", shape, runs, MAX_DELAY)
}

/// How late messages are when any one of the nodes that can be spared is killed.
pub fn killed_nodes(shape: &Shape) -> Figure {
    let runs = shape
        .spare_nodes()
        .into_iter()
        .map(|node| (after_a_kill(shape, |lab| lab.kill(node)), format!("node {node}")));
    worst("delay after a node is killed", shape, runs, MAX_DELAY)
}

/// How long messages wait when any one of the links that can be spared stalls, beyond the time in
/// which they travel; and how much later than usual they are for both.
pub fn stalled_links(shape: &Shape) -> [Figure; 2] {
    let runs: Vec<_> =
        shape.spare_links().into_iter().map(|link| during_a_stall(shape, link)).collect();
    let each = |which: fn(&Stall) -> Micros| {
        let links = shape.spare_links().into_iter().map(|link| shape.links[link]);
        let delays = runs.iter().map(move |run| run.as_ref().map(which));
        delays.zip(links.map(|(a, b)| format!("link {a}-{b}")))
    };
    [
        worst("wait while a link stalls", shape, each(|run| run.wait), MAX_WAIT),
        worst("delay while a link stalls", shape, each(|run| run.delay), MAX_DELAY),
    ]
}

fn worst(
    what: &'static str,
    shape: &Shape,
    runs: impl Iterator<Item = (Option<Micros>, String)>,
    bound: Micros,
) -> Figure {
    let millis = |time: Micros| time as f64 / 1e3;
    let runs = runs.map(|(delay, at)| (delay.map_or(NEVER, millis), at));
    let (measured, at) = runs
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .unwrap_or((NEVER, "nothing can be spared".into()));
    Figure { what, mesh: shape.name.clone(), measured, bound: millis(bound), unit: "ms", at }
}

/// The longest delay of what is accepted from the kill on; `None`: something never arrived.
fn after_a_kill(shape: &Shape, kill: impl FnOnce(&mut Lab)) -> Option<Micros> {
    let mut lab = Lab::new(shape);
    lab.begin(Traffic::of(shape.nodes, shape.nodes, RATE));
    lab.run(SECOND / 2);
    let killed = lab.now;
    kill(&mut lab);
    lab.run(SECOND);
    lab.stop();
    if !lab.finish(PATIENCE) {
        return None;
    }
    let noticed = lab.noticed;
    let late = delays(&lab, killed, lab.now)
        .map(|one| one.durable - one.accepted.max(noticed).min(one.durable));
    late.max()
}

/// What a link that stalls costs.
struct Stall {
    /// The longest delay beyond what the links of the way took.
    wait: Micros,
    /// The longest delay beyond the usual one between the same two nodes.
    delay: Micros,
}

/// `None`: something never arrived.
fn during_a_stall(shape: &Shape, link: usize) -> Option<Stall> {
    let mut lab = Lab::new(shape);
    lab.begin(Traffic::of(shape.nodes, shape.nodes, RATE));
    lab.run(SECOND);
    let stalled = lab.now;
    lab.stall(link);
    lab.run(SECOND);
    let flows = lab.now;
    lab.flow(link);
    lab.stop();
    if !lab.finish(PATIENCE) {
        return None;
    }
    let mut usual = vec![vec![0; shape.nodes]; shape.nodes];
    for one in delays(&lab, 0, stalled - SECOND / 2) {
        let known = &mut usual[one.from][one.to];
        *known = one.delay().max(*known);
    }
    // What is accepted last would be late by less, because the link flows again.
    let late = || delays(&lab, stalled, flows - SECOND / 2);
    let wait = late().map(|one| one.delay().saturating_sub(one.links * STEP)).max()?;
    let delay = late().map(|one| one.delay().saturating_sub(usual[one.from][one.to])).max()?;
    Some(Stall { wait, delay })
}

/// A message on its way from its origin to another node.
struct Way {
    from: usize,
    to: usize,
    accepted: Micros,
    durable: Micros,
    links: u64,
}

impl Way {
    fn delay(&self) -> Micros {
        self.durable - self.accepted
    }
}

/// The ways of what was accepted between two times, to nodes that live.
fn delays(lab: &Lab, first: Micros, last: Micros) -> impl Iterator<Item = Way> + '_ {
    lab.letters.iter().flat_map(move |letter| {
        let accepted = letter.accepted().filter(|at| (first..last).contains(at));
        let living = lab.living().filter(|node| letter.is_for(*node));
        living.filter_map(move |to| {
            let (accepted, Arrival { at: durable, links }) = (accepted?, letter.durable[to]?);
            Some(Way { from: letter.origin, to, accepted, durable, links })
        })
    })
}
