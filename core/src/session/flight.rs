//! A flight: something handed over, or offered, and not acknowledged.
//!
//! What stays true: a hand-over is one attempt, however often and in whatever way it fails; and a
//! [`Word`] that is final is never taken back by another one.

use alloc::boxed::Box;
use alloc::string::String;

use crate::log::dead_letter::{Letter, Said};
use crate::log::seen::Id;
use crate::store::DeadReason;
use crate::types::ids::{DeadLetterId, Position};
use crate::types::time::{Instant, WallMs};
use crate::wire::message::Message;

/// Something handed over and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    /// Hand-overs so far.
    pub handed: u32,
    /// Hand-overs that a live receiver left unacknowledged or answered with NACK.
    pub failed: u32,
    /// When it was handed over first.
    pub first_at: WallMs,
    /// When it is handed over again; `None` while the socket or a peer has it.
    pub due: Option<Instant>,
    /// Whether the link that is up now has carried it.
    pub on_link: bool,
    /// When that was first, as [`Session::carries`] counts.
    pub carried: u64,
    /// The frame of the link that carried it first, where an application acknowledges.
    pub frame: u64,
    /// Its `messageId`, where an application may acknowledge by that.
    pub id: Option<Box<str>>,
    /// What was said at the first and at the last failure.
    pub errors: Option<(String, String)>,
    /// What has become of the last hand-over.
    pub word: Word,
    /// Whether a peer was offered it instead.
    pub offer: Offer,
    /// Whether it is, or may be, an event.
    pub is_event: bool,
    /// The flight of which it is a copy (P10): it is handed over if that one is given up for it.
    pub copy_of: Option<Position>,
}

/// What has become of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Nothing yet.
    None,
    /// Its time was over, or its connection was lost: the attempt is counted.
    Missed,
    /// The application asked for it again, later: the attempt is counted.
    Retry,
    /// The application wants none of it: it becomes this dead letter, or just ends (0) where the
    /// session has no name.
    Reject(DeadLetterId),
    /// The last attempt has failed: it becomes a dead letter.
    Exhausted {
        /// Whether the application said so.
        said: bool,
    },
}

impl Word {
    /// Whether the message is not handed over any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::None | Self::Missed | Self::Retry => false,
            Self::Reject(_) | Self::Exhausted { .. } => true,
        }
    }

    /// Whether the application has spoken of this very hand-over.
    pub fn is_said(self) -> bool {
        match self {
            Self::None | Self::Missed | Self::Exhausted { said: false } => false,
            Self::Retry | Self::Reject(_) | Self::Exhausted { said: true } => true,
        }
    }
}

/// Where the offer of a message to a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Offer {
    /// It is sent unasked.
    No,
    /// The peer has not answered yet.
    Open(Id),
    /// The peer has asked for it.
    Wanted(Id),
}

impl Flight {
    /// The dead letter that it becomes.
    pub fn letter(&self, id: DeadLetterId, reason: DeadReason, message: &Message) -> Letter {
        let carried = if self.on_link { self.carried } else { 0 };
        let said = if self.word.is_said() { Said::Retry } else { Said::Nothing };
        Letter { said, carried, ..Letter::new(id, reason, message) }
    }

    /// A flight that has not begun.
    pub fn new(first_at: WallMs) -> Self {
        Self {
            handed: 0,
            failed: 0,
            first_at,
            due: None,
            on_link: false,
            carried: 0,
            frame: 0,
            id: None,
            errors: None,
            word: Word::None,
            offer: Offer::No,
            is_event: true,
            copy_of: None,
        }
    }

    /// Whether the link has not carried it, and may.
    pub(super) fn is_fresh(&self) -> bool {
        let waits = matches!(self.offer, Offer::Open(_)) || self.copy_of.is_some();
        !self.on_link && self.due.is_none() && !waits && !self.word.is_final()
    }

    /// Takes note that the hand-over has failed, as the application has `said` or not. Of so many
    /// attempts that fail the last one is final.
    pub fn fail(&mut self, error: &str, said: bool, max_attempts: u32) {
        if self.word == (Word::Exhausted { said: false }) && said {
            self.note(error);
            self.word = Word::Exhausted { said };
        }
        if self.word.is_final() || self.word.is_said() || (self.word == Word::Missed && !said) {
            return;
        }
        self.failed += u32::from(self.word == Word::None);
        self.note(error);
        self.word = match said {
            _ if self.failed >= max_attempts => Word::Exhausted { said },
            true => Word::Retry,
            false => Word::Missed,
        };
    }

    /// Takes note that the application wants none of it.
    pub fn reject(&mut self, error: &str, letter: DeadLetterId) {
        self.note(error);
        (self.word, self.due) = (Word::Reject(letter), None);
    }

    fn note(&mut self, error: &str) {
        let first = self.errors.take().map_or_else(|| error.into(), |(first, _)| first);
        self.errors = Some((first, error.into()));
    }
}
