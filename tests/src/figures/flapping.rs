//! What a link that comes and goes costs a mesh: sessions that are set back, offers, and bytes.

use super::counts::Crossings;
use super::lab::Lab;
use super::shape::Shape;
use super::traffic::Traffic;
use super::{Figure, NEVER};
use crate::simulator::{Micros, SECOND};

/// Messages a second, published by all nodes in turn; half of them are for one node only, for only
/// those set sessions back.
const RATE: u64 = 200;
/// How often the link is lost. Records of nodes change once a second at most: a little more than
/// that meets every phase of it.
const PERIOD: Micros = 1_100_000;
/// How often a session may be set back in a second.
const MAX_REWINDS: f64 = 1.0;
/// Bytes over those of the same mesh without failures.
const MAX_BYTES: f64 = 2.0;
/// Offers of the second half over those of the first one: a session that is set back must not offer
/// the whole log again and again.
const MAX_GROWTH: f64 = 1.2;
/// How long what was published may take to be everywhere.
const PATIENCE: Micros = 10 * SECOND;

/// Loses the connection on this link so many times, about once a second, and then as often again.
pub fn flapping(shape: &Shape, link: usize, times: u64) -> [Figure; 3] {
    let mut lab = Lab::new(shape);
    let traffic = Traffic { targeted: true, ..Traffic::of(shape.nodes, shape.nodes, RATE) };
    lab.begin(traffic);
    lab.run(SECOND);
    let usual = crossed_in(&mut lab, times, |_| {});
    let (began, before) = (lab.now, lab.rewinds());
    let first = crossed_in(&mut lab, times, |lab| lab.lose(link));
    let second = crossed_in(&mut lab, times, |lab| lab.lose(link));
    let rewinds = (lab.rewinds() - before) as f64;
    let seconds = (lab.now - began) as f64 / SECOND as f64;
    lab.stop();
    let arrived = lab.finish(PATIENCE);

    let (a, b) = shape.links[link];
    let figure = |what, measured: f64, bound, unit| Figure {
        what,
        mesh: shape.name.clone(),
        measured: if arrived { measured } else { NEVER },
        bound,
        unit,
        at: format!("link {a}-{b}"),
    };
    let over = |part: u64, whole: u64| part as f64 / whole as f64;
    let bytes = over(first.bytes().max(second.bytes()), usual.bytes());
    let growth = over(second.offers, first.offers);
    // Each end of a link has a session for the other one.
    let rewinds = rewinds / seconds / (2 * shape.links.len()) as f64;
    [
        figure("rewinds while a link flaps", rewinds, MAX_REWINDS, "a second and session"),
        figure("bytes while a link flaps", bytes, MAX_BYTES, "of the usual"),
        figure("offers while a link flaps", growth, MAX_GROWTH, "of those before"),
    ]
}

/// What crosses links in so many periods, at the beginning of each of which something happens.
fn crossed_in(lab: &mut Lab, times: u64, happen: impl Fn(&mut Lab)) -> Crossings {
    let before = lab.crossings;
    for _ in 0..times {
        happen(lab);
        lab.run(PERIOD);
    }
    lab.crossings.since(&before)
}
