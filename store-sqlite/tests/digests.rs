//! Digests of the live state: what adds up, page by page, whatever is merged already.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;

use common::*;
use slipstream_core::digest::{
    BUCKETS, DigestQuery, Digests, MAX_ENTRIES, MAX_TAG_SETS, Print, Roots, bucket_of, print_of,
};
use slipstream_core::ids::*;
use slipstream_core::store::*;
use slipstream_core::tags::TagSet;

fn print(row: &Row) -> Print {
    print_of(&row.key_hash.unwrap(), &row.message)
}

fn sum<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Print {
    rows.into_iter().fold(Print::NOTHING, |sum, row| sum.plus(print(row)))
}

/// Two stores that hold the same have the same digests, whatever they held before.
// keeps: digests-exact
#[test]
fn equal_states_have_equal_digests_whatever_came_before() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut one = Harness::open(one.path());
    let mut other = Harness::open(other.path());
    let rows: Vec<Row> = (10..500).map(|n| in_tags(n, "a", &format!("k{n}"), "1")).collect();
    one.commit(batch(rows.clone()));
    other.commit(batch(vec![in_tags(1, "a", "k10", "1"), in_tags(2, "a", "gone", "1")]));
    other.commit(batch(vec![in_tags(3, "a", "gone", "null")]));
    // A jump over many positions lets all of it be merged.
    other.commit(batch(rows.clone()));
    other.commit(batch(vec![event(50_000, "e", "1", 1)]));
    other.commit(batch(vec![event(90_000, "e", "1", 1)]));
    assert_eq!(one.roots(), other.roots());
    assert_eq!(one.roots()[0].1, sum(&rows));

    one.commit(batch(vec![in_tags(1000, "a", "k77", "null")]));
    assert_ne!(one.roots(), other.roots());
    let tags = TagSet::new(["a"]).unwrap();
    let bucket = bucket_of(&rows[67].key_hash.unwrap());
    let differing = one.buckets(&tags).into_iter().zip(other.buckets(&tags)).enumerate();
    let differing: Vec<_> = differing.filter(|(_, (a, b))| a != b).map(|(n, _)| n).collect();
    assert_eq!(differing, [usize::from(bucket)]);
}

// keeps: digests-exact
#[test]
fn digests_come_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let count = MAX_TAG_SETS as u64 + 10;
    let tags = |n: u64| format!("t{n:05}");
    let rows: Vec<Row> = (1..=count).map(|n| in_tags(n, &tags(n), "k", "1")).collect();
    harness.commit(batch(rows));
    for merged in [false, true] {
        let Digests::TagSets(Roots { digests, upto }) =
            harness.digests(DigestQuery::TagSets { after: None })
        else {
            panic!("another answer")
        };
        assert_eq!(digests.len(), MAX_TAG_SETS);
        assert_eq!(upto.unwrap().as_str(), tags(MAX_TAG_SETS as u64));
        let names: Vec<String> =
            harness.roots().iter().map(|(set, _)| set.as_str().to_owned()).collect();
        assert_eq!(names, (1..=count).map(tags).collect::<Vec<_>>(), "merged: {merged}");
        for n in 1..=10 {
            harness.commit(batch(vec![event(40_000 * n + u64::from(merged), "e", "1", 1)]));
        }
    }
}

// keeps: digests-exact
#[test]
fn a_large_bucket_comes_in_pages_with_what_is_pending() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let none = TagSet::empty();
    let mut position = 0;
    let mut expected = BTreeMap::new();
    let mut number = 0_u64;
    while expected.len() < MAX_ENTRIES + 100 {
        // Only the first bucket, so that few rows make a large one.
        let mut rows = Vec::new();
        while rows.len() < 500 {
            number += 1;
            let key = format!("k{number}");
            if bucket_of(&Hash128::of_key(&key, "")) == 0 {
                position += 1;
                rows.push(state(position, &key, "1"));
            }
        }
        for row in &rows {
            expected.insert(row.key_hash.unwrap(), (print(row), row.position.get()));
        }
        harness.commit(batch(rows));
    }
    let found = harness.entries(&none, 0);
    assert_eq!(found, expected.values().copied().collect::<Vec<_>>());
    let sum = found.iter().fold(Print::NOTHING, |sum, (print, _)| sum.plus(*print));
    assert_eq!(harness.buckets(&none)[0], sum);
    assert_eq!(harness.roots(), [(none.clone(), sum)]);
    assert_eq!(harness.entries(&none, BUCKETS - 1), []);
    drop(harness);
    let mut harness = Harness::open(directory.path());
    assert_eq!(harness.roots(), [(none, sum)], "a start adds nothing up");
}
