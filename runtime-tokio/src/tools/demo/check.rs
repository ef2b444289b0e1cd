//! Whether what arrived is what was promised: no sockets, no waiting, only what was published
//! and what each destination was handed.
//!
//! Each destination gets each message that targets it once, and nothing else (P3, P5); again only
//! if it is marked as a redelivery. A value may be left out where a newer one of its key has
//! taken its place, and no key ever goes back (P6). Values, tags and versions are those of the
//! receipts (P1, P2), and no path repeats a node (P4).

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Serialize;
use slipstream_core::tags;

use super::traffic::{DemoSample, NODES};

/// What was published at one node, and the receipts so far, in the same order.
pub(super) struct Published<'a> {
    pub(super) node: &'static str,
    pub(super) samples: &'a [DemoSample],
    pub(super) receipts: &'a [CheckedReceipt],
}

/// A node's word that a message is in its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckedReceipt {
    pub(super) version: String,
    /// It was synced to disk.
    pub(super) durable: bool,
}

/// All that the subscriber at one node was handed, in order.
pub(super) struct Arrived<'a> {
    pub(super) node: &'static str,
    pub(super) deliveries: &'a [Taken],
}

/// One delivery.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) tags: String,
    pub(super) origin: String,
    pub(super) path: String,
    pub(super) version: String,
    pub(super) redelivery: u32,
}

/// From one node to one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct CheckedCell {
    /// Different messages that arrived.
    pub(super) arrived: usize,
    /// Messages that target it, without those that a newer value overtook.
    pub(super) expected: usize,
}

/// What came of it all.
#[derive(Debug, Default)]
pub(super) struct CheckVerdict {
    /// By node of origin, then by destination, in the order of what was examined.
    pub(super) cells: Vec<Vec<CheckedCell>>,
    /// Receipts given.
    pub(super) receipts: usize,
    /// Receipts whose message is wherever it should be.
    pub(super) honoured: usize,
    /// Deliveries that were marked as repeated.
    pub(super) redeliveries: usize,
    /// Values that were not handed over because a newer one of their key was.
    pub(super) overtaken: usize,
    /// Messages still to arrive, over all destinations.
    pub(super) outstanding: usize,
    /// What the site that joined late has.
    pub(super) late: Late,
    /// What does not hold.
    pub(super) failures: Vec<CheckFailure>,
}

/// A message with which something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CheckFailure {
    /// Its `messageId`.
    pub(super) id: String,
    /// Where; a node that published or a node that handed over.
    pub(super) node: String,
    /// What is wrong.
    pub(super) what: String,
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.id, self.node, self.what)
    }
}

/// What the site that joined late was brought up to date with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Late {
    /// Keys that target it.
    pub(super) keys: usize,
    /// Those of which it was handed the newest value.
    pub(super) current: usize,
    /// What does not hold.
    pub(super) failures: Vec<CheckFailure>,
}

impl Late {
    /// Whether nothing is missing.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.current == self.keys
    }
}

/// Compares the newest values that were published with what the late site was handed (P7).
pub(super) fn check_late(published: &[Published<'_>], arrived: &Arrived<'_>) -> Late {
    let mut newest = HashMap::<(&str, &str), (&str, &str)>::new();
    for published in published {
        let receipts = published.samples.iter().zip(published.receipts);
        for (sample, receipt) in receipts.filter(|(sample, _)| sample.targets(arrived.node)) {
            let version = receipt.version.as_str();
            let entry = newest.entry((&sample.key, sample.tags)).or_insert((version, &sample.id));
            if version > entry.0 {
                *entry = (version, &sample.id);
            }
        }
    }
    let mut last = HashMap::<(&str, &str), &str>::new();
    let mut ids = HashSet::new();
    let mut late = Late { keys: newest.len(), ..Late::default() };
    let mut fail = |id: &str, what: String| {
        late.failures.push(CheckFailure { id: id.into(), node: arrived.node.into(), what });
    };
    for taken in arrived.deliveries {
        last.insert((&taken.key, &taken.tags), &taken.id);
        if taken.redelivery == 0 && !ids.insert(&taken.id) {
            fail(&taken.id, "came again without a mark".into());
        }
    }
    for (place, (_, id)) in &newest {
        match last.get(place) {
            Some(last) if last == id => late.current += 1,
            Some(last) => fail(id, format!("is the newest of {}, and {last} came last", place.0)),
            None => fail(id, format!("did not arrive; it is the newest of {}", place.0)),
        }
    }
    late
}

/// A message with what is known of it.
struct CheckedKeys<'a> {
    from: usize,
    sample: &'a DemoSample,
    receipt: Option<&'a CheckedReceipt>,
}

/// Compares what was published with what arrived.
pub(super) fn check(published: &[Published<'_>], arrived: &[Arrived<'_>]) -> CheckVerdict {
    let mut verdict = CheckVerdict {
        cells: vec![vec![CheckedCell::default(); arrived.len()]; published.len()],
        ..CheckVerdict::default()
    };
    let mut known = HashMap::new();
    for (from, published) in published.iter().enumerate() {
        let receipts = published.receipts.iter().map(Some).chain(std::iter::repeat(None));
        for (sample, receipt) in published.samples.iter().zip(receipts) {
            verdict.receipt(published.node, sample, receipt);
            known.insert(sample.id.as_str(), CheckedKeys { from, sample, receipt });
        }
    }
    let mut missing = HashSet::new();
    for (to, arrived) in arrived.iter().enumerate() {
        examine(&mut verdict, &known, to, arrived, &mut missing);
    }
    verdict.honoured = verdict.receipts - missing.len();
    verdict
}

impl CheckVerdict {
    /// Adds what came of the site that joined late.
    pub(super) fn take_late(&mut self, late: Late) {
        self.failures.extend(late.failures.iter().cloned());
        self.late = late;
    }

    fn receipt(&mut self, node: &str, sample: &DemoSample, receipt: Option<&CheckedReceipt>) {
        let Some(receipt) = receipt else {
            return self.fail(&sample.id, node, "has no receipt".into());
        };
        self.receipts += 1;
        if !receipt.durable {
            self.fail(&sample.id, node, "its receipt does not stand for a sync to disk".into());
        }
    }

    fn fail(&mut self, id: &str, node: &str, what: String) {
        self.failures.push(CheckFailure { id: id.into(), node: node.into(), what });
    }
}

/// Judges all that one destination was handed, and what it was not handed.
fn examine<'a>(
    verdict: &mut CheckVerdict,
    known: &HashMap<&'a str, CheckedKeys<'a>>,
    to: usize,
    Arrived { node, deliveries }: &Arrived<'_>,
    missing: &mut HashSet<&'a str>,
) {
    let mut times = HashMap::<&str, usize>::new();
    let mut newest = HashMap::<(&str, &str), &str>::new();
    for taken in *deliveries {
        let unmarked = times.entry(&taken.id).or_default();
        *unmarked += usize::from(taken.redelivery == 0);
        verdict.redeliveries += usize::from(taken.redelivery > 0);
        if *unmarked > 1 && taken.redelivery == 0 {
            verdict.fail(&taken.id, node, "came again without a mark".into());
        }
        if let Err(what) = fault(taken, node, known.get(taken.id.as_str())) {
            verdict.fail(&taken.id, node, what);
        }
        let newest = newest.entry((&taken.key, &taken.tags)).or_insert(&taken.version);
        if taken.version.as_str() < *newest {
            let what = format!("{} went back from {newest} to {}", taken.key, taken.version);
            verdict.fail(&taken.id, node, what);
        } else {
            *newest = &taken.version;
        }
    }
    for (id, known) in known.iter().filter(|(_, known)| known.sample.targets(node)) {
        let newest = newest.get(&(known.sample.key.as_str(), known.sample.tags));
        let overtaken = match (newest, known.receipt) {
            (Some(newest), Some(receipt)) => *newest > receipt.version.as_str(),
            (None, _) | (_, None) => false,
        };
        let cell = &mut verdict.cells[known.from][to];
        if times.contains_key(id) {
            cell.arrived += 1;
            cell.expected += 1;
        } else if overtaken {
            verdict.overtaken += 1;
        } else {
            cell.expected += 1;
            verdict.outstanding += 1;
            if known.receipt.is_some() {
                missing.insert(id);
            }
            verdict.fail(id, node, format!("did not arrive; its key is {}", known.sample.key));
        }
    }
}

/// What is wrong with one delivery by itself.
fn fault(taken: &Taken, node: &str, known: Option<&CheckedKeys<'_>>) -> Result<(), String> {
    let Some(CheckedKeys { from, sample, receipt }) = known else {
        return Err("nobody published it".into());
    };
    if !sample.targets(node) {
        return Err(format!("is not meant for {node} but for {}", sample.tags));
    }
    let version = receipt.map_or("", |receipt| &receipt.version);
    for (what, came, sent) in [
        ("type", taken.kind.as_str(), sample.kind.as_str()),
        ("key", &taken.key, &sample.key),
        ("value", &taken.value, &sample.value),
        ("target tags", &taken.tags, sample.tags),
        ("origin", &taken.origin, NODES[*from]),
        ("version", &taken.version, version),
    ] {
        if came != sent {
            return Err(format!("its {what} arrived as {came} instead of {sent}"));
        }
    }
    let path: Vec<_> = tags::list(&taken.path).collect();
    let distinct: HashSet<_> = path.iter().collect();
    if distinct.len() != path.len() {
        return Err(format!("its path {} has a node twice", taken.path));
    }
    if path.first() != Some(&NODES[*from]) || path.last() != Some(&node) {
        return Err(format!("its path {} does not lead from its origin to {node}", taken.path));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
