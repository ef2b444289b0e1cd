//! How fast batches become durable: messages a second, CPU a message, bytes written.
//!
//! `cargo run --release -p slipstream-store-sqlite --example commit_bench [rows a batch] [rows]
//! [keys] [value bytes] [history MiB] [directory]`
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use slipstream_core::clock::Hlc;
use slipstream_core::config::Durability;
use slipstream_core::ids::{BatchId, Incarnation, Position, Sequence, StoreId};
use slipstream_core::io::Input;
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::store::{Batch, Row, Store as _, Usage};
use slipstream_core::time::WallMs;
use slipstream_store_sqlite::{Options, Store};

fn main() {
    let argument = |n, default| std::env::args().nth(n).map_or(default, |a| a.parse().unwrap());
    let (per_batch, rows) = (argument(1, 1000), argument(2, 1_000_000));
    let (keys, value_bytes, history) = (argument(3, 100_000), argument(4, 256), argument(5, 64));
    let directory = std::env::args().nth(6).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = directory.join(format!("slipstream-bench-{}", std::process::id()));
    let (done, reports) = channel();
    let options = Options::new(directory.clone(), Durability::Full, StoreId(1));
    let notify = Box::new(move |input| drop(done.send(input)));
    let (store, _) = Store::open(options, notify, Box::new(|it| panic!("{it}"))).unwrap();

    let value = format!("\"{}\"", "v".repeat(value_bytes.max(2) as usize - 2));
    let (mut took, mut making) = (Vec::new(), Duration::ZERO);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut usage = Usage::default();
    let written = written_bytes();
    let (begun, cpu, mut position) = (Instant::now(), cpu_seconds(), 0);
    // One batch is under way while the next is made, as in a node.
    while position < rows {
        let making_since = Instant::now();
        let mut batch = Batch {
            id: BatchId::new(position / per_batch + 1),
            history_max_bytes: history << 20,
            floor: Position::new(position),
            ..Batch::default()
        };
        for _ in 0..per_batch {
            position += 1;
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            batch.rows.push(row(position, &format!("key:{:08}", random % keys), &value));
        }
        making += making_since.elapsed();
        if position > per_batch {
            usage = committed(&reports, &mut took);
        }
        store.commit(Box::new(batch)).unwrap();
    }
    committed(&reports, &mut took);
    let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let written = written_bytes() - written;
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let count = position as f64;
    println!(
        "{per_batch} a batch: {:.0} rows/s, CPU {:.2} us a row (making them {:.2}), \
         commit p50 {:.2} ms p99 {:.2} ms max {:.2} ms, {:.1} bytes written a payload byte, \
         database {} MiB, WAL {} MiB, history {} MiB, {} rows",
        count / elapsed,
        cpu / count * 1e6,
        making.as_secs_f64() / count * 1e6,
        at(0.5),
        at(0.99),
        at(1.0),
        written as f64 / count / value_bytes as f64,
        usage.database_bytes >> 20,
        usage.wal_bytes >> 20,
        usage.history_bytes >> 20,
        usage.rows,
    );
    store.close().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

fn committed(reports: &Receiver<Input>, took: &mut Vec<Duration>) -> Usage {
    match reports.recv().unwrap() {
        Input::Committed(committed) => {
            took.push(committed.took);
            committed.usage
        }
        other => panic!("{other:?}"),
    }
}

fn row(position: u64, key: &str, value: &str) -> Row {
    let fields = Fields {
        kind: Kind::Sk,
        incarnation: Incarnation::new(1 << 50),
        sequence: Sequence::new(position),
        version: Hlc::at(WallMs(1_700_000_000_000 + position)),
        expires: WallMs(0),
        group: "",
        tags: "payments",
        path: "eu-west-1",
        id: &format!("{position:026}"),
        key,
        body: value,
    };
    let message = Message::encode(&fields, &mut BytesMut::new());
    Row::new(Position::new(position), message)
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

/// Bytes that this process caused to be written.
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}
