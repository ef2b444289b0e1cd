//! Connections as they must behave whatever the other side does. Every wait is bounded.
//!
//! Part of the unit tests of each shell, which says in its `tests.rs` what it runs on.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use bytes::Bytes;
use slipstream_core::channel::{self, Receiver};
use slipstream_core::client::ConnectError;
use slipstream_core::config::{Config, Limits};
use slipstream_core::connection;
use slipstream_core::event_loop::INPUTS;
use slipstream_core::exit::Exit;
use slipstream_core::ids::{DialId, LinkId, NodeId};
use slipstream_core::io::{Close, CloseCode, Frame, Input, Protocol};
use slipstream_core::links::Link;
use slipstream_core::runtime::{Runtime as _, Task, within};
use slipstream_core::upgrade::Rules;
use slipstream_shell::{accept, bind};

use super::runtime::{AsyncReadExt, AsyncWriteExt, Runtime, TcpListener, TcpStream, run};
use crate::{Node, Options};

pub(crate) type Incoming = connection::Incoming<Runtime>;
type Inputs = connection::Inputs<Runtime>;

const LINK: LinkId = LinkId::new(1);

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    within::<Runtime, _>(Duration::from_secs(10), what).await.expect("it takes too long")
}

pub(crate) fn limits() -> Limits {
    Limits {
        max_message_bytes: 1024,
        // Long enough for a handshake on a busy machine; some tests wait for it to pass.
        handshake_timeout: Duration::from_secs(3),
        ..Limits::default()
    }
}

/// A listener, and what its connections tell the loop.
pub(crate) struct Door {
    address: SocketAddr,
    sender: Inputs,
    pub(crate) inputs: Receiver<Incoming>,
    _listening: Task,
}

impl Door {
    pub(crate) async fn open(limits: Limits) -> Self {
        Self::with_places(limits, 8).await
    }

    async fn with_places(limits: Limits, unfinished: usize) -> Self {
        let (listener, address) = bind::<Runtime>("127.0.0.1:0".parse().unwrap()).unwrap();
        let (sender, inputs) = channel::bounded::<Runtime, _>(INPUTS);
        let rules = Rules { allowed_origins: Vec::new(), loopback: true, limits, unfinished };
        let listening = Task::spawn::<Runtime>(accept::<Runtime>(listener, rules, sender.clone()));
        Self { address, sender, inputs, _listening: listening }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// What comes next, but that bytes move.
    async fn next(&mut self) -> Incoming {
        loop {
            let next = soon(self.inputs.next()).await;
            if !is_moved(&next) {
                return next;
            }
        }
    }

    /// Takes the connection that was just made as link 1.
    pub(crate) async fn link(&mut self) -> Link {
        match self.next().await {
            Incoming::Opened(mut opened) => {
                opened.up.link = LINK;
                connection::open::<Runtime>(*opened, self.sender.clone())
            }
            other => panic!("{other:?}"),
        }
    }

    async fn frames(&mut self) -> Vec<Frame> {
        match self.next().await {
            Incoming::Received(LINK, frames, None) => frames,
            other => panic!("{other:?}"),
        }
    }

    /// The frames that are left, up to the end that the other side causes; orders that end.
    async fn last_frames(&mut self, link: &Link) -> Vec<Frame> {
        let mut last = Vec::new();
        loop {
            match self.next().await {
                Incoming::Received(LINK, frames, end) => {
                    last.extend(frames);
                    if let Some(end) = end {
                        link.end(end);
                        return last;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Why the link ended; what else came before is passed over.
    pub(crate) async fn down(&mut self) -> String {
        loop {
            if let Incoming::Input(Input::LinkDown { link: LINK, reason, .. }) = self.next().await {
                return reason;
            }
        }
    }

    async fn raw(&self, headers: &str) -> (TcpStream, String) {
        upgraded(self.address, headers).await
    }
}

fn is_moved(incoming: &Incoming) -> bool {
    matches!(incoming, Incoming::Input(Input::Moved { link: LINK }))
}

/// A raw connection behind its upgrade.
async fn upgraded(address: SocketAddr, headers: &str) -> (TcpStream, String) {
    upgraded_as("client=a", address, headers).await
}

async fn upgraded_as(query: &str, address: SocketAddr, headers: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         {headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let response = head(&mut stream).await;
    (stream, response)
}

async fn byte(stream: &mut TcpStream) -> u8 {
    let mut byte = [0];
    soon(stream.read_exact(&mut byte)).await.unwrap();
    byte[0]
}

async fn head(stream: &mut TcpStream) -> String {
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        response.push(byte(stream).await);
    }
    String::from_utf8(response).unwrap()
}

/// A frame as a browser sends it, with a mask of zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Reads to the end of the stream: the frames of a server, opcode and payload.
async fn frames_of(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.expect("no reset before the close frame is read");
    let (mut rest, mut frames) = (&rest[..], Vec::new());
    while let [first, second, behind @ ..] = rest {
        let (length, from) = match second {
            126 => (usize::from(u16::from_be_bytes([behind[0], behind[1]])), 2),
            length => (usize::from(*length), 0),
        };
        let (payload, next) = behind[from..].split_at(length);
        frames.push((first & 0x0f, payload.to_vec()));
        rest = next;
    }
    frames
}

/// Reads up to the close frame, which must be the last thing before the end of the stream.
async fn close_of(stream: &mut TcpStream) -> (u16, String) {
    let (opcode, payload) = frames_of(stream).await.pop().expect("a close frame");
    assert_eq!(opcode, 8);
    let (code, reason) = payload.split_at(2);
    (u16::from_be_bytes([code[0], code[1]]), String::from_utf8(reason.into()).unwrap())
}

#[test]
fn what_cannot_be_read_is_closed_with_its_code() {
    run(async {
        let cases = [
            (masked(0x82, &[7; 4097]), 4413, "a frame of 4097 bytes is above the limit of 4096"),
            (masked(0x81, &[0xff, 0xfe]), 1007, "text that is not UTF-8"),
            (vec![0x82, 1, 0], 1002, "Received an unmasked frame from client"),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1002, ""),
            (masked(0x83, &[]), 1002, ""),
        ];
        for (bytes, code, reason) in cases {
            let mut door = Door::open(limits()).await;
            let (mut stream, _) = door.raw("").await;
            let link = door.link().await;
            stream.write_all(&masked(0x81, b"before")).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let before = Frame::Text(Bytes::from_static(b"before"));
            assert_eq!(door.last_frames(&link).await, [before]);
            let (closed, said) = close_of(&mut stream).await;
            assert_eq!(closed, code, "{said}");
            assert!(said.starts_with(reason), "{said}");
            drop(stream);
            assert!(door.down().await.starts_with(&format!("closed here: {code}")));
        }
    });
}

#[test]
fn a_frame_at_the_limit_passes() {
    run(async {
        let mut door = Door::open(limits()).await;
        let (mut stream, _) = door.raw("").await;
        let _link = door.link().await;
        stream.write_all(&masked(0x82, &[7; 4096])).await.unwrap();
        assert_eq!(door.frames().await, [Frame::Binary(vec![7; 4096].into())]);
    });
}

#[test]
fn pings_are_answered_and_reported_and_closes_are_echoed() {
    run(async {
        let mut door = Door::open(limits()).await;
        let (mut stream, _) = door.raw("").await;
        let link = door.link().await;
        stream.write_all(&masked(0x89, b"hello")).await.unwrap();
        assert_eq!(door.frames().await, [Frame::Ping(Bytes::from_static(b"hello"))]);
        let mut pong = [0; 7];
        soon(stream.read_exact(&mut pong)).await.unwrap();
        assert_eq!(&pong, b"\x8a\x05hello");
        stream.write_all(&masked(0x88, b"\x03\xe8bye")).await.unwrap();
        assert_eq!(door.last_frames(&link).await, []);
        assert_eq!(close_of(&mut stream).await, (1000, "bye".into()));
        drop(stream);
        assert_eq!(door.down().await, "closed by the other side: 1000 bye");
    });
}

#[test]
fn a_cut_connection_is_told_without_delay() {
    run(async {
        let mut door = Door::open(limits()).await;
        let (stream, _) = door.raw("").await;
        let link = door.link().await;
        drop(stream);
        assert_eq!(door.last_frames(&link).await, []);
        assert_eq!(door.down().await, "the connection was closed without a close frame");
    });
}

#[test]
fn nothing_is_read_while_paused() {
    run(async {
        let mut door = Door::open(limits()).await;
        let (mut stream, _) = door.raw("").await;
        let link = door.link().await;
        link.pause(true);
        stream.write_all(&masked(0x81, b"later")).await.unwrap();
        let quiet = within::<Runtime, _>(Duration::from_millis(100), door.inputs.next()).await;
        assert!(quiet.is_none(), "{quiet:?}");
        link.pause(false);
        assert_eq!(door.frames().await, [Frame::Text(Bytes::from_static(b"later"))]);
    });
}

#[test]
fn a_turn_is_reported_once_and_the_close_comes_after_it() {
    run(async {
        let mut door = Door::open(limits()).await;
        let (mut stream, _) = door.raw("").await;
        let mut link = door.link().await;
        for text in [&b"one"[..], b"two"] {
            link.transmit(Frame::Text(Bytes::from_static(text)));
        }
        link.flush();
        link.transmit(Frame::Text(Bytes::from_static(b"three")));
        link.close(Close { code: CloseCode::GoingAway, reason: "x".repeat(200) });
        let mut frames = [0; 17];
        soon(stream.read_exact(&mut frames)).await.unwrap();
        assert_eq!(&frames, b"\x81\x03one\x81\x03two\x81\x05three");
        assert_eq!(close_of(&mut stream).await, (1001, "x".repeat(123)));
        drop(stream);
        let (mut all, mut sum) = (0, 0);
        while all < 3 {
            let Incoming::Input(Input::Sent { link: LINK, frames, cost }) = door.next().await
            else {
                panic!("not sent");
            };
            (all, sum) = (all + frames, sum + cost);
        }
        assert_eq!((all, sum), (3, 11 + 3 * 64));
        assert!(door.down().await.starts_with("closed here: 1001 xxx"));
    });
}

// keeps: signs-of-life
#[test]
fn bytes_that_move_are_told_before_their_frame_is_whole() {
    run(async {
        let mut door = Door::open(Limits { max_message_bytes: 8 << 20, ..limits() }).await;
        let (mut stream, _) = door.raw("").await;
        let mut link = door.link().await;
        let frame = masked(0x81, &[b'x'; 1000]);
        stream.write_all(&frame[..500]).await.unwrap();
        assert!(is_moved(&soon(door.inputs.next()).await), "half a frame has come");
        stream.write_all(&frame[500..]).await.unwrap();
        assert_eq!(door.frames().await.len(), 1);
        // One frame, more than any socket takes at once.
        link.transmit(Frame::Text(vec![b'x'; 16 << 20].into()));
        link.flush();
        let (mut some, mut has_moved) = (vec![0; 64 << 10], false);
        while !has_moved {
            soon(stream.read(&mut some)).await.unwrap();
            // The writer is given the time to fill the socket again, and to find it full.
            let told = within::<Runtime, _>(Duration::from_millis(5), door.inputs.next()).await;
            has_moved |= told.is_some_and(|incoming| is_moved(&incoming));
        }
    });
}

// keeps: signs-of-life
#[test]
fn a_ping_goes_out_between_the_pieces_of_a_large_frame() {
    run(async {
        let mut door = Door::open(Limits { max_message_bytes: 8 << 20, ..limits() }).await;
        let protocol = "Sec-WebSocket-Protocol: slipstream.postcard.v1\r\n";
        let (mut stream, _) = door.raw(protocol).await;
        let mut link = door.link().await;
        let sent: Vec<u8> = (0..8 << 20).map(|place: u32| (place % 251) as u8).collect();
        link.transmit(Frame::Binary(sent.clone().into()));
        link.flush();
        let (mut first, mut opcodes, mut received) = (byte(&mut stream).await, vec![], vec![]);
        // The frame is under way.
        link.transmit(Frame::Ping(Bytes::from_static(b"now")));
        link.flush();
        loop {
            let mut length = [0; 8];
            let size = match byte(&mut stream).await {
                126 => 2,
                127 => 8,
                short => {
                    length[7] = short;
                    0
                }
            };
            soon(stream.read_exact(&mut length[8 - size..])).await.unwrap();
            let mut payload = vec![0; u64::from_be_bytes(length) as usize];
            soon(stream.read_exact(&mut payload)).await.unwrap();
            opcodes.push(first);
            if first & 0x08 == 0 {
                received.append(&mut payload);
            }
            if first == 0x80 {
                break;
            }
            first = byte(&mut stream).await;
        }
        assert!(received == sent && opcodes[0] == 0x02 && opcodes.contains(&0x89), "{opcodes:?}");
    });
}

// keeps: no-hold-up, slow-peers
#[test]
fn a_peer_that_does_not_read_cannot_hold_up_the_end() {
    run(async {
        let mut door = Door::open(limits()).await;
        let (stream, _) = door.raw("").await;
        let mut link = door.link().await;
        for _ in 0..2000 {
            link.transmit(Frame::Binary(vec![0; 4096].into()));
        }
        link.close(Close { code: CloseCode::Limit, reason: String::new() });
        assert_eq!(door.down().await, "closed here: 4429 ");
        drop(stream);
    });
}

#[test]
fn what_is_no_upgrade_is_answered_with_a_reason() {
    run(async {
        let door = Door::open(limits()).await;
        let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(80_000));
        let cases = [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), "426", "WebSocket endpoint"),
            ("POST / HTTP/1.1\r\nHost: x\r\n\r\n".into(), "400", "GET"),
            ("\u{1}\u{2}\r\n\r\n".into(), "400", ""),
            (format!("{upgrade}Origin: https://evil.example\r\n\r\n"), "403", "allowed_origins"),
            (format!("{upgrade}Sec-WebSocket-Protocol: mqtt\r\n\r\n"), "400", "slipstream.json.v1"),
            (
                upgrade.replace("Version: 13", "Version: 8") + "\r\n",
                "400",
                "\r\nSec-WebSocket-Version: 13\r\n",
            ),
            (long, "400", "65536"),
        ];
        for (request, status, reason) in cases {
            let mut stream = TcpStream::connect(door.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            soon(stream.read_to_string(&mut response)).await.unwrap();
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
            assert!(response.contains(reason), "{response}");
        }
    });
}

#[test]
fn loopback_pages_may_connect_and_the_subprotocol_is_confirmed() {
    run(async {
        let mut door = Door::open(limits()).await;
        let headers = "Origin: http://localhost:8080\r\n\
                   Sec-WebSocket-Protocol: mqtt, slipstream.postcard.v1\r\n";
        let (_stream, response) = door.raw(headers).await;
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(response.to_lowercase().contains("sec-websocket-protocol: slipstream.postcard.v1"));
        let Incoming::Opened(opened) = door.next().await else { panic!("not opened") };
        let up = opened.up;
        assert_eq!((up.protocol, up.query.as_str()), (Protocol::Postcard, "client=a"));
    });
}

// keeps: upgrade-headers
#[test]
fn headers_of_an_upgrade_are_lists() {
    run(async {
        let mut door = Door::open(limits()).await;
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        let request = "GET /?client=a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive,\tUPGRADE\r\n\
            Upgrade: h2c\r\nUpgrade: WebSocket, h3\r\nConnection: TE\r\n\
            Sec-WebSocket-Version:\t13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = head(&mut stream).await;
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(matches!(door.next().await, Incoming::Opened(_)));
    });
}

// keeps: upgrade-headers
#[test]
fn an_answer_may_have_others_before_it_and_lists_in_it() {
    run(async {
        for (extension, is_taken) in [("", true), ("permessage-deflate", false)] {
            let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("ws://{}/", other.local_addr().unwrap());
            Runtime::spawn(async move {
                let (mut stream, _) = other.accept().await.unwrap();
                let request = head(&mut stream).await;
                let key = request.split("sec-websocket-key: ").nth(1);
                let key = key.or(request.split("Sec-WebSocket-Key: ").nth(1)).unwrap();
                let accept = derive_accept_key(key.split("\r\n").next().unwrap().as_bytes());
                let answer = format!(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
                     HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive\r\n\
                     Connection: x,\tuPGRADE\r\nUpgrade: h2c, WEBSOCKET\r\n\
                     Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: {extension}\r\n\
                     Sec-WebSocket-Protocol: slipstream.postcard.v1\r\n\r\n"
                );
                // The first of them in two parts.
                stream.write_all(&answer.as_bytes()[..9]).await.unwrap();
                stream.flush().await.unwrap();
                stream.write_all(&answer.as_bytes()[9..]).await.unwrap();
                while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
            });
            let (protocol, limits) = (Protocol::Postcard, limits());
            let opened = connection::connect::<Runtime>(&url, protocol, None, &limits).await;
            assert_eq!(opened.is_ok(), is_taken, "{:?}", opened.err());
        }
    });
}

#[test]
fn a_handshake_that_does_not_end_gives_its_place_back() {
    run(async {
        let door = Door::open(limits()).await;
        let mut silent = TcpStream::connect(door.address).await.unwrap();
        silent.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert_eq!(soon(silent.read(&mut [0; 9])).await.unwrap(), 0);
    });
}

// keeps: peers-get-in
#[test]
fn unfinished_handshakes_give_way_to_who_comes() {
    run(async {
        // Without the newcomers they would have an hour.
        let patient = Limits { handshake_timeout: Duration::from_secs(3600), ..limits() };
        let mut door = Door::with_places(patient, 2).await;
        let mut silent = Vec::new();
        for request in ["", "GET / HTTP/1.1\r\n", "", ""] {
            let mut stream = TcpStream::connect(door.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        let (_stream, response) = door.raw("").await;
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(matches!(door.next().await, Incoming::Opened(_)));
        for stream in &mut silent[..3] {
            // What is closed with unread bytes is reset.
            assert!(matches!(soon(stream.read(&mut [0; 9])).await, Ok(0) | Err(_)));
        }
    });
}

// keeps: no-hold-up
#[test]
fn a_flood_behind_a_refusal_or_a_close_holds_no_place() {
    run(async {
        let mut door = Door::open(limits()).await;
        let mut refused = TcpStream::connect(door.address).await.unwrap();
        refused.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
        soon(flood(&mut refused)).await;
        let (mut closed, response) = door.raw("").await;
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        door.link().await.close(Close { code: CloseCode::Limit, reason: String::new() });
        soon(flood(&mut closed)).await;
        assert_eq!(door.down().await, "closed here: 4429 ");
        let (_next, _) = door.raw("").await;
        assert!(matches!(door.next().await, Incoming::Opened(_)));
    });
}

/// Sends until the other side does not let it any more.
async fn flood(stream: &mut TcpStream) {
    while stream.write_all(&[0; 64 * 1024]).await.is_ok() {}
}

// keeps: no-hold-up
#[test]
fn one_connection_too_many_is_told_so() {
    run(async {
        let data = tempfile::tempdir().unwrap();
        let mut options = options(data.path(), "127.0.0.1:0".parse().unwrap());
        options.config.limits.max_connections = 1;
        let node = soon(Node::start(options)).await.unwrap();
        const TEXT: u8 = 0x81;
        let (mut first, _) = upgraded_as("client=a", node.local_addr(), "").await;
        assert_eq!(byte(&mut first).await, TEXT, "it is welcome, and has the place");
        let (mut second, _) = upgraded_as("client=b", node.local_addr(), "").await;
        let (code, reason) = close_of(&mut second).await;
        assert_eq!(code, 4429);
        assert!(reason.contains("max_connections"), "{reason}");
        drop(first);
        // That the first one has left is known a moment later.
        soon(async {
            while TEXT != byte(&mut upgraded_as("client=c", node.local_addr(), "").await.0).await {}
        })
        .await;
        assert_eq!(soon(node.shutdown()).await, Exit::Stopped);
    });
}

#[test]
fn a_dialled_link_carries_frames_both_ways() {
    run(async {
        let mut door = Door::open(limits()).await;
        let (sender, mut dialled) = channel::bounded::<Runtime, _>(INPUTS);
        let (dial, inputs) = (DialId::new(3), sender.clone());
        Runtime::spawn(connection::dial::<Runtime>(dial, door.url(), None, limits(), inputs));
        let mut here = door.link().await;
        let Incoming::Opened(mut opened) = soon(dialled.next()).await else { panic!() };
        opened.up.link = LINK;
        let up = opened.up.clone();
        assert_eq!((up.dial, up.remote), (Some(DialId::new(3)), door.address.to_string()));
        let mut there = connection::open::<Runtime>(*opened, sender);
        there.transmit(Frame::Binary(Bytes::from_static(b"from there")));
        there.flush();
        assert_eq!(door.frames().await, [Frame::Binary(Bytes::from_static(b"from there"))]);
        here.transmit(Frame::Ping(Bytes::from_static(b"p")));
        here.flush();
        let mut received = Vec::new();
        while received.is_empty() {
            if let Incoming::Received(_, frames, _) = soon(dialled.next()).await {
                received = frames;
            }
        }
        assert_eq!(received, [Frame::Ping(Bytes::from_static(b"p"))]);
        loop {
            if let Incoming::Received(_, frames, _) = door.next().await {
                assert_eq!(frames, [Frame::Pong(Bytes::from_static(b"p"))]);
                break;
            }
        }
    });
}

#[test]
fn a_dial_that_fails_says_why() {
    run(async {
        let connect = async |url: &str| {
            let (protocol, limits) = (Protocol::Postcard, limits());
            let failed = connection::connect::<Runtime>(url, protocol, None, &limits).await;
            failed.expect_err("nobody is there")
        };
        assert!(matches!(connect("http://x/").await, ConnectError::BadUrl(_)));
        assert!(matches!(connect("wss://x/").await, ConnectError::NoTls));
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", unused.local_addr().unwrap());
        assert!(matches!(connect(&url).await, ConnectError::TimedOut(_)));
        drop(unused);
        assert!(matches!(connect(&url).await, ConnectError::Unreachable(_)));
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", other.local_addr().unwrap());
        Runtime::spawn(async move {
            let (mut stream, _) = other.accept().await.unwrap();
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\ngo away").await.unwrap();
        });
        let refused = connect(&url).await.to_string();
        assert_eq!(refused, "refused with HTTP 403: go away");
    });
}

// keeps: answers-before-close
#[test]
fn what_came_before_the_end_is_answered_before_the_close_frame() {
    run(async {
        let data = tempfile::tempdir().unwrap();
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let node = soon(Node::start(options(data.path(), anywhere))).await.unwrap();
        let bad = masked(0x81, b"[]");
        let ends = [(masked(0x88, b"\x03\xe8"), 1000), (masked(0xc1, &[]), 1002)];
        // Often, as an answer that races with the close frame wins now and then.
        for (end, code) in ends.iter().cycle().take(100) {
            let (mut stream, _) = upgraded(node.local_addr(), "").await;
            let mut greeting = Vec::new();
            while !greeting.ends_with(br#"{"type":"SYNCED"}"#) {
                greeting.push(byte(&mut stream).await);
            }
            // One write, so that the end is there as soon as the frame is.
            stream.write_all(&[&bad[..], end].concat()).await.unwrap();
            let frames = frames_of(&mut stream).await;
            let error = |(_, payload): &(u8, Vec<u8>)| payload.starts_with(br#"{"type":"ERR""#);
            assert!(frames.iter().any(error), "{frames:?}");
            let (opcode, close) = frames.last().expect("a close frame");
            assert_eq!((*opcode, &close[..2]), (8, &u16::to_be_bytes(*code)[..]));
        }
        assert_eq!(soon(node.shutdown()).await, Exit::Stopped);
    });
}

// keeps: answers-before-close
#[test]
fn receipts_leave_before_the_close_for_what_cannot_be_read() {
    run(async {
        let data = tempfile::tempdir().unwrap();
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let node = soon(Node::start(options(data.path(), anywhere))).await.unwrap();
        let message = br#"{"type":"SK","messageId":"m-1","key":"k","value":1}"#;
        let mut too_large = vec![0x81, 0x80 | 127];
        too_large.extend_from_slice(&u64::to_be_bytes(1 << 40));
        too_large.extend_from_slice(&[0; 4]);
        let ends = [(masked(0x81, b"\xff"), 1007), (masked(0xc1, &[]), 1002), (too_large, 4413)];
        for (end, code) in ends {
            let (mut stream, _) = upgraded(node.local_addr(), "").await;
            let mut greeting = Vec::new();
            while !greeting.ends_with(br#"{"type":"SYNCED"}"#) {
                greeting.push(byte(&mut stream).await);
            }
            stream.write_all(&[masked(0x81, message), end].concat()).await.unwrap();
            let frames = frames_of(&mut stream).await;
            let receipt = |(_, payload): &(u8, Vec<u8>)| payload.starts_with(br#"{"type":"ACK""#);
            assert!(frames.iter().any(receipt), "{code}: {frames:?}");
            let (opcode, close) = frames.last().expect("a close frame");
            assert_eq!((*opcode, &close[..2]), (8, &u16::to_be_bytes(code)[..]));
        }
        assert_eq!(soon(node.shutdown()).await, Exit::Stopped);
    });
}

fn options(data_dir: &std::path::Path, listen: SocketAddr) -> Options {
    let config = Config::new(NodeId::new("n").unwrap());
    Options { listen, ..Options::new(config, data_dir) }
}

#[test]
fn a_node_starts_answers_and_says_why_another_cannot() {
    run(async {
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let node = soon(Node::start(options(one.path(), anywhere))).await.unwrap();
        soon(node.alive()).await.unwrap();
        let same_address = options(two.path(), node.local_addr());
        let mut bad_peer = options(two.path(), anywhere);
        bad_peer.config.peers = vec!["gcp-1:7400".into()];
        let cases = [
            (options(one.path(), anywhere), "slipstream.db is in use"),
            (same_address, "cannot listen on 127.0.0.1"),
            (bad_peer, "must look like ws://HOST:PORT/"),
        ];
        for (options, reason) in cases {
            let error = soon(Node::start(options)).await.expect_err("it cannot start");
            assert!(error.to_string().contains(reason), "{error}");
        }
    });
}
