//! SessionTable that rest against the same ones that never do.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::session::{AppRole, Dirty, Flight, Role};
use crate::types::ids::LinkId;
use crate::types::rate::RateLimit;
use crate::types::time::{Instant, WallMs};
use crate::wire::application::AckMode;

const WALL: WallMs = WallMs(1_790_000_000_000);

fn session(number: u64) -> Session {
    let application = AppRole {
        client: Some(alloc::format!("app-{number}")),
        tags: None,
        keys: Some(Vec::from(["order:".into()])),
        ack: AckMode::Manual,
        conflate: number == 0,
        from: Position::new(1),
        replay: Position::new(0),
    };
    let role = Role::Application(application);
    let repeats = RateLimit::new(0, Instant::from_micros(0));
    let mut session = Session::new(SessionId::new(number), role, Position::new(1), repeats);
    session.walk.beginning = Beginning::at(Position::new(0), WALL);
    session
}

#[derive(Debug, Clone)]
enum Step {
    /// A batch of so many rows, with an event or without one, that is for one session.
    Batch(u64, bool, u64),
    /// A session is handed what it has not seen, or some of it.
    Walk(u64, u64),
    /// It acknowledges its first delivery.
    Settle(u64),
    Connect(u64),
    Disconnect(u64),
    Rewind(u64),
    /// The sizes of outboxes are looked at, with this bound.
    Conflate(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..4_u64;
    prop_oneof![
        6 => (1..4_u64, any::<bool>(), who()).prop_map(|(n, event, id)| Step::Batch(n, event, id)),
        3 => (who(), 1..6_u64).prop_map(|(id, rows)| Step::Walk(id, rows)),
        3 => who().prop_map(Step::Settle),
        2 => who().prop_map(Step::Connect),
        1 => who().prop_map(Step::Disconnect),
        1 => who().prop_map(Step::Rewind),
        1 => (0..12_u64).prop_map(Step::Conflate),
    ]
}

/// What a node does with its sessions; with `rests`, as it does it.
struct Lab {
    sessions: SessionTable,
    rests: bool,
    durable: Position,
}

impl Lab {
    fn new(rests: bool) -> Self {
        let mut sessions = SessionTable::new(Position::new(0));
        (0..4).for_each(|number| sessions.insert(session(number)));
        Self { sessions, rests, durable: Position::new(0) }
    }

    fn take(&mut self, step: &Step) {
        let id = match step {
            Step::Batch(rows, event, id) => return self.batch(*rows, *event, SessionId::new(*id)),
            Step::Conflate(max) => return self.conflate(*max),
            Step::Walk(id, _) | Step::Settle(id) | Step::Rewind(id) => SessionId::new(*id),
            Step::Connect(id) | Step::Disconnect(id) => SessionId::new(*id),
        };
        let durable = self.durable;
        let session = self.sessions.get_mut(&id).expect("it is there");
        match step {
            Step::Walk(_, rows) if session.link.is_some() => {
                for _ in 0..*rows {
                    if session.next <= durable {
                        if session.next.get().is_multiple_of(2) {
                            session.flights.insert(session.next, Flight::new(WALL));
                        }
                        session.came_to_event(session.next);
                        session.next = session.next.next();
                    }
                }
            }
            Step::Settle(_) => {
                let first = session.flights.keys().next().copied();
                first.into_iter().for_each(|first| drop(session.end_flight(first)));
                session.notes.answered.clear();
            }
            Step::Connect(_) => session.link = Some(LinkId::new(id.get() + 1)),
            Step::Disconnect(_) => session.disconnected(WALL),
            Step::Rewind(_) => session.rewind(durable),
            Step::Walk(..) | Step::Batch(..) | Step::Conflate(_) => {}
        }
    }

    fn batch(&mut self, rows: u64, event: bool, interested: SessionId) {
        let first = self.durable.next();
        let last = Position::new(self.durable.get() + rows);
        let event = event.then_some(first);
        self.durable = last;
        self.sessions.wake(&interested);
        let mut idle = Vec::new();
        self.sessions.each_awake(|session| {
            let is_away = session.link.is_none();
            let may_skip = !is_away && session.id != interested;
            if is_away || (may_skip && session.skip(first..=last, event)) {
                idle.push(session.id);
            }
        });
        self.sessions.go_with(last, event);
        idle.into_iter().filter(|_| self.rests).for_each(|id| self.sessions.rest(id));
    }

    /// Each row is one byte.
    fn conflate(&mut self, max: u64) {
        let durable = self.durable;
        let from = |next: Position| durable.next().get() - next.get();
        self.sessions.wake_away(|next| from(next) > max);
        self.sessions.each_awake(|session| {
            let lags = session.link.is_none() && session.wants_conflation();
            if session.next <= durable && (from(session.next) > max || lags) {
                session.conflate(durable);
            }
        });
    }

    fn floors(&mut self) -> (Position, Position) {
        let mut floors = (self.durable, self.durable);
        self.sessions.each_awake(|session| {
            floors.0 = floors.0.min(session.cursor());
            floors.1 = floors.1.min(session.state_settled());
        });
        let (cursor, state) = self.sessions.resting_floors();
        (floors.0.min(cursor.unwrap_or(floors.0)), floors.1.min(state.unwrap_or(floors.1)))
    }

    fn told(&mut self) -> Vec<(Position, Position, Position, Position)> {
        let told = |it: &mut Session| {
            (it.next, it.cursor(), it.state_settled(), it.walk.beginning.first_event)
        };
        self.sessions.values_mut().map(told).collect()
    }
}

proptest! {
    // keeps: sessions-at-rest
    #[test]
    fn who_rests_is_where_it_would_be_awake(
        steps in prop::collection::vec((step(), any::<bool>()), 1..80),
    ) {
        let (mut resting, mut awake) = (Lab::new(true), Lab::new(false));
        for (step, wakes) in steps {
            resting.take(&step);
            awake.take(&step);
            prop_assert_eq!(resting.floors(), awake.floors(), "{:?}", step);
            if wakes {
                prop_assert_eq!(resting.told(), awake.told(), "{:?}", step);
                let rests = &resting.sessions.resting;
                prop_assert!(rests.cursors.is_empty() && rests.states.is_empty());
                prop_assert!(rests.away.is_empty() && rests.eventless.is_empty());
            }
        }
        prop_assert_eq!(resting.told(), awake.told());
    }
}

#[test]
fn who_leaves_at_rest_knows_where_the_log_ends() {
    let mut lab = Lab::new(true);
    let id = SessionId::new(2);
    lab.take(&Step::Connect(2));
    lab.take(&Step::Batch(1, false, 1));
    lab.take(&Step::Batch(9, true, 1));
    assert!(!lab.sessions.awake().any(|session| session.id == id), "it rests");
    let mut left = lab.sessions.remove(&id).expect("it was there");
    assert_eq!((left.next, left.walk.beginning.first_event), (Position::new(11), Position::new(2)));
    assert!(left.touch(Dirty::Now), "nothing of it is to be written");
    assert_eq!((lab.sessions.len(), lab.sessions.get(&id).is_none()), (3, true));
}
