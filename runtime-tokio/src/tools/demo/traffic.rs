//! What the demo publishes: messages like those of payment isolates, made from their numbers.
//!
//! Most have a key of their own, as SK or SA, with and without target tags. Every twentieth
//! writes one of a few keys that all nodes write at the same time.

use std::sync::Arc;

use slipstream_core::client::Publication;
use slipstream_core::message::Kind;
use slipstream_core::tags;

/// The nodes. Each has its id as its only tag.
pub(super) const NODES: [&str; 3] = ["aws", "azure", "gcp"];

/// The site that joins when all is over.
pub(super) const LATE: &str = "oci";

/// Every so many messages write a key that others write too.
const HOT_EVERY: usize = 20;

/// The keys that everybody writes. Nobody is targeted in particular.
const HOT_KEYS: [&str; 4] = ["rate:EUR/USD", "rate:GBP/USD", "rate:USD/JPY", "acquirer:default"];

/// Target tags, in turn; canonical.
const TAGS: [&str; 8] = ["", "aws", "", "azure", "azure,gcp", "gcp", "", "aws,azure"];

/// A message and what it should be when it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DemoSample {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) key: String,
    /// Target tags, comma-joined.
    pub(super) tags: &'static str,
    pub(super) value: String,
}

impl DemoSample {
    /// What is told to the node.
    pub(super) fn publication(&self) -> Publication {
        Publication::of_kind(self.kind, &*self.key, &*self.value)
            .with_id(&*self.id)
            .to(tags::list(self.tags))
    }

    /// Other nodes that the message must come to: the least that it can be sent, where each node
    /// is linked to each.
    pub(super) fn least_copies(&self, from: &str) -> u64 {
        NODES.iter().filter(|node| **node != from && self.targets(node)).count() as u64
    }

    /// Whether an application with the tags of this node is a destination.
    pub(super) fn targets(&self, node: &str) -> bool {
        self.tags.is_empty() || tags::list(self.tags).any(|tag| tag == node)
    }
}

/// The messages that are published at `node`, in order.
pub(super) fn samples(node: &str, count: usize) -> Arc<[DemoSample]> {
    (0..count).map(|number| sample(node, number)).collect()
}

fn sample(node: &str, number: usize) -> DemoSample {
    let id = format!("{node}-{number:06}");
    // Amounts as they are written: 12.50 must not arrive as 12.5.
    let amount = format!("{}.{:02}", number % 977, number % 10 * 10);
    let tags = TAGS[number % TAGS.len()];
    if number.is_multiple_of(HOT_EVERY) {
        let key = HOT_KEYS[number / HOT_EVERY % HOT_KEYS.len()].to_owned();
        let value = format!(r#"{{"value":1.{number:04}0,"by":"{node}","revision":{number}}}"#);
        return DemoSample { id, kind: Kind::Sk, key, tags: "", value };
    }
    if number % 3 == 2 {
        let key = format!("terminal:{node}-{number:06}:pending");
        let value = format!(r#"["order:{number}","order:{}",{amount}]"#, number + 1);
        return DemoSample { id, kind: Kind::Sa, key, tags, value };
    }
    let key = format!("payment:{node}-{number:06}");
    // Beyond what a double can tell apart.
    let reference = i64::MAX as u64 + number as u64;
    let value = format!(
        r#"{{"amount":{amount},"currency":"EUR","isolate":"{node}","reference":{reference}}}"#
    );
    DemoSample { id, kind: Kind::Sk, key, tags, value }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_least_copies_are_one_for_each_other_destination() {
        let least = |tags| DemoSample { tags, ..sample("aws", 1) }.least_copies("aws");
        assert_eq!(["", "aws", "azure", "aws,azure", "azure,gcp"].map(least), [2, 0, 1, 1, 2]);
    }

    #[test]
    fn messages_are_of_every_sort() {
        let samples = samples("aws", 400);
        let of = |kind, tagged: bool| {
            samples.iter().filter(|s| s.kind == kind && s.tags.is_empty() != tagged).count()
        };
        for kind in [Kind::Sk, Kind::Sa] {
            assert!(of(kind, true) > 10 && of(kind, false) > 10, "{kind:?}");
        }
        for node in NODES {
            assert!(samples.iter().any(|sample| !sample.targets(node)));
        }
        let keys: HashSet<_> = samples.iter().map(|sample| &sample.key).collect();
        assert_eq!(keys.len(), 400 - 400 / HOT_EVERY + HOT_KEYS.len());
        for sample in &*samples {
            assert!(serde_json::from_str::<serde_json::Value>(&sample.value).is_ok(), "{sample:?}");
        }
    }
}
