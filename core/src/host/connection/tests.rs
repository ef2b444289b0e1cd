//! Connections on a clock that is set by hand.

use alloc::vec;
use core::task::Context;

use bytes::Bytes;

use super::*;
use crate::host::channel::{ChannelReceiver, bounded};
use crate::host::runtime::by_hand::{
    ByHand, Far, answer_dial, pass, settle, start, taken, tasks, work,
};
use crate::host::shared::share;
use crate::host::slots::Slots;
use crate::io::{Close, CloseCode, Frame};

const LINK: LinkId = LinkId::new(1);

fn frame(text: &'static str) -> Frame {
    Frame::Text(Bytes::from_static(text.as_bytes()))
}

fn opened(socket: Memory) -> Opened<Memory> {
    let mut opened = Opened::new(socket, Protocol::Postcard, "there".into(), String::new());
    opened.up.link = LINK;
    opened
}

/// An open connection as a loop sees it, and its other end.
struct World {
    link: ConnectionHandle,
    received: ChannelReceiver<Incoming<ByHand>>,
    there: Far,
}

impl World {
    fn new() -> Self {
        Self::with_slot(None)
    }

    fn with_slot(slot: Option<Slot>) -> Self {
        let (here, there) = Far::pair();
        let (inputs, received) = bounded::<ByHand, _>(8);
        let opened = Opened { slot, ..through_socket::<ByHand>(opened(here)) };
        let link = open::<ByHand>(opened, inputs);
        settle();
        Self { link, received, there }
    }

    fn down(&mut self) -> Option<String> {
        core::iter::from_fn(|| self.received.try_next()).find_map(|incoming| match incoming {
            Incoming::<ByHand>::Input(Input::LinkDown { link: LINK, reason, .. }) => Some(reason),
            _ => None,
        })
    }
}

#[test]
fn a_close_frame_goes_behind_what_was_queued() {
    let mut world = World::new();
    world.link.transmit(frame("a"));
    world.link.transmit(frame("b"));
    world.link.close(Close { code: CloseCode::GoingAway, reason: "bye".into() });
    settle();
    let bye = End::by_peer(1001, "bye".into());
    assert_eq!(world.there.received(), (vec![frame("a"), frame("b")], Some(bye)));
    assert_eq!(world.down(), None, "the other side has not closed");
    world.there.send(&[frame("too late")]);
    world.there.close(&End::cut());
    settle();
    assert_eq!(world.down().as_deref(), Some("closed here: 1001 bye"));
}

// keeps: no-hold-up
#[test]
fn whoever_does_not_close_is_not_waited_for() {
    let mut world = World::new();
    world.link.close(Close { code: CloseCode::GoingAway, reason: "bye".into() });
    pass(LINGER - Duration::from_millis(1));
    assert_eq!(world.down(), None);
    pass(Duration::from_millis(1));
    assert_eq!(world.down().as_deref(), Some("closed here: 1001 bye"));
}

// keeps: no-hold-up
#[test]
fn whoever_does_not_read_is_not_waited_for() {
    let mut world = World::new();
    let large = Frame::Binary(vec![0; 1 << 18].into());
    world.link.transmit(large.clone());
    world.link.transmit(frame("no room for this"));
    world.link.close(Close { code: CloseCode::Limit, reason: "slow".into() });
    pass(CLOSE_DEADLINE + LINGER - Duration::from_millis(1));
    assert_eq!(world.down(), None);
    pass(Duration::from_millis(1));
    assert_eq!(world.down().as_deref(), Some("closed here: 4429 slow"));
    assert_eq!(world.there.received(), (vec![large], Some(End::cut())));
}

#[test]
fn what_came_is_handed_on_before_the_end() {
    let mut world = World::new();
    let (ping, pong) = (Bytes::from_static(b"p"), Bytes::from_static(b"p"));
    world.there.send(&[Frame::Ping(ping.clone()), frame("a")]);
    world.there.close(&End::here(1000, String::new()));
    settle();
    assert_eq!(world.there.received(), (vec![Frame::Pong(pong)], None));
    let Some(Incoming::<ByHand>::Received(LINK, frames, Some(end))) = world.received.try_next()
    else {
        panic!("not received");
    };
    assert_eq!(frames, [Frame::Ping(ping), frame("a")]);
    assert_eq!(end, End::by_peer(1000, String::new()));
    assert_eq!(world.down(), None, "the loop has to order the end");
    world.link.end(end.clone());
    settle();
    assert_eq!(world.there.received(), (vec![], Some(end)), "the close frame is answered");
    assert!(world.down().is_some());
}

#[test]
fn nothing_is_read_while_paused_or_without_room() {
    let mut world = World::new();
    world.link.pause(true);
    world.there.send(&[frame("a")]);
    pass(Duration::from_secs(60));
    assert!(world.received.try_next().is_none());
    world.link.pause(false);
    settle();
    assert!(world.received.try_next().is_some());

    for _ in 0..20 {
        world.there.send(&[frame("b")]);
        settle();
    }
    let mut handed_on = Vec::new();
    let next = |world: &mut World| match world.received.try_next() {
        Some(Incoming::<ByHand>::Received(_, frames, None)) => Some(frames.len()),
        other => other.map(|other| panic!("{other:?}")),
    };
    handed_on.extend(core::iter::from_fn(|| next(&mut world)));
    assert_eq!(handed_on, [1; 8], "as many as there was room for");
    settle();
    handed_on.extend(core::iter::from_fn(|| next(&mut world)));
    assert_eq!(handed_on.split_off(8), [1, 11], "the one that waited, and what came meanwhile");
}

// keeps: no-hold-up
#[test]
fn a_loop_that_is_gone_leaves_no_task_behind() {
    let World { link, received, mut there } = World::new();
    drop((link, received));
    pass(LINGER);
    let silence = (vec![], Some(End::cut()));
    assert_eq!(there.received(), silence, "no close frame: nobody knows what to say");
    assert_eq!(tasks(), 0);
}

#[test]
fn a_loop_that_takes_nothing_ends_its_connections() {
    let World { mut link, received, mut there } = World::new();
    drop(received);
    link.transmit(frame("a"));
    link.flush();
    pass(LINGER);
    assert_eq!(there.received(), (vec![frame("a")], Some(End::cut())));
    assert_eq!(tasks(), 0);
}

/// There is always more to read, and each time that takes a millisecond.
struct Flood(u128);

impl Reader for Flood {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        panic!("it has ended")
    }

    fn motion(&self) -> Motion {
        Motion::default()
    }

    async fn discard(&mut self) -> bool {
        assert!(self.0 < LINGER.as_millis(), "it is read for ever");
        self.0 += 1;
        work(Duration::from_millis(1));
        true
    }
}

// keeps: no-hold-up
#[test]
fn a_flood_behind_the_end_is_not_read_for_ever() {
    let state = share(ConnectionState::default());
    state.with(|state| {
        state.end(End::here(1001, "bye".into()));
        state.shut();
    });
    let (inputs, _received) = bounded::<ByHand, _>(1);
    let reading = start(run_reader::<ByHand>(Flood(0), LINK, inputs, state));
    assert_eq!(taken(&reading), Some(()));
}

// keeps: no-hold-up
#[test]
fn a_dial_ends_in_time_and_says_what_came_of_it() {
    let (inputs, mut received) = bounded::<ByHand, _>(1);
    let dialling = |id| {
        dial::<ByHand>(DialId::new(id), "ws://x".into(), None, Limits::default(), inputs.clone())
    };
    ByHand::spawn(dialling(1));
    pass(Limits::default().handshake_timeout - Duration::from_millis(1));
    assert!(received.try_next().is_none());
    pass(Duration::from_millis(1));
    let late = ConnectError::TimedOut(Limits::default().handshake_timeout);
    let Some(Incoming::<ByHand>::NotOpened(id, error)) = received.try_next() else {
        panic!("it should have failed");
    };
    assert_eq!((id, error), (DialId::new(1), late));

    answer_dial(opened(Far::pair().0));
    start(dialling(2));
    let Some(Incoming::<ByHand>::Opened(opened)) = received.try_next() else {
        panic!("not opened");
    };
    assert_eq!(opened.up.dial, Some(DialId::new(2)));
}

fn slots(limit: usize) -> Shared<Slots> {
    share(Slots::new(limit))
}

fn slot(slots: &Shared<Slots>) -> Slot {
    Slot::take(slots, [10, 0, 0, 1].into())
}

// keeps: peers-get-in
#[test]
fn handshake_ends_in_time_or_when_its_place_is_needed() {
    let slots = slots(1);
    let (inputs, mut received) = bounded::<ByHand, _>(8);
    let accepting = |upgraded: bool| {
        let (slot, inputs) = (slot(&slots), inputs.clone());
        start(async move {
            let upgrade = async move {
                if !upgraded {
                    pending::<()>().await;
                }
                Some(opened(Far::pair().0))
            };
            accept::<ByHand>(slot, upgrade, &Limits::default(), inputs).await
        })
    };
    let first = accepting(false);
    assert_eq!(taken(&first), None);
    let second = accepting(false);
    assert!(matches!(taken(&first), Some(Err(reason)) if reason.contains("place")));
    pass(Limits::default().handshake_timeout);
    assert!(matches!(taken(&second), Some(Err(reason)) if reason.contains("in time")));
    assert!(received.try_next().is_none());
    assert_eq!(taken(&accepting(true)), Some(Ok(())));
    assert!(matches!(received.try_next(), Some(Incoming::<ByHand>::Opened(_))));
}

// keeps: peers-get-in
#[test]
fn a_connection_gives_way_before_admission_and_at_its_end() {
    let slots = slots(1);
    let connect = |admitted: bool| {
        let mut world = World::with_slot(Some(slot(&slots)));
        if admitted {
            world.link.admit();
            settle();
        }
        assert_eq!(world.down(), None);
        world
    };
    let mut waiting = connect(false);
    let mut admitted = connect(true);
    assert!(waiting.down().is_some_and(|reason| reason.contains("place")));
    let mut leaving = connect(true);
    assert_eq!(admitted.down(), None, "whom the node counts stays");
    leaving.link.close(Close { code: CloseCode::Limit, reason: String::new() });
    settle();
    assert_eq!(leaving.down(), None, "the other side has time to close");
    let newcomer = connect(false);
    assert!(leaving.down().is_some_and(|reason| reason.contains("4429")));
    assert_eq!((admitted.down(), tasks() > 0), (None, true));
    drop((newcomer, admitted));
}
