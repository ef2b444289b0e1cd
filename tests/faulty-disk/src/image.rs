//! What of a directory is durable, and what a power loss may leave of the rest.
//!
//! A write is durable when its file was synced afterwards, a file's name when the directory was.
//! Of what is not durable any part may survive, in any order: sectors of 512 bytes, each whole or
//! not at all, and names. Bytes outside of what was written are never touched, which SQLite
//! relies on too (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;

/// What survives a power loss of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survives {
    /// Everything: the process was killed, and the power stayed.
    All,
    /// Nothing.
    Nothing,
    /// What a seed says: a beginning, or any sectors of it.
    Some(u64),
}

/// What was done to a file.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// The files, by their paths.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    files: BTreeMap<PathBuf, File>,
}

#[derive(Debug, Default)]
struct File {
    is_there: bool,
    /// Whether its name is there after a power loss; what SQLite deletes may come back.
    is_durably_there: bool,
    synced: Vec<u8>,
    /// What was written since, in order.
    unsynced: Vec<Change>,
}

impl Directory {
    pub(crate) fn knows(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    pub(crate) fn found(&mut self, path: &Path, content: Option<Vec<u8>>) {
        let is_there = content.is_some();
        let synced = content.unwrap_or_default();
        let file = File { is_there, is_durably_there: is_there, synced, unsynced: Vec::new() };
        self.files.insert(path.into(), file);
    }

    pub(crate) fn create(&mut self, path: &Path) {
        let file = self.files.entry(path.into()).or_default();
        if !file.is_there {
            let is_durably_there = file.is_durably_there;
            *file = File { is_there: true, is_durably_there, ..File::default() };
        }
    }

    pub(crate) fn change(&mut self, path: &Path, change: Change) {
        self.files.entry(path.into()).or_default().unsynced.push(change);
    }

    pub(crate) fn sync(&mut self, path: &Path) {
        let file = self.files.entry(path.into()).or_default();
        for change in file.unsynced.drain(..) {
            change.apply(&mut file.synced);
        }
    }

    /// The system could not write what waits, and marks it as written.
    pub(crate) fn lose(&mut self, path: &Path) {
        self.files.entry(path.into()).or_default().unsynced.clear();
    }

    pub(crate) fn delete(&mut self, path: &Path) {
        self.files.entry(path.into()).or_default().is_there = false;
    }

    pub(crate) fn sync_entries(&mut self) {
        for file in self.files.values_mut() {
            file.is_durably_there = file.is_there;
        }
    }

    pub(crate) fn write_down(&self, survives: Survives, into: &Path) {
        let mut coin = Coin::new(survives);
        for (path, file) in &self.files {
            let is_there = match survives {
                Survives::All => file.is_there,
                Survives::Nothing => file.is_durably_there,
                Survives::Some(_) if file.is_there == file.is_durably_there => file.is_there,
                Survives::Some(_) => coin.falls(2),
            };
            if is_there {
                let name = path.file_name().expect("a file has a name");
                std::fs::write(into.join(name), file.left(survives, &mut coin))
                    .expect("the image can be written");
            }
        }
    }
}

impl File {
    fn left(&self, survives: Survives, coin: &mut Coin) -> Vec<u8> {
        let mut content = self.synced.clone();
        let pieces = match survives {
            Survives::All => self.unsynced.clone(),
            Survives::Nothing => return content,
            Survives::Some(_) => self.unsynced.iter().flat_map(Change::sectors).collect(),
        };
        let is_a_beginning = coin.falls(3);
        let kept = coin.below(pieces.len() as u64 + 1) as usize;
        let odds = 2 + coin.below(6);
        for (index, piece) in pieces.iter().enumerate() {
            let stays = match survives {
                Survives::All | Survives::Nothing => true,
                Survives::Some(_) if is_a_beginning => index < kept,
                // Few, half, or most of them.
                Survives::Some(seed) if seed % 2 == 0 => coin.falls(odds),
                Survives::Some(_) => !coin.falls(odds),
            };
            if stays {
                piece.apply(&mut content);
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Truncate(size) => content.resize(*size, 0),
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
        }
    }

    /// The change, cut where the disk may cut it.
    fn sectors(&self) -> Vec<Self> {
        let Self::Write { offset, bytes } = self else { return vec![self.clone()] };
        let mut pieces = Vec::new();
        let (mut begin, end) = (*offset, offset + bytes.len());
        while begin < end {
            let upto = end.min((begin / SECTOR + 1) * SECTOR);
            let bytes = bytes[begin - offset..upto - offset].to_vec();
            pieces.push(Self::Write { offset: begin, bytes });
            begin = upto;
        }
        pieces
    }
}

/// About half of what is written at `offset`, cut where the disk may cut it.
pub(crate) fn first_sectors(bytes: &[u8], offset: usize) -> &[u8] {
    let end = (offset + bytes.len() / 2) / SECTOR * SECTOR;
    &bytes[..end.saturating_sub(offset)]
}

/// Chance that follows from a seed (splitmix64).
struct Coin(u64);

impl Coin {
    fn new(survives: Survives) -> Self {
        Self(match survives {
            Survives::Some(seed) => seed,
            Survives::All | Survives::Nothing => 0,
        })
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `odds` times.
    fn falls(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: usize, bytes: &[u8]) -> Change {
        Change::Write { offset, bytes: bytes.to_vec() }
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_may() {
        let mut directory = Directory::default();
        let path = Path::new("file");
        directory.create(path);
        directory.change(path, write(0, &[1; 2000]));
        directory.sync(path);
        directory.change(path, write(700, &[2; 1000]));
        let left = |survives| {
            let file = &directory.files[path];
            file.left(survives, &mut Coin::new(survives))
        };
        assert_eq!(left(Survives::Nothing), [1; 2000]);
        assert_eq!(left(Survives::All)[700..1700], [2; 1000]);
        let mut torn = 0;
        for seed in 0..100 {
            let left = left(Survives::Some(seed));
            assert!(left[..700].iter().chain(&left[1700..]).all(|byte| *byte == 1));
            // Within a sector it is all or nothing.
            assert!(left[1024..1536] == [1; 512] || left[1024..1536] == [2; 512]);
            torn += usize::from(left[700..1700].contains(&1) && left[700..1700].contains(&2));
        }
        assert!(torn > 20, "{torn}");
    }

    #[test]
    fn a_name_is_durable_with_its_directory() {
        let mut directory = Directory::default();
        let path = Path::new("file");
        directory.create(path);
        directory.sync(path);
        assert!(!directory.files[path].is_durably_there);
        directory.sync_entries();
        directory.delete(path);
        assert!(directory.files[path].is_durably_there && !directory.files[path].is_there);
        directory.sync_entries();
        assert!(!directory.files[path].is_durably_there);
    }

    #[test]
    fn what_a_failed_sync_lost_no_later_sync_brings_back() {
        let mut directory = Directory::default();
        let path = Path::new("file");
        directory.create(path);
        directory.change(path, write(0, &[1; 10]));
        directory.lose(path);
        directory.change(path, write(10, &[2; 10]));
        directory.sync(path);
        assert_eq!(directory.files[path].synced, [[0; 10], [2; 10]].concat());
    }
}
