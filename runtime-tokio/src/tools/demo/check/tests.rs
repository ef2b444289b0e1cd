//! The checker fails on every kind of fault, and only then.

use super::*;
use crate::tools::demo::traffic::samples;

const EACH: usize = 100;

/// All that happens in a mesh without faults.
struct World {
    samples: Vec<std::sync::Arc<[DemoSample]>>,
    receipts: Vec<Vec<CheckedReceipt>>,
    deliveries: Vec<Vec<Taken>>,
}

impl World {
    fn new() -> Self {
        let samples: Vec<_> = NODES.iter().map(|node| samples(node, EACH)).collect();
        let receipts = (0..NODES.len())
            .map(|from| {
                let version = |number: usize| format!("{number:06}-{}", NODES[from]);
                (0..EACH)
                    .map(|number| CheckedReceipt { version: version(number), durable: true })
                    .collect()
            })
            .collect();
        let mut world = Self { samples, receipts, deliveries: Vec::new() };
        world.deliveries = NODES.iter().map(|node| world.all_for(node)).collect();
        world
    }

    /// In the order of versions.
    fn all_for(&self, node: &str) -> Vec<Taken> {
        let all = (0..EACH).flat_map(|number| (0..NODES.len()).map(move |from| (number, from)));
        all.filter(|(number, from)| self.samples[*from][*number].targets(node))
            .map(|(number, from)| {
                let sample = &self.samples[from][number];
                let origin = NODES[from];
                Taken {
                    id: sample.id.clone(),
                    kind: sample.kind.as_str().into(),
                    key: sample.key.clone(),
                    value: sample.value.clone(),
                    tags: sample.tags.into(),
                    origin: origin.into(),
                    path: if origin == node { node.into() } else { format!("{origin},{node}") },
                    version: self.receipts[from][number].version.clone(),
                    redelivery: 0,
                }
            })
            .collect()
    }

    fn published(&self) -> Vec<Published<'_>> {
        let published = (0..NODES.len()).map(|at| Published {
            node: NODES[at],
            samples: &self.samples[at],
            receipts: &self.receipts[at],
        });
        published.collect()
    }

    fn check(&self) -> CheckVerdict {
        let published = self.published();
        let arrived: Vec<_> = (0..NODES.len())
            .map(|at| Arrived { node: NODES[at], deliveries: &self.deliveries[at] })
            .collect();
        check(&published, &arrived)
    }

    /// Where in what azure was handed a message stands.
    fn at_azure(&self, id: &str) -> usize {
        self.deliveries[1].iter().position(|taken| taken.id == id).unwrap()
    }
}

/// The only failure.
fn only(verdict: &CheckVerdict) -> &CheckFailure {
    assert_eq!(verdict.failures.len(), 1, "{:?}", verdict.failures);
    &verdict.failures[0]
}

/// A message without tags and with a key of its own.
const ONE: &str = "aws-000002";

#[test]
fn a_world_without_faults_passes() {
    let verdict = World::new().check();
    assert_eq!(verdict.failures, []);
    assert_eq!((verdict.receipts, verdict.honoured), (3 * EACH, 3 * EACH));
    assert_eq!(verdict.outstanding, 0);
    let targeting = samples("aws", EACH).iter().filter(|sample| sample.targets("azure")).count();
    assert_eq!(verdict.cells[0][1], CheckedCell { arrived: targeting, expected: targeting });
}

#[test]
fn a_missing_message_fails() {
    let mut world = World::new();
    let at = world.at_azure(ONE);
    world.deliveries[1].remove(at);
    let verdict = world.check();
    let failure = only(&verdict);
    assert_eq!((failure.id.as_str(), failure.node.as_str()), (ONE, "azure"));
    assert!(failure.what.contains("did not arrive"));
    assert_eq!((verdict.outstanding, verdict.honoured), (1, 3 * EACH - 1));
    assert_eq!(verdict.cells[0][1].arrived + 1, verdict.cells[0][1].expected);
}

#[test]
fn a_doubled_message_fails_unless_it_is_marked() {
    let mut world = World::new();
    let mut again = world.deliveries[1][world.at_azure(ONE)].clone();
    world.deliveries[1].push(again.clone());
    assert!(only(&world.check()).what.contains("again"));

    world.deliveries[1].pop();
    again.redelivery = 1;
    world.deliveries[1].push(again);
    let verdict = world.check();
    assert_eq!((verdict.failures.len(), verdict.redeliveries), (0, 1));
}

#[test]
fn an_altered_message_fails() {
    type Change = fn(&mut Taken);
    let changes: [(&str, Change); 5] = [
        ("value", |taken| taken.value = taken.value.replace(".20", ".2")),
        ("key", |taken| taken.key.push('x')),
        ("type", |taken| taken.kind = "CMD".into()),
        ("target tags", |taken| taken.tags = "azure".into()),
        ("version", |taken| taken.version.push('x')),
    ];
    for (what, change) in changes {
        let mut world = World::new();
        let at = world.at_azure(ONE);
        change(&mut world.deliveries[1][at]);
        let verdict = world.check();
        assert!(only(&verdict).what.starts_with(&format!("its {what} arrived")), "{verdict:?}");
    }
}

#[test]
fn a_misrouted_message_fails() {
    let mut world = World::new();
    let stray = world.deliveries[0].iter().find(|taken| taken.tags == "aws").unwrap().clone();
    world.deliveries[1].push(Taken { path: "aws,azure".into(), ..stray });
    assert!(only(&world.check()).what.contains("is not meant for azure"));
}

#[test]
fn a_message_that_nobody_published_fails() {
    let mut world = World::new();
    let stranger = world.deliveries[1][0].clone();
    let key = "another".into();
    world.deliveries[1].push(Taken { id: "stranger".into(), key, ..stranger });
    assert!(only(&world.check()).what.contains("nobody"));
}

#[test]
fn a_path_that_repeats_or_misses_a_node_fails() {
    for path in ["aws,gcp,aws,azure", "gcp,azure", "aws,gcp"] {
        let mut world = World::new();
        let at = world.at_azure(ONE);
        world.deliveries[1][at].path = path.into();
        assert!(only(&world.check()).what.contains(path));
    }
}

#[test]
fn a_value_may_be_overtaken_but_not_go_back() {
    let hot = "aws-000000";
    let mut world = World::new();
    let at = world.at_azure(hot);
    let old = world.deliveries[1].remove(at);
    let verdict = world.check();
    assert_eq!((verdict.failures.len(), verdict.overtaken, verdict.outstanding), (0, 1, 0));

    world.deliveries[1].push(old);
    assert!(only(&world.check()).what.contains("went back"));
}

#[test]
fn the_newest_value_of_a_key_may_not_be_left_out() {
    let mut world = World::new();
    let newest = world.deliveries[1].iter().rposition(|taken| taken.key == "rate:EUR/USD");
    let newest = world.deliveries[1].remove(newest.unwrap());
    assert_eq!(only(&world.check()).id, newest.id);
}

#[test]
fn a_message_without_a_durable_receipt_fails() {
    let mut world = World::new();
    world.receipts[0][2].durable = false;
    assert!(only(&world.check()).what.contains("sync"));
    let last = world.receipts[2].len() - 1;
    world.receipts[0][2].durable = true;
    world.receipts[2].truncate(last);
    let failures = world.check().failures;
    assert!(failures.iter().any(|failure| failure.what == "has no receipt"), "{failures:?}");
}

#[test]
fn a_late_site_has_the_newest_of_every_key_once() {
    let world = World::new();
    let all = world.all_for("oci");
    let is_newest = |taken: &&Taken| !all.iter().rev().any(|other| is_newer(other, taken));
    let current: Vec<Taken> = all.iter().filter(is_newest).cloned().collect();
    let late =
        |deliveries: &[Taken]| check_late(&world.published(), &Arrived { node: "oci", deliveries });
    let whole = late(&current);
    assert_eq!((whole.current, &*whole.failures), (current.len(), &[][..]));
    assert!(whole.is_up_to_date() && current.len() < all.len());

    let missing = late(&current[1..]);
    assert!(!missing.is_up_to_date());
    assert!(missing.failures[0].what.contains("did not arrive"), "{missing:?}");

    let twice = [&current[..], &current[..1]].concat();
    assert!(late(&twice).failures[0].what.contains("came again"));
}

fn is_newer(other: &Taken, taken: &Taken) -> bool {
    other.key == taken.key && other.version > taken.version
}
