//! What no friend would send: closed with the right code, in bounded memory and time (P8, P11).

use std::time::Duration;

use crate::harness::{App, Daemon, Message, NodeConfig, Opcode, PATIENCE, RawSocket};

const MIB: u64 = 1 << 20;
const BINARY: Option<&str> = Some("slipstream.postcard.v1");
/// Bound of anything that has to end by itself; the hand-shake time-out is far below it.
const SOON: Duration = Duration::from_secs(20);

fn node(binary: &str) -> Daemon {
    let config = NodeConfig::new("aws")
        .text("limits.handshake_timeout", "1s")
        .text("limits.max_message_bytes", "64KiB");
    Daemon::start(binary, config)
}

/// Runs `attack` and shows that the node has neither grown nor stopped serving.
fn survives(node: &Daemon, attack: impl FnOnce(&str)) {
    let before = node.resident_bytes();
    attack(&node.config.address);
    if let (Some(before), Some(after)) = (before, node.resident_bytes()) {
        let grown = after.saturating_sub(before);
        assert!(grown < 24 * MIB, "the node grew by {grown} bytes");
    }
    App::connect(node, "keys=").publish(&Message::event("m", "order:1", "1"));
}

/// Bytes that are no HTTP, and HTTP that is no upgrade.
pub fn garbage_instead_of_an_upgrade(binary: &str) {
    survives(&node(binary), |address| {
        let garbage: Vec<u8> = (0..64 * 1024_u32).map(|at| (at * 7 % 251) as u8).collect();
        let endless = b"GET / HTTP/1.1\r\nX: ".iter().copied().chain([b'x'; 256 * 1024]).collect();
        let plain = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
        for bytes in [garbage, endless, plain] {
            let mut socket = RawSocket::connect(address);
            socket.send(&bytes);
            socket.closed(SOON);
        }
    });
}

/// Connections that never finish their hand-shake, or never say what a peer has to say first.
pub fn half_open_handshakes(binary: &str) {
    survives(&node(binary), |address| {
        let mut sockets: Vec<_> = (0..100).map(|_| RawSocket::connect(address)).collect();
        for (at, socket) in sockets.iter_mut().enumerate() {
            match at % 3 {
                0 => {}
                1 => socket.send(b"GET / HTTP/1.1\r\nHost: local"),
                _ => socket.send(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n"),
            }
        }
        sockets.push(RawSocket::upgrade(address, "", BINARY));
        for socket in &mut sockets {
            socket.closed(SOON);
        }
    });
}

/// Frames that break RFC 6455.
pub fn broken_framing(binary: &str) {
    survives(&node(binary), |address| {
        let broken: [(&str, &[u8]); 5] = [
            ("an unmasked frame", &[0x81, 0x02, b'{', b'}']),
            ("a reserved bit", &[0xc1, 0x82, 0, 0, 0, 0, b'{', b'}']),
            ("a reserved opcode", &[0x83, 0x80, 0, 0, 0, 0]),
            ("a fragmented ping", &[0x09, 0x80, 0, 0, 0, 0]),
            ("a continuation of nothing", &[0x80, 0x80, 0, 0, 0, 0]),
        ];
        for (what, bytes) in broken {
            let mut socket = RawSocket::upgrade(address, "keys=", None);
            socket.send(bytes);
            assert_eq!(socket.closed(SOON), Some(1002), "{what}");
        }
    });
}

/// Text that is not UTF-8, also where only the whole message shows it.
pub fn text_that_is_not_utf8(binary: &str) {
    survives(&node(binary), |address| {
        for bytes in [&b"{\"type\":\"\xff\"}"[..], b"\xc3", b"\xed\xa0\x80"] {
            let mut socket = RawSocket::upgrade(address, "keys=", None);
            socket.send_frame(Opcode::Text, true, bytes);
            assert_eq!(socket.closed(SOON), Some(1007), "{bytes:?}");
        }
    });
}

/// Frame lengths that no memory holds: nothing is set aside for them.
pub fn lengths_that_no_memory_holds(binary: &str) {
    survives(&node(binary), |address| {
        for length in [1_u64 << 63, (1 << 63) - 1, 1 << 40, 1 << 31] {
            for opcode in [Opcode::Text, Opcode::Binary] {
                let mut socket = RawSocket::upgrade(address, "keys=", None);
                let mut bytes = vec![0x80 | opcode as u8, 0x80 | 127];
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(&[0; 64]);
                socket.send(&bytes);
                let code = socket.closed(SOON);
                let broken = length >> 63 == 1 && code == Some(1002);
                assert!(broken || code == Some(4413), "{length}: {code:?}");
            }
        }
    });
}

/// A message that grows fragment by fragment, and one of fragments without content.
pub fn endless_fragments(binary: &str) {
    survives(&node(binary), |address| {
        let mut socket = RawSocket::upgrade(address, "keys=", None);
        socket.send_frame(Opcode::Text, false, b"{");
        (0..512).for_each(|_| socket.send_frame(Opcode::Continuation, false, &[b' '; 1024]));
        assert_eq!(socket.closed(SOON), Some(4413));

        let mut socket = RawSocket::upgrade(address, "keys=", None);
        socket.send_frame(Opcode::Text, false, b"{}");
        let empty = [0x00, 0x80, 0, 0, 0, 0].repeat(50_000);
        socket.send(&empty);
        socket.send_frame(Opcode::Continuation, true, b"");
        // It may be closed for that or be answered; it may not hang.
        while let Some((opcode, payload)) = socket.read_frame(PATIENCE) {
            if opcode == Opcode::Close as u8 || payload.starts_with(br#"{"type":"ERR""#) {
                break;
            }
        }
    });
}

/// Binary frames that lie about lengths, are cut off, have bytes left over, or come too early.
pub fn lies_in_binary_frames(binary: &str) {
    const CONNECT: [u8; 2] = [4, 1];
    survives(&node(binary), |address| {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let publish = [&[6][..], &huge, b"abc"].concat();
        let settle = [&[10][..], &huge].concat();
        let lies: [(&str, &[u8]); 7] = [
            ("a length that is not there", &publish),
            ("a number without end", &[6, 0xff, 0xff, 0xff]),
            ("a settlement cut off", &settle),
            ("an unknown frame", &[250, 1, 2, 3]),
            ("an empty frame", &[]),
            ("a frame that only a node sends", &[7, 0]),
            ("a second greeting", &CONNECT),
        ];
        for (what, bytes) in lies {
            let mut socket = RawSocket::upgrade(address, "keys=", BINARY);
            socket.send_frame(Opcode::Binary, true, &sealed(&CONNECT));
            socket.send_frame(Opcode::Binary, true, &sealed(bytes));
            assert_eq!(socket.closed(SOON), Some(4400), "{what}");
        }
        // The same before any greeting, and greetings that are none.
        let hello_cut_off = [0, 1, 3, b'a'];
        let hello_with_a_lie = [&[0, 1][..], &huge, b"aws"].concat();
        let greetings: [&[u8]; 5] =
            [&publish, &[1, 0], &hello_cut_off, &hello_with_a_lie, &[4, 1, 0]];
        for bytes in greetings {
            let mut socket = RawSocket::upgrade(address, "keys=", BINARY);
            socket.send_frame(Opcode::Binary, true, &sealed(bytes));
            assert_eq!(socket.closed(SOON), Some(4400), "{bytes:?}");
        }
        let mut socket = RawSocket::upgrade(address, "keys=", BINARY);
        socket.send_frame(Opcode::Text, true, b"{}");
        assert_eq!(socket.closed(SOON), Some(4400), "text on a binary connection");
    });
}

/// A JSON value nested a hundred thousand deep does not reach anything recursive.
pub fn nesting_without_end(binary: &str) {
    let node = node(binary);
    survives(&node, |_| {
        let mut app = App::connect(&node, "keys=");
        for depth in [20_000, 60_000] {
            let value = "[".repeat(depth) + &"]".repeat(depth);
            let error = app.refused(&format!(r#"{{"type":"SK","key":"k","value":{value}}}"#));
            let code = error.code.as_deref().unwrap_or_default().to_owned();
            assert!(["TOO_DEEP", "TOO_LARGE"].contains(&code.as_str()), "{error:?}");
            let error = app.refused(&"[".repeat(depth));
            let code = error.code.as_deref().unwrap_or_default().to_owned();
            let fair = ["TOO_DEEP", "INVALID_JSON", "NOT_AN_OBJECT"].contains(&code.as_str());
            assert!(fair, "{error:?}");
        }
    });
}

/// Who does not answer pings is closed after the heartbeat's time-out.
pub fn no_heartbeat_no_connection(binary: &str) {
    let config =
        NodeConfig::new("aws").text("heartbeat.interval", "200ms").text("heartbeat.timeout", "1s");
    let node = Daemon::start(binary, config);
    let mut silent = RawSocket::upgrade(&node.config.address, "keys=", None);
    assert_eq!(silent.closed(SOON), Some(4408));
}

/// A frame with its checksum: lies with a bad one would not be looked at.
fn sealed(frame: &[u8]) -> bytes::Bytes {
    slipstream_core::wire::seal(bytes::BytesMut::from(frame))
}
