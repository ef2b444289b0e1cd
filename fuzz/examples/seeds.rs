//! Writes the first corpora: real frames, whole configurations, and bytes to begin with.
//!
//! `cargo run --no-default-features --example seeds -- FRAMES.ndjson`, the file holding one text
//! frame of an application on each line; then `cargo +nightly fuzz cmin TARGET` for each target.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use bytes::{Bytes, BytesMut};
use slipstream_core::clock::Hlc;
use slipstream_core::config::{Durability, Limits};
use slipstream_core::ids::{Incarnation, Position, Sequence, StoreId};
use slipstream_core::json::{JsonRequest, parse};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::time::WallMs;
use slipstream_core::wire::{
    Ack, BatchKind, CHECKSUM_BYTES, Connect, DeliveryHead, FrameWriter, Hello, NotNow,
    NotNowReason, OutcomeRecord, Publish, Read, Settle, Welcome, Wire,
};

/// Frames of the file that are taken: enough for every shape in it.
const FRAMES: usize = 40;
/// Seeds of the targets that read structured input out of bytes.
const RANDOM: u64 = 60;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let frames = match env::args_os().nth(1) {
        Some(file) => fs::read_to_string(file)?,
        None => r#"{"type":"SK","messageId":"m-1","key":"order:1","value":{"amount":1.10}}"#.into(),
    };
    let step = frames.lines().count().div_ceil(FRAMES);
    let frames: Vec<&str> = frames.lines().step_by(step.max(1)).collect();
    write_all(&corpus.join("json"), text_frames(&frames).into_iter().map(Bytes::from))?;
    write_all(&corpus.join("wire"), binary_frames(&frames).into_iter())?;
    write_all(&corpus.join("hello"), hellos().into_iter())?;
    write_all(&corpus.join("config"), configurations().into_iter().map(Bytes::from))?;
    for target in ["inputs", "store_row"] {
        write_all(&corpus.join(target), (0..RANDOM).map(random))?;
    }
    Ok(())
}

fn write_all(folder: &PathBuf, seeds: impl Iterator<Item = Bytes>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (number, seed) in seeds.enumerate() {
        fs::write(folder.join(format!("seed-{number:03}")), seed)?;
    }
    Ok(())
}

fn text_frames(frames: &[&str]) -> Vec<String> {
    let others = [
        r#"{"type":"CMD","messageId":"c-1","key":"t:9","value":{"do":1},"ttlMs":60000,"targetedTags":["azure","gcp"]}"#,
        r#"{"type":"ACK","deliveryId":17,"upTo":true}"#,
        r#"{"type":"ACK","messageId":"m-1"}"#,
        r#"{"type":"NACK","deliveryId":17,"action":"reject","reason":"no"}"#,
        r#"{"type":"NACK","messageId":"m\u002d1","action":"retry"}"#,
        r#"{"type":"SA","key":"k","value":[1.10,"\ud800",null]}"#,
        r#"{"type":"SK","key":"k","value":1,"value":2}"#,
        r#"{"type":"SW","key":"k","value":{"a":0.70,"\u0061b":1e400}}"#,
        r#"{"type":"DK","key":"k","targetedTags":["azure"]}"#,
        r#"{"type":"GW","messageId":"r-1","key":"k"}"#,
        "[[[[1]]]]",
        r#"{"type":"CMD","messageId":null,"key":"k","value":null,"ttlMs":600000e-1,"x-trace":[1]}"#,
        r#"{"type":"ACK","deliveryId":17.0,"messageId":null,"upTo":null}"#,
        r#"{"type":"NACK","deliveryId":9007199254740993.0,"action":"retry","reason":null}"#,
        r#"{"type":"SK","key":"k","value":1,"targetTags":["azure"],"ttl":1}"#,
        r#"{"type":"SK","key":"k","value":1,"\u0078-a":1,"x-a":2,"redelivery":1,"version":"v"}"#,
    ];
    frames.iter().copied().chain(others).map(str::to_owned).collect()
}

/// The same messages as a node has them, in every frame that carries messages, and the others.
fn binary_frames(frames: &[&str]) -> Vec<Bytes> {
    let limits = Limits::default();
    let mut all = Vec::new();
    let mut buffer = BytesMut::new();
    for (frame, sequence) in frames.iter().zip(1..) {
        let Ok(JsonRequest::Publish(draft)) = parse(frame, &limits) else { continue };
        let expires = WallMs(if draft.kind.is_state() { 0 } else { 1_800_000_000_000 });
        let id = draft.id.as_deref().unwrap_or("m");
        let fields = Fields {
            kind: draft.kind,
            incarnation: Incarnation::new(0x1a0_0000_0000_0001),
            sequence: Sequence::new(sequence),
            version: Hlc::at(WallMs(1_790_000_000_000 + sequence)),
            expires,
            group: "aws-eu",
            tags: &draft.tags,
            path: "aws-eu-1,gcp-1",
            id,
            key: &draft.key,
            body: draft.body,
        };
        let message = Message::encode(&fields, &mut buffer);
        let mut messages = FrameWriter::new(BatchKind::Messages);
        messages.push_message(&message);
        let mut deliveries = FrameWriter::new(BatchKind::Deliveries);
        deliveries.push(&DeliveryHead { delivery: Position::new(sequence), redelivery: 0 });
        deliveries.push_message(&message);
        let mut publish = FrameWriter::new(BatchKind::Publish);
        let (kind, key, tags, body) = (draft.kind, &*draft.key, &*draft.tags, draft.body);
        publish.push(&Publish { kind, id, key, tags, ttl_ms: 0, body });
        all.extend([messages.finish(), deliveries.finish(), publish.finish()]);
    }
    all.extend(small_frames());
    all.into_iter().map(bare).collect()
}

/// The frame without its checksum, as the targets take it.
fn bare(frame: Bytes) -> Bytes {
    frame.slice(..frame.len() - CHECKSUM_BYTES)
}

fn small_frames() -> Vec<Bytes> {
    let position = Position::new(300);
    let mut settles = FrameWriter::new(BatchKind::Settle);
    settles.push(&Settle::Ack(position));
    settles.push(&Settle::AckUpTo(position));
    settles.push(&Settle::AckId("m-1"));
    settles.push(&Settle::Retry { delivery: position, reason: "later" });
    settles.push(&Settle::Reject { delivery: position, reason: "" });
    let mut reads = FrameWriter::new(BatchKind::Reads);
    reads.push(&Read { kind: Some(Kind::Sw), id: "r-1", key: "k" });
    reads.push(&Read { kind: None, id: "", key: "k" });
    let mut outcomes = FrameWriter::new(BatchKind::Outcomes);
    let level = Durability::Full;
    outcomes.push(&OutcomeRecord::Receipt {
        id: "m-1",
        version: Hlc(7 << 16),
        duplicate: false,
        level,
    });
    outcomes.push(&OutcomeRecord::Error {
        id: None,
        frame: 9,
        code: "STORE_FULL",
        retryable: true,
        retry_after_ms: 1000,
        message: "full",
    });
    let welcome = Welcome {
        protocol: 1,
        instance: "azure-1".into(),
        client: "pi-1".into(),
        resumed: true,
        tags: "azure".into(),
        window: 256,
        max_message_bytes: 1 << 20,
        version: "0.1.0".into(),
        in_force: None,
    };
    let wall = WallMs(1_790_000_000_000);
    let mut frames = vec![
        Wire::Ack(Ack { upto: 300, position, wall }).encode(),
        Wire::NotNow(NotNow { first: 1, last: 2, reason: NotNowReason::Clock }).encode(),
        Wire::Connect(Connect { protocol: 1 }).encode(),
        Wire::Welcome(welcome).encode(),
        Wire::Synced.encode(),
        settles.finish(),
        reads.finish(),
        outcomes.finish(),
    ];
    frames.extend(["b", "c", "a", "aws-eu-1"].map(|node| hello(node, 1)));
    frames
}

fn hello(node: &str, store: u128) -> Bytes {
    Wire::Hello(Hello {
        protocol: 1,
        node: node.into(),
        store: StoreId(store),
        incarnation: Incarnation::new(1),
        group: "eu".into(),
        tags: "aws,prod".into(),
        wall: WallMs(1_790_000_000_000),
        durability: Durability::Full,
        features: 0,
        max_message_bytes: 1 << 20,
        max_frame_bytes: 4 << 20,
        reported: Position::new(8),
        reported_incarnation: Incarnation::new(9),
    })
    .encode()
}

/// Sequences of frames, each behind its length.
fn hellos() -> Vec<Bytes> {
    let ack = Wire::Ack(Ack { upto: 0, position: Position::new(1), wall: WallMs(9) }).encode();
    let connect = Wire::Connect(Connect { protocol: 1 }).encode();
    let sequences = [
        vec![hello("b", 1)],
        vec![hello("b", 1), hello("b", 2)],
        vec![hello("c", 1), hello("d", 2), hello("b", 3), hello("e", 4)],
        vec![hello("a", 7)],
        vec![hello("a", 8), hello("b", 8)],
        vec![hello("b", 1), ack],
        vec![connect, hello("b", 1)],
    ];
    let joined = sequences.map(|frames| {
        let mut bytes = BytesMut::new();
        for frame in frames.into_iter().map(bare) {
            bytes.extend_from_slice(&[frame.len() as u8]);
            bytes.extend_from_slice(&frame);
        }
        bytes.freeze()
    });
    joined.into()
}

fn configurations() -> Vec<String> {
    let defaults = include_str!("../../runtime-tokio/src/daemon/config/defaults.toml");
    let texts = [
        "[node]\nid = \"aws-eu-1\"\ntags = [\"aws\", \"eu\"]\ncluster_group = \"eu\"\n\
         [[peers]]\nurl = \"ws://gcp-1:7400\"\n",
        "peers = [\"ws://me:secret@gcp-1:7400\", \"wss://x:1\"]\n[node]\nid = \"a b\"\n",
        "[node]\nid = \"a\"\n[listen]\naddress = \"0.0.0.0:7400\"\nallow_insecure = true\n",
        "[node]\nid = \"a\"\n[store]\nmax_byte = \"1GiB\"\n[heartbeet]\nx = 1\n[auth]\n",
        "[node]\nid = \"a\"\n[log]\nlevel = \"info,slipstream_core=debug\"\nformat = \"text\"\n",
        "\0SLIPSTREAM_NODE__ID=b\nSLIPSTREAM_PEERS=[\"ws://new:1\"]\n\
         SLIPSTREAM_STORE__MAX_BYTES=2GiB\nSLIPSTREAM_RETRY__MAX_RATE=x\n\
         SLIPSTREAM_PORT_7400_TCP_ADDR=10.0.0.1\nSLIPSTREAM_NODE__TAGS=[\"x\"]",
        "[node",
    ];
    let mut all: Vec<String> = texts.map(str::to_owned).into();
    all.push(defaults.replace("[node]", "[node]\nid = \"a\""));
    all
}

/// Bytes without meaning, of a length that leaves room for many steps.
fn random(seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = (0..64 + seed * 16).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Small numbers choose among what there is, large ones among what there is not.
        (state >> 56) as u8 >> (state & 4)
    });
    bytes.collect()
}
