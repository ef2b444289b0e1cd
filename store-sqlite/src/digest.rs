//! Checksums of rows, and the digest of a table that they add up to.
//!
//! What stays true: a row that is missing, is there twice, or is another one than was written
//! leaves the table with another digest than the one in table `meta`.

use rusqlite::types::{ToSql, ToSqlOutput};

/// The sum of the checksums of all rows, modulo 2^32. A sum and not an XOR: a row that a damaged
/// page shows three times must count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Digest(pub(crate) u32);

impl Digest {
    pub(crate) fn add(&mut self, checksum: u32) {
        self.0 = self.0.wrapping_add(checksum);
    }

    pub(crate) fn remove(&mut self, checksum: u32) {
        self.0 = self.0.wrapping_sub(checksum);
    }

    /// Takes in what another one has come to, beginning at zero.
    pub(crate) fn change(&mut self, by: Self) {
        self.add(by.0);
    }
}

impl ToSql for Digest {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

/// CRC-32 of some numbers and some bytes.
pub(crate) fn checksum_of<const N: usize>(numbers: [u64; N], parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    for part in parts {
        // So that no byte can move from one part to the next.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}
