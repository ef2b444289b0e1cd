//! How commands leave a node, with a word (RFC 6455, section 7.4.1), and what they do if a node
//! leaves them.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};
use slipstream_core::clock::Hlc;
use slipstream_core::config::Durability;
use slipstream_core::wire::{
    self, BatchKind, FrameWriter, OutcomeRecord, Publish, Read, ReadResult, Welcome, Wire,
};
use tempfile::TempDir;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::{Message, WebSocket, accept_hdr};

use crate::harness::{Command, Daemon, LONG, NodeConfig, PATIENCE, until};

/// Whatever they have done, in either protocol, commands end with close code 1000.
pub fn commands_end_with_close_code_1000(binary: &str) {
    let commands = [
        &["pub", "SK", "k", "1"][..],
        &["pub", "SK", "k", "1", "--client", "till"],
        &["pub", "-"],
        &["get", "k"],
        &["sub", "--timeout", "100ms"],
        &["sub", "--timeout", "100ms", "--client", "out"],
    ];
    for protocol in ["json", "postcard"] {
        for command in commands {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            let url = format!("ws://{}/", listener.local_addr().expect("it is bound"));
            let args = [command, &["--url", &url, "--protocol", protocol]].concat();
            let running = Command::new(binary, &args).spawn();
            assert_eq!(closed(&listener), Some(1000), "{args:?}");
            running.wait(PATIENCE);
        }
    }
}

/// With a name, what is read from standard input is published whatever becomes of the node, and
/// once. Without one, it is said what is not known.
pub fn a_pub_whose_node_is_killed_goes_on_or_tells(binary: &str) {
    const LINES: usize = 100_000;
    let folder = TempDir::new().expect("a temporary folder can be made");
    let input = folder.path().join("input.ndjson");
    let mut lines = String::new();
    for number in 0..LINES {
        writeln!(lines, r#"{{"type":"SK","key":"k:{number}","value":{number}}}"#)
            .expect("memory can be written");
    }
    fs::write(&input, &lines).expect("a temporary file can be written");
    for (protocol, name) in [("postcard", Some("till")), ("json", Some("till")), ("json", None)] {
        let mut node = Daemon::start(binary, NodeConfig::new("aws"));
        let url = format!("ws://{}", node.config.address);
        let args = ["pub", "-", "--url", &url, "--protocol", protocol, "--timeout", "60s"];
        let args = [&args[..], &name.map_or(vec![], |name| vec!["--client", name])].concat();
        let running = Command::new(binary, &args).input(&input).spawn();
        let published = |node: &Daemon| node.metric("slipstream_messages_processed_total", &[]);
        until("the first messages", PATIENCE, || published(&node) >= 100.0);
        node.kill();
        node.run();
        let ended = running.wait(LONG);
        if name.is_some() {
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(ended.stderr.contains("connecting again"), "{ended:?}");
            assert!(ended.stderr.contains("published 100000 messages"), "{ended:?}");
        } else {
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stderr.contains("may be there or not: with --client"), "{ended:?}");
        }
    }
}

/// Serves a command as a node with nothing in it would, and gives the close code at its end.
fn closed(listener: &TcpListener) -> Option<u16> {
    listener.set_nonblocking(true).expect("a socket can be polled");
    let mut stream = None;
    until("the command to connect", PATIENCE, || {
        stream = listener.accept().ok();
        stream.is_some()
    });
    let (stream, _) = stream.expect("it has connected");
    stream.set_nonblocking(false).expect("a socket can wait");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut is_json = false;
    #[allow(clippy::result_large_err)] // tungstenite asks for this type
    let greet = |request: &Request, mut response: Response| -> Result<_, ErrorResponse> {
        let asked = request.headers()["Sec-WebSocket-Protocol"].clone();
        is_json = asked == "slipstream.json.v1";
        response.headers_mut().insert("Sec-WebSocket-Protocol", asked);
        Ok(response)
    };
    let mut socket = accept_hdr(stream, greet).expect("it is a WebSocket");
    if is_json {
        say(&mut socket, Message::text(GREETING));
    }
    loop {
        match socket.read().expect("it says goodbye") {
            Message::Text(text) => {
                if let Some(answer) = answer(&text) {
                    say(&mut socket, Message::text(answer.to_string()));
                }
            }
            Message::Binary(frame) => say(&mut socket, Message::binary(binary_answer(&frame))),
            Message::Close(close) => return close.map(|close| close.code.into()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

const GREETING: &str = r#"{"type":"WELCOME","instanceId":"n","client":null,"resumed":false,
    "tags":[],"keys":[],"replay":"new","ack":"manual","conflate":false,"window":256,
    "maxMessageBytes":1048576,"version":"1"}"#;

fn say(socket: &mut WebSocket<TcpStream>, message: Message) {
    socket.send(message).expect("the command listens");
}

fn answer(text: &str) -> Option<Value> {
    let asked: Value = serde_json::from_str(text).expect("it is JSON");
    let (id, key) = (&asked["messageId"], &asked["key"]);
    match asked["type"].as_str() {
        Some("SK") => Some(json!({
            "type": "ACK", "messageId": id, "version": "000000000001-0000-n", "level": "durable",
        })),
        Some("GK") => {
            Some(json!({ "type": "RESULT", "messageId": id, "key": key, "found": false }))
        }
        _ => None,
    }
}

fn binary_answer(frame: &[u8]) -> Vec<u8> {
    let frame = Vec::from(frame).into();
    match Wire::decode(&frame).expect("it is a frame") {
        Wire::Connect(_) => {
            let welcome = Welcome {
                protocol: 1,
                instance: "n".into(),
                client: String::new(),
                resumed: false,
                tags: String::new(),
                window: 256,
                max_message_bytes: 1 << 20,
                version: "1".into(),
                in_force: None,
            };
            Wire::Welcome(welcome).encode().into()
        }
        Wire::Publish(batch) => {
            let mut writer = FrameWriter::new(BatchKind::Outcomes);
            for Publish { id, .. } in wire::records(&batch).expect("records") {
                let (version, level) = (Hlc::default(), Durability::Full);
                writer.push(&OutcomeRecord::Receipt { id, version, duplicate: false, level });
            }
            writer.finish().into()
        }
        Wire::Reads(batch) => {
            let mut writer = FrameWriter::new(BatchKind::Results);
            for Read { id, key, .. } in wire::records(&batch).expect("records") {
                writer.push(&ReadResult { id, key, value: None });
            }
            writer.finish().into()
        }
        other => panic!("{other:?}"),
    }
}
