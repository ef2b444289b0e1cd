//! Looks into the write-ahead log before SQLite does, for what SQLite would drop without a word.
//!
//! SQLite reads the log up to the first frame whose checksum does not fit, because a power loss
//! leaves such an end. So one flipped bit hides everything behind it. The two can be told apart:
//! frames carry the salt of their log and a checksum that goes on from frame to frame, and a
//! transaction is begun only when the one before it was synced. A frame that continues a commit
//! at or behind the place where SQLite stops therefore proves damage: what was written before it
//! was on the disk. Without that proof (damage in the last transaction, a log that is cut off or
//! gone) nothing is said: a store that went back is noticed by its peers, who were told of more.
//! Of a log in which commits are not synced it may also have been the power.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Result};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Bytes of a frame's header that its checksum covers.
const COVERED: usize = 8;

/// The first four bytes; the last bit tells the byte order of the checksums.
const MAGIC: u32 = 0x377f_0682;

/// The frame, counted from 1, from which on committed transactions are lost, or 0 if all are.
pub(crate) fn lost_from(path: &Path) -> Result<Option<u32>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; HEADER];
    if !fill(&mut file, &mut header)? {
        return Ok(None);
    }
    let Some(log) = WalHeader::new(&header) else {
        // It is written as a whole and synced before the first frame.
        return Ok(Some(0));
    };
    let mut frame = vec![0; FRAME_HEADER + log.page_size];
    let mut frames = WalFrames { log, before: log.checksum, ..WalFrames::default() };
    while fill(&mut file, &mut frame)? {
        if frames.proves_damage(&frame) {
            return Ok(frames.stopped_at);
        }
    }
    Ok(None)
}

/// Reads as much as there is room for; false at the end of the file.
fn fill(file: &mut impl Read, into: &mut [u8]) -> Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

type Checksum = (u32, u32);

/// What the header says.
#[derive(Debug, Clone, Copy, Default)]
struct WalHeader {
    is_big_endian: bool,
    page_size: usize,
    salt: (u32, u32),
    checksum: Checksum,
}

impl WalHeader {
    fn new(header: &[u8; HEADER]) -> Option<Self> {
        let magic = word(header, 0);
        let mut log = Self {
            is_big_endian: magic & 1 == 1,
            page_size: word(header, 8) as usize,
            salt: (word(header, 16), word(header, 20)),
            checksum: (word(header, 24), word(header, 28)),
        };
        let is_sound = magic & !1 == MAGIC
            && (512..=65_536).contains(&log.page_size)
            && log.after((0, 0), &header[..24]) == log.checksum;
        log.page_size = if is_sound { log.page_size } else { return None };
        Some(log)
    }

    /// The checksum that goes on from `before` over `bytes`.
    fn after(&self, before: Checksum, bytes: &[u8]) -> Checksum {
        let word = |bytes: &[u8]| {
            let bytes = bytes.try_into().expect("there are four of them");
            if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        bytes.chunks_exact(8).fold(before, |(first, second), pair| {
            let first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
            let second = second.wrapping_add(word(&pair[4..])).wrapping_add(first);
            (first, second)
        })
    }
}

/// The frames, one after the other.
#[derive(Debug, Default)]
struct WalFrames {
    log: WalHeader,
    /// Number of the last frame looked at.
    number: u32,
    /// The checksum that the last frame carries, ...
    before: Checksum,
    /// ... and the one that it should carry.
    computed: Checksum,
    /// Whether the last frame is at or behind the stop, and says that it ends a transaction.
    was_commit: bool,
    /// The first frame that SQLite does not take.
    stopped_at: Option<u32>,
}

impl WalFrames {
    /// Takes in the next frame; whether it proves that SQLite stops before the end.
    fn proves_damage(&mut self, frame: &[u8]) -> bool {
        self.number += 1;
        let stored = (word(frame, 16), word(frame, 20));
        let goes_on = |before| {
            let checksum = self.log.after(before, &frame[..COVERED]);
            self.log.after(checksum, &frame[FRAME_HEADER..])
        };
        let computed = goes_on(self.before);
        // The damage may also be in the checksum that the frame before carries.
        let fits =
            computed == stored || (self.stopped_at.is_some() && goes_on(self.computed) == stored);
        let is_of_this_log = (word(frame, 8), word(frame, 12)) == self.log.salt;
        let is_sound = fits && is_of_this_log && word(frame, 0) != 0;
        if !is_sound && self.stopped_at.is_none() {
            self.stopped_at = Some(self.number);
        }
        let proves =
            self.stopped_at.is_some_and(|at| at < self.number) && is_sound && self.was_commit;
        // A damaged one as well: what goes on from its checksum shows that it was written.
        self.was_commit = word(frame, 4) != 0 && self.stopped_at.is_some();
        (self.before, self.computed) = (stored, computed);
        proves
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("there are four of them"))
}
