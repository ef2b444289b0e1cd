//! Which message is the newest of its key, without asking the store (P6).
//!
//! The versions of the keys written since some *horizon* are kept in memory. A version above the
//! horizon is compared here: a key that is not here has nothing newer. Only at or below the horizon
//! must the store be asked, and its answer is remembered as if the key had just been written. What
//! stays true: every key whose newest version is above the horizon is here, and so is every key
//! with a row that is not durable yet. At most [`MAX_KEYS`] keys are kept beyond those that are
//! not durable: then the horizon rises, and the older half goes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::log::seen::{Seen, Source};
use crate::types::clock::{Hlc, Standing, Timely};
use crate::types::ids::{Hash128, Incarnation, Position, Sequence};
use crate::wire::message::Message;

/// Keys whose newest version is kept in memory: about 24 MiB.
pub const MAX_KEYS: usize = 200_000;

/// The newest message of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewestOfKey {
    /// Its version.
    pub version: Hlc,
    /// Its origin and incarnation.
    pub source: Source,
    /// Its number there.
    pub sequence: Sequence,
    /// Where it lies in the log.
    pub position: Position,
}

/// How a message compares with what is known of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Nothing newer is there.
    Newer,
    /// This position holds something newer.
    Superseded(Position),
    /// The store must be asked.
    Unknown,
    /// What is there gives way if the wall clock is right, of which nobody is certain.
    Doubtful,
}

/// What was known of a key before something newer came, for [`NewestOfKeys::undo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Of the key and its tag set.
    pub newest: Option<NewestOfKey>,
    /// The newest version of the key in any tag set, if it is above the horizon, and the last row
    /// that has it: two origins may have given the same one.
    pub of_all: Option<(Hlc, Position)>,
}

/// The keys above the horizon.
#[derive(Debug)]
pub struct NewestOfKeys {
    /// By what all tag sets of a key have in common.
    keys: HashMap<u64, Key>,
    /// Keys with different tag sets count for each.
    count: usize,
    horizon: Hlc,
    /// Whether a key that was written since the start is not here any more.
    has_forgotten: bool,
}

/// What is known of a key. It lies in one place, as each message looks for all of it.
#[derive(Debug)]
struct Key {
    /// The newest version that was written, whatever its tag set, and the last row that has it.
    of_all: Option<(Hlc, Position)>,
    /// Of nearly all keys this is the only tag set.
    first: (Hash128, NewestOfKey),
    others: Option<Box<HashMap<Hash128, NewestOfKey>>>,
}

impl Key {
    fn newest(&self, hash: &Hash128) -> Option<&NewestOfKey> {
        let (first, newest) = &self.first;
        if first == hash {
            return Some(newest);
        }
        self.others.as_ref()?.get(hash)
    }

    fn put(&mut self, hash: Hash128, newest: NewestOfKey) -> Option<NewestOfKey> {
        if self.first.0 == hash {
            return Some(core::mem::replace(&mut self.first.1, newest));
        }
        self.others.get_or_insert_default().insert(hash, newest)
    }

    /// Keeps only some tag sets. Answers how many are left.
    fn retain(&mut self, keeps: impl Fn(&Hash128, &NewestOfKey) -> bool) -> usize {
        if let Some(others) = &mut self.others {
            others.retain(|hash, newest| keeps(hash, newest));
        }
        let mut left = self.others.as_ref().map_or(0, |others| others.len());
        if keeps(&self.first.0, &self.first.1) {
            left += 1;
        } else if let Some(others) = &mut self.others
            && let Some(hash) = others.keys().next().copied()
            && let Some(newest) = others.remove(&hash)
        {
            self.first = (hash, newest);
        }
        self.others.take_if(|others| others.is_empty());
        left
    }
}

impl NewestOfKeys {
    /// Nothing is known at or below `horizon`, the clock's high-water mark in the store.
    pub fn new(horizon: Hlc) -> Self {
        Self { keys: HashMap::new(), count: 0, horizon, has_forgotten: false }
    }

    /// Compares a message with what is known of its key.
    pub fn compare(
        &self,
        key: &Hash128,
        message: &Message,
        seen: &Seen,
        timely: Timely,
    ) -> Comparison {
        match self.newest(key) {
            Some(newest) => match timely.standing(newest.version, message.version()) {
                Standing::GivesWay => Comparison::Newer,
                Standing::Doubtful => Comparison::Doubtful,
                Standing::Ordered if is_newer(message, newest, seen) => Comparison::Newer,
                Standing::Ordered => Comparison::Superseded(newest.position),
            },
            None if self.knows_all_of(message.version()) => Comparison::Newer,
            None => Comparison::Unknown,
        }
    }

    /// Whether a message of this version needs no store to be compared, whatever its key.
    pub fn knows_all_of(&self, version: Hlc) -> bool {
        version > self.horizon
    }

    /// Whether anything is known of the key and its tag set.
    pub fn knows(&self, key: &Hash128) -> bool {
        self.newest(key).is_some()
    }

    /// What is known to be the newest of the key and its tag set.
    pub fn newest(&self, key: &Hash128) -> Option<&NewestOfKey> {
        self.keys.get(&key.key_part())?.newest(key)
    }

    /// Whether all keys written since the start are known.
    pub fn knows_all_since_start(&self) -> bool {
        !self.has_forgotten
    }

    /// Takes note of a new newest; answers what it replaces, and whether another tag set of the key
    /// may have a newer value.
    pub fn put(&mut self, key: Hash128, newest: NewestOfKey) -> (Before, bool) {
        let version = newest.version;
        let last = Some((version, newest.position));
        let before = match self.keys.entry(key.key_part()) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                let of_all = known.of_all;
                known.of_all = of_all.max(last);
                Before { newest: known.put(key, newest), of_all }
            }
            Entry::Vacant(place) => {
                place.insert(Key { of_all: last, first: (key, newest), others: None });
                Before { newest: None, of_all: None }
            }
        };
        self.count += usize::from(before.newest.is_none());
        let of_all = before.of_all;
        let late = version <= self.horizon || of_all.is_some_and(|(of_all, _)| of_all >= version);
        (before, late)
    }

    /// Takes note of what the store says, unless something is known already.
    pub fn learn(&mut self, key: Hash128, newest: NewestOfKey) {
        if self.knows(&key) {
            return;
        }
        self.count += 1;
        match self.keys.entry(key.key_part()) {
            Entry::Occupied(mut known) => drop(known.get_mut().put(key, newest)),
            Entry::Vacant(place) => {
                place.insert(Key { of_all: None, first: (key, newest), others: None });
            }
        }
    }

    /// Takes note that the store holds nothing under the key: everything is newer than that.
    pub fn learn_absent(&mut self, key: Hash128, source: Source) {
        self.learn(
            key,
            NewestOfKey {
                version: Hlc(0),
                source,
                sequence: Sequence::new(0),
                position: Position::new(0),
            },
        );
    }

    /// No key in the store has a newest version above this any more.
    pub fn lower_horizon(&mut self, highest: Hlc) {
        self.horizon = self.horizon.min(highest);
    }

    /// Takes a [`Self::put`] back.
    pub fn undo(&mut self, key: Hash128, before: Before) {
        if let Some(newest) = before.newest {
            self.put(key, newest);
        }
        let Entry::Occupied(mut known) = self.keys.entry(key.key_part()) else { return };
        known.get_mut().of_all = before.of_all;
        if before.newest.is_none() && known.get().newest(&key).is_some() {
            self.count -= 1;
            if known.get_mut().retain(|hash, _| *hash != key) == 0 {
                known.remove();
            }
        }
    }

    /// Makes room if there are too many keys. Only what is durable may go.
    pub fn trim(&mut self, durable: Position) {
        if self.count <= MAX_KEYS {
            return;
        }
        let all = self.keys.values().flat_map(|key| {
            let others = key.others.iter().flat_map(|others| others.values());
            core::iter::once(&key.first.1).chain(others)
        });
        let mut versions: Vec<Hlc> = all.map(|newest| newest.version).collect();
        let middle = versions.len() / 2;
        let (_, median, _) = versions.select_nth_unstable(middle);
        self.horizon = self.horizon.max(*median);
        self.has_forgotten = true;
        let horizon = self.horizon;
        self.count = 0;
        self.keys.retain(|_, key| {
            let stays =
                |newest: &NewestOfKey| newest.version > horizon || newest.position > durable;
            let left = key.retain(|_, newest| stays(newest));
            key.of_all.take_if(|(version, _)| *version <= horizon);
            self.count += left;
            left > 0
        });
    }
}

fn is_newer(message: &Message, than: &NewestOfKey, seen: &Seen) -> bool {
    let there: (Hlc, &str, Incarnation, Sequence) = match seen.names(than.source) {
        Some((origin, incarnation)) => (than.version, origin.as_str(), incarnation, than.sequence),
        None => (than.version, "", Incarnation::new(0), than.sequence),
    };
    message.order() > there
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::types::ids::NodeId;
    use crate::types::time::WallMs;
    use crate::wire::message::{Fields, Kind};

    fn message(version: u64, origin: &str) -> Message {
        let fields = Fields {
            kind: Kind::Sk,
            incarnation: Incarnation::new(1),
            sequence: Sequence::new(1),
            version: Hlc(version),
            expires: WallMs(0),
            group: "",
            tags: "",
            path: origin,
            id: "m",
            key: "k",
            body: "1",
        };
        Message::encode(&fields, &mut BytesMut::new())
    }

    fn entry(version: u64, source: Source, position: u64) -> NewestOfKey {
        NewestOfKey {
            version: Hlc(version),
            source,
            sequence: Sequence::new(1),
            position: Position::new(position),
        }
    }

    // keeps: key-forward
    #[test]
    fn of_equal_clocks_in_two_tag_sets_the_last_row_is_known() {
        let mut newest = NewestOfKeys::new(Hlc(0));
        let mut seen = Seen::default();
        let source = seen.source(&NodeId::new("b").expect("a name"), Incarnation::new(1));
        let [a, b] = ["a", "b"].map(|tags| Hash128::of_key("k", tags));
        newest.put(a, entry(4, source, 1));
        newest.put(b, entry(4, source, 2));
        let (before, late) = newest.put(a, entry(5, source, 3));
        assert_eq!(before.of_all, Some((Hlc(4), Position::new(2))));
        assert!(!late);
    }

    // keeps: key-forward
    #[test]
    fn above_the_horizon_an_unknown_key_has_nothing_newer() {
        let newest = NewestOfKeys::new(Hlc(10));
        let key = Hash128::of(&[b"k"]);
        let seen = Seen::default();
        assert_eq!(newest.compare(&key, &message(11, "a"), &seen, Timely::ALL), Comparison::Newer);
        assert_eq!(
            newest.compare(&key, &message(10, "a"), &seen, Timely::ALL),
            Comparison::Unknown
        );
    }

    #[test]
    fn equal_clocks_are_decided_by_the_origin() {
        let mut newest = NewestOfKeys::new(Hlc(0));
        let mut seen = Seen::default();
        let source = seen.source(&NodeId::new("b").expect("a name"), Incarnation::new(1));
        let key = Hash128::of(&[b"k"]);
        newest.put(key, entry(5, source, 3));
        let superseded = Comparison::Superseded(Position::new(3));
        assert_eq!(newest.compare(&key, &message(5, "a"), &seen, Timely::ALL), superseded);
        assert_eq!(newest.compare(&key, &message(5, "b"), &seen, Timely::ALL), superseded);
        assert_eq!(newest.compare(&key, &message(5, "c"), &seen, Timely::ALL), Comparison::Newer);
    }

    #[test]
    fn each_tag_set_of_a_key_is_known_and_taken_back() {
        let mut newest = NewestOfKeys::new(Hlc(0));
        let mut seen = Seen::default();
        let source = seen.source(&NodeId::new("b").expect("a name"), Incarnation::new(1));
        let [a, b, c] = ["a", "b", "c"].map(|tags| Hash128::of_key("k", tags));
        let (first, late) = newest.put(a, entry(5, source, 1));
        assert_eq!((first, late), (Before { newest: None, of_all: None }, false));
        let first_of_all = Some((Hlc(5), Position::new(1)));
        let (second, late) = newest.put(b, entry(4, source, 2));
        assert_eq!((second, late), (Before { newest: None, of_all: first_of_all }, true));
        let (third, late) = newest.put(b, entry(6, source, 3));
        let before = Before { newest: Some(entry(4, source, 2)), of_all: first_of_all };
        assert_eq!((third, late), (before, false));
        newest.learn_absent(c, source);
        assert_eq!((newest.count, newest.keys.len()), (3, 1));
        newest.undo(b, third);
        assert_eq!(newest.newest(&b), Some(&entry(4, source, 2)));
        newest.undo(b, second);
        newest.undo(a, first);
        assert!(!newest.knows(&a) && !newest.knows(&b) && newest.knows(&c));
        assert_eq!(newest.count, 1);
        assert_eq!(newest.put(a, entry(1, source, 4)).0.of_all, None);
    }

    // keeps: key-forward
    #[test]
    fn the_older_half_goes_but_never_what_is_not_durable() {
        let mut newest = NewestOfKeys::new(Hlc(0));
        let mut seen = Seen::default();
        let source = seen.source(&NodeId::new("b").expect("a name"), Incarnation::new(1));
        for n in 1..=MAX_KEYS as u64 + 1 {
            newest.put(Hash128::of(&[&n.to_le_bytes()]), entry(n, source, n));
        }
        let undurable = Hash128::of(&[b"undurable"]);
        newest.put(undurable, entry(1, source, MAX_KEYS as u64 + 2));
        newest.trim(Position::new(MAX_KEYS as u64 + 1));
        assert!(newest.count < MAX_KEYS / 2 + 10);
        assert_eq!(newest.count, newest.keys.len());
        assert!(newest.knows(&undurable));
        let oldest = Hash128::of(&[&1_u64.to_le_bytes()]);
        assert_eq!(
            newest.compare(&oldest, &message(1, "a"), &seen, Timely::ALL),
            Comparison::Unknown
        );
    }
}
