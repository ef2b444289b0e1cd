//! The digests of the live state: the table `digests`.
//!
//! It changes with the table `latest`, in the same transaction, which reads what it replaces
//! anyway; so the commit path pays nothing, and no start has to add anything up. What stays true:
//! a row of the table is the sum of the prints of one bucket of one tag set in `latest`, or of all
//! its buckets, and no row is zero.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Result, params};
use slipstream_core::digest::{Print, bucket_of};
use slipstream_core::ids::Hash128;

use crate::digest::{Digest, checksum_of};

/// The bucket of the row that speaks of all buckets of a tag set.
const ALL: i64 = -1;

/// The tag sets of pending rows, each as long as there is a row of it.
#[derive(Debug, Default)]
pub(crate) struct TagSetNumbers {
    numbers: HashMap<Arc<str>, TagSetNumber>,
    /// By number: the tag set, and its rows.
    names: Vec<(Arc<str>, usize)>,
    /// Numbers without a row.
    free: Vec<TagSetNumber>,
    /// The one that was asked for last, as is likely again.
    last: Option<TagSetNumber>,
}

/// The number of a tag set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TagSetNumber(u32);

impl TagSetNumbers {
    /// The number of a tag set that has a row more.
    pub(crate) fn take(&mut self, name: &str) -> TagSetNumber {
        let last = self.last.filter(|last| self.name(*last) == name);
        let known = last.or_else(|| self.numbers.get(name).copied());
        let number = known.unwrap_or_else(|| self.add(name.into()));
        self.names[number.0 as usize].1 += 1;
        self.last = Some(number);
        number
    }

    fn add(&mut self, name: Arc<str>) -> TagSetNumber {
        let number = self.free.pop().unwrap_or_else(|| {
            self.names.push((name.clone(), 0));
            TagSetNumber(u32::try_from(self.names.len() - 1).expect("pending rows are bounded"))
        });
        self.names[number.0 as usize].0 = name.clone();
        self.numbers.insert(name, number);
        number
    }

    /// The tag set has a row less.
    pub(crate) fn give_back(&mut self, number: TagSetNumber) {
        let (name, rows) = &mut self.names[number.0 as usize];
        *rows -= 1;
        if *rows == 0 {
            self.numbers.remove(&*name);
            self.free.push(number);
            self.last = self.last.filter(|last| *last != number);
        }
    }

    pub(crate) fn name(&self, number: TagSetNumber) -> &str {
        &self.names[number.0 as usize].0
    }
}

/// What a transaction changes, told in the order of the keys.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// By bucket, in order, and tag set.
    buckets: Vec<(u16, TagSetNumber, Print)>,
    /// By tag set.
    all: BTreeMap<TagSetNumber, Print>,
}

impl Changes {
    /// One print takes the place of another one.
    pub(crate) fn replace(&mut self, key: &Hash128, tags: TagSetNumber, old: Print, new: Print) {
        let change = new.minus(old);
        if change == Print::NOTHING {
            return;
        }
        let bucket = bucket_of(key);
        let here = self.buckets.iter_mut().rev().take_while(|(other, ..)| *other == bucket);
        match here.into_iter().find(|(_, other, _)| *other == tags) {
            Some((.., sum)) => *sum = sum.plus(change),
            None => self.buckets.push((bucket, tags, change)),
        }
        let sum = self.all.entry(tags).or_default();
        *sum = sum.plus(change);
    }

    /// Changes the table; `digest` is that of the tables.
    pub(crate) fn write(
        &self,
        db: &Connection,
        names: &TagSetNumbers,
        digest: &mut Digest,
    ) -> Result<()> {
        let mut lookup = db.prepare_cached(LOOKUP)?;
        let mut put = db.prepare_cached(
            "INSERT INTO digests (bucket, tags, sum, checksum) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (bucket, tags) DO UPDATE SET sum = ?3, checksum = ?4",
        )?;
        let mut delete =
            db.prepare_cached("DELETE FROM digests WHERE bucket = ?1 AND tags = ?2")?;
        let all = self.all.iter().map(|(tags, change)| (ALL, *tags, *change));
        let buckets = self.buckets.iter();
        let buckets = buckets.map(|(bucket, tags, change)| (i64::from(*bucket), *tags, *change));
        for (bucket, tags, change) in all.chain(buckets) {
            if change == Print::NOTHING {
                continue;
            }
            let tags = names.name(tags);
            let old = lookup.query_row(params![bucket, tags], sum).optional()?;
            let new = old.unwrap_or_default().plus(change);
            digest.remove(old.map_or(0, |old| checksum(bucket, tags, old)));
            if new == Print::NOTHING {
                delete.execute(params![bucket, tags])?;
                continue;
            }
            let sound = checksum(bucket, tags, new);
            digest.add(sound);
            put.execute(params![bucket, tags, new.get().cast_signed(), sound])?;
        }
        Ok(())
    }
}

/// Looks the sum of a bucket of a tag set up.
pub(crate) const LOOKUP: &str = "SELECT sum FROM digests WHERE bucket = ?1 AND tags = ?2";

/// The sum in the first column.
pub(crate) fn sum(row: &rusqlite::Row<'_>) -> Result<Print> {
    Ok(Print::new(row.get::<_, i64>(0)?.cast_unsigned()))
}

/// CRC-32 of a row of the table.
pub(crate) fn checksum(bucket: i64, tags: &str, sum: Print) -> u32 {
    checksum_of([bucket.cast_unsigned(), sum.get()], &[tags.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_set_has_one_number_as_long_as_there_is_a_row_of_it() {
        let mut names = TagSetNumbers::default();
        let (none, aws) = (names.take(""), names.take("aws"));
        assert_eq!([names.take(""), names.take("aws")], [none, aws]);
        names.give_back(aws);
        assert_eq!(names.take("aws"), aws);
        names.give_back(none);
        names.give_back(none);
        let gcp = names.take("gcp");
        assert_eq!((gcp, names.name(gcp), names.name(aws)), (none, "gcp", "aws"));
        assert_ne!(names.take(""), none);
        assert_eq!(names.numbers.len(), 3);
    }
}
