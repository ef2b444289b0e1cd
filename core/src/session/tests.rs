//! A session against a plain list, its repeats against their definition, and its record.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use allocation_counter::measure;
use proptest::prelude::*;

use super::*;
use crate::config::Retry;
use crate::log::seen::Seen;
use crate::store::SessionRecord;
use crate::types::clock::Hlc;
use crate::types::ids::Sequence;
use crate::wire::message::{Fields, Kind, Message};
use bytes::BytesMut;

const WALL: WallMs = WallMs(1_790_000_000_000);

fn repeats(rate: u32) -> RateLimit {
    RateLimit::new(rate, Instant::from_micros(0))
}

fn named() -> AppRole {
    AppRole {
        client: Some("pi-1".into()),
        tags: None,
        keys: None,
        ack: AckMode::Manual,
        conflate: false,
        from: Position::new(1),
        replay: Position::new(0),
    }
}

fn peer() -> Role {
    Role::Peer(Peer {
        node: NodeId::new("b").expect("a name"),
        store: StoreId(1),
        incarnation: Incarnation::new(1),
        reported: Position::new(0),
    })
}

fn session(role: Role) -> Session {
    Session::new(SessionId::new(1), role, Position::new(1), repeats(0))
}

fn at(position: u64) -> Position {
    Position::new(position)
}

#[test]
fn a_stretch_that_is_conflated_is_counted_once() {
    let mut session = session(peer());
    session.next = at(11);
    assert!(session.conflate(at(50)), "it begins");
    assert!(!session.conflate(at(80)), "and goes on");
    assert_eq!((session.check_upto(), session.state_settled()), (at(80), at(80)));
    assert_eq!(session.conflated_upto(at(20)), Some((at(11), at(20))));
    session.leave_out(at(20), 10);
    session.next = at(21);
    assert_eq!(session.conflated_upto(at(100)), Some((at(21), at(80))));
    // The link is lost, and the peer begins again behind its cursor.
    session.next = at(15);
    assert_eq!(session.conflated_upto(at(100)), Some((at(21), at(80))));
    session.next = at(81);
    assert!(!session.is_conflating());
    assert_eq!(session.conflated_upto(at(100)), None);
    assert!(session.conflate(at(90)), "again");
    assert_eq!(session.conflated_upto(at(100)), Some((at(81), at(90))));
    session.rewind(at(95));
    assert!(!session.is_conflating() && !session.conflate(at(95)), "it is in doubt anyway");
    assert_eq!(session.conflated_upto(at(95)), None);
}

// keeps: outbox-bound
#[test]
fn a_conflated_session_stays_so_across_a_restart() {
    for role in [peer(), Role::Application(named())] {
        let mut session = session(role);
        session.next = at(11);
        session.conflate(at(50));
        let tags = TagSet::new([]).expect("none");
        let record = session.record(WALL, &tags).expect("it is stored");
        // The record was written when it began; the store may have dropped rows since.
        let again = Session::recover(&record, at(70), &tags, repeats(0)).expect("it can be read");
        assert_eq!(again.conflated_upto(at(100)), Some((at(11), at(70))));
        session.next = at(51);
        let record = session.record(WALL, &tags).expect("it is stored");
        let again = Session::recover(&record, at(70), &tags, repeats(0)).expect("it can be read");
        assert!(!again.is_conflating());
        for length in 0..record.state.len() {
            let state = record.state.slice(..length);
            let cut = SessionRecord { state, ..record.clone() };
            Session::recover(&cut, at(70), &tags, repeats(0));
        }
    }
}

#[test]
fn what_is_in_flight_holds_no_superseded_state() {
    let mut application = session(Role::Application(named()));
    let mut peer = session(peer());
    for session in [&mut application, &mut peer] {
        session.next = at(30);
        session.flights.insert(at(10), Flight::new(WALL));
    }
    assert_eq!((application.cursor(), application.state_settled()), (at(9), at(29)));
    assert_eq!((peer.cursor(), peer.state_settled()), (at(9), at(9)));
}

// keeps: cumulative-ack
#[test]
fn a_cumulative_ack_speaks_of_what_the_link_carried_before() {
    let mut session = session(Role::Application(named()));
    // 1 was lost with an earlier link; 2 and 4 were carried in order; 3 came again behind 4.
    let flights = [(1, false, 1, 0), (2, true, 1, 5), (3, true, 2, 7), (4, true, 1, 6)];
    for (position, on_link, handed, carried) in flights {
        let flight = Flight { on_link, handed, carried, ..Flight::new(WALL) };
        session.flights.insert(Position::new(position), flight);
    }
    let before = |session: &Session, delivery| -> Vec<u64> {
        let delivery = Position::new(delivery);
        let last = session.flights.get(&delivery).map(|flight| flight.carried);
        let carried = session.carried_before(delivery, last);
        carried.into_iter().map(Position::get).collect()
    };
    assert_eq!(before(&session, 4), [2, 4]);
    assert_eq!(before(&session, 3), [2, 3]);
    assert_eq!(before(&session, 1), [0_u64; 0], "it is not on this link");
    session.flights.remove(&Position::new(4));
    assert_eq!(before(&session, 4), [2], "settled already, and 3 may still be on its way");
}

fn row(position: u64, path: &str, tags: &str, key: &str) -> Row {
    let fields = Fields {
        kind: Kind::Sk,
        incarnation: Incarnation::new(1),
        sequence: Sequence::new(position),
        version: Hlc::at(WALL),
        expires: WallMs(0),
        group: "",
        tags,
        path,
        id: "m",
        key,
        body: "1",
    };
    let message = Message::encode(&fields, &mut BytesMut::new());
    let key_hash = message.key_hash();
    Row { key_hash, ..Row::new(Position::new(position), message) }
}

/// What may happen to a session that walks its log.
#[derive(Debug, Clone)]
enum Step {
    /// The next row is looked at; whether it is owed.
    Walk(bool),
    /// The receiver settles a row.
    Settle(u64),
    /// The peer is known to have a row.
    Know(u64),
    /// The link is lost.
    Disconnect,
    /// The node is killed and started again on the record.
    Restart,
    /// Everything may have been handed over before.
    Rewind,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(Step::Walk),
        4 => (1..30_u64).prop_map(Step::Settle),
        1 => (1..30_u64).prop_map(Step::Know),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Restart),
        1 => Just(Step::Rewind),
    ]
}

/// The log as a list, each row with what the session owes of it: `None` before it was looked at,
/// `Some(true)` in flight, `Some(false)` settled.
struct Model(BTreeMap<u64, bool>);

impl Model {
    fn next(&self) -> u64 {
        self.0.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// Everything up to here is settled.
    fn cursor(&self) -> u64 {
        let first = self.0.iter().find(|(_, in_flight)| **in_flight);
        first.map_or(self.next(), |(position, _)| *position) - 1
    }

    fn in_flight(&self) -> Vec<u64> {
        self.0.iter().filter(|(_, in_flight)| **in_flight).map(|(position, _)| *position).collect()
    }
}

/// Takes the steps with session and model, which must say the same after each.
fn walk(role: &Role, steps: Vec<Step>) {
    let is_peer = matches!(role, Role::Peer(_));
    let (mut session, mut model) = (session(role.clone()), Model(BTreeMap::new()));
    let tags = TagSet::empty();
    for step in steps {
        match step {
            Step::Walk(owed) => {
                let position = model.next();
                let known = session.known.remove(&Position::new(position));
                if owed && !known {
                    session.flights.insert(Position::new(position), Flight::new(WALL));
                }
                session.next = Position::new(position + 1);
                model.0.insert(position, owed && !known);
            }
            Step::Settle(position) => {
                let was = model.0.get(&position) == Some(&true);
                assert_eq!(session.settle(Position::new(position)), was);
                model.0.entry(position).and_modify(|in_flight| *in_flight = false);
            }
            Step::Know(position) => {
                session.note_known(Position::new(position));
                model.0.entry(position).and_modify(|in_flight| *in_flight = false);
            }
            Step::Disconnect => session.disconnected(WALL),
            Step::Restart => {
                let record = session.record(WALL, &tags).expect("it is stored");
                assert_eq!(record.cursor, session.cursor(), "the store keeps rows above it");
                let head = Position::new(100);
                session = Session::recover(&record, head, &tags, repeats(0)).expect("it is read");
                assert_eq!(
                    session.walk.redelivery_upto, head,
                    "all of it may have been handed over"
                );
            }
            Step::Rewind => {
                session.rewind(Position::new(model.next() - 1));
                model.0.clear();
            }
        }
        if is_peer && matches!(step, Step::Disconnect | Step::Restart) {
            // A peer is sent again everything from the cursor on.
            let cursor = model.cursor();
            model.0.retain(|position, _| *position <= cursor);
        }
        let flights: Vec<u64> = session.flights.keys().map(|position| position.get()).collect();
        assert_eq!(flights, model.in_flight());
        assert_eq!(session.next.get(), model.next());
        assert_eq!(session.cursor().get(), model.cursor());
    }
}

/// What may happen to what a peer is offered.
#[derive(Debug, Clone)]
enum Offering {
    /// A row is looked at, with this identity.
    Hold(u64),
    /// The peer is told of what is due.
    Say,
    /// The peer asks for this identity.
    Want(u64),
    /// The peer has this identity.
    Has(u64),
    /// The peer is known to have this row.
    Know(u64),
}

fn offering() -> impl Strategy<Value = Offering> {
    prop_oneof![
        4 => (0..4_u64).prop_map(Offering::Hold),
        2 => Just(Offering::Say),
        1 => (0..4_u64).prop_map(Offering::Want),
        1 => (0..4_u64).prop_map(Offering::Has),
        1 => (1..20_u64).prop_map(Offering::Know),
    ]
}

/// A flight for [`Session::take_due`]: due at this time, or not yet carried, or with the peer.
fn flight() -> impl Strategy<Value = (Option<u64>, bool)> {
    (prop::option::of(0..20_u64), any::<bool>())
}

proptest! {
    #[test]
    fn a_session_of_an_application_is_a_list(steps in prop::collection::vec(step(), 1..60)) {
        walk(&Role::Application(named()), steps);
    }

    #[test]
    fn a_session_of_a_peer_is_a_list(steps in prop::collection::vec(step(), 1..60)) {
        walk(&peer(), steps);
    }

    // keeps: offers-repeat
    #[test]
    fn whatever_is_on_offer_ends_when_the_peer_answers(
        steps in prop::collection::vec(offering(), 1..40),
    ) {
        let mut session = session(peer());
        let mut seen = Seen::default();
        let source = seen.source(&NodeId::new("z").expect("a name"), Incarnation::new(1));
        let id = |number| (source, Sequence::new(number));
        let mut now = Instant::from_micros(0);
        for step in steps {
            now = now + Duration::from_millis(100);
            match step {
                Offering::Hold(number) => {
                    session.hold(session.next, Flight::new(WALL), id(number), now);
                    session.next = session.next.next();
                }
                Offering::Say => drop(session.take_offers(now, Duration::ZERO)),
                Offering::Want(number) => drop(session.want(id(number))),
                Offering::Has(number) => drop(session.settle_offer(id(number))),
                Offering::Know(position) => session.note_known(at(position)),
            }
        }
        // It is told of what it has not answered within a second, and answers.
        for id in session.take_offers(now + Duration::from_secs(1), Duration::ZERO) {
            session.settle_offer(id);
        }
        let is_open = |flight: &Flight| matches!(flight.offer, Offer::Open(_));
        prop_assert!(!session.flights.values().any(is_open));
        let open = session.peering.offers.close(id(0));
        prop_assert_eq!(open, None, "nor is any on offer without a flight");
    }

    #[test]
    fn flights_come_again_when_they_are_due_and_the_rate_allows(
        flights in prop::collection::vec(flight(), 0..20),
        now in 0..20_u64,
        most in 1..8_usize,
        rate in 0..5_u32,
    ) {
        let mut session = session(Role::Application(named()));
        session.notes.repeats = repeats(rate);
        for (position, (due, on_link)) in (1..).zip(&flights) {
            let due = due.map(Instant::from_micros);
            let flight = Flight { due, on_link: *on_link, ..Flight::new(WALL) };
            session.flights.insert(Position::new(position), flight);
        }
        let at = Instant::from_micros(now);
        let taken = session.take_due(at, most, 10);
        // By definition: in log order, those that no link has carried, and those whose time has
        // come while the bucket holds, until there are enough.
        let mut expected = Vec::new();
        let mut tokens = if rate == 0 { u32::MAX } else { rate };
        let mut limited = false;
        for (position, (due, on_link)) in (1..).zip(&flights) {
            let fresh = due.is_none() && !on_link;
            let is_due = due.is_some_and(|due| due <= now);
            if expected.len() == most || limited || !(fresh || is_due) {
                continue;
            }
            if !fresh && tokens == 0 {
                limited = true;
                continue;
            }
            tokens -= u32::from(!fresh);
            expected.push(Position::new(position));
        }
        prop_assert_eq!(&taken, &expected);
        // Whoever is left over is looked at again: at once, at its time, or when the rate allows.
        let left = |(position, (due, _)): (u64, &(Option<u64>, bool))| {
            due.filter(|_| !expected.contains(&Position::new(position)))
        };
        let earliest = (1..).zip(&flights).filter_map(left).min();
        match (expected.is_empty(), earliest) {
            (false, _) => prop_assert_eq!(session.notes.wake, Some(at)),
            (true, Some(_)) => prop_assert!(session.notes.wake.is_some_and(|wake| wake > at)),
            (true, None) => prop_assert_eq!(session.notes.wake, None),
        }
    }

    #[test]
    fn a_repeat_waits_twice_as_long_up_to_the_bound(
        ack_ms in 1..100_000_u64,
        max_ms in 1..1_000_000_u64,
        handed in 0..70_u32,
        seed in any::<u64>(),
    ) {
        let retry = Retry {
            ack_timeout: Duration::from_millis(ack_ms),
            max_backoff: Duration::from_millis(max_ms),
            ..Retry::default()
        };
        let wait = retry_wait(&retry, handed, &mut Random::new(seed));
        let doubled = u128::from(ack_ms) << handed.saturating_sub(1);
        let limit = doubled.min(u128::from(max_ms.max(ack_ms)));
        let limit = Duration::from_millis(u64::try_from(limit).expect("it is bounded"));
        if handed <= 1 {
            prop_assert_eq!(wait, limit, "the first time-out is the configured one");
        } else {
            prop_assert!((limit / 2..=limit).contains(&wait), "{:?} of {:?}", wait, limit);
        }
    }

    #[test]
    fn a_row_is_owed_by_path_tags_keys_and_publisher(
        path in "[a-d](,[e-h]){0,3}",
        targets in prop::collection::btree_set("[p-s]", 0..3),
        own in prop::option::of(prop::collection::btree_set("[p-s]", 0..3)),
        prefixes in prop::option::of(prop::collection::btree_set("[k-m]{0,2}", 0..3)),
        key in "[k-m]{1,3}",
        mine in any::<bool>(),
    ) {
        // Whoever connects has them sorted.
        let prefixes: Option<Vec<String>> = prefixes.map(|all| all.into_iter().collect());
        let joined = crate::types::tags::join(targets.iter().map(String::as_str));
        let mut row = row(9, &path, &joined, &key);
        row.publisher = mine.then_some(SessionId::new(1));
        let node_tags = TagSet::new(["p"]).expect("a tag");
        let peer_owed = session(peer()).is_owed(&row, &node_tags);
        prop_assert_eq!(peer_owed, path.rsplit(',').nth(1) != Some("b"), "who handed it over");
        let tags = own.as_ref().map(|own| TagSet::new(own.iter().map(String::as_str)));
        let role = AppRole {
            tags: tags.map(|tags| tags.expect("good tags")),
            keys: prefixes.clone().map(|prefixes| prefixes.into_iter().collect()),
            ..named()
        };
        let own = own.unwrap_or_else(|| ["p".to_string()].into());
        let tagged = targets.is_empty() || !targets.is_disjoint(&own);
        let keyed = prefixes.is_none_or(|all| all.iter().any(|prefix| key.starts_with(prefix)));
        let owed = session(Role::Application(role)).is_owed(&row, &node_tags);
        prop_assert_eq!(owed, tagged && keyed && !mine);
    }

    #[test]
    fn a_record_is_read_as_it_was_written(
        application in any::<bool>(),
        open in prop::collection::btree_map(1..1_000_u64, (any::<u32>(), any::<u32>()), 0..20),
        tags in prop::option::of(prop::collection::btree_set("[p-s]{1,4}", 0..3)),
        keys in prop::option::of(prop::collection::vec("\\PC{0,3}", 0..3)),
        change in 1..=255_u8,
    ) {
        let role = if application {
            let tags = tags.map(|tags| TagSet::new(tags.iter().map(String::as_str)));
            let tags = tags.map(|tags| tags.expect("good tags"));
            Role::Application(AppRole { tags, keys, ..named() })
        } else {
            peer()
        };
        let mut before = session(role);
        before.next = Position::new(1_000);
        for (position, (handed, failed)) in open {
            let flight = Flight { handed, failed, ..Flight::new(WALL) };
            before.flights.insert(Position::new(position), flight);
        }
        let node_tags = TagSet::new(["prod"]).expect("a tag");
        let record = before.record(WALL, &node_tags).expect("it is stored");
        let after = recovered(&record).expect("it is read");
        prop_assert_eq!(after.record(WALL, &node_tags), Some(record.clone()));
        for end in 0..record.state.len() {
            let cut = SessionRecord { state: record.state.slice(..end), ..record.clone() };
            prop_assert!(recovered(&cut).is_none(), "cut at {}", end);
        }
        // There is no checksum: a changed byte is refused, or is another sound record.
        for at in 0..record.state.len() {
            let mut state = record.state.to_vec();
            state[at] ^= change;
            let changed = SessionRecord { state: state.into(), ..record.clone() };
            if let Some(session) = recovered(&changed) {
                prop_assert!(session.next <= Position::new(1_001), "beyond the end of the log");
                prop_assert!(session.record(WALL, &node_tags).is_some());
            }
        }
    }
}

/// Most bytes allocated at a time for the longest record that a session may have here.
const MOST_BYTES: u64 = 3 << 20;

/// What a node whose log ends at 1,000 makes of a record.
fn recovered(record: &SessionRecord) -> Option<Session> {
    let tags = TagSet::new(["prod"]).expect("a tag");
    let mut session = None;
    let taken = measure(|| {
        session = Session::recover(record, Position::new(1_000), &tags, repeats(0));
    });
    assert!(taken.bytes_max <= MOST_BYTES, "{} bytes", taken.bytes_max);
    session
}

#[test]
fn a_length_that_lies_in_a_record_allocates_within_a_bound() {
    let tags = TagSet::new(["prod"]).expect("a tag");
    let record = session(Role::Application(named())).record(WALL, &tags).expect("it is stored");
    for at in 0..record.state.len() {
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let state = [&record.state[..at], &lie, &record.state[at + 1..]].concat();
        let lying = SessionRecord { state: state.into(), ..record.clone() };
        let _refused = recovered(&lying);
    }
    let strange = vec!["", "peer", "peer:", "app:a b", "link:1", "peer:a,b"];
    for name in strange {
        let renamed = SessionRecord { name: name.into(), ..record.clone() };
        let _refused = recovered(&renamed);
    }
}
