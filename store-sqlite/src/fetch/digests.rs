//! Answers what is asked of the digests of the live state: the table `digests`, and what is pending
//! in memory added to it.

use std::collections::BTreeMap;
use std::ops::Bound;

use rusqlite::{Connection, OptionalExtension, Result, params};
use slipstream_core::digest::{
    BUCKETS, Digests, MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_NAMES_BYTES, MAX_TAG_SETS, Print, Roots,
    bucket_of, range_of,
};
use slipstream_core::ids::{Hash128, Position};
use slipstream_core::tags::{self, TagSet};

use crate::live::{LOOKUP, sum};
use crate::reader::ReaderThread;
use crate::state::StoreState;

/// Pending keys that one question looks up in the table `latest`.
const LOOKED_UP: usize = 8192;

/// The digests of tag sets behind `after`.
pub(super) fn tag_sets(
    db: &Connection,
    state: &StoreState,
    after: Option<&TagSet>,
) -> Result<Digests> {
    if !state.pending.look_up(db, LOOKED_UP)? {
        return Ok(Digests::Behind);
    }
    let mut statement = db.prepare_cached(
        "SELECT sum, tags FROM digests WHERE bucket = -1 AND (?1 IS NULL OR tags > ?1)
         ORDER BY tags LIMIT ?2",
    )?;
    let limit = i64::try_from(MAX_TAG_SETS).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = statement.query(params![after.map(TagSet::as_str), limit])?;
    let mut sums = BTreeMap::<String, Print>::new();
    let mut bytes = 0;
    let mut full = false;
    while !full && let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        bytes += name.len();
        full = sums.len() == MAX_TAG_SETS || (bytes > MAX_NAMES_BYTES && !sums.is_empty());
        sums.insert(name, sum(row)?);
    }
    // The last one only says that there is more.
    let upto = sums.last_key_value().filter(|_| full).map(|(last, _)| last.clone());
    let behind = |name: &str| after.is_none_or(|after| name > after.as_str());
    let before = |name: &str| upto.as_deref().is_none_or(|upto| name < upto);
    for (_, name, change) in state.pending.changes() {
        if behind(name) && before(name) {
            match sums.get_mut(name) {
                Some(sum) => *sum = sum.plus(change),
                None => drop(sums.insert(name.to_owned(), change)),
            }
        }
    }
    if full {
        sums.pop_last();
    }
    Ok(Digests::TagSets(roots(sums, full)))
}

/// As many of these tag sets as one answer may hold; `more`: others follow in the table.
fn roots(sums: BTreeMap<String, Print>, mut more: bool) -> Roots {
    let mut roots = Roots::default();
    let (mut looked_at, mut bytes, mut last) = (0, 0, None);
    for (name, sum) in sums {
        bytes += name.len();
        if looked_at == MAX_TAG_SETS || (bytes > MAX_NAMES_BYTES && looked_at > 0) {
            more = true;
            break;
        }
        looked_at += 1;
        let tags = TagSet::new(tags::list(&name)).unwrap_or_else(|_| TagSet::empty());
        if sum != Print::NOTHING {
            roots.digests.push((tags.clone(), sum));
        }
        last = Some(tags);
    }
    roots.upto = last.filter(|_| more);
    roots
}

/// The digest of each bucket of a tag set.
pub(super) fn buckets(db: &Connection, state: &StoreState, tags: &TagSet) -> Result<Digests> {
    if !state.pending.look_up(db, LOOKED_UP)? {
        return Ok(Digests::Behind);
    }
    let mut lookup = db.prepare_cached(LOOKUP)?;
    let stored = |bucket: u16| lookup.query_row(params![bucket, tags.as_str()], sum).optional();
    let mut sums = (0..BUCKETS)
        .map(stored)
        .map(|sum| sum.map(Option::unwrap_or_default))
        .collect::<Result<Vec<_>>>()?;
    for (key, name, change) in state.pending.changes() {
        if name == tags.as_str() {
            let sum = &mut sums[usize::from(bucket_of(key))];
            *sum = sum.plus(change);
        }
    }
    Ok(Digests::Buckets(sums))
}

/// The live messages of a bucket of a tag set behind `after`.
pub(super) fn entries(
    reader: &mut ReaderThread<'_>,
    tags: &TagSet,
    bucket: u16,
    after: Option<Hash128>,
) -> Result<Digests> {
    let range = range_of(bucket);
    let first = after.map_or(Bound::Included(*range.start()), Bound::Excluded);
    let range = (first, *range.end());
    let (page, more) = reader.state.pending.page(reader.db, range, MAX_ENTRIES)?;
    let mut next = page.last_key_value().filter(|_| more).map(|(last, _)| *last);
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for (index, (key, newest)) in page.iter().enumerate() {
        // Whose tag set it is says only the row.
        if newest.print != Print::NOTHING
            && let Some(row) = reader.row_at(Position::new(newest.position))?
            && row.message.tags() == tags.as_str()
        {
            entries.push((newest.print, row.message));
        }
        bytes += u64::from(newest.size);
        if bytes > MAX_ENTRY_BYTES && index + 1 < page.len() {
            next = Some(*key);
            break;
        }
    }
    Ok(Digests::Entries { entries, next })
}
