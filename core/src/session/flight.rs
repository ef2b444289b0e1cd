//! A flight: something handed over, or offered, and not acknowledged.

use alloc::boxed::Box;
use alloc::string::String;

use crate::ids::Position;
use crate::offer::Id;
use crate::time::{Instant, WallMs};

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
    /// Its `messageId`, where an application may acknowledge by that.
    pub id: Option<Box<str>>,
    /// What was said at the first and at the last failure.
    pub errors: Option<(String, String)>,
    /// The application asked for it again, later.
    pub nacked: bool,
    /// The application wants none of it.
    pub rejected: bool,
    /// Whether a peer was offered it instead.
    pub offer: Offer,
    /// Whether it is, or may be, an event.
    pub is_event: bool,
    /// The flight of which it is a copy (P10): it is handed over if that one is given up for it.
    pub copy_of: Option<Position>,
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
    /// A flight that has not begun.
    pub fn new(first_at: WallMs) -> Self {
        Self {
            handed: 0,
            failed: 0,
            first_at,
            due: None,
            on_link: false,
            carried: 0,
            id: None,
            errors: None,
            nacked: false,
            rejected: false,
            offer: Offer::No,
            is_event: true,
            copy_of: None,
        }
    }

    /// Whether the link has not carried it, and may.
    pub(super) fn is_fresh(&self) -> bool {
        let waits = matches!(self.offer, Offer::Open(_)) || self.copy_of.is_some();
        !self.on_link && self.due.is_none() && !waits
    }

    /// Takes note of a failed hand-over.
    pub fn fail(&mut self, error: &str) {
        self.failed += 1;
        let first = self.errors.take().map_or_else(|| error.into(), |(first, _)| first);
        self.errors = Some((first, error.into()));
    }
}
