//! Promises, as checks over what subscribers were handed.

use std::collections::{HashMap, HashSet};

use super::Delivery;

/// P3: each of `expected` once, and nothing else; also no marked repetition.
///
/// # Panics
/// If that is not so; the message names the first few.
pub fn each_exactly_once<'a>(
    who: &str,
    deliveries: &[Delivery],
    expected: impl IntoIterator<Item = &'a str>,
) {
    let mut counts: HashMap<&str, usize> = expected.into_iter().map(|id| (id, 0)).collect();
    let mut strangers = Vec::new();
    for delivery in deliveries {
        match counts.get_mut(delivery.id.as_str()) {
            Some(count) => *count += 1,
            None => strangers.push(delivery),
        }
    }
    let missing: Vec<_> = counts.iter().filter(|(_, count)| **count == 0).collect();
    let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        missing.is_empty() && repeated.is_empty() && strangers.is_empty(),
        "{who}: {} missing {:?}, {} repeated {:?}, {} that nobody published {:?}",
        missing.len(),
        &missing[..missing.len().min(5)],
        repeated.len(),
        &repeated[..repeated.len().min(5)],
        strangers.len(),
        &strangers[..strangers.len().min(5)],
    );
}

/// P3 for a subscriber whose node died meanwhile: each of `expected` at least once, and at most
/// once without a mark.
///
/// # Panics
/// If that is not so.
pub fn never_twice_unmarked<'a>(
    who: &str,
    deliveries: &[Delivery],
    expected: impl IntoIterator<Item = &'a str>,
) {
    let mut unmarked = HashSet::new();
    let mut seen = HashSet::new();
    for delivery in deliveries {
        seen.insert(delivery.id.as_str());
        let first = delivery.redelivery > 0 || unmarked.insert(delivery.id.as_str());
        assert!(first, "{who}: {} came twice without a mark: {delivery:?}", delivery.id);
    }
    let missing: Vec<_> = expected.into_iter().filter(|id| !seen.contains(id)).collect();
    let few = &missing[..missing.len().min(5)];
    assert!(missing.is_empty(), "{who}: {} missing, {few:?}", missing.len());
}

/// P4: no path repeats a node, and each ends with the node that handed the message over.
///
/// # Panics
/// If one does not.
pub fn paths_are_sound(deliveries: &[Delivery], node: &str) {
    for delivery in deliveries {
        let distinct: HashSet<_> = delivery.path.iter().collect();
        assert_eq!(distinct.len(), delivery.path.len(), "a node twice: {delivery:?}");
        assert_eq!(delivery.path.last().map(String::as_str), Some(node), "{delivery:?}");
    }
}

/// Values by `messageId`.
pub fn values_by_id(deliveries: &[Delivery]) -> HashMap<&str, &str> {
    deliveries.iter().map(|one| (one.id.as_str(), &*one.value)).collect()
}
