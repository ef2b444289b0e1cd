//! The first frames of a node, and a node that receives them.
//!
//! The bytes hold frames, each behind its length in one byte. They arrive on an accepted link, on
//! a dialled one, and again on a second accepted one, while the first may still be there.

use bytes::Bytes;
use std::time::Duration;

use slipstream_core::config::Config;
use slipstream_core::ids::NodeId;
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::wire::Wire;

use crate::wire::sealed;
use crate::world::World;

/// Takes `bytes` for the frames that other nodes begin with.
pub fn hello(bytes: &[u8]) {
    let frames = frames(bytes);
    for frame in &frames {
        if let Ok(Wire::Hello(hello)) = Wire::decode(frame) {
            let again = Wire::Hello(hello.clone()).encode();
            assert!(again.len() <= frame.len(), "the encoding has grown");
            assert_eq!(Wire::decode(&again), Ok(Wire::Hello(hello)));
        }
    }
    let mut config = Config::new(NodeId::new("a").expect("a name"));
    config.peers = vec!["ws://b:1/".into()];
    config.limits.max_nodes = 3;
    let mut world = World::new(config);
    world.settle();
    let accepted = world.accept(Protocol::Postcard, "");
    for frame in &frames {
        world.receive(accepted, Frame::Binary(frame.clone()));
    }
    world.pass(Duration::from_secs(1));
    let dialled = world.dialled().expect("there is a peer to dial");
    let again = world.accept(Protocol::Postcard, "client=x");
    for frame in &frames {
        world.receive(dialled, Frame::Binary(frame.clone()));
        world.receive(again, Frame::Binary(frame.clone()));
        world.settle();
    }
    // Long enough for a link in doubt to answer, and for a handshake to be over.
    world.pass(Duration::from_secs(6));
    world.heal();
}

fn frames(bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first() {
        let (frame, after) = after.split_at(after.len().min(usize::from(*length)));
        frames.push(sealed(frame));
        rest = after;
    }
    frames
}
