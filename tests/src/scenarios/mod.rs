//! Stories of what users see, one function each. Every one is given the path of the binary.

pub mod addresses;
pub mod away;
pub mod configuring;
pub mod connecting;
pub mod differing;
pub mod durability;
pub mod examples;
pub mod fairness;
pub mod faults;
pub mod frames;
pub mod hostile;
pub mod lagging;
pub mod leaving;
pub mod mesh;
pub mod operating;
pub mod order;
pub mod payments;
pub mod probing;
pub mod publishing;
pub mod reading;
pub mod receiving;
pub mod redundant;
pub mod retry;
pub mod storing;

use crate::harness::{Daemon, Message, NodeConfig};

/// Messages of one publisher, each with a key of its own; every fifth is a command.
fn load(of: &str, count: usize) -> impl Iterator<Item = Message> + Send + use<> {
    let of = of.to_owned();
    (0..count).map(move |number| {
        let id = format!("{of}-{number:06}");
        let key = format!("{of}/{number:06}");
        let value = format!(r#"{{"from":"{of}","number":{number}}}"#);
        match number % 5 {
            4 => Message::event(id, key, value),
            _ => Message::state(id, key, value),
        }
    })
}

/// A JSON string of so many bytes, quotes included.
fn filler(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// Nodes whose only tag is their id.
fn nodes(ids: &[&str]) -> Vec<NodeConfig> {
    ids.iter().map(|id| NodeConfig::new(id).tags(&[id])).collect()
}

/// The dead letters of a node, as `/dead-letters` lists them.
fn dead_letters(node: &Daemon) -> Vec<serde_json::Value> {
    let listed = node.get("/dead-letters").json();
    let nested = || listed.as_object()?.values().find_map(serde_json::Value::as_array).cloned();
    listed.as_array().cloned().or_else(nested).unwrap_or_default()
}
