//! Real-shaped messages in by `slipstream pub -` and out by `slipstream sub`, byte for byte.

use std::collections::HashMap;
use std::fs;

use tempfile::TempDir;

use crate::harness::{Command, Daemon, Frame, LONG, Mesh, Payments, Running};

use super::nodes;

/// Numbers that no float or 64-bit integer holds.
const NUMBERS: [&str; 4] = [
    r#"{"type":"SK","messageId":"own-1","key":"own:1","value":1.10}"#,
    r#"{"type":"SK","messageId":"own-2","key":"own:2","value":{"n":[9223372036854775808, -0.0]}}"#,
    r#"{"type":"SA","messageId":"own-3","key":"own:3","value":[1e400,  1E+2, "\u00e9\/"]}"#,
    r#"{"type":"CMD","messageId":"own-4","key":"own:4","value":null,"ttlMs":60000}"#,
];

/// A command that prints what an application on `node` with the node's own tags is handed.
struct Output<'a> {
    node: &'a Daemon,
    expected: Vec<&'a Frame>,
    command: Running,
}

/// Everything goes in at one node and comes out at each node of the mesh as far as its tags
/// match, with every value byte for byte and the revisions of a key in order.
pub fn go_through_the_mesh_byte_for_byte(binary: &str) {
    let mesh = Mesh::ring(binary, nodes(&["aws", "gcp", "azure"]));
    let folder = TempDir::new().expect("a temporary folder can be made");
    let input = folder.path().join("input.ndjson");
    let mut payments = Payments::load();
    payments.text.push_str(&NUMBERS.join("\n"));
    payments.messages.extend(NUMBERS.map(Frame::parse));
    fs::write(&input, &payments.text).expect("a temporary file can be written");
    let outputs: Vec<_> = mesh.nodes.iter().map(|node| output(binary, node, &payments)).collect();

    let url = format!("ws://{}", mesh.nodes[0].config.address);
    Command::new(binary, &["pub", "-", "--url", &url]).input(&input).run().ok();

    for output in outputs {
        let id = &output.node.config.id;
        let printed = output.command.wait(LONG).ok();
        let handed: Vec<_> = printed.lines().map(Frame::parse).collect();
        assert_eq!(handed.len(), output.expected.len(), "at {id}");
        same_values(&handed, &output.expected);
        same_order_of_each_key(&handed, &output.expected);
    }
}

fn output<'a>(binary: &str, node: &'a Daemon, payments: &'a Payments) -> Output<'a> {
    let expected = payments.for_tag(&node.config.id);
    let (url, count) = (format!("ws://{}", node.config.address), expected.len().to_string());
    let args = ["sub", "--url", &url, "--client", "out", "--count", &count];
    let command = Command::new(binary, &args).spawn();
    node.await_client("out");
    Output { node, expected, command }
}

fn same_values(handed: &[Frame], expected: &[&Frame]) {
    let handed: HashMap<_, _> = handed.iter().map(|frame| (frame.id(), frame)).collect();
    for message in expected {
        let frame = handed.get(message.id());
        let frame = frame.unwrap_or_else(|| panic!("{} did not come", message.id()));
        assert_eq!(frame.value_text(), message.value_text(), "value of {}", message.id());
        assert_eq!(frame.key(), message.key());
        assert_eq!(frame.kind, message.kind);
        assert_eq!(frame.targeted_tags, message.targeted_tags, "tags of {}", message.id());
    }
}

fn same_order_of_each_key<'a>(handed: &'a [Frame], expected: &[&'a Frame]) {
    let mut written: HashMap<&str, Vec<&str>> = HashMap::new();
    expected.iter().for_each(|one| written.entry(one.key()).or_default().push(one.id()));
    let mut read: HashMap<&str, Vec<&str>> = HashMap::new();
    handed.iter().for_each(|one| read.entry(one.key()).or_default().push(one.id()));
    assert_eq!(read, written);
}
