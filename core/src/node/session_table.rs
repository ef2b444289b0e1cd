//! All sessions of a node, and which of them rest: a batch costs nothing for those.
//!
//! An application's session rests once nothing of a batch was for it: while it is connected, and
//! its next row is then the end of the log, wherever that moves; or while it is away. What stays
//! true: whoever is changed was woken before, so nothing of a session at rest changes but where the
//! end of the log lies; and what it needs of the log is known without looking at it. A peer never
//! rests, nor does a session that is to be conflated, or may have to be soon.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::session::{Beginning, Session};
use crate::types::ids::{Position, SessionId};

/// The sessions of a node.
#[derive(Debug)]
pub struct SessionTable {
    all: BTreeMap<SessionId, Kept>,
    awake: BTreeSet<SessionId>,
    resting: Resting,
    /// How often a session was looked at.
    #[cfg(test)]
    pub looks: core::sync::atomic::AtomicUsize,
}

#[derive(Debug)]
struct Kept {
    session: Session,
    rest: Option<Rest>,
}

/// How a session rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Its next row is the end of the log.
    AtEnd,
    /// Its application is away: it stays where it is.
    Away,
}

/// What is known of the sessions that rest.
#[derive(Debug)]
struct Resting {
    /// The row behind the end of the log.
    end: Position,
    /// Those at the end that have come to no event yet.
    eventless: BTreeSet<SessionId>,
    /// Their cursors, where these are not implied by the end of the log.
    cursors: BTreeSet<(Position, SessionId)>,
    /// Up to where superseded state is settled for those that are away.
    states: BTreeSet<(Position, SessionId)>,
    /// The next rows of those that are away.
    away: BTreeSet<(Position, SessionId)>,
}

impl SessionTable {
    /// No sessions, of a log that ends at `head`.
    pub fn new(head: Position) -> Self {
        let resting = Resting {
            end: head.next(),
            eventless: BTreeSet::new(),
            cursors: BTreeSet::new(),
            states: BTreeSet::new(),
            away: BTreeSet::new(),
        };
        Self {
            all: BTreeMap::new(),
            awake: BTreeSet::new(),
            resting,
            #[cfg(test)]
            looks: 0.into(),
        }
    }

    /// Adds a session, awake.
    pub fn insert(&mut self, session: Session) {
        self.awake.insert(session.id);
        self.all.insert(session.id, Kept { session, rest: None });
    }

    /// Takes a session out.
    pub fn remove(&mut self, id: &SessionId) -> Option<Session> {
        let mut kept = self.all.remove(id)?;
        self.resting.wake(&mut kept);
        self.awake.remove(id);
        Some(kept.session)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// A session. Of one that rests, `next` and what follows from it may be out of date.
    pub fn get(&self, id: &SessionId) -> Option<&Session> {
        self.look(1);
        self.all.get(id).map(|kept| &kept.session)
    }

    /// Wakes a session, to look at it or to change it.
    pub fn get_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.look(1);
        let kept = self.all.get_mut(id)?;
        // Most are awake.
        if kept.rest.is_some() && self.resting.wake(kept) {
            self.awake.insert(*id);
        }
        Some(&mut kept.session)
    }

    /// Wakes a session, if there is one of this number.
    pub fn wake(&mut self, id: &SessionId) {
        self.get_mut(id);
    }

    /// All sessions. Of those that rest, `next` and what follows from it may be out of date, unless
    /// [`Self::wake_all`] was called before.
    pub fn values(&self) -> impl Iterator<Item = &Session> {
        self.look(self.all.len());
        self.all.values().map(|kept| &kept.session)
    }

    /// Wakes all sessions, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.wake_all();
        self.all.values_mut().map(|kept| &mut kept.session)
    }

    /// Wakes all sessions.
    pub fn wake_all(&mut self) {
        self.look(self.all.len());
        for (id, kept) in &mut self.all {
            if self.resting.wake(kept) {
                self.awake.insert(*id);
            }
        }
    }

    /// Those that are awake, with those of all peers among them.
    pub fn awake(&self) -> impl Iterator<Item = &Session> {
        self.look(self.awake.len());
        self.awake.iter().filter_map(|id| self.all.get(id)).map(|kept| &kept.session)
    }

    /// Looks at each that is awake.
    pub fn each_awake(&mut self, mut look: impl FnMut(&mut Session)) {
        self.look(self.awake.len());
        for id in &self.awake {
            if let Some(kept) = self.all.get_mut(id) {
                look(&mut kept.session);
            }
        }
    }

    /// Lets a session rest of which nothing is to be done, if it may: one that is away, or one that
    /// has just skipped all rows up to the end of the log.
    pub fn rest(&mut self, id: SessionId) {
        self.look(1);
        if let Some(kept) = self.all.get_mut(&id)
            && self.resting.begin(kept)
        {
            self.awake.remove(&id);
        }
    }

    /// The log goes on up to `end`, and those that rest at its end go with it. `event` is the first
    /// event among the new rows.
    pub fn go_with(&mut self, end: Position, event: Option<Position>) {
        self.resting.end = end.next();
        let Some(event) = event else { return };
        for id in core::mem::take(&mut self.resting.eventless) {
            self.look(1);
            if let Some(kept) = self.all.get_mut(&id) {
                kept.session.came_to_event(event);
            }
        }
    }

    /// The lowest cursor of those that rest, and up to where superseded state is settled for all of
    /// them; `None`: the end of the log.
    pub fn resting_floors(&self) -> (Option<Position>, Option<Position>) {
        let first =
            |of: &BTreeSet<(Position, SessionId)>| of.first().map(|(position, _)| *position);
        (first(&self.resting.cursors), first(&self.resting.states))
    }

    /// Wakes those that are away for whose next row this holds. If it holds for a row, then for
    /// those before it.
    pub fn wake_away(&mut self, is_far: impl Fn(Position) -> bool) {
        while let Some((next, id)) = self.resting.away.first().copied() {
            if !is_far(next) || self.get_mut(&id).is_none() {
                break;
            }
        }
    }

    #[cfg(test)]
    fn look(&self, at: usize) {
        self.looks.fetch_add(at, core::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(not(test))]
    fn look(&self, _at: usize) {}
}

impl Resting {
    /// Lets a session rest, if it may. Answers whether it does.
    fn begin(&mut self, kept: &mut Kept) -> bool {
        let session = &kept.session;
        let is_idle = session.application().is_some()
            && session.fetch.is_none()
            && session.notes.answered.is_empty();
        let rest = match session.link {
            Some(_) if session.next == self.end => Rest::AtEnd,
            None if !may_conflate(session) => Rest::Away,
            Some(_) | None => return false,
        };
        if !is_idle || kept.rest.is_some() {
            return false;
        }
        kept.rest = Some(rest);
        let id = session.id;
        if rest == Rest::AtEnd && session.walk.beginning.first_event == Beginning::NO_EVENT {
            self.eventless.insert(id);
        }
        let needs_rows = rest == Rest::Away || !session.flights.is_empty();
        if needs_rows && session.receives() {
            self.cursors.insert((session.cursor(), id));
        }
        if rest == Rest::Away && session.receives() {
            self.states.insert((session.state_settled(), id));
            self.away.insert((session.next, id));
        }
        true
    }

    /// Wakes a session. Answers whether it was at rest.
    fn wake(&mut self, kept: &mut Kept) -> bool {
        let Some(rest) = kept.rest.take() else { return false };
        let session = &mut kept.session;
        // As when it began, for nothing of it has changed.
        self.cursors.remove(&(session.cursor(), session.id));
        match rest {
            Rest::AtEnd => {
                self.eventless.remove(&session.id);
                session.next = self.end;
            }
            Rest::Away => {
                self.states.remove(&(session.state_settled(), session.id));
                self.away.remove(&(session.next, session.id));
            }
        }
        true
    }
}

/// Whether a session that is away is to be conflated, or where its next row lies does not tell
/// whether it is.
fn may_conflate(session: &Session) -> bool {
    session.wants_conflation() || session.is_conflating() || session.dead_bytes() > 0
}

#[cfg(test)]
mod tests;
