//! The nearest of some names to one that is unknown, for whoever mistyped it.

use alloc::vec::Vec;

/// The candidate that `name` is most likely meant to be. One that begins or ends like it, or is
/// its beginning or end, is as near as one that is two edits away.
pub(crate) fn nearest(
    name: &str,
    candidates: impl IntoIterator<Item = &'static str>,
) -> &'static str {
    candidates.into_iter().min_by_key(|candidate| distance(name, candidate)).unwrap_or_default()
}

fn distance(name: &str, candidate: &str) -> usize {
    let edits = edits(name, candidate);
    if is_part(name, candidate) || is_part(candidate, name) { edits.min(2) } else { edits }
}

/// Whether `whole` begins or ends with `part`, without regard to case.
fn is_part(part: &str, whole: &str) -> bool {
    let (part, whole) = (part.as_bytes(), whole.as_bytes());
    let is_part = |text: Option<&[u8]>| text.is_some_and(|text| text.eq_ignore_ascii_case(part));
    part.len() > 1
        && (is_part(whole.get(..part.len()))
            || is_part(whole.len().checked_sub(part.len()).map(|at| &whole[at..])))
}

/// Levenshtein distance without regard to case: how many bytes are added, left out or replaced.
pub fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.bytes().enumerate() {
        let mut diagonal = core::mem::replace(&mut row[0], line + 1);
        for (column, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(!a.eq_ignore_ascii_case(&b));
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_takes_fewest_edits_or_is_a_part() {
        let names = ["type", "messageId", "key", "value", "targetedTags", "ttlMs"];
        for (name, expected) in [
            ("targetTags", "targetedTags"),
            ("TARGETEDTAGS", "targetedTags"),
            ("tags", "targetedTags"),
            ("ttl", "ttlMs"),
            ("id", "messageId"),
            ("keys", "key"),
            ("tpye", "type"),
            ("vlaue", "value"),
        ] {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
        assert_eq!(nearest("\u{e9}", ["a"]), "a");
        assert_eq!(nearest("a", []), "");
    }
}
