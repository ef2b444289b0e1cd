//! Which message is the newest of its key, without asking the store (P6).
//!
//! The versions of the keys written since some *horizon* are kept in memory. A version above the
//! horizon is compared here: a key that is not here has nothing newer. Only at or below the horizon
//! must the store be asked, and its answer is remembered as if the key had just been written. What
//! stays true: every key whose newest version is above the horizon is here, and so is every key
//! with a row that is not durable yet. At most [`MAX_KEYS`] keys are kept beyond those that are
//! not durable: then the horizon rises, and the older half goes.

use alloc::vec::Vec;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::clock::Hlc;
use crate::ids::{Hash128, Incarnation, Position, Sequence};
use crate::message::Message;
use crate::seen::{Seen, Source};

/// Keys whose newest version is kept in memory: about 24 MiB.
pub const MAX_KEYS: usize = 200_000;

/// The newest message of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
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
}

/// What was known of a key before something newer came, for [`NewestOfKeys::undo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Of the key and its tag set.
    pub newest: Option<Newest>,
    /// The newest version of the key in any tag set, if it is above the horizon.
    pub of_all: Option<Hlc>,
}

/// The keys above the horizon.
#[derive(Debug)]
pub struct NewestOfKeys {
    keys: HashMap<Hash128, Newest>,
    /// The newest version of each key above the horizon, whatever its tag set.
    all: HashMap<u64, Hlc>,
    horizon: Hlc,
    /// Whether a key that was written since the start is not here any more.
    has_forgotten: bool,
}

impl NewestOfKeys {
    /// Nothing is known at or below `horizon`, the clock's high-water mark in the store.
    pub fn new(horizon: Hlc) -> Self {
        Self { keys: HashMap::new(), all: HashMap::new(), horizon, has_forgotten: false }
    }

    /// Compares a message with what is known of its key.
    pub fn compare(&self, key: &Hash128, message: &Message, seen: &Seen) -> Comparison {
        match self.keys.get(key) {
            Some(newest) if is_newer(message, newest, seen) => Comparison::Newer,
            Some(newest) => Comparison::Superseded(newest.position),
            None if message.version() > self.horizon => Comparison::Newer,
            None => Comparison::Unknown,
        }
    }

    /// Whether anything is known of the key and its tag set.
    pub fn knows(&self, key: &Hash128) -> bool {
        self.keys.contains_key(key)
    }

    /// Whether all keys written since the start are known.
    pub fn knows_all_since_start(&self) -> bool {
        !self.has_forgotten
    }

    /// Takes note of a new newest; answers what it replaces, and whether another tag set of the key
    /// may have a newer value.
    pub fn put(&mut self, key: Hash128, newest: Newest) -> (Before, bool) {
        let version = newest.version;
        let of_all = match self.all.entry(key.key_part()) {
            Entry::Occupied(mut known) => {
                let of_all = *known.get();
                known.insert(of_all.max(version));
                Some(of_all)
            }
            Entry::Vacant(place) => {
                place.insert(version);
                None
            }
        };
        let late = version <= self.horizon || of_all.is_some_and(|of_all| of_all >= version);
        (Before { newest: self.keys.insert(key, newest), of_all }, late)
    }

    /// Takes note of what the store says, unless something is known already.
    pub fn learn(&mut self, key: Hash128, newest: Newest) {
        self.keys.entry(key).or_insert(newest);
    }

    /// Takes note that the store holds nothing under the key: everything is newer than that.
    pub fn learn_absent(&mut self, key: Hash128, source: Source) {
        self.learn(
            key,
            Newest {
                version: Hlc(0),
                source,
                sequence: Sequence::new(0),
                position: Position::new(0),
            },
        );
    }

    /// Takes a [`Self::put`] back.
    pub fn undo(&mut self, key: Hash128, before: Before) {
        match before.newest {
            Some(newest) => drop(self.keys.insert(key, newest)),
            None => drop(self.keys.remove(&key)),
        }
        match before.of_all {
            Some(of_all) => drop(self.all.insert(key.key_part(), of_all)),
            None => drop(self.all.remove(&key.key_part())),
        }
    }

    /// Makes room if there are too many keys. Only what is durable may go.
    pub fn trim(&mut self, durable: Position) {
        if self.keys.len() <= MAX_KEYS {
            return;
        }
        let mut versions: Vec<Hlc> = self.keys.values().map(|newest| newest.version).collect();
        let middle = versions.len() / 2;
        let (_, median, _) = versions.select_nth_unstable(middle);
        self.horizon = self.horizon.max(*median);
        self.has_forgotten = true;
        let horizon = self.horizon;
        self.keys.retain(|_, newest| newest.version > horizon || newest.position > durable);
        self.all.retain(|_, version| *version > horizon);
    }
}

fn is_newer(message: &Message, than: &Newest, seen: &Seen) -> bool {
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
    use crate::ids::NodeId;
    use crate::message::{Fields, Kind};
    use crate::time::WallMs;

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

    fn entry(version: u64, source: Source, position: u64) -> Newest {
        Newest {
            version: Hlc(version),
            source,
            sequence: Sequence::new(1),
            position: Position::new(position),
        }
    }

    #[test]
    fn above_the_horizon_an_unknown_key_has_nothing_newer() {
        let newest = NewestOfKeys::new(Hlc(10));
        let key = Hash128::of(&[b"k"]);
        let seen = Seen::default();
        assert_eq!(newest.compare(&key, &message(11, "a"), &seen), Comparison::Newer);
        assert_eq!(newest.compare(&key, &message(10, "a"), &seen), Comparison::Unknown);
    }

    #[test]
    fn equal_clocks_are_decided_by_the_origin() {
        let mut newest = NewestOfKeys::new(Hlc(0));
        let mut seen = Seen::default();
        let source = seen.source(&NodeId::new("b").expect("a name"), Incarnation::new(1));
        let key = Hash128::of(&[b"k"]);
        newest.put(key, entry(5, source, 3));
        let superseded = Comparison::Superseded(Position::new(3));
        assert_eq!(newest.compare(&key, &message(5, "a"), &seen), superseded);
        assert_eq!(newest.compare(&key, &message(5, "b"), &seen), superseded);
        assert_eq!(newest.compare(&key, &message(5, "c"), &seen), Comparison::Newer);
    }

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
        assert!(newest.keys.len() < MAX_KEYS / 2 + 10);
        assert!(newest.keys.contains_key(&undurable));
        let oldest = Hash128::of(&[&1_u64.to_le_bytes()]);
        assert_eq!(newest.compare(&oldest, &message(1, "a"), &seen), Comparison::Unknown);
    }
}
