//! What a link that comes and goes costs a mesh: sessions that are set back, and bytes.

use super::lab::Lab;
use super::shape::Shape;
use super::traffic::Traffic;
use super::{Figure, NEVER};
use crate::simulator::{Micros, SECOND};

/// Messages a second, published by all nodes in turn; half of them are for one node only, for only
/// those set sessions back.
const RATE: u64 = 200;
/// How often a session may be set back in a second.
const MAX_REWINDS: f64 = 1.0;
/// Bytes a second over those of the same mesh without failures.
const MAX_BYTES: f64 = 2.0;
/// Bytes of the second half over those of the first one: what they cost must not grow with the log.
const MAX_GROWTH: f64 = 1.1;
/// How long what was published may take to be everywhere.
const PATIENCE: Micros = 10 * SECOND;

/// Loses the connection on this link each second, for so many seconds, twice.
pub fn flapping(shape: &Shape, link: usize, seconds: u64) -> [Figure; 3] {
    let mut lab = Lab::new(shape);
    let traffic = Traffic { targeted: true, ..Traffic::of(shape.nodes, shape.nodes, RATE) };
    lab.begin(traffic);
    lab.run(SECOND);
    let usual = bytes_of(&mut lab, seconds, |_| {});
    let before = lab.rewinds();
    let first = bytes_of(&mut lab, seconds, |lab| lab.lose(link));
    let second = bytes_of(&mut lab, seconds, |lab| lab.lose(link));
    let rewinds = lab.rewinds() - before;
    lab.stop();
    let arrived = lab.finish(PATIENCE);

    let sessions = 2 * shape.links.len();
    let rewinds = rewinds as f64 / (2 * seconds) as f64 / sessions as f64;
    let (a, b) = shape.links[link];
    let figure = |what, measured: f64, bound, unit| Figure {
        what,
        mesh: shape.name.clone(),
        measured: if arrived { measured } else { NEVER },
        bound,
        unit,
        at: format!("link {a}-{b}"),
    };
    [
        figure("rewinds while a link flaps", rewinds, MAX_REWINDS, "a second and session"),
        figure("bytes while a link flaps", first.max(second) / usual, MAX_BYTES, "of the usual"),
        figure("growth of these bytes", second / first, MAX_GROWTH, "of the first half"),
    ]
}

/// Bytes that cross links in so many seconds, at the beginning of each of which something happens.
fn bytes_of(lab: &mut Lab, seconds: u64, happen: impl Fn(&mut Lab)) -> f64 {
    let before = lab.crossings;
    for _ in 0..seconds {
        happen(lab);
        lab.run(SECOND);
    }
    lab.crossings.since(&before).bytes() as f64
}
