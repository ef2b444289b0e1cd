//! A store in memory that keeps the contract of [`slipstream_core::store`], by the plainest means.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};

use slipstream_core::backlog::Backlog;
use slipstream_core::clock::{Hlc, Timely};
use slipstream_core::copies;
use slipstream_core::digest::{BUCKETS, DigestQuery, Digests, Print, Roots, bucket_of, print_of};
use slipstream_core::ids::{DeadLetterId, Hash128, Incarnation, Position, SessionId, StoreId};
use slipstream_core::message::{Kind, Message};
use slipstream_core::store::{
    Answer, Batch, DeadLetter, DeadReason, Latest, ListedLetter, Query, ReceiptBlock, Recovered,
    Row, SeenKey, SeenRecord, SessionRecord, StoredRow, StoredValue, Usage, VALUES_BYTES,
};
use slipstream_core::tags::{TagSet, list};
use slipstream_core::time::WallMs;

/// Rows that one [`Query::Find`] looks at.
const FIND_STRETCH: usize = 100;

/// What is durable.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    id: StoreId,
    rows: BTreeMap<Position, Row>,
    /// Events of cluster groups whose rows are gone.
    copies: BTreeMap<Position, Hash128>,
    latest: BTreeMap<Hash128, Position>,
    /// Those of which the newest is a delete.
    deletes: BTreeSet<Hash128>,
    /// Deletes that were forgotten: what they had replaced stays superseded.
    forgotten: BTreeMap<Hash128, Position>,
    seen: BTreeMap<SeenKey, SeenRecord>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    dead_letters: BTreeMap<DeadLetterId, DeadLetter>,
    receipts: BTreeMap<(SessionId, u64), ReceiptBlock>,
    clock: Hlc,
    incarnation: Incarnation,
    last_session: SessionId,
    last_dead_letter: DeadLetterId,
    last_position: Position,
    /// Bytes of rows and dead letters.
    bytes: u64,
    /// Rows that nobody needs any more, with their sizes.
    history: BTreeMap<Position, u64>,
    history_bytes: u64,
    /// Rows that are no longer the newest of their key, since `history` was last brought up to
    /// date.
    replaced: Vec<Position>,
    /// Up to where events, and superseded state, were settled with the last batch.
    floors: (Position, Position),
    dropped: u64,
    forgotten_events: u64,
    /// Bytes of history above its bound that were held back with the last batch.
    held_bytes: u64,
    /// Rows deleted by the last commit.
    pub deleted: Vec<Position>,
    /// Bytes that the store says it uses, besides its rows.
    pub ballast: u64,
    /// Bytes that fit on its disk, if it knows.
    pub disk_bytes: Option<u64>,
    /// Nothing is forgotten, and history is not counted: for runs in which looking for it at each
    /// commit would cost more than all the rest.
    pub keeps_everything: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(id: u128) -> Self {
        Self {
            id: StoreId(id),
            rows: BTreeMap::new(),
            copies: BTreeMap::new(),
            latest: BTreeMap::new(),
            deletes: BTreeSet::new(),
            forgotten: BTreeMap::new(),
            seen: BTreeMap::new(),
            sessions: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            receipts: BTreeMap::new(),
            clock: Hlc::default(),
            incarnation: Incarnation::default(),
            last_session: SessionId::default(),
            last_dead_letter: DeadLetterId::default(),
            last_position: Position::default(),
            bytes: 0,
            history: BTreeMap::new(),
            history_bytes: 0,
            replaced: Vec::new(),
            floors: Default::default(),
            dropped: 0,
            forgotten_events: 0,
            held_bytes: 0,
            deleted: Vec::new(),
            ballast: 0,
            disk_bytes: None,
            keeps_everything: false,
        }
    }

    /// Makes a batch durable.
    pub fn commit(&mut self, batch: &Batch) {
        for row in &batch.rows {
            if let Some(key) = row.key_hash {
                self.replaced.extend(self.latest.insert(key, row.position));
                match row.message.kind() {
                    Kind::Dk => self.deletes.insert(key),
                    _ => self.deletes.remove(&key),
                };
            }
            self.last_position = row.position;
            self.bytes += row.size() as u64;
            self.rows.insert(row.position, row.clone());
        }
        for record in &batch.seen {
            self.seen.insert(record.key.clone(), record.clone());
        }
        for key in &batch.seen_dropped {
            self.seen.remove(key);
        }
        for record in &batch.sessions {
            self.last_session = self.last_session.max(record.id);
            self.sessions.insert(record.id, record.clone());
        }
        for letter in &batch.dead_letters {
            self.last_dead_letter = self.last_dead_letter.max(letter.id);
            self.bytes += letter_size(letter);
            self.dead_letters.insert(letter.id, letter.clone());
        }
        for gone in &batch.dead_letters_gone {
            self.remove_letter(*gone);
        }
        for block in &batch.receipts {
            self.receipts.insert((block.session, block.number), block.clone());
        }
        for (session, upto) in &batch.receipts_dropped {
            self.receipts.retain(|(owner, number), _| owner != session || number > upto);
        }
        for ended in &batch.sessions_ended {
            self.sessions.remove(ended);
            let of_it = self.dead_letters.values().filter(|letter| letter.session == *ended);
            let gone: Vec<_> = of_it.map(|letter| letter.id).collect();
            gone.iter().for_each(|letter| self.remove_letter(*letter));
            self.receipts.retain(|(session, _), _| session != ended);
        }
        self.clock = batch.clock;
        self.incarnation = self.incarnation.max(batch.incarnation);
        self.forget(batch);
        while self.copies.len() > copies::kept(batch.history_max_bytes) {
            self.copies.pop_first();
        }
    }

    fn remove_letter(&mut self, letter: DeadLetterId) {
        if let Some(letter) = self.dead_letters.remove(&letter) {
            self.bytes -= letter_size(&letter);
        }
    }

    /// Deletes history above its bound: superseded state and expired events first, then events,
    /// oldest first.
    fn forget(&mut self, batch: &Batch) {
        self.deleted.clear();
        self.held_bytes = 0;
        if self.keeps_everything {
            self.replaced.clear();
            return;
        }
        self.forget_tombstones(batch);
        self.settle_history(batch);
        if self.history_bytes <= batch.history_max_bytes {
            return;
        }
        let is_unexpired = |row: &Row| {
            let is_event = row.key_hash.is_none() && row.only.is_none();
            is_event && row.ends > batch.wall
        };
        let history: Vec<(Position, u64, bool)> = self
            .history
            .iter()
            .map(|(position, size)| (*position, *size, is_unexpired(&self.rows[position])))
            .collect();
        for events in [false, true] {
            for (position, size, unexpired) in &history {
                if self.history_bytes <= batch.history_max_bytes {
                    return;
                }
                if events && *unexpired && batch.held_from.is_some_and(|first| first <= *position) {
                    break;
                }
                if *unexpired == events {
                    let gone = self.rows.remove(position).filter(|row| row.key_hash.is_none());
                    let copy = gone.and_then(|row| row.copy);
                    self.copies.extend(copy.map(|copy| (*position, copy.content)));
                    self.deleted.push(*position);
                    self.history.remove(position);
                    self.history_bytes -= size;
                    self.bytes -= size;
                    *(if events { &mut self.forgotten_events } else { &mut self.dropped }) += 1;
                }
            }
        }
        self.held_bytes = self.history_bytes.saturating_sub(batch.history_max_bytes);
    }

    /// Brings the index of history up to date: what was newest before this batch, and what lies
    /// between the floors of the last batch and those of this one.
    fn settle_history(&mut self, batch: &Batch) {
        let floor = batch.floor;
        let state_floor = batch.state_floor.max(floor);
        let (last_floor, last_state_floor) = self.floors;
        self.floors = (floor, state_floor);
        let candidates: Vec<Position> = if floor < last_floor || state_floor < last_state_floor {
            // Somebody needs again what was settled: begin anew.
            (self.history, self.history_bytes) = (BTreeMap::new(), 0);
            self.replaced.clear();
            self.rows.range(..=state_floor).map(|(position, _)| *position).collect()
        } else {
            let between = |last, now| self.rows.range((Excluded(last), Included(now)));
            let passed = between(last_floor, floor).chain(between(last_state_floor, state_floor));
            passed.map(|(position, _)| *position).chain(self.replaced.drain(..)).collect()
        };
        for position in candidates {
            let Some(row) = self.rows.get(&position) else { continue };
            let is_state = row.key_hash.is_some();
            let newest = row.key_hash.and_then(|key| self.latest.get(&key));
            let is_settled = position <= if is_state { state_floor } else { floor };
            if is_settled && newest != Some(&position) {
                let size = row.size() as u64;
                if self.history.insert(position, size).is_none() {
                    self.history_bytes += size;
                }
            }
        }
    }

    /// Deletes old tombstones whose key has no value in any tag set.
    fn forget_tombstones(&mut self, batch: &Batch) {
        if batch.tombstones_before == WallMs(0) {
            return;
        }
        let goes = |row: &Row| {
            row.position <= batch.floor
                && row.message.version().wall() < batch.tombstones_before
                && self
                    .newest_of(row.message.key())
                    .all(|(_, other)| other.message.kind() == Kind::Dk)
        };
        let deletes = self.deletes.iter();
        let gone: Vec<(Hash128, Position, u64)> = deletes
            .filter_map(|hash| Some((hash, self.rows.get(self.latest.get(hash)?)?)))
            .filter(|(_, row)| goes(row))
            .map(|(hash, row)| (*hash, row.position, row.size() as u64))
            .collect();
        for (hash, position, size) in gone {
            self.latest.remove(&hash);
            self.deletes.remove(&hash);
            self.forgotten.insert(hash, position);
            self.rows.remove(&position);
            self.deleted.push(position);
            self.bytes -= size;
        }
    }

    /// What a node is told when it opens this store.
    pub fn recovered(&self) -> Recovered {
        let mut dead = BTreeMap::<(SessionId, DeadReason), (u64, u64)>::new();
        for letter in self.dead_letters.values() {
            let counts = dead.entry((letter.session, letter.reason)).or_default();
            counts.0 += 1;
            counts.1 += letter_size(letter);
        }
        Recovered {
            store_id: self.id,
            head: self.head(),
            clock: self.clock,
            incarnation: self.incarnation,
            last_session: self.last_session,
            last_dead_letter: self.last_dead_letter,
            sessions: self.sessions.values().cloned().collect(),
            seen: self.seen.values().cloned().collect(),
            receipts: self.receipts.values().cloned().collect(),
            backlog: self.backlog(),
            copies: self.copies(),
            dead_letters: dead
                .into_iter()
                .map(|((session, reason), (count, bytes))| (session, reason, count, bytes))
                .collect(),
            usage: self.usage(),
        }
    }

    fn copies(&self) -> Vec<(Hash128, Position, WallMs)> {
        let of_group = |row: &Row| Some((row.copy?.content, row.position, row.ends));
        let newest = || self.latest.values().filter_map(|position| self.rows.get(position));
        let is_newest = |row: &&Row| {
            let mut of_key = newest().filter(|other| other.message.key() == row.message.key());
            row.key_hash.and_then(|key| self.latest.get(&key)) == Some(&row.position)
                && of_key.all(|other| !other.message.is_newer_than(&row.message))
        };
        let is_kept = |row: &&Row| row.key_hash.is_none() || is_newest(row);
        let in_log = self.rows.values().filter(is_kept).filter_map(of_group);
        let gone = self.copies.iter().map(|(position, content)| (*content, *position, WallMs(0)));
        let mut all: Vec<_> = in_log.chain(gone).collect();
        all.sort_by_key(|(_, position, _)| *position);
        all
    }

    fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        self.rows.values().for_each(|row| backlog.grow(row.position, row.size() as u64));
        backlog
    }

    /// Room taken.
    pub fn usage(&self) -> Usage {
        let used_bytes = self.bytes + self.ballast;
        Usage {
            used_bytes,
            room_bytes: self.disk_bytes.map(|fits| fits.saturating_sub(used_bytes)),
            rows: self.rows.len() as u64,
            history_bytes: self.history_bytes,
            held_bytes: self.held_bytes,
            dropped_total: self.dropped,
            forgotten_total: self.forgotten_events,
            tombstones: self.tombstones(),
            ..Usage::default()
        }
    }

    /// Rows given up so far: history, and events nobody needed any more.
    pub fn given_up(&self) -> u64 {
        self.dropped + self.forgotten_events
    }

    fn tombstones(&self) -> u64 {
        self.deletes.len() as u64
    }

    /// The messages in the log, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.rows.values().map(|row| &row.message)
    }

    /// The answer to a question.
    pub fn answer(&self, query: Query) -> Answer {
        match query {
            Query::Rows { after, upto, newest_upto, tags, timely, max_rows, max_bytes } => {
                let upto = upto.min(self.head());
                let asked = (tags.as_ref(), timely);
                self.rows_after((after, upto), newest_upto, asked, (max_rows, max_bytes))
            }
            Query::RowsAt { positions, tags, timely } => {
                let found = positions.iter().filter_map(|position| self.rows.get(position));
                Answer::RowsAt(found.map(|row| self.judged(row, tags.as_ref(), timely)).collect())
            }
            Query::Latest(keys) => {
                Answer::Latest(keys.iter().map(|key| self.latest(key)).collect())
            }
            Query::Values { keys, tags, timely } => self.values(&keys, &tags, timely),
            Query::Find { id, after } => {
                let stretch: Vec<&Row> = self
                    .rows
                    .range(after.next()..)
                    .take(FIND_STRETCH)
                    .map(|(_, row)| row)
                    .collect();
                let next = stretch.last().filter(|_| stretch.len() == FIND_STRETCH);
                let next = next.map(|row| row.position);
                let rows = stretch.iter().filter(|row| row.message.id() == id);
                let found = rows.map(|row| {
                    let mut found = self.stored(row);
                    found.row.message = found.row.message.without_value();
                    found
                });
                Answer::Find { rows: found.collect(), next }
            }
            Query::DeadLetters { after, limit } => {
                let letters = self.dead_letters.range(after.next()..).take(limit);
                Answer::DeadLetters(letters.map(|(_, letter)| letter.clone()).collect())
            }
            Query::DeadLetterList { after, limit, id } => {
                let letters = self.dead_letters.range(after.next()..).map(|(_, letter)| letter);
                let wanted =
                    |letter: &&DeadLetter| id.as_ref().is_none_or(|id| letter.message.id() == id);
                let mut letters = letters.filter(wanted);
                let listed: Vec<_> = letters.by_ref().take(limit).map(ListedLetter::of).collect();
                let last = listed.last().map(|listed| listed.letter.id);
                Answer::DeadLetterList { listed, next: letters.next().and(last) }
            }
            Query::Digests(query) => Answer::Digests(self.digests(&query)),
        }
    }

    fn head(&self) -> Position {
        self.last_position
    }

    fn rows_after(
        &self,
        (after, upto): (Position, Position),
        newest_upto: Position,
        (tags, timely): (Option<&TagSet>, Timely),
        (max_rows, max_bytes): (usize, usize),
    ) -> Answer {
        let (mut rows, mut bytes, mut superseded) = (Vec::new(), 0, 0);
        for (position, row) in self.rows.range(after.next()..) {
            if *position > upto {
                break;
            }
            let checked = *position <= newest_upto;
            let judges = checked || row.late || row.only.is_some();
            let stored = self.judged(row, tags.filter(|_| judges), timely);
            // That a copy was left out for another tag set is told: it may be repeated.
            let leaves_out =
                checked && (row.copy.is_none() || self.stored_within(row, timely).superseded);
            if stored.superseded && leaves_out && row.only.is_none() {
                superseded += 1;
                continue;
            }
            bytes += row.size();
            if rows.len() == max_rows.max(1) || (bytes > max_bytes && !rows.is_empty()) {
                return Answer::Rows { rows, upto: position.before(), superseded };
            }
            rows.push(stored);
        }
        Answer::Rows { rows, upto, superseded }
    }

    fn judged(&self, row: &Row, tags: Option<&TagSet>, timely: Timely) -> StoredRow {
        let mut stored = self.stored_within(row, timely);
        if let Some(tags) = tags
            && row.message.kind().is_state()
        {
            let mut values = self.values_of(row.message.key(), tags);
            stored.superseded |= values.any(|it| it.message.has_outdone(&row.message, timely));
        }
        stored
    }

    fn stored(&self, row: &Row) -> StoredRow {
        self.stored_within(row, Timely::ALL)
    }

    fn stored_within(&self, row: &Row, timely: Timely) -> StoredRow {
        let key = row.message.key_hash();
        let latest = key.and_then(|key| self.latest.get(&key));
        let superseded =
            latest.and_then(|position| self.rows.get(position)).is_some_and(|newest| {
                // A row for one session competes with nobody: its version tells.
                let is_newer = || newest.message.has_outdone(&row.message, timely);
                if row.only.is_some() { is_newer() } else { newest.position > row.position }
            });
        let replaced = |gone: &Position| *gone > row.position && row.only.is_none();
        let forgotten = key.and_then(|key| self.forgotten.get(&key)).is_some_and(replaced);
        StoredRow { row: row.clone(), superseded: superseded || forgotten }
    }

    fn values(&self, keys: &[String], tags: &TagSet, timely: Timely) -> Answer {
        let mut looked_at = 0;
        let mut values = Vec::new();
        for key in keys {
            let value = self.value(key, tags, timely);
            if let StoredValue::Newest(latest) = &value {
                looked_at += latest.message.encoded().len() as u64;
            }
            values.push(value);
            if looked_at > VALUES_BYTES {
                break;
            }
        }
        Answer::Values(values)
    }

    fn value(&self, key: &str, tags: &TagSet, timely: Timely) -> StoredValue {
        let values = self.values_of(key, tags).map(latest_of).collect();
        Latest::newest(values, timely).map_or(StoredValue::Absent, StoredValue::Newest)
    }

    /// The newest value of a key in each tag set that matches.
    fn values_of<'a>(&'a self, key: &'a str, tags: &'a TagSet) -> impl Iterator<Item = &'a Row> {
        let newest = self.newest_of(key).map(|(_, row)| row);
        newest.filter(|row| tags.matches(row.message.tags()))
    }

    fn digests(&self, query: &DigestQuery) -> Digests {
        match query {
            DigestQuery::TagSets { after } => {
                let mut roots = self.roots();
                roots.retain(|(tags, _)| after.as_ref().is_none_or(|after| tags > after));
                Digests::TagSets(Roots { digests: roots, upto: None })
            }
            DigestQuery::Buckets { tags } => {
                let mut buckets = vec![Print::NOTHING; usize::from(BUCKETS)];
                for (hash, row) in
                    self.live().filter(|(_, row)| row.message.tags() == tags.as_str())
                {
                    let bucket = &mut buckets[usize::from(bucket_of(hash))];
                    *bucket = bucket.plus(print_of(hash, &row.message));
                }
                Digests::Buckets(buckets)
            }
            DigestQuery::Entries { tags, bucket, after } => {
                let entries = self.live().filter(|(hash, row)| {
                    row.message.tags() == tags.as_str()
                        && bucket_of(hash) == *bucket
                        && after.is_none_or(|after| **hash > after)
                });
                let entry = |(hash, row): (&Hash128, &Row)| {
                    (print_of(hash, &row.message), row.message.clone())
                };
                Digests::Entries { entries: entries.map(entry).collect(), next: None }
            }
        }
    }

    /// The digest of each tag set that holds anything, added up from nothing.
    pub fn roots(&self) -> Vec<(TagSet, Print)> {
        let mut roots = BTreeMap::<&str, Print>::new();
        for (hash, row) in self.live() {
            let root = roots.entry(row.message.tags()).or_default();
            *root = root.plus(print_of(hash, &row.message));
        }
        let set = |tags| TagSet::new(list(tags)).expect("stored tags are good");
        let roots: BTreeMap<_, _> = roots.into_iter().map(|(tags, it)| (set(tags), it)).collect();
        roots.into_iter().collect()
    }

    /// The newest of each key and tag set, without deletes.
    fn live(&self) -> impl Iterator<Item = (&Hash128, &Row)> {
        let newest = self.latest.iter().filter_map(|(hash, at)| Some((hash, self.rows.get(at)?)));
        newest.filter(|(_, row)| row.message.kind() != Kind::Dk)
    }

    /// The newest of each tag set of a key, by its hash.
    fn newest_of(&self, key: &str) -> impl Iterator<Item = (&Hash128, &Row)> {
        let of_key = self.latest.range(Hash128::range_of_key(key));
        let newest = of_key.filter_map(|(hash, at)| Some((hash, self.rows.get(at)?)));
        newest.filter(move |(_, row)| row.message.key() == key)
    }

    fn latest(&self, key: &Hash128) -> Option<Latest> {
        let row = self.rows.get(self.latest.get(key)?)?;
        Some(latest_of(row))
    }
}

fn latest_of(row: &Row) -> Latest {
    Latest { position: row.position, message: row.message.clone() }
}

fn letter_size(letter: &DeadLetter) -> u64 {
    letter.message.encoded().len() as u64 + 64
}
