//! What happened in a run: a hash of everything, and, if wanted, the last lines in words.
//!
//! The hash is always kept, so that two runs of a seed can be held against each other. Words cost
//! more than all the rest, so they are kept only when a failure is told.

use std::collections::VecDeque;

/// Lines that are kept.
const KEPT: usize = 200_000;

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    /// An empty trace, in words too if `in_words`.
    pub fn new(in_words: bool) -> Self {
        Self { hash: 0x5115_57e4, lines: in_words.then(VecDeque::new) }
    }

    /// Adds numbers to the hash.
    pub fn mix(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    /// Adds bytes to the hash.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.mix(&[u64::from_le_bytes(chunk.try_into().expect("chunks of eight"))]);
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.mix(&[u64::from_le_bytes(last), bytes.len() as u64]);
    }

    /// Adds a line, if words are wanted.
    pub fn say(&mut self, now: u64, line: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(format!("{:>12.6} {}", now as f64 / 1e6, line()));
    }

    /// Whether words are kept.
    pub fn in_words(&self) -> bool {
        self.lines.is_some()
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines that name one of these subjects, at most so many.
    pub fn tail(&self, subjects: &[String], most: usize) -> Vec<String> {
        let Some(lines) = &self.lines else { return Vec::new() };
        let named = |line: &&String| {
            subjects.is_empty() || subjects.iter().any(|subject| line.contains(subject.as_str()))
        };
        let mut tail: Vec<String> = lines.iter().rev().filter(named).take(most).cloned().collect();
        tail.reverse();
        tail
    }
}
